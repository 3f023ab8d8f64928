"""Floating-point effects to LLVM text: constrained intrinsics, exact flags in the host's MXCSR.

While native code runs, the guest's accrued flags live in MXCSR and its rounding mode is set there.
Where a rule is missing here (half precision, nearest-away) the reference engine runs the
instruction. By RISC-V's rules NaNs are canonical and tininess is seen after rounding, as on x86; by
Arm's NaNs propagate in an order of their own, and tininess is seen before rounding: the results
that this concerns are left to the reference engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.emit.llvm import Emitter
from anyarch.ir.graph import ROUNDED, Node

TYPES: Final = {"f32": "float", "f64": "double"}
SIZES: Final = {"f32": 32, "f64": 64}
CANONICAL: Final = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
SUFFIX: Final = {"f32": "f32", "f64": "f64"}
# Rounding modes to the RC bits of MXCSR: nearest-even, towards zero, down, up.
CONTROL: Final = (0x0000, 0x6000, 0x2000, 0x4000)
AWAY: Final = 4  # a rounding mode that the host lacks
TO_INTEGRAL: Final = ("fto_int", "fround", "fround_exact")
STRICT: Final = 'metadata !"fpexcept.strict"'
DYNAMIC: Final = f'metadata !"round.dynamic", {STRICT}'
INVALID: Final = 1  # MXCSR flag bits
INEXACT: Final = 32


def is_native(node: Node) -> bool:
    """Whether a floating-point effect has a rule here."""
    formats = [attr for attr in node.attrs if isinstance(attr, str) and attr != "dynamic"]
    if any(fmt not in TYPES for fmt in formats) or node.op not in RULES:
        return False
    if node.op in TO_INTEGRAL and node.attrs[-1] == AWAY:
        return True
    return node.op not in ROUNDED or node.attrs[-1] not in (4, 5)


def uses_mode(node: Node, rules: str) -> bool:
    """Whether the effect depends on the guest's mode being one of the host's rounding modes.

    By Arm's rules all do: beside rounding, the mode says what becomes of subnormals and NaNs.
    """
    return rules == "arm" or (node.op in ROUNDED and node.attrs[-1] == "dynamic")


def read_mxcsr(e: Emitter) -> str:
    """MXCSR as i32."""
    e.line("call void @llvm.x86.sse.stmxcsr(ptr %status)")
    return e.let("load i32, ptr %status")


def write_mxcsr(e: Emitter, value: str) -> None:
    """Set MXCSR."""
    e.line(f"store i32 {value}, ptr %status")
    e.line("call void @llvm.x86.sse.ldmxcsr(ptr %status)")


def raise_flag(e: Emitter, flag: int) -> None:
    """Accrue a flag, given as an MXCSR bit."""
    write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))


def read_flags(e: Emitter) -> str:
    """Accrued flags as i5: NX 1, UF 2, OF 4, DZ 8, NV 16."""
    status = read_mxcsr(e)
    result = "0"
    for host, guest in ((5, 0), (4, 1), (3, 2), (2, 3), (0, 4)):
        bit = e.let(f"lshr i32 {status}, {host}")
        bit = e.let(f"and i32 {bit}, 1")
        bit = e.let(f"shl i32 {bit}, {guest}")
        result = e.let(f"or i32 {result}, {bit}")
    return e.let(f"trunc i32 {result} to i5")


def write_flags(e: Emitter, value: str) -> None:
    """Replace the accrued flags by an i5."""
    wide = e.let(f"zext i5 {value} to i32")
    status = e.let(f"and i32 {read_mxcsr(e)}, {~0x3F}")
    for host, guest in ((5, 0), (4, 1), (3, 2), (2, 3), (0, 4)):
        bit = e.let(f"lshr i32 {wide}, {guest}")
        bit = e.let(f"and i32 {bit}, 1")
        bit = e.let(f"shl i32 {bit}, {host}")
        status = e.let(f"or i32 {status}, {bit}")
    write_mxcsr(e, status)


def set_control(e: Emitter, mode: str) -> None:
    """Set MXCSR's rounding from a guest mode in i32; modes it lacks become nearest-even."""
    # The four two-bit codes of CONTROL, packed: shift by twice the mode.
    twice = e.let(f"shl i32 {mode}, 1")
    inside = e.let(f"icmp ult i32 {mode}, 4")
    twice = e.let(f"select i1 {inside}, i32 {twice}, i32 0")
    packed = sum(code >> 13 << 2 * index for index, code in enumerate(CONTROL))
    code = e.let(f"lshr i32 {packed}, {twice}")
    code = e.let(f"and i32 {code}, 3")
    code = e.let(f"shl i32 {code}, 13")
    status = e.let(f"and i32 {read_mxcsr(e)}, {~0x6000}")
    write_mxcsr(e, e.let(f"or i32 {status}, {code}"))


