"""Accesses of each lane to a place of its own: load by load, or by the processor's gathers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.activity import ALL_LANES
from anyarch.gpu.cpu.rules.lanes import each_lane, either, is_full, shared
from anyarch.gpu.cpu.rules.places import Access, index_of, offset_pointer
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import bits_of

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["LINE", "gather", "narrow_index", "scatter", "scatter_narrow", "suffix"]

LINE: Final = 64  # bytes of a line of the cache
_CLOSE_LINES: Final = 32  # what is fetched behind a warp's rows
_FEW: Final = 8  # lanes whose values are taken from a vector one by one


def narrow_index(e: FunctionEmitter, access: Access, nbytes: int) -> tuple[str, int] | None:
    """A 32-bit index and its scale, where the processor gathers by such."""
    if not e.kernel.avx512 or nbytes not in (4, 8):
        return None
    if access.narrow:
        return (access.narrow, access.scale) if access.scale in (1, 2, 4, 8) else None
    if access.lanes and all(-(1 << 31) <= n < 1 << 31 for n in access.lanes):
        return e.lanes("i32", access.lanes), 1
    return None


def _pointers(e: FunctionEmitter, pointer: str, index: str) -> str:
    return e.let(f"getelementptr i8, ptr {pointer}, <{LANES} x i64> {index}")


def gather(
    e: FunctionEmitter, access: Access, index: str, elem: str, count: int, mask: str
) -> list[str]:
    """Gather; `index` is the access's own if it is empty."""
    nbytes = bits_of(elem) // 8
    narrow = None if index else narrow_index(e, access, nbytes)
    if narrow is not None and access.ahead and access.narrow:
        prefetch_behind(e, access.pointer, narrow)
    found = []
    if narrow is None and not index:
        index = index_of(e, access)
    for n in range(count):
        pointer = offset_pointer(e, access.pointer, n * nbytes)
        if narrow is not None:
            found.append(_gather_narrow(e, pointer, narrow, elem, mask))
        elif nbytes >= 16:
            found.append(_gather_halves(e, pointer, index, mask))
        elif nbytes < 4:
            found.append(_gather_small(e, pointer, index, elem, mask))
        else:
            found.append(_gather_one(e, _pointers(e, pointer, index), elem, mask))
    return found


def prefetch_behind(e: FunctionEmitter, pointer: str, narrow: tuple[str, int]) -> None:
    """Rows of different lengths lie one behind the other: where a warp's are close together and in
    order, the next warp's are behind the last. Gathers alone are no pattern for the processor."""
    index, scale = narrow
    first, last = (
        e.let(f"extractelement {e.t('i32', True)} {index}, i64 {n}") for n in (0, LANES - 1)
    )
    span = e.let(f"sub i32 {last}, {first}")
    close = e.let(f"icmp ult i32 {span}, {_CLOSE_LINES * 2 * LINE // scale}")
    then, after = e.name("close"), e.name("after")
    e.branch(close, then, after)
    e.label(then)
    e.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    end = e.let(f"sext i32 {last} to i64")
    end = offset_pointer(e, pointer, e.let(f"mul i64 {end}, {scale}") if scale != 1 else end)
    for n in range(1, _CLOSE_LINES + 1):
        place = offset_pointer(e, end, n * LINE)
        e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")
    e.jump(after)
    e.label(after)


_KINDS: Final = {"float": "dps", "i32": "dpi", "double": "dpd", "i64": "dpq"}


def _gather_narrow(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, mask: str
) -> str:
    """By the processor's own instruction: LLVM makes 64-bit pointers of a hoisted index."""
    index, scale = narrow

    def lanes(pointer: str, index: str, mask: str) -> list[str]:
        narrow = index, scale
        if bits_of(elem) != 32:
            return [_gather_instruction(e, pointer, narrow, elem, mask)]
        return either(
            e,
            is_full(e, mask),
            e.t(elem, True),
            lambda: [_gather_scalars(e, pointer, narrow, elem)],
            lambda: [_gather_instruction(e, pointer, narrow, elem, mask)],
        )

    if not index.startswith("%"):
        return lanes(pointer, index, mask)[0]
    inputs = [("ptr", pointer), (e.t("i32", True), index), (e.t("i1", True), mask)]
    (result,) = shared(e, f"gather.{elem}.{scale}", inputs, [e.t(elem, True)], lanes)
    return result


