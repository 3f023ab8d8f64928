"""Floating-point results that regions look at together: random groups against the reference engine.

Operands are chosen so that NaNs, zeros, and products beside the least normal number are frequent.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.guests.aarch64.registers import FLAGS, MODE
from anyarch.host.context import ExitCode
from tests.aarch64.emulator import DOUBLES, SINGLES
from tests.vectors_format import CODE, PAGE, CompiledMachine, ReferenceMachine, encode

DATA: Final = 0x200000
COUNT: Final = 6  # registers in use
SCALARS: Final = ("fadd", "fsub", "fmul", "fdiv", "fnmul")
VECTORS: Final = ("fadd", "fsub", "fmul", "fdiv", "fmla", "fmls", "faddp", "fabd", "fcmgt")
SHAPES: Final = (("s", "4s", 32), ("s", "2s", 32), ("d", "2d", 64))


def instruction(source: random.Random) -> str:
    """Mostly arithmetic on the same few registers, of one format or the other."""
    a, b, c, d = (source.randrange(COUNT) for _ in range(4))
    letter, lanes, size = source.choice(SHAPES)
    match source.randrange(20):
        case 0:
            return f"fsqrt {letter}{a}, {letter}{b}"
        case 1:
            return f"fmov {letter}{a}, {letter}{b}"
        case 2:
            return f"fneg v{a}.{lanes}, v{b}.{lanes}"
        case 3:
            return f"str q{a}, [x0, {16 * source.randrange(8)}]"
        case 4:
            return f"ldr {letter}{a}, [x0, {16 * source.randrange(8)}]"
        case 5:
            return f"fcmp {letter}{a}, {letter}{b}"
        case 6:
            return f"fcsel {letter}{a}, {letter}{b}, {letter}{c}, gt"
        case 7:
            return f"fcvtzs x{1 + a}, {letter}{b}"
        case 8:
            return f"dup v{a}.2d, v{b}.d[{source.randrange(2)}]"
        case 9:
            return f"ext v{a}.16b, v{b}.16b, v{c}.16b, 8"
        case 10:
            return f"fcvt d{a}, s{b}" if size == 32 else f"fcvt s{a}, d{b}"
        case 11:
            index = source.randrange(128 // size)
            return f"fmul v{a}.{lanes}, v{b}.{lanes}, v{c}.{letter}[{index}]"
        case 12 | 13:
            name = source.choice(("fmadd", "fmsub", "fnmadd"))
            return f"{name} {letter}{a}, {letter}{b}, {letter}{c}, {letter}{d}"
        case 14 | 15 | 16:
            return f"{source.choice(VECTORS)} v{a}.{lanes}, v{b}.{lanes}, v{c}.{lanes}"
    return f"{source.choice(SCALARS)} {letter}{a}, {letter}{b}, {letter}{c}"


def number(source: random.Random, size: int) -> int:
    """An encoding."""
    if source.random() < 0.3:
        return source.choice(SINGLES if size == 32 else DOUBLES)
    fraction_bits, middle = (23, 127) if size == 32 else (52, 1023)
    # Exponents whose sums are about the least one, and ordinary ones; fractions with few bits.
    exponent = source.choice((middle, middle + 1, middle // 2, middle // 2 + 1, 1, 2, 0))
    fraction = source.getrandbits(fraction_bits)
    if source.random() < 0.5:
        fraction = source.choice((0, 1, (1 << fraction_bits) - 1, (1 << fraction_bits) - 2))
    return source.getrandbits(1) << (size - 1) | exponent << fraction_bits | fraction


def register(source: random.Random) -> int:
    size = source.choice((32, 64))
    return sum(number(source, size) << at for at in range(0, 128, size))


@pytest.mark.parametrize("seed", range(40))
def test_groups(seed: int) -> None:
    source = random.Random(f"group {seed}")
    lines = [instruction(source) for _ in range(source.randrange(3, 14))]
    compare(lines, source, lambda: [register(source) for _ in range(COUNT)], 12)


# What they give is the least normal number or beside it.
BESIDE: Final = {
    "fmul": ("fmul {0}0, {0}1, {0}2", "fmul v0.{1}, v1.{1}, v2.{1}"),
    "fdiv": ("fdiv {0}0, {0}1, {0}2", "fdiv v0.{1}, v1.{1}, v2.{1}"),
    "fmadd": ("fmadd {0}0, {0}1, {0}2, {0}0", "fmla v0.{1}, v1.{1}, v2.{1}"),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[1])
@pytest.mark.parametrize("name", BESIDE)
def test_tininess(name: str, shape: tuple[str, str, int]) -> None:
    """Arm sees it before rounding, the host after it; alone, and where others follow."""
    letter, lanes, size = shape
    source = random.Random(f"tiny {name} {lanes}")

    def registers() -> list[int]:
        columns = [beside(source, name, size) for _ in range(128 // size)]
        packed = [
            sum(column[index] << size * at for at, column in enumerate(columns))
            for index in range(3)
        ]
        return [*packed, 0, 0, 0]

    for text in BESIDE[name]:
        lines = [text.format(letter, lanes)]
        compare(lines, source, registers, 150)
        lines.append(f"fadd v3.{lanes}, v0.{lanes}, v0.{lanes}")
        lines.append(f"fmul v4.{lanes}, v5.{lanes}, v3.{lanes}")
        compare(lines, source, registers, 50)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[1])
def test_tininess_of_numbers_beside_vectors(shape: tuple[str, str, int]) -> None:
    """They are looked at together, as the lowest lane of vectors whose other lanes stay."""
    letter, lanes, size = shape
    source = random.Random(f"beside {lanes}")

    def registers() -> list[int]:
        columns = [beside(source, "fmul", size) for _ in range(128 // size)]
        plain = 1023 << 52 if size == 64 else 127 << 23
        factors = [
            sum(column[index] << size * at for at, column in enumerate(columns)) for index in (1, 2)
        ]
        ones = sum((plain | source.getrandbits(1) << size - 1) << at for at in range(0, 128, size))
        return [0, *source.choice((factors, [ones, ones])), ones, factors[0], factors[1]]

    scalar, vector = (
        f"fmul {letter}0, {letter}4, {letter}5",
        f"fmul v1.{lanes}, v1.{lanes}, v2.{lanes}",
    )
    others = [f"fmul v3.{lanes}, v3.{lanes}, v3.{lanes}", f"fmul {letter}2, {letter}3, {letter}3"]
    for lines in ([scalar, vector], [vector, scalar], [vector, scalar, *others]):
        compare(lines, source, registers, 60)


def test_nans_that_show_in_other_results() -> None:
    """A lane at a time: moved, repeated, added to another of the same vector."""
    source = random.Random("shown")
    infinity, nan = 0x7FF << 52, 0xFFF8 << 48 | 5
    for lines in (
        ["fmul v0.2d, v1.2d, v2.2d", "dup d3, v0.d[1]", "fadd d4, d0, d3"],
        ["fmul v0.2d, v1.2d, v2.2d", "dup d3, v0.d[1]", "fadd d4, d3, d3"],
        ["fmul v0.2d, v1.2d, v2.2d", "faddp d3, v0.2d"],
        ["fmul v0.2d, v1.2d, v2.2d", "fadd v3.2d, v0.2d, v0.2d", "fmul d4, d5, v0.d[1]"],
        ["fmul v0.2d, v1.2d, v2.2d", "fmul v3.2d, v5.2d, v0.d[1]", "fadd d0, d0, d5"],
        ["fmul d0, d1, d2", "fmul v3.2d, v5.2d, v0.d[0]", "fadd d4, d4, d0", "fmov d0, d5"],
    ):

        def registers() -> list[int]:
            values = (infinity, 0, nan, 1023 << 52, 1 << 63, nan ^ 1 << 51)
            return [source.choice(values) | source.choice(values) << 64 for _ in range(COUNT)]

        compare(lines, source, registers, 60)


@pytest.mark.parametrize("letter", "sd")
def test_flags_of_a_comparison_at_a_return(letter: str) -> None:
    """They are made of the compared numbers when another instruction leaves."""
    source = random.Random(letter)
    lines = [f"fcmp {letter}2, {letter}3", f"cbz x7, {CODE + 8:#x}", "hint 0", "ret x30"]
    compare(lines, source, lambda: [register(source) for _ in range(COUNT)], 30)


@pytest.mark.parametrize("name", ["frecpe", "frsqrte", "frecps", "frsqrts", "fmulx", "fcvtxn"])
def test_reciprocals(name: str) -> None:
    """Usual operands are native, all others are the reference engine's."""
    source = random.Random(name)
    texts = {"fcvtxn": ["fcvtxn s0, d1", "fcvtxn v0.2s, v1.2d", "fcvtxn2 v0.4s, v1.2d"]}.get(name)
    if texts is None:
        operands = 2 if name.endswith("e") else 3
        texts = [
            f"{name} " + ", ".join(f"{letter}{index}" for index in range(operands))
            for letter in "sd"
        ]
        texts += [
            f"{name} " + ", ".join(f"v{index}.{lanes}" for index in range(operands))
            for _, lanes, _ in SHAPES
        ]
    for text in texts:
        lines = [text, "fadd v3.2d, v0.2d, v0.2d"]
        compare(lines, source, lambda: [ordinary(source) for _ in range(COUNT)], 60)


