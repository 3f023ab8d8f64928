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
from anyarch.linux.calls.table import OPEN_FLAGS, POINTED, Argument, Call
from anyarch.linux.numbers import GENERIC
from anyarch.linux.shapes import Shown, shown_arguments
from anyarch.linux.structs import (
    IOCTLS,
    STRUCTS,
    format_epoll_event,
    format_members,
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
_RESULT_COLUMN: Final = 40
_FIRST_DESCRIPTOR: Final = 900  # ours are kept away from the guest's
_AFTER: Final = frozenset(
    ("bytes_out", "struct_out", "iovec_out", "sigset_out", "fds_out", "ioctl", "text_out")
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
        self.shown: list[Shown] = []
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
        self._numbers_all = follow and path is not None  # each line begins with a number

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

    def _prefix(self, tid: int) -> str:
        """What a line of a thread begins with."""
        if self._numbers_all:
            return f"{tid:<5} "
        return "" if tid == self._first else f"[pid {tid:>5}] "

    def _padded(self, text: str) -> str:
        """A call up to where its result is shown."""
        width = _RESULT_COLUMN - len(self._prefix(get_native_id()))
        return f"{text:<{width}}" if len(text) < width else f"{text} "

    def _write(self, text: str, *, resumes: bool = False, ends: bool = True) -> None:
        """Write a line, or with ``ends`` false its beginning; ``resumes`` goes on with ours."""
        if not self._is_shown():
            return
        tid = get_native_id()
        prefix = self._prefix(tid)
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
        now.shown = shown_arguments(call, arguments)
        now.before = [
            None
            if argument.kind in _AFTER
            else self._format(thread, call, argument, value, arguments, None)
            for argument, value in now.shown
        ]
        if call.name == "rt_sigreturn":
            now.before = [_restored_mask(thread)]
        if call.result == "none":
            text = self._padded(f"{call.name}({', '.join(part or '' for part in now.before)})")
            self._write(text + ("= 0" if call.name == "rt_sigreturn" else "= ?"))
            now.call = None
            return
        known: list[str] = []
        for (argument, _), shown in zip(now.shown, now.before, strict=True):
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
            for index, (argument, value) in enumerate(now.shown):
                if argument.kind in _AFTER or argument.kind == "struct_io":
                    before = now.before[index]
                    after = self._format(thread, call, argument, value, arguments, result)
                    now.before[index] = after if before in (None, after) else f"{before} => {after}"
            note = ""
            with contextlib.suppress(MemoryFault):
                note = _note(thread, call, arguments, result)
            self._finish(
                call, _format_result(call, arguments[1] if len(arguments) > 1 else 0, result) + note
            )
        now.call = None

    def _finish(self, call: Call, result: str) -> None:
        """Write the rest of the line that began with the call."""
        now = self._now
        text = self._padded(f"{call.name}({', '.join(part or '' for part in now.before)})")
        self._write(f"{text[len(now.head) :]}= {result}", resumes=True)

    def started(self, name: bytes, arguments: list[bytes], count: int, place: int) -> None:
        """The first program begins, as if executed; ``count`` variables are at ``place``."""
        if not self._summary:
            texts = ", ".join(quote(text, _SHOWN_BYTES) for text in arguments)
            call = f"execve({quote(name)}, [{texts}], {place:#x} /* {_variables(count)} */)"
            self._write(f"{self._padded(call)}= 0")

    def executed(self) -> None:
        """execve has succeeded: it does not return."""
        now = self._now
        if now.call is not None:
            if self._summary:
                self._count(now.call, 0)
            elif self._is_shown():
                self._finish(now.call, "0")
            now.call = None

    def handed_over(self) -> None:
        """execve is about to give the process to a program of the host, which is not traced: this
        is the last line, unless that fails."""
        now = self._now
        if now.call is not None and not self._summary:
            head = now.head
            self._write(" <a program of the host, not traced>", resumes=True)
            now.head = head

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
        value: int,
        arguments: list[int],
        result: int | None,
    ) -> str:
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


def _format_result(call: Call, command: int, result: int) -> str:
    if result == -512:
        return _RESTART
    if -4096 < result < 0:
        name = errno.errorcode.get(-result, str(-result))
        return f"-1 {name} ({os.strerror(-result)})"
    if call.name == "umask":
        return f"0{result:o}".zfill(3)
    if call.name == "fcntl" and command in _FLAG_RESULTS:
        return f"{result:#x}" if result else "0"
    return f"{result:#x}" if call.result in ("address", "hex") else str(result)


def _variables(count: int) -> str:
    return f"{count} var{'' if count == 1 else 's'}"


def _restored_mask(thread: Thread) -> str:
    """What rt_sigreturn makes the mask: it follows siginfo and the head of ucontext."""
    with contextlib.suppress(MemoryFault):
        mask = thread.space.read(thread.stack_pointer + 128 + 40, 8)
        return f"{{mask={format_set(int.from_bytes(mask, 'little'))}}}"
    return ""


_FLAG_RESULTS: Final = {1: "descriptor", 3: "open", 1034: "seals"}  # of fcntl


def _note(thread: Thread, call: Call, arguments: list[int], result: int) -> str:
    """What is said of a result, in parentheses: its meaning, or what has changed."""
    if result < 0:
        return ""
    match call.name:
        case "fcntl":
            kind = _FLAG_RESULTS.get(arguments[1])
            if kind == "open":
                result = thread.abi.host_open_flags(result)
            return f" (flags {format_flags(kind, result)})" if kind and result else ""
        case "rt_sigtimedwait":
            return f" ({signal_name(result)})"
        case "ppoll" | "pselect6" if result == 0:
            return " (Timeout)"
        case "ppoll":
            fds = thread.space.read(arguments[0], 8 * min(arguments[1] & 0xFFFFFFFF, 64))
            parts = [format_pollfds(fds, True)]
        case "pselect6":
            nbytes = _set_nbytes(arguments[0])
            parts = []
            for name, address in zip(("in", "out", "except"), arguments[1:4]):
                members = thread.space.read(address, nbytes) if address else b""
                if any(members):
                    parts.append(f"{name} {format_members(members)}")
        case _:
            return ""
    timeout = arguments[2 if call.name == "ppoll" else 4]
    if timeout:
        nbytes, text = STRUCTS["timespec"]
        parts.append(f"left {text(thread.space.read(timeout, nbytes))}")
    return f" ({', '.join(parts)})"


def _set_nbytes(count: int) -> int:
    """Size of an fd_set with so many descriptors."""
    return -(-min(count & 0xFFFFFFFF, 1024) // 64) * 8


def _signed(value: int, size: int) -> int:
    value &= (1 << size) - 1
    return value - (1 << size) if value >> (size - 1) else value


def _format_number(thread: Thread, argument: Argument, value: int) -> str:
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
            return format_mode(mode) if mode >> 12 else f"0{mode:o}".zfill(3)
        case "signal":
            return signal_name(value & 0xFFFFFFFF)
        case "address" | "pointer":
            label = f"{argument.parameter}=" if argument.parameter else ""
            return label + (f"{value:#x}" if value else "NULL")
        case "flags":
            label = "flags=" if argument.parameter == "clone" else ""
            if argument.parameter in OPEN_FLAGS:  # the symbols are of the host's numbers
                value = thread.abi.host_open_flags(value)
            return label + format_flags(argument.parameter, value)
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
    elif kind == "text_out" and value and not failed:
        yield quote(space.read_cstring(value, 4096))
    elif kind not in POINTED:
        yield _format_number(thread, argument, value)
    elif not value:
        yield "NULL"
    elif kind in _AFTER and failed:
        yield f"{value:#x}"
    elif kind in ("path", "link", "string"):
        yield quote(space.read_cstring(value, 4096))
    elif kind == "strings":
        strings = thread.read_strings(value)
        if argument.name == "envp":
            yield f"{value:#x} /* {_variables(len(strings))} */"
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
        return format_pollfds(space.read(address, 8 * count), False)
    if name == "fdset":
        return format_members(space.read(address, _set_nbytes(arguments[0])))
    if name == "cpus":
        return format_members(space.read(address, min(result or arguments[1], 128)))
    if name == "msghdr":
        return _format_message(thread, address, result)
    if name == "epoll_events":
        events = struct.iter_unpack("<I4xQ", space.read(address, 16 * max(0, result or 0)))
        return "[" + ", ".join(format_epoll_event(*event) for event in events) + "]"
    if name == "sockaddr":
        length = arguments[[each.name for each in call.arguments].index("addrlen")]
        if argument.kind != "struct_in":
            length = int.from_bytes(space.read(length, 4), "little")
        return _format_address(thread, address, length & 0xFFFFFFFF)
    nbytes, text = STRUCTS[name]
    if name == "sigaction" and thread.abi.has_restorer:
        nbytes = 32
    return text(space.read(address, nbytes))


def _format_address(thread: Thread, address: int, nbytes: int) -> str:
    """A socket's address."""
    data = thread.space.read(address, min(nbytes, 128))
    return STRUCTS["sockaddr"][1](data.ljust(128, b"\0")) if len(data) >= 2 else f"{address:#x}"


_MESSAGE: Final = struct.Struct("<QI4xQQQQI")
_CONTROL: Final = struct.Struct("<QII")
_SOL_SOCKET, _SCM_RIGHTS, _SCM_CREDENTIALS = 1, 1, 2


def _format_message(thread: Thread, address: int, result: int | None) -> str:
    """struct msghdr with all that it points to."""
    space = thread.space
    name, nbytes, vector, count, control, length, flags = _MESSAGE.unpack(
        space.read(address, _MESSAGE.size)
    )
    parts = [f"msg_name={_format_address(thread, name, nbytes) if name else 'NULL'}"]
    parts.append(f"msg_namelen={nbytes}")
    parts.append(f"msg_iov={_format_vector(thread, vector, count, result)}")
    parts.append(f"msg_iovlen={count}")
    if control and length:
        shown = _format_control(space.read(control, min(length, 4096)))
        parts.append(f"msg_control=[{', '.join(shown)}]")
    parts.append(f"msg_controllen={length}")
    parts.append(f"msg_flags={format_flags('message', flags)}")
    return "{" + ", ".join(parts) + "}"


def _format_control(data: bytes) -> Iterator[str]:
    """The control messages of a message."""
    while len(data) >= _CONTROL.size:
        nbytes, level, kind = _CONTROL.unpack_from(data)
        if nbytes < _CONTROL.size:
            return
        body = data[_CONTROL.size : nbytes]
        shown = quote(body, _SHOWN_BYTES)
        name = f"{kind:#x}"
        if level == _SOL_SOCKET:
            name = format_enum("control", kind)
            if kind == _SCM_RIGHTS:
                numbers = struct.unpack(f"<{len(body) // 4}i", body[: len(body) // 4 * 4])
                shown = f"[{', '.join(map(str, numbers))}]"
            elif kind == _SCM_CREDENTIALS and len(body) >= 12:
                shown = STRUCTS["ucred"][1](body)
        yield (
            f"{{cmsg_len={nbytes}, cmsg_level={format_enum('socket_level', level)}, "
            f"cmsg_type={name}, cmsg_data={shown}}}"
        )
        data = data[-(-nbytes // 8) * 8 :]
