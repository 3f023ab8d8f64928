"""Threads: starting and ending them, their numbers, futexes, robust lists; and fork.

Sources: clone(2), futex(2), Linux ``kernel/fork.c`` for what goes together.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from anyarch.data import dataclass
from anyarch.host.forking import fork_with
from anyarch.linux.calls.table import Family
from anyarch.linux.hostcalls import host_call
from anyarch.linux.robust import HEAD_NBYTES

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

THREADS: Final = Family()


@THREADS.handled("exit", "status:int", result="none")
def exit(thread: Thread, status: int) -> int | None:
    """End the calling thread."""
    thread.exit(status & 0xFF)


@THREADS.handled("set_tid_address", "tidptr:address")
def set_tid_address(thread: Thread, address: int) -> int:
    """Where the kernel is to clear the thread's number when it ends."""
    thread.clear_tid = address
    return thread.tid


@THREADS.handled("set_robust_list", "head:address len:size")
def set_robust_list(thread: Thread, head: int, nbytes: int) -> int:
    """The list of locks to release when the thread dies."""
    if nbytes != HEAD_NBYTES:
        return -errno.EINVAL
    thread.robust_list = head
    return 0


@THREADS.handled("get_robust_list", "pid:pid head:address len:address")
def get_robust_list(thread: Thread, tid: int, head: int, nbytes: int) -> int:
    """What set_robust_list was told."""
    found = thread.process.find_thread(tid & 0xFFFFFFFF) if tid else thread
    if found is None:  # another process's: whether it may be asked for is all that is known
        pointer = thread.scratch_room(16)
        result = thread.call("get_robust_list", tid, pointer, pointer + 8)
        if result < 0:
            return result
    listed = found.robust_list if found else 0
    thread.space.write(head, struct.pack("<Q", listed))
    thread.space.write(nbytes, struct.pack("<Q", HEAD_NBYTES))
    return 0


_FUTEX_WAIT: Final = 0
_FUTEX_NUMBERS: Final = frozenset((3, 4, 5, 12))  # requeueing and wake_op: val2, not a timeout
# Wait and wake, with a bit set or without, locks with priority inheritance: what has a timeout.
_FUTEX_NATIVE: Final = sum(1 << operation for operation in (0, 1, 6, 7, 8, 9, 10, 11, 13))


@THREADS.handled(
    "futex",
    "uaddr:pointer op:enum.futex val:uint timeout:pointer uaddr2:pointer val3:uint",
    native=True,
    restart=True,
    operations=_FUTEX_NATIVE,
    timeout="timeout",
)
def futex(
    thread: Thread, address: int, operation: int, value: int, timeout: int, other: int, third: int
) -> int:
    """Wait for and wake waiters of a word in memory."""
    if operation & 0x7F == _FUTEX_WAIT:  # alone in telling for how long, not until when
        timeout = thread.timeout(timeout)
    elif operation & 0x7F not in _FUTEX_NUMBERS:
        timeout = thread.pointer(timeout)
    return thread.call(
        "futex",
        thread.pointer(address),
        operation,
        value,
        timeout,
        thread.pointer(other),
        third,
    )


for _name, _signature in {
    "futex_wake": "uaddr:pointer mask:hex count:int flags:hex",
    "futex_wait": (
        "uaddr:pointer val:hex mask:hex flags:hex timeout:struct_in.timespec clock:enum.clock"
    ),
}.items():
    THREADS.passed(_name, _signature, native=True, restart=True)

_WAITER: Final = struct.Struct("<QQII")  # struct futex_waitv: value, address, flags, reserved
_WAITERS: Final = 128


def _host_waiters(thread: Thread, waiters: int, count: int) -> int:
    data = thread.space.read(waiters, count * _WAITER.size)
    return thread.scratch_bytes(
        b"".join(
            _WAITER.pack(value, thread.pointer(address), *rest)
            for value, address, *rest in _WAITER.iter_unpack(data)
        )
    )


@THREADS.handled(
    "futex_waitv",
    "waiters:pointer count:uint flags:hex timeout:struct_in.timespec clock:enum.clock",
    restart=True,
)
def futex_waitv(
    thread: Thread, waiters: int, count: int, flags: int, timeout: int, clock: int
) -> int:
    """Wait for any of several words in memory."""
    count &= 0xFFFFFFFF
    if not waiters or not 0 < count <= _WAITERS:
        return -errno.EINVAL
    pointer = _host_waiters(thread, waiters, count)
    return thread.call("futex_waitv", pointer, count, flags, thread.pointer(timeout), clock)


@THREADS.handled("futex_requeue", "waiters:pointer flags:hex wake:int requeue:int")
def futex_requeue(thread: Thread, waiters: int, flags: int, wake: int, requeue: int) -> int:
    """Wake waiters of one word, let others wait for another."""
    return thread.call("futex_requeue", _host_waiters(thread, waiters, 2), flags, wake, requeue)


