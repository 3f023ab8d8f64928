"""Whether a result was tiny before it was rounded, exactly: what Arm's underflow flag asks.

The host sees tininess after rounding. Both agree, but where rounding made a result the least
normal number: then the functions here tell, by integers as wide as needed.
"""

from __future__ import annotations

from typing import Final

# Units of the sums: 2**-_UNIT for doubles. Less than one is kept as one: what it is compared with
# are multiples of far more.
_UNIT: Final = 1200
_SIZE: Final = 384
_BIAS: Final = 1075  # of the exponent of an integer fraction
LEAST_EXPONENT: Final = {"f16": -14, "f32": -126, "f64": -1022}

_PARTS: Final = """\
define internal { i64, i64 } @fraction(i64 %bits) alwaysinline nounwind {
  %shifted = lshr i64 %bits, 52
  %field = and i64 %shifted, 2047
  %low = and i64 %bits, 4503599627370495
  %hidden = or i64 %low, 4503599627370496
  %subnormal = icmp eq i64 %field, 0
  %fraction = select i1 %subnormal, i64 %low, i64 %hidden
  %exponent = select i1 %subnormal, i64 1, i64 %field
  %first = insertvalue { i64, i64 } undef, i64 %fraction, 0
  %both = insertvalue { i64, i64 } %first, i64 %exponent, 1
  ret { i64, i64 } %both
}
"""


def _fractions(*names: str) -> str:
    return "".join(
        f"  %{name}.p = call {{ i64, i64 }} @fraction(i64 %{name})\n"
        f"  %{name}.f = extractvalue {{ i64, i64 }} %{name}.p, 0\n"
        f"  %{name}.e = extractvalue {{ i64, i64 }} %{name}.p, 1\n"
        for name in names
    )


def text() -> str:
    """Two functions of doubles, given as bits, whose result was rounded to the least normal
    magnitude, 2**least: ``@tiny_sum`` of a * b + c, ``r`` its result, ``@tiny_quotient`` of a / b.
    """
    wide = f"i{_SIZE}"
    normal = LEAST_EXPONENT["f64"]
    return f"""\
{_PARTS}
define internal preserve_allcc i1 @tiny_sum(i64 %a, i64 %b, i64 %c, i64 %r, i64 %least) \
noinline nounwind {{
{_fractions("a", "b", "c")}
  %scale = sub i64 {normal}, %least
  %a.w = zext i64 %a.f to i128
  %b.w = zext i64 %b.f to i128
  %product = mul i128 %a.w, %b.w
  %product.w = zext i128 %product to {wide}
  %exponents = add i64 %a.e, %b.e
  %place.0 = add i64 %exponents, {_UNIT - 2 * _BIAS}
  %place = add i64 %place.0, %scale
  %left = call i64 @llvm.umin.i64(i64 %place, i64 {_SIZE - 110})
  %left.w = zext i64 %left to {wide}
  %raised = shl {wide} %product.w, %left.w
  %below = sub i64 0, %place
  %right = call i64 @llvm.umin.i64(i64 %below, i64 {_SIZE - 1})
  %right.w = zext i64 %right to {wide}
  %lowered.0 = lshr {wide} %product.w, %right.w
  %some = icmp ne {wide} %product.w, 0
  %sticky = zext i1 %some to {wide}
  %lowered = or {wide} %lowered.0, %sticky
  %is.low = icmp slt i64 %place, 0
  %p = select i1 %is.low, {wide} %lowered, {wide} %raised
  %addend.0 = add i64 %c.e, {_UNIT - _BIAS}
  %addend.1 = add i64 %addend.0, %scale
  %addend.2 = call i64 @llvm.umin.i64(i64 %addend.1, i64 {_SIZE - 54})
  %addend.3 = zext i64 %addend.2 to {wide}
  %addend.4 = zext i64 %c.f to {wide}
  %d = shl {wide} %addend.4, %addend.3
  %ab = xor i64 %a, %b
  %sign.p = xor i64 %ab, %r
  %sign.d = xor i64 %c, %r
  %minus.p = icmp slt i64 %sign.p, 0
  %minus.d = icmp slt i64 %sign.d, 0
  %neg.p = sub {wide} 0, %p
  %neg.d = sub {wide} 0, %d
  %signed.p = select i1 %minus.p, {wide} %neg.p, {wide} %p
  %signed.d = select i1 %minus.d, {wide} %neg.d, {wide} %d
  %sum = add {wide} %signed.p, %signed.d
  %tiny = icmp slt {wide} %sum, {1 << _UNIT + normal}
  ret i1 %tiny
}}
define internal preserve_allcc i1 @tiny_quotient(i64 %a, i64 %b, i64 %least) noinline nounwind {{
{_fractions("a", "b")}
  %more.0 = sub i64 %a.e, %b.e
  %more = sub i64 %more.0, %least
  %up = call i64 @llvm.smax.i64(i64 %more, i64 0)
  %up.1 = call i64 @llvm.umin.i64(i64 %up, i64 70)
  %less = sub i64 0, %more
  %down = call i64 @llvm.smax.i64(i64 %less, i64 0)
  %down.1 = call i64 @llvm.umin.i64(i64 %down, i64 70)
  %a.w = zext i64 %a.f to i128
  %b.w = zext i64 %b.f to i128
  %up.w = zext i64 %up.1 to i128
  %down.w = zext i64 %down.1 to i128
  %left = shl i128 %a.w, %up.w
  %right = shl i128 %b.w, %down.w
  %tiny = icmp ult i128 %left, %right
  ret i1 %tiny
}}
"""
