"""Structures in system calls, as strace prints them: a size and a function from bytes to text."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from anyarch.linux.symbols import FLAGS, format_flags, signal_name

Formatter = Callable[[bytes], str]
_FILE_TYPES: Final = {
    0o140000: "S_IFSOCK",
    0o120000: "S_IFLNK",
    0o100000: "S_IFREG",
    0o060000: "S_IFBLK",
    0o040000: "S_IFDIR",
    0o020000: "S_IFCHR",
    0o010000: "S_IFIFO",
}


def quote(data: bytes, limit: int | None = None) -> str:
    """Bytes as a C string literal, cut after ``limit``."""
    escapes = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
    shown = data if limit is None else data[:limit]
    text = "".join(
        escapes.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:o}") for byte in shown
    )
    return f'"{text}"' + ("..." if len(shown) < len(data) else "")


def format_mode(mode: int) -> str:
    """File type and permissions."""
    kind = _FILE_TYPES.get(mode & 0o170000)
    return f"{kind}|{mode & 0o7777:#05o}".replace("0o", "0") if kind else f"{mode:#o}"


def format_set(mask: int) -> str:
    """A set of signals, its complement where that is shorter."""
    mask &= (1 << 64) - 1
    inverted = mask.bit_count() > 32
    if inverted:
        mask ^= (1 << 64) - 1
    names = (signal_name(n).removeprefix("SIG") for n in range(1, 65) if mask >> (n - 1) & 1)
    return ("~" if inverted else "") + "[" + " ".join(names) + "]"


def _fields(layout: str, *names: str) -> tuple[int, Formatter]:
    packed = struct.Struct("<" + layout)

    def text(data: bytes) -> str:
        values = packed.unpack_from(data)
        pairs = (f"{name}={value}" for name, value in zip(names, values) if name)
        return "{" + ", ".join(pairs) + "}"

    return packed.size, text


def _pair(first: str, second: str, kind: tuple[int, Formatter]) -> tuple[int, Formatter]:
    nbytes, inner = kind
    return 2 * nbytes, lambda data: f"{{{first}={inner(data)}, {second}={inner(data[nbytes:])}}}"


def _stat(data: bytes) -> str:
    _, _, mode, _, _, _, device, _, size = struct.unpack_from("<QQIIIIQQq", data)
    if mode & 0o170000 in (0o020000, 0o060000):
        shown = f"st_rdev={device:#x}"
    else:
        shown = f"st_size={size}"
    return f"{{st_mode={format_mode(mode)}, {shown}, ...}}"


def _statx(data: bytes) -> str:
    mask, _, _, _, _, _, mode, _, _, size = struct.unpack_from("<IIQIIIHHQQ", data)
    return f"{{stx_mask={format_flags('statx', mask)}, stx_mode={format_mode(mode)}, " + (
        f"stx_size={size}, ...}}"
    )


def _wait(data: bytes) -> str:
    (status,) = struct.unpack_from("<I", data)
    if status & 0x7F == 0:
        return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}]"
    if status & 0xFF == 0x7F:
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {signal_name(status >> 8 & 0xFF)}}}]"
    if status == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    core = " && WCOREDUMP(s)" if status & 0x80 else ""
    return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(status & 0x7F)}{core}}}]"


def format_siginfo(data: bytes) -> str:
    """siginfo, with the fields that its signal and code have."""
    signum, number, code = struct.unpack_from("<iii", data)
    parts = [f"si_signo={signal_name(signum)}"]
    names = {0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL", 0x80: "SI_KERNEL"}
    parts.append(f"si_code={names.get(code, code)}")
    if number:
        parts.append(f"si_errno={errno.errorcode.get(number, number)}")
    if code > 0 and signum in (4, 5, 7, 8, 11):
        parts.append(f"si_addr={struct.unpack_from('<Q', data, 16)[0]:#x}")
    else:
        pid, uid, status = struct.unpack_from("<iIi", data, 16)
        parts += [f"si_pid={pid}", f"si_uid={uid}"]
        if signum == 17:
            parts.append(f"si_status={status}")
    return "{" + ", ".join(parts) + "}"


def _sigaction(data: bytes) -> str:
    handler, flags, *rest = struct.unpack(f"<{len(data) // 8}Q", data)
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, f"{handler:#x}")
    mask = format_set(rest[-1])
    return f"{{sa_handler={name}, sa_mask={mask}, sa_flags={format_flags('sigaction', flags)}}}"


def _sockaddr(data: bytes) -> str:
    (family,) = struct.unpack_from("<H", data)
    if family == 1:
        return f"{{sa_family=AF_UNIX, sun_path={quote(data[2:110].split(bytes(1))[0])}}}"
    if family == 2:
        (port,) = struct.unpack_from(">H", data, 2)
        address = socket.inet_ntoa(data[4:8])
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{address}")}}'
    return f"{{sa_family={family}, ...}}"


def _termios(data: bytes) -> str:
    return "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}".format(
        *struct.unpack_from("<4I", data)
    )


def _ifreq(data: bytes) -> str:
    return f"{{ifr_name={quote(data[:16].split(bytes(1))[0])}, ...}}"


def format_pollfds(data: bytes, after: bool) -> str:
    """An array of pollfd: what is asked for, or after the call what has happened."""
    assert "poll" in FLAGS
    parts = []
    for fd, events, happened in struct.iter_unpack("<ihh", data):
        text = f"fd={fd}, events={format_flags('poll', events & 0xFFFF)}"
        if after:
            text += f", revents={format_flags('poll', happened & 0xFFFF)}"
        parts.append("{" + text + "}")
    return "[" + ", ".join(parts) + "]"


_TIMESPEC: Final = _fields("qq", "tv_sec", "tv_nsec")
_TIMEVAL: Final = _fields("qq", "tv_sec", "tv_usec")
STRUCTS: Final[dict[str, tuple[int, Formatter]]] = {
    "timespec": _TIMESPEC,
    "timespecs": (
        32,
        lambda data: f"[{_TIMESPEC[1](data)}, {_TIMESPEC[1](data[16:])}]",
    ),
    "timeval": _TIMEVAL,
    "itimerval": _pair("it_interval", "it_value", _TIMEVAL),
    "itimerspec": _pair("it_interval", "it_value", _TIMESPEC),
    "stat": (128, _stat),
    "statx": (256, _statx),
    "statfs": _fields(
        "qqqqqqq", "f_type", "f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree"
    ),
    "rlimit": _fields("QQ", "rlim_cur", "rlim_max"),
    "rusage": _fields("qqqqq", "utime_sec", "utime_usec", "stime_sec", "stime_usec", "maxrss"),
    "sysinfo": _fields("q24xQQ", "uptime", "totalram", "freeram"),
    "tms": _fields("qqqq", "tms_utime", "tms_stime", "tms_cutime", "tms_cstime"),
    "stack": _fields("QI4xQ", "ss_sp", "ss_flags", "ss_size"),
    "open_how": _fields("QQQ", "flags", "mode", "resolve"),
    "sigevent": _fields("Qii", "sigev_value", "sigev_signo", "sigev_notify"),
    "epoll_event": _fields("I4xQ", "events", "data"),
    "utsname": (
        390,
        lambda data: (
            f"{{sysname={quote(data[:65].split(bytes(1))[0])}, "
            f"nodename={quote(data[65:130].split(bytes(1))[0])}, ...}}"
        ),
    ),
    "siginfo": (128, format_siginfo),
    "sigaction": (24, _sigaction),
    "sockaddr": (128, _sockaddr),
    "termios": (36, _termios),
    "winsize": _fields("4H", "ws_row", "ws_col", "ws_xpixel", "ws_ypixel"),
    "ifreq": (40, _ifreq),
    "wait": (4, _wait),
    "int": (4, lambda data: f"[{struct.unpack('<i', data)[0]}]"),
    "off": (8, lambda data: f"[{struct.unpack('<q', data)[0]}]"),
}

# What ioctl's third argument points to, by request: terminals, counts, network interfaces.
IOCTLS: Final = (
    dict.fromkeys((0x5401, 0x5402, 0x5403, 0x5404), "termios")
    | dict.fromkeys((0x5413, 0x5414), "winsize")
    | dict.fromkeys((0x540F, 0x5410, 0x5411, 0x541B, 0x5421, 0x5429, 0x5452), "int")
    | dict.fromkeys((0x80045430, 0x40045431), "int")
    | dict.fromkeys((*range(0x8913, 0x8938),), "ifreq")
)
