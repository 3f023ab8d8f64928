"""The public riscv-tests under every engine, when ANYARCH_RISCV_TESTS names a checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.riscv_tests.suite import Case, SuiteError, find_cases, run, runner

SUITE = os.environ.get("ANYARCH_RISCV_TESTS", "")
CASES = list(find_cases(Path(SUITE))) if SUITE else []
NO_SUITE = "ANYARCH_RISCV_TESTS does not name a checkout of riscv-tests"


@pytest.mark.skipif(not SUITE, reason=NO_SUITE)
@pytest.mark.parametrize("engine", ["interp", "auto", "eager"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_passes(case: Case, engine: str) -> None:
    assert run(case, runner(engine)).failure == ""


def test_wrong_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="--fetch"):
        list(find_cases(tmp_path))
