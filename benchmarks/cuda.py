"""``python -m benchmarks.cuda``: launches and copies beside cuda.core, ctypes and raw driver calls.

Needs an NVIDIA GPU, cuda-bindings, cuda-core and NumPy. Ways of doing the same thing take turns; a
figure is the median of their turns, a ratio that of the medians of one run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from anyarch import gpu

KERNELS: Final = Path(__file__).parents[1] / "tests" / "gpu" / "kernels.ptx"
BATCH: Final = 400  # launches; fewer than the driver's queue holds
COPY_NBYTES: Final = 256 << 20
Ways = dict[str, Callable[[], None]]


def main() -> int:
    """Exit status 0, or 1 without a GPU."""
    parser = argparse.ArgumentParser(prog="benchmarks.cuda", description=__doc__)
    parser.add_argument("--repeat", type=int, default=41, help="turns of each way (41)")
    parser.add_argument("--json", action="store_true", help="print JSON, not text")
    options = parser.parse_args()
    try:
        device = gpu.Device("cuda:0")
    except gpu.NoDeviceError as error:
        print(error, file=sys.stderr)
        return 1
    record: dict[str, Any] = {"device": device.name, "driver": device.versions.driver_text}
    record["launch, us"] = launches(device, options.repeat)
    record["copy, GB/s"] = copies(device, options.repeat)
    others = [other for other in gpu.devices() if other.backend == "cuda" and other != device]
    if others:
        record["peer copy, GB/s"] = peer_copies(device, others[0], options.repeat)
    record["ratios"] = ratios(record)
    if options.json:
        print(json.dumps(record, indent=2))
        return 0
    print(f"{device.name}, driver {device.versions.driver_text}, Python {sys.version.split()[0]}")
    for title in ("launch, us", "copy, GB/s", "peer copy, GB/s", "ratios"):
        for name, value in record.get(title, {}).items():
            print(f"{title:16} {name:34} {value:9.3f}")
    return 0


def take_turns(ways: Ways, repeat: int, after: Callable[[], None]) -> dict[str, float]:
    """Median seconds of one call of each; `after` runs untimed after every turn.

    Every other round is backwards, so that nobody always profits from what ran just before.
    """
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 3):
        for name, way in list(ways.items())[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            way()
            elapsed = time.perf_counter() - start
            after()
            if turn >= 3:
                samples[name].append(elapsed)
    return {name: statistics.median(values) for name, values in samples.items()}


def launches(device: gpu.Device, repeat: int) -> dict[str, float]:
    """Microseconds of a launch: an empty kernel, and one of four parameters."""
    import numpy
    from cuda.core import Device, LaunchConfig, ObjectCode, launch

    module = device.load(KERNELS)
    stream = device.create_stream()
    x, y = device.zeros(256), device.zeros(256)
    theirs = Device(0)
    theirs.set_current()
    their_stream = theirs.create_stream(stream)
    config = LaunchConfig(grid=1, block=256)
    code = ObjectCode.from_ptx(str(KERNELS))
    their_nothing, their_saxpy = code.get_kernel("nothing"), code.get_kernel("saxpy")

    nothing, saxpy = module["nothing"], module["saxpy"]
    start_nothing = nothing.prepare(1, 256, stream=stream)
    start_saxpy = saxpy.prepare(1, 256, 2.0, x, y, 256, stream=stream)

    raw = ctypes.CDLL("libcuda.so.1").cuLaunchKernel
    raw.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3]
    packed = [
        ctypes.c_float(2.0),
        ctypes.c_uint64(x.pointer),
        ctypes.c_uint64(y.pointer),
        ctypes.c_int(256),
    ]
    pointers = (ctypes.c_void_p * 4)(*map(ctypes.addressof, packed))
    function, empty_function = saxpy._handle.function, nothing._handle.function
    handle = stream.handle
    factor, count = numpy.float32(2.0), numpy.int32(256)
    x_pointer, y_pointer = x.pointer, y.pointer
    nothing_launch, saxpy_launch = nothing.launch, saxpy.launch

    def repeated(call: Callable[[], Any]) -> Callable[[], None]:
        def batch() -> None:
            for _ in range(BATCH):
                call()

        return batch

    ways = {
        "nothing: launch": repeated(lambda: nothing_launch(1, 256, stream=stream)),
        "nothing: cuda.core": repeated(lambda: launch(their_stream, config, their_nothing)),
        "nothing: prepared": repeated(start_nothing),
        "nothing: ctypes": repeated(
            lambda: raw(empty_function, 1, 1, 1, 256, 1, 1, 0, handle, None, None)
        ),
        "saxpy: launch": repeated(
            lambda: saxpy_launch(1, 256, 2.0, x, y, 256, stream=stream)
        ),
        "saxpy: launch, NumPy scalars": repeated(
            lambda: saxpy_launch(1, 256, factor, x, y, count, stream=stream)
        ),
        "saxpy: cuda.core": repeated(
            lambda: launch(
                their_stream, config, their_saxpy, factor, x_pointer, y_pointer, count
            )
        ),
        "saxpy: prepared": repeated(start_saxpy),
        "saxpy: ctypes": repeated(
            lambda: raw(function, 1, 1, 1, 256, 1, 1, 0, handle, pointers, None)
        ),
    }  # fmt: skip
    medians = take_turns(ways, repeat, stream.synchronize)
    return {name: seconds / BATCH * 1e6 for name, seconds in medians.items()}


def copies(device: gpu.Device, repeat: int) -> dict[str, float]:
    """GB/s of copies on a stream, by the library and by the driver's calls alone."""
    from cuda.bindings import driver

    stream = device.create_stream()
    one, two = device.allocate(COPY_NBYTES), device.allocate(COPY_NBYTES)
    pinned = device.allocate_pinned(COPY_NBYTES)
    pinned.view[:] = bytes(range(256)) * (COPY_NBYTES // 256)
    a, b, p, handle = one.pointer, two.pointer, pinned.pointer, stream.handle
    device.synchronize()

    def raw(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
        def copy() -> None:
            (error,) = function(*arguments, COPY_NBYTES, handle)
            assert error == 0
            (error,) = driver.cuStreamSynchronize(handle)
            assert error == 0

        return copy

    def ours(target: gpu.Buffer, source: gpu.Buffer) -> Callable[[], None]:
        def copy() -> None:
            target.copy_from(source, stream=stream)
            stream.synchronize()

        return copy

    (error, context) = driver.cuDevicePrimaryCtxRetain(driver.cuDeviceGet(0)[1])
    assert error == 0
    driver.cuCtxSetCurrent(context)
    medians = {}
    for name, ways in {
        "D2D": (ours(two, one), raw(driver.cuMemcpyDtoDAsync, b, a)),
        "H2D": (ours(one, pinned), raw(driver.cuMemcpyHtoDAsync, a, p)),
        "D2H": (ours(pinned, one), raw(driver.cuMemcpyDtoHAsync, p, a)),
    }.items():
        pair = {name: ways[0], f"{name}, driver": ways[1]}
        medians |= take_turns(pair, repeat, device.synchronize)
    return {name: COPY_NBYTES / seconds / 1e9 for name, seconds in medians.items()}


def peer_copies(one: gpu.Device, two: gpu.Device, repeat: int) -> dict[str, float]:
    """GB/s from one GPU to another."""
    from cuda.bindings import driver

    source, target = one.allocate(COPY_NBYTES), two.allocate(COPY_NBYTES)
    stream = two.create_stream()
    target.copy_from(source)
    contexts = [driver.cuDevicePrimaryCtxRetain(driver.cuDeviceGet(n)[1])[1] for n in range(2)]
    handle, a, b = stream.handle, source.pointer, target.pointer

    def raw() -> None:
        driver.cuCtxSetCurrent(contexts[1])
        (error,) = driver.cuMemcpyPeerAsync(b, contexts[1], a, contexts[0], COPY_NBYTES, handle)
        assert error == 0
        driver.cuStreamSynchronize(handle)

    def ours() -> None:
        target.copy_from(source, stream=stream)
        stream.synchronize()

    medians = take_turns({"P2P": ours, "P2P, driver": raw}, repeat, two.synchronize)
    return {name: COPY_NBYTES / seconds / 1e9 for name, seconds in medians.items()}


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """What the project promises: launches at most 1.00 and 0.85, copies at least 0.98."""
    times, rates = record["launch, us"], record["copy, GB/s"]
    found = {}
    for kernel in ("nothing", "saxpy"):
        found[f"{kernel}: launch / cuda.core"] = (
            times[f"{kernel}: launch"] / times[f"{kernel}: cuda.core"]
        )
        found[f"{kernel}: prepared / ctypes"] = (
            times[f"{kernel}: prepared"] / times[f"{kernel}: ctypes"]
        )
    for name in ("D2D", "H2D", "D2H"):
        found[f"{name} / driver"] = rates[name] / rates[f"{name}, driver"]
    peers = record.get("peer copy, GB/s")
    if peers:
        found["P2P / driver"] = peers["P2P"] / peers["P2P, driver"]
    return found


if __name__ == "__main__":
    sys.exit(main())
