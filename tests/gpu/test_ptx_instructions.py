"""Single instructions against Python, on the cpu backend, with warps and with single threads."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest

np = pytest.importorskip("numpy", reason="the tests of kernels build their data with numpy")

from tests.gpu.cpu_kernels import launch, program  # noqa: E402

COUNT = 160  # five warps
M32, M64 = (1 << 32) - 1, (1 << 64) - 1


def s32(x: int) -> int:
    return (x & M32) - ((x & 0x80000000) << 1)


def s64(x: int) -> int:
    return (x & M64) - ((x & 1 << 63) << 1)


def sn(x: int, size: int) -> int:
    x &= (1 << size) - 1
    return x - (1 << size) if x >> size - 1 else x


def f32(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits & M32))[0]


def b32(value: float) -> int:
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0x7F800000 | (0x80000000 if value < 0 else 0)


def cut(a: float, b: int) -> float:
    return a


def trunc_div(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def bfe(a: int, pos: int, length: int, size: int, signed: bool) -> int:
    pos, length = pos & 255, length & 255
    if length == 0:
        return 0
    bits = [(a >> k & 1) for k in range(size)]
    sign = bits[min(pos + length - 1, size - 1)] if signed else 0
    result = 0
    for k in range(size):
        source = pos + k
        bit = bits[source] if k < length and source < size else sign
        result |= bit << k
    return result


def bfi(a: int, b: int, pos: int, length: int, size: int) -> int:
    pos, length = pos & 255, length & 255
    result = b
    for k in range(length):
        if pos + k < size:
            bit = a >> k & 1 if k < size else 0
            result = result & ~(1 << pos + k) | bit << pos + k
    return result


def prmt(a: int, b: int, c: int) -> int:
    data = [(b << 32 | a) >> 8 * k & 255 for k in range(8)]
    result = 0
    for k in range(4):
        nibble = c >> 4 * k & 15
        byte = data[nibble & 7]
        if nibble & 8:
            byte = 255 if byte & 128 else 0
        result |= byte << 8 * k
    return result


def lop3(a: int, b: int, c: int, table: int) -> int:
    result = 0
    for k in range(32):
        row = (a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1)
        result |= (table >> row & 1) << k
    return result


def bfind(a: int, size: int, signed: bool) -> int:
    if signed and a >> size - 1:
        a = ~a & (1 << size) - 1
    return (a.bit_length() - 1) & M32


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def to_int(value: float, mode: str, size: int, signed: bool, nan: int) -> int:
    if math.isnan(value):
        return nan
    low, high = (-(1 << size - 1), (1 << size - 1) - 1) if signed else (0, (1 << size) - 1)
    if math.isinf(value):
        return high if value > 0 else low
    rounder: Callable[[float], int] = {
        "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil, "rni": round
    }[mode]  # fmt: skip
    return clamp(rounder(value), low, high)


def round_f32(exact: Fraction, mode: str) -> int:
    """u fraction rounded to f32, as bits (no overflow, no zero)."""
    sign = 0x80000000 if exact < 0 else 0
    size = abs(exact)
    exponent = max(math.floor(math.log2(size)) - 23, -149)
    while size / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    while exponent > -149 and size / Fraction(2) ** exponent < 1 << 23:
        exponent -= 1
    scaled = size / Fraction(2) ** exponent
    down = math.floor(scaled)
    up = {"rz": False, "rm": bool(sign), "rp": not sign}.get(mode)
    if up is None:
        rest = scaled - down
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down & 1 == 1)
    elif scaled == down:
        up = False
    value = (down + up) * Fraction(2) ** exponent
    return b32(float(value)) | sign


# text with {d}, {a}, {b}, {c} (32-bit) and {u}, {v} (64-bit); meaning of (a, b, c, u, v).
Case = tuple[str, Callable[..., int]]
WORDS: list[Case] = [
    ("add.s32 {d}, {a}, {b};", lambda a, b, c, u, v: a + b),
    ("add.sat.s32 {d}, {a}, {b};",
     lambda a, b, c, u, v: clamp(s32(a) + s32(b), -1 << 31, M32 >> 1)),
    ("sub.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a - b),
    ("mul.lo.s32 {d}, {a}, {b};", lambda a, b, c, u, v: a * b),
    ("mul.hi.s32 {d}, {a}, {b};", lambda a, b, c, u, v: s32(a) * s32(b) >> 32),
    ("mul.hi.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a * b >> 32),
    ("mad.lo.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: a * b + c),
    ("mad.hi.u32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: (a * b >> 32) + c),
    ("mul24.lo.s32 {d}, {a}, {b};", lambda a, b, c, u, v: sn(a, 24) * sn(b, 24)),
    ("mul24.hi.u32 {d}, {a}, {b};", lambda a, b, c, u, v: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16),
    ("mad24.lo.u32 {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: (a & 0xFFFFFF) * (b & 0xFFFFFF) + c),
    ("sad.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: abs(s32(a) - s32(b)) + c),
    ("sad.u32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: abs(a - b) + c),
    ("div.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a // b if b else M32),
    ("div.s32 {d}, {a}, {b};", lambda a, b, c, u, v: trunc_div(s32(a), s32(b)) if b else M32),
    ("rem.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a % b if b else a),
    ("rem.s32 {d}, {a}, {b};",
     lambda a, b, c, u, v: s32(a) - trunc_div(s32(a), s32(b)) * s32(b) if b else a),
    ("abs.s32 {d}, {a};", lambda a, b, c, u, v: abs(s32(a))),
    ("neg.s32 {d}, {a};", lambda a, b, c, u, v: -a),
    ("min.s32 {d}, {a}, {b};", lambda a, b, c, u, v: min(s32(a), s32(b))),
    ("max.u32 {d}, {a}, {b};", lambda a, b, c, u, v: max(a, b)),
    ("min.relu.s32 {d}, {a}, {b};", lambda a, b, c, u, v: max(0, min(s32(a), s32(b)))),
    ("popc.b32 {d}, {a};", lambda a, b, c, u, v: a.bit_count()),
    ("popc.b64 {d}, {u};", lambda a, b, c, u, v: u.bit_count()),
    ("clz.b32 {d}, {a};", lambda a, b, c, u, v: 32 - a.bit_length()),
    ("clz.b64 {d}, {u};", lambda a, b, c, u, v: 64 - u.bit_length()),
    ("bfind.u32 {d}, {a};", lambda a, b, c, u, v: bfind(a, 32, False)),
    ("bfind.s32 {d}, {a};", lambda a, b, c, u, v: bfind(a, 32, True)),
    ("bfind.s64 {d}, {u};", lambda a, b, c, u, v: bfind(u, 64, True)),
    ("bfind.shiftamt.u32 {d}, {a};", lambda a, b, c, u, v: 32 - a.bit_length() if a else M32),
    ("brev.b32 {d}, {a};", lambda a, b, c, u, v: int(f"{a:032b}"[::-1], 2)),
    ("bfe.u32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: bfe(a, b, c, 32, False)),
    ("bfe.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: bfe(a, b, c, 32, True)),
    ("bfi.b32 {d}, {a}, {b}, {c}, 7;", lambda a, b, c, u, v: bfi(a, b, c, 7, 32)),
    ("bfi.b32 {d}, {a}, {c}, 3, {b};", lambda a, b, c, u, v: bfi(a, c, 3, b, 32)),
    ("prmt.b32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: prmt(a, b, c)),
    ("prmt.b32.rc8 {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: prmt(a, b, 0x1111 * (c & 3))),
    ("prmt.b32.f4e {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: (b << 32 | a) >> 8 * (c & 3)),
    ("lop3.b32 {d}, {a}, {b}, {c}, 0x6a;", lambda a, b, c, u, v: lop3(a, b, c, 0x6A)),
    ("lop3.b32 {d}, {a}, {b}, {c}, 0xe8;", lambda a, b, c, u, v: lop3(a, b, c, 0xE8)),
    ("shf.l.wrap.b32 {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: (b << 32 | a) << (c & 31) >> 32),
    ("shf.r.wrap.b32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: (b << 32 | a) >> (c & 31)),
    ("shf.l.clamp.b32 {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: (b << 32 | a) << min(c, 32) >> 32),
    ("shf.r.clamp.b32 {d}, {a}, {b}, {c};",
     lambda a, b, c, u, v: (b << 32 | a) >> min(c, 32)),
    ("shl.b32 {d}, {a}, {b};", lambda a, b, c, u, v: a << b if b < 32 else 0),
    ("shr.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a >> b if b < 32 else 0),
    ("shr.s32 {d}, {a}, {b};", lambda a, b, c, u, v: s32(a) >> min(b, 31)),
    ("shr.s32 {d}, {a}, 40;", lambda a, b, c, u, v: s32(a) >> 31),
    ("not.b32 {d}, {a};", lambda a, b, c, u, v: ~a),
    ("cnot.b32 {d}, {a};", lambda a, b, c, u, v: int(a == 0)),
    ("dp4a.s32.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: c + sum(
        sn(a >> 8 * k, 8) * sn(b >> 8 * k, 8) for k in range(4))),
    ("dp4a.u32.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: c + sum(
        (a >> 8 * k & 255) * sn(b >> 8 * k, 8) for k in range(4))),
    ("dp2a.lo.s32.u32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: c + sum(
        sn(a >> 16 * k, 16) * (b >> 8 * k & 255) for k in range(2))),
    ("dp2a.hi.s32.u32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: c + sum(
        sn(a >> 16 * k, 16) * (b >> 16 + 8 * k & 255) for k in range(2))),
    ("vabsdiff4.u32.u32.u32.add {d}, {a}, {b}, {c};", lambda a, b, c, u, v: c + sum(
        abs((a >> 8 * k & 255) - (b >> 8 * k & 255)) for k in range(4))),
    ("vmax2.s32.s32.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: sum(
        (max(sn(a >> 16 * k, 16), sn(b >> 16 * k, 16)) & 0xFFFF) << 16 * k for k in range(2))),
    ("bmsk.clamp.b32 {d}, {a}, {b};", lambda a, b, c, u, v: sum(
        1 << k for k in range(32) if a <= k < a + b)),
    ("szext.clamp.s32 {d}, {a}, {b};",
     lambda a, b, c, u, v: a if b >= 32 else sn(a, b) if b else 0),
    ("szext.wrap.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a & (1 << (b & 31)) - 1),
    ("slct.s32.s32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v: a if s32(c) >= 0 else b),
    ("set.lt.u32.s32 {d}, {a}, {b};", lambda a, b, c, u, v: -int(s32(a) < s32(b))),
    ("set.hi.u32.u32 {d}, {a}, {b};", lambda a, b, c, u, v: -int(a > b)),
    ("cvt.s32.s8 {d}, {a};", lambda a, b, c, u, v: sn(a, 8)),
    ("cvt.u32.u16 {d}, {a};", lambda a, b, c, u, v: a & 0xFFFF),
    ("cvt.sat.u8.s32 {d}, {a};", lambda a, b, c, u, v: clamp(s32(a), 0, 255)),
    ("cvt.sat.s16.s32 {d}, {a};", lambda a, b, c, u, v: clamp(s32(a), -32768, 32767)),
    ("cvt.sat.s32.u32 {d}, {a};", lambda a, b, c, u, v: min(a, M32 >> 1)),
    ("cvt.sat.u32.s64 {d}, {u};", lambda a, b, c, u, v: clamp(s64(u), 0, M32)),
    ("cvt.pack.sat.s16.s32 {d}, {a}, {b};", lambda a, b, c, u, v:
        (clamp(s32(a), -32768, 32767) & 0xFFFF) << 16 | clamp(s32(b), -32768, 32767) & 0xFFFF),
    ("cvt.pack.sat.u8.s32.b32 {d}, {a}, {b}, {c};", lambda a, b, c, u, v:
        clamp(s32(b), 0, 255) | clamp(s32(a), 0, 255) << 8 | c << 16),
    ("fns.b32 {d}, {a}, 4, 2;", lambda a, b, c, u, v: next(
        iter([k for k in range(4, 32) if a >> k & 1][1:2]), M32)),
    ("fns.b32 {d}, {a}, 20, -3;", lambda a, b, c, u, v: next(
        iter([k for k in range(20, -1, -1) if a >> k & 1][2:3]), M32)),
    # Chains of carries and borrows.
    ("{{ .reg .b32 t; add.cc.u32 t, {a}, {b}; addc.u32 {d}, {c}, 5; }}",
     lambda a, b, c, u, v: c + 5 + (a + b >> 32)),
    ("{{ .reg .b32 t; sub.cc.u32 t, {a}, {b}; subc.u32 {d}, {c}, 5; }}",
     lambda a, b, c, u, v: c - 5 - (a < b)),
    ("{{ .reg .b32 t; add.cc.u32 t, {a}, {b}; addc.cc.u32 t, {a}, {c}; addc.u32 {d}, {b}, {c}; }}",
     lambda a, b, c, u, v: b + c + (a + c + (a + b >> 32) >> 32)),
    ("{{ .reg .b32 t; mad.lo.cc.u32 t, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, 9; }}",
     lambda a, b, c, u, v: (a * b >> 32) + 9 + ((a * b & M32) + c >> 32)),
    # Predicates.
    ("{{ .reg .pred p, q; setp.lt.and.s32 p|q, {a}, {b}, %ptrue; selp.b32 {d}, 7, 9, q; }}",
     lambda a, b, c, u, v: 9 if s32(a) < s32(b) else 7),
    ("{{ .reg .pred p; setp.ne.b32 p, {c}, 0; mov.b32 {d}, {a}; @p add.u32 {d}, {d}, {b}; }}",
     lambda a, b, c, u, v: a + b if c else a),
    ("{{ .reg .pred p; setp.gt.u32 p, {a}, {b}; mov.b32 {d}, 1; @!p mov.b32 {d}, {c}; }}",
     lambda a, b, c, u, v: 1 if a > b else c),
    ("{{ .reg .pred p; lop3.or.b32 {d}|p, {a}, {b}, {c}, 0xc0, 0; selp.u32 {d}, {d}, 1, p; }}",
     lambda a, b, c, u, v: a & b if a & b else 1),
    # Floating point.
    ("cvt.rzi.s32.f32 {d}, {a};", lambda a, b, c, u, v: to_int(f32(a), "rzi", 32, True, 0)),
    ("cvt.rni.s32.f32 {d}, {a};", lambda a, b, c, u, v: to_int(f32(a), "rni", 32, True, 0)),
    ("cvt.rmi.u32.f32 {d}, {a};", lambda a, b, c, u, v: to_int(f32(a), "rmi", 32, False, 0)),
    ("cvt.rpi.s8.f32 {d}, {a};", lambda a, b, c, u, v: to_int(f32(a), "rpi", 8, True, 0)),
    ("min.f32 {d}, {a}, {b};", lambda a, b, c, u, v: float_min(a, b)),
    ("neg.f32 {d}, {a};", lambda a, b, c, u, v: M32 >> 1 if math.isnan(f32(a)) else a ^ 1 << 31),
    ("abs.f32 {d}, {a};", lambda a, b, c, u, v: M32 >> 1 if math.isnan(f32(a)) else a & M32 >> 1),
    ("copysign.f32 {d}, {a}, {b};", lambda a, b, c, u, v: a & 1 << 31 | b & M32 >> 1),
    ("{{ .reg .pred p; testp.subnormal.f32 p, {a}; selp.u32 {d}, 1, 0, p; }}",
     lambda a, b, c, u, v: int(a & 0x7F800000 == 0 and a & 0x7FFFFF != 0)),
    ("{{ .reg .b16 h, l; mov.b32 {{l, h}}, {a}; mov.b32 {d}, {{h, l}}; }}",
     lambda a, b, c, u, v: a >> 16 | a << 16),
]  # fmt: skip


def float_min(a: int, b: int) -> int:
    x, y = f32(a), f32(b)
    if math.isnan(x) or math.isnan(y):
        return b if math.isnan(x) else a
    if x == y:
        return a | b
    return a if x < y else b


LONGS: list[Case] = [
    ("add.u64 {d}, {u}, {v};", lambda a, b, c, u, v: u + v),
    ("mul.lo.u64 {d}, {u}, {v};", lambda a, b, c, u, v: u * v),
    ("mul.hi.u64 {d}, {u}, {v};", lambda a, b, c, u, v: u * v >> 64),
    ("mul.hi.s64 {d}, {u}, {v};", lambda a, b, c, u, v: s64(u) * s64(v) >> 64),
    ("mul.wide.s32 {d}, {a}, {b};", lambda a, b, c, u, v: s32(a) * s32(b)),
    ("mul.wide.u32 {d}, {a}, {b};", lambda a, b, c, u, v: a * b),
    ("mad.wide.s32 {d}, {a}, {b}, {u};", lambda a, b, c, u, v: s32(a) * s32(b) + u),
    ("div.u64 {d}, {u}, {v};", lambda a, b, c, u, v: u // v if v else M64),
    ("rem.s64 {d}, {u}, {v};",
     lambda a, b, c, u, v: s64(u) - trunc_div(s64(u), s64(v)) * s64(v) if v else u),
    ("shl.b64 {d}, {u}, {b};", lambda a, b, c, u, v: u << b if b < 64 else 0),
    ("shr.s64 {d}, {u}, {b};", lambda a, b, c, u, v: s64(u) >> min(b, 63)),
    ("brev.b64 {d}, {u};", lambda a, b, c, u, v: int(f"{u:064b}"[::-1], 2)),
    ("bfe.u64 {d}, {u}, {b}, {c};", lambda a, b, c, u, v: bfe(u, b, c, 64, False)),
    ("bfe.s64 {d}, {u}, {b}, {c};", lambda a, b, c, u, v: bfe(u, b, c, 64, True)),
    ("bfi.b64 {d}, {u}, {v}, {b}, {c};", lambda a, b, c, u, v: bfi(u, v, b, c, 64)),
    ("cvt.s64.s32 {d}, {a};", lambda a, b, c, u, v: s32(a)),
    ("cvt.u64.u32 {d}, {a};", lambda a, b, c, u, v: a),
    ("cvt.rzi.s64.f32 {d}, {a};",
     lambda a, b, c, u, v: to_int(f32(a), "rzi", 64, True, 1 << 63)),
    ("mov.b64 {d}, {{{a}, {b}}};", lambda a, b, c, u, v: b << 32 | a),
    ("{{ .reg .u64 t; add.cc.u64 t, {u}, {v}; addc.u64 {d}, {u}, 1; }}",
     lambda a, b, c, u, v: u + 1 + (u + v >> 64)),
]  # fmt: skip

HEAD = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry run(.param .u64 out, .param .u64 pa, .param .u64 pb, .param .u64 pc,
                    .param .u64 pu, .param .u64 pv)
{
  .reg .b32 %a, %b, %c, %i;
  .reg .b64 %u, %v, %p, %x, %o;
  .reg .pred %ptrue;
  mov.u32 %i, %tid.x;
  setp.eq.u32 %ptrue, 0, 0;
"""


