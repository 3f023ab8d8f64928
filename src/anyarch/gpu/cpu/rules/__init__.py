"""What each instruction does, as LLVM text. PTX ISA 9.0, chapter 9."""

from __future__ import annotations

from anyarch.gpu.cpu.rules import (  # noqa: F401 - each enters its instructions
    asynchronous,
    atomics,
    conversions,
    floats,
    integers,
    matrices,
    memory,
    moves,
    synchronisation,
    video,
    warps,
)
from anyarch.gpu.cpu.rules.registry import RULES

__all__ = ["RULES"]
