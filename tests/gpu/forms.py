"""Instruction forms of PTX whose results are exact, a kernel for each, and inputs for them.

``python -m tests.gpu.forms [FILE]`` records on a GPU what those that vectors/forms.json does not
have yet give for a million inputs each, and writes that or FILE; test_forms.py compares the cpu
with it, bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from anyarch import gpu

VECTORS: Final = Path(__file__).parent / "vectors" / "forms.json"
COUNT: Final = 1 << 20
PREFIX: Final = 1 << 12  # what is compared unless all is asked for
BLOCK: Final = 256


class Form(NamedTuple):
    """Statements that compute %y from %a, %b, %c; %p is a predicate, %t has 32 bits.

    `sources` and `result` are types: PTX's, or "shift" for 32 bits that are mostly small.
    """

    name: str
    text: str
    sources: tuple[str, ...]
    result: str


INTEGERS: Final = ("u16", "s16", "u32", "s32", "u64", "s64")
ALL_INTEGERS: Final = ("u8", "s8", *INTEGERS)
BITS: Final = ("b16", "b32", "b64")
FLOATS: Final = ("f32", "f64")
ROUNDINGS: Final = ("rn", "rz", "rm", "rp")
TO_INTEGER: Final = ("rni", "rzi", "rmi", "rpi")
COMPARISONS: Final = ("eq", "ne", "lt", "le", "gt", "ge")
UNORDERED: Final = ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
WIDER: Final = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def size_of(type_: str) -> int:
    """Bits of a type."""
    if type_ == "shift":
        return 32
    digits = re.findall(r"\d+", type_)
    return int(digits[0]) * (2 if type_.endswith("x2") else 1)


def plain(instruction: str, sources: str, result: str) -> Form:
    """One instruction with its operands in order."""
    kinds = tuple(sources.split())
    operands = ", ".join(("%y", "%a", "%b", "%c")[: len(kinds) + 1])
    return Form(instruction, f"{instruction} {operands};", kinds, result)


def compared(instruction: str, sources: str) -> Form:
    """An instruction that sets a predicate."""
    kinds = tuple(sources.split())
    operands = ", ".join(("%p", "%a", "%b")[: len(kinds) + 1])
    return Form(instruction, f"{instruction} {operands}; selp.b32 %y, 1, 0, %p;", kinds, "b32")


def forms() -> dict[str, Form]:
    """All of them by name."""
    found: dict[str, Form] = {}
    for part in (_integer, _bits, _sequences, _comparisons, _floating, _halves, _conversions):
        for form in part():
            assert form.name not in found, form.name
            found[form.name] = form
    return found


def _integer() -> Iterator[Form]:
    for op, t in product(("add", "sub", "mul.lo", "mul.hi", "min", "max"), INTEGERS):
        yield plain(f"{op}.{t}", f"{t} {t}", t)
    for op, t in product(("mad.lo", "mad.hi", "sad"), INTEGERS):
        yield plain(f"{op}.{t}", f"{t} {t} {t}", t)
    for t, wide in WIDER.items():
        yield plain(f"mul.wide.{t}", f"{t} {t}", wide)
        yield plain(f"mad.wide.{t}", f"{t} {t} {wide}", wide)
    for op, t in product(("mul24.lo", "mul24.hi"), ("u32", "s32")):
        yield plain(f"{op}.{t}", f"{t} {t}", t)
    for op, t in product(("mad24.lo", "mad24.hi"), ("u32", "s32")):
        yield plain(f"{op}.{t}", f"{t} {t} {t}", t)
    for op in ("add.sat", "sub.sat"):
        yield plain(f"{op}.s32", "s32 s32", "s32")
    yield plain("mad.hi.sat.s32", "s32 s32 s32", "s32")
    for op, t in product(("abs", "neg"), ("s16", "s32", "s64")):
        yield plain(f"{op}.{t}", t, t)
    for op, t in product(("div", "rem"), INTEGERS):
        # The quotient by zero is unspecified, and so is that which does not fit.
        guard = f"setp.eq.{t} %p, %b, 0; @%p mov.b{size_of(t)} %b, 3;"
        if t[0] == "s":
            guard += f" setp.eq.{t} %p, %b, -1; @%p mov.b{size_of(t)} %b, 3;"
        yield Form(f"{op}.{t}", f"{guard} {op}.{t} %y, %a, %b;", (t, t), t)
    for u, v in product(("u32", "s32"), repeat=2):
        kind = "s32" if "s32" in (u, v) else "u32"
        yield plain(f"dp4a.{u}.{v}", f"b32 b32 {kind}", kind)
        for half in ("lo", "hi"):
            yield plain(f"dp2a.{half}.{u}.{v}", f"b32 b32 {kind}", kind)
    for t in ("u32", "s32"):
        yield plain(f"vabsdiff4.{t}.{t}.{t}", "b32 b32 b32", "b32")
        yield plain(f"vabsdiff4.{t}.{t}.{t}.add", "b32 b32 b32", "b32")


def _bits() -> Iterator[Form]:
    for op, t in product(("and", "or", "xor"), BITS):
        yield plain(f"{op}.{t}", f"{t} {t}", t)
    for op, t in product(("not", "cnot"), BITS):
        yield plain(f"{op}.{t}", t, t)
    for t in BITS:
        yield plain(f"shl.{t}", f"{t} shift", t)
    for t in INTEGERS:
        yield plain(f"shr.{t}", f"{t} shift", t)
    for t in ("b32", "b64"):
        for op in ("popc", "clz"):
            yield plain(f"{op}.{t}", t, "u32")
        yield plain(f"brev.{t}", t, t)
        text = f"mov.b{size_of(t)} %y, %a; bfi.{t} %y, %y, %y, %b, %c;"
        yield Form(f"bfi.{t}", text, (t, "shift", "shift"), t)
    for t in ("u32", "s32", "u64", "s64"):
        yield plain(f"bfind.{t}", t, "u32")
        yield plain(f"bfind.shiftamt.{t}", t, "u32")
        yield plain(f"bfe.{t}", f"{t} shift shift", t)
    for mode in ("clamp", "wrap"):
        yield plain(f"bmsk.{mode}.b32", "shift shift", "b32")
        for t in ("u32", "s32"):
            yield plain(f"szext.{mode}.{t}", f"{t} shift", t)
        for side in ("l", "r"):
            yield plain(f"shf.{side}.{mode}.b32", "b32 b32 shift", "b32")
    for mode in ("", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16"):
        yield plain(f"prmt.b32{mode}", "b32 b32 b32", "b32")
    for table in (0x00, 0x1B, 0x40, 0x6A, 0x80, 0x96, 0xCA, 0xE8, 0xFE, 0xFF):
        text = f"lop3.b32 %y, %a, %b, %c, {table:#04x};"
        yield Form(f"lop3.b32 {table:#04x}", text, ("b32", "b32", "b32"), "b32")
    yield Form("fns.b32", "fns.b32 %y, %a, 0, 1;", ("b32",), "b32")


def _sequences() -> Iterator[Form]:
    three = ("b32", "b32", "b32")
    for name, text in {
        "add.cc addc": "add.cc.u32 %t, %a, %b; addc.u32 %y, %c, %a;",
        "sub.cc subc": "sub.cc.u32 %t, %a, %b; subc.u32 %y, %c, %a;",
        "mad.lo.cc madc.hi": "mad.lo.cc.u32 %t, %a, %b, %c; madc.hi.u32 %y, %a, %b, %c;",
        "mad.hi.cc addc": "mad.hi.cc.u32 %t, %a, %b, %c; addc.u32 %y, %a, 0;",
        "add.cc subc": "add.cc.u32 %t, %a, %b; subc.u32 %y, %c, %a;",
        "sub.cc addc": "sub.cc.u32 %t, %a, %b; addc.u32 %y, %c, %a;",
        "subc.cc": "add.cc.u32 %t, %a, %b; subc.cc.u32 %t, %b, %c; addc.u32 %y, %t, 0;",
        "addc.cc": "add.cc.u32 %t, %a, %b; addc.cc.u32 %t, %b, %c; addc.u32 %y, %t, 0;",
    }.items():
        yield Form(name, text, three, "b32")
    text = "add.cc.u64 %y, %a, %b; addc.u64 %y, %b, %y;"
    yield Form("add.cc.u64", text, ("b64", "b64"), "b64")


def _comparisons() -> Iterator[Form]:
    for op, t in product(COMPARISONS, INTEGERS):
        yield compared(f"setp.{op}.{t}", f"{t} {t}")
    for op, t in product(("lo", "ls", "hi", "hs"), ("u16", "u32", "u64")):
        yield compared(f"setp.{op}.{t}", f"{t} {t}")
    for op, t in product(COMPARISONS + UNORDERED, ("f16", "bf16", "f32", "f64")):
        yield compared(f"setp.{op}.{t}", f"{t} {t}")
    for op in ("lt", "equ"):
        yield compared(f"setp.{op}.ftz.f32", "f32 f32")
    for op, t in product(("lt", "ge", "neu"), FLOATS):
        yield plain(f"set.{op}.u32.{t}", f"{t} {t}", "u32")
        yield plain(f"set.{op}.f32.{t}", f"{t} {t}", "f32")
    for op in ("lt", "eq"):
        yield plain(f"set.{op}.u32.s32", "s32 s32", "u32")
        yield plain(f"set.{op}.f16x2.f16x2", "f16x2 f16x2", "f16x2")
    kinds = ("finite", "infinite", "number", "notanumber", "normal", "subnormal")
    for kind, t in product(kinds, FLOATS):
        yield compared(f"testp.{kind}.{t}", t)
    for t in ("u32", "s64", "f32", "f64"):
        yield plain(f"slct.{t}.s32", f"{t} {t} s32", t)
    yield plain("slct.ftz.f32.f32", "f32 f32 f32", "f32")


def _floating() -> Iterator[Form]:
    for t in FLOATS:
        yield plain(f"copysign.{t}", f"{t} {t}", t)
        for op, mode in product(("add", "sub", "mul", "div"), ROUNDINGS):
            yield plain(f"{op}.{mode}.{t}", f"{t} {t}", t)
        for mode in ROUNDINGS:
            yield plain(f"fma.{mode}.{t}", f"{t} {t} {t}", t)
        for op, mode in product(("rcp", "sqrt"), ROUNDINGS):
            yield plain(f"{op}.{mode}.{t}", t, t)
    for op, mode in product(("add", "sub", "mul", "div"), ROUNDINGS):
        yield plain(f"{op}.{mode}.ftz.f32", "f32 f32", "f32")
    for mode in ROUNDINGS:
        yield plain(f"fma.{mode}.ftz.f32", "f32 f32 f32", "f32")
        yield plain(f"fma.{mode}.sat.f32", "f32 f32 f32", "f32")
    for op, mode in product(("rcp", "sqrt"), ROUNDINGS):
        yield plain(f"{op}.{mode}.ftz.f32", "f32", "f32")
    for op, mode in product(("add", "sub", "mul"), ("rn", "rz")):
        yield plain(f"{op}.{mode}.sat.f32", "f32 f32", "f32")
        yield plain(f"{op}.{mode}.ftz.sat.f32", "f32 f32", "f32")
    for op in ("min", "max"):
        for kind in ("", ".ftz", ".NaN", ".xorsign.abs", ".ftz.NaN"):
            yield plain(f"{op}{kind}.f32", "f32 f32", "f32")
        yield plain(f"{op}.f64", "f64 f64", "f64")
    for op in ("abs", "neg"):
        for kind in ("f32", "ftz.f32", "f64"):
            yield plain(f"{op}.{kind}", kind[-3:], kind[-3:])


def _halves() -> Iterator[Form]:
    for t in ("f16", "f16x2"):
        for op in ("add", "sub", "mul"):
            for kind in ("", ".ftz", ".sat", ".ftz.sat"):
                yield plain(f"{op}.rn{kind}.{t}", f"{t} {t}", t)
        for kind in ("", ".ftz", ".sat", ".relu"):
            yield plain(f"fma.rn{kind}.{t}", f"{t} {t} {t}", t)
    for t in ("bf16", "bf16x2"):
        for kind in ("", ".relu"):
            yield plain(f"fma.rn{kind}.{t}", f"{t} {t} {t}", t)
        for op in ("add", "sub", "mul"):
            yield plain(f"{op}.rn.{t}", f"{t} {t}", t)
    for t in ("f16", "f16x2", "bf16", "bf16x2"):
        for op in ("min", "max"):
            for kind in ("", ".NaN", ".xorsign.abs"):
                yield plain(f"{op}{kind}.{t}", f"{t} {t}", t)
        for op in ("abs", "neg"):
            yield plain(f"{op}.{t}", t, t)


def _conversions() -> Iterator[Form]:
    for to, of in product(ALL_INTEGERS, repeat=2):
        if to != of:
            yield plain(f"cvt.{to}.{of}", of, to)
        if not _holds(to, of):  # else saturation, which could never happen, is an error
            yield plain(f"cvt.sat.{to}.{of}", of, to)
    for mode, to, of in product(TO_INTEGER, ALL_INTEGERS, ("f16", "f32", "f64")):
        yield plain(f"cvt.{mode}.{to}.{of}", of, to)
    for mode, to in product(("rzi", "rni"), ("u32", "s32", "u64", "s64")):
        yield plain(f"cvt.{mode}.ftz.{to}.f32", "f32", to)
    for mode, to, of in product(ROUNDINGS, ("f16", "f32", "f64"), ALL_INTEGERS):
        yield plain(f"cvt.{mode}.{to}.{of}", of, to)
    for mode, t in product(TO_INTEGER, ("f16", "f32", "f64")):
        yield plain(f"cvt.{mode}.{t}.{t}", t, t)
    for mode in ROUNDINGS:
        yield plain(f"cvt.{mode}.f32.f64", "f64", "f32")
        yield plain(f"cvt.{mode}.ftz.f32.f64", "f64", "f32")
        yield plain(f"cvt.{mode}.f16.f32", "f32", "f16")
        yield plain(f"cvt.{mode}.f16.f64", "f64", "f16")
    for name, of, to in (
        ("cvt.sat.f32.f32", "f32", "f32"),
        ("cvt.ftz.sat.f32.f32", "f32", "f32"),
        ("cvt.sat.f64.f64", "f64", "f64"),
        ("cvt.rn.sat.f32.f64", "f64", "f32"),
        ("cvt.rn.sat.f16.f32", "f32", "f16"),
        ("cvt.rn.ftz.f16.f32", "f32", "f16"),
        ("cvt.f32.f16", "f16", "f32"),
        ("cvt.ftz.f32.f16", "f16", "f32"),
        ("cvt.f64.f16", "f16", "f64"),
        ("cvt.f64.f32", "f32", "f64"),
        ("cvt.ftz.f64.f32", "f32", "f64"),
        ("cvt.f32.bf16", "bf16", "f32"),
        ("cvt.rn.bf16.f32", "f32", "bf16"),
        ("cvt.rz.bf16.f32", "f32", "bf16"),
        ("cvt.rn.relu.bf16.f32", "f32", "bf16"),
        ("cvt.rn.f16x2.f32", "f32 f32", "f16x2"),
        ("cvt.rz.f16x2.f32", "f32 f32", "f16x2"),
        ("cvt.rn.bf16x2.f32", "f32 f32", "bf16x2"),
        ("cvt.rz.bf16x2.f32", "f32 f32", "bf16x2"),
        ("cvt.rna.tf32.f32", "f32", "b32"),
        *((f"cvt.{mode}.bf16.{of}", of, "bf16") for mode in ROUNDINGS for of in ("s64", "u64")),
        ("cvt.pack.sat.u4.s32.b32", "s32 s32 b32", "b32"),
        ("cvt.pack.sat.s2.s32.b32", "s32 s32 b32", "b32"),
        ("cvt.pack.sat.u16.s32", "s32 s32", "b32"),
        ("cvt.pack.sat.s16.s32", "s32 s32", "b32"),
        ("cvt.pack.sat.u8.s32.b32", "s32 s32 b32", "b32"),
        ("cvt.pack.sat.s8.s32.b32", "s32 s32 b32", "b32"),
    ):
        yield plain(name, of, to)
    for small, relu in product(("e4m3x2", "e5m2x2"), ("", ".relu")):
        yield plain(f"cvt.rn.satfinite{relu}.{small}.f32", "f32 f32", "b16")
        yield plain(f"cvt.rn.satfinite{relu}.{small}.f16x2", "f16x2", "b16")
        yield plain(f"cvt.rn{relu}.f16x2.{small}", "b16", "f16x2")


def _holds(wide: str, narrow: str) -> bool:
    """Whether an integer type has every value of another."""
    if wide[0] == narrow[0]:
        return size_of(wide) >= size_of(narrow)
    return wide[0] == "s" and size_of(wide) > size_of(narrow)


# Kernels.


def kernel_name(number: int) -> str:
    """The kernel of the form of that number."""
    return f"form_{number}"


def module_text(chosen: list[Form]) -> str:
    """A PTX module with a kernel for each form: out, three inputs."""
    kernels = (_kernel(kernel_name(number), form) for number, form in enumerate(chosen))
    return ".version 8.0\n.target sm_90\n.address_size 64\n" + "".join(kernels)


def _kernel(name: str, form: Form) -> str:
    loads = []
    for place, type_ in enumerate(form.sources):
        letter = "abc"[place]
        loads.append(_access(type_, letter, f"ld.param.u64 %q, [in{place}];", load=True))
    registers = {
        letter: max(size_of(type_), 16)
        for letter, type_ in zip("abcy", (*(*form.sources, "b32", "b32")[:3], form.result))
    }
    declared = " ".join(f".reg .b{size} %{letter};" for letter, size in registers.items())
    return f"""
