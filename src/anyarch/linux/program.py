"""Running a program from a file: the one function that the command line and the API call."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from anyarch.errors import LoadError
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.architectures import ABIS
from anyarch.linux.elf import MACHINES, read_elf
from anyarch.linux.interfaces import Engine
from anyarch.linux.paths import Paths
from anyarch.linux.process import Options, Outcome, Process, end_like
from anyarch.memory.space import AddressSpace

EngineMaker = Callable[[LinuxAbi, str, AddressSpace | None], tuple[Engine, AddressSpace]]


def run_program(
    path: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    make_engine: EngineMaker,
    engine: str = "auto",
    argv0: str | None = None,
    env: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    strace: str | bool | None = None,
    follow: bool = False,
    summary: bool = False,
    verbose: bool = False,
    crash_report: bool = False,
    core: str | os.PathLike[str] | None = None,
    max_insns: int | None = None,
    stats: bool = False,
) -> Outcome:
    """Run a Linux program of any supported architecture until it ends.

    ``make_engine`` takes the guest's architecture and ``engine``, and returns an engine with its
    empty address space; it is called again where the guest executes a program of another
    architecture, with the space that is empty then, to be used where it fits. ``env`` is the whole
    environment (default: ours); absolute paths are looked up in ``root`` first; ``strace`` is a
    file for the trace of system calls, or True for stderr; ``follow`` traces children and threads
    too, ``summary`` counts the calls instead.
    ``crash_report`` and ``core`` are what a death by signal leaves: a report on stderr, a core.
    A forked child of the guest never returns from here. Raises :class:`~anyarch.errors.LoadError`.
    """
    name = os.fsencode(path)
    folder = os.fsencode(os.path.realpath(root)) if root is not None else None
    program = Paths(folder).resolve(name, follow=True)
    abi = find_abi(program)
    with ExitStack() as stack:
        options = Options(
            root=folder,
            verbose=verbose,
            crash_report=crash_report,
            core=os.fsencode(os.path.abspath(core)) if core is not None else None,
            max_insns=max_insns,
        )
        if strace:
            from anyarch.linux.strace import Trace  # only here: a plain run need not load it

            options.trace = stack.enter_context(
                Trace(None if strace is True else strace, follow=follow, summary=summary)
            )
        process = Process(lambda abi, space: make_engine(abi, engine, space), abi, options)
        words = [os.fsencode(text) for text in (path if argv0 is None else argv0, *arguments)]
        texts = [
            os.fsencode(f"{key}={value}")
            for key, value in (os.environ if env is None else env).items()
        ]
        process.load(program, name, words, texts)
        process.announce_program()
        outcome = process.run()
        if stats:
            print_statistics(process)
    if process.is_child:
        end_like(outcome)
    return outcome


def find_abi(program: bytes) -> LinuxAbi:
    """The architecture that a program is for."""
    text = os.fsdecode(program)
    try:
        fd = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LoadError(f"{text}: {error.strerror}") from error
    try:
        machine = read_elf(fd, text).machine
    finally:
        os.close(fd)
    if machine not in ABIS:
        known = ", ".join(abi.name for abi in ABIS.values())
        built = MACHINES.get(machine, f"ELF machine {machine}")
        raise LoadError(f"{text}: built for {built}; expected one of: {known}")
    return ABIS[machine]


def print_statistics(process: Process) -> None:
    """How many system calls of each kind were served natively, and in Python."""
    native = process.native_counts()
    python = process.options.python_calls
    total = f"{sum(native.values())} native, {sum(python.values())} in Python"
    print(f"anyarch: system calls: {total}", file=sys.stderr)
    for name in sorted({*native, *python}, key=lambda name: -native.get(name, 0) - python[name]):
        print(f"  {name:<20}{native.get(name, 0):>10}{python[name]:>10}", file=sys.stderr)
