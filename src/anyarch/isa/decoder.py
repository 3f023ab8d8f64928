"""The decoder: a tree over the fixed bits of all encoding rows.

The tree is data. Here it decodes in Python, the oracle; the native decoder is emitted from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyarch.errors import DefinitionError
from anyarch.isa.encoding import overlap
from anyarch.isa.instruction import Instruction

if TYPE_CHECKING:
    from anyarch.isa.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Switch:
    """Go on by the value of the masked bits."""

    mask: int
    cases: dict[int, Tree]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The rows that remain; at most one matches."""

    instructions: tuple[Instruction, ...]


Tree = Switch | Candidates


def build_tree(instructions: list[Instruction], tested: int = 0) -> Tree:
    """A tree that tests, at each node, all bits that every remaining row fixes."""
    common = ~tested
    for instruction in instructions:
        common &= instruction.row.mask
    if len(instructions) == 1 or common == 0:
        return _leaf(instructions)
    groups: dict[int, list[Instruction]] = {}
    for instruction in instructions:
        groups.setdefault(instruction.row.value & common, []).append(instruction)
    cases = {value: build_tree(group, tested | common) for value, group in groups.items()}
    return Switch(common, cases)


def _leaf(instructions: list[Instruction]) -> Candidates:
    """Rows with more fixed bits first: cheap to reject."""
    return Candidates(tuple(sorted(instructions, key=lambda i: -i.row.mask.bit_count())))


def find_overlaps(instructions: list[Instruction]) -> list[str]:
    """A line for every two definitions that match a common word, with such a word."""
    problems = []
    for index, first in enumerate(instructions):
        for second in instructions[index + 1 :]:
            word = overlap(first.row, second.row)
            if word is not None:
                problems.append(f"{first} and {second} both match {word:#x}")
    return problems


class Decoder:
    """Finds the definition of an instruction word."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        if not architecture.isa.instructions:
            raise DefinitionError(f"{architecture.name} has no instructions")
        self.tree = build_tree(architecture.isa.instructions)

    def decode(self, word: int) -> Instruction | None:
        """The definition that matches the low bits of ``word``, or None if reserved."""
        tree = self.tree
        while isinstance(tree, Switch):
            found = tree.cases.get(word & tree.mask)
            if found is None:
                return None
            tree = found
        for instruction in tree.instructions:
            if instruction.row.matches(word & ((1 << instruction.row.size) - 1)):
                return instruction
        return None
