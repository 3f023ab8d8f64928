"""The compiled tier: regions take the interpreter's place, installed by one store.

What is compiled comes from the compiler's process or the store; what no longer applies is dropped,
and its room used again. This module never imports the compiler; ``engine.sampler`` finds hot code.
"""

from __future__ import annotations

import ctypes
import struct
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from anyarch.data import dataclass
from anyarch.engine.arena import Located, RecordArena
from anyarch.engine.bundle import CALLS, STUB_NBYTES, CompiledRegion, digest_of
from anyarch.engine.compiler import WINDOW, Request
from anyarch.engine.convention import table_entry
from anyarch.engine.journal import COMPILED, DROPPED, LOADED, REFUSED, Journal
from anyarch.engine.retirement import Retirement
from anyarch.engine.store import Bundle, RegionStore
from anyarch.engine.visits import Visits, visited_map
from anyarch.errors import HostError, MemoryFault
from anyarch.host.code import (
    CELL_DISTANCE,
    NativeCode,
    append_region,
    append_stubs,
    region_base,
    release_region,
)
from anyarch.host.mapping import MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, map_pages
from anyarch.memory.pageflags import EXEC, HOOK
from anyarch.memory.regions import Region as Mapping
from anyarch.memory.space import PROT_EXEC, PROT_WRITE

if TYPE_CHECKING:
    from anyarch.engine.leftovers import Leftovers, Root

RECORD_NBYTES: Final = 32  # a word for aa_resolve; handler, pc, entry
RECORDS_NBYTES: Final = 1 << 24
_PAGE: Final = 4096
_WAYS: Final = 64  # that are made at once
_VAIN: Final = 64  # times that a region is left where it begins, after which it is dropped
_SCATTERED: Final = 1 << 14  # bytes from the first to the last code of a region


class Compiler(Protocol):
    """Who makes regions: a process of its own, or in tests a function."""

    def compile(self, request: Request) -> CompiledRegion | None:
        """The region that was asked for, or None."""

    def end(self) -> None:
        """The guest has ended; who waits for a region gets none. From any thread."""

    @property
    def is_there(self) -> bool:
        """Whether something may be left to it."""

    def leave(self, leftovers: Leftovers) -> None:
        """The guest would have liked to have these: they are for its next run."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A region in place, at host pointer ``address``."""

    region: CompiledRegion
    way: tuple[int, int]  # its record, and the code that leads there from blocks
    address: int


def _read_word(pointer: int) -> int:
    """What host memory has at a pointer."""
    return ctypes.c_uint64.from_address(pointer).value


