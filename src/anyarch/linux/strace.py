"""A trace of system calls in the style of strace(1), derived from the calls' signatures."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from anyarch.errors import HostError, MemoryFault
from anyarch.linux.calls.table import POINTED, Argument, Call
from anyarch.linux.structs import (
    STRUCTS,
    format_mode,
    format_pollfds,
    format_set,
    format_siginfo,
    quote,
)
from anyarch.linux.symbols import format_enum, format_flags, signal_name

if TYPE_CHECKING:
    from anyarch.linux.process import Process

_SHOWN_BYTES: Final = 32
_SHOWN_VECTORS: Final = 16
_FIRST_DESCRIPTOR: Final = 900  # ours are kept away from the guest's
_AFTER: Final = frozenset(("bytes_out", "struct_out", "iovec_out", "sigset_out", "fds_out"))
_RESTART: Final = "? ERESTARTSYS (To be restarted if SA_RESTART is set)"


class Trace:
    """Where a trace goes: a file, or a copy of stderr that the guest cannot close."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        if path is None:
            opened = os.dup(2)
        else:
            try:
                opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            except OSError as error:
                raise HostError(
                    f"the trace cannot be written to {os.fspath(path)}: {error.strerror}"
                ) from error
        try:
            self._fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
        except OSError:  # a limit below: anything will do
            self._fd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 3)
        os.close(opened)
        self.descriptors = {self._fd}
        self._before: list[str | None] = []
        self._call: Call | None = None
        self._first = os.getpid()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _write(self, text: str) -> None:
        pid = os.getpid()
        prefix = "" if pid == self._first else f"[pid {pid}] "
        os.write(self._fd, f"{prefix}{text}\n".encode())

    def enter(self, process: Process, call: Call, arguments: list[int]) -> None:
        """A call begins: what it is given is read now."""
        self._call = call
        self._before = [
            None
            if argument.kind in _AFTER
            else self._format(process, call, argument, arguments, None)
            for argument in call.arguments
        ]
        if call.result == "none" and call.name != "rt_sigreturn":
            self._write(self._line("?"))
            self._call = None

    def leave(self, process: Process, call: Call, arguments: list[int], result: int) -> None:
        """A call has returned."""
        if self._call is not call:
            return  # it did not begin: a signal came first
        self._call = None
        for index, argument in enumerate(call.arguments):
            if argument.kind in _AFTER or argument.kind == "struct_io":
                self._before[index] = self._format(process, call, argument, arguments, result)
        self._write(self._line(_format_result(call, result), call))

    def _line(self, result: str, call: Call | None = None) -> str:
        call = call or self._call
        assert call is not None
        text = f"{call.name}({', '.join(part or '' for part in self._before)})"
        return f"{text:<40}= {result}" if len(text) < 40 else f"{text} = {result}"

    def executed(self) -> None:
        """execve has succeeded: it does not return."""
        if self._call is not None:
            self._write(self._line("0"))
            self._call = None

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

    def _format(
        self,
        process: Process,
        call: Call,
        argument: Argument,
        arguments: list[int],
        result: int | None,
    ) -> str:
        value = arguments[call.arguments.index(argument)]
        try:
            return "".join(_pieces(process, call, argument, value, arguments, result))
        except MemoryFault:
            return f"{value:#x}"


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
    process: Process,
    call: Call,
    argument: Argument,
    value: int,
    arguments: list[int],
    result: int | None,
) -> Iterator[str]:
    kind, space = argument.kind, process.space

    def length(limit: int | None) -> int:
        names = [each.name for each in call.arguments]
        count = arguments[names.index(argument.parameter)]
        return count if limit is None else min(count, limit)

    failed = result is not None and result < 0
    if kind not in POINTED:
        yield _format_number(argument, value)
    elif not value:
        yield "NULL"
    elif kind in _AFTER and failed:
        yield f"{value:#x}"
    elif kind in ("path", "link", "string"):
        yield quote(space.read_cstring(value, 4096))
    elif kind == "strings":
        strings = process.read_strings(value)
        if argument.name == "envp":
            yield f"{value:#x} /* {len(strings)} vars */"
        else:
            yield "[" + ", ".join(quote(text, _SHOWN_BYTES) for text in strings) + "]"
    elif kind in ("bytes_in", "bytes_out"):
        nbytes = length(result if kind == "bytes_out" else None)
        shown = quote(space.read(value, min(nbytes, _SHOWN_BYTES)))
        yield shown + ("..." if nbytes > _SHOWN_BYTES else "")
    elif kind in ("iovec_in", "iovec_out"):
        yield _format_vector(process, value, length(None), result)
    elif kind in ("sigset_in", "sigset_out"):
        yield format_set(int.from_bytes(space.read(value, 8), "little"))
    elif kind == "fds_out":
        yield "[{}, {}]".format(*struct.unpack("<ii", space.read(value, 8)))
    else:
        yield _format_struct(process, call, argument, value, arguments, result)


def _format_vector(process: Process, address: int, count: int, result: int | None) -> str:
    count = min(count, 1024)
    words = struct.unpack(f"<{2 * count}Q", process.space.read(address, 16 * count))
    left = (1 << 63) if result is None else result
    parts = []
    for base, nbytes in list(zip(words[::2], words[1::2], strict=True))[:_SHOWN_VECTORS]:
        shown = min(nbytes, left)
        left -= shown
        data = process.space.read(base, min(shown, _SHOWN_BYTES)) if shown else b""
        dots = "..." if shown > _SHOWN_BYTES else ""
        parts.append(f"{{iov_base={quote(data)}{dots}, iov_len={nbytes}}}")
    return "[" + ", ".join(parts) + (", ...]" if count > _SHOWN_VECTORS else "]")


def _format_struct(
    process: Process,
    call: Call,
    argument: Argument,
    address: int,
    arguments: list[int],
    result: int | None,
) -> str:
    name, space = argument.parameter, process.space
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
    if name == "sigaction" and process.abi.has_restorer:
        nbytes = 32
    return text(space.read(address, nbytes))
