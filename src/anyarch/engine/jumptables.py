"""What a computed jump may reach: tables of code addresses, found by following constants.

Nothing here has to be right: a region compares the pc that it really gets, and one that was not
expected is looked up like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from anyarch.errors import MemoryFault
from anyarch.ir.graph import Node
from anyarch.ir.ops import OPS, evaluate
from anyarch.isa.architecture import Architecture

if TYPE_CHECKING:
    from anyarch.engine.regions import Occurrence

ARMS: Final = 512  # entries of one table
REACH: Final = 1 << 16  # bytes of code on either side of the jump

Read = Callable[[int, int], bytes]

# An abstract value: ("const", v); ("near", v): v and something unknown; ("loaded", table, nbytes);
# ("offset", table, nbytes, base): what was loaded from the table, and base.
Value = tuple[str, int] | tuple[str, int, int] | tuple[str, int, int, int] | None


class Values:
    """What is known of the registers at one place."""

    def __init__(
        self,
        architecture: Architecture,
        known: dict[tuple[str, int], Value] | None = None,
        hints: bytes = b"",
    ) -> None:
        self._architecture, self._known = architecture, known or {}
        link = architecture.convention.link
        if link is not None:
            for index in range(len(hints) // 8):
                value = int.from_bytes(hints[8 * index : 8 * index + 8], "little")
                self._known[link[0], index] = "const", value

    def copy(self) -> Values:
        """For another path from here."""
        return Values(self._architecture, dict(self._known))

    def step(self, found: Occurrence) -> None:
        """After an instruction."""
        if not found.template.is_native:
            return
        layout = self._architecture.layout
        written: list[tuple[tuple[str, int], Value]] = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                index, node = effect.node.args
                file, number = str(effect.node.attrs[0]), found.constant(index)
                if number == layout.by_name[file].zero:
                    continue
                value = None if effect.guard else self._value(found, node)
                written.append((layout.place(file, number), value))
        for where, value in written:
            if value is None:
                self._known.pop(where, None)
            else:
                self._known[where] = value

    def arms(self, found: Occurrence, read: Read, read_data: Read) -> list[int]:
        """The targets of a computed jump, where it takes them from a table. ``read`` has to have
        code at the targets, ``read_data`` reads the table."""
        for effect in found.template.graph.effects:
            if effect.node.op == "jump":
                match self._value(found, effect.node.args[0]):
                    case ("offset", table, nbytes, base):
                        return _read_table(found.pc, table, nbytes, base, read, read_data)
                    case ("loaded", table, nbytes):
                        return _read_table(found.pc, table, nbytes, 0, read, read_data)
        return []

    def _value(self, found: Occurrence, node: Node) -> Value:
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
                case ("near", table):
                    return "loaded", table, node.size // 8
            return None
        if node.op in ("sext", "zext"):
            value = self._value(found, node.args[0])
            if value is not None and value[0] == "loaded":
                return value
        if node.op in ("add", "and"):
            return self._joined(node, [self._value(found, arg) for arg in node.args])
        if node.op in OPS and node.args:
            values = [self._value(found, arg) for arg in node.args]
            if all(value is not None and value[0] == "const" for value in values):
                numbers = tuple(value[1] for value in values if value is not None)
                sizes = tuple(arg.size for arg in node.args)
                attrs = tuple(int(attr) for attr in node.attrs)
                return "const", evaluate(node.op, node.size, numbers, sizes, attrs)
        return None

    def _joined(self, node: Node, values: list[Value]) -> Value:
        a, b = values
        if a is not None and a[0] == "const":
            a, b = b, a
        if b is None or b[0] != "const":
            return None
        constant, mask = b[1], (1 << node.size) - 1
        if node.op == "and":  # the lowest bit of a target is cleared
            if a is not None and a[0] == "const":
                return "const", a[1] & constant
            return a if constant == mask - 1 else None
        match a:
            case None:
                return "near", constant
            case ("const", value) | ("near", value):
                return a[0], value + constant & mask
            case ("loaded", table, nbytes):
                return "offset", table, nbytes, constant
        return None


def _read_table(
    pc: int, table: int, nbytes: int, base: int, read: Read, read_data: Read
) -> list[int]:
    arms: dict[int, None] = {}
    for index in range(ARMS):
        try:
            data = read_data(table + index * nbytes, nbytes)
            entry = int.from_bytes(data, "little", signed=True)
            target = base + entry & (1 << 64) - 1
            if abs(target - pc) > REACH or target & 1:
                break
            read(target, 2)
        except MemoryFault:
            break
        arms[target] = None
    return list(arms)
