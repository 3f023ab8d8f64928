"""Rules of single and double precision for Arm's steps and estimates of reciprocals.

Unusual operands are left to the reference engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.emit.arithmetic import see_underflow
from anyarch.emit.floats import (
    BIAS,
    DYNAMIC,
    FRACTION,
    INFINITY,
    LEAST_NORMAL,
    Rule,
    Shape,
    any_lane,
    constrained,
    emulate_infinite,
    emulate_outside,
    magnitude,
    negative,
    numbers,
    select,
)
from anyarch.emit.llvm import Emitter
from anyarch.ir.graph import Node


def _mul_extended(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    emulate_infinite(e, shape, bits)
    result = constrained(e, shape, "fmul", numbers(e, shape, bits), DYNAMIC)
    see_underflow(e, node, shape, bits, result)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def _reciprocal_step(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Never tiny: what is left of two, or of three, is a multiple of a product's last bit."""
    emulate_infinite(e, shape, bits)
    a, b = numbers(e, shape, [negative(e, shape, bits[0]), bits[1]])
    result = constrained(e, shape, "fma", [a, b, shape.number(2.0)], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def _root_step(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Half of one operand is exact, where it is zero or no less than twice the least number."""
    emulate_infinite(e, shape, bits)
    exact = 2 * LEAST_NORMAL[shape.fmt]
    below = e.let(f"sub {shape.bits} {magnitude(e, shape, bits[0])}, {shape.integer(1)}")
    small = e.let(f"icmp ult {shape.bits} {below}, {shape.integer(exact - 1)}")
    e.emulate_if(any_lane(e, shape, small))
    a, b = numbers(e, shape, [negative(e, shape, bits[0]), bits[1]])
    half = constrained(e, shape, "fmul", [a, shape.number(0.5)], DYNAMIC)
    result = constrained(e, shape, "fma", [half, b, shape.number(1.5)], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def _integers(e: Emitter, shape: Shape) -> Callable[[str, str, str | int], str]:
    """``operation(name, a, b)`` on lanes, where b may be a number for all of them."""

    def operation(name: str, a: str, b: str | int) -> str:
        second = shape.integer(b) if isinstance(b, int) else b
        return e.let(f"{name} {shape.bits} {a}, {second}")

    return operation


def _reciprocal_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """See softfloat.reciprocal_estimate."""
    do, (value,) = _integers(e, shape), bits
    fraction_bits, bias = FRACTION[shape.fmt], BIAS[shape.fmt]
    absolute = magnitude(e, shape, value)
    low, high = 1 << fraction_bits, 2 * bias - 1 << fraction_bits
    emulate_outside(e, shape, absolute, low, high)
    scaled = do("or", do("and", do("lshr", value, fraction_bits - 8), 0xFF), 0x100)
    divisor = do("add", do("shl", scaled, 1), 1)
    quotient = e.let(f"udiv {shape.bits} {shape.integer(1 << 19)}, {divisor}")
    estimate = do("and", do("lshr", do("add", quotient, 1), 1), 0xFF)
    exponent = do("lshr", absolute, fraction_bits)
    exponent = e.let(f"sub {shape.bits} {shape.integer(2 * bias - 1)}, {exponent}")
    return _estimated(e, shape, do("xor", value, absolute), exponent, estimate)


def _root_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """See softfloat.root_estimate."""
    do, (value,) = _integers(e, shape), bits
    fraction_bits, bias = FRACTION[shape.fmt], BIAS[shape.fmt]
    emulate_outside(e, shape, value, 1 << fraction_bits, INFINITY[shape.fmt])
    exponent = do("lshr", value, fraction_bits)
    odd = do("and", exponent, 1)
    is_odd = e.let(f"icmp ne {shape.bits} {odd}, {shape.integer(0)}")
    seven = do("or", do("and", do("lshr", value, fraction_bits - 7), 0x7F), 0x80)
    eight = do("or", do("and", do("lshr", value, fraction_bits - 8), 0xFE), 0x100)
    narrow = do("add", do("shl", seven, 1), 1)
    wide = do("shl", do("add", eight, 1), 1)
    argument = select(e, shape, is_odd, narrow, wide)
    estimate = shape.integer(512)
    for bit in range(8, -1, -1):
        trial = do("add", estimate, 1 << bit)
        product = do("mul", do("mul", trial, trial), argument)
        fits = e.let(f"icmp ult {shape.bits} {product}, {shape.integer(1 << 28)}")
        estimate = select(e, shape, fits, trial, estimate)
    estimate = do("and", do("lshr", do("add", estimate, 1), 1), 0xFF)
    exponent = e.let(f"sub {shape.bits} {shape.integer(3 * bias - 1)}, {exponent}")
    return _estimated(e, shape, shape.integer(0), do("lshr", exponent, 1), estimate)


def _estimated(e: Emitter, shape: Shape, sign: str, exponent: str, estimate: str) -> str:
    do, fraction_bits = _integers(e, shape), FRACTION[shape.fmt]
    fraction = do("shl", estimate, fraction_bits - 8)
    return do("or", do("or", do("shl", exponent, fraction_bits), fraction), sign)


RULES: Final[dict[str, Rule]] = {
    "fmul_extended": _mul_extended,
    "freciprocal_step": _reciprocal_step,
    "froot_step": _root_step,
    "freciprocal_estimate": _reciprocal_estimate,
    "froot_estimate": _root_estimate,
}
