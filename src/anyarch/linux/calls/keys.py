"""Keys that the host's kernel keeps. Source: keyctl(2), ``uapi/linux/keyctl.h``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

KEYS: Final = Family()

for _name, _signature in {
    "add_key": "type:string description:string payload:bytes_in.size size:size keyring:int",
    "request_key": "type:string description:string callout:string keyring:int",
}.items():
    KEYS.passed(_name, _signature, native=True)

# By operation: which of the arguments after it are pointers. Those that are missing name memory
# in structures of their own: a vector of buffers, asymmetric keys.
_POINTERS: Final[dict[int, tuple[int, ...]]] = dict.fromkeys(
    (0, 3, 4, 5, 7, 8, 9, 13, 14, 15, 16, 18, 19, 21, 22, 30), ()
) | {1: (0,), 2: (1,), 6: (1,), 10: (1, 2), 11: (1,), 12: (1,), 17: (1,), 29: (1, 2), 31: (0,)}


@KEYS.handled("keyctl", "operation:int arg2:hex arg3:hex arg4:hex arg5:hex")
def keyctl(thread: Thread, operation: int, *arguments: int) -> int:
    """Read, change and link keys."""
    pointers = _POINTERS.get(operation & 0xFFFFFFFF)
    if pointers is None:
        return -errno.EOPNOTSUPP
    host = [
        thread.pointer(value) if index in pointers else value
        for index, value in enumerate(arguments)
    ]
    return thread.call("keyctl", operation, *host)
