"""System calls of the interpreter itself: nothing of the guest's can interrupt them."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from anyarch.errors import HostError
from anyarch.linux.numbers import HOST_NUMBERS

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 7
# With the interpreter lock held: for what never waits, and would else wait for the lock.
_mask_call: Final = ctypes.PyDLL(None, use_errno=True).syscall
_mask_call.restype = ctypes.c_long
_mask_call.argtypes = (
    ctypes.c_long,
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_long,
)
_RT_SIGPROCMASK: Final = HOST_NUMBERS["rt_sigprocmask"]
_Masks: Final = ctypes.c_uint64 * 2
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2


def host_call(name: str, *arguments: int) -> int:
    """A system call by name; the result or -errno."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    result: int = _syscall(HOST_NUMBERS[name], *padded)
    return -ctypes.get_errno() if result == -1 else result


def set_host_mask(mask: int | None) -> int:
    """Set the thread's signal mask, if one is given; return the one before."""
    words = _Masks(mask or 0)
    new = None if mask is None else ctypes.byref(words)
    if _mask_call(_RT_SIGPROCMASK, _SIG_SETMASK, new, ctypes.byref(words, 8), 8):
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"the kernel refuses signal mask {mask or 0:#x}: {reason}")
    return words[1]


def change_host_mask(blocked: int, unblocked: int) -> None:
    """Block some signals for this thread, then unblock others."""
    for how, signals in ((_SIG_BLOCK, blocked), (_SIG_UNBLOCK, unblocked)):
        if signals:
            word = ctypes.c_uint64(signals)
            _mask_call(_RT_SIGPROCMASK, how, ctypes.byref(word), None, 8)


def host_action(signum: int) -> int:
    """The address of the host's handler of a signal; 0 the default action, 1 ignored."""
    action = (ctypes.c_uint64 * 4)()
    if host_call("rt_sigaction", signum, 0, ctypes.addressof(action), 8) < 0:
        return 0
    return action[0]
