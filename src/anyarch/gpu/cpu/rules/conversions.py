"""Conversions: PTX ISA 9.0, 9.7.9.21 (cvt) and 9.7.9.22 (cvt.pack).

A float becomes an integer by rounding and then saturating; NaN becomes zero, or, where source or
result has 64 bits, the top bit alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import floats, smallfloats
from anyarch.gpu.cpu.rules.integers import is_float, narrow_part, wide_parts, wide_target
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import SIZES, Immediate, Instruction, Operand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_SMALL: Final = ("e4m3x2", "e5m2x2")
_MODES: Final = {"rn": 8, "rm": 9, "rp": 10, "rz": 11}
_INTEGRAL: Final = {"rni": "roundeven", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
_F16_CONTROL: Final = {"rn": 0, "rm": 1, "rp": 2, "rz": 3}


@rule("cvt")
def cvt(e: FunctionEmitter, i: Instruction) -> None:
    """Convert; the types are the result's and the source's."""
    if "pack" in i.modifiers:
        _pack_integers(e, i)
        return
    types = i.types
    if len(types) < 2:
        e.fail("cvt needs two types of which this is supported")
    target, source = types[0], types[1]
    if target in _SMALL:
        smallfloats.to_packed(e, i, target, source)
        return
    if source in _SMALL and target == "f16x2":
        smallfloats.from_packed(e, i, source)
        return
    if target in ("f16x2", "bf16x2"):
        _to_packed(e, i, target, source)
        return
    d, a = i.operands[:2]
    if (wide := wide_target(e, d)) is not None:
        e.vec = False
        if e.shape(a).kind in ("wide", "indexed"):
            first, second = wide_parts(e, a)
            e.define_wide(wide, first or "0", second)
        else:
            e.define_wide(wide, narrow_part(e, wide, a), "0")
        return
    e.choose(i, a)
    if is_float(source):
        elem, value = _read(e, source, a)
        if "ftz" in i.modifiers and source == "f32":
            value = floats.flush(e, elem, value)
        if is_float(target):
            _between_floats(e, i, target, elem, value)
        else:
            _to_integer(e, i, target, source, elem, value)
    else:
        elem = elem_of(source)
        value = e.get(a, elem)
        if is_float(target):
            _from_integer(e, i, target, source, value)
        else:
            _between_integers(e, i, target, source, value)


def _read(e: FunctionEmitter, type_: str, operand: Operand) -> tuple[str, str]:
    if type_ == "bf16":
        return "float", floats.widen_bf16(e, e.get(operand, "i16"))
    elem = elem_of(type_)
    if isinstance(operand, Immediate) and not operand.bits and operand.real is None:
        return elem, e.real(elem, float(operand.value))
    return elem, e.get(operand, elem)


def _between_integers(
    e: FunctionEmitter, i: Instruction, target: str, source: str, value: str
) -> None:
    have, want = elem_of(source), elem_of(target)
    signed = source[0] == "s"
    if "sat" in i.modifiers:
        value = _saturate(e, value, source, target)
    result = e.resize(have, want, value, signed)
    e.define(i.operands[0], want, result, signed=target[0] == "s")


def _saturate(e: FunctionEmitter, value: str, source: str, target: str) -> str:
    """Clamp to what the target can hold."""
    elem, size = elem_of(source), SIZES[target]
    signed = source[0] == "s"
    low = -(1 << size - 1) if target[0] == "s" else 0
    high = (1 << size - 1) - 1 if target[0] == "s" else (1 << size) - 1
    least = -(1 << SIZES[source] - 1) if signed else 0
    most = (1 << SIZES[source] - 1) - 1 if signed else (1 << SIZES[source]) - 1
    letter = "s" if signed else "u"
    if least < low:
        value = e.call(f"llvm.{letter}max", elem, value, e.k(elem, low))
    if most > high:
        value = e.call(f"llvm.{letter}min", elem, value, e.k(elem, high))
    return value


def _to_integer(
    e: FunctionEmitter, i: Instruction, target: str, source: str, elem: str, value: str
) -> None:
    mode = next((m for m in i.modifiers if m in _INTEGRAL), "rzi")
    nan = e.cmp("fcmp uno", elem, value, value)
    if elem == "half":
        value, elem = e.cast("fpext", "half", "float", value), "float"
    if mode != "rzi":
        value = e.call(f"llvm.{_INTEGRAL[mode]}", elem, value)
    want, size = elem_of(target), SIZES[target]
    letter = "s" if target[0] == "s" else "u"
    name = f"llvm.fpto{letter}i.sat.{e.mangled(want)}.{e.mangled(elem)}"
    e.declare(name, e.t(want), [e.t(elem)])
    result = e.let(f"call {e.t(want)} @{name}({e.t(elem)} {value})")
    if source == "f64" or size == 64:
        result = e.sel(nan, want, e.k(want, 1 << size - 1), result)
    e.define(i.operands[0], want, result, signed=target[0] == "s")


def _from_integer(e: FunctionEmitter, i: Instruction, target: str, source: str, value: str) -> None:
    mode = floats.rounding(i)
    signed = source[0] == "s"
    elem = elem_of(source)
    name = "sitofp" if signed else "uitofp"
    if target in ("f16", "bf16"):
        if SIZES[source] > 16:  # through a double, rounded to odd, so that it is rounded once
            if SIZES[source] == 64 and target == "bf16":
                _finish(e, i, target, "double", _long_to_double(e, signed, value), mode)
                return
            if SIZES[source] == 64:  # nothing above 2¹⁷ is finite
                value = _saturate(e, value, source, "s32")
                source, elem = "s32", "i32"
                value, name = e.resize("i64", "i32", value), "sitofp"
            odd = floats.to_odd(e, e.cast(name, elem, "double", value))
        else:
            odd = e.cast(name, elem, "float", value)
        result = odd
        _finish(e, i, target, "float", result, mode)
        return
    want = elem_of(target)
    exact = SIZES[source] < (24 if target == "f32" else 53)
    if mode == "rn" or exact:
        result = e.cast(name, elem, want, value)
    else:
        result = _directed(e, signed, elem, want, value, mode)
    _finish(e, i, target, want, result, mode)


def _long_to_double(e: FunctionEmitter, signed: bool, value: str) -> str:
    """A 64-bit integer as a double whose last bits say that it is inexact, where they must."""
    name, shift = ("sitofp", "ashr") if signed else ("uitofp", "lshr")
    lost = e.cmp("icmp ne", "i64", e.op("and", "i64", value, e.k("i64", 0x7FF)), e.k("i64", 0))
    short = e.op(shift, "i64", value, e.k("i64", 11))
    sticky = e.op("or", "i64", short, e.cast("zext", "i1", "i64", lost))
    large = e.op("fmul", "double", e.cast(name, "i64", "double", sticky), e.real("double", 2048.0))
    top = e.op(shift, "i64", value, e.k("i64", 52))
    small = e.cmp("icmp ult", "i64", e.op("add", "i64", top, e.k("i64", 1)), e.k("i64", 2))
    return e.sel(small, "double", e.cast(name, "i64", "double", value), large)


def _directed(e: FunctionEmitter, signed: bool, elem: str, want: str, value: str, mode: str) -> str:
    if not e.kernel.avx512:
        e.fail(f"rounding .{mode} needs a processor with AVX-512")
    size = 16 if want == "float" and elem == "i32" else 8
    letter = "s" if signed else "u"
    lanes = f"v{size}f{64 if want == 'double' else 32}.v{size}{elem}"
    name = f"llvm.x86.avx512.{letter}itofp.round.{lanes}"
    source, result = f"<{size} x {elem}>", f"<{size} x {want}>"

    def compute(part: str) -> str:
        return e.invoke(name, result, [(source, part), ("i32", str(_MODES[mode]))])

    return floats.in_parts(e, elem, [value], size, want, compute)


def _between_floats(e: FunctionEmitter, i: Instruction, target: str, elem: str, value: str) -> None:
    integral = next((m for m in i.modifiers if m in _INTEGRAL), None)
    if integral is not None:
        if elem == "half":
            value, elem = e.cast("fpext", "half", "float", value), "float"
        value = e.call(f"llvm.{_INTEGRAL[integral]}", elem, value)
    _finish(e, i, target, elem, value, floats.rounding(i))


def _finish(
    e: FunctionEmitter, i: Instruction, target: str, elem: str, value: str, mode: str
) -> None:
    """From `elem` to the target's format, then .relu, .sat and .ftz, and write it."""
    if target in ("f16", "bf16") and elem == "double":
        value, elem = floats.to_odd(e, value), "float"
    if target == "bf16":
        if "relu" in i.modifiers:
            value = _relu(e, elem, value)
        if "sat" in i.modifiers:
            value = floats.clamp(e, elem, value)
        e.define(i.operands[0], "i16", floats.narrow_bf16(e, value, mode))
        return
    want = elem_of(target)
    if target == "tf32":
        bits = e.bits("float", "i32", value)
        bias = 0x1000 if mode != "rz" else 0
        nan = e.cmp("fcmp uno", "float", value, value)
        rounded = e.sel(nan, "i32", bits, e.op("add", "i32", bits, e.k("i32", bias)))
        bits = e.op("and", "i32", rounded, e.k("i32", ~0x1FFF))
        e.define(i.operands[0], "i32", bits)
        return
    if elem != want:
        value = _convert(e, elem, want, value, mode)
    if "relu" in i.modifiers:
        value = _relu(e, want, value)
    if "sat" in i.modifiers:
        value = floats.clamp(e, want, value)
    if "ftz" in i.modifiers and want == "float":
        value = floats.flush(e, want, value)
    e.define(i.operands[0], want, value)


