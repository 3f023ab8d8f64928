"""Definitions one by one, in native code and in the reference engine, on chosen vectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.isa.instruction import Instruction
from tests.aarch64.emulator import (
    CODE,
    differences,
    load_state,
    prepare,
    random_registers,
    random_word,
    read_state,
)
from tests.vectors_format import PAGE, NativeMachine, ReferenceMachine


def compare_definitions(
    instructions: Iterable[Instruction],
    source: random.Random,
    vector: Callable[[random.Random], int],
    modes: Sequence[int],
    cases: int,
) -> list[str]:
    """What differs, for as many random words of each definition; ``modes`` are FPCRs."""
    pages = {CODE: bytes(PAGE)}
    reference = ReferenceMachine(ARCHITECTURE, pages)
    native = NativeMachine(ARCHITECTURE, pages)
    problems = []
    for instruction in instructions:
        for _ in range(cases):
            word = random_word(instruction, source)
            before = random_registers(source)
            prepare(instruction, word, before, source)
            before.v = [vector(source) for _ in before.v]
            before.fpcr, before.fpsr = source.choice(modes), source.choice((0, 0, 0x9F))
            code = word.to_bytes(4, "little")
            reference.memory.pages[CODE][:4] = code
            native.engine.space.write(CODE, code)
            native.engine.code_changed(CODE, 4)
            load_state(reference, before)
            load_state(native, before)
            expected, found = reference.run(1), native.run(1)
            differing = differences(read_state(native), read_state(reference))
            if differing or expected.code is not found.code:
                problems.append(f"{instruction.name} {word:#010x} from {before}: {differing}")
    return problems
