"""How things are timed: commands run in turns, their outputs are compared, and the medians count.

What all commands of this package share: the ways of running a guest's program, the options, and
the loop over what is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from anyarch._native import native_key
from anyarch.engine.cache import CodeCache
from anyarch.errors import Error
from benchmarks.report import Report
from tests.programs.build import AARCH64, HOST, RISCV, ROOT, Target, compile_c

# What checksums need: results must not depend on whether a machine fuses operations.
FLAGS: Final = ("-ffp-contract=off",)
# RV64GC has no vectors, so the native programs that it is compared with have none either.
SCALAR: Final = (*FLAGS, "-fno-vectorize", "-fno-slp-vectorize")
SECONDS: Final = 1000
COMPILER_SECONDS: Final = 180  # that a compiler goes on with what a program has left, at most
HELLO: Final = ROOT / "examples" / "hello.c"
# Engines that keep nothing for the next run.
STATELESS: Final = ("interp", "reference")


class BenchmarkError(Error):
    """A run that failed, or whose output differs from the others'."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """A way of running a program: how it is built, and a command prefix for the executable.

    ``cache`` tells what compiled code there is: what the user has (""), none ("cold"), or what
    the latest cold run left ("warm").
    """

    name: str
    target: Target
    prefix: tuple[str, ...] = ()
    flags: tuple[str, ...] = SCALAR
    cache: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """What is run: arguments, the state of the code cache, whether its output must be the same."""

    arguments: Sequence[str | Path]
    cache: str = ""
    compared: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run: wall seconds, processor seconds of itself and its children, and output.

    anyarch's compiler process is no child of the guest: its time is in the wall seconds only.
    """

    seconds: float
    processor: float
    stdout: bytes
    stderr: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Guest:
    """A guest whose programs are measured: how they are built, what they are compared with."""

    target: Target
    qemu: str
    natives: tuple[Way, ...]  # the first is what ratios are to
    qemu_cpu: tuple[str, ...] = ()  # options of QEMU's

    @property
    def flags(self) -> tuple[str, ...]:
        """Of the compiler: what the first native way has, too."""
        return self.natives[0].flags


Commands = Mapping[str, Command]
Value = Callable[[Run], float]
NATIVE: Final = Way("native", HOST)
VECTORS: Final = Way("native -O2", HOST, flags=FLAGS)
QEMU: Final = "qemu"
OURS: Final = "anyarch"
RISCV_GUEST: Final = Guest(RISCV, "qemu-riscv64", (NATIVE, VECTORS))
GUESTS: Final = {
    guest.target.name: guest
    for guest in (
        RISCV_GUEST,
        # QEMU's default processor has pointer authentication, which it computes in software:
        # Debian's perl takes ten times as long. Ours has none, see docs/aarch64.md.
        Guest(
            AARCH64,
            "qemu-aarch64",
            (dataclasses.replace(VECTORS, name=NATIVE.name),),
            ("-cpu", "max,pauth=off"),
        ),
    )
}


def available_ways(engines: Sequence[str], guest: Guest = RISCV_GUEST) -> list[Way]:
    """Native, QEMU where it is installed, each engine of anyarch; `precise` is jit whose registers
    are exact at every fault."""
    ways = list(guest.natives)
    qemu = shutil.which(guest.qemu)
    if qemu is not None:
        ways.append(Way(QEMU, guest.target, (qemu, *guest.qemu_cpu), guest.flags))
    for engine in engines:
        chosen = ("jit", "--jit-precise") if engine == "precise" else (engine,)
        command = (sys.executable, "-m", "anyarch", "run", "--engine", *chosen)
        ways.append(Way(f"{OURS} {engine}", guest.target, command, guest.flags))
    return ways


def with_caches(ways: Sequence[Way]) -> list[Way]:
    """The ways, where each engine that keeps compiled code is run cold and then warm."""
    found = []
    for way in ways:
        if way.name.startswith(OURS) and not way.name.endswith(STATELESS):
            for cache in ("cold", "warm"):
                found.append(dataclasses.replace(way, name=f"{way.name} {cache}", cache=cache))
        else:
            found.append(way)
    return found


def ratios(names: Sequence[str], base: str = NATIVE.name) -> list[tuple[str, str]]:
    """What is divided by what: everything by the base, and ours by QEMU."""
    pairs = [(name, base) for name in names if name != base and base in names]
    if QEMU in names:
        pairs += [(name, QEMU) for name in names if name.startswith(OURS)]
    return pairs


