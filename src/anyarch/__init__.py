"""anyarch: runs, on this machine and fast, what was built for another processor.

``run`` executes a Linux program, ``Cpu`` is a processor to be driven from Python. Both are imported
when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyarch._version import __version__
from anyarch.errors import Error

if TYPE_CHECKING:
    from anyarch._run import JitOptions, Result, run
    from anyarch.cpu import Cpu

__all__ = ["Cpu", "Error", "JitOptions", "Result", "__version__", "run"]

_HOMES = {
    "run": "anyarch._run",
    "Result": "anyarch._run",
    "JitOptions": "anyarch._run",
    "Cpu": "anyarch.cpu",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'anyarch' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
