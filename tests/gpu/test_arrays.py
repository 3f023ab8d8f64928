"""Arrays on devices, and the protocols by which they are exchanged."""

from __future__ import annotations

import gc
import struct
import sys

import pytest

from anyarch import gpu
from anyarch.gpu import dlpack
from tests.gpu.python_backend import PythonDevice

np = pytest.importorskip("numpy")


def test_to_device_and_back(gpus: list[PythonDevice]) -> None:
    host = np.arange(12, dtype="f4").reshape(3, 4)
    for name in ("cuda:0", "cuda:1", "cpu"):
        array = gpu.to_device(host, name)
        assert (array.shape, array.dtype, array.strides) == ((3, 4), host.dtype, host.strides)
        assert (array.ndim, array.size, array.nbytes, len(array)) == (2, 12, 48, 3)
        np.testing.assert_array_equal(array.to_host(), host)
        np.testing.assert_array_equal(array[1:3].to_host(), host[1:3])
        np.testing.assert_array_equal(array.reshape(2, -1).to_host(), host.reshape(2, 6))
        out = np.empty((3, 4), "f4")
        assert array.to_host(out) is out
        np.testing.assert_array_equal(out, host)
    again = gpu.to_device(gpu.to_device(host, "cuda:1"), "cuda:0")
    np.testing.assert_array_equal(again.to_host(), host)


@pytest.mark.parametrize("typestr", ["|b1", "|i1", "<u2", "<i8", "<f2", "<f8", "<c8", "<c16"])
def test_types(cpu: PythonDevice, typestr: str) -> None:
    host = np.arange(6).astype(typestr)
    array = gpu.to_device(host)
    assert array.typestr == typestr
    np.testing.assert_array_equal(array.to_host(), host)


def test_types_that_no_device_has(cpu: PythonDevice) -> None:
    with pytest.raises(gpu.RangeError, match="big-endian"):
        gpu.to_device(np.arange(3, dtype=">i4"))
    with pytest.raises(gpu.RangeError, match="not for a device"):
        gpu.to_device(np.array(["a"]))
    with pytest.raises(gpu.RangeError, match="is no array"):
        gpu.to_device(3)


def test_strided_arrays(cpu: PythonDevice) -> None:
    host = np.arange(24, dtype="i4").reshape(4, 6)
    for strided in (host.T, host[:, ::2], host[::-1], np.asfortranarray(host)):
        np.testing.assert_array_equal(gpu.to_device(strided).to_host(), strided)
    wrapped = gpu.from_dlpack(host[:, ::2])
    assert wrapped.strides == (24, 8)
    with pytest.raises(gpu.RangeError, match="C order"):
        wrapped.to_host()
    with pytest.raises(gpu.RangeError, match="C order"):
        wrapped.reshape(-1)


