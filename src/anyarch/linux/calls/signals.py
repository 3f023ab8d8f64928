"""Signals: actions, masks, waiting, sending. How they arrive is in ``linux/signals.py``."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family
from anyarch.linux.masks import host_mask

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

SIGNALS: Final = Family()
_SET_NBYTES: Final = 8
_SI_USER, _SI_TKILL = 0, -6


@SIGNALS.handled(
    "rt_sigaction",
    "sig:signal act:struct_in.sigaction oldact:struct_out.sigaction size:size",
)
def rt_sigaction(thread: Thread, signum: int, new: int, old: int, size: int) -> int:
    """Read and set what a signal does."""
    signum &= 0xFFFFFFFF
    if size != _SET_NBYTES or not 1 <= signum <= 64:
        return -errno.EINVAL
    signals = thread.signals
    before = signals.actions.pack(signum)
    if new:
        if signum in (9, 19):
            return -errno.EINVAL
        signals.set_action(signum, thread.space.read(new, len(before)))
    if old:
        thread.space.write(old, before)
    return 0


@SIGNALS.handled(
    "rt_sigprocmask",
    "how:enum.sigmask set:sigset_in oldset:sigset_out size:size",
    native=True,  # by a thunk of its own: see linux/masks
)
def rt_sigprocmask(thread: Thread, how: int, new: int, old: int, size: int) -> int:
    """Read and set the blocked signals."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    signals = thread.signals
    before = signals.mask
    if new:
        mask = _read_set(thread, new)
        how &= 0xFFFFFFFF
        if how > 2:
            return -errno.EINVAL
        signals.set_mask((before | mask, before & ~mask, mask)[how])
    if old:
        thread.space.write(old, struct.pack("<Q", before))
    return 0


def _read_set(thread: Thread, address: int) -> int:
    return int.from_bytes(thread.space.read(address, _SET_NBYTES), "little")


@SIGNALS.handled("rt_sigpending", "set:sigset_out size:size")
def rt_sigpending(thread: Thread, address: int, size: int) -> int:
    """The signals that have arrived and are blocked."""
    if size > _SET_NBYTES:
        return -errno.EINVAL
    pointer = thread.scratch_room(_SET_NBYTES)
    result = thread.call("rt_sigpending", pointer, _SET_NBYTES)
    if result < 0:
        return result
    pending = int.from_bytes(thread.scratch_read(pointer, _SET_NBYTES), "little")
    pending = (pending | thread.signals.queued_set()) & thread.signals.mask
    thread.space.write(address, struct.pack("<Q", pending)[:size])
    return 0


@SIGNALS.handled("rt_sigsuspend", "mask:sigset_in size:size")
def rt_sigsuspend(thread: Thread, address: int, size: int) -> int:
    """Wait for a signal, with another mask meanwhile."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    mask = host_mask(_read_set(thread, address))
    pointer = thread.scratch_bytes(struct.pack("<Q", mask))
    return thread.call("rt_sigsuspend", pointer, _SET_NBYTES)


@SIGNALS.handled(
    "rt_sigtimedwait",
    "set:sigset_in info:struct_out.siginfo timeout:struct_in.timespec size:size",
    timeout="timeout",
)
def rt_sigtimedwait(thread: Thread, address: int, info: int, timeout: int, size: int) -> int:
    """Take a signal of the set, without running its handler."""
    if size != _SET_NBYTES:
        return -errno.EINVAL
    wanted = _read_set(thread, address)
    taken = thread.signals.take(wanted)
    if taken is not None:
        signum, data = taken
        if info:
            thread.space.write(info, data)
        return signum
    pointer = thread.scratch_bytes(struct.pack("<Q", host_mask(wanted)))
    return thread.call(
        "rt_sigtimedwait", pointer, thread.pointer(info), thread.timeout(timeout), size
    )


@SIGNALS.handled("sigaltstack", "ss:struct_in.stack old:struct_out.stack")
def sigaltstack(thread: Thread, new: int, old: int) -> int:
    """Read and set the stack that handlers may run on."""
    signals = thread.signals
    before = signals.pack_alternate(thread.stack_pointer)
    if new:
        address, flags, nbytes = struct.unpack("<QI4xQ", thread.space.read(new, 24))
        result = signals.set_alternate(address, flags, nbytes, thread.stack_pointer)
        if result < 0:
            return result
    if old:
        thread.space.write(old, before)
    return 0


@SIGNALS.handled("rt_sigreturn", result="none")
def rt_sigreturn(thread: Thread) -> int | None:
    """Return from a handler: everything is as the frame says."""
    thread.signals.leave_handler()
    return None


@SIGNALS.handled("kill", "pid:pid sig:signal")
def kill(thread: Thread, pid: int, signum: int) -> int:
    """Send a signal; one to ourselves that ends us is the guest's end, not the interpreter's."""
    if _signed(pid) == thread.call("getpid") and thread.signals.is_ours(signum):
        return thread.signals.send(signum, _SI_USER)
    return thread.call("kill", pid, signum)


@SIGNALS.handled("tkill", "tid:pid sig:signal")
def tkill(thread: Thread, tid: int, signum: int) -> int:
    """Send a signal to a thread."""
    if _signed(tid) == thread.call("gettid") and thread.signals.is_ours(signum):
        return thread.signals.send(signum, _SI_TKILL)
    return thread.call("tkill", tid, signum)


@SIGNALS.handled("tgkill", "tgid:pid tid:pid sig:signal")
def tgkill(thread: Thread, tgid: int, tid: int, signum: int) -> int:
    """Send a signal to a thread of a process."""
    ours = _signed(tgid) == thread.call("getpid") and _signed(tid) == thread.call("gettid")
    if ours and thread.signals.is_ours(signum):
        return thread.signals.send(signum, _SI_TKILL)
    return thread.call("tgkill", tgid, tid, signum)


@SIGNALS.handled("rt_sigqueueinfo", "pid:pid sig:signal info:struct_in.siginfo")
def rt_sigqueueinfo(thread: Thread, pid: int, signum: int, info: int) -> int:
    """Send a signal with data."""
    return thread.call("rt_sigqueueinfo", pid, signum, thread.pointer(info))


@SIGNALS.handled("rt_tgsigqueueinfo", "tgid:pid tid:pid sig:signal info:struct_in.siginfo")
def rt_tgsigqueueinfo(thread: Thread, tgid: int, tid: int, signum: int, info: int) -> int:
    """Send a signal with data to a thread."""
    return thread.call("rt_tgsigqueueinfo", tgid, tid, signum, thread.pointer(info))


@SIGNALS.handled("restart_syscall")
def restart_syscall(thread: Thread) -> int:
    """Only the kernel's own restart needs it."""
    return -errno.EINTR


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
