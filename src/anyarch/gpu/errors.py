"""Every error that `anyarch.gpu` raises on purpose.

Error                     base; also an `anyarch.Error`
├── NoDeviceError         the device asked for is not there
│   ├── NoDriverError     this machine has no driver of that kind
│   └── BrokenDriverError a driver is there, but cannot be used
├── PtxError              PTX text that is wrong or not supported: line, column, instruction
├── UnknownNameError      a kernel or variable that a module does not have (also a KeyError)
├── ImageError            a cubin, fatbin or file that cannot be loaded
├── ArgumentError         launch arguments: count, type or range (also a TypeError)
├── RangeError            offsets, sizes, shapes that do not fit (also a ValueError)
├── ClosedError           a buffer, stream, event or module used after it was freed
└── DriverError           a driver call failed: its name, the driver's name and text for the reason
    ├── OutOfMemoryError  (also a MemoryError)
    └── KernelError       a kernel failed while it ran; raised by the next synchronisation
        └── CheckError    the checked mode found a mistake in it
"""

from __future__ import annotations

from dataclasses import dataclass

from anyarch.errors import Error as _PackageError

__all__ = [
    "ArgumentError",
    "BrokenDriverError",
    "CheckError",
    "ClosedError",
    "DriverError",
    "Error",
    "Fault",
    "ImageError",
    "KernelError",
    "NoDeviceError",
    "NoDriverError",
    "OutOfMemoryError",
    "PtxError",
    "RangeError",
    "UnknownNameError",
]


class Error(_PackageError):
    """Base of all errors of `anyarch.gpu`."""


class NoDeviceError(Error):
    """The device asked for is not there."""


class NoDriverError(NoDeviceError):
    """This machine has no driver of that kind."""


class BrokenDriverError(NoDeviceError):
    """A driver is there, but cannot be used."""


class PtxError(Error):
    """PTX text that is wrong or not supported.

    `line` and `column` count from 1, 0 where the place is not known; `instruction` is the text.
    `origin` is the text's where several were linked.
    """

    def __init__(
        self,
        message: str,
        line: int = 0,
        column: int = 0,
        instruction: str = "",
        origin: str = "",
    ) -> None:
        place = f"PTX line {line}, column {column}: " if line and column else ""
        if line and not column:
            place = f"PTX line {line}: "
        if origin:
            place = f"{origin}, {place}"
        shown = f": {instruction.strip()!r}" if instruction else ""
        super().__init__(f"{place}{message}{shown}")
        self.message = message
        self.line = line
        self.column = column
        self.instruction = instruction
        self.origin = origin


class UnknownNameError(Error, KeyError):
    """A kernel or variable that a module does not have."""

    __str__ = Error.__str__  # a KeyError shows the text quoted


class ImageError(Error):
    """A cubin, fatbin or file that cannot be loaded."""


class ArgumentError(Error, TypeError):
    """Launch arguments that do not fit the kernel's parameters."""


class RangeError(Error, ValueError):
    """An offset, size or shape that does not fit."""


class ClosedError(Error):
    """A buffer, stream, event or module that was used after it was freed."""


class DriverError(Error):
    """A driver call failed.

    `call` is the driver's function, `code` its result, `name` the driver's name for it.
    """

    def __init__(self, call: str, code: int, name: str, text: str, advice: str = "") -> None:
        detail = f": {text}" if text else ""
        super().__init__(f"{call} failed with {name} ({code}){detail}{advice}")
        self.call = call
        self.code = code
        self.name = name


class OutOfMemoryError(DriverError, MemoryError):
    """The device, or the host for pinned memory, has not that much memory left."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a kernel failed on the cpu.

    `block` is its place in the grid, `shape` its size; `threads` are the first and the last thread
    that it can have been, by their numbers in the block: a warp, or one thread. `line` counts lines
    of the PTX, `instruction` is its text; `file` and `source_line` are what `.loc` says; `origin`
    is the PTX's where several were linked. What is not known is 0 or empty.
    """

    block: tuple[int, int, int]
    shape: tuple[int, int, int]
    threads: tuple[int, int]
    line: int = 0
    instruction: str = ""
    file: str = ""
    source_line: int = 0
    origin: str = ""

    @property
    def thread(self) -> tuple[int, int, int]:
        """Where the first thread is in its block."""
        rows, x = divmod(self.threads[0], self.shape[0])
        z, y = divmod(rows, self.shape[1])
        return x, y, z

    @property
    def who(self) -> str:
        """The threads in words."""
        first, last = self.threads
        if first == last:
            return f"thread {self.thread}"
        return f"warp {first // 32} (threads {first} to {last})"

    @property
    def where(self) -> str:
        """The line, and what `.loc` says of it, in words."""
        source = f", {self.file}:{self.source_line}" if self.file else ""
        text = f"{self.origin}, " if self.origin else ""
        text += f"PTX line {self.line}{source}: {self.instruction!r}"
        return text if self.line else ""

    def __str__(self) -> str:
        text = f"in block {self.block}, {self.who}"
        return f"{text}, {self.where}" if self.line else text


class KernelError(DriverError):
    """A kernel failed while it ran.

    `kernels` are the kernels it can have been, the latest first; `usable` says whether the device
    can be used afterwards in this process. `fault` says where, as far as that is known.
    """

    def __init__(
        self,
        call: str,
        code: int,
        name: str,
        text: str,
        kernels: tuple[str, ...] = (),
        usable: bool = False,
        fault: Fault | None = None,
    ) -> None:
        which = "a kernel failed"
        if len(kernels) == 1:
            which = f"kernel {kernels[0]!r} failed"
        elif kernels:
            listed = ", ".join(repr(kernel) for kernel in kernels)
            which = f"a kernel failed, one of {listed}"
        state = "the device stays usable" if usable else "this process cannot use the device again"
        super().__init__(call, code, name, text, advice=f"; {which}; {state}")
        self.kernels = kernels
        self.usable = usable
        self.fault = fault


class CheckError(KernelError):
    """The cpu's checked mode found a mistake in a kernel.

    `kind` is "out of bounds", "misaligned", "uninitialised", "race" or "barrier". `fault` says
    where, exactly; `other` where the second thread of a race was, or one that others wait for.
    `address` and `nbytes` are the access's.
    """

    def __init__(
        self,
        kind: str,
        code: int,
        text: str,
        *,
        kernels: tuple[str, ...],
        fault: Fault,
        other: Fault | None,
        address: int,
        nbytes: int,
    ) -> None:
        name = f"CHECK ({kind})"
        super().__init__("run", code, name, text, kernels, usable=True, fault=fault)
        self.kind = kind
        self.other = other
        self.address = address
        self.nbytes = nbytes
