"""Zcb, further compressed instructions (unprivileged ISA manual 20240411, chapter 27)."""

from __future__ import annotations

from typing import Final

from anyarch.guests.riscv import rv64i, rv64m, zba, zbb
from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine

ZERO: Final = Concrete(0, 8)


@insn("100 000 rs1c uimm[0|1] rdc 00", "c.lbu {rdc}, {uimm}({rs1c})")
def c_lbu(m: Machine, uimm: Bits, rs1c: Bits, rdc: Bits) -> None:
    """Load a byte, zero-extended."""
    rv64i.lbu(m, uimm, rs1c, rdc)


@insn("100 001 rs1c 0 uimm[1] rdc 00", "c.lhu {rdc}, {uimm}({rs1c})")
def c_lhu(m: Machine, uimm: Bits, rs1c: Bits, rdc: Bits) -> None:
    """Load a halfword, zero-extended."""
    rv64i.lhu(m, uimm, rs1c, rdc)


@insn("100 001 rs1c 1 uimm[1] rdc 00", "c.lh {rdc}, {uimm}({rs1c})")
def c_lh(m: Machine, uimm: Bits, rs1c: Bits, rdc: Bits) -> None:
    """Load a halfword, sign-extended."""
    rv64i.lh(m, uimm, rs1c, rdc)


@insn("100 010 rs1c uimm[0|1] rs2c 00", "c.sb {rs2c}, {uimm}({rs1c})")
def c_sb(m: Machine, uimm: Bits, rs1c: Bits, rs2c: Bits) -> None:
    """Store a byte."""
    rv64i.sb(m, uimm, rs2c, rs1c)


@insn("100 011 rs1c 0 uimm[1] rs2c 00", "c.sh {rs2c}, {uimm}({rs1c})")
def c_sh(m: Machine, uimm: Bits, rs1c: Bits, rs2c: Bits) -> None:
    """Store a halfword."""
    rv64i.sh(m, uimm, rs2c, rs1c)


@insn("100 111 rdc 11 000 01", "c.zext.b {rdc}")
def c_zext_b(m: Machine, rdc: Bits) -> None:
    """Extend a byte with zeros."""
    rv64i.andi(m, Concrete(0xFF, 64), rdc, rdc)


@insn("100 111 rdc 11 001 01", "c.sext.b {rdc}")
def c_sext_b(m: Machine, rdc: Bits) -> None:
    """Extend a byte with its sign."""
    zbb.sext_b(m, rdc, rdc)


@insn("100 111 rdc 11 010 01", "c.zext.h {rdc}")
def c_zext_h(m: Machine, rdc: Bits) -> None:
    """Extend a halfword with zeros."""
    zbb.zext_h(m, rdc, rdc)


@insn("100 111 rdc 11 011 01", "c.sext.h {rdc}")
def c_sext_h(m: Machine, rdc: Bits) -> None:
    """Extend a halfword with its sign."""
    zbb.sext_h(m, rdc, rdc)


@insn("100 111 rdc 11 100 01", "c.zext.w {rdc}")
def c_zext_w(m: Machine, rdc: Bits) -> None:
    """Extend a word with zeros."""
    zba.add_uw(m, ZERO, rdc, rdc)


@insn("100 111 rdc 11 101 01", "c.not {rdc}")
def c_not(m: Machine, rdc: Bits) -> None:
    """Complement."""
    rv64i.xori(m, Concrete(-1, 64), rdc, rdc)


@insn("100 111 rdc 10 rs2c 01", "c.mul {rdc}, {rs2c}")
def c_mul(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Multiply, low half."""
    rv64m.mul(m, rs2c, rdc, rdc)
