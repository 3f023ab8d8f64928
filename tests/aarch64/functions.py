"""Random AArch64 programs of functions, as :mod:`tests.fuzz.functions` has them for RISC-V.

The flesh is random words of all definitions. x27 is the fuel, x20, x23, x25 and x28 point into
data, x26 is a small index, x16 to x18 belong to the skeleton: random words write none of them.
"""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from anyarch._native import native_code
from anyarch.engine.eager import Eager
from anyarch.engine.interpreter import Interpreter
from anyarch.engine.jit import Jit
from anyarch.engine.reference import Reference
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.guests.aarch64.registers import FLAGS, MODE
from anyarch.isa.assembly import assemble
from anyarch.isa.instruction import Instruction
from anyarch.isa.registers import State
from anyarch.memory.space import AddressSpace
from tests.aarch64.emulator import random_integer, random_vector, random_word, unpredictable
from tests.fuzz.functions import LIMIT, SECONDS, Followed, follow
from tests.fuzz.lockstep import Pages
from tests.vectors_format import LocalCompiler

PAGE: Final = 4096
CODE: Final = 0x10000
DATA: Final = 0x20000
NBYTES: Final = 0x40000
MIDDLE: Final = DATA + NBYTES // 2  # every displacement stays inside
STACK: Final = DATA + NBYTES
TABLES: Final = 0x70000  # one page: addresses, in its second half offsets of halfwords
HALVES: Final = TABLES + PAGE // 2
UNMAPPED: Final = 0x9000
FUEL: Final = 27
BASES: Final = (20, 23, 25, 28)
INDEX: Final = 26
WRITTEN: Final = (*range(16), 19, 21, 22, 24)
_AWAY: Final = frozenset({"jump", "exit", "syscall", "counter", "announce_code"})
_CONDITIONS: Final = "eq ne hs lo mi pl vs vc hi ls ge lt gt le".split()


def _effects_of(instruction: Instruction) -> frozenset[str]:
    return frozenset(
        effect.node.op
        for form in instruction.forms()
        for effect in form.trace(ARCHITECTURE.layout).effects
    )


def _writes_base(instruction: Instruction) -> bool:
    text = instruction.text
    return text.endswith("!") or "], " in text or "]{" in text


EFFECTS: Final = {each.name: _effects_of(each) for each in ARCHITECTURE.isa.instructions}
FLESH: Final = [each for each in ARCHITECTURE.isa.instructions if not EFFECTS[each.name] & _AWAY]
INTEGER: Final = [
    each for each in FLESH if not any(name.startswith("v") for name in each.row.fields)
]


@lru_cache(4)
def _assemble(text: str, labels: tuple[str, ...]) -> tuple[bytes, list[int]]:
    """The code of a text, and the addresses of labels in it."""
    listed = "".join(f"\n.dword {name}" for name in labels)
    data = assemble(ARCHITECTURE, f"{text}\nbrk 0{listed}", CODE)
    end = len(data) - 8 * len(labels)
    return data[:end], list(struct.unpack(f"<{len(labels)}Q", data[end:]))


