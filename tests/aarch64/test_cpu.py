"""Driving an AArch64 processor from Python: what is not the same as on other guests."""

from __future__ import annotations

from typing import Final

import pytest

from anyarch import Cpu
from anyarch.host.context import ExitCode

CODE: Final = 0x10000
LAST: Final = (1 << 64) - 1


@pytest.fixture(params=["interp", "jit", "reference"])
def cpu(request: pytest.FixtureRequest) -> Cpu:
    made = Cpu("aarch64", engine=request.param)
    made.map(CODE, 0x2000, "rwx")
    return made


def test_jump_to_the_last_address(cpu: Cpu) -> None:
    """It is no multiple of four, and the table of blocks has no key to spare for it."""
    cpu.write_assembly(CODE, "movn x1, 0; br x1")
    ended = cpu.run(CODE)
    assert (ended.code, ended.pc) == (ExitCode.FETCH, LAST)


def test_jump_to_the_last_address_after_code_was_dropped(cpu: Cpu) -> None:
    """Entries of dropped blocks stay in the table."""
    for _ in range(3):
        end = cpu.write_assembly(CODE + 0x1000, "add x0, x0, 1")
        cpu.run(CODE + 0x1000, until=end)
    cpu.write_assembly(CODE, "movn x1, 0; br x1")
    ended = cpu.run(CODE)
    assert (ended.code, ended.pc) == (ExitCode.FETCH, LAST)
    assert cpu["x0"] == 3
