"""``python -m benchmarks.linux [--root ROOT]``: whole Linux processes, QEMU beside anyarch.

What programs ask of the kernel, many times, start-up included. ROOT is a folder with a guest's
system: without it dd, bash and python3 are left out. A first run of each fills the user's caches.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.report import Report
from benchmarks.runner import (
    GUESTS,
    HELLO,
    QEMU,
    Command,
    Commands,
    Way,
    available_ways,
    compare,
    engines_of,
    execute,
    options_parser,
    ratios,
    seconds_of,
)
from tests.programs.build import compile_c

SOURCE: Final = Path(__file__).parent / "linux_programs" / "system.c"
# Kinds of system.c, and how often each does what it does. One and two: threads that multiply.
KINDS: Final = {
    "getpid": 1_000_000,
    "clock_gettime": 1_000_000,
    "futex": 1_000_000,
    "pingpong": 100_000,
    "threads": 2_000,
    "one": 50_000_000,
    "two": 50_000_000,
}
LOOP: Final = "for ((i = 0; i < 200; i++)); do $1 $2/bin/true; done"
ROOTED: Final = {
    "dd": ("usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1000000", "status=none"),
    "python": ("usr/bin/python3.[0-9]*[0-9]", "-c", "pass"),
    "execute": ("bin/bash", "-c", LOOP, "bash"),
}


def static_commands(program: Path, arguments: tuple[str, ...], ways: list[Way]) -> Commands:
    """A program of our own in every way."""
    commands = {
        way.name: Command(
            (*way.prefix, compile_c(program, way.target, flags=way.flags), *arguments)
        )
        for way in ways
    }
    return warmed(commands)


def rooted_commands(
    root: Path, program: Path, arguments: tuple[str, ...], ways: list[Way]
) -> Commands:
    """A program of the root in every way."""
    commands = {}
    for way in ways:
        line = [*way.prefix, "-L", str(root)]
        # QEMU executes guest programs only where the host's kernel was told to start it for them.
        runner = (" ".join(line), str(root)) if way.name == QEMU else ("", "")
        extra = runner if LOOP in arguments else ()
        commands[way.name] = Command((*line, program, *arguments, *extra))
    return warmed(commands)


def warmed(commands: Commands) -> Commands:
    """The commands, each of which has run once."""
    for command in commands.values():
        execute(command.arguments)
    return commands


def main() -> int:
    """Exit status 0, 1 when a run fails or outputs differ, 2 for wrong arguments."""
    parser = options_parser("benchmarks.linux", __doc__, repeat=5)
    parser.add_argument("--root", type=Path, help="folder with a guest's system")
    options = parser.parse_args()
    guest = GUESTS[options.guest]
    ways = [way for way in available_ways(engines_of(options), guest) if way.target is guest.target]
    names = [way.name for way in ways]
    cases = {"hello": partial(static_commands, HELLO, (), ways)}
    for kind, count in KINDS.items():
        cases[kind] = partial(static_commands, SOURCE, (kind, str(count)), ways)
    if options.root is not None:
        root = options.root.resolve()
        for name, (pattern, *arguments) in ROOTED.items():
            for program in sorted(root.glob(pattern))[-1:]:
                cases[name] = partial(rooted_commands, root, program, tuple(arguments), ways)
    return compare(options, cases, Report(names, ratios(names)), seconds_of(options))


if __name__ == "__main__":
    sys.exit(main())
