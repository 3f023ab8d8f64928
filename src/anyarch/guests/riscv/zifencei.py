"""Zifencei, instruction-fetch fence (unprivileged ISA manual 20240411, chapter 6)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("imm[11:0] rs1 001 rd 0001111", "fence.i")
def fence_i(m: Machine, imm: Bits, rs1: Bits, rd: Bits) -> None:
    """Make earlier stores visible to instruction fetch; the fields are reserved and ignored."""
    m.exit("code_changed")
