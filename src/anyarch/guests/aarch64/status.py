"""FPCR and FPSR, made of what the engines keep: accrued flags, one number for all modes, QC.

Arm DDI 0487, C5.2.8 and C5.2.10. Trap enables read as zero: exceptions are never trapped.
"""

from __future__ import annotations

from anyarch.guests.aarch64.registers import FLAGS, MODE
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

# Bits of the number for all modes, above the rounding mode.
FZ, DN, AHP, FZ16 = 3, 4, 5, 6
_PLACES = ((FZ, 24), (DN, 25), (AHP, 26), (FZ16, 19))
# Accrued flags to FPSR: inexact, underflow, overflow, division by zero, invalid, input denormal.
_FLAGS = ((0, 4), (1, 3), (2, 2), (3, 1), (4, 0), (5, 7))


def _exchanged(mode: Bits) -> Bits:
    """Nearest, zero, down, up to nearest, up, down, zero and back: 1 and 3 change places."""
    return mode[0].select(mode ^ 2, mode)


def read_fpcr(m: Machine) -> Bits:
    """FPCR, 64 bits."""
    mode = m.fpstatus[MODE].zext(64)
    result = _exchanged(m.fpstatus[MODE, 2]).zext(64) << 22
    for ours, theirs in _PLACES:
        result = result | ((mode >> ours & 1) << theirs)
    return result


def write_fpcr(m: Machine, value: Bits) -> None:
    """Set the modes."""
    mode = _exchanged(value[22:24]).zext(8)
    for ours, theirs in _PLACES:
        mode = mode | (value[theirs].zext(8) << ours)
    m.fp.set_rounding(mode)


def read_fpsr(m: Machine) -> Bits:
    """FPSR, 64 bits."""
    flags = (m.fpstatus[FLAGS] & 0x20).zext(64) | m.fp.flags.zext(64)
    result = m.qc[0].zext(64) << 27
    for ours, theirs in _FLAGS:
        result = result | ((flags >> ours & 1) << theirs)
    return result


def write_fpsr(m: Machine, value: Bits) -> None:
    """Replace the accrued flags."""
    flags = value.constant(0, 32)
    for ours, theirs in _FLAGS:
        flags = flags | (value[theirs].zext(32) << ours)
    m.fp.flags = flags[:5]
    m.fpstatus[FLAGS] = flags
    m.qc[0] = value[27].zext(8)
