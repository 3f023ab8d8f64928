"""One byte per guest page that native code reads: what may be done with the page, and what was."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Final

from anyarch.host.cpu import PAGE
from anyarch.host.mapping import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    advise_pages,
    map_pages,
    unmap_pages,
)

READ: Final = 1  # these three have the values of PROT_READ, PROT_WRITE, PROT_EXEC
WRITE: Final = 2
EXEC: Final = 4
CODE: Final = 8  # code here was translated or compiled
HOOK: Final = 16  # some instruction here has a hook

SHIFT: Final = 12  # guest pages are 4 KiB
_IS_CODE: Final = bytes(1 if value & CODE else 0 for value in range(256))


def runs(marks: bytes) -> Iterator[tuple[int, int]]:
    """Index ranges [start, end) of ones in bytes of zeros and ones."""
    start = marks.find(1)
    while start >= 0:
        end = marks.find(0, start)
        if end < 0:
            end = len(marks)
        yield start, end
        start = marks.find(1, end)


class PageFlags:
    """The table for `limit` bytes of guest memory; only the parts in use take memory."""

    __slots__ = ("_hooks", "_nbytes", "pointer")

    def __init__(self, limit: int) -> None:
        self._nbytes = (limit >> SHIFT) + 1  # one more: a fetch at the very end looks a page ahead
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self.pointer = map_pages(self._nbytes, PROT_READ | PROT_WRITE, flags=flags)
        self._hooks: set[int] = set()

    def fill(self, start: int, end: int, prot: int) -> None:
        """Set the flags of pages to a protection; CODE is cleared, HOOK stays."""
        first, count = self.pointer + (start >> SHIFT), (end - start) >> SHIFT
        inner, inner_end = (first + PAGE - 1) & -PAGE, (first + count) & -PAGE
        if prot == 0 and inner_end - inner >= 16 * PAGE:
            ctypes.memset(first, 0, inner - first)
            ctypes.memset(inner_end, 0, first + count - inner_end)
            advise_pages(inner, inner_end - inner, MADV_DONTNEED)
        else:
            ctypes.memset(first, prot, count)
        for page in self._hooks:
            if start >> SHIFT <= page < end >> SHIFT:
                self._byte(page).value |= HOOK

    def code_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """Guest address ranges within [start, end) of pages that carry CODE."""
        first = start >> SHIFT
        data = ctypes.string_at(self.pointer + first, (end - start) >> SHIFT)
        found = runs(data.translate(_IS_CODE))
        return [((first + low) << SHIFT, (first + high) << SHIFT) for low, high in found]

    def mark_code(self, start: int, end: int) -> None:
        """Say that code was read in a range; IndexError where that is no guest memory."""
        for page in range(start >> SHIFT, (end - 1 >> SHIFT) + 1):
            self._byte(page).value |= CODE

    def clear_code(self, start: int, end: int) -> None:
        """Forget that pages carry code."""
        for page in range(start >> SHIFT, end >> SHIFT):
            self._byte(page).value &= ~CODE & 0xFF

    def set_hook(self, address: int, hooked: bool) -> None:
        """Mark the page of an address as having hooks, or none; survives being mapped anew."""
        page = address >> SHIFT
        byte = self._byte(page)
        if hooked:
            self._hooks.add(page)
            byte.value |= HOOK
        else:
            self._hooks.discard(page)
            byte.value &= ~HOOK & 0xFF

    def hooked(self) -> list[int]:
        """Addresses of the pages that have hooks."""
        return [page << SHIFT for page in self._hooks]

    def __getitem__(self, address: int) -> int:
        """The flags of the page that contains an address."""
        return self._byte(address >> SHIFT).value

    def _byte(self, page: int) -> ctypes.c_uint8:
        if not 0 <= page < self._nbytes:
            raise IndexError(f"page {page:#x} is outside the address space")
        return ctypes.c_uint8.from_address(self.pointer + page)

    def unmap(self) -> None:
        """Give the memory back."""
        unmap_pages(self.pointer, self._nbytes)
