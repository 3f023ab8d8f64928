"""AArch64 user-mode register state (Arm DDI 0487, B1.2: registers in AArch64 Execution state).

``r`` and ``x`` are two views of the general registers: index 31 is sp in one, zero in the other.
NZCV is four registers of one flag each, so that what sets one does not read the others.
"""

from __future__ import annotations

from typing import Final

from anyarch.isa.architecture import Convention
from anyarch.isa.registers import Layout, RegisterFile

GENERAL: Final = tuple(f"x{index}" for index in range(31))
N, Z, C, V = range(4)  # indices into ``flag``
FLAGS, MODE = range(2)  # indices into ``fpstatus``
TPIDR, TPIDRRO, DIT, SSBS = range(4)  # indices into ``system``

# What a function of the procedure call standard (AAPCS64) gets, gives, and keeps most often.
POINTER_BITS: Final = 56  # above them is the tag, which programs may use for themselves

CONVENTION: Final = Convention(
    link=("r", 30),
    integers=tuple(("r", index) for index in (31, 0, 1, 2, 3, 19, 20, 21, 22, 29)),
    vectors=tuple(("v", index) for index in (0, 1, 2, 3, 8, 9, 10, 11)),
    kept=tuple(("r", index) for index in (29, 30, 31)),
    flags="flag",
)

LAYOUT: Final = Layout(
    (
        RegisterFile("r", 32, 64, (*GENERAL, "sp")),
        RegisterFile("x", 32, 64, (*GENERAL, "xzr"), zero=31, shares="r"),
        RegisterFile("v", 32, 128),
        RegisterFile("flag", 4, 8, ("n", "z", "c", "v")),
        # Accrued exceptions in the order of every guest, above them input denormal (bit 5); and the
        # rounding mode in that order, above it FZ, DN, AHP and FZ16 (bits 3 to 6).
        RegisterFile("fpstatus", 2, 32, ("fpexceptions", "fpmode")),
        RegisterFile("qc", 1, 8, ("qc",)),  # FPSR.QC: something has saturated
        RegisterFile("system", 4, 64, ("tpidr_el0", "tpidrro_el0", "dit", "ssbs")),
    )
)