class Jit:
    """Installs regions for one arena: what the store has, where the compiler keeps what it makes,
    and what is asked for.

    ``precise`` asks for exact registers at faults in all regions or in none; None leaves it to
    what the code is.
    """

    def __init__(
        self,
        arena: RecordArena,
        native: NativeCode,
        compiler: Compiler,
        store: RegionStore | None = None,
        journal: Journal | None = None,
        *,
        precise: bool | None = None,
    ) -> None:
        self.arena, self.compiler, self.store = arena, compiler, store
        self.journal = journal or Journal()
        self.precise = precise
        self._resolver, self._handler = native.address("aa_resolve"), native.address("aa_region")
        install = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 4)
        remove = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * 2)
        self._install = install(native.address("aa_install"))
        self._remove = remove(native.address("aa_uninstall"))
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self._next_record = map_pages(RECORDS_NBYTES, 3, flags=flags)
        self._records_end = self._next_record + RECORDS_NBYTES
        self._ways: list[tuple[int, int]] = []  # to be used again
        self._left_ways: list[tuple[int, int]] = []  # to which some blocks may still lead
        self._table = arena.region_table
        self._cells: dict[int, list[tuple[int, int]]] = {}  # by target pc: cell, its stub
        self._places: list[tuple[int, CompiledRegion]] = []  # all that is in memory, by address
        self.installed: dict[int, Installed] = {}
        self._by_page: dict[int, set[int]] = {}  # pcs of installed regions
        self._retirement = Retirement(arena, self._release)
        self._refused: set[int] = set()
        self._vain: Counter[int] = Counter()  # times that a region was left where it begins
        self._masked = False  # the guest has used bits of a pointer that are no part of an address
        self._precise: set[int] = set()  # regions in which something faulted
        self._has_ended = False
        self._made: set[int] = set()  # regions that were compiled in this run
        self._version = -1  # of the address space, when what is mapped was last looked at
        self._seen: set[int] = set()  # where executable mappings begin
        self._bundles: dict[str, Bundle] = {}  # by cache key
        self._stored: set[int] = set()  # where they have regions
        self._hot: deque[Iterator[CompiledRegion]] = deque()  # what is to be installed
        self._keys: dict[Mapping, str | None] = {}  # as long as the address space has a version
        self._keys_version = -1
        self._visits = Visits()
        self._looked_at = 0  # of the blocks that the guest has visited since a flush
        self._flushes = 0
        # The lock of the address space: who changes a mapping holds it when it comes to `drop`, and
        # who forks holds it too, so that no child finds an installation half done.
        self._lock = arena.space.lock
        arena.on_drop, arena.on_change, arena.on_flush = self.drop, self.compare, self._reinstall
        arena.on_exact, arena.on_tags = self.keep_exact, self.mask
        arena.on_emulate = self.emulated
        arena.locate_region = self.locate

    @property
    def compiled(self) -> int:
        """Regions that were compiled."""
        return self.journal.totals[COMPILED].regions

    @property
    def loaded(self) -> int:
        """Regions that came from the store."""
        return self.journal.totals[LOADED].regions

    def read(self, address: int, nbytes: int) -> bytes:
        """Guest code; MemoryFault where it is not executable or has hooks, which regions ignore."""
        space = self.arena.space
        for byte in (*range(address, address + nbytes, _PAGE), address + nbytes - 1):
            if not 0 <= byte < space.limit or space.flags[byte] & (EXEC | HOOK) != EXEC:
                raise MemoryFault(byte, "execute")
        return space.read(address, nbytes)

    def add(self, pc: int, hints: bytes = b"", reach: int = WINDOW) -> bool:
        """Put the region at ``pc`` in place, from the cache or compiled anew.

        ``hints`` are the registers that somebody had there, see :class:`Request`; ``reach`` is how
        many bytes on either side of ``pc`` it may be made of.

        False where it is in place already, or where there is none to be had. While instructions
        are counted there is none: regions do not count."""
        with self._lock:
            if self.arena.is_plain or pc in self.installed or pc in self._refused:
                return False
            key = self._load_bundle(pc)
            if pc in self.installed:
                return True
            start, window = self._window(pc, reach)
            precise, masked = self._is_precise(pc), self._masked
            visited = self._visited(pc, start, len(window))
        if not window:
            return False
        read = self.arena.space.read
        begun = time.monotonic()
        request = Request(
            pc, start, window, read, key, precise, hints, self._is_constant, visited, masked
        )
        region = self.compiler.compile(request)
        with self._lock:
            seconds = time.monotonic() - begun
            if self._has_ended or masked != self._masked:
                return False
            if region is None:
                self._refused.add(pc)
                self.journal.note(REFUSED, None, seconds)
                return False
            self.journal.note(COMPILED, region, seconds)
            self._made.add(pc)
            if key is not None:
                self._bundles[key].keep(region)
                self._stored.add(pc)
            return self._place(region)

    def end(self) -> None:
        """The guest has ended: nothing more is compiled for it."""
        self._has_ended = True
        self.compiler.end()

    def leave(self, roots: Iterable[tuple[int, bytes, bool, bool]]) -> None:
        """What has no region yet, with its hints, whether it may be in the middle of another
        region, and whether no sample was for it, is compiled for the next run: these, then what
        regions that are new lead to."""
        if not self.compiler.is_there:
            return
        from anyarch.engine.leftovers import Leftovers, Root  # only here: most runs leave nothing

        with self._lock:
            mapped = list(self.arena.space.regions())
            visited = self.arena.visited()
            new = (self.installed[pc] for pc in self._made & self.installed.keys())
            cells = {cell for found in new for cell in found.region.cells}
            left: dict[int, Root] = {}
            blocks = set(visited)
            unseen = (
                (cell & ~CALLS, b"", not cell & CALLS, True)
                for cell in sorted(cells, key=lambda cell: not cell & CALLS)
                if cell & ~CALLS in blocks
            )
            for pc, hints, is_inner, ahead in chain(roots, unseen):
                if pc not in left and not self.is_settled(pc) and not self._is_precise(pc):
                    key = self._load_bundle(pc)
                    if key is not None:
                        left[pc] = Root(pc, key, hints, ahead, is_inner)
        if left:
            covered = {edges for i in self.installed.values() for edges in i.region.ranges}
            seconds = time.process_time()
            self.compiler.leave(
                Leftovers.of(left.values(), mapped, visited, covered, seconds, self._masked)
            )

    def after_fork(self) -> None:
        """In a forked child: what its parent had compiled is the parent's to go on with."""
        self._made.clear()

    def is_settled(self, pc: int) -> bool:
        """Whether there is a region at ``pc``, or can be none."""
        return pc in self.installed or pc in self._refused

    def count_covering(self, pc: int) -> int:
        """How many regions have the code at a pc."""
        with self._lock:
            found = [self.installed[start] for start in self._by_page.get(pc & -_PAGE, ())]
        return sum(each.region.overlaps(pc, pc + 1) for each in found)

    def _is_precise(self, pc: int) -> bool:
        """Whether registers have to be exact at faults: in code that was made at run time, and
        where something has faulted."""
        if self.precise is not None:
            return self.precise
        if pc in self._precise:
            return True
        mapping = self.arena.space.region_at(pc)
        return mapping is None or not mapping.file or bool(mapping.prot & PROT_WRITE)

    def _is_constant(self, address: int, nbytes: int) -> bool:
        """Whether memory cannot change without `drop` being told: it is private and read-only."""
        mapping = self.arena.space.region_at(address)
        if mapping is None or address + nbytes > mapping.end:
            return False
        return not mapping.shared and not mapping.prot & PROT_WRITE

    def _window(self, pc: int, reach: int) -> tuple[int, bytes]:
        """The executable bytes around a pc, as far as they are contiguous."""
        flags, limit = self.arena.space.flags, self.arena.space.limit
        if not 0 <= pc < limit or not flags[pc] & EXEC:
            return pc, b""
        start = end = pc & -_PAGE
        while start > max(pc - reach, 0) and flags[start - 1] & EXEC:
            start -= _PAGE
        while end < min(pc + reach, limit) and flags[end] & EXEC:
            end += _PAGE
        if reach < WINDOW:
            start, end = max(start, pc - reach), min(end, pc + reach)
        try:
            return start, self.arena.space.read(start, end - start)
        except MemoryFault:
            return pc, b""

    def _visited(self, pc: int, start: int, nbytes: int) -> bytes:
        """Where in a window the guest was seen; nothing if it was not seen at ``pc``."""
        pages = range(start, start + nbytes, _PAGE)
        pcs = {found for page in pages for found in self._by_page.get(page, ())}
        ranges = [edges for found in pcs for edges in self.installed[found].region.ranges]
        visited = visited_map(start, nbytes, self._visits.within(start, start + nbytes), ranges)
        return visited if visited[pc - start >> 1 :][:1] == b"\1" else b""

    # The cache.
    def load(self, pc: int) -> None:
        """Install what the store has at a pc, and what is hot in the mapping around it."""
        with self._lock:
            self._load_bundle(pc)
        self._load_hot()

    def _load_hot(self) -> None:
        """Install what is hot in mappings that were met, one at a time: the guest may want the lock
        to map the next library."""
        while self._hot and not self._has_ended:
            with self._lock:
                region = next(self._hot[0], None) if self._hot else None
                if region is not None:
                    self._load_best(region)
                elif self._hot:
                    self._hot.popleft()

    def _load_best(self, region: CompiledRegion) -> None:
        """Put a region of the store in place unless there is one as good."""
        found = self.installed.get(region.pc)
        if region.precise:
            self._precise.add(region.pc)
            if found is not None and not found.region.precise:
                self._remove_region(region.pc)
        if region.pc not in self.installed:
            self._load(region)

    def knows(self, pc: int) -> bool:
        """Whether the store had a region at a pc when its mapping was loaded."""
        return pc in self._stored

    def load_new(self) -> None:
        """Install what the cache has for code that was mapped since the last time."""
        version = self.arena.space.version
        if version == self._version:
            return
        self._version = version
        starts = {m.start for m in self.arena.space.regions() if m.prot & PROT_EXEC}
        for start in starts - self._seen:
            self.load(start)
        self._seen = starts

    def load_visited(self) -> bool:
        """Install what the cache has where the guest has come since the last time; whether it had
        something."""
        self._load_hot()
        arena = self.arena
        if arena.flushes != self._flushes:
            self._flushes, self._looked_at = arena.flushes, 0
        visited = arena.visited(self._looked_at)
        if not visited:
            return False
        self._looked_at += len(visited)
        if not arena.eager:  # then single instructions are translated
            with self._lock:
                self._visits.add(visited)
        found = [pc for pc in self._stored.intersection(visited) if pc not in self.installed]
        for pc in found:
            with self._lock:
                if not self._has_ended and pc not in self.installed:
                    self._load_bundle(pc)
        return bool(found)

    def _key_at(self, pc: int) -> str | None:
        """The cache key of what is mapped at a pc; None where nothing is kept."""
        space = self.arena.space
        mapping = space.region_at(pc)
        if self.store is None or mapping is None:
            return None
        if space.version != self._keys_version:
            self._keys_version = space.version
            self._keys.clear()
        if mapping not in self._keys:
            try:
                first = space.read(mapping.start, _PAGE)
            except MemoryFault:
                return None
            key = self.store.key_of(mapping, first)
            if mapping.prot & PROT_WRITE:
                return key
            self._keys[mapping] = key
        return self._keys[mapping]

    def _load_bundle(self, pc: int) -> str | None:
        """See :meth:`load`; the mapping's cache key."""
        key = self._key_at(pc)
        if self.store is None or key is None:
            return None
        bundle = self._bundles.get(key)
        if bundle is None:
            bundle = self._bundles[key] = self.store.load(key)
            self._stored.update(bundle.pcs)
            self._hot.append(iter(bundle.hot))
        if pc not in self.installed:
            any(map(self._load, bundle.at(pc)))
        return key

    def _load(self, region: CompiledRegion) -> bool:
        """Put a region of the store in place, if it applies."""
        begun = time.monotonic()
        precise = bool(self.precise) or region.pc in self._precise
        if region.precise < precise or region.pc in self._refused or not self._place(region):
            return False
        self.journal.note(LOADED, region, time.monotonic() - begun)
        return True

    # Installing.
    def _place(self, region: CompiledRegion) -> bool:
        if self.arena.is_plain:
            return False
        pages = region.pages
        if not self._applies(region, pages):
            return False
        self._retirement.collect()
        try:
            self._make_ways()
            address = append_region(region.code)
        except HostError:  # no room
            self._retirement.hurry()
            return False
        way = record, thunk = self._ways.pop()
        entry = address + region.entry
        self._link(address, region)
        _write(record, self._handler, region.pc, entry)
        self.installed[region.pc] = Installed(region, way, address)
        for page in pages:
            self._by_page.setdefault(page, set()).add(region.pc)
        insort(self._places, (address, region), key=_first)
        self.journal.placed(region, address)
        self._install(self.arena.translator, region.pc, record, thunk)
        index, value = table_entry(region.pc, entry - region_base())
        _write(self._table + 8 * index, value)
        for cell, _ in self._cells.get(region.pc, ()):
            _write(cell, entry)
        return True

    def _applies(self, region: CompiledRegion, pages: Iterable[int]) -> bool:
        """Whether guest code on some pages is what a region was made from; who changes it will say
        so."""
        space = self.arena.space
        try:
            # Marked before it is compared: changes from here on are announced.
            for page in pages:
                space.flags.mark_code(page, page + 1)
            for at, data in region.tables:
                if not self._is_constant(at, len(data)) or space.read(at, len(data)) != data:
                    return False
            return digest_of(region.ranges, self._reader(region)) == region.digest
        except (IndexError, MemoryFault):
            return False

    def _reader(self, region: CompiledRegion) -> Callable[[int, int], bytes]:
        """As :meth:`read`, for the code of a region: read at once where it is not scattered."""
        first, last = region.ranges[0][0], region.ranges[-1][1]
        if last - first > _SCATTERED:
            return self.read
        try:
            code = self.read(first, last - first)
        except MemoryFault:  # something else lies in between
            return self.read
        return lambda address, nbytes: code[address - first : address - first + nbytes]

    def _make_ways(self) -> None:
        """See that there is a free way to a region. HostError where there is no room."""
        if self._ways:
            return
        # The word before is for aa_resolve, which the handler of a dropped region becomes.
        first = self._next_record + 8
        records = range(
            first,
            min(first + _WAYS * RECORD_NBYTES, self._records_end - RECORD_NBYTES + 1),
            RECORD_NBYTES,
        )
        if not records:
            raise HostError("the room for records of regions is used up")
        # mov rsi, record; jmp [rsi]: through the record, whose handler changes when the region is
        # dropped. Blocks of the interpreter keep pointing there.
        thunks = [struct.pack("<2sQ2s", b"\x48\xbe", record, b"\xff\x26") for record in records]
        self._ways += zip(records, append_stubs(thunks), strict=True)
        self._next_record += len(records) * RECORD_NBYTES

    def _reinstall(self) -> None:
        """All blocks are gone: those to come find the regions again, and none leads to others."""
        with self._lock:
            self._retirement.collect()
            self._ways += self._left_ways
            self._left_ways.clear()
            for pc, installed in self.installed.items():
                self._install(self.arena.translator, pc, *installed.way)

    def _link(self, address: int, region: CompiledRegion) -> None:
        """Set the cells of a new region: to other regions, or to the stubs that have code run."""
        cell, end = address + CELL_DISTANCE, address + len(region.code)
        stubs = range(end - STUB_NBYTES * len(region.cells), end, STUB_NBYTES)
        values = []
        for place, (stub, pc) in enumerate(zip(stubs, region.targets, strict=True)):
            found = self.installed.get(pc)
            values.append(found.address + found.region.entry if found else stub)
            self._cells.setdefault(pc, []).append((cell + 8 * place, stub))
        ctypes.memmove(cell, struct.pack(f"<{len(values)}Q", *values), 8 * len(values))

    def locate(self, host: int, registers: tuple[int, ...]) -> Located | None:
        """Of an access that faulted at a host address, where a region is there: the guest's pc, and
        its registers that are in ``registers`` of the host, in DWARF's order, or on its stack."""
        index = bisect_right(self._places, host, key=_first) - 1
        if index < 0:
            return None
        address, region = self._places[index]
        if self.precise is None and not region.precise and region.pc not in self._precise:
            with self._lock:
                self._precise.add(region.pc)
                if region.pc in self.installed:
                    self._remove_region(region.pc)
        pc = region.locate(host - address)
        if pc is None:
            return None
        traces = region.traced(host - address)
        return pc, [(trace.index, trace.value(registers, _read_word)) for trace in traces]

    def keep_exact(self) -> None:
        """From here on have registers exact at all faults: what has faulted will be run again."""
        with self._lock:
            self.precise = True
            fast = [pc for pc, found in self.installed.items() if not found.region.precise]
            for pc in fast:
                self._remove_region(pc)

    def emulated(self, pc: int) -> None:
        """A region may take registers for what they are not where the guest comes to it, singles or
        a mode, and is left there for the reference engine. Blocks are faster than that."""
        if pc not in self.installed:
            return
        self._vain[pc] += 1
        if self._vain[pc] >= _VAIN:
            del self._vain[pc]
            with self._lock:
                if pc in self.installed:
                    self._remove_region(pc)
                self._refused.add(pc)

    def mask(self) -> None:
        """From here on have regions mask pointers: one of the guest's had bits that are no part of
        an address, and so will others."""
        with self._lock:
            if self._masked:
                return
            self._masked = True
            if self.store is not None:
                self.store = self.store.variant("masked")
            self._bundles.clear()
            self._stored.clear()
            self._keys.clear()
            self._hot.clear()
            self._made.clear()
            self._seen, self._version = set(), -1
            for pc in list(self.installed):
                self._remove_region(pc)

    def drop(self, start: int, end: int) -> None:
        """Code in a range is gone: regions made from it look their pc up again."""
        with self._lock:
            self._refused.clear()
            self._visits.forget(start, end)
            self._seen = {begin for begin in self._seen if not start <= begin < end}
            for pc in self._pcs_in(start, end):
                self._remove_region(pc)

    def compare(self, start: int, end: int) -> None:
        """Code in a range may have changed, and blocks there were dropped: so are regions that were
        made from other code."""
        with self._lock:
            self._refused = {pc for pc in self._refused if not start <= pc < end}
            self._visits.forget(start, end)
            for pc in self._pcs_in(start, end):
                installed = self.installed[pc]
                if self._applies(installed.region, installed.region.pages):
                    self._install(self.arena.translator, pc, *installed.way)
                else:
                    self._remove_region(pc)

    def _pcs_in(self, start: int, end: int) -> list[int]:
        """Where the installed regions begin that were made from code in a range."""
        pages: Iterable[int] = range(start & -_PAGE, end, _PAGE)
        if end - start >= _PAGE * len(self._by_page):
            pages = list(self._by_page)
        pcs = {pc for page in pages for pc in self._by_page.get(page, ())}
        return [pc for pc in pcs if self.installed[pc].region.overlaps(start, end)]

    def _remove_region(self, pc: int) -> None:
        installed = self.installed.pop(pc)
        for page in installed.region.pages:
            self._by_page[page].discard(pc)
            if not self._by_page[page]:
                del self._by_page[page]
        self.journal.note(DROPPED, installed.region)
        _write(installed.way[0], self._resolver)
        self._left_ways.append(installed.way)
        self._remove(self.arena.translator, pc)
        for cell, stub in self._cells.get(pc, ()):
            _write(cell, stub)
        entry = installed.address + installed.region.entry
        index, value = table_entry(pc, entry - region_base())
        found = ctypes.c_uint64.from_address(self._table + 8 * index)
        if found.value == value:
            found.value = 0
        self._retirement.retire(installed)

    def _release(self, installed: Installed) -> None:
        """No thread can be in a dropped region: its room is for others."""
        start = installed.address + CELL_DISTANCE
        for index, target in enumerate(installed.region.targets):
            cells = self._cells[target]
            cells[:] = [pair for pair in cells if pair[0] != start + 8 * index]
            if not cells:
                del self._cells[target]
        del self._places[bisect_left(self._places, installed.address, key=_first)]
        release_region(installed.address, len(installed.region.code))


def _first(place: tuple[int, CompiledRegion]) -> int:
    return place[0]


def _write(pointer: int, *words: int) -> None:
    for index, word in enumerate(words):
        ctypes.c_uint64.from_address(pointer + 8 * index).value = word
