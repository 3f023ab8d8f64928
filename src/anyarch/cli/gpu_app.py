"""The ``anyarch gpu`` commands, declared for the command-line library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

gpu_app = typer.Typer(
    help="GPU kernels: what devices there are, and PTX files on them.", no_args_is_help=True
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Device = Annotated[
    str | None, typer.Option("--device", help="cuda:N or cpu (default: the best there is).")
]
_File = Annotated[Path, typer.Argument(metavar="FILE", help="PTX, a cubin or a fatbin.")]


@gpu_app.command("list")
def gpu_list(as_json: _Json = False) -> None:
    """The devices that can be used, and why no GPU can."""
    from anyarch.cli import gpu

    rows, reason = gpu.list_devices()
    if as_json:
        print(json.dumps({"devices": rows, "no GPU because": reason}, indent=1))
        return
    _table(rows)
    if reason:
        print(f"no GPU: {reason}")


@gpu_app.command("info")
def gpu_info(
    device: Annotated[
        str | None, typer.Argument(metavar="DEVICE", help="cuda:N or cpu (default: the best).")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Everything about a device."""
    from anyarch.cli import gpu

    facts = gpu.describe_device(device)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' ') + ':':<36} {value}")


@gpu_app.command(
    "run",
    epilog="VALUE is a number; null; hex:00ff… for a structure; IN.npy, an array copied to the "
    "device; IN.npy:OUT.npy, which is also written back; zeros:SHAPE:TYPE:OUT.npy, a new array, "
    "as in zeros:16x16:f4:out.npy.",
)
def gpu_run(
    file: _File,
    kernel: Annotated[
        str | None, typer.Option("--kernel", "-k", help="Its name (default: the only one).")
    ] = None,
    grid: Annotated[str, typer.Option("--grid", "-g", help="Blocks: X, X,Y or X,Y,Z.")] = "1",
    block: Annotated[str, typer.Option("--block", "-b", help="Threads of a block.")] = "1",
    arguments: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", help="An argument; repeat in order.", metavar="VALUE"),
    ] = None,
    shared_memory: Annotated[
        int, typer.Option("--shared-memory", help="Bytes of dynamic shared memory.")
    ] = 0,
    cooperative: Annotated[
        bool, typer.Option("--cooperative", help="All blocks run at once.")
    ] = False,
    repeat: Annotated[int, typer.Option("--repeat", help="Launches, timed.", min=1)] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="On the cpu, looking for invalid accesses and races.")
    ] = False,
    device: _Device = None,
    as_json: _Json = False,
) -> None:
    """Launch a kernel of a file."""
    from anyarch.cli import gpu

    result = gpu.run_kernel(
        file,
        kernel,
        gpu.extents("--grid", grid),
        gpu.extents("--block", block),
        arguments or [],
        shared_memory=shared_memory,
        cooperative=cooperative,
        repeat=repeat,
        check=check,
        device=device,
    )
    if as_json:
        print(json.dumps(result, indent=1))
        return
    times = result["milliseconds"]
    print(f"{result['kernel']} on {result['device']}: {min(times):.3f} ms", end="")
    print(f", the least of {len(times)}" if len(times) > 1 else "")
    for path in result["written"]:
        print(f"wrote {path}")


@gpu_app.command("check")
def gpu_check(file: _File, as_json: _Json = False) -> None:
    """Load a file on every device: its kernels, their parameters, and what each cannot do.

    Exit status 1 if a device cannot run one of them.
    """
    from anyarch.cli import gpu

    report = gpu.check_file(file)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        for kernel in report["kernels"]:
            print(f"{kernel['name']}({', '.join(kernel['parameters'])})")
            for device, found in kernel["devices"].items():
                print(f"    {device}: {found}")
        for device, problem in report["problems"].items():
            print(f"{device}: {problem}")
    if not report["good"]:
        raise typer.Exit(1)


@gpu_app.command("bench")
def gpu_bench(device: _Device = None, as_json: _Json = False) -> None:
    """Measure launches and copies on a device."""
    from anyarch.cli import gpu

    results = gpu.measure(device)
    if as_json:
        print(json.dumps(results, indent=1))
        return
    for name, value in results.items():
        shown = f"{value:10.2f}" if isinstance(value, float) else value
        print(f"{name:<34} {shown}")


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
