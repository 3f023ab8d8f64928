"""All commands, declared for the command-line library: their help, options and completion."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from anyarch._version import __version__
from anyarch.cli import ERROR
from anyarch.cli.gpu_app import gpu_app
from anyarch.cli.options import OPTIONS, RunOptions

app = typer.Typer(
    name="anyarch",
    help="Runs programs that were built for another processor.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="The cache of compiled native code.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(gpu_app, name="gpu")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Arch = Annotated[str | None, typer.Option("--arch", help="Architecture (default: the file's).")]


def run_app(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit status."""
    try:
        app(list(arguments), prog_name="anyarch")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ERROR if end.code else 0
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"anyarch {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Runs programs that were built for another processor."""


def _run_parameters() -> list[inspect.Parameter]:
    """The table of options as the parameters that the command-line library reads."""
    defaults = RunOptions()
    parameters = []
    for option in OPTIONS:
        default = getattr(defaults, option.name)
        kind: Any = bool
        if option.repeats:
            kind = list[str]
        elif option.metavar:
            kind = {"N": int | None, "MS": float | None}.get(option.metavar, str | None)
        info = typer.Option(
            default, *option.flags, help=option.help, metavar=option.metavar or None
        )
        parameters.append(_parameter(option.name, kind, info))
    program = typer.Argument(..., help="Path of the program.", metavar="PROGRAM")
    arguments = typer.Argument(None, help="Its arguments.", metavar="ARGS")
    parameters.append(_parameter("program", str, program))
    parameters.append(_parameter("arguments", list[str], arguments))
    return parameters


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind)


def _run(**values: Any) -> None:
    """Run a program built for another processor; options end at PROGRAM."""
    from anyarch.cli.run import run

    raise typer.Exit(run(RunOptions(**values)))


_declared: Callable[..., None] = _run
_declared.__signature__ = inspect.Signature(_run_parameters())  # type: ignore[attr-defined]  # PEP 362
app.command(
    "run",
    epilog="The exit status is the program's. 124: the instruction budget is spent; 125: an error "
    "of anyarch; 126: PROGRAM cannot be run; 127: it does not exist. A program that dies of a "
    "signal takes anyarch along, which a shell shows as 128 + signal.",
    context_settings={"allow_interspersed_args": False},
)(_declared)


@app.command()
def disasm(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE|HEX...", help="ELF file, or instruction words.")
    ],
    arch: Arch = None,
    raw: Annotated[bool, typer.Option("--raw", help="FILE is bare machine code.")] = False,
    base: Annotated[str, typer.Option("--base", help="Address of the first byte.")] = "0",
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Only this symbol of an ELF file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Disassemble an ELF file's code, bare machine code, or instruction words."""
    from anyarch.cli import code

    architecture, blocks = code.read_blocks(
        inputs, arch, raw=raw, base=_number("--base", base), symbol=symbol
    )
    if as_json:
        lines = [
            {"address": line.address, "bytes": line.data.hex(), "text": line.text}
            for block in blocks
            for line in code.lines(architecture, block)
        ]
        print(json.dumps(lines, indent=1))
        return
    for block in blocks:
        if block.title:
            print(f"\n{block.address:016x} <{block.title}>:")
        for line in code.lines(architecture, block):
            print(f"{line.address:8x}:  {code.hex_word(line):<8}  {line.text}")


@app.command()
def asm(
    text: Annotated[
        str, typer.Argument(metavar="TEXT|FILE|-", help="Assembly text; ; separates statements.")
    ] = "-",
    arch: Annotated[str, typer.Option("--arch", help="Architecture.")] = "riscv64",
    base: Annotated[str, typer.Option("--base", help="Address of the first instruction.")] = "0",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write raw machine code here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Assemble; prints one instruction word a line unless -o is given."""
    from anyarch.cli import code
    from anyarch.cli.architectures import by_name
    from anyarch.isa.assembly import assemble, disassemble

    architecture = by_name(arch)
    pc = _number("--base", base)
    data = assemble(architecture, code.read_source(text), pc)
    if output is not None:
        output.write_bytes(data)
    elif as_json:
        print(json.dumps({"address": pc, "bytes": data.hex()}))
    else:
        for line in disassemble(architecture, data, pc):
            print(code.hex_word(line))


@app.command()
def info(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Any file.")],
    root: Annotated[
        str | None, typer.Option("-L", "--root", help="Where its libraries are.", metavar="ROOT")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what a file is, and whether anyarch can run it."""
    from anyarch.cli.info import describe

    facts = describe(file, root)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name + ':':<14} {shown}")


