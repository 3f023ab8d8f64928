"""Regions that call each other, against the reference engine: random programs of functions.

``ANYARCH_LOCKSTEP=20`` runs twenty times as many, and other ones each time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given

from anyarch.host.context import ExitCode
from tests.aarch64.functions import (
    CODE,
    MIDDLE,
    NBYTES,
    STACK,
    Author,
    Engine,
    Program,
    fill,
    follow_reference,
)
from tests.fuzz.functions import check, differences, ends
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


def test_a_reservation_that_the_reference_engine_took_holds(engines: Engines) -> None:
    """In a mode that the host does not have a region with floating point is stepped, and what comes
    behind a step is native: a loop over both ends nevertheless."""
    text = (
        "l1: ldaxr x1, [x25]\nadd x2, x1, 5\nstlxr w3, x2, [x25]\ncbnz w3, l1\n"
        "fadd d0, d0, d1\nbrk 0"
    )
    registers = [0] * 32
    registers[25] = MIDDLE
    flush_to_zero = 8
    program = Program(text, (), (), tuple(registers), (0,) * 32, 0, flush_to_zero, 0, bytes(NBYTES))
    engine = engines["fast"]
    engine.prepare(program)
    assert engine.jit.add(CODE)
    assert not differences(follow_reference(program, exact=True), engine.follow())


def test_a_callee_that_writes_flags_under_a_condition(engines: Engines) -> None:
    """Behind a call flags may be overwritten by an instruction that leaves some of them."""
    text = (
        "subs wzr, w0, w1\nbl f\nb.hi out\nadd x2, x2, 1\nout: brk 0\nf: rmif x3, 5, 9\n"
        "stp x29, x30, [sp, -16]!\nbl g\nldp x29, x30, [sp], 16\nret x30\ng: ret x30"
    )
    for engine in engines.values():
        for nzcv in range(16):
            registers = (1, 2, 0, nzcv << 5, *range(4, 31), STACK)
            program = Program(text, (), (), registers, (0,) * 32, nzcv, 0, 0, bytes(NBYTES))
            engine.prepare(program)
            if not engine.engine.arena.eager:
                assert engine.jit.add(CODE)
            expected = follow_reference(program, exact=True)
            assert not differences(expected, engine.follow())


# Flags of the caller, of one instruction or of another come back from a call; then the guest
# leaves, has a system call served, sets one flag, or branches.
CALLED_FLAGS = """
    adds xzr, x5, x6
    bl f
    cbz x4, out
    sub x4, x4, 1
    cbz x4, served
    sub x4, x4, 1
    cbz x4, part
    b.hi out
    add x7, x7, 1
out: brk 0
served: svc 0
    brk 0
part: rmif x8, 5, 1
    brk 0
f: stp x29, x30, [sp, -16]!
    bl g
    ldp x29, x30, [sp], 16
    cbz x2, kept
    tbz x2, 0, other
    subs wzr, w0, w1
    b kept
other: ands xzr, x0, x1
kept: ret x30
g: ret x30
"""


@pytest.mark.parametrize("form", ["fast", "precise"])
@pytest.mark.parametrize("compiled", ["both", "caller", "callee"])
def test_flags_that_a_callee_leaves(form: str, compiled: str, engines: Engines) -> None:
    engine, source = engines[form], random.Random(f"{form} {compiled}")
    blank = Program(CALLED_FLAGS, ("f",), (), (0,) * 32, (0,) * 32, 0, 0, 0, bytes(NBYTES))
    engine.prepare(blank)
    places = [CODE, *blank.places()]
    for place in places[compiled == "callee" : 1 if compiled == "caller" else 2]:
        assert engine.jit.add(place)
    for case in range(48):
        values = [source.choice((0, 1, 5, 1 << 31, 1 << 63, 2**64 - 1)) for _ in range(31)]
        values[2], values[4] = case % 3, case // 3 % 4
        program = replace(blank, r=(*values, STACK), nzcv=source.randrange(16))
        fill(engine.engine.state, program)
        assert not differences(follow_reference(program, exact=True), engine.follow())


# A carry that comes from the turn before or from before the loop, and in the loop from either of
# two instructions; behind it flags of either of two are read.
CARRIED_FLAGS = """
    cmp x0, x1
