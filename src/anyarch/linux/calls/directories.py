"""Names: creating, removing, linking and renaming them, and what is set or read through them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

DIRECTORIES: Final = Family()
_SYMLINK_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_CURRENT: Final = 0xFFFFFF9C  # AT_FDCWD
_ATTRIBUTE: Final = struct.Struct("<QII")
_ATTRIBUTE_MAXIMUM: Final = 4096
_PATH_NBYTES: Final = 4096

for _name, _signature in {
    "mkdirat": "dirfd:dirfd path:link mode:mode",
    "mknodat": "dirfd:dirfd path:link mode:mode dev:hex",
    "unlinkat": "dirfd:dirfd path:link flags:flags.at_remove",
    "symlinkat": "target:string newdirfd:dirfd linkpath:link",
    "linkat": "olddirfd:dirfd old:link newdirfd:dirfd new:link flags:flags.at",
    "renameat": "olddirfd:dirfd old:link newdirfd:dirfd new:link",
    "renameat2": "olddirfd:dirfd old:link newdirfd:dirfd new:link flags:flags.rename",
    "fchmodat": "dirfd:dirfd path:path mode:mode",
    "fchmodat2": "dirfd:dirfd path:path mode:mode flags:flags.at",
    "fchownat": "dirfd:dirfd path:link owner:uid group:uid flags:flags.at",
    "utimensat": "dirfd:dirfd path:path times:struct_in.timespecs flags:flags.at",
    "faccessat": "dirfd:dirfd path:path mode:flags.access",
    "faccessat2": "dirfd:dirfd path:path mode:flags.access flags:flags.at",
    "statx": ("dirfd:dirfd path:path flags:flags.at mask:flags.statx statxbuf:struct_out.statx"),
    "statfs": "path:path buf:struct_out.statfs",
    "truncate": "path:path length:off",
    "getxattr": "path:path name:string value:bytes_out.size size:size",
    "lgetxattr": "path:link name:string value:bytes_out.size size:size",
    "setxattr": "path:path name:string value:bytes_in.size size:size flags:int",
    "lsetxattr": "path:link name:string value:bytes_in.size size:size flags:int",
    "listxattr": "path:path list:bytes_out.size size:size",
    "llistxattr": "path:link list:bytes_out.size size:size",
    "removexattr": "path:path name:string",
    "lremovexattr": "path:link name:string",
    "inotify_add_watch": "fd:fd path:path mask:hex",
    "name_to_handle_at": "dirfd:dirfd path:link handle:pointer mount:struct_out.int flags:flags.at",
    "listxattrat": "dirfd:dirfd path:path flags:flags.at list:bytes_out.size size:size",
    "removexattrat": "dirfd:dirfd path:path flags:flags.at name:string",
    "file_getattr": "dirfd:dirfd path:path attr:pointer size:size flags:flags.at",
    "file_setattr": "dirfd:dirfd path:path attr:pointer size:size flags:flags.at",
    "fanotify_mark": "fd:fd flags:hex mask:hex dirfd:dirfd path:path",
}.items():
    DIRECTORIES.passed(_name, _signature, native=True)


def _attribute_value(thread: Thread, arguments: int, nbytes: int) -> int:
    """``struct xattr_args`` for the host: a pointer, a length, flags."""
    value, *rest = _ATTRIBUTE.unpack(thread.space.read(arguments, _ATTRIBUTE.size))
    extension = thread.space.read(arguments + _ATTRIBUTE.size, nbytes - _ATTRIBUTE.size)
    return thread.scratch_bytes(_ATTRIBUTE.pack(thread.pointer(value), *rest) + extension)


def _with_attribute(
    thread: Thread, call: str, dirfd: int, path: int, flags: int, name: int, value: int, size: int
) -> int:
    if size < _ATTRIBUTE.size:
        return -errno.EINVAL
    if size > _ATTRIBUTE_MAXIMUM:
        return -errno.E2BIG
    value = _attribute_value(thread, value, size)
    host_path = thread.find(thread.read_path(path), not flags & _SYMLINK_NOFOLLOW, dirfd)
    rest = (flags, thread.pointer(name), value, size)
    return thread.call(call, dirfd, thread.scratch_bytes(host_path + b"\0"), *rest)


_WITH_ATTRIBUTE: Final = "dirfd:dirfd path:path flags:flags.at name:string args:pointer size:size"


@DIRECTORIES.handled("getxattrat", _WITH_ATTRIBUTE)
def getxattrat(thread: Thread, *arguments: int) -> int:
    """Read an extended attribute."""
    return _with_attribute(thread, "getxattrat", *arguments)


@DIRECTORIES.handled("setxattrat", _WITH_ATTRIBUTE)
def setxattrat(thread: Thread, *arguments: int) -> int:
    """Set an extended attribute."""
    return _with_attribute(thread, "setxattrat", *arguments)


@DIRECTORIES.handled("chdir", "path:path")
def chdir(thread: Thread, path: int) -> int:
    """Make a folder the working directory."""
    host_path = thread.find(thread.read_path(path))
    result = thread.call("chdir", thread.scratch_bytes(host_path + b"\0"))
    thread.process.paths.moved()
    return result


@DIRECTORIES.handled("chroot", "path:path")
def chroot(thread: Thread, path: int) -> int:
    """Make a folder the root of all names, the interpreter's too."""
    host_path = thread.find(thread.read_path(path))
    thread.process.confine(thread)
    result = thread.call("chroot", thread.scratch_bytes(host_path + b"\0"))
    if result == 0:
        thread.process.paths.confined()
    return result


