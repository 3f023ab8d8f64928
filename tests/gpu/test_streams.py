"""Streams, events, callbacks and graphs, on devices in software."""

from __future__ import annotations

import pytest

from anyarch import gpu
from tests.gpu.python_backend import PythonDevice

PTX = ".version 8.0\n.target sm_75\n.entry k(.param .u32 n) { ret; }"


def test_events(cpu: PythonDevice) -> None:
    stream = gpu.Device("cpu").create_stream()
    start = stream.record()
    end = stream.record(gpu.Device("cpu").create_event())
    end.synchronize()
    assert end.done and end - start >= 0
    with pytest.raises(gpu.DriverError, match="never recorded"):
        end.elapsed_since(gpu.Event(stream.device))
    with pytest.raises(gpu.RangeError, match="no time"):
        end.elapsed_since(gpu.Event(stream.device, timing=False))
    start.close()
    with pytest.raises(gpu.ClosedError):
        start.synchronize()


def test_streams_are_closed(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    with device.create_stream() as stream:
        assert stream.done
    with pytest.raises(gpu.ClosedError):
        stream.synchronize()
    device.default_stream.synchronize()
    with pytest.raises(gpu.RangeError, match="priority 5"):
        device.create_stream(priority=5)


def test_callbacks(cpu: PythonDevice) -> None:
    stream = gpu.Device("cpu").create_stream()
    seen: list[int] = []
    stream.call_host(seen.append, 1)
    stream.synchronize()
    assert seen == [1]
    stream.call_host(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        stream.synchronize()
    stream.synchronize()
    stream.call_host(lambda: [][1])
    gpu.Device("cpu").default_stream.synchronize()
    with pytest.raises(IndexError):
        gpu.Device("cpu").synchronize()
    gpu.Device("cpu").synchronize()


def test_graphs(cpu: PythonDevice) -> None:
    device = gpu.Device("cpu")
    kernel = device.load(PTX)["k"]
    buffer = device.allocate(4)
    calls: list[str] = []
    stream = device.create_stream()
    start = kernel.prepare(2, 2, 9, stream=stream)
    with stream.capture() as graph:
        kernel.launch(1, 1, 5, stream=stream)
        start()
        buffer.fill(3, stream=stream)
        stream.call_host(calls.append, "x")
        with pytest.raises(gpu.DriverError):
            stream.synchronize()
    assert not cpu.launches and not calls
    graph.launch(stream)
    graph.launch()
    stream.synchronize()
    assert [data for _, _, data in cpu.launches] == [b"\5\0\0\0", b"\x09\0\0\0"] * 2
    assert buffer.to_bytes() == b"\3" * 4 and calls == ["x", "x"]
    graph.close()
    with pytest.raises(gpu.ClosedError):
        graph.launch()


def test_an_error_within_a_capture(cpu: PythonDevice) -> None:
    stream = gpu.Device("cpu").create_stream()
    with pytest.raises(ValueError, match="mine"), stream.capture() as graph:
        raise ValueError("mine")
    with pytest.raises(gpu.Error, match="captures once"), graph:
        pass


def test_streams_of_others(gpus: list[PythonDevice]) -> None:
    one, two = gpu.Device("cuda:0"), gpu.Device("cuda:1")
    ours = one.default_stream
    assert ours.__cuda_stream__() == (0, 0)

    class Foreign:
        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, 2)

    assert one.stream(Foreign()).handle == 2
    assert one.stream(1).handle == 1
    assert one.stream(None) is one.default_stream
    ours.wait(Foreign())
    with pytest.raises(gpu.ArgumentError, match="of cuda:1 is not for cuda:0"):
        one.stream(two.create_stream())
    with pytest.raises(gpu.ArgumentError, match="no stream"):
        one.stream(object())
    host = gpu.Device("cpu")
    assert not hasattr(host.default_stream, "__cuda_stream__")
    with pytest.raises(gpu.ArgumentError):
        host.stream(Foreign())


def test_waiting_for_another_stream(gpus: list[PythonDevice]) -> None:
    device = gpu.Device("cuda:0")
    one, two = device.create_stream(), device.create_stream()
    one.wait(two)
    one.wait(two.record())
    one.synchronize()
