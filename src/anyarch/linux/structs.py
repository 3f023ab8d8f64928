"""Structures in system calls, as strace prints them: a size and a function from bytes to text."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import Final

from anyarch.linux.symbols import format_enum, format_flags, signal_name

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
        major = device >> 8 & 0xFFF | device >> 32 & ~0xFFF
        minor = device & 0xFF | device >> 12 & ~0xFF
        shown = f"st_rdev=makedev({major:#x}, {minor:#x})"
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
    children = signum == 17 and code > 0
    parts.append(f"si_code={format_enum('child', code) if children else names.get(code, code)}")
    if number:
        parts.append(f"si_errno={errno.errorcode.get(number, number)}")
    if code > 0 and signum in (4, 5, 7, 8, 11):
        parts.append(f"si_addr={struct.unpack_from('<Q', data, 16)[0]:#x}")
    else:
        pid, uid, status, user, system = struct.unpack_from("<iIi4xqq", data, 16)
        parts += [f"si_pid={pid}", f"si_uid={uid}"]
        if children:
            shown = status if code == 1 else signal_name(status)
            parts += [f"si_status={shown}", f"si_utime={user}", f"si_stime={system}"]
    return "{" + ", ".join(parts) + "}"


def _sigaction(data: bytes) -> str:
    handler, flags, *rest = struct.unpack(f"<{len(data) // 8}Q", data)
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, f"{handler:#x}")
    mask = format_set(rest[-1])
    return f"{{sa_handler={name}, sa_mask={mask}, sa_flags={format_flags('sigaction', flags)}}}"


def _sockaddr(data: bytes) -> str:
    (family,) = struct.unpack_from("<H", data)
    if family == 1:
        if not any(data[2:]):
            return "{sa_family=AF_UNIX}"
        if data[2] == 0:  # an abstract name
            return f"{{sa_family=AF_UNIX, sun_path=@{quote(data[3:].rstrip(bytes(1)))}}}"
        return f"{{sa_family=AF_UNIX, sun_path={quote(data[2:110].split(bytes(1))[0])}}}"
    if family == 2:
        (port,) = struct.unpack_from(">H", data, 2)
        address = socket.inet_ntoa(data[4:8])
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{address}")}}'
    if family == 10:
        port, flow = struct.unpack_from(">HI", data, 2)
        address = socket.inet_ntop(socket.AF_INET6, data[8:24])
        (scope,) = struct.unpack_from("<I", data, 24)
        return (
            f"{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), "
            f'inet_pton(AF_INET6, "{address}", &sin6_addr), sin6_scope_id={scope}}}'
        )
    if family == 16:
        pid, groups = struct.unpack_from("<II", data, 4)
        return f"{{sa_family=AF_NETLINK, nl_pid={pid}, nl_groups={groups:08x}}}"
    return f"{{sa_family={format_enum('domain', family)}, ...}}"


def _flock(data: bytes) -> str:
    kind, whence, start, nbytes = struct.unpack_from("<hh4xqq", data)
    return (
        f"{{l_type={format_enum('lock', kind)}, l_whence={format_enum('whence', whence)}, "
        f"l_start={start}, l_len={nbytes}}}"
    )


def _stack(data: bytes) -> str:
    address, flags, nbytes = struct.unpack_from("<QI4xQ", data)
    place = f"{address:#x}" if address else "NULL"
    return f"{{ss_sp={place}, ss_flags={format_flags('stack', flags)}, ss_size={nbytes}}}"


def _limit(value: int) -> str:
    if value == (1 << 64) - 1:
        return "RLIM64_INFINITY"
    return f"{value >> 10}*1024" if value > 1024 and value % 1024 == 0 else str(value)


def _rlimit(data: bytes) -> str:
    soft, hard = (_limit(value) for value in struct.unpack_from("<QQ", data))
    return f"{{rlim_cur={soft}, rlim_max={hard}}}"


def _file_times(data: bytes) -> str:
    parts = []
    for place in (0, 16):
        (nanoseconds,) = struct.unpack_from("<q", data, place + 8)
        special = {0x3FFFFFFF: "UTIME_NOW", 0x3FFFFFFE: "UTIME_OMIT"}.get(nanoseconds)
        parts.append(special or _TIMESPEC[1](data[place:]))
    return f"[{', '.join(parts)}]"


def _sysinfo(data: bytes) -> str:
    uptime, *rest = struct.unpack_from("<q3Q6QH6xQQI", data)
    loads, rest = rest[:3], rest[3:]
    names = "totalram freeram sharedram bufferram totalswap freeswap procs totalhigh freehigh"
    fields = ", ".join(f"{name}={value}" for name, value in zip((*names.split(), "mem_unit"), rest))
    return f"{{uptime={uptime}, loads=[{', '.join(map(str, loads))}], {fields}}}"


def format_epoll_event(events: int, data: int) -> str:
    """What is waited for, or has happened."""
    shown = format_flags("epoll_events", events)
    return f"{{events={shown}, data={{u32={data & 0xFFFFFFFF}, u64={data}}}}}"


def _clone_arguments(data: bytes) -> str:
    flags, _, child, parent, signum, stack, nbytes, tls = struct.unpack_from("<8Q", data)
    parts = [f"flags={format_flags('clone', flags) if flags else '0'}"]
    parts += [f"child_tid={child:#x}"] if flags & 0x1200000 else []
    parts += [f"parent_tid={parent:#x}"] if flags & 0x100000 else []
    parts.append(f"exit_signal={signal_name(signum) if signum else 0}")
    parts.append(f"stack={stack:#x}" if stack else "stack=NULL")
    parts.append(f"stack_size={nbytes:#x}" if nbytes else "stack_size=0")
    parts += [f"tls={tls:#x}"] if flags & 0x80000 else []
    return "{" + ", ".join(parts) + "}"


def _termios(data: bytes) -> str:
    return "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}".format(
        *struct.unpack_from("<4I", data)
    )


def _ifreq(data: bytes) -> str:
    return f"{{ifr_name={quote(data[:16].split(bytes(1))[0])}, ...}}"


def format_pollfds(data: bytes, after: bool) -> str:
    """An array of pollfd: what is asked for, or after the call what has happened."""
    parts = []
    for fd, events, happened in struct.iter_unpack("<ihh", data):
        if not after:
            parts.append(f"{{fd={fd}, events={format_flags('poll', events & 0xFFFF)}}}")
        elif happened:
            parts.append(f"{{fd={fd}, revents={format_flags('poll', happened & 0xFFFF)}}}")
    return "[" + ", ".join(parts) + "]"


def format_members(data: bytes) -> str:
    """A set of small numbers, a bit each."""
    members = int.from_bytes(data, "little")
    return "[" + " ".join(str(n) for n in range(8 * len(data)) if members >> n & 1) + "]"


_TIMESPEC: Final = _fields("qq", "tv_sec", "tv_nsec")
_TIMEVAL: Final = _fields("qq", "tv_sec", "tv_usec")
STRUCTS: Final[dict[str, tuple[int, Formatter]]] = {
    "timespec": _TIMESPEC,
    "timespecs": (32, _file_times),
    "timeval": _TIMEVAL,
    "itimerval": _pair("it_interval", "it_value", _TIMEVAL),
    "itimerspec": _pair("it_interval", "it_value", _TIMESPEC),
    "stat": (128, _stat),
    "statx": (256, _statx),
    "statfs": _fields(
        "qqqqqqq", "f_type", "f_bsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree"
    ),
    "rlimit": (16, _rlimit),
    "rusage": (
        144,
        lambda data: f"{{ru_utime={_TIMEVAL[1](data)}, ru_stime={_TIMEVAL[1](data[16:])}, ...}}",
    ),
    "sysinfo": (112, _sysinfo),
    "tms": _fields("qqqq", "tms_utime", "tms_stime", "tms_cutime", "tms_cstime"),
    "stack": (24, _stack),
    "flock": (24, _flock),
    "linger": _fields("ii", "l_onoff", "l_linger"),
    "ucred": _fields("iII", "pid", "uid", "gid"),
    "clone_args": (64, _clone_arguments),
    "open_how": _fields("QQQ", "flags", "mode", "resolve"),
    "sigevent": _fields("Qii", "sigev_value", "sigev_signo", "sigev_notify"),
    "epoll_event": (16, lambda data: format_epoll_event(*struct.unpack("<I4xQ", data))),
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