def is_exact(node: Node) -> bool:
    """Whether a conversion never rounds: MXCSR is slow to change."""
    match node.op:
        case "fconvert":
            source, target = str(node.attrs[0]), str(node.attrs[1])
            return source == target or SIZES[source] < SIZES[target]
        case "ffrom_int":
            return node.args[0].size < {"f32": 24, "f64": 53}.get(str(node.attrs[0]), 0)
    return False


def emit(e: Emitter, node: Node) -> str:
    """The value of a floating-point effect that :func:`is_native`."""
    rounding = node.attrs[-1] if node.op in ROUNDED else "dynamic"
    rule = RULES[node.op]
    if rounding == "dynamic" or node.op in TO_INTEGRAL or is_exact(node):
        return rule(e, node)
    before = read_mxcsr(e)
    cleared = e.let(f"and i32 {before}, {~0x6000}")
    write_mxcsr(e, e.let(f"or i32 {cleared}, {CONTROL[int(rounding)]}"))
    result = rule(e, node)
    control = e.let(f"and i32 {before}, {0x6000}")
    after = e.let(f"and i32 {read_mxcsr(e)}, {~0x6000}")
    write_mxcsr(e, e.let(f"or i32 {after}, {control}"))
    return result


def _operands(e: Emitter, node: Node, fmt: str) -> list[str]:
    kind, size = TYPES[fmt], SIZES[fmt]
    return [e.let(f"bitcast i{size} {e.value(arg)} to {kind}") for arg in node.args]


def _unordered(e: Emitter, fmt: str, a: str, b: str) -> str:
    kind = TYPES[fmt]
    return e.let(
        f"call i1 @llvm.experimental.constrained.fcmp.{SUFFIX[fmt]}"
        f'({kind} {a}, {kind} {b}, metadata !"uno", {STRICT}) #1'
    )


def _compare(e: Emitter, fmt: str, predicate: str, a: str, b: str, *, signaling: bool) -> str:
    kind = TYPES[fmt]
    return e.let(
        f"call i1 @llvm.experimental.constrained.fcmp{'s' if signaling else ''}.{SUFFIX[fmt]}"
        f'({kind} {a}, {kind} {b}, metadata !"{predicate}", {STRICT}) #1'
    )


def _canonical(e: Emitter, fmt: str, value: str, in_nan: Callable[[], object] | None = None) -> str:
    """The bits of a result, with the canonical NaN unless the emitter says that none can tell."""
    if e.canonical_nans or in_nan is not None:
        value = canonical(e, fmt, value, in_nan)
    return e.let(f"bitcast {TYPES[fmt]} {value} to i{SIZES[fmt]}")


def canonical(e: Emitter, fmt: str, value: str, in_nan: Callable[[], object] | None = None) -> str:
    """The value, its NaN replaced on an unlikely path (a select would be slower)."""
    kind = TYPES[fmt]
    nan, done = e.name("nan"), e.name("done")
    unordered = _unordered(e, fmt, value, value)
    before = e.block
    e.branch(unordered, nan, done, unlikely=True)
    e.label(nan)
    if in_nan is not None:
        e.push()
        in_nan()
        e.pop()
    after = e.block
    e.line(f"br label %{done}")
    e.label(done)
    nan_value = "0x7FF8000000000000"  # how LLVM writes it in either type
    return e.let(f"phi {kind} [ {nan_value}, %{after} ], [ {value}, %{before} ]")


