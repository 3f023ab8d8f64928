"""AArch64 (A64, programs): definitions only, a module per chapter or extension."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from anyarch.guests.aarch64.registers import CONVENTION, FLAGS, LAYOUT, MODE, POINTER_BITS
from anyarch.isa.architecture import Architecture, FloatStatus

if TYPE_CHECKING:
    from anyarch.isa.instruction import InstructionSet

CHAPTERS: Final = (
    "immediate",
    "register",
    "branches",
    "system",
    "loads",
    "atomics",
    "fp",
    "simd_integer",
    "simd_shift",
    "simd_permute",
    "simd_element",
    "simd_float",
    "simd_loads",
    "simd_dot",
    "crypto",
)


def _definitions() -> InstructionSet:
    from anyarch.guests.aarch64.fields import aarch64

    for name in CHAPTERS:
        importlib.import_module(f"anyarch.guests.aarch64.{name}")
    return aarch64


ARCHITECTURE: Final = Architecture(
    name="aarch64",
    definitions=_definitions,
    layout=LAYOUT,
    lengths=((0, 0, 4),),
    float_status=FloatStatus(flags=("fpstatus", FLAGS), rounding=("fpstatus", MODE), rules="arm"),
    stack_pointer=("r", 31),
    return_registers=(("r", 30),),
    convention=CONVENTION,
    elf_machine=183,
    exceptions={1: "alignment fault"},
    pointer_bits=POINTER_BITS,
)
