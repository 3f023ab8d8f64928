"""Rules of single and double precision: between formats, integers and integral values."""

from __future__ import annotations

from typing import Final

from anyarch.emit.floats import (
    AWAY,
    BIAS,
    DYNAMIC,
    FRACTION,
    INVALID,
    LEAST_NORMAL,
    ODD,
    STRICT,
    UNDERFLOW,
    Rule,
    Shape,
    any_lane,
    by_lane,
    canonical_bits,
    compare,
    constrained,
    convert,
    emulate_outside,
    from_signed,
    magnitude,
    numbers,
    raise_flag,
    raise_inexact,
    select,
    unordered_lanes,
)
from anyarch.emit.llvm import Emitter
from anyarch.emit.tininess import LEAST_EXPONENT
from anyarch.ir.graph import Node, float_lanes


def _convert(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    target = shape.with_format(str(node.attrs[1]))
    if target == shape:
        return bits[0]
    (a,) = numbers(e, shape, bits)
    result = convert(e, shape, target, a)
    if e.float_rules == "arm":  # the host keeps a NaN's payload as Arm does
        if target.size < shape.size:
            underflow_of_narrow(e, shape, target, a, result)
        if node.attrs[-1] == ODD:
            return _odd(e, shape, target, a, result)
        return e.let(f"bitcast {target.kind} {result} to {target.bits}")
    return canonical_bits(e, target, result)


def _odd(e: Emitter, shape: Shape, target: Shape, a: str, result: str) -> str:
    """The bits of a number that was cut off, made odd where something was lost."""
    back = convert(e, target, shape, result)
    lost = e.let(f"zext {shape.flag} {compare(e, shape, 'one', back, a)} to {target.bits}")
    bits = e.let(f"bitcast {target.kind} {result} to {target.bits}")
    return e.let(f"or {target.bits} {bits}, {lost}")


def underflow_of_narrow(e: Emitter, shape: Shape, target: Shape, a: str, result: str) -> None:
    """See see_underflow: of a number below the least normal one that was rounded to that."""
    bits = [
        e.let(f"bitcast {s.kind} {value} to {s.bits}")
        for s, value in ((shape, a), (target, result))
    ]
    least = target.integer(LEAST_NORMAL[target.fmt])
    found = e.let(f"icmp eq {target.bits} {magnitude(e, target, bits[1])}, {least}")
    limit = (LEAST_EXPONENT[target.fmt] + BIAS[shape.fmt]) << FRACTION[shape.fmt]
    below = e.let(f"icmp ult {shape.bits} {magnitude(e, shape, bits[0])}, {shape.integer(limit)}")
    tiny = any_lane(e, shape, e.let(f"and {shape.flag} {found}, {below}"))
    raising, done = e.name("tiny"), e.name("done")
    e.branch(tiny, raising, done, unlikely=True)
    e.label(raising)
    raise_flag(e, UNDERFLOW)
    e.line(f"br label %{done}")
    e.label(done)


def _from_int(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    signed, kind = bool(node.attrs[1]), shape.kind
    size = node.args[0].size // float_lanes(node)
    (value,) = bits
    if shape.lanes > 1:
        return e.let(f"bitcast {kind} {from_signed(e, shape, value, size)} to {shape.bits}")
    if size < 64:
        value = e.let(f"{'sext' if signed else 'zext'} i{size} {value} to i64")
    if signed or size < 64:
        return e.let(f"bitcast {kind} {from_signed(e, shape, value, 64)} to {shape.bits}")
    # Above 2**63: halve, keeping the lost bit sticky; doubling the result is exact.
    small, large, done = e.name("small"), e.name("large"), e.name("done")
    negative = e.let(f"icmp slt i64 {value}, 0")
    e.branch(negative, large, small)
    e.label(small)
    plain = from_signed(e, shape, value, 64)
    e.line(f"br label %{done}")
    e.label(large)
    half = e.let(f"lshr i64 {value}, 1")
    sticky = e.let(f"and i64 {value}, 1")
    halved = from_signed(e, shape, e.let(f"or i64 {half}, {sticky}"), 64)
    doubled = constrained(e, shape, "fadd", [halved, halved], DYNAMIC)
    e.line(f"br label %{done}")
    e.label(done)
    result = e.let(f"phi {kind} [ {plain}, %{small} ], [ {doubled}, %{large} ]")
    return e.let(f"bitcast {kind} {result} to {shape.bits}")


def _integral(e: Emitter, shape: Shape, a: str, rounding: object) -> str:
    """Rounded to an integral value, without the inexact flag."""
    if rounding == "dynamic":
        return constrained(e, shape, "nearbyint", [a], DYNAMIC)
    if rounding == AWAY:
        return _nearest_away(e, shape, a)
    name = {0: "roundeven", 1: "trunc", 2: "floor", 3: "ceil"}[int(str(rounding))]
    return constrained(e, shape, name, [a], STRICT)


def _raise_inexact_if(e: Emitter, shape: Shape, changed: str) -> None:
    """Accrue inexact where a condition holds in any lane."""
    inexact, exact = e.name("inexact"), e.name("exact")
    e.branch(any_lane(e, shape, changed), inexact, exact)
    e.label(inexact)
    raise_inexact(e)
    e.line(f"br label %{exact}")
    e.label(exact)


def _to_int(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Round, check the range, then convert exactly: LLVM's conversion is poison out of range."""
    signed, rounding, size = bool(node.attrs[1]), node.attrs[2], node.size // float_lanes(node)
    (a,) = numbers(e, shape, bits)
    rounded = _integral(e, shape, a, rounding)
    low = -float(1 << (size - 1)) if signed else 0.0
    high = float(1 << (size - 1 if signed else size))
    above = compare(e, shape, "oge", rounded, shape.number(low))
    below = compare(e, shape, "olt", rounded, shape.number(high))
    inside = e.let(f"and {shape.flag} {above}, {below}")
    good, bad, done = e.name("good"), e.name("bad"), e.name("done")
    outside = e.let(f"xor {shape.flag} {inside}, {shape.integer(-1, 1)}")
    e.branch(any_lane(e, shape, outside), bad, good, unlikely=True)

    e.label(bad)
    if shape.lanes > 1:
        limit = by_lane(e, node, shape, _to_int, bits)
    else:
        limit = _out_of_range(e, shape, a, size, signed=signed)
    after_bad = e.block
    e.line(f"br label %{done}")

    e.label(good)
    _raise_inexact_if(e, shape, compare(e, shape, "une", rounded, a))
    if shape.lanes > 1:
        narrow = _exactly(e, shape, rounded, size)
    elif signed or size < 64:
        narrow = _exactly(e, shape, rounded, 64)
    else:
        narrow = _exactly_unsigned(e, shape, rounded)
    if size < 64 and shape.lanes == 1:
        narrow = e.let(f"trunc i64 {narrow} to i{size}")
    after_good = e.block
    e.line(f"br label %{done}")
    e.label(done)
    return e.let(
        f"phi {shape.of(f'i{size}')} [ {limit}, %{after_bad} ], [ {narrow}, %{after_good} ]"
    )


def _to_int_modular(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """By way of 64 bits; what these do not hold is left to the reference engine."""
    limit = BIAS[shape.fmt] + 63 << FRACTION[shape.fmt]
    emulate_outside(e, shape, magnitude(e, shape, bits[0]), 0, limit)
    (a,) = numbers(e, shape, bits)
    whole = constrained(e, shape, "trunc", [a], STRICT)
    wide = _exactly(e, shape, whole, 64)
    narrow = e.let(f"trunc i64 {wide} to i{node.size}")
    back = e.let(f"sext i{node.size} {narrow} to i64")
    outside, inside, done = e.name("outside"), e.name("inside"), e.name("done")
    e.branch(e.let(f"icmp ne i64 {back}, {wide}"), outside, inside, unlikely=True)
    e.label(outside)
    raise_flag(e, INVALID)
    e.line(f"br label %{done}")
    e.label(inside)
    _raise_inexact_if(e, shape, compare(e, shape, "une", whole, a))
    e.line(f"br label %{done}")
    e.label(done)
    return narrow


def power(e: Emitter, shape: Shape, exponent: str) -> str:
    """Two to the power of an integer of the format's size."""
    biased = e.let(f"add {shape.bits} {exponent}, {BIAS[shape.fmt]}")
    bits = e.let(f"shl {shape.bits} {biased}, {FRACTION[shape.fmt]}")
    return e.let(f"bitcast {shape.bits} {bits} to {shape.kind}")


def _to_fixed(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    double = Shape("f64")
    (a,) = numbers(e, shape, bits[:1])
    if shape != double:
        a = convert(e, shape, double, a)
    count = e.let(f"zext i{node.args[1].size} {bits[1]} to i64")
    # Where the product could overflow, it is far out of range: so is the number put in its place.
    room = e.let(f"sub i64 {node.size + 1}, {count}")
    encoding = e.let(f"bitcast double {a} to i64")
    absolute = e.let(f"bitcast i64 {magnitude(e, double, encoding)} to double")
    big = compare(e, double, "oge", absolute, power(e, double, room))
    sign = e.let(f"and i64 {encoding}, {-(1 << 63)}")
    far = e.let(f"or i64 {sign}, {BIAS['f64'] + node.size + 1 << FRACTION['f64']}")
    # Chosen before it is multiplied: an overflow would be accrued.
    number = e.let(f"select i1 {big}, double 0.0, double {a}")
    product = constrained(e, double, "fmul", [number, power(e, double, count)], DYNAMIC)
    plain = e.let(f"bitcast double {product} to i64")
    return _to_int(e, node, double, [select(e, double, big, far, plain)])


def _from_fixed(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    whole = numbers(e, shape, [_from_int(e, node, shape, bits[:1])])
    count = e.let(f"zext i{node.args[1].size} {bits[1]} to {shape.bits}")
    unit = power(e, shape, e.let(f"sub {shape.bits} 0, {count}"))
    product = constrained(e, shape, "fmul", [*whole, unit], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {product} to {shape.bits}")


def _out_of_range(e: Emitter, shape: Shape, a: str, size: int, *, signed: bool) -> str:
    raise_flag(e, INVALID)
    largest = (1 << (size - 1 if signed else size)) - 1
    smallest = -(1 << (size - 1)) if signed else 0
    negative = compare(e, shape, "olt", a, shape.number(0.0))
    limit = e.let(f"select i1 {negative}, i{size} {smallest}, i{size} {largest}")
    if e.float_rules == "arm":
        unordered = unordered_lanes(e, shape, a, a)
        limit = e.let(f"select i1 {unordered}, i{size} 0, i{size} {limit}")
    return limit


def _exactly(e: Emitter, shape: Shape, value: str, size: int) -> str:
    """Integral numbers in range as signed integers."""
    letter = f"i{size}" if shape.lanes == 1 else f"v{shape.lanes}i{size}"
    return e.let(
        f"call {shape.of(f'i{size}')} @llvm.experimental.constrained.fptosi.{letter}."
        f"{shape.suffix}({shape.kind} {value}, {STRICT}) #1"
    )


def _exactly_unsigned(e: Emitter, shape: Shape, value: str) -> str:
    """The same of 64 bits without sign."""
    half = shape.number(float(1 << 63))
    upper, lower, joined = e.name("upper"), e.name("lower"), e.name("joined")
    big = compare(e, shape, "oge", value, half)
    e.branch(big, upper, lower, unlikely=True)
    e.label(lower)
    plain = _exactly(e, shape, value, 64)
    e.line(f"br label %{joined}")
    e.label(upper)
    reduced = constrained(e, shape, "fsub", [value, half], DYNAMIC)
    shifted = e.let(f"xor i64 {_exactly(e, shape, reduced, 64)}, {-(1 << 63)}")
    e.line(f"br label %{joined}")
    e.label(joined)
    return e.let(f"phi i64 [ {plain}, %{lower} ], [ {shifted}, %{upper} ]")


def _nearest_away(e: Emitter, shape: Shape, a: str) -> str:
    """The nearest integral value, ties away from zero, by exact operations."""
    kind, t, flag = shape.kind, shape.bits, shape.flag
    whole = constrained(e, shape, "trunc", [a], STRICT)
    bits = e.let(f"bitcast {kind} {a} to {t}")
    # From 2**23 or 2**52 up all values are integral.
    limit = shape.integer({"f32": 0x4B000000, "f64": 0x4330000000000000}[shape.fmt])
    small = e.let(f"icmp ult {t} {magnitude(e, shape, bits)}, {limit}")
    zero = shape.number(0.0)
    inside = e.let(f"select {flag} {small}, {kind} {a}, {kind} {zero}")
    truncated = e.let(f"select {flag} {small}, {kind} {whole}, {kind} {zero}")
    rest = constrained(e, shape, "fsub", [inside, truncated], DYNAMIC)
    distance = magnitude(e, shape, e.let(f"bitcast {kind} {rest} to {t}"))
    half = shape.integer({"f32": 0x3F000000, "f64": 0x3FE0000000000000}[shape.fmt])
    away = e.let(f"icmp uge {t} {distance}, {half}")
    sign = e.let(f"and {t} {bits}, {shape.integer(-(1 << (shape.size - 1)))}")
    one = shape.integer({"f32": 0x3F800000, "f64": 0x3FF0000000000000}[shape.fmt])
    step = e.let(f"bitcast {t} {e.let(f'or {t} {sign}, {one}')} to {kind}")
    moved = constrained(e, shape, "fadd", [truncated, step], DYNAMIC)
    return e.let(f"select {flag} {away}, {kind} {moved}, {kind} {whole}")


def _round(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    (a,) = numbers(e, shape, bits)
    rounded = _integral(e, shape, a, node.attrs[1])
    if node.op == "fround_exact":
        _raise_inexact_if(e, shape, compare(e, shape, "one", rounded, a))
    if e.float_rules == "arm":  # the host keeps a NaN, made quiet, as Arm does
        return e.let(f"bitcast {shape.kind} {rounded} to {shape.bits}")
    return canonical_bits(e, shape, rounded)


RULES: Final[dict[str, Rule]] = {
    "fconvert": _convert,
    "fto_int": _to_int,
    "ffrom_int": _from_int,
    "fto_int_modular": _to_int_modular,
    "fto_fixed": _to_fixed,
    "ffrom_fixed": _from_fixed,
    "fround": _round,
    "fround_exact": _round,
}
