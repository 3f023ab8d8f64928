"""Signals of one guest process: actions, the mask, and delivery with real frames.

The guest's mask is the host's too, so that waiting calls see what the guest would. A signal with
the default action has it on the host as well. One with a handler is claimed: native code notes it,
and it is delivered here before the guest runs on. Sources: signal(7), Linux ``kernel/signal.c``.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from anyarch.errors import MemoryFault
from anyarch.host.signals import default_signal, ignore_signal, release_signal
from anyarch.linux.abi import Handler, LinuxAbi
from anyarch.linux.hostcalls import host_action, set_host_mask
from anyarch.linux.interfaces import Engine
from anyarch.memory.space import AddressSpace

SIG_DFL, SIG_IGN = 0, 1
SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGKILL, SIGSEGV = 4, 5, 7, 8, 9, 11
_SIGINT, _SIGPIPE, _SIGCONT, _SIGSTOP, _SIGXFSZ = 2, 13, 18, 19, 25
_IGNORED: Final = frozenset((17, _SIGCONT, 23, 28))  # CHLD, CONT, URG, WINCH
_STOPPING: Final = frozenset((_SIGSTOP, 20, 21, 22))  # STOP, TSTP, TTIN, TTOU
SYNCHRONOUS: Final = frozenset((SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV))
# Never blocked on the host: faults of native code, and the signal that stops it.
_HOST_OPEN: Final = sum(1 << (number - 1) for number in (SIGILL, SIGBUS, SIGFPE, SIGSEGV, 33))
_UNBLOCKABLE: Final = 1 << (SIGKILL - 1) | 1 << (_SIGSTOP - 1)
_ALL: Final = (1 << 64) - 1

_SA_ONSTACK, _SA_RESTART, _SA_NODEFER, _SA_RESETHAND = 0x08000000, 0x10000000, 0x40000000, 1 << 31
_SA_KERNEL: Final = 0x1 | 0x2  # NOCLDSTOP, NOCLDWAIT: what the host's kernel must know
_SS_ONSTACK, _SS_DISABLE, _SS_AUTODISARM = 1, 2, 1 << 31
_SIGINFO_NBYTES: Final = 128
_UCONTEXT: Final = struct.Struct("<QQQI4xQQ120x8x")  # flags, link, stack, mask; context at 176


class Death(Exception):
    """The guest dies of a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


@dataclass(slots=True, frozen=True)
class Action:
    """What a signal does."""

    handler: int = SIG_DFL
    flags: int = 0
    mask: int = 0
    restorer: int = 0


