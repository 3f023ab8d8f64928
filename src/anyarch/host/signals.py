"""Signals of the host: faults of native code, signals that a guest owns, Ctrl-C.

Actions are installed with the kernel's own rt_sigaction (sigaction(2)), because the C library's
refuses two signals and chooses its own restorer. The handlers are native (`runtime.py`).
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from _thread import RLock, _local, get_native_id
from typing import Final

from anyarch.errors import HostError
from anyarch.host import signalpage as layout
from anyarch.host import x86_64 as machine
from anyarch.host.code import NativeCode
from anyarch.host.context import FIELDS, SIGNAL_INFO, Context
from anyarch.host.mapping import (
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    libc,
    map_pages,
    os_error,
    protect_pages,
    reserve,
)
from anyarch.host.signalmask import ALL_SIGNALS, FAULT_SIGNALS, change_host_mask

__all__ = [
    "claim_signal",
    "default_signal",
    "ignore_signal",
    "install_fault_handlers",
    "interrupt_on_ctrl_c",
    "prepare_thread",
    "release_signal",
    "request_stop",
    "restore_signals",
    "take_pending",
]

# signal(7), sigaction(2); Python's signal module costs milliseconds to import.
SIGINT, SIGILL, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGSTOP = 2, 4, 7, 8, 9, 11, 19
_FAULTS: Final = (SIGSEGV, SIGBUS, SIGFPE, SIGILL)
_SIG_DFL, _SIG_IGN = 0, 1
_SA_SIGINFO, _SA_RESTORER, _SA_ONSTACK = 0x4, 0x04000000, 0x08000000
_SA_RESTART, _SA_NODEFER = 0x10000000, 0x40000000
_SI_QUEUE = -1
_SS_DISABLE = 2
_ACTION: Final = struct.Struct("<QQQQ")  # handler, flags, restorer, mask

_syscall = libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 5


class _AltStackStruct(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_sigaltstack = libc.sigaltstack
_sigaltstack.argtypes = (ctypes.c_void_p, ctypes.c_void_p)


class _Actions:
    """The process's signal page and what was installed through it."""

    def __init__(self) -> None:
        self.page = map_pages(layout.PAGE_NBYTES, PROT_READ | PROT_WRITE)
        self.lock = RLock()
        self.fault = 0  # the closures that are installed, 0 before install_fault_handlers
        self.signal = 0
        self.restorer = 0
        self.stacks: list[_SignalStack] = []  # of threads that have ended
        self.used_slots = 0
        self.original: dict[int, bytes] = {}
        info = struct.pack("<iiiiiiQ", layout.STOP_SIGNAL, 0, _SI_QUEUE, 0, 0, 0, self.page)
        ctypes.memmove(self.page + layout.STOP_INFO, info, len(info))
        os.register_at_fork(after_in_child=self._after_fork)

    def build_closures(self, native: NativeCode) -> None:
        """Closures over the first runtime that was loaded; it serves contexts of any blob."""
        pointer = map_pages(4096, PROT_READ | PROT_WRITE)
        self.restorer = native.address("aa_restorer")
        targets = [native.address("aa_fault"), native.address("aa_signal")]
        for place, target in zip((pointer, pointer + 64), targets, strict=True):
            code = machine.closure(target, self.page)
            ctypes.memmove(place, code, len(code))
        protect_pages(pointer, 4096, PROT_READ | PROT_EXEC)
        self.fault, self.signal = pointer, pointer + 64

    def set_mode(self, number: int, mode: int) -> None:
        ctypes.memset(self.page + layout.MODES + number, mode, 1)

    def install(self, number: int, handler: int, flags: int, mask: int) -> None:
        """Install one of the closures; what it replaces becomes the action to chain to."""
        current = exchange_action(number, None)
        if _ACTION.unpack(current)[0] not in (self.fault, self.signal):
            self.original.setdefault(number, current)
            slot = self.page + layout.ACTIONS + number * _ACTION.size
            ctypes.memmove(slot, current, _ACTION.size)
        flags |= _SA_SIGINFO | _SA_RESTORER | _SA_ONSTACK
        exchange_action(number, _ACTION.pack(handler, flags, self.restorer, mask))

    def write_slot(self, slot: int, context: int, thread: int) -> None:
        place = self.page + layout.SLOTS + 16 * slot
        ctypes.c_uint64.from_address(place + 8).value = thread
        ctypes.c_uint64.from_address(place).value = context

    def new_slot(self) -> int:
        with self.lock:
            if self.used_slots == layout.SLOT_COUNT:
                raise HostError(
                    f"{layout.SLOT_COUNT} threads run guests already: wait until one has ended"
                )
            self.used_slots += 1
            place = self.page + layout.SLOTS_USED
            ctypes.c_uint64.from_address(place).value = self.used_slots
            return self.used_slots - 1

    def _after_fork(self) -> None:
        """In a forked child: only this thread is left, and under another thread id."""
        self.lock = RLock()
        for slot in range(self.used_slots):
            self.write_slot(slot, 0, 0)
        stack = _own_stack()
        if stack is not None:
            stack.thread = get_native_id()
            self.write_slot(stack.slot, stack.context.pointer, stack.thread)


