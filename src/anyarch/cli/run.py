"""``anyarch run``: checks the program exists, runs it, and ends the way the guest ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from anyarch.cli import ERROR, fail
from anyarch.cli.options import HelpWanted, RunOptions, parse_run
from anyarch.errors import LoadError

CANNOT_RUN = 126
NOT_FOUND = 127


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run; the result is the exit status."""
    try:
        options = parse_run(arguments)
    except HelpWanted:
        from anyarch.cli.app import run_app

        return run_app(["run", "--help"])
    return run(options)


def run(options: RunOptions) -> int:
    """Run a guest program. Does not return where the guest died of a signal."""
    path = find(options.program, options.root)
    if path is None:
        return fail(f"{options.program}: not found{_advice(options)}", NOT_FOUND)
    if os.path.isdir(path):
        return fail(f"{path}: it is a directory; expected a program", CANNOT_RUN)
    from anyarch._run import main_run

    try:
        status = main_run(options)
    except LoadError as error:
        return fail(f"{error} (`anyarch info {path}` tells more)", CANNOT_RUN)
    except PermissionError as error:
        return fail(f"{error.filename or path}: {error.strerror}; see `ls -l`", CANNOT_RUN)
    except OSError as error:
        return fail(f"{error.filename or path}: {error.strerror}", ERROR)
    return die_of(-status) if status < 0 else status


def find(program: str, root: str | None) -> str | None:
    """The host path of the program, or None where there is no such file."""
    candidates = [os.path.join(root, program.lstrip("/"))] if root and program[:1] == "/" else []
    for path in (*candidates, program):
        if os.path.lexists(path):
            return path
    return None


def _advice(options: RunOptions) -> str:
    if options.root is not None and not os.path.isdir(options.root):
        return f"; -L {options.root} is no directory"
    if "/" not in options.program:
        return f"; PROGRAM is a path: ./{options.program} would be one in this directory"
    return ""


def die_of(number: int) -> int:
    """End this process by a signal, so that a shell sees what ended the guest."""
    import resource
    import signal

    sys.stdout.flush()
    # The core would be Python's, which tells nothing about the guest.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number  # a signal that its default action ignores