def kernel_text(cases: list[Case], size: int) -> str:
    parts = [HEAD]
    for name, nbytes in (("a", 4), ("b", 4), ("c", 4), ("u", 8), ("v", 8)):
        parts.append(
            f"  ld.param.u64 %p, [p{name}];\n  mad.wide.u32 %x, %i, {nbytes}, %p;\n"
            f"  ld.global.b{8 * nbytes} %{name}, [%x];"
        )
    parts.append(f"  ld.param.u64 %o, [out];\n  mad.wide.u32 %o, %i, {size // 8}, %o;")
    for number, (text, _) in enumerate(cases):
        parts.append(f"  .reg .b{size} %d{number};")
        names = {"d": f"%d{number}"} | {n: f"%{n}" for n in "abcuv"}
        parts.append("  " + text.format(**names))
        offset = number * COUNT * size // 8
        parts.append(f"  st.global.b{size} [%o+{offset}], %d{number};")
    return "\n".join([*parts, "  ret;\n}\n"])


def inputs(seed: int) -> list[np.ndarray]:
    chance = random.Random(seed)
    special = [0, 1, 2, 31, 32, 33, 255, 0x7FFFFFFF, 0x80000000, M32, 0x3F800000, 0xBF800000,
               0x7F800000, 0xFF800000, 0x00000001, 0x4F000000, 0xC0200000, 0x40200000]  # fmt: skip

    def word() -> int:
        kind = chance.random()
        if kind < 0.25:
            return chance.choice(special)
        if kind < 0.45:
            return chance.randrange(80)
        if kind < 0.6:
            return b32(chance.uniform(-300, 300))
        return chance.getrandbits(32)

    words = [np.array([word() for _ in range(COUNT)], "u4") for _ in range(3)]
    longs = [
        np.array([word() << 32 | word() if chance.random() < 0.7 else word()
                  for _ in range(COUNT)], "u8")
        for _ in range(2)
    ]  # fmt: skip
    return [*words, *longs]


