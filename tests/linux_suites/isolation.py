"""Namespaces in which a suite can do no harm: it signals every process, mounts, renames the host.

The suite is root there, without power over what all namespaces share: clocks, devices, modules,
settings of the machine. Files are read only.
Sources: user_namespaces(7), the kernel's admin-guide/binfmt-misc.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from anyarch.errors import Error

_libc: Final = ctypes.CDLL(None, use_errno=True)
_NEW_ALL: Final = 0x7C020000  # mount, uts, ipc, user, pid, net
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 0x1000, 0x4000, 1 << 18
# What a mount may not lose: its bits in statvfs, and in mount. NOSUID, NODEV, NOEXEC, *ATIME.
_KEPT_FLAGS: Final = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_SETTINGS: Final = "/proc/sys"
_OWN_SETTINGS: Final = (
    *("net", "fs/mqueue", "kernel/msg*", "kernel/sem*", "kernel/shm*", "kernel/ns_last_pid"),
    *("kernel/hostname", "kernel/domainname", "user"),
)
_PR_CAPBSET_DROP, _CAP_SYS_RESOURCE = 24, 24
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_USERS: Final = 65536
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
_NAME: Final = "guest"


class IsolationError(Error):
    """The kernel does not allow the namespaces."""


def isolate(writable: Iterable[Path]) -> int | None:
    """Go on in namespaces of our own: None there; outside, once all has ended, its exit status.

    Nothing can be written there but the folders ``writable``, which exist.
    """
    ready, mapped = os.pipe(), os.pipe()
    outer = os.fork()
    if outer == 0:
        if _libc.unshare(_NEW_ALL) != 0:
            os._exit(os.EX_NOPERM)
        os.write(ready[1], b"r")
        os.read(mapped[0], 1)
        inner = os.fork()
        if inner:
            os._exit(_wait(inner))
        _prepare([path.resolve() for path in writable])
        suite = os.fork()
        if suite:
            os._exit(_reap(suite))
        return None
    os.close(ready[1])
    if os.read(ready[0], 1):
        _map_users(outer)
        os.write(mapped[1], b"m")
    status = _wait(outer)
    if status == os.EX_NOPERM:
        raise IsolationError("no namespaces: the kernel does not allow them to this user")
    return status


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def _reap(child: int) -> int:
    """As a namespace's first process, which orphans are left to: take them all, until one ends."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _map_users(child: int) -> None:
    """Root has all users in the namespace, others only themselves, as root."""
    folder = Path(f"/proc/{child}")
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        if own and name == "gid_map":
            (folder / "setgroups").write_text("deny")
        (folder / name).write_text(f"0 {own} 1" if os.geteuid() else f"0 0 {_USERS}")


def _prepare(writable: list[Path]) -> None:
    os.setgid(0)
    os.setuid(0)
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    for path in writable:
        _mount(str(path), str(path), "", _MS_BIND)
    # Users of the namespace are the machine's: what is root's would be the suite's.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape")
        if Path(place) not in writable:
            _make_read_only(place)
    _mount("proc", "/proc", "proc", 0)
    _protect_settings()
    _mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777")
    _mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666")
    # What mounts a file system of its own may not do it here, and is not to take a device for it.
    for device in Path("/dev").glob("loop*"):
        _mount("/dev/null", str(device), "", _MS_BIND)
        _make_read_only(str(device))
    with contextlib.suppress(IsolationError):
        _mount("none", str(_BINFMT), "binfmt_misc", 0)
    # Over the namespace only; LTP would take it for the machine's, and warn in every test.
    _libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_RESOURCE, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("<16sh22x", b"lo", 0)
        flags = struct.unpack_from("<h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("<16sh22x", b"lo", flags | _IFF_UP))


def _make_read_only(place: str) -> None:
    """Devices can be used nevertheless. A mount that another one hides is not to be had."""
    kept = os.statvfs(place).f_flag
    flags = sum(flag for bit, flag in _KEPT_FLAGS.items() if kept & bit)
    with contextlib.suppress(IsolationError):
        _mount("none", place, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | flags)


def _protect_settings() -> None:
    """Only those of our own namespaces may be written: the others hold for the whole machine."""
    _mount(_SETTINGS, _SETTINGS, "", _MS_BIND | _MS_REC)
    for pattern in _OWN_SETTINGS:
        for path in Path(_SETTINGS).glob(pattern):
            _mount(str(path), str(path), "", _MS_BIND)
    _mount("none", _SETTINGS, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    texts = (source.encode(), target.encode(), kind.encode() or None)
    arguments = (*texts, flags, data.encode() or None)
    if _libc.mount(*map(_argument, arguments)) != 0:
        code = ctypes.get_errno()
        raise IsolationError(f"mount of {target}: {os.strerror(code)} ({errno.errorcode[code]})")


def _argument(value: bytes | int | None) -> object:
    return ctypes.c_ulong(value) if isinstance(value, int) else value


def execute_with(emulator: str | None, machine: int) -> None:
    """Have programs for an ELF machine executed by an emulator, or none, in the namespaces."""
    if not (_BINFMT / "register").exists():
        return
    with contextlib.suppress(OSError):
        (_BINFMT / _NAME).write_text("-1")
    if emulator is not None:
        head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine)
        mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
        words = ("".join(f"\\x{byte:02x}" for byte in data) for data in (head, mask))
        (_BINFMT / "register").write_text(f":{_NAME}:M::{':'.join(words)}:{emulator}:F")
