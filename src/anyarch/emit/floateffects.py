"""Which floating-point effects native code has a rule for, and their LLVM text by it.

A value of several lanes is an LLVM vector where the rule can take vectors; else the rule is applied
to each lane.
"""

from __future__ import annotations

from anyarch.emit import floats, halves, rules
from anyarch.emit.floats import AWAY, CONTROL, ODD, SIZES, TO_INTEGRAL, TOWARDS_ZERO, Shape
from anyarch.emit.llvm import Emitter
from anyarch.ir.graph import ROUNDED, Node, float_lanes


def is_native(node: Node) -> bool:
    """Whether a floating-point effect has a rule."""
    formats = [attr for attr in node.attrs if isinstance(attr, str) and attr != "dynamic"]
    if any(fmt not in SIZES for fmt in formats):
        return False
    if _is_half(node):
        if not halves.is_native(node):
            return False
    elif node.op not in rules.RULES:
        return False
    if node.op in TO_INTEGRAL and node.attrs[-1] == AWAY:
        return True
    if node.op == "fconvert" and node.attrs[-1] == ODD:
        return formats == ["f64", "f32"]
    return node.op not in ROUNDED or node.attrs[-1] not in (AWAY, ODD)


def may_leave(node: Node) -> bool:
    """Whether a floating-point effect leaves some operands to the reference engine."""
    return node.op in rules.EMULATED or _is_half(node)


def _is_half(node: Node) -> bool:
    return "f16" in node.attrs


def emit(e: Emitter, node: Node) -> str:
    """The value of a floating-point effect that :func:`is_native`."""
    rounding = node.attrs[-1] if node.op in ROUNDED else "dynamic"
    if rounding == ODD:
        rounding = TOWARDS_ZERO
    if rounding == "dynamic" or node.op in TO_INTEGRAL or _is_exact(node):
        return _emit(e, node)
    before = floats.read_mxcsr(e)
    cleared = e.let(f"and i32 {before}, {~0x6000}")
    floats.write_mxcsr(e, e.let(f"or i32 {cleared}, {CONTROL[int(rounding)]}"))
    result = _emit(e, node)
    control = e.let(f"and i32 {before}, {0x6000}")
    after = e.let(f"and i32 {floats.read_mxcsr(e)}, {~0x6000}")
    floats.write_mxcsr(e, e.let(f"or i32 {after}, {control}"))
    return result


def _is_exact(node: Node) -> bool:
    """Whether a conversion never rounds: MXCSR is slow to change."""
    match node.op:
        case "fconvert":
            source, target = str(node.attrs[0]), str(node.attrs[1])
            return source == target or SIZES[source] < SIZES[target]
        case "ffrom_int":
            size = node.args[0].size // float_lanes(node)
            return size < {"f32": 24, "f64": 53}.get(str(node.attrs[0]), 0)
    return False


def _emit(e: Emitter, node: Node) -> str:
    shape = Shape(str(node.attrs[0]), float_lanes(node))
    rule = (halves.RULES if _is_half(node) else rules.RULES)[node.op]
    values = [e.value(arg) for arg in node.args]
    if shape.lanes == 1:
        return rule(e, node, shape, values)
    operands = []
    for arg, value in zip(node.args, values, strict=True):
        kind = shape.of(f"i{arg.size // shape.lanes}")
        operands.append(e.let(f"bitcast i{arg.size} {value} to {kind}"))
    kind = shape.of(f"i{node.size // shape.lanes}")
    if _takes_vectors(node, shape):
        result = rule(e, node, shape, operands)
    else:
        result = floats.by_lane(e, node, shape, rule, operands)
    return e.let(f"bitcast {kind} {result} to i{node.size}")


def _takes_vectors(node: Node, shape: Shape) -> bool:
    """Unsigned conversions are made of signed ones, with branches."""
    return node.op not in ("fto_int", "ffrom_int") or (bool(node.attrs[1]) and shape.size == 32)
