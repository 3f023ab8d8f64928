"""C, compressed instructions of RV64 with D (unprivileged ISA manual 20240411, chapter 26).

Each calls the definition of the instruction that it expands to. The manual's hints are rows like
any other: they write x0, or a register with its own value.
"""

from __future__ import annotations

from typing import Final

from anyarch.guests.riscv import rv64d, rv64i
from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine

ZERO: Final = Concrete(0, 8)
RA: Final = Concrete(1, 8)
SP: Final = Concrete(2, 8)
NOTHING: Final = Concrete(0, 64)


# Quadrant 0.
@insn("000 uimm[5:4|9:6|2|3] rdc 00", "c.addi4spn {rdc}, sp, {uimm}", where="uimm != 0")
def c_addi4spn(m: Machine, uimm: Bits, rdc: Bits) -> None:
    """Add a scaled immediate to sp."""
    rv64i.addi(m, uimm, SP, rdc)


@insn("001 uimm[5:3] rs1c uimm[7:6] fdc 00", "c.fld {fdc}, {uimm}({rs1c})")
def c_fld(m: Machine, uimm: Bits, rs1c: Bits, fdc: Bits) -> None:
    """Load a double."""
    rv64d.fld(m, uimm, rs1c, fdc)


@insn("010 uimm[5:3] rs1c uimm[2|6] rdc 00", "c.lw {rdc}, {uimm}({rs1c})")
def c_lw(m: Machine, uimm: Bits, rs1c: Bits, rdc: Bits) -> None:
    """Load a word, sign-extended."""
    rv64i.lw(m, uimm, rs1c, rdc)


@insn("011 uimm[5:3] rs1c uimm[7:6] rdc 00", "c.ld {rdc}, {uimm}({rs1c})")
def c_ld(m: Machine, uimm: Bits, rs1c: Bits, rdc: Bits) -> None:
    """Load a doubleword."""
    rv64i.ld(m, uimm, rs1c, rdc)


@insn("101 uimm[5:3] rs1c uimm[7:6] fs2c 00", "c.fsd {fs2c}, {uimm}({rs1c})")
def c_fsd(m: Machine, uimm: Bits, rs1c: Bits, fs2c: Bits) -> None:
    """Store a double."""
    rv64d.fsd(m, uimm, fs2c, rs1c)


@insn("110 uimm[5:3] rs1c uimm[2|6] rs2c 00", "c.sw {rs2c}, {uimm}({rs1c})")
def c_sw(m: Machine, uimm: Bits, rs1c: Bits, rs2c: Bits) -> None:
    """Store a word."""
    rv64i.sw(m, uimm, rs2c, rs1c)


@insn("111 uimm[5:3] rs1c uimm[7:6] rs2c 00", "c.sd {rs2c}, {uimm}({rs1c})")
def c_sd(m: Machine, uimm: Bits, rs1c: Bits, rs2c: Bits) -> None:
    """Store a doubleword."""
    rv64i.sd(m, uimm, rs2c, rs1c)


# Quadrant 1.
@insn("000 0 00000 00000 01", "c.nop")
def c_nop(m: Machine) -> None:
    """Do nothing."""


@insn("000 imm[5] 00000 imm[4:0] 01", "c.nop {imm}", where="imm != 0")
def c_nop_hint(m: Machine, imm: Bits) -> None:
    """Do nothing: a hint."""


@insn("000 imm[5] rd imm[4:0] 01", "c.addi {rd}, {imm}", where="rd != 0")
def c_addi(m: Machine, imm: Bits, rd: Bits) -> None:
    """Add an immediate."""
    rv64i.addi(m, imm, rd, rd)


@insn("001 imm[5] rd imm[4:0] 01", "c.addiw {rd}, {imm}", where="rd != 0")
def c_addiw(m: Machine, imm: Bits, rd: Bits) -> None:
    """Add an immediate to a word."""
    rv64i.addiw(m, imm, rd, rd)


@insn("010 imm[5] rd imm[4:0] 01", "c.li {rd}, {imm}")
def c_li(m: Machine, imm: Bits, rd: Bits) -> None:
    """Load an immediate."""
    rv64i.addi(m, imm, ZERO, rd)


@insn("011 imm[9] 00010 imm[4|6|8:7|5] 01", "c.addi16sp sp, {imm}", where="imm != 0")
def c_addi16sp(m: Machine, imm: Bits) -> None:
    """Add a multiple of 16 to sp."""
    rv64i.addi(m, imm, SP, SP)


@insn("011 imm[17] rd imm[16:12] 01", "c.lui {rd}, {imm:upper}", where="rd != 2, imm != 0")
def c_lui(m: Machine, imm: Bits, rd: Bits) -> None:
    """Load upper immediate."""
    rv64i.lui(m, imm, rd)


@insn("100 shamt[5] 00 rdc shamt[4:0] 01", "c.srli {rdc}, {shamt}")
def c_srli(m: Machine, shamt: Bits, rdc: Bits) -> None:
    """Shift right by an immediate."""
    rv64i.srli(m, shamt, rdc, rdc)


@insn("100 shamt[5] 01 rdc shamt[4:0] 01", "c.srai {rdc}, {shamt}")
def c_srai(m: Machine, shamt: Bits, rdc: Bits) -> None:
    """Shift right by an immediate, copying the sign."""
    rv64i.srai(m, shamt, rdc, rdc)


@insn("100 imm[5] 10 rdc imm[4:0] 01", "c.andi {rdc}, {imm}")
def c_andi(m: Machine, imm: Bits, rdc: Bits) -> None:
    """And with an immediate."""
    rv64i.andi(m, imm, rdc, rdc)


