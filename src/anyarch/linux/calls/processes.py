"""Processes: who we are, starting others, waiting for them, limits and scheduling."""

from __future__ import annotations

import errno
import resource
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.process import Process

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
    "setuid": "uid:uid",
    "setgid": "gid:uid",
    "setreuid": "ruid:uid euid:uid",
    "setregid": "rgid:uid egid:uid",
    "setresuid": "ruid:uid euid:uid suid:uid",
    "setresgid": "rgid:uid egid:uid sgid:uid",
    "setfsuid": "uid:uid",
    "setfsgid": "gid:uid",
    "getgroups": "size:int list:pointer",
    "setgroups": "size:size list:pointer",
    "capget": "header:pointer data:pointer",
    "capset": "header:pointer data:pointer",
    "getpgid": "pid:pid",
    "setpgid": "pid:pid pgid:pid",
    "getsid": "pid:pid",
    "setsid": "",
    "getpriority": "which:int who:int",
    "setpriority": "which:int who:int prio:int",
    "ioprio_get": "which:int who:int",
    "ioprio_set": "which:int who:int ioprio:int",
    "umask": "mask:mode",
    "getrusage": "who:int usage:struct_out.rusage",
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


@PROCESSES.handled("exit", "status:int", result="none")
@PROCESSES.handled("exit_group", "status:int", result="none")
def exit_group(process: Process, status: int) -> int | None:
    """End the process."""
    process.exit(status & 0xFF)


@PROCESSES.handled("uname", "name:struct_out.utsname")
def uname(process: Process, buffer: int) -> int:
    """The host's names, with the guest's machine."""
    host = process.host_uname()
    names = (host.sysname, host.nodename, host.release, host.version, process.abi.machine)
    fields = [name.encode()[:64].ljust(65, b"\0") for name in names]
    domain = b"(none)".ljust(65, b"\0")
    process.space.write(buffer, b"".join(fields) + domain)
    return 0


@PROCESSES.handled("set_tid_address", "tidptr:address")
def set_tid_address(process: Process, address: int) -> int:
    """Where the kernel is to clear the thread's number when it ends."""
    process.clear_tid = address
    return process.call("gettid")


@PROCESSES.handled("set_robust_list", "head:address len:size")
def set_robust_list(process: Process, head: int, nbytes: int) -> int:
    """The list of locks to release when the thread dies; one thread has nobody to tell."""
    if nbytes != 24:
        return -errno.EINVAL
    process.robust_list = head
    return 0


@PROCESSES.handled("get_robust_list", "pid:pid head:address len:address")
def get_robust_list(process: Process, pid: int, head: int, nbytes: int) -> int:
    """What set_robust_list was told."""
    process.space.write(head, struct.pack("<Q", process.robust_list))
    process.space.write(nbytes, struct.pack("<Q", 24))
    return 0


_FUTEX_NUMBERS: Final = frozenset((3, 4, 5, 12))  # requeueing and wake_op: val2, not a timeout


@PROCESSES.handled(
    "futex",
    "uaddr:pointer op:enum.futex val:uint timeout:pointer uaddr2:pointer val3:uint",
    native=True,
    restart=True,
    operations=1 << 0 | 1 << 1 | 1 << 9 | 1 << 10,  # wait and wake, with a bit set or without
)
def futex(
    process: Process, address: int, operation: int, value: int, timeout: int, other: int, third: int
) -> int:
    """Wait for and wake waiters of a word in memory."""
    if operation & 0x7F not in _FUTEX_NUMBERS:
        timeout = process.pointer(timeout)
    return process.call(
        "futex",
        process.pointer(address),
        operation,
        value,
        timeout,
        process.pointer(other),
        third,
    )


# clone flags, sched.h
_CLONE_VM, _CLONE_VFORK, _CLONE_SETTLS, _CLONE_PARENT_SETTID = 0x100, 0x4000, 0x80000, 0x100000
_CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID, _CLONE_THREAD = 0x200000, 0x1000000, 0x10000
_CLONE_REFUSED: Final = _CLONE_THREAD | 0x7E020000 | 0x1000  # threads; namespaces; pidfd


