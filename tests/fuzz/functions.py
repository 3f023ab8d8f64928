"""Random programs of functions: loops, calls of every kind, jump tables, recursion, faults.

What :mod:`tests.fuzz.lockstep` draws is a line of instructions; here such lines are the flesh of
functions that call each other. A register is the fuel: every function and every turn of a loop
takes some, so each program ends. System calls and, where registers are exact there, faults are
survived: :func:`follow` notes how each part of a run ended, and goes on.
"""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self, TypeVar

import pytest

from anyarch.engine.exits import Exit
from anyarch.engine.reference import Reference
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.context import ExitCode
from anyarch.isa.assembly import assemble
from anyarch.isa.registers import State
from tests.fuzz.lockstep import (
    BREAKPOINT,
    CODE,
    DATA,
    KEPT,
    PAGE,
    READ_ONLY,
    TOP,
    Case,
    Maker,
    NativeEngine,
    Pages,
    areas,
    fill,
    operations,
)

FUEL: Final = 31  # x register, lockstep.COUNTER: random instructions do not write it
STACK: Final = DATA + 2 * PAGE
LIMIT: Final = 6000  # instructions that a program may run
SURVIVED: Final = 6  # system calls and faults
SECONDS: Final = 120.0
UNMAPPED: Final = 0x9000
_AWAY: Final = frozenset({"jump", "exit", "exception", "syscall"})
_BRANCHES: Final = ("beq", "bne", "blt", "bge", "bltu", "bgeu")
_SCRATCH: Final = ("t3", "t4", "t5")
_VALUES: Final = ("a0", "a1", "a2", "a3", "s2", "s3", "t3", "a7", "s11")

Point = tuple[Exit, list[tuple[str, int, int]]]  # an exit, and the registers that are exact there


@dataclass(frozen=True, slots=True)
class Calls(Case):
    """A case whose program is assembly text; ``labels`` are what its tables lead to."""

    text: str = ""
    labels: tuple[str, ...] = ()

    def code(self) -> bytes:
        return assemble(ARCHITECTURE, self.text, CODE) + BREAKPOINT

    def __str__(self) -> str:
        return f"{self.text}\nfuel {self.x[FUEL]}, frm={self.rounding}"

    def places(self) -> list[int]:
        """The addresses of the labels."""
        listed = "".join(f"\n.dword {name}" for name in self.labels)
        data = assemble(ARCHITECTURE, self.text + listed, CODE)
        return list(struct.unpack(f"<{len(self.labels)}Q", data[-8 * len(self.labels) :]))

    def without(self, line: int) -> Calls:
        """One without a line, which must be a random instruction."""
        lines = self.text.splitlines()
        return _linked(self, "\n".join(lines[:line] + lines[line + 1 :]))

    def removable(self) -> list[int]:
        """The lines that :meth:`without` may leave out, the last first."""
        lines = self.text.splitlines()
        return [i for i in reversed(range(len(lines))) if lines[i].startswith(".")]


def _linked(case: Case, text: str, labels: Sequence[str] | None = None) -> Calls:
    """A case with the addresses of its labels in read-only memory."""
    if labels is None:
        assert isinstance(case, Calls)
        labels = case.labels
    made = Calls(
        (), case.x, case.f, case.flags, case.rounding, case.data, b"", case.top,
        text=text, labels=tuple(labels),
    )  # fmt: skip
    table = struct.pack(f"<{len(labels)}Q", *made.places())
    assert len(table) <= PAGE // 2
    return Calls(
        (), case.x, case.f, case.flags, case.rounding, case.data, table.ljust(PAGE, b"\xa5"),
        case.top, text=text, labels=tuple(labels),
    )  # fmt: skip