@app.command()
def register(
    architectures: Annotated[
        list[str] | None, typer.Argument(metavar="[ARCH]...", help="Default: all.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("-L", "--root", help="As for run.", metavar="ROOT")
    ] = None,
    launchers: Annotated[
        Path | None,
        typer.Option(help="Where the scripts are that the kernel starts.", metavar="FOLDER"),
    ] = None,
    do_apply: Annotated[bool, typer.Option("--apply", help="Do it; needs root.")] = False,
    do_remove: Annotated[bool, typer.Option("--remove", help="Take it back; needs root.")] = False,
    as_json: Json = False,
) -> None:
    """Have the kernel run programs of other processors by anyarch (binfmt_misc).

    Prints the entries, in the form of a file in /etc/binfmt.d, unless told to apply or remove them.
    """
    from anyarch.cli.register import LAUNCHERS, apply, printed, registrations, remove

    if do_apply and do_remove:
        print("anyarch: error: --apply or --remove, not both", file=sys.stderr)
        raise typer.Exit(2)
    found = registrations(architectures or (), root, launchers or LAUNCHERS)
    if as_json and not do_apply and not do_remove:
        facts = [
            {
                "name": each.name,
                "entry": each.entry,
                "launcher": str(each.launcher),
                "script": each.script,
            }
            for each in found
        ]
        print(json.dumps(facts, indent=1))
        return
    for line in apply(found) if do_apply else remove(found) if do_remove else printed(found):
        print(line)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what works on this machine, what is missing, and how to get it."""
    from anyarch.cli.doctor import examine

    checks = examine()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for heading in ("", "what", "found", "what to do"):
            table.add_column(heading, overflow="fold")
        marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "optional": "[yellow]none[/]"}
        for check in checks:
            table.add_row(marks[check.status], check.name, check.found, check.remedy)
        Console().print(table)
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(1)


@app.command("compile")
def compile_command(
    programs: Annotated[
        list[str], typer.Argument(metavar="PROGRAM...", help="Programs or shared libraries.")
    ],
    root: Annotated[
        str | None, typer.Option("-L", "--root", help="As for run.", metavar="ROOT")
    ] = None,
    libs: Annotated[
        bool, typer.Option("--libs", help="Compile the libraries that they are linked with, too.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Write a bundle for run --bundle, too.",
            metavar="FILE",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, help="Processes (default: processors).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile programs before they run: `run` then finds their code compiled."""
    from anyarch.cli.compile import compile_programs

    facts = compile_programs(programs, root, libraries=libs, output=output, jobs=jobs)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(
        f"{facts.get('compiled', 0):,} regions compiled ({facts.get('instructions', 0):,} "
        f"instructions, {facts.get('nbytes', 0):,} bytes), {facts.get('known', 0):,} were in the "
        f"cache; {len(facts['files'])} files, {facts['seconds']:.1f} s"
    )
    if output is not None:
        print(f"{output}: {facts.get('written', 0):,} bytes")


@cache_app.command("info")
def cache_info(as_json: Json = False) -> None:
    """Where the cache is, what it holds, and how much it may hold."""
    from anyarch.engine.cache import BLOB, REGIONS, CodeCache
    from anyarch.engine.collection import cache_limit

    cache, limit = CodeCache(), cache_limit()
    entries = list(cache.entries())
    nbytes = sum(entry.nbytes for entry in entries)
    if as_json:
        listed = [entry._asdict() for entry in entries]
        facts = {"path": cache.path, "nbytes": nbytes, "limit": limit, "entries": listed}
        print(json.dumps(facts, indent=1))
        return
    interpreters, mappings = (
        sum(entry.kind == kind for entry in entries) for kind in (BLOB, REGIONS)
    )
    print(f"{cache.path}: {len(entries)} entries, {nbytes:,} bytes; at most {limit:,}")
    print(f"interpreters: {interpreters}, mappings with regions: {mappings}")
    if entries:
        age = time.time() - min(entry.used for entry in entries)
        print(f"the least recently used was used {age / 86400:.1f} days ago")


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete everything in the cache; what is needed is compiled anew."""
    from anyarch.engine.cache import CodeCache
    from anyarch.engine.collection import clear

    print(f"{clear(CodeCache()):,} bytes freed")


@cache_app.command("verify")
def cache_verify(as_json: Json = False) -> None:
    """Read every entry; what is damaged is deleted. Exit status 1 if anything was."""
    from rich.console import Console
    from rich.progress import track

    from anyarch.engine.cache import CodeCache
    from anyarch.engine.collection import verify

    cache = CodeCache()
    total = sum(1 for _ in cache.entries())
    console = Console(stderr=True)
    steps = track(
        verify(cache), "verifying", total=total, console=console, disable=not console.is_terminal
    )
    damaged = [entry.key for entry, count in steps if count]
    if as_json:
        print(json.dumps({"damaged": damaged}))
    else:
        what = "; what was damaged is deleted" if damaged else ""
        print(f"{total} entries read, {len(damaged)} damaged{what}")
        for key in damaged:
            print(key)
    if damaged:
        raise typer.Exit(1)


@cache_app.command("gc")
def cache_gc(
    limit: Annotated[
        str | None,
        typer.Option(help="Bytes to stay within, such as 500M (default: ANYARCH_CACHE_LIMIT, 2G)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete the least recently used entries beyond a size, and what killed processes left.

    Compilers do so by themselves now and then, with the default limit.
    """
    from anyarch.engine.cache import CodeCache
    from anyarch.engine.collection import Collected, cache_limit, collect, parse_size

    try:
        wanted = cache_limit() if limit is None else parse_size(limit)
    except ValueError as error:
        print(f"anyarch: error: --limit {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    done = collect(CodeCache(), wanted) or Collected(0, 0, 0)
    if as_json:
        print(json.dumps({"removed": done.removed, "freed": done.freed, "left": done.left}))
    else:
        print(
            f"{done.removed} entries removed, {done.freed:,} bytes freed; {done.left:,} bytes are "
            f"left of {wanted:,}"
        )


def _number(flag: str, text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        print(f"anyarch: error: {flag} {text}: expected an address such as 0x1000", file=sys.stderr)
        raise typer.Exit(2)
    return value
