"""Devices: which there are, what they are, and what is made on them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from anyarch.gpu import dlpack
from anyarch.gpu.arrays import DeviceArray, type_text, wrap_tensor
from anyarch.gpu.backend import (
    DEFAULT_STREAM,
    PER_THREAD_STREAM,
    Backend,
    BackendDevice,
    Handle,
    MemoryKind,
    Properties,
    Versions,
)
from anyarch.gpu.errors import BrokenDriverError, NoDeviceError, RangeError
from anyarch.gpu.image import Source, open_images
from anyarch.gpu.interchange import describe, product, stream_of
from anyarch.gpu.memory import Allocation, Buffer
from anyarch.gpu.streams import Event, Stream, StreamLike, raise_failures, resolve_stream

if TYPE_CHECKING:
    from anyarch.gpu.kernels import Module

__all__ = ["Device", "devices", "find_backend"]

_BACKENDS: Final[Mapping[str, tuple[str, str]]] = {
    "cuda": ("anyarch.gpu.backends.cuda", "CudaBackend"),
    "cpu": ("anyarch.gpu.backends.cpu", "CpuBackend"),
}
_found: dict[str, Backend] = {}
_ID: Final = re.compile(r"(cuda|cpu)(?::(\d+))?")


def find_backend(name: str) -> Backend:
    """The family of devices of that name, imported when it is first asked for."""
    backend = _found.get(name)
    if backend is None:
        module, constructor = _BACKENDS[name]
        make: Callable[[], Backend] = getattr(import_module(module), constructor)
        backend = _found.setdefault(name, make())  # of two threads one wins
    return backend


def devices() -> list[Device]:
    """Every device that can be used, GPUs first; the cpu is always there."""
    try:
        count = find_backend("cuda").count()
    except NoDeviceError:
        count = 0
    return [*(Device(f"cuda:{ordinal}") for ordinal in range(count)), Device("cpu")]


class Device:
    """A device: "cuda:N", "cpu", or with None the first GPU, the cpu where there is none.

    Devices with the same name are equal and share everything. `check` asks for the cpu's checked
    mode, which finds invalid accesses and races. A GPU that is there but cannot be used gives
    BrokenDriverError; with None it gives a warning and the cpu.
    """

    __slots__ = ("_backend", "_default_stream", "_driver", "_ordinal", "check")

    def __init__(self, name: str | None = None, *, check: bool = False) -> None:
        if name is None:
            name = "cpu" if check else _best()
        match = _ID.fullmatch(name)
        if match is None:
            raise NoDeviceError(f"no device {name!r}: say 'cuda:0', 'cuda:1'…, or 'cpu'")
        self._backend = find_backend(match[1])
        self._ordinal = int(match[2] or 0)
        count = self._backend.count()
        if self._ordinal >= count:
            raise NoDeviceError(
                f"no device {name!r}: there {'is' if count == 1 else 'are'} {count} of {match[1]}"
            )
        self._driver: BackendDevice = self._backend.device(self._ordinal, check)
        self.check = check
        self._default_stream = Stream(self, DEFAULT_STREAM)

    @property
    def id(self) -> str:
        """ "cuda:0", "cpu"."""
        return "cpu" if self._backend.name == "cpu" else f"{self._backend.name}:{self._ordinal}"

    @property
    def backend(self) -> str:
        """ "cuda" or "cpu"."""
        return self._backend.name

    @property
    def ordinal(self) -> int:
        """Its number among the devices of its backend."""
        return self._ordinal

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self.properties.name

    @property
    def properties(self) -> Properties:
        """What it is: sizes, limits, clocks, where it is."""
        return self._driver.properties

    @property
    def versions(self) -> Versions:
        """Of its driver and toolkit."""
        return self._backend.versions()

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of its memory."""
        return self._driver.memory_info()

    def __repr__(self) -> str:
        return f"<Device {self.id}: {self.name}{', checked' if self.check else ''}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self._driver is other._driver

    def __hash__(self) -> int:
        return hash((self.id, self.check))

    # Memory.

    def allocate(self, nbytes: int, stream: StreamLike | None = None) -> Buffer:
        """Uninitialised memory, aligned to 256 bytes at least.

        With a stream it may be used in that stream's order from here on, and is freed in it.
        """
        allocation = self._allocate(nbytes, stream)
        return Buffer(self, allocation.pointer, nbytes, allocation=allocation)

    def _allocate(self, nbytes: int, stream: StreamLike | None) -> Allocation:
        if nbytes < 0:
            raise RangeError(f"{nbytes} bytes cannot be allocated")
        on = None if stream is None else self.stream(stream)
        # Memory of no bytes has an address of its own too.
        pointer = self._driver.allocate(max(nbytes, 1), None if on is None else on.handle)
        return Allocation(self._driver, pointer, MemoryKind.DEVICE, on)

    def allocate_pinned(self, nbytes: int) -> Buffer:
        """Host memory that copies to and from the device reach directly; `view` shows it."""
        if nbytes < 0:
            raise RangeError(f"{nbytes} bytes cannot be allocated")
        pointer = self._driver.allocate_pinned(max(nbytes, 1))
        allocation = Allocation(self._driver, pointer, MemoryKind.HOST, None)
        return Buffer(self, pointer, nbytes, kind=MemoryKind.HOST, allocation=allocation)

    def empty(
        self, shape: int | tuple[int, ...], dtype: Any = "<f4", stream: StreamLike | None = None
    ) -> DeviceArray:
        """An uninitialised array; `dtype` is NumPy's, its name, or its type text."""
        extents = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(extent < 0 for extent in extents):
            raise RangeError(f"an array cannot have the shape {extents}")
        typestr = type_text(dtype)
        allocation = self._allocate(product(extents) * int(typestr[2:]), stream)
        return DeviceArray(self, allocation.pointer, extents, typestr, allocation=allocation)

    def zeros(
        self, shape: int | tuple[int, ...], dtype: Any = "<f4", stream: StreamLike | None = None
    ) -> DeviceArray:
        """An array of zeros."""
        array = self.empty(shape, dtype, stream)
        array.fill(0, stream=stream)
        return array

    def wrap(self, array: Any, *, stream: StreamLike | None = None) -> DeviceArray:
        """An array of another library that lies on this device, as one of ours; nothing is copied.

        Work of `stream` (else of the default stream) from here on comes after the producer's.
        """
        if isinstance(array, DeviceArray):
            return array
        tensor = describe(array)
        if tensor is None:
            raise RangeError(f"{type(array).__name__} is no array")
        on_gpu = tensor.device[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED)
        if on_gpu != (self.backend == "cuda") or (
            on_gpu and tensor.device[1] not in (-1, self.ordinal)
        ):
            where = f"GPU {tensor.device[1]}" if on_gpu else "the host"
            raise RangeError(f"an array on {where} is not on {self.id}: copy it with to_device")
        producer = stream_of(array)
        if producer is not None:
            self.stream(stream).wait(Stream(self, producer))
        return wrap_tensor(self, tensor)

    def _pointer_for_launch(self, value: Any, stream: Stream) -> int | None:
        """The pointer that a kernel gets for an argument; None if the argument is no array."""
        if isinstance(value, Buffer):
            if value._driver is not self._driver and not self._reaches(value):
                raise RangeError(
                    f"memory of {value.device.id} cannot be used by a kernel on {self.id}: "
                    "copy it, or call Device.enable_peer_access"
                )
            return value.pointer
        if isinstance(value, (bytes, str)):
            return None
        tensor = describe(value)
        if tensor is None:
            return None
        if tensor.read_only and tensor.device[0] == dlpack.CPU and self.backend == "cpu":
            raise RangeError("a read-only array of the host cannot be written by a kernel: copy it")
        array = self.wrap(value, stream=stream)
        return array.pointer

    def _reaches(self, buffer: Buffer) -> bool:
        if buffer.is_pinned:
            return buffer.device.backend == self.backend and self.properties.unified_addressing
        return self.backend == "cpu" == buffer.device.backend or buffer.device in _peers.get(
            self, ()
        )

    def can_access_peer(self, other: Device) -> bool:
        """Whether kernels here can be allowed to use the memory of another device."""
        return other.backend == self.backend and self._driver.can_access_peer(other._driver)

    def enable_peer_access(self, other: Device) -> None:
        """Allow kernels here to use the memory of another device."""
        if other == self:
            return
        if not self.can_access_peer(other):
            raise RangeError(f"{self.id} cannot reach the memory of {other.id}")
        self._driver.enable_peer_access(other._driver)
        _peers.setdefault(self, set()).add(other)

    def _sibling(self, backend: str, ordinal: int) -> Device:
        return Device(f"{backend}:{max(ordinal, 0)}")

    # Streams and events.

    @property
    def default_stream(self) -> Stream:
        """The stream of everything that is given none."""
        return self._default_stream

    @property
    def per_thread_stream(self) -> Stream:
        """A default stream of the calling thread's own."""
        return Stream(self, PER_THREAD_STREAM)

    @property
    def stream_priorities(self) -> range:
        """The priorities that streams can have, the highest (smallest) first."""
        lowest, highest = self._driver.stream_priorities()
        return range(highest, lowest + 1)

    def create_stream(self, *, priority: int = 0, blocking: bool = False) -> Stream:
        """A stream. A `blocking` one and the default stream wait for each other's work."""
        known = self.stream_priorities
        if priority not in known:
            raise RangeError(f"priority {priority} is not within {known[0]}…{known[-1]}")
        handle = self._driver.create_stream(priority, blocking)
        return Stream(self, handle, owned=True, priority=priority)

    def create_event(self, *, timing: bool = True) -> Event:
        """An event that streams of this device record."""
        return Event(self, timing)

    def stream(self, stream: StreamLike | None) -> Stream:
        """A stream for anything that stands for one: ours, `__cuda_stream__`, a CUstream as an int;
        None is the default stream.
        """
        return self._default_stream if stream is None else resolve_stream(self, stream)

    def _stream_handle(self, stream: StreamLike | None) -> Handle:
        """The handle for an operation that waits for itself without a stream."""
        return None if stream is None else resolve_stream(self, stream).handle

    def synchronize(self) -> None:
        """Wait for all work of the device; raises what went wrong in it."""
        self._driver.synchronize()
        raise_failures(self)

    # Code.

    def load(
        self,
        source: Source | list[Source] | tuple[Source, ...],
        *,
        max_registers: int | None = None,
        optimization_level: int | None = None,
        line_info: bool = False,
        debug: bool = False,
        verbose: bool = False,
    ) -> Module:
        """Load PTX text, or the path or bytes of PTX, a cubin or a fatbin. Several are linked: what
        one declares as `.extern` another defines.

        Options are of the compiler of PTX: the most registers a thread may use, 0 to 4, line
        numbers for profilers, code for a debugger, and a `Module.log` that tells more.
        """
        from anyarch.gpu.kernels import Module

        capability = self.properties.compute_capability if self.backend == "cuda" else None
        options = {
            "max_registers": max_registers,
            "optimization_level": optimization_level,
            "line_info": line_info,
            "debug": debug,
            "verbose": verbose,
        }
        sources = source if isinstance(source, (list, tuple)) else [source]
        return Module(self, open_images(sources, capability), options)


_peers: dict[Device, set[Device]] = {}


def _best() -> str:
    try:
        if find_backend("cuda").count():
            return "cuda:0"
    except BrokenDriverError as error:
        warnings.warn(f"using the cpu: {error}", RuntimeWarning, stacklevel=3)
    except NoDeviceError:
        pass
    return "cpu"
