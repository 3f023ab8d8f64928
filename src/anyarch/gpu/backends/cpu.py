"""The CPU as a GPU: PTX compiled for the host, blocks on all its processors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from anyarch.gpu.backend import (
    BackendDevice,
    BackendModule,
    Handle,
    Image,
    LaunchConfig,
    Occupancy,
    Properties,
    Versions,
)
from anyarch.gpu.cpu.compiler import runtime
from anyarch.gpu.cpu.launcher import Launcher, Outcome
from anyarch.gpu.cpu.program import CpuKernel, CpuProgram, Text
from anyarch.gpu.cpu.workers import worker_count
from anyarch.gpu.errors import DriverError, Fault, ImageError, KernelError
from anyarch.gpu.ptx.tree import Instruction
from anyarch.gpu.software import SoftwareDevice

__all__ = ["CpuBackend", "CpuDevice", "fault_at"]

_SHARED: Final = 48 << 10
_SHARED_OPTIN: Final = 227 << 10
# CUDA's numbers and names, so that one program handles both.
_REASONS: Final = {
    "stop": (702, "LAUNCH_TIMEOUT"),
    "address": (700, "ILLEGAL_ADDRESS"),
    "instruction": (715, "ILLEGAL_INSTRUCTION"),
    "trap": (719, "LAUNCH_FAILED"),
    "assertion": (710, "ASSERT"),
    "stack": (718, "INVALID_PC"),
}


def _properties() -> Properties:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        lines = (line.partition(":") for line in file)
        fields = {name.strip(): value.strip() for name, _, value in lines}
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) << 10
    count = worker_count()
    return Properties(
        name=fields.get("model name", os.uname().machine),
        compute_capability=(9, 0),
        memory_nbytes=total,
        multiprocessors=count,
        clock=int(float(fields.get("cpu MHz", 0)) * 1000),
        memory_clock=0,
        warp_size=32,
        max_threads_per_block=1024,
        max_block=(1024, 1024, 64),
        max_grid=((1 << 31) - 1, 65535, 65535),
        max_threads_per_multiprocessor=1024,
        shared_memory_per_block=_SHARED,
        shared_memory_per_block_optin=_SHARED_OPTIN,
        shared_memory_per_multiprocessor=_SHARED_OPTIN,
        constant_memory=64 << 10,
        registers_per_block=65536,
        l2_cache_nbytes=int(fields.get("cache size", "0 KB").split()[0]) << 10,
        memory_bus_width=0,
        cooperative_launch=True,
        unified_addressing=True,
    )


class CpuDevice(SoftwareDevice):
    """The host's processors as one device."""

    def __init__(self) -> None:
        super().__init__()
        self.properties = _properties()
        self.time_limit: float | None = None  # seconds that a launch may take
        self.launcher = Launcher(runtime())

    def load(self, images: Sequence[Image], options: Mapping[str, Any]) -> BackendModule:
        """Parse PTX; kernels are compiled when they are asked for."""
        texts = []
        for image in images:
            if image.ptx is None:
                raise ImageError(
                    f"{image.origin} holds machine code for a GPU: the cpu needs PTX "
                    "(compile with nvcc -ptx, or keep PTX in the fatbin)"
                )
            texts.append(Text(image.ptx, image.origin))
        return CpuProgram(texts, options)

    def run(self, kernel: Handle, config: LaunchConfig, parameters: bytes) -> None:
        """Run all blocks of a launch."""
        assert isinstance(kernel, CpuKernel)
        self._validate(kernel, config)
        self._finish(kernel, self.launcher.run(kernel, config, parameters, self.time_limit))

    def _finish(self, kernel: CpuKernel, outcome: Outcome) -> None:
        if outcome.text:
            sys.stdout.write(outcome.text)
        if outcome.reason:
            raise self._error(kernel, outcome)

    def _error(self, kernel: CpuKernel, outcome: Outcome) -> KernelError:
        code, name = _REASONS[outcome.reason]
        fault = fault_at(kernel, outcome, outcome.instruction)
        return KernelError(
            "run",
            code,
            name,
            f"{outcome.detail}, {fault}",
            kernels=(kernel.name,),
            usable=True,
            fault=fault,
        )

    def _validate(self, kernel: CpuKernel, config: LaunchConfig) -> None:
        x, y, z = config.block
        limit = kernel.outline.max_threads
        required = kernel.outline.required_block
        problem = ""
        if x * y * z > limit:
            problem = f"a block of {x} × {y} × {z} threads; at most {limit}"
        elif required and required != config.block:
            problem = f"the kernel asks for blocks of {required}"
        elif config.shared_memory > _SHARED_OPTIN:
            problem = f"{config.shared_memory:,} bytes of shared memory; at most {_SHARED_OPTIN:,}"
        if problem:
            raise DriverError("launch", 1, "INVALID_VALUE", f"kernel {kernel.name!r}: {problem}")

    def occupancy(self, kernel: Handle, block: int, shared_memory: int) -> Occupancy:
        """One block at a time on each processor; large blocks cost least."""
        best = min(kernel.outline.max_threads, 256)
        return Occupancy(1, best, self.properties.multiprocessors)

    def cooperative_blocks(self, kernel: Handle, block: int, shared_memory: int) -> int:
        """The blocks of a cooperative launch run at once, as fibres of the processors."""
        return max(4096 // max(-(-block // 32), 1), 1)


def fault_at(kernel: CpuKernel, outcome: Outcome, instruction: Instruction | None) -> Fault:
    """Where something happened: a block, its threads, an instruction of the kernel."""
    if instruction is None:
        return Fault(outcome.block, outcome.shape, outcome.threads)
    file, line = instruction.source or (0, 0)
    name = kernel.program.module.files.get(file, "")
    origin, at = kernel.program.place_of(instruction.place.line)
    return Fault(
        outcome.block,
        outcome.shape,
        outcome.threads,
        at,
        instruction.text,
        name,
        line if name else 0,
        origin,
    )


def _checked() -> CpuDevice:
    from anyarch.gpu.backends.checked import CheckedDevice

    return CheckedDevice()


class CpuBackend:
    """The backend that is always there."""

    name = "cpu"

    def __init__(self) -> None:
        self._devices: dict[tuple[int, bool], CpuDevice] = {}
        self._lock = threading.Lock()

    def count(self) -> int:
        """One."""
        return 1

    def versions(self) -> Versions:
        """No driver; the PTX that is understood."""
        return Versions(None, (9, 0), "PTX compiled for the host")

    def device(self, ordinal: int, check: bool) -> BackendDevice:
        """The device, or the one that checks."""
        key = os.getpid(), check
        with self._lock:
            if key not in self._devices:
                self._devices[key] = _checked() if check else CpuDevice()
            return self._devices[key]
