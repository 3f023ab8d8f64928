"""Zicsr and Zicntr: control and status registers (unprivileged ISA manual 20240411, chapters 7, 8
and 20.2).

The number of a register is part of the encoding: an unknown register is an unknown instruction.
Reads that write nothing have rows of their own, so that they may read counters, and so that
reading the rounding mode does not set it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.guests.riscv.fields import insn
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@dataclass(frozen=True, slots=True)
class Csr:
    """A register: how it is read, 64 bits, and written, where it can be."""

    name: str
    number: int
    read: Callable[[Machine], Bits]
    write: Callable[[Machine, Bits], None] | None = None


def _read_flags(m: Machine) -> Bits:
    return m.fp.flags.zext(64)


def _write_flags(m: Machine, value: Bits) -> None:
    m.fp.flags = value[:5]


def _read_rounding(m: Machine) -> Bits:
    return m.fcsr[1]


def _write_rounding(m: Machine, value: Bits) -> None:
    m.fp.set_rounding(value[:3])


def _read_status(m: Machine) -> Bits:
    return m.fcsr[1] << 5 | _read_flags(m)


def _write_status(m: Machine, value: Bits) -> None:
    _write_flags(m, value)
    _write_rounding(m, value[5:8])


def _counter(name: str) -> Callable[[Machine], Bits]:
    return lambda m: m.counter(name)


CSRS: Final = (
    Csr("fflags", 0x001, _read_flags, _write_flags),
    Csr("frm", 0x002, _read_rounding, _write_rounding),
    Csr("fcsr", 0x003, _read_status, _write_status),
    Csr("cycle", 0xC00, _counter("cycle")),
    Csr("time", 0xC01, _counter("time")),
    Csr("instret", 0xC02, _counter("instret")),
)


def _define_reads(csr: Csr) -> None:
    """Define the forms that only read: set or clear no bit."""

    def register(m: Machine, rs1: Bits, rd: Bits) -> None:
        """Read a CSR."""
        m.x[rd] = csr.read(m)

    def immediate(m: Machine, uimm: Bits, rd: Bits) -> None:
        """Read a CSR."""
        m.x[rd] = csr.read(m)

    for mnemonic, funct3 in (("csrrs", "010"), ("csrrc", "011")):
        insn(
            f"{csr.number:012b} rs1 {funct3} rd 1110011",
            f"{mnemonic} {{rd}}, {csr.name}, {{rs1}}",
            where="rs1 == 0",
            name=f"{mnemonic}_{csr.name}_read",
        )(register)
    for mnemonic, funct3 in (("csrrsi", "110"), ("csrrci", "111")):
        insn(
            f"{csr.number:012b} uimm:5 {funct3} rd 1110011",
            f"{mnemonic} {{rd}}, {csr.name}, {{uimm}}",
            where="uimm == 0",
            name=f"{mnemonic}_{csr.name}_read",
        )(immediate)


def _define_writes(csr: Csr, write: Callable[[Machine, Bits], None]) -> None:
    """Define the forms that write, from a register and from an immediate."""

    def exchange(m: Machine, value: Bits, rd: Bits) -> None:
        """Write a CSR and return its old value."""
        m.x[rd] = csr.read(m)
        write(m, value)

    def set_bits(m: Machine, value: Bits, rd: Bits) -> None:
        """Set bits of a CSR and return its old value."""
        old = csr.read(m)
        m.x[rd] = old
        write(m, old | value)

    def clear_bits(m: Machine, value: Bits, rd: Bits) -> None:
        """Clear bits of a CSR and return its old value."""
        old = csr.read(m)
        m.x[rd] = old
        write(m, old & ~value)

    for mnemonic, funct2, meaning in (
        ("csrrw", "01", exchange),
        ("csrrs", "10", set_bits),
        ("csrrc", "11", clear_bits),
    ):
        from_register, from_immediate = _sources(meaning)
        always = mnemonic == "csrrw"
        insn(
            f"{csr.number:012b} rs1 0{funct2} rd 1110011",
            f"{mnemonic} {{rd}}, {csr.name}, {{rs1}}",
            where="" if always else "rs1 != 0",
            name=f"{mnemonic}_{csr.name}",
        )(from_register)
        insn(
            f"{csr.number:012b} uimm:5 1{funct2} rd 1110011",
            f"{mnemonic}i {{rd}}, {csr.name}, {{uimm}}",
            where="" if always else "uimm != 0",
            name=f"{mnemonic}i_{csr.name}",
        )(from_immediate)


def _sources(
    meaning: Callable[[Machine, Bits, Bits], None],
) -> tuple[Callable[..., None], Callable[..., None]]:
    """A definition as its two forms."""

    def from_register(m: Machine, rs1: Bits, rd: Bits) -> None:
        meaning(m, m.x[rs1], rd)

    def from_immediate(m: Machine, uimm: Bits, rd: Bits) -> None:
        meaning(m, uimm, rd)

    from_register.__doc__ = from_immediate.__doc__ = meaning.__doc__
    return from_register, from_immediate


for _csr in CSRS:
    _define_reads(_csr)
    if _csr.write is not None:
        _define_writes(_csr, _csr.write)
