"""Signals of a guest: a process's actions, a thread's mask, and delivery with real frames.

The guest's mask is the host's too, thread by thread, so that waiting calls see what the guest
would. A signal with the default action has it on the host as well. One with a handler is claimed:
native code notes it, and it is delivered here before the guest runs on. Sources: signal(7), Linux
``kernel/signal.c``.
"""

from __future__ import annotations

import errno
import os
import struct
from _thread import get_native_id
from collections.abc import Callable
from typing import Final, NoReturn

from anyarch.data import dataclass
from anyarch.errors import MemoryFault
from anyarch.host.context import FIELDS
from anyarch.host.signalmask import ALL_SIGNALS, block_signals, change_host_mask, set_host_mask
from anyarch.host.signals import default_signal, ignore_signal, release_signal
from anyarch.linux.abi import Handler, LinuxAbi
from anyarch.linux.hostcalls import host_action, host_call
from anyarch.linux.interfaces import Engine
from anyarch.linux.masks import UNBLOCKABLE, host_mask
from anyarch.memory.space import AddressSpace

SIG_DFL, SIG_IGN = 0, 1
SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGKILL, SIGSEGV = 4, 5, 7, 8, 9, 11
_SIGINT, _SIGPIPE, _SIGCONT, _SIGSTOP, _SIGXFSZ = 2, 13, 18, 19, 25
_IGNORED: Final = frozenset((17, _SIGCONT, 23, 28))  # CHLD, CONT, URG, WINCH
_STOPPING: Final = frozenset((_SIGSTOP, 20, 21, 22))  # STOP, TSTP, TTIN, TTOU
CORE_SIGNALS: Final = frozenset((3, 6, 24, 25, 31))  # QUIT, ABRT, XCPU, XFSZ, SYS
SYNCHRONOUS: Final = frozenset((SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV))

_SA_ONSTACK, _SA_RESTART, _SA_NODEFER, _SA_RESETHAND = 0x08000000, 0x10000000, 0x40000000, 1 << 31
_SA_RESTORER: Final = 0x04000000  # else sa_restorer is what happened to be there
_SA_KERNEL: Final = 0x1 | 0x2  # NOCLDSTOP, NOCLDWAIT: what the host's kernel must know
_SS_ONSTACK, _SS_DISABLE, _SS_AUTODISARM = 1, 2, 1 << 31
_SIGINFO_NBYTES: Final = 128
_PENDING, _MASK, _HELD = (
    FIELDS[name][0] >> 3 for name in ("pending", "signal_mask", "signals_held")
)
_FIRST_QUEUED: Final = 32  # real-time signals queue
_UCONTEXT: Final = struct.Struct("<QQQI4xQQ120x8x")  # flags, link, stack, mask; context at 176


class Death(Exception):
    """The guest dies of a signal."""

    def __init__(self, signum: int, info: bytes = b"") -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum
        self.info = info.ljust(_SIGINFO_NBYTES, b"\0")


@dataclass(slots=True, frozen=True)
class Action:
    """What a signal does."""

    handler: int = SIG_DFL
    flags: int = 0
    mask: int = 0
    restorer: int = 0


_DEFAULT: Final = Action()


def _is_for_process(signum: int, info: bytes) -> bool:
    """Whether a signal was surely sent to the process, not to a thread: by kill or the kernel."""
    return int.from_bytes(info[8:12], "little", signed=True) >= 0 and signum not in SYNCHRONOUS


