"""RISC-V field kinds, and ``insn``, the decorator of all definitions in this package."""

from __future__ import annotations

from typing import Final

from anyarch.guests.riscv.aliases import SYNTAX
from anyarch.isa.instruction import InstructionSet, Kind

KINDS: Final = {
    "rd": Kind(5, file="x"),
    "rs1": Kind(5, file="x"),
    "rs2": Kind(5, file="x"),
    "rd_rs1": Kind(5, file="x"),
    "fd": Kind(5, file="f"),
    "fs1": Kind(5, file="f"),
    "fs2": Kind(5, file="f"),
    "fs3": Kind(5, file="f"),
    # Three-bit register numbers of the compressed formats: x8 to x15.
    "rdc": Kind(3, file="x", base=8),
    "rs1c": Kind(3, file="x", base=8),
    "rs2c": Kind(3, file="x", base=8),
    "fdc": Kind(3, file="f", base=8),
    "fs2c": Kind(3, file="f", base=8),
    "imm": Kind(size=64, signed=True),
    "uimm": Kind(size=64),
    "shamt": Kind(6, size=64),
    "rm": Kind(3),
    "aq": Kind(1),
    "rl": Kind(1),
}

riscv: Final = InstructionSet("riscv64", KINDS, unit=16, syntax=SYNTAX)
insn = riscv.insn
