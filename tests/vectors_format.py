"""Vector files: one test case a line, run by every engine.

``add a0, a1, a2 | a1=1 a2=2 => a0=3``: assembly text (or hex words; ``;`` separates), state before,
state after. Registers go by assembly name, memory as ``[0x1000:4]=0xdeadbeef``; ``pc=+8`` is
relative to the text. Endings: ``illegal``, ``breakpoint``, ``syscall``,
``fault 0x9000``, ``exception 6 0x1001``. What a line does not name must not change: registers
hold values of their own, pages of named memory are zero and no others are mapped.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Protocol

from anyarch._native import PACKAGES, native_code
from anyarch.engine.bundle import CompiledRegion
from anyarch.engine.compiler import Request, compile_with
from anyarch.engine.exits import Exit
from anyarch.engine.interpreter import Interpreter
from anyarch.engine.jit import Jit
from anyarch.engine.leftovers import Leftovers
from anyarch.engine.native import InterpreterModule
from anyarch.engine.reference import Reference
from anyarch.engine.regions import RegionCompiler
from anyarch.errors import MemoryFault
from anyarch.host.code import NativeCode, load
from anyarch.host.context import ExitCode
from anyarch.host.runtime import runtime_text
from anyarch.isa.architecture import Architecture
from anyarch.isa.assembly import assemble
from anyarch.isa.registers import State
from anyarch.memory.space import AddressSpace

DIRECTORY: Final = Path(__file__).parent / "vectors"
CODE: Final = 0x10000  # where the text is placed; zeros, which are illegal, follow it
PAGE: Final = 4096
ENDINGS: Final = {
    "illegal": ExitCode.ILLEGAL,
    "breakpoint": ExitCode.BREAKPOINT,
    "syscall": ExitCode.SYSCALL,
    "fault": ExitCode.FAULT,
    "exception": ExitCode.EXCEPTION,
}
PAST: Final = frozenset({ExitCode.SYSCALL, ExitCode.CODE_CHANGED})
_MEMORY: Final = re.compile(r"\[(\w+):(\d+)\]")
_HEX_WORDS: Final = re.compile(r"0x[0-9a-f]+(?:\s*;\s*0x[0-9a-f]+)*")


class Machine(Protocol):
    """An engine with a state and the mapped pages, ready to run."""

    state: State
    counts: bool  # whether it stops after so many instructions

    def run(self, count: int) -> Exit:
        """Run ``count`` instructions. What follows them is illegal: ending there is as good."""

    def read(self, address: int, nbytes: int) -> bytes:
        """Guest memory."""


# An engine factory receives the pages, by address.
Factory = Callable[[Architecture, Mapping[int, bytes]], Machine]


@dataclass(slots=True)
class Values:
    """Values of registers by name and of memory by (address, nbytes)."""

    registers: dict[str, int] = field(default_factory=dict)
    memory: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, item: str) -> None:
        """Read ``a0=1`` or ``[0x1000:4]=1``."""
        name, _, value = item.partition("=")
        if match := _MEMORY.fullmatch(name):
            self.memory[int(match[1], 0), int(match[2])] = int(value, 0)
        else:
            self.registers[name] = int(value, 0)


@dataclass(slots=True)
class Vector:
    """One line of a vector file."""

    where: str
    text: str
    before: Values = field(default_factory=Values)
    after: Values = field(default_factory=Values)
    pc: int | None = None  # relative to the text; None: behind it, or where the ending is
    ending: ExitCode | None = None
    details: tuple[int, ...] = ()  # numbers behind the ending


def parse(line: str, where: str) -> Vector:
    """The case of a line that is not empty; raises ValueError with its place."""
    setup, arrow, after = line.partition("=>")
    text, _, before = setup.partition("|")
    if not arrow:
        raise ValueError(f"{where}: expected `text | before => after`, not {line!r}")
    vector = Vector(where, text.strip())
    for item in before.split():
        vector.before.add(item)
    for item in after.split():
        if item in ENDINGS:
            vector.ending = ENDINGS[item]
        elif item.startswith("pc="):
            vector.pc = int(item[3:], 0)
        elif "=" in item:
            vector.after.add(item)
        else:
            vector.details += (int(item, 0),)
    return vector


def read_vectors(path: Path) -> list[Vector]:
    """The cases of a file; ``#`` begins a comment."""
    lines = enumerate(path.read_text().splitlines(), 1)
    bare = ((number, line.partition("#")[0].strip()) for number, line in lines)
    return [parse(line, f"{path.name}:{number}") for number, line in bare if line]


