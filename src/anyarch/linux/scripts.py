"""What execve is given: a guest's program, a host's, or a script that names its interpreter.

Source for what is refused: execve(2), Linux ``fs/binfmt_elf.c``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from anyarch.data import dataclass
from anyarch.errors import LoadError
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.architectures import ABIS
from anyarch.linux.elf import read_elf

_HEAD_NBYTES: Final = 256
_MAXIMUM_DEPTH: Final = 5


@dataclass(slots=True, frozen=True)
class Program:
    """A program that can be executed."""

    host_path: bytes
    name: bytes
    arguments: list[bytes]
    abi: LinuxAbi | None  # of a guest; the host's kernel is to know any other
    interpreter: bytes | None = None  # the guest's name of its dynamic linker


def find_program(
    name: bytes, arguments: list[bytes], find: Callable[[bytes], bytes]
) -> Program | int:
    """The program that executing ``name`` runs, or -errno. ``find`` gives host paths."""
    for _ in range(_MAXIMUM_DEPTH):
        path = find(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return -(error.errno or errno.ENOENT)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or not os.access(path, os.X_OK):
                return -errno.EACCES
            if _is_being_written(fd):
                return -errno.ETXTBSY
            head = os.pread(fd, _HEAD_NBYTES, 0)
            if head.startswith(b"\x7fELF"):
                abi = ABIS.get(int.from_bytes(head[18:20], "little"))
                if abi is None:
                    return Program(path, name, arguments, None)
                try:
                    linker = read_elf(fd, os.fsdecode(name)).interpreter
                except LoadError:
                    return -errno.ENOEXEC
                interpreter = None if linker is None else os.fsencode(linker)
                return Program(path, name, arguments, abi, interpreter)
        finally:
            os.close(fd)
        if not head.startswith(b"#!"):
            return -errno.ENOEXEC
        words = head[2:].split(b"\n", 1)[0].strip(b" \t").split(None, 1)
        if not words:
            return -errno.ENOEXEC
        options = [word.rstrip(b" \t") for word in words[1:]]
        arguments = [words[0], *options, name, *arguments[1:]]
        name = words[0]
    return -errno.ELOOP


def refuse_interpreter(path: bytes, abi: LinuxAbi) -> int:
    """-errno where a host path does not lead to a dynamic linker of an architecture, else 0."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return -(error.errno or errno.ENOENT)
    try:
        return 0 if read_elf(fd, "").machine == abi.elf_machine else -errno.ELIBBAD
    except LoadError:
        return -errno.ELIBBAD
    finally:
        os.close(fd)


def _is_being_written(fd: int) -> bool:
    """Whether anyone has a file open for writing: then no lease for readers is to be had."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # others: not our file, or a file system without leases
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
