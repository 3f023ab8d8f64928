"""Descriptors and what is read and written through them: opening, reading, seeking, locking."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

FILES: Final = Family()
_OPEN_HOW: Final = struct.Struct("<QQQ")
_OPEN_HOW_MAXIMUM: Final = 4096
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH, _RESOLVE_IN_ROOT = 2, 4, 8, 16

for _name, _signature in {
    "read": "fd:fd buf:bytes_out.count count:size",
    "write": "fd:fd buf:bytes_in.count count:size",
    "pread64": "fd:fd buf:bytes_out.count count:size offset:off",
    "pwrite64": "fd:fd buf:bytes_in.count count:size offset:off",
    "readv": "fd:fd iov:iovec_out.iovcnt iovcnt:int",
    "writev": "fd:fd iov:iovec_in.iovcnt iovcnt:int",
    "preadv": "fd:fd iov:iovec_out.iovcnt iovcnt:int offset:off high:off",
    "pwritev": "fd:fd iov:iovec_in.iovcnt iovcnt:int offset:off high:off",
    "preadv2": "fd:fd iov:iovec_out.iovcnt iovcnt:int offset:off high:off flags:hex",
    "pwritev2": "fd:fd iov:iovec_in.iovcnt iovcnt:int offset:off high:off flags:hex",
    "vmsplice": "fd:fd iov:iovec_in.iovcnt iovcnt:size flags:flags.splice",
    "splice": "in:fd off_in:struct_io.off out:fd off_out:struct_io.off len:size flags:flags.splice",
    "tee": "in:fd out:fd len:size flags:flags.splice",
    "sendfile": "out:fd in:fd offset:struct_io.off count:size",
    "copy_file_range": (
        "in:fd off_in:struct_io.off out:fd off_out:struct_io.off len:size flags:hex"
    ),
    "flock": "fd:fd operation:flags.flock",
    "fsync": "fd:fd",
    "fdatasync": "fd:fd",
    "fallocate": "fd:fd mode:flags.fallocate offset:off len:off",
}.items():
    FILES.passed(_name, _signature, native=True, restart=True)

for _name, _signature in {
    "lseek": "fd:fd offset:off whence:enum.whence",
    "dup": "oldfd:fd",
    "ftruncate": "fd:fd length:off",
    "fadvise64": "fd:fd offset:off len:off advice:enum.fadvise",
    "readahead": "fd:fd offset:off count:size",
    "sync_file_range": "fd:fd offset:off nbytes:off flags:hex",
    "sync": "",
    "syncfs": "fd:fd",
    "pipe2": "pipefd:fds_out flags:flags.pipe",
    "getdents64": "fd:fd dirp:struct_out.dirents count:size",
    "fchmod": "fd:fd mode:mode",
    "fchown": "fd:fd owner:uid group:uid",
    "fstatfs": "fd:fd buf:struct_out.statfs",
    "fgetxattr": "fd:fd name:string value:bytes_out.size size:size",
    "fsetxattr": "fd:fd name:string value:bytes_in.size size:size flags:int",
    "flistxattr": "fd:fd list:bytes_out.size size:size",
    "fremovexattr": "fd:fd name:string",
    "inotify_init1": "flags:flags.inotify",
    "inotify_rm_watch": "fd:fd wd:int",
    "memfd_create": "name:string flags:hex",
    "memfd_secret": "flags:flags.open",
    "open_by_handle_at": "mount:fd handle:pointer flags:flags.open",
    "fanotify_init": "flags:hex event_flags:flags.open",
    "vhangup": "",
    "cachestat": "fd:fd range:pointer stat:pointer flags:hex",
}.items():
    FILES.passed(_name, _signature, native=True)


@FILES.handled(
    "openat",
    "dirfd:dirfd path:path flags:flags.open mode:mode",
    result="fd",
    native=True,
    restart=True,
)
def openat(thread: Thread, dirfd: int, path: int, flags: int, mode: int) -> int:
    """Open a file; some of /proc is the guest's own."""
    host_flags = thread.abi.host_open_flags(flags)
    name = thread.find(thread.read_path(path), not flags_nofollow(host_flags), dirfd)
    text = thread.proc.contents(name)
    if text is not None:
        return thread.open_text(text, flags)
    fd = thread.call("openat", dirfd, thread.scratch_bytes(name + b"\0"), host_flags, mode)
    if fd >= 0:
        thread.opened = fd
        thread.process.paths.opened(fd, name)
    return fd