def _gather_scalars(e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str) -> str:
    """Load by load: on most processors less work than what a gather is made of."""
    strided = _load_strided(e, pointer, narrow, elem)
    if strided:
        return strided
    here_of = _lane_pointers(e, pointer, narrow)
    parts = []
    for at in range(0, LANES, 4):
        part = "poison"
        for lane in range(at, at + 4):
            if not e.possible >> lane & 1:
                continue
            here = here_of(lane)
            value = e.let(f"load {elem}, ptr {here}, align {bits_of(elem) // 8}")
            part = e.let(f"insertelement <4 x {elem}> {part}, {elem} {value}, i64 {lane - at}")
        parts.append(part)
    return e.whole(elem, parts, 4)


def _stride(narrow: tuple[str, int], nbytes: int) -> int:
    """Elements from each lane's place to the next one's, if that is a small constant; else 0."""
    index, scale = narrow
    if index.startswith("%"):
        return 0
    places = [_constant_lane(index, n) * scale for n in range(LANES)]
    steps = {b - a for a, b in pairwise(places)}
    step = steps.pop()
    return step // nbytes if not steps and step in (2 * nbytes, 4 * nbytes) else 0


def _load_strided(e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str) -> str:
    """All lanes, a few elements apart: load all that lies between, and drop it."""
    nbytes = bits_of(elem) // 8
    stride = _stride(narrow, nbytes)
    if not stride or e.possible != ALL_LANES:
        return ""
    first = _constant_lane(narrow[0], 0) * narrow[1]
    size = 64 // nbytes
    last = (LANES - 1) * stride + 1 - size  # nothing behind the last lane's element is read
    starts = [min(at, last) for at in range(0, LANES * stride, size)]
    blocks = [
        e.let(
            f"load <{size} x {elem}>, ptr {offset_pointer(e, pointer, first + at * nbytes)}, "
            f"align {nbytes}"
        )
        for at in starts
    ]
    each = LANES // len(blocks)
    parts = []
    for number, (block, start) in enumerate(zip(blocks, starts)):
        picked = [lane * stride - start for lane in range(number * each, (number + 1) * each)]
        parts.append(e.shuffle(size, elem, block, "poison", picked))
    return e.whole(elem, parts, each)


def _store_strided(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, value: str
) -> bool:
    """All lanes, a few elements apart: stores with a fixed mask. Whether it was done."""
    nbytes = bits_of(elem) // 8
    stride = _stride(narrow, nbytes)
    if not stride or e.possible != ALL_LANES:
        return False
    first = _constant_lane(narrow[0], 0) * narrow[1]
    size = 64 // nbytes
    type_ = f"<{size} x {elem}>"
    name = f"llvm.masked.store.v{size}{suffix(elem)}.p0"
    e.declare(name, "void", [type_, "ptr", f"<{size} x i1>"])
    for at in range(0, LANES * stride, size):
        picked = [n // stride if n % stride == 0 else -1 for n in range(at, at + size)]
        block = e.shuffle(LANES, elem, value, "poison", picked)
        lanes = f"<{', '.join(f'i1 {int(n >= 0)}' for n in picked)}>"
        place = offset_pointer(e, pointer, first + at * nbytes)
        operands = f"{type_} {block}, ptr align {nbytes} {place}, <{size} x i1> {lanes}"
        e.line(f"call void @{name}({operands})")
    return True


def _lane_pointers(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int]
) -> Callable[[int], str]:
    """A function that gives the pointer of a lane; a vector of indices goes through memory."""
    index, scale = narrow
    if not index.startswith("%"):
        return lambda lane: offset_pointer(e, pointer, _constant_lane(index, lane) * scale)
    slot = e.alloca(e.t("i32", True), "index")
    e.line(f"store volatile {e.t('i32', True)} {index}, ptr {slot}")

    def here(lane: int) -> str:
        place = e.let(f"getelementptr i32, ptr {slot}, i64 {lane}")
        offset = e.let(f"sext i32 {e.let(f'load i32, ptr {place}')} to i64")
        scaled = e.let(f"mul i64 {offset}, {scale}") if scale != 1 else offset
        return offset_pointer(e, pointer, scaled)

    return here


