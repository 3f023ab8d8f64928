"""Options of ``anyarch run``: one table, from which come the quick parser and the printed help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from anyarch.data import dataclass, field
from anyarch.errors import Error


class UsageError(Error):
    """A command line that cannot be understood."""


class HelpWanted(Exception):
    """``--help`` was given."""


@dataclass(slots=True)
class RunOptions:
    """What ``anyarch run`` was asked to do."""

    program: str = ""
    arguments: list[str] = field(default_factory=list)
    root: str | None = None
    environment: list[str] = field(default_factory=list)
    engine: str = "auto"
    strace: bool = False
    follow: bool = False
    summary: bool = False
    output: str | None = None
    stats: bool = False
    count: bool = False
    max_insns: int | None = None
    verbose: bool = False
    bundles: list[str] = field(default_factory=list)
    perf_map: bool = False
    stats_file: str | None = None
    cache: str | None = None
    samples: int | None = None
    interval: float | None = None
    precise: bool = False
    eager: bool = False
    crash_report: bool = False
    core: str | None = None
    argv0: str | None = None


def _assignment(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not name or not equals:
        raise ValueError("expected NAME=VALUE")
    return text


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ValueError("expected a positive number")
    return int(text)


def _milliseconds(text: str) -> float:
    value = float(text)  # its ValueError names the text
    if not 0.1 <= value <= 10_000:
        raise ValueError("expected 0.1 to 10000 milliseconds")
    return value / 1000


def _engine(text: str) -> str:
    if text not in ENGINES:
        raise ValueError(f"expected one of {', '.join(ENGINES)}")
    return text


ENGINES: Final = ("auto", "interp", "jit", "reference")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: a switch where ``metavar`` is empty."""

    flags: tuple[str, ...]
    name: str  # the field of RunOptions
    help: str
    metavar: str = ""
    convert: Callable[[str], Any] = str
    repeats: bool = False


OPTIONS: Final = (
    Option(("-L", "--root"), "root", "Look absolute paths up in this directory first.", "ROOT"),
    Option(
        ("-E", "--env"),
        "environment",
        "Set a variable for the program (repeatable).",
        "NAME=VALUE",
        _assignment,
        repeats=True,
    ),
    Option(("--argv0",), "argv0", "Call the program by another name than its path.", "NAME"),
    Option(("--engine",), "engine", f"{', '.join(ENGINES)}.", "ENGINE", _engine),
    Option(("--strace",), "strace", "Print system calls and signals."),
    Option(("-f", "--follow"), "follow", "Let --strace trace child processes and threads too."),
    Option(
        ("-c", "--summary"), "summary", "Count system calls, their errors and time, as strace -c."
    ),
    Option(
        ("-o", "--output"),
        "output",
        "Write the trace of --strace here instead of to stderr.",
        "FILE",
    ),
    Option(
        ("--stats",),
        "stats",
        "Report system calls, and what was translated and compiled, at the end, on stderr.",
    ),
    Option(("--stats-file",), "stats_file", "Write the statistics here, as JSON.", "FILE"),
    Option(("--cache",), "cache", "Directory of compiled code (default: ANYARCH_CACHE).", "DIR"),
    Option(
        ("--jit-samples",),
        "samples",
        "Compile where a program was found N times (default: 2).",
        "N",
        _count,
    ),
    Option(
        ("--jit-interval",),
        "interval",
        "Look every so many milliseconds (default: 1).",
        "MS",
        _milliseconds,
    ),
    Option(
        ("--jit-precise",),
        "precise",
        "Compile so that all registers are exact at every fault (slower).",
    ),
    Option(
        ("--jit-eager",),
        "eager",
        "Compile all code before it first runs, and wait for it (for tests).",
    ),
    Option(
        ("--bundle",),
        "bundles",
        "Use the code that anyarch compile -o wrote here (repeatable).",
        "FILE",
        repeats=True,
    ),
    Option(
        ("--perf-map",),
        "perf_map",
        "Tell Linux perf the names of compiled code, in /tmp/perf-PID.map.",
    ),
    Option(("--count",), "count", "Report on stderr how many instructions ran."),
    Option(("--max-insns",), "max_insns", "Stop after N instructions.", "N", _count),
    Option(
        ("--crash-report",),
        "crash_report",
        "When a signal kills the program, print where it was, and its registers.",
    ),
    Option(("--core",), "core", "When a signal kills the program, write a core dump here.", "FILE"),
    Option(("-v", "--verbose"), "verbose", "Tell what is done, and what is not supported."),
)
_BY_FLAG: Final = {flag: option for option in OPTIONS for flag in option.flags}


def parse_run(arguments: Sequence[str]) -> RunOptions:
    """Parse what follows ``run``; options end at PROGRAM. Raises UsageError or HelpWanted."""
    result = RunOptions()
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            position -= 1
            break
        if word in ("-h", "--help"):
            raise HelpWanted
        flag, value = _split(word)
        option = _BY_FLAG.get(flag)
        if option is None:
            raise UsageError(f"run: no option {flag}; see `anyarch run --help`")
        if not option.metavar:
            if value is not None:
                raise UsageError(f"run: {flag} takes no value, but {word!r} gives one")
            setattr(result, option.name, True)
            continue
        if value is None:
            if position == len(arguments):
                raise UsageError(f"run: {flag} needs {option.metavar}")
            value = arguments[position]
            position += 1
        _store(result, option, value)
    if position >= len(arguments):
        raise UsageError("run: no PROGRAM given; usage: anyarch run [OPTIONS] PROGRAM [ARGS…]")
    result.program, *result.arguments = arguments[position:]
    return result


def _store(result: RunOptions, option: Option, text: str) -> None:
    """Convert and keep an option's value; raises UsageError."""
    try:
        value = option.convert(text)
    except ValueError as error:
        raise UsageError(f"run: {option.flags[0]} {text}: {error}") from None
    if option.repeats:
        getattr(result, option.name).append(value)
    else:
        setattr(result, option.name, value)


def _split(word: str) -> tuple[str, str | None]:
    """Flag and the value written in the same word, if any."""
    if word.startswith("--"):
        flag, equals, value = word.partition("=")
        return flag, value if equals else None
    return word[:2], word[2:] or None