def flags_nofollow(host_flags: int) -> bool:
    """Whether opening with these flags leaves a last symbolic link alone."""
    exclusive = os.O_CREAT | os.O_EXCL
    return bool(host_flags & os.O_NOFOLLOW) or host_flags & exclusive == exclusive


@FILES.handled("openat2", "dirfd:dirfd path:path how:struct_in.open_how size:size", result="fd")
def openat2(thread: Thread, dirfd: int, path: int, how: int, size: int) -> int:
    """Open with resolution rules, which the host keeps; its root folder is the guest's root."""
    if size < _OPEN_HOW.size:
        return -errno.EINVAL
    if size > _OPEN_HOW_MAXIMUM:
        return -errno.E2BIG
    flags, mode, resolve = _OPEN_HOW.unpack(thread.space.read(how, _OPEN_HOW.size))
    name = thread.read_path(path)
    host_flags = thread.abi.host_open_flags(flags)
    if not resolve & (_RESOLVE_BENEATH | _RESOLVE_IN_ROOT):  # else it begins at dirfd
        follow = not flags_nofollow(host_flags) and not resolve & _RESOLVE_NO_SYMLINKS
        find = thread.process.paths.resolve if resolve & _RESOLVE_NO_MAGICLINKS else thread.find
        name = find(name, follow, dirfd)
    text = None if resolve or mode else thread.proc.contents(name)
    if text is not None:
        return thread.open_text(text, flags)
    extension = thread.space.read(how + _OPEN_HOW.size, size - _OPEN_HOW.size)
    pointer = thread.scratch_bytes(_OPEN_HOW.pack(host_flags, mode, resolve) + extension)
    fd = thread.call("openat2", dirfd, thread.scratch_bytes(name + b"\0"), pointer, size)
    if fd >= 0:
        thread.opened = fd
        thread.process.paths.opened(fd, name)
    return fd


@FILES.handled("fchdir", "fd:fd")
def fchdir(thread: Thread, fd: int) -> int:
    """Make an open folder the working directory."""
    result = thread.call("fchdir", fd)
    thread.process.paths.moved()
    return result


@FILES.handled("close", "fd:fd", native=True)
def close(thread: Thread, fd: int) -> int:
    """Close a descriptor that the guest owns."""
    fd &= 0xFFFFFFFF
    if fd in thread.reserved:
        return -errno.EBADF
    return thread.call("close", fd)


@FILES.handled("dup3", "oldfd:fd newfd:fd flags:flags.pipe", result="fd")
def dup3(thread: Thread, old: int, new: int, flags: int) -> int:
    """Duplicate onto a descriptor that the guest owns."""
    if {old & 0xFFFFFFFF, new & 0xFFFFFFFF} & thread.reserved:
        return -errno.EBADF
    return thread.call("dup3", old, new, thread.abi.host_open_flags(flags))


@FILES.handled("close_range", "first:fd last:fd flags:hex")
def close_range(thread: Thread, first: int, last: int, flags: int) -> int:
    """Close a range, around the descriptors that are ours."""
    first, last = first & 0xFFFFFFFF, last & 0xFFFFFFFF
    if first > last:
        return -errno.EINVAL
    for kept in sorted(thread.reserved):
        if first <= kept <= last:
            if first < kept:
                thread.call("close_range", first, kept - 1, flags)
            first = kept + 1
    return thread.call("close_range", first, last, flags) if first <= last else 0


_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = range(5)
_F_LOCKS: Final = frozenset((5, 6, 7, 36, 37, 38))  # F_GETLK to F_SETLKW, and of open files
_F_POINTERS: Final = _F_LOCKS | {15, 16, 1035, 1036, 1037, 1038}  # owners, write hints
_F_NUMBERS: Final = frozenset(
    (_F_DUPFD, _F_GETFD, _F_SETFD, *range(8, 12), *range(1024, 1029), *range(1030, 1035))
)


