"""Half precision of Zfh, and fcvtmod, in native code against the reference engine."""

from __future__ import annotations

import random
from typing import Final

import pytest

from anyarch.guests.riscv import ARCHITECTURE
from tests.vectors_format import CODE, PAGE, NativeMachine, ReferenceMachine, encode

COUNT: Final = 60
SPECIAL: Final = (0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0x7D01, 0x0400, 0x03FF, 1, 0x7BFF, 0x3C00)
MODES: Final = ("", ", rtz", ", rdn", ", rup")
TEXTS: Final = [
    *(
        f"{name}.h fa0, fa1, fa2{mode}"
        for name in ("fadd", "fsub", "fmul", "fdiv")
        for mode in MODES
    ),
    *(f"{name}.h fa0, fa1, fa2, fa3" for name in ("fmadd", "fmsub", "fnmadd", "fnmsub")),
    *(f"{name}.h fa0, fa1, fa2" for name in ("fmin", "fmax")),
    *(f"{name}.h a0, fa1, fa2" for name in ("feq", "flt", "fle")),
    *(f"fcvt.{kind}.h a0, fa1{mode}" for kind in ("w", "wu", "l", "lu") for mode in MODES),
    *(f"fcvt.h.{kind} fa0, a1{mode}" for kind in ("w", "wu", "l", "lu") for mode in MODES),
    *(f"fcvt.h.{kind} fa0, fa1{mode}" for kind in "sd" for mode in MODES),
    "fcvt.s.h fa0, fa1",
    "fcvt.d.h fa0, fa1",
    "fsqrt.h fa0, fa1",
    "fcvtmod.w.d a0, fa1, rtz",
]


def number(source: random.Random, text: str) -> int:
    if text.startswith(("fcvt.h.s", "fcvt.h.d", "fcvtmod")):
        if source.random() < 0.3:
            return source.getrandbits(64)
        # About the range of halves, or of 64-bit integers.
        low, high, at = (112, 145, 23) if ".s" in text else (1023, 1088, 52)
        if ".h.d" in text:
            low, high = 1007, 1041
        rest = source.choice((0, 1, 1 << at - 11, (1 << at - 11) - 1, source.getrandbits(at)))
        bits = source.getrandbits(1) << at + 8 + 3 * (at == 52) | source.randrange(low, high) << at
        return bits | rest | (-1 << 32 & (1 << 64) - 1 if ".s" in text else 0)
    if source.random() < 0.05:
        return source.getrandbits(64)  # not a boxed half
    bits = source.choice((source.choice(SPECIAL), source.getrandbits(16), source.getrandbits(16)))
    return ((1 << 64) - 1 ^ 0xFFFF) | bits


@pytest.fixture(scope="module")
def machines() -> tuple[ReferenceMachine, NativeMachine]:
    pages = {CODE: bytes(PAGE)}
    return ReferenceMachine(ARCHITECTURE, pages), NativeMachine(ARCHITECTURE, pages)


@pytest.mark.parametrize("text", TEXTS)
def test_operations(text: str, machines: tuple[ReferenceMachine, NativeMachine]) -> None:
    source = random.Random(text)
    reference, native = machines
    code = encode(ARCHITECTURE, text)
    reference.memory.pages[CODE][:4] = code
    native.engine.space.write(CODE, code)
    native.engine.code_changed(CODE, 4)
    for _ in range(COUNT):
        values = [number(source, text) for _ in range(4)]
        integer = source.getrandbits(source.choice((5, 12, 17, 33, 64)))
        mode = source.choice((0, 0, 1, 2, 3))
        for machine in (reference, native):
            machine.state.pc = CODE
            for index, value in enumerate(values):
                machine.state.set("f", 10 + index, value)
            machine.state.set("x", 11, integer)
            machine.state.set("fcsr", 0, 0)
            machine.state.set("fcsr", 1, mode)
        reference.run(1)
        native.run(1)
        for file, index, value in reference.state.registers():
            found = native.state.get(file, index)
            assert found == value, (
                f"{file}[{index}] is {found:#x}, expected {value:#x}, mode {mode}, "
                f"of {[hex(value) for value in values]}, {integer:#x}"
            )
