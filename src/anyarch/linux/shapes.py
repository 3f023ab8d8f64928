"""Which arguments of a call a trace shows, and in what form, where the call's own arguments say so.

Sources: fcntl(2), futex(2), prctl(2), clone(2), socket(7); the order and the names are strace's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from anyarch.linux.calls.table import Argument, Call, parse_signature

Shown = tuple[Argument, int]

_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_MREMAP_FIXED: Final = 2
_AF_INET, _AF_INET6 = 2, 10
_FCNTL: Final = {
    **dict.fromkeys((1, 3, 9, 11, 1025, 1032, 1034), ""),
    2: "arg:flags.descriptor",
    4: "arg:flags.open",
    5: "arg:struct_io.flock",
    6: "arg:struct_in.flock",
    7: "arg:struct_in.flock",
    36: "arg:struct_io.flock",
    37: "arg:struct_in.flock",
    38: "arg:struct_in.flock",
    10: "arg:signal",
    1033: "arg:flags.seals",
}
_COUNT, _UNTIL = "val:uint", "timeout:struct_in.timespec"
_FUTEX: Final = {
    0: f"{_COUNT} {_UNTIL}",
    1: _COUNT,
    3: f"{_COUNT} timeout:uint uaddr2:pointer",
    4: f"{_COUNT} timeout:uint uaddr2:pointer val3:uint",
    6: f"{_COUNT} {_UNTIL}",
    7: "",
    8: "",
    9: f"{_COUNT} {_UNTIL} val3:enum.bitset",
    10: f"{_COUNT} val3:enum.bitset",
    13: f"{_COUNT} {_UNTIL}",
}
_PRCTL: Final = {
    1: "arg2:signal",
    2: "arg2:struct_out.int",
    3: "",
    4: "arg2:int",
    15: "arg2:string",
    16: "arg2:text_out",
    23: "arg2:int",
    36: "arg2:int",
    37: "arg2:struct_out.int",
    38: "arg2:int arg3:int arg4:int arg5:int",
    39: "arg2:int arg3:int arg4:int arg5:int",
}
_OPTIONS: Final = {(1, 13): "linger", (1, 17): "ucred", (1, 20): "timeval", (1, 21): "timeval"}
_OPTION_NAMES: Final = {0: "enum.ip_option", 1: "enum.socket_option", 6: "enum.tcp_option"}


def _pick(call: Call, values: Sequence[int], signature: str) -> list[Shown]:
    """Arguments by name, in the order and of the kinds of another signature."""
    by_name = {each.name: value for each, value in zip(call.arguments, values)}
    return [(each, by_name[each.name]) for each in parse_signature(signature)]


def _after(call: Call, values: Sequence[int], kept: int, signature: str) -> list[Shown]:
    """The first arguments as they are, then those of a signature."""
    return [*list(zip(call.arguments, values))[:kept], *_pick(call, values, signature)]


def _openat(call: Call, values: Sequence[int]) -> list[Shown]:
    shown = list(zip(call.arguments, values))
    creates = values[2] & _O_CREAT or values[2] & _O_TMPFILE == _O_TMPFILE
    return shown if creates else shown[:-1]


def _fcntl(call: Call, values: Sequence[int]) -> list[Shown]:
    return _after(call, values, 2, _FCNTL.get(values[1] & 0xFFFFFFFF, "arg:int"))


def _futex(call: Call, values: Sequence[int]) -> list[Shown]:
    signature = _FUTEX.get(values[1] & 0x7F)
    if signature is None:
        return list(zip(call.arguments, values))
    return _after(call, values, 2, signature)


def _prctl(call: Call, values: Sequence[int]) -> list[Shown]:
    signature = _PRCTL.get(values[0])
    if signature is None:
        return list(zip(call.arguments, values))
    return _after(call, values, 1, signature)


def _mremap(call: Call, values: Sequence[int]) -> list[Shown]:
    shown = list(zip(call.arguments, values))
    return shown if values[3] & _MREMAP_FIXED else shown[:4]


def _clone(call: Call, values: Sequence[int]) -> list[Shown]:
    signature = "stack:address.child_stack flags:flags.clone"
    for bit, text in (
        (0x100000, "ptid:struct_out.int"),
        (0x80000, "tls:address.tls"),
        (0x1200000, "ctid:address.child_tidptr"),
    ):
        if values[0] & bit:
            signature += f" {text}"
    return _pick(call, values, signature)


def _socket(call: Call, values: Sequence[int]) -> list[Shown]:
    inet = values[0] & 0xFFFFFFFF in (_AF_INET, _AF_INET6)
    return _after(call, values, 2, f"protocol:{'enum.protocol' if inet else 'int'}")


def _option(call: Call, values: Sequence[int]) -> list[Shown]:
    level, name = values[1] & 0xFFFFFFFF, values[2] & 0xFFFFFFFF
    known = _OPTIONS.get((level, name))
    if call.name == "getsockopt":
        value = f"struct_out.{known or 'int'}"
    elif known or values[4] & 0xFFFFFFFF == 4:
        value = f"struct_in.{known or 'int'}"
    else:
        value = "bytes_in.len"
    length = "struct_io.int" if call.name == "getsockopt" else "int"
    names = f"level:enum.socket_level name:{_OPTION_NAMES.get(level, 'int')}"
    return _after(call, values, 1, f"{names} value:{value} len:{length}")


def _as(signature: str) -> Callable[[Call, Sequence[int]], list[Shown]]:
    return lambda call, values: _pick(call, values, signature)


_SHAPES: Final[dict[str, Callable[[Call, Sequence[int]], list[Shown]]]] = {
    "openat": _openat,
    "fcntl": _fcntl,
    "futex": _futex,
    "prctl": _prctl,
    "mremap": _mremap,
    "clone": _clone,
    "clone3": _as("args:struct_in.clone_args size:size"),
    "socket": _socket,
    "setsockopt": _option,
    "getsockopt": _option,
    "getcwd": _as("buf:text_out size:size"),
    "sendmsg": _as("fd:fd msg:struct_in.msghdr flags:flags.message"),
    "recvmsg": _as("fd:fd msg:struct_out.msghdr flags:flags.message"),
    "preadv": _as("fd:fd iov:iovec_out.iovcnt iovcnt:int offset:off"),
    "pwritev": _as("fd:fd iov:iovec_in.iovcnt iovcnt:int offset:off"),
    "ppoll": _as(
        "fds:struct_in.pollfds nfds:uint timeout:struct_in.timespec sigmask:sigset_in size:size"
    ),
    "pselect6": _as(
        "nfds:int readfds:struct_in.fdset writefds:struct_in.fdset exceptfds:struct_in.fdset "
        "timeout:struct_in.timespec sigmask:pointer"
    ),
    "sched_getaffinity": _as("pid:pid len:size mask:struct_out.cpus"),
    "sched_setaffinity": _as("pid:pid len:size mask:struct_in.cpus"),
}


def shown_arguments(call: Call, values: Sequence[int]) -> list[Shown]:
    """What of a call's arguments is shown."""
    shape = _SHAPES.get(call.name)
    return list(zip(call.arguments, values)) if shape is None else shape(call, values)
