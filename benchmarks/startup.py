"""``python -m benchmarks.startup``: time and peak memory of programs that do almost nothing."""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from anyarch.errors import Error
from benchmarks.runner import (
    HELLO,
    VECTORS,
    Run,
    available_ways,
    environment,
    execute,
    machine_name,
    qemu_version,
)
from tests.programs.build import compile_c


def main() -> int:
    """Exit status 0, or 1 when a run fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=11, help="runs of each (11)")
    parser.add_argument("--engine", action="append", help="engine of anyarch; repeatable (interp)")
    options = parser.parse_args()
    try:
        commands = collect(options.engine or ["interp"])
        for command in commands.values():
            execute(command)
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.repeat):
            for name, command in commands.items():
                runs[name].append(execute(command))
    except Error as error:
        print(error, file=sys.stderr)
        return 1
    table = Table("command", "median ms", "least ms", "peak MB")
    for name, samples in runs.items():
        milliseconds = [run.seconds * 1000 for run in samples]
        # A program that ends at once escapes the sampling: 0 is then no measurement.
        kilobytes = max(peak_kilobytes(commands[name]) for _ in range(5))
        peak = f"{kilobytes / 1024:.1f}" if kilobytes else "too short"
        table.add_row(
            name,
            f"{statistics.median(milliseconds):.1f}",
            f"{min(milliseconds):.1f}",
            peak,
        )
    Console().print(table)
    print(f"{machine_name()}; {qemu_version() or 'QEMU is not installed'}")
    return 0


def collect(engines: list[str]) -> dict[str, list[str | Path]]:
    """Commands by name: hello in every way, Python alone, and anyarch's version."""
    commands: dict[str, list[str | Path]] = {}
    for way in available_ways(engines):
        if way == VECTORS:
            continue
        program = compile_c(HELLO, way.target, flags=way.flags)
        commands[f"hello, {way.name}"] = [*way.prefix, program]
    commands["python -c pass"] = [sys.executable, "-c", "pass"]
    commands["anyarch --version"] = [sys.executable, "-m", "anyarch", "--version"]
    return commands


def peak_kilobytes(command: list[str | Path]) -> int:
    """Most memory that a command has resident, sampled while it runs.

    Not what wait4 reports: Linux counts there what this process held before the exec.
    """
    peak = 0
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment(),
    )
    status = Path(f"/proc/{process.pid}/status")
    while found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text()):
        peak = max(peak, int(found[1]))
    process.wait()
    return peak


if __name__ == "__main__":
    sys.exit(main())
