"""A processor to be driven from Python: memory, registers, hooks, exact stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from anyarch._native import architecture, native_code
from anyarch._run import ENGINES, JitOptions, engine_statistics, make_sampler
from anyarch.engine.exits import Exit
from anyarch.engine.fetch import FetchMemory
from anyarch.engine.interpreter import Interpreter
from anyarch.engine.reference import Reference
from anyarch.errors import Error, MemoryFault
from anyarch.host.context import ExitCode
from anyarch.host.signals import interrupt_on_ctrl_c
from anyarch.memory import snapshot
from anyarch.memory.pageflags import HOOK
from anyarch.memory.space import AddressSpace

CodeHook = Callable[["Cpu", int], None]
MemoryHook = Callable[["Cpu", str, int, int, bytes], None]
SyscallHook = Callable[["Cpu"], None]
PAGE = 4096
_FEW = 16  # pages whose code is dropped one by one; beyond, all is


@dataclass(frozen=True, slots=True)
class SavedState:
    """What :meth:`Cpu.save` took: registers and memory."""

    registers: Any
    memory: snapshot.Snapshot


class Cpu:
    """One guest processor with memory of its own; no operating system.

    ``bits`` is the size of the guest's address space: no guest access, however wild, reaches
    anything else. Memory is mapped before it is used. Registers are read and written by their
    assembly names, or ``pc``. ``engine`` is auto, interp, reference or jit, for which ``jit`` says
    how it works; hot code is compiled then while it runs, except where it has hooks, and until a
    first run with a ``count``.

    >>> from anyarch import Cpu
    >>> cpu = Cpu("riscv64")
    >>> cpu.map(0x1000, 0x1000)
    >>> end = cpu.write_assembly(0x1000, "li a0, 6; li a1, 7; mul a0, a0, a1")
    >>> cpu.run(0x1000, until=end).pc == end
    True
    >>> cpu["a0"]
    42
    """

    def __init__(
        self,
        name: str = "riscv64",
        *,
        engine: str = "auto",
        bits: int = 38,
        jit: JitOptions | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise Error(f"no engine is named {engine!r}; expected one of {', '.join(ENGINES)}")
        self.architecture = architecture(name)
        self.memory = AddressSpace(bits, bounded=True)
        native = native_code(name, "bounded")
        self._engine = Interpreter(self.architecture, self.memory, native)
        if engine == "jit":
            self._engine.sampler = make_sampler(self._engine, name, "bounded", jit or JitOptions())
        self._native = native
        self._always_reference = engine == "reference"
        self._code_hooks: list[tuple[int, int, CodeHook]] = []
        self._memory_hooks: list[tuple[int, int, MemoryHook]] = []
        self._syscall_hook: SyscallHook | None = None

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and engine.sampler is not None:
            engine.sampler.close()

    @property
    def statistics(self) -> dict[str, Any]:
        """What was translated and compiled: see :class:`anyarch.Result`."""
        return engine_statistics(self._engine)

    # Registers.
    @property
    def pc(self) -> int:
        """Address of the next instruction."""
        return self._engine.state.pc

    @pc.setter
    def pc(self, value: int) -> None:
        self._engine.state.pc = value

    def _find(self, name: str) -> tuple[str, int]:
        found = self.architecture.layout.find(name)
        if found is None:
            raise KeyError(f"{self.architecture.name} has no register {name!r}")
        return found

    def __getitem__(self, name: str) -> int:
        return self.pc if name == "pc" else self._engine.state.get(*self._find(name))

    def __setitem__(self, name: str, value: int) -> None:
        if name == "pc":
            self.pc = value
        else:
            self._engine.state.set(*self._find(name), value)

    def registers(self) -> dict[str, int]:
        """All registers and ``pc``, by name."""
        files = self.architecture.layout.by_name
        result = {
            files[file].label(index): value for file, index, value in self._engine.state.registers()
        }
        return result | {"pc": self.pc}

    # Memory.
    def map(self, address: int, nbytes: int, prot: int | str = "rwx") -> None:
        """Map zeroed memory; both numbers multiples of 4096. ``prot``: r, w, x, or PROT_ bits."""
        self.memory.map(address, nbytes, _prot(prot), fixed=True)

    def unmap(self, address: int, nbytes: int) -> None:
        """Unmap whole pages."""
        self.memory.unmap(address, nbytes)

    def protect(self, address: int, nbytes: int, prot: int | str) -> None:
        """Change what may be done with whole pages."""
        self.memory.protect(address, nbytes, _prot(prot))

    def read(self, address: int, nbytes: int) -> bytes:
        """Read memory; MemoryFault names the first address that cannot be read."""
        return self.memory.read(address, nbytes)

    def write(self, address: int, data: bytes) -> None:
        """Write memory, read-only memory too; code that was there is translated anew."""
        try:
            self.memory.write(address, data)
        except MemoryFault:
            self._write_protected(address, data)
        first, last = address & -PAGE, (address + len(data) + PAGE - 1) & -PAGE
        if self.memory.flags.code_runs(first, last):
            self._engine.flush()

    def _write_protected(self, address: int, data: bytes) -> None:
        first, last = address & -PAGE, (address + len(data) + PAGE - 1) & -PAGE
        kept = [r.part(max(r.start, first), min(r.end, last)) for r in self.memory.regions()
                if r.start < last and first < r.end]  # fmt: skip
        for region in kept:
            self.memory.protect(region.start, region.end - region.start, region.prot | 3)
        try:
            self.memory.write(address, data)
        finally:
            for region in kept:
                self.memory.protect(region.start, region.end - region.start, region.prot)

    def write_assembly(self, address: int, text: str) -> int:
        """Assemble to ``address``; the address after the last instruction."""
        from anyarch.isa.assembly import assemble

        code = assemble(self.architecture, text, address)
        self.write(address, code)
        return address + len(code)

    # Hooks.
    def hook_code(
        self, callback: CodeHook, start: int = 0, end: int | None = None
    ) -> Callable[[], None]:
        """Call ``callback(cpu, pc)`` before each instruction in [start, end); returns its remover.

        The rest of the program runs at full speed: only the pages in the range are watched.
        """
        last = self.memory.limit if end is None else end
        entry = (start, last, callback)
        self._code_hooks.append(entry)
        self._mark_hooks()

        def remove() -> None:
            self._code_hooks.remove(entry)
            self._mark_hooks()

        return remove

    def hook_memory(
        self, callback: MemoryHook, start: int = 0, end: int | None = None
    ) -> Callable[[], None]:
        """Call ``callback(cpu, kind, address, nbytes, data)`` at accesses; returns its remover.

        ``kind`` is read (after it happened) or write (before). While there is such a hook the
        reference engine runs, which is thousands of times slower.
        """
        entry = (start, self.memory.limit if end is None else end, callback)
        self._memory_hooks.append(entry)
        return lambda: self._memory_hooks.remove(entry)

    def hook_syscall(self, callback: SyscallHook | None) -> None:
        """Call ``callback(cpu)`` at system calls, then go on; None: :meth:`run` returns at them."""
        self._syscall_hook = callback

    def _mark_hooks(self, until: int | None = None) -> None:
        flags = self.memory.flags
        before = set(flags.hooked())
        for page in before:
            flags.set_hook(page, False)
        regions = self.memory.regions()
        for start, end, _ in self._code_hooks:
            for region in regions:
                low, high = max(start, region.start) & -PAGE, min(end, region.end)
                for page in range(low, high, PAGE):
                    flags.set_hook(page, True)
        if until is not None and 0 <= until < self.memory.limit:
            flags.set_hook(until, True)
        changed = before ^ set(flags.hooked())
        if len(changed) > _FEW:
            self._engine.flush()
            return
        for page in changed:
            self._engine.code_changed(page, PAGE)

    # Running.
    def run(
        self,
        start: int | None = None,
        *,
        until: int | None = None,
        count: int | None = None,
        timeout: float | None = None,
    ) -> Exit:
        """Run from ``start`` (default: pc), and say why it ended, with pc and registers exact.

        It ends before the instruction at ``until`` (code HOOK), after ``count`` instructions
        (BUDGET), after ``timeout`` seconds or :meth:`stop` (STOP), or at what the guest did:
        BREAKPOINT, SYSCALL without a hook, FAULT, FETCH, ILLEGAL, EXCEPTION. Ctrl-C raises
        KeyboardInterrupt within milliseconds; the state stays exact.
        """
        if start is not None:
            self.pc = start
        if self._always_reference or self._memory_hooks:
            return self._run_reference(until, count, timeout)
        with _Timer(self, timeout), interrupt_on_ctrl_c(self._native):
            self._mark_hooks(until)
            try:
                return self._run_native(until, count)
            finally:
                self._engine.clear_stop()
                self._mark_hooks()

    def step(self, count: int = 1) -> Exit | None:
        """Run ``count`` instructions; None when all completed, else why not."""
        ended = self.run(count=count)
        return None if ended.code is ExitCode.BUDGET else ended

    def stop(self) -> None:
        """End a :meth:`run` that another thread, or a hook, is in."""
        self._engine.request_stop()

    def _run_native(self, until: int | None, count: int | None) -> Exit:
        engine, left, first = self._engine, count, True
        while left is None or left > 0:
            pc = self.pc
            if pc == until and not first:
                return Exit(ExitCode.HOOK, pc)
            if first or self._is_watched(pc):
                # Native code would stop here again: this instruction is stepped over.
                if not self._call_hooks(pc):
                    return Exit(ExitCode.STOP, self.pc)
                ended, done = engine.step(), 1
                if ended is None:
                    first, left = False, None if left is None else left - 1
                    continue
            else:
                ended = engine.run(left)
                done = 0 if left is None else left - engine.context.get("remaining")
            first, left = False, None if left is None else left - done
            if ended.code is not ExitCode.HOOK and not self._serve(ended):
                return ended
        return Exit(ExitCode.BUDGET, self.pc)

    def _serve(self, ended: Exit) -> bool:
        """Whether a system call was served by its hook."""
        if ended.code is ExitCode.SYSCALL and self._syscall_hook is not None:
            self._syscall_hook(self)
            return True
        return False

    def _is_watched(self, pc: int) -> bool:
        """Whether native code stops at an instruction, for a hook or for one in its page."""
        return 0 <= pc < self.memory.limit and bool(self.memory.flags[pc] & HOOK)

    def _call_hooks(self, pc: int) -> bool:
        """Call the code hooks of an address; False when one asked to stop or moved pc."""
        for start, end, callback in list(self._code_hooks):
            if start <= pc < end:
                callback(self, pc)
        return not self._engine.is_stop_requested

    def _run_reference(self, until: int | None, count: int | None, timeout: float | None) -> Exit:
        engine = Reference(self.architecture, self._engine.state, _Watched(self))
        deadline = None if timeout is None else monotonic() + timeout
        done = 0
        try:
            while count is None or done < count:
                if done and self.pc == until:
                    return Exit(ExitCode.HOOK, self.pc)
                if self._engine.is_stop_requested or not self._call_hooks(self.pc):
                    return Exit(ExitCode.STOP, self.pc)
                if deadline is not None and monotonic() > deadline:
                    return Exit(ExitCode.STOP, self.pc)
                ended = engine.step()
                if ended is not None and not self._serve(ended):
                    return ended
                done += 1
            return Exit(ExitCode.BUDGET, self.pc)
        finally:
            self._engine.clear_stop()
            self._engine.flush()

    # State.
    def save(self) -> SavedState:
        """Registers and memory, to be put back by :meth:`restore`."""
        return SavedState(self._engine.state.save(), snapshot.save(self.memory))

    def restore(self, saved: SavedState) -> None:
        """Back to a saved state."""
        snapshot.restore(self.memory, saved.memory)
        self._engine.state.restore(saved.registers)
        self._engine.flush()

    def accesses(self, kind: str, address: int, data: bytes) -> None:
        """Call the memory hooks that watch an access."""
        for start, end, callback in list(self._memory_hooks):
            if start < address + len(data) and address < end:
                callback(self, kind, address, len(data), data)


class _Watched(FetchMemory):
    """Guest memory that tells its Cpu of accesses."""

    __slots__ = ("_cpu",)

    def __init__(self, cpu: Cpu) -> None:
        super().__init__(cpu.memory)
        self._cpu = cpu
        self.read = self._read
        self.write = self._write

    def _read(self, address: int, nbytes: int) -> bytes:
        data = self._space.read(address, nbytes)
        self._cpu.accesses("read", address, data)
        return data

    def _write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self._cpu.accesses("write", address, bytes(data))
        self.store(address, data)


class _Timer:
    """Asks a Cpu to stop after some seconds."""

    def __init__(self, cpu: Cpu, seconds: float | None) -> None:
        self._timer = None
        if seconds is not None:
            from threading import Timer

            self._timer = Timer(seconds, cpu.stop)
            self._timer.daemon = True

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _prot(prot: int | str) -> int:
    if isinstance(prot, int):
        return prot
    unknown = set(prot) - set("rwx-")
    if unknown:
        raise Error(f"protection {prot!r}: expected letters of rwx")
    return sum(bit for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if letter in prot)