class Actions:
    """What the signals of a process do, the same for all its threads."""

    def __init__(self, abi: LinuxAbi) -> None:
        self.abi = abi
        self.trampoline = 0
        self.on_delivery: Callable[[int, bytes], None] | None = None  # strace
        # For the process, and arrived at a thread that blocks them: for whoever takes them.
        self.shared: list[tuple[int, bytes]] = []
        self.wake: Callable[[int, Signals], None] = lambda *_: None  # others than a thread, to look
        self.examined: frozenset[int] = frozenset()  # a death by these is to be seen here
        self._claim: Callable[[int, int], None]  # of a host signal, for the guest
        self._actions: dict[int, Action] = {}
        self._touched: set[int] = set()

    def adopt(self, abi: LinuxAbi, claim: Callable[[int, int], None]) -> None:
        """Structures are those of an architecture, whose engine claims signals."""
        self.abi, self._claim = abi, claim

    def begin(self) -> None:
        """Take over the actions of the host process; Python's own are not the guest's."""
        for signum in range(1, 65):
            if host_action(signum) == SIG_IGN:
                self._actions[signum] = Action(SIG_IGN)
        for signum in (_SIGPIPE, _SIGXFSZ, _SIGINT):
            if signum != _SIGINT or host_action(signum) != SIG_IGN:
                self._actions.pop(signum, None)
                self._touched.add(signum)
                default_signal(signum)
        for signum in self.examined:
            if signum not in self._actions:
                self.set(signum, Action())

    def end(self) -> None:
        """Give the host process its own actions back. All signals stay blocked: what is sent to
        the guest now, or what a timer of its own sends, finds nobody."""
        block_signals()
        for signum in self._touched:
            release_signal(signum)
        self._touched.clear()

    def after_execute(self, trampoline: int) -> None:
        """Handlers are gone with the program that held them."""
        self.trampoline = trampoline
        self.clear_handlers()

    def clear_handlers(self) -> None:
        """Every signal that has a handler gets the default action."""
        for signum, action in list(self._actions.items()):
            if action.handler not in (SIG_IGN, SIG_DFL):
                self.set(signum, Action())

    def get(self, signum: int) -> Action:
        """A signal's action."""
        return self._actions.get(signum, _DEFAULT)

    def set(self, signum: int, action: Action) -> None:
        """Set a signal's action, on the host too."""
        self._actions[signum] = action
        self._touched.add(signum)
        if action.handler == SIG_DFL and signum in self.examined:
            self._claim(signum, 0)
        elif action.handler == SIG_DFL:
            default_signal(signum)
        elif action.handler == SIG_IGN:
            ignore_signal(signum)
        else:
            self._claim(signum, action.flags & _SA_KERNEL)

    def _layout(self) -> struct.Struct:
        return struct.Struct("<QQQQ" if self.abi.has_restorer else "<QQQ")

    def pack(self, signum: int) -> bytes:
        """``struct sigaction`` of a signal."""
        action = self.get(signum)
        fields = [action.handler, action.flags, action.restorer, action.mask]
        if not self.abi.has_restorer:
            del fields[2]
        return self._layout().pack(*fields)

    def unpack(self, data: bytes) -> Action:
        """The action that ``struct sigaction`` describes."""
        handler, flags, *rest = self._layout().unpack(data)
        mask = rest[-1] & ~UNBLOCKABLE
        return Action(handler, flags, mask, rest[0] if len(rest) == 2 else 0)


