"""Arm's modes that flush subnormal numbers (FPCR.FZ) or have one NaN (DN), by native code.

Numbers that are neither subnormal nor NaNs are as in the usual mode, so long as the result is no
subnormal number either; all else is left to the reference engine.
"""

from __future__ import annotations

from typing import Final

from anyarch.emit import floats
from anyarch.emit.floats import DYNAMIC, UNDERFLOW, Shape
from anyarch.emit.llvm import Emitter
from anyarch.emit.tininess import LEAST_EXPONENT
from anyarch.ir.graph import ROUNDED, Node, float_lanes
from anyarch.ir.softfloat import ARM_DN, ARM_FZ

MODES: Final = 3 | ARM_FZ | ARM_DN  # all bits of a mode that is served here
# Operations with results that may be subnormal, by the host's.
_TRIED: Final = {"fadd": "fadd", "fsub": "fsub", "fmul": "fmul", "fdiv": "fdiv", "ffma": "fma"}
_NEVER: Final = frozenset(
    (
        "fsqrt fconvert fto_int ffrom_int fto_int_modular fto_fixed fround fround_exact "
        "feq flt fle flt_quiet fle_quiet fmin_number fmax_number fmin fmax"
    ).split()
)


def is_served(node: Node) -> bool:
    """Whether :func:`emulate_unusual` knows a floating-point effect."""
    formats = [attr for attr in node.attrs if attr in ("f16", "bf16")]
    static = node.op in _TRIED and node.op in ROUNDED and node.attrs[-1] != "dynamic"
    return not formats and not static and (node.op in _TRIED or node.op in _NEVER)


def emulate_unusual(e: Emitter, node: Node) -> None:
    """Leave to the reference engine what the modes make different. No flag changes."""
    shape = Shape(str(node.attrs[0]), float_lanes(node))
    if node.op == "ffrom_int":
        return
    count = 1 if node.op == "fto_fixed" else len(node.args)
    operands = []
    for arg in node.args[:count]:
        value = e.value(arg)
        if shape.lanes > 1:
            value = e.let(f"bitcast i{arg.size} {value} to {shape.bits}")
        operands.append(value)
        magnitude = floats.magnitude(e, shape, value)
        _emulate_any(e, shape, _is_subnormal(e, shape, magnitude))
        infinity = shape.integer(floats.INFINITY[shape.fmt])
        _emulate_any(e, shape, e.let(f"icmp ugt {shape.bits} {magnitude}, {infinity}"))
    if node.op in _TRIED:
        _try(e, _TRIED[node.op], shape, operands)
    elif node.op == "fconvert" and node.attrs[1] == "f32":
        _emulate_small(e, shape, operands[0])


def _emulate_any(e: Emitter, shape: Shape, condition: str) -> None:
    e.emulate_if(floats.any_lane(e, shape, condition))


def _is_subnormal(e: Emitter, shape: Shape, magnitude: str) -> str:
    """Of magnitudes' encodings, also whether one is the least normal number."""
    below = e.let(f"sub {shape.bits} {magnitude}, {shape.integer(1)}")
    least = shape.integer(floats.LEAST_NORMAL[shape.fmt])
    return e.let(f"icmp ult {shape.bits} {below}, {least}")


def _try(e: Emitter, name: str, shape: Shape, operands: list[str]) -> None:
    """See whether a result is tiny, or was before it was rounded, and forget that it was made."""
    before = floats.read_mxcsr(e)
    floats.write_mxcsr(e, e.let(f"and i32 {before}, {~0x3F}"))
    result = floats.constrained(e, shape, name, floats.numbers(e, shape, operands), DYNAMIC)
    raised = e.let(f"and i32 {floats.read_mxcsr(e)}, {UNDERFLOW}")
    floats.write_mxcsr(e, before)
    bits = e.let(f"bitcast {shape.kind} {result} to {shape.bits}")
    subnormal = _is_subnormal(e, shape, floats.magnitude(e, shape, bits))
    tiny = floats.any_lane(e, shape, subnormal)
    e.emulate_if(e.let(f"or i1 {tiny}, {e.let(f'icmp ne i32 {raised}, 0')}"))


def _emulate_small(e: Emitter, shape: Shape, bits: str) -> None:
    """Doubles, not zero, below the least normal single."""
    limit = LEAST_EXPONENT["f32"] + floats.BIAS["f64"] << floats.FRACTION["f64"]
    below = e.let(f"sub {shape.bits} {floats.magnitude(e, shape, bits)}, {shape.integer(1)}")
    _emulate_any(e, shape, e.let(f"icmp ult {shape.bits} {below}, {shape.integer(limit)}"))
