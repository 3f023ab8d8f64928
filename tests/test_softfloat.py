"""Exact floating point against this processor, against rational arithmetic, and by example.

The processor checks X86 in the four modes it has, results and flags; Fractions check every mode
and both kinds of tininess; RISC-V's and Arm's own choices are written out case by case.
"""

from __future__ import annotations

import ctypes
import math
import platform
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product

import llvmlite.binding as llvm
import pytest

from anyarch.errors import Error
from anyarch.ir import softfloat as sf
from anyarch.ir.softfloat import (
    ARM,
    BF16,
    DZ,
    F16,
    F32,
    F64,
    F128,
    NV,
    NX,
    ODD,
    OF,
    RDN,
    RISCV,
    RMM,
    RNE,
    RTZ,
    RUP,
    UF,
    X86,
    Format,
    Result,
)

FORMATS = (F16, BF16, F32, F64, F128)


def special(fmt: Format) -> list[int]:
    """Encodings at which behaviour changes, in both signs."""
    one = fmt.bias << fmt.fraction_bits
    least_normal = 1 << fmt.fraction_bits
    magnitudes = [0, 1, 2, 3, least_normal - 1, least_normal, least_normal + 1]
    magnitudes += [one - 1, one, one + 1, one + fmt.quiet_bit, one + least_normal]
    magnitudes += [fmt.infinity - 1, fmt.infinity, fmt.infinity + 1, fmt.infinity + 5]
    magnitudes += [fmt.infinity | fmt.quiet_bit, fmt.infinity | fmt.quiet_bit | 3]
    return magnitudes + [fmt.sign_mask | magnitude for magnitude in magnitudes]


def draw(fmt: Format, source: random.Random, center: int | None = None) -> int:
    """An encoding that tends to be hard: sparse fractions, close exponents, subnormals, NaNs."""
    kind = source.randrange(10)
    if kind == 0:
        return source.getrandbits(fmt.size)
    if kind == 1:
        return source.choice(special(fmt))
    fraction = source.getrandbits(fmt.fraction_bits)
    if kind in (2, 3, 4):  # runs of zeros or ones at the bottom, for ties and carries
        run = (1 << source.randrange(fmt.fraction_bits + 1)) - 1
        fraction = fraction & ~run if kind == 2 else fraction | run
        fraction ^= source.getrandbits(2)
    top = (1 << fmt.exponent_bits) - 1
    if kind in (5, 6):
        exponent = source.choice((0, 0, 1, 2, top - 1))
    else:
        middle = fmt.bias if center is None else center
        reach = fmt.fraction_bits + 3
        exponent = min(max(source.randint(middle - reach, middle + reach), 0), top - 1)
    sign = source.getrandbits(1) << (fmt.size - 1)
    return sign | exponent << fmt.fraction_bits | fraction


# This processor

MXCSR_FLAGS = {0: NV, 2: DZ, 3: OF, 4: UF, 5: NX}
MXCSR_ROUNDING = {RNE: 0, RDN: 1, RUP: 2, RTZ: 3}


class Operands(ctypes.Structure):
    """What a compiled probe reads and writes, at the offsets used in FRAME."""

    _fields_ = [
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
        ("c", ctypes.c_uint64),
        ("result", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint32),
        ("saved", ctypes.c_uint32),
    ]


FRAME = (
    "define void @{name}(ptr %operands) {{\n"
    'call void asm sideeffect "stmxcsr 36($0); ldmxcsr 32($0); '
    "movq ($0), %xmm0; movq 8($0), %xmm1; movq 16($0), %xmm2; {body}; "
    'stmxcsr 32($0); ldmxcsr 36($0); movq %xmm0, 24($0)", '
    '"r,~{{rax}},~{{xmm0}},~{{xmm1}},~{{xmm2}},~{{memory}}"(ptr %operands)\n'
    "ret void\n}}\n"
)

Model = Callable[[int, int, int, int], Result]
Probe = tuple[str, Format, int, Model]


def binary(operation: Callable[[Format, int, int, int, sf.Rules], Result], fmt: Format) -> Model:
    return lambda a, b, c, rm: operation(fmt, a, b, rm, X86)


def comparison(operation: Callable[[Format, int, int], Result], fmt: Format) -> Model:
    return lambda a, b, c, rm: operation(fmt, a, b)