def run(text: str, data: list[np.ndarray], rows: int, kind: str, threads: bool) -> np.ndarray:
    out = np.zeros((rows, COUNT), kind)
    launch(program(text, threads=threads), "run", 1, COUNT, out, *data)
    return out


@pytest.mark.parametrize("threads", [False, True], ids=["warps", "threads"])
@pytest.mark.parametrize(("cases", "size"), [(WORDS, 32), (LONGS, 64)], ids=["32", "64"])
def test_instructions(cases: list[Case], size: int, threads: bool) -> None:
    data = inputs(size)
    got = run(kernel_text(cases, size), data, len(cases), f"u{size // 8}", threads)
    wrong = []
    for (text, meaning), row in zip(cases, got.tolist(), strict=True):
        for n, value in enumerate(row):
            operands = [int(array[n]) for array in data]
            expected = meaning(*operands) & (1 << size) - 1
            if value != expected:
                shown = [hex(o) for o in operands]
                wrong.append(f"{text} of {shown}: {value:#x}, not {expected:#x}")
                break
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_directed_rounding(mode: str) -> None:
    """Against exact fractions."""
    cases = [
        (f"add.{mode}.f32 {{d}}, {{a}}, {{b}};", lambda a, b, c: a + b),
        (f"mul.{mode}.f32 {{d}}, {{a}}, {{b}};", lambda a, b, c: a * b),
        (f"div.{mode}.f32 {{d}}, {{a}}, {{b}};", lambda a, b, c: a / b),
        (f"fma.{mode}.f32 {{d}}, {{a}}, {{b}}, {{c}};", lambda a, b, c: a * b + c),
        (f"rcp.{mode}.f32 {{d}}, {{a}};", lambda a, b, c: 1 / a),
        (f"cvt.{mode}.f32.s32 {{d}}, {{a}};", None),
        (f"cvt.{mode}.f32.f64 {{d}}, {{u}};", None),
    ]
    chance = random.Random(mode)
    reals = [[chance.uniform(0.5, 900) * chance.choice((1, -1)) for _ in range(COUNT)]
             for _ in range(3)]  # fmt: skip
    words = [np.array(r, "f4").view("u4") for r in reals]
    doubles = np.array(reals[0], "f8")
    data = [*words, doubles.view("u8"), np.zeros(COUNT, "u8")]
    got = run(kernel_text(cases, 32), data, len(cases), "u4", False).tolist()
    for n in range(COUNT):
        exact = [Fraction(float(w.view("f4")[n])) for w in words]
        for row, (text, meaning) in enumerate(cases):
            if meaning is not None:
                expected = round_f32(meaning(*exact), mode)
            elif "s32" in text:
                expected = round_f32(Fraction(s32(int(words[0][n]))), mode)
            else:
                expected = round_f32(Fraction(float(doubles[n])), mode)
            assert got[row][n] == expected, (text, n, [float(x) for x in exact])


