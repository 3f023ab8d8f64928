"""Which devices there are, and what is said when there are none."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from anyarch import gpu
from anyarch.gpu import device as registry
from anyarch.gpu.backends import cuda_driver
from anyarch.gpu.backends.cuda import CudaBackend
from tests.gpu.python_backend import PythonBackend, PythonDevice


def test_devices(gpus: list[PythonDevice]) -> None:
    found = gpu.devices()
    assert [device.id for device in found] == ["cuda:0", "cuda:1", "cpu"]
    assert gpu.Device() == gpu.Device("cuda:0") == gpu.Device("cuda") != gpu.Device("cuda:1")
    assert len({gpu.Device("cpu"), gpu.Device("cpu")}) == 1
    assert gpu.Device("cuda:1").ordinal == 1
    assert "Python functions" in repr(gpu.Device("cpu"))


@pytest.mark.parametrize("name", ["cuda:2", "rocm", "cpu:1", "cuda:", ""])
def test_devices_that_are_not_there(gpus: list[PythonDevice], name: str) -> None:
    with pytest.raises(gpu.NoDeviceError, match="no device"):
        gpu.Device(name)


def test_without_a_gpu_it_is_the_cpu(cpu: PythonDevice) -> None:
    assert gpu.Device().id == "cpu"
    assert [device.id for device in gpu.devices()] == ["cpu"]


def test_importing_gpu_imports_nothing_of_a_gpu() -> None:
    code = (
        "import sys, anyarch.gpu\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('cuda', 'numpy', 'llvmlite')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class FakeBindings(ModuleType):
    """What `cuda.bindings.driver` offers, with chosen results."""

    def __init__(self, init: int | Exception) -> None:
        super().__init__("cuda.bindings.driver")
        self._init = init

    def cuInit(self, flags: int) -> tuple[int]:  # noqa: N802 - the driver's name
        if isinstance(self._init, Exception):
            raise self._init
        return (self._init,)

    @staticmethod
    def CUresult(code: int) -> FakeResult:  # noqa: N802
        return FakeResult(code)

    @staticmethod
    def cuGetErrorString(result: FakeResult) -> tuple[int, bytes]:  # noqa: N802
        return 0, b"a text"


class FakeResult(int):
    """A CUresult."""

    @property
    def name(self) -> str:
        return f"CUDA_ERROR_NUMBER_{int(self)}"


def fake_import(monkeypatch: pytest.MonkeyPatch, what: ModuleType | Exception) -> None:
    def import_module(name: str) -> ModuleType:
        if isinstance(what, Exception):
            raise what
        return what

    monkeypatch.setattr(cuda_driver, "import_module", import_module)


def fake_library(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    def load(name: str) -> object:
        if not there:
            raise OSError(f"{name}: cannot open shared object file")
        return object()

    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", load)


MISSING = ModuleNotFoundError("No module named 'cuda'", name="cuda")


@pytest.mark.parametrize(
    ("bindings", "library", "kind", "message"),
    [
        (MISSING, False, gpu.NoDriverError, "libcuda.so.1 is not found"),
        (MISSING, True, gpu.BrokenDriverError, "pip install 'anyarch\\[gpu\\]'"),
        (ImportError("bad ELF"), True, gpu.BrokenDriverError, "cannot be imported: bad ELF"),
        (FakeBindings(RuntimeError("Failed to dlopen")), True, gpu.NoDriverError, "Failed to"),
        (FakeBindings(100), True, gpu.NoDeviceError, "finds no GPU"),
        (FakeBindings(803), True, gpu.BrokenDriverError, "803.*a text.*different versions"),
        (
            FakeBindings(999),
            True,
            gpu.BrokenDriverError,
            "cuInit failed with CUDA_ERROR",
        ),
    ],
)
def test_each_way_to_have_no_gpu_has_its_answer(
    monkeypatch: pytest.MonkeyPatch,
    bindings: ModuleType | Exception,
    library: bool,
    kind: type[gpu.NoDeviceError],
    message: str,
) -> None:
    fake_import(monkeypatch, bindings)
    fake_library(monkeypatch, library)
    backend = CudaBackend()
    for _ in range(2):
        with pytest.raises(gpu.NoDeviceError, match=message) as caught:
            backend.count()
        assert type(caught.value) is kind


def test_hidden_devices_are_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_import(monkeypatch, FakeBindings(100))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(gpu.NoDeviceError, match="CUDA_VISIBLE_DEVICES is '7'"):
        CudaBackend().count()


def test_a_broken_driver_is_not_passed_over_in_silence(
    cpu: PythonDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_import(monkeypatch, FakeBindings(803))
    monkeypatch.setitem(registry._found, "cuda", CudaBackend())
    with pytest.warns(RuntimeWarning, match="using the cpu: the NVIDIA driver cannot be used"):
        assert gpu.Device().id == "cpu"
    assert [device.id for device in gpu.devices()] == ["cpu"]
    with pytest.raises(gpu.BrokenDriverError):
        gpu.Device("cuda:0")


def test_the_checked_mode_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(gpu.Error, match="checked mode is the cpu's"):
        CudaBackend().device(0, check=True)


def test_backends_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = PythonBackend("cuda", 1)
    monkeypatch.setattr(registry, "_found", {"cuda": backend})
    assert registry.find_backend("cuda") is backend


def test_public_names() -> None:
    assert sorted(gpu.__all__) == gpu.__all__
    assert all(getattr(gpu, name).__doc__ for name in gpu.__all__)
