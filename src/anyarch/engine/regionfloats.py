"""What a region may leave out for floating point.

Two things cost much and rarely matter: whether a 64-bit register holds a single (all ones above
it, RISC-V unprivileged ISA, section 20.2), and that a NaN which was computed is the canonical one.
The first is known where every path wrote a single; the second is not to be seen where nothing but
arithmetic reads a result before it is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

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

    # Singles.
    def needed_singles(self, key: Key) -> set[Place]:
        """Registers that a block takes for singles before it writes them."""
        wanted: set[Place] = set()
        written: set[Place] = set()
        for found in self._blocks[key].instructions:
            if not found.template.is_native:
                break
            for node in found.template.graph.live():
                if _is_check(node):
                    place = self._place(found, node.args[0].args[0])
                    if place is not None and place not in written:
                        wanted.add(place)
            written |= {place for place, _, _ in self._writes(found)}
            if self._forgets(found):
                break
        return wanted

    def singles(self, root: Key, at_root: set[Place]) -> dict[Key, set[Place]]:
        """Registers that hold singles where each block begins."""
        everything = set(at_root)
        for block in self._blocks.values():
            for found in block.instructions:
                everything |= {place for place, _, _ in self._writes(found)}
        entry = {key: set(everything) for key in self._blocks}
        entry[root] = set(at_root)
        work = list(self._blocks)
        while work:
            key = work.pop()
            out = set(entry[key])
            for found in self._blocks[key].instructions:
                self.step(found, out)
            for successor in self._blocks[key].successors:
                if successor in entry and not entry[successor] <= out:
                    entry[successor] &= out
                    work.append(successor)
        return entry

    def step(self, found: Occurrence, singles: set[Place]) -> None:
        """Bring the set of singles from before an instruction to after it."""
        if not found.template.is_native or self._forgets(found):
            singles.clear()
            return
        for place, value, is_certain in self._writes(found):
            if is_certain and single_of(value) is not None:
                singles.add(place)
            else:
                singles.discard(place)

    # Results.
    def unobserved(self, block: Block) -> dict[int, str]:
        """Instructions, by index, with the format of their results, whose NaNs nothing in the
        region tells from canonical ones. Who leaves it before they are overwritten does."""
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
            is_single = single is not None
            end = self._overwrites(block.instructions[index + 1 :], place, is_single, exits=True)
            if end is None:
                end = all(
                    self._overwrites(self._blocks[key].instructions, place, is_single, exits=False)
                    for key in block.successors
                    if key in self._blocks
                )
            if end:
                result[index] = "f32" if is_single else "f64"
        return result

    def _overwrites(
        self, rest: Iterable[Occurrence], place: Place, single: bool, *, exits: bool
    ) -> bool | None:
        """Whether instructions overwrite a register before they read more than its value;
        None where they do neither. ``exits`` says whether they may leave the region before."""
        for found in rest:
            template = found.template
            ops = {effect.node.op for effect in template.graph.effects}
            if not template.is_native or (not exits and ops & self._leaving):
                return False
            nodes = template.graph.live()
            for node in nodes:
                if (
                    node.op == "register"
                    and self._place(found, node) == place
                    and not _only_arithmetic(node, nodes, single=single)
                ):
                    return False
            for written, _, is_certain in self._writes(found):
                if written == place and is_certain:
                    return True
            if self._forgets(found):
                return True
        return None

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


def _is_check(node: Node) -> bool:
    """Whether a node asks if a register holds a single."""
    if node.op != "eq" or node.args[1].op != "const" or node.args[1].value != _ONES:
        return False
    high = node.args[0]
    return high.op == "extract" and high.attrs[0] == 32 and high.args[0].op == "register"


def _only_arithmetic(node: Node, nodes: list[Node], *, single: bool) -> bool:
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
