"""Dot products and matrix products (FEAT_DotProd, FEAT_I8MM, FEAT_BF16; Arm DDI 0487, C4.1.96)."""

from __future__ import annotations

from anyarch.guests.aarch64.simd import define, read, write
from anyarch.ir.bits import Bits, join
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine


def _dot(d: Lanes, a: Lanes, b: Lanes, signed_a: bool, signed_b: bool) -> Lanes:
    """Add the products of each four bytes to a word: sums of pairs, twice."""
    products = a.widen(signed=signed_a) * b.widen(signed=signed_b)
    signed = signed_a or signed_b
    wide = products.widen(signed=signed)
    even = wide.pick(range(0, wide.count, 2)) + wide.pick(range(1, wide.count, 2))
    return d + even.pick(range(0, even.count, 2)) + even.pick(range(1, even.count, 2))


def _dot_vector(
    m: Machine, signed_a: bool, signed_b: bool, q: int, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Add dot products of four bytes to words."""
    size = 128 if q else 64
    d, a, b = read(m, vd, 32, size), read(m, vn, 8, size), read(m, vm, 8, size)
    write(m, vd, _dot(d, a, b, signed_a, signed_b))


def _dot_element(
    m: Machine, signed_a: bool, signed_b: bool, q: int, i: Bits, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Add dot products with one element of four bytes to words."""
    size = 128 if q else 64
    d, a = read(m, vd, 32, size), read(m, vn, 8, size)
    b = d.splat(read(m, vm, 32, 128).element(i)).resize(8)
    write(m, vd, _dot(d, a, b, signed_a, signed_b))


for _mnemonic, _u, _opcode, _signed_a, _signed_b in (
    ("sdot", 0, "0010", True, True),
    ("udot", 1, "0010", False, False),
    ("usdot", 0, "0011", False, True),
):
    define(
        f"{_mnemonic}_vector",
        f"0 q:1 {_u} 01110 10 0 vm 1 {_opcode} 1 vn vd",
        f"{_mnemonic} {{vd:qs}}, {{vn:qb}}, {{vm:qb}}",
        _dot_vector,
        static="q",
        signed_a=_signed_a,
        signed_b=_signed_b,
    )
for _mnemonic, _u, _size, _opcode, _signed_a, _signed_b in (
    ("sdot", 0, "10", "1110", True, True),
    ("udot", 1, "10", "1110", False, False),
    ("usdot", 0, "10", "1111", False, True),
    ("sudot", 0, "00", "1111", True, False),
):
    define(
        f"{_mnemonic}_element",
        f"0 q:1 {_u} 01111 {_size} i[0] vm:5 {_opcode} i[1] 0 vn vd",
        f"{_mnemonic} {{vd:qs}}, {{vn:qb}}, {{vm:e4b}}{{i:index}}",
        _dot_element,
        static="q",
        signed_a=_signed_a,
        signed_b=_signed_b,
    )


def _matrix(m: Machine, signed_a: bool, signed_b: bool, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply a matrix of 2 by 8 bytes with one of 8 by 2, and add."""
    d, a, b = m.v[vd].lanes(32), m.v[vn].lanes(64), m.v[vm].lanes(64)
    words = []
    for index in range(4):
        row, column = a[index >> 1], b[index & 1]
        total = _dot(
            Lanes(d[index].zext(64), 32), Lanes(row, 8), Lanes(column, 8), signed_a, signed_b
        )
        words.append(total[0] + total[1])
    m.v[vd] = join(words)


for _mnemonic, _u, _opcode, _signed_a, _signed_b in (
    ("smmla", 0, "0100", True, True),
    ("ummla", 1, "0100", False, False),
    ("usmmla", 0, "0101", False, True),
):
    define(
        _mnemonic,
        f"0 1 {_u} 01110 10 0 vm 1 {_opcode} 1 vn vd",
        f"{_mnemonic} {{vd:v4s}}, {{vn:v16b}}, {{vm:v16b}}",
        _matrix,
        signed_a=_signed_a,
        signed_b=_signed_b,
    )


# BFloat16.


def _bfdot(m: Machine, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Add dot products of two BFloat16 numbers."""
    size = 128 if q else 64
    d, a, b = (read(m, each, 32, size) for each in (vd, vn, vm))
    write(m, vd, Lanes(join([m.fp.bf16_dot(a[i], b[i], d[i]) for i in range(d.count)]), 32))


def _bfdot_element(m: Machine, q: int, i: Bits, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Add dot products with one element of two BFloat16 numbers."""
    size = 128 if q else 64
    d, a = read(m, vd, 32, size), read(m, vn, 32, size)
    b = read(m, vm, 32, 128).element(i)
    write(m, vd, Lanes(join([m.fp.bf16_dot(a[k], b, d[k]) for k in range(d.count)]), 32))


def _bfmmla(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply matrices of BFloat16 numbers, and add."""
    d, a, b = (m.v[each].lanes(32) for each in (vd, vn, vm))
    words = []
    for index in range(4):
        row, column = 2 * (index >> 1), 2 * (index & 1)
        total = m.fp.bf16_dot(a[row], b[column], d[index])
        words.append(m.fp.bf16_dot(a[row + 1], b[column + 1], total))
    m.v[vd] = join(words)


def _bfmlal(m: Machine, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply the even (b) or odd (t) BFloat16 numbers, and add in single precision."""
    a, b = (_upper(read(m, each, 32, 128), q) for each in (vn, vm))
    _add_products(m, vd, a, b)


def _bfmlal_element(m: Machine, q: int, i: Bits, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply the even (b) or odd (t) BFloat16 numbers by one element, and add."""
    a = _upper(read(m, vn, 32, 128), q)
    b = read(m, vm, 16, 128).element(i).zext(32) << 16
    _add_products(m, vd, a, [b] * 4)


def _upper(words: Lanes, q: int) -> list[Bits]:
    """The upper or the lower halves of words, as single precision numbers."""
    lanes = words.bits.lanes(32)
    return [lane & 0xFFFF0000 if q else lane << 16 for lane in lanes]


def _add_products(m: Machine, vd: Bits, a: list[Bits], b: list[Bits]) -> None:
    d = m.v[vd].lanes(32)
    m.v[vd] = join([m.fp.fma("f32", a[i], b[i], d[i], "dynamic") for i in range(4)])


define(
    "bfdot_vector",
    "0 q:1 1 01110 01 0 vm 1 1111 1 vn vd",
    "bfdot {vd:qs}, {vn:qh}, {vm:qh}",
    _bfdot,
    static="q",
)
define(
    "bfdot_element",
    "0 q:1 0 01111 01 i[0] vm:5 1111 i[1] 0 vn vd",
    "bfdot {vd:qs}, {vn:qh}, {vm:e2h}{i:index}",
    _bfdot_element,
    static="q",
)
define(
    "bfmmla", "0 1 1 01110 01 0 vm 1 1101 1 vn vd", "bfmmla {vd:v4s}, {vn:v8h}, {vm:v8h}", _bfmmla
)
for _q, _letter in ((0, "b"), (1, "t")):
    define(
        f"bfmlal{_letter}",
        f"0 {_q} 1 01110 11 0 vm 1 1111 1 vn vd",
        f"bfmlal{_letter} {{vd:v4s}}, {{vn:v8h}}, {{vm:v8h}}",
        _bfmlal,
        q=_q,
    )
    define(
        f"bfmlal{_letter}_element",
        f"0 {_q} 0 01111 11 i[1:0] vm:4 1111 i[2] 0 vn vd",
        f"bfmlal{_letter} {{vd:v4s}}, {{vn:v8h}}, {{vm:eh}}{{i:index}}",
        _bfmlal_element,
        q=_q,
    )
