"""Moves, packing, address conversion: PTX ISA 9.0, 9.7.9.3 (mov) to 9.7.9.23 (cvta)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyarch.gpu.cpu.rules.integers import wide_parts, wide_target
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import SIZES, Instruction, VectorOperand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter


@rule("mov")
def mov(e: FunctionEmitter, i: Instruction) -> None:
    """Copy, pack or unpack."""
    d, a = i.operands
    type_ = i.types[-1] if i.types else "b32"
    if isinstance(a, VectorOperand) and isinstance(d, VectorOperand):
        _copy(e, i, d, a, f"b{SIZES[type_]}")
        return
    if isinstance(a, VectorOperand):
        _pack(e, i, a, SIZES[type_])
        return
    if isinstance(d, VectorOperand):
        _unpack(e, i, d, SIZES[type_])
        return
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        first, second = wide_parts(e, a)
        e.define_wide(target, first or "0", second)
        return
    elem = elem_of(type_)
    if elem[0] == "2" or elem == "bfloat":
        elem = f"i{SIZES[type_]}"
    e.choose(i, a)
    e.define(d, elem, e.get(a, elem))


def _copy(
    e: FunctionEmitter, i: Instruction, d: VectorOperand, a: VectorOperand, type_: str
) -> None:
    """Element by element; all are read before any is written."""
    e.choose(i, *a.elements)
    elem = elem_of(type_)
    values = [e.get(source, elem) for source in a.elements]
    for target, value in zip(d.elements, values, strict=True):
        e.define(target, elem, value)


def _pack(e: FunctionEmitter, i: Instruction, sources: VectorOperand, size: int) -> None:
    e.choose(i, *sources.elements)
    each = size // len(sources.elements)
    whole = f"i{size}"
    result = e.k(whole, 0)
    for n, source in enumerate(sources.elements):
        wide = e.cast("zext", f"i{each}", whole, e.get(source, f"i{each}"))
        moved = e.op("shl", whole, wide, e.k(whole, n * each)) if n else wide
        result = e.op("or", whole, result, moved) if n else moved
    e.define(i.operands[0], whole, result)


def _unpack(e: FunctionEmitter, i: Instruction, targets: VectorOperand, size: int) -> None:
    source = i.operands[1]
    e.choose(i, source)
    each = size // len(targets.elements)
    whole = f"i{size}"
    value = e.get(source, whole)
    for n, target in enumerate(targets.elements):
        moved = e.op("lshr", whole, value, e.k(whole, n * each)) if n else value
        e.define(target, f"i{each}", e.cast("trunc", whole, f"i{each}", moved))


@rule("createpolicy")
def createpolicy(e: FunctionEmitter, i: Instruction) -> None:
    """A hint for caches; any number will do."""
    e.vec = False
    e.define(i.operands[0], "i64", "0")


@rule("cvta")
def cvta(e: FunctionEmitter, i: Instruction) -> None:
    """Between an address in a space and a generic one; global and const are generic as they are."""
    d, a = i.operands
    spaces = {m.split("::")[0] for m in i.modifiers}
    to = "to" in spaces
    if "local" in spaces and e.kernel.array_element:
        return  # nothing reads it
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        first, second = wide_parts(e, a)
        if "shared" in spaces:
            second = e.op("sub" if to else "add", "i64", second, e.shared_base())
        e.define_wide(target, first or "0", second)
        return
    local = "local" in spaces and e.width > 1
    if local and not to and e.shape(d).kind == "affine":
        e.vec = False
        e.define(d, "i64", e.op("add", "i64", e.get(a, "i64"), e.local_base()))
        return
    e.choose(i, a)
    if local:
        e.vec = True
    value = e.get(a, "i64")
    base = None
    if "shared" in spaces:
        base = e.shared_base()
    elif "local" in spaces:
        base = e.local_base()
    elif "param" in spaces:
        base = e.let(f"ptrtoint ptr {e.parameter_pointer()} to i64")
    if base is not None:
        offset = e.splat("i64", base) if e.vec else base
        value = e.op("sub" if to else "add", "i64", value, offset)
    if local:
        lanes = e.lanes("i64", tuple(n * e.kernel.local_stride for n in range(LANES)))
        value = e.op("sub" if to else "add", "i64", value, lanes)
    e.define(d, "i64", value)


@rule("mapa", "getctarank")
def mapa(e: FunctionEmitter, i: Instruction) -> None:
    """Addresses in other blocks of the cluster, which is a cluster of one."""
    d, a = i.operands[:2]
    elem = elem_of(i.types[-1])
    e.choose(i, a)
    e.define(d, elem, e.get(a, elem) if i.opcode == "mapa" else e.k(elem, 0))


@rule("isspacep")
def isspacep(e: FunctionEmitter, i: Instruction) -> None:
    """Whether a generic address lies in a space."""
    d, a = i.operands
    space = next(m.split("::")[0] for m in i.modifiers)
    e.choose(i, a)
    value = e.get(a, "i64")

    def within(base: str, nbytes: int) -> str:
        start = e.splat("i64", base) if e.vec else base
        return e.cmp("icmp ult", "i64", e.op("sub", "i64", value, start), e.k("i64", nbytes))

    shared = within(e.shared_base(), 1 << 32)
    local = within(e.local_base(), e.kernel.local_stride * e.width)
    if space == "shared":
        result = shared
    elif space == "local":
        result = local
    elif space == "global":
        either = e.op("or", "i1", shared, local)
        result = e.op("xor", "i1", either, e.k("i1", 1))
    else:
        result = e.op("and", "i1", shared, e.k("i1", 0))
    e.define(d, "i1", result)
