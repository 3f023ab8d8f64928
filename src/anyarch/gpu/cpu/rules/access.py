"""Loads and stores of a warp: one access, runs of contiguous ones, or a place for each lane.

Where an address is a scalar plus constants, lanes are split into runs that are contiguous or all
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import checks
from anyarch.gpu.cpu.rules.gathers import (
    LINE,
    gather,
    narrow_index,
    scatter,
    scatter_narrow,
    suffix,
)
from anyarch.gpu.cpu.rules.lanes import Body, each_lane, either, is_full, shared
from anyarch.gpu.cpu.rules.places import Access, index_of, moved, offset_pointer, resolve, space_of
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import bits_of

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = [
    "BARRIER",
    "Access",
    "Body",
    "each_lane",
    "either",
    "index_of",
    "is_full",
    "load",
    "load_runs",
    "masked_load",
    "moved",
    "offset_pointer",
    "resolve",
    "row_length",
    "rows",
    "shared",
    "space_of",
    "store",
]

BARRIER: Final = 'call void asm sideeffect "", "~{memory}"()'


def load(e: FunctionEmitter, access: Access, elem: str, count: int) -> tuple[bool, list[str]]:
    """Load `count` neighbouring elements in each active lane: whether they are vectors, and they.

    A scalar access is done by whoever calls only where a lane is active.
    """
    if access.ordered:
        e.line(BARRIER)
    if access.scalar:
        loaded = _load_scalars(e, access, elem, count)
        result = False, loaded
    else:
        result = True, _load_lanes(e, access, elem, count, e.active())
    if access.ordered:
        e.line(BARRIER)
    return result


def _load_scalars(e: FunctionEmitter, access: Access, elem: str, count: int) -> list[str]:
    nbytes = bits_of(elem) // 8
    volatile = "volatile " if access.ordered else ""
    tail = ", !invariant.load !2" if access.invariant and not access.ordered else ""
    found = []
    for n in range(count):
        pointer = offset_pointer(e, access.pointer, n * nbytes)
        align = min(nbytes, 8)
        whole = nbytes if n else count * nbytes
        checks.access(e, pointer, access.space, nbytes, checks.LOAD, align=whole)
        found.append(e.let(f"load {volatile}{elem}, ptr {pointer}, align {align}{tail}"))
    return found


def _load_lanes(e: FunctionEmitter, access: Access, elem: str, count: int, mask: str) -> list[str]:
    nbytes = bits_of(elem) // 8
    runs = _runs(access.lanes, count * nbytes) if access.lanes else None
    if access.index or access.narrow:
        return _load_rows(e, access, elem, count, mask)

    def contiguous() -> list[str]:
        if runs is None:
            places = Access(access.pointer, lanes=access.lanes)
            return gather(e, places, "", elem, count, mask)
        starts = [offset_pointer(e, access.pointer, at) for at in _starts(access.lanes, runs)]
        if access.ahead and len(starts) == 1:
            _prefetch(e, starts[0], LANES * count * nbytes)
        return load_runs(e, starts, runs, elem, count, mask)

    if not access.fits:
        return contiguous()

    def gathered() -> list[str]:
        assert access.exact is not None
        return gather(e, Access(access.origin), access.exact(), elem, count, mask)

    return either(e, access.fits, e.t(elem, True), contiguous, gathered)


def _runs(lanes: Sequence[int], nbytes: int) -> tuple[int, list[str]] | None:
    """Lanes as equal runs: their length, and of each whether it goes up, down or stays."""
    steps = {nbytes: "up", 0: "same", -nbytes: "down"}
    for length in (32, 16, 8, 4):
        kinds = []
        for at in range(0, LANES, length):
            differences = {lanes[n + 1] - lanes[n] for n in range(at, at + length - 1)}
            kind = steps.get(differences.pop()) if len(differences) == 1 else None
            if kind is None:
                break
            kinds.append(kind)
        else:
            return length, kinds
    return None


def _starts(lanes: Sequence[int], runs: tuple[int, list[str]]) -> list[int]:
    """Where the lowest place of each run is."""
    length, kinds = runs
    return [
        lanes[number * length + (length - 1 if kind == "down" else 0)]
        for number, kind in enumerate(kinds)
    ]


def rows(e: FunctionEmitter, access: Access, total: int, mask: str) -> tuple[str, list[str]]:
    """Whether an index that nothing is known of is contiguous in each row of the block, and the
    pointers to the rows: a gather costs many times this question."""
    length = e.kernel.row
    elem, index, unit = "i64", access.index, 1
    if access.narrow:
        elem, index, unit = "i32", access.narrow, access.scale
    type_ = e.t(elem, True)
    heads = e.shuffle(LANES, elem, index, "poison", [n // length * length for n in range(LANES)])
    steps = e.lanes(elem, tuple(n % length * (total // unit) for n in range(LANES)))
    expected = e.let(f"add {type_} {heads}, {steps}")
    equal = e.let(f"icmp eq {type_} {index}, {expected}")
    lanes = f"<{LANES} x i1>"
    idle = e.let(f"xor {lanes} {mask}, splat (i1 true)")
    good = e.mask_bits(e.let(f"or {lanes} {equal}, {idle}"))
    starts = []
    for at in range(0, LANES, length):
        head = e.let(f"extractelement {type_} {index}, i64 {at}")
        if access.narrow:
            head = e.let(f"sext i32 {head} to i64")
            head = e.let(f"mul i64 {head}, {unit}")
        starts.append(offset_pointer(e, access.pointer, head))
    return e.let(f"icmp eq i32 {good}, -1"), starts


def row_length(e: FunctionEmitter, access: Access, total: int, nbytes: int) -> int:
    """Lanes of a row, 0 where it is not to be asked for."""
    if nbytes > 8 or total % access.scale:
        return 0
    return e.kernel.row


def _load_rows(e: FunctionEmitter, access: Access, elem: str, count: int, mask: str) -> list[str]:
    name = f"rows.{elem}.{count}.{int(access.ahead)}.{access.scale if access.narrow else 0}"
    index = access.narrow or access.index

    def whole(pointer: str, index: str, mask: str) -> list[str]:
        return _choose_rows(e, moved(access, pointer, index), elem, count, mask)

    type_ = e.t("i32" if access.narrow else "i64", True)
    inputs = [("ptr", access.pointer), (type_, index), (e.t("i1", True), mask)]
    return shared(e, name, inputs, [e.t(elem, True)] * count, whole)


def _choose_rows(e: FunctionEmitter, access: Access, elem: str, count: int, mask: str) -> list[str]:
    nbytes = bits_of(elem) // 8

    def gathered() -> list[str]:
        return gather(e, access, "", elem, count, mask)

    length = row_length(e, access, count * nbytes, nbytes)
    if not length:
        return gathered()
    good, starts = rows(e, access, count * nbytes, mask)

    def contiguous() -> list[str]:
        return load_runs(e, starts, (length, ["up"] * len(starts)), elem, count, mask)

    return either(e, good, e.t(elem, True), contiguous, gathered)


def _prefetch(e: FunctionEmitter, pointer: str, nbytes: int) -> None:
    """What the next warp will load: a loop that goes over an array in steps of a grid looks random
    to the processor, but the next warp's turn is next door."""
    e.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    for at in range(0, max(nbytes, LINE), LINE):
        place = offset_pointer(e, pointer, max(nbytes, LINE) + at)
        e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")


