"""The cpu's checked mode: which memory there is, what of it is initialised, and what was found."""

from __future__ import annotations

import ctypes
import mmap
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from anyarch.gpu.backend import (
    BackendDevice,
    BackendModule,
    Handle,
    Image,
    LaunchConfig,
    Way,
)
from anyarch.gpu.backends.cpu import CpuDevice, fault_at
from anyarch.gpu.cpu import checker
from anyarch.gpu.cpu.launcher import Outcome
from anyarch.gpu.cpu.program import CpuKernel
from anyarch.gpu.errors import CheckError, KernelError

__all__ = ["CheckedDevice"]

_RANGE: Final = struct.Struct("<3Q")
_NEAR: Final = 1 << 16  # bytes past its end at which memory is still worth naming
# What was found: its name, CUDA's number for it, what is said.
_KINDS: Final = {
    checker.OUTSIDE: ("out of bounds", 700, "accesses {nbytes} bytes at {address:#x}{where}"),
    checker.MISALIGNED: (
        "misaligned",
        716,
        "accesses {nbytes} bytes at {address:#x}, which is not aligned to the access",
    ),
    checker.UNINITIALISED: (
        "uninitialised",
        719,
        "reads {address:#x}{where}, where nothing has been written",
    ),
    checker.WRITES: ("race", 719, "writes {address:#x}{where}, which {other} has written"),
    checker.OVERWRITES: ("race", 719, "writes {address:#x}{where}, which {other} has read"),
    checker.READS: ("race", 719, "reads {address:#x}{where}, which {other} has written"),
    checker.ENDED: ("barrier", 719, "waits at a barrier to which {other} does not come: it ended"),
    checker.STUCK: ("barrier", 719, "waits at a barrier{both}: nobody can go on"),
}


@dataclass(slots=True)
class _Memory:
    """Memory that kernels may access; `known` says of each byte whether it is initialised."""

    start: int
    nbytes: int
    known: mmap.mmap | None = None

    @property
    def known_pointer(self) -> int:
        if self.known is None:
            return 0
        return ctypes.addressof(ctypes.c_char.from_buffer(self.known))


