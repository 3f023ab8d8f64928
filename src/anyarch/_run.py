"""Running Linux programs: engines wired to guests for the command line and the Python API."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyarch._native import architecture, native_code, native_key, region_compiler, space_variant
from anyarch.data import dataclass
from anyarch.engine.cache import CodeCache
from anyarch.engine.interpreter import Interpreter
from anyarch.errors import Error
from anyarch.memory.space import AddressSpace

if TYPE_CHECKING:
    from anyarch.cli.options import RunOptions
    from anyarch.engine.eager import Eager
    from anyarch.engine.journal import PerfMap
    from anyarch.engine.sampler import Sampler
    from anyarch.linux.abi import LinuxAbi

ENGINES = ("auto", "interp", "jit", "reference")
_GARBAGE = 20_000  # objects after which Python looks for cycles; hardly anything of ours is in one
_SWITCH = 0.0005  # seconds that a thread of ours keeps Python from another


@dataclass(frozen=True, slots=True)
class JitOptions:
    """How the compiled tier works, which is the default engine.

    A place in the program is compiled once it was found there ``samples`` times, looking every
    ``interval`` seconds. ``cache`` is the directory of compiled code (default: as the command's),
    ``bundles`` are files that ``anyarch compile -o`` wrote, ``perf_map`` tells Linux perf the names
    of compiled code. ``precise`` makes all registers exact at every fault, not only where a program
    is likely to look. ``eager`` compiles all code before it first runs, while the program waits.
    """

    samples: int = 2
    interval: float = 0.001
    cache: str | None = None
    bundles: Sequence[str] = ()
    perf_map: bool = False
    precise: bool = False
    eager: bool = False


def make_engine(
    abi: LinuxAbi,
    engine: str,
    space: AddressSpace | None = None,
    *,
    counting: bool = False,
    options: JitOptions | None = None,
) -> tuple[Any, AddressSpace]:
    """An engine for Linux programs of an architecture, and its empty address space: ``space``,
    where one is given and has the size that programs expect."""
    if engine not in ENGINES:
        raise Error(f"no engine is named {engine!r}; expected one of {', '.join(ENGINES)}")
    options = options or JitOptions()
    if space is None or space.limit != abi.task_size:
        space = AddressSpace(abi.task_size.bit_length() - 1, direct=True)
    kind = Interpreter
    if engine == "reference":
        from anyarch.engine.stepper import Stepper

        kind = Stepper
    native = native_code(abi.name, cache=CodeCache(options.cache))
    runner = kind(architecture(abi.name), space, native, thunk="aa_linux_thunk", counting=counting)
    if engine in ("auto", "jit") and not counting:
        perf_map = _perf_map(space) if options.perf_map else None
        runner.sampler = make_sampler(runner, abi.name, space_variant(space), options, perf_map)
    return runner, space


def make_sampler(
    runner: Interpreter,
    name: str,
    variant: str,
    options: JitOptions,
    perf_map: PerfMap | None = None,
) -> Sampler | Eager:
    """The compiled tier for an engine."""
    from anyarch.engine.jit import Jit
    from anyarch.engine.journal import Journal
    from anyarch.engine.store import BundleFile, RegionStore

    runner.arena.assemble()
    cache = CodeCache(options.cache)
    bundles = [BundleFile(path) for path in options.bundles]
    is_linux = variant != "bounded"
    key = native_key(name, variant, cache) + (" precise" if options.precise else "")
    store = RegionStore(cache, key, bundles, files=is_linux)
    compiler = region_compiler(name, variant, cache)
    precise = options.precise or None  # what the code is decides
    jit = Jit(runner.arena, runner.native, compiler, store, Journal(perf_map), precise=precise)
    if options.eager:
        from anyarch.engine.eager import Eager

        return Eager(jit)
    from anyarch.engine.sampler import Sampler

    return Sampler(jit, threshold=options.samples, interval=options.interval)


def engine_statistics(runner: Any) -> dict[str, Any]:
    """What an engine has translated and compiled, as plain data."""
    arena = runner.arena
    facts: dict[str, Any] = {"blocks": arena.blocks, "flushes": arena.flushes}
    if runner.sampler is not None:
        jit = runner.sampler.jit
        facts["regions"] = jit.journal.facts()
        facts["compilers"] = {"started": jit.compiler.started, "seconds": jit.compiler.seconds}
    return facts


def _perf_map(space: AddressSpace) -> PerfMap:
    from anyarch.engine.journal import PerfMap
    from anyarch.linux.functions import FunctionNames

    return PerfMap(FunctionNames(space).name)


def main_run(options: RunOptions) -> int:
    """``anyarch run``: the exit status, or minus the number of the signal that ended the guest."""
    from anyarch.linux.program import run_program

    engines: list[Any] = []
    # What a guest asks of Python waits behind our threads, which install code: not for long.
    sys.setswitchinterval(_SWITCH)

    def maker(abi: LinuxAbi, engine: str, space: AddressSpace | None) -> tuple[Any, AddressSpace]:
        runner, space = make_engine(
            abi,
            engine,
            space,
            counting=options.count,
            options=JitOptions(
                samples=options.samples or 2,
                interval=options.interval or 0.001,
                cache=options.cache,
                bundles=options.bundles,
                perf_map=options.perf_map,
                precise=options.precise,
                eager=options.eager,
            ),
        )
        if not engines:
            gc.freeze()
            gc.set_threshold(_GARBAGE)
            gc.enable()
        engines.append(runner)
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
        argv0=options.argv0,
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
    last = engines[-1]  # of the architecture that the process has ended as
    if last.sampler is not None:
        last.sampler.close()
    if options.count:
        print(f"instructions: {sum(runner.retired for runner in engines)}", file=sys.stderr)
    if options.stats:
        arena = last.arena
        report = [f"{arena.blocks} blocks translated, {arena.flushes} flushes"]
        if last.sampler is not None:
            jit = last.sampler.jit
            report[0] += f", {jit.compiled} regions compiled, {jit.loaded} from the cache"
            report += jit.journal.lines()
        print("\n  ".join(["anyarch: " + report[0], *report[1:]]), file=sys.stderr)
    if options.stats_file is not None:
        _write_statistics(options.stats_file, engine_statistics(last))
    return -outcome.signal if outcome.signal is not None else outcome.shell_status


def _write_statistics(path: str, facts: dict[str, Any]) -> None:
    import json

    try:
        with open(path, "w") as file:
            json.dump(facts, file, indent=1)
    except OSError as error:
        print(f"anyarch: no statistics in {path}: {error.strerror}", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. ``status`` is None where a signal ended it, or the budget was spent.

    ``statistics`` is what was translated and compiled: ``blocks``, ``flushes``, and with the
    compiled tier ``regions`` (by what was done to them: how many, instructions, bytes, seconds) and
    ``compilers``; of the last architecture where the process has run programs of several. None
    unless asked for.
    """

    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    statistics: dict[str, Any] | None = None


def run(
    path: str | os.PathLike[str],
    args: Sequence[str] = (),
    *,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    jit: JitOptions | None = None,
    statistics: bool = False,
    max_insns: int | None = None,
    timeout: float | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> Result:
    """Run a Linux program built for another processor, and capture its output.

    It runs in a process of its own, as under ``subprocess.run``: signals, descriptors and the
    working directory of the caller are not touched. ``jit`` is how the compiled tier works,
    ``statistics`` asks for those of the result. ``timeout`` in seconds raises
    subprocess.TimeoutExpired; a program that cannot be run raises :class:`anyarch.Error`.

    >>> import anyarch
    >>> anyarch.run("/no/such/program")
    Traceback (most recent call last):
    ...
    anyarch.errors.LoadError: /no/such/program: not found
    """
    import subprocess
    from tempfile import TemporaryDirectory

    from anyarch.errors import LoadError

    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", _BOOT, source, "run", "--engine", engine]
    if root is not None:
        command += ["-L", os.fspath(root)]
    if max_insns is not None:
        command += ["--max-insns", str(max_insns)]
    if jit is not None:
        command += ["--jit-samples", str(jit.samples), "--jit-interval", str(jit.interval * 1000)]
        command += ["--cache", jit.cache] if jit.cache is not None else []
        switches = {
            "--perf-map": jit.perf_map,
            "--jit-precise": jit.precise,
            "--jit-eager": jit.eager,
        }
        command += [switch for switch, is_on in switches.items() if is_on]
        command += [word for path in jit.bundles for word in ("--bundle", path)]
    environment = dict(os.environ if env is None else env)
    with TemporaryDirectory(prefix="anyarch-") as folder:
        file = os.path.join(folder, "statistics")
        if statistics:
            command += ["--stats-file", file]
        done = subprocess.run(
            [*command, os.fspath(path), *args],
            input=stdin,
            capture_output=True,
            env=environment,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
        facts = _read_statistics(file) if statistics else None
    if done.returncode in (125, 126, 127) and done.stderr.startswith(b"anyarch: error: "):
        message = done.stderr.decode(errors="replace").removeprefix("anyarch: error: ").strip()
        raise (Error if done.returncode == 125 else LoadError)(message)
    if done.returncode == 124 and max_insns is not None:
        return Result(None, None, done.stdout, done.stderr, facts)
    if done.returncode < 0:
        return Result(None, -done.returncode, done.stdout, done.stderr, facts)
    return Result(done.returncode, None, done.stdout, done.stderr, facts)


def _read_statistics(path: str) -> dict[str, Any] | None:
    """None where the program was killed before it could write them."""
    import json

    try:
        with open(path) as file:
            facts: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return facts


# Starts the command line without a PYTHONPATH, which the guest would inherit.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from anyarch.cli import main; raise SystemExit(main())"
)
