"""Processes: who we are, starting others, waiting for them, limits and scheduling."""

from __future__ import annotations

import errno
import resource
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

PROCESSES: Final = Family()

for _name, _signature in {
    "getpid": "",
    "getppid": "",
    "gettid": "",
    "getuid": "",
    "geteuid": "",
    "getgid": "",
    "getegid": "",
    "getresuid": "ruid:struct_out.int euid:struct_out.int suid:struct_out.int",
    "getresgid": "rgid:struct_out.int egid:struct_out.int sgid:struct_out.int",
    "setgid": "gid:uid",
    "setregid": "rgid:uid egid:uid",
    "setresgid": "rgid:uid egid:uid sgid:uid",
    "setfsgid": "gid:uid",
    "getgroups": "size:int list:pointer",
    "setgroups": "size:size list:pointer",
    "capget": "header:pointer data:pointer",
    "capset": "header:pointer data:pointer",
    "getpgid": "pid:pid",
    "setpgid": "pid:pid pgid:pid",
    "getsid": "pid:pid",
    "setsid": "",
    "getpriority": "which:enum.priority who:int",
    "setpriority": "which:enum.priority who:int prio:int",
    "ioprio_get": "which:int who:int",
    "ioprio_set": "which:int who:int ioprio:int",
    "umask": "mask:mode",
    "getrusage": "who:enum.rusage usage:struct_out.rusage",
    "getcpu": "cpu:struct_out.int node:struct_out.int cache:hex",
    "sched_yield": "",
    "sched_getaffinity": "pid:pid len:size mask:bytes_out.len",
    "sched_setaffinity": "pid:pid len:size mask:bytes_in.len",
    "sched_getscheduler": "pid:pid",
    "sched_setscheduler": "pid:pid policy:int param:pointer",
    "sched_getparam": "pid:pid param:pointer",
    "sched_setparam": "pid:pid param:pointer",
    "sched_getattr": "pid:pid attr:pointer size:size flags:hex",
    "sched_setattr": "pid:pid attr:pointer flags:hex",
    "sched_get_priority_max": "policy:int",
    "sched_get_priority_min": "policy:int",
    "sched_rr_get_interval": "pid:pid tp:struct_out.timespec",
    "pidfd_open": "pid:pid flags:hex",
    "pidfd_send_signal": "fd:fd sig:signal info:pointer flags:hex",
    "pidfd_getfd": "fd:fd target:fd flags:hex",
    "sysinfo": "info:struct_out.sysinfo",
    "getrandom": "buf:bytes_out.count count:size flags:flags.random",
    "sethostname": "name:bytes_in.len len:size",
    "setdomainname": "name:bytes_in.len len:size",
    "personality": "persona:hex",
    "unshare": "flags:flags.clone",
    "syslog": "type:int buf:bytes_out.len len:int",
    "lsm_list_modules": "ids:pointer size:pointer flags:hex",
    "lsm_get_self_attr": "attr:uint ctx:pointer size:pointer flags:hex",
    "kcmp": "pid1:pid pid2:pid type:int idx1:hex idx2:hex",
}.items():
    PROCESSES.passed(_name, _signature, native=True)

for _name, _signature in {
    "wait4": "pid:pid status:struct_out.wait options:flags.wait rusage:struct_out.rusage",
    "waitid": (
        "which:enum.waitid pid:pid info:struct_out.siginfo options:flags.wait "
        "rusage:struct_out.rusage"
    ),
}.items():
    PROCESSES.passed(_name, _signature, native=True, restart=True)


_NEWNS: Final = 0x20000
_NS_GET_NSTYPE: Final = 0xB703  # ioctl_nsfs(2)


@PROCESSES.handled("setuid", "uid:uid")
def setuid(thread: Thread, user: int) -> int:
    """Become another user."""
    thread.process.lose_rights(thread)
    return thread.call("setuid", user)


@PROCESSES.handled("setreuid", "ruid:uid euid:uid")
def setreuid(thread: Thread, real: int, effective: int) -> int:
    """Become another user, really or in effect."""
    thread.process.lose_rights(thread)
    return thread.call("setreuid", real, effective)


@PROCESSES.handled("setresuid", "ruid:uid euid:uid suid:uid")
def setresuid(thread: Thread, real: int, effective: int, saved: int) -> int:
    """Become another user, really, in effect, or later."""
    thread.process.lose_rights(thread)
    return thread.call("setresuid", real, effective, saved)


@PROCESSES.handled("setfsuid", "uid:uid")
def setfsuid(thread: Thread, user: int) -> int:
    """Become another user before files."""
    thread.process.lose_rights(thread)
    return thread.call("setfsuid", user)


@PROCESSES.handled("setns", "fd:fd nstype:flags.clone")
def setns(thread: Thread, fd: int, kinds: int) -> int:
    """Enter namespaces. With one of mounts comes another root of all names, the interpreter's
    too."""
    if not (kinds or thread.call("ioctl", fd, _NS_GET_NSTYPE)) & _NEWNS:
        return thread.call("setns", fd, kinds)
    thread.process.confine(thread)
    result = thread.call("setns", fd, kinds)
    if result == 0:
        thread.process.paths.confined()
    return result


@PROCESSES.handled("exit_group", "status:int", result="none")
def exit_group(thread: Thread, status: int) -> int | None:
    """End the process."""
    thread.process.end(status & 0xFF)