class CheckedDevice(CpuDevice):
    """The cpu with every access looked at: slow, and exact."""

    def __init__(self) -> None:
        super().__init__()
        self._ranges: dict[int, _Memory] = {}
        self._lent: dict[int, int] = {}

    # Memory.

    def allocate(self, nbytes: int, stream: Handle) -> int:
        """As usual; nothing in it counts as initialised."""
        pointer = super().allocate(nbytes, stream)
        known = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with self._lock:
            self._ranges[pointer] = _Memory(pointer, nbytes, known)
        return pointer

    def free(self, pointer: int, stream: Handle) -> None:
        """As usual; an access is out of bounds from here on."""
        with self._lock:
            self._ranges.pop(pointer, None)
        super().free(pointer, stream)

    def allocate_pinned(self, nbytes: int) -> int:
        """As usual; the host may write it at any time."""
        pointer = super().allocate_pinned(nbytes)
        self.lend(pointer, nbytes)
        return pointer

    def lend(self, pointer: int, nbytes: int) -> None:
        """What the host can write counts as initialised."""
        if not self._mark(pointer, nbytes):
            self._lent[pointer] = max(nbytes, self._lent.get(pointer, 0))

    def copy(self, target: int, source: int, way: Way, nbytes: int, stream: Handle) -> None:
        """A copy of what is not initialised is not either."""
        super().copy(target, source, way, nbytes, stream)
        self._copied(target, source, nbytes)

    def copy_peer(
        self, target: int, source: int, source_device: BackendDevice, nbytes: int, stream: Handle
    ) -> None:
        """As `copy`."""
        super().copy_peer(target, source, source_device, nbytes, stream)
        self._copied(target, source, nbytes)

    def fill(self, pointer: int, value: int, width: int, count: int, stream: Handle) -> None:
        """What is filled is initialised."""
        super().fill(pointer, value, width, count, stream)
        self._mark(pointer, width * count)

    def _find(self, pointer: int, nbytes: int) -> _Memory | None:
        with self._lock:
            starts = sorted(self._ranges)
            at = bisect_right(starts, pointer) - 1
            memory = self._ranges[starts[at]] if at >= 0 else None
        if memory is None or pointer + nbytes > memory.start + memory.nbytes:
            return None
        return memory

    def _mark(self, pointer: int, nbytes: int) -> bool:
        memory = self._find(pointer, nbytes)
        if memory is None:
            return False
        if memory.known is not None:
            ctypes.memset(memory.known_pointer + pointer - memory.start, 1, nbytes)
        return True

    def _copied(self, target: int, source: int, nbytes: int) -> None:
        into, out_of = self._find(target, nbytes), self._find(source, nbytes)
        if into is None or into.known is None:
            return
        if out_of is None or out_of.known is None:
            self._mark(target, nbytes)
            return
        ctypes.memmove(
            into.known_pointer + target - into.start,
            out_of.known_pointer + source - out_of.start,
            nbytes,
        )

    # Code.

    def load(self, images: Sequence[Image], options: Mapping[str, Any]) -> BackendModule:
        """As usual; kernels are compiled with checks."""
        return super().load(images, {**options, "check": True})

    def run(self, kernel: Handle, config: LaunchConfig, parameters: bytes) -> None:
        """Run all blocks of a launch, as far as the first mistake."""
        assert isinstance(kernel, CpuKernel)
        self._validate(kernel, config)
        ranges = self._all_ranges(kernel)
        packed = b"".join(_RANGE.pack(m.start, m.start + m.nbytes, m.known_pointer) for m in ranges)
        outcome = self.launcher.run(kernel, config, parameters, self.time_limit, packed)
        self._finish(kernel, outcome)

    def _all_ranges(self, kernel: CpuKernel) -> list[_Memory]:
        if kernel.program.allocates:
            kernel.program.heap_record()
        with self._lock:
            found = list(self._ranges.values())
        found += [_Memory(*one) for one in self._lent.items()]
        found += [_Memory(start, end - start) for start, end in kernel.program.ranges()]
        found += [_Memory(*self.launcher.record())]
        return sorted(found, key=lambda m: m.start)

    def _error(self, kernel: CpuKernel, outcome: Outcome) -> KernelError:
        found = outcome.found
        if found is None:
            return super()._error(kernel, outcome)
        kind, code, text = _KINDS[found.kind]
        fault = fault_at(kernel, outcome, outcome.instruction)
        other = None
        if found.other >= 0:
            instruction = kernel.instruction_of(*found.other_place)
            one = replace(outcome, threads=(found.other, found.other))
            other = fault_at(kernel, one, instruction)
        said = text.format(
            nbytes=found.nbytes,
            address=found.address,
            where=self._where(kernel, found.address, outcome.shared),
            other="another thread" if other is None else other.who,
            both="" if other is None else f", {other.who} at another",
        )
        if other is not None and other.line:
            said += f" ({other.where})"
        said = f"{fault}: it {said}"
        return CheckError(
            kind,
            code,
            said,
            kernels=(kernel.name,),
            fault=fault,
            other=other,
            address=found.address,
            nbytes=found.nbytes,
        )

    def _where(self, kernel: CpuKernel, address: int, shared: int) -> str:
        """An address as people know it."""
        if -(1 << 31) <= address - shared < 1 << 31:
            return f" (shared memory, byte {address - shared})"
        before = [m for m in self._all_ranges(kernel) if m.start <= address]
        if not before:
            return ""
        memory = before[-1]
        past = address - memory.start
        if past < memory.nbytes:
            return f" (byte {past} of {memory.nbytes:,} bytes)"
        if past - memory.nbytes > _NEAR:
            return ""
        return f", {past - memory.nbytes:,} bytes past the end of {memory.nbytes:,} bytes"
