"""Work spread over several devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from anyarch.gpu.arrays import DeviceArray, to_device
from anyarch.gpu.device import Device, devices
from anyarch.gpu.errors import RangeError

__all__ = ["Share", "gather", "scatter", "split"]


class Share(NamedTuple):
    """The elements `start` to `stop` for one device."""

    device: Device
    start: int
    stop: int


def split(count: int, among: Sequence[Device] | None = None, multiple: int = 1) -> list[Share]:
    """Divide `count` elements evenly among devices, by default every GPU, else the cpu.

    Every share but the last is a multiple of `multiple`, a block's elements for example; devices
    for which nothing is left get no share.
    """
    if count < 0 or multiple < 1:
        raise RangeError(f"{count} elements in multiples of {multiple} cannot be divided")
    homes = list(among) if among is not None else _all_alike()
    if not homes:
        raise RangeError("no devices to divide among")
    units = -(-count // multiple)
    each, more = divmod(units, len(homes))
    shares = []
    start = 0
    for number, device in enumerate(homes):
        stop = min(start + (each + (number < more)) * multiple, count)
        if stop > start:
            shares.append(Share(device, start, stop))
        start = stop
    return shares


def _all_alike() -> list[Device]:
    found = devices()
    return [device for device in found if device.backend != "cpu"] or found


def scatter(array: Any, shares: Sequence[Share]) -> list[DeviceArray]:
    """Copy each share's rows of a host array to its device."""
    return [to_device(array[start:stop], device) for device, start, stop in shares]


def gather(parts: Sequence[DeviceArray], out: Any) -> Any:
    """Copy the parts into a host array, one after the other along its first axis."""
    rows = sum(len(part) for part in parts)
    if rows != len(out):
        raise RangeError(f"the parts have {rows} rows, the target {len(out)}")
    start = 0
    for part in parts:
        part.to_host(out[start : start + len(part)])
        start += len(part)
    return out
