"""Instruction vectors: one line per case, run by every engine.

    lw a0, 4(a1) | a1=0x1000 [0x1004:4]=0x80000000 => a0=0xffffffff80000000
    beq a0, a1, .+8 | a0=1 a1=1 => pc+8
    lw a0, 0(a1) | a1=0x5000 => fault 0x5000

Before ``=>`` is what differs from the start state, after it what differs from the state before:
all else must stay as it was. Registers not named hold a value of their own, so that a wrong one
shows; fflags and frm start at zero. Pages of named memory are mapped, others are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from anyarch.engine.exits import Exit
from anyarch.engine.reference import Reference
from anyarch.errors import MemoryFault
from anyarch.host.context import ExitCode
from anyarch.isa.assembly import assemble
from anyarch.isa.instruction import Architecture
from anyarch.isa.registers import State

CODE: Final = 0x40000
PAGE: Final = 0x1000
_MEMORY: Final = re.compile(r"\[(\w+):(\d+)\]")


class Machine(Protocol):
    """An engine with state and memory of its own."""

    state: State

    def map(self, address: int, nbytes: int) -> None:
        """Make the pages of a range readable, writable and executable."""

    def read(self, address: int, nbytes: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def step(self) -> Exit | None:
        """Run one instruction: None when execution goes on."""


Factory = Callable[[Architecture], Machine]


@dataclass(slots=True)
class Values:
    """Register and memory values by name and by (address, nbytes)."""

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
    """One case."""

    where: str
    text: str
    before: Values = field(default_factory=Values)
    after: Values = field(default_factory=Values)
    distance: int | None = None  # of a jump
    leaves: tuple[str, int] | None = None  # exit code in lower case, fault address


def parse(line: str, where: str) -> Vector:
    """Read a line; raises ValueError with its place."""
    setup, arrow, outcome = line.partition("=>")
    if not arrow:
        raise ValueError(f"{where}: no `=>` in {line!r}")
    text, _, before = setup.partition("|")
    vector = Vector(where, text.strip())
    for item in before.split():
        vector.before.add(item)
    words = outcome.split()
    while words:
        word = words.pop(0)
        if word.startswith("pc"):
            vector.distance = int(word[2:], 0)
        elif "=" in word:
            vector.after.add(word)
        else:
            vector.leaves = word, int(words.pop(0), 0) if word == "fault" else 0
    return vector


def read_vectors(path: Path) -> list[Vector]:
    """The cases of a file; ``#`` begins a comment."""
    lines = enumerate(path.read_text().splitlines(), 1)
    bare = ((number, line.split("#", 1)[0].strip()) for number, line in lines)
    return [parse(line, f"{path.name}:{number}") for number, line in bare if line]


def check(architecture: Architecture, vector: Vector, factory: Factory) -> list[str]:
    """Run a case: what went wrong, a line each."""
    machine = factory(architecture)
    code = assemble(architecture, vector.text, CODE)
    machine.map(CODE, len(code))
    machine.write(CODE, code)
    state = machine.state
    for file, index, _ in list(state.registers()):
        if file not in _status_files(architecture):
            state.set(file, index, 0x5A5A_0000_0000_0000 + (index << 8) + len(file) + ord(file[0]))
    for name, value in vector.before.registers.items():
        state.set(*_register(architecture, name), value)
    for values in (vector.after, vector.before):
        for (address, nbytes), value in values.memory.items():
            machine.map(address, nbytes)
            if values is vector.before:
                machine.write(address, value.to_bytes(nbytes, "little"))
    state.pc = CODE
    expected = {(file, index): value for file, index, value in state.registers()}
    for name, value in vector.after.registers.items():
        expected[_register(architecture, name)] = value
    memory = vector.before.memory | vector.after.memory
    return [
        *_compare_exit(vector, machine.step(), state.pc - CODE, len(code)),
        *(
            f"{architecture.layout.by_name[file].label(index)} is {value:#x}, "
            f"expected {expected[file, index]:#x}"
            for file, index, value in state.registers()
            if value != expected[file, index]
        ),
        *(
            f"[{address:#x}:{nbytes}] is {found:#x}, expected {value:#x}"
            for (address, nbytes), value in memory.items()
            if (found := int.from_bytes(machine.read(address, nbytes), "little")) != value
        ),
    ]


def _status_files(architecture: Architecture) -> set[str]:
    status = architecture.float_status
    return set() if status is None else {status.flags[0], status.rounding[0]}


def _register(architecture: Architecture, name: str) -> tuple[str, int]:
    found = architecture.layout.find(name)
    if found is None:
        raise ValueError(f"{architecture.name} has no register {name!r}")
    return found


def _compare_exit(vector: Vector, ended: Exit | None, distance: int, nbytes: int) -> list[str]:
    past = (ExitCode.SYSCALL, ExitCode.CODE_CHANGED, ExitCode.HALT)
    got = None if ended is None else (ended.code.name.lower(), ended.address)
    problems = []
    if got != vector.leaves:
        problems.append(f"exit is {got}, expected {vector.leaves}")
    moves = ended is None or ended.code in past
    wanted = vector.distance if vector.distance is not None else nbytes * moves
    if distance != wanted:
        problems.append(f"pc moved by {distance}, expected {wanted}")
    return problems


class ReferenceMachine:
    """The reference engine over pages in a dictionary."""

    def __init__(self, architecture: Architecture) -> None:
        self.state = State(architecture.layout)
        self._pages: dict[int, bytearray] = {}
        self.step = Reference(architecture, self.state, self).step

    def map(self, address: int, nbytes: int) -> None:
        for page in range(address // PAGE, (address + nbytes - 1) // PAGE + 1):
            self._pages.setdefault(page, bytearray(PAGE))

    def read(self, address: int, nbytes: int) -> bytes:
        return bytes(
            self._page(each, "read")[each % PAGE] for each in range(address, address + nbytes)
        )

    fetch = read

    def write(self, address: int, data: bytes) -> None:
        for each in range(address, address + len(data)):
            self._page(each, "write")
        for each, byte in enumerate(data, address):
            self._pages[each // PAGE][each % PAGE] = byte

    def _page(self, address: int, access: str) -> bytearray:
        page = self._pages.get(address // PAGE)
        if page is None:
            raise MemoryFault(address, access)
        return page
