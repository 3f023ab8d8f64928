"""The benchmarks measure what they say: programs that give equal output, cold caches, ratios."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from anyarch.engine.ownfiles import FINDINGS
from benchmarks import suite
from benchmarks.report import Report
from benchmarks.runner import (
    HELLO,
    NATIVE,
    BenchmarkError,
    Caches,
    Command,
    Run,
    Way,
    available_ways,
    execute,
    interpreter,
    measure,
    ratios,
    with_caches,
)
from tests.programs.build import RISCV, compile_c

# How much work is little; 1 for the others.
SIZES: Final = {
    "atomics-2": 3000, "atomics-4": 3000, "bodies": 300, "bytecode": 300, "calls": 15,
    "indirect": 3000, "mandelbrot": 25, "rays": 25, "threads-2": 5000, "threads-4": 5000,
}  # fmt: skip
GUEST: Final = Way("guest", RISCV, (sys.executable, "-m", "anyarch", "run"))


@pytest.mark.parametrize("name", suite.programs())
def test_programs_give_equal_output(name: str) -> None:
    found = suite.commands(suite.programs()[name], [NATIVE, GUEST], [str(SIZES.get(name, 1))])
    outputs = [execute(command.arguments).stdout for command in found.values()]
    assert outputs[0] == outputs[1] != b""


def python(text: str, cache: str = "", *, compared: bool = True) -> Command:
    return Command((sys.executable, "-c", text), cache, compared)


def seconds(run: Run) -> float:
    return run.seconds


def stdout(run: Run) -> bytes:
    return run.stdout


def test_a_different_output_is_an_error_that_shows_both() -> None:
    commands = {"one": python("print(1)"), "other": python("print(2)")}
    with pytest.raises(BenchmarkError, match=r"other printed b'2\\n'.*one printed b'1\\n'"):
        measure(commands, 1, seconds, stdout)


def test_an_output_that_cannot_be_the_same_is_not_compared() -> None:
    commands = {"host": python("print(1)", compared=False), "guest": python("print(2)")}
    assert measure(commands, 1, seconds, stdout).keys() == {"host", "guest"}


def test_long_outputs_do_not_block() -> None:
    run = execute(python("print('x' * 1_000_000)").arguments)
    assert len(run.stdout) == 1_000_001


def test_a_failure_tells_status_and_message() -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)status 3 .*a reason"):
        execute(python("import sys; print('a reason', file=sys.stderr); sys.exit(3)").arguments)


def test_processor_time_is_told_from_waiting() -> None:
    waiting = execute(python("import time; time.sleep(1)").arguments)
    assert waiting.processor < 0.9 < waiting.seconds


def test_a_cold_cache_holds_the_interpreter_and_a_warm_one_what_was_added() -> None:
    expected = [os.path.basename(interpreter())]
    with Caches() as caches:
        cold = Path(caches.environment("cold")["ANYARCH_CACHE"])
        execute(
            [*GUEST.prefix, "--engine", "interp", compile_c(HELLO, RISCV)],
            {"ANYARCH_CACHE": str(cold)},
        )
        assert {*os.listdir(cold)} - {FINDINGS} == {*expected}
        (cold / "region").touch()
        assert caches.environment("warm") == {"ANYARCH_CACHE": str(cold)}
        again = Path(caches.environment("cold")["ANYARCH_CACHE"])
        assert os.listdir(again) == expected and not cold.exists()
    assert not again.exists()


def test_what_still_compiles_is_waited_for() -> None:
    with Caches() as caches:
        found = caches.environment("cold")
        command = ["sh", "-c", "echo; sleep 0.5; true"]
        sleeper = subprocess.Popen(command, env={**os.environ, **found}, stdout=subprocess.PIPE)
        assert sleeper.stdout is not None
        sleeper.stdout.read(1)  # its environment is there
        caches.settle()
        assert sleeper.poll() is not None or is_zombie(sleeper.pid)
        sleeper.communicate()


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_only_engines_that_keep_code_are_measured_cold_and_warm() -> None:
    ways = [NATIVE, Way("anyarch interp", RISCV), Way("anyarch jit", RISCV)]
    found = [(way.name, way.cache) for way in with_caches(ways)]
    assert found == [
        ("native", ""),
        ("anyarch interp", ""),
        ("anyarch jit cold", "cold"),
        ("anyarch jit warm", "warm"),
    ]


def test_the_precise_form_is_a_way_of_its_own() -> None:
    plain, precise = available_ways(["jit", "precise"])[-2:]
    assert precise.prefix == (*plain.prefix, "--jit-precise")
    assert [way.cache for way in with_caches([precise])] == ["cold", "warm"]


def test_ratios_are_to_native_and_ours_to_qemu() -> None:
    assert ratios(["native", "qemu", "anyarch jit"]) == [
        ("qemu", "native"),
        ("anyarch jit", "native"),
        ("anyarch jit", "qemu"),
    ]
    assert ratios(["qemu", "anyarch jit"]) == [("anyarch jit", "qemu")]


def test_means_are_geometric_and_skip_what_is_missing() -> None:
    report = Report(["a", "b"], [("a", "b")])
    report.rows = {"x": {"a": 2.0, "b": 1.0}, "y": {"a": 1.0, "b": 8.0}, "z": {"a": 5.0}}
    assert report.record()["means"] == {"a / b": pytest.approx(0.5)}
    assert report.table().row_count == 4
