"""PTX of Triton, Numba and NVRTC on the cpu; `producers` has the kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from anyarch import gpu  # noqa: E402

PTX: Final = Path(__file__).parent / "producers"
RNG: Final = np.random.default_rng(17)


@pytest.fixture(params=[False, True], ids=["", "checked"])
def device(request: pytest.FixtureRequest) -> gpu.Device:
    return gpu.Device("cpu", check=request.param)


def _kernel(device: gpu.Device, name: str) -> tuple[gpu.Kernel, int]:
    """The only kernel of a file, and the dynamic shared memory that it says it needs."""
    text = (PTX / f"{name}.ptx").read_text()
    module = device.load(text)
    (kernel,) = module._module().kernels()
    first = text.split("\n")[0]
    return module[kernel], int(first.split(":")[1]) if "dynamic" in first else 0


def _triton(device: gpu.Device, name: str, grid: Any, *arguments: Any) -> None:
    kernel, shared = _kernel(device, f"triton_{name}")
    scratch = [None] * (len(kernel.signature.parameters) - len(arguments))
    kernel.launch(grid, 128, *arguments, *scratch, shared_memory=shared)
    device.synchronize()


def test_triton_softmax(device: gpu.Device) -> None:
    x = RNG.standard_normal((7, 300)).astype("f4")
    out = gpu.to_device(np.zeros_like(x), device)
    _triton(device, "softmax", 7, out, gpu.to_device(x, device), 300, 300)
    power = np.exp(x - x.max(1, keepdims=True))
    assert np.allclose(out.to_host(), power / power.sum(1, keepdims=True), atol=1e-7)


@pytest.mark.parametrize("type_", ["f16", "bf16", "wgmma"])
def test_triton_matrix_product(device: gpu.Device, type_: str) -> None:
    a, b = (RNG.standard_normal(size).astype("f4") for size in ((64, 96), (96, 32)))
    if type_ != "bf16":
        given = [a.astype("f2"), b.astype("f2")]
        values = [one.astype("f8") for one in given]
    else:
        given = [(one.view("u4") >> 16).astype("u2") for one in (a, b)]
        values = [(one.astype("u4") << 16).view("f4").astype("f8") for one in given]
    out = gpu.to_device(np.zeros((64, 32), "f4"), device)
    arrays = [gpu.to_device(one, device) for one in given]
    grid = 1 if type_ == "wgmma" else 2
    _triton(device, f"product_{type_}", (grid, 1), *arrays, out, 64, 32, 96)
    assert np.allclose(out.to_host(), values[0] @ values[1], atol=1e-4)


def test_triton_sort(device: gpu.Device) -> None:
    x = RNG.integers(0, 1 << 30, 256).astype("i4")
    out = gpu.to_device(np.zeros_like(x), device)
    _triton(device, "ordered", 1, gpu.to_device(x, device), out)
    assert (out.to_host() == np.sort(x)).all()


def test_triton_atomic_operations(device: gpu.Device) -> None:
    x = RNG.integers(0, 50, 3000).astype("i4")
    out = gpu.to_device(np.zeros(50, "i4"), device)
    _triton(device, "counts", 6, gpu.to_device(x, device), out, 3000)
    assert (out.to_host() == np.bincount(x, minlength=50)).all()


def _numba(array: gpu.DeviceArray) -> list[Any]:
    """An array of one dimension as Numba passes it."""
    (count,), size = array.shape, array.nbytes // array.shape[0]
    return [0, 0, count, size, array, count, size]


def test_numba_shared_memory(device: gpu.Device) -> None:
    x = RNG.random(1000, "f4")
    out = gpu.to_device(np.zeros(1, "f4"), device)
    kernel, _ = _kernel(device, "numba_block_sum")
    kernel.launch(4, 256, *_numba(gpu.to_device(x, device)), *_numba(out))
    device.synchronize()
    assert np.isclose(out.to_host()[0], x.sum(), rtol=1e-5)


def test_numba_warps(device: gpu.Device) -> None:
    x = RNG.integers(-9, 9, 128).astype("i4")
    out = gpu.to_device(np.zeros(4, "i4"), device)
    kernel, _ = _kernel(device, "numba_shuffled")
    kernel.launch(1, 128, *_numba(gpu.to_device(x, device)), *_numba(out))
    device.synchronize()
    warps = x.reshape(4, 32)
    assert (out.to_host() == warps.sum(1) + (warps > 0).sum(1) * 1000).all()


def test_nvrtc(device: gpu.Device) -> None:
    x = RNG.integers(-1000, 1000, 900).astype("i4")
    out = gpu.to_device(np.array([1 << 30, -(1 << 30)], "i4"), device)
    kernel, _ = _kernel(device, "nvrtc_minmax")
    kernel.launch(4, 256, gpu.to_device(x, device), out, 900, shared_memory=2048)
    device.synchronize()
    assert out.to_host().tolist() == [x.min(), x.max()]
