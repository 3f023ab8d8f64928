"""A backend whose kernels are Python functions: the public API without a GPU or a PTX compiler."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyarch.gpu.backend import (
    BackendDevice,
    BackendModule,
    Handle,
    Image,
    KernelAttributes,
    LaunchConfig,
    Occupancy,
    Properties,
    Versions,
)
from anyarch.gpu.errors import KernelError
from anyarch.gpu.signature import Signature
from anyarch.gpu.software import SoftwareDevice

PROPERTIES = Properties(
    name="Python functions",
    compute_capability=(9, 0),
    memory_nbytes=1 << 30,
    multiprocessors=1,
    clock=0,
    memory_clock=0,
    warp_size=32,
    max_threads_per_block=1024,
    max_block=(1024, 1024, 64),
    max_grid=((1 << 31) - 1, 65535, 65535),
    max_threads_per_multiprocessor=2048,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10,
    constant_memory=64 << 10,
    registers_per_block=65536,
    l2_cache_nbytes=0,
    memory_bus_width=0,
    cooperative_launch=True,
    unified_addressing=True,
)


class PythonModule:
    """Kernels by name; what the PTX says beyond their parameters is not read."""

    log = ""

    def __init__(self, device: PythonDevice, images: Sequence[Image]) -> None:
        self._device = device
        self._signatures = {n: s for image in images for n, s in image.signatures.items()}
        self.loaded = True

    def kernels(self) -> tuple[str, ...]:
        return tuple(self._signatures)

    def kernel(self, name: str) -> tuple[Handle, Signature]:
        return (name, self._signatures[name]), self._signatures[name]

    def variable(self, name: str) -> tuple[int, int]:
        return self._device.variables[name]

    def attributes(self, kernel: Handle) -> KernelAttributes:
        return KernelAttributes(8, 0, 0, 0, 1024, 90, 90)

    def unload(self) -> None:
        self.loaded = False


class PythonDevice(SoftwareDevice):
    """Calls `functions[kernel](config, *parameter bytes)` for a launch, and counts memory."""

    properties = PROPERTIES

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[str, Callable[..., None]] = {}
        self.variables: dict[str, tuple[int, int]] = {}
        self.launches: list[tuple[str, LaunchConfig, bytes]] = []

    @property
    def live(self) -> int:
        """How many allocations have not been freed."""
        return len(self._memory)

    def load(self, images: Sequence[Image], options: Mapping[str, Any]) -> BackendModule:
        return PythonModule(self, images)

    def run(self, kernel: Handle, config: LaunchConfig, parameters: bytes) -> None:
        name, signature = kernel
        self.launches.append((name, config, parameters))
        pieces = [parameters[p.offset : p.offset + p.nbytes] for p in signature.parameters]
        if name in self.functions:
            self.functions[name](config, *pieces)

    def occupancy(self, kernel: Handle, block: int, shared_memory: int) -> Occupancy:
        return Occupancy(2048 // max(block, 1), 1024, 1)

    def cooperative_blocks(self, kernel: Handle, block: int, shared_memory: int) -> int:
        return 2048 // block


class PythonBackend:
    """Devices of that kind under the name of a real backend."""

    def __init__(self, name: str = "cpu", count: int = 1) -> None:
        self.name = name
        self.devices = [PythonDevice() for _ in range(count)]

    def count(self) -> int:
        return len(self.devices)

    def versions(self) -> Versions:
        return Versions(None, None)

    def device(self, ordinal: int, check: bool) -> BackendDevice:
        return self.devices[ordinal]


def integer(data: bytes) -> int:
    """A parameter as an unsigned integer."""
    return int.from_bytes(data, "little")


def real(data: bytes) -> float:
    """A .f32 parameter."""
    value: float = struct.unpack("<f", data)[0]
    return value


def illegal_address(*_: object) -> None:
    """A kernel that faults."""
    raise KernelError("run", 700, "ILLEGAL_ADDRESS", "an access to no memory", ("bad",), True)
