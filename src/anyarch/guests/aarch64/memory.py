"""How definitions form addresses (Arm DDI 0487, D8.8: address tagging; J1.1: AddressAdd)."""

from __future__ import annotations

from anyarch.guests.aarch64.integers import extended
from anyarch.guests.aarch64.registers import POINTER_BITS
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, when

ALIGNMENT = 1  # cause of the exception


def untagged(address: Bits, displacement: Bits | int = 0) -> Bits:
    """The address without its top byte, which programs may use for themselves.

    A displacement is added behind that: the sum differs only where it carries beyond bit 55, and no
    program has memory near there. So accesses at one base share the work.
    """
    return address[:POINTER_BITS].sext(64) + displacement


def aligned(m: Machine, address: Bits, size: int) -> Bits:
    """The untagged address of an atomic access; misaligned ones are an exception."""
    address = untagged(address)
    if size > 8:
        with when((address & (size // 8 - 1)) != 0):
            m.exception(ALIGNMENT, address)
    return address


def register_offset(m: Machine, rm: Bits, option: int, amount: Bits) -> Bits:
    """An offset register, extended and shifted."""
    return extended(m.x[rm], option, 64) << amount
