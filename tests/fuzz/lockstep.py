"""Random programs, run by the reference engine and by the native engines from one state.

A :class:`Case` is a program with registers and memory; :func:`run_reference`,
:class:`NativeEngine` and :class:`JitEngine` give its :class:`Outcome`; :func:`differences` compares
two of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from anyarch._native import native_code
from anyarch.engine.exits import Exit
from anyarch.engine.interpreter import Interpreter
from anyarch.engine.jit import Jit
from anyarch.engine.reference import Reference
from anyarch.errors import MemoryFault
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.context import ExitCode
from anyarch.isa.instruction import Form
from anyarch.isa.registers import State
from anyarch.memory.space import AddressSpace
from tests.vectors_format import LocalCompiler

PAGE: Final = 4096
CODE: Final = 0x10000
DATA: Final = 0x20000  # two pages that can be written; the page before is not mapped
READ_ONLY: Final = DATA + 2 * PAGE  # one page; the page behind is not mapped
TOP: Final = (1 << 38) - PAGE  # the last page of guest memory can be written
NAMES: Final = ("x", "f")
U64: Final = (1 << 64) - 1
BREAKPOINT: Final = b"\x73\x00\x10\x00"
COUNTER: Final = 31  # x register that counts the turns of loops, written by nothing else
BASES: Final = (2, 8, 9, 30)  # not written in safe programs, where they hold data pointers
LIMIT: Final = 300  # instructions that a case may run

INTEGERS: Final = (
    *range(9), 16, 31, 32, 63, 64, 127, 128, 255, 256, 2047, 2048, 4095, 4096, 0x7FFF, 0x8000,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 1 << 62, (1 << 63) - 1, 1 << 63,
)  # fmt: skip
DOUBLES: Final = (
    0, 1 << 63, 1, 2, 0x000FFFFFFFFFFFFF, 0x0010000000000000, 0x3FF0000000000000,
    0x3FF8000000000000, 0xBFF0000000000000, 0x3FE0000000000000, 0x4000000000000000,
    0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000,
    0x7FF0000000000001, 0xFFF8000000000123, 0x7FF4000000000000, 0x41DFFFFFFFC00000,
    0x41E0000000000000, 0xC1E0000000000000, 0xC1E0000000200000, 0x43E0000000000000,
    0xC3E0000000000000, 0x43DFFFFFFFFFFFFF, 0x43F0000000000000, 0x43EFFFFFFFFFFFFF,
    0x36A0000000000000, 0x380FFFFFFFFFFFFF, 0x3810000000000000, 0x47EFFFFFF0000000,
    0x47EFFFFFE0000000, 0x3690000000000000, 0x3690000000000001, 0xBFDFFFFFFFFFFFFF,
)  # fmt: skip
SINGLES: Final = (
    0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x3FC00000, 0x3F000000,
    0x40000000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x7FA00000,
    0x4EFFFFFF, 0x4F000000, 0xCF000000, 0x4F800000, 0x5F000000, 0xDF000000, 0x5F800000, 0x33800000,
)  # fmt: skip
HALVES: Final = (0, 0x8000, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0x3800)

KEPT: Final = ARCHITECTURE.convention.kept  # registers that are exact at all faults
FORMS: Final = [form for each in ARCHITECTURE.isa.instructions for form in each.forms()]
BY_NAME: Final = {form.name: form for form in FORMS}


@cache
def operations(name: str) -> frozenset[str]:
    """What effects a form has."""
    return frozenset(e.node.op for e in BY_NAME[name].trace(ARCHITECTURE.layout).effects)


@cache
def jumps_directly(name: str) -> bool:
    """Whether a form jumps by an immediate only."""
    return "target}" in BY_NAME[name].instruction.text


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction of a case: its word, and where a jump goes (index of an instruction)."""

    form: Form
    word: int
    target: int | None = None

    @property
    def nbytes(self) -> int:
        return self.form.instruction.row.nbytes

    def __str__(self) -> str:
        to = "" if self.target is None else f" -> {self.target}"
        return f"{self.form.name} {self.word:#0{2 + 2 * self.nbytes}x}{to}"


