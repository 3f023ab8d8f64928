"""The reference engine against an independent emulator, on random operands and sequences.

Unicorn lacks the newer extensions and serves no system call; the vector files cover those.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import pytest

from anyarch.engine.exits import Exit
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.context import ExitCode
from anyarch.isa.instruction import Instruction
from tests.vectors_format import PAGE, ReferenceMachine

unicorn = pytest.importorskip("unicorn")
riscv = pytest.importorskip("unicorn.riscv_const")

CODE: Final = 0x10000
DATA: Final = 0x20000
MIDDLE: Final = DATA + PAGE  # of two pages: every displacement of 12 bits stays inside
BASES: Final = (2, 8, 9)  # x registers that hold MIDDLE: sp and two that all formats can name
EDGES: Final = (0, 1, 2, 31, 32, 63, 64, 0x7F, 0x80, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
EXTENSIONS: Final = ("rv64i", "rv64m", "rv64a", "rv64c")
LEAVING: Final = {"exit", "syscall", "counter"}


def effects(instruction: Instruction) -> frozenset[str]:
    """The effects of an instruction's first form."""
    form = next(instruction.forms())
    return frozenset(each.node.op for each in form.trace(ARCHITECTURE.layout).effects)


INSTRUCTIONS: Final = [
    instruction
    for instruction in ARCHITECTURE.isa.instructions
    if instruction.extension in EXTENSIONS and not effects(instruction) & LEAVING
]
# Not in sequences: what moves a base, and reservations of another size than lr.d takes (whether
# sc.w succeeds after lr.d is up to the implementation).
UNFIT: Final = {"c_addi16sp", "lr_w", "sc_w"}
STRAIGHT: Final = [
    instruction
    for instruction in INSTRUCTIONS
    if "jump" not in effects(instruction) and instruction.name not in UNFIT
]


def random_value(source: random.Random) -> int:
    kind = source.random()
    if kind < 0.3:
        return source.choice(EDGES)
    if kind < 0.6:
        return -source.choice(EDGES) & ((1 << 64) - 1)
    return source.getrandbits(64) >> source.choice((0, 0, 32, 48))


def random_word(instruction: Instruction, source: random.Random) -> int:
    """A word of the instruction that accesses memory, if any, through a base register."""
    row = instruction.row
    while True:
        word = row.value
        for name in row.fields:
            kind = instruction.kinds.get(name)
            value = source.getrandbits(row.width(name))
            if f"({{{name}}})" in instruction.text:
                value = source.choice([b for b in BASES if kind is None or b >= kind.base])
                value -= 0 if kind is None else kind.base
            for piece in row.fields[name]:
                word |= (value >> piece.to & ((1 << piece.size) - 1)) << piece.at
        if row.matches(word):
            return word


def written(instruction: Instruction, word: int) -> Iterator[int]:
    """Numbers of the x registers that the instruction may write."""
    for name in ("rd", "rdc"):
        if name in instruction.row.fields:
            yield instruction.row.extract(name, word) + instruction.kinds[name].base


class Unicorn:
    """One emulator, set anew for each case."""

    def __init__(self) -> None:
        self.engine = unicorn.Uc(
            unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64 | unicorn.UC_MODE_64
        )
        self.engine.mem_map(CODE, PAGE)
        self.engine.mem_map(DATA, 2 * PAGE)
        status = self.engine.reg_read(riscv.UC_RISCV_REG_MSTATUS)
        self.engine.reg_write(riscv.UC_RISCV_REG_MSTATUS, status | 0x6000)  # floating point on

    def run(
        self, x: list[int], f: list[int], code: bytes, memory: bytes, count: int
    ) -> tuple[list[int], list[int], int, bytes]:
        """x and f registers, pc and data memory after ``count`` instructions."""
        engine = self.engine
        engine.mem_write(CODE, code)
        engine.ctl_remove_cache(CODE, CODE + PAGE)
        engine.mem_write(DATA, memory)
        for index in range(32):
            engine.reg_write(riscv.UC_RISCV_REG_X0 + index, x[index])
            engine.reg_write(riscv.UC_RISCV_REG_F0 + index, f[index])
        try:
            engine.emu_start(CODE, 1, count=count)  # 1 is no address of an instruction
        except unicorn.UcError as error:
            if error.errno != unicorn.UC_ERR_FETCH_UNMAPPED:  # a jump: pc is its target
                raise
        return (
            [engine.reg_read(riscv.UC_RISCV_REG_X0 + index) for index in range(32)],
            [engine.reg_read(riscv.UC_RISCV_REG_F0 + index) for index in range(32)],
            engine.reg_read(riscv.UC_RISCV_REG_PC),
            bytes(engine.mem_read(DATA, 2 * PAGE)),
        )


@pytest.fixture(scope="module")
def emulator() -> Unicorn:
    return Unicorn()


def compare(emulator: Unicorn, words: list[tuple[Instruction, int]], source: random.Random) -> None:
    """Run the words on both from one random state."""
    x = [0, *(random_value(source) for _ in range(31))]
    for base in BASES:
        x[base] = MIDDLE
    f = [random_value(source) for _ in range(32)]
    memory = source.randbytes(2 * PAGE)
    code = b"".join(word.to_bytes(each.row.nbytes, "little") for each, word in words)
    machine = ReferenceMachine(
        ARCHITECTURE,
        {CODE: code.ljust(PAGE, b"\0"), DATA: memory[:PAGE], DATA + PAGE: memory[PAGE:]},
    )
    state = machine.state
    for index in range(32):
        state.set("x", index, x[index])
        state.set("f", index, f[index])
    state.pc = CODE
    assert machine.run(len(words)) == Exit(ExitCode.BUDGET, state.pc)
    expected = emulator.run(x, f, code, memory, len(words))
    found = (
        [state.get("x", index) for index in range(32)],
        [state.get("f", index) for index in range(32)],
        state.pc,
        machine.read(DATA, 2 * PAGE),
    )
    text = "; ".join(f"{each.name} {word:#x}" for each, word in words)
    for index in range(32):
        assert found[0][index] == expected[0][index], f"x{index} after {text} from {x}"
        assert found[1][index] == expected[1][index], f"f{index} after {text} from {f}"
    assert found[2] == expected[2], f"pc after {text} from {x}"
    assert found[3] == expected[3], f"memory after {text} from {x}"


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: instruction.name)
def test_single(instruction: Instruction, emulator: Unicorn) -> None:
    source = random.Random(instruction.name)
    for _ in range(25):
        compare(emulator, [(instruction, random_word(instruction, source))], source)


@pytest.mark.parametrize("seed", range(60))
def test_sequence(seed: int, emulator: Unicorn) -> None:
    source = random.Random(seed)
    words: list[tuple[Instruction, int]] = []
    while len(words) < 20:
        instruction = source.choice(STRAIGHT)
        word = random_word(instruction, source)
        if not any(number in BASES for number in written(instruction, word)):
            words.append((instruction, word))
    compare(emulator, words, source)