@DIRECTORIES.handled("getcwd", "buf:bytes_out.size size:size")
def getcwd(thread: Thread, buffer: int, size: int) -> int:
    """The working directory."""
    pointer = thread.scratch_room(_PATH_NBYTES)
    result = thread.call("getcwd", pointer, _PATH_NBYTES)
    if result < 0:
        return result
    folder = thread.scratch_read(pointer, result - 1)
    guests = thread.process.paths.guest(folder)
    if guests != folder and thread.find(guests) != folder:
        guests = folder  # a folder of the root by a name that means the host's
    if len(guests) >= size:
        return -errno.ERANGE
    thread.space.write(buffer, guests + b"\0")
    return len(guests) + 1


@DIRECTORIES.handled(
    "readlinkat", "dirfd:dirfd path:link buf:bytes_out.size size:size", native=True
)
def readlinkat(thread: Thread, dirfd: int, path: int, buffer: int, size: int) -> int:
    """Where a symbolic link points; those of /proc to what the guest knows."""
    name = thread.find(thread.read_path(path), False, dirfd)
    target = thread.proc.link(name)
    if target is None:
        pointer = thread.scratch_bytes(name + b"\0")
        return thread.call("readlinkat", dirfd, pointer, thread.pointer(buffer), size)
    nbytes = size & 0xFFFFFFFF
    if not 0 < nbytes < 1 << 31:
        return -errno.EINVAL
    target = target[:nbytes]
    thread.space.write(buffer, target)
    return len(target)


@DIRECTORIES.handled("execve", "path:path argv:strings envp:strings")
def execve(thread: Thread, path: int, argv: int, envp: int) -> int | None:
    """Replace the program."""
    return thread.process.execute(
        thread, thread.read_path(path), thread.read_strings(argv), thread.read_strings(envp)
    )


@DIRECTORIES.handled("execveat", "dirfd:dirfd path:path argv:strings envp:strings flags:flags.at")
def execveat(thread: Thread, dirfd: int, path: int, argv: int, envp: int, flags: int) -> int | None:
    """Replace the program with one named relative to a folder, or with an open file."""
    if flags & 0xFFFFFFFF & ~(_SYMLINK_NOFOLLOW | _EMPTY_PATH):
        return -errno.EINVAL
    name = thread.read_path(path)
    dirfd = dirfd & 0xFFFFFFFF
    lasts = True
    if not name and not flags & _EMPTY_PATH:
        return -errno.ENOENT
    if not name.startswith(b"/") and dirfd != _CURRENT:
        folder = b"/proc/self/fd/%d" % dirfd
        if not os.path.lexists(folder):
            return -errno.EBADF
        if name and not os.path.isdir(folder):
            return -errno.ENOTDIR
        lasts = not fcntl.fcntl(dirfd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        name = b"/dev/fd/%d" % dirfd + (b"/" + name if name else b"")
    if flags & _SYMLINK_NOFOLLOW and os.path.islink(thread.find(name, False)):
        return -errno.ELOOP
    arguments, environment = thread.read_strings(argv), thread.read_strings(envp)
    return thread.process.execute(thread, name, arguments, environment, lasts=lasts)
