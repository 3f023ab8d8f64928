"""The sysroots that tests on real programs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.sysroot import sysroot
from tests.real.test_packages import INTERACTIVE, MANY, PACKAGES


@pytest.fixture(scope="session")
def root() -> Path:
    """What the default cases need."""
    return sysroot("riscv64", *PACKAGES)


@pytest.fixture(scope="session")
def large_root() -> Path:
    """Compilers, git, redis, Python's own tests."""
    return sysroot("riscv64", *MANY)


@pytest.fixture(scope="session")
def interactive_root() -> Path:
    """Programs for terminals and for clients, and node."""
    return sysroot("riscv64", *INTERACTIVE)
