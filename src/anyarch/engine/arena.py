"""The records of one address space: where they lie, how blocks are found, how they are dropped.

All threads of a guest share one arena. Dropping some blocks needs nobody's consent: their first
record is made to look the pc up again. Dropping everything waits until no thread is in native code.
"""

from __future__ import annotations

import ctypes
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from weakref import WeakSet

from anyarch.engine.blockcode import CodeReader
from anyarch.errors import HostError
from anyarch.host.mapping import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    advise_pages,
    map_pages,
    unmap_pages,
)

if TYPE_CHECKING:
    from anyarch.engine.interpreter import Note
    from anyarch.host.blockroom import BlockRoom
    from anyarch.host.code import NativeCode
    from anyarch.memory.space import AddressSpace

# Fields of the translator's state, eight bytes each.
TRANSLATOR: Final = (
    "arena_next",
    "arena_end",
    "table",
    "table_used",
    "page_flags",
    "block_records",  # host pointers of records, ascending
    "block_pcs",
    "block_count",
    "block_capacity",
    "counting",
    "address_limit",
    "lock",  # pointer of the context that translates, or 0
    "dropped",  # blocks whose room is lost until the next flush
    "eager",  # leave with NEW where no region is, and translate single instructions only
    "code_next",  # host address of the next block's code, see engine/templates
    "code_end",
    "code_write",  # how far behind it is written; 0: blocks get no code
    "block_codes",  # host addresses of code, ascending
)
_INDEX: Final = {name: index for index, name in enumerate(TRANSLATOR)}
TABLE_BITS: Final = 19
TABLE_NBYTES: Final = 16 << TABLE_BITS
REGION_TABLE_BITS: Final = 16  # of the entries of compiled regions, see engine/convention
REGION_TABLE_NBYTES: Final = 8 << REGION_TABLE_BITS
ARENA_NBYTES: Final = 1 << 28
BLOCK_CAPACITY: Final = 1 << 20
# The guest's pc, and values of registers by their place among those that its convention traces.
Located: TypeAlias = tuple[int, list[tuple[int, int]]]
DROPPED_LIMIT: Final = 1 << 16  # blocks: a guest that writes code for ever needs no more memory
PAGE_WRITE, PAGE_EXEC, PAGE_CODE, PAGE_HOOK = 2, 4, 8, 16
_PAGE: Final = 4096
_NO_CODE: Final = (1 << 63) - 1  # as the end of the code: it is never full
_LONGEST: Final = 16  # bytes of an instruction


class Runner(Protocol):
    """A thread's engine, as the arena sees it."""

    @property
    def inside(self) -> bool: ...
    @property
    def epoch(self) -> int: ...
    def request_stop(self) -> None: ...
    def ask_pass(self) -> None: ...
    def sample(self) -> None: ...
    def take_notes(self) -> list[Note]: ...


