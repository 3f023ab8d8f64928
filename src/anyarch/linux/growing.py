"""Memory that grows downwards when what lies below it is touched (MAP_GROWSDOWN).

Source: mmap(2), Linux ``mm/mmap.c`` for the gap that is kept to what is mapped below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.host.cpu import PAGE

if TYPE_CHECKING:
    from anyarch.memory.space import AddressSpace

_GAP: Final = 256 * PAGE


class Growing:
    """The mappings of a process that grow, known by where they end."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: set[int] = set()

    def add(self, end: int) -> None:
        """A mapping that ends there grows from now on."""
        self._ends.add(end)

    def clear(self) -> None:
        """Nothing is mapped any more."""
        self._ends.clear()

    def grow(self, space: AddressSpace, address: int, limit: int) -> bool:
        """Extend the mapping above ``address`` down to it; False where there is none, or it would
        get larger than ``limit``, or come too near to what is mapped below."""
        if not self._ends:
            return False
        start, below = address // PAGE * PAGE, 0
        with space.lock:
            for region in space.regions():
                if region.start > address:
                    break
                below = region.end if region.prot else below
                if region.end > address:
                    return False  # it is mapped: the fault has another reason
            else:
                return False
            if region.end not in self._ends or region.end - start > limit or start - below < _GAP:
                return False
            space.map(start, region.start - start, region.prot, noreplace=True)
        return True
