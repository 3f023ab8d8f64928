"""Compiled regions as data: what the compiler sends, what the cache keeps, what gets installed.

A region's code is position-independent and complete; only its record (cells, links) is made in
place. The digest of the guest code that it was made from says whether it still applies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final

from anyarch.data import dataclass
from anyarch.engine.digests import blake2b

# pc, entry, instructions, cells, ranges, tables, lines, code, precise, digest
_HEAD: Final = struct.Struct("<QIIHHHIIB16s")
_TABLE: Final = struct.Struct("<QI")  # address, size
CALLS: Final = 1 << 63  # in a cell: it is called, not jumped to
STUB_NBYTES: Final = 48
_LINE: Final = struct.Struct("<Ii")  # offset in the code, guest pc relative to the region's
_U64: Final = struct.Struct("<Q")
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code of a region that begins at a guest pc.

    ``entry`` is the offset of its function in ``code``; ``cells`` are the guest pcs that it is
    linked to, CALLS added where it calls, and ``code`` ends with a stub for each of them, which has
    code there run. ``ranges`` is the guest code [start, end) that ``digest`` is of. ``lines`` are
    packed places of accesses, ascending: see :meth:`locate`. ``tables`` are constants that it
    relies on: address and contents.
    """

    pc: int
    entry: int
    instructions: int
    cells: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    digest: bytes
    code: bytes
    lines: bytes = b""
    precise: bool = False  # all registers are exact at faults too
    tables: tuple[tuple[int, bytes], ...] = ()

    @property
    def pages(self) -> set[int]:
        """Addresses of the pages with what it was made from."""
        ranges = [*self.ranges, *((at, at + len(data)) for at, data in self.tables)]
        return {
            page * _PAGE
            for start, end in ranges
            for page in range(start // _PAGE, (end - 1) // _PAGE + 1)
        }

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it was made from something in [start, end)."""
        return any(low < end and start < high for low, high in self.ranges) or any(
            at < end and start < at + len(data) for at, data in self.tables
        )

    @property
    def targets(self) -> tuple[int, ...]:
        """The guest pcs that it is linked to."""
        return tuple(cell & ~CALLS for cell in self.cells)

    def locate(self, offset: int) -> int | None:
        """The guest pc of the access whose instruction is at an offset of the code."""
        low, high = 0, len(self.lines) // _LINE.size
        while low < high:
            middle = (low + high) // 2
            if _LINE.unpack_from(self.lines, middle * _LINE.size)[0] <= offset:
                low = middle + 1
            else:
                high = middle
        if not low:
            return None
        relative: int = _LINE.unpack_from(self.lines, (low - 1) * _LINE.size)[1]
        return self.pc + relative

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
                len(self.tables),
                len(self.lines),
                len(self.code),
                self.precise,
                self.digest,
            )
            + struct.pack(f"<{len(numbers)}Q", *numbers)
            + b"".join(_TABLE.pack(at, len(data)) + data for at, data in self.tables)
            + self.lines
            + self.code
        )


def unpack(data: bytes) -> list[CompiledRegion]:
    """The regions in a run of packed ones; ValueError or struct.error where it is damaged."""
    regions = []
    at = 0
    while at < len(data):
        head = _HEAD.unpack_from(data, at)
        pc, entry, count, cells, ranges, tables, lines, nbytes, precise, digest = head
        at += _HEAD.size
        numbers = struct.unpack_from(f"<{cells + 2 * ranges}Q", data, at)
        at += 8 * len(numbers)
        constants = []
        for _ in range(tables):
            address, size = _TABLE.unpack_from(data, at)
            at += _TABLE.size + size
            constants.append((address, data[at - size : at]))
        if at + lines + nbytes > len(data):
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
                data[at + lines : at + lines + nbytes],
                data[at : at + lines],
                bool(precise),
                tuple(constants),
            )
        )
        at += lines + nbytes
    return regions


def pack_lines(rows: Iterable[tuple[int, int]], pc: int) -> bytes:
    """Rows of (offset, guest pc) as :attr:`CompiledRegion.lines`."""
    return b"".join(_LINE.pack(offset, at - pc) for offset, at in sorted(rows))


def digest_of(ranges: Iterable[tuple[int, int]], read: Callable[[int, int], bytes]) -> bytes:
    """Digest of guest code; ``read`` raises MemoryFault."""
    state = blake2b(digest_size=16)
    for start, end in ranges:
        state.update(_U64.pack(start))
        state.update(read(start, end - start))
    return state.digest()
