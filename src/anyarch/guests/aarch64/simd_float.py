"""Advanced SIMD floating point, vectors and scalars (Arm DDI 0487, C4.1.96).

Half precision has rows of its own, with the same opcode in another place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from anyarch.guests.aarch64.floats import (
    AWAY,
    DOUBLE,
    DOWN,
    HALF,
    NEAREST,
    ODD,
    SINGLE,
    UP,
    ZERO,
    Format,
)
from anyarch.guests.aarch64.simd import define, full, named, read, write
from anyarch.guests.aarch64.simd_integer import half, pairs, write_half
from anyarch.ir.bits import Bits, join
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine, Rounding

# What is done on elements, one or all lanes at once: machine, format, operands.
Element = Callable[..., Bits]
SHAPES: Final = {SINGLE: "qs", DOUBLE: "v2d", HALF: "qh"}


def each(m: Machine, f: Format, function: Element, *operands: Lanes) -> Lanes:
    """Apply a function to all lanes."""
    return Lanes(function(m, f, *(operand.bits for operand in operands)), f.size)


def _vectors(
    m: Machine, function: Element, f: Format, q: int, names: Sequence[str], **fields: Bits
) -> None:
    size = 128 if q else 64
    values = [read(m, fields[name], f.size, size) for name in names]
    write(m, fields["vd"], each(m, f, function, *values))


def _scalars(
    m: Machine, function: Element, f: Format, names: Sequence[str], **fields: Bits
) -> None:
    values = [read(m, fields[name], f.size, f.size) for name in names]
    write(m, fields["vd"], each(m, f, function, *values))


def _pairwise(
    m: Machine, function: Element, f: Format, q: int, names: Sequence[str], **fields: Bits
) -> None:
    size = 128 if q else 64
    a, b = (read(m, fields[name], f.size, size) for name in ("vn", "vm"))
    write(m, fields["vd"], each(m, f, function, *pairs(a, b)))


def _define(
    mnemonic: str,
    rows: dict[Format, str],
    scalar_rows: dict[Format, str],
    function: Element,
    names: str,
    body: Callable[..., None] = _vectors,
    text: str = "",
    suffix: str = "",
) -> None:
    """Define for vectors and scalars, for the formats that have rows."""
    for f, row in rows.items():
        registers = [name for name in ("vd", "vn", "vm") if name in row.split()]
        shown = ", ".join(f"{{{name}:{SHAPES[f]}}}" for name in registers)
        fixed = full(f is DOUBLE)
        define(
            f"{mnemonic}{suffix}_{f.letter}_vector",
            row.replace("q:1", "1") if f is DOUBLE else row,
            f"{mnemonic} {shown}{text}",
            named(body, function),
            static="" if f is DOUBLE else "q",
            function=function,
            f=f,
            names=names.split(),
            **fixed,
        )
    for f, row in scalar_rows.items():
        registers = [name for name in ("vd", "vn", "vm") if name in row.split()]
        shown = ", ".join(f"{{{name}:{f.letter}}}" for name in registers)
        define(
            f"{mnemonic}{suffix}_{f.letter}_scalar",
            row,
            f"{mnemonic} {shown}{text}",
            named(_scalars, function),
            function=function,
            f=f,
            names=names.split(),
        )


# Three of the same kind.


def _binary(method: str, *, rounded: bool = True) -> Element:
    def result(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
        operation = getattr(m.fp, method)
        value: Bits = operation(f.name, a, b, "dynamic") if rounded else operation(f.name, a, b)
        return value

    result.__doc__ = f"{method.replace('_', ' ').capitalize()} of each lane."
    return result


def fmla(m: Machine, f: Format, d: Bits, a: Bits, b: Bits) -> Bits:
    """Multiply and add, rounding once."""
    return m.fp.fma(f.name, a, b, d, "dynamic")


def fmls(m: Machine, f: Format, d: Bits, a: Bits, b: Bits) -> Bits:
    """Multiply and subtract, rounding once."""
    return m.fp.fma(f.name, f.negate(a), b, d, "dynamic")


def _mask(f: Format, condition: Bits) -> Bits:
    return condition.sext(f.size) if condition.size == 1 else condition


def _fcmeq(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Ones where equal."""
    return _mask(f, m.fp.eq(f.name, a, b))


