"""Threads that run blocks, and the memory each needs.

The thread that launches runs blocks itself; others join for large grids. All are inside native
code, without Python's lock, while they work.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import Final

from anyarch.gpu.cpu.checker import HEAD, HEAD_NBYTES, Found, read_report
from anyarch.gpu.cpu.records import (
    FIBRE_NBYTES,
    FIBRE_WARP,
    WORKER,
    WORKER_NBYTES,
)
from anyarch.gpu.cpu.scheduler import MEETING_NBYTES
from anyarch.host.code import NativeCode
from anyarch.host.context import FIELDS, Context
from anyarch.host.cpu import PAGE
from anyarch.host.mapping import (
    MAP_ANONYMOUS,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
    map_pages,
    protect_pages,
    round_up,
    unmap_pages,
)
from anyarch.host.signals import prepare_thread
from anyarch.host.stack import Stack

__all__ = ["Helpers", "Needs", "Worker", "worker_count"]

_WINDOW: Final = 1 << 32  # shared addresses have 32 bits, of which half lie below the window
_STACK: Final = 1 << 18
_THREAD_STACK: Final = 1 << 16
_SLACK: Final = 1024  # printf reads a record's worth of arguments, also near the end
MAX_FLOWS: Final = 1024


def worker_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Needs:
    """What a kernel's blocks need of a worker; `area` is what a checked kernel keeps of a block."""

    __slots__ = ("area", "fibres", "flows", "local_nbytes", "resident", "shared", "width")

    def __init__(
        self,
        shared: int,
        local_nbytes: int,
        flows: int,
        fibres: bool,
        width: int,
        resident: int,
        area: int = 0,
    ) -> None:
        self.area = area
        self.shared, self.local_nbytes, self.flows = shared, local_nbytes, flows
        self.fibres, self.width, self.resident = fibres, width, resident


class _Mapping:
    """Memory that grows: it is mapped anew when more is asked for than before."""

    def __init__(self) -> None:
        self.start = self.nbytes = 0

    def ensure(self, nbytes: int) -> int:
        if nbytes > self.nbytes:
            self.free()
            size = round_up(nbytes) + 2 * PAGE
            flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
            start = map_pages(size, PROT_NONE, flags=flags)
            protect_pages(start + PAGE, size - 2 * PAGE, PROT_READ | PROT_WRITE)
            self.start, self.nbytes = start + PAGE, size - 2 * PAGE
        return self.start

    def free(self) -> None:
        if self.nbytes:
            unmap_pages(self.start - PAGE, self.nbytes + 2 * PAGE)
            self.nbytes = 0


class _Window:
    """A shared window: memory that is there at its start, and nothing 2 GiB around it."""

    def __init__(self) -> None:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        self.whole = map_pages(_WINDOW + PAGE, PROT_NONE, flags=flags)
        self.start = self.whole + _WINDOW // 2
        self.nbytes = 0

    def ensure(self, nbytes: int) -> None:
        if nbytes > self.nbytes:
            self.nbytes = round_up(nbytes)
            protect_pages(self.start, self.nbytes, PROT_READ | PROT_WRITE)

    def free(self) -> None:
        unmap_pages(self.whole, _WINDOW + PAGE)