@dataclass(frozen=True, slots=True)
class Program:
    """Assembly text, the labels that its tables lead to, and the state that it starts from."""

    text: str
    labels: tuple[str, ...]  # eight bytes each
    offsets: tuple[tuple[str, str], ...]  # halfwords: a label, and the one that it is relative to
    r: tuple[int, ...]
    v: tuple[int, ...]
    nzcv: int
    mode: int
    flags: int
    data: bytes

    def code(self) -> bytes:
        return self._assembled()[0]

    def places(self) -> list[int]:
        """The addresses of the labels."""
        return self._assembled()[1][: len(self.labels)]

    def tables(self) -> bytes:
        """The page of tables."""
        addresses = struct.pack(f"<{len(self.labels)}Q", *self.places())
        found = self._assembled()[1][len(self.labels) :]
        halves = b"".join(
            struct.pack("<h", target - anchor >> 2)
            for target, anchor in zip(found[::2], found[1::2], strict=True)
        )
        assert max(len(addresses), len(halves)) <= PAGE // 2
        return addresses.ljust(PAGE // 2, b"\xa5") + halves.ljust(PAGE // 2, b"\xa5")

    def _assembled(self) -> tuple[bytes, list[int]]:
        return _assemble(
            self.text, (*self.labels, *(name for pair in self.offsets for name in pair))
        )

    def areas(self) -> list[tuple[int, bytes, int]]:
        """What is mapped: address, contents, protection."""
        code = self.code()
        return [
            (CODE, code.ljust(-(-len(code) // PAGE) * PAGE, b"\0"), 5),
            (DATA, self.data, 3),
            (TABLES, self.tables(), 1),
        ]

    def without(self, line: int) -> Program:
        """One without a line, which must be a random word."""
        lines = self.text.splitlines()
        return replace(self, text="\n".join(lines[:line] + lines[line + 1 :]))

    def removable(self) -> list[int]:
        """The lines that :meth:`without` may leave out, the last first."""
        lines = self.text.splitlines()
        return [i for i in reversed(range(len(lines))) if lines[i].startswith(".word")]

    def __str__(self) -> str:
        return f"{self.text}\nfuel {self.r[FUEL]}, nzcv={self.nzcv:#x} mode={self.mode:#x}"


@dataclass(slots=True)
class Author:
    """Writes one program; ``faults`` says that accesses fail here and there."""

    source: random.Random
    faults: bool = True
    lines: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    offsets: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0  # of labels made up

    def program(self) -> Program:
        """A program and the state that it starts from."""
        source = self.source
        functions = source.randrange(2, 7)
        self.labels = [*(f"f{i}" for i in range(functions)), "landing", "outside"]
        self.main(functions)
        for number in range(functions):
            self.function(number, functions)
        r = [random_integer(source) for _ in range(32)]
        for base in BASES:
            r[base] = MIDDLE + source.choice((*(0,) * 6, 16, 64, 8, 1))
        r[INDEX] = source.randrange(64)
        r[FUEL], r[31] = source.choice((3, 10, 20, 40, 60)), STACK
        return Program(
            "\n".join(self.lines), tuple(self.labels), tuple(self.offsets), tuple(r),
            tuple(random_vector(source) for _ in range(32)), source.getrandbits(4),
            source.choice((0, 0, 0, 0, 1, 2, 3, 8, 16, 64)), source.choice((0, 0, 31, 1)),
            source.randbytes(NBYTES),
        )  # fmt: skip

    def main(self, functions: int) -> None:
        """Calls functions; what jumps out of them lands in it."""
        emit = self.lines.extend
        for _ in range(self.source.randrange(1, 4)):
            emit(self.words(0, 4))
            emit([f"bl f{self.source.randrange(functions)}"])
        emit(["b outside", "landing:", f"movz x16, {STACK >> 16}, lsl 16", "add sp, x16, 0"])
        emit([*self.spend("outside"), *self.words(1, 3)])
        emit([f"bl f{self.source.randrange(functions)}", "outside:", "brk 0"])

    def function(self, number: int, functions: int) -> None:
        """One with a frame, which calls others, or a leaf."""
        source, emit = self.source, self.lines.extend
        out = self.new_label()
        emit([f"f{number}:"])
        if source.random() < 0.3:  # a leaf
            emit(self.spend(out))
            for _ in range(source.randrange(1, 4)):
                self.statement(out, None)
            if source.random() < 0.15:
                emit(["add x30, x30, 4"])
            emit([f"{out}:", "ret x30"])
            return
        emit(["stp x29, x30, [sp, -64]!", "add x29, sp, 0", "str x19, [sp, 16]"])
        emit(self.spend(out))
        for _ in range(source.randrange(2, 6)):
            self.statement(out, functions)
        emit([f"{out}:", "ldr x19, [sp, 16]", "ldp x29, x30, [sp], 64"])
        other = f"f{source.randrange(functions)}"
        is_tail = source.random() < 0.15
        skip = self.new_label()
        emit([f"tbnz x{FUEL}, 63, {skip}", f"b {other}", f"{skip}:"] if is_tail else [])
        emit(["ret x30"])

    def statement(self, out: str, functions: int | None, depth: int = 0) -> None:
        """Something that a function does; only one with a frame calls ``functions``."""
        kinds: list[Callable[[str, int | None, int], None]] = [
            self.straight, self.straight, self.condition, self.switch, self.event,
        ]  # fmt: skip
        if functions is not None:
            kinds += [self.call, self.call, self.loop, self.loop, self.escape]
        if depth > 1:
            kinds = [self.straight, self.event] + ([self.call] if functions is not None else [])
        self.source.choice(kinds)(out, functions, depth)

    def straight(self, out: str, functions: int | None, depth: int) -> None:
        self.lines += self.words(1, 6)

    def branch(self, label: str) -> list[str]:
        """A conditional branch of some kind, on flags as they are or as they are set for it."""
        source = self.source
        a, b = source.choice(WRITTEN), source.choice(WRITTEN)
        letter, condition = source.choice("xw"), source.choice(_CONDITIONS)
        setters = [
            [f"subs {letter}zr, {letter}{a}, {letter}{b}"],
            [f"subs {letter}zr, {letter}{a}, {source.randrange(64)}"],
            [f"adds {letter}{a}, {letter}{b}, {source.randrange(4)}"],
            [f"ands {letter}zr, {letter}{a}, {letter}{b}"],
            [f"fcmp d{a % 8}, d{b % 8}"],
            [],
            [],
        ]
        kind = source.random()
        if kind < 0.2:
            return [f"{source.choice(('cbz', 'cbnz'))} {letter}{a}, {label}"]
        if kind < 0.35:
            return [
                f"{source.choice(('tbz', 'tbnz'))} {letter}{a}, {source.randrange(32)}, {label}"
            ]
        return [*source.choice(setters), *self.words(0, 1), f"b.{condition} {label}"]

    def condition(self, out: str, functions: int | None, depth: int) -> None:
        """One or two arms."""
        other, joined = self.new_label(), self.new_label()
        self.lines += self.branch(other)
        self.statement(out, functions, depth + 1)
        self.lines += [f"b {joined}", f"{other}:"]
        if self.source.random() < 0.6:
            self.statement(out, functions, depth + 1)
        self.lines += [f"{joined}:"]

    def loop(self, out: str, functions: int | None, depth: int) -> None:
        """A few turns, counted on the stack or in a register."""
        again, slot = self.new_label(), 24 + 8 * depth
        turns = self.source.randrange(2, 6)
        self.lines += [f"movz x17, {turns}", f"str x17, [sp, {slot}]", f"{again}:"]
        for _ in range(self.source.randrange(1, 3)):
            self.statement(out, functions, depth + 1)
        self.lines += [f"ldr x17, [sp, {slot}]", "subs x17, x17, 1", f"str x17, [sp, {slot}]"]
        self.lines += [*self.spend(out), f"b.{self.source.choice(('ne', 'gt'))} {again}"]

    def call(self, out: str, functions: int | None, depth: int) -> None:
        """A direct or a computed call."""
        assert functions is not None
        source = self.source
        # `functions` may be less than what the table has: all of them are in it.
        if source.random() < 0.6:
            self.lines += [f"bl f{source.randrange(functions)}"]
        else:
            self.load_entry(source.randrange(functions), 1)
            self.lines += ["blr x17"]
        # Some functions return four bytes behind.
        self.lines += [f"add x{source.randrange(4)}, x{source.randrange(4)}, 99"]

    def escape(self, out: str, functions: int | None, depth: int) -> None:
        """A jump out of all calls, when the fuel is at some value."""
        skip = self.new_label()
        self.lines += [f"eor x16, x{FUEL}, {self.source.choice((1, 2, 3, 4, 7, 8, 15, 16))}"]
        self.lines += [f"cbnz x16, {skip}"]
        self.load_entry(self.labels.index("landing"), 1)
        self.lines += ["br x17", f"{skip}:"]

    def switch(self, out: str, functions: int | None, depth: int) -> None:
        """A jump table of addresses or of offsets, with or without a check of its bounds."""
        source, joined = self.source, self.new_label()
        arms = 1 << source.randrange(1, 3)
        names = [self.new_label() for _ in range(arms)]
        if len(self.labels) + arms > 250 or len(self.offsets) + arms > 1000:
            return
        if source.random() < 0.5:
            first = len(self.labels)
            self.labels += names
            self.load_entry(first, arms)
            self.lines += ["br x17"]
        else:
            index = source.choice(WRITTEN)
            place = HALVES + 2 * len(self.offsets)
            self.offsets += [(name, names[0]) for name in names]
            if source.random() < 0.5:
                self.lines += [f"and x{index}, x{index}, {2 * arms - 1}"]
            self.lines += [f"subs wzr, w{index}, {arms - 1}", f"b.hi {joined}"]
            self.lines += [f"movz x17, {place >> 16}, lsl 16", f"movk x17, {place & 0xFFFF}"]
            self.lines += [f"adr x16, {names[0]}", f"ldrh w17, [x17, w{index}, uxtw 1]"]
            self.lines += ["add x16, x16, w17, sxth 2", "br x16"]
        for name in names:
            self.lines += [f"{name}:"]
            self.statement(out, functions, depth + 2)
            if name != names[-1]:
                self.lines += [f"b {joined}"]
        self.lines += [f"{joined}:"]

    def load_entry(self, first: int, count: int) -> None:
        """A label of the table into x17: one of ``count``, chosen by a register."""
        index = self.source.choice(WRITTEN)
        self.lines += [f"and x16, x{index}, {count - 1}" if count > 1 else "movz x16, 0"]
        self.lines += [f"movz x17, {TABLES >> 16}, lsl 16", f"add x17, x17, {8 * first}"]
        self.lines += ["ldr x17, [x17, x16, lsl 3]"]

    def event(self, out: str, functions: int | None, depth: int) -> None:
        """A system call, a fault or a breakpoint, when the fuel is at some value."""
        source, skip = self.source, self.new_label()
        register = source.choice((0, 1, 2, 3, 19, 21))
        events = [["svc 0"], ["svc 0"], ["svc 0"], [f"mrs x{register}, fpsr"]]
        events += [[f"movz x16, {source.randrange(4) << 6}, lsl 16", "msr fpcr, x16"]]
        if self.faults:
            bad = [f"movz x17, {UNMAPPED}"]
            events += [
                [*bad, f"ldr x{register}, [x17, 8]"],
                [*bad, f"str x{register}, [x17, 8]", f"add x{register}, x{register}, 1"],
                [*bad, f"ldp x{register}, x4, [x17, 16]!"],
                [*bad, "ldr q0, [x17, 16]"],
                [f"movz x17, {TABLES >> 16}, lsl 16", f"str w{register}, [x17, 8]"],
                [f"movz x17, {STACK >> 16}, lsl 16", f"stp x{register}, x1, [x17, -8]"],
                [f"add x17, x{BASES[0]}, 2", f"ldadd x{register}, x1, [x17]"],
                [f"add x17, x{BASES[0]}, 1", f"ldaxr w{register}, [x17]"],
                [f"ldur x{register}, [x{BASES[1]}, 3]", f"stur x{register}, [x{BASES[1]}, 5]"],
            ]
        lines = source.choice(events)
        if source.random() < 0.02:
            lines = source.choice((["brk 1"], [".word 0"], [f"movz x17, {UNMAPPED}", "br x17"]))
        test = source.choice(("eor", "sub"))
        value = source.choice((1, 2, 3, 4, 7, 8, 15, 16))
        guard = [f"{test} x16, x{FUEL}, {value}"]
        guard += [f"cbnz x16, {skip}" if test == "eor" else f"tbnz x16, 63, {skip}"]
        self.lines += [*guard, *lines, f"{skip}:"]

    def spend(self, out: str) -> list[str]:
        return [f"sub x{FUEL}, x{FUEL}, 1", f"tbnz x{FUEL}, 63, {out}"]

    def words(self, low: int, high: int) -> Iterator[str]:
        """Instructions that go on behind themselves and keep what the frame of a program needs."""
        for _ in range(self.source.randint(low, high)):
            chosen = FLESH if self.source.random() < 0.4 else INTEGER
            instruction = self.source.choice(chosen)
            if "set_rounding" in EFFECTS[instruction.name] and self.source.random() < 0.9:
                continue
            yield from self.word(instruction)

    def word(self, instruction: Instruction) -> Iterator[str]:
        """A random word of an instruction, and what sets its base where it writes that."""
        source, row = self.source, instruction.row
        writes_base = _writes_base(instruction)
        for _ in range(200):
            word = random_word(instruction, source)
            for name in row.fields:
                number = self.register(instruction, name, writes_base)
                if number is not None:
                    covered = sum(((1 << each.size) - 1) << each.to for each in row.fields[name])
                    word &= ~row.insert(name, covered)
                    word |= row.insert(name, number & covered)
            if row.matches(word) and not unpredictable(instruction, word):
                break
        else:
            return
        if writes_base:
            yield f"add x17, x{source.choice(BASES)}, 0"
        yield f".word {word:#x}"

    def register(self, instruction: Instruction, name: str, writes_base: bool) -> int | None:
        """The number of a field; None for one that is no general register, or may be any."""
        source = self.source
        if name == "base":
            return 17 if writes_base else source.choice(BASES)
        if name in ("rd", "rd_sp", "rt", "rt2", "rs"):
            if instruction.name.startswith("dc_"):
                return source.choice(BASES)
            return source.choice(WRITTEN)
        if name == "rm" and "base" in instruction.row.fields:
            return INDEX
        if name in ("vd", "vt", "vt2", "vn", "vm", "va") and source.random() < 0.7:
            return source.choice((*range(12), 30, 31))
        return None

    def new_label(self) -> str:
        self.count += 1
        return f"l{self.count}"


# Running.
def fill(state: State, program: Program) -> None:
    """Set the registers to the program's."""
    for index in range(32):
        state.set("r", index, program.r[index])
        state.set("v", index, program.v[index])
    for index in range(4):
        state.set("flag", index, program.nzcv >> index & 1)
        state.set("system", index, 0)
    state.set("fpstatus", FLAGS, program.flags)
    state.set("fpstatus", MODE, program.mode)
    state.set("qc", 0, 0)
    state.pc = CODE


def follow_reference(program: Program, *, exact: bool) -> Followed:
    """By the reference engine."""
    state, memory = State(ARCHITECTURE.layout), Pages(program.areas())
    fill(state, program)
    engine = Reference(ARCHITECTURE, state, memory)
    points = follow(engine, exact=exact, budget=LIMIT)
    return Followed(points, memory.read(DATA, NBYTES), b"")


class Engine:
    """A native engine with compiled code: in the ``precise`` form registers are exact at faults;
    ``eager`` compiles whatever is come to."""

    def __init__(self, *, bounded: bool = False, precise: bool, eager: bool = False) -> None:
        self.space = AddressSpace(38, bounded=bounded)
        native = native_code("aarch64", "bounded" if bounded else "flat")
        self.engine = Interpreter(ARCHITECTURE, self.space, native)
        self.precise = precise
        compiler = LocalCompiler(ARCHITECTURE, bounded=bounded)
        self.jit = Jit(self.engine.arena, native, compiler, precise=precise)
        if eager:
            self.engine.sampler = Eager(self.jit)

    def prepare(self, program: Program) -> None:
        """Nothing is left of the last program."""
        for region in self.space.regions():
            self.space.unmap(region.start, region.end - region.start)
        for address, data, prot in program.areas():
            self.space.map(address, len(data), 3, fixed=True)
            self.space.write(address, data)
            self.space.protect(address, len(data), prot)
        self.engine.flush()
        self.engine.arena.went_plain = False  # the last program may have set FZ
        self.engine.context.set("reservation_address", -1)
        fill(self.engine.state, program)

    def follow(self) -> Followed:
        """Run what was prepared; what goes astray is stopped."""
        timer = threading.Timer(SECONDS, self.engine.request_stop)
        timer.start()
        try:
            points = follow(self.engine, exact=self.precise, budget=None)
        finally:
            timer.cancel()
            self.engine.clear_stop()
        return Followed(points, self.space.read(DATA, NBYTES), b"")
