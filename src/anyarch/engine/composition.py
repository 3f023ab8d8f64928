"""What registers are composed of where a block puts bytes together that were loaded as a word.

LLVM finds a word that is made of its bytes again, but not where the highest byte was extended by
its sign: which is how compilers for RISC-V load a word of 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.engine.adjacency import Word
from anyarch.engine.regions import Occurrence
from anyarch.ir.graph import Node

ZERO: Final = -1  # a byte of zeros
SIGN: Final = -2  # a byte that repeats the highest bit of the one below


@dataclass(frozen=True, slots=True)
class Composition:
    """Bytes of a value, the lowest first: each the index of a byte of ``word``, ZERO, or SIGN."""

    word: Word
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a word, as a whole value: its first byte, how many, whether their order is the
    other one, and whether the value has the sign above them, else zeros."""

    start: int
    nbytes: int
    swapped: bool
    signed: bool


def piece_of(composition: Composition) -> Piece | None:
    """The piece of at least two bytes that a composition is, if it is one."""
    parts = composition.parts
    nbytes = sum(part >= 0 for part in parts)
    own, above = parts[:nbytes], set(parts[nbytes:])
    if nbytes not in (2, 4, 8) or len(above) > 1 or min(own) < 0:
        return None
    start = min(own)
    order = tuple(range(start, start + nbytes))
    if own not in (order, order[::-1]):
        return None
    return Piece(start, nbytes, own != order, above == {SIGN})


def compose(
    found: Occurrence,
    node: Node,
    loaded: Word | None,
    held: Callable[[Node], Composition | None],
) -> Composition | None:
    """What a node of an instruction is composed of: the instruction's load, if it has one, is of a
    byte of ``loaded``; ``held`` tells what registers are composed of."""
    if node.op == "load" and loaded is not None and node.size == 8:
        return Composition(loaded, (loaded.pcs.index(found.pc),))
    if node.op == "register":
        return held(node)
    if node.op not in ("zext", "sext", "extract", "shl", "or"):
        return None
    first = compose(found, node.args[0], loaded, held)
    if first is None or node.size % 8:
        return None
    if node.op == "or":
        return _joined(first, compose(found, node.args[1], loaded, held))
    parts, nbytes = first.parts, node.size // 8
    if node.op == "extract":
        low = int(node.attrs[0])
        parts = parts[low // 8 : low // 8 + nbytes]
        if low % 8 or parts[0] == SIGN:
            return None
    elif node.op == "shl":
        if node.args[1].number not in found.template.constants:
            return None
        count = found.constant(node.args[1])
        if count % 8 or count >= node.size:
            return None
        parts = ((ZERO,) * (count // 8) + parts)[:nbytes]
    else:
        above = ZERO if node.op == "zext" or parts[-1] == ZERO else SIGN
        parts += (above,) * (nbytes - len(parts))
    return Composition(first.word, parts)


def _joined(a: Composition, b: Composition | None) -> Composition | None:
    """Both, where each has zeros for what the other has."""
    if b is None or a.word != b.word:
        return None
    pairs = list(zip(a.parts, b.parts, strict=True))
    if any(ZERO not in pair for pair in pairs):
        return None
    return Composition(a.word, tuple(y if x == ZERO else x for x, y in pairs))
