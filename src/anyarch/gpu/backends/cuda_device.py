"""One NVIDIA GPU: its primary context, memory, streams, events and graphs."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, Final

from anyarch.gpu.backend import (
    BackendDevice,
    BackendModule,
    Handle,
    Image,
    LaunchConfig,
    Needs,
    Occupancy,
    Properties,
    Way,
)
from anyarch.gpu.backends.cuda_driver import NOT_READY, STICKY, SUCCESS, Driver
from anyarch.gpu.backends.cuda_module import CudaKernel, CudaModule
from anyarch.gpu.backends.launcher import DriverTable, find_launcher
from anyarch.gpu.backends.launches import RecentLaunches
from anyarch.gpu.errors import DriverError, KernelError, OutOfMemoryError

__all__ = ["CudaDevice"]

_PORTABLE_AND_MAPPED: Final = 1 | 2  # CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP
_NON_BLOCKING: Final = 1
_DISABLE_TIMING: Final = 2
_PEER_ACCESS_ALREADY_ENABLED: Final = 704
_COPIES: Final = {
    Way.WITHIN: "cuMemcpyDtoD",
    Way.TO_DEVICE: "cuMemcpyHtoD",
    Way.TO_HOST: "cuMemcpyDtoH",
}
_FILLS: Final = {1: "cuMemsetD8", 2: "cuMemsetD16", 4: "cuMemsetD32"}
# A wait asks again and again. For so many seconds without a pause, then with pauses that add a
# small share to it.
_EAGER_SECONDS: Final = 0.02
_PAUSE_SHARE: Final = 1 / 64
_LONGEST_PAUSE: Final = 0.002
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Graph:
    """An executable graph, and the keys of the host callbacks in it."""

    __slots__ = ("callbacks", "executable")

    def __init__(self, executable: int, callbacks: list[int]) -> None:
        self.executable = executable
        self.callbacks = callbacks


class CudaDevice:
    """A GPU. Its context is made current for each call and the caller's restored after it."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver = driver
        self.ordinal = ordinal
        self.device = driver.call("cuDeviceGet", ordinal)
        self.context = driver.call("cuDevicePrimaryCtxRetain", self.device)
        self.recent = RecentLaunches()
        self.properties = self._read_properties()
        self._lost: tuple[str, ...] | None = None  # the kernels that can have lost the context
        # Calls that free what is used no more but wait for the device: made when it is idle.
        self._retired: list[tuple[str, Any]] = []
        self._interrupted = False  # Ctrl-C ended a wait: freeing memory would wait as long
        self._marker: int | None = None  # an event
        self._callers: dict[str, Callable[..., int]] = {}
        self._table: DriverTable | None = None
        self._ordered: set[int] = set()  # pointers that a stream's pool gave
        self._peers: set[int] = set()
        self._host_function = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, _HOST_FUNCTION, ctypes.c_void_p
        )(driver.address("cuLaunchHostFunc"))

    # Calls.

    def call(self, function: str, *arguments: Any) -> Any:
        """Call the driver with this device's context current."""
        code, *results = self._raw(getattr(self.driver.api, function), *arguments)
        if code != SUCCESS:
            raise self._error(function, int(code))
        return results[0] if len(results) == 1 else tuple(results)

    def _quick(self, function: str, *arguments: int) -> None:
        """As `call`, for a function that takes ints and gives nothing: a copy of a hundred
        microseconds should not take three more to ask for.
        """
        code = self._quick_caller(function, len(arguments))(*arguments)
        if code != SUCCESS:
            raise self._error(function, int(code))

    def _quick_caller(self, function: str, count: int) -> Callable[..., int]:
        if self.driver.forked:
            self.driver.check_process()
        caller = self._callers.get(function)
        if caller is None:
            caller = self._callers[function] = self._make_caller(function, count)
        return caller

    def _make_caller(self, function: str, count: int) -> Callable[..., int]:
        def slow(*arguments: int) -> int:
            (code,) = self._raw(getattr(self.driver.api, function), *arguments)
            return int(code)

        launcher = find_launcher()
        if launcher is None:
            return slow
        return launcher.caller(self.table, self.driver.address(function), count, slow)

    def _raw(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.driver.check_process()
        api = self.driver.api
        (code,) = api.cuCtxPushCurrent(self.context)
        if code != SUCCESS:
            raise self._error("cuCtxPushCurrent", int(code))
        try:
            return function(*arguments)
        finally:
            api.cuCtxPopCurrent()

    def _error(self, call: str, code: int) -> DriverError:
        """The error for a result; a fault of a kernel, which loses the context, names kernels."""
        if code not in STICKY:
            return self.driver.error(call, code)
        if self._lost is None:
            self._lost = self.recent.suspects()
        name, text = self.driver.describe(code)
        return KernelError(call, code, name, text, self._lost)

    def _release(self, function: str, *arguments: Any) -> None:
        """Destroy something; in a forked child, or with the context lost, it is gone already."""
        if self.driver.forked or self._lost is not None:
            return
        # A fault that is met here, perhaps in a destructor, is raised by the next synchronisation.
        with contextlib.suppress(KernelError):
            self.call(function, *arguments)

    def _release_idle(self, function: str, what: Any) -> None:
        """As `_release`, for what the driver frees only when the device is idle."""
        if self._interrupted:
            self._retired.append((function, what))
        else:
            self._release(function, what)

    # Waits.

    def _wait(self, query: str, handle: int) -> None:
        """Until the driver says that something is done. Its own waits cannot be interrupted."""
        ask = self._quick_caller(query, 1)
        start = monotonic()
        try:
            while (code := ask(handle)) == NOT_READY:
                waited = monotonic() - start
                if waited > _EAGER_SECONDS:
                    sleep(min(waited * _PAUSE_SHARE, _LONGEST_PAUSE))
        except KeyboardInterrupt:
            self._interrupted = True
            raise
        if code != SUCCESS:
            raise self._error(query, code)

    def _settle(self, everything: bool = False) -> None:
        """Wait for the work before which a call would wait where Ctrl-C does not reach: of the
        default stream and those that it waits for, or of all streams."""
        self.driver.check_process()
        if self._marker is None:
            self._marker = self.create_event(False)
        api = self.driver.api
        if not everything:
            function, arguments = api.cuEventRecord, (self._marker, 0)
        elif hasattr(api, "cuCtxRecordEvent"):
            function, arguments = api.cuCtxRecordEvent, (self.context, self._marker)
        else:  # an older cuda-bindings
            return
        # Where nothing can be recorded, in a capture, the call itself says why.
        if self._raw(function, *arguments)[0] == SUCCESS:
            self._wait("cuEventQuery", self._marker)

    # Properties.

    def _attribute(self, name: str) -> int:
        attribute = getattr(self.driver.api.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        value: int = self.driver.call("cuDeviceGetAttribute", attribute, self.device)
        return value

    def _read_properties(self) -> Properties:
        driver, get = self.driver, self._attribute
        uuid = driver.call("cuDeviceGetUuid", self.device).bytes.hex()
        pci = driver.call("cuDeviceGetPCIBusId", 16, self.device)
        return Properties(
            name=_text(driver.call("cuDeviceGetName", 256, self.device)),
            compute_capability=(
                get("COMPUTE_CAPABILITY_MAJOR"),
                get("COMPUTE_CAPABILITY_MINOR"),
            ),
            memory_nbytes=driver.call("cuDeviceTotalMem", self.device),
            multiprocessors=get("MULTIPROCESSOR_COUNT"),
            clock=get("CLOCK_RATE"),
            memory_clock=get("MEMORY_CLOCK_RATE"),
            warp_size=get("WARP_SIZE"),
            max_threads_per_block=get("MAX_THREADS_PER_BLOCK"),
            max_block=(get("MAX_BLOCK_DIM_X"), get("MAX_BLOCK_DIM_Y"), get("MAX_BLOCK_DIM_Z")),
            max_grid=(get("MAX_GRID_DIM_X"), get("MAX_GRID_DIM_Y"), get("MAX_GRID_DIM_Z")),
            max_threads_per_multiprocessor=get("MAX_THREADS_PER_MULTIPROCESSOR"),
            shared_memory_per_block=get("MAX_SHARED_MEMORY_PER_BLOCK"),
            shared_memory_per_block_optin=get("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            shared_memory_per_multiprocessor=get("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
            constant_memory=get("TOTAL_CONSTANT_MEMORY"),
            registers_per_block=get("MAX_REGISTERS_PER_BLOCK"),
            l2_cache_nbytes=get("L2_CACHE_SIZE"),
            memory_bus_width=get("GLOBAL_MEMORY_BUS_WIDTH"),
            cooperative_launch=bool(get("COOPERATIVE_LAUNCH")),
            unified_addressing=bool(get("UNIFIED_ADDRESSING")),
            pci_address=_text(pci),
            uuid="-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:])),
        )

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = self.call("cuMemGetInfo")
        return free, total

    # Memory.

    def allocate(self, nbytes: int, stream: Handle) -> int:
        """From the driver, or in the order of a stream from the device's pool."""
        try:
            if stream is None:
                return int(self.call("cuMemAlloc", nbytes))
            pointer = int(self.call("cuMemAllocAsync", nbytes, stream))
        except OutOfMemoryError as error:
            free, total = self.memory_info()
            raise OutOfMemoryError(
                error.call,
                error.code,
                error.name,
                f"{nbytes:,} bytes asked for, {free:,} of {total:,} are free",
            ) from None
        self._ordered.add(pointer)
        return pointer

    def free(self, pointer: int, stream: Handle) -> None:
        """In the order of a stream where the memory came from one."""
        if pointer in self._ordered:
            self._ordered.discard(pointer)
            self._release("cuMemFreeAsync", pointer, 0 if stream is None else stream)
            return
        if stream is not None and not self.driver.forked and self._lost is None:
            with contextlib.suppress(KernelError):
                self._wait("cuStreamQuery", stream)
        self._release_idle("cuMemFree", pointer)

    def allocate_pinned(self, nbytes: int) -> int:
        """Pinned for every GPU, and in their address space."""
        return int(self.call("cuMemHostAlloc", nbytes, _PORTABLE_AND_MAPPED))

    def free_pinned(self, pointer: int) -> None:
        """The driver waits for copies in flight."""
        self._release_idle("cuMemFreeHost", pointer)

    def copy(self, target: int, source: int, way: Way, nbytes: int, stream: Handle) -> None:
        """Copy within the device, or from or to the host."""
        function = _COPIES[way]
        if stream is not None:
            self._quick(f"{function}Async", target, source, nbytes, stream)
            return
        self._settle()
        self._quick(function, target, source, nbytes)
        if way is not Way.TO_HOST:  # the others may return before the last byte is there
            self._wait("cuStreamQuery", 0)

    def copy_peer(
        self, target: int, source: int, source_device: BackendDevice, nbytes: int, stream: Handle
    ) -> None:
        """Directly where the GPUs can reach each other, else the driver goes through the host."""
        assert isinstance(source_device, CudaDevice)
        if source_device.ordinal not in self._peers and self.can_access_peer(source_device):
            self.enable_peer_access(source_device)
        here, there = int(self.context), int(source_device.context)
        if stream is not None:
            self._quick("cuMemcpyPeerAsync", target, here, source, there, nbytes, stream)
            return
        self._quick("cuMemcpyPeer", target, here, source, there, nbytes)
        self._wait("cuStreamQuery", 0)

    def can_access_peer(self, other: BackendDevice) -> bool:
        """Whether the GPUs are linked."""
        assert isinstance(other, CudaDevice)
        return bool(self.driver.call("cuDeviceCanAccessPeer", self.device, other.device))

    def enable_peer_access(self, other: BackendDevice) -> None:
        """Map the other's memory here."""
        assert isinstance(other, CudaDevice)
        if other.ordinal in self._peers:
            return
        try:
            self.call("cuCtxEnablePeerAccess", other.context, 0)
        except DriverError as error:
            if error.code != _PEER_ACCESS_ALREADY_ENABLED:  # by another library
                raise
        self._peers.add(other.ordinal)

    def lend(self, pointer: int, nbytes: int) -> None:
        """Nothing to do."""

    def fill(self, pointer: int, value: int, width: int, count: int, stream: Handle) -> None:
        """Set memory."""
        if stream is not None:
            self._quick(f"{_FILLS[width]}Async", pointer, value, count, stream)
            return
        self._settle()
        self._quick(_FILLS[width], pointer, value, count)
        self._wait("cuStreamQuery", 0)

    # Streams and events.

    def create_stream(self, priority: int, blocking: bool) -> Handle:
        """A stream."""
        flags = 0 if blocking else _NON_BLOCKING
        return int(self.call("cuStreamCreateWithPriority", flags, priority))

    def destroy_stream(self, stream: Handle) -> None:
        """The driver lets its work finish."""
        self._release("cuStreamDestroy", stream)

    def stream_priorities(self) -> tuple[int, int]:
        """The least and the greatest."""
        lowest, highest = self.call("cuCtxGetStreamPriorityRange")
        return lowest, highest

    def stream_done(self, stream: Handle) -> bool:
        """Ask the driver."""
        return self._done("cuStreamQuery", stream)

    def _done(self, function: str, handle: Handle) -> bool:
        (code,) = self._raw(getattr(self.driver.api, function), handle)
        if code not in (SUCCESS, NOT_READY):
            raise self._error(function, int(code))
        return bool(code == SUCCESS)

    def synchronize_stream(self, stream: Handle) -> None:
        """Wait for the stream."""
        until = self.recent.now()
        self._wait("cuStreamQuery", stream)
        self.recent.finish_stream(stream, until)

    def synchronize(self) -> None:
        """Wait for the context."""
        until = self.recent.now()
        self._settle(everything=True)
        retired, self._retired = self._retired, []
        self.call("cuCtxSynchronize")
        self._interrupted = False
        self.recent.finish_all(until)
        for function, what in retired:
            self._release(function, what)

    def wait_event(self, stream: Handle, event: Handle) -> None:
        """Make the stream wait."""
        self._quick("cuStreamWaitEvent", stream, event, 0)

    def create_event(self, timing: bool) -> Handle:
        """An event."""
        return int(self.call("cuEventCreate", 0 if timing else _DISABLE_TIMING))

    def destroy_event(self, event: Handle) -> None:
        """The driver keeps it until it has happened."""
        self._release("cuEventDestroy", event)

    def record_event(self, event: Handle, stream: Handle) -> None:
        """Record it."""
        self._quick("cuEventRecord", event, stream)

    def event_done(self, event: Handle) -> bool:
        """Ask the driver."""
        return self._done("cuEventQuery", event)

    def synchronize_event(self, event: Handle) -> None:
        """Wait for it."""
        self._wait("cuEventQuery", event)

    def elapsed(self, start: Handle, end: Handle) -> float:
        """Milliseconds, to half a microsecond."""
        return float(self.call("cuEventElapsedTime", start, end))

    def call_host(self, stream: Handle, function: Callable[[], None]) -> None:
        """Through our own trampoline: that of cuda.bindings frees itself at the first call, and a
        graph calls it again.
        """
        capture = self._capture_id(stream)
        key = _callbacks.add(function, capture)
        code = self._raw(self._host_function, stream, _callbacks.trampoline, key)
        if code != SUCCESS:
            _callbacks.forget([key])
            raise self._error("cuLaunchHostFunc", code)

    def _capture_id(self, stream: Handle) -> int | None:
        """What capture the stream is part of."""
        status, capture = self.call("cuStreamGetCaptureInfo", stream)[:2]
        return int(capture) if int(status) else None

    # Code.

    def load(self, images: Sequence[Image], options: Mapping[str, Any]) -> BackendModule:
        """Compile or link it for this GPU."""
        return CudaModule(self, images, options)

    def launch(
        self, kernel: Handle, config: LaunchConfig, parameters: bytes, stream: Handle
    ) -> None:
        """Start a kernel."""
        assert isinstance(kernel, CudaKernel)
        kernel.launch(config, parameters, stream)

    def prepare(
        self,
        kernel: Handle,
        config: LaunchConfig,
        parameters: bytes,
        stream: Handle,
        needs: Needs,
    ) -> Callable[[], None]:
        """What starts a kernel."""
        assert isinstance(kernel, CudaKernel)
        return kernel.prepare(config, parameters, stream, needs)

    def bind(self, kernel: Handle, slow: Callable[..., None]) -> Callable[..., None]:
        """Native code where there is some for the kernel's parameters."""
        assert isinstance(kernel, CudaKernel)
        return kernel.bind(slow)

    @property
    def table(self) -> DriverTable:
        """What native code needs of this device."""
        if self._table is None:
            self._table = DriverTable(
                self.driver.address, int(self.context), self.recent.pointer, self
            )
        return self._table

    def occupancy(self, kernel: Handle, block: int, shared_memory: int) -> Occupancy:
        """Ask the driver."""
        assert isinstance(kernel, CudaKernel)
        kernel.allow_shared_memory(shared_memory)
        grid, best = self.call(
            "cuOccupancyMaxPotentialBlockSize", kernel.function, None, shared_memory, 0
        )
        blocks = 0
        if block:
            blocks = self.call(
                "cuOccupancyMaxActiveBlocksPerMultiprocessor", kernel.function, block, shared_memory
            )
        return Occupancy(blocks, best, grid)

    def cooperative_blocks(self, kernel: Handle, block: int, shared_memory: int) -> int:
        """As many as all multiprocessors hold at once."""
        found = self.occupancy(kernel, block, shared_memory)
        return found.blocks_per_multiprocessor * self.properties.multiprocessors

    def retire(self, module: Any) -> None:
        """Unload a module at the next `synchronize`: launches of it may be outstanding now."""
        self._retired.append(("cuModuleUnload", module))

    # Graphs.

    def begin_capture(self, stream: Handle) -> None:
        """Whatever else goes on meanwhile, such as a buffer that is garbage, does no harm."""
        mode = self.driver.api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self.call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Handle) -> Handle:
        """Make the captured graph executable."""
        capture = self._capture_id(stream)
        callbacks = _callbacks.take_captured(capture)
        try:
            graph = self.call("cuStreamEndCapture", stream)
            try:
                return _Graph(int(self.call("cuGraphInstantiate", graph, 0)), callbacks)
            finally:
                self.call("cuGraphDestroy", graph)
        except DriverError:
            _callbacks.forget(callbacks)
            raise

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        """Replay it."""
        self.recent.note(0, stream)
        self._quick("cuGraphLaunch", graph.executable, stream)

    def destroy_graph(self, graph: Handle) -> None:
        """The driver lets its launches finish."""
        self._release("cuGraphExecDestroy", graph.executable)
        _callbacks.forget(graph.callbacks)


class _Callbacks:
    """Host callbacks by key, from when they are given to the driver until it needs them no more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self._waiting: dict[int, Callable[[], None]] = {}
        self._captured: dict[int, list[int]] = {}
        self._repeated: set[int] = set()
        self.trampoline = _HOST_FUNCTION(self._run)

    def add(self, function: Callable[[], None], capture: int | None) -> int:
        """A key; one that is captured is kept until it is forgotten, others are called once."""
        with self._lock:
            key = self._next
            self._next += 1
            self._waiting[key] = function
            if capture is not None:
                self._captured.setdefault(capture, []).append(key)
                self._repeated.add(key)
        return key

    def take_captured(self, capture: int | None) -> list[int]:
        """The keys that a capture holds, for its graph to keep."""
        with self._lock:
            return [] if capture is None else self._captured.pop(capture, [])

    def forget(self, keys: list[int]) -> None:
        """Drop callbacks."""
        with self._lock:
            for key in keys:
                self._waiting.pop(key, None)
                self._repeated.discard(key)

    def _run(self, key: int) -> None:
        with self._lock:
            function = self._waiting.get(key)
            if key not in self._repeated:
                self._waiting.pop(key, None)
        if function is not None:
            function()


_callbacks: Final = _Callbacks()


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode(errors="replace").strip()
