"""Floating-point effects on half precision, by a host that only converts it.

Operands are widened, the operation is done there and its result rounded to a half. For a sum,
product, quotient or root in single precision that is as if it were rounded once: single precision
has two bits more than twice those of a half (Figueroa, *When is double rounding innocuous?*, 1995).
What has more operands goes by double precision and a single that is rounded to odd.

NaNs, and results that may have been tiny before rounding only, are left to the reference engine.
"""

from __future__ import annotations

from typing import Final

from anyarch.emit import conversions, floats, rules
from anyarch.emit.floats import DYNAMIC, Rule, Shape
from anyarch.emit.llvm import Emitter, host_has
from anyarch.ir.graph import Node, float_lanes

_LOST: Final = 29  # bits of a double's fraction that a single has not
_OVERFLOWS: Final = 1 << 20  # an integer: no half is as large


def is_native(node: Node) -> bool:
    """Whether there is a rule, where ``f16`` is one of the formats; the rounding aside."""
    if not host_has("f16c") or node.op not in RULES:
        return False
    # Beyond 53 bits an integer is no double.
    return node.op != "ffrom_fixed" or node.args[0].size < 64


def _wide(e: Emitter, shape: Shape, bits: list[str], fmt: str = "f32") -> list[str]:
    """The numbers that some halves' encodings stand for, in another format."""
    single = shape.with_format("f32")
    result = []
    for each in bits:
        number = e.let(f"bitcast {shape.bits} {each} to {shape.kind}")
        number = floats.convert(e, shape, single, number)
        if fmt == "f64":
            number = floats.convert(e, single, shape.with_format("f64"), number)
        result.append(number)
    return result


def _encodings(e: Emitter, shape: Shape, numbers: list[str]) -> list[str]:
    result = []
    for number in numbers:
        bits = e.let(f"bitcast {shape.kind} {number} to {shape.bits}")
        e.numbers[bits] = number
        result.append(bits)
    return result


def _half(e: Emitter, shape: Shape, number: str) -> str:
    """The encodings of some numbers, rounded."""
    half = shape.with_format("f16")
    if shape.fmt == "f64":
        number, shape = _odd(e, shape, number), shape.with_format("f32")
    return e.let(f"bitcast {half.kind} {floats.convert(e, shape, half, number)} to {half.bits}")


def _odd(e: Emitter, shape: Shape, number: str) -> str:
    """Doubles to singles, cut off, the last bit set where something is lost."""
    t = shape.bits
    bits = e.let(f"bitcast {shape.kind} {number} to {t}")
    lost = e.let(f"and {t} {bits}, {shape.integer((1 << _LOST) - 1)}")
    some = e.let(f"icmp ne {t} {lost}, {shape.integer(0)}")
    sticky = e.let(f"select {shape.flag} {some}, {t} {shape.integer(1 << _LOST)}, {t} {lost}")
    kept = e.let(f"and {t} {bits}, {shape.integer(-1 << _LOST)}")
    exact = e.let(f"bitcast {t} {e.let(f'or {t} {kept}, {sticky}')} to {shape.kind}")
    return floats.convert(e, shape, shape.with_format("f32"), exact)


def _rounded(e: Emitter, node: Node, shape: Shape, number: str) -> str:
    """The encodings of an operation's results."""
    _emulate_nan(e, shape, number, number)
    result = _half(e, shape, number)
    if floats.may_be_tiny(node) or node.op in ("fmul_extended", "ffrom_fixed"):
        half = shape.with_format("f16")
        least = half.integer(floats.LEAST_NORMAL["f16"])
        found = e.let(f"icmp eq {half.bits} {floats.magnitude(e, half, result)}, {least}")
        e.emulate_if(floats.any_lane(e, half, found))
    return result


def _emulate_nan(e: Emitter, shape: Shape, a: str, b: str) -> None:
    e.emulate_if(floats.any_lane(e, shape, floats.compare(e, shape, "uno", a, b)))


def _arithmetic(name: str) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        wide = shape.with_format("f32")
        number = floats.constrained(e, wide, name, _wide(e, shape, bits), DYNAMIC)
        return _rounded(e, node, wide, number)

    return rule


def _sum_of_product(e: Emitter, shape: Shape, a: str, b: str, c: str) -> str:
    """a * b + c in double precision, where the product is exact. What a sum loses there is far
    below the middle between two halves."""
    product = floats.constrained(e, shape, "fmul", [a, b], DYNAMIC)
    return floats.constrained(e, shape, "fadd", [product, c], DYNAMIC)


