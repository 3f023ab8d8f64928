"""What a computed jump may reach: tables of code addresses, found by following constants.

Nothing here has to be right: a region compares the pc that it really gets, or the address that an
entry was really loaded from, and what was not expected is looked up like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard

from anyarch.engine.folding import Folding
from anyarch.errors import MemoryFault
from anyarch.ir.graph import Node
from anyarch.ir.ops import OPS, evaluate
from anyarch.isa.architecture import Architecture

if TYPE_CHECKING:
    from anyarch.engine.regions import Occurrence

ARMS: Final = 512  # entries of one table
_WIDE: Final = 4  # bytes of an entry that tells by itself whether it is one
_ADDRESS_BITS: Final = 48
REACH: Final = 1 << 16  # bytes of code on either side of the jump

Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Table:
    """A jump table: entries of ``nbytes`` from ``address`` on, what they are, and where they lead.

    ``load`` is the pc of the instruction that takes an entry.
    """

    address: int
    nbytes: int
    data: bytes
    targets: tuple[int, ...]
    load: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A value that was loaded at pc ``at``, ``nbytes`` from near ``address``, shifted left by
    ``shift``, and ``base`` added.

    Where the address was ``exact``, the table may begin before it; ``count`` is how many entries
    its index was compared with, if it was.
    """

    address: int
    nbytes: int
    at: int
    exact: bool
    base: int = 0
    shift: int = 0
    signed: bool = True
    count: int | None = None


# An abstract value: ("const", v); ("near", v): v and something unknown; or what was loaded.
Value = tuple[str, int] | Loaded | None