class _SignalStack:
    """An alternate signal stack, whose aligned base leads to the context, and its slot. Threads
    take it one after the other."""

    context: Context

    def __init__(self, actions: _Actions) -> None:
        self.actions = actions
        self.thread = 0
        self.slot = actions.new_slot()
        self.start = reserve(layout.STACK_NBYTES, layout.STACK_NBYTES)
        usable = layout.STACK_NBYTES - layout.STACK_START
        protect_pages(self.start, 4096, PROT_READ | PROT_WRITE)
        protect_pages(self.start + layout.STACK_START, usable, PROT_READ | PROT_WRITE)
        ctypes.c_uint64.from_address(self.start + 8).value = layout.STACK_MAGIC
        self.wanted = _AltStackStruct(self.start + layout.STACK_START, 0, usable)
        self.current = _AltStackStruct()
        self.replaced = _AltStackStruct(None, _SS_DISABLE, 0)
        self.wanted_pointer = ctypes.addressof(self.wanted)
        self.current_pointer = ctypes.addressof(self.current)

    def take(self, context: Context) -> None:
        """The calling thread has no other."""
        self.thread = get_native_id()
        self.bind(context)
        self.switch()

    def bind(self, context: Context) -> None:
        self.context = context
        # Compiled code reaches guest memory through this segment; or, where guest addresses are
        # those of the host, the context.
        base = context.get("memory_base") or context.pointer
        _syscall(machine.NR_ARCH_PRCTL, machine.ARCH_SET_GS, base, 0, 0)
        ctypes.c_uint64.from_address(self.start).value = context.pointer
        self.actions.write_slot(self.slot, context.pointer, self.thread)

    def switch(self) -> None:
        """Make this the thread's signal stack, if it is not: faulthandler may have set its own."""
        _sigaltstack(None, self.current_pointer)
        if self.current.sp != self.wanted.sp:
            self.replaced = _AltStackStruct.from_buffer_copy(self.current)
            if _sigaltstack(self.wanted_pointer, None):
                raise HostError(f"cannot set the alternate signal stack: {os_error()}")

    def give_back(self) -> None:
        """The thread ends; in a forked child, it is no more."""
        self.actions.write_slot(self.slot, 0, 0)
        if self.thread == get_native_id():
            _sigaltstack(ctypes.addressof(self.replaced), None)
        self.actions.stacks.append(self)


class _Holder:
    """Has a stack while its thread lives."""

    __slots__ = ("stack",)
    _exiting = staticmethod(sys.is_finalizing)  # module globals may be gone by then

    def __init__(self, stack: _SignalStack) -> None:
        self.stack = stack

    def __del__(self) -> None:
        if not self._exiting():
            self.stack.give_back()


_thread_state: Final = _local()
_process: list[_Actions] = []


