"""Names: creating, removing, linking and renaming them, and what is set or read through them."""

from __future__ import annotations

import errno
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
    "chdir": "path:path",
    "chroot": "path:path",
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
    text, value = thread.read_path(path), _attribute_value(thread, value, size)
    follow = not flags & _SYMLINK_NOFOLLOW
    rest = (flags, thread.pointer(name), value, size)
    return thread.call_path(call, dirfd, text, *rest, follow=follow)


_WITH_ATTRIBUTE: Final = "dirfd:dirfd path:path flags:flags.at name:string args:pointer size:size"


@DIRECTORIES.handled("getxattrat", _WITH_ATTRIBUTE)
def getxattrat(thread: Thread, *arguments: int) -> int:
    """Read an extended attribute."""
    return _with_attribute(thread, "getxattrat", *arguments)


@DIRECTORIES.handled("setxattrat", _WITH_ATTRIBUTE)
def setxattrat(thread: Thread, *arguments: int) -> int:
    """Set an extended attribute."""
    return _with_attribute(thread, "setxattrat", *arguments)


@DIRECTORIES.handled("getcwd", "buf:bytes_out.size size:size", native=True)
def getcwd(thread: Thread, buffer: int, size: int) -> int:
    """The working directory, as the host sees it."""
    return thread.call("getcwd", thread.pointer(buffer), size)


@DIRECTORIES.handled(
    "readlinkat", "dirfd:dirfd path:link buf:bytes_out.size size:size", native=True
)
def readlinkat(thread: Thread, dirfd: int, path: int, buffer: int, size: int) -> int:
    """Where a symbolic link points; /proc/self/exe is the guest program."""
    name = thread.read_path(path)
    program = thread.proc.program_name(name)
    if program is None:
        return thread.call_path(
            "readlinkat", dirfd, name, thread.pointer(buffer), size, follow=False
        )
    program = program[: size & 0x7FFFFFFF]
    thread.space.write(buffer, program)
    return len(program)


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
    if not name and not flags & _EMPTY_PATH:
        return -errno.ENOENT
    if not name.startswith(b"/") and dirfd != _CURRENT:
        folder = b"/proc/self/fd/%d" % dirfd
        if not os.path.lexists(folder):
            return -errno.EBADF
        if name and not os.path.isdir(folder):
            return -errno.ENOTDIR
        name = folder + (b"/" + name if name else b"")
    if flags & _SYMLINK_NOFOLLOW and os.path.islink(thread.host_path(name, follow=False)):
        return -errno.ELOOP
    arguments, environment = thread.read_strings(argv), thread.read_strings(envp)
    return thread.process.execute(thread, name, arguments, environment)