@dataclass(frozen=True, slots=True)
class Case:
    """A program and the state that it starts from."""

    program: tuple[Insn, ...]
    x: tuple[int, ...]
    f: tuple[int, ...]
    flags: int
    rounding: int
    data: bytes
    read_only: bytes
    top: bytes
    at: int = CODE  # where the program lies

    def code(self) -> bytes:
        """The program's bytes, jumps resolved, a breakpoint behind it."""
        places = [0]
        for insn in self.program:
            places.append(places[-1] + insn.nbytes)
        result = bytearray()
        for index, insn in enumerate(self.program):
            word = insn.word
            if insn.target is not None:
                word = _aim(insn, places[min(insn.target, len(self.program))] - places[index])
            result += word.to_bytes(insn.nbytes, "little")
        return bytes(result) + BREAKPOINT

    def __str__(self) -> str:
        registers = " ".join(f"x{i}={v:#x}" for i, v in enumerate(self.x) if v)
        floats = " ".join(f"f{i}={v:#x}" for i, v in enumerate(self.f) if v)
        text = "\n".join(f"  {index}: {insn}" for index, insn in enumerate(self.program))
        status = f"fflags={self.flags:#x} frm={self.rounding}"
        return f"at {self.at:#x}:\n{text}\n  {registers}\n  {floats}\n  {status}"


def _aim(insn: Insn, offset: int) -> int:
    row = insn.form.instruction.row
    width = row.width("imm")
    if not -(1 << width - 1) <= offset < 1 << width - 1:
        offset = 4
    cleared = insn.word
    for piece in row.fields["imm"]:
        cleared &= ~(((1 << piece.size) - 1) << piece.at)
    return cleared | row.insert("imm", offset & ((1 << width) - 1))


@dataclass(slots=True)
class Outcome:
    """How a case ended."""

    ended: Exit
    registers: list[tuple[str, int, int]]
    data: bytes
    top: bytes
    steps: int = 0


