"""Data processing with an immediate (Arm DDI 0487, C4.1.92)."""

from __future__ import annotations

from collections.abc import Callable

from anyarch.guests.aarch64.fields import bind, insn, sized
from anyarch.guests.aarch64.integers import add_with_carry, set_flags, subtract
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("0 imm[1:0] 10000 imm[20:2] rd", "adr {rd:x}, {imm:target}")
def adr(m: Machine, imm: Bits, rd: Bits) -> None:
    """Address relative to pc."""
    m.x[rd] = m.pc + imm


@insn("1 imm[13:12] 10000 imm[32:14] rd", "adrp {rd:x}, {imm:page}")
def adrp(m: Machine, imm: Bits, rd: Bits) -> None:
    """Address of a page relative to pc's."""
    m.x[rd] = (m.pc & ~0xFFF) + imm


def _immediate(imm12: Bits, sh: Bits, size: int) -> Bits:
    return sh.select(imm12 << 12, imm12).trunc(size)


@sized("sf 0 0 100010 sh:1 imm12 rn_sp rd_sp", "add {rd_sp}, {rn_sp}, {imm12}{sh:lsl12}")
def add_immediate(m: Machine, size: int, sh: Bits, imm12: Bits, rn_sp: Bits, rd_sp: Bits) -> None:
    """Add."""
    m.r[rd_sp, size] = m.r[rn_sp, size] + _immediate(imm12, sh, size)


@sized("sf 0 1 100010 sh:1 imm12 rn_sp rd", "adds {rd}, {rn_sp}, {imm12}{sh:lsl12}")
def adds_immediate(m: Machine, size: int, sh: Bits, imm12: Bits, rn_sp: Bits, rd: Bits) -> None:
    """Add, setting flags."""
    result, flags = add_with_carry(m.r[rn_sp, size], _immediate(imm12, sh, size))
    m.x[rd, size] = result
    set_flags(m, *flags)


@sized("sf 1 0 100010 sh:1 imm12 rn_sp rd_sp", "sub {rd_sp}, {rn_sp}, {imm12}{sh:lsl12}")
def sub_immediate(m: Machine, size: int, sh: Bits, imm12: Bits, rn_sp: Bits, rd_sp: Bits) -> None:
    """Subtract."""
    m.r[rd_sp, size] = m.r[rn_sp, size] - _immediate(imm12, sh, size)


@sized("sf 1 1 100010 sh:1 imm12 rn_sp rd", "subs {rd}, {rn_sp}, {imm12}{sh:lsl12}")
def subs_immediate(m: Machine, size: int, sh: Bits, imm12: Bits, rn_sp: Bits, rd: Bits) -> None:
    """Subtract, setting flags."""
    result, flags = subtract(m.r[rn_sp, size], _immediate(imm12, sh, size))
    m.x[rd, size] = result
    set_flags(m, *flags)


# Logical: a row per element size, since imms of all ones means nothing.


def _element(immr: Bits, imms: Bits, element: int, size: int) -> Bits:
    """DecodeBitMasks: a run of imms + 1 ones in an element, rotated right by immr, repeated."""
    ones = (imms.constant(2, 64) << imms) - 1
    rotation = immr & (element - 1)
    mask = (1 << element) - 1
    rotated = ((ones >> rotation) | (ones << (element - rotation))) & mask
    repeated = rotated * sum(1 << at for at in range(0, 64, element))
    return repeated.trunc(size)


def _and(
    m: Machine, size: int, element: int, immr: Bits, imms: Bits, rn: Bits, rd_sp: Bits
) -> None:
    """And."""
    m.r[rd_sp, size] = m.x[rn, size] & _element(immr, imms, element, size)


def _orr(
    m: Machine, size: int, element: int, immr: Bits, imms: Bits, rn: Bits, rd_sp: Bits
) -> None:
    """Or."""
    m.r[rd_sp, size] = m.x[rn, size] | _element(immr, imms, element, size)


def _eor(
    m: Machine, size: int, element: int, immr: Bits, imms: Bits, rn: Bits, rd_sp: Bits
) -> None:
    """Exclusive or."""
    m.r[rd_sp, size] = m.x[rn, size] ^ _element(immr, imms, element, size)


def _ands(m: Machine, size: int, element: int, immr: Bits, imms: Bits, rn: Bits, rd: Bits) -> None:
    """And, setting flags."""
    result = m.x[rn, size] & _element(immr, imms, element, size)
    m.x[rd, size] = result
    set_flags(m, result[size - 1], result == 0, 0, 0)


