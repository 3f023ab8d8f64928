"""AES (FIPS 197, section 5) as operations on bits: what hosts do that have no instructions for it.

Bytes of the state are in columns, the lowest first.
"""

from __future__ import annotations

from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes, lookup
from anyarch.ir.ops import substitution_boxes


def step(name: str, state: Bits) -> Bits:
    """A step of AES by the name of its operation (:meth:`Bits.aes`)."""
    box, inverse = substitution_boxes()
    match name:
        case "aes_encrypt":
            return _substituted(_moved(state, 5), box)
        case "aes_decrypt":
            return _substituted(_moved(state, -3), inverse)
        case "aes_mix":
            return _mixed(state, (2, 3, 1, 1))
    return _mixed(state, (14, 11, 13, 9))


def _moved(state: Bits, stride: int) -> Bits:
    return Lanes(state, 8).pick([stride * index % 16 for index in range(16)]).bits


def _substituted(state: Bits, box: list[int]) -> Bits:
    """Bytes by a table of 256, from pieces of 16: a look-up elsewhere gives zero."""
    result = state.constant(0, 128)
    for start in range(0, 256, 16):
        piece = state.constant(int.from_bytes(bytes(box[start : start + 16]), "little"), 128)
        result = result | lookup(piece, (Lanes(state, 8) - start).bits)
    return result


def _mixed(state: Bits, factors: tuple[int, ...]) -> Bits:
    total = state.constant(0, 128)
    for offset, factor in enumerate(factors):
        column = Lanes(state, 8).pick([i & 12 | (i + offset) & 3 for i in range(16)])
        while factor:
            if factor & 1:
                total = total ^ column.bits
            column = column << 1 ^ (column.sar(7) & 0x1B)
            factor >>= 1
    return total
