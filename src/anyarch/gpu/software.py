"""A device whose memory is the host's and whose streams are done in the calling thread.

What a backend without a GPU shares: memory, copies, streams, events, host callbacks, capture and
replay. A backend adds `properties`, `load`, `run` and what depends on them. Work is done when it is
given, so that all work of a stream is done when the call returns; an error of a kernel is kept and
raised by the next synchronisation, as on a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
import time
from collections.abc import Callable
from typing import Final

from anyarch.gpu.backend import (
    DEFAULT_STREAM,
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    BackendDevice,
    Handle,
    LaunchConfig,
    Needs,
    Way,
)
from anyarch.gpu.errors import DriverError, Error, KernelError, OutOfMemoryError

__all__ = ["SoftwareDevice", "SoftwareEvent", "SoftwareGraph", "SoftwareStream"]

_OUT_OF_MEMORY: Final = 2  # CUDA's number, so that one program handles both
_NOT_READY: Final = 600
_HUGE: Final = 2 << 20  # bytes of a huge page
_CAPTURE_INVALID: Final = 901


class SoftwareStream:
    """Work in order; while `recording` is a list, commands go there."""

    __slots__ = ("error", "priority", "recording")

    def __init__(self, priority: int = 0) -> None:
        self.priority = priority
        self.error: Error | None = None
        self.recording: list[Callable[[], None]] | None = None


class SoftwareEvent:
    """A point in time, in seconds; None before it was recorded."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time: float | None = None


class SoftwareGraph:
    """Commands that a capture recorded."""

    __slots__ = ("commands",)

    def __init__(self, commands: list[Callable[[], None]]) -> None:
        self.commands = commands


