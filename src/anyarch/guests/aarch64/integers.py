"""What integer definitions share: flags, conditions, shifts, extensions.

Arm DDI 0487, C6.2 and the shared pseudocode of appendix J1.1: AddWithCarry, ConditionHolds,
ShiftReg, ExtendReg.
"""

from __future__ import annotations

from anyarch.guests.aarch64.registers import C, N, V, Z
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


def set_flags(m: Machine, n: Bits | int, z: Bits | int, c: Bits | int, v: Bits | int) -> None:
    """Write all four flags."""
    for index, value in ((N, n), (Z, z), (C, c), (V, v)):
        m.flag[index] = value if isinstance(value, int) else value.zext(8)


def set_nzcv(m: Machine, value: Bits) -> None:
    """Write the flags from four bits, N the highest."""
    set_flags(m, value[3], value[2], value[1], value[0])


def get_flag(m: Machine, index: int) -> Bits:
    """A flag as one bit."""
    return m.flag[index][0]


def get_nzcv(m: Machine) -> Bits:
    """The flags as four bits, N the highest."""
    flags = [get_flag(m, index) for index in (N, Z, C, V)]
    return flags[0].concat(flags[1]).concat(flags[2].concat(flags[3]))


def holds(m: Machine, cond: int) -> Bits:
    """Whether a condition holds: one bit."""
    match cond >> 1:
        case 0:
            result = get_flag(m, Z)
        case 1:
            result = get_flag(m, C)
        case 2:
            result = get_flag(m, N)
        case 3:
            result = get_flag(m, V)
        case 4:
            result = get_flag(m, C) & ~get_flag(m, Z)
        case 5:
            result = ~(get_flag(m, N) ^ get_flag(m, V))
        case 6:
            result = ~(get_flag(m, N) ^ get_flag(m, V)) & ~get_flag(m, Z)
        case _:
            return m.flag[0].constant(1, 1)
    return ~result if cond & 1 else result


def add_with_carry(a: Bits, b: Bits, carry: Bits | int = 0) -> tuple[Bits, tuple[Bits, ...]]:
    """a + b + carry, and N, Z, C, V."""
    top = a.size - 1
    if isinstance(carry, int):
        result = a + b + carry
        c = result <= a if carry else result < a
    else:
        partial = a + b
        result = partial + carry.zext(a.size)
        c = (partial < a) | (result < partial)
    overflow = (a ^ result) & (b ^ result)
    return result, (result[top], result == 0, c, overflow[top])


def subtract(a: Bits, b: Bits) -> tuple[Bits, tuple[Bits, ...]]:
    """a - b, and N, Z, C, V: C is set where nothing is borrowed."""
    result = a - b
    negative = result[a.size - 1]
    # The sign of the exact difference is N unless it overflows: conditions then are one comparison.
    return result, (negative, result == 0, a >= b, negative ^ a.slt(b))


def shifted(value: Bits, shift: int, amount: Bits) -> Bits:
    """A value shifted by an amount below its size: lsl, lsr, asr or ror."""
    amount = amount.trunc(value.size)
    match shift:
        case 0:
            return value << amount
        case 1:
            return value >> amount
        case 2:
            return value.sar(amount)
    return value.ror(amount)


def extended(value: Bits, option: int, size: int) -> Bits:
    """The low 8, 16, 32 or 64 bits of a register, extended with zeros or the sign."""
    low = value.trunc(min(8 << (option & 3), size))
    return low.sext(size) if option & 4 else low.zext(size)
