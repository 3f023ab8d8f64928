"""Try anyarch: builds ``.venv``, cross-compiles the examples, runs them beside native.

python3 tools/try.py
"""

from __future__ import annotations

import subprocess
import sys

import environment


def main() -> int:
    """Pass the arguments on to ``python -m examples``, inside the environment."""
    command = [environment.python(), "-m", "examples", *sys.argv[1:]]
    return subprocess.run(command, cwd=environment.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
