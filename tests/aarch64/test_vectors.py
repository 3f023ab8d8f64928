"""Every vector file on every engine, and every instruction in some vector file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE
from tests.vectors_format import DIRECTORY, ENGINES, check, encode, read_vectors, split

FILES: Final = sorted((DIRECTORY / "aarch64").glob("*.txt"))
# What vectors cannot say: what time it is; that code is announced as changed.
WITHOUT: Final = {"mrs_cntpct_el0", "mrs_cntvct_el0"}


@pytest.mark.parametrize("engine", ["reference", "interpreter", "jit"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vectors(path: Path, engine: str) -> None:
    report = []
    for vector in read_vectors(path):
        problems = check(ARCHITECTURE, vector, ENGINES[engine])
        if problems:
            report.append(f"{vector.where}: {vector.text}: " + "; ".join(problems))
    assert not report, "\n" + "\n".join(report[:40])


def test_every_instruction_has_vectors() -> None:
    seen = set()
    for path in FILES:
        for vector in read_vectors(path):
            code = encode(ARCHITECTURE, vector.text)
            for offset in split(ARCHITECTURE, code):
                word = int.from_bytes(code[offset : offset + 4], "little")
                found = ARCHITECTURE.decoder.decode(word)
                if found is not None:
                    seen.add(found.name)
    missing = {each.name for each in ARCHITECTURE.isa.instructions} - seen - WITHOUT
    assert not missing, ", ".join(sorted(missing))
