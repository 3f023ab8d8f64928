"""System calls of the interpreter itself: nothing of the guest's can interrupt them."""

from __future__ import annotations

import ctypes
from typing import Final

from anyarch.linux.numbers import HOST_NUMBERS

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 7


def host_call(name: str, *arguments: int) -> int:
    """A system call by name; the result or -errno."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    result: int = _syscall(HOST_NUMBERS[name], *padded)
    return -ctypes.get_errno() if result == -1 else result


def host_action(signum: int) -> int:
    """The address of the host's handler of a signal; 0 the default action, 1 ignored."""
    action = (ctypes.c_uint64 * 4)()
    if host_call("rt_sigaction", signum, 0, ctypes.addressof(action), 8) < 0:
        return 0
    return action[0]
