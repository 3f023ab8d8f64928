"""RV64I base integer instructions (unprivileged ISA manual 20240411, chapters 2 and 4)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, when


@insn("imm[31:12] rd 0110111", "lui {rd}, {imm:upper}")
def lui(m: Machine, imm: Bits, rd: Bits) -> None:
    """Load upper immediate."""
    m.x[rd] = imm


@insn("imm[31:12] rd 0010111", "auipc {rd}, {imm:upper}")
def auipc(m: Machine, imm: Bits, rd: Bits) -> None:
    """Add upper immediate to pc."""
    m.x[rd] = m.pc + imm


@insn("imm[20|10:1|11|19:12] rd 1101111", "jal {rd}, {imm:target}")
def jal(m: Machine, imm: Bits, rd: Bits) -> None:
    """Jump and link."""
    m.x[rd] = m.next_pc
    m.jump(m.pc + imm)


@insn("imm[11:0] rs1 000 rd 1100111", "jalr {rd}, {imm}({rs1})")
def jalr(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Jump and link to a register."""
    target = (m.x[rs1] + imm) & ~1
    m.x[rd] = m.next_pc
    m.jump(target)


def _branch(m: Machine, taken: Bits, imm: Bits) -> None:
    with when(taken):
        m.jump(m.pc + imm)


