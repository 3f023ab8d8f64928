"""Memory as the lanes of a warp see it: one access, runs of contiguous ones, or a gather.

Every access is an offset from a pointer that the compiler knows nothing of. Where an address is a
scalar plus constants, lanes are split into runs that are contiguous or all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from anyarch.gpu.cpu.activity import ALL_LANES
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import bits_of
from anyarch.gpu.ptx.tree import Address, Instruction, Register, Symbol

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
    "offset_pointer",
    "resolve",
    "row_length",
    "rows",
    "space_of",
    "store",
]

Body: TypeAlias = Callable[..., list[str]]  # of a loop over lanes: (lane, input…) -> outputs

_SPACES: Final = ("global", "shared", "local", "const", "param")
_LINE: Final = 64  # bytes of a line of the cache
_CLOSE_LINES: Final = 32  # what is fetched behind a warp's rows
_FEW: Final = 8  # lanes whose values are taken from a vector one by one
BARRIER: Final = 'call void asm sideeffect "", "~{memory}"()'


@dataclass(slots=True)
class Access:
    """Where an instruction's lanes access.

    `pointer` is scalar; with `lanes` each lane's place is that many bytes from it, with `index`
    (a vector of i64) likewise. `fits` is a scalar condition under which `lanes` hold; `exact`
    gives the index for when they do not.
    """

    pointer: str
    lanes: tuple[int, ...] = ()
    index: str = ""
    fits: str = ""
    exact: Callable[[], str] | None = None
    origin: str = ""  # the pointer that `exact` counts from
    narrow: str = ""  # or a vector of i32, signed, in units of `scale` bytes
    scale: int = 1
    invariant: bool = False
    ahead: bool = False  # whether what comes next in memory is worth fetching
    ordered: bool = False

    @property
    def scalar(self) -> bool:
        """Whether all lanes access the same place."""
        return not (self.lanes or self.index or self.narrow)


def space_of(i: Instruction) -> str:
    """The state space that an instruction names; "" is generic."""
    for modifier in i.modifiers:
        stem = modifier.split("::")[0]
        if stem in _SPACES:
            return stem
    return ""


def offset_pointer(e: FunctionEmitter, pointer: str, offset: int | str) -> str:
    """A pointer some bytes further."""
    if offset in (0, "0"):
        return pointer
    return e.let(f"getelementptr i8, ptr {pointer}, i64 {offset}")


def resolve(e: FunctionEmitter, i: Instruction, address: Address, space: str) -> Access:
    """Where a kernel's instruction accesses."""
    pointer = {
        "shared": e.shared_pointer,
        "local": e.local_pointer,
        "param": e.parameter_pointer,
    }.get(space, lambda: "%base")()
    if space == "local" and e.kernel.array_element:
        return _array_access(e, pointer, address)
    base, offset = address.base, address.offset
    signed = space == "shared"  # a base may lie below the window, its lanes in it
    result: Access
    if base is None or isinstance(base, Symbol):
        place = "0" if base is None else e.symbol_value(base)
        result = Access(offset_pointer(e, offset_pointer(e, pointer, offset), place))
    else:
        result = _register_access(e, pointer, base, offset, signed)
    if space == "local" and e.width > 1:
        strides = tuple(n * e.kernel.local_stride for n in range(LANES))
        if result.narrow:
            result = Access(result.pointer, index=index_of(e, result))
        if result.index:
            type_ = e.t("i64", True)
            moved = e.let(f"add {type_} {result.index}, {e.lanes('i64', strides)}")
            result = Access(result.pointer, index=moved)
        elif result.fits:
            assert result.exact is not None
            type_ = e.t("i64", True)
            moved = e.let(f"add {type_} {result.exact()}, {e.lanes('i64', strides)}")
            result = Access(result.origin, index=moved)
        else:
            lanes = result.lanes or (0,) * LANES
            result.lanes = tuple(a + b for a, b in zip(lanes, strides))
    result.ahead = space != "shared" and e.in_loop and e.kernel.flows > 1
    result.invariant = space in ("param", "const") or "nc" in i.modifiers
    ordered = {"volatile", "relaxed", "acquire", "release", "mmio"}
    result.ordered = bool(ordered & set(i.modifiers))
    return result


