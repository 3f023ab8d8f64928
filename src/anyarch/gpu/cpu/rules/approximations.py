"""The approximate functions of f32, each within the bound that PTX ISA 9.0, 9.7.3 states.

Polynomials are weighted least-maximum fits; `tests/gpu` measures the largest error of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_F: Final = "float"
_EXP2: Final = (
    1.0000000005542231,
    0.6931472057370763,
    0.2402264689021283,
    0.0555032877727355,
    0.00961848900271059,
    0.0013399931120157212,
    0.00015345799737369214,
)
_LOG2: Final = (  # of log2(1 + t) / t
    1.4426950408287806,
    -0.7213473514701458,
    0.4808982414015644,
    -0.36069665279952307,
    0.2885673939637871,
    -0.239617303289602,
    0.20460078240938876,
    -0.19106377405737696,
    0.18617461627811166,
    -0.10994678881858296,
)
_SINE: Final = (
    0.9999999966001654,
    -0.16666649445434228,
    0.008331969956378069,
    -0.0001949545059914788,
)
_COSINE: Final = (
    0.9999999999462278,
    -0.49999999574613385,
    0.041666612818115775,
    -0.0013886502034108177,
    2.4369210100628555e-05,
)
_ROUNDER: Final = 12582912.0  # 1.5 × 2²³: adding it rounds to an integer, kept in the low bits
_HALF_PI: Final = (1.5707963109016418, 1.5893254712295857e-08, 6.0770999344e-11)


def _fma(e: FunctionEmitter, a: str, b: str, c: str) -> str:
    return e.call("llvm.fma", _F, a, b, c)


def _polynomial(e: FunctionEmitter, coefficients: tuple[float, ...], x: str) -> str:
    result = e.real(_F, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = _fma(e, result, x, e.real(_F, coefficient))
    return result


def _seed(e: FunctionEmitter, name: str, x: str) -> str:
    """The processor's estimate, good to 2⁻¹⁴."""
    from anyarch.gpu.cpu.rules.floats import in_parts

    type_ = "<16 x float>"
    full = f"llvm.x86.avx512.{name}.ps.512"

    def compute(part: str) -> str:
        return e.invoke(full, type_, [(type_, part), (type_, "zeroinitializer"), ("i16", "-1")])

    return in_parts(e, _F, [x], 16, _F, compute)


def _unless_nan(e: FunctionEmitter, value: str, otherwise: str) -> str:
    good = e.cmp("fcmp ord", _F, value, value)
    return e.sel(good, _F, value, otherwise)


def reciprocal(e: FunctionEmitter, x: str) -> str:
    """1 / x: an estimate and one Newton step; at 0 and ∞ the estimate is right."""
    estimate = _seed(e, "rcp14", x)
    error = _fma(e, e.let(f"fneg {e.t(_F)} {x}"), estimate, e.real(_F, 1.0))
    return _unless_nan(e, _fma(e, estimate, error, estimate), estimate)


def quotient(e: FunctionEmitter, a: str, b: str) -> str:
    """a / b as a product."""
    return e.op("fmul", _F, a, reciprocal(e, b))


def reciprocal_root(e: FunctionEmitter, x: str) -> str:
    """1 / √x, as `reciprocal`."""
    estimate = _seed(e, "rsqrt14", x)
    product = e.op("fmul", _F, x, estimate)
    error = _fma(e, e.let(f"fneg {e.t(_F)} {product}"), estimate, e.real(_F, 1.0))
    half = e.op("fmul", _F, estimate, e.real(_F, 0.5))
    return _unless_nan(e, _fma(e, half, error, estimate), estimate)


def exp2(e: FunctionEmitter, x: str) -> str:
    """2^x."""
    low = e.cmp("fcmp olt", _F, x, e.real(_F, -160.0))
    x = e.sel(low, _F, e.real(_F, -160.0), x)
    high = e.cmp("fcmp ogt", _F, x, e.real(_F, 130.0))
    x = e.sel(high, _F, e.real(_F, 130.0), x)
    shifted = e.op("fadd", _F, x, e.real(_F, _ROUNDER))
    whole = e.op("fsub", _F, shifted, e.real(_F, _ROUNDER))
    power = _polynomial(e, _EXP2, e.op("fsub", _F, x, whole))
    # 2^whole in two factors, since it may be no normal number.
    bits = e.op("sub", "i32", e.bits(_F, "i32", shifted), e.k("i32", 0x4B400000))
    half = e.op("ashr", "i32", bits, e.k("i32", 1))
    for part in (half, e.op("sub", "i32", bits, half)):
        biased = e.op("shl", "i32", e.op("add", "i32", part, e.k("i32", 127)), e.k("i32", 23))
        power = e.op("fmul", _F, power, e.bits("i32", _F, biased))
    return power