def _relu(e: FunctionEmitter, elem: str, value: str) -> str:
    zero = e.call("llvm.maximumnum", elem, value, e.real(elem, 0.0))
    return e.sel(e.cmp("fcmp uno", elem, value, value), elem, value, zero)


def _convert(e: FunctionEmitter, elem: str, want: str, value: str, mode: str) -> str:
    sizes = {"half": 16, "float": 32, "double": 64}
    if sizes[want] > sizes[elem]:
        return e.cast("fpext", elem, want, value)
    if mode == "rn":
        return e.cast("fptrunc", elem, want, value)
    if not e.kernel.avx512:
        e.fail(f"rounding .{mode} needs a processor with AVX-512")
    if want == "float":

        def narrow(part: str) -> str:
            return e.invoke(
                "llvm.x86.avx512.mask.cvtpd2ps.512",
                "<8 x float>",
                [
                    ("<8 x double>", part),
                    ("<8 x float>", "zeroinitializer"),
                    ("i8", "-1"),
                    ("i32", str(_MODES[mode])),
                ],
            )

        return floats.in_parts(e, "double", [value], 8, "float", narrow)

    def halve(part: str) -> str:
        return e.invoke(
            "llvm.x86.avx512.mask.vcvtps2ph.512",
            "<16 x i16>",
            [
                ("<16 x float>", part),
                ("i32", str(_F16_CONTROL[mode])),
                ("<16 x i16>", "zeroinitializer"),
                ("i16", "-1"),
            ],
        )

    return e.bits("i16", "half", floats.in_parts(e, "float", [value], 16, "i16", halve))


