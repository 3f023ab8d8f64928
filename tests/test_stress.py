"""Everything at once: threads that rewrite code, signals, forks, while regions are compiled, the
cache is collected and compilers are killed.

``ANYARCH_STRESS=600`` is how many seconds the long test takes; it takes few otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch import JitOptions
from anyarch._native import native_code, native_key
from anyarch.engine.cache import CodeCache
from anyarch.engine.collection import verify
from tests.compilers import compilers_of
from tests.programs.build import AARCH64, RISCV, Target, compile_c

SOURCE: Final = Path(__file__).parent / "stress" / "rewriting.c"
SECONDS: Final = float(os.environ.get("ANYARCH_STRESS", "6"))
ALL: Final = "0x3ff"  # every kind of rewriting, signals, forks
NO_FORKS: Final = "0x1ff"  # whose children would start a compiler each
TRUE: Final = b"right\n"
PACKAGE: Final = str(Path(anyarch.__file__).parents[1])


@pytest.fixture(params=[RISCV, AARCH64], ids=lambda guest: guest.name)
def guest(request: pytest.FixtureRequest) -> Target:
    """Whose code is rewritten."""
    found: Target = request.param
    return found


@pytest.fixture
def cache(guest: Target, tmp_path: Path) -> CodeCache:
    """One that has the interpreter and nothing else."""
    native_code(guest.name)
    folder = tmp_path / "cache"
    folder.mkdir(0o700)
    for file in Path(CodeCache().path).glob(native_key(guest.name, "flat") + "*"):
        shutil.copy(file, folder)
    return CodeCache(str(folder))


@pytest.mark.parametrize("engine", ["interp", "auto", "eager"])
def test_rewriting(engine: str, guest: Target, cache: CodeCache) -> None:
    if engine == "eager" and os.environ.get("ANYARCH_EAGER") != "all":
        pytest.skip("compiling all code takes long: only with ANYARCH_EAGER=all")
    options = JitOptions(eager=engine == "eager", cache=cache.path)
    name = "jit" if engine == "eager" else engine
    program = compile_c(SOURCE, guest)
    kinds = NO_FORKS if engine == "eager" else ALL
    done = anyarch.run(program, ["2", kinds], engine=name, jit=options, timeout=300)
    assert (done.status, done.stdout) == (0, TRUE), done.stderr


COLLECTOR: Final = """
import contextlib, os, time
from anyarch.cli import main
while os.getppid() != 1:
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        assert main(["cache", "gc", "--limit", "1k"]) == 0
    time.sleep(0.02)
"""


def _kill_compilers(cache: CodeCache) -> int:
    """Kill the compiler processes of a cache; how many."""
    killed = 0
    for number in compilers_of(cache.path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
            killed += 1
    return killed


def test_everything_at_once(guest: Target, cache: CodeCache) -> None:
    """Two processes share a cache that is emptied again and again, and lose their compilers."""
    environment = dict(os.environ, PYTHONPATH=PACKAGE, ANYARCH_CACHE=cache.path)
    anyarch_command = [sys.executable, "-m", "anyarch"]
    program = compile_c(SOURCE, guest)
    arguments = ["--jit-samples", "1", "--jit-interval", "0.5", program, str(SECONDS), ALL]
    running = [
        subprocess.Popen(
            [*anyarch_command, "run", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    collector = subprocess.Popen([sys.executable, "-c", COLLECTOR], env=environment)
    killed, last = 0, time.monotonic()
    deadline = last + SECONDS + 300
    try:
        while any(process.poll() is None for process in running):
            time.sleep(0.1)
            if time.monotonic() - last > SECONDS / 4:
                killed, last = killed + _kill_compilers(cache), time.monotonic()
            assert time.monotonic() < deadline
            assert collector.poll() is None
        for process in running:
            output, errors = process.communicate()
            assert (process.returncode, output) == (0, TRUE), errors
    finally:
        for process in (*running, collector):
            process.kill()
            process.wait()
    assert killed > 0
    assert not any(damaged for _, damaged in verify(cache))
