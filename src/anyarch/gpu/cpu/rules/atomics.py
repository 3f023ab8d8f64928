"""Atomic operations: PTX ISA 9.0, 9.7.13.4 to 9.7.13.6. Lanes act one after another.

Shared memory belongs to a block, whose threads take turns on one processor: there an atomic
operation is a load and a store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import access, checks, floats
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import (
    SIZES,
    Address,
    Constant,
    Instruction,
    Operand,
    VectorOperand,
)

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_OPERATIONS: Final = ("and", "or", "xor", "cas", "exch", "add", "inc", "dec", "min", "max")
_VECTORS: Final = {"v2", "v4", "v8"}
_NEUTRAL: Final = {"add": 0, "or": 0, "xor": 0, "and": -1}


@rule("atom", "red")
def atom(e: FunctionEmitter, i: Instruction) -> None:
    """Replace a value in memory, and give the old one; of vectors each element by itself."""
    if "async" in i.modifiers:
        e.fail("red.async is not supported")
    if not _VECTORS & set(i.modifiers):
        _atom(e, i)
        return
    address, *sources = i.operands[1 if i.opcode == "atom" else 0 :]
    value = sources[0]
    if not isinstance(address, Address) or not isinstance(value, VectorOperand):
        e.fail("it takes an address and a vector")
    nbytes = SIZES[i.types[-1]] // 8
    modifiers = tuple(m for m in i.modifiers if m not in _VECTORS)
    for n, one in enumerate(value.elements):
        operands: tuple[Operand, ...] = (Address(address.base, address.offset + n * nbytes), one)
        if i.opcode == "atom":
            target = i.operands[0]
            if not isinstance(target, VectorOperand):
                e.fail("the result is a vector")
            operands = (target.elements[n], *operands)
        _atom(e, replace(i, modifiers=modifiers, operands=operands))


def _atom(e: FunctionEmitter, i: Instruction) -> None:
    result = i.opcode == "atom"
    d = i.operands[0] if result else None
    if isinstance(d, Constant) and d.kind == "sink":
        d = None
    address, *sources = i.operands[1 if result else 0 :]
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    name = next((m for m in i.modifiers if m in _OPERATIONS), "")
    if not name:
        e.fail(f"{i.name} is not supported")
    if d is not None and not e.is_read(d):
        d = None
    type_ = i.types[-1]
    sources = sources[: 2 if name == "cas" else 1]
    space = access.space_of(i)
    place = access.resolve(e, i, address, space)
    elem = f"i{SIZES[type_]}"
    alone = space == "shared"
    if e.width == 1:
        values = [e.get(o, elem, False) for o in sources]
        kind = checks.LOAD | checks.STORE | checks.STRONG
        checks.access(e, place.pointer, place.space, SIZES[type_] // 8, kind)
        e.line(access.BARRIER)
        old = _one(e, name, type_, place.pointer, values, alone)
        e.line(access.BARRIER)
        if d is not None:
            e.define(d, elem, old, False)
        return
    e.line(access.BARRIER)
    if d is None and place.scalar and _reduce(e, name, type_, elem, place, sources, alone):
        e.line(access.BARRIER)
        return
    pointer = place.pointer
    inputs: list[tuple[str, str]] = []
    if place.narrow:
        inputs.append(("i32", place.narrow))
    elif place.fits:
        assert place.exact is not None
        inputs.append(("i64", place.exact()))
        pointer = place.origin
    elif not place.scalar:
        inputs.append(("i64", access.index_of(e, place)))
    # What is the same in all lanes needs no vector.
    same = [None if e.shape(o).kind != "uniform" else e.get(o, elem, False) for o in sources]
    inputs += [(elem, e.get(o, elem, True)) for o, one in zip(sources, same) if one is None]

    def body(_: str, *taken: str) -> list[str]:
        rest = iter(taken)
        where = pointer
        if not place.scalar:
            at = next(rest)
            if place.narrow:
                at = e.let(f"sext i32 {at} to i64")
                at = e.let(f"mul i64 {at}, {place.scale}") if place.scale != 1 else at
            where = access.offset_pointer(e, pointer, at)
        values = [next(rest) if one is None else one for one in same]
        return [_one(e, name, type_, where, values, alone)]

    if d is None and alone:
        _each_unrolled(e, e.active(), inputs, body)
        e.line(access.BARRIER)
        return
    (old,) = access.each_lane(e, e.active(), inputs, [elem], body)
    e.line(access.BARRIER)
    if d is not None:
        e.define(d, elem, old, True)


def _each_unrolled(
    e: FunctionEmitter,
    mask: str,
    inputs: list[tuple[str, str]],
    body: Callable[..., list[str]],
) -> None:
    """Lane after lane without a loop where all are active, as in the middle of a histogram."""
    full, part, after = e.name("full"), e.name("part"), e.name("after")
    e.branch(e.let(f"icmp eq i32 {e.mask_bits(mask)}, -1"), full, part)
    e.label(full)
    slots = []
    for elem, value in inputs:
        slot = e.alloca(e.t(elem, True), "in")
        e.line(f"store volatile {e.t(elem, True)} {value}, ptr {slot}")
        slots.append((elem, slot))
    before = e.vec
    for lane in range(LANES):
        places = [(t, e.let(f"getelementptr {t}, ptr {s}, i64 {lane}")) for t, s in slots]
        body("", *[e.let(f"load volatile {elem}, ptr {place}") for elem, place in places])
    e.vec = before
    e.jump(after)
    e.label(part)
    access.each_lane(e, mask, inputs, [], lambda *v: body(*v) and [])
    e.jump(after)
    e.label(after)


def _reduce(
    e: FunctionEmitter,
    name: str,
    type_: str,
    elem: str,
    place: access.Access,
    sources: list[Operand],
    alone: bool,
) -> bool:
    """All lanes into one place, nobody wants to know: combine them first."""
    if name in _NEUTRAL and "f" not in type_:
        operation, neutral = name, _NEUTRAL[name]
    elif name in ("min", "max") and "f" not in type_:
        signed = type_[0] == "s"
        operation = ("s" if signed else "u") + name
        size = SIZES[type_]
        least, most = (-(1 << size - 1), (1 << size - 1) - 1) if signed else (0, (1 << size) - 1)
        neutral = most if name == "min" else least
    else:
        return False
    vector = e.t(elem, True)
    lanes = e.active()
    value = e.get(sources[0], elem, True)
    before, e.vec = e.vec, True
    value = e.sel(lanes, elem, value, e.k(elem, neutral))
    e.vec = before
    full = f"llvm.vector.reduce.{operation}.v{LANES}{elem}"
    total = e.invoke(full, elem, [(vector, value)])
    if e.guard is None:
        _one(e, name, type_, place.pointer, [total], alone)
    else:
        with e.when(e.any_lane(lanes)):
            _one(e, name, type_, place.pointer, [total], alone)
    return True


def _one(
    e: FunctionEmitter, name: str, type_: str, pointer: str, values: list[str], alone: bool
) -> str:
    """One lane's operation, on bits: the old value."""
    elem = f"i{SIZES[type_]}"
    align = SIZES[type_] // 8
    e.vec = False
    if alone:
        old = e.let(f"load {elem}, ptr {pointer}, align {align}")
        e.line(f"store {elem} {_new(e, name, type_, old, values)}, ptr {pointer}, align {align}")
        return old
    order = "seq_cst"
    if name == "cas":
        pair = e.let(
            f"cmpxchg ptr {pointer}, {elem} {values[0]}, {elem} {values[1]} {order} {order}"
        )
        return e.let(f"extractvalue {{ {elem}, i1 }} {pair}, 0")
    if SIZES[type_] < 128 and ("f" not in type_ or name == "exch"):
        signed = type_[0] == "s"
        llvm = {
            "exch": "xchg",
            "inc": "uinc_wrap",
            "dec": "udec_wrap",
            "min": "min" if signed else "umin",
            "max": "max" if signed else "umax",
        }.get(name, name)
        return e.let(f"atomicrmw {llvm} ptr {pointer}, {elem} {values[0]} {order}")
    # Floating point and 128 bits: compare and exchange until nobody came between.
    start = e.let(f"load atomic {elem}, ptr {pointer} monotonic, align {align}")
    before, loop, after = e.current, e.name("again"), e.name("swapped")
    e.jump(loop)
    e.label(loop)
    again = "%" + e.name()
    phi_at = len(e.lines)
    e.lines.append("")
    new = _new(e, name, type_, again, values)
    pair = e.let(f"cmpxchg ptr {pointer}, {elem} {again}, {elem} {new} {order} {order}")
    seen = e.let(f"extractvalue {{ {elem}, i1 }} {pair}, 0")
    done = e.let(f"extractvalue {{ {elem}, i1 }} {pair}, 1")
    e.branch(done, after, loop)
    e.lines[phi_at] = f"  {again} = phi {elem} [ {start}, %{before} ], [ {seen}, %{loop} ]"
    e.label(after)
    return again


