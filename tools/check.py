"""Everything that must hold: format, lint, types, layers, tests. Builds ``.venv`` first.

python3 tools/check.py               all of it
python3 tools/check.py --fix         format and fix lint, then all of it
python3 tools/check.py -- -k decode  all of it, pytest with these arguments
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import environment


def main() -> int:
    """Run all checks, also after one has failed; the exit status is 1 if any has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fix", action="store_true", help="format and fix lint first")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    python = environment.python()
    ruff = [python, "-m", "ruff"]
    if options.fix:
        subprocess.run([*ruff, "format"], cwd=environment.ROOT, check=False)
        subprocess.run([*ruff, "check", "--fix"], cwd=environment.ROOT, check=False)
    checks = {
        "format": [*ruff, "format", "--check"],
        "lint": [*ruff, "check"],
        "types": [python, "-m", "mypy"],
        "layers": [os.path.join(os.path.dirname(python), "lint-imports"), "--no-logo"],
        "tests": [python, "-m", "pytest", "-q", "-n", "auto", *options.pytest],
    }
    failed = []
    for name, command in checks.items():
        print(f"\n== {name}: {' '.join(command[1:])}", flush=True)
        start = time.monotonic()
        if subprocess.run(command, cwd=environment.ROOT, check=False).returncode != 0:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - start:.1f} s", flush=True)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
