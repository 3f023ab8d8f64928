"""Scalar floating point (Arm DDI 0487, C4.1.96)."""

from __future__ import annotations

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.guests.aarch64.floats import (
    AWAY,
    DOUBLE,
    DOWN,
    FORMATS,
    HALF,
    NEAREST,
    SINGLE,
    UP,
    ZERO,
    Format,
    compared,
    expand_immediate,
    scalar,
)
from anyarch.guests.aarch64.integers import holds, set_flags
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine, Rounding, when

# One source.


@scalar("00011110 ftype 1 000000 10000 vn vd", "fmov {vd:f}, {vn:f}")
def fmov_register(m: Machine, f: Format, vn: Bits, vd: Bits) -> None:
    """Move."""
    m.v[vd, f.size] = m.v[vn, f.size]


@scalar("00011110 ftype 1 000001 10000 vn vd", "fabs {vd:f}, {vn:f}")
def fabs(m: Machine, f: Format, vn: Bits, vd: Bits) -> None:
    """Clear the sign."""
    m.v[vd, f.size] = f.absolute(m.v[vn, f.size])


@scalar("00011110 ftype 1 000010 10000 vn vd", "fneg {vd:f}, {vn:f}")
def fneg(m: Machine, f: Format, vn: Bits, vd: Bits) -> None:
    """Invert the sign."""
    m.v[vd, f.size] = f.negate(m.v[vn, f.size])


@scalar("00011110 ftype 1 000011 10000 vn vd", "fsqrt {vd:f}, {vn:f}")
def fsqrt(m: Machine, f: Format, vn: Bits, vd: Bits) -> None:
    """Square root."""
    m.v[vd, f.size] = m.fp.sqrt(f.name, m.v[vn, f.size], "dynamic")


def _fcvt(m: Machine, source: Format, target: Format, vn: Bits, vd: Bits) -> None:
    """Convert between formats."""
    value = m.fp.convert(source.name, target.name, m.v[vn, source.size], "dynamic")
    m.v[vd, target.size] = value


for _source in FORMATS:
    for _target in FORMATS:
        if _source is not _target:
            _name = f"fcvt_{_target.letter}_{_source.letter}"
            insn(
                f"00011110 {_source.ftype} 1 0001 {_target.ftype} 10000 vn vd",
                f"fcvt {{vd:{_target.letter}}}, {{vn:{_source.letter}}}",
                name=_name,
            )(bind(_fcvt, _name, __name__, source=_source, target=_target))


@insn("00011110 01 1 000110 10000 vn vd", "bfcvt {vd:h}, {vn:s}")
def bfcvt(m: Machine, vn: Bits, vd: Bits) -> None:
    """Convert to BFloat16."""
    m.v[vd, 16] = m.fp.convert("f32", "bf16", m.v[vn, 32], "dynamic")


def _frint(m: Machine, f: Format, rounding: Rounding, exact: bool, vn: Bits, vd: Bits) -> None:
    """Round to an integral value."""
    m.v[vd, f.size] = m.fp.round(f.name, m.v[vn, f.size], rounding, exact=exact)


def _frint_size(m: Machine, f: Format, size: int, rounding: Rounding, vn: Bits, vd: Bits) -> None:
    """Round to an integral value that a 32-bit or 64-bit integer has."""
    m.v[vd, f.size] = m.fp.round_to_size(f.name, m.v[vn, f.size], size, rounding)


ROUNDINGS: tuple[tuple[str, str, Rounding], ...] = (
    ("n", "000", NEAREST),
    ("p", "001", UP),
    ("m", "010", DOWN),
    ("z", "011", ZERO),
    ("a", "100", AWAY),
    ("x", "110", "dynamic"),
    ("i", "111", "dynamic"),
)
for _letter, _bits, _mode in ROUNDINGS:
    scalar(
        f"00011110 ftype 1 001 {_bits} 10000 vn vd",
        f"frint{_letter} {{vd:f}}, {{vn:f}}",
        name=f"frint{_letter}",
        extension=__name__,
    )(bind(_frint, "frint", __name__, rounding=_mode, exact=_letter == "x"))
for _number, (_size, _letter) in enumerate(((32, "z"), (32, "x"), (64, "z"), (64, "x"))):
    scalar(
        f"00011110 ftype 1 0100 {_number:02b} 10000 vn vd",
        f"frint{_size}{_letter} {{vd:f}}, {{vn:f}}",
        name=f"frint{_size}{_letter}",
        formats=(SINGLE, DOUBLE),
        extension=__name__,
    )(
        bind(
            _frint_size,
            "frint",
            __name__,
            size=_size,
            rounding=ZERO if _letter == "z" else "dynamic",
        )
    )


