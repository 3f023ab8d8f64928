"""Code of blocks: what there are templates for, and who writes and runs it beside forks."""

from __future__ import annotations

import ctypes
import os

import pytest

from anyarch._native import architecture, native_code
from anyarch.engine.blockcode import ROW
from anyarch.engine.interpreter import Interpreter
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.blockroom import BlockRoom
from anyarch.host.code import code_arena
from anyarch.host.context import ExitCode
from anyarch.memory.space import AddressSpace
from tests.fuzz.lockstep import NativeEngine
from tests.vectors_format import CODE, PAGE, encode


@pytest.mark.parametrize("guest", ["riscv64", "aarch64"])
def test_what_native_code_does_has_a_template(guest: str) -> None:
    native = native_code(guest)
    start, end = (native.address(f"aa_template_{name}") for name in ("rows", "patches"))
    rows = list(ROW.iter_unpack(ctypes.string_at(start, (end - start) // ROW.size * ROW.size)))
    lacking = [number for number, row in enumerate(rows) if number and not row[2]]
    # One handler hands instructions to the reference engine.
    assert len(rows) > 500
    assert len(lacking) <= 1


@pytest.fixture
def engine() -> NativeEngine:
    made = NativeEngine(bounded=True, code=True)
    made.space.map(CODE, 2 * PAGE, 7, fixed=True)
    return made


def result(engine: NativeEngine, text: str | None = None, at: int = CODE) -> int:
    """What ``a0`` is after some code; of what is there already without a text."""
    if text is not None:
        engine.space.write(at, encode(ARCHITECTURE, text) + bytes(4))
        engine.engine.code_changed(at, 64)
    engine.engine.state.pc = at
    engine.engine.state.set("x", 10, 0)
    assert engine.engine.run().code is ExitCode.ILLEGAL
    return engine.engine.state.get("x", 10)


def test_a_fault_tells_the_record_within_a_sequence(engine: NativeEngine) -> None:
    """The second of two loads that are fused with what is before them."""
    code = encode(ARCHITECTURE, "li a0, 1; lui a1, 0x20; addi a1, a1, 8; ld a0, 0(a1); li a0, 3")
    engine.space.write(CODE, code)
    engine.engine.state.pc = CODE
    ended = engine.engine.run()
    assert (ended.code, ended.address) == (ExitCode.FAULT, 0x20008)
    assert ended.pc == CODE + len(code) - 8
    assert engine.engine.state.get("x", 10) == 1


def test_a_child_and_its_parent_write_code_apart(engine: NativeEngine) -> None:
    assert result(engine, "li a0, 7") == 7
    ready = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(ready[0], 1)
            # What was there before the fork, though the parent has begun anew; then new code.
            good = result(engine) == 7 and result(engine, "li a0, 9", CODE + PAGE) == 9
            status = 0 if good and result(engine) == 7 else 2
        finally:
            os._exit(status)
    engine.engine.flush()
    assert result(engine, "li a0, 11; addi a0, a0, 100") == 111
    assert result(engine, "li a0, 13", CODE + PAGE) == 13
    os.write(ready[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert result(engine) == 111
    assert result(engine, at=CODE + PAGE) == 13
    for descriptor in ready:
        os.close(descriptor)


def test_rooms_are_given_back() -> None:
    before = code_arena().block_rooms.nbytes
    rooms = [BlockRoom() for _ in range(3)]
    assert len({room.start for room in rooms}) == 3
    for room in rooms:
        ctypes.memmove(room.start + room.distance, b"\xc3", 1)
        assert ctypes.string_at(room.start, 1) == b"\xc3"
        room.close()
    assert code_arena().block_rooms.nbytes == before


def test_without_room_handlers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(nbytes: int, pointer: int) -> int:
        raise OSError(12, "no memory")

    monkeypatch.setattr("anyarch.host.blockroom.map_twice", fail)
    made = NativeEngine(bounded=True, code=True)
    assert not made.engine.arena.has_code
    made.space.map(CODE, PAGE, 7, fixed=True)
    assert result(made, "li a0, 7") == 7


TURN = "again: {call}; {next}; one: {jump}; two: {back}"
RISCV_NEXT = "addi s0, s0, -1; bnez s0, again; ebreak"
ARM_NEXT = "sub x8, x8, 1; cbnz x8, again; brk 0"
ONE, TWO = CODE + 16, CODE + 20


@pytest.mark.parametrize("code", [False, True])
@pytest.mark.parametrize(
    ("guest", "call", "back"),
    [
        ("riscv64", "jal ra, one", "ret"),
        ("riscv64", "jal t0, one", "jr t0"),
        ("riscv64", "jalr ra, 0(a1)", "ret"),
        ("aarch64", "bl one", "ret"),
        ("aarch64", "blr x11", "ret"),
    ],
)
def test_a_return_goes_where_its_call_said(guest: str, call: str, back: str, code: bool) -> None:
    """Who looks a pc up polls before; a jump that is no call hides none."""
    is_riscv = guest == "riscv64"
    guest_architecture = architecture(guest)
    space = AddressSpace(38, bounded=False)
    runner = Interpreter(guest_architecture, space, native_code(guest, "flat"))
    if code:
        runner.arena.assemble()
    space.map(CODE, PAGE, 7, fixed=True)
    following, jump = (RISCV_NEXT, "jal zero, two") if is_riscv else (ARM_NEXT, "b two")
    text = TURN.format(call=call, next=following, jump=jump, back=back)
    space.write(CODE, encode(guest_architecture, text))
    runner.state.pc = CODE
    file = "x" if is_riscv else "r"
    runner.state.set(file, 8, 10)
    runner.state.set(file, 11, ONE)
    runner.inside = True  # as a sampler finds it while the guest runs
    runner.sample()
    runner.inside = False
    assert runner.run().code is ExitCode.BREAKPOINT
    turn = [ONE, TWO, CODE]
    assert [note.pc for note in runner.take_notes()] == [CODE, *turn, *turn, ONE]


def test_returns_that_no_call_told(engine: NativeEngine) -> None:
    """To elsewhere than behind the call, from deeper than calls are noted, out of several calls at
    once, and to code that has changed since the call."""
    skips = "jal ra, f; li a0, 1; addi a0, a0, 2; .word 0; f: addi ra, ra, 4; ret"
    assert result(engine, skips) == 2
    engine.space.map(2 * CODE, 4 * PAGE, 3, fixed=True)
    deep = """
        lui sp, 0x24; li a1, 200; jal ra, sum; .word 0
    sum: beqz a1, zero
        addi sp, sp, -16; sd ra, 0(sp); sd a1, 8(sp); addi a1, a1, -1; jal ra, sum
        ld ra, 0(sp); ld a1, 8(sp); addi sp, sp, 16; add a0, a0, a1
    zero: ret
    """
    assert result(engine, deep) == 200 * 201 // 2
    out = """
        li s1, 3
    again: jal ra, f; addi s1, s1, -1; bnez s1, again; .word 0
    f: mv s2, ra; jal ra, g; addi a0, a0, 1; mv ra, s2; ret
    g: mv s3, ra; jal ra, h; addi a0, a0, 10; mv ra, s3; ret
    h: addi a0, a0, 100; li t1, 2; bne s1, t1, all; ret
    all: mv ra, s2; ret
    """
    assert result(engine, out) == 311  # only the second turn comes back through g and f
    changes = """
        lui a1, 0x10; li s1, 2
    again: jal ra, f; li a0, 2; addi s1, s1, -1; bnez s1, again; .word 0
    f: li t1, 1; bne s1, t1, same; lw t0, 52(a1); sw t0, 12(a1); fence.i
    same: ret; li a0, 3
    """
    assert result(engine, changes) == 3
