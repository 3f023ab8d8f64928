"""Memory mappings of the host: mmap and its relatives by address, which Python's own mmap hides."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from anyarch.host.cpu import PAGE

PROT_NONE: Final = 0
PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
MAP_SHARED: Final = 1
MAP_PRIVATE: Final = 2
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_NORESERVE: Final = 0x4000
MAP_FIXED_NOREPLACE: Final = 0x100000
MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4
MADV_DONTNEED: Final = 4
MADV_HUGEPAGE: Final = 14

libc: Final = ctypes.CDLL(None, use_errno=True)
_FAILED: Final = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1  # MAP_FAILED

_mmap = libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_mremap = libc.mremap
_mremap.restype = ctypes.c_void_p
_mremap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
)
_munmap, _mprotect, _madvise = libc.munmap, libc.mprotect, libc.madvise
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def os_error() -> OSError:
    """The error of the last libc call of this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def map_pages(
    nbytes: int,
    prot: int,
    *,
    pointer: int = 0,
    flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
    fd: int = -1,
    offset: int = 0,
) -> int:
    """Host mmap; returns the host pointer, raises OSError."""
    result: int | None = _mmap(pointer, nbytes, prot, flags, fd, offset)
    if result == _FAILED:
        raise os_error()
    return result or 0


def unmap_pages(pointer: int, nbytes: int) -> None:
    """Host munmap."""
    if _munmap(pointer, nbytes):
        raise os_error()


def protect_pages(pointer: int, nbytes: int, prot: int) -> None:
    """Host mprotect."""
    if _mprotect(pointer, nbytes, prot):
        raise os_error()


def move_pages(pointer: int, old_nbytes: int, new_nbytes: int, flags: int, target: int) -> int:
    """Host mremap to `target`; returns the new host pointer."""
    result: int | None = _mremap(pointer, old_nbytes, new_nbytes, flags, target)
    if result == _FAILED:
        raise os_error()
    return result or 0


def map_twice(nbytes: int, pointer: int, contents: bytes = b"") -> int:
    """Map new memory at `pointer`, to be run, and where the system likes, to be written: a host
    pointer. It begins with `contents`, which other threads may be running there already: it takes
    the place of what is there in one step. No thread runs its last page meanwhile.

    No file is behind it: Linux perf names such code by the map of its process. An mremap of no
    bytes maps the pages of shared memory once more, see mremap(2).
    """
    written = map_pages(nbytes, PROT_READ | PROT_WRITE, flags=MAP_SHARED | MAP_ANONYMOUS)
    run = 0
    try:
        ctypes.memmove(written, contents, len(contents))
        run = move_pages(written, 0, nbytes, MREMAP_MAYMOVE, 0)
        protect_pages(run, nbytes, PROT_READ | PROT_EXEC)
        move_pages(run, nbytes, nbytes, MREMAP_MAYMOVE | MREMAP_FIXED, pointer)
        run = 0
        for prot in (PROT_READ, PROT_READ | PROT_EXEC):  # perf is told of no move, but of this
            protect_pages(pointer + nbytes - PAGE, PAGE, prot)
    except OSError:
        if run:
            unmap_pages(run, nbytes)
        unmap_pages(written, nbytes)
        raise
    return written


def advise_pages(pointer: int, nbytes: int, advice: int) -> None:
    """Host madvise."""
    if _madvise(pointer, nbytes, advice):
        raise os_error()


def reserve(nbytes: int, align: int) -> int:
    """Reserve address space that nothing may touch, at a multiple of `align`."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    whole = map_pages(nbytes + align, PROT_NONE, flags=flags)
    pointer = (whole + align - 1) & -align
    if pointer > whole:
        unmap_pages(whole, pointer - whole)
    if rest := whole + align - pointer:
        unmap_pages(pointer + nbytes, rest)
    return pointer


def reserve_at(pointer: int, nbytes: int) -> bool:
    """Reserve address space at a place; False where something is there already."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
    try:
        found = map_pages(nbytes, PROT_NONE, pointer=pointer, flags=flags)
    except OSError:
        return False
    if found != pointer:  # a kernel older than 4.17 takes the flag for a hint
        unmap_pages(found, nbytes)
        return False
    return True


def round_up(nbytes: int) -> int:
    """`nbytes` up to whole host pages."""
    return (nbytes + PAGE - 1) // PAGE * PAGE