class Signals:
    """The signal state of one thread."""

    def __init__(
        self, engine: Engine, space: AddressSpace, abi: LinuxAbi, actions: Actions
    ) -> None:
        self.engine, self.space, self.abi, self.actions = engine, space, abi, actions
        self.queued: dict[int, list[bytes]] = {}  # arrived, not delivered: siginfo
        self.alternate = (0, _SS_DISABLE, 0)
        self.asked: set[int] = set()  # shared signals that this thread was woken for
        self._kept = 0  # taken, and still blocked on the host
        self._words = engine.context.view.cast("Q")
        self.mask = set_host_mask(None)

    @property
    def mask(self) -> int:
        """The blocked signals. Native code changes it too."""
        return self._words[_MASK]

    @mask.setter
    def mask(self, mask: int) -> None:
        self._words[_MASK] = mask

    def renew(self, mask: int) -> None:
        """A new thread has its parent's mask, and nothing else."""
        self.queued.clear()
        self.asked.clear()
        self._kept = 0
        self.alternate = (0, _SS_DISABLE, 0)
        self.mask = mask

    def after_fork(self) -> None:
        """In the child: what had arrived at the parent is the parent's."""
        self.collect()
        self.queued.clear()
        self.actions.shared.clear()

    def after_execute(self, before: Signals) -> None:
        """The program was replaced, at the wish of the thread with the signals ``before``."""
        self.alternate = (0, _SS_DISABLE, 0)
        if before is not self:  # what was sent to this thread, not to the process, is lost
            self.mask = ALL_SIGNALS
            self._pass_on()
            self.queued = dict(before.queued)
            self.mask = before.mask
            set_host_mask(host_mask(self.mask))

    def set_action(self, signum: int, data: bytes) -> None:
        """Set a signal's action from ``struct sigaction``."""
        self.collect()
        action = self.actions.unpack(data)
        self.actions.set(signum, action)
        ignored = action.handler == SIG_DFL and signum in _IGNORED
        if action.handler == SIG_IGN or ignored:
            while self._pop(signum) is not None:
                pass

    # The mask

    def set_mask(self, mask: int) -> None:
        """Set the blocked signals."""
        mask &= ~UNBLOCKABLE
        before, self.mask = self.mask, mask
        # Not set as a whole: what has arrived just now stays blocked until it is collected.
        change_host_mask(host_mask(mask & ~before), host_mask(before & ~mask))
        if self.holds_any():
            self._pass_on()
        self._words[_HELD] = self._holds_back()

    def _holds_back(self) -> bool:
        return bool(self.queued or self.actions.shared)

    def hold(self, held: bool = True) -> None:
        """Whether the mask may hold back shared signals: then native code does not change it."""
        self._words[_HELD] = held

    def _pass_on(self) -> None:
        """Leave to others what is blocked here and is for the process."""
        self.collect()
        while self.asked:
            signum = self.asked.pop()
            if self.mask >> (signum - 1) & 1 and signum in self._arrived():
                self.actions.wake(signum, self)
        for signum in [signum for signum in self.queued if self.mask >> (signum - 1) & 1]:
            for info in self.queued.pop(signum):
                if _is_for_process(signum, info):
                    self._share(signum, info)
                else:
                    self._queue(signum, info)

    def _share(self, signum: int, info: bytes) -> None:
        shared = self.actions.shared
        if signum >= _FIRST_QUEUED or all(signum != other for other, _ in shared):
            shared.append((signum, info))
        self.actions.wake(signum, self)

    def close(self) -> None:
        """The thread ends: it takes nothing any more, and what was for the process is shared."""
        block_signals()
        self.mask = ALL_SIGNALS
        self._pass_on()

    # Arrival

    def holds_any(self) -> bool:
        """Whether signals have arrived, here or for the process, and are not delivered."""
        return bool(self._words[_PENDING] or self.queued or self.actions.shared)

    def collect(self, mask: int = ALL_SIGNALS) -> None:
        """Take what native code has noted. ``mask`` is what is blocked while the guest waits.

        The request to stop stays: it may have been made for something else.
        """
        if self._words[_PENDING]:
            for signum, info in self.engine.take_pending(ALL_SIGNALS):
                self._kept |= 1 << (signum - 1)
                blocked = (self.mask & mask) >> (signum - 1) & 1
                if blocked and _is_for_process(signum, info):
                    self._share(signum, info)
                else:
                    self._queue(signum, info)

    def let_arrive(self) -> None:
        """What has been dealt with may arrive again. Not earlier: of a signal that somebody sends
        all the time the next one is to come when the handler of the first has returned."""
        if self._kept:
            change_host_mask(0, self._kept & ~host_mask(self.mask))
            self._kept = 0

    def _queue(self, signum: int, info: bytes) -> None:
        infos = self.queued.setdefault(signum, [])
        if not infos or signum >= _FIRST_QUEUED:
            infos.append(info)

    def _pop(self, signum: int) -> bytes | None:
        infos = self.queued.get(signum)
        if infos is not None:
            info = infos.pop(0)
            if not infos:
                del self.queued[signum]
            return info
        shared = self.actions.shared
        for item in [item for item in shared if item[0] == signum]:
            try:
                shared.remove(item)
            except ValueError:
                continue  # another thread was faster
            return item[1]
        return None

    def queued_set(self) -> int:
        """The signals that have arrived, as a set."""
        self.collect()
        return sum(1 << (signum - 1) for signum in self._arrived())

    def _arrived(self) -> set[int]:
        return {*self.queued, *(signum for signum, _ in self.actions.shared)}

    def deliverable(self, mask: int | None = None) -> int:
        """The first signal that has arrived and is not blocked, or 0."""
        if not self.holds_any():
            return 0
        blocked = self.mask if mask is None else mask & ~UNBLOCKABLE
        self.collect(blocked)
        ready = [signum for signum in self._arrived() if not blocked >> (signum - 1) & 1]
        return min(ready, key=lambda signum: (signum not in SYNCHRONOUS, signum), default=0)

    def take(self, wanted: int) -> tuple[int, bytes] | None:
        """Remove and return an arrived signal of a set."""
        while signum := self.deliverable(~wanted & ALL_SIGNALS):
            info = self._pop(signum)
            if info is not None:
                return signum, info
        return None

    def is_ours(self, signum: int) -> bool:
        """Whether a signal sent to ourselves is dealt with here, not by the host: a fault's, and
        one that would end the interpreter now."""
        signum &= 0xFFFFFFFF
        if signum in SYNCHRONOUS:
            return True
        if self.mask >> (signum - 1 & 63) & 1:
            return False
        default = self.actions.get(signum).handler == SIG_DFL
        return default and 1 <= signum <= 64 and signum not in _IGNORED | _STOPPING

    def send(self, signum: int, code: int) -> int:
        """A signal from ourselves to ourselves."""
        info = struct.pack("<iiiiiI", signum, 0, code, 0, os.getpid(), os.getuid())
        if self.actions.get(signum).handler != SIG_IGN:
            self._queue(signum, info.ljust(_SIGINFO_NBYTES, b"\0"))
        return 0

    def fault(self, signum: int, code: int, address: int) -> None:
        """An instruction has faulted: its signal cannot be blocked or ignored."""
        info = struct.pack("<iiiiQ", signum, 0, code, 0, address).ljust(_SIGINFO_NBYTES, b"\0")
        action = self.actions.get(signum)
        if action.handler in (SIG_DFL, SIG_IGN) or self.mask >> (signum - 1) & 1:
            if self.actions.on_delivery is not None:
                self.actions.on_delivery(signum, info)
            raise Death(signum, info)
        self.queued[signum] = [info]

    # Delivery

    def restarts(self, signum: int) -> bool | None:
        """Whether a call that ``signum`` interrupted is repeated; None when no handler will run."""
        action = self.actions.get(signum)
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
        if self.asked:
            self._pass_on()
        self._words[_HELD] = self._holds_back()

    def _deliver(self, signum: int) -> None:
        info = self._pop(signum)
        if info is None:
            return  # another thread has taken it
        action = self.actions.get(signum)
        if self.actions.on_delivery is not None:
            self.actions.on_delivery(signum, info)
        if action.handler == SIG_IGN:
            return
        if action.handler != SIG_DFL:
            self._enter(signum, action, info)
        elif signum in _STOPPING:
            os.kill(os.getpid(), _SIGSTOP)
        elif signum not in _IGNORED:
            raise Death(signum, info)

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
            reset = Action(SIG_DFL, action.flags, action.mask, action.restorer)
            self.actions.set(signum, reset)
        own = 0 if action.flags & _SA_NODEFER else 1 << (signum - 1)
        self.set_mask(self.mask | action.mask | own)
        handler = Handler(
            action.handler,
            signum,
            frame,
            frame,
            frame + _SIGINFO_NBYTES,
            action.restorer if action.flags & _SA_RESTORER else self.actions.trampoline,
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
    set_host_mask(ALL_SIGNALS & ~(1 << (signum - 1)))
    host_call("tgkill", os.getpid(), get_native_id(), signum)
    os._exit(128 + signum)