def rounding(fmt: Format, exact: bool) -> Model:
    return lambda a, b, c, rm: sf.round_to_integral(fmt, a, rm, exact, X86)


def conversion(from_fmt: Format, to_fmt: Format) -> Model:
    return lambda a, b, c, rm: sf.convert(from_fmt, to_fmt, a, rm, X86)


def to_integer(fmt: Format, size: int) -> Model:
    return lambda a, b, c, rm: sf.to_int(fmt, a, size, True, rm, X86)


def from_integer(fmt: Format, size: int) -> Model:
    return lambda a, b, c, rm: sf.from_int(fmt, a & ((1 << size) - 1), size, True, rm)


def format_probes(fmt: Format, s: str) -> Iterator[Probe]:
    """Assembly text, operand format, result bits, and what ought to give the same."""
    size = fmt.size
    for operation in (sf.add, sf.sub, sf.mul, sf.div):
        text = f"{operation.__name__}{s} %xmm1, %xmm0"
        yield text, fmt, size, binary(operation, fmt)
    yield f"sqrt{s} %xmm0, %xmm0", fmt, size, lambda a, b, c, rm: sf.sqrt(fmt, a, rm, X86)
    text = f"vfmadd231{s} %xmm1, %xmm0, %xmm2; movaps %xmm2, %xmm0"
    yield text, fmt, size, lambda a, b, c, rm: sf.fma(fmt, a, b, c, rm, X86)
    yield f"round{s} $$4, %xmm0, %xmm0", fmt, size, rounding(fmt, True)
    yield f"round{s} $$12, %xmm0, %xmm0", fmt, size, rounding(fmt, False)
    predicates = {
        0x00: sf.eq_quiet,
        0x01: sf.lt_signaling,
        0x02: sf.le_signaling,
        0x10: sf.eq_signaling,
        0x11: sf.lt_quiet,
        0x12: sf.le_quiet,
    }
    for predicate, relation in predicates.items():
        text = f"vcmp{s} $${predicate}, %xmm1, %xmm0, %xmm0"
        yield text, fmt, 1, comparison(relation, fmt)
    for integer_size, register, suffix in ((32, "eax", "l"), (64, "rax", "q")):
        text = f"xorl %eax, %eax; cvt{s}2si %xmm0, %{register}; movq %rax, %xmm0"
        yield text, fmt, 64, to_integer(fmt, integer_size)
        yield f"cvtsi2{s}{suffix} ($0), %xmm0", fmt, size, from_integer(fmt, integer_size)


def probes() -> Iterator[Probe]:
    yield from format_probes(F32, "ss")
    yield from format_probes(F64, "sd")
    yield "cvtss2sd %xmm0, %xmm0", F32, 64, conversion(F32, F64)
    yield "cvtsd2ss %xmm0, %xmm0", F64, 32, conversion(F64, F32)
    yield "vcvtph2ps %xmm0, %xmm0", F16, 32, conversion(F16, F32)
    yield "vcvtps2ph $$4, %xmm0, %xmm0", F32, 16, conversion(F32, F16)


@pytest.fixture(scope="module")
def processor() -> Iterator[list[tuple[Probe, Callable[[Operands], None]]]]:
    if platform.machine() != "x86_64":
        pytest.skip("the host is not x86-64")
    features = llvm.get_host_cpu_features()
    if not all(features.get(name) for name in ("avx", "fma", "f16c", "sse4.1")):
        pytest.skip("the host lacks AVX, FMA, F16C or SSE4.1")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    listed = list(probes())
    text = "".join(
        FRAME.format(name=f"probe{index}", body=probe[0]) for index, probe in enumerate(listed)
    )
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten()
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.POINTER(Operands))
    yield [
        (probe, prototype(engine.get_function_address(f"probe{index}")))
        for index, probe in enumerate(listed)
    ]
    engine.close()


def compare(
    probe: Probe, call: Callable[[Operands], None], operands: tuple[int, int, int], rm: int
) -> None:
    text, _, size, model = probe
    frame = Operands(*operands, 0, 0x1F80 | MXCSR_ROUNDING[rm] << 13)
    call(frame)
    flags = sum(flag for bit, flag in MXCSR_FLAGS.items() if frame.mxcsr >> bit & 1)
    expected = frame.result & ((1 << size) - 1), flags
    got = model(*operands, rm)
    assert got == expected, (
        f"{text}, mode {rm}: {[hex(operand) for operand in operands]} gives "
        f"{expected[0]:#x} flags {expected[1]}, not {got[0]:#x} flags {got[1]}"
    )


