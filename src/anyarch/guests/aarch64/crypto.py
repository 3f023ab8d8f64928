"""Cryptographic instructions: AES, SHA1, SHA256, SHA512, SHA3 (Arm DDI 0487, C4.1.96).

FEAT_AES, FEAT_PMULL (in simd_integer), FEAT_SHA1, FEAT_SHA256, FEAT_SHA512, FEAT_SHA3.
"""

from __future__ import annotations

from anyarch.guests.aarch64.fields import insn
from anyarch.guests.aarch64.simd import define
from anyarch.ir.bits import Bits, join
from anyarch.ir.lanes import Lanes
from anyarch.ir.sha import choose, majority, rotations
from anyarch.isa.machine import Machine

# AES.


@insn("01001110 00 10100 00100 10 vn vd", "aese {vd:v16b}, {vn:v16b}")
def aese(m: Machine, vn: Bits, vd: Bits) -> None:
    """Add a round key, shift rows and substitute bytes."""
    m.v[vd] = (m.v[vd] ^ m.v[vn]).aes("aes_encrypt")


@insn("01001110 00 10100 00101 10 vn vd", "aesd {vd:v16b}, {vn:v16b}")
def aesd(m: Machine, vn: Bits, vd: Bits) -> None:
    """Add a round key, shift rows and substitute bytes, inversely."""
    m.v[vd] = (m.v[vd] ^ m.v[vn]).aes("aes_decrypt")


@insn("01001110 00 10100 00110 10 vn vd", "aesmc {vd:v16b}, {vn:v16b}")
def aesmc(m: Machine, vn: Bits, vd: Bits) -> None:
    """Mix columns."""
    m.v[vd] = m.v[vn].aes("aes_mix")


@insn("01001110 00 10100 00111 10 vn vd", "aesimc {vd:v16b}, {vn:v16b}")
def aesimc(m: Machine, vn: Bits, vd: Bits) -> None:
    """Mix columns, inversely."""
    m.v[vd] = m.v[vn].aes("aes_unmix")


# SHA1 and SHA256.


