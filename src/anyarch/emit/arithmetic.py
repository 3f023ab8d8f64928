"""Rules of single and double precision: arithmetic, comparisons, extrema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.emit.floats import (
    CANONICAL,
    DYNAMIC,
    INFINITY,
    LEAST_NORMAL,
    UNDERFLOW,
    Rule,
    Shape,
    any_lane,
    canonical_bits,
    compare,
    constrained,
    convert,
    is_nan,
    is_signaling,
    magnitude,
    may_be_tiny,
    numbers,
    propagated,
    read_mxcsr,
    select,
    unordered_lanes,
    write_mxcsr,
)
from anyarch.emit.llvm import Emitter
from anyarch.emit.tininess import LEAST_EXPONENT
from anyarch.ir.graph import Node


def _arm_result(
    e: Emitter,
    node: Node,
    shape: Shape,
    operands: list[str],
    value: str,
    in_nan: Callable[[], str],
) -> str:
    """The bits of a result, its NaNs replaced by what ``in_nan`` emits, on an unlikely path."""
    kind = shape.kind
    if e.defer(node, shape, value):
        return e.let(f"bitcast {kind} {value} to {shape.bits}")
    if may_be_tiny(node):
        see_underflow(e, node, shape, operands, value)
    nan, done = e.name("nan"), e.name("done")
    unordered = unordered_lanes(e, shape, value, value)
    before = e.block
    e.branch(any_lane(e, shape, unordered), nan, done, unlikely=True)
    e.label(nan)
    e.push()
    instead = in_nan()
    if shape.lanes > 1:
        plain = e.let(f"bitcast {kind} {value} to {shape.bits}")
        instead = select(e, shape, unordered, instead, plain)
    # A phi of numbers: one of integers would have every result leave the vector registers.
    number = e.let(f"bitcast {shape.bits} {instead} to {kind}")
    e.pop()
    after = e.block
    e.line(f"br label %{done}")
    e.label(done)
    result = e.let(f"phi {kind} [ {number}, %{after} ], [ {value}, %{before} ]")
    return e.let(f"bitcast {kind} {result} to {shape.bits}")


def see_underflow(e: Emitter, node: Node, shape: Shape, operands: list[str], value: str) -> None:
    """A result of the least normal magnitude may have been tiny before rounding, where the host has
    raised no underflow."""
    result = e.let(f"bitcast {shape.kind} {value} to {shape.bits}")
    least = shape.integer(LEAST_NORMAL[shape.fmt])
    found = e.let(f"icmp eq {shape.bits} {magnitude(e, shape, result)}, {least}")
    if not e.decides_tininess:
        e.emulate_if(any_lane(e, shape, found))
        return
    asking, done = e.name("tiny"), e.name("done")
    e.branch(any_lane(e, shape, found), asking, done, unlikely=True)
    e.label(asking)
    e.push()
    every = "false"
    for index in range(shape.lanes):
        lane = Shape(shape.fmt)
        parts = [_lane(e, shape, bits, index) for bits in (*operands, result)]
        doubles = [_double_bits(e, lane, bits) for bits in parts]
        condition = found
        if shape.lanes > 1:
            condition = e.let(f"extractelement {shape.flag} {found}, i32 {index}")
        tiny = e.let(f"and i1 {condition}, {_is_tiny(e, node, lane, doubles)}")
        every = e.let(f"or i1 {every}, {tiny}")
    flag = e.let(f"select i1 {every}, i32 {UNDERFLOW}, i32 0")
    write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))
    e.pop()
    e.line(f"br label %{done}")
    e.label(done)


def _lane(e: Emitter, shape: Shape, bits: str, index: int) -> str:
    if shape.lanes == 1:
        return bits
    return e.let(f"extractelement {shape.bits} {bits}, i32 {index}")


def _double_bits(e: Emitter, shape: Shape, bits: str) -> str:
    if shape.fmt == "f64":
        return bits
    number = e.let(f"bitcast i32 {bits} to float")
    wide = convert(e, shape, Shape("f64"), number)
    return e.let(f"bitcast double {wide} to i64")


def _is_tiny(e: Emitter, node: Node, shape: Shape, doubles: list[str]) -> str:
    """Of a result that is the last of ``doubles``, behind its operands."""
    least = LEAST_EXPONENT[shape.fmt]
    if node.op == "fdiv":
        a, b, _ = doubles
        return e.let(f"call preserve_allcc i1 @tiny_quotient(i64 {a}, i64 {b}, i64 {least})")
    a, b, *addend, result = doubles
    c = addend[0] if addend else "0"
    return e.let(
        f"call preserve_allcc i1 @tiny_sum(i64 {a}, i64 {b}, i64 {c}, i64 {result}, i64 {least})"
    )


def _arithmetic(name: str) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        result = constrained(e, shape, name, numbers(e, shape, bits), DYNAMIC)
        if e.float_rules != "arm":
            return canonical_bits(e, shape, result)
        return _arm_result(e, node, shape, bits, result, lambda: propagated(e, shape, bits))

    return rule


def _fma(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    result = constrained(e, shape, "fma", numbers(e, shape, bits), DYNAMIC)
    x, y, addend = bits

    def infinity_times_zero() -> str:
        """Which lanes multiply an infinity by zero."""
        tests = []
        for one, other in ((x, y), (y, x)):
            infinity = shape.integer(INFINITY[shape.fmt])
            is_infinite = e.let(f"icmp eq {shape.bits} {magnitude(e, shape, one)}, {infinity}")
            is_zero = e.let(
                f"icmp eq {shape.bits} {magnitude(e, shape, other)}, {shape.integer(0)}"
            )
            tests.append(e.let(f"and {shape.flag} {is_infinite}, {is_zero}"))
        return e.let(f"or {shape.flag} {tests[0]}, {tests[1]}")

    def raise_invalid() -> str:
        """x86 raises no invalid for fma(inf, 0, qNaN); IEEE 754 leaves it open, RISC-V demands."""
        lanes = infinity_times_zero()
        flag = e.let(f"zext i1 {any_lane(e, shape, lanes)} to i32")
        write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))
        return lanes

    def nan() -> str:
        """Arm: the addend first; the default NaN where it is quiet and the product invalid."""
        no_product = raise_invalid()
        signaling = is_signaling(e, shape, addend, is_nan(e, shape, addend))
        loud = e.let(f"xor {shape.flag} {signaling}, {shape.integer(-1, 1)}")
        default = e.let(f"and {shape.flag} {no_product}, {loud}")
        chosen = propagated(e, shape, [addend, x, y])
        return select(e, shape, default, shape.integer(CANONICAL[shape.fmt]), chosen)

    if e.float_rules == "arm":
        return _arm_result(e, node, shape, bits, result, nan)
    return canonical_bits(e, shape, result, raise_invalid)


def _comparison(predicate: str, *, signaling: bool) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        a, b = numbers(e, shape, bits)
        result = compare(e, shape, predicate, a, b, signaling=signaling)
        if shape.lanes == 1:
            return result
        return e.let(f"sext {shape.flag} {result} to {shape.bits}")

    return rule


def _extremum(*, smallest: bool, number: bool) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        t = shape.bits
        a, b = numbers(e, shape, bits)
        unordered = unordered_lanes(e, shape, a, b)  # raises invalid for a signaling NaN
        less = compare(e, shape, "olt" if smallest else "ogt", a, b)
        equal = compare(e, shape, "oeq", a, b)
        # Equal operands differ at most in the sign of zero.
        joined = e.let(f"{'or' if smallest else 'and'} {t} {bits[0]}, {bits[1]}")
        chosen = select(e, shape, less, bits[0], select(e, shape, equal, joined, bits[1]))
        nan, done = e.name("nan"), e.name("done")
        before = e.block
        e.branch(any_lane(e, shape, unordered), nan, done, unlikely=True)
        e.label(nan)
        result = _extremum_of_nan(e, shape, bits, number=number)
        result = select(e, shape, unordered, result, chosen)
        e.line(f"br label %{done}")
        e.label(done)
        return e.let(f"phi {t} [ {result}, %{nan} ], [ {chosen}, %{before} ]")

    return rule


def _extremum_of_nan(e: Emitter, shape: Shape, operands: list[str], *, number: bool) -> str:
    """Where one operand or both are NaNs."""
    arm = e.float_rules == "arm"
    a, b = operands
    result = propagated(e, shape, operands) if arm else shape.integer(CANONICAL[shape.fmt])
    if not number:
        return result
    nans = [is_nan(e, shape, bits) for bits in operands]
    yields = nans
    if arm:  # a number comes before a quiet NaN, not before a signalling one
        yields = []
        for bits, nan in zip(operands, nans, strict=True):
            loud = is_signaling(e, shape, bits, nan)
            quiet = e.let(f"xor {shape.flag} {loud}, {shape.integer(-1, 1)}")
            yields.append(e.let(f"and {shape.flag} {nan}, {quiet}"))
    numbers = [e.let(f"xor {shape.flag} {nan}, {shape.integer(-1, 1)}") for nan in nans]
    only_a = e.let(f"and {shape.flag} {yields[0]}, {numbers[1]}")
    only_b = e.let(f"and {shape.flag} {yields[1]}, {numbers[0]}")
    return select(e, shape, only_b, a, select(e, shape, only_a, b, result))


RULES: Final[dict[str, Rule]] = {
    "fadd": _arithmetic("fadd"),
    "fsub": _arithmetic("fsub"),
    "fmul": _arithmetic("fmul"),
    "fdiv": _arithmetic("fdiv"),
    "fsqrt": _arithmetic("sqrt"),
    "ffma": _fma,
    "feq": _comparison("oeq", signaling=False),
    "flt": _comparison("olt", signaling=True),
    "fle": _comparison("ole", signaling=True),
    "flt_quiet": _comparison("olt", signaling=False),
    "fle_quiet": _comparison("ole", signaling=False),
    "fmin_number": _extremum(smallest=True, number=True),
    "fmax_number": _extremum(smallest=False, number=True),
    "fmin": _extremum(smallest=True, number=False),
    "fmax": _extremum(smallest=False, number=False),
}