def test_processor_agrees(processor: list[tuple[Probe, Callable[[Operands], None]]]) -> None:
    source = random.Random(754)
    for probe, call in processor:
        fmt = probe[1]
        for rm in MXCSR_ROUNDING:
            for _ in range(250):
                a = draw(fmt, source)
                center = (a & fmt.infinity) >> fmt.fraction_bits
                operands = (a, draw(fmt, source), draw(fmt, source, center))
                compare(probe, call, operands, rm)


def test_processor_agrees_on_special_values(
    processor: list[tuple[Probe, Callable[[Operands], None]]],
) -> None:
    for probe, call in processor:
        fmt = probe[1]
        values, rms = special(fmt), list(MXCSR_ROUNDING)
        seconds = values if "%xmm1" in probe[0] else [0]
        thirds = [0]
        if "fmadd" in probe[0]:
            thirds, rms = values[::5], [RNE, RDN]
        elif "cmp" in probe[0]:
            rms = [RNE]
        for rm in rms:
            for operands in product(values, seconds, thirds):
                compare(probe, call, operands, rm)


def test_processor_agrees_on_products_near_the_least_normal(
    processor: list[tuple[Probe, Callable[[Operands], None]]],
) -> None:
    """Where tininess before and after rounding differ, and where double rounding would show."""
    source = random.Random(1)
    for probe, call in processor:
        text, fmt, _, _ = probe
        if not text.startswith(("muls", "divs", "vfmadd")):
            continue
        for rm in MXCSR_ROUNDING:
            for _ in range(800):
                one, least = fmt.bias << fmt.fraction_bits, 1 << fmt.fraction_bits
                a = one + source.randint(-9, 9)
                b = least + source.randint(-9, 9)
                c = source.randint(0, 3) | source.getrandbits(1) << (fmt.size - 1)
                operands = (b, a, c) if text.startswith("div") else (a, b, c)
                compare(probe, call, operands, rm)


# Rational arithmetic


def value_of(fmt: Format, magnitude: int) -> Fraction:
    exponent, fraction = divmod(magnitude, 1 << fmt.fraction_bits)
    scaled = Fraction(fraction, 1 << fmt.fraction_bits)
    if exponent == 0:
        return scaled * Fraction(2) ** (1 - fmt.bias)
    return (1 + scaled) * Fraction(2) ** (exponent - fmt.bias)


def signed_value(fmt: Format, a: int) -> Fraction:
    value = value_of(fmt, a & (fmt.sign_mask - 1))
    return -value if a & fmt.sign_mask else value


class Bracket:
    """The neighbours of a positive magnitude that is known by its order among rationals."""

    def __init__(self, fmt: Format, versus: Callable[[Fraction], int]) -> None:
        # By bisection: value(low) <= x < value(low + 1), infinity standing for 2**top.
        low, high = 0, fmt.infinity
        while high - low > 1:
            middle = (low + high) // 2
            if versus(value_of(fmt, middle)) >= 0:
                low = middle
            else:
                high = middle
        self.low = low
        self.exact = versus(value_of(fmt, low)) == 0
        self.from_middle = versus((value_of(fmt, low) + value_of(fmt, low + 1)) / 2)

    def round(self, sign: int, rm: int) -> int:
        odd = self.low % 2
        up = {
            RNE: self.from_middle > 0 or (self.from_middle == 0 and odd),
            RTZ: False,
            RDN: sign == 1,
            RUP: sign == 0,
            RMM: self.from_middle >= 0,
            ODD: not odd,
        }[rm]
        return self.low + (bool(up) and not self.exact)


