"""``anyarch gpu``: what its commands do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from anyarch import gpu
from anyarch.errors import Error
from anyarch.gpu.device import find_backend
from anyarch.gpu.image import open_image

_NOTHING: Final = """.version 7.0
.target sm_50
.address_size 64
.visible .entry nothing() { ret; }
"""
_COPY_NBYTES: Final = 64 << 20


def list_devices() -> tuple[list[dict[str, Any]], str]:
    """A row for each device, and why there is no GPU."""
    reason = ""
    try:
        find_backend("cuda").count()
    except gpu.NoDeviceError as error:
        reason = str(error)
    rows = []
    for device in gpu.devices():
        properties = device.properties
        free, total = device.memory_info()
        capability = ".".join(map(str, properties.compute_capability))
        rows.append(
            {
                "device": device.id,
                "name": device.name,
                "capability": capability if device.backend == "cuda" else "",
                "processors": properties.multiprocessors,
                "memory": f"{total / (1 << 30):.1f} GiB",
                "free": f"{free / (1 << 30):.1f} GiB",
            }
        )
    return rows, reason


def describe_device(name: str | None) -> dict[str, Any]:
    """All properties of a device, and versions."""
    device = gpu.Device(name)
    free, total = device.memory_info()
    versions = device.versions
    facts = {"device": device.id} | asdict(device.properties)
    facts |= {"memory_free": free, "memory_total": total}
    facts["can_access_peers"] = [
        other.id for other in gpu.devices() if other != device and device.can_access_peer(other)
    ]
    for what, version in (("cuda_driver", versions.driver), ("nvrtc", versions.toolkit)):
        facts[what] = None if version is None else ".".join(map(str, version))
    facts["driver_version"] = versions.driver_text or None
    return facts


def extents(option: str, text: str) -> tuple[int, ...]:
    """A grid or block such as 16,16."""
    try:
        return tuple(int(number, 0) for number in text.replace("x", ",").split(","))
    except ValueError:
        raise Error(f"{option} {text}: expected one to three numbers such as 16,16") from None


def run_kernel(
    file: Path,
    name: str | None,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    texts: list[str],
    *,
    shared_memory: int,
    cooperative: bool,
    repeat: int,
    check: bool,
    device: str | None,
) -> dict[str, Any]:
    """Launch a kernel, and write the arrays that are to be written."""
    home = gpu.Device(device, check=check)
    module = home.load(file)
    if name is None:
        if len(module) != 1:
            raise Error(f"{file} has {len(module)} kernels, say which: {', '.join(module)}")
        (name,) = module
    kernel = module[name]
    outputs: list[tuple[gpu.DeviceArray, Path]] = []
    arguments = [_argument(home, text, outputs) for text in texts]
    start, end = home.create_event(), home.create_event()
    times = []
    for _ in range(repeat):
        home.default_stream.record(start)
        kernel.launch(grid, block, *arguments, shared_memory=shared_memory, cooperative=cooperative)
        home.default_stream.record(end)
        home.synchronize()
        times.append(end - start)
    for array, path in outputs:
        _numpy().save(path, array.to_host())
    return {
        "device": home.id,
        "kernel": name,
        "milliseconds": times,
        "written": [str(path) for _, path in outputs],
    }


def _argument(device: gpu.Device, text: str, outputs: list[tuple[gpu.DeviceArray, Path]]) -> Any:
    kind, _, rest = text.partition(":")
    if text == "null":
        return None
    if kind == "hex":
        try:
            return bytes.fromhex(rest)
        except ValueError:
            raise Error(f"--arg {text}: expected pairs of hexadecimal digits") from None
    if kind == "zeros":
        try:
            shape, type_, path = rest.split(":")
            array = device.zeros(tuple(int(extent) for extent in shape.split("x")), type_)
        except ValueError as error:
            raise Error(f"--arg {text}: expected zeros:SHAPE:TYPE:OUT.npy ({error})") from None
        outputs.append((array, Path(path)))
        return array
    if kind.endswith(".npy"):
        try:
            array = gpu.to_device(_numpy().load(kind), device)
        except (OSError, ValueError) as error:
            raise Error(f"--arg {text}: {error}") from None
        if rest:
            outputs.append((array, Path(rest)))
        return array
    for convert in (lambda: int(text, 0), lambda: float(text)):
        try:
            return convert()
        except ValueError:
            continue
    raise Error(f"--arg {text}: expected a number, FILE.npy, zeros:…, hex:… or null")


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise Error("arrays of files need NumPy: pip install numpy") from None
    return numpy


def check_file(file: Path) -> dict[str, Any]:
    """What is in a file, and what every device makes of it."""
    image = open_image(file, None) if file.suffix != ".cubin" else None
    signatures = dict(image.signatures) if image is not None else {}
    problems: dict[str, str] = {}
    findings: dict[str, dict[str, str]] = {name: {} for name in signatures}
    good = True
    for device in gpu.devices():
        try:
            module = device.load(file)
        except gpu.Error as error:
            problems[device.id] = str(error)
            good = False
            continue
        for name in module:
            found = findings.setdefault(name, {})
            try:
                kernel = module[name]
                signatures.setdefault(name, kernel.signature)
                made = kernel.attributes
                found[device.id] = (
                    f"{made.registers} registers, {made.shared} bytes of shared memory, "
                    f"{made.local} of local"
                )
            except gpu.Error as error:
                found[device.id] = str(error)
                good = False
    kernels = [
        {
            "name": name,
            "parameters": [
                f"{parameter} {parameter.name}".strip() for parameter in signatures[name].parameters
            ]
            if name in signatures
            else [],
            "devices": found,
        }
        for name, found in findings.items()
    ]
    return {"file": str(file), "kernels": kernels, "problems": problems, "good": good}


def measure(name: str | None) -> dict[str, Any]:
    """Microseconds of launches, GB/s of copies; medians."""
    device = gpu.Device(name)
    kernel = device.load(_NOTHING)["nothing"]
    stream = device.create_stream()
    start = kernel.prepare(1, 32, stream=stream)

    def launch_and_wait() -> None:
        start()
        stream.synchronize()

    def launches(function: Callable[[], None]) -> float:
        start_time = time.perf_counter()
        for _ in range(200):
            function()
        elapsed = time.perf_counter() - start_time
        stream.synchronize()
        return elapsed / 200 * 1e6

    one, two = device.allocate(_COPY_NBYTES), device.allocate(_COPY_NBYTES)
    pinned, pageable = device.allocate_pinned(_COPY_NBYTES), bytearray(_COPY_NBYTES)

    def rate(target: Any, source: Any) -> float:
        start_time = time.perf_counter()
        if isinstance(target, gpu.Buffer):
            target.copy_from(source)
        else:
            source.copy_to(target)
        return _COPY_NBYTES / (time.perf_counter() - start_time) / 1e9

    def median(measured: Callable[[], float], count: int = 11) -> float:
        measured()
        return statistics.median(measured() for _ in range(count))

    return {
        "device": f"{device.id}, {device.name}",
        "launch, us": median(lambda: launches(lambda: kernel.launch(1, 32, stream=stream))),
        "prepared launch, us": median(lambda: launches(start)),
        "launch and synchronise, us": median(lambda: launches(launch_and_wait)),
        "copy within the device, GB/s": median(lambda: rate(two, one)),
        "copy from pinned memory, GB/s": median(lambda: rate(one, pinned)),
        "copy to pinned memory, GB/s": median(lambda: rate(pinned, one)),
        "copy from pageable memory, GB/s": median(lambda: rate(one, pageable)),
        "copy to pageable memory, GB/s": median(lambda: rate(pageable, one)),
    }