def _array_access(e: FunctionEmitter, pointer: str, address: Address) -> Access:
    """An element of an array of the frame: 32 times as far as in a thread's own memory."""
    each = e.kernel.array_element
    lanes = tuple(each * n for n in range(LANES))
    base = address.base
    before, e.vec = e.vec, False
    shape = e.shape(base) if base is not None else None
    if base is None or isinstance(base, Symbol):
        place = "0" if base is None else e.symbol_value(base)
        place = str((int(place) + address.offset) * LANES)
        result = Access(offset_pointer(e, pointer, place), lanes=lanes)
    elif shape is not None and shape.kind in ("uniform", "affine"):
        start = e.let(f"mul i64 {e.get(base, 'i64')}, {LANES}")
        start = offset_pointer(e, offset_pointer(e, pointer, address.offset * LANES), start)
        if shape.kind == "affine":
            lanes = tuple(LANES * n + at for n, at in zip(shape.lanes, lanes))
        result = Access(start, lanes=lanes)
    else:
        e.vec = True
        spread = e.op("mul", "i32", e.get(base, "i32"), e.k("i32", LANES))
        index = e.op("add", "i32", spread, e.lanes("i32", lanes))
        start = offset_pointer(e, pointer, address.offset * LANES)
        result = Access(start, narrow=index)
    e.vec = before
    return result


def _register_access(
    e: FunctionEmitter, pointer: str, base: Register, offset: int, signed: bool
) -> Access:
    shape = e.shape(base)
    elem = f"i{base.size}"
    start = offset_pointer(e, pointer, offset)

    def extended(value: str) -> str:
        return e.resize(elem, "i64", value, signed)

    before, e.vec = e.vec, False
    try:
        match shape.kind:
            case "uniform":
                return Access(offset_pointer(e, start, extended(e.get(base, elem))))
            case "affine":
                first = extended(e.get(base, elem))
                return Access(offset_pointer(e, start, first), lanes=shape.lanes)
            case "wide":
                return _wide_access(e, start, base)
            case "indexed":
                return _indexed_access(e, start, base)
    finally:
        e.vec = before
    e.vec = True
    if signed and base.size == 32:
        narrow = e.get(base, "i32")
        e.vec = before
        return Access(start, narrow=narrow)
    index = extended(e.get(base, elem))
    e.vec = before
    return Access(start, index=index)


def _indexed_access(e: FunctionEmitter, start: str, base: Register) -> Access:
    shape = e.shape(base)
    vector, base64 = e.wide(base)
    pointer = offset_pointer(e, start, base64)
    if shape.signed:
        return Access(pointer, narrow=vector, scale=shape.scale)
    return Access(start, index=e.wide_vector(shape, vector, base64))


def _wide_access(e: FunctionEmitter, start: str, base: Register) -> Access:
    shape = e.shape(base)
    base32, base64 = e.wide(base)
    extend = "sext" if shape.signed else "zext"
    first = e.let(f"{extend} i32 {base32} to i64")
    scaled = e.let(f"mul i64 {first}, {shape.scale}") if shape.scale != 1 else first
    pointer = offset_pointer(e, offset_pointer(e, start, base64), scaled)
    low, high = min(0, *shape.lanes), max(0, *shape.lanes)
    least, most = (-(1 << 31), (1 << 31) - 1) if shape.signed else (0, (1 << 32) - 1)
    letter = "s" if shape.signed else "u"
    conditions = []
    if high:
        conditions.append(e.let(f"icmp {letter}le i32 {base32}, {_i32(most - high)}"))
    if low:
        conditions.append(e.let(f"icmp {letter}ge i32 {base32}, {_i32(least - low)}"))
    fits = conditions[0]
    for more in conditions[1:]:
        fits = e.let(f"and i1 {fits}, {more}")

    def exact() -> str:
        return e.wide_vector(shape, base32, base64)

    lanes = tuple(n * shape.scale for n in shape.lanes)
    return Access(pointer, lanes=lanes, fits=fits, exact=exact, origin=start)


def _i32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


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


# Loads.


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
            return _gather(e, places, "", elem, count, mask)
        starts = [offset_pointer(e, access.pointer, at) for at in _starts(access.lanes, runs)]
        if access.ahead and len(starts) == 1:
            _prefetch(e, starts[0], LANES * count * nbytes)
        return load_runs(e, starts, runs, elem, count, mask)

    if not access.fits:
        return contiguous()

    def gathered() -> list[str]:
        assert access.exact is not None
        return _gather(e, Access(access.origin), access.exact(), elem, count, mask)

    return either(e, access.fits, e.t(elem, True), contiguous, gathered)


def _prefetch(e: FunctionEmitter, pointer: str, nbytes: int) -> None:
    """What the next warp will load: a loop that goes over an array in steps of a grid looks random
    to the processor, but the next warp's turn is next door."""
    e.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    for at in range(0, max(nbytes, _LINE), _LINE):
        place = offset_pointer(e, pointer, max(nbytes, _LINE) + at)
        e.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")


