"""Waiting for descriptors: poll, select, epoll, event and signal descriptors."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

EVENTS: Final = Family()

EVENTS.passed(
    "ppoll",
    "fds:struct_io.pollfds nfds:uint timeout:struct_io.timespec sigmask:sigset_in size:size",
    native=True,
)
for _name, _signature in {
    "epoll_create1": "flags:flags.epoll_create",
    "eventfd2": "initval:uint flags:flags.eventfd",
    "signalfd4": "fd:fd set:sigset_in size:size flags:flags.signalfd",
}.items():
    EVENTS.passed(_name, _signature, native=True)


@EVENTS.handled(
    "pselect6",
    "nfds:int readfds:struct_io.fdset writefds:struct_io.fdset exceptfds:struct_io.fdset "
    "timeout:struct_io.timespec sigmask:pointer",
)
def pselect6(
    thread: Thread, count: int, reads: int, writes: int, excepts: int, timeout: int, mask: int
) -> int:
    """Wait for descriptors in sets; the sixth argument holds a pointer and its size."""
    sets = [thread.pointer(address) for address in (reads, writes, excepts, timeout)]
    pair = 0
    if mask:
        address, nbytes = struct.unpack("<QQ", thread.space.read(mask, 16))
        pair = thread.scratch_bytes(struct.pack("<QQ", thread.pointer(address), nbytes))
    return thread.call("pselect6", count, *sets, pair)


# The host's epoll_event is packed: 12 bytes; the guest's has its data at offset 8.
_HOST_EVENT: Final = struct.Struct("<IQ")
_GUEST_EVENT: Final = struct.Struct("<I4xQ")


@EVENTS.handled("epoll_ctl", "epfd:fd op:enum.epoll fd:fd event:struct_in.epoll_event")
def epoll_ctl(thread: Thread, epfd: int, operation: int, fd: int, event: int) -> int:
    """Add, change or remove a descriptor."""
    pointer = 0
    if event:
        fields = _GUEST_EVENT.unpack(thread.space.read(event, _GUEST_EVENT.size))
        pointer = thread.scratch_bytes(_HOST_EVENT.pack(*fields))
    return thread.call("epoll_ctl", epfd, operation, fd, pointer)


def _wait(thread: Thread, name: str, events: int, count: int, arguments: list[int]) -> int:
    if not 0 < count & 0xFFFFFFFF < 1 << 31:
        return -22
    count = min(count & 0xFFFFFFFF, 4096)
    pointer = thread.scratch_room(count * _HOST_EVENT.size)
    arguments[1:3] = pointer, count
    result = thread.call(name, *arguments)
    if result > 0:
        host = thread.scratch_read(pointer, result * _HOST_EVENT.size)
        fields = _HOST_EVENT.iter_unpack(host)
        thread.space.write(events, b"".join(_GUEST_EVENT.pack(*event) for event in fields))
    return result


@EVENTS.handled(
    "epoll_pwait",
    "epfd:fd events:struct_out.epoll_events count:int timeout:int sigmask:sigset_in size:size",
    timeout="timeout",
)
def epoll_pwait(
    thread: Thread, epfd: int, events: int, count: int, timeout: int, mask: int, size: int
) -> int:
    """Wait for events."""
    milliseconds = (timeout & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)
    if milliseconds > 0:
        milliseconds = -(-thread.left_of(milliseconds * 10**6) // 10**6)
    arguments = [epfd, 0, 0, milliseconds, thread.pointer(mask), size]
    return _wait(thread, "epoll_pwait", events, count, arguments)


@EVENTS.handled(
    "epoll_pwait2",
    "epfd:fd events:struct_out.epoll_events count:int timeout:struct_in.timespec "
    "sigmask:sigset_in size:size",
    timeout="timeout",
)
def epoll_pwait2(
    thread: Thread, epfd: int, events: int, count: int, timeout: int, mask: int, size: int
) -> int:
    """Wait for events, with a finer timeout."""
    arguments = [epfd, 0, 0, thread.timeout(timeout), thread.pointer(mask), size]
    return _wait(thread, "epoll_pwait2", events, count, arguments)
