"""Sockets: numbers and structures are the same everywhere but for the pointers in messages."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from anyarch.errors import MemoryFault
from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

SOCKETS: Final = Family()

for _name, _signature in {
    "accept": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int",
    "accept4": "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int flags:flags.accept",
    "recvfrom": (
        "fd:fd buf:bytes_out.len len:size flags:flags.message addr:struct_out.sockaddr "
        "addrlen:struct_io.int"
    ),
}.items():
    SOCKETS.passed(_name, _signature, native=True, restart=True)

for _name, _signature in {
    "socket": "domain:enum.domain type:enum.socket protocol:int",
    "socketpair": "domain:enum.domain type:enum.socket protocol:int sv:fds_out",
    "listen": "fd:fd backlog:int",
    "shutdown": "fd:fd how:enum.shutdown",
    "getsockopt": "fd:fd level:int name:int value:pointer len:struct_io.int",
}.items():
    SOCKETS.passed(_name, _signature, native=True)

_AF_UNIX: Final = 1
_PATH_START: Final = 2  # in struct sockaddr_un
_ADDRESS_NBYTES: Final = 110  # of struct sockaddr_un


@contextlib.contextmanager
def _host_address(
    thread: Thread, address: int, nbytes: int, *, follow: bool = True
) -> Iterator[tuple[int, int]]:
    """Pointer and length of a socket's address whose path, if it has one, is the host's."""
    nbytes &= 0xFFFFFFFF
    pointer, folder = thread.pointer(address), -1
    if address and _PATH_START < nbytes <= _ADDRESS_NBYTES:
        data = thread.space.read(address, nbytes)
        path = data[_PATH_START:].partition(b"\0")[0]
        host_path = thread.find(path, follow) if path else path
        if int.from_bytes(data[:2], "little") == _AF_UNIX and host_path != path:
            if _PATH_START + len(host_path) >= _ADDRESS_NBYTES:
                folder = os.open(os.path.dirname(host_path), os.O_PATH | os.O_CLOEXEC)
                host_path = b"/proc/self/fd/%d/%s" % (folder, os.path.basename(host_path))
            data = data[:_PATH_START] + host_path + b"\0"
            pointer, nbytes = thread.scratch_bytes(data), len(data)
    try:
        yield pointer, nbytes
    finally:
        if folder >= 0:
            os.close(folder)


@SOCKETS.handled("bind", "fd:fd addr:struct_in.sockaddr addrlen:int", native=True)
def bind(thread: Thread, fd: int, address: int, nbytes: int) -> int:
    """Give a socket a name."""
    with _host_address(thread, address, nbytes, follow=False) as host:
        return thread.call("bind", fd, *host)


@SOCKETS.handled("connect", "fd:fd addr:struct_in.sockaddr addrlen:int", native=True, restart=True)
def connect(thread: Thread, fd: int, address: int, nbytes: int) -> int:
    """Connect to a name."""
    with _host_address(thread, address, nbytes) as host:
        return thread.call("connect", fd, *host)


@SOCKETS.handled(
    "sendto",
    "fd:fd buf:bytes_in.len len:size flags:flags.message addr:struct_in.sockaddr addrlen:int",
    native=True,
    restart=True,
)
def sendto(
    thread: Thread, fd: int, buffer: int, count: int, flags: int, address: int, nbytes: int
) -> int:
    """Send, to a name where one is given."""
    with _host_address(thread, address, nbytes) as host:
        return thread.call("sendto", fd, thread.pointer(buffer), count, flags, *host)


def _ask_name(thread: Thread, call: str, fd: int, address: int, length: int) -> int:
    """A call that asks for a name; a path in the root is the guest's."""
    room = int.from_bytes(thread.space.read(length, 4), "little", signed=True)
    if room < 0:
        return -errno.EINVAL
    pointer = thread.scratch_room(128 + 4)
    thread.scratch_write(pointer + 128, min(room, 128).to_bytes(4, "little"))
    result = thread.call(call, fd, pointer, pointer + 128)
    if result < 0:
        return result
    data = thread.scratch_read(pointer, 128 + 4)
    nbytes = int.from_bytes(data[128:], "little")
    data = data[: min(nbytes, 128)]
    if data[:3] == b"\1\0/" and nbytes <= room:
        path = data[_PATH_START:].partition(b"\0")[0]
        guests = thread.process.paths.guest(path)
        if guests != path:
            data = data[:_PATH_START] + guests + b"\0"
            nbytes = len(data)
    thread.space.write(address, data[:room])
    thread.space.write(length, struct.pack("<I", nbytes))
    return 0