def _prefetch_behind(e: FunctionEmitter, pointer: str, narrow: tuple[str, int]) -> None:
    """Rows of different lengths lie one behind the other: where a warp's are close together and in
    order, the next warp's are behind the last. Gathers alone are no pattern for the processor."""
    index, scale = narrow
    first, last = (
        e.let(f"extractelement {e.t('i32', True)} {index}, i64 {n}") for n in (0, LANES - 1)
    )
    span = e.let(f"sub i32 {last}, {first}")
    close = e.let(f"icmp ult i32 {span}, {_CLOSE_LINES * 2 * _LINE // scale}")
    then, after = e.name("close"), e.name("after")
    e.branch(close, then, after)
    e.label(then)
    e.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    end = e.let(f"sext i32 {last} to i64")
    end = offset_pointer(e, pointer, e.let(f"mul i64 {end}, {scale}") if scale != 1 else end)
    for n in range(1, _CLOSE_LINES + 1):
        e.line(
            f"call void @llvm.prefetch.p0(ptr {offset_pointer(e, end, n * _LINE)}, i32 0, i32 3, i32 1)"
        )
    e.jump(after)
    e.label(after)


def either(
    e: FunctionEmitter,
    condition: str,
    type_: str,
    likely: Callable[[], list[str]],
    otherwise: Callable[[], list[str]],
) -> list[str]:
    """The results of one of two pieces of code."""
    fast, slow, after = e.name("fast"), e.name("slow"), e.name("after")
    e.branch(condition, fast, slow, "!1")
    e.label(fast)
    first = likely()
    from_fast = e.current
    e.jump(after)
    e.label(slow)
    second = otherwise()
    from_slow = e.current
    e.jump(after)
    e.label(after)
    return [
        e.let(f"phi {type_} [ {a}, %{from_fast} ], [ {b}, %{from_slow} ]")
        for a, b in zip(first, second)
    ]


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
    nbytes = bits_of(elem) // 8

    def gathered() -> list[str]:
        return _gather(e, access, "", elem, count, mask)

    length = row_length(e, access, count * nbytes, nbytes)
    if not length:
        return gathered()
    good, starts = rows(e, access, count * nbytes, mask)

    def contiguous() -> list[str]:
        return load_runs(e, starts, (length, ["up"] * len(starts)), elem, count, mask)

    return either(e, good, e.t(elem, True), contiguous, gathered)


def index_of(e: FunctionEmitter, access: Access) -> str:
    """Bytes from the pointer, as a vector."""
    if access.narrow:
        type_ = e.t("i64", True)
        wide = e.let(f"sext {e.t('i32', True)} {access.narrow} to {type_}")
        if access.scale == 1:
            return wide
        return e.let(f"mul {type_} {wide}, splat (i64 {access.scale})")
    if access.index:
        return access.index
    return e.lanes("i64", access.lanes)


def _narrow_index(e: FunctionEmitter, access: Access, nbytes: int) -> tuple[str, int] | None:
    """A 32-bit index and its scale, where the processor gathers by such."""
    if not e.kernel.avx512 or nbytes not in (4, 8):
        return None
    if access.narrow:
        return (access.narrow, access.scale) if access.scale in (1, 2, 4, 8) else None
    if access.lanes and all(-(1 << 31) <= n < 1 << 31 for n in access.lanes):
        return e.lanes("i32", access.lanes), 1
    return None


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
    name = f"llvm.masked.load.v{total}{_suffix(elem)}.p0"
    e.declare(name, type_, ["ptr", f"<{total} x i1>", type_])
    operands = f"ptr align {align} {pointer}, <{total} x i1> {mask}, {type_} poison"
    return e.let(f"call {type_} @{name}({operands})")


def _suffix(elem: str) -> str:
    return {"float": "f32", "double": "f64", "half": "f16"}.get(elem, elem)


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


def _pointers(e: FunctionEmitter, pointer: str, index: str) -> str:
    return e.let(f"getelementptr i8, ptr {pointer}, <{LANES} x i64> {index}")


def _gather(
    e: FunctionEmitter, access: Access, index: str, elem: str, count: int, mask: str
) -> list[str]:
    """Gather; `index` is the access's own if it is empty."""
    nbytes = bits_of(elem) // 8
    narrow = None if index else _narrow_index(e, access, nbytes)
    if narrow is not None and access.ahead and access.narrow:
        _prefetch_behind(e, access.pointer, narrow)
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


_KINDS: Final = {"float": "dps", "i32": "dpi", "double": "dpd", "i64": "dpq"}


