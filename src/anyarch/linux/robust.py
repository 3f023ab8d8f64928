"""Robust locks: those that a dying thread holds are marked and handed on, as the kernel does.

Sources: Linux ``Documentation/locking/robust-futex-ABI.rst`` and ``kernel/futex/core.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from anyarch.errors import MemoryFault
from anyarch.linux.hostcalls import host_call

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

HEAD_NBYTES: Final = 24  # struct robust_list_head: first entry, offset of the lock word, pending
_LIMIT: Final = 2048  # entries; a longer list is broken
_TID_MASK, _OWNER_DIED, _WAITERS = 0x3FFFFFFF, 0x40000000, 0x80000000
_FUTEX_WAKE: Final = 1


def release_robust_list(thread: Thread, head: int) -> None:
    """Mark every lock of the list at ``head`` that ``thread`` owns; a broken list ends early."""
    try:
        first, offset, pending = struct.unpack("<QqQ", thread.space.read(head, HEAD_NBYTES))
        entry, count = first, 0
        while entry & ~1 != head and count < _LIMIT:
            (following,) = struct.unpack("<Q", thread.space.read(entry & ~1, 8))
            if entry & ~1 != pending & ~1:
                _release(thread, (entry & ~1) + offset)
            entry, count = following, count + 1
        if pending & ~1:
            _release(thread, (pending & ~1) + offset)
    except MemoryFault:
        pass


def _release(thread: Thread, address: int) -> None:
    (word,) = struct.unpack("<I", thread.space.read(address, 4))
    if word & _TID_MASK != thread.tid:
        return
    # A waiter may set its bit between the read and the write: it is set for it.
    thread.space.write(address, struct.pack("<I", _OWNER_DIED | _WAITERS))
    host_call("futex", thread.pointer(address), _FUTEX_WAKE, 1)