# Making cases.
@dataclass(slots=True)
class Maker:
    """Draws cases from a source of randomness.

    ``wild`` programs use any register as an address: for engines that confine accesses.
    ``safe`` ones access memory through registers that they never write.
    """

    source: random.Random
    wild: bool = True
    pool: list[int] = field(default_factory=list)

    def case(self, names: Sequence[str] = (), *, length: int = 12, loops: bool = False) -> Case:
        """A random program, or one of the named forms in their order."""
        source = self.source
        self.pool = [0, *source.sample(range(8, 16), 3), *source.sample(range(1, 30), 2)]
        if names:
            program = self.sequence(names)
        else:
            program = [self.insn(self.form(), length) for _ in range(source.randrange(1, length))]
            if not loops:
                program = [
                    insn if insn.target is None else replace(insn, target=index + insn.target + 1)
                    for index, insn in enumerate(program)
                ]
            else:
                program = self.counted_loop(program)
        at = CODE
        if source.random() < 0.2:  # across pages, the second of which may end in nothing
            at = CODE + PAGE - 2 * source.randrange(1, 24)
        return Case(
            tuple(program),
            tuple(self.integers()),
            tuple(self.real() for _ in range(32)),
            source.randrange(32),
            source.choice((0, 0, 1, 2, 3, 4, 4, 5, 6, 7)),
            source.randbytes(2 * PAGE),
            source.randbytes(PAGE),
            source.randbytes(PAGE),
            at,
        )

    def form(self) -> Form:
        """Any form; rarely one that ends the program."""
        while True:
            form = self.source.choice(FORMS)
            ops = operations(form.name)
            if not self.wild and ops & {"jump"} and not jumps_directly(form.name):
                continue
            if ops & {"exit", "syscall"} and self.source.random() < 0.8:
                continue
            if ops & FLOAT_EFFECTS and self.source.random() < 0.4:  # two thirds of all forms
                continue
            return form

    def counted_loop(self, program: list[Insn]) -> list[Insn]:
        """Jump back to the start a few times, forward from everywhere else."""
        source = self.source
        turns = source.randrange(2, 6)
        body = [
            insn if insn.target is None else replace(insn, target=index + insn.target + 2)
            for index, insn in enumerate(program)
        ]
        load = Insn(BY_NAME["addi"], turns << 20 | COUNTER << 7 | 0x13)
        less = Insn(BY_NAME["addi"], 0xFFF << 20 | COUNTER << 15 | COUNTER << 7 | 0x13)
        back = Insn(BY_NAME["bne"], COUNTER << 15 | 0x1063, target=1)
        end = len(body) + 1
        body = [
            insn if insn.target is None else replace(insn, target=min(insn.target, end))
            for insn in body
        ]
        return [load, *body, less, back]

    def sequence(self, names: Sequence[str]) -> list[Insn]:
        """The forms of a fused sequence; usually a register read was written by the one before."""
        program: list[Insn] = []
        written: int | None = None
        for index, name in enumerate(names):
            form = BY_NAME[name.partition("@")[0]]
            insn = self.insn(form, 4, linked=written)
            if insn.target is not None:
                insn = replace(insn, target=index + insn.target + 1)
            program.append(insn)
            written = next(destinations(form, insn.word), None)
        return program

    def insn(self, form: Form, length: int, linked: int | None = None) -> Insn:
        """A form with random fields."""
        source, instruction = self.source, form.instruction
        row = instruction.row
        ops = operations(form.name)
        kept = {COUNTER} if self.wild else {COUNTER, *BASES}
        for _ in range(500):
            word = row.value
            for name in row.fields:
                word |= row.insert(name, self.field(form, name, ops, linked))
            if row.matches(word) and not kept.intersection(destinations(form, word)):
                break
        else:  # it writes nothing but sp
            return Insn(BY_NAME["addi"], BY_NAME["addi"].instruction.row.value)
        target = source.randrange(0, 5) if jumps_directly(form.name) else None
        if target is not None and source.random() < 0.02:
            target = None
        return Insn(form, word, target if "jump" in ops else None)

    def field(self, form: Form, name: str, ops: frozenset[str], linked: int | None) -> int:
        """A raw field value."""
        source, instruction = self.source, form.instruction
        row = instruction.row
        width = row.width(name)
        if name in form.static:
            return form.static[name]
        kind = instruction.kinds.get(name)
        if kind is None or kind.file is None:
            covered = sum(((1 << piece.size) - 1) << piece.to for piece in row.fields[name])
            if source.random() < 0.5:
                return source.getrandbits(width) & covered
            small = source.choice((0, 1, 2, 3, 4, 7, 8, 16, 24, 32, 63, -1, -8, -16))
            return small & ((1 << width) - 1) & covered
        if name == "rd" and "counter" in ops:
            return 0
        if not self.wild and f"({{{name}}})" in instruction.text and kind.file == "x":
            usable = [base - kind.base for base in BASES if 0 <= base - kind.base < 1 << width]
            return source.choice(usable)
        number = source.choice(self.pool) if source.random() < 0.9 else source.randrange(30)
        if linked is not None and "d" not in name and source.random() < 0.6:
            number = linked
        covered = sum(((1 << piece.size) - 1) << piece.to for piece in row.fields[name])
        return (number - kind.base) % (1 << width) & covered

    def integers(self) -> Iterator[int]:
        """Values of the x registers."""
        for index in range(32):
            if index == 0:
                yield 0
            elif not self.wild and index in BASES:
                yield DATA + PAGE + self.source.choice((0, 0, 8, 1, 2040, -4))
            else:
                yield self.integer()

    def integer(self) -> int:
        """A pointer, an edge value, or anything."""
        source = self.source
        kind = source.random()
        if kind < 0.3:
            edge = source.choice((DATA, DATA + PAGE, READ_ONLY, READ_ONLY + PAGE, DATA + 256))
            return edge + source.choice((0, 0, 0, 8, 16, -8, -16, 64, 4, -4, -1, -2, -3, 1, 2, 12))
        if kind < 0.35:
            return CODE + 2 * source.randrange(16)
        if kind < 0.5:
            return source.choice((0, 8, 16, 24, 1, 4))
        if kind < 0.7:
            value: int = source.choice(INTEGERS)
            return value
        if kind < 0.85:
            negative: int = -source.choice(INTEGERS) & U64
            return negative
        if kind < 0.9:
            return (1 << 38) - source.randrange(20)
        return source.getrandbits(64) >> source.choice((0, 0, 32, 48))

    def real(self) -> int:
        """A double, a boxed single or half, or anything."""
        source = self.source
        kind = source.random()
        if kind < 0.35:
            return source.choice(DOUBLES)
        if kind < 0.65:
            return 0xFFFFFFFF << 32 | source.choice(SINGLES)
        if kind < 0.75:
            return 0xFFFFFFFFFFFF << 16 | source.choice(HALVES)
        if kind < 0.85:
            return 0xFFFFFFFF << 32 | source.getrandbits(32)
        if kind < 0.95:
            exponent = 1023 + source.randrange(-40, 70)
            return source.getrandbits(1) << 63 | exponent << 52 | source.getrandbits(52)
        return source.getrandbits(64)