def test_shapes(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    assert gpu.to_device(np.float32(3)).shape == ()
    assert float(gpu.to_device(np.array(3.5)).to_host()) == 3.5
    empty = gpu.to_device(np.empty((0, 4), "f4"))
    assert empty.to_host().shape == (0, 4)
    assert device.zeros((2, 2), np.int32).to_host().sum() == 0
    with pytest.raises(gpu.RangeError):
        device.empty(-1)
    with pytest.raises(gpu.RangeError, match="do not have the shape"):
        device.empty(6).reshape(4, 2)
    for dtype in ("f", "float32", "<f4", np.float32, np.dtype("f4")):
        assert device.empty(1, dtype).typestr == "<f4"
    assert device.empty(1, float).typestr == "<f8" and device.empty(1, "complex64").itemsize == 8


def test_the_host_protocols(cpu: PythonDevice) -> None:
    array = gpu.to_device(np.arange(6, dtype="i2").reshape(2, 3))
    assert not hasattr(array, "__cuda_array_interface__")
    shared = np.asarray(array)
    shared[1, 2] = 99
    assert array.to_host()[1, 2] == 99
    assert array.view.shape == (2, 3) and array.view[1, 2] == 99
    if sys.version_info >= (3, 12):  # before, classes written in Python cannot offer it
        assert memoryview(array).format == "h"
    del array
    gc.collect()
    shared[0, 0] = 5  # the memory lives as long as numpy's array
    assert shared[0, 0] == 5


def test_an_interface_whose_data_is_a_buffer(cpu: PythonDevice) -> None:
    class Foreign:
        __array_interface__ = {  # noqa: RUF012 - the protocol's
            "shape": (2,), "typestr": "<i2", "data": bytearray(b"\1\0\2\0"), "version": 3,
        }  # fmt: skip

    assert gpu.to_device(Foreign()).to_host().tolist() == [1, 2]
    array = gpu.Device("cpu").wrap(Foreign())
    assert array.to_bytes() == b"\1\0\2\0"


def test_the_cuda_protocol(gpus: list[PythonDevice]) -> None:
    device = gpu.Device("cuda:1")
    array = gpu.to_device(np.arange(6, dtype="f8").reshape(2, 3), device)
    interface = array.__cuda_array_interface__
    assert interface == {
        "shape": (2, 3),
        "typestr": "<f8",
        "data": (array.pointer, False),
        "version": 3,
        "strides": None,
        "stream": None,
    }
    assert not hasattr(array, "__array_interface__")
    stream = device.create_stream()
    assert gpu.to_device(b"abc", device, stream).__cuda_array_interface__["stream"] == stream.handle
    on_default = gpu.to_device(b"abc", device, device.default_stream)
    assert on_default.__cuda_array_interface__["stream"] == 1

    class Foreign:
        __cuda_array_interface__ = interface

    wrapped = device.wrap(Foreign())
    assert (wrapped.pointer, wrapped.shape) == (array.pointer, (2, 3))
    np.testing.assert_array_equal(wrapped.to_host(), array.to_host())
    np.testing.assert_array_equal(gpu.to_device(Foreign(), device).to_host(), array.to_host())


def test_cuda_arrays_that_break_the_protocol(gpus: list[PythonDevice]) -> None:
    device = gpu.Device("cuda:0")

    def foreign(**changes: object) -> object:
        interface = {"shape": (1,), "typestr": "<f4", "data": (4096, False), "version": 3}
        return type("Foreign", (), {"__cuda_array_interface__": interface | changes})()

    assert device.wrap(foreign(stream=1)).pointer == 4096
    with pytest.raises(gpu.RangeError, match="ambiguous"):
        device.wrap(foreign(stream=0))
    with pytest.raises(gpu.RangeError, match="masked"):
        device.wrap(foreign(mask=object()))
    with pytest.raises(gpu.RangeError, match="not as the protocol says"):
        device.wrap(type("F", (), {"__cuda_array_interface__": {"shape": (1,)}})())


def test_dlpack_to_numpy(cpu: PythonDevice) -> None:
    array = gpu.to_device(np.arange(6, dtype="f4").reshape(2, 3))
    assert array.__dlpack_device__() == (dlpack.CPU, 0)
    shared = np.from_dlpack(array)
    shared[0, 0] = 7
    assert array.to_host()[0, 0] == 7
    np.testing.assert_array_equal(shared, array.to_host())
    pointer = array.pointer
    del array
    gc.collect()
    assert cpu.live == 1 and shared.ctypes.data == pointer
    del shared
    gc.collect()
    assert cpu.live == 0


def test_dlpack_from_numpy(cpu: PythonDevice) -> None:
    host = np.arange(6, dtype="i8").reshape(2, 3)
    count = sys.getrefcount(host)
    array = gpu.from_dlpack(host)
    assert (array.pointer, array.typestr, array.shape) == (host.ctypes.data, "<i8", (2, 3))
    array.fill(0)
    assert not host.any()
    del array
    gc.collect()
    assert sys.getrefcount(host) == count


@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 5)])
def test_dlpack_capsules(cpu: PythonDevice, max_version: tuple[int, int] | None) -> None:
    array = gpu.to_device(struct.pack("<4i", 1, 2, 3, 4))
    capsule = array.__dlpack__(max_version=max_version)
    versioned = max_version is not None and max_version[0] >= 1
    assert ('"dltensor_versioned"' if versioned else '"dltensor"') in repr(capsule)
    tensor = dlpack.import_tensor(capsule)
    assert (tensor.pointer, tensor.shape, tensor.typestr) == (array.pointer, (16,), "|u1")
    assert "used_dltensor" in repr(capsule)
    with pytest.raises(gpu.RangeError, match="consumed already"):
        dlpack.import_tensor(capsule)
    array.__dlpack__(max_version=max_version)  # not consumed: its destructor frees
    del tensor, array, capsule
    gc.collect()
    assert cpu.live == 0 and not dlpack._exported


def test_dlpack_requests(gpus: list[PythonDevice]) -> None:
    host = np.arange(4, dtype="f4")
    array = gpu.to_device(host, "cuda:1")
    assert array.__dlpack_device__() == (dlpack.CUDA, 1)
    for stream in (None, -1, 1, 2):
        assert dlpack.import_tensor(array.__dlpack__(stream=stream)).pointer == array.pointer
    with pytest.raises(BufferError, match="stream 0"):
        array.__dlpack__(stream=0)
    copied = dlpack.import_tensor(array.__dlpack__(copy=True, max_version=(1, 0)))
    assert copied.pointer != array.pointer and copied.device == (dlpack.CUDA, 1)
    on_host = array.__dlpack__(dl_device=(dlpack.CPU, 0), max_version=(1, 0))
    assert dlpack.import_tensor(on_host).device == (dlpack.CPU, 0)
    with pytest.raises(BufferError, match="only as a copy"):
        array.__dlpack__(dl_device=(dlpack.CPU, 0), copy=False)
    with pytest.raises(BufferError, match="not exported"):
        array.__dlpack__(dl_device=(dlpack.CUDA, 0))


def test_read_only_arrays(cpu: PythonDevice) -> None:
    host = np.arange(4, dtype="f4")
    host.setflags(write=False)
    array = gpu.Device("cpu").wrap(host)
    with pytest.raises(gpu.RangeError, match="read-only"):
        array.fill(0)
    with pytest.raises(gpu.RangeError, match="read-only"):
        array.copy_from(bytes(16))
    with pytest.raises(BufferError, match="read-only"):
        array.__dlpack__()
    assert dlpack.import_tensor(array.__dlpack__(max_version=(1, 0))).read_only
    assert array.view.readonly


def test_without_numpy(cpu: PythonDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    array = gpu.to_device(memoryview(struct.pack("<4f", 1, 2, 3, 4)).cast("f", (2, 2)))
    assert array.shape == (2, 2) and array.typestr == "<f4"
    host = array.to_host()
    assert isinstance(host, memoryview) and host.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert gpu.Device("cpu").zeros(3, "float64").to_host().tolist() == [0.0] * 3
    with pytest.raises(gpu.RangeError, match="without NumPy"):
        gpu.Device("cpu").empty(1, object())