class Rational:
    """A result that is exact, to be rounded in every mode."""

    def __init__(self, fmt: Format, sign: int, versus: Callable[[Fraction], int]) -> None:
        self.fmt, self.sign = fmt, sign
        self.least_normal = value_of(fmt, 1 << fmt.fraction_bits)
        self.tiny_before = versus(self.least_normal) < 0
        self.bracket = Bracket(fmt, versus)
        self.wide_fmt = self.wide = None
        if self.tiny_before or self.bracket.low >= fmt.infinity - 1:
            self.wide_fmt = replace(fmt, exponent_bits=fmt.exponent_bits + 2)
            self.wide = Bracket(self.wide_fmt, versus)

    @classmethod
    def of(cls, fmt: Format, x: Fraction) -> Rational:
        return cls(fmt, int(x < 0), lambda v: (abs(x) > v) - (abs(x) < v))

    @classmethod
    def root_of(cls, fmt: Format, x: Fraction) -> Rational:
        return cls(fmt, 0, lambda v: (x > v * v) - (x < v * v))

    def round(self, rm: int, tininess: str) -> Result:
        magnitude = self.bracket.round(self.sign, rm)
        flags = 0 if self.bracket.exact else NX
        if self.wide_fmt and self.wide:
            unbounded = value_of(self.wide_fmt, self.wide.round(self.sign, rm))
            if unbounded >= value_of(self.fmt, self.fmt.infinity):
                to_largest = rm in (RTZ, ODD) or rm == (RUP if self.sign else RDN)
                magnitude, flags = self.fmt.infinity - to_largest, OF | NX
            tiny = self.tiny_before if tininess == "before" else unbounded < self.least_normal
            if tiny and flags:
                flags |= UF
        return self.sign << (self.fmt.size - 1) | magnitude, flags


def finite(fmt: Format, source: random.Random, center: int | None = None) -> int:
    while True:
        a = draw(fmt, source, center)
        if 0 < a & (fmt.sign_mask - 1) < fmt.infinity:
            return a


MODES = (RNE, RTZ, RDN, RUP, RMM, ODD)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_rational_arithmetic_agrees(fmt: Format) -> None:
    source = random.Random(fmt.size)
    for _ in range({16: 160, 32: 110, 64: 40, 128: 4}[fmt.size]):
        a = finite(fmt, source)
        center = (a & fmt.infinity) >> fmt.fraction_bits
        b, c = finite(fmt, source, center), finite(fmt, source, center)
        x, y, z = (signed_value(fmt, operand) for operand in (a, b, c))
        cases = (
            (x + y, partial(sf.add, fmt, a, b)),
            (x - y, partial(sf.sub, fmt, a, b)),
            (x * y, partial(sf.mul, fmt, a, b)),
            (x / y, partial(sf.div, fmt, a, b)),
            (x * y + z, partial(sf.fma, fmt, a, b, c)),
        )
        for exact, operation in cases:
            if exact == 0:
                continue
            rational = Rational.of(fmt, exact)
            for rm in MODES:
                assert operation(rm, RISCV) == rational.round(rm, "after")
                assert operation(rm, ARM) == rational.round(rm, "before")
        root = Rational.root_of(fmt, abs(x))
        for rm in MODES:
            assert sf.sqrt(fmt, a & ~fmt.sign_mask, rm, RISCV) == root.round(rm, "after")


def test_narrowing_agrees_with_rational_arithmetic() -> None:
    source = random.Random(2)
    for wide, narrow in ((F32, F16), (F32, BF16), (F64, F32), (F64, F16), (F128, F64)):
        for _ in range({F32: 150, F64: 80, F128: 10}[wide]):
            edge = source.choice((-1, 0, 1)) * narrow.bias
            a = finite(wide, source, wide.bias + edge)
            rational = Rational.of(narrow, signed_value(wide, a))
            for rm in MODES:
                assert sf.convert(wide, narrow, a, rm, RISCV) == rational.round(rm, "after")
                assert sf.convert(wide, narrow, a, rm, ARM) == rational.round(rm, "before")


