"""Where a guest has been: what the compiler takes into a region and what it leaves.

A block that the interpreter has translated was visited where it begins; what it has inside may have
been jumped over. Code of regions counts as visited: of what runs there nobody keeps count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

_SHIFT: Final = 12


class Visits:
    """The pcs at which blocks began, by page; sorted when something asks: where all that is hot is
    compiled already nothing does."""

    __slots__ = ("_pages", "_unsorted")

    def __init__(self) -> None:
        self._pages: dict[int, set[int]] = {}
        self._unsorted: list[Iterable[int]] = []

    def add(self, pcs: Iterable[int]) -> None:
        """The guest has been there."""
        self._unsorted.append(pcs)

    def _sort(self) -> None:
        pages = self._pages
        for pcs in self._unsorted:
            for pc in pcs:
                found = pages.get(pc >> _SHIFT)
                if found is None:
                    found = pages[pc >> _SHIFT] = set()
                found.add(pc)
        self._unsorted.clear()

    def forget(self, start: int, end: int) -> None:
        """Other code is on the pages of [start, end)."""
        self._sort()
        if end - start >> _SHIFT > len(self._pages):
            self._pages = {p: s for p, s in self._pages.items() if not start <= p << _SHIFT < end}
            return
        for page in range(start >> _SHIFT, (end - 1 >> _SHIFT) + 1):
            self._pages.pop(page, None)

    def within(self, start: int, end: int) -> Iterator[int]:
        """Those on the pages of [start, end)."""
        self._sort()
        for page in range(start >> _SHIFT, (end - 1 >> _SHIFT) + 1):
            yield from self._pages.get(page, ())


def visited_map(
    start: int, nbytes: int, pcs: Iterable[int], ranges: Iterable[tuple[int, int]]
) -> bytes:
    """What :attr:`anyarch.engine.compiler.Request.visited` is, of single pcs and of code
    [start, end); only what lies in the window counts."""
    count = nbytes >> 1
    found = bytearray(count)
    for pc in pcs:
        offset = pc - start >> 1
        if 0 <= offset < count:
            found[offset] = 1
    for low, high in ranges:
        first, last = max(low - start >> 1, 0), min(high - start >> 1, count)
        if first < last:
            found[first:last] = b"\1" * (last - first)
    return bytes(found)
