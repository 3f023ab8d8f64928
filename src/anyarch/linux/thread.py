"""One thread of a guest process: runs the engine, serves its system calls, delivers its signals.

System call handlers are given the thread that made the call. What threads share is in ``process``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from _thread import get_native_id
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, NoReturn

from anyarch.errors import MemoryFault
from anyarch.host.context import REGISTERS, ExitCode
from anyarch.host.cpu import PAGE
from anyarch.linux import signals as sig
from anyarch.linux.abi import generic_stat
from anyarch.linux.calls.table import IOVECS, OPEN_FLAGS, PATHS, POINTERS, Call
from anyarch.linux.hostcalls import host_call
from anyarch.linux.interfaces import Engine, Exit
from anyarch.linux.numbers import HOST_NUMBERS
from anyarch.linux.paths import AT_FDCWD
from anyarch.linux.robust import release_robust_list
from anyarch.linux.thunks import (
    BEGAN,
    ENTRY_NBYTES,
    INTERRUPTED,
    OPENED,
    PATHS_LEFT,
    PLACES,
    TABLE_NBYTES,
    TOUCHING,
    is_mask,
    native_counts,
)

if TYPE_CHECKING:
    from anyarch.linux.image import Image
    from anyarch.linux.process import Process

_WORD: Final = (1 << 64) - 1
_NOT_BEGUN: Final = -512  # from an engine: interrupted, and may be repeated
INTERRUPTIONS: Final = (_NOT_BEGUN, -errno.EINTR)
_PATH_MAXIMUM: Final = 4096
_STRINGS_MAXIMUM: Final = 0x20000  # bytes of one argument, and number of arguments
_IOV_MAXIMUM: Final = 1024
_SCRATCH_NBYTES: Final = 1 << 18
_FUTEX_WAKE_OP: Final = 5
_SET_ZERO: Final = 2 << 24  # FUTEX_OP(SET, 0, LT, 0): a thread's number is not less than 0
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_SIGNALS_OF_EXITS: Final = {
    ExitCode.ILLEGAL: (sig.SIGILL, 1),  # ILL_ILLOPC
    ExitCode.BREAKPOINT: (sig.SIGTRAP, 1),  # TRAP_BRKPT
    ExitCode.HALT: (sig.SIGILL, 5),  # ILL_PRVOPC
}
_TIMESPEC: Final = struct.Struct("<qq")
_SEGV_MAPERR, _SEGV_ACCERR = 1, 2
_EXPECTED: Final = frozenset(("rseq",))  # C libraries ask, and do without


class Ended(Exception):
    """This thread runs no further: it has exited, or the whole process ends or is replaced."""


class Thread:
    """A guest thread, to be run by the host thread that :meth:`begin` is called on."""

    def __init__(self, process: Process, engine: Engine, table: bytes) -> None:
        self.process, self.engine = process, engine
        self.space, self.abi, self.options = process.space, process.abi, process.options
        self.proc, self.reserved, self.limits = process.proc, process.reserved, process.limits
        self.state = engine.state
        self.tid = 0
        self.status = 0
        self.clear_tid = 0
        self.robust_list = 0
        self.signals = sig.Signals(engine, self.space, self.abi, process.actions)
        self._scratch = mmap.mmap(-1, _SCRATCH_NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._scratch_base = ctypes.addressof(ctypes.c_char.from_buffer(self._scratch))
        self._scratch_used = 0
        self._waited = 0  # nanoseconds that the call being served has waited before
        self._words = engine.context.view.cast("Q")
        self._number_word = self._offset(self.abi.number) >> 3
        self._argument_words = [self._offset(index) >> 3 for index in self.abi.arguments]
        self._result_word = self._offset(self.abi.result) >> 3
        # Each thread has its own copy: two words of the table tell what its last call did.
        self._table = mmap.mmap(-1, TABLE_NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.set_call_table(table)
        context = engine.context
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(self._table))
        context.set("syscall_table", pointer)
        registers = (self.abi.number, *self.abi.arguments, self.abi.result)
        offsets = [self._offset(index) for index in registers]
        context.set("abi", int.from_bytes(struct.pack("<8H", *offsets), "little"))

    def _offset(self, register: int) -> int:
        """Where in the context a general register is."""
        return REGISTERS + self.state.layout.offset(self.abi.file, register)

    def set_call_table(self, table: bytes) -> None:
        """Say which calls run natively."""
        self._table[:] = table

    def leave_paths(self, flags: int) -> None:
        """Say which paths native code is to leave to Python."""
        self._table[PATHS_LEFT] = flags

    @property
    def opened(self) -> int:
        """The descriptor that was opened last, or -1."""
        return self._word(OPENED) - 1

    @opened.setter
    def opened(self, fd: int) -> None:
        self._set_word(OPENED, fd + 1)

    def forget_places(self) -> None:
        """Folders may be elsewhere than native code was told."""
        self._set_word(PLACES, self._word(PLACES) + 1)

    def find(self, path: bytes, follow: bool = True, dirfd: int = AT_FDCWD) -> bytes:
        """The host's path of a guest's; of a file in /proc its plain name."""
        found = self.process.find(path, follow, dirfd)
        known = self.process.paths.place_of(path)
        if known is not None:
            place = PLACES + known[0]
            generation = self._table[PLACES : PLACES + 8]
            if self._table[place : place + 8 + len(known[1])] != generation + known[1]:
                self._table[place : place + 8 + len(known[1])] = generation + known[1]
        return found

    def _word(self, place: int) -> int:
        return int.from_bytes(self._table[place : place + 8], "little")

    def _set_word(self, place: int, value: int) -> None:
        self._table[place : place + 8] = value.to_bytes(8, "little")

    def pass_natively(self, name: str, passes: bool) -> None:
        """Whether a call that native code could pass on is passed on without Python."""
        if self.options.trace is None:
            place = ENTRY_NBYTES * self.abi.number_of(name)
            number = HOST_NUMBERS[name] if passes else -1
            self._table[place : place + 2] = number.to_bytes(2, "little", signed=True)

    @property
    def image(self) -> Image:
        """The loaded program."""
        return self.process.image

    # Beginning, running, ending

    def begin(self) -> None:
        """The calling host thread is this thread from now on."""
        self.tid = get_native_id()

    def renew(self, parent: Thread) -> None:
        """A thread that has ended starts again, as a copy of ``parent``."""
        self.state.restore(parent.state.save())
        context = self.engine.context
        context.set("pending", 0)
        context.set("stop", 0)
        context.set("reservation_address", -1)
        self.signals.renew(parent.signals.mask)
        self.status = self.clear_tid = self.robust_list = 0

    def run(self) -> None:
        """Run until this thread ends; how the process ended, if it has, is said there."""
        try:
            self._run()
        except Ended:
            pass
        except sig.Death as death:
            self._examine(death)
            self.process.end_by_signal(death.signum)

    def _examine(self, death: sig.Death) -> None:
        """Leave what was asked for of a process that is about to die."""
        if self.options.crash_report or self.options.core is not None:
            from anyarch.linux import crash  # only here: hardly any process needs it

            if self.options.crash_report:
                crash.report_crash(self, death.signum, death.info)
            if self.options.core is not None:
                try:
                    crash.write_core(self.options.core, self, death.signum, death.info)
                except OSError as error:
                    where = os.fsdecode(self.options.core)
                    print(f"anyarch: no core in {where}: {error.strerror}", file=sys.stderr)

    def _run(self) -> None:
        budget = self.options.max_insns
        while True:
            self._settle()
            exit = self.engine.run(budget)
            if exit.code is ExitCode.SYSCALL:
                self._serve()
            elif exit.code is ExitCode.BUDGET and budget is not None:
                self.process.end_by_budget()
                raise Ended
            else:
                self._handle(exit)
            if budget is not None:
                budget = self.engine.context.get("remaining")

    def exit(self, status: int) -> NoReturn:
        """End this thread; where it is the last one, the process."""
        self.status = status
        raise Ended

    def release_locks(self) -> None:
        """Hand on the robust locks that this thread holds."""
        if self.robust_list:
            release_robust_list(self, self.robust_list)

    def release(self) -> None:
        """Tell who waits for this thread that it has ended, as the kernel does: the last time that
        it touches the guest's memory."""
        self.release_locks()
        if self.clear_tid:
            word = self.pointer(self.clear_tid)
            host_call("futex", word, _FUTEX_WAKE_OP, 1, 0, word, _SET_ZERO)

    def after_fork(self) -> None:
        """In a forked child, which this thread alone has reached."""
        self.tid = get_native_id()
        self.space.after_fork()
        self.engine.after_fork()
        self.signals.after_fork()

    def _settle(self, waited_mask: int | None = None) -> None:
        """Deliver signals, so that the guest may run on."""
        self.engine.clear_stop()
        if self.process.stopping:
            raise Ended
        if self.signals.holds_any():
            self.signals.deliver(waited_mask)
        self.signals.let_arrive()

    def _handle(self, exit: Exit) -> None:
        code = exit.code
        if code is ExitCode.FAULT:
            if self._table[TOUCHING]:  # an argument of a native call points nowhere
                self._table[TOUCHING] = 0
                self.state.pc = self.engine.context.get("pc")
                self.set_register(self.abi.result, -errno.EFAULT)
                return
            context = self.engine.context
            signum, cause = context.get("fault_signal"), context.get("fault_code")
            if signum == sig.SIGSEGV:
                if self.process.grow(exit.address):
                    return
                cause = self._segv_cause(exit.address)
            self.signals.fault(signum, cause, exit.address)
        elif code is ExitCode.FETCH:
            # What was noted of the address holds until it is mapped.
            self.engine.code_changed(exit.address & -PAGE, PAGE)
            self.signals.fault(sig.SIGSEGV, self._segv_cause(exit.address), exit.address)
        elif code in _SIGNALS_OF_EXITS:
            signum, cause = _SIGNALS_OF_EXITS[code]
            self.signals.fault(signum, cause, exit.pc)
        elif code == ExitCode.EXCEPTION:
            signum, cause = self.abi.exceptions[exit.detail]
            self.signals.fault(signum, cause, exit.address)

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
        call = self.process.calls[number] if number < 512 else None
        if call is None:
            self._refuse(number)
            return
        arguments = [words[index] for index in self._argument_words[: len(call.arguments)]]
        trace = self.options.trace
        self._scratch_used = 0
        began = monotonic_ns() if call.timeout else 0
        if self._was_interrupted():
            result: int | None = -errno.EINTR
            seconds, nanoseconds = _TIMESPEC.unpack_from(self._table, BEGAN)
            began = seconds * 10**9 + nanoseconds
        elif self.signals.holds_any() and self._deliverable(call, arguments):
            result = _NOT_BEGUN
        else:
            self.options.python_calls[call.name] += 1
            if trace is not None:
                trace.enter(self, call, arguments)
            result = self._perform(call, arguments)
        if call.timeout and result in INTERRUPTIONS:
            result = self._wait_on(call, arguments, result, began)
        if result is not None and result in INTERRUPTIONS:
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
        folder = AT_FDCWD
        for argument, value in zip(call.arguments, arguments, strict=True):
            kind = argument.kind
            if not value:
                pass
            elif kind in PATHS:
                follow = kind == "path" and not _keeps_link(call, arguments)
                path = self.find(self.read_path(value), follow, folder)
                value = self.scratch_bytes(path + b"\0")
            elif kind in IOVECS:
                count = arguments[call.arguments.index(argument) + 1] & 0xFFFFFFFF
                if count > _IOV_MAXIMUM:
                    return -errno.EINVAL
                value = self.scratch_bytes(self.host_vector(value, count))
            elif kind in POINTERS:
                value = self.pointer(value)
            elif argument.parameter in OPEN_FLAGS:
                value = self.abi.host_open_flags(value)
            folder = value if kind == "dirfd" else AT_FDCWD
            host.append(value)
            if kind == "link" and value:
                self.process.paths.changed(path)
        return self.call(call.name, *host)

    def _was_interrupted(self) -> bool:
        if not self._table[INTERRUPTED]:
            return False
        self._table[INTERRUPTED] = 0
        return True

    def _wait_on(
        self, call: Call, arguments: list[int], result: int | None, began: int
    ) -> int | None:
        """Go on with a call that waits for a limited time, since ``began``, while it was only
        requests of ours that have interrupted it."""
        while result in INTERRUPTIONS and self.engine.context.get("stop"):
            if self._deliverable(call, arguments):
                break
            self.engine.clear_stop()
            if self.process.stopping:
                raise Ended
            self._scratch_used = 0
            self._waited = monotonic_ns() - began
            try:
                result = self._perform(call, arguments)
            finally:
                self._waited = 0
        return result

    def _interrupt(self, call: Call, arguments: list[int], result: int) -> None:
        """A signal interrupted the call, or came before it: say EINTR, or have it repeated."""
        waited_mask = self._waited_mask(call, arguments)
        signum = self.signals.deliverable(waited_mask)
        restarts = self.signals.restarts(signum) if signum else None
        if result == -errno.EINTR:
            repeats = restarts is None and (signum > 0 or bool(self.engine.context.get("stop")))
        elif signum and self.signals.mask >> (signum - 1) & 1:
            repeats = False  # it is the call that lets the signal in
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

    def _deliverable(self, call: Call, arguments: list[int]) -> bool:
        """Whether a signal comes before the call, or as soon as the call's own mask is in force."""
        if self.signals.deliverable():
            return True
        waited_mask = self._waited_mask(call, arguments)
        return waited_mask is not None and self.signals.deliverable(waited_mask) > 0

    def _waited_mask(self, call: Call, arguments: list[int]) -> int | None:
        """The mask that was in force during the call, for calls that set one."""
        try:
            for argument, address in zip(call.arguments, arguments, strict=True):
                if address and is_mask(argument):
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
        """The host's pointer for a guest's; null stays null, and what cannot be an address wraps
        to one that nothing is at."""
        return (self.space.base + address) & _WORD if address else 0

    def timeout(self, address: int) -> int:
        """The host's pointer for a guest's ``struct timespec`` that limits the call; to a shorter
        one where a part of it is over."""
        if not address or not self._waited:
            return self.pointer(address)
        seconds, nanoseconds = _TIMESPEC.unpack(self.space.read(address, _TIMESPEC.size))
        left = self.left_of(seconds * 10**9 + nanoseconds)
        return self.scratch_bytes(_TIMESPEC.pack(*divmod(left, 10**9)))

    def left_of(self, nanoseconds: int) -> int:
        """What is left of a time that limits the call."""
        return max(nanoseconds - self._waited, 0)

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
            try:
                strings.append(self.space.read_cstring(pointer, _STRINGS_MAXIMUM))
            except OSError:  # it does not end
                raise OSError(errno.E2BIG, os.strerror(errno.E2BIG)) from None
            address += 8
        return strings

    def open_text(self, text: bytes, flags: int) -> int:
        """A descriptor from which ``text`` can be read, the lowest that is free."""
        fd = os.memfd_create("anyarch")
        os.write(fd, text)
        readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(readable, fd, inheritable=not flags & os.O_CLOEXEC)
        os.close(readable)
        return fd

    @staticmethod
    def host_uname() -> os.uname_result:
        """The host's names."""
        return os.uname()

    def note(self, text: str) -> None:
        """Say something once, when asked to be verbose."""
        self.process.note(text)


def _keeps_link(call: Call, arguments: list[int]) -> bool:
    """Whether flags say that a link at the end of a path is meant itself."""
    return any(
        argument.parameter == "at" and value & _AT_SYMLINK_NOFOLLOW
        for argument, value in zip(call.arguments, arguments, strict=True)
    )