def ordinary(source: random.Random) -> int:
    """A register of numbers of all magnitudes, or of special ones."""
    if source.random() < 0.2:
        return register(source)
    if source.random() < 0.3:
        return source.getrandbits(128)
    size = source.choice((32, 64))
    fraction_bits, middle = (23, 127) if size == 32 else (52, 1023)
    return sum(
        (source.getrandbits(fraction_bits) | middle + source.randrange(-3, 4) << fraction_bits)
        << at
        for at in range(0, 128, size)
    )


def beside(source: random.Random, name: str, size: int) -> tuple[int, int, int]:
    """Encodings of an addend and two operands, with a result about the least normal number."""
    fraction_bits, bias = (23, 127) if size == 32 else (52, 1023)
    least = Fraction(1, 1 << bias - 1)

    def value(bits: int) -> Fraction:
        exponent, fraction = bits >> fraction_bits, bits & (1 << fraction_bits) - 1
        whole = fraction | (1 << fraction_bits if exponent else 0)
        return whole * Fraction(2) ** (max(exponent, 1) - bias - fraction_bits)

    def nearest(number: Fraction) -> int:
        """Of a magnitude."""
        exponent = number.numerator.bit_length() - number.denominator.bit_length()
        exponent -= number < Fraction(2) ** exponent
        exponent = max(exponent, 1 - bias)
        return (exponent + bias - 1 << fraction_bits) + round(
            number / Fraction(2) ** (exponent - fraction_bits)
        )

    jitter = source.choice((0, 0, 1, -1, 2, -2))
    sign_a, sign_b = (source.getrandbits(1) << size - 1 for _ in range(2))
    low, high = (bias, 3 * bias // 2) if name == "fdiv" else (bias // 3, bias)
    a = source.randrange(low, high) << fraction_bits | source.getrandbits(fraction_bits)
    if name == "fdiv":
        return 0, nearest(least * value(a)) + jitter | sign_b, a | sign_a
    if name == "fmul":
        return 0, a | sign_a, nearest(least / value(a)) + jitter | sign_b
    # Products from far below the least number to far above it.
    goal = Fraction(2) ** source.randrange(2 - bias - 4 * fraction_bits, 40 - bias)
    b = nearest(goal / value(a))
    rest = least - value(a) * value(b)
    addend = max(nearest(abs(rest)) + jitter, 0) | (0 if rest > 0 else 1 << size - 1)
    if source.getrandbits(1):
        return addend ^ 1 << size - 1, a | 1 << size - 1, b
    return addend, a, b


def compare(
    lines: list[str], source: random.Random, registers: Callable[[], list[int]], count: int
) -> None:
    """Run the lines on both engines, from as many states."""
    code = b"".join(encode(ARCHITECTURE, line) for line in lines)
    memory = b"".join(register(source).to_bytes(16, "little") for _ in range(PAGE // 16))
    pages = {CODE: code.ljust(PAGE, b"\0"), DATA: memory}
    compiled = CompiledMachine(ARCHITECTURE, pages)
    for _ in range(count):
        reference = ReferenceMachine(ARCHITECTURE, pages)
        compiled.engine.space.write(DATA, memory)
        values = registers()
        mode = source.choice((0, 0, 0, 1, 2, 3))
        for machine in (reference, compiled):
            machine.state.pc = CODE
            for index, value in enumerate(values):
                machine.state.set("v", index, value)
            for index in range(8):
                machine.state.set("r", index, DATA if index == 0 else 0)
            machine.state.set("r", 30, CODE + PAGE // 2)  # where there is no code
            for index in range(4):
                machine.state.set("flag", index, 0)
            machine.state.set("fpstatus", FLAGS, 0)
            machine.state.set("fpstatus", MODE, mode)
        assert reference.run(len(lines) + 1).code is ExitCode.ILLEGAL
        assert compiled.engine.run().code is ExitCode.ILLEGAL
        for file, index, value in reference.state.registers():
            assert compiled.state.get(file, index) == value, (
                f"{file}[{index}] is {compiled.state.get(file, index):#x}, expected {value:#x}, "
                f"mode {mode}, of {[hex(value) for value in values]}: " + "; ".join(lines)
            )
        assert compiled.read(DATA, PAGE) == reference.read(DATA, PAGE)