.visible .entry {name}(.param .u64 out, .param .u64 in0, .param .u64 in1, .param .u64 in2) {{
    .reg .pred %p; .reg .b32 %t, %i, %n; .reg .b64 %q, %o; {declared}
    mov.u32 %i, %ctaid.x; mov.u32 %n, %ntid.x; mov.u32 %t, %tid.x; mad.lo.u32 %i, %i, %n, %t;
    {" ".join(loads)}
    {form.text}
    {_access(form.result, "y", "ld.param.u64 %q, [out];", load=False)}
    ret;
}}
"""


def _access(type_: str, letter: str, base: str, *, load: bool) -> str:
    size = size_of(type_)
    # A register is wider than a byte, and what lies above the byte is part of what is compared.
    size = size if load else max(size, 16)
    extension = type_ if type_ in ("u8", "s8") and load else f"b{size}"
    place = f"{base} mul.wide.u32 %o, %i, {size // 8}; add.u64 %q, %q, %o;"
    if load:
        return f"{place} ld.global.{extension} %{letter}, [%q];"
    return f"{place} st.global.{extension} [%q], %{letter};"


# Inputs: a quarter and more of them are special, the same on every machine.

_SPECIAL: Final = {
    "f16": (5, 10),
    "bf16": (8, 7),
    "f32": (8, 23),
    "f64": (11, 52),
}


def _mix(numbers: Any) -> Any:
    """SplitMix64."""
    z = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def inputs(type_: str, slot: int, count: int) -> Any:
    """`count` values of a type for the first, second or third source, as unsigned integers."""
    if type_.endswith("x2"):
        half = inputs(type_[:-2], slot, 2 * count)
        return half[0::2].astype("u4") | half[1::2].astype("u4") << np.uint32(16)
    seed = int.from_bytes(hashlib.sha256(f"{type_} {slot}".encode()).digest()[:7], "little")
    index = np.arange(count, dtype="u8") + np.uint64(seed)
    bits, choice = _mix(index), _mix(index ^ np.uint64(0xABCDEF12345))
    size = size_of(type_)
    result = bits.copy()
    pick = choice >> np.uint64(8)
    kind = choice & np.uint64(7)
    if type_ in _SPECIAL:
        exponent, fraction = _SPECIAL[type_]
        _put(result, kind < 2, _special_floats(exponent, fraction), pick)
        bias = np.uint64((1 << (exponent - 1)) - 1)
        near = (bits & np.uint64((1 << fraction) - 1)) | (
            (bias + pick % np.uint64(17) - np.uint64(8)) << np.uint64(fraction)
        )
        near |= (bits >> np.uint64(63)) << np.uint64(exponent + fraction)
        result = np.where((kind >= 2) & (kind < 5), near, result)
    elif type_ == "shift":
        result = np.where(kind < 7, pick % np.uint64(72), pick % np.uint64(256))
    else:
        _put(result, kind < 1, _special_integers(size), pick)
        small = pick % np.uint64(33) - np.uint64(16)
        result = np.where((kind >= 1) & (kind < 3), small, result)
    return (result & np.uint64((1 << size) - 1)).astype(f"u{size // 8}")


def _put(result: Any, where: Any, values: list[int], pick: Any) -> None:
    table = np.array(values, dtype="u8")
    result[where] = table[(pick[where] % np.uint64(len(values))).astype("i8")]


def _special_integers(size: int) -> list[int]:
    mask = (1 << size) - 1
    edges = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFF, 0x800000]
    powers = [1 << bit for bit in range(size)]
    values = edges + powers + [power - 1 for power in powers]
    return [value & mask for value in values + [-value for value in values]]


def _special_floats(exponent: int, fraction: int) -> list[int]:
    top = (1 << exponent) - 1
    bias = top >> 1

    def make(biased: int, bits: int) -> int:
        return biased << fraction | bits

    quiet = 1 << (fraction - 1)
    values = [
        0, make(0, 1), make(0, quiet), make(0, (1 << fraction) - 1), make(1, 0), make(1, 1),
        make(top - 1, (1 << fraction) - 1), make(top, 0), make(top, quiet), make(top, 1),
        make(top, (1 << fraction) - 1), make(bias, 0), make(bias, 1), make(bias - 1, 0),
        make(bias - 1, (1 << fraction) - 1), make(bias + 1, 0), make(bias, quiet),
    ]  # fmt: skip
    # Integers, halves, and the powers of two where conversions to integers overflow.
    for power in (*range(8), 14, 15, 16, 23, 24, 30, 31, 32, 52, 53, 62, 63, 64):
        if bias + power < top:
            values += [make(bias + power, 0), make(bias + power, quiet), make(bias + power, 1)]
            values += [make(bias + power - 1, (1 << fraction) - 1)]
    sign = 1 << (exponent + fraction)
    return values + [value | sign for value in values]


# Running them.


def results(
    device: gpu.Device,
    module: gpu.Module,
    number: int,
    form: Form,
    count: int,
    given: list[Any] | None = None,
) -> bytes:
    """What a form gives on a device for the first of our inputs, or for those given."""
    if given is None:
        given = [inputs(type_, slot, count) for slot, type_ in enumerate(form.sources)]
    arrays = [gpu.to_device(array, device) for array in given]
    out = device.empty(count * max(size_of(form.result), 16) // 8, "u1")
    module[kernel_name(number)].launch(
        count // BLOCK, BLOCK, out, *arrays, *[None] * (3 - len(arrays))
    )
    device.synchronize()
    data = out.to_bytes()
    if form.result == "f64":  # which NaN of two operands goes on is said nowhere
        values = np.frombuffer(data, "f8").copy()
        values[np.isnan(values)] = np.nan
        data = values.tobytes()
    return data


def digest(data: bytes) -> str:
    """A short digest."""
    return hashlib.sha256(data).hexdigest()[:16]


def record() -> None:
    """Write what a GPU gives for forms not recorded yet: digests of the first and all results."""
    device = gpu.Device("cuda:0")
    every = forms()
    known = json.loads(VECTORS.read_text())["forms"] if VECTORS.exists() else {}
    missing = [form for name, form in every.items() if name not in known]
    module = device.load(module_text(missing))
    for number, form in enumerate(missing):
        data = results(device, module, number, form, COUNT)
        each = len(data) // COUNT
        known[form.name] = [digest(data[: PREFIX * each]), digest(data)]
    record = {
        "device": device.name,
        "driver": device.versions.driver_text,
        "count": COUNT,
        "prefix": PREFIX,
        "forms": {name: known[name] for name in every},
    }
    lines = json.dumps(record, indent=0).replace("[\n", "[").replace("\n]", "]")
    text = re.sub(r",\n(\"[0-9a-f]{16}\"\])", r", \1", lines) + "\n"
    (Path(sys.argv[1]) if len(sys.argv) > 1 else VECTORS).write_text(text)
    print(f"{len(missing)} forms recorded on {device.name}")


if __name__ == "__main__":
    record()