def _fcmge(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Ones where greater or equal."""
    return _mask(f, m.fp.le(f.name, b, a))


def _fcmgt(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Ones where greater."""
    return _mask(f, m.fp.lt(f.name, b, a))


def _facge(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Ones where greater or equal in magnitude."""
    return _fcmge(m, f, f.absolute(a), f.absolute(b))


def _facgt(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Ones where greater in magnitude."""
    return _fcmgt(m, f, f.absolute(a), f.absolute(b))


def _fabd(m: Machine, f: Format, a: Bits, b: Bits) -> Bits:
    """Absolute difference."""
    return f.absolute(m.fp.sub(f.name, a, b, "dynamic"))


fmul, fmulx = _binary("mul"), _binary("mul_extended")
fadd = _binary("add")
fmaxnm, fminnm = _binary("max_number", rounded=False), _binary("min_number", rounded=False)
fmax, fmin = _binary("max", rounded=False), _binary("min", rounded=False)

# Mnemonic, U, bit 23, opcode behind "11", function, operands, whether scalars have it.
_THREE: Final[tuple[tuple[str, int, int, str, Element, str, bool], ...]] = (
    ("fmaxnm", 0, 0, "000", fmaxnm, "vn vm", False),
    ("fmla", 0, 0, "001", fmla, "vd vn vm", False),
    ("fadd", 0, 0, "010", fadd, "vn vm", False),
    ("fmulx", 0, 0, "011", fmulx, "vn vm", True),
    ("fcmeq", 0, 0, "100", _fcmeq, "vn vm", True),
    ("fmax", 0, 0, "110", fmax, "vn vm", False),
    ("frecps", 0, 0, "111", _binary("reciprocal_step"), "vn vm", True),
    ("fminnm", 0, 1, "000", fminnm, "vn vm", False),
    ("fmls", 0, 1, "001", fmls, "vd vn vm", False),
    ("fsub", 0, 1, "010", _binary("sub"), "vn vm", False),
    ("fmin", 0, 1, "110", fmin, "vn vm", False),
    ("frsqrts", 0, 1, "111", _binary("root_step"), "vn vm", True),
    ("fmul", 1, 0, "011", fmul, "vn vm", False),
    ("fcmge", 1, 0, "100", _fcmge, "vn vm", True),
    ("facge", 1, 0, "101", _facge, "vn vm", True),
    ("fdiv", 1, 0, "111", _binary("div"), "vn vm", False),
    ("fabd", 1, 1, "010", _fabd, "vn vm", True),
    ("fcmgt", 1, 1, "100", _fcmgt, "vn vm", True),
    ("facgt", 1, 1, "101", _facgt, "vn vm", True),
)
_PAIRWISE: Final[tuple[tuple[str, int, str, Element], ...]] = (
    ("fmaxnmp", 0, "000", fmaxnm),
    ("faddp", 0, "010", fadd),
    ("fmaxp", 0, "110", fmax),
    ("fminnmp", 1, "000", fminnm),
    ("fminp", 1, "110", fmin),
)


def _three_rows(prefix: str, u: int, a: int, opcode: str) -> dict[Format, str]:
    return {
        SINGLE: f"{prefix} {a}0 1 vm 11{opcode} 1 vn vd".replace("U", str(u)),
        DOUBLE: f"{prefix} {a}1 1 vm 11{opcode} 1 vn vd".replace("U", str(u)),
        HALF: f"{prefix} {a}1 0 vm 00{opcode} 1 vn vd".replace("U", str(u)),
    }


for _mnemonic, _u, _a, _opcode, _function, _names, _has_scalar in _THREE:
    _define(
        _mnemonic,
        _three_rows("0 q:1 U 01110", _u, _a, _opcode),
        _three_rows("01 U 11110", _u, _a, _opcode) if _has_scalar else {},
        _function,
        _names,
    )
for _mnemonic, _a, _opcode, _function in _PAIRWISE:
    _define(
        _mnemonic, _three_rows("0 q:1 U 01110", 1, _a, _opcode), {}, _function, "vn vm", _pairwise
    )


def _pair_scalar(m: Machine, function: Element, f: Format, vn: Bits, vd: Bits) -> None:
    """Combine the two lanes."""
    a = read(m, vn, f.size, 2 * f.size)
    m.v[vd, f.size] = function(m, f, a[0], a[1])


for _mnemonic, _a, _opcode, _function in _PAIRWISE:
    _opcode = {"000": "01100", "010": "01101", "110": "01111"}[_opcode]
    for _f, _bits, _shape in (
        (SINGLE, f"1 11110 {_a}0", "v2s"),
        (DOUBLE, f"1 11110 {_a}1", "v2d"),
        (HALF, f"0 11110 {_a}0", "v2h"),
    ):
        define(
            f"{_mnemonic}_{_f.letter}_scalar",
            f"01 {_bits} 11000 {_opcode} 10 vn vd",
            f"{_mnemonic} {{vd:{_f.letter}}}, {{vn:{_shape}}}",
            _pair_scalar,
            function=_function,
            f=_f,
        )


# Two registers.


def _unary(function: Callable[[Machine, Format, Bits], Bits], doc: str) -> Element:
    def result(m: Machine, f: Format, a: Bits) -> Bits:
        return function(m, f, a)

    result.__doc__ = doc
    return result


def _rounded(rounding: Rounding, *, exact: bool = False) -> Element:
    return _unary(
        lambda m, f, a: m.fp.round(f.name, a, rounding, exact=exact), "Round to integral values."
    )


def _to_int(signed: bool, rounding: Rounding) -> Element:
    return _unary(
        lambda m, f, a: m.fp.to_int(f.name, a, a.size, signed, rounding), "Convert to integers."
    )


def _from_int(signed: bool) -> Element:
    return _unary(
        lambda m, f, a: m.fp.from_int(f.name, a, signed, "dynamic", a.size // f.size),
        "Convert from integers.",
    )


def _with_zero(function: Element, *, swap: bool = False) -> Element:
    def result(m: Machine, f: Format, a: Bits) -> Bits:
        zero = a.constant(0, a.size)
        return function(m, f, zero, a) if swap else function(m, f, a, zero)

    result.__doc__ = function.__doc__
    return result


# Mnemonic, U, bit 23, opcode, function, scalars, text.
_TWO: Final[tuple[tuple[str, int, int, str, Element, bool, str], ...]] = (
    ("frintn", 0, 0, "11000", _rounded(NEAREST), False, ""),
    ("frintm", 0, 0, "11001", _rounded(DOWN), False, ""),
    ("fcvtns", 0, 0, "11010", _to_int(True, NEAREST), True, ""),
    ("fcvtms", 0, 0, "11011", _to_int(True, DOWN), True, ""),
    ("fcvtas", 0, 0, "11100", _to_int(True, AWAY), True, ""),
    ("scvtf", 0, 0, "11101", _from_int(True), True, ""),
    ("fcmgt", 0, 1, "01100", _with_zero(_fcmgt), True, ", 0.0"),
    ("fcmeq", 0, 1, "01101", _with_zero(_fcmeq), True, ", 0.0"),
    ("fcmlt", 0, 1, "01110", _with_zero(_fcmgt, swap=True), True, ", 0.0"),
    ("fabs", 0, 1, "01111", _unary(lambda m, f, a: f.absolute(a), "Clear the signs."), False, ""),
    ("frintp", 0, 1, "11000", _rounded(UP), False, ""),
    ("frintz", 0, 1, "11001", _rounded(ZERO), False, ""),
    ("fcvtps", 0, 1, "11010", _to_int(True, UP), True, ""),
    ("fcvtzs", 0, 1, "11011", _to_int(True, ZERO), True, ""),
    (
        "frecpe",
        0,
        1,
        "11101",
        _unary(
            lambda m, f, a: m.fp.reciprocal_estimate(f.name, a, "dynamic"), "Estimate reciprocals."
        ),
        True,
        "",
    ),
    ("frinta", 1, 0, "11000", _rounded(AWAY), False, ""),
    ("frintx", 1, 0, "11001", _rounded("dynamic", exact=True), False, ""),
    ("fcvtnu", 1, 0, "11010", _to_int(False, NEAREST), True, ""),
    ("fcvtmu", 1, 0, "11011", _to_int(False, DOWN), True, ""),
    ("fcvtau", 1, 0, "11100", _to_int(False, AWAY), True, ""),
    ("ucvtf", 1, 0, "11101", _from_int(False), True, ""),
    ("fcmge", 1, 1, "01100", _with_zero(_fcmge), True, ", 0.0"),
    ("fcmle", 1, 1, "01101", _with_zero(_fcmge, swap=True), True, ", 0.0"),
    ("fneg", 1, 1, "01111", _unary(lambda m, f, a: f.negate(a), "Invert the signs."), False, ""),
    ("frinti", 1, 1, "11001", _rounded("dynamic"), False, ""),
    ("fcvtpu", 1, 1, "11010", _to_int(False, UP), True, ""),
    ("fcvtzu", 1, 1, "11011", _to_int(False, ZERO), True, ""),
    (
        "frsqrte",
        1,
        1,
        "11101",
        _unary(lambda m, f, a: m.fp.root_estimate(f.name, a), "Estimate reciprocal square roots."),
        True,
        "",
    ),
    (
        "fsqrt",
        1,
        1,
        "11111",
        _unary(lambda m, f, a: m.fp.sqrt(f.name, a, "dynamic"), "Square roots."),
        False,
        "",
    ),
)


def _two_rows(prefix: str, u: int, a: int, opcode: str) -> dict[Format, str]:
    return {
        SINGLE: f"{prefix} {a}0 10000 {opcode} 10 vn vd".replace("U", str(u)),
        DOUBLE: f"{prefix} {a}1 10000 {opcode} 10 vn vd".replace("U", str(u)),
        HALF: f"{prefix} {a} 111100 {opcode} 10 vn vd".replace("U", str(u)),
    }


for _mnemonic, _u, _a, _opcode, _function, _has_scalar, _text in _TWO:
    _define(
        _mnemonic,
        _two_rows("0 q:1 U 01110", _u, _a, _opcode),
        _two_rows("01 U 11110", _u, _a, _opcode) if _has_scalar else {},
        _function,
        "vn",
        text=_text,
        suffix="_zero" if _text else "",
    )
for _number, (_size, _letter) in enumerate(((32, "z"), (64, "z"), (32, "x"), (64, "x"))):
    _mode: Rounding = ZERO if _letter == "z" else "dynamic"

    def _frint_size(
        m: Machine, f: Format, a: Bits, *, size: int = _size, mode: Rounding = _mode
    ) -> Bits:
        """Round to integral values that integers of 32 or 64 bits have."""
        return m.fp.round_to_size(f.name, a, size, mode)

    _rows = _two_rows("0 q:1 U 01110", _number >> 1, 0, f"1111{_number & 1}")
    del _rows[HALF]
    _define(f"frint{_size}{_letter}", _rows, {}, _frint_size, "vn")

# FRECPX, of scalars only.
_define(
    "frecpx",
    {},
    _two_rows("01 U 11110", 0, 1, "11111"),
    _unary(lambda m, f, a: m.fp.reciprocal_exponent(f.name, a), "Invert the exponent."),
    "vn",
)


# Estimates of unsigned fixed-point numbers.


def _urecpe(m: Machine, q: int, vn: Bits, vd: Bits) -> None:
    """Estimate reciprocals of numbers from a half to one."""
    write(m, vd, _estimates(read(m, vn, 32, 128 if q else 64), reciprocal=True))


def _ursqrte(m: Machine, q: int, vn: Bits, vd: Bits) -> None:
    """Estimate reciprocal square roots of numbers from a quarter to one."""
    write(m, vd, _estimates(read(m, vn, 32, 128 if q else 64), reciprocal=False))


def _estimates(a: Lanes, *, reciprocal: bool) -> Lanes:
    return Lanes(join([_estimate(a[i], reciprocal=reciprocal) for i in range(a.count)]), 32)


def _estimate(value: Bits, *, reciprocal: bool) -> Bits:
    scaled = value >> 23
    if reciprocal:  # RecipEstimate
        estimate = (value.constant(1 << 19, 32).udiv(scaled * 2 + 1) + 1) >> 1
        return value[31].select(estimate << 23, -1)
    # RecipSqrtEstimate: the largest number whose square times the argument is below 2**28.
    argument = (scaled < 256).select(scaled * 2 + 1, ((scaled >> 1) << 1) + 1 << 1)
    wide, root = argument.zext(64), value.constant(512, 32).zext(64)
    estimate = root
    for bit in range(8, -1, -1):
        trial = estimate + (1 << bit)
        fits = wide * trial * trial < 1 << 28
        estimate = fits.select(trial, estimate)
    result = (estimate + 1 >> 1).trunc(32)
    return (value[30:] == 0).select(-1, result << 23)


define(
    "urecpe",
    "0 q:1 0 01110 10 10000 11100 10 vn vd",
    "urecpe {vd:qs}, {vn:qs}",
    _urecpe,
    static="q",
)
define(
    "ursqrte",
    "0 q:1 1 01110 10 10000 11100 10 vn vd",
    "ursqrte {vd:qs}, {vn:qs}",
    _ursqrte,
    static="q",
)


# Conversions between formats.


def _fcvtn(
    m: Machine, source: Format, target: str, rounding: Rounding, q: int, vn: Bits, vd: Bits
) -> None:
    """Convert to the narrower format."""
    a = read(m, vn, source.size, 128)
    value = m.fp.convert(source.name, target, a.bits, rounding)
    write_half(m, vd, q, Lanes(value, source.size // 2))


def _fcvtl(m: Machine, source: Format, target: Format, q: int, vn: Bits, vd: Bits) -> None:
    """Convert to the wider format."""
    a = half(m, vn, source.size, q)
    write(m, vd, Lanes(m.fp.convert(source.name, target.name, a.bits, "dynamic"), target.size))


for _q, _two in ((0, ""), (1, "2")):
    for _z, _wide, _narrow in (("0", SINGLE, HALF), ("1", DOUBLE, SINGLE)):
        _from, _to = ("v4s", "qh") if _z == "0" else ("v2d", "qs")
        define(
            f"fcvtn{_two}_{_narrow.letter}",
            f"0 {_q} 0 01110 0{_z} 10000 10110 10 vn vd",
            f"fcvtn{_two} {{vd:{_to}}}, {{vn:{_from}}}",
            _fcvtn,
            source=_wide,
            target=_narrow.name,
            rounding="dynamic",
            q=_q,
        )
        define(
            f"fcvtl{_two}_{_wide.letter}",
            f"0 {_q} 0 01110 0{_z} 10000 10111 10 vn vd",
            f"fcvtl{_two} {{vd:{_from}}}, {{vn:{_to}}}",
            _fcvtl,
            source=_narrow,
            target=_wide,
            q=_q,
        )
    define(
        f"fcvtxn{_two}",
        f"0 {_q} 1 01110 01 10000 10110 10 vn vd",
        f"fcvtxn{_two} {{vd:qs}}, {{vn:v2d}}",
        _fcvtn,
        source=DOUBLE,
        target="f32",
        rounding=ODD,
        q=_q,
    )
    define(
        f"bfcvtn{_two}",
        f"0 {_q} 0 01110 10 10000 10110 10 vn vd",
        f"bfcvtn{_two} {{vd:qh}}, {{vn:v4s}}",
        _fcvtn,
        source=SINGLE,
        target="bf16",
        rounding="dynamic",
        q=_q,
    )


def _fcvtxn_scalar(m: Machine, vn: Bits, vd: Bits) -> None:
    """Convert to single precision, rounding to odd."""
    m.v[vd, 32] = m.fp.convert("f64", "f32", m.v[vn, 64], ODD)


define(
    "fcvtxn_scalar", "01 1 11110 01 10000 10110 10 vn vd", "fcvtxn {vd:s}, {vn:d}", _fcvtxn_scalar
)


# Fixed-point numbers.


def _fixed(m: Machine, f: Format, signed: bool, to_int: bool, value: Bits, amount: Bits) -> Bits:
    fraction_bits = value.constant(f.size, 8) - amount.zext(8)
    if to_int:
        return m.fp.to_fixed(f.name, value, fraction_bits, f.size, signed, ZERO)
    return m.fp.from_fixed(f.name, value, fraction_bits, signed, "dynamic")


def _fixed_vector(
    m: Machine, f: Format, signed: bool, to_int: bool, q: int, amount: Bits, vn: Bits, vd: Bits
) -> None:
    """Convert to or from fixed-point numbers."""
    a = read(m, vn, f.size, 128 if q else 64)
    values = [_fixed(m, f, signed, to_int, a[i], amount) for i in range(a.count)]
    write(m, vd, Lanes(join(values), f.size))


def _fixed_scalar(
    m: Machine, f: Format, signed: bool, to_int: bool, amount: Bits, vn: Bits, vd: Bits
) -> None:
    """Convert to or from a fixed-point number."""
    m.v[vd, f.size] = _fixed(m, f, signed, to_int, m.v[vn, f.size], amount)


for _f, _row in ((HALF, "001 amount:4"), (SINGLE, "01 amount:5"), (DOUBLE, "1 amount:6")):
    for _u, _sign in ((0, "s"), (1, "u")):
        for _mnemonic, _opcode, _is_to in (
            (f"{_sign}cvtf", "11100", False),
            (f"fcvtz{_sign}", "11111", True),
        ):
            define(
                f"{_mnemonic}_fixed_{_f.letter}_vector",
                f"0 {'1' if _f is DOUBLE else 'q:1'} {_u} 011110 {_row} {_opcode} 1 vn vd",
                f"{_mnemonic} {{vd:{SHAPES[_f]}}}, {{vn:{SHAPES[_f]}}}, {{amount:right}}",
                _fixed_vector,
                static="" if _f is DOUBLE else "q",
                f=_f,
                signed=not _u,
                to_int=_is_to,
                **full(_f is DOUBLE),
            )
            define(
                f"{_mnemonic}_fixed_{_f.letter}_scalar",
                f"01 {_u} 111110 {_row} {_opcode} 1 vn vd",
                f"{_mnemonic} {{vd:{_f.letter}}}, {{vn:{_f.letter}}}, {{amount:right}}",
                _fixed_scalar,
                f=_f,
                signed=not _u,
                to_int=_is_to,
            )


# Across lanes: by halves, as the manual's Reduce does.


def _fp_across(m: Machine, f: Format, function: Element, q: int, vn: Bits, vd: Bits) -> None:
    """Combine all lanes into one."""
    lanes = [read(m, vn, f.size, 128 if q else 64)[i] for i in range((128 if q else 64) // f.size)]
    while len(lanes) > 1:
        middle = len(lanes) // 2
        lanes = [function(m, f, a, b) for a, b in zip(lanes[:middle], lanes[middle:], strict=True)]
    m.v[vd, f.size] = lanes[0]


for _mnemonic, _a, _opcode, _function in (
    ("fmaxnmv", 0, "01100", fmaxnm),
    ("fmaxv", 0, "01111", fmax),
    ("fminnmv", 1, "01100", fminnm),
    ("fminv", 1, "01111", fmin),
):
    define(
        f"{_mnemonic}_s",
        f"0 1 1 01110 {_a}0 11000 {_opcode} 10 vn vd",
        f"{_mnemonic} {{vd:s}}, {{vn:v4s}}",
        _fp_across,
        f=SINGLE,
        function=_function,
        q=1,
    )
    define(
        f"{_mnemonic}_h",
        f"0 q:1 0 01110 {_a}0 11000 {_opcode} 10 vn vd",
        f"{_mnemonic} {{vd:h}}, {{vn:qh}}",
        _fp_across,
        static="q",
        f=HALF,
        function=_function,
    )


# By one element.

_ELEMENT: Final = {
    HALF: ("00 i[1:0] vm:4 {} i[2]"),
    SINGLE: ("10 i[0] vm:5 {} i[1]"),
    DOUBLE: ("11 0 vm:5 {} i:1"),
}


def _element_vector(
    m: Machine,
    function: Element,
    f: Format,
    q: int,
    names: Sequence[str],
    i: Bits,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    size = 128 if q else 64
    a = read(m, vn, f.size, size)
    b = a.splat(read(m, vm, f.size, 128).element(i))
    operands = [a, b] if len(names) == 2 else [read(m, vd, f.size, size), a, b]
    write(m, vd, each(m, f, function, *operands))


def _element_scalar(
    m: Machine,
    function: Element,
    f: Format,
    names: Sequence[str],
    i: Bits,
    vm: Bits,
    vn: Bits,
    vd: Bits,
) -> None:
    b = read(m, vm, f.size, 128).element(i)
    operands = [m.v[vn, f.size], b]
    if len(names) == 3:
        operands.insert(0, m.v[vd, f.size])
    m.v[vd, f.size] = function(m, f, *operands)


for _mnemonic, _u, _opcode, _function, _names in (
    ("fmla", 0, "0001", fmla, "vd vn vm"),
    ("fmls", 0, "0101", fmls, "vd vn vm"),
    ("fmul", 0, "1001", fmul, "vn vm"),
    ("fmulx", 1, "1001", fmulx, "vn vm"),
):
    for _f, _row in _ELEMENT.items():
        _bits = _row.format(_opcode)
        _shape = SHAPES[_f]
        define(
            f"{_mnemonic}_{_f.letter}_element",
            f"0 {'1' if _f is DOUBLE else 'q:1'} {_u} 01111 {_bits} 0 vn vd",
            f"{_mnemonic} {{vd:{_shape}}}, {{vn:{_shape}}}, {{vm:e{_f.letter}}}{{i:index}}",
            named(_element_vector, _function),
            static="" if _f is DOUBLE else "q",
            function=_function,
            f=_f,
            names=_names.split(),
            **full(_f is DOUBLE),
        )
        define(
            f"{_mnemonic}_{_f.letter}_scalar_element",
            f"01 {_u} 11111 {_bits} 0 vn vd",
            f"{_mnemonic} {{vd:{_f.letter}}}, {{vn:{_f.letter}}}, {{vm:e{_f.letter}}}{{i:index}}",
            named(_element_scalar, _function),
            function=_function,
            f=_f,
            names=_names.split(),
        )


# Half precision multiplied into single precision (FEAT_FHM).


def _fmlal(m: Machine, negate: bool, upper: int, q: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply half precision and add in single precision, rounding once."""
    size = 64 if q else 32
    a, b = (
        Lanes(m.v[vn].extract(upper * size, size), 16),
        Lanes(m.v[vm].extract(upper * size, size), 16),
    )
    _multiply_long(m, negate, vd, a, b)


def _fmlal_element(
    m: Machine, negate: bool, upper: int, q: int, i: Bits, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Multiply half precision by one element and add in single precision, rounding once."""
    size = 64 if q else 32
    a = Lanes(m.v[vn].extract(upper * size, size), 16)
    _multiply_long(m, negate, vd, a, a.splat(read(m, vm, 16, 128).element(i)))


def _multiply_long(m: Machine, negate: bool, vd: Bits, a: Lanes, b: Lanes) -> None:
    d = read(m, vd, 32, 2 * a.bits.size)
    values = [
        m.fp.fma_long(HALF.negate(a[i]) if negate else a[i], b[i], d[i], "dynamic")
        for i in range(a.count)
    ]
    write(m, vd, Lanes(join(values), 32))


for _mnemonic, _u, _a, _opcode, _element, _upper in (
    ("fmlal", 0, 0, "11101", "0000", 0),
    ("fmlsl", 0, 1, "11101", "0100", 0),
    ("fmlal2", 1, 0, "11001", "1000", 1),
    ("fmlsl2", 1, 1, "11001", "1100", 1),
):
    define(
        f"{_mnemonic}_vector",
        f"0 q:1 {_u} 01110 {_a}0 1 vm {_opcode} 1 vn vd",
        f"{_mnemonic} {{vd:qs}}, {{vn:hhalf}}, {{vm:hhalf}}",
        _fmlal,
        static="q",
        negate=bool(_a),
        upper=_upper,
    )
    define(
        f"{_mnemonic}_element",
        f"0 q:1 {_u} 01111 10 i[1:0] vm:4 {_element} i[2] 0 vn vd",
        f"{_mnemonic} {{vd:qs}}, {{vn:hhalf}}, {{vm:eh}}{{i:index}}",
        _fmlal_element,
        static="q",
        negate=bool(_a),
        upper=_upper,
    )


# Complex numbers (FEAT_FCMA): pairs of lanes, real and imaginary.


def _fcmla(m: Machine, f: Format, rotation: int, d: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """Multiply by one part of complex numbers, rotated, and add."""
    values: list[Bits] = []
    for at in range(0, a.count, 2):
        part = a[at + (rotation & 1)]
        real, imaginary = (b[at + 1], b[at]) if rotation & 1 else (b[at], b[at + 1])
        if rotation in (1, 2):
            real = f.negate(real)
        if rotation in (2, 3):
            imaginary = f.negate(imaginary)
        values.append(m.fp.fma(f.name, real, part, d[at], "dynamic"))
        values.append(m.fp.fma(f.name, imaginary, part, d[at + 1], "dynamic"))
    return Lanes(join(values), f.size)


def _fcmla_vector(m: Machine, f: Format, q: int, rot: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Multiply by one part of complex numbers, rotated, and add."""
    size = 128 if q else 64
    d, a, b = (read(m, each_, f.size, size) for each_ in (vd, vn, vm))
    write(m, vd, _fcmla(m, f, rot, d, a, b))


def _fcmla_element(
    m: Machine, f: Format, q: int, rot: int, i: Bits, vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Multiply by one part of complex numbers, rotated, with one complex element, and add."""
    size = 128 if q else 64
    d, a = read(m, vd, f.size, size), read(m, vn, f.size, size)
    pair = Lanes(m.v[vm], 2 * f.size).element(i)
    b = a.resize(2 * f.size).splat(pair).resize(f.size)
    write(m, vd, _fcmla(m, f, rot, d, a, b))


def _fcadd(m: Machine, f: Format, q: int, rot: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Add complex numbers, the second ones rotated by 90 or 270 degrees."""
    size = 128 if q else 64
    a, b = read(m, vn, f.size, size), read(m, vm, f.size, size)
    values: list[Bits] = []
    for at in range(0, a.count, 2):
        real, imaginary = b[at + 1], b[at]
        if rot:
            imaginary = f.negate(imaginary)
        else:
            real = f.negate(real)
        values.append(m.fp.add(f.name, a[at], real, "dynamic"))
        values.append(m.fp.add(f.name, a[at + 1], imaginary, "dynamic"))
    write(m, vd, Lanes(join(values), f.size))


for _f, _bits in ((HALF, "01"), (SINGLE, "10"), (DOUBLE, "11")):
    _width, _static = ("1", "") if _f is DOUBLE else ("q:1", "q ")
    _shape = SHAPES[_f]
    _operands = f"{{vd:{_shape}}}, {{vn:{_shape}}}, {{vm:{_shape}}}"
    define(
        f"fcmla_{_f.letter}",
        f"0 {_width} 1 01110 {_bits} 0 vm 110 rot:2 1 vn vd",
        f"fcmla {_operands}, {{rot:quarter}}",
        _fcmla_vector,
        static=f"{_static}rot",
        f=_f,
        **full(_f is DOUBLE),
    )
    define(
        f"fcadd_{_f.letter}",
        f"0 {_width} 1 01110 {_bits} 0 vm 111 rot:1 0 1 vn vd",
        f"fcadd {_operands}, {{rot:odd}}",
        _fcadd,
        static=f"{_static}rot",
        f=_f,
        **full(_f is DOUBLE),
    )

define(
    "fcmla_4h_element",
    "0 0 1 01111 01 i:1 vm:5 0 rot:2 1 0 0 vn vd",
    "fcmla {vd:v4h}, {vn:v4h}, {vm:eh}{i:index}, {rot:quarter}",
    _fcmla_element,
    static="rot",
    f=HALF,
    q=0,
)
define(
    "fcmla_8h_element",
    "0 1 1 01111 01 i[0] vm:5 0 rot:2 1 i[1] 0 vn vd",
    "fcmla {vd:v8h}, {vn:v8h}, {vm:eh}{i:index}, {rot:quarter}",
    _fcmla_element,
    static="rot",
    f=HALF,
    q=1,
)
define(
    "fcmla_4s_element",
    "0 1 1 01111 10 0 vm:5 0 rot:2 1 i:1 0 vn vd",
    "fcmla {vd:v4s}, {vn:v4s}, {vm:es}{i:index}, {rot:quarter}",
    _fcmla_element,
    static="rot",
    f=SINGLE,
    q=1,
)
