"""Sockets: numbers and structures are the same everywhere but for the pointers in messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

SOCKETS: Final = Family()

for _name, _signature in {
    "accept": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int",
    "accept4": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int flags:flags.open",
    "connect": "fd:fd addr:struct_in.sockaddr addrlen:int",
    "sendto": (
        "fd:fd buf:bytes_in.len len:size flags:flags.message addr:struct_in.sockaddr addrlen:int"
    ),
    "recvfrom": (
        "fd:fd buf:bytes_out.len len:size flags:flags.message addr:struct_out.sockaddr "
        "addrlen:struct_io.int"
    ),
}.items():
    SOCKETS.passed(_name, _signature, native=True, restart=True)

for _name, _signature in {
    "socket": "domain:enum.domain type:enum.socket protocol:int",
    "socketpair": "domain:enum.domain type:enum.socket protocol:int sv:fds_out",
    "bind": "fd:fd addr:struct_in.sockaddr addrlen:int",
    "listen": "fd:fd backlog:int",
    "getsockname": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int",
    "getpeername": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int",
    "shutdown": "fd:fd how:enum.shutdown",
    "getsockopt": "fd:fd level:int name:int value:pointer len:struct_io.int",
}.items():
    SOCKETS.passed(_name, _signature, native=True)

_SOL_SOCKET: Final = 1
_FILTERS: Final = frozenset((26, 51))  # SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF
_PROGRAM: Final = struct.Struct("<H6xQ")  # struct sock_fprog


@SOCKETS.handled("setsockopt", "fd:fd level:int name:int value:bytes_in.len len:int")
def setsockopt(thread: Thread, fd: int, level: int, name: int, value: int, nbytes: int) -> int:
    """Set an option; only filters hold a pointer."""
    pointer = thread.pointer(value)
    filters = level & 0xFFFFFFFF == _SOL_SOCKET and name & 0xFFFFFFFF in _FILTERS
    if filters and nbytes & 0xFFFFFFFF >= _PROGRAM.size:
        count, code = _PROGRAM.unpack(thread.space.read(value, _PROGRAM.size))
        pointer = thread.scratch_bytes(_PROGRAM.pack(count, thread.pointer(code)))
    return thread.call("setsockopt", fd, level, name, pointer, nbytes)


# struct msghdr: name, its length, iovec, their count, control, its length, flags.
_MESSAGE: Final = struct.Struct("<QI4xQQQQI4x")
_VECTORS: Final = 1024


def _host_message(thread: Thread, address: int) -> tuple[bytes, bytes] | None:
    """The message header for the host, its vector's pointer still zero, and the vector."""
    fields = list(_MESSAGE.unpack(thread.space.read(address, _MESSAGE.size)))
    if fields[3] > _VECTORS:
        return None
    vector = thread.host_vector(fields[2], fields[3])
    fields[0], fields[2], fields[4] = thread.pointer(fields[0]), 0, thread.pointer(fields[4])
    return _MESSAGE.pack(*fields), vector


def _place(thread: Thread, header: bytes, vector: bytes) -> int:
    pointer = thread.scratch_room(len(header) + len(vector))
    fields = list(_MESSAGE.unpack(header))
    fields[2] = pointer + len(header)
    thread.scratch_write(pointer, _MESSAGE.pack(*fields) + vector)
    return pointer


@SOCKETS.handled("sendmsg", "fd:fd msg:pointer flags:flags.message", restart=True)
def sendmsg(thread: Thread, fd: int, message: int, flags: int) -> int:
    """Send a message."""
    host = _host_message(thread, message)
    if host is None:
        return -90
    return thread.call("sendmsg", fd, _place(thread, *host), flags)


@SOCKETS.handled("recvmsg", "fd:fd msg:pointer flags:flags.message", restart=True)
def recvmsg(thread: Thread, fd: int, message: int, flags: int) -> int:
    """Receive a message; lengths and flags are written back."""
    host = _host_message(thread, message)
    if host is None:
        return -90
    pointer = _place(thread, *host)
    result = thread.call("recvmsg", fd, pointer, flags)
    if result >= 0:
        _write_back(thread, message, thread.scratch_read(pointer, _MESSAGE.size))
    return result


def _write_back(thread: Thread, message: int, host: bytes) -> None:
    _, name_nbytes, _, _, _, control_nbytes, flags = _MESSAGE.unpack(host)
    thread.space.write(message + 8, struct.pack("<I", name_nbytes))
    thread.space.write(message + 40, struct.pack("<QI", control_nbytes, flags))


_VECTOR_ENTRY: Final = _MESSAGE.size + 8  # struct mmsghdr


@SOCKETS.handled("sendmmsg", "fd:fd msgs:pointer vlen:uint flags:flags.message", restart=True)
def sendmmsg(thread: Thread, fd: int, messages: int, count: int, flags: int) -> int:
    """Send several messages, as many as go without an error."""
    for index in range(min(count & 0xFFFFFFFF, _VECTORS)):
        message = messages + index * _VECTOR_ENTRY
        result = sendmsg(thread, fd, message, flags)
        if result is None or result < 0:
            return index or result or 0
        thread.space.write(message + _MESSAGE.size, struct.pack("<I", result))
    return min(count & 0xFFFFFFFF, _VECTORS)


@SOCKETS.handled(
    "recvmmsg",
    "fd:fd msgs:pointer vlen:uint flags:flags.message timeout:struct_io.timespec",
    restart=True,
)
def recvmmsg(thread: Thread, fd: int, messages: int, count: int, flags: int, timeout: int) -> int:
    """Receive several messages; only the first is waited for when MSG_WAITFORONE says so."""
    wait_for_one = 0x10000
    count = min(count & 0xFFFFFFFF, _VECTORS)
    for index in range(count):
        message = messages + index * _VECTOR_ENTRY
        dontwait = 0x40 if index and flags & wait_for_one else 0
        result = recvmsg(thread, fd, message, flags & ~wait_for_one | dontwait)
        if result is None or result < 0:
            return index or result or 0
        thread.space.write(message + _MESSAGE.size, struct.pack("<I", result))
    return count
