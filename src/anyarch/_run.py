"""Running Linux programs: engines wired to guests for the command line and the Python API."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyarch._native import architecture, native_code, native_key, region_compiler
from anyarch.data import dataclass
from anyarch.engine.cache import CodeCache
from anyarch.engine.interpreter import Interpreter
from anyarch.errors import Error
from anyarch.memory.space import AddressSpace

if TYPE_CHECKING:
    from anyarch.cli.options import RunOptions
    from anyarch.linux.abi import LinuxAbi

ENGINES = ("auto", "interp", "jit", "reference")


def make_engine(abi: LinuxAbi, engine: str, *, counting: bool = False) -> tuple[Any, AddressSpace]:
    """An engine for Linux programs of an architecture, and its empty address space."""
    if engine not in ENGINES:
        raise Error(f"no engine is named {engine!r}; expected one of {', '.join(ENGINES)}")
    space = AddressSpace(38)
    kind = Interpreter
    if engine == "reference":
        from anyarch.engine.stepper import Stepper

        kind = Stepper
    native = native_code(abi.name)
    runner = kind(architecture(abi.name), space, native, thunk="aa_linux_thunk", counting=counting)
    if engine in ("auto", "jit") and not counting:
        from anyarch.engine.jit import Jit, Sampler
        from anyarch.engine.store import RegionStore

        cache = CodeCache()
        compiler = region_compiler(abi.name, "flat", cache)
        store = RegionStore(cache, native_key(abi.name, "flat"), files=True)
        runner.sampler = Sampler(Jit(runner.arena, native, compiler, store))
    return runner, space


def main_run(options: RunOptions) -> int:
    """``anyarch run``: the exit status, or minus the number of the signal that ended the guest."""
    from anyarch.linux.program import run_program

    engines: list[Any] = []

    def maker(abi: LinuxAbi, engine: str) -> tuple[Any, AddressSpace]:
        runner, space = make_engine(abi, engine, counting=options.count)
        engines.append(runner)
        gc.freeze()
        gc.enable()
        return runner, space

    environment = dict(os.environ)
    for assignment in options.environment:
        name, _, value = assignment.partition("=")
        environment[name] = value
    outcome = run_program(
        options.program,
        options.arguments,
        make_engine=maker,
        engine=options.engine,
        env=environment,
        root=options.root,
        strace=(options.output or True) if options.strace or options.summary else None,
        follow=options.follow,
        summary=options.summary,
        verbose=options.verbose,
        crash_report=options.crash_report,
        core=options.core,
        max_insns=options.max_insns,
        stats=options.stats,
    )
    if engines and engines[0].sampler is not None:
        engines[0].sampler.close()
    if options.count and engines:
        print(f"instructions: {engines[0].retired}", file=sys.stderr)
    if options.stats and engines:
        arena = engines[0].arena
        report = f"{arena.blocks} blocks translated, {arena.flushes} flushes"
        if engines[0].sampler is not None:
            jit = engines[0].sampler.jit
            report += f", {jit.compiled} regions compiled, {jit.loaded} from the cache"
        print(f"anyarch: {report}", file=sys.stderr)
    return -outcome.signal if outcome.signal is not None else outcome.shell_status


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. ``status`` is None where a signal ended it, or the budget was spent."""

    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes


def run(
    path: str | os.PathLike[str],
    args: Sequence[str] = (),
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    max_insns: int | None = None,
    timeout: float | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Result:
    """Run a Linux program built for another processor, and capture its output.

    It runs in a process of its own, as under ``subprocess.run``: signals, descriptors and the
    working directory of the caller are not touched. ``timeout`` in seconds raises
    subprocess.TimeoutExpired; a program that cannot be run raises :class:`anyarch.Error`.

    >>> import anyarch
    >>> anyarch.run("/no/such/program")
    Traceback (most recent call last):
    ...
    anyarch.errors.LoadError: /no/such/program: not found
    """
    import subprocess

    from anyarch.errors import LoadError

    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", _BOOT, source, "run", "--engine", engine]
    if root is not None:
        command += ["-L", os.fspath(root)]
    if max_insns is not None:
        command += ["--max-insns", str(max_insns)]
    environment = dict(os.environ if env is None else env)
    done = subprocess.run(
        [*command, os.fspath(path), *args],
        input=stdin,
        capture_output=True,
        env=environment,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )
    if done.returncode in (125, 126, 127) and done.stderr.startswith(b"anyarch: error: "):
        message = done.stderr.decode(errors="replace").removeprefix("anyarch: error: ").strip()
        raise (Error if done.returncode == 125 else LoadError)(message)
    if done.returncode == 124 and max_insns is not None:
        return Result(None, None, done.stdout, done.stderr)
    if done.returncode < 0:
        return Result(None, -done.returncode, done.stdout, done.stderr)
    return Result(done.returncode, None, done.stdout, done.stderr)


# Starts the command line without a PYTHONPATH, which the guest would inherit.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from anyarch.cli import main; raise SystemExit(main())"
)
