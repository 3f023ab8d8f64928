"""Compiled regions as data: what the compiler sends, what the cache keeps, what gets installed.

A region's code is position-independent and complete; only its record (cells, links) is made in
place. The digest of the guest code that it was made from says whether it still applies.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final

from anyarch.data import dataclass

_HEAD: Final = struct.Struct("<QIIHHI16s")  # pc, entry, instructions, cells, ranges, code, digest
_U64: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code of a region that begins at a guest pc.

    ``entry`` is the offset of its function in ``code``; ``cells`` are the guest pcs that its record
    links to; ``ranges`` the guest code [start, end) that ``digest`` is of.
    """

    pc: int
    entry: int
    instructions: int
    cells: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    digest: bytes
    code: bytes

    def pack(self) -> bytes:
        """As bytes."""
        numbers = [*self.cells, *(edge for pair in self.ranges for edge in pair)]
        return (
            _HEAD.pack(
                self.pc,
                self.entry,
                self.instructions,
                len(self.cells),
                len(self.ranges),
                len(self.code),
                self.digest,
            )
            + struct.pack(f"<{len(numbers)}Q", *numbers)
            + self.code
        )


def unpack(data: bytes) -> list[CompiledRegion]:
    """The regions in a run of packed ones; ValueError or struct.error where it is damaged."""
    regions = []
    at = 0
    while at < len(data):
        pc, entry, count, cells, ranges, nbytes, digest = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        numbers = struct.unpack_from(f"<{cells + 2 * ranges}Q", data, at)
        at += 8 * len(numbers)
        if at + nbytes > len(data):
            raise ValueError("a packed region is cut off")
        edges = numbers[cells:]
        regions.append(
            CompiledRegion(
                pc,
                entry,
                count,
                numbers[:cells],
                tuple(zip(edges[::2], edges[1::2], strict=True)),
                digest,
                data[at : at + nbytes],
            )
        )
        at += nbytes
    return regions


def digest_of(ranges: Iterable[tuple[int, int]], read: Callable[[int, int], bytes]) -> bytes:
    """Digest of guest code; ``read`` raises MemoryFault."""
    state = hashlib.blake2b(digest_size=16)
    for start, end in ranges:
        state.update(_U64.pack(start))
        state.update(read(start, end - start))
    return state.digest()
