"""System calls of the interpreter itself: nothing of the guest's can interrupt them."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from anyarch.linux.numbers import HOST_NUMBERS

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 7
_syscall_with_lock: Final = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_with_lock.restype = ctypes.c_long
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x200000, 0x1000000
_PR_GET_TID_ADDRESS: Final = 40


def host_call(name: str, *arguments: int) -> int:
    """A system call by name; the result or -errno."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    result: int = _syscall(HOST_NUMBERS[name], *padded)
    return -ctypes.get_errno() if result == -1 else result


def host_fork(flags: int, exit_signal: int, cgroup: int) -> int:
    """os.fork, but with flags of clone3 that concern what is shared, and whose child it is.

    Raises OSError.
    """
    # The C library keeps the thread's number where it has told the kernel to clear it.
    place = ctypes.c_uint64()
    if host_call("prctl", _PR_GET_TID_ADDRESS, ctypes.addressof(place)) == 0 and place.value:
        flags |= _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID
    wish = (ctypes.c_uint64 * 11)(flags, 0, place.value, 0, exit_signal, *[0] * 5, cgroup)
    number, address = HOST_NUMBERS["clone3"], ctypes.addressof(wish)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _syscall_with_lock(ctypes.c_long(number), ctypes.c_void_p(address), 88)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, os.strerror(error))
    return pid


def host_action(signum: int) -> int:
    """The address of the host's handler of a signal; 0 the default action, 1 ignored."""
    action = (ctypes.c_uint64 * 4)()
    if host_call("rt_sigaction", signum, 0, ctypes.addressof(action), 8) < 0:
        return 0
    return action[0]