l1: adcs x2, x2, x3
    cbz x6, l2
    adds x4, x4, x2
    sub x6, x6, 1
l2: adc x5, x5, x4
    csel x7, x5, x7, hi
    sub x8, x8, 1
    cbnz x8, l1
    cbz x0, l3
    rmif x5, 2, 6
l3: csinc x9, x9, x9, lt
    ccmp x9, x2, 3, vs
    csinc x10, xzr, xzr, hi
    brk 0
"""


@pytest.mark.parametrize("form", ["fast", "precise"])
@pytest.mark.parametrize("entry", ["before", "head", "middle"])
def test_flags_of_several_instructions_meet(form: str, entry: str, engines: Engines) -> None:
    engine, source = engines[form], random.Random(f"{form} {entry}")
    labels = ("l1", "l2")
    blank = Program(CARRIED_FLAGS, labels, (), (0,) * 32, (0,) * 32, 0, 0, 0, bytes(NBYTES))
    engine.prepare(blank)
    assert engine.jit.add([CODE, *blank.places()][("before", "head", "middle").index(entry)])
    for _ in range(100):
        values = [source.choice((0, 1, 5, 1 << 63, 2**64 - 1, 1 << 62)) for _ in range(31)]
        values[6], values[8] = source.randrange(3), source.randrange(1, 4)
        program = replace(blank, r=(*values, STACK), nzcv=source.randrange(16))
        fill(engine.engine.state, program)
        assert not differences(follow_reference(program, exact=True), engine.follow())


def test_registers_at_stops_in_nested_loops(engines: Engines) -> None:
    """The poll of the inner loop sees a vector and the flags of the outer one, or a scalar and its
    own flags."""
    text = (
        "outer: dup v2.2d, x9\nmovz x1, 9\n"
        "inner: umov x5, v2.d[1]\nfadd d2, d0, d1\nadd x2, x2, 1\nsubs x1, x1, 1\nb.ne inner\n"
        "add x3, x3, 1\nadds x4, x3, x3\nb outer"
    )
    pattern, one, two = 0x8765432187654321, 0x3FF << 52, 0x400 << 52
    registers = [0] * 32
    registers[9] = pattern
    vectors = (one, one, *[0] * 30)
    program = Program(text, (), (), tuple(registers), vectors, 0, 0, 0, bytes(NBYTES))
    engine = engines["fast"]
    engine.prepare(program)
    assert engine.jit.add(CODE)
    interpreter, state = engine.engine, engine.engine.state
    seen = set()
    for turn in range(400):
        stopping = threading.Timer(0.0002 + turn % 7 / 1e5, interpreter.request_stop)
        stopping.start()
        ended = interpreter.run()
        stopping.join()
        interpreter.clear_stop()
        assert ended.code is ExitCode.STOP
        left, turns, outer = (state.get("r", index) for index in (1, 2, 3))
        seen.add((state.pc - CODE, left == 9))
        if state.pc != CODE + 12:  # not from a poll of the inner loop, which does not keep x5
            continue
        assert turns == 9 * outer + 9 - left
        flags = [state.get("flag", index) for index in range(4)]
        if left == 9:
            assert state.get("v", 2) == pattern << 64 | pattern
            assert state.get("r", 5) == pattern
            assert not outer or flags == [0, 0, 0, 0]
        else:
            assert (state.get("v", 2), state.get("r", 5)) == (two, 0)
            assert flags == [0, 0, 1, 0]
        if {left for _, left in seen} == {True, False}:
            return
    raise AssertionError(f"only stopped at {seen}")


@pytest.mark.parametrize("form", ["fast", "precise", "bounded", "eager"])
@given(seed=SEEDS)
@repeated(12)
def test_functions(form: str, seed: int, engines: Engines) -> None:
    program = Author(random.Random(seed)).program()
    check(program, lambda program: problems(program, engines[form], seed))