class SoftwareDevice:
    """All of `BackendDevice` but `properties`, `load`, `occupancy`, `cooperative_blocks`.

    A subclass implements `run`: it does one launch, returns when that is done, and raises what
    went wrong in it.
    """

    def __init__(self) -> None:
        self._memory: dict[int, mmap.mmap] = {}
        self._lock = threading.Lock()
        # The default stream and, which differ only where work is asynchronous, its other names.
        default = SoftwareStream()
        self._streams = dict.fromkeys((DEFAULT_STREAM, LEGACY_STREAM, PER_THREAD_STREAM), default)
        self._failed: list[SoftwareStream] = []

    def run(self, kernel: Handle, config: LaunchConfig, parameters: bytes) -> None:
        """Do one launch."""
        raise NotImplementedError

    # Memory.

    def memory_info(self) -> tuple[int, int]:
        """What the operating system says is available, and what there is."""
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file}
        return sizes["MemAvailable"], sizes["MemTotal"]

    def allocate(self, nbytes: int, stream: Handle) -> int:
        """Zeroed host memory, aligned to a page."""
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            memory = mmap.mmap(-1, max(nbytes, 1), flags)
            if nbytes >= _HUGE:
                # Kernels go over memory in steps of a grid: each would be another page.
                with contextlib.suppress(OSError):  # a kernel without huge pages
                    memory.madvise(mmap.MADV_HUGEPAGE)
        except (OSError, ValueError, OverflowError) as error:
            raise OutOfMemoryError(
                "mmap", _OUT_OF_MEMORY, "ENOMEM", f"{nbytes:,} bytes cannot be had: {error}"
            ) from None
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        with self._lock:
            self._memory[pointer] = memory
        return pointer

    def free(self, pointer: int, stream: Handle) -> None:
        """Give it back; views of it that others hold keep it alive."""
        with self._lock:
            del self._memory[pointer]

    def allocate_pinned(self, nbytes: int) -> int:
        """As `allocate`."""
        return self.allocate(nbytes, None)

    def free_pinned(self, pointer: int) -> None:
        """As `free`."""
        self.free(pointer, None)

    def copy(self, target: int, source: int, way: Way, nbytes: int, stream: Handle) -> None:
        """All memory is the host's; overlapping ranges are copied as if at once."""
        self._do(stream, lambda: _move(target, source, nbytes))

    def copy_peer(
        self, target: int, source: int, source_device: BackendDevice, nbytes: int, stream: Handle
    ) -> None:
        """As `copy`."""
        self._do(stream, lambda: _move(target, source, nbytes))

    def can_access_peer(self, other: BackendDevice) -> bool:
        """Always: all memory is the host's."""
        return True

    def enable_peer_access(self, other: BackendDevice) -> None:
        """Nothing to do."""

    def fill(self, pointer: int, value: int, width: int, count: int, stream: Handle) -> None:
        """Store copies of a value of `width` bytes."""
        self._do(stream, lambda: _fill(pointer, value, width, count))

    def lend(self, pointer: int, nbytes: int) -> None:
        """Nothing to do."""

    # Streams.

    def create_stream(self, priority: int, blocking: bool) -> Handle:
        """A stream; its priority changes nothing, since nothing waits."""
        return SoftwareStream(priority)

    def destroy_stream(self, stream: Handle) -> None:
        """Nothing to do."""

    def stream_priorities(self) -> tuple[int, int]:
        """There is one."""
        return 0, 0

    def stream_done(self, stream: Handle) -> bool:
        """Always; raises what went wrong before."""
        self._raise(self._stream(stream))
        return True

    def synchronize_stream(self, stream: Handle) -> None:
        """Raise what went wrong in the stream."""
        found = self._stream(stream)
        if found.recording is not None:
            raise DriverError(
                "synchronize", _CAPTURE_INVALID, "STREAM_CAPTURE_INVALIDATED", "in a capture"
            )
        self._raise(found)

    def synchronize(self) -> None:
        """Raise what went wrong in any stream."""
        while self._failed:
            self._raise(self._failed[0])

    def _stream(self, stream: Handle) -> SoftwareStream:
        if isinstance(stream, SoftwareStream):
            return stream
        return self._streams[stream or DEFAULT_STREAM]

    def _raise(self, stream: SoftwareStream) -> None:
        error, stream.error = stream.error, None
        if error is not None:
            self._failed = [failed for failed in self._failed if failed is not stream]
            raise error

    def _do(self, stream: Handle, command: Callable[[], None]) -> None:
        """Do a command now, or record it; without a stream it is a synchronisation too."""
        found = self._stream(stream)
        if stream is None:
            self._raise(found)
            command()
        elif found.recording is not None:
            found.recording.append(command)
        elif found.error is None:
            command()

    # Events.

    def wait_event(self, stream: Handle, event: Handle) -> None:
        """Nothing to wait for."""

    def call_host(self, stream: Handle, function: Callable[[], None]) -> None:
        """Call it, in this thread."""
        self._do(stream, function)

    def create_event(self, timing: bool) -> Handle:
        """An event."""
        return SoftwareEvent()

    def destroy_event(self, event: Handle) -> None:
        """Nothing to do."""

    def record_event(self, event: Handle, stream: Handle) -> None:
        """The event happens now, in a graph when it is replayed."""

        def happen() -> None:
            event.time = time.perf_counter()

        self._do(stream, happen)

    def event_done(self, event: Handle) -> bool:
        """Always."""
        return True

    def synchronize_event(self, event: Handle) -> None:
        """Nothing to wait for."""

    def elapsed(self, start: Handle, end: Handle) -> float:
        """Milliseconds between two recorded events."""
        if start.time is None or end.time is None:
            raise DriverError("elapsed", _NOT_READY, "NOT_READY", "an event was never recorded")
        milliseconds: float = (end.time - start.time) * 1e3
        return milliseconds

    # Launches and graphs.

    def launch(
        self, kernel: Handle, config: LaunchConfig, parameters: bytes, stream: Handle
    ) -> None:
        """Run the kernel, or record it."""
        found = self._stream(stream)
        if found.recording is None:
            self._run(found, kernel, config, parameters)
        else:
            found.recording.append(lambda: self._run(found, kernel, config, parameters))

    def prepare(
        self,
        kernel: Handle,
        config: LaunchConfig,
        parameters: bytes,
        stream: Handle,
        needs: Needs,
    ) -> Callable[[], None]:
        """What `launch` does, bound to its arguments."""
        found = self._stream(stream)

        def start() -> None:
            needs.check()
            if found.recording is None:
                self._run(found, kernel, config, parameters)
            else:
                found.recording.append(start)

        return start

    def bind(self, kernel: Handle, slow: Callable[..., None]) -> Callable[..., None]:
        """Nothing faster."""
        return slow

    def _run(
        self, stream: SoftwareStream, kernel: Handle, config: LaunchConfig, parameters: bytes
    ) -> None:
        if stream.error is not None:  # what follows a failed kernel does not start
            return
        try:
            self.run(kernel, config, parameters)
        except KernelError as error:
            stream.error = error
            self._failed.append(stream)

    def begin_capture(self, stream: Handle) -> None:
        """Record the stream's commands from here on."""
        found = self._stream(stream)
        if found.recording is not None:
            raise DriverError(
                "begin_capture", _CAPTURE_INVALID, "ILLEGAL_STATE", "the stream is being captured"
            )
        found.recording = []

    def end_capture(self, stream: Handle) -> Handle:
        """The recorded commands."""
        found = self._stream(stream)
        commands, found.recording = found.recording, None
        if commands is None:
            raise DriverError(
                "end_capture", _CAPTURE_INVALID, "ILLEGAL_STATE", "the stream is not being captured"
            )
        return SoftwareGraph(commands)

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        """Do the recorded commands, or record that they are to be done."""
        for command in graph.commands:
            self._do(stream, command)

    def destroy_graph(self, graph: Handle) -> None:
        """Forget the commands."""
        graph.commands = []


def _move(target: int, source: int, nbytes: int) -> None:
    # Through a function that releases the GIL, unlike ctypes.memmove.
    if nbytes:
        _memmove(target, source, nbytes)


def _fill(pointer: int, value: int, width: int, count: int) -> None:
    nbytes = width * count
    pattern = value.to_bytes(width, "little")
    if pattern == pattern[:1] * width:
        _memset(pointer, pattern[0], nbytes)
        return
    done = min(nbytes, width * 1024)
    _memmove(pointer, pattern * (done // width), done)
    while done < nbytes:  # doubling: each copy repeats what is there
        step = min(done, nbytes - done)
        _memmove(pointer + done, pointer, step)
        done += step


_libc = ctypes.CDLL(None)
_memmove = _libc.memmove
_memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memmove.restype = None
_memset = _libc.memset
_memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_memset.restype = None
