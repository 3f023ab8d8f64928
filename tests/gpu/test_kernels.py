"""Kernels by way of the public API, the same on a GPU and on the cpu.

kernels.ptx is ours: see kernels.cu for how it is made.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from anyarch import gpu

KERNELS = Path(__file__).with_name("kernels.ptx")


@pytest.fixture(scope="module", params=["cuda:0", "cpu"])
def device(request: pytest.FixtureRequest) -> gpu.Device:
    try:
        return gpu.Device(request.param)
    except gpu.NoDeviceError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


@pytest.fixture(scope="module")
def module(device: gpu.Device) -> gpu.Module:
    return device.load(KERNELS)


def ints(buffer: gpu.Buffer) -> list[int]:
    return list(struct.unpack(f"<{buffer.nbytes // 4}i", buffer.to_bytes()))


def test_saxpy(device: gpu.Device, module: gpu.Module) -> None:
    n = 1000
    x = gpu.to_device(memoryview(struct.pack(f"<{n}f", *range(n))).cast("f"), device)
    y = device.zeros(n)
    saxpy = module["saxpy"]
    for launch in (
        lambda: saxpy.launch(4, 256, 2.0, x, y, n),
        lambda: saxpy.launch((4, 1), (256,), 2, x, y.pointer, n),  # converted in Python
        lambda: saxpy[4, 256](2.0, x, y, n),
        saxpy.prepare(4, 256, 2.0, x, y, n),
    ):
        y.fill(0)
        launch()
        assert struct.unpack(f"<{n}f", y.to_bytes()) == tuple(2.0 * i for i in range(n))


def test_every_kind_of_argument(device: gpu.Device, module: gpu.Module) -> None:
    out = device.empty(8, "f8")
    point = struct.pack("<dfb3x", 1.5, 2.5, 3)
    module["takes"].launch(1, 1, point, 200, -300, -(1 << 40), 4.25, None, out)
    expected = (1.5, 2.5, 3.0, 200.0, -300.0, float(-(1 << 40)), 4.25, 1.0)
    assert struct.unpack("<8d", out.to_bytes()) == expected


def test_variables(device: gpu.Device, module: gpu.Module) -> None:
    module.variable("factors").copy_from(struct.pack("<4f", 1, 2, 3, 4))
    counter = module.variable("counter")
    counter.fill(0)
    x = gpu.to_device(memoryview(struct.pack("<8f", *[1] * 8)).cast("f"), device)
    module["scale"].launch(1, 8, x)
    assert struct.unpack("<8f", x.to_bytes()) == (1, 2, 3, 4) * 2
    assert ints(counter) == [8]
    with pytest.raises(KeyError, match="no variable 'absent'"):
        module.variable("absent")
    with pytest.raises(KeyError, match=r"no kernel 'absent' in .*kernels\.ptx; its kernels: saxpy"):
        module["absent"]


def test_dynamic_shared_memory(device: gpu.Device) -> None:
    kernel = device.load(KERNELS)["reverse"]
    limit = device.properties.shared_memory_per_block_optin
    for nbytes in (1024, 48 << 10, 64 << 10, limit // 4096 * 4096):
        n = nbytes // 4
        x = gpu.to_device(memoryview(struct.pack(f"<{n}i", *range(n))).cast("i"), device)
        kernel.launch(1, 256, x, n, shared_memory=nbytes)
        assert ints(x) == list(range(n))[::-1]
    with pytest.raises(gpu.RangeError, match="dynamic shared memory"):
        kernel.launch(1, 1, x, n, shared_memory=limit + 1)
    prepared = device.load(KERNELS)["reverse"].prepare(1, 256, x, n, shared_memory=nbytes)
    prepared()
    assert ints(x) == list(range(n))


def test_a_cooperative_launch(device: gpu.Device, module: gpu.Module) -> None:
    kernel = module["together"]
    blocks = kernel.cooperative_blocks(32)
    x = device.zeros(blocks, "i4")
    kernel.launch(blocks, 32, x, cooperative=True)
    assert ints(x) == [blocks] * blocks
    prepared = kernel.prepare(blocks, 32, x, cooperative=True)
    prepared()
    assert ints(x) == [blocks] * blocks
    with pytest.raises(gpu.RangeError, match="fit the device at once"):
        kernel.launch(blocks + 1, 32, device.zeros(blocks + 1, "i4"), cooperative=True)


def test_copies(device: gpu.Device) -> None:
    data = bytes(range(256)) * 4096
    one, two = device.allocate(len(data)), device.allocate(len(data))
    pinned, stream = device.allocate_pinned(len(data)), device.create_stream()
    one.copy_from(data)
    two.copy_from(one)
    assert two.to_bytes() == data
    pinned.view[:] = data[::-1]
    one.copy_from(pinned, stream=stream)
    two.copy_from(one, stream=stream)
    pinned.copy_from(two, stream=stream)
    stream.synchronize()
    assert bytes(pinned.view) == data[::-1]
    out = bytearray(len(data))
    two.copy_to(out, stream=stream)
    stream.synchronize()
    assert out == data[::-1]
    one[100:200].copy_from(data[:100])
    assert one[99:201].to_bytes() == data[::-1][99:100] + data[:100] + data[::-1][200:201]
    for width, value in ((1, 0x12), (2, 0x1234), (4, 0x12345678)):
        two[4:1028].fill(value, width, stream=stream)
        two[4:1028].copy_to(memoryview(out)[:1024], stream=stream)
        stream.synchronize()
        assert bytes(out[:1024]) == value.to_bytes(width, "little") * (1024 // width)


def test_memory_in_the_order_of_a_stream(device: gpu.Device, module: gpu.Module) -> None:
    stream = device.create_stream()
    with device.allocate(4096, stream) as buffer:
        module["number"].launch(4, 256, buffer, 5, stream=stream)
        out = bytearray(4096)
        buffer.copy_to(out, stream=stream)
    stream.synchronize()
    assert struct.unpack("<1024i", out) == tuple(range(5, 1029))


def test_host_callbacks(device: gpu.Device, module: gpu.Module) -> None:
    stream = device.create_stream()
    seen: list[int] = []
    for number in range(5):
        module["wait"].launch(1, 1, 1_000_000, stream=stream)
        stream.call_host(seen.append, number)
    stream.synchronize()
    assert seen == [0, 1, 2, 3, 4]
    stream.call_host(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        stream.synchronize()


def test_graphs(device: gpu.Device, module: gpu.Module) -> None:
    stream = device.create_stream()
    x, y = device.zeros(256, "i4"), device.zeros(256, "i4")
    calls: list[int] = []
    with stream.capture() as graph:
        module["number"].launch(1, 256, x, 3, stream=stream)
        y.copy_from(x, stream=stream)
        stream.call_host(calls.append, 1)
        x.fill(0, stream=stream)
    assert ints(x) == ints(y) == [0] * 256
    for count in range(1, 4):
        y.fill(0)
        graph.launch(stream)
        stream.synchronize()
        assert ints(y) == list(range(3, 259)) and ints(x) == [0] * 256
        assert len(calls) == count
    with pytest.raises(gpu.DriverError, match="CAPTURE"), stream.capture():
        stream.synchronize()
    stream.synchronize()


def test_threads_launch_at_once(device: gpu.Device, module: gpu.Module) -> None:
    results: dict[int, list[int]] = {}

    def work(first: int) -> None:
        stream = device.create_stream()
        x = device.empty(256, "i4")
        for _ in range(200):
            module["number"].launch(1, 256, x, first, stream=stream)
        stream.synchronize()
        results[first] = ints(x)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {1000 * n: list(range(1000 * n, 1000 * n + 256)) for n in range(8)}


def test_what_was_prepared_ends_with_its_buffers(device: gpu.Device, module: gpu.Module) -> None:
    x = device.zeros(512, "i4")
    whole = module["number"].prepare(1, 256, x, 1)
    part = module["number"].prepare(1, 256, x[256:], 1)
    whole()
    part()
    assert ints(x) == [*range(1, 257)] * 2
    x.close()
    for start in (whole, part):
        with pytest.raises(gpu.ClosedError, match="used after it was freed"):
            start()


def test_unloading(device: gpu.Device) -> None:
    module = device.load(KERNELS)
    kernel = module["nothing"]
    launch, start = kernel.launch, kernel.prepare(1, 1)
    start()
    module.unload()
    for stale in (lambda: launch(1, 1), lambda: kernel.launch(1, 1), start):
        with pytest.raises(gpu.ClosedError, match="after its module was unloaded"):
            stale()
