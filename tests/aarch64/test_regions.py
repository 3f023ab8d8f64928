"""Regions that call each other, against the reference engine: random programs of functions.

``ANYARCH_LOCKSTEP=20`` runs twenty times as many, and other ones each time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given

from tests.aarch64.functions import CODE, Author, Engine, Program, follow_reference
from tests.fuzz.functions import differences, ends
from tests.test_lockstep import SEEDS, repeated

Engines = Mapping[str, Engine]


@pytest.fixture(scope="module")
def engines() -> Engines:
    return {
        "fast": Engine(precise=False),
        "precise": Engine(precise=True),
        "bounded": Engine(bounded=True, precise=True),
        "eager": Engine(precise=True, eager=True),
    }


def problems(program: Program, engine: Engine, choice: int) -> list[str]:
    """What differs; ``choice`` decides which functions are compiled, and which interpreted."""
    expected = follow_reference(program, exact=engine.precise)
    if not ends(expected):
        return []
    engine.prepare(program)
    if not engine.engine.arena.eager:
        source = random.Random(choice)
        share = source.choice((0.4, 1, 1))
        places = zip(program.labels, program.places(), strict=True)
        for label, place in [("f", CODE), *places]:
            # Arms of tables are in regions already, and compiling is what takes the time.
            if source.random() < (share if label[0] in "fo" else share / 20):
                engine.jit.add(place)
    return differences(expected, engine.follow())


def check(program: Program, engine: Engine, choice: int) -> None:
    """Fail with a small program that shows a difference."""
    if not problems(program, engine, choice):
        return
    for line in program.removable():
        smaller = program.without(line)
        if problems(smaller, engine, choice):
            program = smaller
    pytest.fail(f"{program}\n" + "\n".join(problems(program, engine, choice)[:20]))


@pytest.mark.parametrize("form", ["fast", "precise", "bounded", "eager"])
@given(seed=SEEDS)
@repeated(12)
def test_functions(form: str, seed: int, engines: Engines) -> None:
    check(Author(random.Random(seed)).program(), engines[form], seed)
