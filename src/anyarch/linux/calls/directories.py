"""Names: creating, removing, linking and renaming them, and what is set or read through them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

DIRECTORIES: Final = Family()
_SYMLINK_NOFOLLOW: Final = 0x100

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
    "mount": "source:string target:path type:string flags:hex data:string",
    "umount2": "target:path flags:hex",
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
    "fanotify_mark": "fd:fd flags:hex mask:hex dirfd:dirfd path:path",
    "acct": "path:path",
    "pivot_root": "new:path old:path",
}.items():
    DIRECTORIES.passed(_name, _signature, native=True)


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
    name = thread.read_path(path)
    dirfd = dirfd & 0xFFFFFFFF
    if not name.startswith(b"/") and dirfd != 0xFFFFFF9C:
        name = b"/proc/self/fd/%d" % dirfd + (b"/" + name if name else b"")
    if not name or (flags & _SYMLINK_NOFOLLOW and os.path.islink(name)):
        return -2 if not name else -40
    arguments, environment = thread.read_strings(argv), thread.read_strings(envp)
    return thread.process.execute(thread, name, arguments, environment)
