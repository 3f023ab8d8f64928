"""The compiled tier: where a guest spends its time, regions take the interpreter's place.

A sampler asks running threads for their pc now and then: at taken branches and calls, where they
poll anyway, so that counting costs nothing. What is seen often enough is compiled, or taken from
the cache, and installed by one store. This module never imports the compiler.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections import Counter
from typing import Final, Protocol

from anyarch.data import dataclass
from anyarch.emit.compile import Blob
from anyarch.engine.arena import RecordArena
from anyarch.engine.bundle import CompiledRegion, digest_of, unpack
from anyarch.engine.cache import CodeCache, key_for
from anyarch.engine.compiler import WINDOW
from anyarch.errors import HostError, MemoryFault
from anyarch.host.code import NativeCode, append_region
from anyarch.host.mapping import MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, map_pages
from anyarch.memory.pageflags import EXEC, HOOK

CELL: Final = 24  # a link: record pointer, resolver, pc
FIRST_CELL: Final = 16
CELLS_NBYTES: Final = 1 << 26
_PAGE: Final = 4096


class Compiler(Protocol):
    """Who makes regions: a process of its own, or in tests a function."""

    def compile(self, pc: int, start: int, window: bytes) -> CompiledRegion | None: ...


@dataclass(frozen=True, slots=True)
class Installed:
    """A region in place."""

    region: CompiledRegion
    record: int


class Jit:
    """Installs regions for one arena, and keeps them in the cache.

    ``key`` is that of the interpreter's native code: it covers definitions, compiler and processor.
    """

    def __init__(
        self,
        arena: RecordArena,
        native: NativeCode,
        compiler: Compiler,
        *,
        key: str = "",
        cache: CodeCache | None = None,
    ) -> None:
        self.arena, self.compiler, self.key, self.cache = arena, compiler, key, cache
        self._resolver = native.address("aa_resolve")
        install = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 4)
        remove = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 2)
        self._install = install(native.address("aa_install"))
        self._remove = remove(native.address("aa_uninstall"))
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self._next_cell = map_pages(CELLS_NBYTES, 3, flags=flags)
        self._cells_end = self._next_cell + CELLS_NBYTES
        self.installed: dict[int, Installed] = {}
        self._refused: set[int] = set()
        self._bundles: dict[str, dict[int, CompiledRegion]] = {}  # by cache key, then pc
        self._changed: set[str] = set()
        # The lock of the address space: who changes a mapping holds it when it comes to `drop`, and
        # who forks holds it too, so that no child finds an installation half done.
        self._lock = arena.space.lock
        self.compiled = 0
        self.loaded = 0
        arena.on_drop = self.drop

    def read(self, address: int, nbytes: int) -> bytes:
        """Guest code; MemoryFault where it is not executable or has hooks, which regions ignore."""
        space = self.arena.space
        for byte in (*range(address, address + nbytes, _PAGE), address + nbytes - 1):
            if not 0 <= byte < space.limit or space.flags[byte] & (EXEC | HOOK) != EXEC:
                raise MemoryFault(byte, "execute")
        return space.read(address, nbytes)

    def add(self, pc: int) -> bool:
        """Put the region at ``pc`` in place, from the cache or compiled anew.

        False where it is in place already, or where there is none to be had. While instructions
        are counted there is none: regions do not count."""
        with self._lock:
            if self.arena.counting or pc in self.installed or pc in self._refused:
                return False
            key = self._load_bundle(pc)
            if pc in self.installed:
                return True
            start, window = self._window(pc)
        region = self.compiler.compile(pc, start, window) if window else None
        with self._lock:
            if region is None:
                self._refused.add(pc)
                return False
            self.compiled += 1
            if key is not None:
                self._bundles[key][pc] = region
                self._changed.add(key)
            return self._place(region)

    def _window(self, pc: int) -> tuple[int, bytes]:
        """The executable bytes around a pc, as far as they are contiguous."""
        flags, limit = self.arena.space.flags, self.arena.space.limit
        if not 0 <= pc < limit or not flags[pc] & EXEC:
            return pc, b""
        start = end = pc & -_PAGE
        while start > max(pc - WINDOW, 0) and flags[start - 1] & EXEC:
            start -= _PAGE
        while end < min(pc + WINDOW, limit) and flags[end] & EXEC:
            end += _PAGE
        try:
            return start, self.arena.space.read(start, end - start)
        except MemoryFault:
            return pc, b""

    def after_fork(self) -> None:
        """In a forked child: what is new is the parent's to keep."""
        self._changed = set()

    # The cache.
    def load(self, pc: int) -> None:
        """Install what the cache has for the mapping around a pc."""
        with self._lock:
            self._load_bundle(pc)

    def _load_bundle(self, pc: int) -> str | None:
        """Install what the cache has for the mapping around a pc; the mapping's cache key."""
        if self.cache is None:
            return None
        for mapping in self.arena.space.regions():
            if mapping.start <= pc < mapping.end:
                break
        else:
            return None
        try:
            first = self.arena.space.read(mapping.start, _PAGE)
        except MemoryFault:
            return None
        key = key_for("regions", self.key, mapping.start, mapping.end, first)
        if key not in self._bundles:
            bundle = self._bundles[key] = {}
            blob = self.cache.get(key)
            try:
                found = unpack(blob.code) if blob is not None else []
            except (ValueError, struct.error):
                found = []
            for region in found:
                bundle[region.pc] = region
                if region.pc not in self.installed and self._place(region):
                    self.loaded += 1
        elif pc in (bundle := self._bundles[key]) and self._place(bundle[pc]):
            self.loaded += 1
        return key

    def save(self) -> None:
        """Write new regions to the cache, beside what other processes have put there."""
        with self._lock:
            changed, self._changed = self._changed, set()
            bundles = {key: dict(self._bundles[key]) for key in changed}
        for key, bundle in bundles.items():
            assert self.cache is not None
            blob = self.cache.get(key)
            try:
                others = unpack(blob.code) if blob is not None else []
            except (ValueError, struct.error):
                others = []
            merged = {region.pc: region for region in others} | bundle
            data = b"".join(region.pack() for region in merged.values())
            self.cache.put(key, Blob(data, {}))

    # Installing.
    def _place(self, region: CompiledRegion) -> bool:
        if self.arena.counting:
            return False
        flags = self.arena.space.flags
        try:
            # Marked before it is compared: who changes these pages from here on tells `drop`.
            for start, end in region.ranges:
                flags.mark_code(start, end)
            if digest_of(region.ranges, self.read) != region.digest:
                return False
        except (IndexError, MemoryFault):
            return False
        # The word before the record is for aa_resolve, which a dropped region's handler becomes.
        record = self._next_cell + 8
        following = record + FIRST_CELL + CELL * len(region.cells)
        if following > self._cells_end:
            return False
        start = (len(region.code) + 15) // 16 * 16
        # mov rsi, record; jmp [rsi]: through the record, whose handler changes when it is dropped.
        thunk = struct.pack("<2sQ2s", b"\x48\xbe", record, b"\xff\x26")
        try:
            address = append_region(region.code.ljust(start, b"\xcc") + thunk)
        except HostError:  # no room
            return False
        self._next_cell = following
        words = [address + region.entry, region.pc]
        for index, pc in enumerate(region.cells):
            words += [record + FIRST_CELL + CELL * index + 8, self._resolver, pc]
        ctypes.memmove(record, struct.pack(f"<{len(words)}Q", *words), 8 * len(words))
        self.installed[region.pc] = Installed(region, record)
        self._install(self.arena.translator, region.pc, record, address + start)
        return True

    def drop(self, start: int, end: int) -> None:
        """Code in a range has changed: regions made from it look their pc up again."""
        with self._lock:
            self._refused.clear()
            for pc, installed in list(self.installed.items()):
                if any(low < end and start < high for low, high in installed.region.ranges):
                    del self.installed[pc]
                    ctypes.c_uint64.from_address(installed.record).value = self._resolver
                    self._remove(self.arena.translator, pc)