ROUNDED: dict[int, Callable[[Fraction], int]] = {
    RNE: round,
    RTZ: math.trunc,
    RDN: math.floor,
    RUP: math.ceil,
    RMM: lambda x: math.floor(abs(x) + Fraction(1, 2)) * (1 if x > 0 else -1),
    ODD: lambda x: math.floor(x) if math.floor(x) % 2 or x.denominator == 1 else math.ceil(x),
}


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_integer_conversions_agree_with_rational_arithmetic(fmt: Format) -> None:
    source = random.Random(3)
    for _ in range(80):
        a = finite(fmt, source, fmt.bias + source.choice((0, 8, 31, 63)))
        x = signed_value(fmt, a)
        for rm, rounded in ROUNDED.items():
            integer = rounded(x)
            inexact = NX if integer != x else 0
            got, flags = sf.round_to_integral(fmt, a, rm, True, RISCV)
            assert signed_value(fmt, got) == integer
            assert flags == inexact
            assert (got ^ a) & fmt.sign_mask == 0
            assert sf.round_to_integral(fmt, a, rm, False, RISCV) == (got, 0)
            for size, signed in ((8, True), (32, True), (32, False), (64, True), (64, False)):
                low = -(1 << (size - 1)) if signed else 0
                high = low + (1 << size) - 1
                nearest_integer = min(max(integer, low), high)
                outside = nearest_integer != integer
                expected = nearest_integer & ((1 << size) - 1), NV if outside else inexact
                assert sf.to_int(fmt, a, size, signed, rm, RISCV) == expected
                quiet = NV if outside else 0
                assert sf.to_int(fmt, a, size, signed, rm, ARM, exact=False) == (expected[0], quiet)
        modular, flags = sf.to_int_modular(fmt, a)
        assert modular == math.trunc(x) % (1 << 32)
        assert flags == sf.to_int(fmt, a, 32, True, RTZ, RISCV)[1]


def test_from_int_agrees_with_rational_arithmetic() -> None:
    source = random.Random(4)
    for fmt in (F16, BF16, F32, F64):
        for _ in range(60):
            size = source.choice((32, 64))
            value = source.getrandbits(source.randint(1, size)) or 1
            for signed in (False, True):
                wraps = signed and value >> (size - 1)
                rational = Rational.of(fmt, Fraction(value - (1 << size) if wraps else value))
                for rm in MODES:
                    got = sf.from_int(fmt, value, size, signed, rm)
                    assert got == rational.round(rm, "after")
        assert sf.from_int(fmt, 0, 32, True, RDN) == (0, 0)


# Half precision through Python's own doubles, which are wide enough to round only once


def half(a: int) -> float:
    return float(struct.unpack("<e", a.to_bytes(2, "little"))[0])


def to_half(x: float) -> int:
    try:
        return int.from_bytes(struct.pack("<e", x), "little")
    except OverflowError:
        return F16.infinity | (F16.sign_mask if x < 0 else 0)


def double_bits(x: float) -> int:
    return int.from_bytes(struct.pack("<d", x), "little")


def test_every_half() -> None:
    for a in range(1 << 16):
        x = half(a)
        if math.isnan(x):
            assert sf.convert(F16, F64, a, RNE, RISCV)[0] == 0x7FF8 << 48
            continue
        assert sf.convert(F16, F64, a, RNE, RISCV) == (double_bits(x), 0)
        single = sf.convert(F16, F32, a, RNE, RISCV)[0]
        assert sf.convert(F32, F16, single, RNE, RISCV) == (a, 0)
        if x >= 0:
            assert sf.sqrt(F16, a, RNE, RISCV)[0] == to_half(math.sqrt(x))
        if abs(x) <= 65504:
            assert sf.to_int(F16, a, 32, True, RNE, RISCV)[0] == round(x) % (1 << 32)


def test_half_arithmetic() -> None:
    source = random.Random(5)
    for _ in range(6000):
        a, b, c = (finite(F16, source) for _ in range(3))
        x, y, z = half(a), half(b), half(c)
        assert sf.add(F16, a, b, RNE, ARM)[0] == to_half(x + y)
        assert sf.mul(F16, a, b, RNE, ARM)[0] == to_half(x * y)
        assert sf.div(F16, a, b, RNE, ARM)[0] == to_half(x / y)
        assert sf.lt_quiet(F16, a, b) == (int(x < y), 0)
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        if Fraction(float(exact)) == exact and exact:
            assert sf.fma(F16, a, b, c, RNE, ARM)[0] == to_half(float(exact))


# Choices of architectures, case by case

INF, ONE, MINUS_ZERO = F32.infinity, 0x3F800000, 0x80000000
QUIET, QUIET2, SIGNALING, SIGNALING2 = 0x7FC00001, 0xFFC00002, 0x7F800003, 0xFF800004
DEFAULT, X86_DEFAULT = 0x7FC00000, 0xFFC00000