INFINITY: Final = {"f32": 0x7F800000, "f64": 0x7FF0000000000000}
QUIET: Final = {"f32": 1 << 22, "f64": 1 << 51}
LEAST_NORMAL: Final = {"f32": 1 << 23, "f64": 1 << 52}


def _magnitude(e: Emitter, fmt: str, bits: str) -> str:
    return e.let(f"and i{SIZES[fmt]} {bits}, {(1 << (SIZES[fmt] - 1)) - 1}")


def _is_signaling(e: Emitter, fmt: str, bits: str, nan: str) -> str:
    t = f"i{SIZES[fmt]}"
    quiet = e.let(f"icmp eq {t} {e.let(f'and {t} {bits}, {QUIET[fmt]}')}, 0")
    return e.let(f"and i1 {nan}, {quiet}")


def _propagated(e: Emitter, fmt: str, operands: list[str]) -> str:
    """Arm's NaN: the first signalling one of the operands' bits, made quiet, else the first."""
    t = f"i{SIZES[fmt]}"
    result = str(CANONICAL[fmt])
    nans = [e.let(f"icmp ugt {t} {_magnitude(e, fmt, bits)}, {INFINITY[fmt]}") for bits in operands]
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        result = e.let(f"select i1 {nan}, {t} {bits}, {t} {result}")
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        signaling = _is_signaling(e, fmt, bits, nan)
        quiet = e.let(f"or {t} {bits}, {QUIET[fmt]}")
        result = e.let(f"select i1 {signaling}, {t} {quiet}, {t} {result}")
    return result


def _arm_result(
    e: Emitter, fmt: str, value: str, in_nan: Callable[[], str], *, may_be_tiny: bool
) -> str:
    """The bits of a result, its NaN replaced by what ``in_nan`` emits, on an unlikely path.

    A result of the least normal magnitude may have been tiny before rounding, where the host has
    raised no underflow.
    """
    kind, size = TYPES[fmt], SIZES[fmt]
    bits = e.let(f"bitcast {kind} {value} to i{size}")
    if may_be_tiny:
        magnitude = _magnitude(e, fmt, bits)
        e.emulate_if(e.let(f"icmp eq i{size} {magnitude}, {LEAST_NORMAL[fmt]}"))
    nan, done = e.name("nan"), e.name("done")
    unordered = _unordered(e, fmt, value, value)
    before = e.block
    e.branch(unordered, nan, done, unlikely=True)
    e.label(nan)
    e.push()
    instead = in_nan()
    e.pop()
    after = e.block
    e.line(f"br label %{done}")
    e.label(done)
    return e.let(f"phi i{size} [ {instead}, %{after} ], [ {bits}, %{before} ]")


def _arithmetic(name: str) -> Callable[[Emitter, Node], str]:
    def rule(e: Emitter, node: Node) -> str:
        fmt = str(node.attrs[0])
        kind = TYPES[fmt]
        operands = ", ".join(f"{kind} {operand}" for operand in _operands(e, node, fmt))
        intrinsic = f"@llvm.experimental.constrained.{name}.{SUFFIX[fmt]}"
        result = e.let(f"call {kind} {intrinsic}({operands}, {DYNAMIC}) #1")
        if e.float_rules != "arm":
            return _canonical(e, fmt, result)
        bits = [e.value(arg) for arg in node.args]
        tiny = name in ("fmul", "fdiv")  # sums are exact where they are tiny
        return _arm_result(e, fmt, result, lambda: _propagated(e, fmt, bits), may_be_tiny=tiny)

    return rule


