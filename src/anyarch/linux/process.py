"""A guest process: runs the engine, serves system calls, delivers signals, until it ends."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from anyarch.errors import LoadError, MemoryFault
from anyarch.host.context import NBYTES, REGISTERS, ExitCode
from anyarch.host.mapping import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    map_pages,
)
from anyarch.linux import signals as sig
from anyarch.linux.abi import LinuxAbi, generic_stat
from anyarch.linux.calls import CALLS
from anyarch.linux.calls.table import IOVECS, PATHS, POINTERS, Call
from anyarch.linux.hostcalls import host_call
from anyarch.linux.image import Image, load_program
from anyarch.linux.interfaces import Engine, Exit
from anyarch.linux.numbers import HOST_NUMBERS
from anyarch.linux.paths import Proc, host_path
from anyarch.linux.scripts import Program, find_program
from anyarch.linux.thunks import (
    INTERRUPTED,
    TABLE_NBYTES,
    TOUCHING,
    empty_thunk_table,
    fill_thunk_table,
    native_counts,
)
from anyarch.memory.space import AddressSpace

if TYPE_CHECKING:
    from anyarch.linux.strace import Trace

_WORD: Final = (1 << 64) - 1
_NOT_BEGUN: Final = -512  # from an engine: interrupted, and may be repeated
_PATH_MAXIMUM: Final = 4096
_STRINGS_MAXIMUM: Final = 0x20000  # bytes of one argument, and number of arguments
_IOV_MAXIMUM: Final = 1024
_SCRATCH_NBYTES: Final = 1 << 18
_SIGNALS_OF_EXITS: Final = {
    ExitCode.ILLEGAL: (sig.SIGILL, 1),  # ILL_ILLOPC
    ExitCode.BREAKPOINT: (sig.SIGTRAP, 1),  # TRAP_BRKPT
    ExitCode.HALT: (sig.SIGILL, 5),  # ILL_PRVOPC
    ExitCode.EXCEPTION: (sig.SIGILL, 1),
}
_SEGV_MAPERR, _SEGV_ACCERR = 1, 2
_EXPECTED: Final = frozenset(("rseq", "clone3"))  # C libraries ask, and do without


class Exited(Exception):
    """The guest has exited."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


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
    max_insns: int | None = None
    python_calls: Counter[str] = field(default_factory=Counter)  # for --stats


