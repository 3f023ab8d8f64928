"""Cryptographic instructions: AES, SHA1, SHA256, SHA512, SHA3 (Arm DDI 0487, C4.1.96).

FEAT_AES, FEAT_PMULL (in simd_integer), FEAT_SHA1, FEAT_SHA256, FEAT_SHA512, FEAT_SHA3.
"""

from __future__ import annotations

from collections.abc import Callable

from anyarch.guests.aarch64.fields import insn
from anyarch.guests.aarch64.simd import define
from anyarch.ir.bits import Bits, join
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


def _choose(x: Bits, y: Bits, z: Bits) -> Bits:
    return ((y ^ z) & x) ^ z


def _parity(x: Bits, y: Bits, z: Bits) -> Bits:
    return x ^ y ^ z


def _majority(x: Bits, y: Bits, z: Bits) -> Bits:
    return (x & y) | ((x | y) & z)


def _sha1(
    m: Machine, function: Callable[[Bits, Bits, Bits], Bits], vm: Bits, vn: Bits, vd: Bits
) -> None:
    """Four rounds of SHA1."""
    x, y, w = m.v[vd].lanes(32), m.v[vn, 32], m.v[vm].lanes(32)
    for word in w:
        y = y + x[0].rol(5) + function(x[1], x[2], x[3]) + word
        x, y = [y, x[0], x[1].rol(30), x[2]], x[3]
    m.v[vd] = join(x)


for _letter, _opcode, _function in (
    ("c", "000", _choose),
    ("p", "001", _parity),
    ("m", "010", _majority),
):
    define(
        f"sha1{_letter}",
        f"01011110 000 vm 0 {_opcode} 00 vn vd",
        f"sha1{_letter} {{vd:q}}, {{vn:s}}, {{vm:v4s}}",
        _sha1,
        function=_function,
    )


@insn("01011110 000 vm 0 011 00 vn vd", "sha1su0 {vd:v4s}, {vn:v4s}, {vm:v4s}")
def sha1su0(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """First half of SHA1's schedule."""
    d = m.v[vd]
    m.v[vd] = m.v[vn][:64].concat(d[64:]) ^ d ^ m.v[vm]


@insn("01011110 00 10100 00000 10 vn vd", "sha1h {vd:s}, {vn:s}")
def sha1h(m: Machine, vn: Bits, vd: Bits) -> None:
    """Rotate as SHA1 does between rounds."""
    m.v[vd, 32] = m.v[vn, 32].rol(30)


@insn("01011110 00 10100 00001 10 vn vd", "sha1su1 {vd:v4s}, {vn:v4s}")
def sha1su1(m: Machine, vn: Bits, vd: Bits) -> None:
    """Second half of SHA1's schedule."""
    t = (m.v[vd] ^ m.v[vn] >> 32).lanes(32)
    words = [word.rol(1) for word in t]
    words[3] = words[3] ^ t[0].rol(2)
    m.v[vd] = join(words)


def _rotations(value: Bits, *amounts: int) -> Bits:
    result = value.ror(amounts[0])
    for amount in amounts[1:]:
        result = result ^ value.ror(amount)
    return result


def _sha256(x: list[Bits], y: list[Bits], w: list[Bits]) -> tuple[list[Bits], list[Bits]]:
    for word in w:
        t = y[3] + _rotations(y[0], 6, 11, 25) + _choose(y[0], y[1], y[2]) + word
        last = t + _rotations(x[0], 2, 13, 22) + _majority(x[0], x[1], x[2])
        x, y = [last, *x[:3]], [t + x[3], *y[:3]]
    return x, y


@insn("01011110 000 vm 0 100 00 vn vd", "sha256h {vd:q}, {vn:q}, {vm:v4s}")
def sha256h(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Four rounds of SHA256, first half of the state."""
    m.v[vd] = join(_sha256(m.v[vd].lanes(32), m.v[vn].lanes(32), m.v[vm].lanes(32))[0])


@insn("01011110 000 vm 0 101 00 vn vd", "sha256h2 {vd:q}, {vn:q}, {vm:v4s}")
def sha256h2(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Four rounds of SHA256, second half of the state."""
    m.v[vd] = join(_sha256(m.v[vn].lanes(32), m.v[vd].lanes(32), m.v[vm].lanes(32))[1])


@insn("01011110 00 10100 00010 10 vn vd", "sha256su0 {vd:v4s}, {vn:v4s}")
def sha256su0(m: Machine, vn: Bits, vd: Bits) -> None:
    """First half of SHA256's schedule."""
    d = m.v[vd].lanes(32)
    t = [*d[1:], m.v[vn, 32]]
    m.v[vd] = join([a + (_rotations(b, 7, 18) ^ b >> 3) for a, b in zip(d, t, strict=True)])


@insn("01011110 000 vm 0 110 00 vn vd", "sha256su1 {vd:v4s}, {vn:v4s}, {vm:v4s}")
def sha256su1(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Second half of SHA256's schedule."""
    d, n, w = m.v[vd].lanes(32), m.v[vn].lanes(32), m.v[vm].lanes(32)
    t, source, result = [*n[1:], w[0]], [w[2], w[3]], []
    for index in range(4):
        word = source[index]
        result.append((_rotations(word, 17, 19) ^ word >> 10) + d[index] + t[index])
        source.append(result[-1])
    m.v[vd] = join(result)


# SHA512 and SHA3.


@insn("11001110011 vm 100000 vn vd", "sha512h {vd:q}, {vn:q}, {vm:v2d}")
def sha512h(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Two rounds of SHA512, first half of the state."""
    (x0, x1), (y0, y1), (w0, w1) = (m.v[each].lanes(64) for each in (vn, vm, vd))
    high = _choose(y1, x0, x1) + _rotations(y1, 14, 18, 41) + w1
    total = high + y0
    low = _choose(total, y1, x0) + _rotations(total, 14, 18, 41) + w0
    m.v[vd] = high.concat(low)


@insn("11001110011 vm 100001 vn vd", "sha512h2 {vd:q}, {vn:q}, {vm:v2d}")
def sha512h2(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Two rounds of SHA512, second half of the state."""
    x0, (y0, y1), (w0, w1) = m.v[vn, 64], m.v[vm].lanes(64), m.v[vd].lanes(64)
    high = _majority(x0, y1, y0) + _rotations(y0, 28, 34, 39) + w1
    low = _majority(high, y0, y1) + _rotations(high, 28, 34, 39) + w0
    m.v[vd] = high.concat(low)


@insn("1100111011000000100000 vn vd", "sha512su0 {vd:v2d}, {vn:v2d}")
def sha512su0(m: Machine, vn: Bits, vd: Bits) -> None:
    """First half of SHA512's schedule."""
    (w0, w1), x0 = m.v[vd].lanes(64), m.v[vn, 64]
    low = w0 + (_rotations(w1, 1, 8) ^ w1 >> 7)
    m.v[vd] = (w1 + (_rotations(x0, 1, 8) ^ x0 >> 7)).concat(low)


@insn("11001110011 vm 100010 vn vd", "sha512su1 {vd:v2d}, {vn:v2d}, {vm:v2d}")
def sha512su1(m: Machine, vm: Bits, vn: Bits, vd: Bits) -> None:
    """Second half of SHA512's schedule."""
    columns = zip(*(m.v[each].lanes(64) for each in (vd, vn, vm)), strict=True)
    m.v[vd] = join([w + (_rotations(x, 19, 61) ^ x >> 6) + y for w, x, y in columns])


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
