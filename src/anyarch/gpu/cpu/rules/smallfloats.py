"""Floats of 8 bits: PTX ISA 9.0, 5.2.3, and their conversions, 9.7.9.21.

They have no infinity that a conversion gives: what is too large becomes the largest number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import floats
from anyarch.gpu.ptx.tree import Instruction

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["FORMATS", "Format", "from_packed", "to_packed"]


@dataclass(frozen=True, slots=True)
class Format:
    """`mantissa` bits after the point; `most` are the bits of the largest number, `infinity` those
    of infinity, 0 if there is none."""

    exponent: int
    mantissa: int
    most: int
    infinity: int

    @property
    def bias(self) -> int:
        """What is added to exponents."""
        return (1 << self.exponent - 1) - 1

    def values(self) -> list[int]:
        """The bits of the f32 of each of the 256 values."""
        return [self._value(bits) for bits in range(256)]

    def _value(self, bits: int) -> int:
        sign, rest = bits >> 7 << 31, bits & 0x7F
        if rest == self.infinity and rest:
            return sign | 0x7F800000
        if rest > self.most:
            return sign | 0x7FC00000
        exponent, fraction = rest >> self.mantissa, rest & (1 << self.mantissa) - 1
        if not exponent:
            if not fraction:
                return sign
            top = fraction.bit_length() - 1
            exponent = 1 - (self.mantissa - top)
            fraction = fraction << self.mantissa - top & (1 << self.mantissa) - 1
        return sign | exponent - self.bias + 127 << 23 | fraction << 23 - self.mantissa


FORMATS: Final = {"e4m3": Format(4, 3, 0x7E, 0), "e5m2": Format(5, 2, 0x7B, 0x7C)}


def to_packed(e: FunctionEmitter, i: Instruction, target: str, source: str) -> None:
    """Two floats to the halves of 16 bits: the first to the upper one."""
    d, *operands = i.operands
    form = FORMATS[target[:4]]
    e.choose(i, *operands)
    if source == "f32" and len(operands) == 2:
        values = [e.get(operand, "float") for operand in operands[::-1]]
    elif source == "f16x2" and len(operands) == 1:
        halves = floats.halves(e, "f16x2", e.get(operands[0], "i32"))
        values = [e.cast("fpext", "half", "float", half) for half in halves]
    else:
        e.fail(f"cvt.{target}.{source} is not supported")
    low, high = (_narrow(e, form, value, "relu" in i.modifiers) for value in values)
    bits = e.op("or", "i32", low, e.op("shl", "i32", high, e.k("i32", 8)))
    e.define(d, "i16", e.cast("trunc", "i32", "i16", bits))


def _narrow(e: FunctionEmitter, form: Format, value: str, relu: bool) -> str:
    """A float's 8 bits, in 32."""
    bits = e.bits("float", "i32", value)
    magnitude = e.op("and", "i32", bits, e.k("i32", 0x7FFFFFFF))
    shift = 23 - form.mantissa
    # A normal number: to nearest, ties to even, by an addition that may carry into the exponent.
    odd = e.op("and", "i32", e.op("lshr", "i32", magnitude, e.k("i32", shift)), e.k("i32", 1))
    bias = e.op("add", "i32", odd, e.k("i32", (1 << shift - 1) - 1))
    moved = e.op("lshr", "i32", e.op("add", "i32", magnitude, bias), e.k("i32", shift))
    normal = e.op("sub", "i32", moved, e.k("i32", 127 - form.bias << form.mantissa))
    # A smaller one: adding a power of two leaves its multiple of the least number in the low bits.
    least = 1 - form.bias - form.mantissa
    power = 127 + 23 + least << 23
    total = e.op("fadd", "float", e.bits("i32", "float", magnitude), e.k("float", power))
    small = e.op("sub", "i32", e.bits("float", "i32", total), e.k("i32", power))
    is_small = e.cmp("icmp ult", "i32", magnitude, e.k("i32", 128 - form.bias << 23))
    found = e.sel(is_small, "i32", small, normal)
    large = e.cmp("icmp ugt", "i32", found, e.k("i32", form.most))
    huge = e.cmp("icmp uge", "i32", magnitude, e.k("i32", 0x7F800000))
    above = e.op(
        "and", "i1", e.op("or", "i1", large, huge), e.op("xor", "i1", is_small, e.k("i1", 1))
    )
    found = e.sel(above, "i32", e.k("i32", form.most), found)
    sign = e.op("and", "i32", e.op("lshr", "i32", bits, e.k("i32", 24)), e.k("i32", 0x80))
    found = e.op("or", "i32", found, sign)
    if relu:
        negative = e.cmp("icmp slt", "i32", bits, e.k("i32", 0))
        found = e.sel(negative, "i32", e.k("i32", 0), found)
    nan = e.cmp("icmp ugt", "i32", magnitude, e.k("i32", 0x7F800000))
    return e.sel(nan, "i32", e.k("i32", 0x7F), found)


def from_packed(e: FunctionEmitter, i: Instruction, source: str) -> None:
    """Two 8-bit floats to the halves of a word."""
    d, a = i.operands[:2]
    e.choose(i, a)
    form = FORMATS[source[:4]]
    packed = e.get(a, "i16")
    low = e.op("and", "i16", packed, e.k("i16", 0xFF))
    high = e.op("lshr", "i16", packed, e.k("i16", 8))
    halves = [_widen(e, form, part, "relu" in i.modifiers) for part in (low, high)]
    words = [e.cast("zext", "i16", "i32", half) for half in halves]
    e.define(d, "i32", e.op("or", "i32", words[0], e.op("shl", "i32", words[1], e.k("i32", 16))))


def _widen(e: FunctionEmitter, form: Format, bits: str, relu: bool) -> str:
    """8 bits, in 16, as the bits of an f16, which holds all of them."""
    rest = e.op("and", "i16", bits, e.k("i16", 0x7F))
    moved = e.op("shl", "i16", rest, e.k("i16", 10 - form.mantissa))
    # Its exponent counts from another bias; the product is exact.
    scale = e.real("half", 2.0 ** (15 - form.bias))
    value = e.op("fmul", "half", e.bits("i16", "half", moved), scale)
    found = e.bits("half", "i16", value)
    if form.infinity:
        infinite = e.cmp("icmp eq", "i16", rest, e.k("i16", form.infinity))
        found = e.sel(infinite, "i16", e.k("i16", 0x7C00), found)
    sign = e.op("and", "i16", e.op("shl", "i16", bits, e.k("i16", 8)), e.k("i16", 0x8000))
    found = e.op("or", "i16", found, sign)
    if relu:
        found = e.sel(e.cmp("icmp ne", "i16", sign, e.k("i16", 0)), "i16", e.k("i16", 0), found)
    nan = e.cmp("icmp ugt", "i16", rest, e.k("i16", form.infinity or form.most))
    return e.sel(nan, "i16", e.k("i16", 0x7FFF), found)
