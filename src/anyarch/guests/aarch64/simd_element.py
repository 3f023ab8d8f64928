"""Advanced SIMD by one element of the second operand (Arm DDI 0487, C4.1.96), integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.guests.aarch64.simd import LETTERS, define, read, write
from anyarch.guests.aarch64.simd_integer import (
    LONG,
    SATURATING_LONG,
    WIDE,
    half,
    mla,
    mls,
    mul,
    sqdmulh,
    sqrdmlah,
    sqrdmlsh,
    sqrdmulh,
)
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine

# size, L, M, Rm, and the other rows' H: halfwords are of the lower 16 registers.
ELEMENT: Final = {
    16: "01 i[1:0] vm:4 {} i[2]",
    32: "10 i[0] vm:5 {} i[1]",
}


def _same(
    m: Machine,
    function: Callable[..., Lanes],
    lane: int,
    q: int,
    i: Bits,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Combine all lanes with one element."""
    size = 128 if q else 64
    a = read(m, vn, lane, size)
    b = a.splat(read(m, vm, lane, 128).element(i))
    write(m, vd, function(m, read(m, vd, lane, size), a, b))


def _scalar(
    m: Machine, function: Callable[..., Lanes], lane: int, i: Bits, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Combine a scalar with one element."""
    b = Lanes(read(m, vm, lane, 128).element(i), lane)
    write(m, vd, function(m, read(m, vd, lane, lane), read(m, vn, lane, lane), b))


def _long(
    m: Machine,
    function: Callable[..., Lanes],
    signed: bool,
    lane: int,
    q: int,
    i: Bits,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    """Combine lanes with one element into lanes twice as wide."""
    a = half(m, vn, lane, q)
    b = a.splat(read(m, vm, lane, 128).element(i))
    d = read(m, vd, 2 * lane, 128)
    write(m, vd, function(m, d, a.widen(signed=signed), b.widen(signed=signed)))


def _long_scalar(
    m: Machine, function: Callable[..., Lanes], lane: int, i: Bits, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Combine a scalar with one element into one twice as wide."""
    a = read(m, vn, lane, lane).widen(signed=True)
    b = Lanes(read(m, vm, lane, 128).element(i), lane).widen(signed=True)
    write(m, vd, function(m, read(m, vd, 2 * lane, 2 * lane), a, b))


def _without(function: Callable[..., Lanes]) -> Callable[..., Lanes]:
    def result(m: Machine, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
        return function(m, a, b)

    return result


_SAME: Final[tuple[tuple[str, int, str, Callable[..., Lanes], bool], ...]] = (
    ("mla", 1, "0000", mla, False),
    ("mls", 1, "0100", mls, False),
    ("mul", 0, "1000", _without(mul), False),
    ("sqdmulh", 0, "1100", _without(sqdmulh), True),
    ("sqrdmulh", 0, "1101", _without(sqrdmulh), True),
    ("sqrdmlah", 1, "1101", sqrdmlah, True),
    ("sqrdmlsh", 1, "1111", sqrdmlsh, True),
)
for _lane, _element in ELEMENT.items():
    _letter = LETTERS[_lane]
    _by = f"{{vm:e{_letter}}}{{i:index}}"
    for _mnemonic, _u, _opcode, _function, _has_scalar in _SAME:
        _row = _element.format(_opcode)
        define(
            f"{_mnemonic}_{_letter}_element",
            f"0 q:1 {_u} 01111 {_row} 0 vn vd",
            f"{_mnemonic} {{vd:q{_letter}}}, {{vn:q{_letter}}}, {_by}",
            _same,
            static="q",
            function=_function,
            lane=_lane,
        )
        if _has_scalar:
            define(
                f"{_mnemonic}_{_letter}_scalar_element",
                f"01 {_u} 11111 {_row} 0 vn vd",
                f"{_mnemonic} {{vd:{_letter}}}, {{vn:{_letter}}}, {_by}",
                _scalar,
                function=_function,
                lane=_lane,
            )
    _by_name = {
        _mnemonic: (_u, _function) for _mnemonic, _u, _, _function in (*LONG, *SATURATING_LONG)
    }
    for _mnemonic, _opcode in (
        ("smlal", "0010"),
        ("umlal", "0010"),
        ("sqdmlal", "0011"),
        ("smlsl", "0110"),
        ("umlsl", "0110"),
        ("sqdmlsl", "0111"),
        ("smull", "1010"),
        ("umull", "1010"),
        ("sqdmull", "1011"),
    ):
        _u, _function = _by_name[_mnemonic]
        _row = _element.format(_opcode)
        for _q, _two in ((0, ""), (1, "2")):
            define(
                f"{_mnemonic}{_two}_{_letter}_element",
                f"0 {_q} {_u} 01111 {_row} 0 vn vd",
                f"{_mnemonic}{_two} {{vd:{WIDE[_lane]}}}, {{vn:q{_letter}}}, {_by}",
                _long,
                function=_function,
                signed=not _u,
                lane=_lane,
                q=_q,
            )
        if _mnemonic.startswith("sq"):
            define(
                f"{_mnemonic}_{_letter}_scalar_element",
                f"01 {_u} 11111 {_row} 0 vn vd",
                f"{_mnemonic} {{vd:{LETTERS[2 * _lane]}}}, {{vn:{_letter}}}, {_by}",
                _long_scalar,
                function=_function,
                lane=_lane,
            )
