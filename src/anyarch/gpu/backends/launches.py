"""The launches that may be outstanding, so that a fault can name the kernels it can have come from.

A ring in native memory: prepared launches and the native launcher write it too (launcher.py).
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any, Final

__all__ = ["RING_ENTRIES", "RecentLaunches"]

RING_ENTRIES: Final = 64
_GRAPH: Final = 0


class RecentLaunches:
    """The last launches of a device; a kernel is known by a number."""

    def __init__(self) -> None:
        # How many launches there were, then a kernel and a stream for each of the last ones.
        self._ring = (ctypes.c_uint64 * (1 + 2 * RING_ENTRIES))()
        self._names: dict[int, str] = {_GRAPH: "a captured graph"}
        self._numbers = itertools.count(1)
        self._finished = 0
        self._finished_streams: dict[Any, int] = {}

    @property
    def pointer(self) -> int:
        """Where the ring lies."""
        return ctypes.addressof(self._ring)

    def register(self, kernel: str) -> int:
        """The number of a kernel."""
        number = next(self._numbers)
        self._names[number] = kernel
        return number

    def note(self, kernel: int, stream: int) -> None:
        """A launch."""
        count = self._ring[0]
        place = 1 + 2 * (count % RING_ENTRIES)
        self._ring[place], self._ring[place + 1] = kernel, stream
        self._ring[0] = count + 1

    def now(self) -> int:
        """How many launches there were."""
        return self._ring[0]

    def finish_all(self, until: int) -> None:
        """Launches before `until` have ended well."""
        self._finished = max(self._finished, until)
        self._finished_streams.clear()

    def finish_stream(self, stream: int, until: int) -> None:
        """Launches on that stream before `until` have ended well."""
        self._finished_streams[stream] = until

    def suspects(self) -> tuple[str, ...]:
        """Names of the kernels that have not been seen to end, the latest first."""
        count = self._ring[0]
        found: dict[str, None] = {}
        for number in range(count - 1, max(self._finished, count - RING_ENTRIES) - 1, -1):
            place = 1 + 2 * (number % RING_ENTRIES)
            kernel, stream = self._ring[place], self._ring[place + 1]
            if number >= self._finished_streams.get(stream, 0):
                found.setdefault(self._names.get(kernel, "?"))
        return tuple(found)
