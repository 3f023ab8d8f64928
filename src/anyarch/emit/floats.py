"""Floating-point effects to LLVM text: constrained intrinsics, exact flags in the host's MXCSR.

While native code runs, the guest's accrued flags live in MXCSR and its rounding mode is set there.
The rules are of single and double precision; :mod:`anyarch.emit.halves` has others, and
:mod:`anyarch.emit.rules` says which there is. Without one the reference engine runs the
instruction. By RISC-V's rules NaNs are canonical and tininess is seen after rounding, as on x86; by
Arm's NaNs propagate in an order of their own, and tininess is seen before rounding: the results
that this concerns are left to the reference engine.

A value of several lanes is an LLVM vector where the rule can take vectors; else the rule is applied
to each lane.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.emit.llvm import Emitter, host_has
from anyarch.emit.tininess import LEAST_EXPONENT
from anyarch.ir.graph import ROUNDED, Node, float_lanes

TYPES: Final = {"f16": "half", "f32": "float", "f64": "double"}
SIZES: Final = {"f16": 16, "f32": 32, "f64": 64}
CANONICAL: Final = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
# Rounding modes to the RC bits of MXCSR: nearest-even, towards zero, down, up.
CONTROL: Final = (0x0000, 0x6000, 0x2000, 0x4000)
AWAY, ODD = 4, 5  # rounding modes that the host lacks
# Operations that leave unusual operands to the reference engine.
EMULATED: Final = frozenset(
    (
        "fmul_extended freciprocal_step froot_step freciprocal_estimate froot_estimate "
        "fto_int_modular"
    ).split()
)
TOWARDS_ZERO: Final = 1
TO_INTEGRAL: Final = ("fto_int", "fto_fixed", "fround", "fround_exact")
STRICT: Final = 'metadata !"fpexcept.strict"'
DYNAMIC: Final = f'metadata !"round.dynamic", {STRICT}'
INVALID: Final = 1  # MXCSR flag bits
UNDERFLOW: Final = 16
INEXACT: Final = 32


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


@dataclass(frozen=True, slots=True)
class Shape:
    """A format and how many lanes of it a value has: LLVM's types for them."""

    fmt: str
    lanes: int = 1

    def of(self, element: str) -> str:
        """The type of as many elements."""
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    @property
    def kind(self) -> str:
        """Of the numbers."""
        return self.of(TYPES[self.fmt])

    @property
    def size(self) -> int:
        """Of one lane."""
        return SIZES[self.fmt]

    @property
    def bits(self) -> str:
        """Of the encodings, as integers."""
        return self.of(f"i{self.size}")

    @property
    def flag(self) -> str:
        """Of a condition for each lane."""
        return self.of("i1")

    @property
    def suffix(self) -> str:
        """In names of intrinsics."""
        return self.fmt if self.lanes == 1 else f"v{self.lanes}{self.fmt}"

    def integer(self, value: int, size: int = 0) -> str:
        """The same integer in all lanes."""
        return self._all(f"i{size or self.size}", str(value))

    def number(self, value: float) -> str:
        """The same number in all lanes."""
        return self._all(TYPES[self.fmt], _literal(value))

    def _all(self, element: str, text: str) -> str:
        if self.lanes == 1:
            return text
        return "<" + ", ".join([f"{element} {text}"] * self.lanes) + ">"

    def with_format(self, fmt: str) -> Shape:
        """As many lanes of another format."""
        return Shape(fmt, self.lanes)


def _literal(value: float) -> str:
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


# A rule gets the operands' encodings, as integers or vectors of them, and gives such.
Rule = Callable[[Emitter, Node, Shape, list[str]], str]


def by_lane(e: Emitter, node: Node, shape: Shape, rule: Rule, operands: list[str]) -> str:
    """A rule applied to each lane."""
    element = f"i{node.size // shape.lanes}"
    joined = "undef"
    for index in range(shape.lanes):
        lanes = [
            e.let(
                f"extractelement {shape.of(f'i{arg.size // shape.lanes}')} {operand}, i32 {index}"
            )
            for arg, operand in zip(node.args, operands, strict=True)
        ]
        value = rule(e, node, Shape(shape.fmt), lanes)
        joined = e.let(
            f"insertelement {shape.of(element)} {joined}, {element} {value}, i32 {index}"
        )
    return joined


def any_lane(e: Emitter, shape: Shape, condition: str) -> str:
    """Whether a condition holds in any lane."""
    if shape.lanes == 1:
        return condition
    mask = e.let(f"bitcast {shape.flag} {condition} to i{shape.lanes}")
    return e.let(f"icmp ne i{shape.lanes} {mask}, 0")


def numbers(e: Emitter, shape: Shape, operands: list[str]) -> list[str]:
    return [
        e.numbers.get(value) or e.let(f"bitcast {shape.bits} {value} to {shape.kind}")
        for value in operands
    ]


def constrained(e: Emitter, shape: Shape, name: str, operands: list[str], mode: str) -> str:
    """A constrained intrinsic from numbers to numbers of the same shape."""
    arguments = ", ".join(f"{shape.kind} {operand}" for operand in operands)
    return e.let(
        f"call {shape.kind} @llvm.experimental.constrained.{name}.{shape.suffix}"
        f"({arguments}, {mode}) #1"
    )


