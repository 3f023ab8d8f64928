"""What floating-point definitions share: formats, and operations on one element.

Arm DDI 0487, A1.5 and J1.1 (FPAdd and the like are operations of ``m.fp``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.ir import softfloat
from anyarch.ir.bits import Bits
from anyarch.ir.ops import merge
from anyarch.isa.machine import Machine

NEAREST, ZERO, DOWN, UP, AWAY, ODD = range(6)  # rounding modes


@dataclass(frozen=True, slots=True)
class Format:
    """A format, its letter in assembly text and its ftype bits."""

    letter: str
    ftype: str
    encoding: softfloat.Format

    @property
    def name(self) -> str:
        """The name that ``m.fp`` knows."""
        return self.encoding.name

    @property
    def size(self) -> int:
        """Bits of a value."""
        return self.encoding.size

    @property
    def sign(self) -> int:
        """The sign bit."""
        return self.encoding.sign_mask

    def _lanes(self, value: Bits, each: int) -> int:
        """The same number in as many lanes as a value has."""
        return merge([each] * (value.size // self.size), self.size)

    def is_nan(self, value: Bits) -> Bits:
        """Whether a value is a NaN: one bit."""
        return (value & (self.sign - 1)) > self.encoding.infinity

    def negate(self, value: Bits) -> Bits:
        """The value with its sign inverted, a NaN's too; of lanes, each."""
        return value ^ self._lanes(value, self.sign)

    def absolute(self, value: Bits) -> Bits:
        """The value with its sign clear; of lanes, each."""
        return value & self._lanes(value, self.sign - 1)


SINGLE: Final = Format("s", "00", softfloat.F32)
DOUBLE: Final = Format("d", "01", softfloat.F64)
HALF: Final = Format("h", "11", softfloat.F16)
FORMATS: Final = (SINGLE, DOUBLE, HALF)


def scalar(
    row: str,
    text: str,
    *,
    static: str = "",
    formats: Iterable[Format] = FORMATS,
    name: str = "",
    extension: str = "",
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``insn`` for each format: ``ftype`` in the row is its bits, ``:f`` in the text its letter."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for fmt in formats:
            own = f"{name or function.__name__}_{fmt.letter}"
            insn(
                row.replace("ftype", fmt.ftype),
                text.replace(":f}", f":{fmt.letter}}}"),
                static=static,
                name=own,
            )(bind(function, own, extension, f=fmt))
        return function

    return decorate


def expand_immediate(fmt: Format, imm8: Bits) -> Bits:
    """VFPExpandImm: sign, three bits of exponent, four of fraction."""
    encoding = fmt.encoding
    wide = imm8.zext(64)
    sign = (wide >> 7) << (fmt.size - 1)
    repeated = (1 << (encoding.exponent_bits - 3)) - 1
    low = (wide >> 4 & 3) | (wide >> 6 & 1) * (repeated << 2)
    high = (~wide >> 6 & 1) << (encoding.exponent_bits - 1)
    exponent = (high | low) << encoding.fraction_bits
    fraction = (wide & 15) << (encoding.fraction_bits - 4)
    return (sign | exponent | fraction).trunc(fmt.size)


def expand_number(fmt: softfloat.Format, imm8: int) -> int:
    """The same, of a number."""
    top = imm8 >> 6 & 1
    exponent = (1 - top) << (fmt.exponent_bits - 1) | (imm8 >> 4 & 3)
    exponent |= top * ((1 << (fmt.exponent_bits - 3)) - 1) << 2
    return (
        imm8 >> 7 << (fmt.size - 1)
        | exponent << fmt.fraction_bits
        | (imm8 & 15) << (fmt.fraction_bits - 4)
    )


def compared(m: Machine, f: Format, a: Bits, b: Bits, *, signaling: bool) -> tuple[Bits, ...]:
    """N, Z, C, V of a comparison: 1000 less, 0110 equal, 0010 greater, 0011 unordered."""
    less = (m.fp.lt if signaling else m.fp.lt_quiet)(f.name, a, b)
    equal = m.fp.eq(f.name, a, b)
    return less, equal, ~less, f.is_nan(a) | f.is_nan(b)
