"""Loops of a region: where they poll, and which of them are small enough to be unrolled.

Every cycle goes backwards somewhere, to the head of a loop; but one poll is enough in a cycle. So
as few heads poll as cut all cycles, and ways that part and meet between two polls may become
selects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Final

from anyarch.engine.regions import Block, Key, Occurrence, loops

POLLED_ARMS: Final = 4  # backward arms of a jump table from which on it polls before it jumps
# Copies of a loop's body, and the guest instructions that it may have for as many.
_COPIES: Final = ((4, 8), (2, 64))


def polls_before(found: Occurrence) -> bool:
    """Whether a jump through a table polls: as in an interpreter, where all arms lead back."""
    return sum(arm <= found.pc for arm in found.arms) > POLLED_ARMS


class Loops:
    """The loops of a region's blocks; ``forgets`` says after which instructions registers come anew
    from elsewhere. Loops are left as they are unless ``unrolls``."""

    def __init__(
        self,
        blocks: Mapping[Key, Block],
        forgets: Callable[[Occurrence], bool],
        *,
        unrolls: bool,
    ) -> None:
        self._blocks, self._forgets = blocks, forgets
        self.looping = loops(blocks)
        self.heads = self._heads()
        self._bodies: dict[Key, set[Key]] = {}  # by head, of those that were asked about
        # By block: the head and the number of copies of the loop that it is copied with.
        self._unrolled: dict[Key, tuple[Key, int]] = {}
        # Heads of copied loops that need no poll where a loop around them leads in.
        self._open: set[Key] = set()
        if unrolls:
            for head in sorted(self.heads):
                self._unroll(head)
            for head, _ in sorted(set(self._unrolled.values())):
                if not self._has_cycle(self._open | {head}):
                    self._open.add(head)

    def copies(self, key: Key) -> int:
        """How often a block is there."""
        return self._unrolled.get(key, (key, 1))[1]

    def is_inside(self, key: Key) -> bool:
        """Whether a block is in a loop, but not its head."""
        return key in self.looping and key not in self.heads

    def polls(self, key: Key, copy: int, target: Key) -> tuple[int, bool]:
        """The copy of a block that one leads to, and whether there is a poll on the way: to a head,
        in an unrolled loop from the last copy to the first; and into such a loop from one around
        it, wherever that is, unless that has polls enough."""
        loop = self._unrolled.get(target)
        if loop is not None and self._unrolled.get(key) == loop:
            at = (copy + (target == loop[0])) % loop[1]
            polled = not at and target == loop[0]
        else:
            at = 0
            polled = target in self.heads if loop is None else loop[0] not in self._open
        if not polled or self.looping.get(key) != self.looping[target]:
            return at, False
        last = self._blocks[key].instructions[-1]
        return at, not (polls_before(last) and target[1] in last.arms)

    def comes_round(self, key: Key, head: Key) -> bool:
        """Whether a block that leads to the head of a loop is of that loop: in what comes back by
        backward branches, or right behind that. Others are of a loop around it."""
        body = self._bodies.get(head)
        if body is None:
            body = self._bodies[head] = self._natural_loop(head)
        return key in body or any(key in self._blocks[each].successors for each in body)

    def _heads(self) -> set[Key]:
        """Blocks such that each cycle has one of them, or a jump that polls before."""
        inner = {key: self._blocks[key] for key in self.looping}
        rest = {
            key: block for key, block in inner.items() if not polls_before(block.instructions[-1])
        }
        found = {
            target
            for key, block in inner.items()
            for target in block.successors
            if target in inner and self._is_backward(key, target)
        }
        for head in sorted(found):
            others = found - {head}
            if not loops({key: block for key, block in rest.items() if key not in others}):
                found = others
        return found

    def _is_backward(self, key: Key, target: Key) -> bool:
        return key[0] == target[0] and target[1] <= self._blocks[key].instructions[-1].pc

    def _unroll(self, head: Key) -> None:
        """Have copies of a small loop, if it has no other in it."""
        for body in (self._cycles(head), self._natural_loop(head)):
            instructions = [each for key in body for each in self._blocks[key].instructions]
            copies = next((n for n, most in _COPIES if len(instructions) <= most), 1)
            if (
                copies > 1
                and body & self.heads == {head}
                and body.isdisjoint(self._unrolled)
                and all(map(self._is_simple, instructions))
            ):
                self._unrolled |= dict.fromkeys(body, (head, copies))
                return

    def _has_cycle(self, opened: Set[Key]) -> bool:
        """Whether something comes back to where it was without a poll, if copied loops with these
        heads may be entered without one. The copies of such a loop are as one block."""
        ways: dict[Key, set[Key]] = {}
        for key in self.looping:
            block = self._blocks[key]
            head, count = self._unrolled.get(key, (key, 1))
            polled = head in self.heads if count == 1 else head not in opened
            if polled or polls_before(block.instructions[-1]):
                continue
            targets = {self._unrolled.get(each, (each, 1))[0] for each in block.successors}
            ways.setdefault(head, set()).update(targets - ({head} if count > 1 else set()))
        while ends := {key for key, targets in ways.items() if targets.isdisjoint(ways)}:
            ways = {key: targets for key, targets in ways.items() if key not in ends}
        return bool(ways)

    def _natural_loop(self, head: Key) -> set[Key]:
        """What comes back to a head by a backward branch, if it is entered there only."""
        before: dict[Key, list[Key]] = {}
        for key in self.looping:
            for target in self._blocks[key].successors:
                before.setdefault(target, []).append(key)
        body = {head}
        work = [key for key in before[head] if self._is_backward(key, head)]
        while work and len(body) <= _COPIES[-1][1]:
            key = work.pop()
            if key not in body:
                body.add(key)
                work += before.get(key, ())
        return body

    def _cycles(self, head: Key) -> set[Key]:
        """What can come back to a head without passing another, wherever it is entered."""
        others = self.heads - {head}
        rest = loops({key: self._blocks[key] for key in self.looping if key not in others})
        return {key for key, number in rest.items() if number == rest[head]}

    def _is_simple(self, found: Occurrence) -> bool:
        if found.arms or found.is_inlined or not found.template.is_native:
            return False
        return not self._forgets(found)