class Process:
    """One guest process with one thread."""

    def __init__(
        self, engine: Engine, space: AddressSpace, abi: LinuxAbi, options: Options
    ) -> None:
        self.engine, self.space, self.abi, self.options = engine, space, abi, options
        self.state = engine.state
        self.signals = sig.Signals(engine, space, abi)
        self.proc = Proc(self)
        self.task_size = min(abi.task_size, space.limit)
        self.image: Image
        self.environment: list[bytes] = []
        self.heap_end = 0
        self.heap_limit = 1 << 36
        self.clear_tid = 0
        self.robust_list = 0
        self.limits: dict[int, tuple[int, int]] = {}
        self.reserved: set[int] = set()  # descriptors that are ours
        self.is_child = False
        self._noted: set[str] = set()
        self._calls = [CALLS.get(abi.calls.get(number, "")) for number in range(512)]
        self._scratch = mmap.mmap(-1, _SCRATCH_NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._scratch_base = ctypes.addressof(ctypes.c_char.from_buffer(self._scratch))
        self._scratch_used = 0
        self._table = mmap.mmap(-1, TABLE_NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._words = engine.context.view.cast("Q")
        self._number_word = self._offset(abi.number) >> 3
        self._argument_words = [self._offset(index) >> 3 for index in abi.arguments]
        self._result_word = self._offset(abi.result) >> 3
        self._begin_native_calls()
        if options.trace is not None:
            self.reserved |= options.trace.descriptors
            self.signals.on_delivery = options.trace.signal

    def _begin_native_calls(self) -> None:
        if self.options.trace is not None:
            table = empty_thunk_table()
        else:
            table = fill_thunk_table(self.abi, CALLS.get, paths=self.options.root is None)
        self._table[:] = table
        context = self.engine.context
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(self._table))
        context.set("syscall_table", pointer)
        registers = (self.abi.number, *self.abi.arguments, self.abi.result)
        offsets = [self._offset(index) for index in registers]
        context.set("abi", int.from_bytes(struct.pack("<8H", *offsets), "little"))

    def _offset(self, register: int) -> int:
        """Where in the context a general register is."""
        return REGISTERS + self.state.layout.offset(self.abi.file, register)

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
            self.space, self.abi, program, name, arguments, environment, self._find_interpreter
        )
        self.environment = list(environment)
        self.heap_end = self.image.heap
        self.abi.restore_context(self.state, bytes(self.abi.context_nbytes))
        self.state.pc = self.image.start
        self.set_register(self.abi.stack, self.image.stack)
        self.signals.trampoline = self.image.trampoline

    def _find_interpreter(self, path: bytes) -> bytes:
        return self.host_path(path, follow=True)

    def run(self) -> Outcome:
        """Run until the end. In a forked child this does not return."""
        try:
            self.signals.begin()
            outcome = self._run()
        except BaseException:
            if self.is_child:
                traceback.print_exc()
                os._exit(70)
            raise
        finally:
            if not self.is_child:
                self.signals.end()
        if self.options.trace is not None:
            self.options.trace.end(outcome.status, outcome.signal)
        if self.is_child:
            end_like(outcome)
        return outcome

    def _run(self) -> Outcome:
        try:
            budget = self.options.max_insns
            while True:
                self._settle()
                exit = self.engine.run(budget)
                if exit.code is ExitCode.SYSCALL:
                    self._serve()
                elif exit.code is ExitCode.BUDGET and budget is not None:
                    return Outcome()
                else:
                    self._handle(exit)
                if budget is not None:
                    budget = self.engine.context.get("remaining")
        except Exited as exited:
            return Outcome(status=exited.status)
        except sig.Death as death:
            return Outcome(signal=death.signum)

    def _settle(self, waited_mask: int | None = None) -> None:
        """Deliver signals, so that the guest may run on."""
        self.engine.clear_stop()
        if waited_mask is not None or self.engine.context.get("pending") or self.signals.queued:
            self.signals.deliver(waited_mask)

    def _handle(self, exit: Exit) -> None:
        code = exit.code
        if code is ExitCode.CODE_CHANGED:
            self.engine.flush()
        elif code is ExitCode.FAULT:
            if self._table[TOUCHING]:  # an argument of a native call points nowhere
                self._table[TOUCHING] = 0
                self.state.pc = self.engine.context.get("pc")
                self.set_register(self.abi.result, -errno.EFAULT)
                return
            context = self.engine.context
            signum, cause = context.get("fault_signal"), context.get("fault_code")
            if signum == sig.SIGSEGV:
                cause = self._segv_cause(exit.address)
            self.signals.fault(signum, cause, exit.address)
        elif code is ExitCode.FETCH:
            self.engine.flush()  # what was noted of the address holds until it is mapped
            self.signals.fault(sig.SIGSEGV, self._segv_cause(exit.address), exit.address)
        elif code in _SIGNALS_OF_EXITS:
            signum, cause = _SIGNALS_OF_EXITS[code]
            self.signals.fault(signum, cause, exit.pc)

    def _segv_cause(self, address: int) -> int:
        """The host cannot tell: it has reserved what the guest has not mapped."""
        regions = self.space.regions()
        mapped = any(region.start <= address < region.end for region in regions)
        return _SEGV_ACCERR if mapped else _SEGV_MAPERR

    # System calls

    def _serve(self) -> None:
        """Serve the system call that the registers ask for."""
        words = self._words
        number = words[self._number_word]
        call = self._calls[number] if number < 512 else None
        if call is None:
            self._refuse(number)
            return
        arguments = [words[index] for index in self._argument_words[: len(call.arguments)]]
        trace = self.options.trace
        self._scratch_used = 0
        if self._was_interrupted():
            result: int | None = -errno.EINTR
        elif self.signals.deliverable():
            result = _NOT_BEGUN
        else:
            self.options.python_calls[call.name] += 1
            if trace is not None:
                trace.enter(self, call, arguments)
            result = self._perform(call, arguments)
        if result == _NOT_BEGUN or result == -errno.EINTR:
            self._interrupt(call, arguments, result)
        elif result is not None:
            words[self._result_word] = result & _WORD
            if trace is not None:
                trace.leave(self, call, arguments, result)

    def _refuse(self, number: int) -> None:
        name = self.abi.calls.get(number, f"number {number}")
        if name not in _EXPECTED:
            self.note(f"system call {name} is not supported: ENOSYS")
        if self.options.trace is not None:
            self.options.trace.refuse(name)
        self.set_register(self.abi.result, -errno.ENOSYS)

    def _perform(self, call: Call, arguments: list[int]) -> int | None:
        try:
            if call.handler is not None:
                return call.handler(self, *arguments)
            return self._pass(call, arguments)
        except MemoryFault:
            return -errno.EFAULT
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _pass(self, call: Call, arguments: list[int]) -> int:
        host = []
        for argument, value in zip(call.arguments, arguments, strict=True):
            kind = argument.kind
            if not value:
                pass
            elif kind in PATHS:
                follow = kind == "path"
                name = self.proc.substitute(self.read_path(value), follow)
                path = self.host_path(name, follow)
                value = self.scratch_bytes(path + b"\0")
            elif kind in IOVECS:
                count = arguments[call.arguments.index(argument) + 1] & 0xFFFFFFFF
                if count > _IOV_MAXIMUM:
                    return -errno.EINVAL
                value = self.scratch_bytes(self.host_vector(value, count))
            elif kind in POINTERS:
                value = self.pointer(value)
            host.append(value)
        return self.call(call.name, *host)

    def _was_interrupted(self) -> bool:
        if not self._table[INTERRUPTED]:
            return False
        self._table[INTERRUPTED] = 0
        return True

    def _interrupt(self, call: Call, arguments: list[int], result: int) -> None:
        """A signal interrupted the call, or came before it: say EINTR, or have it repeated."""
        waited_mask = self._waited_mask(call, arguments)
        signum = self.signals.deliverable(waited_mask)
        restarts = self.signals.restarts(signum) if signum else None
        if result == -errno.EINTR:
            repeats = restarts is None and (signum > 0 or bool(self.engine.context.get("stop")))
        else:
            repeats = restarts is not False or not call.restart
        trace = self.options.trace
        if trace is not None:
            trace.leave(self, call, arguments, _NOT_BEGUN if repeats else -errno.EINTR)
        if repeats:
            self.state.pc -= self.abi.call_nbytes
        else:
            self.set_register(self.abi.result, -errno.EINTR)
        self._settle(waited_mask)

    def _waited_mask(self, call: Call, arguments: list[int]) -> int | None:
        """The mask that was in force during the call, for calls that set one."""
        try:
            for argument, address in zip(call.arguments, arguments, strict=True):
                if (
                    argument.kind == "sigset_in"
                    and argument.name in ("mask", "sigmask")
                    and address
                ):
                    return int.from_bytes(self.space.read(address, 8), "little")
            if call.name == "pselect6" and arguments[5]:
                (address,) = struct.unpack("<Q", self.space.read(arguments[5], 8))
                if address:
                    return int.from_bytes(self.space.read(address, 8), "little")
        except MemoryFault:
            pass
        return None

    def call(self, name: str, *arguments: int) -> int:
        """A system call on the host, which signals of the guest interrupt."""
        padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        return self.engine.syscall(HOST_NUMBERS[name], *padded)

    def call_path(self, name: str, dirfd: int, path: bytes, *rest: int, follow: bool) -> int:
        """A call whose arguments begin with a folder's descriptor and a path."""
        path = self.host_path(self.proc.substitute(path, follow), follow)
        return self.call(name, dirfd, self.scratch_bytes(path + b"\0"), *rest)

    def call_stat(self, name: str, buffer: int, *arguments: int) -> int:
        """fstat or newfstatat, with the guest's structure."""
        pointer = self.scratch_room(144)
        place = 1 if name == "fstat" else 2
        result = self.call(name, *arguments[:place], pointer, *arguments[place:])
        if result == 0:
            self.space.write(buffer, generic_stat(self.scratch_read(pointer, 144)))
        return result

    def native_counts(self) -> dict[int, int]:
        """How often each call number was served without Python."""
        return native_counts(self._table[:])

    # What handlers use

    def pointer(self, address: int) -> int:
        """The host's pointer for a guest's; null stays null."""
        return self.space.base + address if address else 0

    def set_register(self, index: int, value: int) -> None:
        """Set a general register, modulo 2**64."""
        self.state.set(self.abi.file, index, value & _WORD)

    @property
    def stack_pointer(self) -> int:
        """The guest's stack pointer."""
        return self.state.get(self.abi.file, self.abi.stack)

    def scratch_room(self, nbytes: int) -> int:
        """A host pointer to zeroed memory that lasts until the next call."""
        start = -(-self._scratch_used // 16) * 16
        if start + nbytes > _SCRATCH_NBYTES:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self._scratch_used = start + nbytes
        self._scratch[start : start + nbytes] = bytes(nbytes)
        return self._scratch_base + start

    def scratch_bytes(self, data: bytes) -> int:
        """A host pointer to a copy of ``data`` that lasts until the next call."""
        pointer = self.scratch_room(len(data))
        self.scratch_write(pointer, data)
        return pointer

    def scratch_write(self, pointer: int, data: bytes) -> None:
        """Overwrite scratch memory."""
        start = pointer - self._scratch_base
        self._scratch[start : start + len(data)] = data

    def scratch_read(self, pointer: int, nbytes: int) -> bytes:
        """Read scratch memory."""
        start = pointer - self._scratch_base
        return self._scratch[start : start + nbytes]

    def host_vector(self, address: int, count: int) -> bytes:
        """An iovec with the host's pointers."""
        words = list(struct.unpack(f"<{2 * count}Q", self.space.read(address, 16 * count)))
        words[::2] = [self.pointer(word) for word in words[::2]]
        return struct.pack(f"<{2 * count}Q", *words)

    def read_path(self, address: int) -> bytes:
        """A path from guest memory."""
        path = self.space.read_cstring(address, _PATH_MAXIMUM)
        if len(path) >= _PATH_MAXIMUM:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return path

    def read_strings(self, address: int) -> list[bytes]:
        """A list of strings that ends in a null pointer."""
        strings: list[bytes] = []
        while address:
            (pointer,) = struct.unpack("<Q", self.space.read(address, 8))
            if not pointer:
                break
            if len(strings) >= _STRINGS_MAXIMUM:
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
            strings.append(self.space.read_cstring(pointer, _STRINGS_MAXIMUM))
            address += 8
        return strings

    def host_path(self, path: bytes, follow: bool) -> bytes:
        """The host's path of a guest's."""
        return host_path(self.options.root, path, follow)

    def open_text(self, text: bytes, flags: int) -> int:
        """A descriptor from which ``text`` can be read."""
        fd = os.memfd_create("anyarch", os.MFD_CLOEXEC if flags & os.O_CLOEXEC else 0)
        os.write(fd, text)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    @staticmethod
    def host_uname() -> os.uname_result:
        """The host's names."""
        return os.uname()

    def note(self, text: str) -> None:
        """Say something once, when asked to be verbose."""
        if self.options.verbose and text not in self._noted:
            self._noted.add(text)
            print(f"anyarch: {text}", file=sys.stderr, flush=True)

    # Processes

    def exit(self, status: int) -> NoReturn:
        """End with a status."""
        raise Exited(status)

    def fork(self, *, wait: bool) -> int:
        """Fork; 0 in the child. ``wait``: until the child has executed a program or ended."""
        ends = os.pipe() if wait else None  # closed on exec, ours or the host's
        context = self.engine.context
        before = bytes(context.view)
        pid = os.fork()
        if pid == 0:
            self.is_child = True
            # Python's anonymous mappings are shared with children; the registers must not be.
            map_pages(
                NBYTES,
                PROT_READ | PROT_WRITE,
                pointer=context.pointer,
                flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
            )
            context.view[:] = before
            self.signals.after_fork()
        if ends is not None:
            os.close(ends[0 if pid == 0 else 1])
            if pid:
                os.read(ends[0], 1)
                os.close(ends[0])
        return pid

    def execute(self, path: bytes, arguments: list[bytes], environment: list[bytes]) -> int | None:
        """Replace the program, as execve does; -errno where that is impossible."""
        found = find_program(
            self.proc.substitute(path, follow=True), arguments, self.abi, self._find_interpreter
        )
        if not isinstance(found, Program):
            return found
        if not found.is_guest:
            return self._execute_on_host(found, environment)
        if self.options.trace is not None:
            self.options.trace.executed()
        self._close_on_execute()
        for region in list(self.space.regions()):
            self.space.unmap(region.start, region.end - region.start)
        self.engine.flush()
        self.signals.collect()
        self.clear_tid = self.robust_list = 0
        try:
            self.load(found.host_path, found.name, found.arguments, environment)
        except LoadError as error:
            print(f"anyarch: {error}", file=sys.stderr, flush=True)
            raise sig.Death(sig.SIGKILL) from None
        self.signals.after_execute(self.image.trampoline)
        return None

    def _execute_on_host(self, program: Program, environment: list[bytes]) -> int:
        table = {name: value for name, _, value in (text.partition(b"=") for text in environment)}
        try:
            os.execve(program.host_path, program.arguments or [b""], table)
        except OSError as error:
            return -(error.errno or errno.ENOEXEC)

    def _close_on_execute(self) -> None:
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            if fd not in self.reserved:
                flags = host_call("fcntl", fd, 1)
                if flags > 0 and flags & 1:
                    host_call("close", fd)


def end_like(outcome: Outcome) -> NoReturn:
    """End this process as the guest ended: with its status, or of its signal, without a core."""
    if outcome.signal is None:
        os._exit(outcome.shell_status)
    host_call("prctl", 4, 0)  # PR_SET_DUMPABLE
    sig.die(outcome.signal)