@FILES.handled("fcntl", "fd:fd cmd:enum.fcntl arg:hex", native=True, restart=True, operations=0b111)
def fcntl(thread: Thread, fd: int, command: int, argument: int) -> int:
    """Duplicate, flags, locks, leases, pipe sizes, seals."""
    if fd & 0xFFFFFFFF in thread.reserved:
        return -errno.EBADF
    if command == _F_GETFL:
        flags = thread.call("fcntl", fd, command, 0)
        return flags if flags < 0 else thread.abi.guest_open_flags(flags)
    if command == _F_SETFL:
        return thread.call("fcntl", fd, command, thread.abi.host_open_flags(argument))
    if command in _F_POINTERS:
        return thread.call("fcntl", fd, command, thread.pointer(argument))
    if command in _F_NUMBERS:
        return thread.call("fcntl", fd, command, argument)
    return -errno.EINVAL


# Requests from before requests said what they carry, by the byte that says for what device they
# are: the third argument is a number (or unused) in those listed, a pointer in all others.
_OLD_REQUESTS: Final[dict[int, frozenset[int]]] = {
    0x00: frozenset(),  # FIBMAP, FIGETBSZ
    0x12: frozenset((0x1261, 0x1262, 0x1264)),  # block devices: BLKFLSBUF, BLKRASET, BLKFRASET
    0x4B: frozenset((0x4B2F, 0x4B30, 0x4B32, 0x4B3A, 0x4B45)),  # consoles
    0x4C: frozenset((0x4C00, 0x4C01, 0x4C06, 0x4C07, 0x4C08, 0x4C09, *range(0x4C80, 0x4C83))),
    0x54: frozenset(  # terminals, descriptors
        (
            *range(0x5409, 0x540F),
            *(0x5422, 0x5425, 0x5427, 0x5428, 0x5437, 0x5441, 0x5450, 0x5451),
        )
    ),
    0x56: frozenset(range(0x5605, 0x5609)),  # virtual terminals: RELDISP, ACTIVATE and so on
    0x89: frozenset(),  # sockets, network interfaces
}
# They do say that they carry something, which is a number nevertheless.
_NUMBERS: Final = frozenset((0x40049409, *range(0x40045564, 0x4004556E)))  # FICLONE, UI_SET_*


def _carries_number(request: int) -> bool:
    old = None if request >> 30 else _OLD_REQUESTS.get(request >> 8)
    if old is None:
        return not request >> 30 or request in _NUMBERS
    return request in old


_SIOCGIFCONF: Final = 0x8912
_IFCONF: Final = struct.Struct("<i4xQ")


@FILES.handled("ioctl", "fd:fd request:enum.ioctl arg:ioctl", restart=True)
def ioctl(thread: Thread, fd: int, request: int, argument: int) -> int:
    """Terminals, descriptor flags, network interfaces, and what encodes its own size."""
    request &= 0xFFFFFFFF
    if request == _SIOCGIFCONF:
        return _list_interfaces(thread, fd, argument)
    value = argument if _carries_number(request) else thread.pointer(argument)
    return thread.call("ioctl", fd, request, value)


def _list_interfaces(thread: Thread, fd: int, address: int) -> int:
    """SIOCGIFCONF: the structure holds a length and a pointer."""
    nbytes, buffer = _IFCONF.unpack(thread.space.read(address, _IFCONF.size))
    pointer = thread.scratch_bytes(_IFCONF.pack(nbytes, thread.pointer(buffer)))
    result = thread.call("ioctl", fd, _SIOCGIFCONF, pointer)
    if result >= 0:
        thread.space.write(address, thread.scratch_read(pointer, 4))
    return result


@FILES.handled("fstat", "fd:fd statbuf:struct_out.stat", native=True)
def fstat(thread: Thread, fd: int, buffer: int) -> int:
    """Describe an open file."""
    return thread.call_stat("fstat", buffer, fd)


@FILES.handled(
    "newfstatat", "dirfd:dirfd path:path statbuf:struct_out.stat flags:flags.at", native=True
)
def newfstatat(thread: Thread, dirfd: int, path: int, buffer: int, flags: int) -> int:
    """Describe a file by name."""
    host_path = thread.find(thread.read_path(path), not flags & 0x100, dirfd)
    pointer = thread.scratch_bytes(host_path + b"\0")
    return thread.call_stat("newfstatat", buffer, dirfd, pointer, flags)