@pytest.mark.parametrize(
    ("rules", "a", "b", "expected"),
    [
        (RISCV, QUIET, ONE, (DEFAULT, 0)),
        (RISCV, ONE, SIGNALING2, (DEFAULT, NV)),
        (ARM, QUIET2, ONE, (QUIET2, 0)),
        (ARM, QUIET, QUIET2, (QUIET, 0)),
        (ARM, QUIET, SIGNALING2, (0xFFC00004, NV)),
        (ARM, SIGNALING, SIGNALING2, (0x7FC00003, NV)),
        (X86, QUIET, SIGNALING2, (QUIET, NV)),
        (X86, ONE, SIGNALING2, (0xFFC00004, NV)),
        (RISCV, INF, INF, (DEFAULT, NV)),
        (ARM, INF, INF, (DEFAULT, NV)),
        (X86, INF, INF, (X86_DEFAULT, NV)),
    ],
)
def test_nan_of_subtraction(rules: sf.Rules, a: int, b: int, expected: Result) -> None:
    assert sf.sub(F32, a, b, RNE, rules) == expected


@pytest.mark.parametrize(
    ("rules", "a", "b", "c", "expected"),
    [
        (RISCV, INF, 0, QUIET, (DEFAULT, NV)),
        (ARM, INF, 0, QUIET2, (DEFAULT, NV)),
        (ARM, 0, INF, SIGNALING2, (0xFFC00004, NV)),
        (X86, INF, 0, QUIET, (QUIET, 0)),
        (X86, INF, 0, ONE, (X86_DEFAULT, NV)),
        (ARM, QUIET, ONE, QUIET2, (QUIET2, 0)),
        (ARM, SIGNALING, ONE, QUIET2, (0x7FC00003, NV)),
        (X86, ONE, QUIET2, QUIET, (QUIET2, 0)),
    ],
)
def test_nan_of_fma(rules: sf.Rules, a: int, b: int, c: int, expected: Result) -> None:
    assert sf.fma(F32, a, b, c, RNE, rules) == expected


@pytest.mark.parametrize(
    ("rules", "a", "size", "signed", "expected"),
    [
        (RISCV, QUIET2, 32, True, (0x7FFFFFFF, NV)),
        (RISCV, QUIET, 64, False, ((1 << 64) - 1, NV)),
        (RISCV, 0xBF800000, 32, False, (0, NV)),
        (RISCV, 0xBF000000, 32, False, (0, NX)),
        (RISCV, INF | MINUS_ZERO, 32, True, (0x80000000, NV)),
        (ARM, QUIET, 32, True, (0, NV)),
        (ARM, INF, 32, False, (0xFFFFFFFF, NV)),
        (X86, QUIET, 32, True, (0x80000000, NV)),
        (X86, INF, 64, False, ((1 << 64) - 1, NV)),
        (X86, 0xBF800000, 32, False, (0xFFFFFFFF, NV)),
        (X86, 0xCF000000, 32, True, (0x80000000, 0)),
    ],
)
def test_integers_out_of_range(
    rules: sf.Rules, a: int, size: int, signed: bool, expected: Result
) -> None:
    assert sf.to_int(F32, a, size, signed, RTZ, rules) == expected


def test_modular_conversion_at_the_edges() -> None:
    for a in (0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48):
        assert sf.to_int_modular(F64, a) == (0, NV)
    assert sf.to_int_modular(F64, double_bits(-(2.0**31) - 1.5)) == (0x7FFFFFFF, NV)
    assert sf.to_int_modular(F64, double_bits(2.0**31 - 0.5)) == (0x7FFFFFFF, NX)
    assert sf.to_int_modular(F64, double_bits(2.0**84 + 2.0**32)) == (0, NV)


def test_tininess_before_and_after_rounding() -> None:
    # (1 + 2**-23) * (1 - 2**-23) * 2**-126 is below the least normal, and at full precision
    # rounds up to it: tiny before rounding only.
    a, b = 0x3F800001, 0x007FFFFF
    assert sf.mul(F32, a, b, RNE, RISCV) == (0x00800000, NX)
    assert sf.mul(F32, a, b, RNE, ARM) == (0x00800000, NX | UF)
    assert sf.mul(F32, a, b, RTZ, RISCV) == (0x007FFFFF, NX | UF)
    # (1 - 2**-24) * 2**-126 has full precision and becomes the least normal only as a subnormal.
    assert sf.mul(F32, 0x00FFFFFF, 0x3F000000, RNE, RISCV) == (0x00800000, NX | UF)
    # Tiny and exact raises nothing.
    assert sf.mul(F32, 0x00800000, 0x3F000000, RNE, ARM) == (0x00400000, 0)


