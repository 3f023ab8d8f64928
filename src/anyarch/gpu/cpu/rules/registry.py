"""The table of instructions: opcode to the function that writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter
    from anyarch.gpu.ptx.tree import Instruction

__all__ = ["RULES", "Rule", "rule"]

Rule: TypeAlias = "Callable[[FunctionEmitter, Instruction], None]"
RULES: Final[dict[str, Rule]] = {}


def rule(*opcodes: str) -> Callable[[Rule], Rule]:
    """Enter a function for some opcodes."""

    def enter(function: Rule) -> Rule:
        for opcode in opcodes:
            RULES[opcode] = function
        return function

    return enter
