"""``python -m benchmarks.coremark FOLDER``: EEMBC's CoreMark, native, under QEMU and under anyarch.

FOLDER holds the sources as EEMBC publishes them (github.com/eembc/coremark). CoreMark's own rules
ask for at least ten seconds; without --iterations each run calibrates itself to that.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from benchmarks.report import Report
from benchmarks.runner import (
    GUESTS,
    BenchmarkError,
    Command,
    Commands,
    Run,
    Way,
    available_ways,
    compare,
    engines_of,
    options_parser,
    ratios,
    with_caches,
)
from tests.programs.build import compile_c

SOURCES: Final = (
    "core_main.c",
    "core_list_join.c",
    "core_matrix.c",
    "core_state.c",
    "core_util.c",
    "posix/core_portme.c",
)
# Seeds of a performance run, then how many iterations; 0 calibrates.
SEEDS: Final = ("0", "0", "0x66")


def build(folder: Path, way: Way) -> Path:
    """CoreMark for a way of running it."""
    first, *others = (folder / source for source in SOURCES)
    # The text is printed by the program; the same in all builds, so that outputs can be compared.
    flags = (*way.flags, f"-I{folder}", f"-I{folder / 'posix'}", '-DFLAGS_STR="-O2"')
    return compile_c(first, way.target, flags=flags, others=others)


def iterations_a_second(run: Run) -> float:
    """What CoreMark measured; raises BenchmarkError when it found its own results wrong."""
    found = re.search(rb"Iterations/Sec\s*: ([\d.]+)", run.stdout)
    # "ERROR!" alone is about a run of less than ten seconds, which --iterations may ask for.
    if found is None or b"]ERROR!" in run.stdout:
        raise BenchmarkError(f"CoreMark is not content: {run.stdout.decode(errors='replace')}")
    return float(found[1])


def checksums(run: Run) -> bytes:
    """The lines that do not depend on how many iterations there were."""
    return b"\n".join(re.findall(rb"(?:seedcrc|\[0\]crc(?:list|matrix|state)) *: \w+", run.stdout))


def main() -> int:
    """Exit status 0, 1 when a run fails or is wrong, 2 for wrong arguments."""
    parser = options_parser("benchmarks.coremark", __doc__, timed=False)
    parser.add_argument("folder", type=Path, help="CoreMark's sources")
    parser.add_argument("--iterations", type=int, default=0, help="fixed, not calibrated")
    options = parser.parse_args()
    folder = options.folder.resolve()
    missing = [source for source in SOURCES if not (folder / source).is_file()]
    if missing:
        parser.error(f"{folder} lacks {', '.join(missing)}")
    ways = with_caches(available_ways(engines_of(options), GUESTS[options.guest]))
    names = [way.name for way in ways]

    def commands() -> Commands:
        arguments = (*SEEDS, str(options.iterations))
        return {
            way.name: Command((*way.prefix, build(folder, way), *arguments), way.cache)
            for way in ways
        }

    note = "ratios: how many times as fast, above 1 is faster"
    report = Report(names, ratios(names), unit="iterations/s", digits=0, note=note)
    return compare(options, {"CoreMark": commands}, report, iterations_a_second, checksums)


if __name__ == "__main__":
    sys.exit(main())
