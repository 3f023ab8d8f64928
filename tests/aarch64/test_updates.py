"""Loops of exclusives that regions make one atomic operation of."""

from __future__ import annotations

import random
from typing import Final

import pytest

from anyarch.engine.regions import RegionCompiler
from anyarch.engine.updates import find_update
from anyarch.errors import MemoryFault
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.host.context import ExitCode
from tests.vectors_format import CODE, PAGE, CompiledMachine, ReferenceMachine, encode

DATA: Final = 0x200000
SIZES: Final = (("b", "w", 8), ("h", "w", 16), ("", "w", 32), ("", "x", 64))
CHANGES: Final = {
    "add {r}9, {r}8, {r}3": "add",
    "add {r}9, {r}3, {r}8": "add",
    "add {r}8, {r}8, 7": "add",
    "sub {r}9, {r}8, {r}3": "sub",
    "and {r}9, {r}8, {r}3": "and",
    "bic {r}9, {r}8, {r}3": "and",
    "orr {r}9, {r}8, {r}3, lsl 3": "or",
    "eor {r}9, {r}3, {r}8": "xor",
    "": "xchg",
    # What is not one operation.
    "sub {r}9, {r}3, {r}8": "",
    "add {r}9, {r}8, {r}8": "",
    "adds {r}9, {r}8, {r}3": "",
    "add {r}9, {r}8, {r}3; add {r}9, {r}9, 1": "",
}


def program(change: str, suffix: str, letter: str) -> str:
    stored = f"{letter}8" if "}8, {r}8, 7" in change else f"{letter}9"
    lines = [
        f"loop: ldaxr{suffix} {letter}8, [x0]",
        change.format(r=letter),
        f"stlxr{suffix} w10, {stored}, [x0]",
        "cbnz w10, loop; add x11, x8, x9",
    ]
    return "; ".join(line for line in lines if line)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: str(size[2]))
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change or "nothing")
def test_update(change: str, size: tuple[str, str, int]) -> None:
    suffix, letter, _ = size
    code = encode(ARCHITECTURE, program(change, suffix, letter))
    assert operation(code) == CHANGES[change]
    source = random.Random(program(change, suffix, letter))
    pages = {CODE: code.ljust(PAGE, b"\0"), DATA: source.randbytes(PAGE)}
    compiled = CompiledMachine(ARCHITECTURE, pages)
    for _ in range(10):
        reference = ReferenceMachine(ARCHITECTURE, pages)
        compiled.engine.space.write(DATA, pages[DATA])
        registers = [source.getrandbits(64) for _ in range(12)]
        registers[0] = DATA + 8 * source.randrange(8) + source.choice((0, 0, 0, 1))
        registers[0] |= source.choice((0, 0x7F << 56))
        for machine in (reference, compiled):
            machine.state.pc = CODE
            for index, value in enumerate(registers):
                machine.state.set("r", index, value)
            for index in range(4):
                machine.state.set("flag", index, 0)
        ended = reference.run(100)
        assert compiled.engine.run() == ended
        assert ended.code in (ExitCode.ILLEGAL, ExitCode.EXCEPTION)
        for file, index, value in reference.state.registers():
            assert compiled.state.get(file, index) == value, f"{file}[{index}]"
        assert compiled.read(DATA, PAGE) == reference.read(DATA, PAGE)


@pytest.mark.parametrize(
    "text",
    [
        "loop: ldxr x8, [x0]; add x9, x8, x3; stxr w10, x9, [x1]; cbnz w10, loop",
        "loop: ldxr x0, [x0]; add x9, x0, x3; stxr w10, x9, [x0]; cbnz w10, loop",
        "loop: ldxr x8, [x0]; add x9, x8, x3; stxr w10, x7, [x0]; cbnz w10, loop",
        "loop: ldxr x8, [x0]; stxr w10, x8, [x0]; cbnz w10, loop",
        "hint 0; loop: ldxr x8, [x0]; add x9, x8, x3; stxr w10, x9, [x0]; cbnz w11, loop",
    ],
    ids=["addresses", "base", "value", "same", "entry"],
)
def test_others_are_left(text: str) -> None:
    assert operation(encode(ARCHITECTURE, text)) == ""


def operation(code: bytes) -> str:
    """Of the one block of a region that is an update, or nothing."""

    def read(address: int, nbytes: int) -> bytes:
        if not 0 <= address - CODE <= len(code) - nbytes:
            raise MemoryFault(address, "read")
        return code[address - CODE : address - CODE + nbytes]

    region = RegionCompiler(ARCHITECTURE, bounded=False).discover(CODE, read)
    assert region is not None
    found = [find_update(block, ARCHITECTURE.layout) for block in region.blocks.values()]
    return "".join(update.operation for update in found if update is not None)
