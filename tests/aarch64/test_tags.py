"""Pointers with tags: regions take no masks until they meet one, and are right before and after."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch._native import native_code
from anyarch._run import JitOptions
from anyarch.engine.exits import Exit
from anyarch.engine.interpreter import Interpreter
from anyarch.engine.jit import Jit
from anyarch.engine.reference import Reference
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.host.context import ExitCode
from anyarch.isa.assembly import assemble
from anyarch.isa.registers import State
from anyarch.memory.space import AddressSpace
from tests.fuzz.lockstep import Pages
from tests.programs.build import AARCH64, compile_c
from tests.vectors_format import LocalCompiler

PROGRAM: Final = Path(__file__).parent / "programs" / "tags.c"
# As QEMU prints it, but that it knows no address that is beyond any memory.
ROUND: Final = """\
bytes a8fa0e635c83d378 8412aa836ac4cbbd 9d597e0b1210757d 596bee232ab9343b digest d09416a7a9e5c047
doubles 2
pairs e2743f5e99f39cbd
atomics edbdbf7ccd7440d4 exclusives 8f4c3b644256ff8e digest 4fa80b28025c67c4
itself @
swapped dd32c6f8321247e6
changing 92b27bd7e33ad1ea
constants 6ec43c3ab66234e0
cleared 63
"""
ITSELF: Final = ("ffffffffffffffff", "ffffffffffffffff", "ffffffffffffffff", "0")
EXPECTED: Final = (
    "".join(ROUND.replace("@", each) for each in ITSELF)
    + """\