def _gather_narrow(
    e: FunctionEmitter, pointer: str, narrow: tuple[str, int], elem: str, mask: str
) -> str:
    """By the processor's own instruction: LLVM makes 64-bit pointers of a hoisted index."""
    if bits_of(elem) == 32:
        (result,) = either(
            e,
            is_full(e, mask),
            e.t(elem, True),
            lambda: [_gather_scalars(e, pointer, narrow, elem)],
            lambda: [_gather_instruction(e, pointer, narrow, elem, mask)],
        )
        return result
    return _gather_instruction(e, pointer, narrow, elem, mask)


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
    name = f"llvm.masked.store.v{size}{_suffix(elem)}.p0"
    e.declare(name, "void", [type_, "ptr", f"<{size} x i1>"])
    for at in range(0, LANES * stride, size):
        picked = [n // stride if n % stride == 0 else -1 for n in range(at, at + size)]
        block = e.shuffle(LANES, elem, value, "poison", picked)
        lanes = f"<{', '.join(f'i1 {int(n >= 0)}' for n in picked)}>"
        place = offset_pointer(e, pointer, first + at * nbytes)
        operands = f"{type_} {block}, ptr align {nbytes} {place}, <{size} x i1> {lanes}"
        e.line(f"call void @{name}({operands})")
    return True


def is_full(e: FunctionEmitter, mask: str) -> str:
    """Whether a mask has all lanes that it can have, as a scalar."""
    if not mask.startswith("%"):
        return "true"
    wanted = e.possible - (1 << LANES if e.possible >> LANES - 1 else 0)
    return e.let(f"icmp eq i32 {e.mask_bits(mask)}, {wanted}")


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


def _gather_one(e: FunctionEmitter, pointers: str, elem: str, mask: str) -> str:
    type_ = e.t(elem, True)
    name = f"llvm.masked.gather.v{LANES}{_suffix(elem)}.v{LANES}p0"
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


# Stores.


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
        e.line(f"store {volatile}{elem} {value}, ptr {pointer}, align {min(nbytes, 8)}")


def _store_lanes(
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
            _scatter(e, access.origin, access.exact(), elem, vectors, mask)
        else:
            spread()
        return []

    def spread() -> None:
        narrow = _narrow_index(e, access, nbytes)
        if narrow is None:
            _scatter(e, access.pointer, index_of(e, access), elem, vectors, mask)
            return
        for n, value in enumerate(vectors):
            pointer = offset_pointer(e, access.pointer, n * nbytes)
            _scatter_narrow(e, pointer, narrow, elem, value, mask)

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
        name = f"llvm.masked.store.v{total}{_suffix(elem)}.p0"
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


def _scatter(
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
    name = f"llvm.masked.scatter.v{LANES}{_suffix(elem)}.v{LANES}p0"
    type_ = e.t(elem, True)
    e.declare(name, "void", [type_, pointers, lanes])
    for n, value in enumerate(vectors):
        places = _pointers(e, offset_pointer(e, pointer, n * nbytes), index)
        operands = f"{type_} {value}, {pointers} align {nbytes} {places}, {lanes} {mask}"
        e.line(f"call void @{name}({operands})")


# One lane after another.


def each_lane(
    e: FunctionEmitter,
    mask: str,
    inputs: list[tuple[str, str]],
    outputs: list[str],
    body: Body,
) -> list[str]:
    """A loop over active lanes. `body(lane, input…)` writes scalar code and gives the outputs,
    which are collected to vectors."""
    sources = []
    for elem, value in inputs:
        slot = e.alloca(e.t(elem, True), "in")
        e.line(f"store {e.t(elem, True)} {value}, ptr {slot}")
        sources.append((elem, slot))
    targets = [(elem, e.alloca(e.t(elem, True), "out")) for elem in outputs]
    left = e.alloca("i32", "left")
    bits = e.mask_bits(mask)
    e.line(f"store i32 {bits}, ptr {left}")
    loop, after = e.name("each"), e.name("done")
    e.branch(e.let(f"icmp ne i32 {bits}, 0"), loop, after)
    e.label(loop)
    now = e.let(f"load i32, ptr {left}")
    lane = e.invoke("llvm.cttz.i32", "i32", [("i32", now), ("i1", "true")])
    wide = e.let(f"zext i32 {lane} to i64")
    scalars = []
    for elem, slot in sources:
        place = e.let(f"getelementptr {elem}, ptr {slot}, i64 {wide}")
        scalars.append(e.let(f"load {elem}, ptr {place}"))
    before, e.vec = e.vec, False
    results = body(lane, *scalars)
    e.vec = before
    for (elem, slot), value in zip(targets, results):
        place = e.let(f"getelementptr {elem}, ptr {slot}, i64 {wide}")
        e.line(f"store {elem} {value}, ptr {place}")
    less = e.let(f"sub i32 {now}, 1")
    rest = e.let(f"and i32 {now}, {less}")
    e.line(f"store i32 {rest}, ptr {left}")
    e.branch(e.let(f"icmp ne i32 {rest}, 0"), loop, after)
    e.label(after)
    return [e.let(f"load {e.t(elem, True)}, ptr {slot}") for elem, slot in targets]
