"""What is mapped where: a sorted list of disjoint regions, neighbours of a kind merged."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple


class Region(NamedTuple):
    """Guest addresses [start, end) mapped alike; what a line of /proc/self/maps says."""

    start: int
    end: int
    prot: int  # PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4, as the guest asked
    shared: bool = False
    file: bool = False  # maps a file, from byte `offset`
    offset: int = 0
    name: str = ""
    parents: bool = False  # not for forked children (MADV_DONTFORK)

    def part(self, start: int, end: int) -> Region:
        """The piece between two addresses inside."""
        offset = self.offset + start - self.start if self.file else 0
        return self._replace(start=start, end=end, offset=offset)

    def continues(self, before: Region) -> bool:
        """Whether this region and the one that ends at its start are one."""
        return (
            before.end == self.start
            and before[2:5] == self[2:5]
            and before[6:] == self[6:]
            and (not self.file or before.offset + before.end - before.start == self.offset)
        )


class Regions:
    """The regions of one address space."""

    __slots__ = ("_regions", "_starts")

    def __init__(self) -> None:
        self._regions: list[Region] = []
        self._starts: list[int] = []

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions)

    def __reversed__(self) -> Iterator[Region]:
        return reversed(self._regions)

    def _span(self, start: int, end: int) -> tuple[int, int]:
        """Indices of the first region that reaches into [start, end) and of the one after."""
        first = bisect_right(self._starts, start) - 1
        if first < 0 or self._regions[first].end <= start:
            first += 1
        return first, bisect_left(self._starts, end, lo=first)

    def find(self, address: int) -> Region | None:
        """The region that contains an address."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._regions[index].end:
            return self._regions[index]
        return None

    def overlap(self, start: int, end: int) -> list[Region]:
        """The parts of regions that lie within [start, end)."""
        first, after = self._span(start, end)
        return [
            region
            if start <= region.start and region.end <= end
            else region.part(max(start, region.start), min(end, region.end))
            for region in self._regions[first:after]
        ]

    def is_free(self, start: int, end: int) -> bool:
        """Whether nothing is mapped within [start, end)."""
        first, after = self._span(start, end)
        return first == after

    def remove(self, start: int, end: int) -> None:
        """Forget [start, end)."""
        first, after = self._span(start, end)
        if first == after:
            return
        left, right = self._regions[first], self._regions[after - 1]
        rest = []
        if left.start < start:
            rest.append(left.part(left.start, start))
        if right.end > end:
            rest.append(right.part(end, right.end))
        self._replace(first, after, rest)

    def insert(self, region: Region) -> None:
        """Add a region in place of whatever was there."""
        self.remove(region.start, region.end)
        first = after = bisect_left(self._starts, region.start)
        if first > 0 and region.continues(self._regions[first - 1]):
            first -= 1
            region = self._regions[first]._replace(end=region.end)
        if after < len(self._regions) and self._regions[after].continues(region):
            region = region._replace(end=self._regions[after].end)
            after += 1
        self._replace(first, after, [region])

    def _replace(self, first: int, after: int, regions: list[Region]) -> None:
        self._regions[first:after] = regions
        self._starts[first:after] = [region.start for region in regions]

    def find_free(self, nbytes: int, low: int, high: int) -> int | None:
        """The highest free address between `low` and `high` with `nbytes` free after it."""
        for region in reversed(self._regions):
            if region.end <= high:
                if high - max(region.end, low) >= nbytes:
                    return high - nbytes
                if region.end <= low:
                    return None
            high = min(high, region.start)
        return high - nbytes if high - low >= nbytes else None
