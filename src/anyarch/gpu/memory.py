"""Device memory and pinned host memory."""

from __future__ import annotations

import ctypes
import sys
import weakref
from typing import TYPE_CHECKING, Any

from anyarch.gpu import dlpack
from anyarch.gpu.backend import BackendDevice, MemoryKind, Needs, Way
from anyarch.gpu.dlpack import Tensor
from anyarch.gpu.errors import ClosedError, RangeError
from anyarch.gpu.interchange import describe, is_contiguous, product

if TYPE_CHECKING:
    from anyarch.gpu.device import Device
    from anyarch.gpu.streams import Stream, StreamLike

__all__ = ["Buffer"]


class Allocation:
    """Memory that is freed once, when nothing needs it: its buffer, and views of host memory."""

    __slots__ = ("_driver", "_kind", "pointer", "stream")

    def __init__(
        self, driver: BackendDevice, pointer: int, kind: MemoryKind, stream: Stream | None
    ) -> None:
        self._driver: BackendDevice | None = driver
        self._kind = kind
        self.pointer = pointer
        self.stream = stream

    def free(self) -> None:
        """Free it now."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        if self._kind is MemoryKind.HOST:
            driver.free_pinned(self.pointer)
        else:
            # Of a stream that is closed its work is done, or is the driver's to wait for.
            driver.free(self.pointer, None if self.stream is None else self.stream._handle)

    def __del__(self) -> None:
        # A module that is half gone cannot be called; the driver frees what a process had.
        if not sys.is_finalizing():
            self.free()


class Buffer:
    """A range of a device's memory, or of pinned host memory.

    Made by `Device.allocate`, `Device.allocate_pinned` and `Device.wrap`; slices with byte offsets
    (`buffer[16:32]`) are ranges of the same memory. The memory is freed once: by `close`, at the
    end of a `with` block, or when nothing refers to it. Everything but `close` raises ClosedError
    then, also for slices. Views that others have of host memory keep that memory, not the buffer.
    """

    __slots__ = (
        "__weakref__",
        "_allocation",
        "_device",
        "_driver",
        "_kind",
        "_nbytes",
        "_owner",
        "_parts",
        "_pointer",
        "_read_only",
        "_root",
        "_users",
    )

    # `_pointer` and `_driver` are read by native code (launcher.py); None once it is closed.
    _pointer: int | None

    def __init__(
        self,
        device: Device,
        pointer: int,
        nbytes: int,
        *,
        kind: MemoryKind = MemoryKind.DEVICE,
        allocation: Allocation | None = None,
        owner: object = None,
        read_only: bool = False,
    ) -> None:
        self._device = device
        self._driver: BackendDevice = device._driver
        self._pointer = pointer
        self._nbytes = nbytes
        self._kind = kind
        self._allocation = allocation
        self._owner = owner
        self._read_only = read_only
        self._root: Buffer | None = None  # of a slice: the buffer it is a range of
        self._parts: list[weakref.ref[Buffer]] = []
        self._users: weakref.WeakSet[Needs] | None = None

    # What it is.

    @property
    def device(self) -> Device:
        """The device it was allocated by."""
        return self._device

    @property
    def pointer(self) -> int:
        """Its address on the device, or in this process for pinned memory."""
        if self._pointer is None:
            raise self._gone()
        return self._pointer

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self._nbytes

    @property
    def is_pinned(self) -> bool:
        """Whether it is host memory."""
        return self._kind is MemoryKind.HOST

    @property
    def closed(self) -> bool:
        """Whether it was freed."""
        return self._pointer is None

    @property
    def view(self) -> memoryview:
        """Its bytes where they lie: pinned memory and memory of the cpu."""
        if not self._on_host():
            raise RangeError(f"memory of {self._device.id} is not the host's: copy it with to_host")
        self._driver.lend(self.pointer, self._nbytes)
        array: ctypes.Array[ctypes.c_ubyte] = (ctypes.c_ubyte * self._nbytes).from_address(
            self.pointer
        )
        # What the view needs; not the buffer, which may be closed while there are views.
        array._keep = (self._allocation, self._owner)  # type: ignore[attr-defined]
        whole = memoryview(array).cast("B")
        return whole.toreadonly() if self._read_only else whole

    def __buffer__(self, flags: int) -> memoryview:
        """The buffer protocol, which Python 3.12 and later ask for here."""
        return self.view

    def _on_host(self) -> bool:
        return self._kind is MemoryKind.HOST or self._device.backend == "cpu"

    def _ready(self, stream: StreamLike | None) -> None:
        """Order what was written to it, and is perhaps outstanding, before work on `stream`."""

    def _what(self) -> str:
        return f"{type(self).__name__} of {self._nbytes:,} bytes on {self._device.id}"

    def __repr__(self) -> str:
        state = "closed" if self._pointer is None else f"at {self._pointer:#x}"
        pinned = ", pinned" if self.is_pinned else ""
        return f"<{self._what()}{pinned}, {state}>"

    def __len__(self) -> int:
        return self._nbytes

    def __getitem__(self, key: slice) -> Buffer:
        if not isinstance(key, slice) or key.step not in (None, 1):
            raise RangeError("a buffer is sliced by byte offsets, buffer[start:stop]")
        start = 0 if key.start is None else key.start
        stop = self._nbytes if key.stop is None else key.stop
        if not 0 <= start <= stop <= self._nbytes:  # never clipped, as a list's would be
            raise RangeError(f"bytes {start} to {stop} are not within {self._nbytes:,} bytes")
        return self._part(Buffer.__new__(Buffer), start, stop - start)

    def _part(self, part: Buffer, start: int, nbytes: int) -> Buffer:
        """Make `part` a range of this buffer, closed with it."""
        Buffer.__init__(
            part,
            self._device,
            self.pointer + start,
            nbytes,
            kind=self._kind,
            allocation=self._allocation,
            owner=self._owner,
            read_only=self._read_only,
        )
        root = part._root = self._root or self
        root._parts = [known for known in root._parts if known() is not None]
        root._parts.append(weakref.ref(part))
        return part

    # Its end.

    def close(self, stream: StreamLike | None = None) -> None:
        """Free it, after the work of the stream that it was allocated on, or of `stream`.

        Closing a slice, or what is closed, does nothing to the memory.
        """
        if self._pointer is None:
            return
        self._forget()
        for reference in self._parts:
            part = reference()
            if part is not None:
                part._forget()
                part._allocation = part._owner = None
        allocation, self._allocation, self._owner = self._allocation, None, None
        if allocation is not None and self._root is None:
            if stream is not None:
                allocation.stream = self._device.stream(stream)
            if not self._on_host():
                allocation.free()

    def _forget(self) -> None:
        """It is closed, and so is what was prepared with it."""
        self._pointer = None
        for needs in self._users or ():
            needs.end(self._gone())

    def _end_with_it(self, needs: Needs) -> None:
        """`needs` ends when this is closed."""
        if self._users is None:
            self._users = weakref.WeakSet()
        self._users.add(needs)

    def _gone(self) -> ClosedError:
        return ClosedError(f"{self._what()} was used after it was freed")

    def __enter__(self) -> Buffer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Copies.

    def copy_from(self, source: Any, *, stream: StreamLike | None = None) -> None:
        """Fill it from a buffer or array of the same size in bytes, of any device or of the host.

        Without a stream the copy is done when this returns. With one it is not: pinned memory must
        stay as it is until the stream gets there, other host memory may be read at once.
        """
        if self._read_only:
            raise RangeError(f"{self._what()} is read-only")
        _copy(self, source, stream)

    def copy_to(self, target: Any, *, stream: StreamLike | None = None) -> None:
        """Copy it to a buffer, or to a writable array of the host, of the same size in bytes."""
        if isinstance(target, Buffer):
            target.copy_from(self, stream=stream)
            return
        self._ready(stream)
        tensor = _tensor_of(target)
        if tensor.read_only:
            raise RangeError("the target of the copy is read-only")
        _check_sizes(_nbytes_of(tensor), self._nbytes)
        if tensor.device[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED):
            self._device.wrap(target).copy_from(self, stream=stream)
            return
        handle = self._device._stream_handle(stream)
        if self._on_host() and self._device.backend != "cpu":
            if handle is not None:
                raise RangeError("a copy from host memory to host memory is not for a stream")
            ctypes.memmove(tensor.pointer, self.pointer, self._nbytes)
            return
        self._driver.copy(tensor.pointer, self.pointer, Way.TO_HOST, self._nbytes, handle)

    def to_bytes(self) -> bytes:
        """A copy of its contents."""
        data = bytearray(self._nbytes)
        if data:
            self.copy_to(data)
        return bytes(data)

    def fill(self, value: int, width: int = 1, *, stream: StreamLike | None = None) -> None:
        """Fill it with an integer of `width` 1, 2 or 4 bytes."""
        if self._read_only:
            raise RangeError(f"{self._what()} is read-only")
        if width not in (1, 2, 4):
            raise RangeError(f"a fill value has 1, 2 or 4 bytes, not {width}")
        if not -(1 << (8 * width - 1)) <= value < 1 << (8 * width):
            raise RangeError(f"{value} does not fit {width} bytes")
        if self._nbytes % width or self.pointer % width:
            raise RangeError(f"{self._what()} is no whole number of aligned {width}-byte values")
        handle = self._device._stream_handle(stream)
        if self._nbytes:
            masked = value & ((1 << (8 * width)) - 1)
            self._driver.fill(self.pointer, masked, width, self._nbytes // width, handle)


def _copy(target: Buffer, source: Any, stream: StreamLike | None) -> None:
    device = target._device
    if not isinstance(source, Buffer):
        tensor = _tensor_of(source)
        if tensor.device[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED):
            home = device if device.backend == "cuda" else device._sibling("cuda", tensor.device[1])
            source = home.wrap(source, stream=stream if home is device else None)
        else:
            _check_sizes(target.nbytes, _nbytes_of(tensor))
            target._ready(stream)
            _from_host(target, tensor.pointer, stream)
            return
    _check_sizes(target.nbytes, source.nbytes)
    target._ready(stream)
    source._ready(stream)
    if not target._nbytes:
        return
    if target._driver is source._driver and target._kind is source._kind is MemoryKind.DEVICE:
        handle = device._stream_handle(stream)
        target._driver.copy(target.pointer, source.pointer, Way.WITHIN, target._nbytes, handle)
    elif source.is_pinned or source.device.backend == "cpu":
        _from_host(target, source.pointer, stream)
    elif target.is_pinned or device.backend == "cpu":
        handle = source.device._stream_handle(stream)
        source._driver.copy(target.pointer, source.pointer, Way.TO_HOST, target.nbytes, handle)
    else:
        handle = device._stream_handle(stream)
        target._driver.copy_peer(
            target.pointer, source.pointer, source._driver, target.nbytes, handle
        )


def _from_host(target: Buffer, pointer: int, stream: StreamLike | None) -> None:
    handle = target.device._stream_handle(stream)
    if target.is_pinned and target.device.backend != "cpu":
        if handle is not None:
            raise RangeError("a copy from host memory to host memory is not for a stream")
        ctypes.memmove(target.pointer, pointer, target.nbytes)
    elif target.nbytes:
        target._driver.copy(target.pointer, pointer, Way.TO_DEVICE, target.nbytes, handle)


def _tensor_of(value: object) -> Tensor:
    tensor = describe(value)
    if tensor is None:
        raise RangeError(
            f"{type(value).__name__} is neither a buffer nor an array: it offers none of "
            "__cuda_array_interface__, __array_interface__, __dlpack__ and the buffer protocol"
        )
    if not is_contiguous(tensor):
        raise RangeError("only arrays whose elements lie in C order without gaps are copied")
    return tensor


def _nbytes_of(tensor: Tensor) -> int:
    return product(tensor.shape) * int(tensor.typestr[2:])


def _check_sizes(target: int, source: int) -> None:
    if target != source:
        raise RangeError(
            f"the target has {target:,} bytes, the source {source:,}: slice the larger"
        )
