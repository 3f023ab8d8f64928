"""The project's own environment: ``.venv`` with the package and everything it is developed with.

Needs nothing but Python 3.11 with the venv module; what is installed comes from pip's usual index.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"


def python() -> str:
    """The environment's Python; the environment is built first where it is absent or outdated."""
    if sys.version_info < (3, 11):  # noqa: UP036 - pip is not there yet to say so
        sys.exit(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}")
    interpreter = FOLDER / "bin" / "python"
    stamp = FOLDER / "built-for"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(interpreter)
    print(f"building {FOLDER} …", flush=True)
    _call(
        [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
        "Python's venv module does not work here; on Debian and Ubuntu: apt install python3-venv",
    )
    _call(
        [str(interpreter), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]"],
        "pip could not install the dependencies; see its message above",
    )
    stamp.write_text(wanted)
    return str(interpreter)


def _call(command: list[str], remedy: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"failed: {' '.join(command)}\n{remedy}")
