"""Devices for the tests."""

from __future__ import annotations

import pytest

from anyarch.gpu import device as registry
from tests.gpu.python_backend import PythonBackend, PythonDevice

# Compilers that are not installed are needed to import these.
collect_ignore_glob = ["producers/*.py"]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> PythonDevice:
    """The one device of a backend named cpu whose kernels are Python functions; no GPU is there."""
    backend = PythonBackend("cpu")
    monkeypatch.setattr(registry, "_found", {"cpu": backend, "cuda": PythonBackend("cuda", 0)})
    return backend.devices[0]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[PythonDevice]:
    """Two devices that pass for GPUs: their memory counts as out of the host's reach."""
    backend = PythonBackend("cuda", 2)
    monkeypatch.setattr(registry, "_found", {"cpu": PythonBackend("cpu"), "cuda": backend})
    return backend.devices
