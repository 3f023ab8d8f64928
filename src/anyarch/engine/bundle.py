"""Compiled regions as data: what the compiler sends, what the cache keeps, what gets installed.

A region's code is position-independent and complete; only its record (cells, links) is made in
place. The digest of the guest code that it was made from says whether it still applies.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

from anyarch.data import dataclass
from anyarch.engine.digests import blake2b

# pc, entry, instructions, cells, ranges, tables, lines, traces, code, precise, digest
_HEAD: Final = struct.Struct("<QIIHHHIIIB16s")
_TABLE: Final = struct.Struct("<QI")  # address, size
CALLS: Final = 1 << 63  # in a cell: it is called, not jumped to
STUB_NBYTES: Final = 48
_LINE: Final = struct.Struct("<Ii")  # offset in the code, guest pc relative to the region's
# Offset in the code from which on it holds, which traced register, see Trace.
_TRACE: Final = struct.Struct("<IBbBqi")
_U64: Final = struct.Struct("<Q")
_PAGE: Final = 4096
_MASK: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
CONTEXT: Final = -2  # in place of a host register: none is needed


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a traced register is, from an offset in the code on.

    It is ``number`` more than ``register`` of the host (as DWARF numbers them) holds; or what is
    at that address, ``in_memory``, and ``addend``. Without a host register (-1) it is ``number``;
    with CONTEXT it is where the context has it.
    """

    offset: int
    index: int  # in the convention's `traced`
    register: int
    number: int
    in_memory: bool = False
    addend: int = 0

    def value(self, registers: tuple[int, ...], read: Callable[[int], int]) -> int:
        """The register's, from those of the host; ``read`` reads host memory."""
        base = registers[self.register] if self.register >= 0 else 0
        found = base + self.number
        if self.in_memory:
            found = read(found & _MASK) + self.addend
        return found & _MASK


@dataclass(frozen=True, slots=True)
class CompiledRegion:
    """Native code of a region that begins at a guest pc.

    ``entry`` is the offset of its function in ``code``; ``cells`` are the guest pcs that it is
    linked to, CALLS added where it calls, and ``code`` ends with a stub for each of them, which has
    code there run. ``ranges`` is the guest code [start, end) that ``digest`` is of. ``lines`` are
    packed places of accesses, ascending: see :meth:`locate`. ``tables`` are constants that it
    relies on: address and contents. ``traces`` are packed, ascending: see :meth:`traced`.
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
    traces: bytes = b""

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

    def traced(self, offset: int) -> list[Trace]:
        """Where registers are at the access whose instruction is at an offset of the code, other
        than in the context."""
        found: dict[int, Trace] = {}
        for start, index, register, in_memory, number, addend in _TRACE.iter_unpack(self.traces):
            if start > offset:
                break
            found[index] = Trace(start, index, register, number, bool(in_memory), addend)
        return [trace for trace in found.values() if trace.register != CONTEXT]

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
                len(self.traces),
                len(self.code),
                self.precise,
                self.digest,
            )
            + struct.pack(f"<{len(numbers)}Q", *numbers)
            + b"".join(_TABLE.pack(at, len(data)) + data for at, data in self.tables)
            + self.lines
            + self.traces
            + self.code
        )


def unpack(data: bytes) -> list[CompiledRegion]:
    """The regions in a run of packed ones; ValueError or struct.error where it is damaged."""
    regions = []
    at = 0
    while at < len(data):
        head = _HEAD.unpack_from(data, at)
        pc, entry, count, cells, ranges, tables, lines, traces, nbytes, precise, digest = head
        at += _HEAD.size
        numbers = struct.unpack_from(f"<{cells + 2 * ranges}Q", data, at)
        at += 8 * len(numbers)
        constants = []
        for _ in range(tables):
            address, size = _TABLE.unpack_from(data, at)
            at += _TABLE.size + size
            constants.append((address, data[at - size : at]))
        if at + lines + traces + nbytes > len(data):
            raise ValueError("a packed region is cut off")
        places = [at, at + lines, at + lines + traces, at + lines + traces + nbytes]
        parts = [data[start:end] for start, end in pairwise(places)]
        edges = numbers[cells:]
        regions.append(
            CompiledRegion(
                pc,
                entry,
                count,
                numbers[:cells],
                tuple(zip(edges[::2], edges[1::2], strict=True)),
                digest,
                parts[2],
                parts[0],
                bool(precise),
                tuple(constants),
                parts[1],
            )
        )
        at = places[-1]
    return regions


def pack_lines(rows: Iterable[tuple[int, int]], pc: int) -> bytes:
    """Rows of (offset, guest pc) as :attr:`CompiledRegion.lines`."""
    return b"".join(_LINE.pack(offset, at - pc) for offset, at in sorted(rows))


def pack_traces(traces: Iterable[Trace]) -> bytes:
    """As :attr:`CompiledRegion.traces`: what changes, in the order of offsets."""
    latest: dict[int, tuple[int, bool, int, int]] = {}
    parts = []
    for trace in sorted(traces, key=lambda trace: trace.offset):
        where = trace.register, trace.in_memory, trace.number, trace.addend
        if latest.get(trace.index) != where:
            latest[trace.index] = where
            register, in_memory, number, addend = where
            signed = (number & _MASK ^ _SIGN) - _SIGN
            parts.append(
                _TRACE.pack(trace.offset, trace.index, register, in_memory, signed, addend)
            )
    return b"".join(parts)


def digest_of(ranges: Iterable[tuple[int, int]], read: Callable[[int, int], bytes]) -> bytes:
    """Digest of guest code; ``read`` raises MemoryFault."""
    state = blake2b(digest_size=16)
    for start, end in ranges:
        state.update(_U64.pack(start))
        state.update(read(start, end - start))
    return state.digest()