def _mask_part(e: FunctionEmitter, mask: str, at: int, length: int, repeat: int = 1) -> str:
    indices = [n for n in range(at, at + length) for _ in range(repeat)]
    if not mask.startswith("%"):
        return mask
    if length == LANES and repeat == 1:
        return mask
    return e.shuffle(LANES, "i1", mask, "poison", indices)


def load_runs(
    e: FunctionEmitter,
    starts: list[str],
    runs: tuple[int, list[str]],
    elem: str,
    count: int,
    mask: str,
) -> list[str]:
    length, kinds = runs
    nbytes = bits_of(elem) // 8
    columns: list[list[str]] = [[] for _ in range(count)]
    for number, (kind, pointer) in enumerate(zip(kinds, starts)):
        at = number * length
        if kind == "same":
            found = _load_same(e, pointer, elem, count, mask, at, length)
        else:
            part = _mask_part(e, mask, at, length, count)
            total = length * count
            order = list(range(length))
            if kind == "down":
                order.reverse()
                if part.startswith("%"):
                    part = e.shuffle(total, "i1", part, "poison", list(range(total - 1, -1, -1)))
            block = masked_load(e, pointer, elem, total, part, nbytes)
            found = []
            for n in range(count):
                picked = [n + count * k for k in order]
                whole = picked == list(range(total))
                found.append(block if whole else e.shuffle(total, elem, block, "poison", picked))
        for column, value in zip(columns, found):
            column.append(value)
    return [e.whole(elem, column, length) for column in columns]


