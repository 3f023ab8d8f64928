"""What floating-point effects are written with: formats, values by lane, NaNs, the host's MXCSR.

While native code runs, the guest's accrued flags live in MXCSR and its rounding mode is set there;
operations are constrained intrinsics, which raise exact flags. By RISC-V's rules NaNs are canonical
and tininess is seen after rounding, as on x86; by Arm's NaNs propagate in an order of their own,
and tininess is seen before rounding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.emit.llvm import Emitter, host_has
from anyarch.ir.graph import ROUNDED, Node

TYPES: Final = {"f16": "half", "f32": "float", "f64": "double"}
SIZES: Final = {"f16": 16, "f32": 32, "f64": 64}
CANONICAL: Final = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
# Rounding modes to the RC bits of MXCSR: nearest-even, towards zero, down, up.
CONTROL: Final = (0x0000, 0x6000, 0x2000, 0x4000)
AWAY, ODD = 4, 5  # rounding modes that the host lacks
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


def may_be_tiny(node: Node) -> bool:
    """Whether a result may be tiny and inexact; sums are exact where they are tiny."""
    return node.op in ("fmul", "fdiv", "ffma")


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
    """Set MXCSR's rounding from a guest mode in i32: by its two lowest bits, which of nearest-away
    are those of nearest-even."""
    # The four two-bit codes of CONTROL, packed: shift by twice the mode.
    twice = e.let(f"shl i32 {e.let(f'and i32 {mode}, 3')}, 1")
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
    def widened(self) -> Shape:
        """A vector of 128 bits."""
        return Shape(self.fmt, 128 // self.size)

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


def convert(e: Emitter, source: Shape, target: Shape, number: str) -> str:
    """A number in a wider or narrower format."""
    narrows = target.size < source.size
    name, mode = ("fptrunc", DYNAMIC) if narrows else ("fpext", STRICT)
    return e.let(
        f"call {target.kind} @llvm.experimental.constrained.{name}.{target.suffix}.{source.suffix}"
        f"({source.kind} {number}, {mode}) #1"
    )


def from_signed(e: Emitter, shape: Shape, integer: str, size: int) -> str:
    """The numbers nearest to integers of ``size`` bits."""
    letter = f"i{size}" if shape.lanes == 1 else f"v{shape.lanes}i{size}"
    return e.let(
        f"call {shape.kind} @llvm.experimental.constrained.sitofp.{shape.suffix}.{letter}"
        f"({shape.of(f'i{size}')} {integer}, {DYNAMIC}) #1"
    )


def compare(
    e: Emitter, shape: Shape, predicate: str, a: str, b: str, *, signaling: bool = False
) -> str:
    """A constrained comparison of numbers, by lane."""
    return e.let(
        f"call {shape.flag} @llvm.experimental.constrained.fcmp{'s' if signaling else ''}."
        f'{shape.suffix}({shape.kind} {a}, {shape.kind} {b}, metadata !"{predicate}", {STRICT}) #1'
    )


def unordered_lanes(e: Emitter, shape: Shape, a: str, b: str) -> str:
    return compare(e, shape, "uno", a, b)


def canonical_bits(
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
    unordered = unordered_lanes(e, Shape(fmt), value, value)
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
_UNORDERED: Final = 3  # of cmpps and the like; quiet
INFINITY: Final = {"f16": 0x7C00, "f32": 0x7F800000, "f64": 0x7FF0000000000000}
QUIET: Final = {"f32": 1 << 22, "f64": 1 << 51}
LEAST_NORMAL: Final = {"f16": 1 << 10, "f32": 1 << 23, "f64": 1 << 52}


def magnitude(e: Emitter, shape: Shape, bits: str) -> str:
    """Encodings without their signs."""
    return e.let(f"and {shape.bits} {bits}, {shape.integer((1 << (shape.size - 1)) - 1)}")


def widened(e: Emitter, shape: Shape, value: str) -> str:
    """A number or vector as one of 128 bits: above it its lanes again, above a number anything."""
    wide = shape.widened
    if shape.lanes == 1:
        return e.let(f"insertelement {wide.kind} poison, {shape.kind} {value}, i32 0")
    if shape == wide:
        return value
    indices = ", ".join(f"i32 {index % shape.lanes}" for index in range(wide.lanes))
    t = shape.kind
    return e.let(f"shufflevector {t} {value}, {t} {value}, <{wide.lanes} x i32> <{indices}>")


def smaller_magnitude(e: Emitter, shape: Shape, a: str, b: str) -> str:
    """The smaller magnitude, by lane, of vectors of 128 bits; of a number and a NaN either. Of a
    shape of one lane the lowest are compared, and others are those of ``a``.

    Raises no flag that the guest has, unless one is a signalling NaN.
    """
    letter = {"f32": "s", "f64": "d"}[shape.fmt]
    t = shape.widened.kind
    if host_has("avx512dq") and host_has("avx512vl"):
        if shape.lanes == 1:
            name, tail = f"range.s{letter}", f"{t} {a}, i8 -1, i32 {_SMALLER}, i32 4"
        else:
            everywhere = (1 << shape.widened.lanes) - 1
            name, tail = f"range.p{letter}.128", f"i32 {_SMALLER}, {t} {a}, i8 {everywhere}"
        return e.let(f"call {t} @llvm.x86.avx512.mask.{name}({t} {a}, {t} {b}, {tail})")
    a, b = (magnitudes(e, shape.widened, x) for x in (a, b))
    name = ("s" if shape.lanes == 1 else "p") + letter
    extension = "sse" if letter == "s" else "sse2"
    return e.let(f"call {t} @llvm.x86.{extension}.min.{name}({t} {a}, {t} {b})")


def magnitudes(e: Emitter, shape: Shape, value: str) -> str:
    """Numbers without their signs."""
    # The intrinsic, not the bits: those would go to a general register.
    return e.let(f"call {shape.kind} @llvm.fabs.{shape.suffix}({shape.kind} {value})")


def signs(e: Emitter, shape: Shape, value: str) -> str:
    """The sign bits of a vector of 128 bits, that of the lowest lane lowest."""
    letter = {"f32": "s", "f64": "d"}[shape.fmt]
    extension = "sse" if letter == "s" else "sse2"
    return e.let(f"call i32 @llvm.x86.{extension}.movmsk.p{letter}({shape.kind} {value})")


def unordered_mask(e: Emitter, shape: Shape, a: str, b: str) -> str:
    """For each lane of vectors of 128 bits all ones where one has a NaN; for a shape of one lane
    only for the lowest. It raises no flag that :func:`smaller_magnitude` does not."""
    letter = {"f32": "s", "f64": "d"}[shape.fmt]
    extension = "sse" if letter == "s" else "sse2"
    name = f"{extension}.cmp.{'s' if shape.lanes == 1 else 'p'}{letter}"
    t = shape.widened.kind
    return e.let(f"call {t} @llvm.x86.{name}({t} {a}, {t} {b}, i8 {_UNORDERED})")


def is_nan(e: Emitter, shape: Shape, bits: str) -> str:
    infinity = shape.integer(INFINITY[shape.fmt])
    return e.let(f"icmp ugt {shape.bits} {magnitude(e, shape, bits)}, {infinity}")


def is_signaling(e: Emitter, shape: Shape, bits: str, nan: str) -> str:
    t, bit = shape.bits, shape.integer(QUIET[shape.fmt])
    quiet = e.let(f"icmp eq {t} {e.let(f'and {t} {bits}, {bit}')}, {shape.integer(0)}")
    return e.let(f"and {shape.flag} {nan}, {quiet}")


def select(e: Emitter, shape: Shape, condition: str, a: str, b: str) -> str:
    """Encodings by lane."""
    return e.let(f"select {shape.flag} {condition}, {shape.bits} {a}, {shape.bits} {b}")


def propagated(e: Emitter, shape: Shape, operands: list[str]) -> str:
    """Arm's NaN: the first signalling one of the operands' bits, made quiet, else the first."""
    result = shape.integer(CANONICAL[shape.fmt])
    nans = [is_nan(e, shape, bits) for bits in operands]
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        result = select(e, shape, nan, bits, result)
    for bits, nan in list(zip(operands, nans, strict=True))[::-1]:
        signaling = is_signaling(e, shape, bits, nan)
        quiet = e.let(f"or {shape.bits} {bits}, {shape.integer(QUIET[shape.fmt])}")
        result = select(e, shape, signaling, quiet, result)
    return result


# Fixed-point numbers count units of a power of two, by which a product is exact.
BIAS: Final = {"f32": 127, "f64": 1023}
FRACTION: Final = {"f32": 23, "f64": 52}


def raise_inexact(e: Emitter) -> None:
    """Accrue inexact by an inexact sum: cheaper than a round trip through MXCSR."""
    e.line(
        "call float @llvm.experimental.constrained.fadd.f32"
        f"(float 1.0, float 0x3E10000000000000, {DYNAMIC}) #1"
    )


# Arm's steps and estimates of reciprocals: unusual operands are left to the reference engine.


def emulate_outside(e: Emitter, shape: Shape, bits: str, low: int, high: int) -> None:
    """Leave where an encoding, in any lane, is not from ``low`` up and below ``high``."""
    moved = e.let(f"sub {shape.bits} {bits}, {shape.integer(low)}")
    outside = e.let(f"icmp uge {shape.bits} {moved}, {shape.integer(high - low)}")
    e.emulate_if(any_lane(e, shape, outside))


def emulate_infinite(e: Emitter, shape: Shape, operands: list[str]) -> None:
    for bits in operands:
        emulate_outside(e, shape, magnitude(e, shape, bits), 0, INFINITY[shape.fmt])


def negative(e: Emitter, shape: Shape, bits: str) -> str:
    sign = shape.integer(-(1 << shape.size - 1))
    return e.let(f"xor {shape.bits} {bits}, {sign}")
