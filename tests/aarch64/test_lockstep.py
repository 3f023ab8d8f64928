"""The interpreter against the reference engine, on random operands, all definitions."""

from __future__ import annotations

import random
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE, CHAPTERS
from anyarch.isa.assembly import format_word
from tests.aarch64.emulator import (
    CODE,
    DATA,
    DEFINITIONS,
    NBYTES,
    differences,
    load_state,
    prepare,
    random_registers,
    random_word,
    read_state,
    touches_memory,
)
from tests.vectors_format import PAGE, NativeMachine, ReferenceMachine

CASES: Final = 2
MODES: Final = (0, 0, 0, 1 << 22, 2 << 22, 3 << 22, 1 << 25, 1 << 24)
COUNTERS: Final = ("mrs_cntpct_el0", "mrs_cntvct_el0")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_definitions(chapter: str) -> None:
    source = random.Random(f"lock-step {chapter}")
    memory = source.randbytes(NBYTES)
    pages = {DATA + at: memory[at : at + PAGE] for at in range(0, NBYTES, PAGE)}
    pages[CODE] = bytes(PAGE)
    reference = ReferenceMachine(ARCHITECTURE, pages)
    native = NativeMachine(ARCHITECTURE, pages)
    space = native.engine.space
    problems = []
    for instruction in DEFINITIONS:
        if instruction.extension != chapter or instruction.name in COUNTERS:
            continue
        for _ in range(CASES):
            word = random_word(instruction, source)
            before = random_registers(source)
            prepare(instruction, word, before, source)
            before.fpcr, before.fpsr = source.choice(MODES), source.choice((0, 0x9F))
            code = word.to_bytes(4, "little")
            reference.memory.pages[CODE][:4] = code
            space.write(CODE, code)
            native.engine.code_changed(CODE, 4)
            load_state(reference, before)
            load_state(native, before)
            expected, found = reference.run(1), native.run(1)
            differing = differences(read_state(native), read_state(reference))
            if expected.code is not found.code:
                differing.append(f"ended with {found}, expected {expected}")
            if touches_memory(instruction):
                data = b"".join(
                    bytes(reference.memory.pages[at]) for at in range(DATA, DATA + NBYTES, PAGE)
                )
                if space.read(DATA, NBYTES) != data:
                    differing.append("memory differs")
                    space.write(DATA, data)
            if differing:
                text = f"{instruction.name}: {format_word(ARCHITECTURE, code)} ({word:#010x})"
                problems.append(f"{text} from {before}: {'; '.join(differing)}")
    assert not problems, "\n" + "\n".join(problems[:20])
