"""Where a region's registers may be other than the context has them.

A register that one way to a block has written and another has not is stored on the former, at the
jump: else the latter would load it, to store it again where the region ends. That is not done
for blocks of loops, nor where what is behind the block overwrites the register anyway.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Set
from dataclasses import dataclass, field

from anyarch.engine.convention import Place
from anyarch.engine.regions import Block, Key


@dataclass(slots=True)
class Changes:
    """What a block does to registers and the context: those ``dirty`` at its end for what it
    writes; whether it writes what was dirty before to the context (``cleans``); what it
    ``overwrites`` before others may see it, and whether it ``shows`` the rest, or control leaves
    the region behind it."""

    dirty: set[Place] = field(default_factory=set)
    cleans: bool = False
    overwrites: set[Place] = field(default_factory=set)
    shows: bool = False

    def after(self, before: Set[Place]) -> set[Place]:
        """What is dirty at the block's end, given what is where it begins."""
        return self.dirty if self.cleans else self.dirty | before


def dirty_at_entries(
    blocks: Mapping[Key, Block],
    root: Key,
    changes: Mapping[Key, Changes],
    looping: Container[Key],
    excepted: frozenset[Place],
) -> dict[Key, set[Place]]:
    """The registers that may be dirty where each block begins, if those are stored before it that
    are not so on all ways there; the ``excepted`` ones are stored nowhere."""
    written = _written(blocks, root, changes)
    hidden = _hidden(blocks, changes)
    found: dict[Key, set[Place]] = {key: set() for key in blocks}
    work = list(blocks)
    while work:
        key = work.pop()
        out = changes[key].after(found[key])
        for successor in blocks[key].successors:
            if successor not in blocks:
                continue
            let = (
                out
                if successor in looping
                else out & (written[successor] | hidden[successor] | excepted)
            )
            if not let <= found[successor]:
                found[successor] |= let
                work.append(successor)
    return found


def _all_places(changes: Mapping[Key, Changes]) -> set[Place]:
    return set().union(*(each.dirty for each in changes.values()))


def _written(
    blocks: Mapping[Key, Block], root: Key, changes: Mapping[Key, Changes]
) -> dict[Key, set[Place]]:
    """The registers that are dirty on all ways to each block."""
    places = _all_places(changes)
    found = {key: set(places) for key in blocks}
    found[root] = set()
    work = list(blocks)
    while work:
        key = work.pop()
        out = changes[key].after(found[key])
        for successor in blocks[key].successors:
            if successor in blocks and not found[successor] <= out:
                found[successor] &= out
                work.append(successor)
    return found


def _hidden(blocks: Mapping[Key, Block], changes: Mapping[Key, Changes]) -> dict[Key, set[Place]]:
    """The registers that all ways from the beginning of each block overwrite before others see
    them."""
    places = _all_places(changes)
    found = {key: set(places) for key in blocks}
    changed = True
    while changed:
        changed = False
        for key, block in reversed(list(blocks.items())):
            behind = (
                set()
                if changes[key].shows
                else places.intersection(*(found[each] for each in block.successors))
            )
            hidden = changes[key].overwrites | behind
            changed |= hidden != found[key]
            found[key] = hidden
    return found