@SOCKETS.handled("getsockname", "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int", native=True)
def getsockname(thread: Thread, fd: int, address: int, length: int) -> int:
    """The name of a socket."""
    return _ask_name(thread, "getsockname", fd, address, length)


@SOCKETS.handled("getpeername", "fd:fd addr:struct_out.sockaddr addrlen:struct_io.int", native=True)
def getpeername(thread: Thread, fd: int, address: int, length: int) -> int:
    """The name of the socket at the other end."""
    return _ask_name(thread, "getpeername", fd, address, length)


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
        return -errno.EMSGSIZE
    name, nbytes = struct.unpack("<QI", thread.space.read(message, 12))
    with _host_address(thread, name, nbytes) as address:
        header = struct.pack("<QI", *address) + host[0][12:]
        return thread.call("sendmsg", fd, _place(thread, header, host[1]), flags)


@SOCKETS.handled("recvmsg", "fd:fd msg:pointer flags:flags.message", restart=True)
def recvmsg(thread: Thread, fd: int, message: int, flags: int) -> int:
    """Receive a message; lengths and flags are written back."""
    host = _host_message(thread, message)
    if host is None:
        return -errno.EMSGSIZE
    pointer = _place(thread, *host)
    result = thread.call("recvmsg", fd, pointer, flags)
    if result >= 0:
        _write_back(thread, message, thread.scratch_read(pointer, _MESSAGE.size))
    return result


def _write_back(thread: Thread, message: int, host: bytes) -> None:
    _, name_nbytes, _, _, _, control_nbytes, flags = _MESSAGE.unpack(host)
    thread.space.write(message + 8, struct.pack("<I", name_nbytes))
    thread.space.write(message + 40, struct.pack("<QI", control_nbytes, flags))


_ENTRY: Final = struct.Struct("<56sI4x")  # struct mmsghdr: a header, how much was moved


def _place_all(thread: Thread, messages: int, count: int) -> tuple[int, int]:
    """The vector for the host, and how many of its messages are usable; the first one must be."""
    hosts: list[tuple[bytes, bytes]] = []
    for index in range(min(count & 0xFFFFFFFF, _VECTORS)):
        try:
            host = _host_message(thread, messages + index * _ENTRY.size)
        except MemoryFault:
            if not index:
                raise
            break
        if host is None:
            break
        hosts.append(host)
    pointers = [thread.scratch_bytes(vector) for _, vector in hosts]
    entries = []
    for (header, _), pointer in zip(hosts, pointers, strict=True):
        fields = list(_MESSAGE.unpack(header))
        fields[2] = pointer
        entries.append(_ENTRY.pack(_MESSAGE.pack(*fields), 0))
    return thread.scratch_bytes(b"".join(entries)), len(hosts)


@SOCKETS.handled("sendmmsg", "fd:fd msgs:pointer vlen:uint flags:flags.message", restart=True)
def sendmmsg(thread: Thread, fd: int, messages: int, count: int, flags: int) -> int:
    """Send several messages, as many as go without an error."""
    pointer, usable = _place_all(thread, messages, count)
    if count and not usable:
        return -errno.EMSGSIZE
    result = thread.call("sendmmsg", fd, pointer, usable, flags)
    for index in range(max(result, 0)):
        place = index * _ENTRY.size
        _, moved = _ENTRY.unpack(thread.scratch_read(pointer + place, _ENTRY.size))
        thread.space.write(messages + place + _MESSAGE.size, struct.pack("<I", moved))
    return result


@SOCKETS.handled(
    "recvmmsg",
    "fd:fd msgs:pointer vlen:uint flags:flags.message timeout:struct_io.timespec",
    restart=True,
)
def recvmmsg(thread: Thread, fd: int, messages: int, count: int, flags: int, timeout: int) -> int:
    """Receive several messages."""
    pointer, usable = _place_all(thread, messages, count)
    if count and not usable:
        return -errno.EMSGSIZE
    result = thread.call("recvmmsg", fd, pointer, usable, flags, thread.pointer(timeout))
    for index in range(max(result, 0)):
        place = index * _ENTRY.size
        header, moved = _ENTRY.unpack(thread.scratch_read(pointer + place, _ENTRY.size))
        _write_back(thread, messages + place, header)
        thread.space.write(messages + place + _MESSAGE.size, struct.pack("<I", moved))
    return result
