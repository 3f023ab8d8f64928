"""What a guest had no time to have compiled: the compiler goes on with it when the guest has ended.

Then the guest's memory is gone, so the code is read from the files that were mapped. Whether it is
the same is seen when the regions are used: each has a digest of its code. From the roots it goes on
to what their regions call or jump to, as far as the guest has been there.
"""

from __future__ import annotations

import marshal
import os
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import NamedTuple

from anyarch.data import dataclass
from anyarch.engine.bundle import CALLS, CompiledRegion
from anyarch.engine.compiler import WINDOW, Request
from anyarch.engine.visits import visited_map
from anyarch.errors import MemoryFault
from anyarch.memory.regions import Region
from anyarch.memory.space import PROT_EXEC, PROT_WRITE


class Root(NamedTuple):
    """Where a region is to begin, the key that it is kept under, :attr:`Request.hints`, whether it
    was not seen in samples: then it is kept like what is compiled ahead of time; and whether it is
    in the middle of something: then it needs no region where another has its code."""

    pc: int
    key: str
    hints: bytes
    ahead: bool
    is_inner: bool = False


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Roots, the hottest first; what was mapped from files: start, end, offset, path; by start of a
    mapping, where in it the guest has been: half the offsets of basic blocks; the code [start, end)
    of regions; the seconds of processor time that the guest took; and :attr:`Request.masked`."""

    roots: tuple[Root, ...]
    pieces: tuple[tuple[int, int, int, str], ...]
    visited: dict[int, array[int]]
    covered: tuple[tuple[int, int], ...]
    seconds: float = 0.0
    masked: bool = False

    @staticmethod
    def of(
        roots: Iterable[Root],
        mapped: Iterable[Region],
        blocks: Sequence[int],
        covered: Iterable[tuple[int, int]],
        seconds: float,
        masked: bool = False,
    ) -> Leftovers:
        """From what is mapped now; writable memory may differ from its file."""
        fixed = [m for m in mapped if m.file and not m.shared and not m.prot & PROT_WRITE]
        pieces = ((m.start, m.end, m.offset, m.name) for m in fixed)
        visited = {
            m.start: array("I", [pc - m.start >> 1 for pc in blocks if m.start <= pc < m.end])
            for m in fixed
            if m.prot & PROT_EXEC
        }
        return Leftovers(tuple(roots), tuple(pieces), visited, tuple(covered), seconds, masked)

    def pack(self) -> bytes:
        """For a process of the same Python."""
        import zlib  # only here: most runs leave nothing

        visited = {
            start: array("I", sorted(offsets)).tobytes() for start, offsets in self.visited.items()
        }
        roots = tuple((*root,) for root in self.roots)
        facts = self.covered, self.seconds, self.masked
        packed = marshal.dumps((roots, self.pieces, visited, *facts))
        return zlib.compress(packed, 1)  # who is in the middle of something takes little

    @staticmethod
    def unpack(data: bytes) -> Leftovers:
        """What :meth:`pack` was given."""
        import zlib

        roots, pieces, packed, *rest = marshal.loads(zlib.decompress(data))
        visited = {start: array("I", part) for start, part in packed.items()}
        return Leftovers(tuple(Root(*root) for root in roots), pieces, visited, *rest)

    def requests(self) -> Generator[tuple[Request, bool], CompiledRegion | None]:
        """What to compile, as far as its files can be read, and whether that is ahead of time; who
        does it sends the region."""
        files: dict[str, int] = {}
        seen = {root.pc for root in self.roots}
        unseen = {start + 2 * at for start, part in self.visited.items() for at in part} - seen
        waiting = deque(self.roots)
        made = list(self.covered)  # code of regions
        try:
            while waiting:
                root = waiting.popleft()
                if root.is_inner and any(start <= root.pc < end for start, end in made):
                    continue
                request = self._request(root, files)
                region = None if request is None else (yield request, root.ahead)
                made += region.ranges if region is not None else ()
                for cell in region.cells if region is not None else ():
                    pc = cell & ~CALLS
                    if pc in unseen and self._start(pc) == self._start(root.pc):
                        unseen.remove(pc)
                        is_inner = not cell & CALLS
                        waiting.append(Root(pc, root.key, b"", ahead=True, is_inner=is_inner))
        finally:
            for fd in files.values():
                os.close(fd)

    def _start(self, pc: int) -> int | None:
        """Of the mapping at a pc: calls of other mappings lead through addresses in memory."""
        return next((start for start, end, _, _ in self.pieces if start <= pc < end), None)

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
                blocks = self.visited.get(start, array("I"))  # in order
                low = bisect_left(blocks, first - start >> 1)
                high = bisect_left(blocks, last - start >> 1)
                seen = (start + 2 * at for at in blocks[low:high])
                visited = visited_map(first, last - first, seen, self.covered)
                if not visited[root.pc - first >> 1]:
                    visited = b""
                return Request(
                    root.pc,
                    first,
                    window,
                    read,
                    root.key,
                    False,
                    root.hints,
                    is_constant,
                    visited,
                    self.masked,
                )
        return None
