"""The sysroots that tests on real programs share, of each architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.sysroot import MACHINES, Machine, sysroot
from tests.real.test_packages import INTERACTIVE, MANY, PACKAGES


@pytest.fixture(scope="session", params=MACHINES, ids=[machine.debian for machine in MACHINES])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Whose programs are run."""
    found: Machine = request.param
    return found


@pytest.fixture(scope="session")
def root(machine: Machine) -> Path:
    """What the default cases need."""
    return sysroot(machine.debian, *PACKAGES)


@pytest.fixture(scope="session")
def large_root(machine: Machine) -> Path:
    """Compilers, git, redis, Python's own tests."""
    return sysroot(machine.debian, *MANY)


@pytest.fixture(scope="session")
def interactive_root(machine: Machine) -> Path:
    """Programs for terminals and for clients, and node."""
    return sysroot(machine.debian, *INTERACTIVE)
