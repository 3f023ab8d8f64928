"""Ahead-of-time compilation of Debian's programs: libraries are compiled for where they will be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from anyarch._compile import gather
from tests.real.sysroot import Machine


def mapped(root: Path, *command: str) -> set[int]:
    """Where the dynamic linker maps what is executable."""
    done = subprocess.run(
        [sys.executable, "-m", "anyarch", "run", "--strace", "-L", str(root), *command],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found = re.findall(r"mmap\(.*PROT_EXEC.*= 0x([0-9a-f]+)\n", done.stderr)
    return {int(address, 16) for address in found}


def test_libraries_are_compiled_for_where_they_are(machine: Machine, root: Path) -> None:
    shared = []
    for command in (("/usr/bin/jq", "-n", "1"), ("/usr/bin/sqlite3", ":memory:", "select 1")):
        work = gather(command[:1], str(root), libraries=True)
        names = {Path(file).name for file in work.files}
        assert {"libc.so.6", "libm.so.6", machine.linker} <= names
        starts = {text.start for text in work.texts.values()}
        libraries = mapped(root, *command)
        assert len(libraries) >= 3
        assert libraries <= starts
        assert len(starts) == len(libraries) + 2  # the program and the linker
        assert len(work.texts) == len(work.files)
        assert len(work.roots) > 1000
        shared.append({(text.start, key) for key, text in work.texts.items()})
    # The linker, libc and libm serve both programs, wherever else they are linked.
    assert len(shared[0] & shared[1]) >= 3