@PROCESSES.handled("uname", "name:struct_out.utsname")
def uname(thread: Thread, buffer: int) -> int:
    """The host's names, with the guest's machine."""
    host = thread.host_uname()
    names = (host.sysname, host.nodename, host.release, host.version, thread.abi.machine)
    fields = [name.encode()[:64].ljust(65, b"\0") for name in names]
    domain = b"(none)".ljust(65, b"\0")
    thread.space.write(buffer, b"".join(fields) + domain)
    return 0


# RESTART, HALT, POWER_OFF, RESTART2, SW_SUSPEND, KEXEC
_REBOOT_STOPPING: Final = frozenset(
    (0x01234567, 0xCDEF0123, 0x4321FEDC, 0xA1B2C3D4, 0xD000FCE2, 0x45584543)
)


@PROCESSES.handled("reboot", "magic:hex magic2:hex cmd:hex arg:pointer")
def reboot(thread: Thread, magic: int, second: int, command: int, argument: int) -> int:
    """Change what the machine does on a key; the machine is the host, which goes on running."""
    if command & 0xFFFFFFFF in _REBOOT_STOPPING:
        return -errno.EPERM
    return thread.call("reboot", magic, second, command, thread.pointer(argument))


_PR_POINTERS: Final = frozenset((15, 16, 2, 37, 40))  # names; what is read through a pointer
_PR_PASSED: Final = _PR_POINTERS | {
    *(1, 3, 4, 7, 8, 21, 23, 24, 27, 28, 29, 30, 36, 38, 39, 41, 42, 47)
}


@PROCESSES.handled("prctl", "option:enum.prctl arg2:hex arg3:hex arg4:hex arg5:hex")
def prctl(thread: Thread, option: int, second: int, third: int, fourth: int, fifth: int) -> int:
    """Names, parent-death signals, capabilities; nothing that would bind the interpreter too."""
    if option not in _PR_PASSED:
        return -errno.EINVAL
    if option in _PR_POINTERS:
        second = thread.pointer(second)
    return thread.call("prctl", option, second, third, fourth, fifth)


# Limits on memory would bind the interpreter, not the guest: they are remembered, not enforced.
_REMEMBERED: Final = frozenset(
    (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK, resource.RLIMIT_RSS)
)
_FEW_FILES: Final = 32  # the interpreter may want to open one


@PROCESSES.handled(
    "prlimit64", "pid:pid resource:enum.rlimit new:struct_in.rlimit old:struct_out.rlimit"
)
def prlimit64(thread: Thread, pid: int, which: int, new: int, old: int) -> int:
    """Read and set limits."""
    ours = pid == 0 or pid == thread.call("getpid")
    if ours and new and which == resource.RLIMIT_NOFILE:
        (soft,) = struct.unpack("<Q", thread.space.read(new, 8))
        if soft < _FEW_FILES:
            thread.process.confine(thread)
    if not (ours and which in _REMEMBERED):
        return thread.call("prlimit64", pid, which, thread.pointer(new), thread.pointer(old))
    current = thread.limits.get(which)
    if current is None:
        pointer = thread.scratch_room(16)
        result = thread.call("prlimit64", 0, which, 0, pointer)
        if result < 0:
            return result
        current = struct.unpack("<QQ", thread.scratch_read(pointer, 16))
    if new:
        soft, hard = struct.unpack("<QQ", thread.space.read(new, 16))
        if soft > hard:
            return -errno.EINVAL
        if hard > current[1] and thread.call("geteuid"):
            return -errno.EPERM
        thread.limits[which] = soft, hard
        if which == resource.RLIMIT_STACK:
            thread.process.grow_stack()
    if old:
        thread.space.write(old, struct.pack("<QQ", *current))
    return 0


@PROCESSES.handled("getrlimit", "resource:enum.rlimit rlim:struct_out.rlimit")
def getrlimit(thread: Thread, which: int, buffer: int) -> int:
    """Read a limit."""
    return prlimit64(thread, 0, which, 0, buffer) or 0


@PROCESSES.handled("setrlimit", "resource:enum.rlimit rlim:struct_in.rlimit")
def setrlimit(thread: Thread, which: int, buffer: int) -> int:
    """Set a limit."""
    return prlimit64(thread, 0, which, buffer, 0) or 0


@PROCESSES.handled(
    "riscv_hwprobe", "pairs:pointer count:size cpusetsize:size cpus:pointer flags:hex"
)
def riscv_hwprobe(
    thread: Thread, pairs: int, count: int, nbytes: int, cpus: int, flags: int
) -> int:
    """What the processor can do; unknown keys are answered with key -1."""
    if flags:
        return -errno.EINVAL
    for index in range(min(count, 4096)):
        address = pairs + 16 * index
        (key,) = struct.unpack("<q", thread.space.read(address, 8))
        value = thread.abi.hwprobe.get(key)
        thread.space.write(address, struct.pack("<qQ", -1 if value is None else key, value or 0))
    return 0


@PROCESSES.handled("riscv_flush_icache", "start:address end:address flags:hex")
def riscv_flush_icache(thread: Thread, start: int, end: int, flags: int) -> int:
    """Code between the addresses has changed."""
    if flags & ~1:
        return -errno.EINVAL
    limit = thread.process.task_size
    if start < min(end, limit):
        thread.engine.code_changed(start, min(end, limit) - start)
    return 0