@dataclass(slots=True)
class Author:
    """Writes one program; ``faults`` says that accesses fail here and there."""

    source: random.Random
    faults: bool = True
    maker: Maker = field(init=False)
    lines: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)  # in tables, eight bytes each
    count: int = 0  # of labels made up

    def __post_init__(self) -> None:
        self.maker = Maker(self.source, wild=False)

    def case(self) -> Calls:
        """A program and the state that it starts from."""
        source = self.source
        base = self.maker.case(["addi"])
        functions = source.randrange(2, 7)
        self.labels = [f"f{i}" for i in range(functions)]
        self.labels += ["landing", "outside"]
        self.main(functions)
        for number in range(functions):
            self.function(number, functions)
        for number in range(2):
            self.lines += [f"g{number}:", *self.random_lines(1, 3), "jr t0"]
        x = list(base.x)
        x[2], x[FUEL] = STACK, source.choice((3, 10, 20, 40, 60))
        case = Case(
            (), tuple(x), base.f, base.flags, source.choice((0, 0, 0, 1, 2, 3, 4)), base.data,
            b"", base.top,
        )  # fmt: skip
        return _linked(case, "\n".join(self.lines), self.labels)

    def main(self, functions: int) -> None:
        """Calls functions; what jumps out of them lands in it."""
        emit = self.lines.extend
        for _ in range(self.source.randrange(1, 4)):
            emit(self.random_lines(0, 4))
            emit([f"jal ra, f{self.source.randrange(functions)}"])
        emit(["j outside", "landing:", f"lui sp, {STACK >> 12}", *self.spend("outside")])
        emit(self.random_lines(1, 3))
        emit([f"jal ra, f{self.source.randrange(functions)}", "outside:", "ebreak"])

    def function(self, number: int, functions: int) -> None:
        """One with a frame, which calls others, or a leaf."""
        source, emit = self.source, self.lines.extend
        out = self.new_label()
        emit([f"f{number}:"])
        if source.random() < 0.3:  # a leaf
            emit(self.spend(out))
            for _ in range(source.randrange(1, 4)):
                self.statement(out, None)
            if source.random() < 0.15:  # the caller has an instruction of four bytes there
                emit(["addi ra, ra, 4"])
            emit([f"{out}:", "ret"])
            return
        emit(["addi sp, sp, -32", "sd ra, 0(sp)", "sd s2, 8(sp)", *self.spend(out)])
        for _ in range(source.randrange(2, 6)):
            self.statement(out, functions)
        emit([f"{out}:", "ld ra, 0(sp)", "ld s2, 8(sp)", "addi sp, sp, 32"])
        other = f"f{source.randrange(functions)}"
        emit([f"bgez t6, {other}", "ret"] if source.random() < 0.15 else ["ret"])

    def statement(self, out: str, functions: int | None, depth: int = 0) -> None:
        """Something that a function does; only one with a frame calls ``functions``."""
        source = self.source
        kinds: list[Callable[[str, int | None, int], None]] = [
            self.straight, self.straight, self.condition, self.switch, self.event,
        ]  # fmt: skip
        if functions is not None:
            kinds += [self.call, self.call, self.loop, self.loop, self.escape]
        if depth > 1:
            kinds = [self.straight, self.event] + ([self.call] if functions is not None else [])
        source.choice(kinds)(out, functions, depth)

    def straight(self, out: str, functions: int | None, depth: int) -> None:
        self.lines += self.random_lines(1, 6)

    def condition(self, out: str, functions: int | None, depth: int) -> None:
        """One or two arms."""
        source, other, joined = self.source, self.new_label(), self.new_label()
        a, b = source.choice(_VALUES), source.choice((*_VALUES, "zero"))
        self.lines += [f"{source.choice(_BRANCHES)} {a}, {b}, {other}"]
        self.statement(out, functions, depth + 1)
        self.lines += [f"j {joined}", f"{other}:"]
        if source.random() < 0.6:
            self.statement(out, functions, depth + 1)
        self.lines += [f"{joined}:"]

    def loop(self, out: str, functions: int | None, depth: int) -> None:
        """A few turns, counted on the stack."""
        again, slot = self.new_label(), 16 + 8 * depth
        self.lines += [f"li t5, {self.source.randrange(2, 6)}", f"sd t5, {slot}(sp)", f"{again}:"]
        for _ in range(self.source.randrange(1, 3)):
            self.statement(out, functions, depth + 1)
        self.lines += [f"ld t5, {slot}(sp)", "addi t5, t5, -1", f"sd t5, {slot}(sp)"]
        self.lines += [*self.spend(out), f"bgtz t5, {again}"]

    def call(self, out: str, functions: int | None, depth: int) -> None:
        """A direct or a computed call, or one through another link register."""
        assert functions is not None
        source = self.source
        kind = source.random()
        # `functions` may be less than what the table has: all of them are in it.
        if kind < 0.5:
            self.lines += [f"jal ra, f{source.randrange(functions)}"]
        elif kind < 0.85:
            self.load_entry(source.randrange(functions), 1)
            self.lines += ["jalr ra, 0(t2)"]
        else:
            self.lines += [f"jal t0, g{source.randrange(2)}"]
        # Some functions return four bytes behind.
        self.lines += [f"addi a{source.randrange(4)}, a{source.randrange(4)}, 99"]

    def escape(self, out: str, functions: int | None, depth: int) -> None:
        """A jump out of all calls, when the fuel is at some value."""
        skip = self.new_label()
        self.lines += [f"li t3, {self.source.randrange(1, 20)}", f"bne t6, t3, {skip}"]
        self.load_entry(self.labels.index("landing"), 1)
        self.lines += ["jr t2", f"{skip}:"]

    def switch(self, out: str, functions: int | None, depth: int) -> None:
        """A jump table, with or without a check of its bounds."""
        source, joined = self.source, self.new_label()
        arms = 1 << source.randrange(1, 3)
        names = [self.new_label() for _ in range(arms)]
        if len(self.labels) + arms > 250:
            return
        first = len(self.labels)
        self.labels += names
        self.load_entry(first, arms)
        self.lines += ["jr t2"]
        for name in names:
            self.lines += [f"{name}:"]
            self.statement(out, functions, depth + 2)
            if name != names[-1]:
                self.lines += [f"j {joined}"]
        self.lines += [f"{joined}:"]

    def load_entry(self, first: int, count: int) -> None:
        """A label of the table into t2: one of ``count``, chosen by a register."""
        index = self.source.choice(_VALUES)
        self.lines += [f"andi t1, {index}, {count - 1}", "slli t1, t1, 3"]
        self.lines += [f"lui t2, {READ_ONLY >> 12}", "add t2, t2, t1", f"ld t2, {8 * first}(t2)"]

    def event(self, out: str, functions: int | None, depth: int) -> None:
        """A system call, a fault or a breakpoint, when the fuel is at some value."""
        source, skip = self.source, self.new_label()
        register = source.choice(("a0", "a1", "s2", "s3"))
        events = [["ecall"], ["ecall"], ["ecall"], ["csrwi frm, 1"], [f"csrr {register}, fflags"]]
        if self.faults:
            bad = [f"lui t4, {UNMAPPED >> 12}"]
            events += [
                [*bad, f"ld {register}, 8(t4)"],
                [*bad, f"sd {register}, 8(t4)", f"addi {register}, {register}, 1"],
                [*bad, f"lw {register}, -4(t4)", f"lbu {register}, 0(t4)"],
                [*bad, "fld fa0, 16(t4)"],
                [f"lui t4, {READ_ONLY >> 12}", f"sw {register}, 8(t4)"],
                [f"lui t4, {(DATA + 2 * PAGE) >> 12}", f"sd {register}, -4(t4)"],
                [f"lui t4, {DATA >> 12}", "addi t4, t4, 2", f"amoadd.d {register}, a1, (t4)"],
                [f"lui t4, {DATA >> 12}", "addi t4, t4, 1", f"lr.w {register}, (t4)"],
                [f"lui t4, {DATA >> 12}", f"ld {register}, 3(t4)", f"sd {register}, 5(t4)"],
            ]
        lines = source.choice(events)
        if source.random() < 0.02:
            lines = source.choice((["ebreak"], [".half 0"], [*lines, "lui t4, 9", "jr t4"]))
        guard = f"li t3, {source.randrange(0, 25)}", f"blt t6, t3, {skip}"
        if source.random() < 0.5:
            guard = guard[0], f"bne t6, t3, {skip}"
        self.lines += [*guard, *lines, f"{skip}:"]

    def spend(self, out: str) -> list[str]:
        return ["addi t6, t6, -1", f"bltz t6, {out}"]

    def random_lines(self, low: int, high: int) -> Iterator[str]:
        """Instructions that go on behind themselves and keep what the frame of a program needs."""
        for _ in range(self.source.randint(low, high)):
            while True:
                form = self.maker.form()
                if not operations(form.name) & _AWAY:
                    break
            insn = self.maker.insn(form, 4)
            size = "word" if insn.nbytes == 4 else "half"
            yield f".{size} {insn.word:#x}"

    def new_label(self) -> str:
        self.count += 1
        return f"l{self.count}"


