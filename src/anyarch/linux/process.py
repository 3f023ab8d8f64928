"""A guest process: what its threads share, how they begin and end, fork and execve."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import struct
import sys
import threading
from _thread import allocate_lock, stack_size, start_new_thread
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

from anyarch.data import dataclass, field
from anyarch.errors import HostError, LoadError, MemoryFault
from anyarch.host.signalmask import block_signals, set_host_mask
from anyarch.host.signals import prepare_thread
from anyarch.linux import signals as sig
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.calls import CALLS
from anyarch.linux.calls.threads import ThreadStart
from anyarch.linux.growing import Growing
from anyarch.linux.hostcalls import host_call
from anyarch.linux.image import Image, arguments_fit, grow_stack, load_program
from anyarch.linux.interfaces import Engine
from anyarch.linux.masks import host_mask
from anyarch.linux.paths import AT_FDCWD, Paths
from anyarch.linux.proc import Proc
from anyarch.linux.scripts import Program, find_program, refuse_interpreter
from anyarch.linux.thread import INTERRUPTIONS, Ended, Thread
from anyarch.linux.thunks import empty_thunk_table, fill_thunk_table
from anyarch.linux.vfork import READ_NBYTES, Loan
from anyarch.memory.space import AddressSpace

if TYPE_CHECKING:
    from anyarch.linux.strace import Trace

_HOST_STACK_NBYTES: Final = 1 << 19  # of a thread's Python; the guest runs on a stack of its own
_PR_SET_NAME, _COMM_NBYTES = 15, 16
_CLONE_FILES: Final = 0x400
_PATIENCE: Final = 0.005  # seconds between requests to threads that are to end
EngineMaker = Callable[[LinuxAbi, AddressSpace | None], tuple[Engine, AddressSpace]]


@dataclass(slots=True, frozen=True)
class Outcome:
    """How a program ended: its exit status, or the signal that it died of, or neither when the
    instruction budget was spent."""

    status: int | None = None
    signal: int | None = None

    @property
    def shell_status(self) -> int:
        """What a shell would show in ``$?``."""
        if self.status is not None:
            return self.status
        return 128 + self.signal if self.signal is not None else 124


@dataclass(slots=True)
class Options:
    """How a process is run."""

    root: bytes | None = None  # -L: where absolute paths are looked up first
    trace: Trace | None = None
    verbose: bool = False
    crash_report: bool = False  # on stderr, when a signal kills the process
    core: bytes | None = None  # where a core dump is written then
    max_insns: int | None = None
    python_calls: Counter[str] = field(default_factory=Counter)  # for --stats


@dataclass(slots=True, frozen=True)
class _Replacement:
    """The program that the process is to execute once only its leader is left."""

    program: Program
    abi: LinuxAbi
    environment: list[bytes]
    signals: sig.Signals  # of the thread that asked for it


class Process:
    """One guest process. Its leader is the thread whose number is the process's.

    ``make_engine`` gives an engine and its address space for an architecture, whenever a program
    of another one than before is executed. A space that it is given is empty, and may be used.
    """

    def __init__(self, make_engine: EngineMaker, abi: LinuxAbi, options: Options) -> None:
        self._make_engine, self.options = make_engine, options
        self.actions = sig.Actions(abi)
        self.actions.wake = self._wake
        if options.crash_report or options.core is not None:
            self.actions.examined = sig.CORE_SIGNALS
        self.threads: list[Thread] = []
        self.paths = Paths(options.root, self._announce_paths, self._forget_places)
        self.proc = Proc(self)
        self.image: Image
        self.environment: list[bytes] = []
        self.heap_end = 0
        self.heap_limit = 1 << 36
        self.limits: dict[int, tuple[int, int]] = {}
        self.reserved: set[int] = set()  # descriptors that are ours
        self.growing = Growing()
        self.locks_mappings = False  # mlockall for the future
        self.advises_huge_pages = False  # the guest itself: MADV_HUGEPAGE, MADV_NOHUGEPAGE
        self.timers: set[int] = set()  # of timer_create
        self.is_child = False
        self.stopping = False  # every thread is to end
        self._outcome: Outcome | None = None
        self._replacement: _Replacement | None = None
        self._failure: BaseException | None = None
        self._loan: Loan | None = None  # what the parent waits for
        self._loans: set[Loan] = set()  # what threads of ours wait for
        self._noted: set[str] = set()
        self._changed = threading.Condition(threading.RLock())  # guards all about threads
        if options.trace is not None:
            self.reserved |= options.trace.descriptors
            self.actions.on_delivery = options.trace.signal
        self._past_counts: Counter[str] = Counter()  # of architectures that it has left
        self._idle: list[Thread] = []  # ended; their engines are used again
        self._adopt(abi, None)

    def _adopt(self, abi: LinuxAbi, space: AddressSpace | None) -> None:
        """Have programs of an architecture run; what there was of another is let go."""
        engine, self.space = self._make_engine(abi, space)
        self.abi = abi
        self.task_size = min(abi.task_size, self.space.limit)
        self.calls = [CALLS.get(abi.calls.get(number, "")) for number in range(512)]
        if self.options.trace is not None:
            self._call_table = empty_thunk_table()
        else:
            self._call_table = fill_thunk_table(abi, CALLS.get, self.paths.flags)
        self.actions.adopt(abi, engine.claim_signal)
        self.leader = Thread(self, engine, self._call_table)
        self.leader.begin()
        self.threads = [self.leader]
        self._idle.clear()

    def _announce_paths(self, flags: int) -> None:
        for thread in self.threads:
            thread.leave_paths(flags)

    def _forget_places(self) -> None:
        for thread in self.threads:
            thread.forget_places()

    def native_counts(self) -> Counter[str]:
        """How often each call was served without Python."""
        total = self._past_counts.copy()
        for thread in (*self.threads, *self._idle):
            for number, count in thread.native_counts().items():
                total[self.abi.calls[number]] += count
        return total

    # Starting and running

    def load(
        self,
        program: bytes,
        name: bytes,
        arguments: Sequence[bytes],
        environment: Sequence[bytes],
    ) -> None:
        """Make a program, by host path, the process's image. The address space is empty."""
        self.image = load_program(
            self.space,
            self.abi,
            program,
            name,
            arguments,
            environment,
            self.find,
            self._stack_limit,
        )
        self.environment = list(environment)
        self.heap_end = self.image.heap
        leader = self.leader
        self.abi.restore_context(leader.state, bytes(self.abi.context_nbytes))
        leader.state.pc = self.image.start
        leader.set_register(self.abi.stack, self.image.stack)
        self.actions.trampoline = self.image.trampoline
        comm = os.path.basename(name)[: _COMM_NBYTES - 1] + b"\0"
        host_call("prctl", _PR_SET_NAME, leader.scratch_bytes(comm))
        self.proc.publish(self.image)

    def announce_program(self) -> None:
        """Begin the trace."""
        if self.options.trace is not None:
            image = self.image
            place = image.stack + 8 * (len(image.arguments) + 2)
            count = len(self.environment)
            self.options.trace.started(image.name, image.arguments, count, place)

    @property
    def _stack_limit(self) -> int:
        """The soft limit in bytes."""
        limit = self.limits.get(resource.RLIMIT_STACK)
        soft = (resource.getrlimit(resource.RLIMIT_STACK) if limit is None else limit)[0]
        return soft if soft >= 0 else 1 << 62  # unlimited is -1 for Python

    def confine(self, thread: Thread) -> None:
        """The process is about to lose sight of the interpreter's files."""
        import traceback  # noqa: F401 - for print_exception

        from anyarch.linux import crash  # noqa: F401

        thread.engine.load_rare()

    def lose_rights(self, thread: Thread) -> None:
        """The process may become a user who cannot read the interpreter's files."""
        if not all(_is_public(module) for module in (os.__file__, __file__)):
            self.confine(thread)

    def grow_stack(self) -> None:
        """The limit on the stack may be higher now."""
        grow_stack(self.space, self._stack_limit)

    def _find_program(self, path: bytes) -> bytes:
        """The host path of a file to execute: links are the guest's in all folders."""
        if self.paths.root is not None and not path.startswith(b"/"):
            with contextlib.suppress(OSError):
                path = self.paths.guest(os.getcwdb()) + b"/" + path
        return self.find(path)

    def run(self) -> Outcome:
        """Run until the end. In a forked child this does not return."""
        try:
            self.actions.begin()
            self.leader.run()
            outcome = self._lead()
        except BaseException:
            if self.is_child:
                print_exception()
                os._exit(70)
            raise
        finally:
            if not self.is_child:
                self._stop_timers()
                self.actions.end()
        if self.is_child:
            self._end_child(outcome)
        self.leader.release_locks()
        if self.options.trace is not None:
            self.options.trace.end(outcome.status, outcome.signal)
        return outcome

    def _lead(self) -> Outcome:
        """The leader has ended: wait for the other threads, and run what replaces them."""
        while True:
            leader = self.leader
            if not self.stopping:
                leader.signals.close()
                leader.release()
            self._wait_for_others()
            if self._failure is not None:
                raise self._failure
            if self._outcome is not None or self._replacement is None:
                return self._outcome or Outcome(status=leader.status)
            self._replace(self._replacement)
            self.leader.run()

    def _wait_for_others(self) -> None:
        before = block_signals() if len(self.threads) > 1 else None
        with self._changed:
            while len(self.threads) > 1:
                if not self.stopping:
                    self._changed.wait()
                    continue
                for thread in self.threads:
                    if thread is not self.leader:
                        thread.engine.request_stop()
                self._changed.wait(_PATIENCE)
        if before is not None:
            set_host_mask(before)

    # How it ends

    def end(self, status: int) -> NoReturn:
        """End all threads with a status."""
        self._end(Outcome(status=status))
        raise Ended

    def end_by_signal(self, signum: int) -> None:
        """A signal ends all threads."""
        self._end(Outcome(signal=signum))

    def end_by_budget(self) -> None:
        """The instruction budget is spent."""
        self._end(Outcome())

    def _end(self, outcome: Outcome) -> None:
        with self._changed:
            if self._outcome is None:
                self._outcome = outcome
            if self.is_child:
                self._end_child(self._outcome)
            self._stop_threads()

    def _stop_threads(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.engine.request_stop()
        self._changed.notify_all()

    def _end_child(self, outcome: Outcome) -> NoReturn:
        """End a forked child at once, its other threads included."""
        for thread in self.threads:
            thread.release_locks()
        self._repay()
        if self.options.trace is not None:
            self.options.trace.end(outcome.status, outcome.signal)
        self.leader.engine.finish()
        end_like(outcome)

    # Threads

    def start_thread(self, parent: Thread, start: ThreadStart) -> int:
        """Start a thread that goes on where ``parent`` is; its number, or -errno."""
        with self._changed:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            _start_host_threads()
            try:
                thread = Thread(self, parent.engine.spawn(), self._call_table)
            except (HostError, OSError):  # no memory, or too many mappings
                return -errno.EAGAIN
        thread.renew(parent)
        thread.leave_paths(self.paths.flags)
        thread.forget_places()
        thread.set_register(self.abi.result, 0)
        thread.set_register(self.abi.stack, start.stack)
        if start.thread_pointer is not None:
            thread.state.set(*self.abi.thread_pointer, start.thread_pointer)
        thread.clear_tid = start.clear_tid
        begun = allocate_lock()
        begun.acquire()
        before = block_signals()  # until the thread knows where signals are noted
        stack = stack_size(_HOST_STACK_NBYTES)
        try:
            start_new_thread(self._run_thread, (thread, start, begun.release))
        except RuntimeError:
            self._idle.append(thread)
            return -errno.EAGAIN
        else:
            begun.acquire()
        finally:
            stack_size(stack)
            set_host_mask(before)
        return thread.tid

    def _run_thread(self, thread: Thread, start: ThreadStart, begun: Callable[[], None]) -> None:
        try:
            thread.begin()
            tid = thread.tid
            try:
                prepare_thread(thread.engine.context)
            except (HostError, OSError):
                thread.tid = -errno.EAGAIN
                self._idle.append(thread)
                return
            if start.unshared:
                host_call("unshare", start.unshared)
            for address in (start.parent_tid, start.child_tid):
                if address:
                    with contextlib.suppress(MemoryFault):
                        self.space.write(address, struct.pack("<I", tid))
            with self._changed:
                self.threads.append(thread)
                thread.signals.hold(bool(self.actions.shared))
        finally:
            begun()
        try:
            set_host_mask(host_mask(thread.signals.mask))
            thread.run()
            if thread is self.leader:  # in a child that this thread forked
                self._end_child(self._lead())
        except BaseException as failure:
            if self.is_child:
                print_exception()
                os._exit(70)
            with self._changed:
                self._failure = failure
                self._stop_threads()
        self._leave(thread)

    def find_thread(self, tid: int) -> Thread | None:
        """The thread with a number."""
        return next((thread for thread in self.threads if thread.tid == tid), None)

    def _leave(self, thread: Thread) -> None:
        thread.signals.close()
        if self.stopping:
            thread.release_locks()
        else:
            thread.release()
        with self._changed:
            self.threads.remove(thread)
            self._idle.append(thread)
            self._changed.notify_all()

    def _wake(self, signum: int, giver: sig.Signals) -> None:
        """Have another thread look for a shared signal: one that does not block it, or where all
        do each of them, for it may be waiting with another mask."""
        with self._changed:
            others = [thread for thread in self.threads if thread.signals is not giver]
            takers = [thread for thread in others if not thread.signals.mask >> (signum - 1) & 1]
            for thread in others:
                thread.signals.hold()
            for thread in takers[:1]:
                thread.signals.asked.add(signum)
            for thread in takers[:1] or others:
                thread.engine.request_stop()

    # Processes

    def fork(self, thread: Thread, *, wait: bool, fork: Callable[[], int] = os.fork) -> int:
        """Fork; 0 in the child. ``wait``: until the child has executed a program or ended."""
        loan = None
        before = block_signals()  # what arrives meanwhile is for the parent
        try:
            with self.space.lock:  # no other thread is halfway through a change
                if wait:
                    loan = Loan(self.space)
                    self._loans.add(loan)
                pid = fork()
                if pid == 0:
                    self._become_child(thread, loan)
                    before = host_mask(thread.signals.mask)  # without what had just arrived
        except OSError:
            if loan is not None:
                self._loans.discard(loan)
                loan.cancel()
            raise
        finally:
            set_host_mask(before)
        if pid and loan is not None:
            try:
                room = thread.scratch_room(READ_NBYTES)
                loan.wait(lambda fd: self._read(thread, fd, room))
            finally:
                self._loans.discard(loan)
        return pid

    def _read(self, thread: Thread, fd: int, pointer: int) -> bytes:
        """Read by way of scratch memory; only the end of the process interrupts it."""
        while (result := thread.call("read", fd, pointer, READ_NBYTES)) in INTERRUPTIONS:
            thread.engine.clear_stop()
            if self.stopping:
                raise Ended
        return thread.scratch_read(pointer, max(result, 0))

    def _become_child(self, thread: Thread, loan: Loan | None) -> None:
        self.is_child = True
        self._changed = threading.Condition(threading.RLock())
        self.leader = thread
        self.threads = [thread]
        self._idle.clear()
        self.timers.clear()
        self.locks_mappings = False
        self.stopping = False
        self._outcome = self._replacement = None
        for other in self._loans - {loan}:  # nobody waits for us to close them
            other.cancel()
        self._loans.clear()
        if self._loan is not None:  # our parent's to repay
            self._end_loan(self._loan)
        self._loan = loan
        if loan is not None:
            loan.accept(thread.stack_pointer)
            self.reserved.add(loan.descriptor)
            thread.pass_natively("close", False)  # children close everything they find
        thread.after_fork()

    def _end_loan(self, loan: Loan) -> None:
        self._loan = None
        self.reserved.discard(loan.descriptor)
        self.leader.pass_natively("close", True)
        loan.end()

    def _repay(self) -> None:
        """Let a parent that waits in vfork go on."""
        if self._loan is not None:
            self._loan.send()
            self._end_loan(self._loan)

    def execute(
        self,
        thread: Thread,
        path: bytes,
        arguments: list[bytes],
        environment: list[bytes],
        *,
        lasts: bool = True,
    ) -> int | None:
        """Replace the program, as execve does; -errno where that is impossible. ``lasts`` is
        whether what is executed can still read ``path``."""
        if not arguments_fit([*arguments, *environment], self._stack_limit):
            return -errno.E2BIG
        found = find_program(path, arguments or [b""], self._find_program)
        if not isinstance(found, Program):
            return found
        if not lasts and found.name != path:  # a script
            return -errno.ENOENT
        if found.abi is None:
            return self._execute_on_host(thread, found, environment)
        if found.interpreter is not None:
            linker = os.fsdecode(found.interpreter)
            refused = refuse_interpreter(self.find(found.interpreter), found.abi)
            if refused:
                why = f"no {found.abi.name} system has {linker} here: -L ROOT is to contain one"
                self.note(f"{os.fsdecode(found.name)} cannot be executed: {why}")
                return refused
        with self._changed:
            if not self.stopping:
                self._replacement = _Replacement(found, found.abi, environment, thread.signals)
                self._stop_threads()
        raise Ended

    def _execute_on_host(self, thread: Thread, program: Program, environment: list[bytes]) -> int:
        if self._loan is not None:
            self._loan.send()
        where = "" if self.paths.root is None else " that ROOT has not"
        self.note(f"{os.fsdecode(program.name)}: executed natively, a program of the host{where}")
        if self.options.trace is not None:
            self.options.trace.handed_over()
        table = {name: value for name, _, value in (text.partition(b"=") for text in environment)}
        thread.signals.collect()
        thread.signals.let_arrive()  # else it would be blocked there for ever
        try:
            os.execve(program.host_path, program.arguments, table)
        except OSError as error:
            return -(error.errno or errno.ENOEXEC)

    def _replace(self, replacement: _Replacement) -> None:
        """Load another program; the leader is the only thread."""
        self._replacement = None
        self.stopping = False
        leader, program = self.leader, replacement.program
        if self.options.trace is not None:
            self.options.trace.executed()
        self._repay()
        host_call("unshare", _CLONE_FILES)
        self._delete_timers()
        self.growing.clear()
        self.locks_mappings = False
        self.advises_huge_pages = False
        leader.engine.flush()  # first: nothing is left to look for when code is unmapped
        for region in list(self.space.regions()):
            self.space.unmap(region.start, region.end - region.start)
        try:
            if replacement.abi is not self.abi:
                self._change_architecture(replacement)
            self.leader.signals.after_execute(replacement.signals)
            self.leader.clear_tid = self.leader.robust_list = 0
            self.load(program.host_path, program.name, program.arguments, replacement.environment)
        except (LoadError, HostError) as error:
            print(f"anyarch: {error}", file=sys.stderr, flush=True)
            self._outcome = Outcome(signal=sig.SIGKILL)
            self.stopping = True
            return
        self._close_on_execute()  # the program may have been in one of these
        self.actions.after_execute(self.image.trampoline)

    def _change_architecture(self, replacement: _Replacement) -> None:
        """Only the leader is left, and nothing is mapped."""
        self._past_counts = self.native_counts()
        signals = self.leader.signals
        block_signals()  # what arrives meanwhile is for the new engine
        try:
            if signals is replacement.signals:
                signals.collect()
            else:
                signals.close()
            for thread in (*self.threads, *self._idle):
                thread.engine.close()
            self._adopt(replacement.abi, self.space)
            prepare_thread(self.leader.engine.context)
        finally:
            set_host_mask(host_mask(replacement.signals.mask))

    def _delete_timers(self) -> None:
        for timer in self.timers:
            host_call("timer_delete", timer)
        self.timers.clear()

    def _stop_timers(self) -> None:
        """The program has ended: its timers are not to hit the interpreter."""
        self._delete_timers()
        never = self.leader.scratch_bytes(bytes(32))
        for timer in range(3):  # ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
            host_call("setitimer", timer, never, 0)

    def _close_on_execute(self) -> None:
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            if fd not in self.reserved:
                flags = host_call("fcntl", fd, 1)
                if flags > 0 and flags & 1:
                    host_call("close", fd)

    # What threads use

    def find(self, path: bytes, follow: bool = True, dirfd: int = AT_FDCWD) -> bytes:
        """The host's path of a guest's; of a file in /proc its plain name."""
        return self.proc.substitute(self.paths.resolve(path, follow, dirfd), follow)

    def grow(self, address: int) -> bool:
        """Whether memory that grows downwards now reaches to an address that was touched."""
        return self.growing.grow(self.space, address, self._stack_limit)

    def note(self, text: str) -> None:
        """Say something once, when asked to be verbose."""
        if self.options.verbose and text not in self._noted:
            self._noted.add(text)
            print(f"anyarch: {text}", file=sys.stderr, flush=True)


@cache
def _is_public(path: str) -> bool:
    """Whether every user can read a file."""
    try:
        modes = [os.stat(folder).st_mode for folder in _ancestors(os.path.realpath(path))]
        return bool(os.stat(path).st_mode & 4) and all(mode & 1 for mode in modes)
    except OSError:
        return False


def _ancestors(path: str) -> list[str]:
    """The folders that a file is in, from the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(len(parts) + 1)]


@cache
def _start_host_threads() -> None:
    """Start a first thread, before signals are set up for another: with the first one glibc
    installs a handler of its own for signal 33, which is our stop signal."""
    first = threading.Thread(target=int)
    before = block_signals()
    first.start()
    first.join()
    set_host_mask(before)


def print_exception() -> None:
    """The exception being handled, in a child that has nobody to raise it to."""
    import traceback  # only here: it takes longer to import than a call to run

    traceback.print_exc()


def end_like(outcome: Outcome) -> NoReturn:
    """End this process as the guest ended: with its status, or of its signal, without a core."""
    if outcome.signal is None:
        os._exit(outcome.shell_status)
    host_call("prctl", 4, 0)  # PR_SET_DUMPABLE
    sig.die(outcome.signal)
