"""Vectors of the floating-point and CSR extensions of RISC-V, and what holds of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from anyarch.guests.riscv import ARCHITECTURE
from anyarch.isa.decoder import find_overlaps
from anyarch.isa.instruction import Instruction
from tests.vectors_format import Factory, ReferenceMachine, Vector, check, read_vectors

FOLDER: Final = Path(__file__).parent / "vectors"
GROUPS: Final = {"zicsr": "zicsr", "f": "rv64f", "d": "rv64d", "zfh": "zfh", "zfa": "zfa"}
ENGINES: Final[dict[str, Factory]] = {"reference": ReferenceMachine}
VECTORS: Final = [
    pytest.param(vector, id=vector.where)
    for group in GROUPS
    for vector in read_vectors(FOLDER / f"{group}.txt")
]


def _defined(extension: str) -> list[Instruction]:
    return [
        instruction
        for instruction in ARCHITECTURE.isa.instructions
        if instruction.extension.rpartition(".")[2] == extension
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector: Vector, engine: str) -> None:
    assert check(ARCHITECTURE, vector, ENGINES[engine]) == [], vector.text


@pytest.mark.parametrize(("group", "extension"), GROUPS.items())
def test_every_mnemonic_has_a_vector(group: str, extension: str) -> None:
    tested = {vector.text.split()[0] for vector in read_vectors(FOLDER / f"{group}.txt")}
    assert {instruction.mnemonic for instruction in _defined(extension)} <= tested


@pytest.mark.parametrize("extension", GROUPS.values())
def test_every_form_traces_with_fields_symbolic_and_constant(extension: str) -> None:
    for instruction in _defined(extension):
        for form in instruction.forms():
            word = instruction.row.value
            for name, value in form.static.items():
                word |= instruction.row.insert(name, value)
            assert form.trace(ARCHITECTURE.layout).effects
            form.trace(ARCHITECTURE.layout, word)


def test_no_word_has_two_definitions() -> None:
    own = [each for extension in GROUPS.values() for each in _defined(extension)]
    assert find_overlaps(own) == []


def test_reserved_rounding_modes_are_no_instructions() -> None:
    for instruction in ARCHITECTURE.isa.instructions:
        if "rm" in instruction.row.fields:
            for mode in (5, 6):
                assert not instruction.row.matches(instruction.row.value | mode << 12)
