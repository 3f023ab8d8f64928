"""Records of the native interpreter: what a handler reads, and how the builder fills it.

A record is ``{handler pointer, u16 pc offset, slots…}``. Whatever in a graph depends only on the
instruction word and its address is computed once by the builder and read from a slot; the rest is
the handler. Forms with equal handlers share one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from anyarch.emit.llvm import Emitter
from anyarch.errors import DefinitionError
from anyarch.host.context import FIELDS, REGISTERS
from anyarch.ir.graph import FLOATS, Graph, Node
from anyarch.ir.ranges import signed_range
from anyarch.isa.architecture import Architecture
from anyarch.isa.encoding import Row
from anyarch.isa.registers import Layout

HEADER: Final = 10  # handler pointer, pc offset
LINK_NBYTES: Final = 24  # record pointer, resolver's handler pointer, target pc

RETURN: Final = "return"  # in place of a file: that link is to where a call comes back to

LEAVING_AFTER: Final = frozenset({"code_changed", "halt"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a record. ``kind``: value, read, write (register offsets) or link."""

    kind: str
    node: Node
    file: str
    offset: int
    nbytes: int


@dataclass(slots=True)
class RecordLayout:
    """The slots of one form, by what they hold."""

    slots: dict[tuple[str, str, int], Slot] = field(default_factory=dict)
    nbytes: int = 0

    def slot(self, kind: str, node: Node, file: str = "") -> Slot:
        """The slot for a node."""
        return self.slots[kind, file, node.number]

    @property
    def reads(self) -> list[int]:
        """Offsets of the slots that say which register is read, ascending."""
        return sorted(slot.offset for slot in self.slots.values() if slot.kind == "read")

    @property
    def write(self) -> int:
        """Offset of the slot that says which register is written; 0 where not exactly one is."""
        writes = [slot.offset for slot in self.slots.values() if slot.kind == "write"]
        return writes[0] if len(writes) == 1 else 0


def record_constants(graph: Graph) -> set[int]:
    """Numbers of the nodes that depend only on the instruction word and its address.

    Slots hold 64 bits: wider ones are made of narrower ones by the handler.
    """
    result: set[int] = set()
    for node in graph.live():
        if node.op in ("const", "field", "pc") or (
            node.op not in ("register", *FLOATS)
            and node.args
            and 0 < node.size <= 64
            and not any(node is effect.node for effect in graph.effects)
            and all(arg.number in result for arg in node.args)
        ):
            result.add(node.number)
    return result


def call_of(graph: Graph, constants: set[int], architecture: Architecture) -> Node | None:
    """What an instruction writes that jumps and keeps the pc behind it in a register that calls
    return through, or may; None if it does not."""
    jumps = [effect for effect in graph.effects if effect.node.op == "jump"]
    writes = [effect for effect in graph.effects if effect.node.op == "write"]
    if len(jumps) != 1 or len(writes) != 1 or jumps[0].guard is not None:
        return None
    (written,) = writes
    index, value = written.node.args
    if written.guard is not None or value.number not in constants or value.op == "const":
        return None
    file, places = str(written.node.attrs[0]), architecture.return_registers
    if index.op == "const":
        return value if architecture.layout.place(file, index.value) in places else None
    holder, _ = architecture.layout.place(file, 0)
    return value if any(holder == name for name, _ in places) else None


