"""Memory ordering between threads: what Arm's model forbids does not happen, atomics are atomic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import anyarch
from tests.programs.build import AARCH64, compile_c

PROGRAM: Final = Path(__file__).parent / "programs" / "litmus.c"
# Rounds of each test; a multiple of four, so that the threads' bits are all clear at the end.
ROUNDS: Final = {"interp": 20000, "jit": 200000}
TESTS: Final = (
    "MP stlr ldar", "MP dmb", "SB dmb", "SB stlr ldar", "SB swpal ldaxr stlxr",
    "SB stlr and exchanges", "LB stlr ldar", "IRIW ldar", "IRIW dmb", "CoRR",
)  # fmt: skip


@pytest.mark.parametrize("engine", ROUNDS)
def test_forbidden_outcomes(engine: str) -> None:
    program = compile_c(PROGRAM, AARCH64)
    result = anyarch.run(program, [str(ROUNDS[engine])], engine=engine, timeout=600)
    assert (result.status, result.signal) == (0, None), result.stderr
    lines = [f"{name}: 0 forbidden" for name in TESTS]
    lines.append("counter right, pair right, bits 0")
    assert result.stdout.decode().splitlines() == lines
