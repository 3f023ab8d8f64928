"""Zicond, conditional zeroing (unprivileged ISA manual 20240411, chapter 12)."""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@insn("0000111 rs2 rs1 101 rd 0110011", "czero.eqz {rd}, {rs1}, {rs2}")
def czero_eqz(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Zero if rs2 is zero, else rs1."""
    m.x[rd] = (m.x[rs2] == 0).select(0, m.x[rs1])


@insn("0000111 rs2 rs1 111 rd 0110011", "czero.nez {rd}, {rs1}, {rs2}")
def czero_nez(m: Machine, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Zero if rs2 is not zero, else rs1."""
    m.x[rd] = (m.x[rs2] != 0).select(0, m.x[rs1])
