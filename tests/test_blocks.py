"""Code of blocks: what there are templates for, and who writes and runs it beside forks."""

from __future__ import annotations

import ctypes
import os

import pytest

from anyarch._native import native_code
from anyarch.engine.blockcode import ROW
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.blockroom import BlockRoom
from anyarch.host.code import code_arena
from anyarch.host.context import ExitCode
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
    def fail(name: str, flags: int) -> int:
        raise OSError(24, "no descriptors")

    monkeypatch.setattr(os, "memfd_create", fail)
    made = NativeEngine(bounded=True, code=True)
    assert not made.engine.arena.has_code
    made.space.map(CODE, PAGE, 7, fixed=True)
    assert result(made, "li a0, 7") == 7