def _own_stack() -> _SignalStack | None:
    holder: _Holder | None = _thread_state.__dict__.get("holder")
    return None if holder is None else holder.stack


def _actions() -> _Actions:
    if not _process:
        _process.append(_Actions())
    return _process[0]


def exchange_action(number: int, action: bytes | None) -> bytes:
    """The kernel's rt_sigaction: the previous struct kernel_sigaction; sets `action` if given."""
    old = ctypes.create_string_buffer(_ACTION.size)
    new = None if action is None else ctypes.create_string_buffer(action, _ACTION.size)
    new_pointer = 0 if new is None else ctypes.addressof(new)
    if _syscall(machine.NR_RT_SIGACTION, number, new_pointer, ctypes.addressof(old), 8):
        raise HostError(f"the kernel refuses an action for signal {number}: {os_error()}")
    return old.raw


def install_fault_handlers(native: NativeCode) -> None:
    """Let faults of native code leave it with `ExitCode.FAULT`, and stop requests reach threads.

    Faults elsewhere go to the handlers that were there before. May be called again, also to take
    the signals back from a handler that was installed since. `native` must stay mapped.
    """
    actions = _actions()
    with actions.lock:
        if not actions.fault:
            actions.build_closures(native)
        for number in _FAULTS:
            # NODEFER: a previous handler that raises the signal again must get through.
            actions.install(number, actions.fault, _SA_NODEFER, 0)
        _install_signal(actions, layout.STOP_SIGNAL, 0)
    stack = _own_stack()
    if stack is not None:
        stack.switch()


def _install_signal(actions: _Actions, number: int, flags: int) -> None:
    # SA_RESTART makes the kernel tell which interrupted calls may be repeated (-512) and which
    # not (-EINTR); the guest's own flag is for the system call layer to apply.
    mask = ALL_SIGNALS & ~FAULT_SIGNALS
    actions.install(number, actions.signal, flags | _SA_RESTART, mask)


def prepare_thread(context: Context) -> None:
    """Make this thread's signals and faults find `context`; cheap where they do already.

    Call it whenever a thread begins to run a context. What it set up lasts until the thread ends.
    Where another library has replaced the signal stack, install_fault_handlers takes it back.
    """
    holder: _Holder | None = _thread_state.__dict__.get("holder")
    if holder is None:
        actions = _actions()
        stack = actions.stacks.pop() if actions.stacks else _SignalStack(actions)
        stack.take(context)
        _thread_state.__dict__["holder"] = _Holder(stack)
    elif holder.stack.context is not context:
        holder.stack.bind(context)


def claim_signal(number: int, native: NativeCode, flags: int = 0) -> None:
    """Give an asynchronous signal to the guest: it is noted in the context's `pending`.

    `flags` are those of sigaction(2) that tell the kernel what to send (SA_NOCLDSTOP,
    SA_NOCLDWAIT). A signal that reaches a thread without a context is passed on to one with.
    """
    if not 1 <= number <= layout.SIGNALS or number in (SIGKILL, SIGSTOP):
        raise HostError(f"signal {number} cannot be caught: expected 1 to 64, not 9 or 19")
    actions = _actions()
    if not actions.fault:
        install_fault_handlers(native)
    with actions.lock:
        actions.set_mode(number, layout.MODE_GUEST)
        if number not in _FAULTS:
            _install_signal(actions, number, flags & (0x1 | 0x2))


def _set_plain(number: int, handler: int) -> None:
    actions = _actions()
    with actions.lock:
        actions.set_mode(number, layout.MODE_CHAIN)
        action = _ACTION.pack(handler, 0, 0, 0)
        if number in _FAULTS or number == layout.STOP_SIGNAL:
            slot = actions.page + layout.ACTIONS + number * _ACTION.size
            ctypes.memmove(slot, action, _ACTION.size)
        else:
            actions.original.setdefault(number, exchange_action(number, None))
            exchange_action(number, action)


