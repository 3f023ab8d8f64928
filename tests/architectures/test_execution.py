"""Programs of several architectures in one process tree, one executing the next."""

from __future__ import annotations

import os
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
