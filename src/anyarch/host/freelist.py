"""Ranges of memory that are free: the first that is large enough is taken, neighbours are one."""

from __future__ import annotations

from bisect import bisect_left


class FreeList:
    """Free ranges, by address."""

    __slots__ = ("_nbytes", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._nbytes: list[int] = []

    def take(self, nbytes: int) -> int | None:
        """The start of ``nbytes`` that are no longer free; None where no range is large enough."""
        for index, available in enumerate(self._nbytes):
            if available >= nbytes:
                start = self._starts[index]
                if available == nbytes:
                    del self._starts[index], self._nbytes[index]
                else:
                    self._starts[index] += nbytes
                    self._nbytes[index] -= nbytes
                return start
        return None

    def give(self, start: int, nbytes: int) -> None:
        """Free a range; ValueError where some of it is free already."""
        index = bisect_left(self._starts, start)
        end = start + nbytes
        before = self._starts[index - 1] + self._nbytes[index - 1] if index else -1
        after = self._starts[index] if index < len(self._starts) else end + 1
        if before > start or after < end:
            raise ValueError(f"{start:#x}: {nbytes} bytes of which some are free")
        if after == end:
            nbytes += self._nbytes[index]
            del self._starts[index], self._nbytes[index]
        if before == start:
            self._nbytes[index - 1] += nbytes
        else:
            self._starts.insert(index, start)
            self._nbytes.insert(index, nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return sum(self._nbytes)

    def __len__(self) -> int:
        return len(self._starts)
