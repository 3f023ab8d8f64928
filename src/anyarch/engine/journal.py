"""What the compiled tier did, when, and what it cost: for reports, and for the host's profilers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from anyarch.data import dataclass, field
from anyarch.engine.bundle import CompiledRegion

COMPILED: Final = "compiled"
LOADED: Final = "loaded"
DROPPED: Final = "dropped"
REFUSED: Final = "refused"
KINDS: Final = (COMPILED, LOADED, DROPPED, REFUSED)


@dataclass(slots=True)
class Total:
    """All events of a kind: how many, of how many guest instructions and bytes of native code; the
    seconds that they took (of a compiler's processor, or ours), and those of the first and last."""

    regions: int = 0
    instructions: int = 0
    nbytes: int = 0
    seconds: float = 0.0
    first: float = 0.0  # after the start
    last: float = 0.0


@dataclass(slots=True)
class Journal:
    """Keeps count for one process; a forked child goes on from its parent's."""

    perf_map: PerfMap | None = None
    totals: dict[str, Total] = field(default_factory=lambda: {kind: Total() for kind in KINDS})
    begun: float = field(default_factory=time.monotonic)

    def note(self, kind: str, region: CompiledRegion | None, seconds: float = 0.0) -> None:
        """Something happened to a region; None where there is none to be had at a pc."""
        total = self.totals[kind]
        total.last = time.monotonic() - self.begun
        if not total.regions:
            total.first = total.last
        total.regions += 1
        total.seconds += seconds
        if region is not None:
            total.instructions += region.instructions
            total.nbytes += len(region.code)

    def placed(self, region: CompiledRegion, pointer: int) -> None:
        """A region's code is at a host pointer from now on."""
        if self.perf_map is not None:
            self.perf_map.add(region, pointer)

    def facts(self) -> dict[str, dict[str, float]]:
        """The totals by kind, as plain data."""
        names = ("regions", "instructions", "nbytes", "seconds", "first", "last")
        return {
            kind: {name: getattr(total, name) for name in names}
            for kind, total in self.totals.items()
        }

    def lines(self) -> list[str]:
        """The report, without what did not happen."""
        return [
            f"{total.regions} regions {kind}: {total.instructions:,} instructions, "
            f"{total.nbytes:,} bytes, {total.seconds:.3f} s; "
            f"{total.first:.3f} to {total.last:.3f} s after the start"
            for kind, total in self.totals.items()
            if total.regions
        ]


class PerfMap:
    """The file that Linux perf reads the names of generated code from: /tmp/perf-PID.map.

    ``name`` gives the guest's name of a pc. Format: tools/perf/Documentation/jit-interface.txt of
    the kernel.
    """

    def __init__(self, name: Callable[[int], str], folder: str = "/tmp") -> None:
        self._name, self._folder = name, folder
        self._lines: list[str] = []  # a forked child writes its parent's too
        self._owner = 0

    def add(self, region: CompiledRegion, pointer: int) -> None:
        """Name the code of a region."""
        self._lines.append(f"{pointer:x} {len(region.code):x} {self._name(region.pc)}\n")
        is_new = self._owner != os.getpid()
        self._owner = os.getpid()
        path = os.path.join(self._folder, f"perf-{os.getpid()}.map")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        flags |= os.O_TRUNC if is_new else os.O_APPEND
        # Opened each time: our threads have tables of descriptors of their own.
        with contextlib.suppress(OSError), open(os.open(path, flags, 0o600), "w") as file:
            file.writelines(self._lines if is_new else self._lines[-1:])
