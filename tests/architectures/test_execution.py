"""Programs of several architectures in one process tree, one executing the next."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import anyarch
from tests.programs.build import AARCH64, HOST, RISCV, compile_c

SOURCE: Final = Path(__file__).with_name("mixed.c")


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    """The program for each machine, by the machine's name."""
    targets = {"riscv64": RISCV, "aarch64": AARCH64, os.uname().machine: HOST}
    return {name: str(compile_c(SOURCE, target)) for name, target in targets.items()}


def run(programs: dict[str, str], chain: str, engine: str = "interp") -> tuple[int | None, str]:
    """Status (or minus the signal) and output of a chain such as ``riscv64 fork aarch64 end``."""
    words = [programs.get(word, word) for word in chain.split()]
    result = anyarch.run(words[0], words[1:], engine=engine, timeout=120)
    assert result.stderr == b""
    status = result.status if result.signal is None else -result.signal
    return status, result.stdout.decode()


KEPT: Final = "default 1 ignored 1 blocked 1 pending 1 closed -1 open 0"


@pytest.mark.parametrize("engine", ["interp", "jit", "reference"])
@pytest.mark.parametrize(("first", "second"), [("riscv64", "aarch64"), ("aarch64", "riscv64")])
def test_what_execve_keeps(programs: dict[str, str], first: str, second: str, engine: str) -> None:
    chain = f"{first} execute {second} execute {first} execute {second} end"
    lines = [f"{name} execute" for name in (first, second, first)]
    assert run(programs, chain, engine) == (
        3,
        "\n".join([*lines, f"{second} end {KEPT} mark {first}\n"]),
    )


@pytest.mark.parametrize(("first", "second"), [("riscv64", "aarch64"), ("aarch64", "riscv64")])
def test_any_thread_executes(programs: dict[str, str], first: str, second: str) -> None:
    assert run(programs, f"{first} thread {second} thread {first} end") == (
        3,
        f"{first} thread\n{second} thread\n{first} end {KEPT} mark {second}\n",
    )


def test_children_and_the_host(programs: dict[str, str]) -> None:
    host = os.uname().machine
    assert run(programs, f"aarch64 fork riscv64 fork {host} die") == (
        4,
        f"aarch64 fork\nriscv64 fork\n{host} die\nriscv64: child -15\naarch64: child 4\n",
    )
    assert run(programs, f"riscv64 spawn aarch64 spawn {host} end") == (
        6,
        f"riscv64 spawn\nriscv64: nothing 1\naarch64 spawn\naarch64: nothing 1\n"
        f"{host} end default 1 ignored 0 blocked 0 pending 0 closed -1 open -1 mark none\n"
        "aarch64: spawned 3\nriscv64: spawned 6\n",
    )


def test_pipes(programs: dict[str, str]) -> None:
    assert run(programs, "aarch64 pipe riscv64 copy") == (
        7,
        "aarch64 pipe\nriscv64 copy through aarch64\naarch64: reader 5\n",
    )


def test_a_signal_is_passed_on(programs: dict[str, str]) -> None:
    assert run(programs, "aarch64 execute riscv64 die") == (-9, "aarch64 execute\nriscv64 die\n")


def test_a_host_program_is_told_of(programs: dict[str, str], tmp_path: Path) -> None:
    host, trace = programs[os.uname().machine], tmp_path / "trace"
    command = [sys.executable, "-m", "anyarch", "run", "-v", "--strace", "-f", "-o", str(trace)]
    command += [programs["aarch64"], "fork", host, "end"]
    environment = dict(os.environ, PYTHONPATH=str(Path(anyarch.__file__).parents[1]))
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.count(b" end ")) == (4, 1)
    assert f"anyarch: {host}: executed natively, a program of the host\n" in done.stderr.decode()
    (line,) = [line for line in trace.read_text().splitlines() if "of the host" in line]
    assert line.endswith(" <a program of the host, not traced>")


@pytest.mark.parametrize(
    ("linker", "expected"), [("/lib/ld-nothing.so.1", 2), ("{aarch64}", 80)], ids=["none", "other"]
)
def test_a_dynamic_linker_that_is_missing(
    programs: dict[str, str], tmp_path: Path, linker: str, expected: int
) -> None:
    """execve fails as Linux's does: the caller goes on."""
    program = bytearray(Path(programs["riscv64"]).read_bytes())
    name = linker.format_map(programs).encode() + b"\0"
    offset, entry_nbytes, count = struct.unpack_from("<Q14xHH", program, 32)
    for place in range(offset, offset + count * entry_nbytes, entry_nbytes):
        if struct.unpack_from("<I", program, place) == (0x6474E551,):  # PT_GNU_STACK to PT_INTERP
            values = 3, 4, len(program), 0, 0, len(name), len(name), 1
            struct.pack_into("<IIQQQQQQ", program, place, *values)
    changed = tmp_path / "program"
    changed.write_bytes(program + name)
    changed.chmod(0o755)
    words = [programs["aarch64"], "execute", str(changed), "end"]
    result = anyarch.run(words[0], words[1:], timeout=120)
    assert result.stdout.decode() == f"aarch64 execute\naarch64: error {expected}\n"