def _constant_lane(index: str, lane: int) -> int:
    number = int(index[1:-1].split(", ")[lane].split(" ")[1])
    return number - (1 << 32) if number >> 31 else number


def _gather_instruction(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, mask: str
) -> str:
    size = 16 if bits_of(elem) == 32 else 8
    index, scale = narrow
    name = f"llvm.x86.avx512.mask.gather.{_KINDS[elem]}.512"
    type_ = f"<{size} x {elem}>"
    parts = []
    for at in range(0, LANES, size):
        picked = list(range(at, at + size))
        lanes = e.shuffle(LANES, "i1", mask, "poison", picked)
        indices = e.shuffle(LANES, "i32", index, "poison", picked)
        operands = [
            (type_, "zeroinitializer"),
            ("ptr", pointer),
            (f"<{size} x i32>", indices),
            (f"<{size} x i1>", lanes),
            ("i32", str(scale)),
        ]
        parts.append(e.invoke(name, type_, operands))
    return e.whole(elem, parts, size)


def _gather_one(e: FunctionEmitter, pointers: str, elem: str, mask: str) -> str:
    type_ = e.t(elem, True)
    name = f"llvm.masked.gather.v{LANES}{suffix(elem)}.v{LANES}p0"
    lanes = f"<{LANES} x i1>"
    e.declare(name, type_, [f"<{LANES} x ptr>", lanes, type_])
    align = bits_of(elem) // 8
    operands = f"<{LANES} x ptr> align {align} {pointers}, {lanes} {mask}, {type_} poison"
    return e.let(f"call {type_} @{name}({operands})")


def _gather_small(e: FunctionEmitter, pointer: str, index: str, elem: str, mask: str) -> str:
    """The processor gathers no bytes: gather the aligned words around them."""
    type_, words = f"<{LANES} x i64>", f"<{LANES} x i32>"
    base = e.let(f"ptrtoint ptr {pointer} to i64")
    place = e.let(f"add {type_} {e.splat('i64', base)}, {index}")
    low = e.let(f"and {type_} {place}, splat (i64 3)")
    back = e.let(f"sub {type_} {index}, {low}")
    word = _gather_one(e, _pointers(e, pointer, back), "i32", mask)
    amount = e.let(f"trunc {type_} {low} to {words}")
    amount = e.let(f"shl {words} {amount}, splat (i32 3)")
    moved = e.let(f"lshr {words} {word}, {amount}")
    return e.let(f"trunc {words} {moved} to {e.t(elem, True)}")


def _gather_halves(e: FunctionEmitter, pointer: str, index: str, mask: str) -> str:
    """128-bit elements as two of 64."""
    type_ = f"<{LANES} x i128>"
    parts = []
    for n in range(2):
        place = offset_pointer(e, pointer, 8 * n)
        half = _gather_one(e, _pointers(e, place, index), "i64", mask)
        parts.append(e.let(f"zext <{LANES} x i64> {half} to {type_}"))
    high = e.let(f"shl {type_} {parts[1]}, splat (i128 64)")
    return e.let(f"or {type_} {high}, {parts[0]}")


def suffix(elem: str) -> str:
    return {"float": "f32", "double": "f64", "half": "f16"}.get(elem, elem)


