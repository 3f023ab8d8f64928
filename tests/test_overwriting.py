"""Registers that polls do not keep, for they are overwritten soon; stops see all of them exact."""

from __future__ import annotations

import threading

import pytest

from anyarch.engine.overwriting import LIMIT
from anyarch.host.context import ExitCode
from tests.test_dirtiness import emitter_of
from tests.test_jit import CODE, Engines, _mapped, compile_all, engines
from tests.test_regionloops import at

__all__ = ["engines"]  # a fixture


def overwritten(text: str, offset: int) -> dict[str, int]:
    """By name: the instructions until a general register is overwritten behind a block's start."""
    found = emitter_of(text).overwriting.before(at(offset))
    return {f"{file}{index}": count for (file, index), count in found.items()}


def test_what_a_block_writes_before_it_reads_it() -> None:
    text = "nop; l: addi a1, a0, 1; add a2, a1, a3; mv a3, a2; addi a0, a0, -1; bnez a0, l; ret"
    assert overwritten(text, 4) == {"x11": 1, "x12": 2}


def test_all_ways_have_to_write_it() -> None:
    head = "nop; l: addi a0, a0, -1; beqz a2, other;"
    both = f"{head} li a1, 1; li a4, 1; j m; other: nop; li a1, 2; m: bnez a0, l; ret"
    assert overwritten(both, 4) == {"x11": 4}  # by the longer way
    loop = f"{head} li a1, 1; other: bnez a0, l; ret"
    assert overwritten(loop, 4) == {}


def test_a_loop_may_go_on_for_ever_before_it_is_written() -> None:
    text = "nop; l: addi a0, a0, -1; i: addi a2, a2, -1; bnez a2, i; li a1, 1; bnez a0, l; ret"
    assert overwritten(text, 4) == {}


@pytest.mark.parametrize("leaving", ["ecall", f"jal ra, {CODE - 4096:#x}", "jr t0", "ebreak"])
def test_nothing_is_so_behind_what_leaves(leaving: str) -> None:
    text = f"nop; l: li a1, 1; beqz a0, out; {leaving}; out: li a2, 1; addi a0, a0, -1; bnez a0, l"
    assert overwritten(f"{text}; ret", 4) == {"x11": 1}


def test_what_is_too_far_is_kept() -> None:
    text = f"nop; l: {'addi a0, a0, -1; ' * (LIMIT - 1)} li a1, 1; li a2, 1; bnez a0, l; ret"
    assert overwritten(text, 4) == {"x11": LIMIT}


def test_registers_that_have_to_be_exact_at_faults_are_kept() -> None:
    found = emitter_of("nop; l: mv sp, a0; li a1, 1; addi a0, a0, -1; bnez a0, l; ret")
    assert found._overwritten(at(4)).keys() == {("x", 11)}


def test_stops_see_all_registers_exact(engines: Engines) -> None:
    """Some of them a poll does not keep, one of them by a branch that is taken by turns."""
    engine = engines["flat"]
    text = (
        "again: slli a1, a0, 3; fcvt.d.l f1, a1; xor a2, a1, a0; andi a3, a0, 1; beqz a3, even;"
        "li a4, 7; j on; even: mv a4, a2; on: add a5, a4, a2; addi a0, a0, 1; j again"
    )
    _mapped(engine, text)
    interpreter, state = engine.engine, engine.engine.state
    state.set("x", 10, 0)
    state.pc = CODE
    compile_all(engine.jit, CODE)
    seen = set()
    for turn in range(60):
        stopping = threading.Timer(0.001 + turn % 7 / 1e5, interpreter.request_stop)
        stopping.start()
        ended = interpreter.run()
        stopping.join()
        interpreter.clear_stop()
        assert ended.code == ExitCode.STOP
        assert interpreter.context.get("unfinished") == 0
        stopped, done = state.save(), state.get("x", 10)
        if done < 2:
            continue
        seen.add(state.pc)
        # The same, one instruction after the other, from two turns before.
        state.pc = CODE
        state.set("x", 10, done - 2)
        for index in range(11, 16):
            state.set("x", index, 0xBAD)
        while (state.pc, state.get("x", 10)) != (stopped["pc"], done):
            assert interpreter.step() is None
        assert state.save() == stopped
    assert seen - {CODE}  # it went on from a poll
