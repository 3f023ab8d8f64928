"""A, atomic instructions (unprivileged ISA manual 20240411, chapter 14).

Every write is sequentially consistent, whatever ``order`` (aq above rl) asks for: no weaker order
is cheaper on a host with locked instructions. Reads wait for earlier writes where rl says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, when

LOAD_MISALIGNED: Final = 4
STORE_MISALIGNED: Final = 6


def aligned(m: Machine, address: Bits, size: int, cause: int = STORE_MISALIGNED) -> Bits:
    """The address of an atomic access of ``size`` bits; an exception where it is misaligned."""
    with when((address & (size // 8 - 1)) != 0):
        m.exception(cause, address)
    return address


def released(m: Machine, order: Bits) -> None:
    """Complete earlier writes before a load with the bit rl."""
    with when(order & 1 != 0):
        m.fence()


@insn("00010 order:2 00000 rs1 010 rd 0101111", "lr.w{order:ordering} {rd}, ({rs1})")
def lr_w(m: Machine, order: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a word, sign-extended, and reserve it."""
    address = aligned(m, m.x[rs1], 32, LOAD_MISALIGNED)
    released(m, order)
    m.x[rd] = m.load_reserved(address, 32).sext(64)


@insn("00010 order:2 00000 rs1 011 rd 0101111", "lr.d{order:ordering} {rd}, ({rs1})")
def lr_d(m: Machine, order: Bits, rs1: Bits, rd: Bits) -> None:
    """Load a doubleword and reserve it."""
    address = aligned(m, m.x[rs1], 64, LOAD_MISALIGNED)
    released(m, order)
    m.x[rd] = m.load_reserved(address, 64)


@insn("00011 order:2 rs2 rs1 010 rd 0101111", "sc.w{order:ordering} {rd}, {rs2}, ({rs1})")
def sc_w(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Store a word where the reservation holds; zero when it stored, else one."""
    stored = m.store_conditional(aligned(m, m.x[rs1], 32), m.x[rs2, 32])
    m.x[rd] = (~stored).zext(64)


@insn("00011 order:2 rs2 rs1 011 rd 0101111", "sc.d{order:ordering} {rd}, {rs2}, ({rs1})")
def sc_d(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
    """Store a doubleword where the reservation holds; zero when it stored, else one."""
    stored = m.store_conditional(aligned(m, m.x[rs1], 64), m.x[rs2])
    m.x[rd] = (~stored).zext(64)


# funct5, operation, and what it does to the value in memory.
_OPERATIONS: Final = (
    ("00001", "swap", "xchg", "Swap memory and a register."),
    ("00000", "add", "add", "Add to memory."),
    ("00100", "xor", "xor", "Exclusive or into memory."),
    ("01100", "and", "and", "And into memory."),
    ("01000", "or", "or", "Or into memory."),
    ("10000", "min", "min", "Signed minimum into memory."),
    ("10100", "max", "max", "Signed maximum into memory."),
    ("11000", "minu", "umin", "Unsigned minimum into memory."),
    ("11100", "maxu", "umax", "Unsigned maximum into memory."),
)


def _amo(operation: str, size: int, summary: str) -> Callable[..., None]:
    def amo(m: Machine, order: Bits, rs2: Bits, rs1: Bits, rd: Bits) -> None:
        old = m.amo(operation, aligned(m, m.x[rs1], size), m.x[rs2, size])
        m.x[rd] = old.sext(64)

    amo.__doc__ = f"{summary} The old value is the result."
    return amo


for _funct5, _name, _operation, _summary in _OPERATIONS:
    for _funct3, _letter, _size in (("010", "w", 32), ("011", "d", 64)):
        insn(
            f"{_funct5} order:2 rs2 rs1 {_funct3} rd 0101111",
            f"amo{_name}.{_letter}{{order:ordering}} {{rd}}, {{rs2}}, ({{rs1}})",
            name=f"amo{_name}_{_letter}",
        )(_amo(_operation, _size, _summary))