def _to_packed(e: FunctionEmitter, i: Instruction, target: str, source: str) -> None:
    """Two floats to the halves of a word: the first to the upper one."""
    d, *sources = i.operands
    if source != "f32" or len(sources) != 2:
        e.fail(f"cvt.{target}.{source} is not supported")
    e.choose(i, *sources)
    mode = floats.rounding(i)
    parts = []
    for operand in sources[::-1]:
        value = e.get(operand, "float")
        if "relu" in i.modifiers:
            value = _relu(e, "float", value)
        if target == "bf16x2":
            parts.append(floats.narrow_bf16(e, value, mode))
        else:
            half = _convert(e, "float", "half", value, mode)
            parts.append(e.bits("half", "i16", e.canonical("half", half)))
    low, high = (e.cast("zext", "i16", "i32", p) for p in parts)
    e.define(d, "i32", e.op("or", "i32", low, e.op("shl", "i32", high, e.k("i32", 16))))


def _pack_integers(e: FunctionEmitter, i: Instruction) -> None:
    """cvt.pack.sat: two numbers, saturated, and the upper part of a third."""
    d, a, b, *rest = i.operands
    types = [m for m in i.modifiers if m[1:].isdigit()]
    small, source = types[0], types[1]
    size = int(small[1:])
    e.choose(i, a, b, *rest)
    parts = []
    for operand in (b, a):
        value = _saturate(e, e.get(operand, "i32"), source, small if size >= 8 else small[0] + "8")
        if size < 8:
            low, high = (-(1 << size - 1), (1 << size - 1) - 1)
            if small[0] == "u":
                low, high = 0, (1 << size) - 1
            value = e.call("llvm.smax", "i32", value, e.k("i32", low))
            value = e.call("llvm.smin", "i32", value, e.k("i32", high))
        parts.append(e.op("and", "i32", value, e.k("i32", (1 << size) - 1)))
    result = e.op("or", "i32", parts[0], e.op("shl", "i32", parts[1], e.k("i32", size)))
    if rest:
        shifted = e.op("shl", "i32", e.get(rest[0], "i32"), e.k("i32", 2 * size))
        result = e.op("or", "i32", result, shifted)
    e.define(d, "i32", result)
