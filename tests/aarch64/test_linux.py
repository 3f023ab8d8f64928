"""What AArch64 programs see of Linux: signal frames, faults, capabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

import anyarch
from tests.programs.build import AARCH64, compile_c

FOLDER: Final = Path(__file__).parent / "programs"
EXPECTED: Final = """\
returned 1
record 46508001 528 flags 6 x20 5678
v9 5678 fpsr 10 fpcr 0
v9 77 x20 88 flags 2 fpsr 10
signal 7 code 1 address 10001
signal 11 code 1 address 1000
signal 11 code 1 address 8
fp 3 crypto 1f uscat 0 sve 0
"""
WRITTEN: Final = """\
neighbours 7a084bba5111fa63
loops 4200000
across f2b78823b6d2ea1f
thread 1
"""


@pytest.mark.parametrize("engine", ["interp", "reference", "jit"])
def test_signals(engine: str) -> None:
    program = compile_c(FOLDER / "signals.c", AARCH64)
    result = anyarch.run(program, engine=engine, timeout=120)
    assert (result.status, result.signal) == (0, None), result.stderr
    assert result.stdout.decode() == EXPECTED


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_code_that_is_written_while_it_runs(engine: str) -> None:
    program = compile_c(FOLDER / "code.c", AARCH64)
    result = anyarch.run(program, engine=engine, timeout=120)
    assert (result.status, result.signal) == (0, None), result.stderr
    assert result.stdout.decode() == WRITTEN