def _new(e: FunctionEmitter, name: str, type_: str, old: str, values: list[str]) -> str:
    """What replaces the old value."""
    elem = f"i{SIZES[type_]}"
    value = values[0]
    if name == "exch":
        return value
    if name == "cas":
        same = e.cmp("icmp eq", elem, old, value)
        return e.sel(same, elem, values[1], old)
    if "f" in type_:
        return _new_float(e, name, type_, old, value)
    match name:
        case "inc":
            full = e.cmp("icmp uge", elem, old, value)
            return e.sel(full, elem, e.k(elem, 0), e.op("add", elem, old, e.k(elem, 1)))
        case "dec":
            zero = e.cmp("icmp eq", elem, old, e.k(elem, 0))
            above = e.cmp("icmp ugt", elem, old, value)
            less = e.op("sub", elem, old, e.k(elem, 1))
            return e.sel(e.op("or", "i1", zero, above), elem, value, less)
        case "min" | "max":
            letter = "s" if type_[0] == "s" else "u"
            return e.call(f"llvm.{letter}{name}", elem, old, value)
    return e.op(name, elem, old, value)


def _new_float(e: FunctionEmitter, name: str, type_: str, old: str, value: str) -> str:
    def combine(elem: str, a: str, b: str) -> str:
        if name == "add":
            return e.op("fadd", elem, a, b)
        return e.call(f"llvm.{'minimumnum' if name == 'min' else 'maximumnum'}", elem, a, b)

    if type_ in ("f32", "f64", "f16"):
        elem, integer = elem_of(type_), f"i{SIZES[type_]}"
        result = combine(elem, e.bits(integer, elem, old), e.bits(integer, elem, value))
        return e.bits(elem, integer, result)
    if type_ == "bf16":
        a, b = (floats.widen_bf16(e, v) for v in (old, value))
        return floats.narrow_bf16(e, combine("float", a, b))
    elem = "float" if type_ == "bf16x2" else "half"
    sides = [floats.halves(e, type_, v) for v in (old, value)]
    parts = [combine(elem, a, b) for a, b in zip(*sides)]
    if elem == "float":
        bits = [floats.narrow_bf16(e, p) for p in parts]
    else:
        bits = [e.bits("half", "i16", p) for p in parts]
    low, high = (e.cast("zext", "i16", "i32", b) for b in bits)
    return e.op("or", "i32", low, e.op("shl", "i32", high, e.k("i32", 16)))