class Signals:
    """The signal state of a process with one thread."""

    def __init__(self, engine: Engine, space: AddressSpace, abi: LinuxAbi) -> None:
        self.engine, self.space, self.abi = engine, space, abi
        self.trampoline = 0
        self.actions: dict[int, Action] = {}
        self.queued: dict[int, bytes] = {}  # arrived, not delivered: siginfo
        self.alternate = (0, _SS_DISABLE, 0)
        self.on_delivery: Callable[[int, bytes], None] | None = None  # strace
        self._touched: set[int] = set()
        self.mask = set_host_mask(None)
        self._first_mask = self.mask

    def begin(self) -> None:
        """Take over the actions of the host process; Python's own are not the guest's."""
        for signum in range(1, 65):
            if host_action(signum) == SIG_IGN:
                self.actions[signum] = Action(SIG_IGN)
        for signum in (_SIGPIPE, _SIGXFSZ, _SIGINT):
            if signum != _SIGINT or host_action(signum) != SIG_IGN:
                self.actions.pop(signum, None)
                self._touched.add(signum)
                default_signal(signum)

    def end(self) -> None:
        """Give the host process its own actions and mask back."""
        for signum in self._touched:
            release_signal(signum)
        self._touched.clear()
        set_host_mask(self._first_mask)

    def after_fork(self) -> None:
        """In the child: what had arrived at the parent is the parent's."""
        self.collect()
        self.queued.clear()

    def after_execute(self, trampoline: int) -> None:
        """Handlers are gone with the program that held them."""
        self.trampoline = trampoline
        self.alternate = (0, _SS_DISABLE, 0)
        for signum, action in list(self.actions.items()):
            if action.handler != SIG_IGN:
                self.set(signum, Action())

    # Actions

    def _layout(self) -> struct.Struct:
        return struct.Struct("<QQQQ" if self.abi.has_restorer else "<QQQ")

    def pack_action(self, signum: int) -> bytes:
        """``struct sigaction`` of a signal."""
        action = self.actions.get(signum, Action())
        fields = [action.handler, action.flags, action.restorer, action.mask]
        if not self.abi.has_restorer:
            del fields[2]
        return self._layout().pack(*fields)

    def set_action(self, signum: int, data: bytes) -> None:
        """Set a signal's action from ``struct sigaction``."""
        handler, flags, *rest = self._layout().unpack(data)
        mask = rest[-1] & ~_UNBLOCKABLE
        self.set(signum, Action(handler, flags, mask, rest[0] if len(rest) == 2 else 0))

    def set(self, signum: int, action: Action) -> None:
        """Set a signal's action, on the host too."""
        self.collect()
        self.actions[signum] = action
        self._touched.add(signum)
        if action.handler == SIG_DFL:
            default_signal(signum)
        elif action.handler == SIG_IGN:
            ignore_signal(signum)
        else:
            self.engine.claim_signal(signum, action.flags & _SA_KERNEL)
            return
        if action.handler == SIG_IGN or signum in _IGNORED:
            self.queued.pop(signum, None)

    # The mask

    def host_mask(self, mask: int) -> int:
        """What the host blocks where the guest blocks ``mask``."""
        return mask & ~_HOST_OPEN

    def set_mask(self, mask: int) -> None:
        """Set the blocked signals."""
        self.mask = mask & ~_UNBLOCKABLE
        set_host_mask(self.host_mask(self.mask))

    # Arrival

    def collect(self) -> None:
        """Take what native code has noted."""
        context = self.engine.context
        if not context.get("pending"):
            return
        self.engine.clear_stop()
        for signum, info in self.engine.take_pending():
            self.queued.setdefault(signum, info)
        set_host_mask(self.host_mask(self.mask))

    def queued_set(self) -> int:
        """The signals that have arrived, as a set."""
        self.collect()
        return sum(1 << (signum - 1) for signum in self.queued)

    def deliverable(self, mask: int | None = None) -> int:
        """The first signal that has arrived and is not blocked, or 0."""
        self.collect()
        if not self.queued:
            return 0
        blocked = self.mask if mask is None else mask & ~_UNBLOCKABLE
        ready = [signum for signum in self.queued if not blocked >> (signum - 1) & 1]
        return min(ready, key=lambda signum: (signum not in SYNCHRONOUS, signum), default=0)

    def take(self, wanted: int) -> tuple[int, bytes] | None:
        """Remove and return an arrived signal of a set."""
        signum = self.deliverable(~wanted & _ALL)
        return (signum, self.queued.pop(signum)) if signum else None

    def is_ours(self, signum: int) -> bool:
        """Whether a signal sent to ourselves is dealt with here, not by the host: a fault's, and
        one that would end the interpreter."""
        signum &= 0xFFFFFFFF
        if signum in SYNCHRONOUS:
            return True
        default = self.actions.get(signum, Action()).handler == SIG_DFL
        return default and 1 <= signum <= 64 and signum not in _IGNORED | _STOPPING

    def send(self, signum: int, code: int) -> int:
        """A signal from ourselves to ourselves."""
        info = struct.pack("<iiiiiI", signum, 0, code, 0, os.getpid(), os.getuid())
        if self.actions.get(signum, Action()).handler != SIG_IGN:
            self.queued.setdefault(signum, info.ljust(_SIGINFO_NBYTES, b"\0"))
        return 0

    def fault(self, signum: int, code: int, address: int) -> None:
        """An instruction has faulted: its signal cannot be blocked or ignored."""
        info = struct.pack("<iiiiQ", signum, 0, code, 0, address).ljust(_SIGINFO_NBYTES, b"\0")
        action = self.actions.get(signum, Action())
        if action.handler in (SIG_DFL, SIG_IGN) or self.mask >> (signum - 1) & 1:
            if self.on_delivery is not None:
                self.on_delivery(signum, info)
            raise Death(signum)
        self.queued[signum] = info

    # Delivery

    def restarts(self, signum: int) -> bool | None:
        """Whether a call that ``signum`` interrupted is repeated; None when no handler will run."""
        action = self.actions.get(signum, Action())
        if action.handler in (SIG_DFL, SIG_IGN):
            return None
        return bool(action.flags & _SA_RESTART)

    def deliver(self, waited_mask: int | None = None) -> None:
        """Deliver what can be. ``waited_mask`` was in force while the guest waited: it decides
        what may be delivered first, and the handler returns to the present mask."""
        if waited_mask is not None:
            signum = self.deliverable(waited_mask)
            if signum:
                self._deliver(signum)
        while signum := self.deliverable():
            self._deliver(signum)

    def _deliver(self, signum: int) -> None:
        info = self.queued.pop(signum)
        action = self.actions.get(signum, Action())
        if self.on_delivery is not None:
            self.on_delivery(signum, info)
        if action.handler == SIG_IGN:
            return
        if action.handler != SIG_DFL:
            self._enter(signum, action, info)
        elif signum in _STOPPING:
            os.kill(os.getpid(), _SIGSTOP)
        elif signum not in _IGNORED:
            raise Death(signum)

    def _enter(self, signum: int, action: Action, info: bytes) -> None:
        state = self.engine.state
        address, flags, nbytes = self.alternate
        stack = state.get(self.abi.file, self.abi.stack)
        switched = action.flags & _SA_ONSTACK and not flags & _SS_DISABLE
        if switched and not address < stack <= address + nbytes:
            stack = address + nbytes
        context = self.abi.save_context(state)
        frame = (stack - _SIGINFO_NBYTES - _UCONTEXT.size - len(context)) // 16 * 16
        header = _UCONTEXT.pack(0, 0, address, flags, nbytes, self.mask)
        try:
            self.space.write(frame, info + header + context)
        except MemoryFault:
            raise Death(SIGSEGV) from None  # no stack to run the handler on
        if flags & _SS_AUTODISARM:
            self.alternate = (0, _SS_DISABLE, 0)
        if action.flags & _SA_RESETHAND:
            self.set(signum, Action())
        own = 0 if action.flags & _SA_NODEFER else 1 << (signum - 1)
        self.set_mask(self.mask | action.mask | own)
        handler = Handler(
            action.handler,
            signum,
            frame,
            frame,
            frame + _SIGINFO_NBYTES,
            action.restorer or self.trampoline,
        )
        self.abi.enter_handler(state, handler)

    def leave_handler(self) -> None:
        """Restore everything from the frame that the stack pointer is at."""
        state = self.engine.state
        frame = state.get(self.abi.file, self.abi.stack) + _SIGINFO_NBYTES
        try:
            data = self.space.read(frame, _UCONTEXT.size + self.abi.context_nbytes)
        except MemoryFault:
            raise Death(SIGSEGV) from None
        _, _, address, flags, nbytes, mask = _UCONTEXT.unpack_from(data)
        self.alternate = (address, flags, nbytes)
        self.abi.restore_context(state, data[_UCONTEXT.size :])
        self.set_mask(mask)

    # The alternate stack

    def _on_alternate(self, stack: int) -> bool:
        address, flags, nbytes = self.alternate
        disarmed = flags & (_SS_DISABLE | _SS_AUTODISARM)
        return not disarmed and address < stack <= address + nbytes

    def pack_alternate(self, stack: int) -> bytes:
        """``stack_t`` of the alternate stack, given the stack pointer."""
        address, flags, nbytes = self.alternate
        if self._on_alternate(stack):
            flags |= _SS_ONSTACK
        return struct.pack("<QI4xQ", address, flags, nbytes)

    def set_alternate(self, address: int, flags: int, nbytes: int, stack: int) -> int:
        """Set the alternate stack; 0 or -errno."""
        if self._on_alternate(stack):
            return -errno.EPERM
        if flags & ~(_SS_ONSTACK | _SS_DISABLE | _SS_AUTODISARM):
            return -errno.EINVAL
        if flags & _SS_DISABLE:
            self.alternate = (0, _SS_DISABLE, 0)
        elif nbytes < self.abi.signal_stack_nbytes:
            return -errno.ENOMEM
        else:
            self.alternate = (address, flags & _SS_AUTODISARM, nbytes)
        return 0


def die(signum: int) -> NoReturn:
    """End this process by a signal."""
    if signum not in (SIGKILL, _SIGSTOP):
        default_signal(signum)
    set_host_mask(_ALL & ~(1 << (signum - 1)))
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)
