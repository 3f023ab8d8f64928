"""Every vector file on every engine, and every instruction in some vector file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from anyarch.guests.riscv import ARCHITECTURE
from tests.vectors_format import (
    DIRECTORY,
    ENGINES,
    check,
    encode,
    parse,
    read_vectors,
    split,
)

FILES = sorted(DIRECTORY.glob("*.txt"))
# What has few cases to distinguish.
FEW = {
    "c_nop": 1,
    "c_ebreak": 1,
    "ebreak": 1,
    "ecall": 1,
    "wrs_nto": 1,
    "wrs_sto": 1,
    "fence": 3,
    "fence_i": 2,
}
FLOATS = {"zicsr", "rv64f", "rv64d", "zfh", "zfa"}  # test_vectors_float.py sees to these


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vectors(path: Path, engine: str) -> None:
    report = []
    for vector in read_vectors(path):
        problems = check(ARCHITECTURE, vector, ENGINES[engine])
        if problems:
            report.append(f"{vector.where}: {vector.text}: " + "; ".join(problems))
    assert not report, "\n" + "\n".join(report)


def test_every_instruction_has_vectors() -> None:
    counts: Counter[str] = Counter()
    for path in FILES:
        for vector in read_vectors(path):
            code = encode(ARCHITECTURE, vector.text)
            for offset in split(ARCHITECTURE, code):
                found = ARCHITECTURE.decoder.decode(
                    int.from_bytes(code[offset : offset + 4], "little")
                )
                if found is not None:
                    counts[found.name] += 1
    missing = []
    for instruction in ARCHITECTURE.isa.instructions:
        needed = FEW.get(instruction.name, 5)
        if instruction.extension not in FLOATS and counts[instruction.name] < needed:
            missing.append(f"{instruction.name}: {counts[instruction.name]} of {needed}")
    assert not missing, ", ".join(missing)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("add a0, a1, a2 | a1=1 a2=2 => a0=4", "a0 is 0x3, expected 0x4"),
        ("add a0, a1, a2 | a1=1 a2=2 => a3=9", "a0 is 0x3, expected 0x5a5a"),
        ("sb a0, 0(a1) | a0=1 a1=0x1000 [0x1000:1]=0 =>", "[0x1000:8] is 0100000000000000"),
        ("jal zero, .+8 | =>", "pc is 0x10008 (0x10008 in the exit), expected 0x10004"),
        ("ebreak | =>", "ended with Exit(code=<ExitCode.BREAKPOINT"),
        ("ld a0, 0(a1) | a1=0x9000 => fault 0x9001", "expected fault 0x9001"),
        ("addi a0, a0, 1 | => illegal", "expected illegal"),
    ],
)
def test_runner_sees(line: str, problem: str) -> None:
    """The runner reports what differs: wrong lines fail."""
    vector = parse(line, "here")
    assert problem in "; ".join(check(ARCHITECTURE, vector, ENGINES["reference"]))


def test_malformed_line() -> None:
    with pytest.raises(ValueError, match="expected `text"):
        parse("add a0, a1, a2", "here")
    unknown = parse("add a0, a1, a2 | q0=1 => a0=1", "here")
    with pytest.raises(ValueError, match="no register 'q0'"):
        check(ARCHITECTURE, unknown, ENGINES["reference"])
