"""Programs that work long enough to be compiled print what they print in the interpreter:
compressors, whose output tells of every decision that they have made."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benchmarks.inputs import make_text
from tests.real.starting import PATIENCE
from tests.real.sysroot import Machine
from tests.real.test_packages import environment

LINES: Final = 8000
RUNS: Final = 3  # what one leaves uncompiled, the next may find compiled
COMMANDS: Final = {
    "xz": "xz -c -6 -T1",
    "zstd": "zstd -q -c -12 --single-thread",
    "bzip2": "bzip2 -c",
    "gzip": "gzip -c -n -9",
    "sort": "sort -k2,2 -k1,1r",
}


def output(root: Path, command: str, text: Path, engine: str) -> bytes:
    """What a program of the sysroot makes of a text."""
    name, *arguments = command.split()
    line = [sys.executable, "-m", "anyarch", "run", "--engine", engine, "-L", str(root)]
    return subprocess.run(
        [*line, f"/usr/bin/{name}", *arguments, str(text)],
        env=environment(text.parent),
        cwd=text.parent,
        capture_output=True,
        timeout=120 * PATIENCE,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_compiled_programs_decide_the_same(
    name: str, machine: Machine, root: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    make_text(text, random.Random(name), LINES)
    expected = output(root, COMMANDS[name], text, "interp")
    assert expected
    for run in range(RUNS):
        assert output(root, COMMANDS[name], text, "jit") == expected, f"run {run}"