class Sampler:
    """Finds hot code: a thread that asks for samples and has compiled what it has seen often."""

    def __init__(self, jit: Jit, *, threshold: int = 2, interval: float = 0.001) -> None:
        self.jit, self.threshold, self.interval = jit, threshold, interval
        self._counts: Counter[int] = Counter()
        self._wake = threading.Event()
        self._done = False
        self._thread: threading.Thread | None = None

    def begin(self, pc: int) -> None:
        """A guest is about to run from ``pc``: install what the cache has, and start sampling."""
        if self._thread is None:
            self.jit.load(pc)
            self._thread = threading.Thread(target=self._run, name="anyarch-jit", daemon=True)
            self._thread.start()

    def after_fork(self) -> None:
        """In a forked child: begin anew when it runs."""
        self.jit.after_fork()
        self._thread = None
        self._wake = threading.Event()
        self._counts.clear()

    def note(self, pc: int) -> None:
        """A thread was at a pc."""
        self._counts[pc] += 1

    def _run(self) -> None:
        quiet = 0.0
        while not self._done:
            self._wake.wait(self.interval)
            for runner in list(self.jit.arena.runners):
                runner.sample()
            worked = False
            for pc, count in list(self._counts.items()):
                if count >= self.threshold:
                    del self._counts[pc]
                    worked |= self.jit.add(pc)
            quiet = 0.0 if worked else quiet + self.interval
            if 2.0 < quiet < 2.0 + 2 * self.interval:
                self.jit.save()

    def close(self) -> None:
        """Stop sampling; keep what was compiled."""
        self._done = True
        if self._thread is not None:
            self._wake.set()
            self._thread.join(timeout=1)
        self.jit.save()
