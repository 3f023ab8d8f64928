"""Branches, exceptions and system instructions (Arm DDI 0487, C4.1.93).

The hint space is no operation: no pointer authentication, no branch targets, no events to wait for.
"""

from __future__ import annotations

from anyarch.guests.aarch64.fields import insn, sized
from anyarch.guests.aarch64.integers import get_flag, holds, set_flags
from anyarch.guests.aarch64.registers import C, V, Z
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, when

LINK = 30


@insn("0101010 0 imm[20:2] 0 cond", "b.{cond} {imm:target}", static="cond")
def b_cond(m: Machine, imm: Bits, cond: int) -> None:
    """Branch where a condition holds."""
    with when(holds(m, cond)):
        m.jump(m.pc + imm)


@insn("0 00101 imm[27:2]", "b {imm:target}")
def b(m: Machine, imm: Bits) -> None:
    """Branch."""
    m.jump(m.pc + imm)


@insn("1 00101 imm[27:2]", "bl {imm:target}")
def bl(m: Machine, imm: Bits) -> None:
    """Branch with link."""
    m.x[LINK] = m.next_pc
    m.jump(m.pc + imm)


@insn("1101011 0000 11111 000000 rn 00000", "br {rn:x}")
def br(m: Machine, rn: Bits) -> None:
    """Branch to a register."""
    m.jump(m.x[rn])


@insn("1101011 0001 11111 000000 rn 00000", "blr {rn:x}")
def blr(m: Machine, rn: Bits) -> None:
    """Branch to a register, with link."""
    m.x[LINK] = m.next_pc
    m.jump(m.x[rn])


@insn("1101011 0010 11111 000000 rn 00000", "ret {rn:x}")
def ret(m: Machine, rn: Bits) -> None:
    """Return."""
    m.jump(m.x[rn])


@sized("sf 011010 0 imm[20:2] rn", "cbz {rn}, {imm:target}")
def cbz(m: Machine, size: int, imm: Bits, rn: Bits) -> None:
    """Branch if zero."""
    with when(m.x[rn, size] == 0):
        m.jump(m.pc + imm)


@sized("sf 011010 1 imm[20:2] rn", "cbnz {rn}, {imm:target}")
def cbnz(m: Machine, size: int, imm: Bits, rn: Bits) -> None:
    """Branch if not zero."""
    with when(m.x[rn, size] != 0):
        m.jump(m.pc + imm)


def _tested(m: Machine, bit: Bits, rn: Bits) -> Bits:
    return m.x[rn] & (bit.constant(1, 64) << bit.zext(64))


@insn("bit[5] 011011 0 bit[4:0] imm[15:2] rn", "tbz {rn}, {bit}, {imm:target}")
def tbz(m: Machine, bit: Bits, imm: Bits, rn: Bits) -> None:
    """Branch if a bit is zero."""
    with when(_tested(m, bit, rn) == 0):
        m.jump(m.pc + imm)


@insn("bit[5] 011011 1 bit[4:0] imm[15:2] rn", "tbnz {rn}, {bit}, {imm:target}")
def tbnz(m: Machine, bit: Bits, imm: Bits, rn: Bits) -> None:
    """Branch if a bit is not zero."""
    with when(_tested(m, bit, rn) != 0):
        m.jump(m.pc + imm)


# Exceptions. HVC, SMC and HLT are undefined for programs.


@insn("11010100 000 imm16 00001", "svc {imm16}")
def svc(m: Machine, imm16: Bits) -> None:
    """Call the operating system."""
    m.syscall()


@insn("11010100 001 imm16 00000", "brk {imm16}")
def brk(m: Machine, imm16: Bits) -> None:
    """Breakpoint."""
    m.exit("breakpoint")


# Hints and barriers.


@insn("11010101000000110010 imm:7 11111", "hint {imm:hex}")
def hint(m: Machine, imm: Bits) -> None:
    """Do nothing: nop, yield, wfe, wfi, sev, bti, pacia1716 and the like."""


@insn("11010101000000110011 crm:4 010 11111", "clrex {crm}")
def clrex(m: Machine, crm: Bits) -> None:
    """Give the reservation up."""
    m.clear_reservation()


@insn("11010101000000110011 crm:4 100 11111", "dsb {crm}", where="crm != 0, crm != 4")
def dsb(m: Machine, crm: Bits) -> None:
    """Complete memory accesses, and what was done to caches."""
    m.fence()
    with when(m.code_announced()):
        m.exit("code_changed")


@insn("11010101000000110011 0000 100 11111", "ssbb")
def ssbb(m: Machine) -> None:
    """Bar speculative stores, by virtual address."""
    m.fence()


@insn("11010101000000110011 0100 100 11111", "pssbb")
def pssbb(m: Machine) -> None:
    """Bar speculative stores, by physical address."""
    m.fence()


@insn("11010101000000110011 crm:4 101 11111", "dmb {crm}")
def dmb(m: Machine, crm: Bits) -> None:
    """Order memory accesses: all, or reads before others (ld), or writes (st)."""
    partial = (crm & 3 == 1) | (crm & 3 == 2)
    with when(~partial):
        m.fence()
    with when(partial):
        m.fence("acq_rel")


@insn("11010101000000110011 crm:4 110 11111", "isb {crm}")
def isb(m: Machine, crm: Bits) -> None:
    """Fetch what follows anew."""
    with when(m.code_announced()):
        m.exit("code_changed")


@insn("11010101000000110011 0000 111 11111", "sb")
def sb(m: Machine) -> None:
    """Bar speculation."""


# Flag manipulation without registers (FEAT_FlagM, FEAT_FlagM2).


@insn("1101010100000 000 0100 0000 000 11111", "cfinv")
def cfinv(m: Machine) -> None:
    """Invert C."""
    m.flag[C] = (~get_flag(m, C)).zext(8)


@insn("1101010100000 000 0100 0000 001 11111", "xaflag")
def xaflag(m: Machine) -> None:
    """Flags from the external floating-point format."""
    z, c = get_flag(m, Z), get_flag(m, C)
    set_flags(m, ~c & ~z, z & c, c | z, ~c & z)


@insn("1101010100000 000 0100 0000 010 11111", "axflag")
def axflag(m: Machine) -> None:
    """Flags to the external floating-point format."""
    z, c, v = get_flag(m, Z), get_flag(m, C), get_flag(m, V)
    set_flags(m, z.constant(0, 1), z | v, c & ~v, 0)