def compare(
    e: Emitter, shape: Shape, predicate: str, a: str, b: str, *, signaling: bool = False
) -> str:
    """A constrained comparison of numbers, by lane."""
    return e.let(
        f"call {shape.flag} @llvm.experimental.constrained.fcmp{'s' if signaling else ''}."
        f'{shape.suffix}({shape.kind} {a}, {shape.kind} {b}, metadata !"{predicate}", {STRICT}) #1'
    )


def _unordered(e: Emitter, shape: Shape, a: str, b: str) -> str:
    return compare(e, shape, "uno", a, b)


def _canonical(
    e: Emitter, shape: Shape, value: str, in_nan: Callable[[], object] | None = None
) -> str:
    """The bits of a result, with the canonical NaN unless the emitter says that none can tell."""
    if e.canonical_nans or in_nan is not None:
        value = canonical(e, shape.fmt, value, in_nan)
    bits = e.let(f"bitcast {shape.kind} {value} to {shape.bits}")
    e.numbers[bits] = value
    return bits


def canonical(e: Emitter, fmt: str, value: str, in_nan: Callable[[], object] | None = None) -> str:
    """The value, its NaN replaced on an unlikely path (a select would be slower)."""
    kind = TYPES[fmt]
    nan, done = e.name("nan"), e.name("done")
    unordered = _unordered(e, Shape(fmt), value, value)
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


_SMALLER: Final = 10  # of vrange: the smaller magnitude, without its sign
INFINITY: Final = {"f16": 0x7C00, "f32": 0x7F800000, "f64": 0x7FF0000000000000}
QUIET: Final = {"f32": 1 << 22, "f64": 1 << 51}
LEAST_NORMAL: Final = {"f16": 1 << 10, "f32": 1 << 23, "f64": 1 << 52}


def magnitude(e: Emitter, shape: Shape, bits: str) -> str:
    """Encodings without their signs."""
    return e.let(f"and {shape.bits} {bits}, {shape.integer((1 << (shape.size - 1)) - 1)}")


def smaller_magnitude(e: Emitter, shape: Shape, a: str, b: str) -> str:
    """The number of smaller magnitude, or its opposite, by lane; of a number and a NaN either.

    Raises no flag that the guest has, unless one is a signalling NaN.
    """
    size = shape.size * shape.lanes
    count = 128 // shape.size
    letter = {"f32": "s", "f64": "d"}[shape.fmt]
    wide = Shape(shape.fmt, count)
    if size != 128 and shape.lanes > 1:  # the lanes that there are, twice
        indices = ", ".join(f"i32 {index % shape.lanes}" for index in range(count))
        a, b = (
            e.let(f"shufflevector {shape.kind} {x}, {shape.kind} {x}, <{count} x i32> <{indices}>")
            for x in (a, b)
        )
    elif shape.lanes == 1:
        element = TYPES[shape.fmt]
        a, b = (e.let(f"insertelement {wide.kind} poison, {element} {x}, i32 0") for x in (a, b))
    t = wide.kind
    if host_has("avx512dq") and host_has("avx512vl"):
        if shape.lanes == 1:
            name, tail = f"range.s{letter}", f"{t} {a}, i8 -1, i32 {_SMALLER}, i32 4"
        else:
            name, tail = f"range.p{letter}.128", f"i32 {_SMALLER}, {t} {a}, i8 {(1 << count) - 1}"
        result = e.let(f"call {t} @llvm.x86.avx512.mask.{name}({t} {a}, {t} {b}, {tail})")
    else:
        first, second = (
            e.let(
                f"bitcast {wide.bits} "
                f"{magnitude(e, wide, e.let(f'bitcast {t} {x} to {wide.bits}'))} to {t}"
            )
            for x in (a, b)
        )
        name = ("s" if shape.lanes == 1 else "p") + letter
        extension = "sse" if letter == "s" else "sse2"
        result = e.let(f"call {t} @llvm.x86.{extension}.min.{name}({t} {first}, {t} {second})")
    if size == 128:
        return result
    if shape.lanes == 1:
        return e.let(f"extractelement {t} {result}, i32 0")
    indices = ", ".join(f"i32 {index}" for index in range(shape.lanes))
    return e.let(f"shufflevector {t} {result}, {t} {result}, <{shape.lanes} x i32> <{indices}>")


def _is_nan(e: Emitter, shape: Shape, bits: str) -> str:
    infinity = shape.integer(INFINITY[shape.fmt])
    return e.let(f"icmp ugt {shape.bits} {magnitude(e, shape, bits)}, {infinity}")


def _is_signaling(e: Emitter, shape: Shape, bits: str, nan: str) -> str:
    t, bit = shape.bits, shape.integer(QUIET[shape.fmt])
    quiet = e.let(f"icmp eq {t} {e.let(f'and {t} {bits}, {bit}')}, {shape.integer(0)}")
    return e.let(f"and {shape.flag} {nan}, {quiet}")


def _select(e: Emitter, shape: Shape, condition: str, a: str, b: str) -> str:
    """Encodings by lane."""
    return e.let(f"select {shape.flag} {condition}, {shape.bits} {a}, {shape.bits} {b}")


