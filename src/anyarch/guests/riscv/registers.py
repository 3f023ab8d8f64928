"""RISC-V state and field kinds (unprivileged ISA manual 20240411, chapters 2 and 20)."""

from __future__ import annotations

from typing import Final

from anyarch.isa.instruction import InstructionSet, Kind
from anyarch.isa.registers import Layout, RegisterFile

X_NAMES: Final = tuple(
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 "
    "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6".split()
)
F_NAMES: Final = tuple(
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11".split()
)

LAYOUT: Final = Layout(
    (
        RegisterFile("x", 32, 64, X_NAMES, zero=0),
        RegisterFile("f", 32, 64, F_NAMES),
        RegisterFile("fcsr", 2, 64, ("fflags", "frm")),
    )
)

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

riscv: Final = InstructionSet("riscv64", KINDS, unit=16)
insn = riscv.insn
