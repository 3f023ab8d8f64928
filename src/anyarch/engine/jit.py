"""The compiled tier: where a guest spends its time, regions take the interpreter's place.

A sampler asks running threads for their pc now and then: at taken branches and calls, where they poll anyway,
so that counting costs nothing. What is seen often enough is compiled and installed by one store.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyarch.emit.compile import Blob, compile_blob
from anyarch.engine.arena import RecordArena
from anyarch.engine.regions import CELL, FIRST_CELL, Region, RegionCompiler
from anyarch.errors import MemoryFault
from anyarch.host.code import NativeCode, append_region
from anyarch.host.mapping import PROT_READ, PROT_WRITE, map_pages

if TYPE_CHECKING:
    from anyarch.isa.architecture import Architecture

CELLS_NBYTES: Final = 1 << 26
_EXEC: Final = 4


@dataclass(slots=True)
class Installed:
    """A region in place."""

    region: Region
    record: int


class Jit:
    """Compiles and installs regions for one arena."""

    def __init__(
        self, architecture: Architecture, arena: RecordArena, native: NativeCode, *, bounded: bool
    ) -> None:
        self.architecture, self.arena = architecture, arena
        self.compiler = RegionCompiler(architecture, bounded=bounded)
        self.resolver = native.address("aa_resolve")
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 4)
        self._install = prototype(native.address("aa_install"))
        self._remove = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 2)(
            native.address("aa_uninstall")
        )
        self._cells = map_pages(CELLS_NBYTES, PROT_READ | PROT_WRITE)
        self._next_cell = self._cells
        self.installed: dict[int, Installed] = {}
        self.refused: set[int] = set()
        self.dropped: list[Installed] = []  # a thread may still be inside
        self._lock = threading.RLock()
        arena.on_drop = self.drop

    def read(self, address: int, nbytes: int) -> bytes:
        """Guest code; MemoryFault where it is not executable."""
        space = self.arena.space
        for byte in (address, address + nbytes - 1):
            if not 0 <= byte < space.limit or not space.flags[byte] & _EXEC:
                raise MemoryFault(byte, "execute")
        return space.read(address, nbytes)

    def compile(self, pc: int) -> bool:
        """Compile and install the region at ``pc``; False where there is none to be had."""
        with self._lock:
            if pc in self.installed or pc in self.refused:
                return False
            region = self.compiler.compile_text(pc, self.read)
            if region is None:
                self.refused.add(pc)
                return False
            self._place(region, compile_blob(region.text))
            return True

    def drop(self, start: int, end: int) -> None:
        """Code in a range has changed: regions made from it look their pc up again."""
        with self._lock:
            self.refused.clear()
            for pc, installed in list(self.installed.items()):
                if any(low < end and start < high for low, high in installed.region.ranges):
                    del self.installed[pc]
                    ctypes.c_uint64.from_address(installed.record).value = self.resolver
                    self._remove(self.arena.translator, pc)
                    self.dropped.append(installed)

    def _place(self, region: Region, blob: Blob) -> None:
        # The word before the record is for aa_resolve, which a dropped region's handler becomes.
        record = self._next_cell + 8
        self._next_cell = record + FIRST_CELL + CELL * len(region.cells)
        start = (len(blob.code) + 15) // 16 * 16
        thunk = struct.pack("<2sQ", b"\x48\xbe", record)  # the region's record, then its code
        jump = struct.pack("<Bi", 0xE9, blob.symbols["region"] - (start + len(thunk) + 5))
        code = blob.code.ljust(start, b"\xcc") + thunk + jump
        address = append_region(code)
        words = [address + blob.symbols["region"], region.pc]
        for index, pc in enumerate(region.cells):
            stub = record + FIRST_CELL + CELL * index + 8
            words += [stub, self.resolver, pc]
        ctypes.memmove(record, struct.pack(f"<{len(words)}Q", *words), 8 * len(words))
        self.installed[region.pc] = Installed(region, record)
        self._install(self.arena.translator, region.pc, record, address + start)


class Sampler:
    """Finds hot code: a thread that asks for samples and compiles what it has seen often."""

    def __init__(self, jit: Jit, *, threshold: int = 2, interval: float = 0.001) -> None:
        self.jit, self.threshold, self.interval = jit, threshold, interval
        self.counts: Counter[int] = Counter()
        self._ready = threading.Event()
        self._done = False
        self._thread = threading.Thread(target=self._run, name="anyarch-jit", daemon=True)
        self._thread.start()

    def note(self, pc: int) -> None:
        """A thread was at a pc."""
        self.counts[pc] += 1

    def _run(self) -> None:
        while not self._done:
            self._ready.wait(self.interval)
            for runner in list(self.jit.arena.runners):
                runner.sample()
            hot = [pc for pc, count in self.counts.items() if count >= self.threshold]
            for pc in hot:
                del self.counts[pc]
                self.jit.compile(pc)

    def close(self) -> None:
        """Stop sampling."""
        self._done = True
