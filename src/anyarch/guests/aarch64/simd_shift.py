"""Advanced SIMD shifts by an immediate (Arm DDI 0487, C4.1.96, "shift by immediate", and scalar).

The place of the highest set bit in immh is the lanes' size: a row for each size. Right shifts are
by the size to one, left shifts by zero to the size less one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.guests.aarch64.simd import LETTERS, arrangement, define, full, read, write
from anyarch.guests.aarch64.simd_integer import (
    BHS,
    BHSD,
    WIDE,
    clamp,
    clamp_to_unsigned,
    clamp_unsigned,
    half,
    saturate_left,
    write_half,
)
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine

# immh:immb above the amount.
ROW: Final = {8: "0001 amount:3", 16: "001 amount:4", 32: "01 amount:5", 64: "1 amount:6"}

Shift = Callable[[Machine, Lanes, Lanes, Bits], Lanes]  # machine, destination, source, amount


def _right(amount: Bits, lane: int) -> Bits:
    """The amount of a right shift, as wide as a lane."""
    return amount.constant(lane, lane) - amount.zext(lane)


def _left(amount: Bits, lane: int) -> Bits:
    return amount.zext(lane)


def round_sar(a: Lanes, n: Bits) -> Lanes:
    """Shift right, rounding, signed."""
    return a.sar(n) + (a.sar(n - 1) & 1)


def round_shr(a: Lanes, n: Bits) -> Lanes:
    """Shift right, rounding, unsigned."""
    return (a >> n) + (a >> n - 1 & 1)


def _sri(m: Machine, d: Lanes, a: Lanes, n: Bits) -> Lanes:
    """Shift right and insert."""
    kept = ~(a.constant(-1) >> n)
    return (a >> n) | (d & kept)


def _sli(m: Machine, d: Lanes, a: Lanes, n: Bits) -> Lanes:
    """Shift left and insert."""
    kept = ~(a.constant(-1) << n)
    return (a << n) | (d & kept)


def _sqshl(m: Machine, d: Lanes, a: Lanes, n: Bits) -> Lanes:
    """Shift left, saturating, signed."""
    return saturate_left(m, a, a.splat(n), a, signed=True)


def _uqshl(m: Machine, d: Lanes, a: Lanes, n: Bits) -> Lanes:
    """Shift left, saturating, unsigned."""
    return saturate_left(m, a, a.splat(n), a, signed=False)


def _sqshlu(m: Machine, d: Lanes, a: Lanes, n: Bits) -> Lanes:
    """Shift signed numbers left to unsigned ones, saturating."""
    left = a << n
    negative = a.slt(0)
    fits = (left >> n).equals(a) & ~negative
    m.qc[0] = m.qc[0] | (fits.bits != -1).zext(8)
    return fits.select(left, ~negative)


# Mnemonic, U, opcode, function, whether it shifts right, lanes of vectors, of scalars.
_SAME: Final[tuple[tuple[str, int, str, Shift, bool, tuple[int, ...]], ...]] = (
    ("sshr", 0, "00000", lambda m, d, a, n: a.sar(n), True, (64,)),
    ("ushr", 1, "00000", lambda m, d, a, n: a >> n, True, (64,)),
    ("ssra", 0, "00010", lambda m, d, a, n: d + a.sar(n), True, (64,)),
    ("usra", 1, "00010", lambda m, d, a, n: d + (a >> n), True, (64,)),
    ("srshr", 0, "00100", lambda m, d, a, n: round_sar(a, n), True, (64,)),
    ("urshr", 1, "00100", lambda m, d, a, n: round_shr(a, n), True, (64,)),
    ("srsra", 0, "00110", lambda m, d, a, n: d + round_sar(a, n), True, (64,)),
    ("ursra", 1, "00110", lambda m, d, a, n: d + round_shr(a, n), True, (64,)),
    ("sri", 1, "01000", _sri, True, (64,)),
    ("shl", 0, "01010", lambda m, d, a, n: a << n, False, (64,)),
    ("sli", 1, "01010", _sli, False, (64,)),
    ("sqshlu", 1, "01100", _sqshlu, False, BHSD),
    ("sqshl", 0, "01110", _sqshl, False, BHSD),
    ("uqshl", 1, "01110", _uqshl, False, BHSD),
)


def _vector(
    m: Machine, function: Shift, right: bool, lane: int, q: int, amount: Bits, vn: Bits, vd: Bits
) -> None:
    """Shift all lanes by an immediate."""
    size = 128 if q else 64
    n = _right(amount, lane) if right else _left(amount, lane)
    write(m, vd, function(m, read(m, vd, lane, size), read(m, vn, lane, size), n))


def _scalar(
    m: Machine, function: Shift, right: bool, lane: int, amount: Bits, vn: Bits, vd: Bits
) -> None:
    """Shift a scalar by an immediate."""
    n = _right(amount, lane) if right else _left(amount, lane)
    write(m, vd, function(m, read(m, vd, lane, lane), read(m, vn, lane, lane), n))


for _mnemonic, _u, _opcode, _function, _is_right, _scalars in _SAME:
    _shown = f"{{amount:{'right' if _is_right else 'left'}}}"
    for _lane in BHSD:
        _letter, _shape = LETTERS[_lane], arrangement(_lane)
        define(
            f"{_mnemonic}_immediate_{_letter}_vector",
            f"0 {'1' if _lane == 64 else 'q:1'} {_u} 011110 {ROW[_lane]} {_opcode} 1 vn vd",
            f"{_mnemonic} {{vd:{_shape}}}, {{vn:{_shape}}}, {_shown}",
            _vector,
            static="" if _lane == 64 else "q",
            function=_function,
            right=_is_right,
            lane=_lane,
            **full(_lane == 64),
        )
        if _lane in _scalars:
            define(
                f"{_mnemonic}_immediate_{_letter}_scalar",
                f"01 {_u} 111110 {ROW[_lane]} {_opcode} 1 vn vd",
                f"{_mnemonic} {{vd:{_letter}}}, {{vn:{_letter}}}, {_shown}",
                _scalar,
                function=_function,
                right=_is_right,
                lane=_lane,
            )


# Narrowing.


def _narrow(
    m: Machine,
    narrowed: Callable[..., Lanes],
    shift: Callable[[Lanes, Bits], Lanes],
    lane: int,
    q: int,
    amount: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Shift right and narrow."""
    n = amount.constant(lane, 2 * lane) - amount.zext(2 * lane)
    write_half(m, vd, q, narrowed(m, shift(read(m, vn, 2 * lane, 128), n)))


