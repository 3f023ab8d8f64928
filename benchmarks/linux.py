"""``python -m benchmarks.linux``: whole Linux processes under anyarch and QEMU, interleaved."""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from anyarch.errors import Error
from benchmarks.suite import Way, available_ways, execute, machine_name, qemu_version
from tests.programs.build import RISCV, ROOT, compile_c

SOURCE: Final = Path(__file__).parent / "linux_programs" / "system.c"
HELLO: Final = ROOT / "examples" / "hello.c"
FORKS: Final = 200
# Kinds of system.c, and how often each does what it does.
KINDS: Final = {
    "getpid": 1_000_000,
    "clock_gettime": 1_000_000,
    "futex": 1_000_000,
    "pingpong": 100_000,
    "threads": 2_000,
    "one": 50_000_000,
    "two": 50_000_000,
}
TITLES: Final = {
    "pingpong": "ping-pong between two processes",
    "threads": "pthread_create and join",
    "one": "one thread, multiplications",
    "two": "two threads, as many each",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What is run: the guest's command line, where the first word is a path below ``root``."""

    name: str
    command: tuple[str, ...]
    root: Path | None = None


def measurements(root: Path | None) -> list[Measurement]:
    """Everything there is to measure; programs of a distribution only where there is a root."""
    system = str(compile_c(SOURCE, RISCV))
    found = [Measurement("hello, static", (str(compile_c(HELLO, RISCV)),))]
    for kind, count in KINDS.items():
        name = f"{TITLES.get(kind, kind)}, {count:,}"
        found.append(Measurement(name, (system, kind, str(count))))
    if root is not None:
        dd = ("/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1000000", "status=none")
        found.append(Measurement("dd bs=1, 1,000,000", dd, root))
        for python in sorted((root / "usr/bin").glob("python3.[0-9]*[0-9]"))[-1:]:
            found.append(
                Measurement("python3 -c pass", (f"/usr/bin/{python.name}", "-c", "pass"), root)
            )
        loop = ("/bin/bash", "-c", "for ((i = 0; i < $1; i++)); do $2 $3/bin/true; done", "bash")
        found.append(Measurement(f"bash: fork and execute, {FORKS}", (*loop, str(FORKS)), root))
    return found


def command_line(way: Way, measurement: Measurement) -> list[str]:
    """How a way runs a measurement."""
    program, *arguments = measurement.command
    if measurement.root is None:
        return [*way.prefix, program, *arguments]
    root = str(measurement.root)
    prefix = [*way.prefix, "-L", root]
    if arguments[-1] == str(FORKS):
        # QEMU executes guest programs only where the host's kernel was told to start it for them.
        arguments += [" ".join(prefix), root] if way.name == "qemu" else ["", ""]
    return [*prefix, root + program, *arguments]


def main() -> int:
    """Exit status 0, or 1 when a run fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.linux", description=__doc__)
    parser.add_argument("--root", type=Path, help="folder with a guest's system: dd, bash, python3")
    parser.add_argument("--filter", default="", help="regular expression on names")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--engine", action="append", help="engine of anyarch; repeatable (auto)")
    options = parser.parse_args()
    ways = [way for way in available_ways(options.engine or ["auto"]) if way.target is RISCV]
    root = options.root.resolve() if options.root else None
    names = [way.name for way in ways]
    ours = [name for name in names if name != "qemu"]
    table = Table()
    table.add_column("what", no_wrap=True)
    for name in names:
        table.add_column(f"{name} s", justify="right")
    if len(ours) < len(names):
        for name in ours:
            table.add_column(f"{name} / qemu", justify="right")
    progress = Console(stderr=True)
    try:
        for measurement in measurements(root):
            if re.search(options.filter, measurement.name):
                progress.print(f"[dim]{measurement.name}[/dim]")
                seconds = measure(ways, measurement, options.repeat)
                row = [f"{seconds[name]:.3f}" for name in names]
                if "qemu" in seconds:
                    row += [f"{seconds[name] / seconds['qemu']:.2f}" for name in ours]
                table.add_row(measurement.name, *row)
    except Error as error:
        print(error, file=sys.stderr)
        return 1
    Console().print(table)
    print(f"{machine_name()}; {qemu_version() or 'QEMU is not installed'}")
    print(f"medians of {options.repeat} interleaved runs, seconds of wall time, start included")
    return 0


def measure(ways: list[Way], measurement: Measurement, repeat: int) -> dict[str, float]:
    """Median seconds of each way. A first round warms caches and is not counted."""
    commands = {way.name: command_line(way, measurement) for way in ways}
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(repeat + 1):
        for name, command in commands.items():
            seconds = execute(command).seconds
            if turn:
                samples[name].append(seconds)
    return {name: statistics.median(each) for name, each in samples.items()}


if __name__ == "__main__":
    sys.exit(main())