def _fma(e: Emitter, node: Node) -> str:
    fmt = str(node.attrs[0])
    kind = TYPES[fmt]
    a, b, c = _operands(e, node, fmt)
    result = e.let(
        f"call {kind} @llvm.experimental.constrained.fma.{SUFFIX[fmt]}"
        f"({kind} {a}, {kind} {b}, {kind} {c}, {DYNAMIC}) #1"
    )

    def infinity_times_zero() -> str:
        """x86 raises no invalid for fma(inf, 0, qNaN); IEEE 754 leaves it open, RISC-V demands."""
        size = SIZES[fmt]
        magnitude = (1 << (size - 1)) - 1
        infinity = INFINITY[fmt]
        tests = []
        for x, y in ((0, 1), (1, 0)):
            low = e.let(f"and i{size} {e.value(node.args[x])}, {magnitude}")
            high = e.let(f"and i{size} {e.value(node.args[y])}, {magnitude}")
            is_infinite = e.let(f"icmp eq i{size} {low}, {infinity}")
            is_zero = e.let(f"icmp eq i{size} {high}, 0")
            tests.append(e.let(f"and i1 {is_infinite}, {is_zero}"))
        either = e.let(f"or i1 {tests[0]}, {tests[1]}")
        flag = e.let(f"zext i1 {either} to i32")
        write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))
        return either

    def propagated() -> str:
        """Arm: the addend first; the default NaN where it is quiet and the product invalid."""
        x, y, addend = bits
        t = f"i{SIZES[fmt]}"
        no_product = infinity_times_zero()
        nan = e.let(f"icmp ugt {t} {_magnitude(e, fmt, addend)}, {INFINITY[fmt]}")
        signaling = _is_signaling(e, fmt, addend, nan)
        default = e.let(f"and i1 {no_product}, {e.let(f'xor i1 {signaling}, true')}")
        chosen = _propagated(e, fmt, [addend, x, y])
        return e.let(f"select i1 {default}, {t} {CANONICAL[fmt]}, {t} {chosen}")

    if e.float_rules == "arm":
        bits = [e.value(arg) for arg in node.args]
        return _arm_result(e, fmt, result, propagated, may_be_tiny=True)
    return _canonical(e, fmt, result, infinity_times_zero)


def _convert(e: Emitter, node: Node) -> str:
    source, target = str(node.attrs[0]), str(node.attrs[1])
    (a,) = _operands(e, node, source)
    if source == target:
        return e.value(node.args[0])
    if SIZES[target] > SIZES[source]:
        result = e.let(
            f"call double @llvm.experimental.constrained.fpext.f64.f32(float {a}, {STRICT}) #1"
        )
    else:
        result = e.let(
            f"call float @llvm.experimental.constrained.fptrunc.f32.f64(double {a}, {DYNAMIC}) #1"
        )
    if e.float_rules == "arm":  # the host keeps a NaN's payload as Arm does
        bits = e.let(f"bitcast {TYPES[target]} {result} to i{SIZES[target]}")
        if SIZES[target] < SIZES[source]:
            magnitude = _magnitude(e, target, bits)
            least = LEAST_NORMAL[target]
            e.emulate_if(e.let(f"icmp eq i{SIZES[target]} {magnitude}, {least}"))
        return bits
    return _canonical(e, target, result)


def _from_int(e: Emitter, node: Node) -> str:
    fmt, signed = str(node.attrs[0]), bool(node.attrs[1])
    kind, size = TYPES[fmt], SIZES[fmt]
    source = node.args[0]
    value = e.value(source)

    def convert(integer: str) -> str:
        return e.let(
            f"call {kind} @llvm.experimental.constrained.sitofp.{SUFFIX[fmt]}.i64"
            f"(i64 {integer}, {DYNAMIC}) #1"
        )

    if source.size < 64:
        value = e.let(f"{'sext' if signed else 'zext'} i{source.size} {value} to i64")
    if signed or source.size < 64:
        return e.let(f"bitcast {kind} {convert(value)} to i{size}")
    # Above 2**63: halve, keeping the lost bit sticky; doubling the result is exact.
    small, large, done = e.name("small"), e.name("large"), e.name("done")
    negative = e.let(f"icmp slt i64 {value}, 0")
    e.branch(negative, large, small)
    e.label(small)
    plain = convert(value)
    e.line(f"br label %{done}")
    e.label(large)
    half = e.let(f"lshr i64 {value}, 1")
    sticky = e.let(f"and i64 {value}, 1")
    halved = convert(e.let(f"or i64 {half}, {sticky}"))
    doubled = e.let(
        f"call {kind} @llvm.experimental.constrained.fadd.{SUFFIX[fmt]}"
        f"({kind} {halved}, {kind} {halved}, {DYNAMIC}) #1"
    )
    e.line(f"br label %{done}")
    e.label(done)
    result = e.let(f"phi {kind} [ {plain}, %{small} ], [ {doubled}, %{large} ]")
    return e.let(f"bitcast {kind} {result} to i{size}")


