"""Data processing on registers (Arm DDI 0487, C4.1.95), without CRC32, FlagM and PAuth."""

from __future__ import annotations

from anyarch.guests.aarch64.fields import insn, sized
from anyarch.guests.aarch64.integers import (
    add_with_carry,
    extended,
    get_flag,
    holds,
    set_flags,
    shifted,
    subtract,
)
from anyarch.guests.aarch64.registers import C
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, when

ADDED = "shift != 3"  # additions do not rotate


@sized(
    "sf 0 0 01011 shift 0 rm imm6 rn rd",
    "add {rd}, {rn}, {rm}{imm6:shifted}",
    static="shift",
    where=ADDED,
)
def add_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Add."""
    m.x[rd, size] = m.x[rn, size] + shifted(m.x[rm, size], shift, imm6)


@sized(
    "sf 0 1 01011 shift 0 rm imm6 rn rd",
    "adds {rd}, {rn}, {rm}{imm6:shifted}",
    static="shift",
    where=ADDED,
)
def adds_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Add, setting flags."""
    result, flags = add_with_carry(m.x[rn, size], shifted(m.x[rm, size], shift, imm6))
    m.x[rd, size] = result
    set_flags(m, *flags)


@sized(
    "sf 1 0 01011 shift 0 rm imm6 rn rd",
    "sub {rd}, {rn}, {rm}{imm6:shifted}",
    static="shift",
    where=ADDED,
)
def sub_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Subtract."""
    m.x[rd, size] = m.x[rn, size] - shifted(m.x[rm, size], shift, imm6)


@sized(
    "sf 1 1 01011 shift 0 rm imm6 rn rd",
    "subs {rd}, {rn}, {rm}{imm6:shifted}",
    static="shift",
    where=ADDED,
)
def subs_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Subtract, setting flags."""
    result, flags = subtract(m.x[rn, size], shifted(m.x[rm, size], shift, imm6))
    m.x[rd, size] = result
    set_flags(m, *flags)


def _extended(m: Machine, size: int, rm: Bits, option: int, imm3: Bits) -> Bits:
    return extended(m.x[rm], option, size) << imm3.zext(size)


SHIFT_TO_4 = "imm3 != 5, imm3 != 6, imm3 != 7"


@sized(
    "sf 0 0 01011 00 1 rm option imm3 rn_sp rd_sp",
    "add {rd_sp}, {rn_sp}, {rm:extended}",
    static="option",
    where=SHIFT_TO_4,
)
def add_extended(
    m: Machine, size: int, rm: Bits, option: int, imm3: Bits, rn_sp: Bits, rd_sp: Bits
) -> None:
    """Add an extended register."""
    m.r[rd_sp, size] = m.r[rn_sp, size] + _extended(m, size, rm, option, imm3)


@sized(
    "sf 0 1 01011 00 1 rm option imm3 rn_sp rd",
    "adds {rd}, {rn_sp}, {rm:extended}",
    static="option",
    where=SHIFT_TO_4,
)
def adds_extended(
    m: Machine, size: int, rm: Bits, option: int, imm3: Bits, rn_sp: Bits, rd: Bits
) -> None:
    """Add an extended register, setting flags."""
    result, flags = add_with_carry(m.r[rn_sp, size], _extended(m, size, rm, option, imm3))
    m.x[rd, size] = result
    set_flags(m, *flags)


@sized(
    "sf 1 0 01011 00 1 rm option imm3 rn_sp rd_sp",
    "sub {rd_sp}, {rn_sp}, {rm:extended}",
    static="option",
    where=SHIFT_TO_4,
)
def sub_extended(
    m: Machine, size: int, rm: Bits, option: int, imm3: Bits, rn_sp: Bits, rd_sp: Bits
) -> None:
    """Subtract an extended register."""
    m.r[rd_sp, size] = m.r[rn_sp, size] - _extended(m, size, rm, option, imm3)


@sized(
    "sf 1 1 01011 00 1 rm option imm3 rn_sp rd",
    "subs {rd}, {rn_sp}, {rm:extended}",
    static="option",
    where=SHIFT_TO_4,
)
def subs_extended(
    m: Machine, size: int, rm: Bits, option: int, imm3: Bits, rn_sp: Bits, rd: Bits
) -> None:
    """Subtract an extended register, setting flags."""
    result, flags = subtract(m.r[rn_sp, size], _extended(m, size, rm, option, imm3))
    m.x[rd, size] = result
    set_flags(m, *flags)


