"""``python -m tests.riscv_tests FOLDER``: run the public riscv-tests under chosen engines."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from anyarch.errors import Error
from tests.riscv_tests.suite import EXTENSIONS, Outcome, find_cases, run, runner

SOURCE: Final = "https://github.com/riscv-software-src/riscv-tests"


def main() -> int:
    """Exit status 0 when everything passes, 1 when a case fails, 2 when nothing could run."""
    parser = argparse.ArgumentParser(prog="tests.riscv_tests", description=__doc__)
    parser.add_argument("suite", type=Path, help="folder of the checked-out riscv-tests")
    parser.add_argument("--fetch", action="store_true", help="clone the suite there first")
    parser.add_argument("--source", default=SOURCE, help="what --fetch clones")
    parser.add_argument(
        "--engine", action="append", help="engine of anyarch, eager or qemu; repeatable (interp)"
    )
    parser.add_argument("--extension", action="append", choices=list(EXTENSIONS))
    options = parser.parse_args()
    console = Console()
    if options.fetch and not options.suite.exists():
        clone = ["git", "clone", "--quiet", "--depth", "1", options.source, str(options.suite)]
        if subprocess.run(clone).returncode != 0:
            return 2
    try:
        cases = list(find_cases(options.suite, options.extension or EXTENSIONS))
    except Error as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for engine in options.engine or ["interp"]:
        run_program = runner(engine)
        outcomes = [run(case, run_program) for case in cases]
        failed += report(console, engine, outcomes)
    return 1 if failed else 0


def report(console: Console, engine: str, outcomes: list[Outcome]) -> int:
    """Print one engine's counts for each extension and its failures; return how many failed."""
    passed = Counter(o.case.extension for o in outcomes if not o.failure)
    total = Counter(o.case.extension for o in outcomes)
    table = Table("extension", "passed", "of", title=f"riscv-tests, {engine}")
    for extension, count in total.items():
        table.add_row(f"rv64{extension}", str(passed[extension]), str(count))
    table.add_row("all", str(passed.total()), str(total.total()))
    console.print(table)
    for outcome in outcomes:
        if outcome.failure:
            console.print(f"{outcome.case.name}: {outcome.failure}", markup=False)
    return total.total() - passed.total()


if __name__ == "__main__":
    sys.exit(main())