def _integral(e: Emitter, fmt: str, a: str, rounding: object) -> str:
    """Rounded to an integral value, without the inexact flag."""
    kind = TYPES[fmt]
    if rounding == "dynamic":
        return e.let(
            f"call {kind} @llvm.experimental.constrained.nearbyint.{SUFFIX[fmt]}"
            f"({kind} {a}, {DYNAMIC}) #1"
        )
    if rounding == AWAY:
        return _nearest_away(e, fmt, a)
    name = {0: "roundeven", 1: "trunc", 2: "floor", 3: "ceil"}[int(str(rounding))]
    return e.let(
        f"call {kind} @llvm.experimental.constrained.{name}.{SUFFIX[fmt]}({kind} {a}, {STRICT}) #1"
    )


def _literal(fmt: str, value: float) -> str:
    import struct

    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _to_int(e: Emitter, node: Node) -> str:
    """Round, check the range, then convert exactly: LLVM's conversion is poison out of range."""
    fmt, signed, rounding = str(node.attrs[0]), bool(node.attrs[1]), node.attrs[2]
    kind, size = TYPES[fmt], node.size
    (a,) = _operands(e, node, fmt)
    rounded = _integral(e, fmt, a, rounding)
    low = -float(1 << (size - 1)) if signed else 0.0
    high = float(1 << (size - 1 if signed else size))
    above = _compare(e, fmt, "oge", rounded, _literal(fmt, low), signaling=False)
    below = _compare(e, fmt, "olt", rounded, _literal(fmt, high), signaling=False)
    inside = e.let(f"and i1 {above}, {below}")
    good, bad, done = e.name("good"), e.name("bad"), e.name("done")
    outside = e.let(f"xor i1 {inside}, true")
    e.branch(outside, bad, good, unlikely=True)

    e.label(bad)
    raise_flag(e, INVALID)
    largest = (1 << (size - 1 if signed else size)) - 1
    smallest = -(1 << (size - 1)) if signed else 0
    negative = _compare(e, fmt, "olt", a, _literal(fmt, 0.0), signaling=False)
    limit = e.let(f"select i1 {negative}, i{size} {smallest}, i{size} {largest}")
    if e.float_rules == "arm":
        unordered = _unordered(e, fmt, a, a)
        limit = e.let(f"select i1 {unordered}, i{size} 0, i{size} {limit}")
    after_bad = e.block
    e.line(f"br label %{done}")

    e.label(good)
    changed = _compare(e, fmt, "une", rounded, a, signaling=False)
    inexact, exact = e.name("inexact"), e.name("exact")
    e.branch(changed, inexact, exact)
    e.label(inexact)
    raise_inexact(e)
    e.line(f"br label %{exact}")
    e.label(exact)

    def convert(value: str) -> str:
        return e.let(
            f"call i64 @llvm.experimental.constrained.fptosi.i64.{SUFFIX[fmt]}"
            f"({kind} {value}, {STRICT}) #1"
        )

    if signed or size < 64:
        wide = convert(rounded)
    else:
        half = _literal(fmt, float(1 << 63))
        upper, lower, joined = e.name("upper"), e.name("lower"), e.name("joined")
        big = _compare(e, fmt, "oge", rounded, half, signaling=False)
        e.branch(big, upper, lower, unlikely=True)
        e.label(lower)
        plain = convert(rounded)
        e.line(f"br label %{joined}")
        e.label(upper)
        reduced = e.let(
            f"call {kind} @llvm.experimental.constrained.fsub.{SUFFIX[fmt]}"
            f"({kind} {rounded}, {kind} {half}, {DYNAMIC}) #1"
        )
        shifted = e.let(f"xor i64 {convert(reduced)}, {-(1 << 63)}")
        e.line(f"br label %{joined}")
        e.label(joined)
        wide = e.let(f"phi i64 [ {plain}, %{lower} ], [ {shifted}, %{upper} ]")
    narrow = wide if size == 64 else e.let(f"trunc i64 {wide} to i{size}")
    after_good = e.block
    e.line(f"br label %{done}")
    e.label(done)
    return e.let(f"phi i{size} [ {limit}, %{after_bad} ], [ {narrow}, %{after_good} ]")


