"""Condition flags of a region: computed where something reads them, not where they are set.

A guest sets flags far more often than it reads them, and rarely reads more than one. So of an
instruction that sets them all a region keeps *inputs*: what the flags are functions of. The *kind*
says which functions: a function of the region's module that makes flags of inputs. Where control
comes from several places the kind is a value like any other, the address of that function.

A flag that is read where kinds meet is a value of its own on the ways that lead there (*carried*):
a loop that adds long numbers has a carry from the turn before, or from what is before the loop.

Not even code that regions call, return or jump to needs flags made: the context gets function and
inputs. Who reads flags there, or leaves regions, *settles* them first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from anyarch.emit.llvm import Emitter
from anyarch.engine.pendingflags import ARGUMENTS, INPUTS, function
from anyarch.engine.regions import Block, Key, Occurrence
from anyarch.ir.graph import Node, is_effect
from anyarch.isa.registers import RegisterFile

PACKED: Final = 0  # the kind of flags themselves, in one word as registers have them
IN_CONTEXT: Final = -1  # of those that the context has, in registers or as what they are made of

Kinds = frozenset[int]  # one is what the kind is known to be


@dataclass(frozen=True, slots=True)
class Kind:
    """How the flags are made of inputs; ``values`` are those of the file's registers, in order."""

    number: int
    inputs: tuple[Node, ...]
    values: tuple[Node, ...]


