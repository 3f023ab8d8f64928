"""Builds the public riscv-tests (isa/rv64u*) as user-level programs and runs them.

Each source becomes a static Linux program through ``env/riscv_test.h``: status 0 is a pass, any
other status the number of the failed case. The suite itself is not part of this project.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from anyarch.errors import Error
from tests.programs.build import ROOT, BuildError, zig_version

ENVIRONMENT: Final = Path(__file__).parent / "env"
FOLDER: Final = ROOT / "build" / "riscv_tests"
SECONDS: Final = 60

# Suite folder (rv64<name>): processor features beyond rv64g that its sources use.
EXTENSIONS: Final[dict[str, str]] = {
    "ui": "",
    "um": "",
    "ua": "",
    "uf": "",
    "ud": "",
    "uc": "",
    "uzba": "+zba",
    "uzbb": "+zbb",
    "uzbc": "+zbc",
    "uzbs": "+zbs",
    "uzfh": "+zfh",
    "uzfa": "+zfa",
    "uzacas": "+zacas",
    "uzicond": "+zicond",
}

# GNU's directive for half-precision numbers, which LLVM's assembler lacks.
_FLOAT16: Final = re.compile(r"\.float16\s+([-+.:\w]+)")

_EM_RISCV: Final = 243
_PT_LOAD: Final = 1


class SuiteError(Error):
    """The folder given is not a checkout of riscv-tests."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One source file of the suite."""

    extension: str
    source: Path

    @property
    def name(self) -> str:
        return f"{self.source.parent.name}/{self.source.stem}"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What running a case gave: no text means that it passed."""

    case: Case
    failure: str = ""


Runner = Callable[[Path], int]


def find_cases(suite: Path, extensions: Iterable[str] = EXTENSIONS) -> Iterator[Case]:
    """Sources of the suite, by extension; a folder that this version of it lacks gives none."""
    if not (suite / "isa" / "macros" / "scalar" / "test_macros.h").is_file():
        raise SuiteError(
            f"{suite} holds no isa/macros/scalar/test_macros.h: expected a checkout of "
            "riscv-tests; get one with `python -m tests.riscv_tests FOLDER --fetch`"
        )
    for extension in extensions:
        for source in sorted((suite / "isa" / f"rv64{extension}").glob("*.S")):
            yield Case(extension, source)


def build(case: Case) -> Path:
    """Assemble and link one case; the program is kept while source and headers stay the same."""
    macros = case.source.parents[1] / "macros" / "scalar"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "riscv64-linux-musl"]
    command += [f"-mcpu=generic_rv64+m+a+f+d+c+zicsr+zifencei{EXTENSIONS[case.extension]}"]
    command += ["-nostdlib", "-static", "-Wno-everything", f"-I{ENVIRONMENT}", f"-I{macros}"]
    parts = [case.source, *sorted(case.source.parent.glob("*.h")), *sorted(macros.glob("*.h"))]
    parts += sorted(ENVIRONMENT.glob("*.h"))
    # rv64 cases include their rv32 twin, which holds the code.
    parts += [case.source.parents[1] / f"rv32{case.extension}" / case.source.name]
    parts.append(Path(__file__))
    digest = hashlib.sha256(f"{zig_version()}{command}".encode())
    for part in parts:
        if part.is_file():
            digest.update(part.read_bytes())
    output = FOLDER / f"{case.source.parent.name}-{case.source.stem}-{digest.hexdigest()[:12]}"
    if output.exists():
        return output
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    expanded = unfinished.with_name(f"{unfinished.name}.s")
    try:
        text = _translate(case, [*command, "-E", str(case.source)])
        expanded.write_text(_FLOAT16.sub(_half, text))
        _translate(case, [*command, "-o", str(unfinished), str(expanded)])
    finally:
        expanded.unlink(missing_ok=True)
    _allow_everything(unfinished)
    unfinished.replace(output)
    return output


def _translate(case: Case, command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        reason = next((line for line in result.stderr.splitlines() if "error" in line), "")
        raise BuildError(f"{case.source} does not assemble: {reason}\ncommand: {command}")
    return result.stdout


def _half(directive: re.Match[str]) -> str:
    number = directive[1]
    if number.startswith("0h:"):
        bits = int(number[3:], 16)
    else:
        (bits,) = struct.unpack("<H", struct.pack("<e", float(number)))
    return f".half {bits:#06x}"


def _allow_everything(program: Path) -> None:
    """Make every segment readable, writable and executable: some cases run what they store."""
    image = bytearray(program.read_bytes())
    (machine,) = struct.unpack_from("<H", image, 18)
    if machine != _EM_RISCV:
        raise BuildError(f"{program} is for machine {machine}: expected RISC-V ({_EM_RISCV})")
    (table,) = struct.unpack_from("<Q", image, 32)
    entry_nbytes, count = struct.unpack_from("<HH", image, 54)
    for at in range(table, table + entry_nbytes * count, entry_nbytes):
        (kind,) = struct.unpack_from("<I", image, at)
        if kind == _PT_LOAD:
            struct.pack_into("<I", image, at + 4, 7)
    program.write_bytes(image)
    program.chmod(0o755)


def runner(engine: str) -> Runner:
    """A function that runs a program: ``qemu``, the name of an engine of anyarch, or ``eager``:
    all code compiled before it runs."""
    if engine == "qemu":
        return _run_qemu
    name, eager = ("jit", True) if engine == "eager" else (engine, False)

    def run_anyarch(program: Path) -> int:
        import anyarch

        options = anyarch.JitOptions(eager=eager)
        result = anyarch.run(program, engine=name, jit=options, timeout=SECONDS)
        return -result.signal if result.signal is not None else result.status or 0

    return run_anyarch


def _run_qemu(program: Path) -> int:
    command = ["qemu-riscv64", "-cpu", os.environ.get("QEMU_CPU", "rv64,Zfh=true"), str(program)]
    return subprocess.run(command, capture_output=True, timeout=SECONDS).returncode


def run(case: Case, run_program: Runner) -> Outcome:
    """Build and run one case; whatever goes wrong becomes the outcome's text."""
    try:
        status = run_program(build(case))
    except (Error, OSError, subprocess.SubprocessError) as error:
        return Outcome(case, f"{type(error).__name__}: {error}")
    if status < 0:
        return Outcome(case, f"killed by signal {-status}")
    return Outcome(case, f"case {status} failed" if status else "")