def scatter_narrow(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, value: str, mask: str
) -> None:
    """Store by 32-bit indices."""
    index, scale = narrow
    if not index.startswith("%"):
        _scatter_narrow(e, pointer, narrow, elem, value, mask)
        return

    def lanes(pointer: str, index: str, value: str, mask: str) -> list[str]:
        _scatter_narrow(e, pointer, (index, scale), elem, value, mask)
        return []

    inputs = [("ptr", pointer), (e.t("i32", True), index), (e.t(elem, True), value)]
    inputs.append((e.t("i1", True), mask))
    shared(e, f"scatter.{elem}.{scale}", inputs, [], lanes)


def _scatter_narrow(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, value: str, mask: str
) -> None:
    def scalars() -> list[str]:
        if _store_strided(e, pointer, narrow, elem, value):
            return []
        here_of = _lane_pointers(e, pointer, narrow)
        if e.possible.bit_count() <= _FEW:
            for lane in range(LANES):
                if e.possible >> lane & 1:
                    one = e.let(f"extractelement {e.t(elem, True)} {value}, i64 {lane}")
                    align = bits_of(elem) // 8
                    e.line(f"store {elem} {one}, ptr {here_of(lane)}, align {align}")
            return []
        slot = e.alloca(e.t(elem, True), "values")
        e.line(f"store volatile {e.t(elem, True)} {value}, ptr {slot}")
        for lane in range(LANES):
            if not e.possible >> lane & 1:
                continue
            place = e.let(f"getelementptr {elem}, ptr {slot}, i64 {lane}")
            one = e.let(f"load {elem}, ptr {place}")
            e.line(f"store {elem} {one}, ptr {here_of(lane)}, align {bits_of(elem) // 8}")
        return []

    def scattered() -> list[str]:
        _scatter_instruction(e, pointer, narrow, elem, value, mask)
        return []

    either(e, is_full(e, mask), "", scalars, scattered)


def _scatter_instruction(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, value: str, mask: str
) -> None:
    size = 16 if bits_of(elem) == 32 else 8
    index, scale = narrow
    name = f"llvm.x86.avx512.mask.scatter.{_KINDS[elem]}.512"
    for at in range(0, LANES, size):
        picked = list(range(at, at + size))
        operands = [
            ("ptr", pointer),
            (f"<{size} x i1>", e.shuffle(LANES, "i1", mask, "poison", picked)),
            (f"<{size} x i32>", e.shuffle(LANES, "i32", index, "poison", picked)),
            (f"<{size} x {elem}>", e.shuffle(LANES, elem, value, "poison", picked)),
            ("i32", str(scale)),
        ]
        e.invoke(name, "void", operands)


def scatter(
    e: FunctionEmitter, pointer: str, index: str, elem: str, vectors: list[str], mask: str
) -> None:
    nbytes = bits_of(elem) // 8
    if nbytes < 4 or nbytes > 8:
        inputs = [("i64", index), *((elem, v) for v in vectors)]

        def body(_: str, place: str, *values: str) -> list[str]:
            for n, value in enumerate(values):
                at = offset_pointer(e, offset_pointer(e, pointer, n * nbytes), place)
                e.line(f"store {elem} {value}, ptr {at}, align {min(nbytes, 8)}")
            return []

        each_lane(e, mask, inputs, [], body)
        return
    lanes, pointers = f"<{LANES} x i1>", f"<{LANES} x ptr>"
    name = f"llvm.masked.scatter.v{LANES}{suffix(elem)}.v{LANES}p0"
    type_ = e.t(elem, True)
    e.declare(name, "void", [type_, pointers, lanes])
    for n, value in enumerate(vectors):
        places = _pointers(e, offset_pointer(e, pointer, n * nbytes), index)
        operands = f"{type_} {value}, {pointers} align {nbytes} {places}, {lanes} {mask}"
        e.line(f"call void @{name}({operands})")
