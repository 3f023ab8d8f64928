"""``python -m benchmarks``: our own programs, native, under QEMU and under anyarch, interleaved.

Native is built like the guest's programs: without vectors where the guest is RV64GC, which has none
(native -O2 has them), with them where it is AArch64. Compiled
code is measured cold (nothing in the cache but the interpreter) and warm (after one run).
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from anyarch.errors import Error
from benchmarks.report import Report
from benchmarks.runner import (
    GUESTS,
    OURS,
    BenchmarkError,
    Command,
    Commands,
    Guest,
    Way,
    available_ways,
    compare,
    engines_of,
    execute,
    options_parser,
    ratios,
    seconds_of,
    show,
    with_caches,
)
from tests.programs.build import compile_c

FOLDER: Final = Path(__file__).parent / "programs"
# Programs whose source is built more than once, for as many threads.
THREADED: Final = {"atomics": (2, 4), "threads": (2, 4)}


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A source and what the compiler is told. Its first argument says how much work is done."""

    name: str
    source: Path
    flags: tuple[str, ...] = ()

    def build(self, way: Way) -> Path:
        """The executable for a way of running it."""
        return compile_c(self.source, way.target, flags=(*way.flags, *self.flags))


def programs() -> dict[str, Program]:
    """All programs by name."""
    found = []
    for source in sorted(FOLDER.glob("*.c")):
        if source.stem in THREADED:
            for count in THREADED[source.stem]:
                found.append(Program(f"{source.stem}-{count}", source, (f"-DTHREADS={count}",)))
        else:
            found.append(Program(source.stem, source))
    return {program.name: program for program in found}


def commands(program: Program, ways: Sequence[Way], arguments: Sequence[str]) -> Commands:
    """How each way runs a program."""
    return {
        way.name: Command((*way.prefix, program.build(way), *arguments), way.cache) for way in ways
    }


def instructions(program: Program, arguments: Sequence[str], guest: Guest) -> int:
    """Guest instructions of a program, counted by anyarch in a run of its own."""
    executable = program.build(Way("count", guest.target, flags=guest.flags))
    run = execute([sys.executable, "-m", "anyarch", "run", "--count", executable, *arguments])
    found = re.search(rb"instructions: ([\d,_]+)", run.stderr)
    if found is None:
        raise BenchmarkError(
            f"{program.name}: `anyarch run --count` printed no line 'instructions: N' to stderr"
        )
    return int(re.sub(rb"[,_]", b"", found[1]))


def main() -> int:
    """Exit status 0, 1 when a run fails or outputs differ, 2 for an unknown name."""
    parser = options_parser("benchmarks", __doc__)
    parser.add_argument("--size", help="argument for the programs instead of their own default")
    parser.add_argument("--mips", action="store_true", help="also guest instructions a second")
    options = parser.parse_args()
    arguments = [options.size] if options.size else []
    guest = GUESTS[options.guest]
    ways = with_caches(available_ways(engines_of(options), guest))
    names = [way.name for way in ways]
    report = Report(names, ratios(names))
    cases = {
        name: partial(commands, program, ways, arguments) for name, program in programs().items()
    }
    status = compare(options, cases, report, seconds_of(options))
    if options.mips:
        ours = [name for name in names if name.startswith(OURS)]
        rates = Report(ours, (), unit="million insns/s", digits=0)
        try:
            for name, seconds in report.rows.items():
                count = instructions(programs()[name], arguments, guest)
                rates.rows[name] = {way: count / seconds[way] / 1e6 for way in ours}
        except Error as error:
            print(error, file=sys.stderr)
            status = 1
        show(rates)
    return status


if __name__ == "__main__":
    sys.exit(main())