class FlagUse:
    """Which instructions of a region set all registers of a file of flags, and how."""

    def __init__(
        self,
        blocks: Mapping[Key, Block],
        file: RegisterFile,
        root: Key,
        forgets: Callable[[Occurrence], bool],
    ) -> None:
        self.file = file
        self._forgets = forgets
        self.kinds: list[Kind] = []
        self._by_form: dict[str, Kind | None] = {}
        self._blocks = blocks
        self._entry = self._survey(root)
        self._carried = self._survey_reads()

    def before(self, key: Key) -> Kinds:
        """The kinds that there may be where a block begins."""
        return self._entry.get(key, frozenset({IN_CONTEXT}))  # what no way leads to is not run

    def carried(self, key: Key) -> frozenset[int]:
        """The flags that are values of their own where a block begins."""
        return self._carried.get(key, frozenset())

    def kind(self, found: Occurrence) -> Kind | None:
        """How an instruction sets the flags, or None where they have to be packed."""
        name = found.form.name
        if name not in self._by_form:
            self._by_form[name] = self._find(found)
        return self._by_form[name]

    def sets(self, found: Occurrence) -> bool:
        """Whether an instruction writes a flag."""
        return any(
            effect.node.op == "write" and effect.node.attrs[0] == self.file.name
            for effect in found.template.graph.effects
        )

    def _find(self, found: Occurrence) -> Kind | None:
        values: dict[int, Node] = {}
        for effect in found.template.graph.effects:
            if effect.node.op == "write" and effect.node.attrs[0] == self.file.name:
                index, value = effect.node.args
                if effect.guard is not None or index.op != "const":
                    return None
                values[index.value] = value
        if len(values) < self.file.count:
            return None
        inputs: dict[int, Node] = {}
        for value in values.values():
            self._cut(value, found, inputs)
        if len(inputs) > INPUTS or any(node.size > 64 for node in inputs.values()):
            return None
        ordered = tuple(values[index] for index in range(self.file.count))
        kind = Kind(len(self.kinds) + 1, tuple(inputs.values()), ordered)
        self.kinds.append(kind)
        return kind

    def _cut(self, node: Node, found: Occurrence, inputs: dict[int, Node]) -> None:
        """Where values of the instruction begin: registers, effects, constants of the word, and
        what is made of other flags alone."""
        if node.op == "const":
            return
        narrow = node.op == "extract" and node.args[0].size > 64
        if (
            narrow
            or node.op == "register"
            or is_effect(node)
            or node.number in found.template.constants
            or self._is_of_flags(node)
        ):
            inputs[node.number] = node
            return
        for arg in node.args:
            self._cut(arg, found, inputs)

    def _is_of_flags(self, node: Node) -> bool:
        if node.op == "register":
            return node.attrs[0] == self.file.name
        if is_effect(node) or node.op in ("field", "pc"):
            return False
        return node.op == "const" or all(self._is_of_flags(arg) for arg in node.args)

    def inputs(self, number: int) -> int:
        """How many a kind is made of."""
        if number == IN_CONTEXT:
            return 0
        return 1 if number == PACKED else len(self.kinds[number - 1].inputs)

    def _after(self, found: Occurrence, before: Kinds) -> Kinds:
        """The kinds that there may be after an instruction."""
        if self._forgets(found) or not found.template.is_native:
            return frozenset({IN_CONTEXT})
        if self.sets(found):
            kind = self.kind(found)
            return frozenset({PACKED if kind is None else kind.number})
        return before

    def _survey(self, root: Key) -> dict[Key, Kinds]:
        """The kinds where each block begins that some way leads to."""
        entry: dict[Key, Kinds] = {root: frozenset({IN_CONTEXT})}
        work = [root]
        while work:
            key = work.pop()
            kinds = entry[key]
            for found in self._blocks[key].instructions:
                kinds = self._after(found, kinds)
            for successor in self._blocks[key].successors:
                before = entry.get(successor, frozenset())
                if successor in self._blocks and not kinds <= before:
                    entry[successor] = before | kinds
                    work.append(successor)
        return entry

    def _survey_reads(self) -> dict[Key, frozenset[int]]:
        """The flags that are read at or behind the beginning of a block, if kinds meet there."""
        every = frozenset(range(self.file.count))
        known: dict[Key, tuple[frozenset[int], bool]] = {}
        for key, block in self._blocks.items():
            reads: frozenset[int] = frozenset()
            passes = True
            for found in block.instructions:
                sets = self.sets(found)
                reads |= every if sets and self.kind(found) is None else self._reads(found)
                if sets or self._forgets(found) or not found.template.is_native:
                    passes = False
                    break
            known[key] = reads, passes
        live = {key: reads for key, (reads, _) in known.items()}
        changed = True
        while changed:
            changed = False
            for key, block in self._blocks.items():
                if known[key][1]:
                    now = live[key].union(*(live.get(to, ()) for to in block.successors))
                    changed |= now != live[key]
                    live[key] = now
        return {key: flags for key, flags in live.items() if len(self.before(key)) > 1}

    def _reads(self, found: Occurrence) -> frozenset[int]:
        """The flags that an instruction reads."""
        return frozenset(
            found.constant(node.args[0])
            for node in found.template.live
            if node.op == "register" and node.attrs[0] == self.file.name
        )

    def text(self) -> str:
        """The functions ``@flags.kind(inputs…)``: the flags, packed."""
        made = [function(f"@flags.{PACKED}", ARGUMENTS, ["  ret i64 %in0"])]
        for kind in self.kinds:
            emitter = _KindEmitter()
            packed = emit_kind(emitter, kind, [f"%in{index}" for index in range(INPUTS)])
            emitter.line(f"ret i64 {pack(emitter, packed)}")
            made.append(function(f"@flags.{kind.number}", ARGUMENTS, emitter.lines))
        return "".join(made)


class _KindEmitter(Emitter):
    """Pure nodes only: the inputs are bound."""


def emit_kind(e: Emitter, kind: Kind, inputs: list[str]) -> list[str]:
    """The flags of a kind, of inputs as 64-bit values."""
    for node, value in zip(kind.inputs, inputs, strict=False):
        narrow = value if node.size == 64 else e.let(f"trunc i64 {value} to i{node.size}")
        e.bind(node, narrow)
    return [e.value(node) for node in kind.values]


def pack(e: Emitter, values: list[str]) -> str:
    """Flags of eight bits as the context has them, in one word of 64 bits."""
    result = "0"
    for index, value in enumerate(values):
        wide = e.let(f"zext i8 {value} to i64")
        placed = e.let(f"shl i64 {wide}, {8 * index}") if index else wide
        result = e.let(f"or i64 {result}, {placed}")
    return result


def unpack(e: Emitter, word: str, index: int) -> str:
    """One flag of a word."""
    moved = e.let(f"lshr i64 {word}, {8 * index}") if index else word
    return e.let(f"trunc i64 {moved} to i8")
