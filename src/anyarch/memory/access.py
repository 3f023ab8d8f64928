"""Copying to and from memory that another thread may unmap at any time.

process_vm_readv(2) on our own process: the kernel copies, and reports what is not mapped in place
of a signal. It honours the protection of pages.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from anyarch.host.mapping import libc, os_error

_Vectors: Final = ctypes.c_uint64 * 4  # two struct iovec: ours, theirs
_REMOTE: Final = 16

_readv, _writev = libc.process_vm_readv, libc.process_vm_writev
for _call in (_readv, _writev):
    _call.restype = ctypes.c_ssize_t
    _call.argtypes = (
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    )


def copy_in(target: int, source: int, nbytes: int) -> int:
    """Copy from checked memory at `source` to ours at `target`; returns the bytes copied."""
    vectors = _Vectors(target, nbytes, source, nbytes)
    pointer = ctypes.addressof(vectors)
    return _result(_readv(os.getpid(), pointer, 1, pointer + _REMOTE, 1, 0))


def copy_out(target: int, source: int, nbytes: int) -> int:
    """Copy from ours at `source` to checked memory at `target`; returns the bytes copied."""
    vectors = _Vectors(source, nbytes, target, nbytes)
    pointer = ctypes.addressof(vectors)
    return _result(_writev(os.getpid(), pointer, 1, pointer + _REMOTE, 1, 0))


def _result(count: int) -> int:
    if count >= 0:
        return count
    if ctypes.get_errno() == errno.EFAULT:
        return 0
    raise os_error()