# Running.
class Runs(Protocol):
    """What has run a program so far."""

    state: State

    def run(self, budget: int | None = None) -> Exit: ...


def follow(engine: Runs, *, exact: bool, budget: int | None) -> list[Point]:
    """How the parts of a run ended: system calls are answered, and faults, where registers are
    ``exact`` there, passed over."""
    points: list[Point] = []
    for turn in range(SURVIVED):
        ended = engine.run(budget)
        state = engine.state
        is_exact = exact or ended.code is not ExitCode.FAULT
        registers = list(state.registers())
        if not is_exact:
            registers = [found for found in registers if found[:2] in KEPT]
        points.append((ended, registers))
        if ended.code is ExitCode.SYSCALL:
            state.set("x", 10, 0x1111 * turn)
        elif ended.code in (ExitCode.FAULT, ExitCode.EXCEPTION) and is_exact:
            state.pc = ended.pc + 4
        else:
            break
    return points


@dataclass(slots=True)
class Followed:
    """What a program did."""

    points: list[Point]
    data: bytes
    top: bytes


def follow_reference(case: Calls, *, exact: bool) -> Followed:
    """By the reference engine."""
    state, memory = State(ARCHITECTURE.layout), Pages(areas(case))
    fill(state, case)
    engine = Reference(ARCHITECTURE, state, memory)
    points = follow(engine, exact=exact, budget=LIMIT)
    return Followed(points, memory.read(DATA, 2 * PAGE), memory.read(TOP, PAGE))


