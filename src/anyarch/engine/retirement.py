"""Code that was dropped, until no thread can be in it any more.

Who redirects the ways into some code retires it. A thread that was in native code at that moment
may still be in it, or come back to it through its host stack; that stack is empty when the thread
enters again. So an epoch is counted up with each retirement, threads note the one that they entered
in, and what was retired in an epoch is free once all threads inside have entered in a later one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from anyarch.engine.arena import RecordArena

Item = TypeVar("Item")
_MANY: Final = 256  # that wait, after which threads are asked to let them go


class Retirement(Generic[Item]):
    """What was retired from one arena's code; used with the lock of its address space."""

    def __init__(self, arena: RecordArena, release: Callable[[Item], None]) -> None:
        self._arena, self._release = arena, release
        self._waiting: deque[tuple[int, Item]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def retire(self, item: Item) -> None:
        """No thread that enters native code from now on can get to ``item``."""
        self._waiting.append((self._arena.epoch, item))
        self._arena.epoch += 1
        if len(self._waiting) % _MANY == 0:
            self.hurry()

    def collect(self) -> None:
        """Release what no thread can be in."""
        if not self._waiting:
            return
        oldest = min(self._entered(), default=self._arena.epoch)
        while self._waiting and self._waiting[0][0] < oldest:
            self._release(self._waiting.popleft()[1])

    def hurry(self) -> None:
        """Have the threads that are waited for pass through Python when they next can."""
        for runner in list(self._arena.runners):
            runner.ask_pass()

    def _entered(self) -> Iterator[int]:
        for runner in list(self._arena.runners):
            if runner.inside:
                yield runner.epoch
