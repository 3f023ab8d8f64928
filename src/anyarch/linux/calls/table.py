"""How a system call is described: one row, from which handler, strace line and native thunk follow.

A signature lists the arguments as ``name:kind`` or ``name:kind.parameter``. The kinds:

int uint long size off hex fd dirfd mode pid uid signal address   plain numbers, passed as they are
flags.SET enum.SET        a number with symbols, see ``linux/symbols.py``
path link string strings  zero-terminated text; ``link`` is a path whose last part is not followed
bytes_in.N bytes_out.N    a buffer whose length is argument N
struct_in.T struct_out.T struct_io.T    a structure, see ``linux/structs.py``
iovec_in.N iovec_out.N    N buffers: their pointers are translated
sigset_in sigset_out fds_out pointer    other pointers
ioctl    a number or a pointer, as the request says
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.data import dataclass

_TEXTS: Final = ("path", "link", "string", "strings")
_BUFFERS: Final = ("bytes_in", "bytes_out", "iovec_in", "iovec_out", "sigset_in", "sigset_out")
POINTED: Final = frozenset(
    (*_TEXTS, *_BUFFERS, "struct_in", "struct_out", "struct_io", "fds_out")
)  # what a trace looks into
POINTERS: Final = POINTED | {"pointer"}
IOVECS: Final = frozenset(("iovec_in", "iovec_out"))
PATHS: Final = frozenset(("path", "link"))
OPEN_FLAGS: Final = frozenset(("open", "pipe"))  # sets of flags that architectures number apart

# Takes the process and as many integers as the signature has; returns the result or -errno, or
# None when the registers are to stay as they are.
Handler = Callable[..., "int | None"]


@dataclass(slots=True, frozen=True)
class Argument:
    """One argument of a system call."""

    name: str
    kind: str
    parameter: str


@dataclass(slots=True, frozen=True)
class Call:
    """One system call. ``operations``, where not 0, has a bit for each value of the second
    argument (its low seven bits) that may run natively. ``timeout`` names the argument that says
    for how long to wait, counted from the call."""

    name: str
    arguments: tuple[Argument, ...]
    result: str
    native: bool
    restart: bool  # SA_RESTART repeats it
    operations: int
    timeout: str
    handler: Handler | None  # None: passed to the host, arguments translated


_arguments: Final[dict[str, Argument]] = {}  # by what they were made of: many calls have the same


def parse_signature(signature: str) -> tuple[Argument, ...]:
    """The arguments that a signature describes."""
    return tuple([_arguments.get(part) or _argument(part) for part in signature.split()])


def _argument(part: str) -> Argument:
    name, _, kind = part.partition(":")
    kind, _, parameter = kind.partition(".")
    made = _arguments[part] = Argument(name, kind, parameter)
    return made


class Family:
    """The calls of one subject, by name."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    def passed(
        self,
        name: str,
        signature: str = "",
        *,
        result: str = "int",
        native: bool = False,
        restart: bool = False,
        operations: int = 0,
        timeout: str = "",
    ) -> None:
        """Declare a call that the host serves. ``native``: without Python, where no path needs
        one; every structure is the same for guest and host."""
        arguments = parse_signature(signature)
        self.calls[name] = Call(name, arguments, result, native, restart, operations, timeout, None)

    def handled(
        self,
        name: str,
        signature: str = "",
        *,
        result: str = "int",
        native: bool = False,
        restart: bool = False,
        operations: int = 0,
        timeout: str = "",
    ) -> Callable[[Handler], Handler]:
        """Declare a call that the decorated function serves, and where ``native`` allows it the
        host does just as well."""

        def declare(handler: Handler) -> Handler:
            arguments = parse_signature(signature)
            self.calls[name] = Call(
                name, arguments, result, native, restart, operations, timeout, handler
            )
            return handler

        return declare
