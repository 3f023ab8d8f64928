"""The processor below us: its name, its features, the page size."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

PAGE: Final = os.sysconf("SC_PAGESIZE")

_IDENTITY: Final = [
    *("vendor_id", "cpu family", "model", "stepping", "flags"),  # x86
    *("CPU implementer", "CPU part", "CPU variant", "Features"),  # Arm
]


@cache
def _fields() -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor; empty where /proc is not mounted."""
    try:
        # The kernel renders only what is read: on a large machine the whole file takes longer.
        with open("/proc/cpuinfo", "rb", buffering=0) as file:
            text = file.read(8192)
    except OSError:
        return {}
    first = text.split(b"\n\n", 1)[0].decode("ascii", "replace")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


@cache
def identity() -> str:
    """Model and feature flags in one string: code compiled for one identity may not run on another.

    It is the machine's name alone where the kernel tells no more.
    """
    fields = _fields()
    return ";".join([os.uname().machine, *(fields[k] for k in _IDENTITY if k in fields)])


@cache
def features() -> frozenset[str]:
    """Feature flags of the processor, in the kernel's spelling (`avx2`, `asimd`)."""
    fields = _fields()
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())
