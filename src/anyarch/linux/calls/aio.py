"""Asynchronous input and output. A context is the host's: its number is opaque to the guest.

Source: io_submit(2), ``uapi/linux/aio_abi.h``.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from anyarch.errors import MemoryFault
from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

AIO: Final = Family()

AIO.passed("io_setup", "count:uint context:pointer")
AIO.passed("io_destroy", "context:hex")

_PREADV, _PWRITEV = 7, 8
_NO_BUFFER: Final = frozenset((2, 3, 5))  # synchronising, polling
_SUBMITTED: Final = 1024  # at a time
_OPERATION: Final = 16  # offsets in struct iocb
_BUFFER: Final = 24
_EVENT: Final = struct.Struct("<QQqq")  # data, iocb, two results
_EVENTS: Final = 1024


@AIO.handled("io_submit", "context:hex count:long iocbs:pointer")
def io_submit(thread: Thread, context: int, count: int, iocbs: int) -> int:
    """Start operations; what the host finds wrong with one ends the list."""
    if count >> 63:
        return -errno.EINVAL
    started = 0
    for index in range(min(count, _SUBMITTED)):
        try:
            (iocb,) = struct.unpack("<Q", thread.space.read(iocbs + 8 * index, 8))
            result = _submit(thread, context, iocb)
        except MemoryFault:
            result = -errno.EFAULT
        if result != 1:
            return started or result
        started += 1
    return started or thread.call("io_submit", context, 0, 0)


def _submit(thread: Thread, context: int, iocb: int) -> int:
    """Start one operation. The host reads the pointer in the iocb now, and knows the operation
    by the iocb's address from then on."""
    (operation,) = struct.unpack("<H", thread.space.read(iocb + _OPERATION, 2))
    data = thread.space.read(iocb + _BUFFER, 16)
    buffer, nbytes = struct.unpack("<QQ", data)
    if operation in (_PREADV, _PWRITEV):
        if nbytes > _SUBMITTED:
            return -errno.EINVAL
        buffer = thread.scratch_bytes(thread.host_vector(buffer, nbytes))
    elif operation not in _NO_BUFFER:
        buffer = thread.pointer(buffer)
    pointer = thread.scratch_bytes(struct.pack("<Q", thread.pointer(iocb)))
    thread.space.write(iocb + _BUFFER, struct.pack("<Q", buffer))
    try:
        return thread.call("io_submit", context, 1, pointer)
    finally:
        thread.space.write(iocb + _BUFFER, data[:8])


@AIO.handled("io_cancel", "context:hex iocb:pointer result:pointer")
def io_cancel(thread: Thread, context: int, iocb: int, result: int) -> int:
    """Try to stop an operation."""
    return thread.call("io_cancel", context, thread.pointer(iocb), thread.pointer(result))


def _get_events(
    thread: Thread, name: str, context: int, least: int, most: int, events: int, *rest: int
) -> int:
    if not 0 <= least <= most < 1 << 63:
        return -errno.EINVAL
    most = min(most, _EVENTS)
    pointer = thread.scratch_room(most * _EVENT.size)
    result = thread.call(name, context, min(least, most), most, pointer, *rest)
    if result > 0:
        host = thread.scratch_read(pointer, result * _EVENT.size)
        base = thread.space.base
        guest = [
            _EVENT.pack(data, iocb - base, *results)
            for data, iocb, *results in _EVENT.iter_unpack(host)
        ]
        thread.space.write(events, b"".join(guest))
    return result


@AIO.handled(
    "io_getevents",
    "context:hex least:long most:long events:pointer timeout:struct_in.timespec",
)
def io_getevents(
    thread: Thread, context: int, least: int, most: int, events: int, timeout: int
) -> int:
    """Wait for operations that have ended."""
    rest = (context, least, most, events, thread.pointer(timeout))
    return _get_events(thread, "io_getevents", *rest)


@AIO.handled(
    "io_pgetevents",
    "context:hex least:long most:long events:pointer timeout:struct_in.timespec sigmask:pointer",
)
def io_pgetevents(
    thread: Thread, context: int, least: int, most: int, events: int, timeout: int, mask: int
) -> int:
    """Wait for operations that have ended, with another signal mask meanwhile."""
    pair = 0
    if mask:
        address, nbytes = struct.unpack("<QQ", thread.space.read(mask, 16))
        pair = thread.scratch_bytes(struct.pack("<QQ", thread.pointer(address), nbytes))
    rest = (context, least, most, events, thread.pointer(timeout), pair)
    return _get_events(thread, "io_pgetevents", *rest)
