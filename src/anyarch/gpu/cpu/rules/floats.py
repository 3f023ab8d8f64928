"""Floating point: PTX ISA 9.0, 9.7.3 to 9.7.5. Directed rounding uses AVX-512's embedded modes.

bf16 is computed as f32 and rounded, which is exact for one operation (24 ≥ 2 × 8 + 2 bits); a fused
operation of 16 bits goes through f64 and rounding to odd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import approximations as approx
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import Instruction, Operand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_MODES: Final = {"rn": 8, "rm": 9, "rp": 10, "rz": 11}
_EXPONENT: Final = {"float": 0x7F800000, "half": 0x7C00, "double": 0x7FF0 << 48}


def rounding(i: Instruction) -> str:
    """The rounding that an instruction names, rn if none."""
    return next((m for m in i.modifiers if m in _MODES), "rn")


def flush(e: FunctionEmitter, elem: str, x: str) -> str:
    """Subnormal numbers to zero of the same sign."""
    integer = f"i{ {'float': 32, 'half': 16, 'double': 64}[elem] }"
    bits = e.bits(elem, integer, x)
    exponent = e.op("and", integer, bits, e.k(integer, _EXPONENT[elem]))
    small = e.cmp("icmp eq", integer, exponent, e.k(integer, 0))
    sign = e.op("and", integer, bits, e.k(integer, 1 << int(integer[1:]) - 1))
    return e.bits(integer, elem, e.sel(small, integer, sign, bits))


def clamp(e: FunctionEmitter, elem: str, x: str) -> str:
    """.sat: to [0, 1], NaN to zero."""
    low = e.call("llvm.maximumnum", elem, x, e.real(elem, 0.0))
    return e.call("llvm.minimumnum", elem, low, e.real(elem, 1.0))


def halves(e: FunctionEmitter, type_: str, bits: str) -> list[str]:
    """The two elements of a packed value, bf16 as floats."""
    low = e.cast("trunc", "i32", "i16", bits)
    high = e.cast("trunc", "i32", "i16", e.op("lshr", "i32", bits, e.k("i32", 16)))
    if type_ == "bf16x2":
        return [widen_bf16(e, v) for v in (low, high)]
    if type_ != "f16x2":
        return [low, high]
    return [e.bits("i16", "half", v) for v in (low, high)]


def widen_bf16(e: FunctionEmitter, bits: str) -> str:
    """bf16 bits as a float."""
    wide = e.cast("zext", "i16", "i32", bits)
    return e.bits("i32", "float", e.op("shl", "i32", wide, e.k("i32", 16)))


def narrow_bf16(e: FunctionEmitter, x: str, mode: str = "rn") -> str:
    """A float as bf16 bits."""
    bits = e.bits("float", "i32", x)
    high = e.op("lshr", "i32", bits, e.k("i32", 16))
    if mode == "rn":
        odd = e.op("and", "i32", high, e.k("i32", 1))
        bias = e.op("add", "i32", odd, e.k("i32", 0x7FFF))
        high = e.op("lshr", "i32", e.op("add", "i32", bits, bias), e.k("i32", 16))
    elif mode in ("rm", "rp"):
        negative = e.cmp("icmp slt", "i32", bits, e.k("i32", 0))
        away = negative if mode == "rm" else e.op("xor", "i1", negative, e.k("i1", 1))
        bias = e.sel(away, "i32", e.k("i32", 0xFFFF), e.k("i32", 0))
        high = e.op("lshr", "i32", e.op("add", "i32", bits, bias), e.k("i32", 16))
    nan = e.cmp("fcmp uno", "float", x, x)
    return e.cast("trunc", "i32", "i16", e.sel(nan, "i32", e.k("i32", 0x7FFF), high))


def operands(e: FunctionEmitter, type_: str, source: Operand) -> tuple[str, list[str]]:
    """An operand as values of the type that is computed in: one, or two if it is packed."""
    if type_ == "bf16":
        return "float", [widen_bf16(e, e.get(source, "i16"))]
    if type_ in ("f16x2", "bf16x2"):
        return ("float" if type_ == "bf16x2" else "half"), halves(e, type_, e.get(source, "i32"))
    elem = elem_of(type_)
    return elem, [e.get(source, elem)]


def finish(e: FunctionEmitter, i: Instruction, type_: str, results: list[str]) -> None:
    """Write what was computed per element, after .relu, .sat and .ftz."""
    elem = "float" if "b" in type_ else elem_of(type_).split(" ")[-1]
    for n, value in enumerate(results):
        if "relu" in i.modifiers:
            zero = e.call("llvm.maximumnum", elem, value, e.real(elem, 0.0))
            nan = e.cmp("fcmp uno", elem, value, value)
            value = e.sel(nan, elem, value, zero)
        if "sat" in i.modifiers:
            value = clamp(e, elem, value)
        if "ftz" in i.modifiers:
            value = flush(e, elem, value)
        results[n] = value
    d = i.operands[0]
    if type_ in ("f32", "f64", "f16"):
        e.define(d, elem, results[0])
        return
    if "b" in type_:
        bits = [narrow_bf16(e, v) for v in results]
    else:
        bits = [e.bits("half", "i16", e.canonical("half", v)) for v in results]
    if type_ == "bf16":
        e.define(d, "i16", bits[0])
        return
    low, high = (e.cast("zext", "i16", "i32", b) for b in bits)
    packed = e.op("or", "i32", low, e.op("shl", "i32", high, e.k("i32", 16)))
    e.define(d, "i32", packed)


def elementwise(
    e: FunctionEmitter,
    i: Instruction,
    sources: tuple[Operand, ...],
    compute: Callable[..., str],
) -> None:
    """Apply `compute(elem, operand…)` to each element, with .ftz on operands."""
    type_ = i.types[-1]
    e.choose(i, *sources)
    elem = ""
    listed = []
    for source in sources:
        elem, values = operands(e, type_, source)
        if "ftz" in i.modifiers:
            values = [flush(e, elem, v) for v in values]
        listed.append(values)
    finish(e, i, type_, [compute(elem, *each) for each in zip(*listed)])


def in_parts(
    e: FunctionEmitter,
    elem: str,
    values: list[str],
    size: int,
    result: str,
    compute: Callable[..., str],
) -> str:
    """Apply a function on vectors of `size`, with results of `result`, in the current mode."""
    if e.vec:
        columns = [e.parts(elem, v, size) for v in values]
        return e.whole(result, [compute(*each) for each in zip(*columns)], size)
    wide = [
        e.let(f"insertelement <{size} x {elem}> zeroinitializer, {elem} {v}, i64 0") for v in values
    ]
    return e.let(f"extractelement <{size} x {result}> {compute(*wide)}, i64 0")


_ROUNDED: Final = {
    "fadd": "add.p{}.512",
    "fsub": "sub.p{}.512",
    "fmul": "mul.p{}.512",
    "fdiv": "div.p{}.512",
    "sqrt": "sqrt.p{}.512",
    "fma": "vfmadd.p{}.512",
}


def rounded(e: FunctionEmitter, name: str, elem: str, mode: str, *values: str) -> str:
    """An operation with a rounding direction."""
    if mode == "rn":
        if name in ("sqrt", "fma"):
            return e.call(f"llvm.{name}", elem, *values)
        return e.op(name, elem, *values)
    if elem not in ("float", "double"):
        e.fail(f"rounding .{mode} does not apply to this type")
    if not e.kernel.avx512:
        e.fail(f"rounding .{mode} needs a processor with AVX-512")
    size = 16 if elem == "float" else 8
    full = "llvm.x86.avx512." + _ROUNDED[name].format("s" if elem == "float" else "d")
    type_ = f"<{size} x {elem}>"

    def compute(*parts: str) -> str:
        return e.invoke(full, type_, [*((type_, p) for p in parts), ("i32", str(_MODES[mode]))])

    return in_parts(e, elem, list(values), size, elem, compute)


def add(e: FunctionEmitter, i: Instruction) -> None:
    """a ± b."""
    name, mode = "f" + i.opcode, rounding(i)
    elementwise(e, i, i.operands[1:], lambda elem, *v: rounded(e, name, elem, mode, *v))


def mul(e: FunctionEmitter, i: Instruction) -> None:
    """a × b."""
    mode = rounding(i)
    elementwise(e, i, i.operands[1:], lambda elem, *v: rounded(e, "fmul", elem, mode, *v))


@rule("fma")
def fma(e: FunctionEmitter, i: Instruction) -> None:
    """a × b + c, rounded once."""
    mode, type_ = rounding(i), i.types[-1]

    def compute(elem: str, *v: str) -> str:
        if type_ in ("f32", "f64"):
            return rounded(e, "fma", elem, mode, *v)
        wide = [e.cast("fpext", elem, "double", x) for x in v]
        odd = to_odd(e, _exact_sum(e, *wide))
        return odd if elem == "float" else e.cast("fptrunc", "float", elem, odd)

    elementwise(e, i, i.operands[1:], compute)


def _exact_sum(e: FunctionEmitter, a: str, b: str, c: str) -> str:
    """a × b + c as a double rounded to odd; the product of 16-bit floats is exact."""
    product = e.op("fmul", "double", a, b)
    total = e.op("fadd", "double", product, c)
    shadow = e.op("fsub", "double", total, product)
    first = e.op("fsub", "double", product, e.op("fsub", "double", total, shadow))
    error = e.op("fadd", "double", first, e.op("fsub", "double", c, shadow))
    bits = e.bits("double", "i64", total)
    inexact = e.cmp("fcmp one", "double", error, e.real("double", 0.0))
    signs = e.op("xor", "i64", bits, e.bits("double", "i64", error))
    opposite = e.cmp("icmp slt", "i64", signs, e.k("i64", 0))
    away = e.op("and", "i1", inexact, opposite)
    lower = e.op("sub", "i64", bits, e.cast("zext", "i1", "i64", away))
    odd = e.op("or", "i64", lower, e.cast("zext", "i1", "i64", inexact))
    return e.bits("i64", "double", odd)


def to_odd(e: FunctionEmitter, x: str) -> str:
    """A double as a float, rounded to odd: a second rounding is then exact."""
    near = e.cast("fptrunc", "double", "float", x)
    back = e.cast("fpext", "float", "double", near)
    bits = e.bits("float", "i32", near)
    # What rounded away from zero goes one step back; the last bit then tells that it is inexact.
    larger = e.cmp(
        "fcmp ogt", "double", e.call("llvm.fabs", "double", back), e.call("llvm.fabs", "double", x)
    )
    inexact = e.cmp("fcmp one", "double", back, x)
    lower = e.op("sub", "i32", bits, e.cast("zext", "i1", "i32", larger))
    odd = e.op("or", "i32", lower, e.cast("zext", "i1", "i32", inexact))
    return e.bits("i32", "float", odd)


def div(e: FunctionEmitter, i: Instruction) -> None:
    """a / b; .approx and .full within 2 ulp."""
    mode = rounding(i)

    def compute(elem: str, a: str, b: str) -> str:
        if "approx" in i.modifiers and e.kernel.avx512:
            return approx.quotient(e, a, b)
        return rounded(e, "fdiv", elem, mode, a, b)

    elementwise(e, i, i.operands[1:], compute)


def sign(e: FunctionEmitter, i: Instruction) -> None:
    """|a| and −a."""

    def compute(elem: str, a: str) -> str:
        if i.opcode == "abs":
            return e.call("llvm.fabs", elem, a)
        return e.let(f"fneg {e.t(elem)} {a}")

    elementwise(e, i, i.operands[1:], compute)


def minimum(e: FunctionEmitter, i: Instruction) -> None:
    """The smaller or larger; .NaN propagates NaN; −0 is less than +0."""
    name = ("minimum" if i.opcode == "min" else "maximum") + ("" if "NaN" in i.modifiers else "num")

    def compute(elem: str, a: str, b: str) -> str:
        x, y = a, b
        if "abs" in i.modifiers:
            x, y = (e.call("llvm.fabs", elem, v) for v in (a, b))
        result = e.call(f"llvm.{name}", elem, x, y)
        if "xorsign" in i.modifiers:
            magnitude = e.call("llvm.fabs", elem, result)
            integer = {"float": "i32", "half": "i16", "double": "i64"}[elem]
            signs = e.op("xor", integer, e.bits(elem, integer, a), e.bits(elem, integer, b))
            top = e.k(integer, 1 << int(integer[1:]) - 1)
            both = e.op(
                "or", integer, e.bits(elem, integer, magnitude), e.op("and", integer, signs, top)
            )
            result = e.bits(integer, elem, both)
        return result

    sources = i.operands[1:]
    if len(sources) == 3:
        elementwise(e, i, sources, lambda elem, a, b, c: compute(elem, compute(elem, a, b), c))
    else:
        elementwise(e, i, sources, compute)


@rule("sqrt")
def sqrt(e: FunctionEmitter, i: Instruction) -> None:
    """The square root; .approx is exact here."""
    mode = rounding(i)
    elementwise(e, i, i.operands[1:], lambda elem, a: rounded(e, "sqrt", elem, mode, a))


@rule("rcp")
def rcp(e: FunctionEmitter, i: Instruction) -> None:
    """1 / a."""
    mode = rounding(i)

    def compute(elem: str, a: str) -> str:
        if "approx" in i.modifiers:
            if elem == "double":  # .ftz drops the low half of the result
                return _high_word(e, e.op("fdiv", elem, e.real(elem, 1.0), _high_word(e, a)))
            if e.kernel.avx512:
                return approx.reciprocal(e, a)
        return rounded(e, "fdiv", elem, mode, e.real(elem, 1.0), a)

    elementwise(e, i, i.operands[1:], compute)


def _high_word(e: FunctionEmitter, x: str) -> str:
    bits = e.bits("double", "i64", x)
    kept = e.op("and", "i64", bits, e.k("i64", -1 << 32))
    return e.bits("i64", "double", kept)


@rule("rsqrt")
def rsqrt(e: FunctionEmitter, i: Instruction) -> None:
    """1 / √a."""

    def compute(elem: str, a: str) -> str:
        if elem == "float" and e.kernel.avx512:
            return approx.reciprocal_root(e, a)
        root = e.call("llvm.sqrt", elem, a)
        return e.op("fdiv", elem, e.real(elem, 1.0), root)

    elementwise(e, i, i.operands[1:], compute)


@rule("ex2", "lg2", "sin", "cos", "tanh")
def function(e: FunctionEmitter, i: Instruction) -> None:
    """Approximate functions, computed in f32."""
    compute = {
        "ex2": approx.exp2,
        "lg2": approx.log2,
        "sin": approx.sine,
        "cos": approx.cosine,
        "tanh": approx.hyperbolic_tangent,
    }[i.opcode]

    def one(elem: str, a: str) -> str:
        if elem == "half":
            result = compute(e, e.cast("fpext", elem, "float", a))
            return e.cast("fptrunc", "float", elem, result)
        return compute(e, a)

    elementwise(e, i, i.operands[1:], one)


@rule("copysign")
def copysign(e: FunctionEmitter, i: Instruction) -> None:
    """b with the sign of a."""
    d, a, b = i.operands
    integer = "i32" if i.types[-1] == "f32" else "i64"
    e.choose(i, a, b)
    top = 1 << int(integer[1:]) - 1
    signs = e.op("and", integer, e.get(a, integer), e.k(integer, top))
    rest = e.op("and", integer, e.get(b, integer), e.k(integer, ~top))
    e.define(d, integer, e.op("or", integer, signs, rest))


@rule("testp")
def testp(e: FunctionEmitter, i: Instruction) -> None:
    """The class of a number."""
    d, a = i.operands
    elem = elem_of(i.types[-1])
    e.choose(i, a)
    x = e.get(a, elem)
    which = {
        "finite": 0x1F8,
        "infinite": 0x204,
        "number": 0x3FC,
        "notanumber": 0x3,
        "normal": 0x168,  # zero is
        "subnormal": 0x90,
    }
    mask = next((which[m] for m in i.modifiers if m in which), None)
    if mask is None:
        e.fail("testp needs a class")
    name = f"llvm.is.fpclass.{e.mangled(elem)}"
    e.declare(name, e.t("i1"), [e.t(elem), "i32"])
    e.define(d, "i1", e.let(f"call {e.t('i1')} @{name}({e.t(elem)} {x}, i32 {mask})"))
