"""NVIDIA GPUs, through the driver API."""

from __future__ import annotations

import re
import threading
from importlib import import_module

from anyarch.gpu.backend import BackendDevice, Versions
from anyarch.gpu.backends.cuda_device import CudaDevice
from anyarch.gpu.backends.cuda_driver import Driver
from anyarch.gpu.errors import Error, NoDeviceError

__all__ = ["CudaBackend"]


class CudaBackend:
    """Every GPU that the driver shows to this process."""

    name = "cuda"

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._failure: NoDeviceError | None = None
        self._devices: dict[int, CudaDevice] = {}
        self._lock = threading.Lock()

    def _load(self) -> Driver:
        with self._lock:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._driver is None:
                try:
                    self._driver = Driver()
                except NoDeviceError as error:  # it would fail again, at the same cost
                    self._failure = error
                    raise
        self._driver.check_process()
        return self._driver

    def count(self) -> int:
        """How many GPUs the process sees."""
        count: int = self._load().call("cuDeviceGetCount")
        return count

    def versions(self) -> Versions:
        """The newest CUDA that the driver serves, and NVRTC's version where that is installed."""
        version = self._load().version
        return Versions((version // 1000, version % 1000 // 10), _nvrtc_version(), _driver_text())

    def device(self, ordinal: int, check: bool) -> BackendDevice:
        """A GPU."""
        if check:
            raise Error("the checked mode is the cpu's: Device('cpu', check=True)")
        driver = self._load()
        with self._lock:
            device = self._devices.get(ordinal)
            if device is None:
                device = self._devices[ordinal] = CudaDevice(driver, ordinal)
            return device


def _nvrtc_version() -> tuple[int, int] | None:
    try:
        code, major, minor = import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except (ImportError, RuntimeError):  # not installed, or its library is not
        return None
    return None if code else (major, minor)


def _driver_text() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="ascii") as file:
            found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", file.read())
    except OSError:
        return ""
    return found[0] if found else ""
