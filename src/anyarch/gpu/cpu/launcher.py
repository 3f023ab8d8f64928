"""Launches: a record for the workers, the wait for them, and what went wrong."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import struct
import threading
from dataclasses import dataclass
from time import monotonic
from typing import Final

from anyarch.gpu.backend import LaunchConfig
from anyarch.gpu.cpu.checker import CHECK, RANGE_NBYTES, Found, area_nbytes
from anyarch.gpu.cpu.lines import SHARED
from anyarch.gpu.cpu.output import format_text, read_c_string
from anyarch.gpu.cpu.program import CpuKernel
from anyarch.gpu.cpu.records import (
    ASSERTION,
    LAUNCH,
    LAUNCH_NBYTES,
    MODE_BLOCKS,
    MODE_FIBRES,
    MODE_WARPS,
    OUTPUT_ARGUMENTS,
    OUTPUT_RECORD,
    TRAP,
)
from anyarch.gpu.cpu.workers import Helpers, Needs, Worker, worker_count
from anyarch.gpu.ptx.tree import Instruction
from anyarch.host.code import NativeCode
from anyarch.host.context import ExitCode
from anyarch.host.signals import install_fault_handlers, interrupt_on_ctrl_c

__all__ = ["Launcher", "Outcome"]

_RECORD: Final = struct.Struct("<2Q8I3Q2I5Q2I4Q")
_OUTPUT_RECORDS: Final = 4096
_CHUNK: Final = 1 << 14  # threads of the blocks that a worker takes at once, about
_WATCH_SECONDS: Final = 0.05
_ALONE: Final = 1 << 14  # threads of a grid that is not worth waking others for


@dataclass(slots=True)
class Outcome:
    """How a launch ended: `reason` is "" when all went well, and `text` what was printed.

    `threads` are the first and the last that it can have been, by their number in the block.
    """

    reason: str = ""
    detail: str = ""
    block: tuple[int, int, int] = (0, 0, 0)
    shape: tuple[int, int, int] = (1, 1, 1)  # of the block
    threads: tuple[int, int] = (0, 0)
    instruction: Instruction | None = None
    found: Found | None = None
    shared: int = 0  # where shared memory lies
    text: str = ""


class _Own(threading.local):
    """What each launching thread has for itself."""

    worker: Worker | None = None
    record: ctypes.Array[ctypes.c_char] | None = None
    process = 0


class Launcher:
    """Runs kernels on this process's threads."""

    def __init__(self, native: NativeCode) -> None:
        self.native = native
        self._own = _Own()
        self._helpers: Helpers | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._output: ctypes.Array[ctypes.c_char] | None = None
        self._watched = 0.0
        install_fault_handlers(native)

    def run(
        self,
        kernel: CpuKernel,
        config: LaunchConfig,
        parameters: bytes,
        seconds: float | None = None,
        ranges: bytes = b"",
    ) -> Outcome:
        """Run a launch to its end. `seconds` limits it; `ranges` are what a checked kernel may
        access, as checker.py lays them out."""
        variant = kernel.variant(config.block)
        facts = variant.facts
        x, y, z = config.block
        threads = x * y * z
        flows = -(-threads // facts.width)
        blocks = config.grid[0] * config.grid[1] * config.grid[2]
        resident, spread = 1, False
        if config.cooperative and facts.fibres:
            # All blocks at once, but not all by one.
            spread = blocks * threads > _ALONE
            resident = -(-blocks // worker_count()) if spread else blocks
        mode, chunk = MODE_BLOCKS, 1
        if facts.fibres:
            mode = MODE_FIBRES if flows > 1 or resident > 1 else MODE_WARPS
            chunk = resident
        else:
            chunk = max(min(blocks // (8 * worker_count()), _CHUNK // threads), 1)
        shared = facts.dynamic + config.shared_memory
        worker, record = self._ready()
        pointer = ctypes.addressof(record)
        program = kernel.program
        self._number += 1
        output = self._output_buffer() if program.prints else 0
        _RECORD.pack_into(
            record,
            0,
            0,
            blocks,
            *config.grid,
            *config.block,
            flows,
            threads,
            pointer + LAUNCH["values"],
            program.memory,
            self._number,
            config.shared_memory,
            shared,
            variant.entry,
            output,
            0,
            _OUTPUT_RECORDS if output else 0,
            facts.local_nbytes,
            facts.width,
            mode,
            program.heap_record() if program.allocates else 0,
            resident,
            pointer + LAUNCH["barrier_words"],
            chunk,
        )
        ctypes.memmove(pointer + LAUNCH["values"], parameters, len(parameters))
        area = 0
        if program.check:
            area = area_nbytes(threads, facts.local, shared)
            listed = ctypes.create_string_buffer(ranges, len(ranges))
            place = ctypes.addressof(listed), len(ranges) // RANGE_NBYTES
            struct.pack_into("<2Q", record, LAUNCH["ranges"], *place)
        fibres = mode == MODE_FIBRES
        needs = Needs(shared, facts.local_nbytes, flows, fibres, facts.width, resident, area)
        where = kernel, config.block
        outcome = self._go(worker, needs, pointer, blocks, threads, seconds, spread, where)
        if output:
            (count,) = struct.unpack_from("<Q", record, LAUNCH["output_next"])
            outcome.text, assertion = self._printed(min(count, _OUTPUT_RECORDS))
            if outcome.reason == "assertion" and assertion:
                outcome.detail = assertion
        return outcome

    def record(self) -> tuple[int, int]:
        """Where this thread's record of a launch lies, which kernels may read: start and size."""
        _, record = self._ready()
        return ctypes.addressof(record), LAUNCH_NBYTES

    def _ready(self) -> tuple[Worker, ctypes.Array[ctypes.c_char]]:
        own = self._own
        if own.worker is None or own.record is None or own.process != os.getpid():
            own.worker = Worker(self.native)
            own.record = ctypes.create_string_buffer(LAUNCH_NBYTES)
            own.process = os.getpid()
        return own.worker, own.record

    def _go(
        self,
        worker: Worker,
        needs: Needs,
        launch: int,
        blocks: int,
        threads: int,
        seconds: float | None,
        spread: bool,
        where: tuple[CpuKernel, tuple[int, int, int]],
    ) -> Outcome:
        """`spread` says that the launch cannot end without helpers."""
        worker.prepare(needs, launch)
        worker.context.set("stop", 0)
        helpers = None
        count = min(worker_count() - 1, -(-blocks // needs.resident) - 1)
        if count > 0 and blocks * threads > _ALONE and self._lock.acquire(blocking=spread):
            helpers = self._ready_helpers()
        timer = None
        if seconds is not None:
            timer = threading.Timer(seconds, self._stop, (worker, helpers))
            timer.start()
        try:
            if helpers is not None:
                for one in helpers.workers[:count]:
                    one.prepare(needs, launch)
                helpers.start(count, worker)
            self._watch_ctrl_c()
            code = self._main(worker, helpers, count)
        finally:
            if timer is not None:
                timer.cancel()
            if helpers is not None:
                self._lock.release()
        outcome = _outcome(code, worker, needs, *where)
        if helpers is not None:
            for number in range(count):
                # One that failed has stopped the others.
                if outcome.reason in ("", "stop"):
                    one = helpers.workers[number]
                    other = _outcome(helpers.codes[number], one, needs, *where)
                    outcome = other if other.reason else outcome
        return outcome

    def _watch_ctrl_c(self) -> None:
        """Let Ctrl-C stop kernels. The handler stays: a program may put its own over it at any
        time, but asking the kernel costs as much as a small launch, so not every time."""
        now = monotonic()
        if now - self._watched > _WATCH_SECONDS:
            self._watched = now
            interrupt_on_ctrl_c(self.native).__enter__()

    def _main(self, worker: Worker, helpers: Helpers | None, count: int) -> int:
        code = 1
        try:
            code = worker.run()
        finally:
            if helpers is not None:
                if code:
                    helpers.stop()
                helpers.wait(count)
        return code

    def _ready_helpers(self) -> Helpers:
        if self._helpers is None or self._helpers.owner != os.getpid():
            self._helpers = Helpers(self.native, worker_count() - 1)
        return self._helpers

    @staticmethod
    def _stop(worker: Worker, helpers: Helpers | None) -> None:
        worker.context.set("stop", 1)
        if helpers is not None:
            helpers.stop()

    def _output_buffer(self) -> int:
        if self._output is None:
            self._output = ctypes.create_string_buffer(_OUTPUT_RECORDS * OUTPUT_RECORD)
        return ctypes.addressof(self._output)

    def _printed(self, count: int) -> tuple[str, str]:
        """What was printed, and the text of a failed assertion."""
        assert self._output is not None
        parts, assertion = [], ""
        for number in range(count):
            at = number * OUTPUT_RECORD
            kind, address = struct.unpack_from("<QQ", self._output, at)
            start = ctypes.addressof(self._output) + at + OUTPUT_ARGUMENTS
            arguments = ctypes.string_at(start, OUTPUT_RECORD - OUTPUT_ARGUMENTS)
            if kind == 1:
                parts.append(format_text(read_c_string(address), arguments, read_c_string))
            else:
                assertion = f"assertion {read_c_string(address)!r} failed"
        return "".join(parts), assertion


def _outcome(
    code: int, worker: Worker, needs: Needs, kernel: CpuKernel, shape: tuple[int, int, int]
) -> Outcome:
    if code == 0:
        return Outcome()
    block, flow = worker.fields()
    last = min((flow + 1) * needs.width, math.prod(shape)) - 1
    threads = flow * needs.width, last
    outcome = Outcome("trap", f"it left with code {code}", block, shape, threads)
    outcome.instruction = kernel.instruction_of(*worker.take_line())
    worker.abandon()
    context = worker.context
    match code:
        case ExitCode.STOP:
            outcome.reason, outcome.detail = "stop", "it was stopped"
        case ExitCode.FAULT:
            address = context.get("fault_address")
            pointer = context.get("fault_host")
            found = kernel.instruction_at(shape, pointer)
            if found is not SHARED:  # else the line was noted
                outcome.instruction = found
            outcome.reason, outcome.detail = "address", f"address {address:#x} cannot be accessed"
            if worker.in_stack_guard(address):
                outcome.reason, outcome.detail = "stack", "its calls nest too deep"
            elif context.get("fault_signal") == signal.SIGILL:
                outcome.reason, outcome.detail = "trap", "it came to an unreachable place"
        case value if value == CHECK:
            outcome.found, outcome.block, outcome.shared = worker.report(needs)
            thread = outcome.found.thread
            outcome.reason, outcome.threads = "check", (thread, thread)
            outcome.instruction = kernel.instruction_of(*outcome.found.place)
        case value if value == TRAP:
            outcome.detail = "it executed trap"
        case value if value == ASSERTION:
            outcome.reason, outcome.detail = "assertion", "an assertion failed"
    return outcome