def follow_native(case: Calls, engine: NativeEngine, *, exact: bool) -> Followed:
    """By a native engine, which is prepared; one that goes astray is stopped."""
    timer = threading.Timer(SECONDS, engine.engine.request_stop)
    timer.start()
    try:
        points = follow(engine.engine, exact=exact, budget=None)
    finally:
        timer.cancel()
        engine.engine.clear_stop()
    space = engine.space
    return Followed(points, space.read(DATA, 2 * PAGE), space.read(TOP, PAGE))


def ends(followed: Followed) -> bool:
    """Whether the reference engine came to an end, so that others can be compared with it."""
    return all(ended.code is not ExitCode.BUDGET for ended, _ in followed.points)


class Shrinking(Protocol):
    """A case that may do without some of its lines."""

    def removable(self) -> list[int]: ...

    def without(self, line: int) -> Self: ...


Shrinks = TypeVar("Shrinks", bound=Shrinking)


def check(case: Shrinks, problems: Callable[[Shrinks], list[str]]) -> None:
    """Fail with a small case that shows a difference."""
    if not problems(case):
        return
    for line in case.removable():
        smaller = case.without(line)
        if problems(smaller):
            case = smaller
    pytest.fail(f"{case}\n" + "\n".join(problems(case)[:20]))


def differences(expected: Followed, found: Followed) -> list[str]:
    """What differs, a line each."""
    result = []
    for number, ((ended, registers), (got, others)) in enumerate(
        zip(expected.points, found.points)
    ):
        if ended != got:
            result.append(f"part {number} ended with {got}, expected {ended}")
        for (file, index, value), (_, _, other) in zip(registers, others):
            if value != other:
                result.append(f"part {number}: {file}{index} is {other:#x}, expected {value:#x}")
    if len(expected.points) != len(found.points):
        result.append(f"{len(found.points)} parts, expected {len(expected.points)}")
    for start, before, after in (
        (DATA, expected.data, found.data),
        (TOP, expected.top, found.top),
    ):
        for at in range(0, len(before), 8):
            if before[at : at + 8] != after[at : at + 8]:
                hexes = after[at : at + 8].hex(), before[at : at + 8].hex()
                result.append(f"[{start + at:#x}] is {hexes[0]}, expected {hexes[1]}")
    return result
