"""The reference engine against an independent emulator, on random operands, all definitions.

Unicorn's processor has no FEAT_I8MM and FEAT_BF16: what it refuses is not compared here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE, CHAPTERS
from anyarch.host.context import ExitCode
from anyarch.isa.assembly import format_word
from anyarch.isa.instruction import Instruction
from tests.aarch64.emulator import (
    CODE,
    DATA,
    DEFINITIONS,
    NBYTES,
    Unicorn,
    differences,
    load_state,
    prepare,
    random_registers,
    random_word,
    read_state,
    touches_memory,
    unpredictable,
)
from tests.vectors_format import PAGE, ReferenceMachine

CASES: Final = 3
# What unicorn gives and the manual does not, or what depends on the machine.
EXCEPT: Final = (
    ("mrs", "identification and counters are of the machine"),
    ("ldsm", "its 8-bit, 16-bit and 32-bit minimum and maximum compare zero-extended numbers"),
    ("msr_fpcr", "it keeps bits of AArch32"),
    ("msr_fpsr", "it keeps bits of AArch32"),
    ("svc", "serves no system calls"),
    ("brk", "an exception there"),
    ("fcmla_4h_element", "it accrues flags of the upper half too"),
    ("fcvtzs_fixed_h_scalar", "it extends the sign beyond 16 bits"),
    ("fcvtzu_fixed_h_scalar", "it extends beyond 16 bits"),
)
COMPARED: Final = [
    each for each in DEFINITIONS if not any(each.name.startswith(name) for name, _ in EXCEPT)
]
FLOATS: Final = {"fp", "simd_float"}
MODES: Final = (0, 0, 1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25, 3 << 24, 1 << 19, 1 << 26)


@pytest.fixture(scope="module")
def emulator() -> Unicorn:
    return Unicorn()


@pytest.fixture(scope="module")
def machine(emulator: Unicorn) -> ReferenceMachine:
    memory = random.Random(0).randbytes(NBYTES)
    emulator.write(memory)
    pages = {DATA + at: memory[at : at + PAGE] for at in range(0, NBYTES, PAGE)}
    return ReferenceMachine(ARCHITECTURE, {CODE: bytes(PAGE), **pages})


def data_of(machine: ReferenceMachine) -> bytes:
    pages = machine.memory.pages
    return b"".join(bytes(pages[at]) for at in range(DATA, DATA + NBYTES, PAGE))


def compare(
    instruction: Instruction, machine: ReferenceMachine, emulator: Unicorn, source: random.Random
) -> Iterator[str]:
    word = random_word(instruction, source)
    if unpredictable(instruction, word):
        return
    before = random_registers(source)
    prepare(instruction, word, before, source)
    if instruction.extension in FLOATS:
        before.fpcr = source.choice(MODES)
    code = word.to_bytes(4, "little")
    machine.memory.pages[CODE][:4] = code
    expected = emulator.run(before, code, 1)
    if expected is None:
        return
    load_state(machine, before)
    ended = machine.run(1)
    text = f"{instruction.name}: {format_word(ARCHITECTURE, code)} ({word:#010x}) from {before}"
    if ended.code is not ExitCode.BUDGET:
        yield f"{text}: ended with {ended}"
    problems = differences(read_state(machine), expected)
    if problems:
        yield f"{text}: {'; '.join(problems)}"
    if touches_memory(instruction) and data_of(machine) != emulator.read():
        emulator.write(data_of(machine))
        yield f"{text}: memory differs"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_definitions(chapter: str, machine: ReferenceMachine, emulator: Unicorn) -> None:
    source = random.Random(chapter)
    problems = [
        problem
        for instruction in COMPARED
        if instruction.extension == chapter
        for _ in range(CASES)
        for problem in compare(instruction, machine, emulator, source)
    ]
    assert not problems, "\n" + "\n".join(problems[:20])


def test_every_definition_is_compared() -> None:
    assert {each.extension for each in DEFINITIONS} == set(CHAPTERS)
    assert len(COMPARED) > 0.95 * len(DEFINITIONS)
