"""Guest memory for the reference engine: code from executable pages, whole stores."""

from __future__ import annotations

import ctypes

from anyarch.errors import MemoryFault
from anyarch.memory.pageflags import EXEC, WRITE
from anyarch.memory.space import AddressSpace


class FetchMemory:
    """An address space with instruction fetch."""

    __slots__ = ("_space", "read", "write")

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self.read = space.read
        self.write = self.store

    def store(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write all or nothing: a store that faults on its second page leaves the first alone."""
        last = address + len(data) - 1
        if address >> 12 != last >> 12 and last < self._space.limit:
            for page in (address >> 12, last >> 12):
                if not self._flags(page) & WRITE:
                    raise MemoryFault(max(address, page << 12), "write")
        self._space.write(address, data)

    def _flags(self, page: int) -> int:
        return ctypes.c_uint8.from_address(self._space.page_flags + page).value

    def fetch(self, address: int, nbytes: int) -> bytes:
        """Bytes of code; raises MemoryFault with the first address that is not executable."""
        for page in range(address >> 12, (address + nbytes - 1 >> 12) + 1):
            inside = page << 12 < self._space.limit
            if not inside or not self._flags(page) & EXEC:
                raise MemoryFault(max(address, page << 12), "execute")
        return self._space.read(address, nbytes)