def _narrow_scalar(
    m: Machine,
    narrowed: Callable[..., Lanes],
    shift: Callable[[Lanes, Bits], Lanes],
    lane: int,
    amount: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Shift a scalar right and narrow it."""
    n = amount.constant(lane, 2 * lane) - amount.zext(2 * lane)
    write(m, vd, narrowed(m, shift(read(m, vn, 2 * lane, 2 * lane), n)))


def _halves(m: Machine, wide: Lanes) -> Lanes:
    return wide.narrow()


def _shr(a: Lanes, n: Bits) -> Lanes:
    return a >> n


_NARROWING: Final = (
    ("shrn", 0, "10000", _halves, _shr),
    ("rshrn", 0, "10001", _halves, round_shr),
    ("sqshrn", 0, "10010", clamp, Lanes.sar),
    ("sqrshrn", 0, "10011", clamp, round_sar),
    ("sqshrun", 1, "10000", clamp_to_unsigned, Lanes.sar),
    ("sqrshrun", 1, "10001", clamp_to_unsigned, round_sar),
    ("uqshrn", 1, "10010", clamp_unsigned, _shr),
    ("uqrshrn", 1, "10011", clamp_unsigned, round_shr),
)
for _mnemonic, _u, _opcode, _narrowed, _shift in _NARROWING:
    for _lane in BHS:
        _letter = LETTERS[_lane]
        for _q, _two in ((0, ""), (1, "2")):
            define(
                f"{_mnemonic}{_two}_{_letter}",
                f"0 {_q} {_u} 011110 {ROW[_lane]} {_opcode} 1 vn vd",
                f"{_mnemonic}{_two} {{vd:q{_letter}}}, {{vn:{WIDE[_lane]}}}, {{amount:right}}",
                _narrow,
                narrowed=_narrowed,
                shift=_shift,
                lane=_lane,
                q=_q,
            )
        if "q" in _mnemonic:
            define(
                f"{_mnemonic}_{_letter}_scalar",
                f"01 {_u} 111110 {ROW[_lane]} {_opcode} 1 vn vd",
                f"{_mnemonic} {{vd:{_letter}}}, {{vn:{LETTERS[2 * _lane]}}}, {{amount:right}}",
                _narrow_scalar,
                narrowed=_narrowed,
                shift=_shift,
                lane=_lane,
            )


# Widening.


def _widen(m: Machine, signed: bool, lane: int, q: int, amount: Bits, vn: Bits, vd: Bits) -> None:
    """Widen and shift left."""
    write(m, vd, half(m, vn, lane, q).widen(signed=signed) << amount.zext(2 * lane))


for _u, _sign in ((0, "s"), (1, "u")):
    for _lane in BHS:
        _letter = LETTERS[_lane]
        for _q, _two in ((0, ""), (1, "2")):
            define(
                f"{_sign}shll{_two}_{LETTERS[_lane]}",
                f"0 {_q} {_u} 011110 {ROW[_lane]} 10100 1 vn vd",
                f"{_sign}shll{_two} {{vd:{WIDE[_lane]}}}, {{vn:q{_letter}}}, {{amount:left}}",
                _widen,
                signed=not _u,
                lane=_lane,
                q=_q,
            )