thread f0e88ac57afca08c
thread f0e88ac57afca08c
thread f0e88ac57afca08c
thread f0e88ac57afca08c
child f0e88ac57afca08c
child f0e88ac57afca08c
no access: signal 11 code 2 address 50000018 at f9400c29 base 4200000050000000 sp 1
again: signal 11 code 2 address 50000018 at f9400c29 base 4300000050000000 sp 1
none there: signal 11 code 1 address 40000018 at f9400c29 base ff00000040000000 sp 1
wild: signal 11 code 1 address 4000050001018 at f9400c29 base 4000050001000 sp 1
wild and tagged: signal 11 code 1 address 4000050001018 at f9400c29 base 1104000050001000 sp 1
negative: signal 11 code 1 address fffffffffffff018 at f9400c29 base fffffffffffff000 sp 1
untagged: signal 11 code 2 address 50000018 at f9400c29 base 50000000 sp 1
repaired: signal 11 code 2 address 50000018 at f9400c29 base 4400000050000000 sp 1
sum 0
repaired: sum 0
"""
)
CODE: Final = 0x10000
DATA: Final = 0x20000
PAGE: Final = 4096
UNMAPPED: Final = 0x50000
TURNS: Final = 40
# Loops of x0 turns over x1 and x2, which point to data and may have tags; x3 is a small offset.
BODIES: Final = (
    "ldr x9, [x1]; add x4, x4, x9; str x4, [x1, 8]",
    "ldrb w9, [x1, x3]; add x4, x4, x9; strb w4, [x2, w3, uxtw]",
    "ldr x9, [x3, x1]; add x4, x4, x9; str x4, [x3, x2]",
    "ldp x9, x10, [x1, 16]; stp x10, x4, [x2, -16]; add x4, x4, x9",
    "ldr q0, [x1]; ldp q1, q2, [x2]; eor v0.16b, v0.16b, v1.16b; stp q0, q2, [x2, 32]",
    "ld2 {v1.4s, v2.4s}, [x1]; st1 {v2.b}[3], [x2]; ld1r {v3.2d}, [x1]; str q3, [x2, 16]",
    "str x1, [x1]; ldr x9, [x1]; str x9, [x9, 8]; ldr x10, [x9, 8]; add x4, x4, x10",
    "mov x9, x1; str x9, [x9]; ldr x9, [x9]; swp x9, x9, [x9]; ldadd x9, x10, [x9]; add x4, x4, x9",
    "ldadd x3, x9, [x1]; swpb w9, w10, [x2]; add x4, x4, x10; ldsmax x4, x10, [x1]",
    "mov x10, x9; cas x9, x4, [x1]; mov x12, x4; mov x13, x10; casp x10, x11, x12, x13, [x2]",
    "again: ldxr x9, [x1]; add x9, x9, x3; stxr w10, x9, [x1]; cbnz w10, again; add x4, x4, x9",
    "more: ldxp x9, x10, [x2]; eor x9, x9, x10; stxp w11, x9, x10, [x2]; cbnz w11, more",
    "ldar x9, [x1]; add x4, x4, x9; stlr x4, [x2]; stlur x4, [x2, 9]; ldapur w9, [x1, 3]",
    "ldr d0, [x1]; ldr s1, [x2]; fcvt d1, s1; fadd d0, d0, d1; str d0, [x2, 8]; str s0, [x1, 4]",
    "dc zva, x2; dc cvac, x2; ic ivau, x2; str x4, [x2]; add x4, x4, 1",
    "ldr x9, [x1], 8; sub x1, x1, 8; add x4, x4, x9; str x4, [x2, -8]!; add x2, x2, 8",
    "add x1, x1, x5; sub x2, x2, x5; ldr x9, [x1]; add x4, x4, x9; str x4, [x2]",
)  # fmt: skip


class Direct:
    """An engine whose guest addresses are those of the host, and its compiled tier."""

    def __init__(self) -> None:
        self.space = AddressSpace(38, direct=True)
        assert not self.space.base, "another address space has the host's addresses"
        native = native_code("aarch64", "flat")
        self.engine = Interpreter(ARCHITECTURE, self.space, native)
        self.compiler = LocalCompiler(ARCHITECTURE, direct=True)

    def prepare(self, code: bytes, data: bytes, *, precise: bool = False) -> Jit:
        """Another program; the tier has met no tag yet."""
        for region in self.space.regions():
            self.space.unmap(region.start, region.end - region.start)
        for address, contents, prot in ((CODE, code, 5), (DATA, data, 3)):
            self.space.map(address, PAGE, 3, fixed=True)
            self.space.write(address, contents)
            self.space.protect(address, PAGE, prot)
        self.engine.flush()
        return Jit(self.engine.arena, self.engine.native, self.compiler, precise=precise)

    def run(self, registers: list[int]) -> Exit:
        fill(self.engine.state, registers)
        self.engine.context.set("reservation_address", -1)
        return self.engine.run()


@pytest.fixture(scope="module")
def direct() -> Iterator[Direct]:
    yield Direct()


def fill(state: State, registers: list[int]) -> None:
    for file, index, _ in list(state.registers()):
        state.set(file, index, 0)
    for index, value in enumerate(registers):
        state.set("r", index, value)
    state.pc = CODE


def program(body: str) -> bytes:
    """The code of a loop."""
    return assemble(ARCHITECTURE, f"loop: {body}; sub x0, x0, 1; cbnz x0, loop; brk 0", CODE)


def expected(code: bytes, data: bytes, registers: list[int]) -> tuple[Exit, State, bytes]:
    """What the reference engine makes of it."""
    state = State(ARCHITECTURE.layout)
    fill(state, registers)
    memory = Pages([(CODE, code.ljust(PAGE, b"\0"), 5), (DATA, data, 3)])
    reference = Reference(ARCHITECTURE, state, memory)
    return reference.run(TURNS * 40), state, memory.read(DATA, PAGE)


def registers_of(tag: int, step: int = 0) -> list[int]:
    turned = (tag * 3 & 255) << 56
    return [TURNS, DATA + 1024 | tag << 56, DATA + 2048 | turned, 5 * 8 if step else 16, 1, step]


@pytest.mark.parametrize("precise", [False, True], ids=["fast", "precise"])
@pytest.mark.parametrize("body", BODIES)
def test_regions(direct: Direct, body: str, precise: bool) -> None:
    """Without tags, with some, and with masks, everything is as it is in the reference."""
    code, source = program(body), random.Random(body)
    jit = direct.prepare(code, source.randbytes(PAGE), precise=precise)
    context = direct.engine.context
    first = 0
    for tag, step in ((0, 0), (0, 1 << 56), (0x5A, 0), (0xFF, 1 << 56), (0x80, 0)):
        data = source.randbytes(PAGE)
        registers = registers_of(tag, step if "x5" in body else 0)
        assert jit.add(CODE) or CODE in jit.installed
        direct.space.write(DATA, data)
        end, state, memory = expected(code, data, registers)
        assert end.code is ExitCode.BREAKPOINT
        assert direct.run(registers) == end
        assert list(direct.engine.state.registers()) == list(state.registers())
        assert direct.space.read(DATA, PAGE) == memory
        first += CODE not in jit.installed
        assert not context.get("tags_met")
    # The first tag has them masked, and no other is met.
    assert first == 1


@pytest.mark.parametrize("nowhere", [UNMAPPED, 1 << 50], ids=["unmapped", "wild"])
@pytest.mark.parametrize("precise", [False, True], ids=["fast", "precise"])
def test_faults(direct: Direct, precise: bool, nowhere: int) -> None:
    """A pointer with a tag that leads nowhere: pc, address, and in the precise form registers."""
    text = (
        "loop: ldr x9, [x1, 8]; add x4, x4, x9; str x4, [x1, 16]; sub x0, x0, 1;"
        "cmp x0, 3; csel x1, x1, x2, ne; cbnz x0, loop; brk 0"
    )
    code = assemble(ARCHITECTURE, text, CODE)
    data = bytes(PAGE)
    for first, second in ((0, 0), (0, 0x5A), (0x5A, 0), (0x5A, 0xA5)):
        jit = direct.prepare(code, data, precise=precise)
        assert jit.add(CODE)
        registers = [TURNS, DATA + 1024 | first << 56, nowhere | second << 56]
        end, state, memory = expected(code, data, registers)
        assert (end.code, end.address) == (ExitCode.FAULT, nowhere + 8)
        found = direct.run(registers)
        assert found == end
        assert direct.space.read(DATA, PAGE) == memory
        if precise:
            assert list(direct.engine.state.registers()) == list(state.registers())


@pytest.mark.parametrize("engine", ["interp", "jit", "precise", "eager"])
def test_program(engine: str) -> None:
    """Loops, threads, forks and handlers of faults, as in QEMU."""
    if engine == "eager" and os.environ.get("ANYARCH_EAGER") != "all":
        pytest.skip("compiling all code takes long: only with ANYARCH_EAGER=all")
    program = compile_c(PROGRAM, AARCH64)
    jit = JitOptions(precise=engine == "precise", eager=engine == "eager")
    exact = engine in ("interp", "precise")
    kind = "interp" if engine == "interp" else "jit"
    arguments = ["exact"] if exact else []
    result = anyarch.run(program, arguments, engine=kind, jit=jit, timeout=600)
    assert (result.status, result.signal) == (0, None), result.stderr
    assert result.stdout.decode() == (
        EXPECTED if exact else re.sub(" base [0-9a-f]+", "", EXPECTED)
    )