def masked_load(
    e: FunctionEmitter, pointer: str, elem: str, total: int, mask: str, align: int
) -> str:
    """Contiguous elements, those of inactive lanes undefined."""
    type_ = f"<{total} x {elem}>"
    if mask == "splat (i1 true)":
        return e.let(f"load {type_}, ptr {pointer}, align {align}")
    name = f"llvm.masked.load.v{total}{suffix(elem)}.p0"
    e.declare(name, type_, ["ptr", f"<{total} x i1>", type_])
    operands = f"ptr align {align} {pointer}, <{total} x i1> {mask}, {type_} poison"
    return e.let(f"call {type_} @{name}({operands})")


def _load_same(
    e: FunctionEmitter, pointer: str, elem: str, count: int, mask: str, at: int, length: int
) -> list[str]:
    """One place for a run of lanes."""
    nbytes = bits_of(elem) // 8
    type_ = f"<{length} x {elem}>"
    if mask.startswith("%"):
        part = _mask_part(e, mask, at, length)
        some = e.let(f"bitcast <{length} x i1> {part} to i{length}")
        some = e.let(f"icmp ne i{length} {some}, 0")
        total = max(count, 16 // nbytes)
        wide = f"<{total} x i1>"
        lanes = "zeroinitializer"
        for n in range(count):
            lanes = e.let(f"insertelement {wide} {lanes}, i1 {some}, i64 {n}")
        block = masked_load(e, pointer, elem, total, lanes, nbytes)
        return [e.shuffle(total, elem, block, "poison", [n] * length) for n in range(count)]
    found = []
    for n in range(count):
        place = offset_pointer(e, pointer, n * nbytes)
        one = e.let(f"load {elem}, ptr {place}, align {nbytes}")
        first = e.let(f"insertelement {type_} poison, {elem} {one}, i64 0")
        zeros = f"<{length} x i32> zeroinitializer"
        found.append(e.let(f"shufflevector {type_} {first}, {type_} poison, {zeros}"))
    return found


def store(e: FunctionEmitter, access: Access, elem: str, values: list[tuple[bool, str]]) -> None:
    """Store neighbouring elements in each active lane; each is (whether a vector, value)."""
    if access.ordered:
        e.line(BARRIER)
    if access.scalar:
        _store_scalars(e, access, elem, values)
    else:
        vectors = [v if vec else e.splat(elem, v) for vec, v in values]
        _store_lanes(e, access, elem, vectors, e.active())
    if access.ordered:
        e.line(BARRIER)


def _store_scalars(
    e: FunctionEmitter, access: Access, elem: str, values: list[tuple[bool, str]]
) -> None:
    nbytes = bits_of(elem) // 8
    volatile = "volatile " if access.ordered else ""
    last = ""
    for n, (vec, value) in enumerate(values):
        if vec:  # all lanes store to one place: the last one's value stays
            if not last:
                bits = e.mask_bits(e.active())
                zeros = e.invoke("llvm.ctlz.i32", "i32", [("i32", bits), ("i1", "false")])
                last = e.let(f"sub i32 31, {zeros}")
            value = e.let(f"extractelement {e.t(elem, True)} {value}, i32 {last}")
        pointer = offset_pointer(e, access.pointer, n * nbytes)
        whole = nbytes if n else len(values) * nbytes
        stored = elem, value
        checks.access(e, pointer, access.space, nbytes, checks.STORE, align=whole, value=stored)
        e.line(f"store {volatile}{elem} {value}, ptr {pointer}, align {min(nbytes, 8)}")


def _store_lanes(
    e: FunctionEmitter, access: Access, elem: str, vectors: list[str], mask: str
) -> None:
    if not access.index and not access.narrow:
        _choose_stores(e, access, elem, vectors, mask)
        return

    def whole(pointer: str, index: str, mask: str, *vectors: str) -> list[str]:
        _choose_stores(e, moved(access, pointer, index), elem, list(vectors), mask)
        return []

    type_ = e.t("i32" if access.narrow else "i64", True)
    index = access.narrow or access.index
    inputs = [("ptr", access.pointer), (type_, index), (e.t("i1", True), mask)]
    inputs += [(e.t(elem, True), vector) for vector in vectors]
    scale = access.scale if access.narrow else 0
    shared(e, f"store.{elem}.{len(vectors)}.{scale}", inputs, [], whole)


def _choose_stores(
    e: FunctionEmitter, access: Access, elem: str, vectors: list[str], mask: str
) -> None:
    nbytes = bits_of(elem) // 8
    total = len(vectors) * nbytes
    runs = _runs(access.lanes, total) if access.lanes else None
    condition = access.fits
    length, starts = 0, []
    if runs is not None and not {"same", "down"} & set(runs[1]):
        length = runs[0]
        starts = [offset_pointer(e, access.pointer, at) for at in _starts(access.lanes, runs)]
    else:
        if access.index or access.narrow:
            length = row_length(e, access, total, nbytes)
        if length:
            condition, starts = rows(e, access, total, mask)

    def scattered() -> list[str]:
        if access.fits:
            assert access.exact is not None
            scatter(e, access.origin, access.exact(), elem, vectors, mask)
        else:
            spread()
        return []

    def spread() -> None:
        narrow = narrow_index(e, access, nbytes)
        if narrow is None:
            scatter(e, access.pointer, index_of(e, access), elem, vectors, mask)
            return
        for n, value in enumerate(vectors):
            pointer = offset_pointer(e, access.pointer, n * nbytes)
            scatter_narrow(e, pointer, narrow, elem, value, mask)

    def contiguous() -> list[str]:
        if length:
            _store_runs(e, starts, length, elem, vectors, mask)
        else:
            spread()
        return []

    if condition:
        either(e, condition, "", contiguous, scattered)
    elif length:
        contiguous()
    else:
        scattered()


def _store_runs(
    e: FunctionEmitter, starts: list[str], length: int, elem: str, vectors: list[str], mask: str
) -> None:
    nbytes, count = bits_of(elem) // 8, len(vectors)
    for number, pointer in enumerate(starts):
        at = number * length
        part = _mask_part(e, mask, at, length, count)
        pieces = vectors
        if length != LANES:
            picked = list(range(at, at + length))
            pieces = [e.shuffle(LANES, elem, v, "poison", picked) for v in vectors]
        block, total = _interleave(e, elem, pieces, length), length * count
        type_ = f"<{total} x {elem}>"
        if part == "splat (i1 true)":
            e.line(f"store {type_} {block}, ptr {pointer}, align {nbytes}")
            continue
        name = f"llvm.masked.store.v{total}{suffix(elem)}.p0"
        e.declare(name, "void", [type_, "ptr", f"<{total} x i1>"])
        operands = f"{type_} {block}, ptr align {nbytes} {pointer}, <{total} x i1> {part}"
        e.line(f"call void @{name}({operands})")


def _interleave(e: FunctionEmitter, elem: str, pieces: list[str], length: int) -> str:
    """Vectors of `length` as one, first elements first."""
    count = len(pieces)
    joined, size = pieces, length
    while len(joined) > 1:
        pairs = zip(joined[::2], joined[1::2])
        joined = [e.shuffle(size, elem, a, b, list(range(2 * size))) for a, b in pairs]
        size *= 2
    if count == 1:
        return joined[0]
    order = [part * length + n for n in range(length) for part in range(count)]
    return e.shuffle(size, elem, joined[0], "poison", order)