def lay_out(
    graph: Graph, constants: set[int], nbytes: int, call: Node | None = None
) -> RecordLayout:
    """Assign slots: two-byte ones first, then four, then eight, links last. A ``call`` has a link
    to where it comes back to (:func:`call_of`)."""
    wanted: dict[tuple[str, str, int], tuple[Node, int]] = {}

    def want(kind: str, node: Node, file: str, size: int) -> None:
        wanted.setdefault((kind, file, node.number), (node, size))

    def use(node: Node) -> None:
        if node.op == "const":
            return
        if node.number in constants:
            low, high = signed_range(node)
            size = next(
                n
                for n in (2, 4, 8)
                if n == 8 or (-(1 << 8 * n - 1) <= low and high < 1 << 8 * n - 1)
            )
            want("value", node, "", size)

    visited: set[int] = set()

    def visit(node: Node) -> None:
        if node.number in visited:
            return
        visited.add(node.number)
        if node.number in constants:
            use(node)
        elif node.op == "register":
            (index,) = node.args
            if index.op != "const":
                if index.number not in constants:
                    raise DefinitionError(f"{graph.name}: a register number is computed")
                want("read", index, str(node.attrs[0]), 2)
        else:
            for arg in node.args:
                visit(arg)

    needs_next = False
    for effect in graph.effects:
        node = effect.node
        if effect.guard is not None:
            visit(effect.guard)
        if node.op == "write":
            index, value = node.args
            if index.op != "const":
                want("write", index, str(node.attrs[0]), 2)
            visit(value)
        elif node.op == "jump" and node.args[0].number in constants:
            want("link", node.args[0], "", LINK_NBYTES)
        else:
            for arg in node.args:
                visit(arg)
        needs_next |= node.op == "syscall" or node.attrs[:1] in {(n,) for n in LEAVING_AFTER}
    if call is not None:
        want("link", call, RETURN, LINK_NBYTES)
    if needs_next:
        next_pc = graph.pure("add", 64, (graph.pc(), graph.const(nbytes, 64)))
        want("value", next_pc, "next", 8)
    layout = RecordLayout()
    offset = HEADER
    for nbytes_wanted in (2, 4, 8, LINK_NBYTES):
        for key, (node, size) in wanted.items():
            if size == nbytes_wanted:
                align = min(size, 8)
                offset = (offset + align - 1) // align * align
                layout.slots[key] = Slot(key[0], node, key[1], offset, size)
                offset += size
    layout.nbytes = (offset + 7) // 8 * 8
    return layout


def field_offset(name: str) -> int:
    """Byte offset of a context field."""
    return FIELDS[name][0]


class BuilderEmitter(Emitter):
    """Fills a record's slots from the instruction word and its address."""

    def __init__(self, row: Row, layout: RecordLayout, registers: Layout) -> None:
        super().__init__()
        self.row, self.layout, self.registers = row, layout, registers

    def leaf(self, node: Node) -> str:
        if node.op == "pc":
            return "%pc"
        if node.op != "field":
            return super().leaf(node)
        name = str(node.attrs[0])
        t = f"i{max(node.size, 64)}"
        parts = []
        for piece in self.row.fields[name]:
            shifted = self.let(f"lshr i64 %word, {piece.at}") if piece.at else "%word"
            part = self.let(f"and i64 {shifted}, {(1 << piece.size) - 1}")
            parts.append(self.let(f"shl i64 {part}, {piece.to}") if piece.to else part)
        total = parts[0]
        for part in parts[1:]:
            total = self.let(f"or {t} {total}, {part}")
        return total if node.size == 64 else self.let(f"trunc i64 {total} to i{node.size}")

    def slots(self) -> None:
        """Store every slot."""
        for slot in self.layout.slots.values():
            pointer = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset}")
            match slot.kind:
                case "link":
                    resolver = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset + 8}")
                    self.line(f"store ptr {resolver}, ptr {pointer}, align 8")
                    self.line(f"store ptr @aa_resolve, ptr {resolver}, align 8")
                    pc = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset + 16}")
                    self.line(f"store i64 {self.value(slot.node)}, ptr {pc}, align 8")
                case "value":
                    self._store_value(slot, pointer)
                case _:
                    self._store_register(slot, pointer)

    def _store_value(self, slot: Slot, pointer: str) -> None:
        bits, size = slot.nbytes * 8, slot.node.size
        value = self.value(slot.node)
        if size < bits:
            value = self.let(f"sext i{size} {value} to i{bits}")
        elif size > bits:
            value = self.let(f"trunc i{size} {value} to i{bits}")
        self.line(f"store i{bits} {value}, ptr {pointer}, align {slot.nbytes}")

    def _store_register(self, slot: Slot, pointer: str) -> None:
        declared = self.registers.by_name[slot.file]
        size = slot.node.size
        index = self.value(slot.node)
        if size > 16:
            raise DefinitionError(f"register number of {size} bits")
        wide = self.let(f"zext i{size} {index} to i16") if size < 16 else index
        scaled = self.let(f"mul i16 {wide}, {declared.stride}")
        start = REGISTERS + self.registers.offsets[slot.file]
        offset = self.let(f"add i16 {scaled}, {start}")
        if declared.zero is not None:
            is_zero = self.let(f"icmp eq i16 {wide}, {declared.zero}")
            instead = field_offset("zero" if slot.kind == "read" else "scratch")
            offset = self.let(f"select i1 {is_zero}, i16 {instead}, i16 {offset}")
        self.line(f"store i16 {offset}, ptr {pointer}, align 2")
