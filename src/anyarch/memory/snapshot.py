"""Saving and restoring the contents of an address space.

Pages that were never touched are found through /proc/self/pagemap (Linux,
Documentation/admin-guide/mm/pagemap.rst) and not read; pages of zeros are not kept.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from anyarch.host.cpu import PAGE
from anyarch.memory.pageflags import runs
from anyarch.memory.regions import Region
from anyarch.memory.space import PROT_READ, PROT_WRITE, AddressSpace

__all__ = ["Snapshot", "restore", "save"]

_CHUNK: Final = 1 << 20
_ZEROS: Final = bytes(PAGE)
# In the top byte of a pagemap entry: bit 63 present, bit 62 swapped.
_IS_TOUCHED: Final = bytes(1 if value & 0xC0 else 0 for value in range(256))


class Snapshot(NamedTuple):
    """What was mapped, and (start, prot, bytes) for each run of pages that are not all zeros."""

    regions: list[Region]
    contents: list[tuple[int, int, bytes]]


def save(space: AddressSpace) -> Snapshot:
    """Copy an address space in which nothing runs."""
    regions = space.regions()
    contents: list[tuple[int, int, bytes]] = []
    # Through /proc/self/mem, which also reads pages that the guest made inaccessible.
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for region in regions:
            whole = region.file or region.shared
            touched = (
                [(region.start, region.end)]
                if whole
                else _touched(pagemap, space.base, region.start, region.end)
            )
            for start, end in touched:
                for address, data in _read_nonzero(memory, space.base, start, end):
                    contents.append((address, region.prot, data))
    finally:
        os.close(memory)
        os.close(pagemap)
    return Snapshot(regions, contents)


def restore(space: AddressSpace, snapshot: Snapshot) -> None:
    """Make an address space in which nothing runs look as it did; mapped files become memory."""
    with space.lock:
        for region in space.regions():
            space.unmap(region.start, region.end - region.start)
        for region in snapshot.regions:
            nbytes = region.end - region.start
            prot = PROT_READ | PROT_WRITE
            space.map(
                region.start, nbytes, prot, fixed=True, shared=region.shared, name=region.name
            )
        for start, _, data in snapshot.contents:
            ctypes.memmove(space.base + start, data, len(data))
        for region in snapshot.regions:
            space.protect(region.start, region.end - region.start, region.prot)


def _touched(pagemap: int, base: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Address ranges of pages that are in memory or swapped out."""
    address = start
    while address < end:
        count = min(_CHUNK // 8, (end - address) // PAGE)
        entries = os.pread(pagemap, count * 8, (base + address) // PAGE * 8)
        for low, high in runs(entries[7::8].translate(_IS_TOUCHED)):
            yield address + low * PAGE, address + high * PAGE
        address += count * PAGE


def _read_nonzero(memory: int, base: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Runs of pages that are not all zeros; pages past the end of a file count as zeros."""
    address = start
    while address < end:
        nbytes = min(_CHUNK, end - address)
        try:
            data = os.pread(memory, nbytes, base + address)
        except OSError:
            data = b""
        if not data:
            data = _ZEROS
        pages = range(0, len(data), PAGE)
        marks = bytes(data[i : i + PAGE] != _ZEROS for i in pages)
        for low, high in runs(marks):
            yield address + low * PAGE, data[low * PAGE : high * PAGE]
        address += len(data)
