"""Advanced SIMD on integers: three registers of like lanes, two registers, pairs, across lanes.

Arm DDI 0487, C4.1.96: "Advanced SIMD three same", "two-register miscellaneous", "across lanes",
"three same extra" and their scalar counterparts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from anyarch.guests.aarch64.simd import LETTERS, define, elementwise, full, read, saturated, write
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine

BHS: Final = (8, 16, 32)
BHSD: Final = (8, 16, 32, 64)


def maximum(lane: int) -> int:
    """The largest signed number."""
    return (1 << lane - 1) - 1


def minimum(lane: int) -> int:
    """The smallest signed number."""
    return -(1 << lane - 1)


# Three of the same kind.


def _shadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the sum, signed."""
    return (a & b) + (a ^ b).sar(1)


def _uhadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the sum, unsigned."""
    return (a & b) + ((a ^ b) >> 1)


def _srhadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the sum, rounded, signed."""
    return (a | b) - (a ^ b).sar(1)


def _urhadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the sum, rounded, unsigned."""
    return (a | b) - ((a ^ b) >> 1)


def _shsub(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the difference, signed."""
    return (a ^ b).sar(1) - (~a & b)


def _uhsub(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Half the difference, unsigned."""
    return ((a ^ b) >> 1) - (~a & b)


def _sqadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Sum, saturating, signed."""
    return saturated(m, a.sadds(b), a + b)


def _uqadd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Sum, saturating, unsigned."""
    return saturated(m, a.uadds(b), a + b)


def _sqsub(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Difference, saturating, signed."""
    return saturated(m, a.ssubs(b), a - b)


def _uqsub(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Difference, saturating, unsigned."""
    return saturated(m, a.usubs(b), a - b)


def _amount(b: Lanes) -> Lanes:
    """The lowest byte of each lane, signed."""
    return (b << b.lane - 8).sar(b.lane - 8) if b.lane > 8 else b


def _sshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, signed."""
    n = _amount(b)
    return n.slt(0).select(a.sar(-n), a << n)


def _ushl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, unsigned."""
    n = _amount(b)
    return n.slt(0).select(a >> -n, a << n)


def _round_sar(a: Lanes, n: Lanes) -> Lanes:
    return a.sar(n) + (a.sar(n - 1) & 1)


def _round_shr(a: Lanes, n: Lanes) -> Lanes:
    return (a >> n) + (a >> n - 1 & 1)


def _srshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, rounding, signed."""
    n = _amount(b)
    return n.slt(0).select(_round_sar(a, -n), a << n)


def _urshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, rounding, unsigned."""
    n = _amount(b)
    return n.slt(0).select(_round_shr(a, -n), a << n)


def saturate_left(m: Machine, a: Lanes, n: Lanes, right: Lanes, *, signed: bool) -> Lanes:
    """a << n, saturating, where n is not negative; else ``right``."""
    left = a << n
    back = left.sar(n) if signed else left >> n
    limit = a.sar(a.lane - 1) ^ maximum(a.lane) if signed else a.constant(-1)
    fits = back.equals(a) | n.slt(0)
    result = n.slt(0).select(right, fits.select(left, limit))
    m.qc[0] = m.qc[0] | (fits.bits != -1).zext(8)
    return result


def _sqshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, saturating, signed."""
    n = _amount(b)
    return saturate_left(m, a, n, a.sar(-n), signed=True)


def _uqshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, saturating, unsigned."""
    n = _amount(b)
    return saturate_left(m, a, n, a >> -n, signed=False)


def _sqrshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, rounding and saturating, signed."""
    n = _amount(b)
    return saturate_left(m, a, n, _round_sar(a, -n), signed=True)


def _uqrshl(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Shift by signed amounts, rounding and saturating, unsigned."""
    n = _amount(b)
    return saturate_left(m, a, n, _round_shr(a, -n), signed=False)


def sabd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Absolute difference, signed."""
    return a.smax(b) - a.smin(b)


def uabd(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Absolute difference, unsigned."""
    return a.umax(b) - a.umin(b)


def _saba(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Accumulate absolute differences, signed."""
    return d + sabd(m, a, b)


def _uaba(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Accumulate absolute differences, unsigned."""
    return d + uabd(m, a, b)


def _cmtst(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Ones where a common bit is set."""
    return ~(a & b).equals(0)


def mla(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Multiply and accumulate."""
    return d + a * b


def mls(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Multiply and subtract."""
    return d - a * b


def mul(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Multiply."""
    return a * b


def _pmul(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Multiply polynomials."""
    result = a.constant(0)
    for bit in range(8):
        result = result ^ (a << bit & -(b >> bit & 1))
    return result


def clamp(m: Machine, wide: Lanes) -> Lanes:
    """The halves of signed lanes, saturating."""
    half = wide.lane // 2
    inside = wide.smin(maximum(half)).smax(minimum(half))
    return saturated(m, inside, wide).narrow()


def clamp_unsigned(m: Machine, wide: Lanes) -> Lanes:
    """The halves of unsigned lanes, saturating."""
    return saturated(m, wide.umin((1 << wide.lane // 2) - 1), wide).narrow()


def clamp_to_unsigned(m: Machine, wide: Lanes) -> Lanes:
    """The halves of signed lanes as unsigned numbers, saturating."""
    inside = wide.smin((1 << wide.lane // 2) - 1).smax(0)
    return saturated(m, inside, wide).narrow()


def _product(a: Lanes, b: Lanes) -> Lanes:
    return a.widen(signed=True) * b.widen(signed=True)


def sqdmulh(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Upper half of twice the product, saturating."""
    return clamp(m, _product(a, b).sar(a.lane - 1))


def sqrdmulh(m: Machine, a: Lanes, b: Lanes) -> Lanes:
    """Upper half of twice the product, rounding and saturating."""
    return clamp(m, (_product(a, b) + (1 << a.lane - 2)).sar(a.lane - 1))


def sqrdmlah(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Accumulate the upper half of twice the product, rounding and saturating."""
    base = (d.widen(signed=True) << a.lane - 1) + (1 << a.lane - 2)
    return clamp(m, (base + _product(a, b)).sar(a.lane - 1))


def sqrdmlsh(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Subtract the upper half of twice the product, rounding and saturating."""
    base = (d.widen(signed=True) << a.lane - 1) + (1 << a.lane - 2)
    return clamp(m, (base - _product(a, b)).sar(a.lane - 1))


def pairs(a: Lanes, b: Lanes) -> tuple[Lanes, Lanes]:
    """The even and the odd lanes of two vectors, one behind the other."""
    count = a.count
    return a.shuffle(b, range(0, 2 * count, 2)), a.shuffle(b, range(1, 2 * count, 2))


def _paired(function: Callable[[Lanes, Lanes], Lanes], doc: str) -> Callable[..., Lanes]:
    def result(m: Machine, a: Lanes, b: Lanes) -> Lanes:
        return function(*pairs(a, b))

    result.__doc__ = doc
    return result


def _plain(function: Callable[[Lanes, Lanes], Lanes], doc: str) -> Callable[..., Lanes]:
    def result(m: Machine, a: Lanes, b: Lanes) -> Lanes:
        return function(a, b)

    result.__doc__ = doc
    return result


# Mnemonics of U = 0 and 1, opcode, functions, lanes, scalar lanes, operands.
_THREE: Final[
    tuple[tuple[str, int, str, Callable[..., Lanes], Sequence[int], Sequence[int], str], ...]
] = (
    ("shadd", 0, "00000", _shadd, BHS, (), "vn vm"),
    ("uhadd", 1, "00000", _uhadd, BHS, (), "vn vm"),
    ("sqadd", 0, "00001", _sqadd, BHSD, BHSD, "vn vm"),
    ("uqadd", 1, "00001", _uqadd, BHSD, BHSD, "vn vm"),
    ("srhadd", 0, "00010", _srhadd, BHS, (), "vn vm"),
    ("urhadd", 1, "00010", _urhadd, BHS, (), "vn vm"),
    ("shsub", 0, "00100", _shsub, BHS, (), "vn vm"),
    ("uhsub", 1, "00100", _uhsub, BHS, (), "vn vm"),
    ("sqsub", 0, "00101", _sqsub, BHSD, BHSD, "vn vm"),
    ("uqsub", 1, "00101", _uqsub, BHSD, BHSD, "vn vm"),
    (
        "cmgt",
        0,
        "00110",
        _plain(lambda a, b: b.slt(a), "Ones where greater."),
        BHSD,
        (64,),
        "vn vm",
    ),
    ("cmhi", 1, "00110", _plain(lambda a, b: b.ult(a), "Ones where higher."), BHSD, (64,), "vn vm"),
    (
        "cmge",
        0,
        "00111",
        _plain(lambda a, b: b.sle(a), "Ones where greater or equal."),
        BHSD,
        (64,),
        "vn vm",
    ),
    (
        "cmhs",
        1,
        "00111",
        _plain(lambda a, b: b.ule(a), "Ones where higher or same."),
        BHSD,
        (64,),
        "vn vm",
    ),
    ("sshl", 0, "01000", _sshl, BHSD, (64,), "vn vm"),
    ("ushl", 1, "01000", _ushl, BHSD, (64,), "vn vm"),
    ("sqshl", 0, "01001", _sqshl, BHSD, BHSD, "vn vm"),
    ("uqshl", 1, "01001", _uqshl, BHSD, BHSD, "vn vm"),
    ("srshl", 0, "01010", _srshl, BHSD, (64,), "vn vm"),
    ("urshl", 1, "01010", _urshl, BHSD, (64,), "vn vm"),
    ("sqrshl", 0, "01011", _sqrshl, BHSD, BHSD, "vn vm"),
    ("uqrshl", 1, "01011", _uqrshl, BHSD, BHSD, "vn vm"),
    ("smax", 0, "01100", _plain(Lanes.smax, "The larger, signed."), BHS, (), "vn vm"),
    ("umax", 1, "01100", _plain(Lanes.umax, "The larger, unsigned."), BHS, (), "vn vm"),
    ("smin", 0, "01101", _plain(Lanes.smin, "The smaller, signed."), BHS, (), "vn vm"),
    ("umin", 1, "01101", _plain(Lanes.umin, "The smaller, unsigned."), BHS, (), "vn vm"),
    ("sabd", 0, "01110", sabd, BHS, (), "vn vm"),
    ("uabd", 1, "01110", uabd, BHS, (), "vn vm"),
    ("saba", 0, "01111", _saba, BHS, (), "vd vn vm"),
    ("uaba", 1, "01111", _uaba, BHS, (), "vd vn vm"),
    ("add", 0, "10000", _plain(lambda a, b: a + b, "Add."), BHSD, (64,), "vn vm"),
    ("sub", 1, "10000", _plain(lambda a, b: a - b, "Subtract."), BHSD, (64,), "vn vm"),
    ("cmtst", 0, "10001", _cmtst, BHSD, (64,), "vn vm"),
    ("cmeq", 1, "10001", _plain(Lanes.equals, "Ones where equal."), BHSD, (64,), "vn vm"),
    ("mla", 0, "10010", mla, BHS, (), "vd vn vm"),
    ("mls", 1, "10010", mls, BHS, (), "vd vn vm"),
    ("mul", 0, "10011", mul, BHS, (), "vn vm"),
    ("pmul", 1, "10011", _pmul, (8,), (), "vn vm"),
    (
        "smaxp",
        0,
        "10100",
        _paired(Lanes.smax, "The larger of each pair, signed."),
        BHS,
        (),
        "vn vm",
    ),
    (
        "umaxp",
        1,
        "10100",
        _paired(Lanes.umax, "The larger of each pair, unsigned."),
        BHS,
        (),
        "vn vm",
    ),
    (
        "sminp",
        0,
        "10101",
        _paired(Lanes.smin, "The smaller of each pair, signed."),
        BHS,
        (),
        "vn vm",
    ),
    (
        "uminp",
        1,
        "10101",
        _paired(Lanes.umin, "The smaller of each pair, unsigned."),
        BHS,
        (),
        "vn vm",
    ),
    ("sqdmulh", 0, "10110", sqdmulh, (16, 32), (16, 32), "vn vm"),
    ("sqrdmulh", 1, "10110", sqrdmulh, (16, 32), (16, 32), "vn vm"),
    ("addp", 0, "10111", _paired(lambda a, b: a + b, "Add pairs."), BHSD, (), "vn vm"),
)
for _mnemonic, _u, _opcode, _function, _lanes, _scalars, _operands in _THREE:
    elementwise(
        _mnemonic,
        f"0 q:1 {_u} 01110 size 1 vm {_opcode} 1 vn vd",
        f"01 {_u} 11110 size 1 vm {_opcode} 1 vn vd",
        _function,
        lanes=_lanes,
        scalars=_scalars,
        operands=_operands,
    )
for _mnemonic, _opcode, _function in (
    ("sqrdmlah", "0000", sqrdmlah),
    ("sqrdmlsh", "0001", sqrdmlsh),
):
    elementwise(
        _mnemonic,
        f"0 q:1 1 01110 size 0 vm 1 {_opcode} 1 vn vd",
        f"01 1 11110 size 0 vm 1 {_opcode} 1 vn vd",
        _function,
        lanes=(16, 32),
        scalars=(16, 32),
        operands="vd vn vm",
    )


# Logical: the size is part of the opcode.


def _logical(
    m: Machine, function: Callable[[Bits, Bits, Bits], Bits], q: int, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Combine bits."""
    size = 128 if q else 64
    m.v[vd, size] = function(m.v[vd, size], m.v[vn, size], m.v[vm, size])


_LOGICAL: Final[tuple[tuple[str, str, Callable[[Bits, Bits, Bits], Bits]], ...]] = (
    ("and", "0 01110 00", lambda d, a, b: a & b),
    ("bic", "0 01110 01", lambda d, a, b: a & ~b),
    ("orr", "0 01110 10", lambda d, a, b: a | b),
    ("orn", "0 01110 11", lambda d, a, b: a | ~b),
    ("eor", "1 01110 00", lambda d, a, b: a ^ b),
    ("bsl", "1 01110 01", lambda d, a, b: b ^ (d & (a ^ b))),
    ("bit", "1 01110 10", lambda d, a, b: d ^ (b & (d ^ a))),
    ("bif", "1 01110 11", lambda d, a, b: d ^ (~b & (d ^ a))),
)
for _mnemonic, _opcode, _combine in _LOGICAL:
    define(
        f"{_mnemonic}_vector",
        f"0 q:1 {_opcode} 1 vm 00011 1 vn vd",
        f"{_mnemonic} {{vd:qb}}, {{vn:qb}}, {{vm:qb}}",
        _logical,
        static="q",
        function=_combine,
    )


# Two registers.


def _cls(m: Machine, a: Lanes) -> Lanes:
    """Count leading copies of the sign."""
    return (a ^ a.sar(1)).clz() - 1


def _sqabs(m: Machine, a: Lanes) -> Lanes:
    """Absolute value, saturating."""
    negative = a.sar(a.lane - 1)
    magnitude = (a ^ negative) - negative
    result = magnitude.umin(maximum(a.lane)) if a.lane < 64 else _limit(magnitude)
    return saturated(m, result, magnitude)


def _limit(magnitude: Lanes) -> Lanes:
    return magnitude.equals(minimum(magnitude.lane)).select(
        magnitude.constant(maximum(magnitude.lane)), magnitude
    )


def _sqneg(m: Machine, a: Lanes) -> Lanes:
    """Negative, saturating."""
    return saturated(m, a.constant(0).ssubs(a), -a)


def _abs(m: Machine, a: Lanes) -> Lanes:
    """Absolute value."""
    negative = a.sar(a.lane - 1)
    return (a ^ negative) - negative


def _suqadd(m: Machine, d: Lanes, a: Lanes) -> Lanes:
    """Add unsigned to signed numbers, saturating."""
    total = d + a
    # It overflows only upwards: where the sum is below what was added to.
    over = total.slt(d)
    result = over.select(d.constant(maximum(d.lane)), total)
    m.qc[0] = m.qc[0] | (over.bits != 0).zext(8)
    return result


def _usqadd(m: Machine, d: Lanes, a: Lanes) -> Lanes:
    """Add signed to unsigned numbers, saturating."""
    total = d + a
    negative = a.slt(0)
    over = ~negative & total.ult(d)
    under = negative & d.ult(total)
    result = over | (total & ~under)
    m.qc[0] = m.qc[0] | ((over | under).bits != 0).zext(8)
    return result


def _one(function: Callable[[Lanes], Lanes], doc: str) -> Callable[..., Lanes]:
    def result(m: Machine, a: Lanes) -> Lanes:
        return function(a)

    result.__doc__ = doc
    return result


_TWO: Final[
    tuple[tuple[str, int, str, Callable[..., Lanes], Sequence[int], Sequence[int], str, str], ...]
] = (
    ("suqadd", 0, "00011", _suqadd, BHSD, BHSD, "vd vn", ""),
    ("usqadd", 1, "00011", _usqadd, BHSD, BHSD, "vd vn", ""),
    ("cls", 0, "00100", _cls, BHS, (), "vn", ""),
    ("clz", 1, "00100", _one(Lanes.clz, "Count leading zeros."), BHS, (), "vn", ""),
    ("cnt", 0, "00101", _one(Lanes.popcount, "Count set bits."), (8,), (), "vn", ""),
    ("not", 1, "00101", _one(lambda a: ~a, "Invert."), (8,), (), "vn", ""),
    ("sqabs", 0, "00111", _sqabs, BHSD, BHSD, "vn", ""),
    ("sqneg", 1, "00111", _sqneg, BHSD, BHSD, "vn", ""),
    (
        "cmgt",
        0,
        "01000",
        _one(lambda a: a.constant(0).slt(a), "Ones where positive."),
        BHSD,
        (64,),
        "vn",
        ", 0",
    ),
    (
        "cmge",
        1,
        "01000",
        _one(lambda a: a.constant(0).sle(a), "Ones where not negative."),
        BHSD,
        (64,),
        "vn",
        ", 0",
    ),
    ("cmeq", 0, "01001", _one(lambda a: a.equals(0), "Ones where zero."), BHSD, (64,), "vn", ", 0"),
    (
        "cmle",
        1,
        "01001",
        _one(lambda a: a.sle(0), "Ones where not positive."),
        BHSD,
        (64,),
        "vn",
        ", 0",
    ),
    (
        "cmlt",
        0,
        "01010",
        _one(lambda a: a.slt(0), "Ones where negative."),
        BHSD,
        (64,),
        "vn",
        ", 0",
    ),
    ("abs", 0, "01011", _abs, BHSD, (64,), "vn", ""),
    ("neg", 1, "01011", _one(lambda a: -a, "Negate."), BHSD, (64,), "vn", ""),
)


def _define_two() -> None:
    for mnemonic, u, opcode, function, lanes, scalars, operands, text in _TWO:
        elementwise(
            mnemonic,
            f"0 q:1 {u} 01110 size 10000 {opcode} 10 vn vd",
            f"01 {u} 11110 size 10000 {opcode} 10 vn vd",
            function,
            lanes=lanes,
            scalars=scalars,
            operands=operands,
            text=text,
        )


def _reversed_bits(m: Machine, q: int, vn: Bits, vd: Bits) -> None:
    """Reverse the bits of each byte."""
    write(m, vd, read(m, vn, 8, 128 if q else 64).bitreverse())


define(
    "rbit_vector",
    "0 q:1 1 01110 01 10000 00101 10 vn vd",
    "rbit {vd:qb}, {vn:qb}",
    _reversed_bits,
    static="q",
)


def _rev(m: Machine, container: int, lane: int, q: int, vn: Bits, vd: Bits) -> None:
    """Reverse the lanes of each container."""
    a = read(m, vn, lane, 128 if q else 64)
    count = container // lane
    write(m, vd, a.pick([index ^ (count - 1) for index in range(a.count)]))


for _container, _u, _opcode in ((64, 0, "00000"), (32, 1, "00000"), (16, 0, "00001")):
    for _number, _lane in enumerate(BHS):
        if _lane < _container:
            define(
                f"rev{_container}_{LETTERS[_lane]}",
                f"0 q:1 {_u} 01110 {_number:02b} 10000 {_opcode} 10 vn vd",
                f"rev{_container} {{vd:q{LETTERS[_lane]}}}, {{vn:q{LETTERS[_lane]}}}",
                _rev,
                static="q",
                container=_container,
                lane=_lane,
            )


# Pairs added into lanes twice as wide.


def pairwise_long(a: Lanes, *, signed: bool) -> Lanes:
    """Sums of neighbours in lanes twice as wide."""
    wide = a.resize(2 * a.lane)
    if signed:
        return (wide << a.lane).sar(a.lane) + wide.sar(a.lane)
    return (wide & (1 << a.lane) - 1) + (wide >> a.lane)


def _addlp(
    m: Machine, signed: bool, accumulate: bool, lane: int, q: int, vn: Bits, vd: Bits
) -> None:
    """Add pairs into lanes twice as wide."""
    size = 128 if q else 64
    result = pairwise_long(read(m, vn, lane, size), signed=signed)
    write(m, vd, read(m, vd, 2 * lane, size) + result if accumulate else result)


for _u, _letter in ((0, "s"), (1, "u")):
    for _name, _opcode, _accumulate in (("addlp", "00010", False), ("adalp", "00110", True)):
        for _number, _lane in enumerate(BHS):
            _from, _to = LETTERS[_lane], LETTERS[2 * _lane]
            define(
                f"{_letter}{_name}_{_from}",
                f"0 q:1 {_u} 01110 {_number:02b} 10000 {_opcode} 10 vn vd",
                f"{_letter}{_name} {{vd:q{_to}}}, {{vn:q{_from}}}",
                _addlp,
                static="q",
                signed=not _u,
                accumulate=_accumulate,
                lane=_lane,
            )


# Narrowing to half, into the lower or (the "2" forms) the upper half of the destination.


def write_half(m: Machine, vd: Bits, q: int, value: Lanes) -> None:
    """Write 64 bits as the upper half, keeping the lower, or as the lower with zeros above."""
    if q:
        m.v[vd] = value.bits.concat(m.v[vd][:64])
    else:
        m.v[vd, 64] = value.bits


def _narrow(
    m: Machine, function: Callable[..., Lanes], lane: int, q: int, vn: Bits, vd: Bits
) -> None:
    """Narrow lanes to their halves."""
    write_half(m, vd, q, function(m, read(m, vn, 2 * lane, 128)))


def _narrow_scalar(
    m: Machine, function: Callable[..., Lanes], lane: int, vn: Bits, vd: Bits
) -> None:
    """Narrow a scalar to its half."""
    write(m, vd, function(m, read(m, vn, 2 * lane, 2 * lane)))


def _xtn(m: Machine, a: Lanes) -> Lanes:
    return a.narrow()


WIDE: Final = {8: "v8h", 16: "v4s", 32: "v2d"}

for _mnemonic, _u, _opcode, _narrowed in (
    ("xtn", 0, "10010", _xtn),
    ("sqxtun", 1, "10010", clamp_to_unsigned),
    ("sqxtn", 0, "10100", clamp),
    ("uqxtn", 1, "10100", clamp_unsigned),
):
    for _number, _lane in enumerate(BHS):
        for _q, _two in ((0, ""), (1, "2")):
            define(
                f"{_mnemonic}{_two}_{LETTERS[_lane]}",
                f"0 {_q} {_u} 01110 {_number:02b} 10000 {_opcode} 10 vn vd",
                f"{_mnemonic}{_two} {{vd:q{LETTERS[_lane]}}}, {{vn:{WIDE[_lane]}}}",
                _narrow,
                function=_narrowed,
                lane=_lane,
                q=_q,
            )
        if _mnemonic != "xtn":
            define(
                f"{_mnemonic}_{LETTERS[_lane]}_scalar",
                f"01 {_u} 11110 {_number:02b} 10000 {_opcode} 10 vn vd",
                f"{_mnemonic} {{vd:{LETTERS[_lane]}}}, {{vn:{LETTERS[2 * _lane]}}}",
                _narrow_scalar,
                function=_narrowed,
                lane=_lane,
            )


def half(m: Machine, register: Bits, lane: int, q: int) -> Lanes:
    """The lower or the upper half of a register."""
    return Lanes(m.v[register].extract(64 * q, 64), lane)


def _shll(m: Machine, lane: int, q: int, vn: Bits, vd: Bits) -> None:
    """Widen, shifted left by the size of a lane."""
    write(m, vd, half(m, vn, lane, q).widen(signed=False) << lane)


for _number, _lane in enumerate(BHS):
    for _q, _two in ((0, ""), (1, "2")):
        define(
            f"shll{_two}_{LETTERS[_lane]}",
            f"0 {_q} 1 01110 {_number:02b} 10000 10011 10 vn vd",
            f"shll{_two} {{vd:{WIDE[_lane]}}}, {{vn:q{LETTERS[_lane]}}}, {_lane}",
            _shll,
            lane=_lane,
            q=_q,
        )


# Across lanes.


def reduce(a: Lanes, function: Callable[[Lanes, Lanes], Lanes]) -> Lanes:
    """Combine all lanes into one, by halves."""
    while a.count > 1:
        middle = a.bits.size // 2
        a = function(Lanes(a.bits[:middle], a.lane), Lanes(a.bits[middle:], a.lane))
    return a


def _across(
    m: Machine, function: Callable[[Lanes, Lanes], Lanes], lane: int, q: int, vn: Bits, vd: Bits
) -> None:
    """Combine all lanes into one."""
    write(m, vd, reduce(read(m, vn, lane, 128 if q else 64), function))


def _addlv(m: Machine, signed: bool, lane: int, q: int, vn: Bits, vd: Bits) -> None:
    """Add all lanes into one twice as wide."""
    total = pairwise_long(read(m, vn, lane, 128 if q else 64), signed=signed)
    write(m, vd, reduce(total, lambda a, b: a + b))


for _number, _lane in enumerate(BHS):
    _width, _static = ("1", "") if _lane == 32 else ("q:1", "q")
    _shape = "v4s" if _lane == 32 else f"q{LETTERS[_lane]}"
    for _mnemonic, _u, _opcode, _combine2 in (
        ("smaxv", 0, "01010", Lanes.smax),
        ("umaxv", 1, "01010", Lanes.umax),
        ("sminv", 0, "11010", Lanes.smin),
        ("uminv", 1, "11010", Lanes.umin),
        ("addv", 0, "11011", Lanes.__add__),
    ):
        define(
            f"{_mnemonic}_{LETTERS[_lane]}",
            f"0 {_width} {_u} 01110 {_number:02b} 11000 {_opcode} 10 vn vd",
            f"{_mnemonic} {{vd:{LETTERS[_lane]}}}, {{vn:{_shape}}}",
            _across,
            static=_static,
            function=_combine2,
            lane=_lane,
            **full(_lane == 32),
        )
    for _mnemonic, _u in (("saddlv", 0), ("uaddlv", 1)):
        define(
            f"{_mnemonic}_{LETTERS[_lane]}",
            f"0 {_width} {_u} 01110 {_number:02b} 11000 00011 10 vn vd",
            f"{_mnemonic} {{vd:{LETTERS[2 * _lane]}}}, {{vn:{_shape}}}",
            _addlv,
            static=_static,
            signed=not _u,
            lane=_lane,
            **full(_lane == 32),
        )


def _addp_scalar(m: Machine, vn: Bits, vd: Bits) -> None:
    """Add the two doublewords."""
    m.v[vd, 64] = m.v[vn][:64] + m.v[vn][64:]


define("addp_d_scalar", "01 0 11110 11 11000 11011 10 vn vd", "addp {vd:d}, {vn:v2d}", _addp_scalar)


# Three of different widths.


def _long(
    m: Machine,
    function: Callable[..., Lanes],
    signed: bool,
    lane: int,
    q: int,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Combine lanes of half the width into wide ones."""
    a = half(m, vn, lane, q).widen(signed=signed)
    b = half(m, vm, lane, q).widen(signed=signed)
    write(m, vd, function(m, read(m, vd, 2 * lane, 128), a, b))


def _wide(
    m: Machine,
    function: Callable[..., Lanes],
    signed: bool,
    lane: int,
    q: int,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Combine wide lanes with lanes of half the width."""
    write(m, vd, function(read(m, vn, 2 * lane, 128), half(m, vm, lane, q).widen(signed=signed)))


def _high(
    m: Machine, subtract: bool, rounding: bool, lane: int, q: int, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """The upper halves of sums or differences."""
    a, b = read(m, vn, 2 * lane, 128), read(m, vm, 2 * lane, 128)
    result = a - b if subtract else a + b
    if rounding:
        result = result + (1 << lane - 1)
    write_half(m, vd, q, (result >> lane).narrow())


def absolute_difference(a: Lanes, b: Lanes, *, signed: bool) -> Lanes:
    """Of lanes that were widened."""
    return a.smax(b) - a.smin(b) if signed else a.umax(b) - a.umin(b)


def doubled(m: Machine, product: Lanes) -> Lanes:
    """Twice a product of signed halves, saturating."""
    return saturated(m, product.sadds(product), product + product)


def sqdmlal(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Accumulate twice the product, saturating."""
    product = a * b
    twice = product.sadds(product)
    return _noted(m, product, d.sadds(twice), d + twice)


def sqdmlsl(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Subtract twice the product, saturating."""
    product = a * b
    twice = product.sadds(product)
    return _noted(m, product, d.ssubs(twice), d - twice)


def _noted(m: Machine, product: Lanes, result: Lanes, exact: Lanes) -> Lanes:
    """Note where doubling the product or the sum after it has saturated."""
    first = product.sadds(product).any_differs(product + product)
    m.qc[0] = m.qc[0] | (first | result.any_differs(exact)).zext(8)
    return result


def _difference(signed: bool, accumulate: bool) -> Callable[..., Lanes]:
    def result(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
        difference = absolute_difference(a, b, signed=signed)
        return d + difference if accumulate else difference

    return result


LONG: Final[tuple[tuple[str, int, str, Callable[..., Lanes]], ...]] = tuple(
    row
    for u, letter in ((0, "s"), (1, "u"))
    for row in (
        (f"{letter}addl", u, "0000", lambda m, d, a, b: a + b),
        (f"{letter}subl", u, "0010", lambda m, d, a, b: a - b),
        (f"{letter}abal", u, "0101", _difference(not u, True)),
        (f"{letter}abdl", u, "0111", _difference(not u, False)),
        (f"{letter}mlal", u, "1000", lambda m, d, a, b: d + a * b),
        (f"{letter}mlsl", u, "1010", lambda m, d, a, b: d - a * b),
        (f"{letter}mull", u, "1100", lambda m, d, a, b: a * b),
    )
)
SATURATING_LONG: Final[tuple[tuple[str, int, str, Callable[..., Lanes]], ...]] = (
    ("sqdmlal", 0, "1001", sqdmlal),
    ("sqdmlsl", 0, "1011", sqdmlsl),
    ("sqdmull", 0, "1101", lambda m, d, a, b: doubled(m, a * b)),
)

for _rows, _sizes in ((LONG, BHS), (SATURATING_LONG, (16, 32))):
    for _mnemonic, _u, _opcode, _function in _rows:
        for _lane in _sizes:
            _letter, _number = LETTERS[_lane], BHS.index(_lane)
            for _q, _two in ((0, ""), (1, "2")):
                define(
                    f"{_mnemonic}{_two}_{_letter}",
                    f"0 {_q} {_u} 01110 {_number:02b} 1 vm {_opcode} 00 vn vd",
                    f"{_mnemonic}{_two} {{vd:{WIDE[_lane]}}}, {{vn:q{_letter}}}, {{vm:q{_letter}}}",
                    _long,
                    function=_function,
                    signed=not _u,
                    lane=_lane,
                    q=_q,
                )

for _lane in BHS:
    _letter, _number, _shape = LETTERS[_lane], BHS.index(_lane), WIDE[_lane]
    for _q, _two in ((0, ""), (1, "2")):
        for _u, _sign in ((0, "s"), (1, "u")):
            for _name, _opcode, _plain2 in (
                ("addw", "0001", Lanes.__add__),
                ("subw", "0011", Lanes.__sub__),
            ):
                define(
                    f"{_sign}{_name}{_two}_{_letter}",
                    f"0 {_q} {_u} 01110 {_number:02b} 1 vm {_opcode} 00 vn vd",
                    f"{_sign}{_name}{_two} {{vd:{_shape}}}, {{vn:{_shape}}}, {{vm:q{_letter}}}",
                    _wide,
                    function=_plain2,
                    signed=not _u,
                    lane=_lane,
                    q=_q,
                )
        for _name, _u, _opcode in (
            ("addhn", 0, "0100"),
            ("raddhn", 1, "0100"),
            ("subhn", 0, "0110"),
            ("rsubhn", 1, "0110"),
        ):
            define(
                f"{_name}{_two}_{_letter}",
                f"0 {_q} {_u} 01110 {_number:02b} 1 vm {_opcode} 00 vn vd",
                f"{_name}{_two} {{vd:q{_letter}}}, {{vn:{WIDE[_lane]}}}, {{vm:{WIDE[_lane]}}}",
                _high,
                subtract="sub" in _name,
                rounding=bool(_u),
                lane=_lane,
                q=_q,
            )


def _pmull(m: Machine, lane: int, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply polynomials into lanes twice as wide."""
    a, b = half(m, vn, lane, q), half(m, vm, lane, q)
    if lane == 64:
        m.v[vd] = a.bits.clmul(b.bits)
        return
    wide, other = a.widen(signed=False), b.widen(signed=False)
    result = wide.constant(0)
    for bit in range(8):
        result = result ^ (wide << bit & -(other >> bit & 1))
    write(m, vd, result)


for _q, _two in ((0, ""), (1, "2")):
    for _lane, _size, _to, _from in ((8, "00", "v8h", "qb"), (64, "11", "v1q", "qd")):
        define(
            f"pmull{_two}_{LETTERS[_lane]}",
            f"0 {_q} 0 01110 {_size} 1 vm 1110 00 vn vd",
            f"pmull{_two} {{vd:{_to}}}, {{vn:{_from}}}, {{vm:{_from}}}",
            _pmull,
            lane=_lane,
            q=_q,
        )


def _long_scalar(
    m: Machine, function: Callable[..., Lanes], lane: int, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Combine scalars into one twice as wide."""
    a = read(m, vn, lane, lane).widen(signed=True)
    b = read(m, vm, lane, lane).widen(signed=True)
    write(m, vd, function(m, read(m, vd, 2 * lane, 2 * lane), a, b))


for _mnemonic, _u, _opcode, _function in SATURATING_LONG:
    for _lane in (16, 32):
        _letter, _number = LETTERS[_lane], BHS.index(_lane)
        define(
            f"{_mnemonic}_{_letter}_scalar",
            f"01 0 11110 {_number:02b} 1 vm {_opcode} 00 vn vd",
            f"{_mnemonic} {{vd:{LETTERS[2 * _lane]}}}, {{vn:{_letter}}}, {{vm:{_letter}}}",
            _long_scalar,
            function=_function,
            lane=_lane,
        )

_define_two()
