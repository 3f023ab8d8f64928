"""Where registers are written to the context: at the latest where ways meet of which one has
changed them; and that LLVM tells where registers are that it would have forgotten."""

from __future__ import annotations

import re
from typing import Final

import pytest
from llvmlite import binding as llvm

from anyarch.emit.compile import compile_blob, skip_scheduling
from anyarch.engine.convention import STACK_ALIGNMENT, RegionConvention
from anyarch.engine.regions import RegionCompiler
from anyarch.engine.regiontext import RegionEmitter
from anyarch.engine.tracing import trace
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.code import CELL_DISTANCE
from tests.test_regionloops import CODE, at, region_of

A6: Final = ("x", 16)  # not passed in a host register
COMPILER: Final = RegionCompiler(ARCHITECTURE, bounded=False, direct=True)


def emitter_of(text: str, held: frozenset[int] = frozenset()) -> RegionEmitter:
    return RegionEmitter(COMPILER, region_of(text), held=held)


def stores_in(emitter: RegionEmitter, offset: int) -> int:
    """How often the block at an offset stores a6 in the context."""
    label = f"b{CODE + offset:x}"
    block = re.split(rf"^{label}:$", emitter.text(), flags=re.MULTILINE)[1]
    block = re.split(r"^b[0-9a-f]{4,}:$", block, flags=re.MULTILINE)[0]
    place = RegionConvention(ARCHITECTURE).offset(A6)
    return len(re.findall(rf"^ *store i64 .*\(i64 {place} to ", block, flags=re.MULTILINE))


def test_a_register_that_one_of_two_ways_writes_is_stored_there() -> None:
    found = emitter_of("beqz a0, over; li a6, 3; over: addi a0, a0, 1; ret")
    assert not found.entry_dirty[at(8)]
    assert stores_in(found, 4) == 1
    assert stores_in(found, 8) == 0


def test_a_register_that_both_ways_write_is_stored_where_the_region_ends() -> None:
    text = "beqz a0, other; li a6, 3; j over; other: li a6, 4; over: addi a0, a0, 1; ret"
    found = emitter_of(text)
    assert found.entry_dirty[at(16)] == {A6}
    assert [stores_in(found, offset) for offset in (4, 12, 16)] == [0, 0, 1]


def test_a_register_that_is_written_again_is_not_stored_before() -> None:
    found = emitter_of("beqz a0, over; li a6, 3; over: addi a0, a0, 1; mv a6, a0; ret")
    assert found.entry_dirty[at(8)] == {A6}
    assert [stores_in(found, offset) for offset in (4, 8)] == [0, 1]


@pytest.mark.parametrize("shown", ["ecall", f"jal ra, {CODE - 4096:#x}"])
def test_a_register_that_others_see_before_it_is_written_again_is_stored(shown: str) -> None:
    found = emitter_of(f"beqz a0, over; li a6, 3; over: {shown}; mv a6, a0; ret")
    assert not found.entry_dirty[at(8)]
    assert stores_in(found, 4) == 1


def test_a_loop_does_not_store_what_it_sometimes_writes() -> None:
    text = """
    again: andi a1, a0, 1; beqz a1, over; li a6, 3; over: addi a0, a0, -1; bnez a0, again; ret
    """
    found = emitter_of(text)
    assert A6 in found.entry_dirty[at(12)]
    assert stores_in(found, 8) == 0
    assert not found.entry_dirty[at(20)], "not on all ways out"


def test_each_way_stores_what_only_it_has_written() -> None:
    text = """
        beqz a0, over; li a6, 3; beqz a1, over; li a7, 4; over: addi a0, a0, 1; beqz a2, end
        li a6, 5; end: ret
    """
    found = emitter_of(text)
    assert not found.entry_dirty[at(16)]
    assert not found.entry_dirty[at(28)]
    assert [stores_in(found, offset) for offset in (4, 24)] == [1, 1]


LOST: Final = f"""
    addi sp, sp, -16; sd ra, 8(sp); mv s0, a1; jal ra, {CODE - 4096:#x}; beqz a0, over
    jal ra, {CODE - 8192:#x}; over: sd a0, 0(s0); ld ra, 8(sp); addi sp, sp, 16; ret
"""


def lost_in(emitter: RegionEmitter) -> set[int]:
    skip_scheduling()
    return trace(emitter, compile_blob(emitter.text(), places={"cells": CELL_DISTANCE}))[1]


def test_what_is_held_is_not_forgotten() -> None:
    """The link register is one of two constants that nothing reads but a fault."""
    lost = lost_in(emitter_of(LOST))
    assert CODE + 24 in lost
    assert not lost_in(emitter_of(LOST, frozenset(lost)))


def test_a_link_is_loaded_after_all_stores_before_a_call() -> None:
    """So it is part of the call."""
    text = emitter_of(f"li a6, 3; jal ra, {CODE - 4096:#x}; ret").text()
    (between,) = re.findall(r"load ptr, ptr @cells.*?\n(.*?) call x86_regcallcc", text, re.DOTALL)
    assert "store" not in between


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("popcnt"), reason="no popcnt here")
def test_shifts_and_masks_that_count_bits_are_one_instruction() -> None:
    text = f"""
target triple = "x86_64-unknown-linux-gnu"
!llvm.module.flags = !{{!0}}
!0 = {STACK_ALIGNMENT}
define i64 @count(i64 %a) {{
  %a1 = lshr i64 %a, 1
  %odd = and i64 %a1, 6148914691236517205
  %b = sub i64 %a, %odd
  %low = and i64 %b, 3689348814741910323
  %b2 = lshr i64 %b, 2
  %high = and i64 %b2, 3689348814741910323
  %c = add i64 %low, %high
  %c4 = lshr i64 %c, 4
  %d = add i64 %c, %c4
  %e = and i64 %d, 1085102592571150095
  %f = mul i64 %e, 72340172838076673
  %g = lshr i64 %f, 56
  ret i64 %g
}}
"""
    assert b"\xf3\x48\x0f\xb8" in compile_blob(text).code
