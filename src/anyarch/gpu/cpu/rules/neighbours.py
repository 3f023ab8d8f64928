"""Loads of neighbouring elements by several instructions, `a[i]`, `a[i + 1]`…, from places that
differ from lane to lane: one wide load for each lane in place of several gathers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.activity import ALL_LANES
from anyarch.gpu.cpu.flow import writes
from anyarch.gpu.cpu.rules import access
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.ptx.tree import SIZES, Address, Instruction, Register

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["load_neighbours"]

_NBYTES: Final = 4
_WEAK: Final = frozenset("global nc weak ca cg cs lu cv shared const".split())
# What may stand between loads that are done as one; anything else may write memory or wait.
_BETWEEN: Final = frozenset(
    "ld mov add sub mul mad fma div rem shl shr and or xor not neg abs cvt setp set selp min max "
    "lop3 prmt bfe bfi shf cvta rcp sqrt rsqrt ex2 lg2 sin cos".split()
)


def load_neighbours(e: FunctionEmitter, i: Instruction, place: access.Access) -> None:
    """Load what later instructions of the block load beside it, if there is such: `e.loaded`."""
    if not _is_plain(i) or not (place.narrow or place.index or _is_spread(place)):
        return
    group = _group(e, i)
    if not group:
        return
    address = i.operands[1]
    assert isinstance(address, Address)
    first = min(group) - address.offset
    vectors = _load(e, place, first, len(group))
    for offset, vector in zip(sorted(group), vectors):
        for one in group[offset]:
            e.loaded[id(one)] = vector


def _is_plain(i: Instruction) -> bool:
    return (
        i.opcode == "ld"
        and i.guard is None
        and isinstance(i.operands[0], Register)
        and SIZES[i.types[-1]] == 8 * _NBYTES
        and _hints(i) <= _WEAK
    )


def _hints(i: Instruction) -> set[str]:
    return {m.split("::")[0] for m in i.modifiers if m not in i.types}


def _is_spread(place: access.Access) -> bool:
    """Whether constant places are too far apart for a few wide loads."""
    steps = [abs(b - a) for a, b in pairwise(place.lanes)]
    return bool(steps) and min(steps) > 4 * _NBYTES


def _group(e: FunctionEmitter, i: Instruction) -> dict[int, list[Instruction]]:
    """Instructions by offset: two or four neighbours, `i` among them, or nothing."""
    address = i.operands[1]
    assert isinstance(address, Address)
    found: dict[int, list[Instruction]] = {}
    body = e.block.body
    for other in body[next(n for n, one in enumerate(body) if one is i) :]:
        if other.opcode not in _BETWEEN:
            break
        there = other.operands[1] if len(other.operands) > 1 else None
        if (
            _is_plain(other)
            and isinstance(there, Address)
            and there.base == address.base
            and _hints(other) == _hints(i)
        ):
            found.setdefault(there.offset, []).append(other)
        if any(register == address.base for register in writes(other)):
            break
    low = high = address.offset
    while low - _NBYTES in found:
        low -= _NBYTES
    while high + _NBYTES in found:
        high += _NBYTES
    run = list(range(low, high + 1, _NBYTES))
    size = 4 if len(run) >= 4 else 2
    at = run.index(address.offset) // size * size
    offsets = run[at : at + size]
    return {o: found[o] for o in offsets} if len(offsets) == size else {}


def _load(e: FunctionEmitter, place: access.Access, first: int, count: int) -> list[str]:
    """`count` vectors of neighbouring words, the first at so many bytes from the place."""
    elem, index, scale = "i64", place.index, 1
    if place.narrow:
        elem, index, scale = "i32", place.narrow, place.scale
    elif place.lanes:
        index = access.index_of(e, place)

    def whole(pointer: str, index: str, mask: str) -> list[str]:
        return _choose(e, access.moved(place, pointer, index), (elem, index, scale), count, mask)

    pointer = access.offset_pointer(e, place.pointer, first)
    if place.lanes:
        return whole(pointer, index, e.active())
    inputs = [("ptr", pointer), (e.t(elem, True), index), (e.t("i1", True), e.active())]
    name = f"pieces.{elem}.{count}.{scale}"
    return access.shared(e, name, inputs, [e.t("i32", True)] * count, whole)


def _choose(
    e: FunctionEmitter,
    place: access.Access,
    index: tuple[str, str, int],
    count: int,
    mask: str,
) -> list[str]:
    elem, vector, scale = index

    def apart() -> list[str]:
        if e.possible != ALL_LANES:
            safe = _with_idle(e, elem, vector, mask)
        else:
            (safe,) = access.either(
                e,
                access.is_full(e, mask),
                e.t(elem, True),
                lambda: [vector],
                lambda: [_with_idle(e, elem, vector, mask)],
            )
        return _transposed(e, place.pointer, (elem, safe, scale), count)

    length = access.row_length(e, place, _NBYTES, _NBYTES)
    if place.lanes or not length:
        return apart()
    good, starts = access.rows(e, place, _NBYTES, mask)

    def together() -> list[str]:
        runs = length, ["up"] * len(starts)
        found = []
        for n in range(count):
            moved = [access.offset_pointer(e, s, n * _NBYTES) for s in starts]
            found += access.load_runs(e, moved, runs, "i32", 1, mask)
        return found

    return access.either(e, good, e.t("i32", True), together, apart)


def _with_idle(e: FunctionEmitter, elem: str, index: str, mask: str) -> str:
    """Lanes that are not active go where the first active one does: all places can be read."""
    type_ = e.t(elem, True)
    lane = e.invoke("llvm.cttz.i32", "i32", [("i32", e.mask_bits(mask)), ("i1", "false")])
    inside = e.let(f"and i32 {lane}, {LANES - 1}")
    one = e.let(f"extractelement {type_} {index}, i32 {inside}")
    return e.let(f"select {e.t('i1', True)} {mask}, {type_} {index}, {type_} {e.splat(elem, one)}")


def _transposed(
    e: FunctionEmitter, pointer: str, index: tuple[str, str, int], count: int
) -> list[str]:
    elem, vector, scale = index
    slot = e.alloca(e.t(elem, True), "index")
    e.line(f"store volatile {e.t(elem, True)} {vector}, ptr {slot}")

    def block(lane: int) -> str:
        at = e.let(f"getelementptr {elem}, ptr {slot}, i64 {lane}")
        offset = e.let(f"load {elem}, ptr {at}")
        if elem == "i32":
            offset = e.let(f"sext i32 {offset} to i64")
        if scale != 1:
            offset = e.let(f"mul i64 {offset}, {scale}")
        place = access.offset_pointer(e, pointer, offset)
        return e.let(f"load <{count} x i32>, ptr {place}, align {_NBYTES}")

    if count == 2:
        pairs = [block(lane) for lane in range(LANES)]
        columns = []
        size = 16
        halves = [e.whole("i32", pairs[at : at + size], 2) for at in range(0, LANES, size)]
        for n in range(2):
            picked = list(range(n, 2 * size, 2))
            parts = [e.shuffle(2 * size, "i32", half, "poison", picked) for half in halves]
            columns.append(e.whole("i32", parts, size))
        return columns
    parts_of: list[list[str]] = [[] for _ in range(4)]
    for half in range(0, LANES, 16):
        # Row k has the blocks of lanes k, k + 4, k + 8, k + 12: turned by fours they are in order.
        rows = [e.whole("i32", [block(half + k + 4 * n) for n in range(4)], 4) for k in range(4)]
        low, high = _interleaved(1, 0), _interleaved(1, 2)
        pairs_ = [
            (
                e.shuffle(16, "i32", rows[k], rows[k + 1], low),
                e.shuffle(16, "i32", rows[k], rows[k + 1], high),
            )
            for k in (0, 2)
        ]
        for n in range(4):
            order = _interleaved(2, n % 2 * 2)
            parts_of[n].append(e.shuffle(16, "i32", pairs_[0][n // 2], pairs_[1][n // 2], order))
    return [e.whole("i32", parts, 16) for parts in parts_of]


def _interleaved(run: int, start: int) -> list[int]:
    """Indices that take `run` elements of each of two vectors of 16 in turn, in every four."""
    indices = []
    for four in range(0, 16, 4):
        for at in range(start, start + 2, run):
            indices += [four + at + n for n in range(run)]
            indices += [16 + four + at + n for n in range(run)]
    return indices
