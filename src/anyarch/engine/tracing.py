"""Where the host has a region's traced registers, at each access that may fault.

LLVM tells where debug variables are. Where it does not, the region is compiled again, with those
registers written to the context before that access.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from anyarch.emit.blob import Blob
from anyarch.emit.variables import STACK_POINTER, Location, Ranges
from anyarch.engine.bundle import CONTEXT, Trace
from anyarch.engine.regiontext import RegionEmitter

_FAR: Final = 1 << 31  # what may be added to something in memory is less


def trace(emitter: RegionEmitter, blob: Blob) -> tuple[list[Trace], set[int]]:
    """Where registers are, and the guest's pcs at which that is not known."""
    traces: list[Trace] = []
    lost: set[int] = set()
    rows = sorted(blob.lines)
    apart = {line for _, line in rows if line % 2}  # accesses that are no part of anything else
    ends = [*(offset for offset, _ in rows[1:]), len(blob.code)]
    for index in range(len(emitter.traced)):
        ranges = blob.variables.get(index + 1, [])
        edges = sorted({edge for start, end, _ in ranges for edge in (start, end)})
        for (offset, line), end in zip(rows, ends, strict=True):
            if not line:
                continue
            pc = emitter.pc_of(line)
            # The access may be any of the row's instructions.
            for at in [offset, *edges[bisect_right(edges, offset) : bisect_left(edges, end)]]:
                found = None if pc in emitter.untraced else _location(ranges, at)
                if found is None and line - 1 in apart:
                    continue
                if found is None:
                    lost.add(pc)
                    traces.append(Trace(at, index, CONTEXT, 0))
                else:
                    memory = found.in_memory, found.addend
                    traces.append(Trace(at, index, found.register, found.offset, *memory))
    return traces, lost


def _location(ranges: Ranges, offset: int) -> Location | None:
    """Where a variable is, if it is one of the host's registers or on its stack."""
    for start, end, location in ranges:
        if start <= offset < end:
            is_stack = location.register == STACK_POINTER and -_FAR <= location.addend < _FAR
            return location if is_stack or not location.in_memory else None
    return None
