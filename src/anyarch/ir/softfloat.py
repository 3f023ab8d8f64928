"""Exact IEEE 754 arithmetic on bit patterns, in Python integers: the oracle of every engine.

Operands are raw encodings, unsigned and no wider than their format; operations return
``(result, flags)``. A finite value is taken apart into sign, integer significand and exponent,
the exact result is formed in the same shape, and :func:`_round` alone rounds and encodes it.
What IEEE 754-2019 leaves to the architecture is a :class:`Rules`: RISC-V unprivileged manual
chapters F, D and Zfa; Intel SDM volume 1 chapters 4.8, 11.5, 14.5; Arm DDI 0487 A1.5 and J1.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final, Literal

from anyarch.errors import DefinitionError

# Rounding modes, numbered as in RISC-V's frm; ODD is Arm's round to odd (FCVTXN).
RNE: Final = 0
RTZ: Final = 1
RDN: Final = 2
RUP: Final = 3
RMM: Final = 4
ODD: Final = 5

# Exception flags, placed as in RISC-V's fflags.
NX: Final = 1
UF: Final = 2
OF: Final = 4
DZ: Final = 8
NV: Final = 16
ID: Final = 32  # Arm's input denormal, which other guests do not have

Result = tuple[int, int]


@dataclass(frozen=True)  # no slots: cached_property keeps its value in __dict__
class Format:
    """A binary interchange format."""

    name: str
    exponent_bits: int
    fraction_bits: int

    @cached_property
    def size(self) -> int:
        """Bits of an encoding."""
        return 1 + self.exponent_bits + self.fraction_bits

    @cached_property
    def bias(self) -> int:
        """What is added to an exponent to encode it."""
        return (1 << (self.exponent_bits - 1)) - 1

    @cached_property
    def sign_mask(self) -> int:
        """The sign bit; also the encoding of -0."""
        return 1 << (self.size - 1)

    @cached_property
    def infinity(self) -> int:
        """The encoding of +infinity; magnitudes above it are NaNs."""
        return ((1 << self.exponent_bits) - 1) << self.fraction_bits

    @cached_property
    def quiet_bit(self) -> int:
        """Set in quiet NaNs, clear in signalling ones."""
        return 1 << (self.fraction_bits - 1)

    @cached_property
    def quantum(self) -> int:
        """Exponent of the least subnormal: every finite value is a multiple of 2**quantum."""
        return 1 - self.bias - self.fraction_bits


F16: Final = Format("f16", 5, 10)
BF16: Final = Format("bf16", 8, 7)
F32: Final = Format("f32", 8, 23)
F64: Final = Format("f64", 11, 52)
F128: Final = Format("f128", 15, 112)


@dataclass(frozen=True, slots=True)
class Rules:
    """What differs between architectures.

    nan: the NaN an operation on NaNs returns: always the default one ("canonical"), the first
        NaN operand ("x86"), or the first signalling, else the first quiet one ("arm"; the addend
        of a fused multiply-add comes first).
    tininess: whether a result is tiny is seen "before" or "after" rounding; "flush" makes a tiny
        result zero instead.
    alternative_half: half precision has no infinities and NaNs (Arm's FPCR.AHP).
    fma_inf_zero_nan_invalid: inf * 0 + quiet NaN is an invalid operation.
    default_nan_negative: the sign of the NaN that invalid operations return.
    to_int: the integer for NaN and values out of range: the nearest integer, NaN as the largest
        ("saturate") or as zero ("arm"), or the integer indefinite ("x86").
    signaling_beats_number: minimumNumber of a signalling NaN and a number is a NaN
        (IEEE 754-2008's minNum) instead of the number (2019's minimumNumber).
    """

    nan: Literal["canonical", "x86", "arm"]
    tininess: Literal["before", "after", "flush"]
    fma_inf_zero_nan_invalid: bool
    default_nan_negative: bool
    to_int: Literal["saturate", "arm", "x86"]
    signaling_beats_number: bool
    alternative_half: bool = False

    def default_nan(self, fmt: Format) -> int:
        """The NaN that an invalid operation returns."""
        return (self.default_nan_negative * fmt.sign_mask) | fmt.infinity | fmt.quiet_bit


RISCV: Final = Rules("canonical", "after", True, False, "saturate", False)
ARM: Final = Rules("arm", "before", True, False, "arm", True)
X86: Final = Rules("x86", "after", False, True, "x86", False)

# Arm's modes above the rounding mode, as the guest's mode register keeps them.
ARM_FZ: Final = 8
ARM_DN: Final = 16
ARM_AHP: Final = 32
ARM_FZ16: Final = 64


def arm_flushes(fmt: Format, mode: int) -> bool:
    """Whether subnormal numbers of a format are zero in a mode."""
    return bool(mode & (ARM_FZ16 if fmt.size == 16 and fmt.exponent_bits == 5 else ARM_FZ))


@cache
def arm_rules(fmt: Format, mode: int) -> Rules:
    """The rules for results of a format in a mode."""
    rules = ARM
    if mode & ARM_DN:
        rules = replace(rules, nan="canonical")
    if arm_flushes(fmt, mode):
        rules = replace(rules, tininess="flush")
    if mode & ARM_AHP:
        rules = replace(rules, alternative_half=True)
    return rules


def arm_unpack(fmt: Format, operand: int, mode: int) -> Result:
    """An operand, zero where it is subnormal and the mode says so, and the flag for that."""
    magnitude = operand & (fmt.sign_mask - 1)
    if not magnitude or magnitude >> fmt.fraction_bits or not arm_flushes(fmt, mode):
        return operand, 0
    return operand & fmt.sign_mask, 0 if fmt.size == 16 else ID


# Classes of values


def is_nan(fmt: Format, a: int) -> bool:
    """Whether `a` encodes a NaN."""
    return a & (fmt.sign_mask - 1) > fmt.infinity


def is_signaling(fmt: Format, a: int) -> bool:
    """Whether `a` encodes a signalling NaN."""
    return is_nan(fmt, a) and not a & fmt.quiet_bit


def classify(fmt: Format, a: int) -> int:
    """The one-bit mask of RISC-V's fclass.

    From bit 0: -infinity, negative normal, negative subnormal, -0, +0, positive subnormal,
    positive normal, +infinity, signalling NaN, quiet NaN.
    """
    if is_nan(fmt, a):
        return 1 << (8 if is_signaling(fmt, a) else 9)
    magnitude = a & (fmt.sign_mask - 1)
    if magnitude == 0:
        distance = 0
    elif magnitude >> fmt.fraction_bits == 0:
        distance = 1
    elif magnitude < fmt.infinity:
        distance = 2
    else:
        distance = 3
    return 1 << (3 - distance if a & fmt.sign_mask else 4 + distance)


def _is_infinite(fmt: Format, a: int) -> bool:
    return a & (fmt.sign_mask - 1) == fmt.infinity


def _is_zero(fmt: Format, a: int) -> bool:
    return a & (fmt.sign_mask - 1) == 0


def _sign(fmt: Format, a: int) -> int:
    return a >> (fmt.size - 1)


def _unpack(fmt: Format, a: int) -> tuple[int, int, int]:
    """Sign, significand and exponent of a finite value: (-1)**sign * significand * 2**exponent."""
    biased = (a & fmt.infinity) >> fmt.fraction_bits
    fraction = a & ((1 << fmt.fraction_bits) - 1)
    if biased == 0:
        return _sign(fmt, a), fraction, fmt.quantum
    return _sign(fmt, a), fraction | (1 << fmt.fraction_bits), fmt.quantum + biased - 1


# NaNs


def _signaling_flags(fmt: Format, *operands: int) -> int:
    return NV if any(is_signaling(fmt, operand) for operand in operands) else 0


def _propagate(fmt: Format, rules: Rules, *operands: int) -> Result:
    """The result of an operation of which at least one operand is a NaN."""
    flags = _signaling_flags(fmt, *operands)
    if rules.nan == "canonical":
        return rules.default_nan(fmt), flags
    nans = [operand for operand in operands if is_nan(fmt, operand)]
    if rules.nan == "arm":
        nans.sort(key=lambda nan: not is_signaling(fmt, nan))  # stable: keeps operand order
    return nans[0] | fmt.quiet_bit, flags


def _invalid(fmt: Format, rules: Rules) -> Result:
    return rules.default_nan(fmt), NV


# Rounding


def _shift_round(sign: int, significand: int, shift: int, rm: int) -> tuple[int, bool]:
    """Round significand / 2**shift to an integer; whether it was inexact."""
    if shift <= 0:
        return significand << -shift, False
    result = significand >> shift
    rest = significand & ((1 << shift) - 1)
    if rest == 0:
        return result, False
    half = 1 << (shift - 1)
    match rm:
        case 0:  # RNE
            result += rest > half or (rest == half and result & 1)
        case 1:  # RTZ
            pass
        case 2:  # RDN
            result += sign
        case 3:  # RUP
            result += 1 - sign
        case 4:  # RMM
            result += rest >= half
        case 5:  # ODD
            result |= 1
        case _:
            raise DefinitionError(
                f"rounding mode {rm} reached an operation that rounds; expected 0 (RNE) to 5 (ODD):"
                " resolve dynamic modes and trap on reserved ones before calling"
            )
    return result, True


def _overflow(fmt: Format, sign: int, rm: int) -> Result:
    to_infinity = rm in (RNE, RMM) or rm == (RDN if sign else RUP)
    magnitude = fmt.infinity if to_infinity else fmt.infinity - 1
    return (sign << (fmt.size - 1)) | magnitude, OF | NX


def _round(
    fmt: Format, sign: int, significand: int, exponent: int, rm: int, tininess: str
) -> Result:
    """Round and encode (-1)**sign * significand * 2**exponent, significand above zero.

    The lowest bit may stand for a longer remainder ("sticky"), provided that the significand is
    at least two bits longer than the format's precision.
    """
    position = significand.bit_length() + exponent - 1  # the value is in [2**p, 2**(p+1))
    unbounded_quantum = position - fmt.fraction_bits
    if tininess == "flush" and unbounded_quantum < fmt.quantum:
        return sign << (fmt.size - 1), UF
    quantum = max(unbounded_quantum, fmt.quantum)
    rounded, inexact = _shift_round(sign, significand, quantum - exponent, rm)
    # The hidden bit, or a carry out of rounding, adds one to the encoded exponent.
    magnitude = ((quantum - fmt.quantum) << fmt.fraction_bits) + rounded
    if magnitude >= fmt.infinity:
        return _overflow(fmt, sign, rm)
    flags = NX if inexact else 0
    if inexact and unbounded_quantum < fmt.quantum:
        tiny = True
        if tininess == "after" and unbounded_quantum == fmt.quantum - 1:
            unbounded, _ = _shift_round(sign, significand, unbounded_quantum - exponent, rm)
            tiny = unbounded >> (fmt.fraction_bits + 1) == 0  # else it became the least normal
        if tiny:
            flags |= UF
    return (sign << (fmt.size - 1)) | magnitude, flags


def _zero_of_sum(fmt: Format, sign_a: int, sign_b: int, rm: int) -> Result:
    """The zero that two terms give whose exact sum is zero."""
    sign = sign_a if sign_a == sign_b else int(rm == RDN)
    return sign << (fmt.size - 1), 0


def _round_sum(
    fmt: Format, a: tuple[int, int, int], b: tuple[int, int, int], rm: int, rules: Rules
) -> Result:
    """Add two unpacked values."""
    (sign_a, significand_a, exponent_a), (sign_b, significand_b, exponent_b) = a, b
    exponent = min(exponent_a, exponent_b)
    term_a = significand_a << (exponent_a - exponent)
    term_b = significand_b << (exponent_b - exponent)
    total = (-term_a if sign_a else term_a) + (-term_b if sign_b else term_b)
    if total == 0:
        # Terms that are not zero cancel only with opposite signs.
        return _zero_of_sum(fmt, sign_a, sign_b, rm)
    return _round(fmt, int(total < 0), abs(total), exponent, rm, rules.tininess)


# Arithmetic


def add(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """a + b."""
    if is_nan(fmt, a) or is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    if _is_infinite(fmt, a):
        return _invalid(fmt, rules) if b == a ^ fmt.sign_mask else (a, 0)
    if _is_infinite(fmt, b):
        return b, 0
    return _round_sum(fmt, _unpack(fmt, a), _unpack(fmt, b), rm, rules)


def sub(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """a - b. A NaN in `b` keeps its sign."""
    if is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    return add(fmt, a, b ^ fmt.sign_mask, rm, rules)


def mul(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """a * b."""
    if is_nan(fmt, a) or is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    sign_bit = (a ^ b) & fmt.sign_mask
    if _is_infinite(fmt, a) or _is_infinite(fmt, b):
        if _is_zero(fmt, a) or _is_zero(fmt, b):
            return _invalid(fmt, rules)
        return sign_bit | fmt.infinity, 0
    if _is_zero(fmt, a) or _is_zero(fmt, b):
        return sign_bit, 0
    sign_a, significand_a, exponent_a = _unpack(fmt, a)
    sign_b, significand_b, exponent_b = _unpack(fmt, b)
    product = significand_a * significand_b
    return _round(fmt, sign_a ^ sign_b, product, exponent_a + exponent_b, rm, rules.tininess)


def div(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """a / b."""
    if is_nan(fmt, a) or is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    sign_bit = (a ^ b) & fmt.sign_mask
    if _is_infinite(fmt, a):
        return _invalid(fmt, rules) if _is_infinite(fmt, b) else (sign_bit | fmt.infinity, 0)
    if _is_infinite(fmt, b):
        return sign_bit, 0
    if _is_zero(fmt, b):
        return _invalid(fmt, rules) if _is_zero(fmt, a) else (sign_bit | fmt.infinity, DZ)
    if _is_zero(fmt, a):
        return sign_bit, 0
    sign_a, significand_a, exponent_a = _unpack(fmt, a)
    sign_b, significand_b, exponent_b = _unpack(fmt, b)
    # The quotient gets at least two bits beyond the precision; the sticky bit comes below them.
    shift = fmt.fraction_bits + 3 + significand_b.bit_length()
    quotient, remainder = divmod(significand_a << shift, significand_b)
    significand = (quotient << 1) | (remainder != 0)
    exponent = exponent_a - exponent_b - shift - 1
    return _round(fmt, sign_a ^ sign_b, significand, exponent, rm, rules.tininess)


def sqrt(fmt: Format, a: int, rm: int, rules: Rules) -> Result:
    """The square root of a."""
    if is_nan(fmt, a):
        return _propagate(fmt, rules, a)
    if _is_zero(fmt, a):
        return a, 0
    if a & fmt.sign_mask:
        return _invalid(fmt, rules)
    if _is_infinite(fmt, a):
        return a, 0
    _, significand, exponent = _unpack(fmt, a)
    # Twice the precision and more, and an even exponent, so that the root has sticky room.
    shift = 2 * (fmt.fraction_bits + 3)
    shift += (exponent - shift) & 1
    radicand = significand << shift
    root = math.isqrt(radicand)
    significand = (root << 1) | (root * root != radicand)
    return _round(fmt, 0, significand, (exponent - shift) // 2 - 1, rm, rules.tininess)


def fma(fmt: Format, a: int, b: int, c: int, rm: int, rules: Rules) -> Result:
    """a * b + c with one rounding.

    Negated forms flip operand signs first: those of NaNs too on Arm, not on x86.
    """
    infinite = _is_infinite(fmt, a) or _is_infinite(fmt, b)
    no_product = infinite and (_is_zero(fmt, a) or _is_zero(fmt, b))
    if is_nan(fmt, a) or is_nan(fmt, b) or is_nan(fmt, c):
        operands = (c, a, b) if rules.nan == "arm" else (a, b, c)
        result, flags = _propagate(fmt, rules, *operands)
        if no_product and rules.fma_inf_zero_nan_invalid:
            flags |= NV
            if rules.nan == "arm" and not is_signaling(fmt, c):
                result = rules.default_nan(fmt)
        return result, flags
    sign = _sign(fmt, a) ^ _sign(fmt, b)
    if no_product:
        return _invalid(fmt, rules)
    if infinite:
        if _is_infinite(fmt, c) and _sign(fmt, c) != sign:
            return _invalid(fmt, rules)
        return (sign << (fmt.size - 1)) | fmt.infinity, 0
    if _is_infinite(fmt, c):
        return c, 0
    _, significand_a, exponent_a = _unpack(fmt, a)
    _, significand_b, exponent_b = _unpack(fmt, b)
    product = (sign, significand_a * significand_b, exponent_a + exponent_b)
    return _round_sum(fmt, product, _unpack(fmt, c), rm, rules)


# Conversions


def convert(from_fmt: Format, to_fmt: Format, a: int, rm: int, rules: Rules) -> Result:
    """The value of `a` in another format. A propagated NaN keeps its upper payload bits."""
    if rules.alternative_half and F16 in (from_fmt, to_fmt):
        return _convert_alternative(from_fmt, to_fmt, a, rm, rules)
    sign_bit = _sign(from_fmt, a) << (to_fmt.size - 1)
    if is_nan(from_fmt, a):
        flags = _signaling_flags(from_fmt, a)
        if rules.nan == "canonical":
            return rules.default_nan(to_fmt), flags
        payload = a & (from_fmt.quiet_bit - 1)
        payload = (payload << to_fmt.fraction_bits) >> from_fmt.fraction_bits
        return sign_bit | to_fmt.infinity | to_fmt.quiet_bit | payload, flags
    if _is_infinite(from_fmt, a):
        return sign_bit | to_fmt.infinity, 0
    if _is_zero(from_fmt, a):
        return sign_bit, 0
    sign, significand, exponent = _unpack(from_fmt, a)
    return _round(to_fmt, sign, significand, exponent, rm, rules.tininess)


_ALTERNATIVE: Final = Format("alternative f16", 6, 10)  # a normal exponent where F16 ends


def _convert_alternative(from_fmt: Format, to_fmt: Format, a: int, rm: int, rules: Rules) -> Result:
    """A conversion where half precision has neither infinities nor NaNs."""
    rules = replace(rules, alternative_half=False)
    if from_fmt is F16:
        sign, significand, exponent = _sign(F16, a), a & 0x3FF, a >> 10 & 31
        if not exponent and not significand:
            return sign << (to_fmt.size - 1), 0
        significand |= 0x400 if exponent else 0
        return _round(to_fmt, sign, significand, max(exponent, 1) - 25, rm, rules.tininess)
    sign_bit = _sign(from_fmt, a) << 15
    if is_nan(from_fmt, a):
        return sign_bit, NV
    if _is_infinite(from_fmt, a):
        return sign_bit | 0x7FFF, NV
    if _is_zero(from_fmt, a):
        return sign_bit, 0
    sign, significand, exponent = _unpack(from_fmt, a)
    # One exponent more than F16: the same bias, and nothing to stand for infinity below 2**17.
    wide = replace(_ALTERNATIVE, name="wide")
    shift = wide.bias - F16.bias
    result, flags = _round(wide, sign, significand, exponent - shift, rm, rules.tininess)
    magnitude = result & (wide.sign_mask - 1)
    if magnitude > 0x7FFF:
        return sign_bit | 0x7FFF, NV
    return sign_bit | magnitude, flags


def to_int(
    fmt: Format,
    a: int,
    size: int,
    signed: bool,
    rm: int,
    rules: Rules,
    exact: bool = True,
    fraction_bits: int = 0,
) -> Result:
    """`a` rounded to an integer of `size` bits, two's complement where signed.

    The integer counts units of 2**-fraction_bits. NaN and values out of range raise NV alone.
    `exact` false never raises NX.
    """
    low, high = (-(1 << (size - 1)), (1 << (size - 1)) - 1) if signed else (0, (1 << size) - 1)
    mask = (1 << size) - 1
    if not (is_nan(fmt, a) or _is_infinite(fmt, a)):
        sign, significand, exponent = _unpack(fmt, a)
        shift = -exponent - fraction_bits
        magnitude, inexact = _shift_round(sign, significand, shift, rm)
        value = -magnitude if sign else magnitude
        if low <= value <= high:
            return value & mask, NX if inexact and exact else 0
    if rules.to_int == "x86":
        return (low if signed else high) & mask, NV
    if is_nan(fmt, a):
        return 0 if rules.to_int == "arm" else high, NV
    return (low if a & fmt.sign_mask else high) & mask, NV


def to_int_modular(fmt: Format, a: int, size: int = 32) -> Result:
    """`a` truncated to an integer modulo 2**size; NaN and infinity give zero.

    Flags are those of the signed conversion (Zfa fcvtmod.w.d; Arm FJCVTZS).
    """
    _, flags = to_int(fmt, a, size, True, RTZ, RISCV)
    if is_nan(fmt, a) or _is_infinite(fmt, a):
        return 0, flags
    sign, significand, exponent = _unpack(fmt, a)
    magnitude, _ = _shift_round(sign, significand, -exponent, RTZ)
    return (-magnitude if sign else magnitude) & ((1 << size) - 1), flags


def from_int(
    fmt: Format,
    value: int,
    size: int,
    signed: bool,
    rm: int,
    fraction_bits: int = 0,
    tininess: str = "before",
) -> Result:
    """The integer whose encoding in `size` bits is `value`, rounded to the format.

    It counts units of 2**-fraction_bits.
    """
    sign = value >> (size - 1) & 1 if signed else 0
    magnitude = (1 << size) - value if sign else value
    if magnitude == 0:
        return 0, 0
    return _round(fmt, sign, magnitude, -fraction_bits, rm, tininess)


def round_to_integral(fmt: Format, a: int, rm: int, exact: bool, rules: Rules) -> Result:
    """`a` rounded to an integer in its own format; NX only where `exact` asks for it."""
    if is_nan(fmt, a):
        return _propagate(fmt, rules, a)
    sign, significand, exponent = _unpack(fmt, a)
    if _is_infinite(fmt, a) or exponent >= 0:
        return a, 0
    magnitude, inexact = _shift_round(sign, significand, -exponent, rm)
    flags = NX if inexact and exact else 0
    if magnitude == 0:
        return a & fmt.sign_mask, flags
    result, _ = _round(fmt, sign, magnitude, 0, rm, rules.tininess)
    return result, flags


# Comparisons


def _key(fmt: Format, a: int) -> int:
    """An integer that orders as the value of `a`, not a NaN, does; both zeros are 0."""
    magnitude = a & (fmt.sign_mask - 1)
    return -magnitude if a & fmt.sign_mask else magnitude


def _unordered(fmt: Format, a: int, b: int) -> bool:
    return is_nan(fmt, a) or is_nan(fmt, b)


def eq_quiet(fmt: Format, a: int, b: int) -> Result:
    """a == b; signalling NaNs alone raise NV."""
    if _unordered(fmt, a, b):
        return 0, _signaling_flags(fmt, a, b)
    return int(_key(fmt, a) == _key(fmt, b)), 0


def lt_quiet(fmt: Format, a: int, b: int) -> Result:
    """a < b; signalling NaNs alone raise NV."""
    if _unordered(fmt, a, b):
        return 0, _signaling_flags(fmt, a, b)
    return int(_key(fmt, a) < _key(fmt, b)), 0


def le_quiet(fmt: Format, a: int, b: int) -> Result:
    """a <= b; signalling NaNs alone raise NV."""
    if _unordered(fmt, a, b):
        return 0, _signaling_flags(fmt, a, b)
    return int(_key(fmt, a) <= _key(fmt, b)), 0


def eq_signaling(fmt: Format, a: int, b: int) -> Result:
    """a == b; any NaN raises NV."""
    return (0, NV) if _unordered(fmt, a, b) else eq_quiet(fmt, a, b)


def lt_signaling(fmt: Format, a: int, b: int) -> Result:
    """a < b; any NaN raises NV."""
    return (0, NV) if _unordered(fmt, a, b) else lt_quiet(fmt, a, b)


def le_signaling(fmt: Format, a: int, b: int) -> Result:
    """a <= b; any NaN raises NV."""
    return (0, NV) if _unordered(fmt, a, b) else le_quiet(fmt, a, b)


def _minimum(fmt: Format, a: int, b: int) -> int:
    if _key(fmt, a) == _key(fmt, b):
        return a | b  # equal, or zeros: -0 is the smaller
    return a if _key(fmt, a) < _key(fmt, b) else b


def _maximum(fmt: Format, a: int, b: int) -> int:
    if _key(fmt, a) == _key(fmt, b):
        return a & b
    return a if _key(fmt, a) > _key(fmt, b) else b


def _number(fmt: Format, a: int, b: int, rules: Rules) -> Result | None:
    """What minimumNumber and maximumNumber give where an operand is a NaN."""
    if not _unordered(fmt, a, b):
        return None
    flags = _signaling_flags(fmt, a, b)
    both = is_nan(fmt, a) and is_nan(fmt, b)
    if both or (flags and rules.signaling_beats_number):
        return _propagate(fmt, rules, a, b)
    return (b if is_nan(fmt, a) else a), flags


def minimum_number(fmt: Format, a: int, b: int, rules: Rules) -> Result:
    """The smaller operand, -0 below +0; a NaN loses to a number (RISC-V fmin, Arm FMINNM)."""
    return _number(fmt, a, b, rules) or (_minimum(fmt, a, b), 0)


def maximum_number(fmt: Format, a: int, b: int, rules: Rules) -> Result:
    """The larger operand, +0 above -0; a NaN loses to a number (RISC-V fmax, Arm FMAXNM)."""
    return _number(fmt, a, b, rules) or (_maximum(fmt, a, b), 0)


def minimum(fmt: Format, a: int, b: int, rules: Rules) -> Result:
    """The smaller operand, -0 below +0; NaNs propagate (Zfa fminm, Arm FMIN)."""
    if _unordered(fmt, a, b):
        return _propagate(fmt, rules, a, b)
    return _minimum(fmt, a, b), 0


def maximum(fmt: Format, a: int, b: int, rules: Rules) -> Result:
    """The larger operand, +0 above -0; NaNs propagate (Zfa fmaxm, Arm FMAX)."""
    if _unordered(fmt, a, b):
        return _propagate(fmt, rules, a, b)
    return _maximum(fmt, a, b), 0


# What Arm adds (DDI 0487, J1.1: FPMulX, FPRecipEstimate, FPRSqrtEstimate, FPRecpX,
# FPRecipStepFused, FPRSqrtStepFused, FPRoundIntN).


def _infinity_times_zero(fmt: Format, a: int, b: int) -> bool:
    return (_is_infinite(fmt, a) and _is_zero(fmt, b)) or (
        _is_zero(fmt, a) and _is_infinite(fmt, b)
    )


def _power(fmt: Format, exponent: int) -> int:
    return (exponent + fmt.bias) << fmt.fraction_bits


def mul_extended(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """a * b, where infinity times zero is two."""
    if _infinity_times_zero(fmt, a, b):
        return ((a ^ b) & fmt.sign_mask) | _power(fmt, 1), 0
    return mul(fmt, a, b, rm, rules)


def reciprocal_step(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """2 - a * b, rounded once; two for infinity times zero."""
    a ^= fmt.sign_mask
    if is_nan(fmt, a) or is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    if _infinity_times_zero(fmt, a, b):
        return _power(fmt, 1), 0
    return fma(fmt, a, b, _power(fmt, 1), rm, rules)


def root_step(fmt: Format, a: int, b: int, rm: int, rules: Rules) -> Result:
    """(3 - a * b) / 2, rounded once; one and a half for infinity times zero."""
    a ^= fmt.sign_mask
    half = _power(fmt, 0) | fmt.quiet_bit  # 1.5
    if is_nan(fmt, a) or is_nan(fmt, b):
        return _propagate(fmt, rules, a, b)
    if _infinity_times_zero(fmt, a, b):
        return half, 0
    if _is_infinite(fmt, a) or _is_infinite(fmt, b):
        return ((a ^ b) & fmt.sign_mask) | fmt.infinity, 0
    sign_a, significand_a, exponent_a = _unpack(fmt, a)
    sign_b, significand_b, exponent_b = _unpack(fmt, b)
    product = (sign_a ^ sign_b, significand_a * significand_b, exponent_a + exponent_b - 1)
    return _round_sum(fmt, product, _unpack(fmt, half), rm, rules)


def reciprocal_exponent(fmt: Format, a: int, rules: Rules) -> Result:
    """The sign of a, its exponent inverted, and a fraction of zero (FRECPX)."""
    if is_nan(fmt, a):
        return _propagate(fmt, rules, a)
    exponent = (a & fmt.infinity) >> fmt.fraction_bits
    top = (1 << fmt.exponent_bits) - 1
    exponent = top - 1 if exponent == 0 else exponent ^ top
    return (a & fmt.sign_mask) | exponent << fmt.fraction_bits, 0


def reciprocal_estimate(fmt: Format, a: int, rm: int, rules: Rules) -> Result:
    """1 / a to eight bits (FRECPE)."""
    if is_nan(fmt, a):
        return _propagate(fmt, rules, a)
    sign_bit, magnitude = a & fmt.sign_mask, a & (fmt.sign_mask - 1)
    if magnitude == fmt.infinity:
        return sign_bit, 0
    if magnitude == 0:
        return sign_bit | fmt.infinity, DZ
    if magnitude < 1 << (fmt.fraction_bits - 2):  # the result is beyond the largest number
        return _overflow(fmt, _sign(fmt, a), rm)
    exponent = magnitude >> fmt.fraction_bits
    if rules.tininess == "flush" and exponent >= 2 * fmt.bias - 1:
        return sign_bit, UF
    fraction = magnitude & ((1 << fmt.fraction_bits) - 1)
    if exponent == 0:
        exponent = 0 if fraction >> (fmt.fraction_bits - 1) else -1
        fraction = fraction << (1 if exponent == 0 else 2) & ((1 << fmt.fraction_bits) - 1)
    scaled = 0x100 | fraction >> (fmt.fraction_bits - 8)
    estimate = reciprocal_table(scaled) & 0xFF
    result_exponent = 2 * fmt.bias - 1 - exponent
    fraction = estimate << (fmt.fraction_bits - 8)
    if result_exponent <= 0:
        fraction = (fraction | 1 << fmt.fraction_bits) >> (1 - result_exponent)
        result_exponent = 0
    return sign_bit | result_exponent << fmt.fraction_bits | fraction, 0


def reciprocal_table(scaled: int) -> int:
    """RecipEstimate: of a number from 256 to 511."""
    return ((1 << 19) // (2 * scaled + 1) + 1) >> 1


def root_table(scaled: int) -> int:
    """RecipSqrtEstimate: of a number from 128 to 511."""
    scaled = 2 * scaled + 1 if scaled < 256 else (scaled >> 1 << 1) + 1 << 1
    estimate = 512
    while scaled * (estimate + 1) ** 2 < 1 << 28:
        estimate += 1
    return (estimate + 1) >> 1


def root_estimate(fmt: Format, a: int, rules: Rules) -> Result:
    """1 / sqrt(a) to eight bits (FRSQRTE)."""
    if is_nan(fmt, a):
        return _propagate(fmt, rules, a)
    sign_bit, magnitude = a & fmt.sign_mask, a & (fmt.sign_mask - 1)
    if magnitude == 0:
        return sign_bit | fmt.infinity, DZ
    if sign_bit:
        return _invalid(fmt, rules)
    if magnitude == fmt.infinity:
        return 0, 0
    fraction = (magnitude & ((1 << fmt.fraction_bits) - 1)) << 1
    exponent = magnitude >> fmt.fraction_bits
    if exponent == 0:
        while not fraction >> fmt.fraction_bits & 1:
            fraction <<= 1
            exponent -= 1
        fraction = fraction << 1 & ((2 << fmt.fraction_bits) - 1)
    fraction >>= 1
    fraction &= (1 << fmt.fraction_bits) - 1
    if exponent & 1:
        scaled = 0x80 | fraction >> (fmt.fraction_bits - 7)
    else:
        scaled = 0x100 | fraction >> (fmt.fraction_bits - 8)
    result_exponent = (3 * fmt.bias - 1 - exponent) >> 1
    estimate = root_table(scaled) & 0xFF
    return result_exponent << fmt.fraction_bits | estimate << (fmt.fraction_bits - 8), 0


def round_to_size(fmt: Format, a: int, size: int, rm: int, rules: Rules) -> Result:
    """`a` rounded to an integer of `size` bits, in its own format; -2**(size - 1) where it has
    none (FRINT32Z and the like)."""
    least = from_int(fmt, 1 << (size - 1), size, True, RNE)[0]
    if is_nan(fmt, a) or _is_infinite(fmt, a):
        return least, NV
    result, flags = round_to_integral(fmt, a, rm, True, rules)
    sign, significand, exponent = _unpack(fmt, result)
    value = significand << exponent if exponent >= 0 else significand >> -exponent
    value = -value if sign else value
    if not -(1 << (size - 1)) <= value < 1 << (size - 1):
        return least, NV
    return result, flags


def fma_long(a: int, b: int, c: int, rm: int, rules: Rules) -> Result:
    """a * b + c, rounded once, of two half precision numbers and a single precision one (FMLAL)."""
    no_product = _infinity_times_zero(F16, a, b)
    if is_nan(F16, a) or is_nan(F16, b) or is_nan(F32, c):
        flags = _signaling_flags(F16, a, b) | _signaling_flags(F32, c)
        wide = [convert(F16, F32, operand, RNE, ARM)[0] for operand in (a, b)]
        # Widening makes NaNs quiet: what was signalling must be told apart.
        order = [(c, is_nan(F32, c), is_signaling(F32, c))]
        order += [
            (value, is_nan(F16, operand), is_signaling(F16, operand))
            for value, operand in zip(wide, (a, b), strict=True)
        ]
        signaling = [value for value, _, is_signaling_ in order if is_signaling_]
        quiet = [value for value, nan, _ in order if nan]
        if no_product and not is_signaling(F32, c):
            return rules.default_nan(F32), flags | NV
        if rules.nan == "canonical":
            return rules.default_nan(F32), flags | (NV if no_product else 0)
        return (signaling or quiet)[0] | F32.quiet_bit, flags | (NV if no_product else 0)
    wide_a, wide_b = (convert(F16, F32, operand, RNE, ARM)[0] for operand in (a, b))
    return fma(F32, wide_a, wide_b, c, rm, rules)


_BFLOAT: Final = replace(ARM, nan="canonical", tininess="flush")


def _bfloat(operation: Callable[..., Result], a: int, b: int) -> int:
    """An operation rounded to odd, subnormals as zeros, without flags; overflow is infinite."""
    a, b = (arm_unpack(F32, operand, ARM_FZ)[0] for operand in (a, b))
    result, flags = operation(F32, a, b, ODD, _BFLOAT)
    return (result & F32.sign_mask) | F32.infinity if flags & OF else result


def bf16_dot(a: int, b: int, c: int) -> int:
    """c + a1 * b1 + a2 * b2, of pairs of BFloat16 numbers and a single precision one (BFDOT)."""
    low = _bfloat(mul, (a & 0xFFFF) << 16, (b & 0xFFFF) << 16)
    high = _bfloat(mul, a & 0xFFFF0000, b & 0xFFFF0000)
    return _bfloat(add, c, _bfloat(add, low, high))
