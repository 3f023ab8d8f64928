"""Where a full barrier has nothing to wait for.

The host keeps all orders of accesses but one: a store may be seen after later loads. Where nothing
was stored since the last full barrier, and a locked instruction is one, another does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from anyarch.engine.regions import Block, Key, Occurrence

_BARRIERS: Final = frozenset({"amo", "compare_exchange"})
_STORES: Final = frozenset({"store", "store_conditional"})


class Ordering:
    """What a region has stored, if it has a barrier at all; ``forgets`` says after which
    instructions other code ran."""

    def __init__(
        self, blocks: Mapping[Key, Block], root: Key, forgets: Callable[[Occurrence], bool]
    ) -> None:
        self._forgets = forgets
        self.entry = dict.fromkeys(blocks, True)  # whether nothing may be on its way at a block
        self.entry[root] = False
        work = list(blocks) if any(map(_has_barrier, blocks.values())) else []
        while work:
            key = work.pop()
            settled = self.entry[key]
            for found in blocks[key].instructions:
                settled = self.step(found, settled)
            for target in blocks[key].successors:
                if not settled and self.entry.get(target):
                    self.entry[target] = False
                    work.append(target)

    def step(self, found: Occurrence, settled: bool) -> bool:
        """Whether nothing may be on its way after an instruction, from whether it was before."""
        if not found.template.is_native or self._forgets(found):
            return False
        for effect in found.template.graph.effects:
            node, guard = effect.node, effect.guard
            if guard is not None and guard.number in found.template.constants:
                if not found.constant(guard):
                    continue
                guard = None
            if node.op in _STORES:
                settled = False
            elif node.op in _BARRIERS or (node.op == "fence" and node.attrs[0] == "seq_cst"):
                settled = settled or guard is None
        return settled


def stores(found: Occurrence) -> bool:
    """Whether an instruction may store."""
    return any(effect.node.op in _STORES | _BARRIERS for effect in found.template.graph.effects)


def _has_barrier(block: Block) -> bool:
    return any(
        effect.node.op == "fence"
        for found in block.instructions
        for effect in found.template.graph.effects
    )