# clone flags, sched.h
_VM, _FS, _FILES, _SIGHAND, _PIDFD, _VFORK = 0x100, 0x200, 0x400, 0x800, 0x1000, 0x4000
_THREAD, _SYSVSEM, _SETTLS, _PARENT_SETTID = 0x10000, 0x40000, 0x80000, 0x100000
_CHILD_CLEARTID, _DETACHED, _CHILD_SETTID = 0x200000, 0x400000, 0x1000000
_CLEAR_SIGHAND: Final = 0x100000000
_PARENT, _IO, _INTO_CGROUP = 0x8000, 0x80000000, 0x200000000
_NAMESPACES: Final = 0x7E020080
# What a process of the host's own can share with its child, or not, as a guest's can.
_HOST_FLAGS: Final = _FS | _FILES | _SYSVSEM | _PARENT | _IO | _INTO_CGROUP | _NAMESPACES
_SIGCHLD: Final = 17
_CLONE3: Final = struct.Struct("<8Q")
_CLONE3_CGROUP: Final = 80  # offset
_CLONE3_MAXIMUM: Final = 4096


@dataclass(slots=True, frozen=True)
class ThreadStart:
    """How a new thread differs from its parent; addresses are 0 where nothing is asked for."""

    stack: int
    thread_pointer: int | None
    parent_tid: int  # where its number is written
    child_tid: int
    clear_tid: int
    unshared: int  # CLONE_ flags of what it does not share


@dataclass(slots=True, frozen=True)
class _Wish:
    """What clone and clone3 are asked for."""

    flags: int  # without the signal at the end
    exit_signal: int
    cgroup: int
    stack: int  # its end; 0 for the parent's
    pidfd: int
    parent_tid: int
    child_tid: int
    thread_pointer: int


@THREADS.handled("clone", "flags:flags.clone stack:address ptid:address tls:address ctid:address")
def clone(thread: Thread, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int) -> int:
    """Start a thread or a process."""
    flags, exit_signal = flags & 0xFFFFFF00, flags & 0xFF
    if flags & _PIDFD and flags & _PARENT_SETTID:
        return -errno.EINVAL
    return _clone(
        thread, _Wish(flags, exit_signal, 0, stack, parent_tid, parent_tid, child_tid, tls)
    )


@THREADS.handled("clone3", "args:pointer size:size")
def clone3(thread: Thread, address: int, nbytes: int) -> int:
    """Start a thread or a process, as a structure says."""
    if nbytes < _CLONE3.size:
        return -errno.EINVAL
    if nbytes > _CLONE3_MAXIMUM:
        return -errno.E2BIG
    data = thread.space.read(address, nbytes)
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_nbytes, tls = (
        _CLONE3.unpack_from(data)
    )
    if any(data[88:]):
        return -errno.E2BIG
    if flags & (_THREAD | _PARENT) and exit_signal:
        return -errno.EINVAL
    if flags & (0xFF & ~_NAMESPACES | _DETACHED):
        return -errno.EINVAL
    if exit_signal > 64 or bool(stack) != bool(stack_nbytes):
        return -errno.EINVAL
    if any(data[_CLONE3.size : 80]):  # set_tid needs privileges over a namespace
        return -errno.EPERM
    cgroup = int.from_bytes(data[_CLONE3_CGROUP:88], "little")
    end = stack + stack_nbytes
    wish = _Wish(flags, exit_signal, cgroup, end, pidfd, parent_tid, child_tid, tls)
    return _clone(thread, wish)


def _clone(thread: Thread, wish: _Wish) -> int:
    flags = wish.flags
    if flags & _SIGHAND and (not flags & _VM or flags & _CLEAR_SIGHAND):
        return -errno.EINVAL
    if flags & _THREAD:
        return _start_thread(thread, wish)
    if flags & _VM and not flags & _VFORK:
        return -errno.EINVAL  # memory shared for good, but not a thread
    fork = os.fork
    if flags & _HOST_FLAGS or wish.exit_signal != _SIGCHLD:
        exit_signal = 0 if flags & _PARENT else wish.exit_signal  # its parent's, then
        fork = partial(fork_with, flags & _HOST_FLAGS, exit_signal, wish.cgroup)
    pid = thread.process.fork(thread, wait=bool(flags & _VFORK), fork=fork)
    if pid:
        if flags & _PARENT_SETTID:
            thread.space.write(wish.parent_tid, struct.pack("<I", pid))
        if flags & _PIDFD:
            thread.space.write(wish.pidfd, struct.pack("<i", host_call("pidfd_open", pid, 0)))
        return pid
    if flags & _CLEAR_SIGHAND:
        thread.process.actions.clear_handlers()
    if wish.stack:
        thread.set_register(thread.abi.stack, wish.stack)
    if flags & _SETTLS:
        thread.state.set(*thread.abi.thread_pointer, wish.thread_pointer)
    if flags & _CHILD_SETTID:
        thread.space.write(wish.child_tid, struct.pack("<I", thread.tid))
    thread.clear_tid = wish.child_tid if flags & _CHILD_CLEARTID else 0
    thread.robust_list = 0
    return 0


def _start_thread(thread: Thread, wish: _Wish) -> int:
    flags = wish.flags
    if not flags & _SIGHAND or flags & (_PIDFD | _NAMESPACES):
        return -errno.EINVAL
    start = ThreadStart(
        stack=wish.stack or thread.stack_pointer,
        thread_pointer=wish.thread_pointer if flags & _SETTLS else None,
        parent_tid=wish.parent_tid if flags & _PARENT_SETTID else 0,
        child_tid=wish.child_tid if flags & _CHILD_SETTID else 0,
        clear_tid=wish.child_tid if flags & _CHILD_CLEARTID else 0,
        unshared=~flags & (_FS | _FILES),
    )
    return thread.process.start_thread(thread, start)
