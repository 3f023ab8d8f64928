"""The interpreter: records run by native handlers, Python only where native code returns.

Everything hot is in the blob (``engine.native``). This class owns the buffers that native code
works on, enters it, and turns what it returns into an :class:`Exit` with exact pc and registers.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Protocol, Self

from anyarch.data import dataclass
from anyarch.engine.arena import PAGE_HOOK, RecordArena
from anyarch.engine.exits import Exit
from anyarch.host import signals
from anyarch.host.code import NativeCode, region_base
from anyarch.host.context import (
    FIELDS,
    NOTE_COUNT,
    NOTE_NBYTES,
    NOTES,
    PASS,
    REGISTERS,
    STEPPING,
    STOP,
    Context,
    ExitCode,
)
from anyarch.host.stack import Stack
from anyarch.host.x86_64 import DWARF_ORDER
from anyarch.isa.registers import State

if TYPE_CHECKING:
    from anyarch.engine.reference import Reference
    from anyarch.isa.architecture import Architecture
    from anyarch.memory.space import AddressSpace

IN_CONTEXT: Final = 1  # value of the record field: a region stored its pc
_STACK_RESERVE: Final = 1 << 16  # for the frames of one region and what it calls
_NO_ADDRESS: Final = (1 << 64) - 1
_NOTES, _TAGS, _UNFINISHED = (FIELDS[name][0] >> 2 for name in ("notes", "tags_met", "unfinished"))
_UNLIMITED: Final = 1 << 62  # a budget that is never spent
_SI_KERNEL, _SEGV_MAPERR = 128, 1  # si_code, sigaction(2)

# Exits whose record tells the pc; for the others the context has it.
_AT_RECORD: Final = frozenset(
    {
        ExitCode.BREAKPOINT,
        ExitCode.ILLEGAL,
        ExitCode.FAULT,
        ExitCode.FETCH,
        ExitCode.BUDGET,
        ExitCode.EMULATE,
        ExitCode.EXCEPTION,
        ExitCode.HOOK,
    }
)
# Exits at what ends a block without being one of its instructions: it takes no budget to get there.
_UNCOUNTED: Final = frozenset({ExitCode.ILLEGAL, ExitCode.FETCH, ExitCode.HOOK})
_MXCSR_MASKED: Final = 0x1F80
_CONTROL: Final = (0x0000, 0x6000, 0x2000, 0x4000)


def _to_guest_flags(mxcsr: int) -> int:
    return (
        (mxcsr >> 5 & 1) | (mxcsr >> 4 & 1) << 1 | (mxcsr >> 3 & 1) << 2
        | (mxcsr >> 2 & 1) << 3 | (mxcsr & 1) << 4
    )  # fmt: skip


def _to_mxcsr_flags(flags: int) -> int:
    return (
        (flags & 1) << 5 | (flags >> 1 & 1) << 4 | (flags >> 2 & 1) << 3
        | (flags >> 3 & 1) << 2 | (flags >> 4 & 1)
    )  # fmt: skip


_GUEST_FLAGS: Final = tuple(_to_guest_flags(value) for value in range(64))
_ROUNDING_MODES: Final = 3  # the greatest that is no more than a rounding mode
_MXCSR_FLAGS: Final = tuple(_to_mxcsr_flags(value) for value in range(32))


@dataclass(frozen=True, slots=True)
class Note:
    """A poll: what led to a pc, the link register there, and all registers of its file.

    ``source`` is the host pointer of the record that jumped, FROM_REGION, FROM_CALL, or 0 for none
    of these.
    """

    source: int
    pc: int
    link: int
    registers: bytes


class Sampler(Protocol):
    """Who wants to know where time is spent."""

    def begin(self, pc: int) -> None: ...
    def passed(self, runner: Interpreter) -> None: ...
    def provide(self, pc: int) -> bool: ...
    def after_fork(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Interpreter:
    """Runs one guest thread natively.

    ``counting`` makes ``retired`` and budgets exact at a small cost; it is switched on by the
    first budget.
    """

    def __init__(
        self,
        architecture: Architecture,
        space: AddressSpace,
        native: NativeCode,
        *,
        thunk: str = "aa_no_thunk",
        counting: bool = False,
        arena: RecordArena | None = None,
    ) -> None:
        self.architecture, self.space, self.native = architecture, space, native
        self.context = Context()
        self._stack = Stack()
        self._stack.attach(self.context)
        native.bind(self.context)
        signals.install_fault_handlers(native)
        view = self.context.view
        self.state = State(
            architecture.layout, view[REGISTERS : REGISTERS + architecture.layout.nbytes]
        )
        self._bytes = view
        self._u64 = view.cast("Q")
        self._u32 = view.cast("I")
        self.arena = arena or RecordArena(space, native, counting=counting)
        self.arena.runners.append(self)
        self.inside = False  # native code may be running, or its records are being looked at
        self.epoch = 0  # of the arena, when native code was entered
        self.context.set("translator", self.arena.translator)
        self.context.set("jump_cache", self.arena.table)
        self.context.set("memory_base", space.base)
        self.context.set("memory_limit", space.limit)
        self._thunk = thunk
        self.context.set("syscall_thunk", native.address(thunk))
        self.context.set("reservation_address", -1)
        self.context.set("ignored_bits", 64 - architecture.pointer_bits)
        self._run_entry = native.address("aa_base")
        self.context.set("run_entry", native.address("aa_run"))
        for name in ("call", "goto", "return", "leave", "drop"):
            self.context.set(f"region_{name}", native.address(f"aa_region_{name}"))
        self.context.set("region_table", self.arena.region_table)
        self.context.set("region_base", region_base())
        self.context.set("stack_limit", self._stack.top - self._stack.nbytes + _STACK_RESERVE)
        self._step_entry = native.address("aa_step")
        self._reference: Reference | None = None
        self.sampler: Sampler | None = None
        link = architecture.convention.link
        count = architecture.layout.by_name[link[0]].count if link is not None else 0
        self._noted = 16 + 8 * count  # bytes of a note
        self._link = 8 * link[1] if link is not None else 0  # where its registers have the link
        self._counted = _UNLIMITED if self.counting else 0  # total of the budgets given so far
        self._set("remaining", self._counted)

    def spawn(self) -> Self:
        """An engine for another thread of the same guest: its registers a copy of these."""
        made = type(self)(
            self.architecture, self.space, self.native, thunk=self._thunk, arena=self.arena
        )
        for name in ("abi", "syscall_table"):
            made.context.set(name, self.context.get(name))
        made.sampler = self.sampler
        made.state.restore(self.state.save())
        return made

    def close(self) -> None:
        """This thread of the guest has ended; after the last one nothing is sampled."""
        if self in self.arena.runners:
            self.arena.runners.remove(self)
        if self.sampler is not None and not self.arena.runners:
            self.sampler.stop()

    def finish(self) -> None:
        """The process is about to end: what was seen and is not compiled is left to others."""
        if self.sampler is not None:
            self.sampler.close()

    def after_fork(self) -> None:
        """This is the only thread of a forked child."""
        if self.sampler is not None:
            self.sampler.after_fork()
        self.arena.after_fork(self)

    # Small accessors: the general ones of Context are too slow for every system call.
    def _get(self, name: str) -> int:
        return self._u64[FIELDS[name][0] >> 3]

    def _set(self, name: str, value: int) -> None:
        self._u64[FIELDS[name][0] >> 3] = value

    @property
    def counting(self) -> bool:
        """Whether retired instructions are counted."""
        return self.arena.counting

    @property
    def retired(self) -> int:
        """Instructions completed since counting was switched on."""
        return self._counted - self._get("remaining")

    def flush(self) -> None:
        """Discard all translated code."""
        self.arena.flush()

    def keep_exact(self) -> None:
        """Have registers exact at every fault from here on: what has faulted will be run again."""
        if self.arena.on_exact is not None:
            self.arena.on_exact()

    def code_changed(self, address: int, nbytes: int) -> None:
        """Guest code in a range was written: translate it anew when it is reached."""
        self.arena.code_change(address, nbytes)

    # Running.
    def _sync_in(self) -> None:
        self._u64[FIELDS["pc"][0] >> 3] = self.state.pc
        status = self.architecture.float_status
        if status is not None:
            mode = self.state.get(*status.rounding)
            flags = self.state.get(*status.flags)
            control = _CONTROL[mode & 3]
            self._u32[FIELDS["mxcsr"][0] >> 2] = _MXCSR_MASKED | control | _MXCSR_FLAGS[flags & 31]

    def _sync_out(self) -> None:
        status = self.architecture.float_status
        if status is not None:
            mxcsr = self._u32[FIELDS["mxcsr"][0] >> 2]
            kept = self.state.get(*status.flags) & ~31  # flags that only the reference engine has
            self.state.set(*status.flags, kept | _GUEST_FLAGS[mxcsr & 63])

    def _enter(self, entry: int) -> ExitCode:
        """Run native code from ``state.pc``; ``state.pc`` is exact afterwards.

        KeyboardInterrupt passes through here once native code has returned, the state exact.
        """
        signals.prepare_thread(self.context)
        self._sync_in()
        self.inside = True
        while self.arena.is_closed():
            self.inside = False
            self.arena.wait()
            self.inside = True
        self.epoch = self.arena.epoch  # after `inside`: until then an older one counts
        try:
            self.native.enter(self.context, entry)
        finally:
            self._sync_out()
            code = self._locate(ExitCode(self._u32[FIELDS["exit_code"][0] >> 2]))
            self.inside = False
        return code

    def _locate(self, code: ExitCode) -> ExitCode:
        """Set ``state.pc`` after native code has left with ``code``."""
        if code not in _AT_RECORD:
            self.state.pc = self._get("pc")
            return code
        host = self._get("fault_host")
        if host:  # the fault handler was there
            self._set("fault_host", 0)
            found = self.arena.locate_code(host)
            if found is not None:
                self._set("record", found)
            elif self.arena.locate_region is not None:
                located = self.arena.locate_region(host, self._fault_registers())
                if located is not None:
                    self._set("record", IN_CONTEXT)
                    self.state.pc, traced = located
                    for index, value in traced:
                        self.state.set(*self.architecture.convention.traced[index], value)
                    return code
        record = self._get("record")
        if record == IN_CONTEXT:
            self.state.pc = self._get("pc")
            return code
        if not record:  # the translator itself could not read the code
            self.arena.release_lock(self.context.pointer)
            self.state.pc = self._get("pc")
            return ExitCode.FETCH
        first, start, self.state.pc = self.arena.find(record)
        if self.counting and code is not ExitCode.BUDGET:
            self._uncount(first, start)
        return code

    def _fault_registers(self) -> tuple[int, ...]:
        """The host's at the instruction that faulted, in DWARF's order."""
        start = FIELDS["fault_registers"][0] >> 3
        return tuple(self._u64[start + place] for place in DWARF_ORDER)

    def _uncount(self, first: int, pc: int) -> None:
        """Give back the instructions of the block that did not complete."""
        counted = ctypes.c_uint64.from_address(first + 16).value
        done = 0
        while pc < self.state.pc:
            word = int.from_bytes(self.space.read(pc, 2), "little")
            pc += self.architecture.length(word)
            done += 1
        self._set("remaining", self._get("remaining") + counted - done)

    def _allow(self, budget: int) -> None:
        """Let ``budget`` instructions run from here."""
        self._counted = self.retired + budget
        self._set("remaining", budget)

    def run(self, budget: int | None = None) -> Exit:
        """Run until something needs Python, or ``budget`` instructions have completed."""
        if budget is not None:
            if not self.counting:
                self.arena.flush()
                self.arena.counting = True
                self._counted = self._get("remaining")
            self._allow(budget)
        elif self.counting:
            self._allow(_UNLIMITED)
        if self.sampler is not None:
            self.sampler.begin(self.state.pc)
        while True:
            try:
                code = self._enter(self._run_entry)
            except KeyboardInterrupt:
                self._finish()
                raise
            if self._u32[_UNFINISHED] and (ended := self._finish()) is not None:
                return ended
            if code == ExitCode.FLUSH:
                self.arena.make_room()
            elif code == ExitCode.EMULATE:
                ended = self._emulate()
                if ended is not None:
                    return ended
            elif code == ExitCode.NEW:
                ended = self._provide()
                if ended is not None:
                    return ended
            elif code == ExitCode.CODE_CHANGED:
                self._take_announcement()
            elif code == ExitCode.STOP and self._bytes[PASS]:
                self._bytes[PASS] = 0
                if self._u32[_TAGS]:
                    self._mask()
                if self.sampler is not None:
                    self.sampler.passed(self)
                if self._bytes[STOP]:
                    return self._exit(code)
            elif code == ExitCode.BUDGET and self._get("remaining"):
                while self._get("remaining"):
                    ended = self.step()
                    if ended is not None:
                        return ended
                return Exit(ExitCode.BUDGET, self.state.pc)
            elif code in _UNCOUNTED and self.counting and not self._get("remaining"):
                return Exit(ExitCode.BUDGET, self.state.pc)
            else:
                return self._exit(code)

    def _finish(self) -> Exit | None:
        """A region has left at a poll where registers are not exact that are overwritten soon: run
        these instructions. None, or what ended that: registers may be inexact then at a fault."""
        left, self._u32[_UNFINISHED] = self._u32[_UNFINISHED], 0
        for _ in range(left):
            ended = self.step()
            if ended is not None and ended.code is not ExitCode.STOP:
                return ended
        return None

    def _mask(self) -> None:
        """A region without masks has met a pointer that needs one."""
        self._u32[_TAGS] = 0
        if self.arena.on_tags is not None:
            self.arena.on_tags()

    def _exit(self, code: ExitCode) -> Exit:
        pc = self.state.pc
        if code == ExitCode.FAULT:
            if self.context.get("fault_code") == _SI_KERNEL:
                self._find_address()
            address, signal = self._get("fault_address"), self.context.get("fault_signal")
            return Exit(code, pc, address, signal)
        if code == ExitCode.FETCH:
            address = self._get("fault_address") if self._get("record") else pc
            return Exit(code, pc, address)
        if code == ExitCode.EXCEPTION:
            return Exit(code, pc, self._get("fault_address"), self._get("exit_detail"))
        return Exit(code, pc)

    def _find_address(self) -> None:
        """The host does not tell addresses that it cannot have (not canonical), and its handler
        knows not all of them: find it out."""
        ended = self.reference.step()
        if ended is not None and ended.code == ExitCode.FAULT:
            self._set("fault_address", ended.address)
            self.context.set("fault_signal", signals.SIGSEGV)
            self.context.set("fault_code", _SEGV_MAPERR)

    def step(self) -> Exit | None:
        """Run one instruction, hooked or not; None when it completed."""
        if self.counting and not self._get("remaining"):
            self._allow(_UNLIMITED)  # a budget limits run, not single steps
        mark = self.arena.mark()
        self._bytes[STEPPING] = 1
        code = self._enter(self._step_entry)
        if code == ExitCode.FLUSH:
            self.arena.make_room()
            code = self._enter(self._step_entry)
        else:
            self.arena.forget_since(mark)
        self._bytes[STEPPING] = 0
        if code == ExitCode.EMULATE:
            return self._emulate()
        if code == ExitCode.CODE_CHANGED:
            self._take_announcement()
            return None
        if code == ExitCode.STOP:
            return Exit(code, self.state.pc) if self._bytes[STOP] else None
        return self._exit(code)

    @property
    def reference(self) -> Reference:
        """The reference engine over this engine's state and memory; made when first needed."""
        if self._reference is None:
            from anyarch.engine.fetch import FetchMemory
            from anyarch.engine.reference import Reference

            self._reference = Reference(self.architecture, self.state, FetchMemory(self.space))
            self._reference.machine.counters = self._counter
        return self._reference

    def load_rare(self) -> None:
        """Load what is loaded when first needed otherwise: files may be out of reach then."""
        assert self.reference.machine is not None
        assert self.architecture.decoder is not None

    def _emulate(self) -> Exit | None:
        """Let the reference engine run the instruction at ``state.pc``. There is one reservation:
        a load may take it here, and native code store where it holds."""
        if self.arena.on_emulate is not None:
            self.arena.on_emulate(self.state.pc)
        machine = self.reference.machine
        machine.reservation = self._reservation
        ended = self.reference.step()
        self._reservation = machine.reservation
        if self.counting and ended is None:
            self._set("remaining", self._get("remaining") - 1)
        status = self.architecture.float_status
        if (
            status is not None
            and status.rules == "arm"
            and not self.arena.is_plain
            and self.state.get(*status.rounding) > _ROUNDING_MODES
        ):
            self.arena.go_plain()  # handlers know more modes
        return ended

    @property
    def _reservation(self) -> tuple[int, int] | None:
        """The address and the value that were reserved."""
        address, low = self._get("reservation_address"), self._get("reservation_value")
        high = self._u64[(FIELDS["reservation_value"][0] >> 3) + 1]
        return None if address == _NO_ADDRESS else (address, high << 64 | low)

    @_reservation.setter
    def _reservation(self, held: tuple[int, int] | None) -> None:
        address, value = held or (_NO_ADDRESS, 0)
        self._set("reservation_address", address)
        self._set("reservation_value", value & _NO_ADDRESS)
        self._u64[(FIELDS["reservation_value"][0] >> 3) + 1] = value >> 64

    def _provide(self) -> Exit | None:
        """Have the code at ``state.pc`` compiled, or run an instruction that cannot be."""
        pc = self.state.pc
        if self.sampler is not None and self.sampler.provide(pc):
            return None
        if pc < self.space.limit and self.space.flags[pc] & PAGE_HOOK:
            return Exit(ExitCode.HOOK, pc)
        return self.step()

    def _take_announcement(self) -> None:
        """The guest has said that code may have changed: in some lines, or anywhere."""
        start, end = self._get("changed_start"), self._get("changed_end")
        self._set("changed_end", 0)
        if end:
            self.arena.code_change(start, end - start)
        else:
            self.arena.code_announced()

    def _counter(self, name: str) -> int:
        from time import monotonic_ns

        if name == "instret" and self.counting:
            return self.retired
        return monotonic_ns() // 100 if name == "time" else monotonic_ns()

    # What the layers above use.
    def syscall(self, number: int, /, *arguments: int) -> int:
        """Host system call; see :meth:`NativeCode.syscall`. A pass is not worth interrupting it:
        it is taken back, for the guest may have nowhere to leave it but after the call."""
        self._bytes[PASS] = 0
        return self.native.syscall(self.context, number, *arguments)

    def request_stop(self) -> None:
        """Ask for a return from :meth:`run`; from any thread."""
        signals.request_stop(self.context)

    def ask_pass(self) -> None:
        """Ask for a pass through Python at the next poll: the host stack is empty behind it."""
        if self.inside:
            self._bytes[PASS] = 1

    def sample(self) -> None:
        """Have the next polls in interpreted code noted, once the last ones are."""
        if self.inside and not self._u32[_NOTES]:
            self._u32[_NOTES] = NOTE_COUNT

    def take_notes(self) -> list[Note]:
        """What was noted since the last time, the first first; none while polls are to come."""
        found: list[Note] = []
        if self._u32[_NOTES]:
            return found
        for at in range(NOTES + (NOTE_COUNT - 1) * NOTE_NBYTES, NOTES - 1, -NOTE_NBYTES):
            source, pc = self._u64[at >> 3], self._u64[(at >> 3) + 1]
            if pc:
                self._u64[(at >> 3) + 1] = 0
                registers = bytes(self._bytes[at + 16 : at + self._noted])
                link = int.from_bytes(registers[self._link : self._link + 8], "little")
                found.append(Note(source, pc, link, registers))
        return found

    @property
    def is_stop_requested(self) -> bool:
        """Whether somebody has asked for a return; a pass that is wanted is none."""
        return bool(self._bytes[STOP])

    def clear_stop(self) -> None:
        """Take the request back, when it was seen."""
        self._bytes[STOP] = 0

    def claim_signal(self, signum: int, flags: int = 0) -> None:
        """Route a host signal to the guest."""
        signals.claim_signal(signum, self.native, flags)

    def release_signal(self, signum: int) -> None:
        """Give a host signal back."""
        signals.release_signal(signum)

    def take_pending(self, blocked: int = 0) -> list[tuple[int, bytes]]:
        """Take the signals that have arrived, and let others than ``blocked`` arrive again."""
        return signals.take_pending(self.native, self.context, blocked)
