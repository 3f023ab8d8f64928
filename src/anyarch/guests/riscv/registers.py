"""RISC-V architectural state (unprivileged ISA manual 20240411, chapters 2 and 20)."""

from __future__ import annotations

from typing import Final

from anyarch.isa.architecture import Convention
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

# What a function of the psABI gets, gives, and keeps most often.
CONVENTION: Final = Convention(
    link=("x", 1),
    integers=tuple(("x", X_NAMES.index(name)) for name in "sp a0 a1 a2 a3 s0 s1 s2 s3 s4".split()),
    vectors=tuple(("f", F_NAMES.index(name)) for name in "fa0 fa1 fa2 fa3 fs0 fs1 fs2 fs3".split()),
    kept=tuple(("x", X_NAMES.index(name)) for name in "ra sp gp tp".split()),
)