def options_parser(
    module: str, text: str | None, *, repeat: int = 3, timed: bool = True
) -> argparse.ArgumentParser:
    """The options that all commands have; `timed` where seconds are what is measured."""
    parser = argparse.ArgumentParser(
        prog=module, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this one; repeatable")
    parser.add_argument("--repeat", type=int, default=repeat, help=f"runs of each ({repeat})")
    parser.add_argument(
        "--engine", action="append", help="interp, jit, precise; repeatable (interp and jit)"
    )
    parser.add_argument(
        "--guest", choices=GUESTS, default=RISCV.name, help=f"whose programs ({RISCV.name})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    if timed:
        parser.add_argument(
            "--processor-time",
            action="store_true",
            help="not wall time: steadier on a busy machine, but without the compiler process",
        )
    return parser


def seconds_of(options: argparse.Namespace) -> Value:
    """The clock that was asked for."""
    return (lambda run: run.processor) if options.processor_time else (lambda run: run.seconds)


def engines_of(options: argparse.Namespace) -> list[str]:
    """The engines that were asked for, or the two that matter."""
    chosen: list[str] | None = options.engine
    return chosen or ["interp", "jit"]


def compare(
    options: argparse.Namespace,
    cases: Mapping[str, Callable[[], Commands]],
    report: Report,
    value: Value,
    same: Callable[[Run], bytes] = lambda run: run.stdout,
) -> int:
    """Measure the chosen cases and print the report.

    Exit status 0, 1 when a case failed (the others are still measured), 2 for an unknown name.
    """
    unknown = set(options.only or ()) - set(cases)
    if unknown:
        print(f"no {', '.join(sorted(unknown))}; there are {', '.join(cases)}", file=sys.stderr)
        return 2
    console = Console(stderr=True)
    guest = GUESTS[options.guest]
    status = 0
    for name in options.only or cases:
        console.print(f"[dim]{name}[/dim]")
        try:
            report.rows[name] = measure(cases[name](), options.repeat, value, same, guest)
        except Error as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
        if options.json:
            about = {"machine": machine_name(), "guest": options.guest}
            about |= {"qemu": qemu_version(guest), "repeat": options.repeat}
            text = json.dumps({**about, **report.record()}, indent=2)
            options.json.write_text(text + "\n", encoding="utf-8")
    if report.rows:
        show(report)
    print(f"{machine_name()}; {qemu_version(guest) or 'QEMU is not installed'}")
    print(f"medians of {options.repeat} interleaved runs; {report.note}")
    return status


def show(report: Report) -> None:
    """Print a report's table."""
    # Eighty columns, what a pipe gets otherwise, would cut the numbers.
    Console(width=None if sys.stdout.isatty() else 160).print(report.table())


def measure(
    commands: Commands,
    repeat: int,
    value: Value,
    same: Callable[[Run], bytes],
    guest: Guest = RISCV_GUEST,
) -> dict[str, float]:
    """The median value of each command; raises BenchmarkError where outputs differ."""
    samples: dict[str, list[float]] = {name: [] for name in commands}
    expected: tuple[str, bytes] | None = None
    with Caches(guest) as caches:
        for _ in range(repeat):
            for name, command in commands.items():
                try:
                    run = execute(command.arguments, caches.environment(command.cache))
                except BenchmarkError as error:
                    raise BenchmarkError(f"{name}: {error}") from None
                caches.settle()
                samples[name].append(value(run))
                if not command.compared:
                    continue
                output = same(run)
                expected = expected or (name, output)
                if output != expected[1]:
                    raise BenchmarkError(
                        f"{name} printed {excerpt(output)}, "
                        f"{expected[0]} printed {excerpt(expected[1])}"
                    )
    return {name: statistics.median(values) for name, values in samples.items()}


def excerpt(output: bytes) -> str:
    """An output as a message shows it."""
    return f"{output[:200]!r}{'…' if len(output) > 200 else ''} ({len(output)} bytes)"


class Caches:
    """A code cache of a measurement's own, so that cold is cold and the user's cache untouched."""

    def __init__(self, guest: Guest = RISCV_GUEST) -> None:
        self._target = guest.target
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Caches:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def settle(self) -> None:
        """Wait for the compilers of the run before: they outlive it, and would disturb the next."""
        folder = self._folder.name.encode() if self._folder is not None else None
        deadline = time.monotonic() + COMPILER_SECONDS
        while folder and _is_used(folder) and time.monotonic() < deadline:
            time.sleep(0.05)

    def environment(self, state: str) -> dict[str, str]:
        """What a command needs in its environment to find the cache in that state."""
        if not state:
            return {}
        if state == "cold" or self._folder is None:
            if self._folder is not None:
                self._folder.cleanup()
            self._folder = tempfile.TemporaryDirectory(prefix="anyarch-cache-")
            # The interpreter is the same for all programs: a first run finds it compiled.
            shutil.copy(interpreter(self._target), self._folder.name)
        return {"ANYARCH_CACHE": self._folder.name}


def _is_used(folder: bytes) -> bool:
    """Whether a process has a folder's name in its environment."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if folder in environ.read_bytes():
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False


def interpreter(target: Target = RISCV) -> str:
    """The file in the user's cache with a guest's interpreter, compiled if need be."""
    key = native_key(target.name, "flat")
    for _ in range(2):
        blob = CodeCache().get(key)
        if blob is not None and blob.path is not None:
            return blob.path
        execute([sys.executable, "-m", "anyarch", "run", compile_c(HELLO, target)])
    raise BenchmarkError(f"the code cache {CodeCache().path} keeps nothing; can it be written?")


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def environment() -> dict[str, str]:
    """Ours, where Python finds this copy of anyarch first, and everybody sorts alike."""
    path = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(filter(None, path))}


def execute(command: Sequence[str | Path], extra: Mapping[str, str] | None = None) -> Run:
    """Run a command once, with more in its environment; BenchmarkError if its status is not 0."""
    line = [str(part) for part in command]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**environment(), **(extra or {})},
        )
        with _killed_after(process, SECONDS):
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        outputs = []
        for file in (stdout, stderr):
            file.seek(0)
            outputs.append(file.read())
    run = Run(seconds, usage.ru_utime + usage.ru_stime, *outputs)
    if process.returncode != 0:
        raise BenchmarkError(
            f"status {process.returncode} after {seconds:.1f} s of {' '.join(line)}: "
            f"{run.stderr.decode(errors='replace').strip()[-2000:]}"
        )
    return run


def machine_name() -> str:
    """Processor model of this machine and how many of its processors are ours."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} processors, Linux {os.uname().release}"


def qemu_version(guest: Guest = RISCV_GUEST) -> str | None:
    """First line of ``qemu-… --version``, or None where it is not installed."""
    qemu = shutil.which(guest.qemu)
    if qemu is None:
        return None
    return execute([qemu, "--version"]).stdout.decode().splitlines()[0]
