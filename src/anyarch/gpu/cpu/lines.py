"""Which instruction of a kernel a place in its native code belongs to.

Debug information says so, at the price of a slower compilation: so a kernel is compiled again with
it once it has failed. LLVM makes the same code with it and without; where it did not, nothing is
said. "Lines" of the debug information are numbers of instructions, from 1.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from anyarch.gpu.cpu.flow import reads, writes
from anyarch.gpu.ptx.tree import Instruction, Place

__all__ = ["SHARED", "Lines", "instruction_at"]

SHARED: Final = Instruction("", (), (), Place(0, 0))  # what is of a function that many call

_ACCESSES: Final = frozenset("ld ldu st atom red cp ldmatrix stmatrix wmma mbarrier call".split())
_FIRST: Final = 20  # of the numbers of metadata; those below are kernel.py's and the heads'
_HEAD: Final = """\
!llvm.module.flags = !{!10}
!llvm.dbg.cu = !{!12}
!10 = !{i32 2, !"Debug Info Version", i32 3}
!11 = !DIFile(filename: "kernel", directory: "")
!12 = distinct !DICompileUnit(language: DW_LANG_C, file: !11, isOptimized: true, \
emissionKind: LineTablesOnly)
!13 = !DISubroutineType(types: !14)
!14 = !{}
"""


@dataclass(slots=True)
class Lines:
    """Debug information of a kernel's text; `instructions` are in the order of their numbers."""

    instructions: list[Instruction] = field(default_factory=list)
    _metadata: list[str] = field(default_factory=list)
    _scopes: dict[str, int] = field(default_factory=dict)

    def _add(self, text: str) -> int:
        self._metadata.append(text)
        return _FIRST + len(self._metadata) - 1

    def scope(self, function: str) -> int:
        """The metadata that stands for a function."""
        if function not in self._scopes:
            self._scopes[function] = self._add(
                f'distinct !DISubprogram(name: "{function}", scope: !11, file: !11, type: !13, '
                "unit: !12, spFlags: DISPFlagDefinition)"
            )
        return self._scopes[function]

    def location(self, function: str, instruction: Instruction | None) -> str:
        """What is appended to an instruction of LLVM."""
        number = 0
        if instruction is not None:
            self.instructions.append(instruction)
            number = len(self.instructions)
        scope = self.scope(function)
        return f", !dbg !{self._add(f'!DILocation(line: {number}, scope: !{scope})')}"

    def text(self) -> str:
        """All metadata."""
        numbered = (f"!{_FIRST + n} = {text}" for n, text in enumerate(self._metadata))
        return _HEAD + "\n".join(numbered) + "\n"


def instruction_at(lines: Lines, rows: list[tuple[int, int]], offset: int) -> Instruction | None:
    """What the code at an offset is of; None for code that is of several or of none, `SHARED` for
    that of functions."""
    rows = sorted(rows, key=lambda row: row[0])
    at = bisect_right(rows, offset, key=lambda row: row[0]) - 1
    number = rows[at][1] if at >= 0 else 0
    return _access(lines.instructions[:number]) if number else None


def _access(instructions: list[Instruction]) -> Instruction:
    """The last one or, where a processor's instruction loads and computes, the load before it."""
    *before, last = instructions
    wanted = set(reads(last))
    if last is SHARED or last.opcode in _ACCESSES:
        return last
    for instruction in reversed(before):
        if wanted & set(writes(instruction)):
            if instruction.opcode in _ACCESSES:
                return instruction
            wanted |= set(reads(instruction))
    return last