@PROCESSES.handled("clone", "flags:flags.clone stack:address ptid:address tls:address ctid:address")
def clone(
    process: Process, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int
) -> int:
    """Start a process. One that would share our memory until it executes gets a copy instead."""
    if flags & _CLONE_THREAD:
        process.note("clone with CLONE_THREAD: threads are not supported yet")
        return -errno.EAGAIN
    if flags & _CLONE_REFUSED or (flags & _CLONE_VM and not flags & _CLONE_VFORK):
        return -errno.EINVAL
    pid = process.fork(wait=bool(flags & _CLONE_VFORK))
    if pid:
        if flags & _CLONE_PARENT_SETTID:
            process.space.write(parent_tid, struct.pack("<I", pid))
        return pid
    if stack:
        process.set_register(process.abi.stack, stack)
    if flags & _CLONE_SETTLS:
        process.set_register(process.abi.thread_pointer, tls)
    if flags & _CLONE_CHILD_SETTID:
        process.space.write(child_tid, struct.pack("<I", process.call("gettid")))
    process.clear_tid = child_tid if flags & _CLONE_CHILD_CLEARTID else 0
    return 0


_PR_POINTERS: Final = frozenset((15, 16, 2, 37, 40))  # names; what is read through a pointer
_PR_PASSED: Final = _PR_POINTERS | {1, 3, 4, 7, 8, 23, 24, 27, 28, 29, 30, 36, 38, 39, 47}


@PROCESSES.handled("prctl", "option:enum.prctl arg2:hex arg3:hex arg4:hex arg5:hex")
def prctl(process: Process, option: int, second: int, third: int, fourth: int, fifth: int) -> int:
    """Names, parent-death signals, capabilities; nothing that would bind the interpreter too."""
    if option not in _PR_PASSED:
        return -errno.EINVAL
    if option in _PR_POINTERS:
        second = process.pointer(second)
    return process.call("prctl", option, second, third, fourth, fifth)


# Limits on memory would bind the interpreter, not the guest: they are remembered, not enforced.
_REMEMBERED: Final = frozenset(
    (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK, resource.RLIMIT_RSS)
)


@PROCESSES.handled(
    "prlimit64", "pid:pid resource:enum.rlimit new:struct_in.rlimit old:struct_out.rlimit"
)
def prlimit64(process: Process, pid: int, which: int, new: int, old: int) -> int:
    """Read and set limits."""
    ours = pid == 0 or pid == process.call("getpid")
    if not (ours and which in _REMEMBERED):
        return process.call("prlimit64", pid, which, process.pointer(new), process.pointer(old))
    current = process.limits.get(which)
    if current is None:
        pointer = process.scratch_room(16)
        result = process.call("prlimit64", 0, which, 0, pointer)
        if result < 0:
            return result
        current = struct.unpack("<QQ", process.scratch_read(pointer, 16))
    if new:
        soft, hard = struct.unpack("<QQ", process.space.read(new, 16))
        if soft > hard:
            return -errno.EINVAL
        if hard > current[1] and process.call("geteuid"):
            return -errno.EPERM
        process.limits[which] = soft, hard
    if old:
        process.space.write(old, struct.pack("<QQ", *current))
    return 0


@PROCESSES.handled("getrlimit", "resource:enum.rlimit rlim:struct_out.rlimit")
def getrlimit(process: Process, which: int, buffer: int) -> int:
    """Read a limit."""
    return prlimit64(process, 0, which, 0, buffer) or 0


@PROCESSES.handled("setrlimit", "resource:enum.rlimit rlim:struct_in.rlimit")
def setrlimit(process: Process, which: int, buffer: int) -> int:
    """Set a limit."""
    return prlimit64(process, 0, which, buffer, 0) or 0


@PROCESSES.handled(
    "riscv_hwprobe", "pairs:pointer count:size cpusetsize:size cpus:pointer flags:hex"
)
def riscv_hwprobe(
    process: Process, pairs: int, count: int, nbytes: int, cpus: int, flags: int
) -> int:
    """What the processor can do; unknown keys are answered with key -1."""
    if flags:
        return -errno.EINVAL
    for index in range(min(count, 4096)):
        address = pairs + 16 * index
        (key,) = struct.unpack("<q", process.space.read(address, 8))
        value = process.abi.hwprobe.get(key)
        process.space.write(address, struct.pack("<qQ", -1 if value is None else key, value or 0))
    return 0


@PROCESSES.handled("riscv_flush_icache", "start:address end:address flags:hex")
def riscv_flush_icache(process: Process, start: int, end: int, flags: int) -> int:
    """Code between the addresses has changed."""
    if flags & ~1:
        return -errno.EINVAL
    process.engine.flush()
    return 0
