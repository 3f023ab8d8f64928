"""Regions that call each other, against the reference engine: random programs of functions.

``ANYARCH_LOCKSTEP=20`` runs twenty times as many, and other ones each time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given

from anyarch.engine.eager import Eager
from tests.fuzz import functions
from tests.fuzz.functions import Author, Calls
from tests.fuzz.lockstep import JitEngine, NativeEngine
from tests.test_lockstep import SEEDS, repeated

Engines = Mapping[str, JitEngine]


@pytest.fixture(scope="module")
def engines() -> Engines:
    made = {
        "fast": JitEngine(bounded=False, precise=False),
        "precise": JitEngine(bounded=False, precise=True),
        "bounded": JitEngine(bounded=True, precise=True),
        "eager": JitEngine(bounded=False, precise=True),
    }
    made["eager"].engine.sampler = Eager(made["eager"].jit)
    return made


def problems(case: Calls, engine: JitEngine, choice: int) -> list[str]:
    """What differs; ``choice`` decides which functions are compiled, and which interpreted."""
    expected = functions.follow_reference(case, exact=engine.precise)
    if not functions.ends(expected):
        return []
    NativeEngine.prepare(engine, case)
    if not engine.engine.arena.eager:
        source = random.Random(choice)
        share = source.choice((0.4, 1, 1))
        for place in [case.at, *case.places()]:
            if source.random() < share:
                engine.jit.add(place)
    found = functions.follow_native(case, engine, exact=engine.precise)
    return functions.differences(expected, found)


@pytest.mark.parametrize("form", ["fast", "precise", "bounded", "eager"])
@given(seed=SEEDS)
@repeated(12)
def test_functions(form: str, seed: int, engines: Engines) -> None:
    case = Author(random.Random(seed)).case()
    functions.check(case, lambda case: problems(case, engines[form], seed))