def log2(e: FunctionEmitter, x: str) -> str:
    """The binary logarithm."""
    tiny = e.cmp("fcmp olt", _F, x, e.k(_F, 0x00800000))
    scaled = e.sel(tiny, _F, e.op("fmul", _F, x, e.real(_F, float(1 << 23))), x)
    bits = e.bits(_F, "i32", scaled)
    offset = e.op("sub", "i32", bits, e.k("i32", 0x3F3504F3))  # √½
    exponent = e.op("ashr", "i32", offset, e.k("i32", 23))
    mantissa = e.op("sub", "i32", bits, e.op("shl", "i32", exponent, e.k("i32", 23)))
    t = e.op("fsub", _F, e.bits("i32", _F, mantissa), e.real(_F, 1.0))
    down = e.sel(tiny, "i32", e.k("i32", 23), e.k("i32", 0))
    whole = e.cast("sitofp", "i32", _F, e.op("sub", "i32", exponent, down))
    result = _fma(e, t, _polynomial(e, _LOG2, t), whole)
    zero = e.cmp("fcmp oeq", _F, x, e.real(_F, 0.0))
    result = e.sel(zero, _F, e.k(_F, 0xFF800000), result)
    infinite = e.cmp("fcmp oeq", _F, x, e.k(_F, 0x7F800000))
    result = e.sel(infinite, _F, x, result)
    positive = e.cmp("fcmp oge", _F, x, e.real(_F, 0.0))
    return e.sel(positive, _F, result, e.k(_F, 0x7FFFFFFF))


def _reduced(e: FunctionEmitter, x: str) -> tuple[str, str]:
    """x minus a multiple of π/2, and the multiple's low bits."""
    turns = _fma(e, x, e.real(_F, 0.6366197723675814), e.real(_F, _ROUNDER))
    bits = e.bits(_F, "i32", turns)
    whole = e.op("fsub", _F, turns, e.real(_F, _ROUNDER))
    rest = x
    for part in _HALF_PI:
        rest = _fma(e, whole, e.real(_F, -part), rest)
    return rest, bits


def _sine_of(e: FunctionEmitter, rest: str, quadrant: str) -> str:
    square = e.op("fmul", _F, rest, rest)
    sine = e.op("fmul", _F, rest, _polynomial(e, _SINE, square))
    cosine = _polynomial(e, _COSINE, square)
    odd = e.cmp("icmp ne", "i32", e.op("and", "i32", quadrant, e.k("i32", 1)), e.k("i32", 0))
    value = e.sel(odd, _F, cosine, sine)
    sign = e.op("shl", "i32", e.op("and", "i32", quadrant, e.k("i32", 2)), e.k("i32", 30))
    return e.bits("i32", _F, e.op("xor", "i32", e.bits(_F, "i32", value), sign))


def sine(e: FunctionEmitter, x: str) -> str:
    """sin x."""
    rest, quadrant = _reduced(e, x)
    return _sine_of(e, rest, quadrant)


def cosine(e: FunctionEmitter, x: str) -> str:
    """cos x."""
    rest, quadrant = _reduced(e, x)
    return _sine_of(e, rest, e.op("add", "i32", quadrant, e.k("i32", 1)))


def hyperbolic_tangent(e: FunctionEmitter, x: str) -> str:
    """tanh x = 1 − 2 / (e^2x + 1), a polynomial near zero."""
    size = e.call("llvm.fabs", _F, x)
    power = exp2(e, e.op("fmul", _F, size, e.real(_F, 2.8853900817779268)))
    below = e.op("fdiv", _F, e.real(_F, 2.0), e.op("fadd", _F, power, e.real(_F, 1.0)))
    large = e.op("fsub", _F, e.real(_F, 1.0), below)
    square = e.op("fmul", _F, x, x)
    near = (1.0, -0.33333333, 0.13333333, -0.053968254)
    small = e.op("fmul", _F, size, _polynomial(e, near, square))
    is_small = e.cmp("fcmp olt", _F, size, e.real(_F, 0.3))
    result = e.sel(is_small, _F, small, large)
    bits = e.op("and", "i32", e.bits(_F, "i32", result), e.k("i32", 0x7FFFFFFF))
    sign = e.op("and", "i32", e.bits(_F, "i32", x), e.k("i32", 0x80000000))
    signed = e.bits("i32", _F, e.op("or", "i32", bits, sign))
    nan = e.cmp("fcmp uno", _F, x, x)
    return e.sel(nan, _F, x, signed)
