"""A thread with descriptors of its own, beside a guest that does with the others what it likes."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from anyarch.errors import HostError
from anyarch.host import x86_64 as machine
from anyarch.host.mapping import libc, os_error

__all__ = ["unshare_descriptors"]

_syscall: Final = libc["syscall"]  # not the one whose arguments others declare
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_LAST: Final = 0xFFFFFFFF
_CLOSE_RANGE_UNSHARE: Final = 2


def unshare_descriptors() -> None:
    """From now on the calling thread shares no descriptor with the others, and has but the first
    three, which lead nowhere.

    What it opens gets no number that the guest would miss, and the guest cannot close it.
    """
    if _syscall(machine.NR_CLOSE_RANGE, 0, _LAST, _CLOSE_RANGE_UNSHARE):
        raise HostError(f"cannot have descriptors of our own: {os_error()}")
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
