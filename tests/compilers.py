"""The compiler processes of a code cache, which are nobody's children."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


def compilers_of(cache: str) -> list[int]:
    """Process numbers of those that keep what they compile in a folder."""
    marker, found = f"ANYARCH_CACHE={cache}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            if b"regions" in command and marker in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def wait_for_compilers(cache: str, seconds: float = 60) -> None:
    """Until all that was compiled is in the cache: it is kept after it was handed out."""
    end = time.monotonic() + seconds
    while compilers_of(cache):
        assert time.monotonic() < end, "compilers have outlived their clients"
        time.sleep(0.05)
