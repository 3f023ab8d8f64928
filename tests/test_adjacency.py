"""Which loads of bytes are one load."""

from __future__ import annotations

import pytest

from anyarch.engine.adjacency import Address, Word, words
from anyarch.engine.composition import SIGN, ZERO, Composition, Piece, compose, piece_of
from anyarch.engine.regions import ROOT, Occurrence
from anyarch.ir.graph import Node
from tests.test_regionloops import CODE, region_of

EXACT = {("x", 2)}


def address_of(found: Occurrence, node: Node) -> Address | None:
    register, offset = node, 0
    if node.op == "add":
        register, offset = node.args[0], found.constant(node.args[1])
    return (str(register.attrs[0]), found.constant(register.args[0])), offset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lbu a1, 0(a0); lbu a2, 1(a0)", [[0, 1]]),
        ("lbu a1, -1(a0); lb a2, 0(a0); lbu a3, 1(a0); lbu a4, 2(a0)", [[0, 1, 2, 3]]),
        ("lbu a1, 0(a0); lbu a2, 2(a0); nop; lbu a3, 3(a0); lbu a4, 1(a0)", [[0, 4, 1, 3]]),
        ("lbu a1, 0(a0); lbu a2, 1(a0); lbu a3, 2(a0)", [[0, 1]]),
        ("lbu a1, 1(a0); lbu a2, 0(a0)", [[1, 0]]),
        ("; ".join(f"lbu a1, {at}(a0)" for at in (1, 0, 4, 2, 3)), [[1, 0, 3, 4]]),
        ("lbu a1, 0(a0); lbu a2, 1(a3)", []),
        ("lbu a1, 0(a0); sb a1, 0(a3); lbu a2, 1(a0)", []),
        ("lbu a1, 0(a0); fence r, rw; lbu a2, 1(a0)", []),
        ("lbu a1, 0(a0); addi a0, a0, 1; lbu a2, 1(a0)", []),
        ("lbu a1, 0(a0); lbu a0, 1(a0); lbu a2, 2(a0); lbu a3, 3(a0)", [[0, 1], [2, 3]]),
        ("lbu a1, 0(a0); addi sp, sp, 16; lbu a2, 1(a0)", []),  # sp is exact at faults
        ("lhu a1, 0(a0); lhu a2, 2(a0)", []),
        ("lbu a1, 0(a0); ld a3, 0(a4); lbu a2, 1(a0)", [[0, 2]]),
        ("; ".join(f"lbu a1, {index}(a0)" for index in range(8)), [list(range(8))]),
    ],
)
def test_words(text: str, expected: list[list[int]]) -> None:
    block = region_of(text + "; ret").blocks[ROOT, CODE]
    indices = {each.pc: index for index, each in enumerate(block.instructions)}
    found = dict.fromkeys(words(block.instructions, address_of, EXACT).values())
    assert [[indices[pc] for pc in word.pcs] for word in found] == expected


WORD = Word((CODE, CODE + 4, CODE + 8, CODE + 12))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lbu a1, 0(a0)", (0, *[ZERO] * 7)),
        ("lb a1, 0(a0)", (0, *[SIGN] * 7)),
        ("slli a1, a2, 24", (*[ZERO] * 3, 3, *[SIGN] * 4)),
        ("slliw a1, a2, 24", (*[ZERO] * 3, 3, *[SIGN] * 4)),
        ("slli a1, a2, 4", None),
        ("or a1, a3, a4", (0, 1, *[ZERO] * 6)),
        ("or a1, a2, a3", None),  # both have a byte at the bottom
        ("or a1, a3, a5", None),
        ("add a1, a3, a4", None),
    ],
)
def test_composition(text: str, parts: tuple[int, ...] | None) -> None:
    held = {12: (3, *[SIGN] * 7), 13: (0, *[ZERO] * 7), 14: (ZERO, 1, *[ZERO] * 6)}
    found = region_of(text + "; ret").blocks[ROOT, CODE].instructions[0]
    (write,) = (each.node for each in found.template.graph.effects if each.node.op == "write")

    def registers(node: Node) -> Composition | None:
        known = held.get(found.constant(node.args[0]))
        return None if known is None else Composition(WORD, known)

    made = compose(found, write.args[1], WORD, registers)
    assert (None if made is None else made.parts) == parts


@pytest.mark.parametrize(
    ("parts", "piece"),
    [
        ((0, 1, 2, 3, *[ZERO] * 4), Piece(0, 4, swapped=False, signed=False)),
        ((3, 2, 1, 0, *[SIGN] * 4), Piece(0, 4, swapped=True, signed=True)),
        ((2, 3, *[SIGN] * 6), Piece(2, 2, swapped=False, signed=True)),
        ((0, *[ZERO] * 7), None),
        ((0, 1, 2, *[ZERO] * 5), None),
        ((0, 2, *[ZERO] * 6), None),
        ((ZERO, 0, 1, *[ZERO] * 5), None),
        ((0, 1, *[SIGN] * 2, *[ZERO] * 4), None),
    ],
)
def test_piece(parts: tuple[int, ...], piece: Piece | None) -> None:
    assert piece_of(Composition(WORD, parts)) == piece
