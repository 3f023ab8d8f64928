"""Forking as os.fork does, but by clone3, with what that can be asked for.

A child has one thread. Were it to run a single bytecode before Python has been told, it might
offer Python's lock to a thread that is not there, and wait for that thread to take it. So the
steps are one call of native code, made with the lock held.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

from anyarch.host import x86_64 as machine
from anyarch.host.mapping import PROT_EXEC, PROT_READ, PROT_WRITE, libc, map_pages, protect_pages

_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x200000, 0x1000000
_PR_GET_TID_ADDRESS: Final = 40
_Function = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)


def fork_with(flags: int, exit_signal: int, cgroup: int) -> int:
    """os.fork, but with flags of clone3 that concern what is shared, and whose child it is.

    Raises OSError.
    """
    # The C library keeps the thread's number where it has told the kernel to clear it.
    place = ctypes.c_uint64()
    known = libc.prctl(_PR_GET_TID_ADDRESS, ctypes.c_void_p(ctypes.addressof(place))) == 0
    if known and place.value:
        flags |= _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID
    wish = (ctypes.c_uint64 * 11)(flags, 0, place.value, 0, exit_signal, *[0] * 5, cgroup)
    pid: int = _function()(ctypes.addressof(wish), ctypes.sizeof(wish))
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


@cache
def _function() -> ctypes._FuncPointer:
    steps = ("PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyOS_AfterFork_Parent")
    pointers = [ctypes.cast(getattr(ctypes.pythonapi, step), ctypes.c_void_p) for step in steps]
    code = machine.fork_function(*(pointer.value or 0 for pointer in pointers))
    place = map_pages(4096, PROT_READ | PROT_WRITE)
    ctypes.memmove(place, code, len(code))
    protect_pages(place, 4096, PROT_READ | PROT_EXEC)
    return _Function(place)
