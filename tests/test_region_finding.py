"""What is compiled together: functions, and loop nests as a whole."""

from __future__ import annotations

from typing import Final

import pytest

from anyarch._native import region_finder
from anyarch.engine.regions import INLINE_LIMIT, LIMIT, NEST_LIMIT, Region, RegionCompiler
from anyarch.errors import MemoryFault
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.isa.assembly import assemble

CODE: Final = 0x10000
BODY: Final = LIMIT + 100  # instructions of a loop that is larger than a function may be


@pytest.fixture(scope="module")
def finder() -> RegionCompiler:
    return region_finder("riscv64", "direct")


def _find(finder: RegionCompiler, lines: list[str], index: int = 0) -> Region:
    """The region that begins at an instruction, all of four bytes."""
    code = b"".join(assemble(ARCHITECTURE, t, CODE + 4 * i) for i, t in enumerate(lines))
    assert len(code) == 4 * len(lines)

    def read(address: int, nbytes: int) -> bytes:
        if not CODE <= address <= CODE + len(code) - nbytes:
            raise MemoryFault(address, "execute")
        return code[address - CODE : address - CODE + nbytes]

    found = finder.discover(CODE + 4 * index, read)
    assert found is not None
    return found


def _padding(count: int) -> list[str]:
    return ["addi a0, a0, 1"] * count


def _loop(first: int, count: int) -> list[str]:
    """A loop of so many instructions; behind it comes the one after its first ``first`` ones."""
    return [*_padding(count - 1), f"bnez a1, {CODE + 4 * first:#x}"]


def test_a_loop_is_one_region_though_it_is_larger_than_a_function(finder: RegionCompiler) -> None:
    found = _find(finder, [*_loop(0, BODY), *_padding(200), "ret"])
    assert found.ranges == [(CODE, CODE + 4 * BODY)], "what follows is left out"


def test_a_loop_is_a_region_from_wherever_it_is_entered(finder: RegionCompiler) -> None:
    inner = f"bnez a2, {CODE + 4 * 50:#x}"
    lines = [*_padding(99), inner, *_loop(0, BODY - 100), *_padding(200), "ret"]
    found = _find(finder, lines, 50)
    assert found.ranges == [(CODE, CODE + 4 * BODY)]


def test_a_function_leaves_a_loop_that_does_not_fit(finder: RegionCompiler) -> None:
    found = _find(finder, [*_padding(100), *_loop(100, BODY), *_padding(20), "ret"])
    assert found.ranges == [(CODE, CODE + 4 * 100)]


def test_a_function_has_the_loops_that_fit(finder: RegionCompiler) -> None:
    lines = [*_padding(100), *_loop(100, 300), *_loop(400, BODY), "ret"]
    assert _find(finder, lines).ranges == [(CODE, CODE + 4 * 400)]


def test_what_fits_is_whole(finder: RegionCompiler) -> None:
    found = _find(finder, [*_padding(100), *_loop(100, LIMIT - 150), *_padding(20), "ret"])
    assert found.instructions == LIMIT - 29


def test_a_loop_without_end_is_cut(finder: RegionCompiler) -> None:
    branches = [f"beqz a2, {CODE + 4 * (i + 40):#x}" for i in range(2 * NEST_LIMIT)]
    found = _find(finder, [*branches, *_padding(40), f"j {CODE:#x}"])
    assert LIMIT // 2 < found.instructions <= LIMIT


def test_straight_code_is_cut(finder: RegionCompiler) -> None:
    found = _find(finder, [*_padding(LIMIT + 100), "ret"])
    assert found.ranges == [(CODE, CODE + 4 * LIMIT)]


@pytest.mark.parametrize(
    "call", [[f"jal ra, {CODE:#x}"], ["auipc ra, 0", "jalr ra, -4(ra)"]], ids=["one", "two"]
)
def test_a_small_function_that_calls_itself_is_in_itself_once(
    finder: RegionCompiler, call: list[str]
) -> None:
    lines = ["addi a0, a0, 1", *call, "ret"]
    found = _find(finder, lines)
    assert found.ranges == [(CODE, CODE + 4 * len(lines))]
    assert found.instructions == 2 * len(lines)


def test_a_large_function_that_calls_itself_is_not_in_itself(finder: RegionCompiler) -> None:
    lines = [*_padding(INLINE_LIMIT), f"jal ra, {CODE:#x}", "ret"]
    assert _find(finder, lines).instructions == len(lines)


@pytest.mark.parametrize("between", ["", "mv t1, zero"])
def test_a_call_in_two_parts_is_followed(finder: RegionCompiler, between: str) -> None:
    """Where the parts are one behind the other: what is between may change the first."""
    call = ["auipc ra, 0", *([between] if between else []), "jalr ra, 16(ra)"]
    lines = [*call, "ret", *["nop"] * (1 - len(call) + 2), "addi a0, a0, 1", "ret"]
    assert _find(finder, lines).instructions == len(call) + 1 + (0 if between else 2)