FLOAT_EFFECTS: Final = frozenset(
    "fadd fsub fmul fdiv fsqrt ffma fconvert fto_int fto_int_modular ffrom_int fround "
    "fround_exact feq flt fle flt_quiet fle_quiet fmin fmax fmin_number fmax_number".split()
)


def destinations(form: Form, word: int) -> Iterator[int]:
    """Numbers of the x registers that an instruction may write."""
    row, kinds = form.instruction.row, form.instruction.kinds
    ops = operations(form.name)
    if "write" not in ops:
        return
    for name in ("rd", "rdc", "rd_rs1", "rs1c"):
        if name in row.fields and not (name == "rs1c" and "load" in ops):
            number = row.extract(name, word) + kinds[name].base
            yield number
            if form.name.startswith("amocas_q"):
                yield number + 1
    if form.instruction.extension in ("rv64c", "zcb"):
        yield {"c_addi16sp": 2, "c_jalr": 1}.get(form.instruction.name, 0)


# Running cases.
class Pages:
    """Memory of the reference engine: pages with protections."""

    def __init__(self, mapped: Sequence[tuple[int, bytes, int]]) -> None:
        """What is mapped as of :func:`areas`."""
        self.pages: dict[int, tuple[bytearray, int]] = {}
        for address, data, prot in mapped:
            for offset in range(0, len(data), PAGE):
                self.pages[address + offset] = bytearray(data[offset : offset + PAGE]), prot

    def _slices(self, address: int, nbytes: int, prot: int) -> Iterator[tuple[bytearray, slice]]:
        while nbytes > 0:
            page, allowed = self.pages.get(address & -PAGE, (bytearray(), 0))
            if not allowed & prot:
                raise MemoryFault(address)
            at = address % PAGE
            step = min(nbytes, PAGE - at)
            yield page, slice(at, at + step)
            address, nbytes = address + step, nbytes - step

    def read(self, address: int, nbytes: int) -> bytes:
        return b"".join(page[part] for page, part in self._slices(address, nbytes, 5))

    def fetch(self, address: int, nbytes: int) -> bytes:
        return b"".join(page[part] for page, part in self._slices(address, nbytes, 4))

    def write(self, address: int, data: bytes) -> None:
        for page, part in list(self._slices(address, len(data), 2)):
            step = part.stop - part.start
            page[part], data = data[:step], data[step:]