@insn("imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011", "beq {rs1}, {rs2}, {imm:target}")
def beq(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if equal."""
    _branch(m, m.x[rs1] == m.x[rs2], imm)


@insn("imm[12|10:5] rs2 rs1 001 imm[4:1|11] 1100011", "bne {rs1}, {rs2}, {imm:target}")
def bne(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if not equal."""
    _branch(m, m.x[rs1] != m.x[rs2], imm)


@insn("imm[12|10:5] rs2 rs1 100 imm[4:1|11] 1100011", "blt {rs1}, {rs2}, {imm:target}")
def blt(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if less than, signed."""
    _branch(m, m.x[rs1].slt(m.x[rs2]), imm)


@insn("imm[12|10:5] rs2 rs1 101 imm[4:1|11] 1100011", "bge {rs1}, {rs2}, {imm:target}")
def bge(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if greater than or equal, signed."""
    _branch(m, m.x[rs1].sge(m.x[rs2]), imm)


@insn("imm[12|10:5] rs2 rs1 110 imm[4:1|11] 1100011", "bltu {rs1}, {rs2}, {imm:target}")
def bltu(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if less than, unsigned."""
    _branch(m, m.x[rs1] < m.x[rs2], imm)


@insn("imm[12|10:5] rs2 rs1 111 imm[4:1|11] 1100011", "bgeu {rs1}, {rs2}, {imm:target}")
def bgeu(m: Machine, rs1: Bits, rs2: Bits, imm: Bits) -> None:
    """Branch if greater than or equal, unsigned."""
    _branch(m, m.x[rs1] >= m.x[rs2], imm)


@insn("imm[11:0] rs1 000 rd 0000011", "lb {rd}, {imm}({rs1})")
def lb(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a byte, sign-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 8).sext(64)


@insn("imm[11:0] rs1 001 rd 0000011", "lh {rd}, {imm}({rs1})")
def lh(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a halfword, sign-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 16).sext(64)


@insn("imm[11:0] rs1 010 rd 0000011", "lw {rd}, {imm}({rs1})")
def lw(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a word, sign-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 32).sext(64)


@insn("imm[11:0] rs1 011 rd 0000011", "ld {rd}, {imm}({rs1})")
def ld(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a doubleword."""
    m.x[rd] = m.load(m.x[rs1] + imm, 64)


@insn("imm[11:0] rs1 100 rd 0000011", "lbu {rd}, {imm}({rs1})")
def lbu(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a byte, zero-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 8).zext(64)


@insn("imm[11:0] rs1 101 rd 0000011", "lhu {rd}, {imm}({rs1})")
def lhu(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a halfword, zero-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 16).zext(64)


@insn("imm[11:0] rs1 110 rd 0000011", "lwu {rd}, {imm}({rs1})")
def lwu(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a word, zero-extended."""
    m.x[rd] = m.load(m.x[rs1] + imm, 32).zext(64)


@insn("imm[11:5] rs2 rs1 000 imm[4:0] 0100011", "sb {rs2}, {imm}({rs1})")
def sb(m: Machine, imm: Bits, rs2: Bits, rs1: Bits) -> None:
    """Store a byte."""
    m.store(m.x[rs1] + imm, m.x[rs2, 8])


@insn("imm[11:5] rs2 rs1 001 imm[4:0] 0100011", "sh {rs2}, {imm}({rs1})")
def sh(m: Machine, imm: Bits, rs2: Bits, rs1: Bits) -> None:
    """Store a halfword."""
    m.store(m.x[rs1] + imm, m.x[rs2, 16])


@insn("imm[11:5] rs2 rs1 010 imm[4:0] 0100011", "sw {rs2}, {imm}({rs1})")
def sw(m: Machine, imm: Bits, rs2: Bits, rs1: Bits) -> None:
    """Store a word."""
    m.store(m.x[rs1] + imm, m.x[rs2, 32])


@insn("imm[11:5] rs2 rs1 011 imm[4:0] 0100011", "sd {rs2}, {imm}({rs1})")
def sd(m: Machine, imm: Bits, rs2: Bits, rs1: Bits) -> None:
    """Store a doubleword."""
    m.store(m.x[rs1] + imm, m.x[rs2])


@insn("imm[11:0] rs1 000 rd 0010011", "addi {rd}, {rs1}, {imm}")
def addi(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Add an immediate, ignoring overflow."""
    m.x[rd] = m.x[rs1] + imm


@insn("imm[11:0] rs1 010 rd 0010011", "slti {rd}, {rs1}, {imm}")
def slti(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Set if less than an immediate, signed."""
    m.x[rd] = m.x[rs1].slt(imm).zext(64)


@insn("imm[11:0] rs1 011 rd 0010011", "sltiu {rd}, {rs1}, {imm}")
def sltiu(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Set if less than an immediate, unsigned."""
    m.x[rd] = (m.x[rs1] < imm).zext(64)


@insn("imm[11:0] rs1 100 rd 0010011", "xori {rd}, {rs1}, {imm}")
def xori(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Exclusive or with an immediate."""
    m.x[rd] = m.x[rs1] ^ imm


@insn("imm[11:0] rs1 110 rd 0010011", "ori {rd}, {rs1}, {imm}")
def ori(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Or with an immediate."""
    m.x[rd] = m.x[rs1] | imm


@insn("imm[11:0] rs1 111 rd 0010011", "andi {rd}, {rs1}, {imm}")
def andi(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """And with an immediate."""
    m.x[rd] = m.x[rs1] & imm


@insn("000000 shamt rs1 001 rd 0010011", "slli {rd}, {rs1}, {shamt}")
def slli(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift left by an immediate."""
    m.x[rd] = m.x[rs1] << shamt


@insn("000000 shamt rs1 101 rd 0010011", "srli {rd}, {rs1}, {shamt}")
def srli(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift right by an immediate."""
    m.x[rd] = m.x[rs1] >> shamt


@insn("010000 shamt rs1 101 rd 0010011", "srai {rd}, {rs1}, {shamt}")
def srai(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift right by an immediate, copying the sign."""
    m.x[rd] = m.x[rs1].sar(shamt)


@insn("0000000 rs2 rs1 000 rd 0110011", "add {rd}, {rs1}, {rs2}")
def add(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Add, ignoring overflow."""
    m.x[rd] = m.x[rs1] + m.x[rs2]


@insn("0100000 rs2 rs1 000 rd 0110011", "sub {rd}, {rs1}, {rs2}")
def sub(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Subtract, ignoring overflow."""
    m.x[rd] = m.x[rs1] - m.x[rs2]


@insn("0000000 rs2 rs1 001 rd 0110011", "sll {rd}, {rs1}, {rs2}")
def sll(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift left."""
    m.x[rd] = m.x[rs1] << (m.x[rs2] & 63)


@insn("0000000 rs2 rs1 010 rd 0110011", "slt {rd}, {rs1}, {rs2}")
def slt(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Set if less than, signed."""
    m.x[rd] = m.x[rs1].slt(m.x[rs2]).zext(64)


@insn("0000000 rs2 rs1 011 rd 0110011", "sltu {rd}, {rs1}, {rs2}")
def sltu(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Set if less than, unsigned."""
    m.x[rd] = (m.x[rs1] < m.x[rs2]).zext(64)


@insn("0000000 rs2 rs1 100 rd 0110011", "xor {rd}, {rs1}, {rs2}")
def xor(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Exclusive or."""
    m.x[rd] = m.x[rs1] ^ m.x[rs2]


@insn("0000000 rs2 rs1 101 rd 0110011", "srl {rd}, {rs1}, {rs2}")
def srl(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift right."""
    m.x[rd] = m.x[rs1] >> (m.x[rs2] & 63)


@insn("0100000 rs2 rs1 101 rd 0110011", "sra {rd}, {rs1}, {rs2}")
def sra(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift right, copying the sign."""
    m.x[rd] = m.x[rs1].sar(m.x[rs2] & 63)


@insn("0000000 rs2 rs1 110 rd 0110011", "or {rd}, {rs1}, {rs2}")
def or_(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Or."""
    m.x[rd] = m.x[rs1] | m.x[rs2]


@insn("0000000 rs2 rs1 111 rd 0110011", "and {rd}, {rs1}, {rs2}")
def and_(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """And."""
    m.x[rd] = m.x[rs1] & m.x[rs2]


@insn("imm[11:0] rs1 000 rd 0011011", "addiw {rd}, {rs1}, {imm}")
def addiw(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Add an immediate to a word."""
    m.x[rd] = (m.x[rs1, 32] + imm.trunc(32)).sext(64)


@insn("0000000 shamt:5 rs1 001 rd 0011011", "slliw {rd}, {rs1}, {shamt}")
def slliw(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word left by an immediate."""
    m.x[rd] = (m.x[rs1, 32] << shamt.trunc(32)).sext(64)


@insn("0000000 shamt:5 rs1 101 rd 0011011", "srliw {rd}, {rs1}, {shamt}")
def srliw(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word right by an immediate."""
    m.x[rd] = (m.x[rs1, 32] >> shamt.trunc(32)).sext(64)


@insn("0100000 shamt:5 rs1 101 rd 0011011", "sraiw {rd}, {rs1}, {shamt}")
def sraiw(m: Machine, shamt: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word right by an immediate, copying the sign."""
    m.x[rd] = m.x[rs1, 32].sar(shamt.trunc(32)).sext(64)


@insn("0000000 rs2 rs1 000 rd 0111011", "addw {rd}, {rs1}, {rs2}")
def addw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Add words."""
    m.x[rd] = (m.x[rs1, 32] + m.x[rs2, 32]).sext(64)


@insn("0100000 rs2 rs1 000 rd 0111011", "subw {rd}, {rs1}, {rs2}")
def subw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Subtract words."""
    m.x[rd] = (m.x[rs1, 32] - m.x[rs2, 32]).sext(64)


@insn("0000000 rs2 rs1 001 rd 0111011", "sllw {rd}, {rs1}, {rs2}")
def sllw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word left."""
    m.x[rd] = (m.x[rs1, 32] << (m.x[rs2, 32] & 31)).sext(64)


@insn("0000000 rs2 rs1 101 rd 0111011", "srlw {rd}, {rs1}, {rs2}")
def srlw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word right."""
    m.x[rd] = (m.x[rs1, 32] >> (m.x[rs2, 32] & 31)).sext(64)


@insn("0100000 rs2 rs1 101 rd 0111011", "sraw {rd}, {rs1}, {rs2}")
def sraw(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Shift a word right, copying the sign."""
    m.x[rd] = m.x[rs1, 32].sar(m.x[rs2, 32] & 31).sext(64)


@insn("fm:4 pred:4 succ:4 rs1 000 rd 0001111", "fence {pred:fence}, {succ:fence}")
def fence(m: Machine, fm: Bits, pred: Bits, succ: Bits, rs1: Bits, rd: Bits) -> None:
    """Order memory accesses: earlier writes before later reads, or all other pairs only."""
    writes_reads = (pred & 0b0101 != 0) & (succ & 0b1010 != 0) & (fm != 8)  # 8 is fence.tso
    with when(writes_reads):
        m.fence()
    with when(~writes_reads):
        m.fence("acq_rel")


@insn("000000000000 00000 000 00000 1110011", "ecall")
def ecall(m: Machine) -> None:
    """Call the environment."""
    m.syscall()


@insn("000000000001 00000 000 00000 1110011", "ebreak")
def ebreak(m: Machine) -> None:
    """Stop at a breakpoint."""
    m.exit("breakpoint")
