"""Room of dropped code is used again, never while a thread or a child may run what was there."""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from anyarch.engine.arena import DROPPED_LIMIT, RecordArena
from anyarch.engine.retirement import Retirement
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host import code as host_code
from anyarch.host.code import CodeArena
from anyarch.host.context import ExitCode
from anyarch.host.freelist import FreeList
from anyarch.isa.assembly import assemble
from tests.fuzz.lockstep import CODE, JitEngine

PAGE: Final = 4096


# Free ranges.
def test_free_ranges_against_a_set() -> None:
    source = random.Random(1)
    free, expected = FreeList(), set[int]()
    taken: list[tuple[int, int]] = [(64 * i, 64) for i in range(400)]
    for _ in range(4000):
        if taken and source.random() < 0.5:
            start, nbytes = taken.pop(source.randrange(len(taken)))
            free.give(start, nbytes)
            expected |= set(range(start, start + nbytes, 64))
        else:
            nbytes = 64 * source.randrange(1, 6)
            start_ = free.take(nbytes)
            if start_ is None:
                runs = sorted(expected)
                assert not any(
                    all(at + 64 * i in expected for i in range(nbytes // 64)) for at in runs
                ), "there was room"
            else:
                wanted = set(range(start_, start_ + nbytes, 64))
                assert wanted <= expected
                expected -= wanted
                taken.append((start_, nbytes))
        assert free.nbytes == 64 * len(expected)
    for start, nbytes in taken:
        free.give(start, nbytes)
    assert len(free) == 1, "neighbours are one range"


def test_what_is_free_is_not_freed_again() -> None:
    free = FreeList()
    free.give(128, 128)
    for start, nbytes in ((128, 64), (64, 128), (192, 64), (0, 1024), (224, 64)):
        with pytest.raises(ValueError, match="some are free"):
            free.give(start, nbytes)
    free.give(64, 64)
    free.give(256, 64)
    assert (free.take(256), free.take(1)) == (64, None)


# Code in memory.
def returns(number: int) -> bytes:
    return b"\xb8" + number.to_bytes(4, "little") + b"\xc3"  # mov eax, number; ret


def result(pointer: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(pointer)())


def test_room_is_used_again() -> None:
    arena = CodeArena()
    first, second = arena.append(returns(1)), arena.append(returns(2))
    arena.release(first, len(returns(1)))
    third = arena.append(returns(3))
    assert (third, result(third), result(second)) == (first, 3, 2)
    large = arena.append(returns(4).ljust(1000, b"\xcc"))
    assert large > second
    stubs = arena.append_stubs([returns(10 + i) for i in range(600)])
    assert len(set(stubs)) == 600
    assert [result(stub) for stub in stubs] == [10 + i for i in range(600)]
    assert [result(p) for p in (second, third, large)] == [2, 3, 4]


def test_a_child_keeps_the_code_that_its_parent_has_dropped() -> None:
    arena = CodeArena()
    pointers = [arena.append(returns(i)) for i in range(4)]
    go, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        arena.after_fork()
        os.read(go[0], 1)  # the parent has used the room of 1 again
        right = [result(pointer) for pointer in pointers] == [0, 1, 2, 3]
        arena.release(pointers[2], 6)
        right &= result(arena.append(returns(22))) == 22
        right &= [result(p) for p in (pointers[0], pointers[1], pointers[3])] == [0, 1, 3]
        os.write(told[1], b"1" if right else b"0")
        os._exit(0)
    arena.after_fork()
    arena.release(pointers[1], 6)
    assert arena.append(returns(11)) == pointers[1]
    os.write(go[1], b"x")
    assert os.read(told[0], 1) == b"1"
    os.waitpid(pid, 0)
    assert [result(pointer) for pointer in pointers] == [0, 11, 2, 3]
    for fd in (*go, *told):
        os.close(fd)


# mov ecx, 1 << 29; again: dec ecx; jnz again; mov eax, 5; ret
LASTING: Final = bytes.fromhex("b900000020 ffc9 75fc b805000000 c3")


def test_code_runs_on_while_its_memory_is_copied() -> None:
    """Where a child may run what is there, code is appended to a copy: a thread is in it."""
    pid = os.fork()
    if pid == 0:
        arena = CodeArena()
        lasting, other = arena.append(LASTING), arena.append(returns(1))
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(result(lasting)))
        thread.start()
        copies = 0
        while thread.is_alive():
            arena.after_fork()
            arena.release(other, 6)
            copies += arena.append(returns(2)) == other
        os._exit(0 if results == [5] and copies > 10 and result(other) == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Threads.
def fake_arena(*runners: Any) -> RecordArena:
    return cast(RecordArena, SimpleNamespace(epoch=0, runners=list(runners)))


def test_what_is_retired_waits_for_who_was_inside() -> None:
    runners = [SimpleNamespace(inside=False, epoch=0) for _ in range(2)]
    arena = fake_arena(*runners)
    released: list[str] = []
    retirement = Retirement[str](arena, released.append)

    def enter(index: int) -> None:
        runners[index].inside, runners[index].epoch = True, arena.epoch

    retirement.retire("nobody was inside")
    retirement.collect()
    assert released == ["nobody was inside"]
    enter(0)
    retirement.retire("a")
    enter(1)
    retirement.retire("b")
    retirement.collect()
    assert released[1:] == []
    enter(0)  # it has been outside
    retirement.collect()
    assert released[1:] == ["a"], "1 may be in b, not in a"
    runners[1].inside = False
    retirement.collect()
    assert released[1:] == ["a", "b"]
    assert len(retirement) == 0


def test_threads_are_asked_to_let_go_when_much_waits() -> None:
    asked: list[int] = []
    runner = SimpleNamespace(inside=True, epoch=0, ask_pass=lambda: asked.append(1))
    retirement = Retirement[int](fake_arena(runner), lambda item: None)
    for number in range(600):
        retirement.retire(number)
        retirement.collect()
    assert (len(retirement), len(asked)) == (600, 2)


# Regions.
def rewritten(engine: JitEngine, number: int, address: int = CODE) -> None:
    """Other code at an address, as a guest's own compiler would put it there, and compiled."""
    text = f"addi a0, a0, {number}; beqz a0, {address + 4096}; ebreak"
    engine.space.write(address, assemble(ARCHITECTURE, text, address))
    engine.engine.code_changed(address, PAGE)
    assert engine.jit.add(address)


def value(engine: JitEngine, pc: int = CODE) -> int:
    engine.engine.state.pc = pc
    engine.engine.state.set("x", 10, 0)
    assert engine.engine.run().code is ExitCode.BREAKPOINT
    return engine.engine.state.get("x", 10)


def code_arena() -> CodeArena:
    return host_code.code_arena()


def test_a_guest_that_compiles_for_ever_needs_no_more_room() -> None:
    engine = JitEngine(bounded=False)
    engine.space.map(CODE, PAGE, 7, fixed=True)
    reached = []
    for number in range(1, 40):
        rewritten(engine, number)
        assert value(engine) == number
        reached.append(code_arena()._region_next)
    assert len(set(reached[3:])) == 1
    assert len(engine.jit._places) <= 3
    assert sum(map(len, engine.jit._cells.values())) <= 3
    assert len(engine.jit.installed) == 1


def test_records_are_used_again_once_no_block_leads_to_them() -> None:
    engine = JitEngine(bounded=False)
    kept = CODE + 4 * PAGE
    for at in (CODE, kept):
        engine.space.map(at, PAGE, 7, fixed=True)
    rewritten(engine, 1000, kept)
    first, free = engine.jit._next_record, len(engine.jit._ways)
    for turn in range(1, 4):
        for number in range(1, 10):
            rewritten(engine, 10 * turn + number)
            assert value(engine) == 10 * turn + number
        engine.engine.arena.make_room()
        assert len(engine.jit.installed) == 2, "what is compiled stays"
        assert value(engine) == 10 * turn + 9
        assert value(engine, kept) == 1000
        assert engine.engine.arena.blocks == 0, "a region was not found"
    assert engine.jit._next_record == first
    assert len(engine.jit._ways) == free - 1, "the other region has one"
    assert not engine.jit._left_ways


def test_blocks_that_were_dropped_do_not_pile_up() -> None:
    engine = JitEngine(bounded=False)
    pages = 16
    engine.space.map(CODE, (pages + 1) * PAGE, 7, fixed=True)
    jump = assemble(ARCHITECTURE, f"j {CODE + 4}", CODE)
    engine.space.write(CODE, jump * (pages * PAGE // 4) + assemble(ARCHITECTURE, "ebreak", CODE))
    for _ in range(2 * DROPPED_LIMIT // (pages * PAGE // 4)):
        assert value(engine) == 0
        assert engine.engine.arena.blocks <= DROPPED_LIMIT + pages * PAGE // 4 + 1
        engine.engine.code_changed(CODE, pages * PAGE)
    assert engine.engine.arena.flushes in (1, 2)


def test_a_thread_inside_is_waited_for() -> None:
    engine = JitEngine(bounded=False)
    loop = CODE + 4 * PAGE
    for at in (CODE, loop):
        engine.space.map(at, PAGE, 7, fixed=True)
    engine.space.write(loop, assemble(ARCHITECTURE, "again: addi a1, a1, 1; j again", loop))
    assert engine.jit.add(loop)
    other = engine.engine.spawn()
    other.state.pc = loop
    thread = threading.Thread(target=other.run)
    thread.start()
    try:
        while not other.inside:
            time.sleep(0.001)
        for number in range(1, 6):
            rewritten(engine, number)
            assert value(engine) == number
        retirement = engine.jit._retirement
        retirement.collect()
        assert len(retirement) == 4, "the thread is where it was"
        deadline = time.monotonic() + 30
        while len(retirement):
            retirement.hurry()
            time.sleep(0.001)
            retirement.collect()
            assert time.monotonic() < deadline
        assert value(engine) == 5
    finally:
        other.request_stop()
        thread.join()
        other.close()


def test_links_into_and_out_of_dropped_regions() -> None:
    """A caller's cell follows its callee through many versions; a dropped caller's cell is not
    written any more once its room belongs to another region."""
    engine = JitEngine(bounded=False)
    callee, filler = CODE + 4 * PAGE, CODE + 8 * PAGE
    for at in (CODE, callee, filler):
        engine.space.map(at, PAGE, 7, fixed=True)
    caller = f"mv s0, ra; jal ra, {callee}; addi a0, a0, 100; mv ra, s0; ebreak"
    for number in range(1, 30):
        if number % 3 == 0:
            engine.space.write(CODE, assemble(ARCHITECTURE, caller, CODE))
            engine.engine.code_changed(CODE, PAGE)
        engine.jit.add(CODE)
        # More than is compiled into its caller.
        text = "; ".join([f"addi a0, a0, {number}"] * 41 + ["ret"])
        engine.space.write(callee, assemble(ARCHITECTURE, text, callee))
        engine.engine.code_changed(callee, PAGE)
        if number % 2:
            assert engine.jit.add(callee)
        rewritten(engine, number, filler)
        if number >= 3:
            assert value(engine) == 41 * number + 100
        assert value(engine, filler) == number