def ignore_signal(number: int) -> None:
    """Let the kernel discard a signal, as the guest asked; faults of native code still arrive."""
    _set_plain(number, _SIG_IGN)


def default_signal(number: int) -> None:
    """Give a signal the kernel's default action, whatever this process had before."""
    _set_plain(number, _SIG_DFL)


def release_signal(number: int) -> None:
    """Put back the action that a signal had before it was first touched here."""
    actions = _actions()
    with actions.lock:
        actions.set_mode(number, layout.MODE_CHAIN)
        original = actions.original.get(number)
        if original is None:
            return
        if number in _FAULTS or number == layout.STOP_SIGNAL:
            slot = actions.page + layout.ACTIONS + number * _ACTION.size
            ctypes.memmove(slot, original, _ACTION.size)
        else:
            exchange_action(number, original)
            del actions.original[number]


def restore_signals() -> None:
    """Put back every action that was replaced here, those of faults included."""
    actions = _actions()
    with actions.lock:
        for number, original in actions.original.items():
            actions.set_mode(number, layout.MODE_CHAIN)
            exchange_action(number, original)
        actions.original.clear()


def take_pending(native: NativeCode, context: Context, blocked: int = 0) -> list[tuple[int, bytes]]:
    """Take the guest's signals that have arrived: numbers and siginfo (128 bytes), by number.

    Clears `pending`, not `stop`: clear that first, so that a signal which arrives meanwhile sets
    it again. They were blocked since they arrived; those not in ``blocked`` are unblocked, and
    may arrive again at once.
    """
    pending = native.take_pending(context)
    unblocked = pending & ~blocked & ~FAULT_SIGNALS
    taken = []
    while pending:
        number = (pending & -pending).bit_length()
        pending &= pending - 1
        start = SIGNAL_INFO + 128 * (number - 1)
        taken.append((number, bytes(context.view[start : start + 128])))
    change_host_mask(0, unblocked)
    return taken


def request_stop(context: Context) -> None:
    """Ask the thread that runs `context` to return to Python, out of a system call too."""
    offset, _ = FIELDS["stop"]
    ctypes.c_uint32.from_address(context.pointer + offset).value = 1
    actions = _actions()
    for slot in range(actions.used_slots):
        place = actions.page + layout.SLOTS + 16 * slot
        if ctypes.c_uint64.from_address(place).value == context.pointer:
            thread = ctypes.c_uint64.from_address(place + 8).value
            if thread != get_native_id():
                info = actions.page + layout.STOP_INFO
                number = layout.STOP_SIGNAL
                _syscall(machine.NR_RT_TGSIGQUEUEINFO, os.getpid(), thread, number, info)


class interrupt_on_ctrl_c:  # noqa: N801 - read as `with interrupt_on_ctrl_c(native):`
    """While this is entered, Ctrl-C also stops native code, in every thread.

    Python's own handler still runs: KeyboardInterrupt is raised when native code has returned.
    Does nothing where SIGINT is ignored, has its default action, or belongs to the guest.
    """

    __slots__ = ("_installed", "_native")

    def __init__(self, native: NativeCode) -> None:
        self._native = native
        self._installed = False

    def __enter__(self) -> None:
        actions = _actions()
        if not actions.fault:
            install_fault_handlers(self._native)
        handler = _ACTION.unpack(exchange_action(SIGINT, None))[0]
        if handler not in (_SIG_DFL, _SIG_IGN, actions.signal):
            with actions.lock:
                actions.set_mode(SIGINT, layout.MODE_INTERRUPT)
                _install_signal(actions, SIGINT, 0)
            self._installed = True

    def __exit__(self, *_: object) -> None:
        actions = _actions()
        if not self._installed:
            return
        self._installed = False
        mode = ctypes.c_uint8.from_address(actions.page + layout.MODES + SIGINT).value
        handler = _ACTION.unpack(exchange_action(SIGINT, None))[0]
        if mode == layout.MODE_INTERRUPT and handler == actions.signal:
            release_signal(SIGINT)
