"""Jump tables as compilers for AArch64 make them: offsets of bytes or halfwords, scaled."""

from __future__ import annotations

import pytest

from anyarch.engine.regions import RegionCompiler
from anyarch.errors import MemoryFault
from anyarch.guests.aarch64 import ARCHITECTURE
from tests.vectors_format import CODE, encode

START = "subs wzr, w0, 2; b.hi other; adr x9, table; adr x10, first; "
ARMS = (
    "first: movz x1, 1; b other; second: movz x1, 2; b other; third: movz x1, 3; other: ret x30; "
)
FIRST = CODE + 28  # behind START and three more
BYTES = START + "ldrb w11, [x9, x0]; add x10, x10, x11, lsl 2; br x10; " + ARMS
SIGNED = START + "ldrb w11, [x9, w0, uxtw]; add x10, x10, w11, sxtb 2; br x10; " + ARMS
HALVES = START + "ldrh w11, [x9, w0, uxtw 1]; add x10, x10, w11, sxth 2; br x10; " + ARMS


@pytest.mark.parametrize(
    ("text", "table"),
    [
        # Behind the entries that the index was compared with is what may look like more of them.
        (BYTES, "table: .word 0x01040200"),
        (SIGNED, "table: .word 0x01040200"),
        (HALVES, "table: .word 0x00020000; .word 0x00010004"),
    ],
    ids=["bytes", "signed", "halfwords"],
)
def test_table(text: str, table: str) -> None:
    assert arms(text + table) == [FIRST, FIRST + 8, FIRST + 16]


def test_an_index_that_was_not_compared_has_no_table() -> None:
    text = BYTES.replace("subs wzr, w0, 2; b.hi other", "hint 0; hint 0")
    assert arms(text + "table: .word 0x01040200") == []


def arms(text: str) -> list[int]:
    """The targets that are found for the one computed jump."""
    code = encode(ARCHITECTURE, text)

    def read(address: int, nbytes: int) -> bytes:
        if not 0 <= address - CODE <= len(code) - nbytes:
            raise MemoryFault(address, "read")
        return code[address - CODE : address - CODE + nbytes]

    compiler = RegionCompiler(ARCHITECTURE, bounded=False)
    region = compiler.discover(CODE, read, read, is_constant=lambda address, nbytes: True)
    assert region is not None
    jumps = [
        found
        for block in region.blocks.values()
        for found in block.instructions
        if found.form.instruction.name == "br"
    ]
    assert len(jumps) == 1
    return jumps[0].arms