# Two sources.


@scalar("00011110 ftype 1 vm 0000 10 vn vd", "fmul {vd:f}, {vn:f}, {vm:f}")
def fmul(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply."""
    m.v[vd, f.size] = m.fp.mul(f.name, m.v[vn, f.size], m.v[vm, f.size], "dynamic")


@scalar("00011110 ftype 1 vm 0001 10 vn vd", "fdiv {vd:f}, {vn:f}, {vm:f}")
def fdiv(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Divide."""
    m.v[vd, f.size] = m.fp.div(f.name, m.v[vn, f.size], m.v[vm, f.size], "dynamic")


@scalar("00011110 ftype 1 vm 0010 10 vn vd", "fadd {vd:f}, {vn:f}, {vm:f}")
def fadd(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Add."""
    m.v[vd, f.size] = m.fp.add(f.name, m.v[vn, f.size], m.v[vm, f.size], "dynamic")


@scalar("00011110 ftype 1 vm 0011 10 vn vd", "fsub {vd:f}, {vn:f}, {vm:f}")
def fsub(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Subtract."""
    m.v[vd, f.size] = m.fp.sub(f.name, m.v[vn, f.size], m.v[vm, f.size], "dynamic")


@scalar("00011110 ftype 1 vm 0100 10 vn vd", "fmax {vd:f}, {vn:f}, {vm:f}")
def fmax(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """The larger; a NaN rather than a number."""
    m.v[vd, f.size] = m.fp.max(f.name, m.v[vn, f.size], m.v[vm, f.size])


@scalar("00011110 ftype 1 vm 0101 10 vn vd", "fmin {vd:f}, {vn:f}, {vm:f}")
def fmin(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """The smaller; a NaN rather than a number."""
    m.v[vd, f.size] = m.fp.min(f.name, m.v[vn, f.size], m.v[vm, f.size])


@scalar("00011110 ftype 1 vm 0110 10 vn vd", "fmaxnm {vd:f}, {vn:f}, {vm:f}")
def fmaxnm(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """The larger; a number rather than a quiet NaN."""
    m.v[vd, f.size] = m.fp.max_number(f.name, m.v[vn, f.size], m.v[vm, f.size])


@scalar("00011110 ftype 1 vm 0111 10 vn vd", "fminnm {vd:f}, {vn:f}, {vm:f}")
def fminnm(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """The smaller; a number rather than a quiet NaN."""
    m.v[vd, f.size] = m.fp.min_number(f.name, m.v[vn, f.size], m.v[vm, f.size])


@scalar("00011110 ftype 1 vm 1000 10 vn vd", "fnmul {vd:f}, {vn:f}, {vm:f}")
def fnmul(m: Machine, f: Format, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply and negate."""
    product = m.fp.mul(f.name, m.v[vn, f.size], m.v[vm, f.size], "dynamic")
    m.v[vd, f.size] = f.negate(product)


# Three sources.


@scalar("00011111 ftype 0 vm 0 va vn vd", "fmadd {vd:f}, {vn:f}, {vm:f}, {va:f}")
def fmadd(m: Machine, f: Format, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply and add, rounding once."""
    a, b, c = m.v[vn, f.size], m.v[vm, f.size], m.v[va, f.size]
    m.v[vd, f.size] = m.fp.fma(f.name, a, b, c, "dynamic")


@scalar("00011111 ftype 0 vm 1 va vn vd", "fmsub {vd:f}, {vn:f}, {vm:f}, {va:f}")
def fmsub(m: Machine, f: Format, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply and subtract from the addend, rounding once."""
    a, b, c = f.negate(m.v[vn, f.size]), m.v[vm, f.size], m.v[va, f.size]
    m.v[vd, f.size] = m.fp.fma(f.name, a, b, c, "dynamic")


@scalar("00011111 ftype 1 vm 0 va vn vd", "fnmadd {vd:f}, {vn:f}, {vm:f}, {va:f}")
def fnmadd(m: Machine, f: Format, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply and add, negated, rounding once."""
    a, b, c = f.negate(m.v[vn, f.size]), m.v[vm, f.size], f.negate(m.v[va, f.size])
    m.v[vd, f.size] = m.fp.fma(f.name, a, b, c, "dynamic")


@scalar("00011111 ftype 1 vm 1 va vn vd", "fnmsub {vd:f}, {vn:f}, {vm:f}, {va:f}")
def fnmsub(m: Machine, f: Format, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply and subtract the addend, rounding once."""
    a, b, c = m.v[vn, f.size], m.v[vm, f.size], f.negate(m.v[va, f.size])
    m.v[vd, f.size] = m.fp.fma(f.name, a, b, c, "dynamic")


# Comparisons and selection.


@scalar("00011110 ftype 1 vm 00 1000 vn 00000", "fcmp {vn:f}, {vm:f}")
def fcmp(m: Machine, f: Format, vm: Bits, vn: Bits) -> None:
    """Compare; quiet NaNs are valid."""
    set_flags(m, *compared(m, f, m.v[vn, f.size], m.v[vm, f.size], signaling=False))


@scalar("00011110 ftype 1 zeros 00 1000 vn 01000", "fcmp {vn:f}, 0.0")
def fcmp_zero(m: Machine, f: Format, zeros: Bits, vn: Bits) -> None:
    """Compare with zero; quiet NaNs are valid."""
    a = m.v[vn, f.size]
    set_flags(m, *compared(m, f, a, a.constant(0, f.size), signaling=False))


@scalar("00011110 ftype 1 vm 00 1000 vn 10000", "fcmpe {vn:f}, {vm:f}")
def fcmpe(m: Machine, f: Format, vm: Bits, vn: Bits) -> None:
    """Compare; NaNs are invalid."""
    set_flags(m, *compared(m, f, m.v[vn, f.size], m.v[vm, f.size], signaling=True))


@scalar("00011110 ftype 1 zeros 00 1000 vn 11000", "fcmpe {vn:f}, 0.0")
def fcmpe_zero(m: Machine, f: Format, zeros: Bits, vn: Bits) -> None:
    """Compare with zero; NaNs are invalid."""
    a = m.v[vn, f.size]
    set_flags(m, *compared(m, f, a, a.constant(0, f.size), signaling=True))


def _fccmp(
    m: Machine, f: Format, signaling: bool, vm: Bits, cond: int, vn: Bits, nzcv: Bits
) -> None:
    """Compare where the condition holds."""
    condition = holds(m, cond)
    a, b = m.v[vn, f.size], m.v[vm, f.size]
    with when(condition):
        flags = compared(m, f, a, b, signaling=signaling)
    fixed = [nzcv[bit] for bit in (3, 2, 1, 0)]
    set_flags(m, *(condition.select(x, y) for x, y in zip(flags, fixed, strict=True)))


for _mnemonic, _op in (("fccmp", 0), ("fccmpe", 1)):
    scalar(
        f"00011110 ftype 1 vm cond 01 vn {_op} nzcv",
        f"{_mnemonic} {{vn:f}}, {{vm:f}}, {{nzcv}}, {{cond}}",
        static="cond",
        name=_mnemonic,
        extension=__name__,
    )(bind(_fccmp, _mnemonic, __name__, signaling=bool(_op)))


@scalar("00011110 ftype 1 vm cond 11 vn vd", "fcsel {vd:f}, {vn:f}, {vm:f}, {cond}", static="cond")
def fcsel(m: Machine, f: Format, vm: Bits, cond: int, vn: Bits, vd: Bits) -> None:
    """Select."""
    m.v[vd, f.size] = holds(m, cond).select(m.v[vn, f.size], m.v[vm, f.size])


@scalar("00011110 ftype 1 imm8 100 00000 vd", "fmov {vd:f}, {imm8:fpimm}")
def fmov_immediate(m: Machine, f: Format, imm8: Bits, vd: Bits) -> None:
    """Move an immediate."""
    m.v[vd, f.size] = expand_immediate(f, imm8)


# Integers.


def _to_integer(
    m: Machine, f: Format, size: int, signed: bool, rounding: Rounding, vn: Bits, rd: Bits
) -> None:
    """Convert to an integer."""
    m.x[rd, size] = m.fp.to_int(f.name, m.v[vn, f.size], size, signed, rounding)


def _from_integer(m: Machine, f: Format, size: int, signed: bool, rn: Bits, vd: Bits) -> None:
    """Convert from an integer."""
    m.v[vd, f.size] = m.fp.from_int(f.name, m.x[rn, size], signed, "dynamic")


def _to_fixed(
    m: Machine, f: Format, size: int, signed: bool, scale: Bits, vn: Bits, rd: Bits
) -> None:
    """Convert to a fixed-point number."""
    fraction_bits = (1 << scale.size) - scale.zext(8)
    m.x[rd, size] = m.fp.to_fixed(f.name, m.v[vn, f.size], fraction_bits, size, signed, ZERO)


def _from_fixed(
    m: Machine, f: Format, size: int, signed: bool, scale: Bits, rn: Bits, vd: Bits
) -> None:
    """Convert from a fixed-point number."""
    fraction_bits = (1 << scale.size) - scale.zext(8)
    m.v[vd, f.size] = m.fp.from_fixed(f.name, m.x[rn, size], fraction_bits, signed, "dynamic")


for _size in (32, 64):
    _sf = f"{_size // 64} 00 11110 ftype"
    _scale = "scale:6" if _size == 64 else "1 scale:5"
    for _signed, _u in ((True, "s"), (False, "u")):
        _bit = int(not _signed)
        for _mnemonic, _rmode, _opcode, _mode in (
            ("fcvtn", "00", "00", NEAREST),
            ("fcvtp", "01", "00", UP),
            ("fcvtm", "10", "00", DOWN),
            ("fcvtz", "11", "00", ZERO),
            ("fcvta", "00", "10", AWAY),
        ):
            scalar(
                f"{_sf} 1 {_rmode} {_opcode}{_bit} 000000 vn rd",
                f"{_mnemonic}{_u} {{rd}}, {{vn:f}}",
                name=f"{_mnemonic}{_u}_{_size}",
                extension=__name__,
            )(bind(_to_integer, _mnemonic, __name__, size=_size, signed=_signed, rounding=_mode))
        scalar(
            f"{_sf} 1 00 01{_bit} 000000 rn vd",
            f"{_u}cvtf {{vd:f}}, {{rn}}",
            name=f"{_u}cvtf_{_size}",
            extension=__name__,
        )(bind(_from_integer, "cvtf", __name__, size=_size, signed=_signed))
        scalar(
            f"{_sf} 0 11 00{_bit} {_scale} vn rd",
            f"fcvtz{_u} {{rd}}, {{vn:f}}, {{scale:fbits}}",
            name=f"fcvtz{_u}_fixed_{_size}",
            extension=__name__,
        )(bind(_to_fixed, "fcvtz", __name__, size=_size, signed=_signed))
        scalar(
            f"{_sf} 0 00 01{_bit} {_scale} rn vd",
            f"{_u}cvtf {{vd:f}}, {{rn}}, {{scale:fbits}}",
            name=f"{_u}cvtf_fixed_{_size}",
            extension=__name__,
        )(bind(_from_fixed, "cvtf", __name__, size=_size, signed=_signed))


def _fmov_to(m: Machine, f: Format, size: int, vn: Bits, rd: Bits) -> None:
    """Move the bits to a general register."""
    m.x[rd, size] = m.v[vn, f.size].zext(size)


def _fmov_from(m: Machine, f: Format, size: int, rn: Bits, vd: Bits) -> None:
    """Move the bits from a general register."""
    m.v[vd, f.size] = m.x[rn, f.size]


for _fmt, _size in ((SINGLE, 32), (DOUBLE, 64), (HALF, 32), (HALF, 64)):
    for _direction, _fields, _text, _function in (
        ("0", "vn rd", "{rd}, {vn:f}", _fmov_to),
        ("1", "rn vd", "{vd:f}, {rn}", _fmov_from),
    ):
        scalar(
            f"{_size // 64} 00 11110 ftype 1 00 11{_direction} 000000 {_fields}",
            f"fmov {_text}",
            formats=(_fmt,),
            name=f"fmov{_direction}_{_size}",
            extension=__name__,
        )(bind(_function, "fmov", __name__, size=_size))


@insn("1 00 11110 10 1 01 110 000000 vn rd", "fmov {rd:x}, {vn:d1}")
def fmov_from_top(m: Machine, vn: Bits, rd: Bits) -> None:
    """Move from the upper half."""
    m.x[rd] = m.v[vn][64:]


@insn("1 00 11110 10 1 01 111 000000 rn vd", "fmov {vd:d1}, {rn:x}")
def fmov_to_top(m: Machine, rn: Bits, vd: Bits) -> None:
    """Move into the upper half."""
    m.v[vd] = m.x[rn].concat(m.v[vd][:64])


@insn("0 00 11110 01 1 11 110 000000 vn rd", "fjcvtzs {rd:w}, {vn:d}")
def fjcvtzs(m: Machine, vn: Bits, rd: Bits) -> None:
    """Convert as JavaScript does, modulo 2**32; Z where that was exact."""
    value = m.v[vn, 64]
    result = m.fp.to_int_modular("f64", value, 32)
    m.x[rd, 32] = result
    back = m.fp.from_int("f64", result, True, NEAREST)
    set_flags(m, 0, back == value, 0, 0)
