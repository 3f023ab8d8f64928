"""Debian's static busybox: what its shell and applets print.

``BLESS=1`` writes the expected outputs anew, from the same package for this machine.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

import anyarch
from anyarch.engine.cache import CodeCache
from tests.real.starting import PATIENCE, anyarch_run
from tests.real.sysroot import Machine, sysroot

CASES = Path(__file__).with_name("busybox_cases.txt")
SOURCE = Path(anyarch.__file__).parents[1]


class Case(NamedTuple):
    """One script and what it prints."""

    name: str
    script: str
    output: str


def read_cases(path: Path) -> tuple[str, list[Case]]:
    """The comment at the top of a file, and its cases."""
    head, *parts = path.read_text().split("\n== ")
    cases = []
    for part in parts:
        name, _, rest = part.partition("\n")
        script, _, output = rest.partition("\n--\n")
        cases.append(Case(name, script.rstrip("\n"), output.rstrip("\n")))
    return head, cases


HEAD, ALL = read_cases(CASES)


@pytest.fixture(scope="session")
def busybox(machine: Machine) -> Path:
    """The guest's busybox."""
    return sysroot(machine.debian, "busybox-static") / "bin" / "busybox"


def run_script(command: list[str], script: str, folder: Path) -> str:
    """What a script prints: both streams in one."""
    environment = {
        "PATH": "/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(SOURCE),
        "ANYARCH_CACHE": CodeCache().path,
        "LC_ALL": "C",
    }
    done = subprocess.run(
        [*command, "sh", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120 * PATIENCE,
        check=False,
    )
    return done.stdout.decode(errors="backslashreplace").rstrip("\n")


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_applet(case: Case, busybox: Path, tmp_path: Path) -> None:
    if os.environ.get("BLESS"):
        pytest.skip("the outputs are being blessed")
    command = anyarch_run(str(busybox))
    assert run_script(command, case.script, tmp_path) == case.output


@pytest.mark.skipif(not os.environ.get("BLESS"), reason="only with BLESS=1")
def test_bless(tmp_path: Path) -> None:
    assert os.uname().machine == "x86_64", "blessing needs an x86-64 machine"
    native = sysroot("amd64", "busybox-static") / "bin" / "busybox"
    parts = [HEAD]
    for number, case in enumerate(ALL):
        folder = tmp_path / str(number)
        folder.mkdir()
        output = run_script([str(native)], case.script, folder)
        parts.append(f"{case.name}\n{case.script}\n--\n{output}")
    CASES.write_text("\n== ".join(parts) + "\n")


def test_uname(machine: Machine, busybox: Path, tmp_path: Path) -> None:
    command = anyarch_run(str(busybox))
    assert run_script(command, "uname -m; uname -s", tmp_path) == f"{machine.uname}\nLinux"
