"""Random code and damaged files: never a crash, a hang, a traceback or runaway memory.

``ANYARCH_FUZZ=20`` runs twenty times as many cases, from another seed each time.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fuzz.damage import damage
from tests.programs.build import RISCV, ROOT, compile_c

FACTOR = float(os.environ.get("ANYARCH_FUZZ", "1"))
SEED = random.SystemRandom().getrandbits(31) if "ANYARCH_FUZZ" in os.environ else 1
TIME_LIMIT = 20.0  # seconds for a command
MEMORY_LIMIT = 300 << 10  # KiB of peak resident memory
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
PROGRAM = '#include <stdio.h>\nint main(void) { return puts("guest runs") < 0; }\n'


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished command: its status as subprocess gives it, and peak memory in KiB."""

    status: int
    errors: str
    memory: int


def run(command: Sequence[str], folder: Path) -> Ended:
    """Run a command with the time limit."""
    errors = folder / "errors"
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            env=ENVIRONMENT,
            cwd=folder,
        )
        deadline = time.monotonic() + TIME_LIMIT
        peak = 0
        while True:
            peak = max(peak, peak_kilobytes(process.pid))
            done, status = os.waitpid(process.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                pytest.fail(f"{' '.join(command)} ran longer than {TIME_LIMIT} seconds")
            time.sleep(0.005)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, errors.read_text(errors="replace"), peak)


def peak_kilobytes(pid: int) -> int:
    """Peak memory of a running process; what wait4 tells includes that of its parent, us."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


@pytest.mark.parametrize("part", range(3))
def test_random_code(part: int, tmp_path: Path) -> None:
    count = int(60 * FACTOR)
    while count > 0:  # one command has a time limit
        seed = SEED + 1_000_000 * part + count
        batch = min(count, 60)
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.words"]
        ended = run([*command, str(seed), str(batch)], tmp_path)
        assert ended.status == 0, ended.errors
        assert ended.memory < MEMORY_LIMIT
        count -= batch


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("ziglang")
    source = tmp_path_factory.mktemp("fuzz") / "runs.c"
    source.write_text(PROGRAM)
    return compile_c(source, RISCV).read_bytes()


@pytest.mark.parametrize("part", range(5))
def test_damaged_programs(part: int, program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    for number in range(max(1, int(4 * FACTOR))):
        seed = SEED + 100_000 * part + number
        path.write_bytes(damage(program, random.Random(seed)))
        path.chmod(0o755)
        for arguments in (["run", "--max-insns", "300000"], ["info"], ["disasm"]):
            command = [sys.executable, "-m", "anyarch", *arguments, str(path)]
            ended = run(command, tmp_path)
            where = f"seed {seed}: {' '.join(arguments)} ended with {ended.status}: {ended.errors}"
            assert "Traceback" not in ended.errors, where
            assert "Fatal Python error" not in ended.errors, where
            assert ended.memory < MEMORY_LIMIT, f"{where}\n{ended.memory} KiB"
            if arguments[0] != "run":
                assert ended.status in (0, 1, 2, 125, 126, 127), where
            elif ended.status < 0:
                # The guest's own signals: what a program with broken addresses dies of.
                assert -ended.status in (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS), where
            elif ended.status in (125, 126, 127):
                assert ended.errors.startswith("anyarch: error: "), where


def test_the_undamaged_program_runs(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    path.write_bytes(program)
    path.chmod(0o755)
    ended = run([sys.executable, "-m", "anyarch", "run", str(path)], tmp_path)
    assert (ended.status, ended.errors) == (0, "")
