"""Buffers and copies, on devices in software."""

from __future__ import annotations

import gc

import pytest

from anyarch import gpu
from tests.gpu.python_backend import PythonDevice


def test_a_buffer_is_freed_once(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    buffer = device.allocate(1000)
    assert cpu.live == 1
    buffer.close()
    buffer.close()
    assert cpu.live == 0
    with device.allocate(10):
        assert cpu.live == 1
    assert cpu.live == 0
    device.allocate(10)
    assert cpu.live == 0


def test_nothing_leaks(gpus: list[PythonDevice]) -> None:
    device = gpu.Device("cuda:0")
    for _ in range(20):
        buffer = device.allocate(4096)
        part = buffer[16:32]
        pinned = device.allocate_pinned(64)
        array = gpu.to_device(b"abcd", device).reshape(2, 2)
        stream = device.create_stream()
        array.copy_from(pinned[:4], stream=stream)
        ordered = device.allocate(64, stream)
        del buffer, part, pinned, array, stream, ordered
    gc.collect()
    assert gpus[0].live == 0


def test_memory_of_a_stream_that_is_closed(gpus: list[PythonDevice]) -> None:
    device = gpu.Device("cuda:0")
    stream = device.create_stream()
    buffer = device.allocate(64, stream)
    stream.close()
    buffer.close()
    assert gpus[0].live == 0


def test_use_after_free_says_so(cpu: PythonDevice) -> None:
    buffer = gpu.Device("cpu").allocate(64)
    part = buffer[8:16]
    array = gpu.to_device(b"12345678")
    row = array[2:4]
    buffer.close()
    array.close()
    for gone in (buffer, part, array, row):
        assert gone.closed
        with pytest.raises(gpu.ClosedError, match="used after it was freed"):
            gone.copy_from(b"x" * gone.nbytes)
        with pytest.raises(gpu.ClosedError, match="used after it was freed"):
            gone.to_bytes()
        with pytest.raises(gpu.ClosedError):
            _ = gone.pointer


def test_closing_a_slice_leaves_the_buffer(cpu: PythonDevice) -> None:
    buffer = gpu.Device("cpu").allocate(64)
    buffer[0:64].close()
    buffer.fill(7)
    assert buffer.to_bytes() == b"\7" * 64
    assert cpu.live == 1


def test_a_slice_keeps_the_memory(cpu: PythonDevice) -> None:
    part = gpu.Device("cpu").allocate(64)[8:16]
    gc.collect()
    part.fill(3)
    assert part.to_bytes() == b"\3" * 8


@pytest.mark.parametrize("name", ["cuda:0", "cpu"])
def test_copies(gpus: list[PythonDevice], name: str) -> None:
    device = gpu.Device(name)
    data = bytes(range(256))
    source, target, pinned = device.allocate(256), device.allocate(256), device.allocate_pinned(256)
    source.copy_from(data)
    target.copy_from(source)
    pinned.copy_from(target)
    assert bytes(pinned.view) == data
    out = bytearray(256)
    pinned.copy_to(out)
    assert out == data
    target[10:20].copy_from(source[100:110])
    assert target.to_bytes() == data[:10] + data[100:110] + data[20:]
    stream = device.create_stream()
    source.copy_from(b"\5" * 256, stream=stream)
    source.copy_to(pinned, stream=stream)
    stream.synchronize()
    assert bytes(pinned.view) == b"\5" * 256


def test_peer_copies(gpus: list[PythonDevice]) -> None:
    one, two = (gpu.Device(f"cuda:{n}").allocate(4) for n in range(2))
    one.copy_from(b"abcd")
    two.copy_from(one)
    assert two.to_bytes() == b"abcd"
    host = gpu.Device("cpu").allocate(4)
    host.copy_from(two)
    assert bytes(host.view) == b"abcd"
    host.view[0] = ord("x")
    one.copy_from(host)
    assert one.to_bytes() == b"xbcd"


def test_sizes_are_checked(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    buffer = device.allocate(16)
    with pytest.raises(gpu.RangeError, match="the target has 16 bytes, the source 15"):
        buffer.copy_from(bytes(15))
    with pytest.raises(gpu.RangeError, match="the target has 17 bytes, the source 16"):
        buffer.copy_to(bytearray(17))
    with pytest.raises(gpu.RangeError, match="read-only"):
        buffer.copy_to(bytes(16))
    for key in (slice(0, 17), slice(-1, 4), slice(8, 4), slice(0, 8, 2)):
        with pytest.raises(gpu.RangeError):
            buffer[key]
    with pytest.raises(gpu.RangeError):
        device.allocate(-1)
    with pytest.raises(gpu.RangeError, match="neither a buffer nor an array"):
        buffer.copy_from(object())


def test_memory_that_cannot_be_had(cpu: PythonDevice) -> None:
    with pytest.raises(gpu.OutOfMemoryError) as caught:
        gpu.Device("cpu").allocate(1 << 60)
    assert isinstance(caught.value, MemoryError)


def test_empty_buffers(cpu: PythonDevice) -> None:
    buffer = gpu.Device("cpu").allocate(0)
    buffer.copy_from(b"")
    buffer.fill(1)
    assert buffer.to_bytes() == b"" and len(buffer.view) == 0


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        (0x5A, 1, b"\x5a" * 4096),
        (-1, 2, b"\xff" * 4096),
        (0x1234, 2, b"\x34\x12" * 2048),
        (0xDEADBEEF, 4, b"\xef\xbe\xad\xde" * 1024),
    ],
)
def test_fills(cpu: PythonDevice, value: int, width: int, expected: bytes) -> None:
    buffer = gpu.Device("cpu").allocate(4096)
    buffer.fill(value, width)
    assert buffer.to_bytes() == expected
    odd = gpu.Device("cpu").allocate(4 * 1025 + 4)
    odd.fill(value, width)
    assert odd.to_bytes()[:4096] == expected and odd.to_bytes()[-4:] == expected[:4]


def test_fills_that_do_not_fit(cpu: PythonDevice) -> None:
    buffer = gpu.Device("cpu").allocate(6)
    with pytest.raises(gpu.RangeError, match="no whole number of aligned 4-byte"):
        buffer.fill(0, 4)
    with pytest.raises(gpu.RangeError, match="no whole number of aligned 2-byte"):
        buffer[1:3].fill(0, 2)
    with pytest.raises(gpu.RangeError, match="256 does not fit 1"):
        buffer.fill(256)
    with pytest.raises(gpu.RangeError, match="1, 2 or 4"):
        buffer.fill(0, 8)


def test_a_view_outlives_its_buffer(cpu: PythonDevice) -> None:
    buffer = gpu.Device("cpu").allocate(1 << 20)
    view = buffer.view
    view[5] = 9
    buffer.close()
    assert view[5] == 9  # the memory is still there
    assert cpu.live == 1
    view.release()
    del view
    assert cpu.live == 0


def test_a_gpu_has_no_view(gpus: list[PythonDevice]) -> None:
    with pytest.raises(gpu.RangeError, match="not the host's"):
        _ = gpu.Device("cuda:0").allocate(4).view
