"""NVIDIA's driver, through `cuda.bindings`: loading it, calling it, what its results mean."""

from __future__ import annotations

import ctypes
import os
from importlib import import_module
from typing import Any, Final

from anyarch.gpu.errors import (
    BrokenDriverError,
    DriverError,
    NoDeviceError,
    NoDriverError,
    OutOfMemoryError,
)

__all__ = ["NOT_READY", "STICKY", "SUCCESS", "Driver"]

SUCCESS: Final = 0
_OUT_OF_MEMORY: Final = 2
_NO_DEVICE: Final = 100
NOT_READY: Final = 600
# Results after which the context, and every call with it, is lost: illegal address, timeout,
# assert, stack, instruction, misaligned address, address space, program counter, launch failure.
STICKY: Final = frozenset({700, 702, 710, 714, 715, 716, 717, 718, 719})
_ADVICE: Final = {
    34: "; this libcuda is the toolkit's stub: the real one is missing from the library path",
    209: "; compile for this GPU's compute capability, or ship PTX",
    222: "; the PTX is newer than the driver: compile with an older toolkit, or update the driver",
    701: "; the block needs more registers or shared memory than a multiprocessor has",
    802: "; the fabric manager of this machine is not ready",
    803: "; the kernel module and libcuda have different versions: reboot or reinstall the driver",
    804: "; the forward-compatibility libcuda does not support this GPU",
}


class Driver:
    """The initialised driver; one per process.

    Raises NoDriverError, NoDeviceError or BrokenDriverError, each with what is missing.
    """

    def __init__(self) -> None:
        self.api = _import_bindings()
        # In a child of fork the driver does not work; destructors there must not call it.
        self.forked = False
        try:
            (code,) = self.api.cuInit(0)
        except RuntimeError as error:  # cuda.bindings found no libcuda
            raise NoDriverError(f"no NVIDIA driver: {error}") from None
        if code == _NO_DEVICE:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            reason = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
            raise NoDeviceError(f"the NVIDIA driver finds no GPU{reason}")
        if code != SUCCESS:
            raise BrokenDriverError(
                f"the NVIDIA driver cannot be used: {self.error('cuInit', code)}"
            )
        os.register_at_fork(after_in_child=self._fork)
        _, version = self.api.cuDriverGetVersion()
        self.version: int = version

    def _fork(self) -> None:
        self.forked = True

    def check_process(self) -> None:
        """BrokenDriverError in a process that was forked after the driver was used."""
        if self.forked:
            raise BrokenDriverError(
                "CUDA was used before this process was forked, and cannot be used in it: start "
                "processes with multiprocessing's 'spawn', or fork before the first use"
            )

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the driver: its result, a tuple if there are several."""
        code, *results = getattr(self.api, function)(*arguments)
        if code != SUCCESS:
            raise self.error(function, code)
        return results[0] if len(results) == 1 else tuple(results)

    def address(self, function: str) -> int:
        """The address of a function of the driver."""
        pointer, _ = self.call("cuGetProcAddress", function.encode(), self.version, 0)
        if not pointer:
            raise BrokenDriverError(f"the NVIDIA driver has no {function}: it is too old")
        return int(pointer)

    def error(self, call: str, code: Any) -> DriverError:
        """The error that stands for a result."""
        number = int(code)
        name, text = self.describe(number)
        if number == _OUT_OF_MEMORY:
            return OutOfMemoryError(call, number, name, text)
        return DriverError(call, number, name, text, _ADVICE.get(number, ""))

    def describe(self, code: int) -> tuple[str, str]:
        """The driver's name and text for a result."""
        try:
            result = self.api.CUresult(code)
        except ValueError:
            return f"CUDA_ERROR_{code}", "a result this version of cuda-bindings does not know"
        _, text = self.api.cuGetErrorString(result)
        return result.name, (text or b"").decode()


def _import_bindings() -> Any:
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as error:
        missing = error
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise NoDriverError("no NVIDIA driver: libcuda.so.1 is not found") from None
    if isinstance(missing, ModuleNotFoundError):
        raise BrokenDriverError(
            f"an NVIDIA driver is here, but {missing.name} is not: pip install 'anyarch[gpu]'"
        )
    raise BrokenDriverError(f"cuda.bindings cannot be imported: {missing}")
