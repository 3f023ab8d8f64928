"""Zicbom and Zicboz, cache blocks of 64 bytes (unprivileged ISA manual 20240411, chapter 19).

Memory is coherent here, so that managing a block only asks whether its address is accessible.
The prefetch hints of Zicbop are encodings of ``ori`` that write x0.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine

BLOCK = 64


@insn("000000000000 rs1 010 00000 0001111", "cbo.inval ({rs1})")
def cbo_inval(m: Machine, rs1: Bits) -> None:
    """Invalidate a block; done as a flush, which the manual permits."""
    m.load(m.x[rs1], 8)


@insn("000000000001 rs1 010 00000 0001111", "cbo.clean ({rs1})")
def cbo_clean(m: Machine, rs1: Bits) -> None:
    """Write a block back."""
    m.load(m.x[rs1], 8)


@insn("000000000010 rs1 010 00000 0001111", "cbo.flush ({rs1})")
def cbo_flush(m: Machine, rs1: Bits) -> None:
    """Write a block back and invalidate it."""
    m.load(m.x[rs1], 8)


@insn("000000000100 rs1 010 00000 0001111", "cbo.zero ({rs1})")
def cbo_zero(m: Machine, rs1: Bits) -> None:
    """Store zeros to the block that contains the address."""
    block = m.x[rs1] & -BLOCK
    for offset in range(0, BLOCK, 8):
        m.store(block + offset, Concrete(0, 64))