def _nearest_away(e: Emitter, fmt: str, a: str) -> str:
    """The nearest integral value, ties away from zero, by exact operations."""
    kind, size = TYPES[fmt], SIZES[fmt]

    def call(name: str, operands: str, mode: str = STRICT) -> str:
        intrinsic = f"@llvm.experimental.constrained.{name}.{SUFFIX[fmt]}"
        return e.let(f"call {kind} {intrinsic}({operands}, {mode}) #1")

    whole = call("trunc", f"{kind} {a}")
    bits = e.let(f"bitcast {kind} {a} to i{size}")
    # From 2**23 or 2**52 up all values are integral.
    limit = {"f32": 0x4B000000, "f64": 0x4330000000000000}[fmt]
    small = e.let(f"icmp ult i{size} {_magnitude(e, fmt, bits)}, {limit}")
    inside = e.let(f"select i1 {small}, {kind} {a}, {kind} {_literal(fmt, 0.0)}")
    truncated = e.let(f"select i1 {small}, {kind} {whole}, {kind} {_literal(fmt, 0.0)}")
    rest = call("fsub", f"{kind} {inside}, {kind} {truncated}", DYNAMIC)
    distance = _magnitude(e, fmt, e.let(f"bitcast {kind} {rest} to i{size}"))
    half = {"f32": 0x3F000000, "f64": 0x3FE0000000000000}[fmt]
    away = e.let(f"icmp uge i{size} {distance}, {half}")
    sign = e.let(f"and i{size} {bits}, {-(1 << (size - 1))}")
    one = {"f32": 0x3F800000, "f64": 0x3FF0000000000000}[fmt]
    step = e.let(f"bitcast i{size} {e.let(f'or i{size} {sign}, {one}')} to {kind}")
    moved = call("fadd", f"{kind} {truncated}, {kind} {step}", DYNAMIC)
    return e.let(f"select i1 {away}, {kind} {moved}, {kind} {whole}")


def raise_inexact(e: Emitter) -> None:
    """Accrue inexact by an inexact sum: cheaper than a round trip through MXCSR."""
    e.line(
        "call float @llvm.experimental.constrained.fadd.f32"
        f"(float 1.0, float 0x3E10000000000000, {DYNAMIC}) #1"
    )


def _round(e: Emitter, node: Node) -> str:
    fmt, rounding = str(node.attrs[0]), node.attrs[1]
    (a,) = _operands(e, node, fmt)
    rounded = _integral(e, fmt, a, rounding)
    if node.op == "fround_exact":
        changed = _compare(e, fmt, "one", rounded, a, signaling=False)
        inexact, exact = e.name("inexact"), e.name("exact")
        e.branch(changed, inexact, exact)
        e.label(inexact)
        raise_inexact(e)
        e.line(f"br label %{exact}")
        e.label(exact)
    if e.float_rules == "arm":  # the host keeps a NaN, made quiet, as Arm does
        return e.let(f"bitcast {TYPES[fmt]} {rounded} to i{SIZES[fmt]}")
    return _canonical(e, fmt, rounded)