def test_minimum_and_maximum() -> None:
    assert sf.minimum_number(F32, 0, MINUS_ZERO, RISCV) == (MINUS_ZERO, 0)
    assert sf.maximum_number(F32, MINUS_ZERO, 0, RISCV) == (0, 0)
    assert sf.minimum_number(F32, QUIET, ONE, RISCV) == (ONE, 0)
    assert sf.maximum_number(F32, ONE, SIGNALING, RISCV) == (ONE, NV)
    assert sf.minimum_number(F32, QUIET2, QUIET, RISCV) == (DEFAULT, 0)
    assert sf.minimum_number(F32, QUIET, ONE, ARM) == (ONE, 0)
    assert sf.minimum_number(F32, SIGNALING, ONE, ARM) == (0x7FC00003, NV)
    assert sf.minimum(F32, QUIET, ONE, RISCV) == (DEFAULT, 0)
    assert sf.maximum(F32, ONE, SIGNALING2, RISCV) == (DEFAULT, NV)
    assert sf.minimum(F32, MINUS_ZERO, 0, RISCV) == (MINUS_ZERO, 0)
    assert sf.maximum(F32, 0, MINUS_ZERO, RISCV) == (0, 0)
    assert sf.minimum(F32, QUIET2, ONE, ARM) == (QUIET2, 0)
    source = random.Random(6)
    for _ in range(2000):
        a, b = finite(F32, source), finite(F32, source)
        x, y = signed_value(F32, a), signed_value(F32, b)
        smaller, larger = (a, b) if x <= y else (b, a)
        for operation in (sf.minimum, sf.minimum_number):
            assert operation(F32, a, b, RISCV) == (smaller, 0)
        for operation in (sf.maximum, sf.maximum_number):
            assert operation(F32, a, b, RISCV) == (larger, 0)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_classify(fmt: Format) -> None:
    minus, least_normal = fmt.sign_mask, 1 << fmt.fraction_bits
    values = [fmt.infinity | minus, least_normal | minus, 1 | minus, minus, 0, 1, least_normal]
    values += [fmt.infinity, fmt.infinity | 1, fmt.infinity | fmt.quiet_bit | minus]
    assert [sf.classify(fmt, a) for a in values] == [1 << bit for bit in range(10)]
    assert sf.classify(fmt, fmt.infinity - 1) == 1 << 6
    assert sf.classify(fmt, (least_normal - 1) | minus) == 1 << 2
    assert [sf.is_nan(fmt, a) for a in values] == [False] * 8 + [True] * 2
    assert [sf.is_signaling(fmt, a) for a in values] == [False] * 8 + [True, False]


def test_conversion_keeps_the_upper_payload() -> None:
    assert sf.convert(F64, F32, 0xFFF4_0000_2000_0000, RNE, ARM) == (0xFFE00001, NV)
    assert sf.convert(F32, F64, 0x7FC00001, RNE, X86) == (0x7FF8_0000_2000_0000, 0)
    assert sf.convert(F32, F64, SIGNALING, RNE, RISCV) == (0x7FF8 << 48, NV)
    assert sf.convert(BF16, F32, 0xFFB7, RNE, ARM) == (0xFFF70000, NV)


def test_zero_of_cancellation() -> None:
    minus_one = ONE | MINUS_ZERO
    for rm in MODES:
        zero = MINUS_ZERO if rm == RDN else 0
        assert sf.add(F32, ONE, minus_one, rm, RISCV) == (zero, 0)
        assert sf.add(F32, 0, MINUS_ZERO, rm, RISCV) == (zero, 0)
        assert sf.fma(F32, ONE, ONE, minus_one, rm, RISCV) == (zero, 0)
        assert sf.add(F32, MINUS_ZERO, MINUS_ZERO, rm, RISCV) == (MINUS_ZERO, 0)
        assert sf.sqrt(F32, MINUS_ZERO, rm, RISCV) == (MINUS_ZERO, 0)
    assert sf.div(F32, ONE, MINUS_ZERO, RNE, RISCV) == (INF | MINUS_ZERO, DZ)


def test_an_unknown_rounding_mode_is_named() -> None:
    with pytest.raises(Error, match=r"rounding mode 7 .* resolve dynamic modes"):
        sf.div(F32, ONE, 0x40400000, 7, RISCV)
