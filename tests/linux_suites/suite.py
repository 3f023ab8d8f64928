"""Finds the programs of a suite that the reader has built, runs each one, and judges it.

A program says how it went by its exit status. LTP's is a set of bits: 1 failed, 2 could not be set
up, 4 warned, 32 does not apply here. musl's libc-test and most others only know zero.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from anyarch.errors import Error

_FAIL, _BROKEN, _WARNING, _SKIP = 1, 2, 4, 32
_SHELL_SYNTAX: Final = re.compile(r"[;|&<>`]")
_GRACE: Final = 2.0  # seconds that a program has to end its children when it takes too long


class SuiteError(Error):
    """The folder, or the list of commands, is not what it should be."""


class Verdict(enum.Enum):
    """What became of a program."""

    PASS = "pass"
    FAIL = "fail"
    BROKEN = "broken"  # its preparations failed, or it was killed or took too long
    SKIP = "skip"  # it says that it does not apply


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A program of the suite with its arguments."""

    name: str
    command: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended, with what it printed."""

    verdict: Verdict
    reason: str  # status, signal or time limit; nothing for a pass
    output: str


Launcher = Callable[[Case], list[str]]


def launcher(name: str, options: list[str]) -> Launcher:
    """The command line for a case ``name`` runs: ``anyarch``, ``native``, or QEMU's program.

    ``options`` go before the program: an engine, ``-L ROOT``.
    """
    if name == "native":
        return lambda case: list(case.command)
    if name == "anyarch":
        prefix = [sys.executable, "-m", "anyarch", "run", *options]
    else:
        program = shutil.which(name)
        if program is None:
            raise SuiteError(f"{name} is not installed: give --under one that is")
        prefix = [program, *(["-L", options[options.index("-L") + 1]] if "-L" in options else [])]
    return lambda case: [*prefix, *case.command]


def find_cases(folder: Path) -> Iterator[Case]:
    """Every ELF program in a folder, and in the folders in it, run without arguments."""
    if not folder.is_dir():
        raise SuiteError(f"{folder} is not a folder: build a suite first (see --help)")
    for path in sorted(folder.rglob("*")):
        if path.suffix != ".so" and _is_program(path):
            yield Case(str(path.relative_to(folder)), (str(path.resolve()),))


def _is_program(path: Path) -> bool:
    if not path.is_file() or not os.access(path, os.X_OK):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def read_list(folder: Path, listed: Path) -> Iterator[Case]:
    """The cases that a list of LTP (``runtest/syscalls``) names: lines of ``name command...``.

    Left out are scripts, commands that need a shell, and programs that ``folder`` does not have.
    """
    try:
        text = listed.read_text()
    except OSError as error:
        raise SuiteError(f"{listed} cannot be read: {error.strerror}") from error
    for line in text.splitlines():
        name, _, command = line.strip().partition(" ")
        if not command or name.startswith("#") or _SHELL_SYNTAX.search(command):
            continue
        program, *arguments = shlex.split(os.path.expandvars(command))
        path = folder / program
        if _is_program(path):
            yield Case(name, (str(path.resolve()), *arguments))


def judge(status: int) -> tuple[Verdict, str]:
    """The verdict that an exit status means, a signal's being negative."""
    if status == 0:
        return Verdict.PASS, ""
    if status < 0:
        return Verdict.BROKEN, f"signal {-status}"
    reason = f"status {status}"
    if status & ~(_FAIL | _BROKEN | _WARNING | _SKIP):
        return Verdict.FAIL, reason  # not LTP's bits
    if status & _FAIL:
        return Verdict.FAIL, reason
    if status & (_BROKEN | _WARNING):
        return Verdict.BROKEN, reason
    return Verdict.SKIP, reason


def run(case: Case, launch: Launcher, seconds: float) -> Outcome:
    """Run a case in an empty folder of its own, in a process group of its own."""
    with tempfile.TemporaryDirectory(prefix="suite-", ignore_cleanup_errors=True) as folder:
        # Programs that change their user go on working in it.
        os.chmod(folder, 0o777)
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                launch(case),
                cwd=folder,
                env=_environment(case, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                verdict, reason = judge(process.wait(seconds))
            except subprocess.TimeoutExpired:
                verdict, reason = Verdict.BROKEN, f"more than {seconds:g} s"
                _end(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has left behind
            output.seek(0)
            text = output.read().decode(errors="replace")
    return Outcome(verdict, reason, text)


def _environment(case: Case, folder: str) -> Mapping[str, str]:
    programs = os.path.dirname(case.command[0])
    environment = dict(os.environ, TMPDIR=folder, LTP_COLORIZE_OUTPUT="0")
    environment["PATH"] = f"{programs}:{environment.get('PATH', os.defpath)}"
    # Data of LTP's programs is found from here; installed programs are in testcases/bin.
    environment.setdefault("LTPROOT", os.path.normpath(os.path.join(programs, "../..")))
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that takes too long: on SIGINT LTP's ends the groups of its children too."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            return