def _define_logical(mnemonic: str, opc: str, rd: str, function: Callable[..., None]) -> None:
    for size in (32, 64):
        for element in (2, 4, 8, 16, 32, 64)[: 5 + size // 64]:
            width = element.bit_length() - 1
            name = f"{mnemonic}_immediate_{size}_{element}"
            imms = f"{'1' * (5 - width)}0 imms:{width}" if element < 64 else "imms:6"
            insn(
                f"{size // 64} {opc} 100100 {element // 64} immr {imms} rn {rd}",
                f"{mnemonic} {{{rd}}}, {{rn}}, {{imms:bitmask}}",
                where=f"imms != {element - 1}",
                name=name,
            )(bind(function, name, __name__, size=size, element=element))


_define_logical("and", "00", "rd_sp", _and)
_define_logical("orr", "01", "rd_sp", _orr)
_define_logical("eor", "10", "rd_sp", _eor)
_define_logical("ands", "11", "rd", _ands)


# Move wide. In 32-bit forms hw has one bit.


def _wide(imm16: Bits, hw: Bits, size: int) -> Bits:
    return (imm16 << (hw.zext(64) << 4)).trunc(size)


def _movn(m: Machine, size: int, hw: Bits, imm16: Bits, rd: Bits) -> None:
    """Move the inverse of a shifted immediate."""
    m.x[rd, size] = ~_wide(imm16, hw, size)


def _movz(m: Machine, size: int, hw: Bits, imm16: Bits, rd: Bits) -> None:
    """Move a shifted immediate."""
    m.x[rd, size] = _wide(imm16, hw, size)


def _movk(m: Machine, size: int, hw: Bits, imm16: Bits, rd: Bits) -> None:
    """Replace 16 bits."""
    hole = ~_wide(imm16.constant(0xFFFF, 64), hw, size)
    m.x[rd, size] = (m.x[rd, size] & hole) | _wide(imm16, hw, size)


for _mnemonic, _opc, _function in (
    ("movn", "00", _movn),
    ("movz", "10", _movz),
    ("movk", "11", _movk),
):
    for _size, _hw in ((32, "0 hw:1"), (64, "hw:2")):
        insn(
            f"{_size // 64} {_opc} 100101 {_hw} imm16 rd",
            f"{_mnemonic} {{rd}}, {{imm16}}{{hw:hw}}",
            name=f"{_mnemonic}_{_size}",
        )(bind(_function, f"{_mnemonic}_{_size}", __name__, size=_size))


# Bit fields.


def _field_mask(immr: Bits, imms: Bits, size: int) -> Bits:
    """Where the bits of the field come to lie: wmask and tmask of DecodeBitMasks together."""
    one = immr.constant(1, 64)
    ones = (one << (imms + 1)) - 1
    low = (ones >> immr) | (ones << (size - immr))
    top = (one << (((imms - immr) & (size - 1)) + 1)) - 1
    return (low & top).trunc(size)


@sized("sf 00 100110 N immr imms rn rd", "sbfm {rd}, {rn}, {immr}, {imms}")
def sbfm(m: Machine, size: int, immr: Bits, imms: Bits, rn: Bits, rd: Bits) -> None:
    """Move a bit field, copying its sign above and zeros below it."""
    left = size - 1 - imms
    right = (left + immr) & (size - 1)
    m.x[rd, size] = (m.x[rn, size] << left.trunc(size)).sar(right.trunc(size))


@sized("sf 01 100110 N immr imms rn rd", "bfm {rd}, {rn}, {immr}, {imms}")
def bfm(m: Machine, size: int, immr: Bits, imms: Bits, rn: Bits, rd: Bits) -> None:
    """Move a bit field, keeping the other bits of rd."""
    mask = _field_mask(immr, imms, size)
    moved = m.x[rn, size].ror(immr.trunc(size))
    m.x[rd, size] = (m.x[rd, size] & ~mask) | (moved & mask)


@sized("sf 10 100110 N immr imms rn rd", "ubfm {rd}, {rn}, {immr}, {imms}")
def ubfm(m: Machine, size: int, immr: Bits, imms: Bits, rn: Bits, rd: Bits) -> None:
    """Move a bit field into zeros."""
    m.x[rd, size] = m.x[rn, size].ror(immr.trunc(size)) & _field_mask(immr, imms, size)


@sized("sf 00 100111 N 0 rm imms rn rd", "extr {rd}, {rn}, {rm}, {imms}")
def extr(m: Machine, size: int, rm: Bits, imms: Bits, rn: Bits, rd: Bits) -> None:
    """Extract from a pair of registers."""
    low = m.x[rm, size] >> imms.trunc(size)
    m.x[rd, size] = low | (m.x[rn, size] << (size - imms).trunc(size))