@insn("100 0 11 rdc 00 rs2c 01", "c.sub {rdc}, {rs2c}")
def c_sub(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Subtract."""
    rv64i.sub(m, rs2c, rdc, rdc)


@insn("100 0 11 rdc 01 rs2c 01", "c.xor {rdc}, {rs2c}")
def c_xor(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Exclusive or."""
    rv64i.xor(m, rs2c, rdc, rdc)


@insn("100 0 11 rdc 10 rs2c 01", "c.or {rdc}, {rs2c}")
def c_or(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Or."""
    rv64i.or_(m, rs2c, rdc, rdc)


@insn("100 0 11 rdc 11 rs2c 01", "c.and {rdc}, {rs2c}")
def c_and(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """And."""
    rv64i.and_(m, rs2c, rdc, rdc)


@insn("100 1 11 rdc 00 rs2c 01", "c.subw {rdc}, {rs2c}")
def c_subw(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Subtract words."""
    rv64i.subw(m, rs2c, rdc, rdc)


@insn("100 1 11 rdc 01 rs2c 01", "c.addw {rdc}, {rs2c}")
def c_addw(m: Machine, rs2c: Bits, rdc: Bits) -> None:
    """Add words."""
    rv64i.addw(m, rs2c, rdc, rdc)


@insn("101 imm[11|4|9:8|10|6|7|3:1|5] 01", "c.j {imm:target}")
def c_j(m: Machine, imm: Bits) -> None:
    """Jump."""
    rv64i.jal(m, imm, ZERO)


@insn("110 imm[8|4:3] rs1c imm[7:6|2:1|5] 01", "c.beqz {rs1c}, {imm:target}")
def c_beqz(m: Machine, imm: Bits, rs1c: Bits) -> None:
    """Branch if zero."""
    rv64i.beq(m, rs1c, ZERO, imm)


@insn("111 imm[8|4:3] rs1c imm[7:6|2:1|5] 01", "c.bnez {rs1c}, {imm:target}")
def c_bnez(m: Machine, imm: Bits, rs1c: Bits) -> None:
    """Branch if not zero."""
    rv64i.bne(m, rs1c, ZERO, imm)


# Quadrant 2.
@insn("000 shamt[5] rd shamt[4:0] 10", "c.slli {rd}, {shamt}")
def c_slli(m: Machine, shamt: Bits, rd: Bits) -> None:
    """Shift left by an immediate."""
    rv64i.slli(m, shamt, rd, rd)


@insn("001 uimm[5] fd uimm[4:3|8:6] 10", "c.fldsp {fd}, {uimm}(sp)")
def c_fldsp(m: Machine, uimm: Bits, fd: Bits) -> None:
    """Load a double from the stack."""
    rv64d.fld(m, uimm, SP, fd)


@insn("010 uimm[5] rd uimm[4:2|7:6] 10", "c.lwsp {rd}, {uimm}(sp)", where="rd != 0")
def c_lwsp(m: Machine, uimm: Bits, rd: Bits) -> None:
    """Load a word from the stack, sign-extended."""
    rv64i.lw(m, uimm, SP, rd)


@insn("011 uimm[5] rd uimm[4:3|8:6] 10", "c.ldsp {rd}, {uimm}(sp)", where="rd != 0")
def c_ldsp(m: Machine, uimm: Bits, rd: Bits) -> None:
    """Load a doubleword from the stack."""
    rv64i.ld(m, uimm, SP, rd)


@insn("100 0 rs1 00000 10", "c.jr {rs1}", where="rs1 != 0")
def c_jr(m: Machine, rs1: Bits) -> None:
    """Jump to a register."""
    rv64i.jalr(m, NOTHING, rs1, ZERO)


@insn("100 0 rd rs2 10", "c.mv {rd}, {rs2}", where="rs2 != 0")
def c_mv(m: Machine, rs2: Bits, rd: Bits) -> None:
    """Copy a register."""
    rv64i.add(m, rs2, ZERO, rd)


@insn("100 1 00000 00000 10", "c.ebreak")
def c_ebreak(m: Machine) -> None:
    """Stop at a breakpoint."""
    rv64i.ebreak(m)


@insn("100 1 rs1 00000 10", "c.jalr {rs1}", where="rs1 != 0")
def c_jalr(m: Machine, rs1: Bits) -> None:
    """Jump to a register and link."""
    rv64i.jalr(m, NOTHING, rs1, RA)


@insn("100 1 rd rs2 10", "c.add {rd}, {rs2}", where="rs2 != 0")
def c_add(m: Machine, rs2: Bits, rd: Bits) -> None:
    """Add."""
    rv64i.add(m, rs2, rd, rd)


@insn("101 uimm[5:3|8:6] fs2 10", "c.fsdsp {fs2}, {uimm}(sp)")
def c_fsdsp(m: Machine, uimm: Bits, fs2: Bits) -> None:
    """Store a double to the stack."""
    rv64d.fsd(m, uimm, fs2, SP)


@insn("110 uimm[5:2|7:6] rs2 10", "c.swsp {rs2}, {uimm}(sp)")
def c_swsp(m: Machine, uimm: Bits, rs2: Bits) -> None:
    """Store a word to the stack."""
    rv64i.sw(m, uimm, rs2, SP)


@insn("111 uimm[5:3|8:6] rs2 10", "c.sdsp {rs2}, {uimm}(sp)")
def c_sdsp(m: Machine, uimm: Bits, rs2: Bits) -> None:
    """Store a doubleword to the stack."""
    rv64i.sd(m, uimm, rs2, SP)
