"""``anyarch compile``: compiles programs before they run, and shows how far it is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from anyarch._compile import compile_work, gather

_PAUSE: Final = 10  # seconds between two lines


def compile_programs(
    programs: Sequence[str],
    root: str | None,
    *,
    libraries: bool,
    output: str | None,
    jobs: int | None,
) -> dict[str, Any]:
    """Compile; facts about what was done. How far it is goes to stderr: a bar on a terminal, else
    a line now and then."""
    begun = told = time.monotonic()
    work = gather(programs, root, libraries=libraries)
    jobs = jobs or len(os.sched_getaffinity(0))
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("compiling"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    facts: dict[str, Any] = {"files": work.files}
    with bar:
        task = bar.add_task("", total=len(work.roots), what="")
        for progress in compile_work(work, jobs, output):
            what = f"{progress.compiled:,} regions, {progress.nbytes / 1e6:.1f} MB"
            bar.update(task, completed=progress.done, total=progress.found, what=what)
            facts |= asdict(progress)
            if not console.is_terminal and time.monotonic() >= told + _PAUSE:
                told = time.monotonic()
                where = f"{progress.done:,} of {progress.found:,}"
                print(
                    f"compiling: {where}; {what}; {told - begun:.0f} s", file=sys.stderr, flush=True
                )
    facts["seconds"] = round(time.monotonic() - begun, 3)
    if output is not None:
        facts["output"] = output
    return facts
