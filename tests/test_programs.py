"""Whole C programs under every engine: same bytes, same exit status as on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch import JitOptions
from anyarch._native import native_code, native_key
from anyarch.engine.cache import REGIONS, CodeCache
from anyarch.engine.store import RegionStore
from tests.compilers import wait_for_compilers
from tests.programs.build import AARCH64, HOST, RISCV, RISCV_BITMANIP, Target, compile_c

ENGINES: Final = ("interp", "auto")
FOLDER: Final = Path(__file__).parent / "programs"
SOURCES: Final = sorted(FOLDER.glob("*.c"))
# What runs with all code compiled by default; ANYARCH_EAGER=all runs all like this, a guest's
# programs for half an hour on a busy machine.
ALL_EAGER: Final = os.environ.get("ANYARCH_EAGER") == "all"
BRIEF: Final = {"integers", "jumps"}
ARGUMENTS: Final = ("alpha", "two words", "", "-x=ünï")
CASES: Final = [pytest.param(source, RISCV, id=source.stem) for source in SOURCES]
CASES.append(pytest.param(FOLDER / "bits.c", RISCV_BITMANIP, id="bits-zb"))
# Arm sees underflow before rounding, this machine after it: see test_rounding_on_arm.
CASES += [
    pytest.param(source, AARCH64, id=f"{source.stem}-aarch64")
    for source in SOURCES
    if source.stem != "rounding"
]


def run_native(*command: str | Path) -> tuple[int, str]:
    """Exit status (negative: the signal) and output of a command on this machine."""
    result = subprocess.run(
        [*command, *ARGUMENTS], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60
    )
    return result.returncode, result.stdout.decode(errors="replace")


def run_anyarch(program: Path, engine: str) -> tuple[int | None, str]:
    """The same of a program under anyarch."""
    return outcome(anyarch.run(program, ARGUMENTS, engine=engine, timeout=300))


def outcome(result: anyarch.Result) -> tuple[int | None, str]:
    """How a program ended, as of one on this machine."""
    status = result.status if result.signal is None else -result.signal
    return status, result.stdout.decode(errors="replace")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("source", "target"), CASES)
def test_output_equals_native(source: Path, target: Target, engine: str) -> None:
    expected = run_native(compile_c(source, HOST))
    assert run_anyarch(compile_c(source, target), engine) == expected


@pytest.mark.parametrize(("source", "target"), CASES)
def test_all_compiled_and_then_from_the_cache(source: Path, target: Target, tmp_path: Path) -> None:
    """Nothing is left to the interpreter; then the code that was kept runs. All that a second run
    compiles is where the first never was, which depends on time in some programs, and the one
    region that belongs to no file, where signal handlers end. The last run looks where samples hit.
    """
    if not ALL_EAGER and (target is not RISCV or source.stem not in BRIEF):
        pytest.skip("compiling all code takes long: only with ANYARCH_EAGER=all")
    expected = run_native(compile_c(source, HOST))
    program = compile_c(source, target)
    name = target.triple.partition("-")[0]
    native_code(name)
    for file in Path(CodeCache().path).glob(native_key(name, "flat") + "*"):
        shutil.copy(file, tmp_path)
    cache = CodeCache(str(tmp_path))
    for turn, eager in enumerate((True, True, False)):
        before = stored_regions(cache)
        options = JitOptions(eager=eager, cache=str(tmp_path))
        result = anyarch.run(
            program, ARGUMENTS, engine="jit", jit=options, statistics=True, timeout=900
        )
        assert outcome(result) == expected
        if eager:
            wait_for_compilers(str(tmp_path))
        if turn == 1 and result.statistics is not None:  # a signal leaves no time to write them
            compiled = result.statistics["regions"]["compiled"]["regions"]
            if source.stem in BRIEF:
                assert compiled == 0
            assert compiled <= stored_regions(cache) - before + 1


def stored_regions(cache: CodeCache) -> int:
    """How many regions are kept in a cache."""
    keys = [entry.key for entry in cache.entries() if entry.kind == REGIONS]
    return sum(len(list(RegionStore(cache).load(key))) for key in keys)


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("engine", ENGINES)
def test_rounding_on_arm(engine: str) -> None:
    program = compile_c(FOLDER / "rounding.c", AARCH64)
    status, output = run_native("qemu-aarch64", program)
    assert "---UX" in output
    assert run_anyarch(program, engine) == (status, output)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["integers", "floats", "text", "sorting"])
def test_unoptimised_builds(name: str, engine: str) -> None:
    source = FOLDER / f"{name}.c"
    expected = run_native(compile_c(source, HOST, optimise="-O0"))
    assert run_anyarch(compile_c(source, RISCV, optimise="-O0"), engine) == expected


@pytest.mark.parametrize(("source", "target"), CASES)
def test_programs_are_portable(source: Path, target: Target) -> None:
    """An independent emulator agrees with this machine, so a difference above is anyarch's."""
    emulator = f"qemu-{target.triple.partition('-')[0]}"
    if shutil.which(emulator) is None:
        pytest.skip(f"{emulator} is not installed")
    if source.stem == "reexec":
        pytest.skip("QEMU user mode executes guest programs only where binfmt_misc is set up")
    emulated = run_native(emulator, compile_c(source, target))
    assert emulated == run_native(compile_c(source, HOST))
