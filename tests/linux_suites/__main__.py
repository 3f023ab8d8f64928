"""Run a public suite of Linux system call tests under anyarch and under QEMU, and compare.

Build a suite first; it is not part of this project. The Linux Test Project, with Debian's cross
compiler: in its checkout `make autotools`, then `./configure --host=riscv64-linux-gnu
--prefix=DEST CC=riscv64-linux-gnu-gcc LDFLAGS=-static`, and `make` in lib and libs, `make` and
`make install` in testcases/kernel/syscalls. FOLDER is then DEST/testcases/bin, and the list is
runtest/syscalls of the checkout. musl's libc-test: `make -k RUN_TEST=true` with CC, AR and RANLIB
for a riscv64 musl, which runs nothing; FOLDER is src, with `--match static`. For AArch64 likewise,
with `--guest aarch64`.

Run LTP's with `--isolate`, above all as root: they send signals to every process, change settings
and users, and mount. musl's do no harm, and write to /tmp, which `--isolate` does not let them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from anyarch.engine.cache import CodeCache
from anyarch.errors import Error
from tests.linux_suites.isolation import execute_with, isolate
from tests.linux_suites.suite import (
    Case,
    Launcher,
    Outcome,
    Verdict,
    find_cases,
    launcher,
    read_list,
    run,
)

MACHINES: Final = {"riscv64": 243, "aarch64": 183}  # numbers in ELF headers


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when anyarch passes whatever another one passes, 1 when not, 2 for bad use."""
    parser = argparse.ArgumentParser(
        prog="tests.linux_suites",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder of the suite's programs")
    parser.add_argument("--list", type=Path, help="LTP's list of commands; else every program")
    parser.add_argument("--match", default="", help="only names that this expression is found in")
    parser.add_argument("--exclude", help="no names that this expression is found in")
    parser.add_argument(
        "--guest", default="riscv64", choices=list(MACHINES), help="what was built for (riscv64)"
    )
    parser.add_argument(
        "--under",
        action="append",
        help="anyarch, native or a QEMU program; repeatable (anyarch, and the guest's QEMU)",
    )
    parser.add_argument("--engine", help="engine of anyarch (its default)")
    parser.add_argument("--eager", action="store_true", help="compile all code before it runs")
    parser.add_argument("-L", dest="root", help="root folder for dynamic programs")
    parser.add_argument("--seconds", type=float, default=60, help="limit for each program (60)")
    parser.add_argument("--jobs", type=int, default=1, help="programs at the same time (1)")
    parser.add_argument("--logs", type=Path, help="folder for what the programs print")
    parser.add_argument("--isolate", action="store_true", help="in namespaces of their own")
    options = parser.parse_args(arguments)
    for signum in (signal.SIGHUP, signal.SIGQUIT):  # what nohup and shells ignore
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    emulator = f"qemu-{options.guest}"
    default = ["anyarch", emulator] if shutil.which(emulator) else ["anyarch"]
    flags = ["--engine", options.engine] if options.engine else []
    flags += ["--jit-eager"] if options.eager else []
    flags += ["-L", options.root] if options.root else []
    try:
        if options.isolate and (status := keep_apart(options.logs)) is not None:
            return status
        if options.list is None:
            cases = find_cases(options.folder)
        else:
            cases = read_list(options.folder, options.list)
        chosen = [
            case
            for case in cases
            if re.search(options.match, case.name)
            and not (options.exclude and re.search(options.exclude, case.name))
        ]
        outcomes: dict[str, list[Outcome]] = {}
        for name in options.under or default:
            launch = launcher(name, flags)
            logs = None if options.logs is None else options.logs / name
            each = partial(run_case, launch=launch, seconds=options.seconds, logs=logs)
            if options.isolate:
                qemu = shutil.which(name) if name.startswith("qemu") else None
                execute_with(qemu, MACHINES[options.guest])
            with ThreadPoolExecutor(options.jobs) as pool:
                outcomes[name] = list(pool.map(each, chosen))
    except Error as error:
        print(error, file=sys.stderr)
        return 2
    report(Console(), chosen, outcomes)
    return 1 if missed(outcomes) else 0


def keep_apart(logs: Path | None) -> int | None:
    """Go on in namespaces where only a new folder for temporary files, the logs and the code cache
    can be written; outside, return the status once all is done."""
    folder = tempfile.mkdtemp(prefix="suites-")
    os.chmod(folder, 0o777)
    writable = [Path(folder), Path(CodeCache().path), *([logs] if logs is not None else [])]
    for path in writable:
        path.mkdir(parents=True, exist_ok=True)
    status = isolate(writable)
    if status is None:
        tempfile.tempdir = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return status


def run_case(case: Case, launch: Launcher, seconds: float, logs: Path | None) -> Outcome:
    """Run a case; where ``logs`` is given, keep there what it printed, the verdict first."""
    outcome = run(case, launch, seconds)
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        verdict = f"{outcome.verdict.value} {outcome.reason}".rstrip()
        log = logs / f"{case.name.replace('/', '_')}.log"
        log.write_text(f"{verdict}\n{outcome.output}")
    return outcome


def missed(outcomes: dict[str, list[Outcome]]) -> int:
    """How many cases pass elsewhere and not under anyarch."""
    ours = outcomes.get("anyarch", [])
    others = [each for name, each in outcomes.items() if name != "anyarch"]
    return sum(
        outcome.verdict is not Verdict.PASS and any(o[i].verdict is Verdict.PASS for o in others)
        for i, outcome in enumerate(ours)
    )


def report(console: Console, cases: list[Case], outcomes: dict[str, list[Outcome]]) -> None:
    """Print the counts under each, and the cases that are not judged alike."""
    table = Table("under", *(verdict.value for verdict in Verdict), "of")
    for name, each in outcomes.items():
        counts = Counter(outcome.verdict for outcome in each)
        table.add_row(name, *(str(counts[verdict]) for verdict in Verdict), str(len(each)))
    console.print(table)
    for index, case in enumerate(cases):
        verdicts = {name: each[index] for name, each in outcomes.items()}
        if len({outcome.verdict for outcome in verdicts.values()}) > 1:
            parts = (
                f"{name} {o.verdict.value} {o.reason}".rstrip() for name, o in verdicts.items()
            )
            console.print(f"{case.name}: {', '.join(parts)}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