def _propagated(e: Emitter, shape: Shape, operands: list[str]) -> str:
    """Arm's NaN: the first signalling one of the operands' bits, made quiet, else the first."""
    result = shape.integer(CANONICAL[shape.fmt])
    nans = [_is_nan(e, shape, bits) for bits in operands]
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        result = _select(e, shape, nan, bits, result)
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        signaling = _is_signaling(e, shape, bits, nan)
        quiet = e.let(f"or {shape.bits} {bits}, {shape.integer(QUIET[shape.fmt])}")
        result = _select(e, shape, signaling, quiet, result)
    return result


def _arm_result(
    e: Emitter,
    node: Node,
    shape: Shape,
    operands: list[str],
    value: str,
    in_nan: Callable[[], str],
) -> str:
    """The bits of a result, its NaNs replaced by what ``in_nan`` emits, on an unlikely path."""
    kind = shape.kind
    if e.defer(node, shape, value):
        return e.let(f"bitcast {kind} {value} to {shape.bits}")
    if may_be_tiny(node):
        _underflow(e, node, shape, operands, value)
    nan, done = e.name("nan"), e.name("done")
    unordered = _unordered(e, shape, value, value)
    before = e.block
    e.branch(any_lane(e, shape, unordered), nan, done, unlikely=True)
    e.label(nan)
    e.push()
    instead = in_nan()
    if shape.lanes > 1:
        plain = e.let(f"bitcast {kind} {value} to {shape.bits}")
        instead = _select(e, shape, unordered, instead, plain)
    # A phi of numbers: one of integers would have every result leave the vector registers.
    number = e.let(f"bitcast {shape.bits} {instead} to {kind}")
    e.pop()
    after = e.block
    e.line(f"br label %{done}")
    e.label(done)
    result = e.let(f"phi {kind} [ {number}, %{after} ], [ {value}, %{before} ]")
    return e.let(f"bitcast {kind} {result} to {shape.bits}")


def may_be_tiny(node: Node) -> bool:
    """Whether a result may be tiny and inexact; sums are exact where they are tiny."""
    return node.op in ("fmul", "fdiv", "ffma")


def _underflow(e: Emitter, node: Node, shape: Shape, operands: list[str], value: str) -> None:
    """A result of the least normal magnitude may have been tiny before rounding, where the host has
    raised no underflow."""
    result = e.let(f"bitcast {shape.kind} {value} to {shape.bits}")
    least = shape.integer(LEAST_NORMAL[shape.fmt])
    found = e.let(f"icmp eq {shape.bits} {magnitude(e, shape, result)}, {least}")
    if not e.decides_tininess:
        e.emulate_if(any_lane(e, shape, found))
        return
    asking, done = e.name("tiny"), e.name("done")
    e.branch(any_lane(e, shape, found), asking, done, unlikely=True)
    e.label(asking)
    e.push()
    every = "false"
    for index in range(shape.lanes):
        lane = Shape(shape.fmt)
        parts = [_lane(e, shape, bits, index) for bits in (*operands, result)]
        doubles = [_double_bits(e, lane, bits) for bits in parts]
        condition = found
        if shape.lanes > 1:
            condition = e.let(f"extractelement {shape.flag} {found}, i32 {index}")
        tiny = e.let(f"and i1 {condition}, {_is_tiny(e, node, lane, doubles)}")
        every = e.let(f"or i1 {every}, {tiny}")
    flag = e.let(f"select i1 {every}, i32 {UNDERFLOW}, i32 0")
    write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))
    e.pop()
    e.line(f"br label %{done}")
    e.label(done)


def _lane(e: Emitter, shape: Shape, bits: str, index: int) -> str:
    if shape.lanes == 1:
        return bits
    return e.let(f"extractelement {shape.bits} {bits}, i32 {index}")


def _double_bits(e: Emitter, shape: Shape, bits: str) -> str:
    if shape.fmt == "f64":
        return bits
    number = e.let(f"bitcast i32 {bits} to float")
    wide = e.let(
        f"call double @llvm.experimental.constrained.fpext.f64.f32(float {number}, {STRICT}) #1"
    )
    return e.let(f"bitcast double {wide} to i64")


def _is_tiny(e: Emitter, node: Node, shape: Shape, doubles: list[str]) -> str:
    """Of a result that is the last of ``doubles``, behind its operands."""
    least = LEAST_EXPONENT[shape.fmt]
    if node.op == "fdiv":
        a, b, _ = doubles
        return e.let(f"call preserve_allcc i1 @tiny_quotient(i64 {a}, i64 {b}, i64 {least})")
    a, b, *addend, result = doubles
    c = addend[0] if addend else "0"
    return e.let(
        f"call preserve_allcc i1 @tiny_sum(i64 {a}, i64 {b}, i64 {c}, i64 {result}, i64 {least})"
    )


def _arithmetic(name: str) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        result = constrained(e, shape, name, numbers(e, shape, bits), DYNAMIC)
        if e.float_rules != "arm":
            return _canonical(e, shape, result)
        return _arm_result(e, node, shape, bits, result, lambda: _propagated(e, shape, bits))

    return rule


