"""``python -m examples``: build for RISC-V and for this machine, run both, compare."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Final

from anyarch.errors import Error
from tests.programs.build import EXACT, HOST, RISCV, ROOT, compile_c

FOLDER: Final = Path(__file__).parent
INPUT: Final = ROOT / "README.md"
WIDTH: Final = 58


def main() -> int:
    """Exit status 0 when all outputs are equal, 1 when one differs, 2 when one cannot run."""
    known = sorted(source.stem for source in FOLDER.glob("*.c"))
    parser = argparse.ArgumentParser(prog="examples", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ({', '.join(known)}; all)")
    parser.add_argument("--engine", default="interp", help="engine of anyarch (interp)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"no example {', '.join(unknown)}: there are {', '.join(known)}")
    status = 0
    try:
        for name in options.names or known:
            status |= not compare(name, options.engine)
    except Error as error:
        print(error, file=sys.stderr)
        return 2
    return status


def compare(name: str, engine: str) -> bool:
    """Run one example both ways, print the outputs side by side; True when they are equal."""
    source = FOLDER / f"{name}.c"
    native = [str(compile_c(source, HOST, flags=EXACT))]
    command = [sys.executable, "-m", "anyarch", "run", "--engine", engine]
    guest = [*command, str(compile_c(source, RISCV, flags=EXACT))]
    ours, theirs = execute(guest), execute(native)
    print(f"{f'{name}, RISC-V under anyarch':{WIDTH}} | this machine")
    for left, right in itertools.zip_longest(ours.splitlines(), theirs.splitlines(), fillvalue=""):
        print(f"{left:{WIDTH}} | {right}")
    print("equal" if ours == theirs else "DIFFERENT", end="\n\n")
    return ours == theirs


def execute(command: list[str]) -> str:
    """Output of a command that reads this project's own page about itself."""
    text = INPUT if INPUT.exists() else Path(__file__)
    with text.open("rb") as stdin:
        result = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE)
    output = result.stdout.decode(errors="replace")
    return output if result.returncode == 0 else f"{output}status {result.returncode}\n"


if __name__ == "__main__":
    sys.exit(main())