def _fma(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    wide = shape.with_format("f64")
    a, b, c = _wide(e, shape, bits, "f64")
    return _rounded(e, node, wide, _sum_of_product(e, wide, a, b, c))


def _fma_long(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """The product is a single; a tiny sum of singles is exact."""
    wide = shape.with_format("f32")
    product = floats.constrained(e, wide, "fmul", _wide(e, shape, bits[:2]), DYNAMIC)
    number = floats.constrained(
        e, wide, "fadd", [product, *floats.numbers(e, wide, bits[2:])], DYNAMIC
    )
    _emulate_nan(e, wide, number, number)
    return _encodings(e, wide, [number])[0]


def _conversion(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    target = shape.with_format(str(node.attrs[1]))
    widens, is_arm = shape.fmt == "f16", e.float_rules == "arm"
    (number,) = _wide(e, shape, bits, target.fmt) if widens else floats.numbers(e, shape, bits)
    if not is_arm:  # Arm keeps a NaN's payload, as the host does
        _emulate_nan(e, target if widens else shape, number, number)
    if widens:
        return _encodings(e, target, [number])[0]
    if shape.fmt == "f64":
        number, shape = _odd(e, shape, number), shape.with_format("f32")
    result = floats.convert(e, shape, target, number)
    if is_arm:
        conversions.underflow_of_narrow(e, shape, target, number, result)
    return e.let(f"bitcast {target.kind} {result} to {target.bits}")


def _from_int(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """By a single, of integers that it has all, or that are as large as overflows."""
    size = node.args[0].size // float_lanes(node)
    signed, t, wide = bool(node.attrs[1]), shape.of(f"i{size}"), shape.with_format("f32")
    (value,) = bits
    if size > 16:
        limits = [("sgt", _OVERFLOWS), ("slt", -_OVERFLOWS)] if signed else [("ugt", _OVERFLOWS)]
        for predicate, limit in limits:
            most = shape.integer(limit, size)
            beyond = e.let(f"icmp {predicate} {t} {value}, {most}")
            value = e.let(f"select {shape.flag} {beyond}, {t} {most}, {t} {value}")
    if size != 32:
        step = "trunc" if size > 32 else "sext" if signed else "zext"
        value = e.let(f"{step} {t} {value} to {wide.bits}")
    return _half(e, wide, floats.from_signed(e, wide, value, 32))


def _from_fixed(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """An integer of up to 32 bits is a double, and so is what it counts."""
    wide, step = Shape("f64"), "sext" if node.attrs[1] else "zext"
    value = e.let(f"{step} i{node.args[0].size} {bits[0]} to i64")
    whole = floats.from_signed(e, wide, value, 64)
    count = e.let(f"zext i{node.args[1].size} {bits[1]} to i64")
    unit = conversions.power(e, wide, e.let(f"sub i64 0, {count}"))
    number = floats.constrained(e, wide, "fmul", [whole, unit], DYNAMIC)
    return _rounded(e, node, wide, number)


def _as_single(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """What singles give that are as large: integers."""
    wide = shape.with_format("f32")
    halves, rest = (bits[:1], bits[1:]) if node.op == "fto_fixed" else (bits, [])
    operands = [*_encodings(e, wide, _wide(e, shape, halves)), *rest]
    return rules.RULES[node.op](e, node, wide, operands)


def _comparison(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    result = _as_single(e, node, shape, bits)
    if shape.lanes == 1:
        return result
    return e.let(f"trunc {shape.with_format('f32').bits} {result} to {shape.bits}")


def _exact(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """What singles give, which are halves again."""
    wide = shape.with_format("f32")
    if len(bits) == 2:  # an extremum
        _emulate_nan(e, wide, *_wide(e, shape, bits))
    result = _as_single(e, node, shape, bits)
    return _half(e, wide, *floats.numbers(e, wide, [result]))


def _emulate_infinite(e: Emitter, shape: Shape, operands: list[str]) -> None:
    for bits in operands:
        magnitude = floats.magnitude(e, shape, bits)
        floats.emulate_outside(e, shape, magnitude, 0, floats.INFINITY["f16"])


def _mul_extended(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    _emulate_infinite(e, shape, bits)
    return _arithmetic("fmul")(e, node, shape, bits)


def _step(addend: float, factor: float) -> Rule:
    """(addend - a * b) * factor, exact where it is tiny."""

    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        _emulate_infinite(e, shape, bits)
        wide = shape.with_format("f64")
        a, b = _wide(e, shape, [floats.negative(e, shape, bits[0]), bits[1]], "f64")
        total = _sum_of_product(e, wide, a, b, wide.number(addend))
        number = floats.constrained(e, wide, "fmul", [total, wide.number(factor)], DYNAMIC)
        return _rounded(e, node, wide, number)

    return rule


def _reciprocal_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Of what has a normal one."""
    absolute = floats.magnitude(e, shape, bits[0])
    floats.emulate_outside(e, shape, absolute, 1 << 10, 2 * 15 - 1 << 10)
    return _exact(e, node, shape, bits)


def _root_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    floats.emulate_outside(e, shape, bits[0], 1 << 10, floats.INFINITY["f16"])
    return _exact(e, node, shape, bits)


RULES: Final[dict[str, Rule]] = {
    "fadd": _arithmetic("fadd"),
    "fsub": _arithmetic("fsub"),
    "fmul": _arithmetic("fmul"),
    "fdiv": _arithmetic("fdiv"),
    "fsqrt": _arithmetic("sqrt"),
    "ffma": _fma,
    "ffma_long": _fma_long,
    "fconvert": _conversion,
    "fto_int": _as_single,
    "ffrom_int": _from_int,
    "fto_fixed": _as_single,
    "ffrom_fixed": _from_fixed,
    "fround": _exact,
    "fround_exact": _exact,
    "feq": _comparison,
    "flt": _comparison,
    "fle": _comparison,
    "flt_quiet": _comparison,
    "fle_quiet": _comparison,
    "fmul_extended": _mul_extended,
    "freciprocal_step": _step(2.0, 1.0),
    "froot_step": _step(3.0, 0.5),
    "freciprocal_estimate": _reciprocal_estimate,
    "froot_estimate": _root_estimate,
    "fmin_number": _exact,
    "fmax_number": _exact,
    "fmin": _exact,
    "fmax": _exact,
}
