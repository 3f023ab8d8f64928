"""Registers that are overwritten before anything can tell what they hold.

From the head of a loop on, on all ways: before they are read, before the guest may leave or go
where the region does not follow, and within few instructions. At a poll there nobody has to keep
what they hold, values of the turn before: they would occupy host registers through the loop. A
thread that stops at the poll steps on until they are overwritten; then all registers are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from anyarch.engine.convention import Place
from anyarch.engine.regions import Block, Key, Occurrence
from anyarch.ir.graph import Node
from anyarch.isa.registers import Layout

LIMIT: Final = 32  # instructions until the last of them is overwritten
_LEAVING: Final = frozenset(("exit", "exception", "syscall"))

Distances = dict[Place, int]  # how many instructions there are until a register is overwritten


class Overwriting:
    """What is overwritten soon behind the beginning of each block. ``forgets`` tells instructions
    behind which registers come anew from elsewhere."""

    def __init__(
        self,
        blocks: Mapping[Key, Block],
        registers: Layout,
        forgets: Callable[[Occurrence], bool],
    ) -> None:
        self._blocks, self._registers, self._forgets = blocks, registers, forgets
        self._before: dict[Key, Distances] | None = None

    def before(self, key: Key) -> Distances:
        """By register: after how many instructions from the beginning of a block it is so."""
        if self._before is None:
            self._before = self._survey()
        return self._before[key]

    def _survey(self) -> dict[Key, Distances]:
        # From nothing on: what comes round for ever is overwritten by no number of instructions.
        before: dict[Key, Distances] = {key: {} for key in self._blocks}
        own = {key: self._walk(block) for key, block in self._blocks.items()}
        changed = True
        while changed:
            changed = False
            for key, block in self._blocks.items():
                written, kept = own[key]
                found = dict(written)
                if kept is not None and block.successors:
                    ways = [before.get(each, {}) for each in block.successors]
                    for place in set(ways[0]).intersection(*ways) - kept:
                        furthest = max(way[place] for way in ways)
                        found.setdefault(place, furthest + len(block.instructions))
                found = {place: n for place, n in found.items() if n <= LIMIT}
                if found != before[key]:
                    before[key] = found
                    changed = True
        return before

    def _walk(self, block: Block) -> tuple[Distances, set[Place] | None]:
        """What a block overwrites, and what it reads before; the latter None where it may leave."""
        written: Distances = {}
        seen: set[Place] = set()
        for count, found in enumerate(block.instructions, 1):
            if self._leaves(found):
                return written, None
            effects = found.template.graph.effects
            writes = [effect for effect in effects if effect.node.op == "write"]
            reads = [node for node in found.template.live if node.op == "register"]
            # What is written under a condition may stay as it is.
            reads += [effect.node for effect in writes if effect.guard is not None]
            seen.update({self._place(found, node) for node in reads} - written.keys())
            for effect in writes:
                place = self._place(found, effect.node)
                if effect.guard is None and place not in seen:
                    written.setdefault(place, count)
        return written, seen

    def _place(self, found: Occurrence, node: Node) -> Place:
        return self._registers.place(str(node.attrs[0]), found.constant(node.args[0]))

    def _leaves(self, found: Occurrence) -> bool:
        """Whether an instruction may lead elsewhere than to blocks that are known."""
        template = found.template
        return (
            not template.is_native
            or self._forgets(found)
            or any(
                effect.node.op in _LEAVING
                or (
                    effect.node.op == "jump"
                    and effect.node.args[0].number not in template.constants
                )
                for effect in template.graph.effects
            )
        )