def areas(case: Case) -> list[tuple[int, bytes, int]]:
    """What is mapped: address, contents, protection."""
    start = case.at & -PAGE
    code = bytes(case.at - start) + case.code()
    code = code.ljust(-(-len(code) // PAGE) * PAGE, b"\0")
    return [
        (start, code, 5),
        (DATA, case.data, 3),
        (READ_ONLY, case.read_only, 1),
        (TOP, case.top, 3),
    ]


def fill(state: State, case: Case) -> None:
    """Set the registers to the case's."""
    for index in range(32):
        state.set("x", index, case.x[index])
        state.set("f", index, case.f[index])
    state.set("fcsr", 0, case.flags)
    state.set("fcsr", 1, case.rounding)
    state.pc = case.at


def run_reference(case: Case, budget: int = LIMIT) -> Outcome:
    """Run a case by the reference engine."""
    state, memory = State(ARCHITECTURE.layout), Pages(areas(case))
    fill(state, case)
    engine = Reference(ARCHITECTURE, state, memory)
    ended = engine.run(budget)
    data, top = memory.read(DATA, 2 * PAGE), memory.read(TOP, PAGE)
    return Outcome(ended, list(state.registers()), data, top, engine.retired)


class NativeEngine:
    """A native interpreter that is filled anew for each case."""

    def __init__(
        self, *, bounded: bool, counting: bool = False, direct: bool = False, code: bool = False
    ) -> None:
        """With ``code`` blocks have code of their own."""
        self.bounded, self.counting = bounded, counting
        self.space = AddressSpace(38, bounded=bounded, direct=direct)
        native = native_code("riscv64", "bounded" if bounded else "flat")
        self.engine = Interpreter(ARCHITECTURE, self.space, native, counting=counting)
        if code:
            self.engine.arena.assemble()
        self.mapped: list[tuple[int, int]] = []

    def prepare(self, case: Case) -> None:
        for address, nbytes in self.mapped:
            self.space.unmap(address, nbytes)
        self.mapped.clear()
        for address, data, prot in areas(case):
            self.space.map(address, len(data), 3, fixed=True)
            self.space.write(address, data)
            self.space.protect(address, len(data), prot)
            self.mapped.append((address, len(data)))
        self.engine.flush()
        self.engine.context.set("reservation_address", -1)
        fill(self.engine.state, case)

    def outcome(self, ended: Exit, steps: int = 0) -> Outcome:
        registers = list(self.engine.state.registers())
        data, top = self.space.read(DATA, 2 * PAGE), self.space.read(TOP, PAGE)
        return Outcome(ended, registers, data, top, steps)

    def run(self, case: Case, budget: int | None) -> Outcome:
        """Run a case at once."""
        self.prepare(case)
        before = self.engine.retired
        ended = self.engine.run(budget)
        return self.outcome(ended, self.engine.retired - before if self.counting else 0)

    def run_stepping(self, case: Case, budget: int) -> Outcome:
        """Run a case one instruction at a time."""
        self.prepare(case)
        if self.counting:
            self.engine.run(0)
        for _ in range(budget):
            ended = self.engine.step()
            if ended is not None:
                return self.outcome(ended)
        return self.outcome(Exit(ExitCode.BUDGET, self.engine.state.pc))


class JitEngine(NativeEngine):
    """Compiles what a case begins with, and what that links to, before it runs.

    In the ``precise`` form registers are exact at faults; ``direct`` has guest addresses be those
    of the host, in one engine at a time.
    """

    def __init__(self, *, bounded: bool, precise: bool = False, direct: bool = False) -> None:
        super().__init__(bounded=bounded, counting=False, direct=direct)
        is_direct = not self.space.base
        compiler = LocalCompiler(ARCHITECTURE, bounded=bounded, direct=is_direct)
        self.precise = precise
        self.jit = Jit(self.engine.arena, self.engine.native, compiler, precise=precise)

    def prepare(self, case: Case) -> None:
        super().prepare(case)
        compile_all(self.jit, case.at)


def compile_all(jit: Jit, *entries: int, limit: int = 8) -> int:
    """Install the regions at some pcs, and at those that they link to; how many there are."""
    work, seen = list(entries), set(entries)
    while work and limit:
        pc = work.pop(0)
        if jit.add(pc):
            limit -= 1
            fresh = [cell for cell in jit.installed[pc].region.targets if cell not in seen]
            seen.update(fresh)
            work += fresh
    return len(jit.installed)


def differences(
    expected: Outcome, found: Outcome, *, steps: bool = False, registers: bool = True
) -> list[str]:
    """What differs, a line each; without ``registers`` of those only what regions keep."""
    result = []
    if expected.ended != found.ended:
        result.append(f"ended with {found.ended}, expected {expected.ended}")
    for (file, index, value), (_, _, got) in zip(expected.registers, found.registers, strict=True):
        if (registers or (file, index) in KEPT) and value != got:
            result.append(f"{file}{index} is {got:#x}, expected {value:#x}")
    for start, before, after in (
        (DATA, expected.data, found.data),
        (TOP, expected.top, found.top),
    ):
        for offset in range(0, len(before), 8) if before != after else ():
            want, got_ = before[offset : offset + 8], after[offset : offset + 8]
            if want != got_:
                result.append(f"[{start + offset:#x}] is {got_.hex()}, expected {want.hex()}")
    if steps and expected.steps != found.steps:
        result.append(f"{found.steps} instructions retired, expected {expected.steps}")
    return result
