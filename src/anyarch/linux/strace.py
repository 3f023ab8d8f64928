"""A trace of system calls in the style of strace(1), derived from the calls' signatures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from _thread import RLock, _local, get_native_id
from collections.abc import Iterator
from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from anyarch.errors import HostError, MemoryFault
from anyarch.linux.calls import CALLS
from anyarch.linux.calls.table import POINTED, Argument, Call
from anyarch.linux.numbers import GENERIC
from anyarch.linux.structs import (
    IOCTLS,
    STRUCTS,
    format_mode,
    format_pollfds,
    format_set,
    format_siginfo,
    quote,
)
from anyarch.linux.symbols import format_enum, format_flags, signal_name

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

_SHOWN_BYTES: Final = 32
_SHOWN_VECTORS: Final = 16
_FIRST_DESCRIPTOR: Final = 900  # ours are kept away from the guest's
_AFTER: Final = frozenset(
    ("bytes_out", "struct_out", "iovec_out", "sigset_out", "fds_out", "ioctl")
)
_RESTART: Final = "? ERESTARTSYS (To be restarted if SA_RESTART is set)"

# Memory that all traced processes share: whose line is unfinished, and the counts of the summary.
_INDEX: Final = {
    name: index for index, name in enumerate(dict.fromkeys((*GENERIC.values(), *CALLS)))
}
_OWNER, _COUNTS = 0, 1
_SHARED_NBYTES: Final = 8 * (_COUNTS + 3 * len(_INDEX))


class _Now(_local):
    """What a thread is about: its call, until that returns, and the arguments as they were."""

    def __init__(self) -> None:
        self.before: list[str | None] = []
        self.call: Call | None = None
        self.head = ""  # of the line, already written
        self.begun = 0  # nanoseconds


class Trace:
    """Where a trace goes: a file, or a copy of stderr that the guest cannot close.

    ``follow`` traces children and other threads too; ``summary`` counts calls instead of printing
    them. All processes write to one file: who is in the middle of a line is known to all.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        follow: bool = True,
        summary: bool = False,
    ) -> None:
        if path is None:
            opened = os.dup(2)
        else:
            try:
                opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            except OSError as error:
                raise HostError(
                    f"the trace cannot be written to {os.fspath(path)}: {error.strerror}"
                ) from error
        self._fd = _move_away(opened)
        self._lock_fd = _move_away(os.memfd_create("anyarch-trace"))
        self.descriptors = {self._fd, self._lock_fd}
        self._lock = RLock()
        os.register_at_fork(after_in_child=self._after_fork)
        self._shared = mmap.mmap(-1, _SHARED_NBYTES)
        self._words = memoryview(self._shared).cast("Q")
        self._now = _Now()
        self._first = get_native_id()
        self._follow, self._summary = follow, summary

    def _after_fork(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        if self._summary:
            os.write(self._fd, self._table().encode())
        os.close(self._fd)
        os.close(self._lock_fd)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes out."""
        with self._lock:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)

    def _is_shown(self) -> bool:
        return not self._summary and (self._follow or get_native_id() == self._first)

    def _write(self, text: str, *, resumes: bool = False, ends: bool = True) -> None:
        """Write a line, or with ``ends`` false its beginning; ``resumes`` goes on with ours."""
        if not self._is_shown():
            return
        tid = get_native_id()
        prefix = "" if tid == self._first else f"[pid {tid}] "
        now, call = self._now, self._now.call
        with self._alone():
            owner = self._words[_OWNER]
            if not (resumes and owner == tid):
                name = call.name if call is not None else ""
                text = prefix + (f"<... {name} resumed>" if resumes else "") + text
                if owner:
                    text = " <unfinished ...>\n" + text
            self._words[_OWNER] = 0 if ends else tid
            os.write(self._fd, (text + ("\n" if ends else "")).encode())
        if ends:
            now.head = ""

    def enter(self, thread: Thread, call: Call, arguments: list[int]) -> None:
        """A call begins: what it is given is read now, and shown, as it may not return soon."""
        now = self._now
        now.call, now.begun = call, monotonic_ns()
        if not self._is_shown():
            return
        now.before = [
            None
            if argument.kind in _AFTER
            else self._format(thread, call, argument, arguments, None)
            for argument in call.arguments
        ]
        if call.result == "none":
            text = _padded(f"{call.name}({', '.join(part or '' for part in now.before)})")
            self._write(text + ("= 0" if call.name == "rt_sigreturn" else "= ?"))
            now.call = None
            return
        known: list[str] = []
        for argument, shown in zip(call.arguments, now.before, strict=True):
            known.append(shown or "")
            if shown is None or argument.kind == "struct_io":
                break
        now.head = f"{call.name}({', '.join(known)}"
        self._write(now.head, ends=False)

    def leave(self, thread: Thread, call: Call, arguments: list[int], result: int) -> None:
        """A call has returned."""
        now = self._now
        if now.call is not call:
            return  # it did not begin: a signal came first
        if self._summary:
            self._count(call, result)
        elif self._is_shown():
            for index, argument in enumerate(call.arguments):
                if argument.kind in _AFTER or argument.kind == "struct_io":
                    before = now.before[index]
                    after = self._format(thread, call, argument, arguments, result)
                    now.before[index] = after if before in (None, after) else f"{before} => {after}"
            self._finish(call, _format_result(call, result))
        now.call = None

    def _finish(self, call: Call, result: str) -> None:
        """Write the rest of the line that began with the call."""
        now = self._now
        text = _padded(f"{call.name}({', '.join(part or '' for part in now.before)})")
        self._write(f"{text[len(now.head) :]}= {result}", resumes=True)

    def executed(self) -> None:
        """execve has succeeded: it does not return."""
        now = self._now
        if now.call is not None:
            if self._summary:
                self._count(now.call, 0)
            elif self._is_shown():
                self._finish(now.call, "0")
            now.call = None

    def refuse(self, name: str) -> None:
        """A call that is not supported."""
        self._write(f"{name}(...) = -1 ENOSYS ({os.strerror(errno.ENOSYS)})")

    def signal(self, signum: int, info: bytes) -> None:
        """A signal is delivered."""
        self._write(f"--- {signal_name(signum)} {format_siginfo(info)} ---")

    def end(self, status: int | None, signum: int | None) -> None:
        """The process ends."""
        if signum is not None:
            self._write(f"+++ killed by {signal_name(signum)} +++")
        elif status is not None:
            self._write(f"+++ exited with {status} +++")

    # The summary: calls, errors and nanoseconds of every call number of the host's table

    def _count(self, call: Call, result: int) -> None:
        if not self._follow and get_native_id() != self._first:
            return
        place = _COUNTS + 3 * _INDEX[call.name]
        words = self._words
        with self._alone():
            words[place] += 1
            words[place + 1] += -4096 < result < 0
            words[place + 2] += monotonic_ns() - self._now.begun

    def _table(self) -> str:
        """What strace -c prints."""
        rows = []
        for name, index in _INDEX.items():
            calls, errors, nanoseconds = self._words[_COUNTS + 3 * index :][:3]
            if calls:
                rows.append((nanoseconds, calls, errors, name))
        total = sum(row[0] for row in rows)
        rule = "------ ----------- ----------- --------- --------- ----------------\n"
        text = "% time     seconds  usecs/call     calls    errors syscall\n" + rule
        rows.sort(key=lambda row: (-row[0], row[3]))
        every = (total, sum(row[1] for row in rows), sum(row[2] for row in rows), "total")
        for nanoseconds, calls, errors, name in (*rows, every):
            if name == "total":
                text += rule
            share = 100 * nanoseconds / total if total else 0.0
            each = nanoseconds // 1000 // max(calls, 1)
            failed = str(errors) if errors else ""
            text += (
                f"{share:6.2f} {nanoseconds / 1e9:11.6f} {each:11d} {calls:9d} {failed:>9} {name}\n"
            )
        return text

    def _format(
        self,
        thread: Thread,
        call: Call,
        argument: Argument,
        arguments: list[int],
        result: int | None,
    ) -> str:
        value = arguments[call.arguments.index(argument)]
        try:
            return "".join(_pieces(thread, call, argument, value, arguments, result))
        except MemoryFault:
            return f"{value:#x}"


def _move_away(fd: int) -> int:
    """The same file under a number that the guest will hardly use."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    except OSError:  # a limit below: anything will do
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _padded(text: str) -> str:
    """A call up to where its result is shown."""
    return f"{text:<40}" if len(text) < 40 else f"{text} "


def _format_result(call: Call, result: int) -> str:
    if result == -512:
        return _RESTART
    if -4096 < result < 0:
        name = errno.errorcode.get(-result, str(-result))
        return f"-1 {name} ({os.strerror(-result)})"
    return f"{result:#x}" if call.result in ("address", "hex") else str(result)


def _signed(value: int, size: int) -> int:
    value &= (1 << size) - 1
    return value - (1 << size) if value >> (size - 1) else value


def _format_number(argument: Argument, value: int) -> str:
    match argument.kind:
        case "int" | "fd" | "pid":
            return str(_signed(value, 32))
        case "long" | "off":
            return str(_signed(value, 64))
        case "uint":
            return str(value & 0xFFFFFFFF)
        case "uid":
            return str(_signed(value, 32) if value & 0xFFFFFFFF == 0xFFFFFFFF else value)
        case "size":
            return str(value)
        case "dirfd":
            return "AT_FDCWD" if _signed(value, 32) == -100 else str(_signed(value, 32))
        case "mode":
            mode = value & 0xFFFF
            return format_mode(mode) if mode >> 12 else f"0{mode:o}" if mode else "0"
        case "signal":
            return signal_name(value & 0xFFFFFFFF)
        case "address" | "pointer":
            return f"{value:#x}" if value else "NULL"
        case "flags":
            return format_flags(argument.parameter, value)
        case "enum":
            return format_enum(argument.parameter, value)
    return f"{value:#x}" if value else "0"


def _pieces(
    thread: Thread,
    call: Call,
    argument: Argument,
    value: int,
    arguments: list[int],
    result: int | None,
) -> Iterator[str]:
    kind, space = argument.kind, thread.space

    def length(limit: int | None) -> int:
        names = [each.name for each in call.arguments]
        count = arguments[names.index(argument.parameter)]
        return count if limit is None else min(count, limit)

    failed = result is not None and result < 0
    if kind == "ioctl":
        known = IOCTLS.get(arguments[1] & 0xFFFFFFFF)
        if known is None or failed or not value:
            yield f"{value:#x}" if value else "0"
        else:
            nbytes, text = STRUCTS[known]
            yield text(space.read(value, nbytes))
    elif kind not in POINTED:
        yield _format_number(argument, value)
    elif not value:
        yield "NULL"
    elif kind in _AFTER and failed:
        yield f"{value:#x}"
    elif kind in ("path", "link", "string"):
        yield quote(space.read_cstring(value, 4096))
    elif kind == "strings":
        strings = thread.read_strings(value)
        if argument.name == "envp":
            yield f"{value:#x} /* {len(strings)} vars */"
        else:
            yield "[" + ", ".join(quote(text, _SHOWN_BYTES) for text in strings) + "]"
    elif kind in ("bytes_in", "bytes_out"):
        nbytes = length(result if kind == "bytes_out" else None)
        shown = quote(space.read(value, min(nbytes, _SHOWN_BYTES)))
        yield shown + ("..." if nbytes > _SHOWN_BYTES else "")
    elif kind in ("iovec_in", "iovec_out"):
        yield _format_vector(thread, value, length(None), result)
    elif kind in ("sigset_in", "sigset_out"):
        yield format_set(int.from_bytes(space.read(value, 8), "little"))
    elif kind == "fds_out":
        yield "[{}, {}]".format(*struct.unpack("<ii", space.read(value, 8)))
    else:
        yield _format_struct(thread, call, argument, value, arguments, result)


def _format_vector(thread: Thread, address: int, count: int, result: int | None) -> str:
    count = min(count, 1024)
    words = struct.unpack(f"<{2 * count}Q", thread.space.read(address, 16 * count))
    left = (1 << 63) if result is None else result
    parts = []
    for base, nbytes in list(zip(words[::2], words[1::2], strict=True))[:_SHOWN_VECTORS]:
        shown = min(nbytes, left)
        left -= shown
        data = thread.space.read(base, min(shown, _SHOWN_BYTES)) if shown else b""
        dots = "..." if shown > _SHOWN_BYTES else ""
        parts.append(f"{{iov_base={quote(data)}{dots}, iov_len={nbytes}}}")
    return "[" + ", ".join(parts) + (", ...]" if count > _SHOWN_VECTORS else "]")


def _format_struct(
    thread: Thread,
    call: Call,
    argument: Argument,
    address: int,
    arguments: list[int],
    result: int | None,
) -> str:
    name, space = argument.parameter, thread.space
    if name == "dirents":
        data, count, at = space.read(address, result or 0), 0, 0
        while at < len(data):
            at += max(1, int.from_bytes(data[at + 16 : at + 18], "little"))
            count += 1
        return f"{address:#x} /* {count} entries */"
    if name == "pollfds":
        count = min(arguments[1] & 0xFFFFFFFF, 64)
        return format_pollfds(space.read(address, 8 * count), result is not None and result > 0)
    if name == "fdset":
        nbytes = -(-min(arguments[0] & 0xFFFFFFFF, 1024) // 64) * 8
        members = int.from_bytes(space.read(address, nbytes), "little")
        return "[" + " ".join(str(n) for n in range(8 * nbytes) if members >> n & 1) + "]"
    if name == "epoll_events":
        events = struct.iter_unpack("<I4xQ", space.read(address, 16 * max(0, result or 0)))
        return "[" + ", ".join(f"{{events={e:#x}, data={d:#x}}}" for e, d in events) + "]"
    nbytes, text = STRUCTS[name]
    if name == "sigaction" and thread.abi.has_restorer:
        nbytes = 32
    return text(space.read(address, nbytes))
