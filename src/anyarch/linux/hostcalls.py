"""System calls of the interpreter itself: nothing of the guest's can interrupt them."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from anyarch.errors import HostError
from anyarch.linux.numbers import HOST_NUMBERS

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 7
_SIG_SETMASK: Final = 2
_buffer: Final = (ctypes.c_uint64 * 8)()
_address: Final = ctypes.addressof(_buffer)


def host_call(name: str, *arguments: int) -> int:
    """A system call by name; the result or -errno."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    result: int = _syscall(HOST_NUMBERS[name], *padded)
    return -ctypes.get_errno() if result == -1 else result


def set_host_mask(mask: int | None) -> int:
    """Set the thread's signal mask, if one is given; return the one before."""
    if mask is not None:
        _buffer[0] = mask
    new = 0 if mask is None else _address
    result = host_call("rt_sigprocmask", _SIG_SETMASK, new, _address + 8, 8)
    if result < 0:
        raise HostError(f"the kernel refuses signal mask {mask or 0:#x}: {os.strerror(-result)}")
    return _buffer[1]


def host_action(signum: int) -> int:
    """The address of the host's handler of a signal; 0 the default action, 1 ignored."""
    if host_call("rt_sigaction", signum, 0, _address, 8) < 0:
        return 0
    handler: int = struct.unpack_from("<Q", _buffer)[0]
    return handler
