"""Zfa additional floating-point instructions (unprivileged ISA manual 20240411, chapter "Zfa").

``fmvh.x.d`` and ``fmvp.d.x`` exist on RV32 only.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.guests.riscv.fields import insn
from anyarch.guests.riscv.floats import DOUBLE, HALF, SINGLE, Family, Format, rounding
from anyarch.ir import softfloat
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

# What fli loads, by number; 1 is the format's least positive normal number, 31 its canonical NaN.
LEAST_NORMAL: Final = 1
CANONICAL_NAN: Final = 31
CONSTANTS: Final = (
    *(-1.0, 0.0, 2.0**-16, 2.0**-15, 2.0**-8, 2.0**-7, 0.0625, 0.125),
    *(0.25, 0.3125, 0.375, 0.4375, 0.5, 0.625, 0.75, 0.875),
    *(1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0),
    *(8.0, 16.0, 128.0, 256.0, 2.0**15, 2.0**16, float("inf"), float("nan")),
)

ADDITIONAL: Final = Family()


def _encode(f: Format, number: int) -> int:
    """The bits of a constant; 2**16 is infinity as a half."""
    if number == LEAST_NORMAL:
        return 1 << f.encoding.fraction_bits
    if number == CANONICAL_NAN:
        return f.nan
    bits = struct.unpack("<Q", struct.pack("<d", CONSTANTS[number]))[0]
    return softfloat.convert(softfloat.F64, f.encoding, bits, 0, softfloat.RISCV)[0]


@ADDITIONAL.insn("11110 fmt 00001 constant:5 000 fd 1010011", "fli.fmt {fd}, {constant:fli}")
def fli(m: Machine, f: Format, constant: Bits, fd: Bits) -> None:
    """Load one of 32 constants."""
    level = [constant.constant(_encode(f, number), f.size) for number in range(32)]
    for bit in range(5):
        chosen = constant[bit]
        level = [
            chosen.select(odd, even) for even, odd in zip(level[::2], level[1::2], strict=True)
        ]
    f.write(m, fd, level[0])


@ADDITIONAL.insn("00101 fmt fs2 fs1 010 fd 1010011", "fminm.fmt {fd}, {fs1}, {fs2}")
def fminm(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the smaller operand; a NaN rather than a number."""
    f.write(m, fd, m.fp.min(f.name, f.read(m, fs1), f.read(m, fs2)))


@ADDITIONAL.insn("00101 fmt fs2 fs1 011 fd 1010011", "fmaxm.fmt {fd}, {fs1}, {fs2}")
def fmaxm(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the larger operand; a NaN rather than a number."""
    f.write(m, fd, m.fp.max(f.name, f.read(m, fs1), f.read(m, fs2)))


@ADDITIONAL.rounded("01000 fmt 00100 fs1 rm fd 1010011", "fround.fmt {fd}, {fs1}")
def fround(m: Machine, f: Format, fs1: Bits, rm: int, fd: Bits) -> None:
    """Round to an integral value, never inexact."""
    f.write(m, fd, m.fp.round(f.name, f.read(m, fs1), rounding(rm), exact=False))


@ADDITIONAL.rounded("01000 fmt 00101 fs1 rm fd 1010011", "froundnx.fmt {fd}, {fs1}")
def froundnx(m: Machine, f: Format, fs1: Bits, rm: int, fd: Bits) -> None:
    """Round to an integral value, inexact where it differs."""
    f.write(m, fd, m.fp.round(f.name, f.read(m, fs1), rounding(rm), exact=True))


@ADDITIONAL.insn("10100 fmt fs2 fs1 101 rd 1010011", "fltq.fmt {rd}, {fs1}, {fs2}")
def fltq(m: Machine, f: Format, fs2: Bits, fs1: Bits, rd: Bits) -> None:
    """Set if less than; only signaling NaNs are invalid."""
    m.x[rd] = m.fp.lt_quiet(f.name, f.read(m, fs1), f.read(m, fs2)).zext(64)


@ADDITIONAL.insn("10100 fmt fs2 fs1 100 rd 1010011", "fleq.fmt {rd}, {fs1}, {fs2}")
def fleq(m: Machine, f: Format, fs2: Bits, fs1: Bits, rd: Bits) -> None:
    """Set if less than or equal; only signaling NaNs are invalid."""
    m.x[rd] = m.fp.le_quiet(f.name, f.read(m, fs1), f.read(m, fs2)).zext(64)


for _format in (HALF, SINGLE, DOUBLE):
    ADDITIONAL.define(_format, __name__)


@insn("1100001 01000 fs1 001 rd 1010011", "fcvtmod.w.d {rd}, {fs1}, rtz")
def fcvtmod_w_d(m: Machine, fs1: Bits, rd: Bits) -> None:
    """Convert a double to a word, towards zero and modulo 2**32."""
    m.x[rd] = m.fp.to_int_modular("f64", m.f[fs1], 32).sext(64)
