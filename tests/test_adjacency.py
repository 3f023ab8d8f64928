"""Which loads of bytes are one load."""

from __future__ import annotations

import pytest

from anyarch.engine.adjacency import Address, words
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
        ("lbu a1, 1(a0); lbu a2, 0(a0)", []),  # a fault is at the first
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