BOUNDS = [
    # instruction, exact function, domain, largest absolute error, largest relative error
    ("rcp.approx.f32", lambda x: 1 / x, (1e-3, 1e6), 0, 2**-23),
    ("rsqrt.approx.f32", lambda x: 1 / np.sqrt(x), (1e-6, 1e6), 0, 2**-22.9),
    ("sqrt.approx.f32", np.sqrt, (1e-6, 1e6), 0, 2**-23),
    ("ex2.approx.f32", np.exp2, (-120, 120), 0, 2**-22),
    ("lg2.approx.f32", np.log2, (0.5, 2), 2**-22, 0),
    ("lg2.approx.f32", np.log2, (2, 1e9), 0, 2**-22),
    ("sin.approx.f32", np.sin, (-math.pi, math.pi), 2**-20.5, 0),
    ("cos.approx.f32", np.cos, (-math.pi, math.pi), 2**-20.5, 0),
    ("tanh.approx.f32", np.tanh, (-8, 8), 0, 2**-11),
]


@pytest.mark.parametrize(
    ("name", "exact", "domain", "absolute", "relative"),
    BOUNDS, ids=[f"{b[0]}-{b[2][1]:.3g}" for b in BOUNDS],
)  # fmt: skip
def test_approximations(
    name: str, exact: Callable, domain: tuple[float, float], absolute: float, relative: float
) -> None:
    """Within the bounds that the ISA states."""
    head = HEAD.replace(".param .u64 pa, .param .u64 pb, .param .u64 pc,", ".param .u64 pa")
    text = head.replace(
        ".param .u64 pu, .param .u64 pv", ""
    ) + f"""
  .reg .f32 %f;
  .reg .b32 %n, %m;
  mov.u32 %n, %ctaid.x; mov.u32 %m, %ntid.x; mad.lo.u32 %i, %n, %m, %i;
  ld.param.u64 %p, [pa]; mad.wide.u32 %x, %i, 4, %p; ld.global.f32 %f, [%x];
  {name} %f, %f;
  ld.param.u64 %o, [out]; mad.wide.u32 %o, %i, 4, %o; st.global.f32 [%o], %f;
  ret; }}"""  # fmt: skip
    count = 1 << 16
    values = np.random.default_rng(1).uniform(*domain, count).astype("f4")
    out = np.zeros(count, "f4")
    launch(program(text), "run", count // 256, 256, out, values)
    wanted = exact(values.astype("f8"))
    error = np.abs(out.astype("f8") - wanted)
    limit = absolute if absolute else relative * np.abs(wanted)
    assert (error <= limit).all(), float((error / np.abs(wanted)).max())