def encode(architecture: Architecture, text: str) -> bytes:
    """The bytes of assembly text or of hex words separated by semicolons."""
    if _HEX_WORDS.fullmatch(text):
        words = [word.strip() for word in text.split(";")]
        return b"".join(int(w, 16).to_bytes(len(w) // 2 - 1, "little") for w in words)
    return assemble(architecture, text, CODE)


def split(architecture: Architecture, code: bytes) -> list[int]:
    """Offsets of the instructions in straight-line code."""
    offsets, offset = [], 0
    while offset < len(code):
        offsets.append(offset)
        offset += architecture.length(int.from_bytes(code[offset : offset + 4], "little"))
    return offsets


def check(architecture: Architecture, vector: Vector, factory: Factory) -> list[str]:
    """Run one case: what differs from the expected, a line each."""
    code = encode(architecture, vector.text)
    pages = _pages(vector, code)
    machine = factory(architecture, {address: bytes(page) for address, page in pages.items()})
    state = machine.state
    _fill(architecture, state)
    for name, value in vector.before.registers.items():
        state.set(*_register(architecture, name), value)
    state.pc = CODE
    expected = {(file, index): value for file, index, value in state.registers()}
    for name, value in vector.after.registers.items():
        where = _register(architecture, name)
        expected[where] = value & ((1 << architecture.layout.by_name[where[0]].size) - 1)
    for (address, nbytes), value in vector.after.memory.items():
        _place(pages, address, nbytes, value)

    offsets = split(architecture, code)
    if not machine.counts and vector.pc is not None and 0 <= vector.pc < len(code):
        return []  # it comes back to its own text, and would not end
    ended = machine.run(len(offsets))
    problems = _check_ending(vector, ended, [CODE + o for o in offsets], CODE + len(code), state)
    for file, index, value in state.registers():
        if value != expected[file, index]:
            label = architecture.layout.by_name[file].label(index)
            problems.append(f"{label} is {value:#x}, expected {expected[file, index]:#x}")
    for address, page in pages.items():
        found = machine.read(address, PAGE)
        for offset in range(0, PAGE, 8) if found != page else ():
            got, want = found[offset : offset + 8], bytes(page[offset : offset + 8])
            if got != want:
                problems.append(f"[{address + offset:#x}:8] is {got.hex()}, expected {want.hex()}")
    return problems


def _fill(architecture: Architecture, state: State) -> None:
    """A value of its own in every register but floating-point status."""
    status = architecture.float_status
    kept = set() if status is None else {status.flags[0], status.rounding[0]}
    for number, (file, index, _) in enumerate(list(state.registers())):
        if file not in kept:
            state.set(file, index, 0x5A5A_0000_0000_0000 + (number << 8))


def _register(architecture: Architecture, name: str) -> tuple[str, int]:
    found = architecture.layout.find(name)
    if found is None:
        raise ValueError(f"{architecture.name} has no register {name!r}")
    return found


def _pages(vector: Vector, code: bytes) -> dict[int, bytearray]:
    pages = {CODE: bytearray(code.ljust(PAGE, b"\0"))}
    for address, nbytes in vector.before.memory:
        for page in range(address & -PAGE, address + nbytes, PAGE):
            pages.setdefault(page, bytearray(PAGE))
    for (address, nbytes), value in vector.before.memory.items():
        _place(pages, address, nbytes, value)
    return pages


def _place(pages: dict[int, bytearray], address: int, nbytes: int, value: int) -> None:
    value &= (1 << 8 * nbytes) - 1
    for offset, byte in enumerate(value.to_bytes(nbytes, "little")):
        page, at = divmod(address + offset, PAGE)
        pages[page * PAGE][at] = byte


def _check_ending(
    vector: Vector, ended: Exit, instructions: list[int], end: int, state: State
) -> list[str]:
    problems = []
    behind = ended.code in (ExitCode.ILLEGAL, ExitCode.FETCH) and ended.pc not in instructions
    if ended.code in (ExitCode.BUDGET, ExitCode.STEP) or behind:
        code = None  # completed
    else:
        code = ended.code
    details = {
        ExitCode.FAULT: (ended.address,),
        ExitCode.EXCEPTION: (ended.detail, ended.address),
    }.get(ended.code, ())
    if (code, details) != (vector.ending, vector.details):
        ending = "completion" if vector.ending is None else vector.ending.name.lower()
        problems.append(
            f"ended with {ended}, expected {' '.join([ending, *map(hex, vector.details)])}"
        )
    if vector.pc is not None:
        pc = CODE + vector.pc
    else:
        pc = end if vector.ending is None or vector.ending in PAST else instructions[-1]
    pc &= (1 << 64) - 1
    if state.pc != pc or ended.pc != pc:
        problems.append(f"pc is {state.pc:#x} ({ended.pc:#x} in the exit), expected {pc:#x}")
    return problems


class PagedMemory:
    """Guest memory of the reference engine: mapped pages, all accessible."""

    def __init__(self, pages: Mapping[int, bytes]) -> None:
        self.pages = {address: bytearray(page) for address, page in pages.items()}

    def _slices(self, address: int, nbytes: int, access: str) -> Iterator[tuple[bytearray, slice]]:
        while nbytes > 0:
            page, at = self.pages.get(address & -PAGE), address % PAGE
            if page is None:
                raise MemoryFault(address, access)
            step = min(nbytes, PAGE - at)
            yield page, slice(at, at + step)
            address, nbytes = address + step, nbytes - step

    def read(self, address: int, nbytes: int) -> bytes:
        return b"".join(page[part] for page, part in self._slices(address, nbytes, "read"))

    def write(self, address: int, data: bytes) -> None:
        for page, part in list(self._slices(address, len(data), "write")):
            step = part.stop - part.start
            page[part], data = data[:step], data[step:]

    fetch = read


class ReferenceMachine:
    """The reference engine over paged memory."""

    counts = True

    def __init__(self, architecture: Architecture, pages: Mapping[int, bytes]) -> None:
        self.state = State(architecture.layout)
        self.memory = PagedMemory(pages)
        self.engine = Reference(architecture, self.state, self.memory)

    def run(self, count: int) -> Exit:
        return self.engine.run(count)

    def read(self, address: int, nbytes: int) -> bytes:
        return self.memory.read(address, nbytes)


class NativeMachine:
    """The native interpreter; one per architecture and variant, emptied for each case."""

    counts = True

    _engines: ClassVar[dict[tuple[type, int, bool], Interpreter]] = {}

    def __init__(
        self, architecture: Architecture, pages: Mapping[int, bytes], *, bounded: bool = False
    ) -> None:
        key = (type(self), id(architecture), bounded)
        if key not in self._engines:
            space = AddressSpace(38, bounded=bounded)
            native = build_native(architecture, bounded=bounded)
            self._engines[key] = Interpreter(architecture, space, native)
        self.engine = self._engines[key]
        space = self.engine.space
        for region in space.regions():
            space.unmap(region.start, region.end - region.start)
        for address, page in pages.items():
            space.map(address, PAGE, 7, fixed=True)
            space.write(address, page)
        self.engine.flush()
        self.engine.context.set("reservation_address", -1)
        self.state = self.engine.state
        for file, index, _ in self.state.registers():
            self.state.set(file, index, 0)

    def run(self, count: int) -> Exit:
        return self.engine.run(count)

    def read(self, address: int, nbytes: int) -> bytes:
        return self.engine.space.read(address, nbytes)


class LocalCompiler:
    """A region compiler in this process, in place of the one that engines talk to.

    It remembers what it made: many vectors have the same text.
    """

    def __init__(
        self, architecture: Architecture, *, bounded: bool = False, direct: bool = False
    ) -> None:
        regions = RegionCompiler(architecture, bounded=bounded, direct=direct)
        self._compile = compile_with(regions)
        self.made: dict[tuple[object, ...], CompiledRegion | None] = {}

    def compile(self, request: Request) -> CompiledRegion | None:
        form = request.precise, request.masked
        asked = request.pc, request.start, request.window, form, request.visited
        if asked not in self.made:
            self.made[asked] = self._compile(request)
        return self.made[asked]

    def end(self) -> None:
        """Nothing is asked for any more."""

    @property
    def is_there(self) -> bool:
        """It keeps nothing for later runs."""
        return False

    def leave(self, leftovers: Leftovers) -> None:
        """Nothing is compiled for later runs."""


class UncountedMachine(NativeMachine):
    """Where instructions are counted neither blocks have code nor are there regions. Without, cases
    end where their text does, for there is no instruction; what does not end is stopped."""

    counts = False

    def run(self, count: int) -> Exit:
        clock = threading.Timer(20, self.engine.request_stop)
        clock.start()
        try:
            return self.engine.run()
        finally:
            clock.cancel()
            self.engine.clear_stop()


class BlockMachine(UncountedMachine):
    """The native interpreter, with blocks that have code of their own."""

    def __init__(
        self, architecture: Architecture, pages: Mapping[int, bytes], *, bounded: bool = False
    ) -> None:
        super().__init__(architecture, pages, bounded=bounded)
        if not self.engine.arena.has_code:
            self.engine.arena.assemble()


class CompiledMachine(UncountedMachine):
    """The native interpreter, with the region at the text compiled."""

    _jits: ClassVar[dict[int, Jit]] = {}

    def __init__(
        self, architecture: Architecture, pages: Mapping[int, bytes], *, bounded: bool = False
    ) -> None:
        super().__init__(architecture, pages, bounded=bounded)
        jit = self._jits.get(id(self.engine))
        if jit is None:
            compiler = LocalCompiler(architecture, bounded=bounded)
            jit = Jit(self.engine.arena, self.engine.native, compiler, precise=False)
            self._jits[id(self.engine)] = jit
        jit.add(CODE)


def build_native(architecture: Architecture, *, bounded: bool) -> NativeCode:
    """The interpreter of an architecture: from the cache where it is a guest of the package."""
    if architecture.name in PACKAGES:
        return native_code(architecture.name, "bounded" if bounded else "flat")
    module = InterpreterModule(architecture, bounded=bounded)
    return load(module.build(runtime_text()))


ENGINES: Final[dict[str, Factory]] = {
    "reference": ReferenceMachine,
    "interpreter": NativeMachine,
    "interpreter-bounded": partial(NativeMachine, bounded=True),
    "blocks": BlockMachine,
    "blocks-bounded": partial(BlockMachine, bounded=True),
    "jit": CompiledMachine,
    "jit-bounded": partial(CompiledMachine, bounded=True),
}