class Worker:
    """What one thread needs to run blocks; used by one thread at a time."""

    def __init__(self, native: NativeCode) -> None:
        self.native = native
        self.entry = native.address("gpu_run")
        self.context = Context()
        native.bind(self.context)
        self.stack = Stack(1 << 21)
        self.stack.attach(self.context)
        self._records = _Mapping()
        self._local = _Mapping()
        self._fibres = _Mapping()
        self._meetings = _Mapping()
        self._stacks = _Mapping()
        self._areas = _Mapping()
        self._windows: list[_Window] = []
        self.pointer = 0
        self._ready: tuple[int, ...] = ()
        self._launch = 0
        self._resident = 0  # records that there are
        self.area = 0  # what checked kernels keep of the first block

    def prepare(self, needs: Needs, launch: int) -> None:
        """Have memory for a kernel, and point the records to it and to a launch."""
        key = (
            needs.shared,
            needs.local_nbytes,
            needs.flows,
            needs.fibres,
            needs.width,
            needs.resident,
            needs.area,
        )
        if key != self._ready:
            self._ready = ()
            self._build(needs)
            self._ready = key
        if launch != self._launch:
            for n in range(needs.resident):
                self._put(n, "launch", launch)
            self._launch = launch

    def abandon(self) -> None:
        """A launch did not come to its end: what waited for others may be anywhere."""
        self._ready = ()

    def _put(self, record: int, name: str, value: int) -> None:
        place = self.pointer + record * WORKER_NBYTES + WORKER[name]
        ctypes.c_uint64.from_address(place).value = value

    def _build(self, needs: Needs) -> None:
        self._resident = needs.resident
        self.pointer = self._records.ensure(needs.resident * WORKER_NBYTES)
        ctypes.memset(self.pointer, 0, needs.resident * WORKER_NBYTES)
        self._launch = 0
        flows = needs.flows if needs.fibres else 1
        local = self._local.ensure(max(needs.resident * flows * needs.local_nbytes, 1) + _SLACK)
        stacks = each = 0
        fibres = self._fibres.ensure(FIBRE_NBYTES)
        if needs.fibres:
            fibres = self._fibres.ensure(needs.resident * flows * FIBRE_NBYTES)
            size = _STACK if needs.width > 1 else _THREAD_STACK
            each = size + PAGE
            stacks = self._stacks.ensure(needs.resident * flows * each)
            # A page that nothing may touch below each stack.
            for n in range(needs.resident * flows):
                protect_pages(stacks + n * each, PAGE, PROT_NONE)
                protect_pages(stacks + n * each + PAGE, size, PROT_READ | PROT_WRITE)
        self.area = 0
        if needs.area:
            self.area = self._areas.ensure(needs.resident * needs.area)
            for n in range(needs.resident):
                # Clocks count as used: what another kernel has left is not to be believed.
                head = self.area + n * needs.area
                ctypes.memset(head, 0, HEAD_NBYTES)
                ctypes.c_uint32.from_address(head + HEAD["dirty"]).value = 1
                ctypes.c_uint64.from_address(head + HEAD["shared"]).value = needs.shared
        meetings = 0
        if needs.width == 1:
            nbytes = MAX_FLOWS * MEETING_NBYTES + 128
            meetings = self._meetings.ensure(needs.resident * nbytes)
            ctypes.memset(meetings, 0, needs.resident * nbytes)
        while len(self._windows) < needs.resident:
            self._windows.append(_Window())
        stop = self.context.pointer + FIELDS["stop"][0]
        for n in range(needs.resident):
            window = self._windows[n]
            window.ensure(max(needs.shared, 1))
            fields = {
                "context": self.context.pointer,
                "shared": window.start,
                "leave": self.native.address("aa_leave"),
                "barrier": self.native.address("gpu_barrier"),
                "sync": self.native.address("gpu_sync"),
                "pause": self.native.address("gpu_pause"),
                "exchange": self.native.address("gpu_meet"),
                "stop": stop,
                "local_start": local + n * flows * needs.local_nbytes,
                "fibres": fibres + n * flows * FIBRE_NBYTES,
                "stacks": stacks + n * flows * each + each,
                "stack_nbytes": each,
                "root": self.pointer,
                "check": self.area + n * needs.area,
            }
            if needs.width == 1:
                place = meetings + n * (MAX_FLOWS * MEETING_NBYTES + 128)
                fields["slots"] = place
                fields["ended"] = place + MAX_FLOWS * MEETING_NBYTES
            for name, value in fields.items():
                self._put(n, name, value)

    def run(self) -> int:
        """Run blocks of the launch until there are none: an exit code, 0 when all is well."""
        prepare_thread(self.context)
        return self.native.enter(self.context, self.entry, self.pointer)

    def fields(self) -> tuple[tuple[int, int, int], int]:
        """The block and the flow of control that ran last."""
        (record,) = struct.unpack("<Q", ctypes.string_at(self.pointer + WORKER["running"], 8))
        x, y, z, warp = struct.unpack("<4I", ctypes.string_at(record + WORKER["ctaid"], 16))
        (fibre,) = struct.unpack("<Q", ctypes.string_at(record + WORKER["current"], 8))
        if fibre:
            (warp,) = struct.unpack("<I", ctypes.string_at(fibre + FIBRE_WARP, 4))
        return (x, y, z), warp

    def take_line(self) -> tuple[int, int]:
        """Line and column of the instruction that left, zeros if none; only the first time."""
        (record,) = struct.unpack("<Q", ctypes.string_at(self.pointer + WORKER["running"], 8))
        line, column = struct.unpack("<2I", ctypes.string_at(record + WORKER["line"], 8))
        ctypes.memset(record + WORKER["line"], 0, 8)
        return line, column

    def report(self, needs: Needs) -> tuple[Found, tuple[int, int, int], int]:
        """What a checked kernel has found, in which block, and where its shared memory lies."""
        for n in range(needs.resident):
            found = read_report(ctypes.string_at(self.area + n * needs.area, HEAD_NBYTES))
            if found.kind:
                ctypes.memset(self.area + n * needs.area, 0, 4)
                place = self.pointer + n * WORKER_NBYTES + WORKER["ctaid"]
                x, y, z = struct.unpack("<3I", ctypes.string_at(place, 12))
                return found, (x, y, z), self._windows[n].start
        raise AssertionError("a checked kernel has left without a report")

    def in_stack_guard(self, address: int) -> bool:
        """Whether an address is where a stack has no more room."""
        if self.stack.guard <= address < self.stack.guard + PAGE:
            return True
        stacks = self._stacks
        return stacks.start <= address < stacks.start + stacks.nbytes

    def free(self) -> None:
        """Give all memory back."""
        mappings = self._records, self._local, self._fibres, self._meetings, self._stacks
        for mapping in (*mappings, self._areas):
            mapping.free()
        for window in self._windows:
            window.free()
        self._windows.clear()


class Helpers:
    """Threads that wait for work beside the one that launches."""

    def __init__(self, native: NativeCode, count: int) -> None:
        self.native = native
        self.workers = [Worker(native) for _ in range(count)]
        self._start = [threading.Semaphore(0) for _ in range(count)]
        self._done = threading.Semaphore(0)
        self._leader: Worker | None = None
        self.codes = [0] * count
        self.owner = os.getpid()
        for number in range(count):
            thread = threading.Thread(
                target=self._work, args=(number,), name=f"anyarch-gpu-{number}", daemon=True
            )
            thread.start()

    def _work(self, number: int) -> None:
        worker, start = self.workers[number], self._start[number]
        while True:
            start.acquire()
            try:
                self.codes[number] = worker.run()
                if self.codes[number]:
                    self.stop()
                    if self._leader is not None:
                        self._leader.context.set("stop", 1)
            finally:
                self._done.release()

    def start(self, count: int, leader: Worker) -> None:
        """Let some of them run what their workers were prepared for, beside the leader: if one
        fails, all end."""
        self._leader = leader
        for worker in self.workers:
            worker.context.set("stop", 0)
        for number in range(count):
            self._start[number].release()

    def wait(self, count: int) -> None:
        """Wait for them."""
        for _ in range(count):
            self._done.acquire()

    def stop(self) -> None:
        """Ask all to end at once."""
        for worker in self.workers:
            worker.context.set("stop", 1)
