"""Half precision in native code, by definition and in regions, against the reference engine.

Operands are chosen so that NaNs, ties, and results beside the least normal number are frequent.
"""

from __future__ import annotations

import random
import struct
from typing import Final

import pytest

from anyarch.emit import floateffects
from anyarch.emit.llvm import host_has
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.ir.graph import FLOATS
from anyarch.isa.instruction import Instruction
from tests.aarch64.definitions import compare_definitions
from tests.aarch64.emulator import DEFINITIONS
from tests.aarch64.test_groups import compare, register

pytestmark = pytest.mark.skipif(
    not host_has("f16c"), reason="the host does not convert half precision: all is the reference's"
)

CASES: Final = 40
MODES: Final = (0, 0, 0, 1 << 22, 2 << 22, 3 << 22)  # rounding modes of FPCR
SPECIAL: Final = (0, 0x7C00, 0x7E00, 0x7D01, 0x0400, 0x03FF, 0x0001, 0x7BFF, 0x3C00, 0x4000)
# Left to the reference engine.
EXACT: Final = {"scvtf_fixed_64_h", "ucvtf_fixed_64_h", "frecpx_h_scalar"}


def effects(instruction: Instruction) -> list[tuple[bool, bool]]:
    """Of each floating-point effect: whether it is of this file, and whether it is native."""
    return [
        (
            "f16" in effect.node.attrs or effect.node.op == "fto_int_modular",
            floateffects.is_native(effect.node),
        )
        for form in instruction.forms()
        for effect in form.trace(ARCHITECTURE.layout).effects
        if effect.node.op in FLOATS
    ]


HALVES: Final = [each for each in DEFINITIONS if any(is_half for is_half, _ in effects(each))]


def half(source: random.Random) -> int:
    sign = source.getrandbits(1) << 15
    kind = source.random()
    if kind < 0.2:
        return sign | source.choice(SPECIAL)
    if kind < 0.6:
        exponent = source.choice((0, 1, 2, 7, 8, 13, 14, 15, 16, 20, 29, 30))
        return sign | exponent << 10 | source.choice((0, 1, 1022, 1023, source.getrandbits(10)))
    return source.getrandbits(16)


def beside(source: random.Random, size: int) -> int:
    """A wider number about a half, or about the middle between two."""
    code, wide, lost = ("<f", "<I", 13) if size == 32 else ("<d", "<Q", 42)
    value = struct.unpack("<e", struct.pack("<H", half(source)))[0]
    bits = struct.unpack(wide, struct.pack(code, value))[0]
    step = source.choice((0, 1, -1, 1 << lost - 1, (1 << lost - 1) + 1, (1 << lost - 1) - 1))
    return int(bits + source.choice((step, source.getrandbits(lost)))) & (1 << size) - 1


def vector(source: random.Random) -> int:
    if source.random() < 0.2:
        return register(source)
    size = source.choice((16, 16, 16, 32, 64))
    lanes = range(0, 128, size)
    if size == 16:
        return sum(half(source) << at for at in lanes)
    return sum(beside(source, size) << at for at in lanes)


def test_what_is_native() -> None:
    assert len(HALVES) > 150
    left = {each.name for each in HALVES if not all(native for _, native in effects(each))}
    assert left == EXACT


def test_definitions() -> None:
    problems = compare_definitions(HALVES, random.Random("halves"), vector, MODES, CASES)
    assert not problems, "\n" + "\n".join(problems[:20])


def instruction(source: random.Random) -> str:
    """Arithmetic of three formats on the same few registers, and conversions between them."""
    a, b, c, d = (source.randrange(6) for _ in range(4))
    letter, lanes = source.choice((("h", "8h"), ("h", "8h"), ("s", "4s"), ("d", "2d")))
    match source.randrange(10):
        case 0:
            return source.choice((f"fcvt s{a}, h{b}", f"fcvt h{a}, s{b}", f"fcvt h{a}, d{b}"))
        case 1:
            return f"fcmp {letter}{a}, {letter}{b}"
        case 2:
            return source.choice((f"fcvtzs x{1 + a}, {letter}{b}", f"fjcvtzs w{1 + a}, d{b}"))
        case 3:
            return f"fmlal v{a}.4s, v{b}.4h, v{c}.4h"
        case 4 | 5:
            return f"fmadd {letter}{a}, {letter}{b}, {letter}{c}, {letter}{d}"
        case 6:
            name = source.choice(("fmul", "fadd", "fdiv", "fminnm", "fcmgt", "fmla"))
            return f"{name} v{a}.{lanes}, v{b}.{lanes}, v{c}.{lanes}"
    name = source.choice(("fadd", "fsub", "fmul", "fdiv", "fmax"))
    return f"{name} {letter}{a}, {letter}{b}, {letter}{c}"


@pytest.mark.parametrize("seed", range(16))
def test_regions(seed: int) -> None:
    """Also among results of other formats that are looked at together."""
    source = random.Random(f"halves {seed}")
    lines = [instruction(source) for _ in range(source.randrange(3, 12))]
    draw = source.choice((vector, register))
    compare(lines, source, lambda: [draw(source) for _ in range(6)], 12)
