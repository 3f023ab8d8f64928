"""OpenCL through its C interface: as much as running the kernels of kernels.cl on a CPU needs."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from typing import Any, Final

import numpy as np

__all__ = ["Platform", "platforms"]

_CPU: Final = 1 << 1
_PLATFORM_NAME, _PLATFORM_VERSION = 0x0902, 0x0901
_BUILD_LOG: Final = 0x1183
_READ_WRITE, _USE_HOST = 1 << 0, 1 << 3
# CUDA divides and takes roots with correct rounding unless told otherwise.
_OPTIONS: Final = b"-cl-std=CL1.2 -cl-fp32-correctly-rounded-divide-sqrt"
_P = ctypes.c_void_p


def _load() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("OpenCL")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    for function in ("CreateContext", "CreateCommandQueue", "CreateBuffer", "CreateKernel"):
        getattr(library, f"cl{function}").restype = _P
    library.clCreateProgramWithSource.restype = _P
    return library


def _check(code: int, what: str) -> None:
    if code:
        raise RuntimeError(f"{what} gave {code}")


class Platform:
    """An OpenCL implementation with a CPU."""

    def __init__(self, library: ctypes.CDLL, platform: int, device: int) -> None:
        self._cl, self._platform, self._device = library, platform, device
        self.name = f"{self._text(_PLATFORM_NAME)}, {self._text(_PLATFORM_VERSION)}"

    def _text(self, which: int) -> str:
        buffer = ctypes.create_string_buffer(1024)
        _check(
            self._cl.clGetPlatformInfo(_P(self._platform), which, 1024, buffer, None),
            "clGetPlatformInfo",
        )
        return buffer.value.decode().strip()

    def build(self, source: str) -> None:
        """Compile kernels; RuntimeError with the compiler's log."""
        cl, error = self._cl, ctypes.c_int()
        device = _P(self._device)
        self._context = _P(
            cl.clCreateContext(None, 1, ctypes.byref(device), None, None, ctypes.byref(error))
        )
        _check(error.value, "clCreateContext")
        self._queue = _P(
            cl.clCreateCommandQueue(self._context, device, ctypes.c_uint64(0), ctypes.byref(error))
        )
        _check(error.value, "clCreateCommandQueue")
        text = ctypes.c_char_p(source.encode())
        self._program = _P(
            cl.clCreateProgramWithSource(
                self._context, 1, ctypes.byref(text), None, ctypes.byref(error)
            )
        )
        _check(error.value, "clCreateProgramWithSource")
        if cl.clBuildProgram(self._program, 1, ctypes.byref(device), _OPTIONS, None, None):
            log = ctypes.create_string_buffer(1 << 16)
            cl.clGetProgramBuildInfo(
                self._program, device, _BUILD_LOG, ctypes.c_size_t(len(log)), log, None
            )
            raise RuntimeError(log.value.decode(errors="replace"))

    def kernel(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: list[Any],
    ) -> Callable[[], None]:
        """What runs a kernel to its end; arrays are used where they lie, and not kept."""
        cl, error = self._cl, ctypes.c_int()
        kernel = _P(cl.clCreateKernel(self._program, name.encode(), ctypes.byref(error)))
        _check(error.value, "clCreateKernel")
        for number, value in enumerate(arguments):
            passed: Any
            if isinstance(value, np.ndarray):
                passed = _P(
                    cl.clCreateBuffer(
                        self._context,
                        ctypes.c_uint64(_READ_WRITE | _USE_HOST),
                        ctypes.c_size_t(value.nbytes),
                        _P(value.ctypes.data),
                        ctypes.byref(error),
                    )
                )
                _check(error.value, "clCreateBuffer")
            else:
                passed = ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int(value)
            size = ctypes.c_size_t(ctypes.sizeof(passed))
            _check(cl.clSetKernelArg(kernel, number, size, ctypes.byref(passed)), "clSetKernelArg")
        each = (ctypes.c_size_t * len(block))(*block)
        whole = (ctypes.c_size_t * len(block))(*(g * b for g, b in zip(grid, block)))

        def run() -> None:
            code = cl.clEnqueueNDRangeKernel(
                self._queue, kernel, len(block), None, whole, each, 0, None, None
            )
            _check(code or cl.clFinish(self._queue), name)

        return run


def platforms() -> list[Platform]:
    """All implementations that have a CPU; none without an OpenCL loader."""
    library = _load()
    if library is None:
        return []
    count = ctypes.c_uint()
    if library.clGetPlatformIDs(0, None, ctypes.byref(count)) or not count.value:
        return []
    listed = (_P * count.value)()
    library.clGetPlatformIDs(count.value, listed, None)
    found = []
    for platform in listed:
        device = _P()
        code = library.clGetDeviceIDs(
            _P(platform), ctypes.c_uint64(_CPU), 1, ctypes.byref(device), None
        )
        if code == 0 and platform and device.value:
            found.append(Platform(library, platform, device.value))
    return found
