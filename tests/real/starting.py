"""How the tests on real programs start a guest.

With ``ANYARCH_EAGER=all`` all code is compiled before it first runs. That takes hours for an empty
cache; the next run then has nothing to compile but what guests write themselves.
"""

from __future__ import annotations

import os
import sys
from typing import Final

ALL_EAGER: Final = os.environ.get("ANYARCH_EAGER") == "all"
PATIENCE: Final = 20 if ALL_EAGER else 1  # what limits in time are multiplied with


def anyarch_run(*options: str) -> list[str]:
    """The command up to the program, with options for it."""
    chosen = ["--engine", "jit", "--jit-eager"] if ALL_EAGER else []
    return [sys.executable, "-m", "anyarch", "run", *chosen, *options]
