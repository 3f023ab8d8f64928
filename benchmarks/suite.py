"""What is measured: our own programs, their sizes, and the ways of running them."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anyarch.errors import Error
from tests.programs.build import HOST, RISCV, ROOT, Target, compile_c

PROGRAMS: Final = Path(__file__).parent / "programs"
# What checksums need: results must not depend on whether a machine fuses operations.
FLAGS: Final = ("-ffp-contract=off",)
# RV64GC has no vectors, so the native programs that guests are compared with have none either.
SCALAR: Final = (*FLAGS, "-fno-vectorize", "-fno-slp-vectorize")
SECONDS: Final = 1000


class BenchmarkError(Error):
    """A run that failed, or whose output differs from the native one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A way of running a program: how it is built, and a command prefix for the executable."""

    name: str
    target: Target
    prefix: tuple[str, ...] = ()
    flags: tuple[str, ...] = SCALAR


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run: wall seconds and output."""

    seconds: float
    stdout: bytes
    stderr: bytes


NATIVE: Final = Way("native", HOST)
VECTORS: Final = Way("native -O2", HOST, flags=FLAGS)


def available_ways(engines: Sequence[str]) -> list[Way]:
    """Native without and with vectors, QEMU where it is installed, each engine of anyarch."""
    ways = [NATIVE, VECTORS]
    qemu = shutil.which("qemu-riscv64")
    if qemu is not None:
        ways.append(Way("qemu", RISCV, (qemu,)))
    for engine in engines:
        command = (sys.executable, "-m", "anyarch", "run", "--engine", engine)
        ways.append(Way(f"anyarch {engine}", RISCV, command))
    return ways


def program_names(pattern: str = "") -> list[str]:
    """Names of the benchmark programs that contain a regular expression."""
    names = sorted(source.stem for source in PROGRAMS.glob("*.c"))
    return [name for name in names if re.search(pattern, name)]


def build(name: str, way: Way) -> Path:
    """The executable of a benchmark program for a way of running it."""
    return compile_c(PROGRAMS / f"{name}.c", way.target, flags=way.flags)


def _environment() -> dict[str, str]:
    path = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def execute(command: Sequence[str | Path]) -> Run:
    """Run a command once; raises BenchmarkError when its status is not 0."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
    )
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        # Outputs are a line or two, so that reading after the end cannot block the program.
        _, status = os.waitpid(process.pid, 0)
    finally:
        timer.cancel()
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        run = Run(seconds, process.stdout.read(), process.stderr.read())
    if process.returncode != 0:
        line = " ".join(str(part) for part in command)
        raise BenchmarkError(
            f"status {process.returncode} after {seconds:.1f} s of {line}: "
            f"{run.stderr.decode(errors='replace').strip()[-2000:]}"
        )
    return run


def peak_kilobytes(command: Sequence[str | Path]) -> int:
    """Most memory that a command has resident, sampled while it runs.

    Not what wait4 reports: Linux counts there what this process held before the exec.
    """
    peak = 0
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=_environment(),
    )
    status = Path(f"/proc/{process.pid}/status")
    while found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text()):
        peak = max(peak, int(found[1]))
    process.wait()
    return peak


def instructions(name: str, engine: str, arguments: Sequence[str]) -> int:
    """Guest instructions of a program, counted by anyarch in a run of its own."""
    command = [sys.executable, "-m", "anyarch", "run", "--engine", engine, "--count"]
    run = execute([*command, build(name, Way(engine, RISCV)), *arguments])
    found = re.search(rb"instructions: ([\d,_]+)", run.stderr)
    if found is None:
        raise BenchmarkError(
            f"{name}: `anyarch run --count` printed no line 'instructions: N' to stderr"
        )
    return int(re.sub(rb"[,_]", b"", found[1]))


def machine_name() -> str:
    """Processor model of this machine and how many of its processors are ours."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} processors, Linux {os.uname().release}"


def qemu_version() -> str | None:
    """First line of ``qemu-riscv64 --version``, or None where it is not installed."""
    qemu = shutil.which("qemu-riscv64")
    if qemu is None:
        return None
    return execute([qemu, "--version"]).stdout.decode().splitlines()[0]
