"""What a backend offers to the classes of the public API, and the plain data that passes.

A backend does no argument checking: sizes, ranges, use after free and launch arguments are checked
above it. Its handles (streams, events, kernels, graphs) are opaque to everything else; pointers are
ints: of device memory for cuda, host pointers for cpu. Stream handles 0, 1 and 2 always exist: the
default stream, the same by its explicit name, and the per-thread default stream, as in CUDA.
Whatever can wait releases the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

from anyarch.gpu.errors import Error
from anyarch.gpu.signature import Signature

__all__ = [
    "Backend",
    "BackendDevice",
    "BackendModule",
    "Handle",
    "Image",
    "KernelAttributes",
    "LaunchConfig",
    "MemoryKind",
    "Needs",
    "Occupancy",
    "Properties",
    "Versions",
    "Way",
]

Handle: TypeAlias = Any
Dim3: TypeAlias = tuple[int, int, int]

DEFAULT_STREAM = 0
LEGACY_STREAM = 1
PER_THREAD_STREAM = 2


class MemoryKind(IntEnum):
    """Where a pointer points."""

    HOST = 0
    DEVICE = 1


class Way(IntEnum):
    """From where to where a copy goes."""

    WITHIN = 0  # the device
    TO_DEVICE = 1  # from the host
    TO_HOST = 2


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions as (major, minor); None where the thing is not there."""

    driver: tuple[int, int] | None
    toolkit: tuple[int, int] | None
    driver_text: str = ""


@dataclass(frozen=True, slots=True)
class Properties:
    """What a device is. Clocks are in kHz, sizes in bytes; 0 and "" where a thing has none."""

    name: str
    compute_capability: tuple[int, int]
    memory_nbytes: int
    multiprocessors: int
    clock: int
    memory_clock: int
    warp_size: int
    max_threads_per_block: int
    max_block: Dim3
    max_grid: Dim3
    max_threads_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    constant_memory: int
    registers_per_block: int
    l2_cache_nbytes: int
    memory_bus_width: int
    cooperative_launch: bool
    unified_addressing: bool
    pci_address: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class LaunchConfig:
    """Grid and block as three numbers each, bytes of dynamic shared memory, and the kind."""

    grid: Dim3
    block: Dim3
    shared_memory: int = 0
    cooperative: bool = False


