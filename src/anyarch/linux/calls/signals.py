"""Signals: actions, masks, waiting, sending. How they arrive is in ``linux/signals.py``."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.process import Process

SIGNALS: Final = Family()
_SET_NBYTES: Final = 8
_SI_USER, _SI_TKILL = 0, -6


@SIGNALS.handled(
    "rt_sigaction",
    "sig:signal act:struct_in.sigaction oldact:struct_out.sigaction size:size",
)
def rt_sigaction(process: Process, signum: int, new: int, old: int, size: int) -> int:
    """Read and set what a signal does."""
    signum &= 0xFFFFFFFF
    if size != _SET_NBYTES or not 1 <= signum <= 64:
        return -errno.EINVAL
    signals = process.signals
    before = signals.pack_action(signum)
    if new:
        if signum in (9, 19):
            return -errno.EINVAL
        signals.set_action(signum, process.space.read(new, len(before)))
    if old:
        process.space.write(old, before)
    return 0


@SIGNALS.handled("rt_sigprocmask", "how:enum.sigmask set:sigset_in oldset:sigset_out size:size")
def rt_sigprocmask(process: Process, how: int, new: int, old: int, size: int) -> int:
    """Read and set the blocked signals."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    signals = process.signals
    before = signals.mask
    if new:
        mask = _read_set(process, new)
        how &= 0xFFFFFFFF
        if how > 2:
            return -errno.EINVAL
        signals.set_mask((before | mask, before & ~mask, mask)[how])
    if old:
        process.space.write(old, struct.pack("<Q", before))
    return 0


def _read_set(process: Process, address: int) -> int:
    return int.from_bytes(process.space.read(address, _SET_NBYTES), "little")


@SIGNALS.handled("rt_sigpending", "set:sigset_out size:size")
def rt_sigpending(process: Process, address: int, size: int) -> int:
    """The signals that have arrived and are blocked."""
    if size > _SET_NBYTES:
        return -errno.EINVAL
    pointer = process.scratch_room(_SET_NBYTES)
    result = process.call("rt_sigpending", pointer, _SET_NBYTES)
    if result < 0:
        return result
    pending = int.from_bytes(process.scratch_read(pointer, _SET_NBYTES), "little")
    pending = (pending | process.signals.queued_set()) & process.signals.mask
    process.space.write(address, struct.pack("<Q", pending)[:size])
    return 0


@SIGNALS.handled("rt_sigsuspend", "mask:sigset_in size:size")
def rt_sigsuspend(process: Process, address: int, size: int) -> int:
    """Wait for a signal, with another mask meanwhile."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    mask = _read_set(process, address)
    if process.signals.deliverable(mask):
        return -errno.EINTR
    pointer = process.scratch_bytes(struct.pack("<Q", process.signals.host_mask(mask)))
    return process.call("rt_sigsuspend", pointer, _SET_NBYTES)


@SIGNALS.handled(
    "rt_sigtimedwait", "set:sigset_in info:struct_out.siginfo timeout:struct_in.timespec size:size"
)
def rt_sigtimedwait(process: Process, address: int, info: int, timeout: int, size: int) -> int:
    """Take a signal of the set, without running its handler."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    wanted = _read_set(process, address)
    taken = process.signals.take(wanted)
    if taken is not None:
        signum, data = taken
        if info:
            process.space.write(info, data)
        return signum
    pointer = process.scratch_bytes(struct.pack("<Q", process.signals.host_mask(wanted)))
    return process.call(
        "rt_sigtimedwait", pointer, process.pointer(info), process.pointer(timeout), size
    )


@SIGNALS.handled("sigaltstack", "ss:struct_in.stack old:struct_out.stack")
def sigaltstack(process: Process, new: int, old: int) -> int:
    """Read and set the stack that handlers may run on."""
    signals = process.signals
    before = signals.pack_alternate(process.stack_pointer)
    if new:
        address, flags, nbytes = struct.unpack("<QI4xQ", process.space.read(new, 24))
        result = signals.set_alternate(address, flags, nbytes, process.stack_pointer)
        if result < 0:
            return result
    if old:
        process.space.write(old, before)
    return 0


@SIGNALS.handled("rt_sigreturn", result="none")
def rt_sigreturn(process: Process) -> int | None:
    """Return from a handler: everything is as the frame says."""
    process.signals.leave_handler()
    return None


@SIGNALS.handled("kill", "pid:pid sig:signal")
def kill(process: Process, pid: int, signum: int) -> int:
    """Send a signal; one to ourselves that ends us is the guest's end, not the interpreter's."""
    if _signed(pid) == process.call("getpid") and process.signals.is_ours(signum):
        return process.signals.send(signum, _SI_USER)
    return process.call("kill", pid, signum)


@SIGNALS.handled("tkill", "tid:pid sig:signal")
def tkill(process: Process, tid: int, signum: int) -> int:
    """Send a signal to a thread."""
    if _signed(tid) == process.call("gettid") and process.signals.is_ours(signum):
        return process.signals.send(signum, _SI_TKILL)
    return process.call("tkill", tid, signum)


@SIGNALS.handled("tgkill", "tgid:pid tid:pid sig:signal")
def tgkill(process: Process, tgid: int, tid: int, signum: int) -> int:
    """Send a signal to a thread of a process."""
    ours = _signed(tgid) == process.call("getpid") and _signed(tid) == process.call("gettid")
    if ours and process.signals.is_ours(signum):
        return process.signals.send(signum, _SI_TKILL)
    return process.call("tgkill", tgid, tid, signum)


@SIGNALS.handled("rt_sigqueueinfo", "pid:pid sig:signal info:struct_in.siginfo")
def rt_sigqueueinfo(process: Process, pid: int, signum: int, info: int) -> int:
    """Send a signal with data."""
    return process.call("rt_sigqueueinfo", pid, signum, process.pointer(info))


@SIGNALS.handled("rt_tgsigqueueinfo", "tgid:pid tid:pid sig:signal info:struct_in.siginfo")
def rt_tgsigqueueinfo(process: Process, tgid: int, tid: int, signum: int, info: int) -> int:
    """Send a signal with data to a thread."""
    return process.call("rt_tgsigqueueinfo", tgid, tid, signum, process.pointer(info))


@SIGNALS.handled("restart_syscall")
def restart_syscall(process: Process) -> int:
    """Only the kernel's own restart needs it."""
    return -errno.EINTR


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
