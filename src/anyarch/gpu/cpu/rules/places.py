"""Where the lanes of an instruction access memory.

Every access is an offset from a pointer that the compiler knows nothing of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.ptx.tree import Address, Instruction, Register, Symbol

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["Access", "index_of", "moved", "offset_pointer", "resolve", "space_of"]

_SPACES: Final = ("global", "shared", "local", "const", "param")


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
    space: str | None = None  # None for memory that no address leads to
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
    result.space = space
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


def moved(access: Access, pointer: str, index: str) -> Access:
    """Another pointer and another index of the same kind."""
    if access.narrow:
        return replace(access, pointer=pointer, narrow=index)
    return replace(access, pointer=pointer, index=index)


def _i32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


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