@sized("sf 0 0 11010000 rm 000000 rn rd", "adc {rd}, {rn}, {rm}")
def adc(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Add with carry."""
    m.x[rd, size] = m.x[rn, size] + m.x[rm, size] + get_flag(m, C).zext(size)


@sized("sf 0 1 11010000 rm 000000 rn rd", "adcs {rd}, {rn}, {rm}")
def adcs(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Add with carry, setting flags."""
    result, flags = add_with_carry(m.x[rn, size], m.x[rm, size], get_flag(m, C))
    m.x[rd, size] = result
    set_flags(m, *flags)


@sized("sf 1 0 11010000 rm 000000 rn rd", "sbc {rd}, {rn}, {rm}")
def sbc(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Subtract with carry."""
    m.x[rd, size] = m.x[rn, size] + ~m.x[rm, size] + get_flag(m, C).zext(size)


@sized("sf 1 1 11010000 rm 000000 rn rd", "sbcs {rd}, {rn}, {rm}")
def sbcs(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Subtract with carry, setting flags."""
    result, flags = add_with_carry(m.x[rn, size], ~m.x[rm, size], get_flag(m, C))
    m.x[rd, size] = result
    set_flags(m, *flags)


# Logical.


def _inverted(m: Machine, size: int, rm: Bits, shift: int, imm6: Bits) -> Bits:
    return ~shifted(m.x[rm, size], shift, imm6)


def _set_logical(m: Machine, size: int, rd: Bits, result: Bits) -> None:
    m.x[rd, size] = result
    set_flags(m, result[size - 1], result == 0, 0, 0)


@sized("sf 00 01010 shift 0 rm imm6 rn rd", "and {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def and_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """And."""
    m.x[rd, size] = m.x[rn, size] & shifted(m.x[rm, size], shift, imm6)


@sized("sf 00 01010 shift 1 rm imm6 rn rd", "bic {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def bic_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """And with the inverse."""
    m.x[rd, size] = m.x[rn, size] & _inverted(m, size, rm, shift, imm6)


@sized("sf 01 01010 shift 0 rm imm6 rn rd", "orr {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def orr_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Or."""
    m.x[rd, size] = m.x[rn, size] | shifted(m.x[rm, size], shift, imm6)


@sized("sf 01 01010 shift 1 rm imm6 rn rd", "orn {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def orn_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Or with the inverse."""
    m.x[rd, size] = m.x[rn, size] | _inverted(m, size, rm, shift, imm6)


@sized("sf 10 01010 shift 0 rm imm6 rn rd", "eor {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def eor_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Exclusive or."""
    m.x[rd, size] = m.x[rn, size] ^ shifted(m.x[rm, size], shift, imm6)


@sized("sf 10 01010 shift 1 rm imm6 rn rd", "eon {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def eon_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """Exclusive or with the inverse."""
    m.x[rd, size] = m.x[rn, size] ^ _inverted(m, size, rm, shift, imm6)


@sized("sf 11 01010 shift 0 rm imm6 rn rd", "ands {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def ands_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """And, setting flags."""
    _set_logical(m, size, rd, m.x[rn, size] & shifted(m.x[rm, size], shift, imm6))


@sized("sf 11 01010 shift 1 rm imm6 rn rd", "bics {rd}, {rn}, {rm}{imm6:shifted}", static="shift")
def bics_shifted(
    m: Machine, size: int, shift: int, rm: Bits, imm6: Bits, rn: Bits, rd: Bits
) -> None:
    """And with the inverse, setting flags."""
    _set_logical(m, size, rd, m.x[rn, size] & _inverted(m, size, rm, shift, imm6))


# Conditional.


@sized("sf 0 0 11010100 rm cond 0 0 rn rd", "csel {rd}, {rn}, {rm}, {cond}", static="cond")
def csel(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, rd: Bits) -> None:
    """Select."""
    m.x[rd, size] = holds(m, cond).select(m.x[rn, size], m.x[rm, size])


@sized("sf 0 0 11010100 rm cond 0 1 rn rd", "csinc {rd}, {rn}, {rm}, {cond}", static="cond")
def csinc(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, rd: Bits) -> None:
    """Select, or the second plus one."""
    m.x[rd, size] = holds(m, cond).select(m.x[rn, size], m.x[rm, size] + 1)


@sized("sf 1 0 11010100 rm cond 0 0 rn rd", "csinv {rd}, {rn}, {rm}, {cond}", static="cond")
def csinv(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, rd: Bits) -> None:
    """Select, or the second inverted."""
    m.x[rd, size] = holds(m, cond).select(m.x[rn, size], ~m.x[rm, size])


@sized("sf 1 0 11010100 rm cond 0 1 rn rd", "csneg {rd}, {rn}, {rm}, {cond}", static="cond")
def csneg(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, rd: Bits) -> None:
    """Select, or the second negated."""
    m.x[rd, size] = holds(m, cond).select(m.x[rn, size], -m.x[rm, size])


def _compare_if(m: Machine, cond: int, flags: tuple[Bits, ...], nzcv: Bits) -> None:
    condition = holds(m, cond)
    fixed = [nzcv[bit] for bit in (3, 2, 1, 0)]
    chosen = [condition.select(flag, other) for flag, other in zip(flags, fixed, strict=True)]
    set_flags(m, *chosen)


@sized("sf 0 1 11010010 rm cond 0 0 rn 0 nzcv", "ccmn {rn}, {rm}, {nzcv}, {cond}", static="cond")
def ccmn_register(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, nzcv: Bits) -> None:
    """Where the condition holds compare with the negative of a register."""
    _compare_if(m, cond, add_with_carry(m.x[rn, size], m.x[rm, size])[1], nzcv)


@sized("sf 1 1 11010010 rm cond 0 0 rn 0 nzcv", "ccmp {rn}, {rm}, {nzcv}, {cond}", static="cond")
def ccmp_register(m: Machine, size: int, rm: Bits, cond: int, rn: Bits, nzcv: Bits) -> None:
    """Where the condition holds compare with a register."""
    _compare_if(m, cond, subtract(m.x[rn, size], m.x[rm, size])[1], nzcv)


@sized(
    "sf 0 1 11010010 imm5 cond 1 0 rn 0 nzcv", "ccmn {rn}, {imm5}, {nzcv}, {cond}", static="cond"
)
def ccmn_immediate(m: Machine, size: int, imm5: Bits, cond: int, rn: Bits, nzcv: Bits) -> None:
    """Where the condition holds compare with the negative of an immediate."""
    _compare_if(m, cond, add_with_carry(m.x[rn, size], imm5.trunc(size))[1], nzcv)


@sized(
    "sf 1 1 11010010 imm5 cond 1 0 rn 0 nzcv", "ccmp {rn}, {imm5}, {nzcv}, {cond}", static="cond"
)
def ccmp_immediate(m: Machine, size: int, imm5: Bits, cond: int, rn: Bits, nzcv: Bits) -> None:
    """Where the condition holds compare with an immediate."""
    _compare_if(m, cond, subtract(m.x[rn, size], imm5.trunc(size))[1], nzcv)


# Two sources.


@sized("sf 0 0 11010110 rm 000010 rn rd", "udiv {rd}, {rn}, {rm}")
def udiv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Divide, unsigned; by zero gives zero."""
    divisor = m.x[rm, size]
    m.x[rd, size] = (divisor == 0).select(0, m.x[rn, size].udiv(divisor))


@sized("sf 0 0 11010110 rm 000011 rn rd", "sdiv {rd}, {rn}, {rm}")
def sdiv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Divide, signed, towards zero; by zero gives zero."""
    divisor = m.x[rm, size]
    m.x[rd, size] = (divisor == 0).select(0, m.x[rn, size].sdiv(divisor))


def _amount(m: Machine, size: int, rm: Bits) -> Bits:
    return m.x[rm, size] & (size - 1)


@sized("sf 0 0 11010110 rm 001000 rn rd", "lslv {rd}, {rn}, {rm}")
def lslv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Shift left by a register."""
    m.x[rd, size] = m.x[rn, size] << _amount(m, size, rm)


@sized("sf 0 0 11010110 rm 001001 rn rd", "lsrv {rd}, {rn}, {rm}")
def lsrv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Shift right by a register."""
    m.x[rd, size] = m.x[rn, size] >> _amount(m, size, rm)


@sized("sf 0 0 11010110 rm 001010 rn rd", "asrv {rd}, {rn}, {rm}")
def asrv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Shift right by a register, copying the sign."""
    m.x[rd, size] = m.x[rn, size].sar(_amount(m, size, rm))


@sized("sf 0 0 11010110 rm 001011 rn rd", "rorv {rd}, {rn}, {rm}")
def rorv(m: Machine, size: int, rm: Bits, rn: Bits, rd: Bits) -> None:
    """Rotate right by a register."""
    m.x[rd, size] = m.x[rn, size].ror(m.x[rm, size])


# One source.


@sized("sf 1 0 11010110 00000 000000 rn rd", "rbit {rd}, {rn}")
def rbit(m: Machine, size: int, rn: Bits, rd: Bits) -> None:
    """Reverse the bits."""
    m.x[rd, size] = m.x[rn, size].bitreverse()


@sized("sf 1 0 11010110 00000 000001 rn rd", "rev16 {rd}, {rn}")
def rev16(m: Machine, size: int, rn: Bits, rd: Bits) -> None:
    """Reverse the bytes of each halfword."""
    value, low = m.x[rn, size], 0x00FF00FF00FF00FF & ((1 << size) - 1)
    m.x[rd, size] = ((value >> 8) & low) | ((value & low) << 8)


@insn("0 1 0 11010110 00000 000010 rn rd", "rev {rd:w}, {rn:w}")
def rev_32(m: Machine, rn: Bits, rd: Bits) -> None:
    """Reverse the bytes of a word."""
    m.x[rd, 32] = m.x[rn, 32].bswap()


@insn("1 1 0 11010110 00000 000010 rn rd", "rev32 {rd:x}, {rn:x}")
def rev32(m: Machine, rn: Bits, rd: Bits) -> None:
    """Reverse the bytes of each word."""
    m.x[rd] = m.x[rn].bswap().ror(32)


@insn("1 1 0 11010110 00000 000011 rn rd", "rev {rd:x}, {rn:x}")
def rev_64(m: Machine, rn: Bits, rd: Bits) -> None:
    """Reverse the bytes of a doubleword."""
    m.x[rd] = m.x[rn].bswap()


@sized("sf 1 0 11010110 00000 000100 rn rd", "clz {rd}, {rn}")
def clz(m: Machine, size: int, rn: Bits, rd: Bits) -> None:
    """Count leading zeros."""
    m.x[rd, size] = m.x[rn, size].clz()


@sized("sf 1 0 11010110 00000 000101 rn rd", "cls {rd}, {rn}")
def cls(m: Machine, size: int, rn: Bits, rd: Bits) -> None:
    """Count leading copies of the sign."""
    value = m.x[rn, size]
    m.x[rd, size] = (value ^ value.sar(1)).clz() - 1


# Three sources.


@sized("sf 00 11011 000 rm 0 ra rn rd", "madd {rd}, {rn}, {rm}, {ra}")
def madd(m: Machine, size: int, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply and add."""
    m.x[rd, size] = m.x[ra, size] + m.x[rn, size] * m.x[rm, size]


@sized("sf 00 11011 000 rm 1 ra rn rd", "msub {rd}, {rn}, {rm}, {ra}")
def msub(m: Machine, size: int, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply and subtract."""
    m.x[rd, size] = m.x[ra, size] - m.x[rn, size] * m.x[rm, size]


@insn("1 00 11011 001 rm 0 ra rn rd", "smaddl {rd:x}, {rn:w}, {rm:w}, {ra:x}")
def smaddl(m: Machine, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply words, signed, and add."""
    m.x[rd] = m.x[ra] + m.x[rn, 32].sext(64) * m.x[rm, 32].sext(64)


@insn("1 00 11011 001 rm 1 ra rn rd", "smsubl {rd:x}, {rn:w}, {rm:w}, {ra:x}")
def smsubl(m: Machine, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply words, signed, and subtract."""
    m.x[rd] = m.x[ra] - m.x[rn, 32].sext(64) * m.x[rm, 32].sext(64)


@insn("1 00 11011 101 rm 0 ra rn rd", "umaddl {rd:x}, {rn:w}, {rm:w}, {ra:x}")
def umaddl(m: Machine, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply words, unsigned, and add."""
    m.x[rd] = m.x[ra] + m.x[rn, 32].zext(64) * m.x[rm, 32].zext(64)


@insn("1 00 11011 101 rm 1 ra rn rd", "umsubl {rd:x}, {rn:w}, {rm:w}, {ra:x}")
def umsubl(m: Machine, rm: Bits, ra: Bits, rn: Bits, rd: Bits) -> None:
    """Multiply words, unsigned, and subtract."""
    m.x[rd] = m.x[ra] - m.x[rn, 32].zext(64) * m.x[rm, 32].zext(64)


@insn("1 00 11011 010 rm 0 ones rn rd", "smulh {rd:x}, {rn:x}, {rm:x}")
def smulh(m: Machine, rm: Bits, ones: Bits, rn: Bits, rd: Bits) -> None:
    """Upper half of a signed product."""
    m.x[rd] = (m.x[rn].sext(128) * m.x[rm].sext(128))[64:]


@insn("1 00 11011 110 rm 0 ones rn rd", "umulh {rd:x}, {rn:x}, {rm:x}")
def umulh(m: Machine, rm: Bits, ones: Bits, rn: Bits, rd: Bits) -> None:
    """Upper half of an unsigned product."""
    m.x[rd] = (m.x[rn].zext(128) * m.x[rm].zext(128))[64:]


# CRC32 (FEAT_CRC32): polynomials 0x04C11DB7 and 0x1EDC6F41, bits reflected.


def _crc(accumulator: Bits, value: Bits, polynomial: int) -> Bits:
    """Divide bit by bit, lowest first."""
    state = accumulator ^ value.trunc(min(value.size, 32)).zext(32)
    rest = value[32:] if value.size == 64 else None
    for _ in range(min(value.size, 32)):
        state = (state >> 1) ^ state[0].select(polynomial, state.constant(0, 32))
    return state if rest is None else _crc(state, rest, polynomial)


def _crc_bytes(accumulator: Bits, value: Bits, polynomial: int) -> Bits:
    if value.size >= 32:
        return _crc(accumulator, value, polynomial)
    state = accumulator
    for lane in value.lanes(8):
        state = state ^ lane.zext(32)
        for _ in range(8):
            state = (state >> 1) ^ state[0].select(polynomial, state.constant(0, 32))
    return state


def _define_crc() -> None:
    for mnemonic, c, polynomial in (("crc32", 0, 0xEDB88320), ("crc32c", 1, 0x82F63B78)):
        for letter, sz, size in (("b", 0, 8), ("h", 1, 16), ("w", 2, 32), ("x", 3, 64)):

            def definition(
                m: Machine,
                rm: Bits,
                rn: Bits,
                rd: Bits,
                *,
                size: int = size,
                poly: int = polynomial,
            ) -> None:
                """Add a value to a cyclic redundancy check."""
                m.x[rd, 32] = _crc_bytes(m.x[rn, 32], m.x[rm, size], poly)

            insn(
                f"{sz // 3} 0 0 11010110 rm 010 {c} {sz:02b} rn rd",
                f"{mnemonic}{letter} {{rd:w}}, {{rn:w}}, {{rm:{'x' if sz == 3 else 'w'}}}",
                name=mnemonic + letter,
            )(definition)


_define_crc()


# FlagM, FlagM2 on registers.


@insn("1 0 1 11010000 imm6 00001 rn 0 mask:4", "rmif {rn:x}, {imm6}, {mask}")
def rmif(m: Machine, imm6: Bits, rn: Bits, mask: Bits) -> None:
    """Rotate right and insert into flags."""
    value = m.x[rn].ror(imm6)
    for index in range(4):
        with when(mask[3 - index]):
            m.flag[index] = value[3 - index].zext(8)


def _set_from(m: Machine, value: Bits, size: int) -> None:
    m.flag[0] = value[size - 1].zext(8)
    m.flag[1] = (value[:size] == 0).zext(8)
    m.flag[3] = (value[size] ^ value[size - 1]).zext(8)


@insn("0 0 1 11010000 000000 00010 rn 0 1101", "setf8 {rn:w}")
def setf8(m: Machine, rn: Bits) -> None:
    """Set N, Z, V by a byte."""
    _set_from(m, m.x[rn], 8)


@insn("0 0 1 11010000 000000 10010 rn 0 1101", "setf16 {rn:w}")
def setf16(m: Machine, rn: Bits) -> None:
    """Set N, Z, V by a halfword."""
    _set_from(m, m.x[rn], 16)