def _fma(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    result = constrained(e, shape, "fma", numbers(e, shape, bits), DYNAMIC)
    x, y, addend = bits

    def infinity_times_zero() -> str:
        """Which lanes multiply an infinity by zero."""
        tests = []
        for one, other in ((x, y), (y, x)):
            infinity = shape.integer(INFINITY[shape.fmt])
            is_infinite = e.let(f"icmp eq {shape.bits} {magnitude(e, shape, one)}, {infinity}")
            is_zero = e.let(
                f"icmp eq {shape.bits} {magnitude(e, shape, other)}, {shape.integer(0)}"
            )
            tests.append(e.let(f"and {shape.flag} {is_infinite}, {is_zero}"))
        return e.let(f"or {shape.flag} {tests[0]}, {tests[1]}")

    def raise_invalid() -> str:
        """x86 raises no invalid for fma(inf, 0, qNaN); IEEE 754 leaves it open, RISC-V demands."""
        lanes = infinity_times_zero()
        flag = e.let(f"zext i1 {any_lane(e, shape, lanes)} to i32")
        write_mxcsr(e, e.let(f"or i32 {read_mxcsr(e)}, {flag}"))
        return lanes

    def propagated() -> str:
        """Arm: the addend first; the default NaN where it is quiet and the product invalid."""
        no_product = raise_invalid()
        signaling = _is_signaling(e, shape, addend, _is_nan(e, shape, addend))
        loud = e.let(f"xor {shape.flag} {signaling}, {shape.integer(-1, 1)}")
        default = e.let(f"and {shape.flag} {no_product}, {loud}")
        chosen = _propagated(e, shape, [addend, x, y])
        return _select(e, shape, default, shape.integer(CANONICAL[shape.fmt]), chosen)

    if e.float_rules == "arm":
        return _arm_result(e, node, shape, bits, result, propagated)
    return _canonical(e, shape, result, raise_invalid)


def _convert(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    target = shape.with_format(str(node.attrs[1]))
    if target == shape:
        return bits[0]
    (a,) = numbers(e, shape, bits)
    narrows = target.size < shape.size
    name, mode = ("fptrunc", DYNAMIC) if narrows else ("fpext", STRICT)
    result = e.let(
        f"call {target.kind} @llvm.experimental.constrained.{name}.{target.suffix}.{shape.suffix}"
        f"({shape.kind} {a}, {mode}) #1"
    )
    if e.float_rules == "arm":  # the host keeps a NaN's payload as Arm does
        if narrows:
            underflow_of_narrow(e, shape, target, a, result)
        if node.attrs[-1] == ODD:
            return _odd(e, shape, target, a, result)
        return e.let(f"bitcast {target.kind} {result} to {target.bits}")
    return _canonical(e, target, result)


def _odd(e: Emitter, shape: Shape, target: Shape, a: str, result: str) -> str:
    """The bits of a number that was cut off, made odd where something was lost."""
    back = e.let(
        f"call {shape.kind} @llvm.experimental.constrained.fpext.{shape.suffix}.{target.suffix}"
        f"({target.kind} {result}, {STRICT}) #1"
    )
    lost = e.let(f"zext {shape.flag} {compare(e, shape, 'one', back, a)} to {target.bits}")
    bits = e.let(f"bitcast {target.kind} {result} to {target.bits}")
    return e.let(f"or {target.bits} {bits}, {lost}")


def underflow_of_narrow(e: Emitter, shape: Shape, target: Shape, a: str, result: str) -> None:
    """See _underflow: of a number below the least normal one that was rounded to that."""
    bits = [
        e.let(f"bitcast {s.kind} {value} to {s.bits}")
        for s, value in ((shape, a), (target, result))
    ]
    least = target.integer(LEAST_NORMAL[target.fmt])
    found = e.let(f"icmp eq {target.bits} {magnitude(e, target, bits[1])}, {least}")
    limit = (LEAST_EXPONENT[target.fmt] + _BIAS[shape.fmt]) << _FRACTION[shape.fmt]
    below = e.let(f"icmp ult {shape.bits} {magnitude(e, shape, bits[0])}, {shape.integer(limit)}")
    tiny = any_lane(e, shape, e.let(f"and {shape.flag} {found}, {below}"))
    raising, done = e.name("tiny"), e.name("done")
    e.branch(tiny, raising, done, unlikely=True)
    e.label(raising)
    raise_flag(e, UNDERFLOW)
    e.line(f"br label %{done}")
    e.label(done)


def _from_int(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    signed, kind = bool(node.attrs[1]), shape.kind
    size = node.args[0].size // float_lanes(node)
    (value,) = bits

    def convert(integer: str, wide: int) -> str:
        letter = f"i{wide}" if shape.lanes == 1 else f"v{shape.lanes}i{wide}"
        return e.let(
            f"call {kind} @llvm.experimental.constrained.sitofp.{shape.suffix}.{letter}"
            f"({shape.of(f'i{wide}')} {integer}, {DYNAMIC}) #1"
        )

    if shape.lanes > 1:
        return e.let(f"bitcast {kind} {convert(value, size)} to {shape.bits}")
    if size < 64:
        value = e.let(f"{'sext' if signed else 'zext'} i{size} {value} to i64")
    if signed or size < 64:
        return e.let(f"bitcast {kind} {convert(value, 64)} to {shape.bits}")
    # Above 2**63: halve, keeping the lost bit sticky; doubling the result is exact.
    small, large, done = e.name("small"), e.name("large"), e.name("done")
    negative = e.let(f"icmp slt i64 {value}, 0")
    e.branch(negative, large, small)
    e.label(small)
    plain = convert(value, 64)
    e.line(f"br label %{done}")
    e.label(large)
    half = e.let(f"lshr i64 {value}, 1")
    sticky = e.let(f"and i64 {value}, 1")
    halved = convert(e.let(f"or i64 {half}, {sticky}"), 64)
    doubled = constrained(e, shape, "fadd", [halved, halved], DYNAMIC)
    e.line(f"br label %{done}")
    e.label(done)
    result = e.let(f"phi {kind} [ {plain}, %{small} ], [ {doubled}, %{large} ]")
    return e.let(f"bitcast {kind} {result} to {shape.bits}")


def _integral(e: Emitter, shape: Shape, a: str, rounding: object) -> str:
    """Rounded to an integral value, without the inexact flag."""
    if rounding == "dynamic":
        return constrained(e, shape, "nearbyint", [a], DYNAMIC)
    if rounding == AWAY:
        return _nearest_away(e, shape, a)
    name = {0: "roundeven", 1: "trunc", 2: "floor", 3: "ceil"}[int(str(rounding))]
    return constrained(e, shape, name, [a], STRICT)


def to_int(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Round, check the range, then convert exactly: LLVM's conversion is poison out of range."""
    signed, rounding, size = bool(node.attrs[1]), node.attrs[2], node.size // float_lanes(node)
    (a,) = numbers(e, shape, bits)
    rounded = _integral(e, shape, a, rounding)
    low = -float(1 << (size - 1)) if signed else 0.0
    high = float(1 << (size - 1 if signed else size))
    above = compare(e, shape, "oge", rounded, shape.number(low))
    below = compare(e, shape, "olt", rounded, shape.number(high))
    inside = e.let(f"and {shape.flag} {above}, {below}")
    good, bad, done = e.name("good"), e.name("bad"), e.name("done")
    outside = e.let(f"xor {shape.flag} {inside}, {shape.integer(-1, 1)}")
    e.branch(any_lane(e, shape, outside), bad, good, unlikely=True)

    e.label(bad)
    if shape.lanes > 1:
        limit = by_lane(e, node, shape, to_int, bits)
    else:
        limit = _out_of_range(e, shape, a, size, signed=signed)
    after_bad = e.block
    e.line(f"br label %{done}")

    e.label(good)
    changed = compare(e, shape, "une", rounded, a)
    inexact, exact = e.name("inexact"), e.name("exact")
    e.branch(any_lane(e, shape, changed), inexact, exact)
    e.label(inexact)
    raise_inexact(e)
    e.line(f"br label %{exact}")
    e.label(exact)
    if shape.lanes > 1:
        narrow = _exactly(e, shape, rounded, size)
    elif signed or size < 64:
        narrow = _exactly(e, shape, rounded, 64)
    else:
        narrow = _exactly_unsigned(e, shape, rounded)
    if size < 64 and shape.lanes == 1:
        narrow = e.let(f"trunc i64 {narrow} to i{size}")
    after_good = e.block
    e.line(f"br label %{done}")
    e.label(done)
    return e.let(
        f"phi {shape.of(f'i{size}')} [ {limit}, %{after_bad} ], [ {narrow}, %{after_good} ]"
    )


def _to_int_modular(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """By way of 64 bits; what these do not hold is left to the reference engine."""
    limit = _BIAS[shape.fmt] + 63 << _FRACTION[shape.fmt]
    emulate_outside(e, shape, magnitude(e, shape, bits[0]), 0, limit)
    (a,) = numbers(e, shape, bits)
    whole = constrained(e, shape, "trunc", [a], STRICT)
    wide = _exactly(e, shape, whole, 64)
    narrow = e.let(f"trunc i64 {wide} to i{node.size}")
    back = e.let(f"sext i{node.size} {narrow} to i64")
    outside, inside, done = e.name("outside"), e.name("inside"), e.name("done")
    e.branch(e.let(f"icmp ne i64 {back}, {wide}"), outside, inside, unlikely=True)
    e.label(outside)
    raise_flag(e, INVALID)
    e.line(f"br label %{done}")
    e.label(inside)
    inexact = e.name("inexact")
    e.branch(compare(e, shape, "une", whole, a), inexact, done)
    e.label(inexact)
    raise_inexact(e)
    e.line(f"br label %{done}")
    e.label(done)
    return narrow


# Fixed-point numbers count units of a power of two, by which a product is exact.
_BIAS: Final = {"f32": 127, "f64": 1023}
_FRACTION: Final = {"f32": 23, "f64": 52}


def power(e: Emitter, shape: Shape, exponent: str) -> str:
    """Two to the power of an integer of the format's size."""
    biased = e.let(f"add {shape.bits} {exponent}, {_BIAS[shape.fmt]}")
    bits = e.let(f"shl {shape.bits} {biased}, {_FRACTION[shape.fmt]}")
    return e.let(f"bitcast {shape.bits} {bits} to {shape.kind}")


def to_fixed(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    double = Shape("f64")
    (a,) = numbers(e, shape, bits[:1])
    if shape != double:
        a = e.let(
            f"call double @llvm.experimental.constrained.fpext.f64.f32(float {a}, {STRICT}) #1"
        )
    count = e.let(f"zext i{node.args[1].size} {bits[1]} to i64")
    # Where the product could overflow, it is far out of range: so is the number put in its place.
    room = e.let(f"sub i64 {node.size + 1}, {count}")
    encoding = e.let(f"bitcast double {a} to i64")
    absolute = e.let(f"bitcast i64 {magnitude(e, double, encoding)} to double")
    big = compare(e, double, "oge", absolute, power(e, double, room))
    sign = e.let(f"and i64 {encoding}, {-(1 << 63)}")
    far = e.let(f"or i64 {sign}, {_BIAS['f64'] + node.size + 1 << _FRACTION['f64']}")
    # Chosen before it is multiplied: an overflow would be accrued.
    number = e.let(f"select i1 {big}, double 0.0, double {a}")
    product = constrained(e, double, "fmul", [number, power(e, double, count)], DYNAMIC)
    plain = e.let(f"bitcast double {product} to i64")
    return to_int(e, node, double, [_select(e, double, big, far, plain)])


def _from_fixed(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    whole = numbers(e, shape, [_from_int(e, node, shape, bits[:1])])
    count = e.let(f"zext i{node.args[1].size} {bits[1]} to {shape.bits}")
    unit = power(e, shape, e.let(f"sub {shape.bits} 0, {count}"))
    product = constrained(e, shape, "fmul", [*whole, unit], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {product} to {shape.bits}")


def _out_of_range(e: Emitter, shape: Shape, a: str, size: int, *, signed: bool) -> str:
    raise_flag(e, INVALID)
    largest = (1 << (size - 1 if signed else size)) - 1
    smallest = -(1 << (size - 1)) if signed else 0
    negative = compare(e, shape, "olt", a, shape.number(0.0))
    limit = e.let(f"select i1 {negative}, i{size} {smallest}, i{size} {largest}")
    if e.float_rules == "arm":
        unordered = _unordered(e, shape, a, a)
        limit = e.let(f"select i1 {unordered}, i{size} 0, i{size} {limit}")
    return limit


def _exactly(e: Emitter, shape: Shape, value: str, size: int) -> str:
    """Integral numbers in range as signed integers."""
    letter = f"i{size}" if shape.lanes == 1 else f"v{shape.lanes}i{size}"
    return e.let(
        f"call {shape.of(f'i{size}')} @llvm.experimental.constrained.fptosi.{letter}."
        f"{shape.suffix}({shape.kind} {value}, {STRICT}) #1"
    )


def _exactly_unsigned(e: Emitter, shape: Shape, value: str) -> str:
    """The same of 64 bits without sign."""
    half = shape.number(float(1 << 63))
    upper, lower, joined = e.name("upper"), e.name("lower"), e.name("joined")
    big = compare(e, shape, "oge", value, half)
    e.branch(big, upper, lower, unlikely=True)
    e.label(lower)
    plain = _exactly(e, shape, value, 64)
    e.line(f"br label %{joined}")
    e.label(upper)
    reduced = constrained(e, shape, "fsub", [value, half], DYNAMIC)
    shifted = e.let(f"xor i64 {_exactly(e, shape, reduced, 64)}, {-(1 << 63)}")
    e.line(f"br label %{joined}")
    e.label(joined)
    return e.let(f"phi i64 [ {plain}, %{lower} ], [ {shifted}, %{upper} ]")


def _nearest_away(e: Emitter, shape: Shape, a: str) -> str:
    """The nearest integral value, ties away from zero, by exact operations."""
    kind, t, flag = shape.kind, shape.bits, shape.flag
    whole = constrained(e, shape, "trunc", [a], STRICT)
    bits = e.let(f"bitcast {kind} {a} to {t}")
    # From 2**23 or 2**52 up all values are integral.
    limit = shape.integer({"f32": 0x4B000000, "f64": 0x4330000000000000}[shape.fmt])
    small = e.let(f"icmp ult {t} {magnitude(e, shape, bits)}, {limit}")
    zero = shape.number(0.0)
    inside = e.let(f"select {flag} {small}, {kind} {a}, {kind} {zero}")
    truncated = e.let(f"select {flag} {small}, {kind} {whole}, {kind} {zero}")
    rest = constrained(e, shape, "fsub", [inside, truncated], DYNAMIC)
    distance = magnitude(e, shape, e.let(f"bitcast {kind} {rest} to {t}"))
    half = shape.integer({"f32": 0x3F000000, "f64": 0x3FE0000000000000}[shape.fmt])
    away = e.let(f"icmp uge {t} {distance}, {half}")
    sign = e.let(f"and {t} {bits}, {shape.integer(-(1 << (shape.size - 1)))}")
    one = shape.integer({"f32": 0x3F800000, "f64": 0x3FF0000000000000}[shape.fmt])
    step = e.let(f"bitcast {t} {e.let(f'or {t} {sign}, {one}')} to {kind}")
    moved = constrained(e, shape, "fadd", [truncated, step], DYNAMIC)
    return e.let(f"select {flag} {away}, {kind} {moved}, {kind} {whole}")


def raise_inexact(e: Emitter) -> None:
    """Accrue inexact by an inexact sum: cheaper than a round trip through MXCSR."""
    e.line(
        "call float @llvm.experimental.constrained.fadd.f32"
        f"(float 1.0, float 0x3E10000000000000, {DYNAMIC}) #1"
    )


def round_(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    (a,) = numbers(e, shape, bits)
    rounded = _integral(e, shape, a, node.attrs[1])
    if node.op == "fround_exact":
        changed = compare(e, shape, "one", rounded, a)
        inexact, exact = e.name("inexact"), e.name("exact")
        e.branch(any_lane(e, shape, changed), inexact, exact)
        e.label(inexact)
        raise_inexact(e)
        e.line(f"br label %{exact}")
        e.label(exact)
    if e.float_rules == "arm":  # the host keeps a NaN, made quiet, as Arm does
        return e.let(f"bitcast {shape.kind} {rounded} to {shape.bits}")
    return _canonical(e, shape, rounded)


def _comparison(predicate: str, *, signaling: bool) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        a, b = numbers(e, shape, bits)
        result = compare(e, shape, predicate, a, b, signaling=signaling)
        if shape.lanes == 1:
            return result
        return e.let(f"sext {shape.flag} {result} to {shape.bits}")

    return rule


def _extremum(*, smallest: bool, number: bool) -> Rule:
    def rule(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
        t = shape.bits
        a, b = numbers(e, shape, bits)
        unordered = _unordered(e, shape, a, b)  # raises invalid for a signaling NaN
        less = compare(e, shape, "olt" if smallest else "ogt", a, b)
        equal = compare(e, shape, "oeq", a, b)
        # Equal operands differ at most in the sign of zero.
        joined = e.let(f"{'or' if smallest else 'and'} {t} {bits[0]}, {bits[1]}")
        chosen = _select(e, shape, less, bits[0], _select(e, shape, equal, joined, bits[1]))
        nan, done = e.name("nan"), e.name("done")
        before = e.block
        e.branch(any_lane(e, shape, unordered), nan, done, unlikely=True)
        e.label(nan)
        result = _extremum_of_nan(e, shape, bits, number=number)
        result = _select(e, shape, unordered, result, chosen)
        e.line(f"br label %{done}")
        e.label(done)
        return e.let(f"phi {t} [ {result}, %{nan} ], [ {chosen}, %{before} ]")

    return rule


def _extremum_of_nan(e: Emitter, shape: Shape, operands: list[str], *, number: bool) -> str:
    """Where one operand or both are NaNs."""
    arm = e.float_rules == "arm"
    a, b = operands
    result = _propagated(e, shape, operands) if arm else shape.integer(CANONICAL[shape.fmt])
    if not number:
        return result
    nans = [_is_nan(e, shape, bits) for bits in operands]
    yields = nans
    if arm:  # a number comes before a quiet NaN, not before a signalling one
        yields = []
        for bits, nan in zip(operands, nans, strict=True):
            loud = _is_signaling(e, shape, bits, nan)
            quiet = e.let(f"xor {shape.flag} {loud}, {shape.integer(-1, 1)}")
            yields.append(e.let(f"and {shape.flag} {nan}, {quiet}"))
    numbers = [e.let(f"xor {shape.flag} {nan}, {shape.integer(-1, 1)}") for nan in nans]
    only_a = e.let(f"and {shape.flag} {yields[0]}, {numbers[1]}")
    only_b = e.let(f"and {shape.flag} {yields[1]}, {numbers[0]}")
    return _select(e, shape, only_b, a, _select(e, shape, only_a, b, result))


# Arm's steps and estimates of reciprocals: unusual operands are left to the reference engine.


def emulate_outside(e: Emitter, shape: Shape, bits: str, low: int, high: int) -> None:
    """Leave where an encoding, in any lane, is not from ``low`` up and below ``high``."""
    moved = e.let(f"sub {shape.bits} {bits}, {shape.integer(low)}")
    outside = e.let(f"icmp uge {shape.bits} {moved}, {shape.integer(high - low)}")
    e.emulate_if(any_lane(e, shape, outside))


def emulate_infinite(e: Emitter, shape: Shape, operands: list[str]) -> None:
    for bits in operands:
        emulate_outside(e, shape, magnitude(e, shape, bits), 0, INFINITY[shape.fmt])


def _mul_extended(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    emulate_infinite(e, shape, bits)
    result = constrained(e, shape, "fmul", numbers(e, shape, bits), DYNAMIC)
    _underflow(e, node, shape, bits, result)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def negative(e: Emitter, shape: Shape, bits: str) -> str:
    sign = shape.integer(-(1 << shape.size - 1))
    return e.let(f"xor {shape.bits} {bits}, {sign}")


def _reciprocal_step(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Never tiny: what is left of two, or of three, is a multiple of a product's last bit."""
    emulate_infinite(e, shape, bits)
    a, b = numbers(e, shape, [negative(e, shape, bits[0]), bits[1]])
    result = constrained(e, shape, "fma", [a, b, shape.number(2.0)], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def _root_step(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """Half of one operand is exact, where it is zero or no less than twice the least number."""
    emulate_infinite(e, shape, bits)
    exact = 2 * LEAST_NORMAL[shape.fmt]
    below = e.let(f"sub {shape.bits} {magnitude(e, shape, bits[0])}, {shape.integer(1)}")
    small = e.let(f"icmp ult {shape.bits} {below}, {shape.integer(exact - 1)}")
    e.emulate_if(any_lane(e, shape, small))
    a, b = numbers(e, shape, [negative(e, shape, bits[0]), bits[1]])
    half = constrained(e, shape, "fmul", [a, shape.number(0.5)], DYNAMIC)
    result = constrained(e, shape, "fma", [half, b, shape.number(1.5)], DYNAMIC)
    return e.let(f"bitcast {shape.kind} {result} to {shape.bits}")


def _integers(e: Emitter, shape: Shape) -> Callable[[str, str, str | int], str]:
    """``operation(name, a, b)`` on lanes, where b may be a number for all of them."""

    def operation(name: str, a: str, b: str | int) -> str:
        second = shape.integer(b) if isinstance(b, int) else b
        return e.let(f"{name} {shape.bits} {a}, {second}")

    return operation


def _reciprocal_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """See softfloat.reciprocal_estimate."""
    do, (value,) = _integers(e, shape), bits
    fraction_bits, bias = _FRACTION[shape.fmt], _BIAS[shape.fmt]
    absolute = magnitude(e, shape, value)
    low, high = 1 << fraction_bits, 2 * bias - 1 << fraction_bits
    emulate_outside(e, shape, absolute, low, high)
    scaled = do("or", do("and", do("lshr", value, fraction_bits - 8), 0xFF), 0x100)
    divisor = do("add", do("shl", scaled, 1), 1)
    quotient = e.let(f"udiv {shape.bits} {shape.integer(1 << 19)}, {divisor}")
    estimate = do("and", do("lshr", do("add", quotient, 1), 1), 0xFF)
    exponent = do("lshr", absolute, fraction_bits)
    exponent = e.let(f"sub {shape.bits} {shape.integer(2 * bias - 1)}, {exponent}")
    return _estimated(e, shape, do("xor", value, absolute), exponent, estimate)


def _root_estimate(e: Emitter, node: Node, shape: Shape, bits: list[str]) -> str:
    """See softfloat.root_estimate."""
    do, (value,) = _integers(e, shape), bits
    fraction_bits, bias = _FRACTION[shape.fmt], _BIAS[shape.fmt]
    emulate_outside(e, shape, value, 1 << fraction_bits, INFINITY[shape.fmt])
    exponent = do("lshr", value, fraction_bits)
    odd = do("and", exponent, 1)
    is_odd = e.let(f"icmp ne {shape.bits} {odd}, {shape.integer(0)}")
    seven = do("or", do("and", do("lshr", value, fraction_bits - 7), 0x7F), 0x80)
    eight = do("or", do("and", do("lshr", value, fraction_bits - 8), 0xFE), 0x100)
    narrow = do("add", do("shl", seven, 1), 1)
    wide = do("shl", do("add", eight, 1), 1)
    argument = _select(e, shape, is_odd, narrow, wide)
    estimate = shape.integer(512)
    for bit in range(8, -1, -1):
        trial = do("add", estimate, 1 << bit)
        product = do("mul", do("mul", trial, trial), argument)
        fits = e.let(f"icmp ult {shape.bits} {product}, {shape.integer(1 << 28)}")
        estimate = _select(e, shape, fits, trial, estimate)
    estimate = do("and", do("lshr", do("add", estimate, 1), 1), 0xFF)
    exponent = e.let(f"sub {shape.bits} {shape.integer(3 * bias - 1)}, {exponent}")
    return _estimated(e, shape, shape.integer(0), do("lshr", exponent, 1), estimate)


def _estimated(e: Emitter, shape: Shape, sign: str, exponent: str, estimate: str) -> str:
    do, fraction_bits = _integers(e, shape), _FRACTION[shape.fmt]
    fraction = do("shl", estimate, fraction_bits - 8)
    return do("or", do("or", do("shl", exponent, fraction_bits), fraction), sign)


RULES: Final[dict[str, Rule]] = {
    "fadd": _arithmetic("fadd"),
    "fsub": _arithmetic("fsub"),
    "fmul": _arithmetic("fmul"),
    "fdiv": _arithmetic("fdiv"),
    "fsqrt": _arithmetic("sqrt"),
    "ffma": _fma,
    "fconvert": _convert,
    "fto_int": to_int,
    "ffrom_int": _from_int,
    "fto_int_modular": _to_int_modular,
    "fto_fixed": to_fixed,
    "ffrom_fixed": _from_fixed,
    "fround": round_,
    "fround_exact": round_,
    "feq": _comparison("oeq", signaling=False),
    "flt": _comparison("olt", signaling=True),
    "fle": _comparison("ole", signaling=True),
    "flt_quiet": _comparison("olt", signaling=False),
    "fle_quiet": _comparison("ole", signaling=False),
    "fmul_extended": _mul_extended,
    "freciprocal_step": _reciprocal_step,
    "froot_step": _root_step,
    "freciprocal_estimate": _reciprocal_estimate,
    "froot_estimate": _root_estimate,
    "fmin_number": _extremum(smallest=True, number=True),
    "fmax_number": _extremum(smallest=False, number=True),
    "fmin": _extremum(smallest=True, number=False),
    "fmax": _extremum(smallest=False, number=False),
}
