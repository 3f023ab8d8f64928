"""The independent emulator that AArch64 definitions are compared with, and random cases for both.

Memory and code are shared by all cases: what one stores the next one finds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.guests.aarch64.registers import FLAGS, MODE
from anyarch.isa.instruction import Instruction
from tests.vectors_format import PAGE

unicorn = pytest.importorskip("unicorn")
arm64 = pytest.importorskip("unicorn.arm64_const")

CODE: Final = 0x10000
DATA: Final = 0x100000
NBYTES: Final = 0x40000
MIDDLE: Final = DATA + NBYTES // 2  # every displacement stays inside
EDGES: Final = (0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HALF_FLOATS: Final = (
    0x0000,
    0x8000,
    0x3C00,
    0xBC00,
    0x0001,
    0x03FF,
    0x0400,
    0x7BFF,
    0x7C00,
    0xFC00,
    0x7E00,
    0xFE01,
    0x7D00,
    0x3800,
    0x3E00,
    0x4100,
)
SINGLES: Final = (
    0x00000000,
    0x80000000,
    0x3F800000,
    0xBF800000,
    0x00000001,
    0x007FFFFF,
    0x00800000,
    0x7F7FFFFF,
    0x7F800000,
    0xFF800000,
    0x7FC00000,
    0xFFC12345,
    0x7F812345,
    0x4F000000,
    0x5F000000,
    0xCF000000,
    0x3F000000,
    0x3FC00000,
    0x40200000,
)
DOUBLES: Final = (
    0x0000000000000000,
    0x8000000000000000,
    0x3FF0000000000000,
    0xBFF0000000000000,
    1,
    0x000FFFFFFFFFFFFF,
    0x0010000000000000,
    0x7FEFFFFFFFFFFFFF,
    0x7FF0000000000000,
    0xFFF0000000000000,
    0x7FF8000000000000,
    0xFFF8000000012345,
    0x7FF0000000012345,
    0x41E0000000000000,
    0x43E0000000000000,
    0xC3E0000000000000,
    0x3FE0000000000000,
    0x3FF8000000000000,
    0x4004000000000000,
)
ROUNDINGS: Final = (0, 3, 2, 1)  # FPCR's numbers of the engines' nearest, zero, down, up


@dataclass(slots=True)
class Registers:
    """All that a case compares. ``fpcr`` and ``fpsr`` are as the manual lays them out."""

    x: list[int] = field(default_factory=lambda: [0] * 32)  # sp last
    v: list[int] = field(default_factory=lambda: [0] * 32)
    nzcv: int = 0
    fpcr: int = 0
    fpsr: int = 0
    pc: int = CODE


_X: Final = [
    *(arm64.UC_ARM64_REG_X0 + index for index in range(29)),
    arm64.UC_ARM64_REG_X29,
    arm64.UC_ARM64_REG_X30,
    arm64.UC_ARM64_REG_SP,
]
_V: Final = [arm64.UC_ARM64_REG_Q0 + index for index in range(32)]


class Unicorn:
    """One emulator for all cases."""

    def __init__(self) -> None:
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.engine.ctl_set_cpu_model(arm64.UC_CPU_ARM64_MAX)
        self.engine.mem_map(CODE, PAGE)
        self.engine.mem_map(DATA, NBYTES)
        access = self.engine.reg_read(arm64.UC_ARM64_REG_CPACR_EL1)
        self.engine.reg_write(arm64.UC_ARM64_REG_CPACR_EL1, access | 3 << 20)

    def run(self, before: Registers, code: bytes, count: int) -> Registers | None:
        """The registers after ``count`` instructions; None where it raised an exception."""
        engine = self.engine
        engine.mem_write(CODE, code)
        engine.ctl_remove_cache(CODE, CODE + PAGE)
        for numbers, values in ((_X, before.x), (_V, before.v)):
            for number, value in zip(numbers, values, strict=True):
                engine.reg_write(number, value)
        engine.reg_write(arm64.UC_ARM64_REG_NZCV, before.nzcv << 28)
        engine.reg_write(arm64.UC_ARM64_REG_FPCR, before.fpcr)
        engine.reg_write(arm64.UC_ARM64_REG_FPSR, before.fpsr)
        try:
            engine.emu_start(CODE, 1, count=count)  # 1 is no address of an instruction
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:  # a jump: pc is its target
                return None
        return Registers(
            [engine.reg_read(number) for number in _X],
            [engine.reg_read(number) for number in _V],
            engine.reg_read(arm64.UC_ARM64_REG_NZCV) >> 28,
            engine.reg_read(arm64.UC_ARM64_REG_FPCR),
            engine.reg_read(arm64.UC_ARM64_REG_FPSR),
            engine.reg_read(arm64.UC_ARM64_REG_PC),
        )

    def read(self) -> bytes:
        """Data memory."""
        return bytes(self.engine.mem_read(DATA, NBYTES))

    def write(self, data: bytes) -> None:
        """Set data memory."""
        self.engine.mem_write(DATA, data)


def random_integer(source: random.Random) -> int:
    kind = source.random()
    if kind < 0.3:
        return source.choice(EDGES)
    if kind < 0.6:
        return -source.choice(EDGES) & ((1 << 64) - 1)
    return source.getrandbits(64) >> source.choice((0, 0, 32, 48))


def _lane(source: random.Random, size: int) -> int:
    if source.random() < 0.4:
        return source.getrandbits(size)
    if size == 64:
        return source.choice(DOUBLES)
    if size == 32:
        return source.choice(SINGLES)
    if size == 16:
        return source.choice(HALF_FLOATS)
    return source.choice((0, 1, 0x7F, 0x80, 0xFF))


def random_vector(source: random.Random) -> int:
    size = source.choice((8, 16, 32, 32, 64, 64))
    return sum(_lane(source, size) << at for at in range(0, 128, size))


def random_registers(source: random.Random) -> Registers:
    return Registers(
        [random_integer(source) for _ in range(32)],
        [random_vector(source) for _ in range(32)],
        source.getrandbits(4),
    )


def random_word(instruction: Instruction, source: random.Random) -> int:
    """A word of the instruction."""
    row = instruction.row
    while True:
        word = row.value | (source.getrandbits(row.size) & ~row.mask)
        if row.matches(word):
            return word


def unpredictable(instruction: Instruction, word: int) -> bool:
    """Whether the manual leaves it open what happens: registers that must differ are equal."""
    row = instruction.row
    fields = {name: row.extract(name, word) for name in row.fields}
    text = instruction.text
    writes_base = text.endswith("!") or "], " in text or "]{" in text
    targets = [fields[name] for name in ("rt", "rt2") if name in fields]
    if "base" in fields and writes_base and fields["base"] in targets and fields["base"] != 31:
        return True
    if text.startswith("ld") and "rt2" in fields and fields["rt"] == fields["rt2"]:
        return True
    if text.startswith("ld") and "vt2" in fields and fields["vt"] == fields["vt2"]:
        return True
    if "rs" in fields and text.startswith("st") and "xr" in text.split()[0] + "xp":
        return fields["rs"] in (*targets, fields["base"])
    return False


def touches_memory(instruction: Instruction) -> bool:
    """Whether it loads or stores relative to a register, or works on cache lines."""
    return "base" in instruction.row.fields or instruction.name.startswith(("dc_", "ic_"))


def prepare(instruction: Instruction, word: int, before: Registers, source: random.Random) -> None:
    """Make what the word accesses, if anything, lie in data memory."""
    row = instruction.row
    if not touches_memory(instruction):
        return
    if "base" not in row.fields:
        before.x[row.extract("rt", word)] = MIDDLE
        return
    if "rm" in row.fields and "option" in row.fields:
        offset = source.randrange(0, 0x800)
        before.x[row.extract("rm", word)] = offset
    base = row.extract("base", word)
    atomic = instruction.extension == "atomics"
    before.x[base] = MIDDLE + (0 if atomic else source.randrange(0, 64))


def load_state(machine: object, before: Registers) -> None:
    """Put the registers into a machine of ``tests.vectors_format``."""
    state = machine.state  # type: ignore[attr-defined]  # ReferenceMachine or NativeMachine
    for index in range(32):
        state.set("r", index, before.x[index])
        state.set("v", index, before.v[index])
    for index in range(4):
        state.set("flag", index, before.nzcv >> (3 - index) & 1)
    state.set("fpstatus", FLAGS, flags_of(before.fpsr))
    state.set("fpstatus", MODE, mode_of(before.fpcr))
    state.set("qc", 0, before.fpsr >> 27 & 1)
    state.pc = before.pc


def read_state(machine: object) -> Registers:
    """The registers of a machine."""
    state = machine.state  # type: ignore[attr-defined]  # as above
    mode, flags = state.get("fpstatus", MODE), state.get("fpstatus", FLAGS)
    fpcr = ROUNDINGS.index(mode & 3) << 22
    fpcr |= (mode >> 3 & 7) << 24 | (mode >> 6 & 1) << 19
    fpsr = sum((flags >> ours & 1) << theirs for ours, theirs in _PLACES)
    fpsr |= state.get("qc", 0) << 27
    return Registers(
        [state.get("r", index) for index in range(32)],
        [state.get("v", index) for index in range(32)],
        sum((state.get("flag", index) & 1) << (3 - index) for index in range(4)),
        fpcr,
        fpsr,
        state.pc,
    )


_PLACES: Final = ((0, 4), (1, 3), (2, 2), (3, 1), (4, 0), (5, 7))


def flags_of(fpsr: int) -> int:
    """Accrued flags as the engines keep them."""
    return sum((fpsr >> theirs & 1) << ours for ours, theirs in _PLACES)


def mode_of(fpcr: int) -> int:
    """All modes as the engines keep them."""
    return (
        ROUNDINGS.index(0) * 0 + [0, 3, 2, 1][fpcr >> 22 & 3]
        | (fpcr >> 24 & 7) << 3
        | (fpcr >> 19 & 1) << 6
    )


def differences(found: Registers, expected: Registers) -> list[str]:
    """What differs, a line each."""
    problems = []
    for name in ("x", "v"):
        for index in range(32):
            mine, theirs = getattr(found, name)[index], getattr(expected, name)[index]
            if mine != theirs:
                problems.append(f"{name}{index} is {mine:#x}, expected {theirs:#x}")
    for name in ("nzcv", "fpcr", "fpsr", "pc"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        if mine != theirs:
            problems.append(f"{name} is {mine:#x}, expected {theirs:#x}")
    return problems


DEFINITIONS: Final = ARCHITECTURE.isa.instructions
