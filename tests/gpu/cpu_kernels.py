"""Runs kernels on the cpu backend itself, below the public API, whose arrays are NumPy's."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np

from anyarch.gpu.backend import LaunchConfig
from anyarch.gpu.backends.cpu import CpuBackend, CpuDevice
from anyarch.gpu.cpu.program import CpuProgram, Text

Dim = int | tuple[int, ...]


@cache
def device() -> CpuDevice:
    """The device, one for all tests."""
    found = CpuBackend().device(0, False)
    assert isinstance(found, CpuDevice)
    found.time_limit = 20.0  # a kernel that hangs is an error of the test
    return found


def program(text: str, *, threads: bool = False) -> CpuProgram:
    """Loaded PTX; `threads` makes each thread a flow of control of its own."""
    return CpuProgram([Text(text, "PTX text")], {"threads": threads})


def launch(
    loaded: CpuProgram,
    name: str,
    grid: Dim,
    block: Dim,
    *arguments: Any,
    shared: int = 0,
    cooperative: bool = False,
) -> None:
    """Run a kernel; arrays are passed by address, numbers by the kernel's signature."""
    kernel, signature = loaded.kernel(name)
    block_ = bytearray(signature.nbytes)
    assert len(arguments) == len(signature.parameters)
    for value, parameter in zip(arguments, signature.parameters, strict=True):
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            data = struct.pack("<Q", value.ctypes.data)
        elif isinstance(value, bytes):
            data = value
        elif isinstance(value, float):
            data = struct.pack("<f" if parameter.nbytes == 4 else "<d", value)
        else:
            data = (value & (1 << 8 * parameter.nbytes) - 1).to_bytes(parameter.nbytes, "little")
        assert len(data) == parameter.nbytes
        block_[parameter.offset : parameter.offset + parameter.nbytes] = data
    config = LaunchConfig(_three(grid), _three(block), shared, cooperative)
    device().run(kernel, config, bytes(block_))


def _three(size: Dim) -> tuple[int, int, int]:
    x, y, z = (*((size,) if isinstance(size, int) else size), 1, 1)[:3]
    return x, y, z
