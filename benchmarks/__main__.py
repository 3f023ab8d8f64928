"""``python -m benchmarks``: native, QEMU and anyarch side by side, interleaved, as medians."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.table import Table

from anyarch.errors import Error
from benchmarks.suite import (
    NATIVE,
    BenchmarkError,
    Way,
    available_ways,
    build,
    execute,
    instructions,
    machine_name,
    program_names,
    qemu_version,
)

QEMU: Final = "qemu"
OURS: Final = "anyarch"
Times = dict[str, float]


def main() -> int:
    """Exit status 0, 1 when a run fails or outputs differ, 2 when nothing matches the filter."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--filter", default="", help="regular expression on program names")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--engine", action="append", help="engine of anyarch; repeatable (interp)")
    parser.add_argument("--size", help="argument for the programs instead of their own default")
    parser.add_argument("--mips", action="store_true", help="also guest instructions a second")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    options = parser.parse_args()
    names = program_names(options.filter)
    if not names:
        print(
            f"no program matches {options.filter!r}; there are {', '.join(program_names())}",
            file=sys.stderr,
        )
        return 2
    engines: list[str] = options.engine or ["interp"]
    arguments = [options.size] if options.size else []
    ways = available_ways(engines)
    console = Console(stderr=True)
    results: dict[str, Times] = {}
    counts: dict[str, int] = {}
    try:
        for name in names:
            console.print(f"[dim]{name}[/dim]")
            results[name] = measure(name, ways, arguments, options.repeat)
            if options.mips:
                counts[name] = instructions(name, engines[0], arguments)
    except Error as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        record = {
            "machine": machine_name(),
            "qemu": qemu_version(),
            "repeat": options.repeat,
            "seconds": results,
            "instructions": counts,
        }
        print(json.dumps(record, indent=2))
    else:
        # Eighty columns, what a pipe gets otherwise, would cut the numbers.
        width = None if sys.stdout.isatty() else 150
        Console(width=width).print(tabulate(ways, results, counts))
        print(f"{machine_name()}; {qemu_version() or 'QEMU is not installed'}")
        print(f"medians of {options.repeat} interleaved runs, seconds of wall time, start included")
    return 0


def measure(name: str, ways: list[Way], arguments: list[str], repeat: int) -> Times:
    """Median seconds of each way; every output must equal the native one.

    The first round is not counted: anyarch fills its cache of compiled code with a whole run.
    """
    programs = {way.name: build(name, way) for way in ways}
    samples: dict[str, list[float]] = {way.name: [] for way in ways}
    expected: bytes | None = None
    for turn in range(repeat + 1):
        for way in ways:
            if turn == 0 and not way.name.startswith(OURS):
                continue
            run = execute([*way.prefix, programs[way.name], *arguments])
            if turn == 0:
                continue
            if expected is None:
                expected = run.stdout
            if run.stdout != expected:
                raise BenchmarkError(
                    f"{name} under {way.name} printed {run.stdout!r}: expected {expected!r}"
                )
            samples[way.name].append(run.seconds)
    return {way: statistics.median(seconds) for way, seconds in samples.items()}


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms))


def tabulate(ways: list[Way], results: dict[str, Times], counts: dict[str, int]) -> Table:
    """Seconds, and how many times as long as native and as QEMU each other way takes.

    Native is the build without vectors, which the guest's processor has not either.
    """
    others = [way.name for way in ways if way is not NATIVE]
    ours = [name for name in others if name.startswith(OURS)]
    pairs = [(name, NATIVE.name) for name in others]
    if QEMU in others:
        pairs += [(name, QEMU) for name in ours]
    table = Table(caption="ratios: how many times as long, geometric mean; below 1 is faster")
    table.add_column("program", no_wrap=True)
    for way in ways:
        table.add_column(f"{way.name} s", justify="right")
    for above, below in pairs:
        table.add_column(f"{above} / {below}", justify="right")
    rates = [name for name in ours if counts]
    for name in rates:
        table.add_column(f"{name} million insns/s", justify="right")
    for program, times in results.items():
        row = [f"{times[way.name]:.3f}" for way in ways]
        row += [f"{times[above] / times[below]:.2f}" for above, below in pairs]
        row += [f"{counts[program] / times[name] / 1e6:.0f}" for name in rates]
        table.add_row(program, *row)
    means = [
        geometric_mean(t[above] / t[below] for t in results.values()) for above, below in pairs
    ]
    table.add_section()
    table.add_row("mean of ratios", *([""] * len(ways)), *(f"{mean:.2f}" for mean in means))
    return table


if __name__ == "__main__":
    sys.exit(main())
