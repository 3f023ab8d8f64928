"""RISC-V 64: definitions only, a module per extension."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from anyarch.guests.riscv.fused import FUSED
from anyarch.guests.riscv.registers import CONVENTION, LAYOUT
from anyarch.isa.architecture import Architecture, FloatStatus

if TYPE_CHECKING:
    from anyarch.isa.instruction import InstructionSet

EXTENSIONS: Final = (
    "rv64i",
    "zicsr",
    "rv64f",
    "rv64d",
    "zfh",
    "zfa",
    "rv64m",
    "rv64a",
    "zacas",
    "zawrs",
    "zba",
    "zbb",
    "zbs",
    "zbc",
    "zicond",
    "zifencei",
    "zicbo",
    "rv64c",
    "zcb",
)


def _definitions() -> InstructionSet:
    from anyarch.guests.riscv.fields import riscv

    for name in EXTENSIONS:
        importlib.import_module(f"anyarch.guests.riscv.{name}")
    return riscv


ARCHITECTURE: Final = Architecture(
    name="riscv64",
    definitions=_definitions,
    layout=LAYOUT,
    lengths=((3, 3, 4), (0, 0, 2)),
    float_status=FloatStatus(flags=("fcsr", 0), rounding=("fcsr", 1)),
    stack_pointer=("x", 2),
    return_registers=(("x", 1), ("x", 5)),
    convention=CONVENTION,
    elf_machine=243,
    exceptions={4: "load address misaligned", 6: "store address misaligned"},
    fused=FUSED,
)