class Values:
    """What is known of the registers at one place."""

    def __init__(
        self,
        architecture: Architecture,
        known: dict[tuple[str, int], Value] | None = None,
        hints: bytes = b"",
        limits: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self._architecture, self._known = architecture, known or {}
        self._limits = limits or {}
        self._found: dict[int, Value] = {}  # of nodes of the instruction that is looked at
        link = architecture.convention.link
        if link is not None:
            for index in range(len(hints) // 8):
                value = int.from_bytes(hints[8 * index : 8 * index + 8], "little")
                self._known[link[0], index] = "const", value

    def copy(self) -> Values:
        """For another path from here."""
        return Values(self._architecture, dict(self._known), limits=dict(self._limits))

    def step(self, found: Occurrence) -> None:
        """After an instruction."""
        if not found.template.is_native:
            return
        self._found.clear()
        layout = self._architecture.layout
        written: list[tuple[tuple[str, int], Value]] = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                index, node = effect.node.args
                file, number = str(effect.node.attrs[0]), found.constant(index)
                if number == layout.by_name[file].zero:
                    continue
                value = self._value(found, node) if effect.guard is None else None
                written.append((layout.place(file, number), value))
        compared = self._compared(found)
        for where, value in written:
            self._limits.pop(where, None)
            if value is None:
                self._known.pop(where, None)
            else:
                self._known[where] = value
        if compared is not None:
            self._limits[compared[0]] = compared[1]

    def _compared(self, found: Occurrence) -> tuple[tuple[str, int], int] | None:
        """A register and the number that an instruction sets flags by comparing it with."""
        flags = self._architecture.convention.flags
        graph = found.template.graph
        values = [
            effect.node.args[1]
            for effect in graph.effects
            if effect.node.op == "write" and effect.node.attrs[0] == flags
        ]
        registers = [node for node in graph.live() if node.op == "register"]
        if not values or len(registers) != 1:
            return None
        (register,) = registers
        number = found.constant(register.args[0])
        where = self._architecture.layout.place(str(register.attrs[0]), number)
        for node in graph.live():
            if node.op == "const" or node.number not in found.template.constants:
                continue
            known = found.constant(node)
            for limit in (known, ~known & (1 << node.size) - 1):
                if 0 < limit < ARMS and self._is_equality(found, values, register, limit):
                    return where, limit
        return None

    def _is_equality(
        self, found: Occurrence, values: list[Node], register: Node, limit: int
    ) -> bool:
        """Whether one of some values tells a register that holds ``limit`` from its neighbours."""
        columns = []
        for number in (limit - 1, limit, limit + 1):
            folding = Folding(found, partial(_held, register, number))
            columns.append([folding.value(value) for value in values])
        return any(column == (0, 1, 0) for column in zip(*columns, strict=True))

    def table(self, found: Occurrence, read: Read, read_data: Read) -> Table | None:
        """The table that a computed jump takes its target from. ``read`` has to have code at the
        targets, ``read_data`` reads the table."""
        self._found.clear()
        for effect in found.template.graph.effects:
            if effect.node.op == "jump":
                value = self._value(found, effect.node.args[0])
                if isinstance(value, Loaded):
                    return _read_table(found.pc, value, read, read_data)
        return None

    def _value(self, found: Occurrence, node: Node) -> Value:
        """What a node is known to be, found out once in each instruction."""
        if node.number not in self._found:
            self._found[node.number] = self._find(found, node)
        return self._found[node.number]

    def _find(self, found: Occurrence, node: Node) -> Value:
        if node.op == "const" or node.number in found.template.constants:
            return "const", found.constant(node)
        if node.op == "register":
            layout = self._architecture.layout
            file, number = str(node.attrs[0]), found.constant(node.args[0])
            if number == layout.by_name[file].zero:
                return "const", 0
            return self._known.get(layout.place(file, number))
        if node.op == "load":
            match self._value(found, node.args[0]):
                case ("near", address) | Loaded(base=address) if address:
                    count = self._count(found, node.args[0])
                    return Loaded(address, node.size // 8, found.pc, exact=False, count=count)
                # An index is a constant on the first path that leads here. Pointers of full
                # size at constant addresses are mostly no table: those that a linker fills in.
                case ("const", address) if node.size == 32:
                    return Loaded(address, node.size // 8, found.pc, exact=True)
            return None
        if node.op in ("sext", "zext"):
            value = self._value(found, node.args[0])
            if isinstance(value, Loaded):
                if node.args[0].size == 8 * value.nbytes:
                    value = replace(value, signed=node.op == "sext")
                return value
            if value is not None and value[0] == "near":
                return value
        if node.op == "extract" and node.attrs[0] == 0:
            value = self._value(found, node.args[0])
            if isinstance(value, Loaded) and node.size >= 8 * value.nbytes and not value.base:
                return value
            # An address without its tag.
            if value is not None and not isinstance(value, Loaded) and node.size >= _ADDRESS_BITS:
                return value
        if node.op == "shl":
            value, amount = (self._value(found, arg) for arg in node.args)
            if isinstance(value, Loaded) and _is_constant(amount) and not value.base:
                return replace(value, shift=value.shift + amount[1])
        if node.op in ("add", "and"):
            return self._joined(node, [self._value(found, arg) for arg in node.args])
        if node.op in OPS and node.args:
            values = [self._value(found, arg) for arg in node.args]
            numbers = tuple(value[1] for value in values if _is_constant(value))
            if len(numbers) == len(values):
                sizes = tuple(arg.size for arg in node.args)
                attrs = tuple(int(attr) for attr in node.attrs)
                return "const", evaluate(node.op, node.size, numbers, sizes, attrs)
        return None

    def _count(self, found: Occurrence, address: Node) -> int | None:
        """How many entries there are at an address, by what its index was compared with."""
        work, seen = [address], {address.number}
        while work:
            node = work.pop()
            fresh = [arg for arg in node.args if arg.number not in seen]
            seen.update(arg.number for arg in fresh)
            work += fresh
            if node.op == "register":
                number = found.constant(node.args[0])
                where = self._architecture.layout.place(str(node.attrs[0]), number)
                if where in self._limits:
                    return self._limits[where] + 1
        return None

    def _joined(self, node: Node, values: list[Value]) -> Value:
        a, b = values
        if _is_constant(a):
            a, b = b, a
        if not _is_constant(b):
            return None
        constant, mask = b[1], (1 << node.size) - 1
        if node.op == "and":  # the lowest bit of a target is cleared
            if _is_constant(a):
                return "const", a[1] & constant
            return a if constant == mask - 1 else None
        match a:
            case None:
                return "near", constant
            case ("const", value) | ("near", value):
                return a[0], value + constant & mask
            case Loaded(base=0):
                return replace(a, base=constant)
        return None


def _is_constant(value: Value) -> TypeGuard[tuple[str, int]]:
    return isinstance(value, tuple) and value[0] == "const"


def _held(register: Node, number: int, node: Node) -> int | None:
    return number if node is register else None


def _read_table(pc: int, loaded: Loaded, read: Read, read_data: Read) -> Table | None:
    """The entries around an address that lead to code near the jump."""

    def entry(index: int) -> tuple[bytes, int] | None:
        try:
            data = read_data(loaded.address + index * loaded.nbytes, loaded.nbytes)
            offset = int.from_bytes(data, "little", signed=loaded.signed) << loaded.shift
            target = loaded.base + offset & (1 << 64) - 1
            if abs(target - pc) > REACH or target & 1:
                return None
            read(target, 2)
        except MemoryFault:
            return None
        return data, target

    if loaded.nbytes < _WIDE and loaded.count is None:
        return None  # nearly everything looks like its entries
    entries = list(_until_none(map(entry, range(min(loaded.count or ARMS, ARMS)))))
    before = list(_until_none(map(entry, range(-1, -ARMS, -1)))) if loaded.exact else []
    if not entries:
        return None
    return Table(
        loaded.address - len(before) * loaded.nbytes,
        loaded.nbytes,
        b"".join(data for data, _ in (*reversed(before), *entries)),
        tuple(target for _, target in (*reversed(before), *entries)),
        loaded.at,
    )


def _until_none(entries: Iterable[tuple[bytes, int] | None]) -> Iterator[tuple[bytes, int]]:
    for entry in entries:
        if entry is None:
            return
        yield entry
