"""Guest memory as the reference engine reads it: code only from executable pages."""

from __future__ import annotations

import ctypes

from anyarch.errors import MemoryFault
from anyarch.memory.space import AddressSpace

_EXEC = 4


class FetchMemory:
    """An address space with instruction fetch."""

    __slots__ = ("_space", "read", "write")

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self.read = space.read
        self.write = space.write

    def fetch(self, address: int, nbytes: int) -> bytes:
        """Bytes of code; raises MemoryFault with the first address that is not executable."""
        for page in range(address >> 12, (address + nbytes - 1 >> 12) + 1):
            inside = page << 12 < self._space.limit
            if not inside or not (
                ctypes.c_uint8.from_address(self._space.page_flags + page).value & _EXEC
            ):
                raise MemoryFault(max(address, page << 12), "execute")
        return self._space.read(address, nbytes)
