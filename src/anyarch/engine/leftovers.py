"""What a guest had no time to have compiled: the compiler goes on with it when the guest has ended.

Then the guest's memory is gone, so the code is read from the files that were mapped. Whether it is
the same is seen when the regions are used: each has a digest of its code.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from anyarch.data import dataclass
from anyarch.engine.compiler import WINDOW, Request
from anyarch.errors import MemoryFault
from anyarch.memory.regions import Region
from anyarch.memory.space import PROT_WRITE


class Root(NamedTuple):
    """Where a region is to begin, the key that it is kept under, and :attr:`Request.hints`."""

    pc: int
    key: str
    hints: bytes


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Roots, the hottest first, and what was mapped from files: start, end, offset, path."""

    roots: tuple[Root, ...]
    pieces: tuple[tuple[int, int, int, str], ...]

    @staticmethod
    def of(roots: Iterable[Root], mapped: Iterable[Region]) -> Leftovers:
        """From what is mapped now; writable memory may differ from its file."""
        fixed = [m for m in mapped if m.file and not m.shared and not m.prot & PROT_WRITE]
        pieces = ((m.start, m.end, m.offset, m.name) for m in fixed)
        return Leftovers(tuple(roots), tuple(pieces))

    def pack(self) -> bytes:
        """For a process of the same Python."""
        return marshal.dumps((tuple(map(tuple, self.roots)), self.pieces))

    @staticmethod
    def unpack(data: bytes) -> Leftovers:
        """What :meth:`pack` was given."""
        roots, pieces = marshal.loads(data)
        return Leftovers(tuple(Root(*root) for root in roots), pieces)

    def requests(self) -> Iterator[Request]:
        """What to compile, as long as its files can be read."""
        files: dict[str, int] = {}
        try:
            for root in self.roots:
                request = self._request(root, files)
                if request is not None:
                    yield request
        finally:
            for fd in files.values():
                os.close(fd)

    def _request(self, root: Root, files: dict[str, int]) -> Request | None:
        def read(address: int, nbytes: int) -> bytes:
            for start, end, offset, path in self.pieces:
                if start <= address and address + nbytes <= end:
                    try:
                        if path not in files:
                            files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                        data = os.pread(files[path], nbytes, offset + address - start)
                    except OSError:
                        break
                    if len(data) == nbytes:
                        return data
            raise MemoryFault(address, "read")

        def is_constant(address: int, nbytes: int) -> bool:
            return any(s <= address and address + nbytes <= e for s, e, _, _ in self.pieces)

        for start, end, _, _ in self.pieces:
            if start <= root.pc < end:
                first, last = max(root.pc - WINDOW, start), min(root.pc + WINDOW, end)
                try:
                    window = read(first, last - first)
                except MemoryFault:
                    return None
                return Request(
                    root.pc, first, window, read, root.key, False, root.hints, is_constant
                )
        return None