@dataclass(frozen=True, slots=True)
class KernelAttributes:
    """What the compiler made of a kernel; sizes in bytes, `local` per thread."""

    registers: int
    shared: int
    local: int
    constant: int
    max_threads_per_block: int
    ptx_version: int
    binary_version: int


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Blocks that fit a multiprocessor at once, and threads of a block that fill it best."""

    blocks_per_multiprocessor: int
    best_block: int
    smallest_grid: int


@dataclass(frozen=True, slots=True)
class Image:
    """What is loaded: PTX text, or machine code for a GPU (`cubin`), from where (`origin`)."""

    ptx: str | None
    cubin: bytes | None
    origin: str
    signatures: Mapping[str, Signature] = field(default_factory=dict)


class Needs:
    """What a prepared launch needs: it keeps objects, and learns when one was freed all the same.

    `end` is called with the error that every start is to raise from then on; `on_end` is called
    by it once.
    """

    __slots__ = ("__weakref__", "_objects", "error", "on_end")

    def __init__(self, objects: object) -> None:
        self._objects = objects
        self.error: Error | None = None
        self.on_end: Callable[[], None] = _nothing

    def end(self, error: Error) -> None:
        """It cannot start any more."""
        if self.error is None:
            self.error = error
            self.on_end()

    def check(self) -> None:
        """Raise the error if there is one."""
        if self.error is not None:
            raise self.error.with_traceback(None)


def _nothing() -> None:
    pass


class BackendModule(Protocol):
    """Loaded code."""

    log: str

    def kernels(self) -> tuple[str, ...]:
        """Names of the kernels."""

    def kernel(self, name: str) -> tuple[Handle, Signature]:
        """A kernel, compiled; KeyError if there is none of that name, PtxError if it cannot be."""

    def variable(self, name: str) -> tuple[int, int]:
        """Pointer and size of a global or constant variable; KeyError if there is none."""

    def attributes(self, kernel: Handle) -> KernelAttributes:
        """What the compiler made of a kernel."""

    def unload(self) -> None:
        """Free it; called once, when no launch of it is outstanding."""


class BackendDevice(Protocol):
    """One device; the object is shared by all who open the device in this process."""

    properties: Properties

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes."""

    # Memory. Pointers of freed memory are never passed in again.
    def allocate(self, nbytes: int, stream: Handle) -> int:
        """At least 256-aligned device memory; `stream` None is not ordered by a stream."""

    def free(self, pointer: int, stream: Handle) -> None:
        """Free what `allocate` gave, after the work of `stream` (None: now)."""

    def allocate_pinned(self, nbytes: int) -> int:
        """Host memory that copies reach directly; for devices whose memory is the host's, any."""

    def free_pinned(self, pointer: int) -> None:
        """Free what `allocate_pinned` gave."""

    def copy(self, target: int, source: int, way: Way, nbytes: int, stream: Handle) -> None:
        """Copy on a stream; with `stream` None, return when it is done."""

    def copy_peer(
        self, target: int, source: int, source_device: BackendDevice, nbytes: int, stream: Handle
    ) -> None:
        """Copy from another device of the same backend to this one."""

    def can_access_peer(self, other: BackendDevice) -> bool:
        """Whether kernels of this device can use the memory of `other`."""

    def enable_peer_access(self, other: BackendDevice) -> None:
        """Let them; no error if it is so already."""

    def fill(self, pointer: int, value: int, width: int, count: int, stream: Handle) -> None:
        """Store `count` copies of a value of `width` 1, 2 or 4 bytes; waits if `stream` is None."""

    def lend(self, pointer: int, nbytes: int) -> None:
        """Other libraries access this memory of the device, or it is theirs and kernels may."""

    # Streams and events.
    def create_stream(self, priority: int, blocking: bool) -> Handle:
        """A stream; `blocking` ones wait for the default stream's work and it for theirs."""

    def destroy_stream(self, stream: Handle) -> None:
        """Destroy it once its work is done."""

    def stream_priorities(self) -> tuple[int, int]:
        """The lowest and the highest priority; smaller numbers are higher."""

    def stream_done(self, stream: Handle) -> bool:
        """Whether all work of the stream is done."""

    def synchronize_stream(self, stream: Handle) -> None:
        """Wait for the stream's work; raises what went wrong in it (KernelError)."""

    def synchronize(self) -> None:
        """Wait for all work of the device; raises what went wrong in it (KernelError)."""

    def wait_event(self, stream: Handle, event: Handle) -> None:
        """Later work of the stream waits for the event."""

    def call_host(self, stream: Handle, function: Callable[[], None]) -> None:
        """Call `function` on some thread when the work before it is done; it cannot raise."""

    def create_event(self, timing: bool) -> Handle:
        """An event; without `timing` it is cheaper."""

    def destroy_event(self, event: Handle) -> None:
        """Destroy it."""

    def record_event(self, event: Handle, stream: Handle) -> None:
        """The event happens when the stream's work so far is done."""

    def event_done(self, event: Handle) -> bool:
        """Whether it has happened; True if it was never recorded."""

    def synchronize_event(self, event: Handle) -> None:
        """Wait until it has happened."""

    def elapsed(self, start: Handle, end: Handle) -> float:
        """Milliseconds between two events that have happened."""

    # Code.
    def load(self, images: Sequence[Image], options: Mapping[str, Any]) -> BackendModule:
        """Load code, linked if it is several; PtxError or ImageError for what cannot be.

        Options: `max_registers`, `optimization_level` (0 to 4), `line_info`, `debug`, `verbose`,
        `fast_compile`; a backend ignores those that do not concern it.
        """

    def launch(
        self, kernel: Handle, config: LaunchConfig, parameters: bytes, stream: Handle
    ) -> None:
        """Start a kernel. `parameters` is laid out as its `Signature` says."""

    def prepare(
        self,
        kernel: Handle,
        config: LaunchConfig,
        parameters: bytes,
        stream: Handle,
        needs: Needs,
    ) -> Callable[[], None]:
        """As `launch`, but returns what starts it, often and from any thread.

        That keeps `needs`, and raises its error once there is one.
        """

    def bind(self, kernel: Handle, slow: Callable[..., None]) -> Callable[..., None]:
        """What `Kernel.launch` is: `slow`, or what does the same faster and calls `slow` for what
        it cannot do.
        """

    def occupancy(self, kernel: Handle, block: int, shared_memory: int) -> Occupancy:
        """How a block of that many threads fills the device; `block` 0 asks only for the best."""

    def cooperative_blocks(self, kernel: Handle, block: int, shared_memory: int) -> int:
        """The largest grid that a cooperative launch may have."""

    # Graphs.
    def begin_capture(self, stream: Handle) -> None:
        """Record the stream's work from here on instead of doing it."""

    def end_capture(self, stream: Handle) -> Handle:
        """The recorded work, ready to be replayed."""

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        """Do the recorded work."""

    def destroy_graph(self, graph: Handle) -> None:
        """Forget it."""


class Backend(Protocol):
    """A family of devices."""

    name: str

    def count(self) -> int:
        """How many devices; raises NoDriverError or BrokenDriverError, which say why none."""

    def versions(self) -> Versions:
        """Of the driver, and of the toolkit that compiles PTX."""

    def device(self, ordinal: int, check: bool) -> BackendDevice:
        """A device below `count`; `check` asks for the checked mode, an Error where there is none.

        Calls with the same arguments give the same object, in a forked child a new one.
        """
