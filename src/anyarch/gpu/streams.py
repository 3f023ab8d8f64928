"""Streams, events, host callbacks, and graphs of captured work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from anyarch.gpu.backend import Handle
from anyarch.gpu.errors import ArgumentError, ClosedError, Error, RangeError

if TYPE_CHECKING:
    from anyarch.gpu.device import Device

__all__ = ["CudaStreamProtocol", "Event", "Graph", "Stream", "StreamLike"]


class CudaStreamProtocol(Protocol):
    """A stream of another library: `__cuda_stream__` gives (0, handle)."""

    def __cuda_stream__(self) -> tuple[int, int]:
        """The version of the protocol, 0, and a CUstream as an int."""


class Stream:
    """Work in order: copies, fills, launches, callbacks.

    `Device.create_stream` makes one, `Device.default_stream` is the one that everything without a
    stream of its own is ordered with. It is destroyed, after its work, when nothing refers to it,
    by `close`, or at the end of a `with` block.
    """

    __slots__ = (
        "__weakref__",
        "_device",
        "_driver",
        "_failures",
        "_handle",
        "_owned",
        "_owner",
        "_priority",
    )

    # `_handle` and `_driver` are read by native code (launcher.py); None once it is closed.
    _handle: Handle | None

    def __init__(
        self,
        device: Device,
        handle: Handle,
        *,
        owned: bool = False,
        owner: object = None,
        priority: int = 0,
    ) -> None:
        self._device = device
        self._driver = device._driver
        self._handle = handle
        self._owned = owned
        self._owner = owner
        self._priority = priority
        self._failures: list[BaseException] = []

    @property
    def device(self) -> Device:
        """The device that does the work."""
        return self._device

    @property
    def handle(self) -> Handle:
        """The backend's handle: a CUstream as an int."""
        if self._handle is None:
            raise ClosedError(f"{self!r} was used after it was closed")
        return self._handle

    @property
    def priority(self) -> int:
        """Smaller is sooner; `Device.stream_priorities` tells the range."""
        return self._priority

    @property
    def done(self) -> bool:
        """Whether all its work is done; raises what went wrong in it."""
        finished = self._device._driver.stream_done(self.handle)
        if finished:
            self._raise_failures()
        return finished

    @property
    def __cuda_stream__(self) -> Callable[[], tuple[int, int]]:
        """The protocol by which other libraries take it; streams of the cpu do not offer it."""
        if self._device.backend != "cuda":
            raise AttributeError("a stream of the cpu is no CUDA stream")
        return lambda: (0, self.handle)

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"handle {self._handle!r}"
        return f"<Stream of {self._device.id}, {state}>"

    def synchronize(self) -> None:
        """Wait for its work; raises what went wrong in it, in kernels and in callbacks."""
        self._device._driver.synchronize_stream(self.handle)
        self._raise_failures()

    def record(self, event: Event | None = None) -> Event:
        """Record an event, a new one if none is given: it happens when the work so far is done."""
        found = Event(self._device) if event is None else event
        if found.device != self._device:
            raise RangeError(f"an event of {found.device.id} is not for {self._device.id}")
        self._device._driver.record_event(found.handle, self.handle)
        return found

    def wait(self, what: Event | Stream | CudaStreamProtocol) -> None:
        """Later work waits for an event, or for the work so far of another stream."""
        if isinstance(what, Event):
            event = what
        else:
            other = what if isinstance(what, Stream) else self._device.stream(what)
            event = other.record(Event(other.device, timing=False))
        self._device._driver.wait_event(self.handle, event.handle)

    def call_host(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function, in some thread, once the work before it is done.

        Work after it waits for it. It must not use the GPU. What it raises is raised by the next
        `synchronize`.
        """

        def call() -> None:
            try:
                function(*arguments)
            except BaseException as error:  # also KeyboardInterrupt: nothing above could catch it
                self._failures.append(error)
                _failing.add(self)

        self._device._driver.call_host(self.handle, call)

    def _raise_failures(self) -> None:
        if self._failures:
            _failing.discard(self)
            failure = self._failures[0]
            self._failures.clear()
            raise failure

    def capture(self) -> Graph:
        """A graph of the work that is given to the stream within a `with` block.

        >>> from anyarch import gpu                             # doctest: +SKIP
        >>> with stream.capture() as graph:                     # doctest: +SKIP
        ...     kernel.launch(blocks, 256, x, y, stream=stream)
        >>> graph.launch(stream)                                # doctest: +SKIP
        """
        return Graph(self)

    def close(self) -> None:
        """Destroy it once its work is done; the default streams stay."""
        handle, self._handle = self._handle, None
        if handle is not None and self._owned:
            self._device._driver.destroy_stream(handle)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()


# Streams with callbacks that raised, for Device.synchronize.
_failing: set[Stream] = set()


def raise_failures(device: Device) -> None:
    """Raise what a callback of any stream of the device raised."""
    for stream in list(_failing):
        if stream._driver is device._driver:
            stream._raise_failures()


StreamLike: TypeAlias = Stream | CudaStreamProtocol | int


class Event:
    """A point in a stream's work; without `timing` it is cheaper, and has no time."""

    __slots__ = ("__weakref__", "_device", "_handle", "_timing")

    def __init__(self, device: Device, timing: bool = True) -> None:
        self._handle: Handle | None = None
        self._device = device
        self._timing = timing
        self._handle = device._driver.create_event(timing)

    @property
    def device(self) -> Device:
        """The device whose streams record it."""
        return self._device

    @property
    def handle(self) -> Handle:
        """The backend's handle: a CUevent as an int."""
        if self._handle is None:
            raise ClosedError("an event was used after it was closed")
        return self._handle

    @property
    def done(self) -> bool:
        """Whether it has happened; True before it is recorded."""
        return self._device._driver.event_done(self.handle)

    def synchronize(self) -> None:
        """Wait until it has happened."""
        self._device._driver.synchronize_event(self.handle)

    def elapsed_since(self, start: Event) -> float:
        """Milliseconds from `start` to this event; both must have happened."""
        if not (self._timing and start._timing):
            raise RangeError("events made without timing have no time")
        return self._device._driver.elapsed(start.handle, self.handle)

    def __sub__(self, start: object) -> float:
        if not isinstance(start, Event):
            return NotImplemented
        return self.elapsed_since(start)

    def close(self) -> None:
        """Destroy it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._device._driver.destroy_event(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()


class Graph:
    """Work that was captured from a stream, to be replayed with one call.

    What the work refers to (buffers, arrays, modules) must live as long as the graph.
    """

    __slots__ = ("__weakref__", "_device", "_handle", "_source")

    def __init__(self, stream: Stream) -> None:
        self._device = stream.device
        self._source: Stream | None = stream
        self._handle: Handle | None = None

    def __enter__(self) -> Graph:
        if self._source is None:
            raise Error("a graph captures once: call Stream.capture again")
        self._device._driver.begin_capture(self._source.handle)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        source, self._source = self._source, None
        if source is None:
            return
        try:
            self._handle = self._device._driver.end_capture(source.handle)
        except Error:
            if error is None:  # what ended the capture says more than that it is invalid now
                raise

    def launch(self, stream: StreamLike | None = None) -> None:
        """Do the work, on a stream of the same device; without one on the default stream."""
        if self._handle is None:
            raise ClosedError("the graph holds no captured work, or was closed")
        self._device._driver.launch_graph(self._handle, self._device.stream(stream).handle)

    def close(self) -> None:
        """Free it, once its launches are done."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._device._driver.destroy_graph(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()


def resolve_stream(device: Device, stream: Any) -> Stream:
    """A stream of this library for anything that stands for one."""
    if isinstance(stream, Stream):
        if stream._driver is not device._driver:
            raise ArgumentError(f"a stream of {stream.device.id} is not for {device.id}")
        return stream
    if isinstance(stream, int) and device.backend == "cuda":
        return Stream(device, stream)
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is None or device.backend != "cuda":
        raise ArgumentError(f"{type(stream).__name__} is no stream of {device.id}")
    version, handle = protocol() if callable(protocol) else protocol
    if version != 0:
        raise ArgumentError(f"__cuda_stream__ of version {version} is not known")
    return Stream(device, int(handle), owner=stream)