def _comparison(predicate: str, *, signaling: bool) -> Callable[[Emitter, Node], str]:
    def rule(e: Emitter, node: Node) -> str:
        fmt = str(node.attrs[0])
        a, b = _operands(e, node, fmt)
        return _compare(e, fmt, predicate, a, b, signaling=signaling)

    return rule


def _extremum(*, smallest: bool, number: bool) -> Callable[[Emitter, Node], str]:
    def rule(e: Emitter, node: Node) -> str:
        fmt = str(node.attrs[0])
        t = f"i{SIZES[fmt]}"
        a, b = _operands(e, node, fmt)
        bits_a, bits_b = (e.value(arg) for arg in node.args)
        unordered = _unordered(e, fmt, a, b)  # raises invalid for a signaling NaN
        nan, ordered, done = e.name("nan"), e.name("ordered"), e.name("done")
        e.branch(unordered, nan, ordered, unlikely=True)
        e.label(nan)
        arm = e.float_rules == "arm"
        result = _propagated(e, fmt, [bits_a, bits_b]) if arm else str(CANONICAL[fmt])
        if number and arm:
            # A number comes before a quiet NaN, not before a signalling one.
            magnitudes = [_magnitude(e, fmt, bits) for bits in (bits_a, bits_b)]
            nans = [e.let(f"icmp ugt {t} {each}, {INFINITY[fmt]}") for each in magnitudes]
            quiet = [
                e.let(f"icmp uge {t} {each}, {INFINITY[fmt] | QUIET[fmt]}") for each in magnitudes
            ]
            only_a = e.let(f"and i1 {quiet[0]}, {e.let(f'xor i1 {nans[1]}, true')}")
            only_b = e.let(f"and i1 {quiet[1]}, {e.let(f'xor i1 {nans[0]}, true')}")
            result = e.let(f"select i1 {only_a}, {t} {bits_b}, {t} {result}")
            result = e.let(f"select i1 {only_b}, {t} {bits_a}, {t} {result}")
        elif number:
            nan_a, nan_b = _unordered(e, fmt, a, a), _unordered(e, fmt, b, b)
            result = e.let(f"select i1 {nan_b}, {t} {result}, {t} {bits_b}")
            result = e.let(f"select i1 {nan_a}, {t} {result}, {t} {bits_a}")
        e.line(f"br label %{done}")
        e.label(ordered)
        less = _compare(e, fmt, "olt" if smallest else "ogt", a, b, signaling=False)
        equal = _compare(e, fmt, "oeq", a, b, signaling=False)
        # Equal operands differ at most in the sign of zero.
        joined = e.let(f"{'or' if smallest else 'and'} {t} {bits_a}, {bits_b}")
        other = e.let(f"select i1 {equal}, {t} {joined}, {t} {bits_b}")
        chosen = e.let(f"select i1 {less}, {t} {bits_a}, {t} {other}")
        e.line(f"br label %{done}")
        e.label(done)
        return e.let(f"phi {t} [ {result}, %{nan} ], [ {chosen}, %{ordered} ]")

    return rule


RULES: Final[dict[str, Callable[[Emitter, Node], str]]] = {
    "fadd": _arithmetic("fadd"),
    "fsub": _arithmetic("fsub"),
    "fmul": _arithmetic("fmul"),
    "fdiv": _arithmetic("fdiv"),
    "fsqrt": _arithmetic("sqrt"),
    "ffma": _fma,
    "fconvert": _convert,
    "fto_int": _to_int,
    "ffrom_int": _from_int,
    "fround": _round,
    "fround_exact": _round,
    "feq": _comparison("oeq", signaling=False),
    "flt": _comparison("olt", signaling=True),
    "fle": _comparison("ole", signaling=True),
    "flt_quiet": _comparison("olt", signaling=False),
    "fle_quiet": _comparison("ole", signaling=False),
    "fmin_number": _extremum(smallest=True, number=True),
    "fmax_number": _extremum(smallest=False, number=True),
    "fmin": _extremum(smallest=True, number=False),
    "fmax": _extremum(smallest=False, number=False),
}
