"""SHA-1 and SHA-256 (FIPS 180-4, sections 6.1.2 and 6.2.2) as operations on bits: also what hosts
do that have no instructions for them."""

from __future__ import annotations

from typing import Final

from anyarch.ir.bits import Bits, join


def choose(x: Bits, y: Bits, z: Bits) -> Bits:
    """Bits of y where x is set, of z where it is not."""
    return ((y ^ z) & x) ^ z


def majority(x: Bits, y: Bits, z: Bits) -> Bits:
    """Bits that two of the three have."""
    return (x & y) | ((x | y) & z)


def parity(x: Bits, y: Bits, z: Bits) -> Bits:
    """Bits that one or all of the three have."""
    return x ^ y ^ z


def rotations(value: Bits, *amounts: int) -> Bits:
    """The sum of rotations to the right, without carry."""
    result = value.ror(amounts[0])
    for amount in amounts[1:]:
        result = result ^ value.ror(amount)
    return result


# By the first argument of four_rounds.
SHA1_FUNCTIONS: Final = (choose, parity, majority)
SHA1_CONSTANTS: Final = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC)


def four_rounds(kind: int, abcd: Bits, words: Bits) -> Bits:
    """What a, b, c, d are after four rounds of SHA-1 with a function.

    Names are in the order from the lowest lane; each word is the schedule's with its constant, and
    the first with e added.
    """
    a, b, c, d = abcd.lanes(32)
    e = a.constant(0, 32)
    for word in words.lanes(32):
        total = word + e + a.rol(5) + SHA1_FUNCTIONS[kind](b, c, d)
        a, b, c, d, e = total, a, b.rol(30), c, d
    return join([a, b, c, d])


def two_rounds(cdgh: Bits, abef: Bits, words: Bits) -> Bits:
    """What a, b, e, f are after two rounds; c, d, g, h are what these were before.

    Names are in the order from the highest lane; each word is the schedule's with its constant.
    """
    f, e, b, a = abef.lanes(32)
    h, g, d, c = cdgh.lanes(32)
    for word in words.lanes(32)[:2]:
        t = h + rotations(e, 6, 11, 25) + choose(e, f, g) + word
        last = t + rotations(a, 2, 13, 22) + majority(a, b, c)
        a, b, c, d, e, f, g, h = last, a, b, c, t + d, e, f, g
    return join([f, e, b, a])