class RecordArena:
    """Records, the table that finds blocks by pc, and the index that finds the pc of a record."""

    def __init__(self, space: AddressSpace, native: NativeCode, *, counting: bool = False) -> None:
        self.space = space
        self._sizes = (
            ARENA_NBYTES,
            TABLE_NBYTES,
            8 * BLOCK_CAPACITY,
            8 * BLOCK_CAPACITY,
            8 * BLOCK_CAPACITY,
            _PAGE,
            REGION_TABLE_NBYTES,
        )
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        prot = PROT_READ | PROT_WRITE
        self._maps = [map_pages(nbytes, prot, flags=flags) for nbytes in self._sizes]
        arena, self.table, records, pcs, codes, self.translator, self.region_table = self._maps
        self._fields = (ctypes.c_uint64 * len(TRANSLATOR)).from_address(self.translator)
        self._reserve_key()
        index = (ctypes.c_uint64 * BLOCK_CAPACITY).from_address(records)
        self._records = memoryview(index).cast("B").cast("Q")
        index = (ctypes.c_uint64 * BLOCK_CAPACITY).from_address(codes)
        self._codes = memoryview(index).cast("B").cast("Q")
        self._room: BlockRoom | None = None
        self._old_rooms: list[BlockRoom] = []  # of the processes that this one was forked from
        self._rows = native.address("aa_template_rows")
        self._pcs = (ctypes.c_uint64 * BLOCK_CAPACITY).from_address(pcs)
        for name, value in (
            ("arena_next", arena),
            ("arena_end", arena + ARENA_NBYTES),
            ("table", self.table),
            ("page_flags", space.page_flags),
            ("block_records", records),
            ("block_pcs", pcs),
            ("block_codes", codes),
            ("code_end", _NO_CODE),
            ("block_capacity", BLOCK_CAPACITY),
            ("address_limit", space.limit),
            ("counting", int(counting)),
        ):
            self._fields[_INDEX[name]] = value
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
        self._invalidate = prototype(native.address("aa_invalidate"))
        self.runners: list[Runner] = []
        self._gate = threading.Condition()
        self._exclusive = False
        self.flushes = 0
        self.epoch = 0  # see engine/retirement
        # Code between two addresses is gone, or may be: regions see whether it is what it was.
        self.on_drop: Callable[[int, int], None] | None = None
        self.on_change: Callable[[int, int], None] | None = None
        self.on_exact: Callable[[], None] | None = None  # faults are to be restarted
        self.on_tags: Callable[[], None] | None = None  # pointers have bits that are ignored
        self.on_emulate: Callable[[int], None] | None = None  # the reference engine steps at a pc
        self.went_plain = False
        self.on_flush: Callable[[], None] | None = None  # no block is left that leads to a region
        # By host address and registers: the guest's pc, and registers that are not in the context.
        self.locate_region: Callable[[int, tuple[int, ...]], Located | None] | None = None
        space.on_code_change = self._change_range

    def __del__(self) -> None:
        self._records = self._codes = memoryview(b"")
        for room in (*getattr(self, "_old_rooms", ()), getattr(self, "_room", None)):
            if room is not None:
                room.close()
        for pointer, nbytes in zip(getattr(self, "_maps", ()), self._sizes, strict=False):
            unmap_pages(pointer, nbytes)

    @property
    def counting(self) -> bool:
        """Whether retired instructions are counted, by no region; change it only with a flush."""
        return bool(self._fields[_INDEX["counting"]])

    @counting.setter
    def counting(self, value: bool) -> None:
        self._fields[_INDEX["counting"]] = int(value)
        if value:
            self.eager = False

    @property
    def eager(self) -> bool:
        """Whether native code leaves where it comes to code that is not compiled."""
        return bool(self._fields[_INDEX["eager"]])

    @eager.setter
    def eager(self, value: bool) -> None:
        self._fields[_INDEX["eager"]] = int(value)

    @property
    def blocks(self) -> int:
        """Blocks translated since the last flush."""
        return int(self._fields[_INDEX["block_count"]])

    def find(self, record: int) -> tuple[int, int, int]:
        """Of the block that a record belongs to: its first record, its pc; and the record's pc."""
        index = bisect_right(self._records, record, 0, self.blocks) - 1
        offset = ctypes.c_uint16.from_address(record + 8).value
        pc = int(self._pcs[index])
        return int(self._records[index]), pc, pc + offset

    @property
    def is_plain(self) -> bool:
        """Whether handlers run alone, without regions: where instructions are counted, and after
        :meth:`go_plain`."""
        return self.counting or self.went_plain

    # Code of blocks.
    def assemble(self) -> None:
        """From here on give blocks code of their own, see engine/templates."""
        from anyarch.host.blockroom import BlockRoom

        try:
            self._room = BlockRoom()
        except HostError:  # handlers do without
            return
        self._begin_code()
        _assembling.add(self)

    def move_code(self) -> None:
        """This is a forked child: what there is can be run, but new code is for other room."""
        old = self._room
        if old is None:
            return
        old.seal()
        self._old_rooms.append(old)
        self._room = None
        self.assemble()
        if self._room is not None and self._room.start < old.start:  # they are to ascend
            self._room.close()
            self._room = None
        self._begin_code()

    @property
    def has_code(self) -> bool:
        """Whether blocks have code of their own, unless instructions are counted."""
        return self._room is not None

    def _begin_code(self) -> None:
        if self._room is not None:
            place = self._room.start, self._room.end, self._room.distance & (1 << 64) - 1
        else:
            place = max((room.end for room in self._old_rooms), default=0), _NO_CODE, 0
        for name, value in zip(("code_next", "code_end", "code_write"), place, strict=True):
            self._fields[_INDEX[name]] = value

    def go_plain(self) -> None:
        """Drop code of blocks and what is compiled, once no other thread is in native code, and
        have no more of it: from here on handlers run."""
        with self._alone():
            self.went_plain = True
            room, self._room = self._room, None
            if self.on_drop is not None:
                self.on_drop(0, self.space.limit)
            self._reset()
            if room is not None:
                room.close()

    def locate_code(self, host: int) -> int | None:
        """The record whose instruction faulted at a host address in a block's code; None where
        the address is in no such code."""
        rooms = [*self._old_rooms, self._room] if self._room else self._old_rooms
        if not any(room.start <= host < room.end for room in rooms):
            return None
        index = bisect_right(self._codes, host, 0, self.blocks) - 1
        return CodeReader(self._rows).find(int(self._records[index]), int(self._codes[index]), host)

    def visited(self, since: int = 0) -> list[int]:
        """Where blocks begin that were translated, but for some that came first."""
        return self._pcs[since : self.blocks]

    def mark(self) -> tuple[int, int]:
        """For :meth:`forget_since`: what has been translated so far."""
        return int(self._fields[0]), self.blocks

    def forget_since(self, mark: tuple[int, int]) -> None:
        """Give back the room of blocks that no table entry finds; with a single thread only."""
        if len(self.runners) == 1:
            self._fields[0], self._fields[_INDEX["block_count"]] = mark

    def release_lock(self, context: int) -> None:
        """A thread has left the translator by a fault."""
        if self._fields[_INDEX["lock"]] == context:
            self._fields[_INDEX["lock"]] = 0

    def after_fork(self, runner: Runner) -> None:
        """In a forked child only ``runner`` is left; another thread may have held the lock."""
        self.runners = [runner]
        self._gate = threading.Condition()
        self._exclusive = False
        if self._fields[_INDEX["lock"]]:
            self._fields[_INDEX["lock"]] = 0
            self._reset()

    # Dropping translations.
    def _change_range(self, start: int, end: int) -> None:
        self._change(start, end - start, self.on_drop)

    def code_change(self, address: int, nbytes: int) -> None:
        """Guest code in a range may have changed: drop the blocks on its pages."""
        self._change(address, nbytes, self.on_change)

    def _change(self, address: int, nbytes: int, tell: Callable[[int, int], None] | None) -> None:
        first = address & -_PAGE
        last = min((address + nbytes + _PAGE - 1) & -_PAGE, self.space.limit)
        # An instruction may reach over from the page before.
        start = max(first - _PAGE, 0) if address - first < _LONGEST else first
        with self.space.lock:  # in which protections change too, in the same bytes as the marks
            # Marks first: what other threads translate meanwhile is marked again, or dropped.
            self.space.flags.clear_code(first, last)
            self._invalidate(self.translator, start, last)
            if tell is not None:
                tell(start, last)

    def code_announced(self) -> None:
        """The guest says that code may have been written: on pages that it can write, there or,
        where memory is shared, through another mapping."""
        for region in self.space.regions():
            if region.prot & PAGE_EXEC and (region.prot & PAGE_WRITE or region.shared):
                for start, end in self.space.flags.code_runs(region.start, region.end):
                    self.code_change(start, end - start)

    def flush(self) -> None:
        """Drop everything, once no other thread is in native code."""
        with self._alone():
            if self.on_drop is not None:
                self.on_drop(0, self.space.limit)
            self._reset()

    def make_room(self) -> None:
        """Drop all blocks, not what is compiled, once no other thread is in native code."""
        with self._alone():
            self._reset()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Meanwhile no thread is in native code."""
        with self._gate:
            while self._exclusive:
                self._gate.wait()
            self._exclusive = True
        try:
            waiting = [runner for runner in self.runners if runner.inside]
            while waiting:
                for runner in waiting:
                    runner.request_stop()
                threading.Event().wait(0.0005)
                waiting = [runner for runner in waiting if runner.inside]
            yield
        finally:
            with self._gate:
                self._exclusive = False
                self._gate.notify_all()

    def _reset(self) -> None:
        arena, table, *_ = self._maps
        if self._fields[0] - arena > 1 << 20:
            advise_pages(arena, ARENA_NBYTES, MADV_DONTNEED)
        advise_pages(table, TABLE_NBYTES, MADV_DONTNEED)
        self._reserve_key()
        self._fields[0] = arena
        self._fields[_INDEX["table_used"]] = 0
        self._fields[_INDEX["block_count"]] = 0
        self._fields[_INDEX["dropped"]] = 0
        for room in self._old_rooms:
            room.close()
        self._old_rooms.clear()
        if self._room is not None and not self._room.renew():
            self._room = None
        self._begin_code()
        self.flushes += 1
        if self.on_flush is not None:
            self.on_flush()

    def _reserve_key(self) -> None:
        """An empty entry's key, zero, is that of the last address, whose place is the last entry:
        there it is another."""
        ctypes.c_uint64.from_address(self.table + TABLE_NBYTES - 16).value = 1

    def is_closed(self) -> bool:
        """Whether a thread that is about to enter native code has to wait."""
        return self._exclusive

    def wait(self) -> None:
        """Wait until a flush by another thread is over."""
        with self._gate:
            while self._exclusive:
                self._gate.wait()


_assembling: Final[WeakSet[RecordArena]] = WeakSet()


def _after_fork() -> None:
    for arena in list(_assembling):
        arena.move_code()


os.register_at_fork(after_in_child=_after_fork)
