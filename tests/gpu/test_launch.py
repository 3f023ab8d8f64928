"""Modules, kernels and launch arguments, on a device whose kernels are Python functions."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from anyarch import gpu
from anyarch.gpu.arguments import Packer
from anyarch.gpu.entries import find_entries
from tests.gpu.python_backend import PythonDevice, illegal_address, integer, real

PTX = """
.version 8.0
.target sm_75
.address_size 64
// .entry not_this(.param .u32 x)
.visible .entry saxpy(
    .param .f32 a,          /* the factor, (with a comma) */
    .param .u64 .ptr .global .align 4 x,
    .param .u64 y,
    .param .u32 n
)
.maxntid 256, 1, 1
{ ret; }
.visible .entry takes(.param .align 8 .b8 point[24], .param .u8 c, .param .u16 s, .param .u64 l,
    .param .f64 d, .param .f16 h, .param .b32 raw, .param .b64 address) { ret; }
.entry nothing() { ret; }
.entry bare { ret; }
"""


def test_signatures() -> None:
    found = find_entries(PTX)
    assert list(found) == ["saxpy", "takes", "nothing", "bare"]
    places = [(p.name, str(p), p.offset, p.nbytes) for p in found["takes"].parameters]
    assert places == [
        ("point", ".b8[24]", 0, 24),
        ("c", ".u8", 24, 1),
        ("s", ".u16", 26, 2),
        ("l", ".u64", 32, 8),
        ("d", ".f64", 40, 8),
        ("h", ".f16", 48, 2),
        ("raw", ".b32", 52, 4),
        ("address", ".b64", 56, 8),
    ]
    assert [p.offset for p in found["saxpy"].parameters] == [0, 8, 16, 24]
    assert found["nothing"].parameters == () == found["bare"].parameters


def test_signature_errors_have_a_place() -> None:
    with pytest.raises(gpu.PtxError, match="no end") as caught:
        find_entries(".version 8.0\n  .entry k(.param .u32 x")
    assert (caught.value.line, caught.value.column) == (2, 3)
    with pytest.raises(gpu.PtxError, match=r"expected \.param") as caught:
        find_entries(".entry k(.param .u32 x,\n .reg .u32 y)")
    assert (caught.value.line, caught.value.column) == (2, 2)
    with pytest.raises(gpu.PtxError, match="needs a type"):
        find_entries(".entry k(.param .q32 x)")


def test_a_launch(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")

    def saxpy(config: object, a: bytes, x: bytes, y: bytes, n: bytes) -> None:
        for place in range(0, 4 * integer(n), 4):
            at = ctypes.c_float.from_address(integer(y) + place)
            at.value += real(a) * ctypes.c_float.from_address(integer(x) + place).value

    cpu.functions["saxpy"] = saxpy
    kernel = device.load(PTX)["saxpy"]
    x = gpu.to_device(struct.pack("<3f", 1, 2, 3))
    y = device.zeros(3, "float32")
    kernel.launch((1, 1), 32, 2.0, x, y, 3)
    kernel[1, 32](1, x, y, 2)
    kernel[1, 32, None](0.0, x, y, 3)
    kernel[1, 32, device.create_stream(), 100](0.5, x, y, 3)
    assert struct.unpack("<3f", y.to_bytes()) == (3.5, 7.0, 7.5)
    for wrong in ((1,), (1, 2, None, 0, 0)):
        with pytest.raises(gpu.ArgumentError, match=r"say kernel\[grid, block"):
            kernel[wrong]
    config = cpu.launches[-1][1]
    assert (config.grid, config.block, config.shared_memory) == ((1, 1, 1), (32, 1, 1), 100)


def test_prepared_launches(cpu: PythonDevice) -> None:
    kernel = gpu.Device("cpu").load(PTX)["nothing"]
    start = kernel.prepare(5, (4, 4, 4), shared_memory=64)
    start()
    start()
    (name, config, data), second = cpu.launches
    assert (name, config.grid, config.block, data) == ("nothing", (5, 1, 1), (4, 4, 4), b"")
    assert second[1] == config


def pack(name: str, *arguments: object) -> bytes:
    packer = Packer(name, find_entries(PTX)[name])
    return packer.pack(arguments, lambda value: 0x1234 if value == "buffer" else None)


GOOD = (bytes(24), 1, 2, 3, 4.0, 5.0, b"abcd", None)


def test_packing() -> None:
    data = pack("takes", bytes(range(24)), 0xFF, -2, -3, 4, 0.5, b"abcd", "buffer")
    assert data[:24] == bytes(range(24))
    assert data[24] == 0xFF and data[26:28] == b"\xfe\xff"
    assert struct.unpack_from("<qd", data, 32) == (-3, 4.0)
    assert struct.unpack_from("<e", data, 48) == (0.5,)
    assert data[52:56] == b"abcd" and struct.unpack_from("<Q", data, 56) == (0x1234,)
    assert len(data) == 64


@pytest.mark.parametrize(
    ("value", "ok"),
    [(-(1 << 31), True), ((1 << 32) - 1, True), (-(1 << 31) - 1, False), (1 << 32, False)],
)
def test_32_bits_take_both_signs(value: int, ok: bool) -> None:
    if ok:
        assert pack("saxpy", 0, 0, 0, value)[24:28] == (value % (1 << 32)).to_bytes(4, "little")
    else:
        with pytest.raises(gpu.ArgumentError, match=r"parameter 3 'n' \(\.u32\): .* is outside"):
            pack("saxpy", 0, 0, 0, value)


@pytest.mark.parametrize(
    ("number", "value", "message"),
    [
        (0, bytes(23), r"parameter 0 'point' \(\.b8\[24\]\): expected 24 bytes, got 23"),
        (0, 7, r"has no certain form"),
        (1, 256, r"256 is outside -128…255"),
        (2, 1.5, r"parameter 2 's' \(\.u16\): expected an integer, got float 1.5"),
        (3, "text", r"expected a buffer, an array or an integer, got str 'text'"),
        (3, 1 << 64, r"is outside"),
        (4, "1", r"expected a number, got str"),
        (5, 1e6, r"parameter 5 'h' \(\.f16\): 1000000.0 is too large"),
        (6, 5, r"give a NumPy scalar or 4 bytes"),
        (7, 5, r"give a NumPy scalar or 8 bytes"),
    ],
)
def test_arguments_that_do_not_fit(number: int, value: object, message: str) -> None:
    arguments = [*GOOD[:number], value, *GOOD[number + 1 :]]
    with pytest.raises(gpu.ArgumentError, match=message) as caught:
        pack("takes", *arguments)
    assert "kernel 'takes'" in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_a_wrong_count() -> None:
    with pytest.raises(gpu.ArgumentError, match=r"'saxpy' takes 4 arguments \(\.f32, .* 3 given"):
        pack("saxpy", 1, 2, 3)


def test_too_large_for_a_float() -> None:
    with pytest.raises(gpu.ArgumentError, match=r"'a' \(\.f32\): 1e\+39 is too large"):
        pack("saxpy", 1e39, 0, 0, 0)


def test_structures() -> None:
    class Point(ctypes.Structure):
        _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_double), ("n", ctypes.c_int64))

    assert pack("takes", Point(1, 2, 3), *GOOD[1:])[:24] == struct.pack("<ddq", 1, 2, 3)


def test_numpy_arguments() -> None:
    np = pytest.importorskip("numpy")
    point = np.array((1.0, 2.0, 3), dtype="f8,f8,i8")[()]
    data = pack("takes", point, np.uint8(3), np.int16(-1), np.int64(5), np.float32(0.5), 0.5,
                np.uint32(9), np.float64(1.5))  # fmt: skip
    assert data[:24] == struct.pack("<ddq", 1, 2, 3)
    assert data[52:56] == b"\x09\0\0\0" and data[56:] == struct.pack("<d", 1.5)
    for bad in (np.zeros(2, "f4"), np.ones(1)):
        with pytest.raises(gpu.ArgumentError, match="expected a number"):
            pack("saxpy", bad, 0, 0, 0)
    with pytest.raises(gpu.ArgumentError, match="expected an integer"):
        pack("saxpy", 0, 0, 0, np.float32(1))


def test_arrays_of_others(cpu: PythonDevice) -> None:
    np = pytest.importorskip("numpy")
    kernel = gpu.Device("cpu").load(PTX)["saxpy"]
    x = np.arange(4, dtype="f4")
    kernel.launch(1, 1, 1, x, bytearray(16), 4)
    assert integer(cpu.launches[-1][2][8:16]) == x.ctypes.data
    x.setflags(write=False)
    with pytest.raises(gpu.ArgumentError, match="read-only"):
        kernel.launch(1, 1, 1, x, x, 4)


def test_memory_of_elsewhere(gpus: list[PythonDevice]) -> None:
    one, two = gpu.Device("cuda:0"), gpu.Device("cuda:1")
    kernel = one.load(PTX)["saxpy"]
    here, there = one.allocate(4), two.allocate(4)
    with pytest.raises(gpu.ArgumentError, match=r"memory of cuda:1 cannot be used .* on cuda:0"):
        kernel.launch(1, 1, 1, here, there, 1)
    with pytest.raises(gpu.ArgumentError, match="on the host is not on cuda:0"):
        kernel.launch(1, 1, 1, here, bytearray(4), 1)
    one.enable_peer_access(two)
    kernel.launch(1, 1, 1, here, there, 1)
    kernel.launch(1, 1, 1, here, one.allocate_pinned(4), 1)
    there.close()
    with pytest.raises(gpu.ClosedError):
        kernel.launch(1, 1, 1, here, there, 1)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        (0, 1, "the grid is one to three numbers above 0, not 0"),
        ((1, 2, 3, 4), 1, "the grid is one to three"),
        ((1, 1 << 20), 1, "exceeds the device's"),
        (1, 1025, r"the block \(1025, 1, 1\) exceeds"),
        (1, (32, 33), "1056 threads a block"),
        (1, "32", "the block is one to three"),
    ],
)
def test_configurations(cpu: PythonDevice, grid: object, block: object, message: str) -> None:
    kernel = gpu.Device("cpu").load(PTX)["nothing"]
    with pytest.raises(gpu.RangeError, match=message):
        kernel.launch(grid, block)
    with pytest.raises(gpu.RangeError, match="dynamic shared memory"):
        kernel.launch(1, 1, shared_memory=1 << 20)


def test_modules(cpu: PythonDevice, tmp_path: Path) -> None:
    path = tmp_path / "k.ptx"
    path.write_text(PTX)
    device = gpu.Device("cpu")
    for source in (path, str(path), PTX.encode(), PTX.encode() + b"\0"):
        assert set(device.load(source)) == {"saxpy", "takes", "nothing", "bare"}
    module = device.load(path)
    assert "saxpy" in module and len(module) == 4
    with pytest.raises(KeyError, match=r"no kernel 'saxpi' in .*k\.ptx; its kernels: saxpy, takes"):
        module["saxpi"]
    with pytest.raises(KeyError, match="no variable 'v'"):
        module.variable("v")
    cpu.variables["v"] = (4096, 8)
    assert module.variable("v").nbytes == 8
    kernel = module["nothing"]
    with module:
        pass
    with pytest.raises(gpu.ClosedError, match="unloaded"):
        kernel.launch(1, 1)
    with pytest.raises(gpu.ClosedError):
        module["nothing"]
    assert "Kernel takes(.b8[24], .u8" in repr(device.load(PTX)["takes"])


def test_files_that_are_no_code(cpu: PythonDevice, tmp_path: Path) -> None:
    device = gpu.Device("cpu")
    with pytest.raises(gpu.ImageError, match="No such file"):
        device.load(tmp_path / "absent.ptx")
    for data, message in (
        (b"\x7fELF" + bytes(60), "another machine"),
        (b"hello", "not PTX"),
        (b"\xff\xfe\0", "not PTX"),
    ):
        with pytest.raises(gpu.ImageError, match=message):
            device.load(data)


def test_a_fault_surfaces_at_the_next_synchronisation(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    cpu.functions["nothing"] = illegal_address
    kernel = device.load(PTX)["nothing"]
    kernel.launch(1, 1)
    with pytest.raises(gpu.KernelError, match="kernel 'bad' failed; the device stays usable"):
        device.synchronize()
    device.synchronize()
    kernel.launch(1, 1)
    buffer = device.allocate(4)
    buffer.fill(1, stream=device.default_stream)  # what follows a failed kernel is not done
    with pytest.raises(gpu.KernelError):
        buffer.to_bytes()
    assert buffer.to_bytes() == bytes(4)
    stream = device.create_stream()
    kernel.launch(1, 1, stream=stream)
    device.default_stream.synchronize()
    with pytest.raises(gpu.KernelError):
        stream.synchronize()
    device.synchronize()


def test_split(gpus: list[PythonDevice]) -> None:
    shares = gpu.split(1000, multiple=256)
    assert [(s.device.id, s.start, s.stop) for s in shares] == [
        ("cuda:0", 0, 512),
        ("cuda:1", 512, 1000),
    ]
    assert [(s.start, s.stop) for s in gpu.split(100, multiple=256)] == [(0, 100)]
    assert gpu.split(0) == []
    data = bytes(range(10))
    parts = gpu.scatter(data, gpu.split(10))
    assert [part.device.id for part in parts] == ["cuda:0", "cuda:1"]
    assert gpu.gather(parts, memoryview(bytearray(10))) == data
