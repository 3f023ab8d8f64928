"""The ``anyarch`` command.

``--version`` and ``run`` are served without importing the command-line library, which takes longer
to import than a short guest program takes to run; everything else goes to :mod:`anyarch.cli.app`.

Exit status: ``run`` passes the guest's through; a guest that dies of a signal takes anyarch along
with the same signal. 124: the instruction budget is spent. 125: an error of anyarch's own.
126: PROGRAM cannot be run. 127: PROGRAM does not exist. Other commands: 0, 1 for a check that
failed, 2 for wrong usage, 125.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from anyarch.errors import Error

ERROR = 125


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if "_ANYARCH_COMPLETE" not in os.environ:
            if arguments in (["--version"], ["-V"]):
                from anyarch._version import __version__

                print(f"anyarch {__version__}")
                return 0
            if arguments[:1] == ["run"]:
                gc.disable()  # nothing becomes garbage while modules load; main_run enables it
                from anyarch.cli.run import run_command

                return run_command(arguments[1:])
        from anyarch.cli.app import run_app

        return run_app(arguments)
    except Error as error:
        return fail(str(error))
    except BrokenPipeError:
        # The reader has gone, as in `anyarch disasm … | head`; Python's own flush at exit would
        # complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except KeyboardInterrupt:
        from anyarch.cli.run import die_of

        return die_of(2)


def fail(message: str, status: int = ERROR) -> int:
    """Print the one line that a failure gets, and return its exit status."""
    sys.stdout.flush()
    print(f"anyarch: error: {message}", file=sys.stderr)
    return status
