"""What a region may leave out for floating point.

Two things cost much and rarely matter: what is in a vector register above a number, and that a NaN
which was computed is the canonical one. The first is known where every path wrote such a number, a
*scalar*: a single in a 64-bit register has ones above it (RISC-V unprivileged ISA, section 20.2), a
single or double in one of 128 bits zeros. The second is not to be seen where nothing but arithmetic
reads a result before it is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from anyarch.emit import floateffects
from anyarch.engine.regions import Block, Key, Occurrence
from anyarch.ir.graph import FLOATS, Node

Place = tuple[str, int]
_ONES: Final = (1 << 32) - 1
# Operations whose result does not depend on the payload and sign of a quiet NaN.
_ARITHMETIC: Final = frozenset(
    "fadd fsub fmul fdiv fsqrt ffma feq flt fle flt_quiet fle_quiet fto_int fround fround_exact "
    "fconvert fmin_number fmax_number fmin fmax".split()
)
# Operations that have a canonical NaN for a result and raise the same flags without that.
_RESULTS: Final = frozenset("fadd fsub fmul fdiv fsqrt fconvert".split())
_LEAVING: Final = frozenset("exit exception syscall jump set_rounding".split())
_ACCESSES: Final = frozenset(
    "load store amo compare_exchange load_reserved store_conditional".split()
)


def single_of(value: Node) -> Node | None:
    """The 32 bits of a value that is a single in a 64-bit register."""
    if value.op == "concat" and value.size == 64:
        high, low = value.args
        if low.size == 32 and high.op == "const" and high.value == _ONES:
            return low
    return None


def register_of(value: Node) -> Node | None:
    """The register that a value is the number in, if it holds a scalar."""
    if value.op == "select" and _is_check(value.args[0]):
        value = value.args[1]
    if value.op == "extract" and value.attrs[0] == 0 and value.args[0].op == "register":
        return value.args[0]
    return None


def scalar_of(value: Node) -> tuple[Node, str] | None:
    """The number in a register that has nothing else in it, and its format."""
    single = single_of(value)
    if single is not None:
        return single, "f32"
    if value.size == 128 and value.op == "zext" and value.args[0].size in (32, 64):
        return value.args[0], f"f{value.args[0].size}"
    return None


Scalars = dict[Place, str]


@dataclass(frozen=True, slots=True)
class Result:
    """A number in format ``fmt`` that is a NaN where one of ``operands`` is. Its NaN has to be
    canonical before the instruction with the index ``until`` in its block, or never: who leaves the
    region makes it so."""

    fmt: str
    until: int | None
    operands: frozenset[Place]


class FloatUse:
    """What the blocks of a region do with the registers of ``files``.

    ``place`` names the register of an occurrence's node, or None.
    """

    def __init__(
        self,
        blocks: Mapping[Key, Block],
        place: Callable[[Occurrence, Node], Place | None],
        forgets: Callable[[Occurrence], bool],
        *,
        accesses_leave: bool,
    ) -> None:
        self._blocks, self._place, self._forgets = blocks, place, forgets
        self._leaving = _LEAVING | _ACCESSES if accesses_leave else _LEAVING

    # Scalars.
    def needed(self, root: Key) -> Scalars:
        """Registers that have to hold scalars where the region begins.

        The first block may take them for singles; or it is the head of a loop which leaves scalars
        in registers that it reads. What is above one of 128 bits at the entry is kept apart.
        """
        checked = self._checked(root)
        wanted = dict.fromkeys(checked, "f32")
        before = [key for key, block in self._blocks.items() if root in block.successors]
        if before:
            wanted = self._returned(root, before, wanted)
            checked |= self._read_first(root)
        return {place: fmt for place, fmt in wanted.items() if place in checked}

    def _returned(self, root: Key, before: list[Key], wanted: Scalars) -> Scalars:
        """What holds scalars on all ways back to the root, with those wanted if they may be."""
        for block in self._blocks.values():
            for found in block.instructions:
                for place, value, _ in self._writes(found):
                    scalar = scalar_of(value)
                    if scalar is not None:
                        wanted.setdefault(place, scalar[1])
        while True:
            entry = self.scalars(root, wanted)
            left = dict(wanted)
            for key in before:
                after = dict(entry[key])
                for found in self._blocks[key].instructions:
                    self.step(found, after)
                left = _agreed(left, after)
            if left == wanted:
                return wanted
            wanted = left

    def unwritten(self, root: Key) -> dict[Key, set[Place]]:
        """Registers that are taken for singles and, where a block begins, as they were at the root:
        whether they are is asked once."""
        asked = {
            place
            for block in self._blocks.values()
            for found in block.instructions
            for node in found.template.live
            if _is_check(node) and (place := self._place(found, node.args[0].args[0])) is not None
        }
        entry = dict.fromkeys(self._blocks, asked)
        work = list(self._blocks) if asked else []
        while work:
            key = work.pop()
            out = entry[key]
            for found in self._blocks[key].instructions:
                if not found.template.is_native or self._forgets(found):
                    out = set()
                out = out - {place for place, _, _ in self._writes(found)}
            for successor in self._blocks[key].successors:
                if successor in entry and not entry[successor] <= out:
                    entry[successor] = entry[successor] & out
                    work.append(successor)
        return entry

    def _read_first(self, root: Key) -> set[Place]:
        """Registers that may be read before they are written."""
        reads: dict[Key, set[Place]] = {}
        writes: dict[Key, set[Place]] = {}
        for key, block in self._blocks.items():
            reads[key], writes[key] = set(), set()
            for found in block.instructions:
                if not found.template.is_native:
                    break
                for node in found.template.live:
                    if node.op == "register":
                        place = self._place(found, node)
                        if place is not None and place not in writes[key]:
                            reads[key].add(place)
                writes[key] |= {place for place, _, certain in self._writes(found) if certain}
        changed = True
        while changed:
            changed = False
            for key, block in self._blocks.items():
                for successor in block.successors:
                    more = reads.get(successor, set()) - writes[key] - reads[key]
                    if more:
                        reads[key] |= more
                        changed = True
        return reads[root]

    def _checked(self, key: Key) -> set[Place]:
        """Registers that a block takes for singles before it writes them."""
        wanted: set[Place] = set()
        written: set[Place] = set()
        for found in self._blocks[key].instructions:
            if not found.template.is_native:
                break
            for node in found.template.live:
                if _is_check(node):
                    place = self._place(found, node.args[0].args[0])
                    if place is not None and place not in written:
                        wanted.add(place)
            written |= {place for place, _, _ in self._writes(found)}
            if self._forgets(found):
                break
        return wanted

    def scalars(self, root: Key, at_root: Scalars) -> dict[Key, Scalars]:
        """Registers that hold scalars where each block begins."""
        entry = {root: dict(at_root)}
        work = [root]
        while work:
            key = work.pop()
            out = dict(entry[key])
            for found in self._blocks[key].instructions:
                self.step(found, out)
            for successor in self._blocks[key].successors:
                if successor not in self._blocks or successor == root:
                    continue
                known = entry.get(successor)
                agreed = out if known is None else _agreed(known, out)
                if agreed != known:
                    entry[successor] = dict(agreed)
                    work.append(successor)
        return {key: entry.get(key, {}) for key in self._blocks}

    def step(self, found: Occurrence, scalars: Scalars) -> None:
        """Bring the scalars from before an instruction to after it."""
        if not found.template.is_native or self._forgets(found):
            scalars.clear()
            return
        for place, value, is_certain in self._writes(found):
            scalar = scalar_of(value)
            if is_certain and scalar is not None:
                scalars[place] = scalar[1]
            else:
                scalars.pop(place, None)

    # Results.
    def results(self, block: Block) -> dict[int, Result]:
        """Instructions, by index, with results whose NaNs may stay as they are for a while."""
        result = {}
        for index, found in enumerate(block.instructions):
            writes = self._writes(found)
            if len(writes) != 1:
                continue
            place, value, is_certain = writes[0]
            single = single_of(value)
            computed = value if single is None else single
            if not is_certain or computed.op not in _RESULTS:
                continue
            operands = frozenset(
                read
                for node in map(_operand, computed.args)
                if node is not None and (read := self._place(found, node)) is not None
            )
            until = self._until(block, index, place, single=single is not None)
            result[index] = Result("f64" if single is None else "f32", until, operands)
        return result

    def _until(self, block: Block, index: int, place: Place, *, single: bool) -> int | None:
        """Before which instruction of the block a result has to be canonical; None for never."""
        rest = block.instructions[index + 1 :]
        at, is_read = self._overwrites(rest, place, single=single, exits=True)
        if is_read:
            return index + 1 + at
        if at < len(rest) or all(
            self._lasts(self._blocks[key].instructions, place, single=single)
            for key in block.successors
            if key in self._blocks
        ):
            return None
        last = block.instructions[-1]
        leads_on = any(effect.node.op == "jump" for effect in last.template.graph.effects)
        return len(block.instructions) - leads_on

    def _lasts(self, rest: list[Occurrence], place: Place, *, single: bool) -> bool:
        """Whether no instruction of the next block tells that a NaN is not canonical."""
        at, is_read = self._overwrites(rest, place, single=single, exits=False)
        return at < len(rest) and not is_read

    def _overwrites(
        self, rest: list[Occurrence], place: Place, *, single: bool, exits: bool
    ) -> tuple[int, bool]:
        """Which instruction overwrites a register or reads more than its value, and whether it
        reads; how many there are where none does. ``exits`` says whether they may leave the region.
        """
        for at, found in enumerate(rest):
            template = found.template
            leaves = any(
                effect.node.op in self._leaving or floateffects.may_leave(effect.node)
                for effect in template.graph.effects
            )
            if not template.is_native or (not exits and leaves):
                return at, True
            nodes = template.live
            for node in nodes:
                if (
                    node.op == "register"
                    and self._place(found, node) == place
                    and not _only_arithmetic(node, nodes, single=single)
                ):
                    return at, True
            for written, _, is_certain in self._writes(found):
                if written == place and is_certain:
                    return at, False
            if self._forgets(found):
                return at, False
        return len(rest), False

    def _writes(self, found: Occurrence) -> list[tuple[Place, Node, bool]]:
        if not found.template.is_native:
            return []
        result = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                place = self._place(found, effect.node)
                if place is not None:
                    result.append((place, effect.node.args[1], effect.guard is None))
        return result


def _operand(value: Node) -> Node | None:
    """The register that an operand of arithmetic is the number in."""
    return value if value.op == "register" else register_of(value)


def _agreed(one: Scalars, other: Scalars) -> Scalars:
    return {place: fmt for place, fmt in one.items() if other.get(place) == fmt}


def _is_check(node: Node) -> bool:
    """Whether a node asks if a register holds a single."""
    if node.op != "eq" or node.args[1].op != "const" or node.args[1].value != _ONES:
        return False
    high = node.args[0]
    return high.op == "extract" and high.attrs[0] == 32 and high.args[0].op == "register"


def _only_arithmetic(node: Node, nodes: Sequence[Node], *, single: bool) -> bool:
    for user in nodes:
        if not any(arg is node for arg in user.args):
            continue
        if user.op in _ARITHMETIC:
            continue
        if not single or user.op not in ("extract", "eq", "select") or user.op in FLOATS:
            return False
        if user.op == "extract" and user.size != 32:
            return False
        if not _only_arithmetic(user, nodes, single=True):
            return False
    return True
