"""Where a file with code is mapped when the guest leaves the choice to us.

The address follows from the file, so that a library is at the same place in every program and what
was compiled for it fits them all. There is no randomisation to lose: see ``linux.image``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from anyarch.engine.digests import blake2b
from anyarch.errors import LoadError
from anyarch.linux.elf import ET_DYN, read_elf

_PAGE: Final = 4096
_GRANULE: Final = 1 << 20
_TRIES: Final = 4  # places for a file; where all are taken it is mapped like anything else
_HEAD_NBYTES: Final = 4096
_ELF_SHARED: Final = b"\x03\x00"  # e_type ET_DYN


def places(fd: int, nbytes: int, task_size: int) -> Iterator[int]:
    """Addresses for ``nbytes`` of an ELF file open as ``fd``, best first; none for other files.

    They are in the quarter of the address space that ends where position-independent programs
    begin: above the heap of those that are not, below the stack and the usual mappings.
    """
    try:
        head = os.pread(fd, _HEAD_NBYTES, 0)
        size = os.fstat(fd).st_size
    except OSError:
        return
    if head[:4] != b"\x7fELF" or head[16:18] != _ELF_SHARED:
        return
    first, slots = task_size // 8 * 3, (task_size // 4 - nbytes) // _GRANULE
    if slots <= 0:
        return
    digest = blake2b(head + size.to_bytes(8, "little"), digest_size=8 * _TRIES).digest()
    for place in range(_TRIES):
        number = int.from_bytes(digest[8 * place : 8 * place + 8], "little")
        yield first + number % slots * _GRANULE


def reservation_places(fd: int, nbytes: int, task_size: int) -> Iterator[int]:
    """The same for ``nbytes`` of nothing, if they are the room that glibc's dynamic linker reserves
    first for the file, because that wants to be aligned to more than a page."""
    try:
        elf = read_elf(fd, "")
    except (LoadError, OSError):
        return
    first, last = elf.loads[0], elf.loads[-1]
    alignment = max(segment.alignment for segment in elf.loads)
    length = last.address + last.memory_nbytes - first.address // _PAGE * _PAGE
    reserved = _round(max(length, alignment) + alignment)
    if elf.type == ET_DYN and _PAGE < alignment <= _GRANULE and nbytes == reserved:
        yield from places(fd, _round(length), task_size)


def _round(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