def _sha1(m: Machine, kind: int, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Four rounds of SHA1."""
    words = Lanes(m.v[vm], 32) + Lanes(m.v[vn, 32].zext(128), 32)
    m.v[vd] = m.v[vd].sha1_rounds(kind, words.bits)


for _kind, _letter in enumerate("cpm"):
    define(
        f"sha1{_letter}",
        f"01011110 000 vm 0 {_kind:03b} 00 vn vd",
        f"sha1{_letter} {{vd:q}}, {{vn:s}}, {{vm:v4s}}",
        _sha1,
        kind=_kind,
    )


@insn("01011110 000 vm 0 011 00 vn vd", "sha1su0 {vd:v4s}, {vn:v4s}, {vm:v4s}")
def sha1su0(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """First half of SHA1's schedule."""
    d = Lanes(m.v[vd], 64)
    m.v[vd] = d.shuffle(Lanes(m.v[vn], 64), [1, 2]).bits ^ d.bits ^ m.v[vm]


@insn("01011110 00 10100 00000 10 vn vd", "sha1h {vd:s}, {vn:s}")
def sha1h(m: Machine, vn: Bits, vd: Bits) -> None:
    """Rotate as SHA1 does between rounds."""
    lanes = Lanes(m.v[vn, 32].zext(128), 32)
    m.v[vd] = (lanes << 30 | lanes >> 2).bits


@insn("01011110 00 10100 00001 10 vn vd", "sha1su1 {vd:v4s}, {vn:v4s}")
def sha1su1(m: Machine, vn: Bits, vd: Bits) -> None:
    """Second half of SHA1's schedule."""
    d, n = Lanes(m.v[vd], 32), Lanes(m.v[vn], 32)
    zero = n.constant(0)
    t = d ^ n.shuffle(zero, [1, 2, 3, 4])
    last = zero.shuffle(t, [0, 0, 0, 4])
    m.v[vd] = ((t << 1 | t >> 31) ^ (last << 2 | last >> 30)).bits


def _sha256(x: Bits, y: Bits, w: Bits) -> tuple[Lanes, Lanes]:
    """Four rounds: a to d and e to h, the first in the lowest lane."""
    first, second = Lanes(x, 32), Lanes(y, 32)
    cdgh, abef = first.shuffle(second, [7, 6, 3, 2]), first.shuffle(second, [5, 4, 1, 0])
    middle = cdgh.bits.sha256_rounds(abef.bits, w)
    last = Lanes(abef.bits.sha256_rounds(middle, w >> 64), 32)
    before = Lanes(middle, 32)
    return last.shuffle(before, [3, 2, 7, 6]), last.shuffle(before, [1, 0, 5, 4])


@insn("01011110 000 vm 0 100 00 vn vd", "sha256h {vd:q}, {vn:q}, {vm:v4s}")
def sha256h(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Four rounds of SHA256, first half of the state."""
    m.v[vd] = _sha256(m.v[vd], m.v[vn], m.v[vm])[0].bits


@insn("01011110 000 vm 0 101 00 vn vd", "sha256h2 {vd:q}, {vn:q}, {vm:v4s}")
def sha256h2(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Four rounds of SHA256, second half of the state."""
    m.v[vd] = _sha256(m.v[vn], m.v[vd], m.v[vm])[1].bits


def _spread(words: Lanes, first: int, second: int, shift: int) -> Lanes:
    """SHA256's small sigma of each lane."""
    turned = [words >> amount | words << 32 - amount for amount in (first, second)]
    return turned[0] ^ turned[1] ^ words >> shift


@insn("01011110 00 10100 00010 10 vn vd", "sha256su0 {vd:v4s}, {vn:v4s}")
def sha256su0(m: Machine, vn: Bits, vd: Bits) -> None:
    """First half of SHA256's schedule."""
    d = Lanes(m.v[vd], 32)
    m.v[vd] = (d + _spread(d.shuffle(Lanes(m.v[vn], 32), [1, 2, 3, 4]), 7, 18, 3)).bits


@insn("01011110 000 vm 0 110 00 vn vd", "sha256su1 {vd:v4s}, {vn:v4s}, {vm:v4s}")
def sha256su1(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Second half of SHA256's schedule."""
    d, n, w = (Lanes(m.v[index], 32) for index in (vd, vn, vm))
    sums = (d + n.shuffle(w, [1, 2, 3, 4])).bits
    low = Lanes(sums[:64], 32) + _spread(Lanes(w.bits[64:], 32), 17, 19, 10)
    high = Lanes(sums[64:], 32) + _spread(low, 17, 19, 10)
    m.v[vd] = high.bits.concat(low.bits)


# SHA512 and SHA3.


@insn("11001110011 vm 100000 vn vd", "sha512h {vd:q}, {vn:q}, {vm:v2d}")
def sha512h(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Two rounds of SHA512, first half of the state."""
    (x0, x1), (y0, y1), (w0, w1) = (m.v[each].lanes(64) for each in (vn, vm, vd))
    high = choose(y1, x0, x1) + rotations(y1, 14, 18, 41) + w1
    total = high + y0
    low = choose(total, y1, x0) + rotations(total, 14, 18, 41) + w0
    m.v[vd] = high.concat(low)


@insn("11001110011 vm 100001 vn vd", "sha512h2 {vd:q}, {vn:q}, {vm:v2d}")
def sha512h2(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Two rounds of SHA512, second half of the state."""
    x0, (y0, y1), (w0, w1) = m.v[vn, 64], m.v[vm].lanes(64), m.v[vd].lanes(64)
    high = majority(x0, y1, y0) + rotations(y0, 28, 34, 39) + w1
    low = majority(high, y0, y1) + rotations(high, 28, 34, 39) + w0
    m.v[vd] = high.concat(low)


@insn("1100111011000000100000 vn vd", "sha512su0 {vd:v2d}, {vn:v2d}")
def sha512su0(m: Machine, vn: Bits, vd: Bits) -> None:
    """First half of SHA512's schedule."""
    (w0, w1), x0 = m.v[vd].lanes(64), m.v[vn, 64]
    low = w0 + (rotations(w1, 1, 8) ^ w1 >> 7)
    m.v[vd] = (w1 + (rotations(x0, 1, 8) ^ x0 >> 7)).concat(low)


@insn("11001110011 vm 100010 vn vd", "sha512su1 {vd:v2d}, {vn:v2d}, {vm:v2d}")
def sha512su1(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Second half of SHA512's schedule."""
    columns = zip(*(m.v[each].lanes(64) for each in (vd, vn, vm)), strict=True)
    m.v[vd] = join([w + (rotations(x, 19, 61) ^ x >> 6) + y for w, x, y in columns])


@insn("11001110011 vm 100011 vn vd", "rax1 {vd:v2d}, {vn:v2d}, {vm:v2d}")
def rax1(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Rotate left by one, and exclusive or."""
    m.v[vd] = m.v[vn] ^ join([lane.rol(1) for lane in m.v[vm].lanes(64)])


@insn("11001110000 vm 0 va vn vd", "eor3 {vd:v16b}, {vn:v16b}, {vm:v16b}, {va:v16b}")
def eor3(m: Machine, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Exclusive or of three."""
    m.v[vd] = m.v[vn] ^ m.v[vm] ^ m.v[va]


@insn("11001110001 vm 0 va vn vd", "bcax {vd:v16b}, {vn:v16b}, {vm:v16b}, {va:v16b}")
def bcax(m: Machine, vm: Bits, va: Bits, vn: Bits, vd: Bits) -> None:
    """Clear bits, and exclusive or."""
    m.v[vd] = m.v[vn] ^ (m.v[vm] & ~m.v[va])


@insn("11001110100 vm imm6 vn vd", "xar {vd:v2d}, {vn:v2d}, {vm:v2d}, {imm6}")
def xar(m: Machine, vm: Bits, imm6: Bits, vn: Bits, vd: Bits) -> None:
    """Exclusive or, and rotate right."""
    m.v[vd] = join([lane.ror(imm6) for lane in (m.v[vn] ^ m.v[vm]).lanes(64)])
