"""Copying to and from memory that another thread may unmap at any time.

process_vm_readv(2) on our own process: the kernel copies, and reports what is not mapped in place
of a signal. It honours the protection of pages.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from _thread import _local
from typing import Final

from anyarch.host.mapping import libc, os_error

_readv, _writev = libc.process_vm_readv, libc.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
_SCRATCH_NBYTES: Final = 4096


class _Scratch:
    """What a call needs, made once per thread: ctypes takes a microsecond for each argument."""

    __slots__ = ("buffer", "ours", "pointer", "theirs", "vectors")

    def __init__(self) -> None:
        self.vectors = (ctypes.c_uint64 * 4)()  # two struct iovec
        self.ours = ctypes.byref(self.vectors)
        self.theirs = ctypes.byref(self.vectors, 16)
        self.buffer = ctypes.create_string_buffer(_SCRATCH_NBYTES)
        self.pointer = ctypes.addressof(self.buffer)


_thread: Final = _local()
_set_vectors = struct.Struct("=4Q").pack_into


def _scratch() -> _Scratch:
    try:
        scratch: _Scratch = _thread.scratch
    except AttributeError:
        scratch = _thread.scratch = _Scratch()
    return scratch


def read(pointer: int, nbytes: int) -> bytes:
    """Up to `nbytes` from a host pointer: fewer where the rest cannot be read."""
    scratch = _scratch()
    buffer, target = scratch.buffer, scratch.pointer
    if nbytes > _SCRATCH_NBYTES:
        buffer = ctypes.create_string_buffer(nbytes)
        target = ctypes.addressof(buffer)
    _set_vectors(scratch.vectors, 0, target, nbytes, pointer, nbytes)
    count = _readv(os.getpid(), scratch.ours, 1, scratch.theirs, 1, 0)
    return ctypes.string_at(target, count if count >= 0 else _nothing())


def write(pointer: int, data: bytes) -> int:
    """Copy `data` to a host pointer; returns how many bytes could be written."""
    scratch = _scratch()
    nbytes = len(data)
    if nbytes > _SCRATCH_NBYTES:
        source = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    else:
        source = scratch.pointer
        ctypes.memmove(source, data, nbytes)
    _set_vectors(scratch.vectors, 0, source, nbytes, pointer, nbytes)
    count: int = _writev(os.getpid(), scratch.ours, 1, scratch.theirs, 1, 0)
    return count if count >= 0 else _nothing()


def _nothing() -> int:
    """No byte could be copied; raises OSError if the reason is another than the memory."""
    if ctypes.get_errno() != errno.EFAULT:
        raise os_error()
    return 0
