"""Advanced SIMD moves: copies, immediates, permutations, tables, extraction.

Arm DDI 0487, C4.1.96: "copy", "modified immediate", "permute", "table lookup", "extract".
"""

from __future__ import annotations

from typing import Final

from anyarch.guests.aarch64.floats import DOUBLE, HALF, SINGLE, Format, expand_immediate
from anyarch.guests.aarch64.simd import LETTERS, SIZE_BITS, arrangement, define, full, read, write
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes, lookup, splat
from anyarch.isa.machine import Machine

# imm5: the lowest set bit tells the lanes' size, what is above it the index.
INDEX: Final = {8: "i:4 1", 16: "i:3 10", 32: "i:2 100", 64: "i:1 1000"}
ANY: Final = {8: "any4:4 1", 16: "any3:3 10", 32: "any2:2 100", 64: "any1:1 1000"}


def _dup_element(m: Machine, lane: int, q: int, i: Bits, vn: Bits, vd: Bits) -> None:
    """Copy an element to all lanes."""
    write(m, vd, splat(read(m, vn, lane, 128).element(i), (128 if q else 64) // lane))


def _dup_scalar(m: Machine, lane: int, i: Bits, vn: Bits, vd: Bits) -> None:
    """Copy an element to a scalar."""
    m.v[vd, lane] = read(m, vn, lane, 128).element(i)


def _dup_general(m: Machine, lane: int, q: int, rn: Bits, vd: Bits) -> None:
    """Copy a general register to all lanes."""
    write(m, vd, splat(m.x[rn, lane], (128 if q else 64) // lane))


def _mov(m: Machine, lane: int, size: int, signed: bool, i: Bits, vn: Bits, rd: Bits) -> None:
    """Copy an element to a general register."""
    value = read(m, vn, lane, 128).element(i)
    m.x[rd, size] = value.sext(size) if signed else value.zext(size)


def _ins_general(m: Machine, lane: int, i: Bits, rn: Bits, vd: Bits) -> None:
    """Replace an element by a general register."""
    write(m, vd, read(m, vd, lane, 128).insert(i, m.x[rn, lane]))


def _ins_element(m: Machine, lane: int, i: Bits, j: Bits, vn: Bits, vd: Bits) -> None:
    """Replace an element by another."""
    value = read(m, vn, lane, 128).element(j)
    write(m, vd, read(m, vd, lane, 128).insert(i, value))


for _lane, _letter in LETTERS.items():
    _q, _static = ("1", "") if _lane == 64 else ("q:1", "q")
    _shape = arrangement(_lane)
    define(
        f"dup_{_letter}_element",
        f"0 {_q} 0 01110000 {INDEX[_lane]} 0 0000 1 vn vd",
        f"dup {{vd:{_shape}}}, {{vn:e{_letter}}}{{i:index}}",
        _dup_element,
        static=_static,
        lane=_lane,
        **full(_lane == 64),
    )
    define(
        f"dup_{_letter}_scalar",
        f"01 0 11110000 {INDEX[_lane]} 0 0000 1 vn vd",
        f"dup {{vd:{_letter}}}, {{vn:e{_letter}}}{{i:index}}",
        _dup_scalar,
        lane=_lane,
    )
    define(
        f"dup_{_letter}_general",
        f"0 {_q} 0 01110000 {ANY[_lane]} 0 0001 1 rn vd",
        f"dup {{vd:{_shape}}}, {{rn:{'x' if _lane == 64 else 'w'}}}",
        _dup_general,
        static=_static,
        lane=_lane,
        **full(_lane == 64),
    )
    for _mnemonic, _op, _size, _signed in (
        ("smov", "0101", 32, True),
        ("smov", "0101", 64, True),
        ("umov", "0111", 32, False),
        ("umov", "0111", 64, False),
    ):
        if (_signed and _lane >= _size) or (not _signed and (_lane == 64) != (_size == 64)):
            continue
        define(
            f"{_mnemonic}_{_letter}_{_size}",
            f"0 {_size // 64} 0 01110000 {INDEX[_lane]} 0 {_op} 1 vn rd",
            f"{_mnemonic} {{rd:{'x' if _size == 64 else 'w'}}}, {{vn:e{_letter}}}{{i:index}}",
            _mov,
            lane=_lane,
            size=_size,
            signed=_signed,
        )
    define(
        f"ins_{_letter}_general",
        f"0 1 0 01110000 {INDEX[_lane]} 0 0011 1 rn vd",
        f"ins {{vd:e{_letter}}}{{i:index}}, {{rn:{'x' if _lane == 64 else 'w'}}}",
        _ins_general,
        lane=_lane,
    )
    _low = _lane.bit_length() - 4
    _second = f"j:{4 - _low}" + (f" any{_low}:{_low}" if _low else "")
    define(
        f"ins_{_letter}_element",
        f"0 1 1 01110000 {INDEX[_lane]} 0 {_second} 1 vn vd",
        f"ins {{vd:e{_letter}}}{{i:index}}, {{vn:e{_letter}}}{{j:index}}",
        _ins_element,
        lane=_lane,
    )


# Immediates: imm8 is abc:defgh.


def _byte(imm: Bits) -> Bits:
    return imm.zext(64)


def repeated(value: Bits, lane: int) -> Bits:
    """64 bits of a lane repeated."""
    return value * sum(1 << at for at in range(0, 64, lane))


def _immediate(imm: Bits, cmode: int, op: int) -> Bits:
    """AdvSIMDExpandImm, without the inversion that MVNI and BIC do."""
    value = _byte(imm)
    match cmode >> 1:
        case 0 | 1 | 2 | 3:
            return repeated(value << 8 * (cmode >> 1), 32)
        case 4 | 5:
            return repeated(value << 8 * (cmode >> 1 & 1), 16)
        case 6:
            ones = 0xFFFF if cmode & 1 else 0xFF
            return repeated(value << (16 if cmode & 1 else 8) | ones, 32)
    if not cmode & 1 and not op:
        return repeated(value, 8)
    if not cmode & 1:
        bits = value.constant(0, 64)
        for bit in range(8):
            bits = bits | (value >> bit & 1) * (0xFF << 8 * bit)
        return bits
    if op:
        return expand_immediate(DOUBLE, imm)
    return repeated(expand_immediate(SINGLE, imm).zext(64), 32)


def _write_immediate(m: Machine, vd: Bits, q: int, value: Bits) -> None:
    if q:
        m.v[vd] = value.concat(value)
    else:
        m.v[vd, 64] = value


def _movi(m: Machine, cmode: int, op: int, invert: bool, q: int, imm8: Bits, vd: Bits) -> None:
    """Move an immediate to all lanes."""
    value = _immediate(imm8, cmode, op)
    _write_immediate(m, vd, q, ~value if invert else value)


def _orr(m: Machine, cmode: int, op: int, invert: bool, q: int, imm8: Bits, vd: Bits) -> None:
    """Set (orr) or clear (bic) the bits of an immediate."""
    value = _immediate(imm8, cmode, op)
    wide = value.concat(value) if q else value
    old = m.v[vd, wide.size]
    m.v[vd, wide.size] = old & ~wide if invert else old | wide


def _fmov(m: Machine, f: Format, q: int, imm8: Bits, vd: Bits) -> None:
    """Move a floating-point immediate to all lanes."""
    value = expand_immediate(f, imm8).zext(64)
    _write_immediate(m, vd, q, repeated(value, f.size))


for _cmode in range(16):
    for _bit in (0, 1):
        _row = f"0 q:1 {_bit} 0111100000 imm8[7:5] {_cmode:04b} 01 imm8[4:0] vd"
        _shift = 8 * (_cmode >> 1 & 3)
        _suffix = f", lsl {_shift}" if _shift else ""
        if _cmode < 8:
            _name, _letter = ("orr", "bic")[_bit] if _cmode & 1 else ("movi", "mvni")[_bit], "s"
        elif _cmode < 12:
            _name, _letter = ("orr", "bic")[_bit] if _cmode & 1 else ("movi", "mvni")[_bit], "h"
            _shift = 8 * (_cmode >> 1 & 1)
            _suffix = f", lsl {_shift}" if _shift else ""
        elif _cmode < 14:
            _name, _letter, _suffix = (
                ("movi", "mvni")[_bit],
                "s",
                f", msl {16 if _cmode & 1 else 8}",
            )
        elif _cmode == 14 and not _bit:
            _name, _letter, _suffix = "movi", "b", ""
        else:
            continue
        define(
            f"{_name}_{_cmode}_{_letter}",
            _row,
            f"{_name} {{vd:q{_letter}}}, {{imm8:hex}}{_suffix}",
            _orr if _name in ("orr", "bic") else _movi,
            static="q",
            cmode=_cmode,
            op=_bit,
            invert=bool(_bit),
        )

_ROW: Final = "0111100000 imm8[7:5] {} 01 imm8[4:0] vd"
define(
    "movi_d_scalar",
    "0 0 1 " + _ROW.format("1110"),
    "movi {vd:d}, {imm8:bytemask}",
    _movi,
    cmode=14,
    op=1,
    invert=False,
    q=0,
)
define(
    "movi_d_vector",
    "0 1 1 " + _ROW.format("1110"),
    "movi {vd:v2d}, {imm8:bytemask}",
    _movi,
    cmode=14,
    op=1,
    invert=False,
    q=1,
)
define(
    "fmov_s_vector",
    "0 q:1 0 " + _ROW.format("1111"),
    "fmov {vd:qs}, {imm8:fpimm}",
    _fmov,
    static="q",
    f=SINGLE,
)
define(
    "fmov_d_vector",
    "0 1 1 " + _ROW.format("1111"),
    "fmov {vd:v2d}, {imm8:fpimm}",
    _fmov,
    f=DOUBLE,
    q=1,
)
define(
    "fmov_h_vector",
    "0 q:1 0 0111100000 imm8[7:5] 1111 11 imm8[4:0] vd",
    "fmov {vd:qh}, {imm8:fpimm}",
    _fmov,
    static="q",
    f=HALF,
)


# Permutations.


def _permute(m: Machine, kind: str, lane: int, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Interleave or separate lanes."""
    size = 128 if q else 64
    a, b = read(m, vn, lane, size), read(m, vm, lane, size)
    part, count = int(kind[3]) - 1, a.count
    if kind.startswith("uzp"):
        indices = list(range(part, 2 * count, 2))
    elif kind.startswith("zip"):
        start = part * count // 2
        indices = [i for at in range(start, start + count // 2) for i in (at, count + at)]
    else:
        indices = [i for at in range(part, count, 2) for i in (at, count + at)]
    write(m, vd, a.shuffle(b, indices))


for _kind, _opcode in (
    ("uzp1", "001"),
    ("trn1", "010"),
    ("zip1", "011"),
    ("uzp2", "101"),
    ("trn2", "110"),
    ("zip2", "111"),
):
    for _lane, _letter in LETTERS.items():
        _q, _static = ("1", "") if _lane == 64 else ("q:1", "q")
        _shape = arrangement(_lane)
        define(
            f"{_kind}_{_letter}",
            f"0 {_q} 001110 {SIZE_BITS[_lane]} 0 vm 0 {_opcode} 10 vn vd",
            f"{_kind} {{vd:{_shape}}}, {{vn:{_shape}}}, {{vm:{_shape}}}",
            _permute,
            static=_static,
            kind=_kind,
            lane=_lane,
            **full(_lane == 64),
        )


def _ext(m: Machine, q: int, imm4: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Extract from a pair of vectors."""
    size = 128 if q else 64
    a, b = read(m, vn, 8, size), read(m, vm, 8, size)
    write(m, vd, a.shuffle(b, range(imm4, imm4 + a.count)))


define(
    "ext_8b",
    "0 0 101110 00 0 vm 0 0 imm4:3 0 vn vd",
    "ext {vd:v8b}, {vn:v8b}, {vm:v8b}, {imm4}",
    _ext,
    static="imm4",
    q=0,
)
define(
    "ext_16b",
    "0 1 101110 00 0 vm 0 imm4:4 0 vn vd",
    "ext {vd:v16b}, {vn:v16b}, {vm:v16b}, {imm4}",
    _ext,
    static="imm4",
    q=1,
)


def _table(m: Machine, count: int, keep: bool, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Look bytes up in one to four registers; out of range zero (tbl) or the old byte (tbx)."""
    size = 128 if q else 64
    indices = read(m, vm, 8, size)
    result = indices.constant(0)
    for number in range(count):
        found = lookup(m.v[(vn + number) & 31], (indices - 16 * number).bits)
        result = result | Lanes(found, 8)
    if keep:
        inside = indices.ult(16 * count)
        result = inside.select(result, read(m, vd, 8, size))
    write(m, vd, result)


for _mnemonic, _keep in (("tbl", 0), ("tbx", 1)):
    for _count in range(1, 5):
        define(
            f"{_mnemonic}_{_count}",
            f"0 q:1 001110 000 vm 0 {_count - 1:02b} {_keep} 00 vn vd",
            f"{_mnemonic} {{vd:qb}}, {{vn:list{_count}_16b}}, {{vm:qb}}",
            _table,
            static="q",
            count=_count,
            keep=bool(_keep),
        )
