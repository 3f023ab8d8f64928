"""The signal mask of a thread, as the kernel has it: rt_sigprocmask(2).

The C library's functions hide two signals (32, 33) that a guest may use, and which are ours.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from anyarch.errors import HostError
from anyarch.host import signalpage as layout
from anyarch.host import x86_64 as machine

__all__ = [
    "ALL_SIGNALS",
    "FAULT_SIGNALS",
    "OPEN_SIGNALS",
    "block_signals",
    "change_host_mask",
    "set_host_mask",
]

ALL_SIGNALS: Final = (1 << 64) - 1
FAULT_SIGNALS: Final = sum(1 << (number - 1) for number in (4, 7, 8, 11))  # ILL, BUS, FPE, SEGV
# Never blocked in a thread that runs a guest: faults of native code, and the signal that stops it.
OPEN_SIGNALS: Final = FAULT_SIGNALS | 1 << layout.STOP_SIGNAL - 1
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2

# With the interpreter lock held: the call never waits, but would then wait for the lock.
_call: Final = ctypes.PyDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long
_call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
_Masks: Final = ctypes.c_uint64 * 2


def set_host_mask(mask: int | None) -> int:
    """Set the thread's signal mask, if one is given; return the one before."""
    words = _Masks(mask or 0)
    new = None if mask is None else ctypes.byref(words)
    if _call(machine.NR_RT_SIGPROCMASK, _SIG_SETMASK, new, ctypes.byref(words, 8), 8):
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"the kernel refuses signal mask {mask or 0:#x}: {reason}")
    return words[1]


def change_host_mask(blocked: int, unblocked: int) -> None:
    """Block some signals for this thread, then unblock others."""
    for how, signals in ((_SIG_BLOCK, blocked), (_SIG_UNBLOCK, unblocked)):
        if signals:
            word = ctypes.c_uint64(signals)
            _call(machine.NR_RT_SIGPROCMASK, how, ctypes.byref(word), None, 8)


def block_signals() -> int:
    """Block every signal that a guest may be sent, for this thread; the mask before."""
    return set_host_mask(ALL_SIGNALS & ~OPEN_SIGNALS)
