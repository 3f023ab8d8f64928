"""Where regions poll, which loops are unrolled, and which barriers are left out."""

from __future__ import annotations

import random
from typing import Final

import pytest

from anyarch.engine.ordering import Ordering
from anyarch.engine.regionloops import Loops
from anyarch.engine.regions import ROOT, Key, Occurrence, Region, RegionCompiler, loops
from anyarch.engine.regiontext import RegionEmitter
from anyarch.errors import MemoryFault
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.isa.assembly import assemble

CODE: Final = 0x10000
COMPILER: Final = RegionCompiler(ARCHITECTURE, bounded=False)


def region_of(text: str) -> Region:
    code = assemble(ARCHITECTURE, text, CODE)

    def read(address: int, nbytes: int) -> bytes:
        if not 0 <= address - CODE <= len(code) - nbytes:
            raise MemoryFault(address, "read")
        return code[address - CODE : address - CODE + nbytes]

    region = COMPILER.discover(CODE, read)
    assert region is not None
    return region


def forgets(found: Occurrence) -> bool:
    return COMPILER.links(found) is not None


def loops_of(text: str) -> Loops:
    return Loops(region_of(text).blocks, forgets, unrolls=True)


def at(offset: int) -> Key:
    return ROOT, CODE + offset


# Polls.
def test_one_poll_serves_a_loop_and_the_one_around_it() -> None:
    text = """
    outer: li a2, 5
    inner: addi a2, a2, -1; bnez a2, inner
        addi a1, a1, -1; bnez a1, outer; ret
    """
    assert loops_of(text).heads == {at(4)}


def test_ways_that_meet_before_the_poll() -> None:
    text = """
        j enter
    odd: slli a5, a1, 1; add a1, a1, a5; addi a1, a1, 1
    step: addi a2, a2, 1; beq a1, a4, end
    enter: andi a5, a1, 1; bnez a5, odd
        srli a1, a1, 1; j step
    end: ret
    """
    found = loops_of(text)
    assert found.heads == {at(16)}
    assert [found.copies(at(offset)) for offset in (4, 16, 24, 32, 40)] == [2, 2, 2, 2, 1]
    text = RegionEmitter(COMPILER, region_of(text)).text()
    assert text.count("\nback") == 1


def test_ways_from_a_loop_around_have_a_poll_of_their_own() -> None:
    """What a loop makes need not be merged with what was there before it."""
    text = """
    outer: li a2, 5
    inner: addi a2, a2, -1; bnez a2, inner
        addi a1, a1, -1; bnez a1, outer; ret
    """
    assert RegionEmitter(COMPILER, region_of(text)).text().count("\nback") == 2


def test_a_way_back_that_is_in_no_loop_does_not_poll() -> None:
    assert not loops_of("j on; end: ret; on: addi a0, a0, 1; j end").heads


@pytest.mark.parametrize("seed", range(60))
def test_every_cycle_polls(seed: int) -> None:
    source = random.Random(seed)
    lines = []
    for index in range(16):
        target = source.randrange(16)
        jump = source.choice([f"beq a0, a1, l{target}", f"j l{target}", "addi a0, a0, 1"])
        lines.append(f"l{index}: addi a2, a2, 1; {jump}")
    region = region_of("; ".join(lines) + "; ret")
    found = Loops(region.blocks, forgets, unrolls=True)
    ways = {
        (key, copy): [
            (target, found.polls(key, copy, target))
            for target in block.successors
            if target in region.blocks
        ]
        for key, block in region.blocks.items()
        for copy in range(found.copies(key))
    }
    quiet = {
        each: [(target, copy) for target, (copy, polls) in targets if not polls]
        for each, targets in ways.items()
    }
    while quiet:  # what leads nowhere without a poll is in no cycle without one
        ends = [each for each, targets in quiet.items() if not targets]
        assert ends
        quiet = {
            each: [target for target in targets if target not in ends]
            for each, targets in quiet.items()
            if targets
        }


# Unrolling.
COPY: Final = "again: ld a4, 0(a0); sd a4, 0(a1); addi a0, a0, 8; addi a1, a1, 8"


@pytest.mark.parametrize(
    ("more", "copies"),
    [("nop", 4), ("; ".join(["nop"] * 59), 2), ("; ".join(["nop"] * 60), 1), ("jal ra, f", 1)],
)
def test_small_loops_are_copied(more: str, copies: int) -> None:
    region = region_of(f"{COPY}; {more}; bne a0, a2, again; ret; f: ecall; ret")
    assert Loops(region.blocks, forgets, unrolls=True).copies(at(0)) == copies
    assert Loops(region.blocks, forgets, unrolls=False).copies(at(0)) == 1


def test_a_loop_with_two_ends_is_copied_as_a_whole() -> None:
    found = loops_of(
        "again: lbu a1, 0(a0); beqz a1, end; addi a0, a0, 1; bne a0, a2, again; end: ret"
    )
    assert [found.copies(at(offset)) for offset in (0, 8, 16)] == [4, 4, 1]
    assert found.polls(at(8), 0, at(0)) == (1, False)
    assert found.polls(at(0), 1, at(8)) == (1, False)
    assert found.polls(at(8), 3, at(0)) == (0, True)
    assert found.polls(at(0), 2, at(16)) == (0, False)


# Barriers.
@pytest.mark.parametrize(
    ("before", "settled"),
    [
        ("amoadd.d.aqrl a1, a2, (a3)", True),
        ("fence rw, rw; ld a1, 0(a2)", True),
        ("amoadd.d.aqrl a1, a2, (a3); sd a1, 0(a2)", False),
        ("fence r, rw", False),
        ("sc.d a1, a2, (a3)", False),
        ("nop", False),
        ("sd a1, 0(a2); amoadd.d a1, a2, (a3); beqz a1, on; ld a2, 0(a3)", True),
        ("amoadd.d a1, a2, (a3); beqz a1, on; sd a2, 0(a3)", False),
        ("amoadd.d a1, a2, (a3); jal ra, f", False),
    ],
)
def test_where_a_barrier_is_left_out(before: str, settled: bool) -> None:
    region = region_of(f"{before}; on: fence rw, rw; ld a5, 0(a6); ret; f: ecall; ret")
    ordering = Ordering(region.blocks, (ROOT, CODE), forgets)
    seen = []
    for key, block in region.blocks.items():
        state = ordering.entry[key]
        for found in block.instructions:
            if found.form.instruction.name == "fence":
                seen.append(state)
            state = ordering.step(found, state)
    assert seen[-1] is settled
    text = RegionEmitter(COMPILER, region).text()
    assert ('fence syncscope("singlethread") seq_cst' in text) is settled


def test_a_store_in_a_loop_is_on_its_way_at_its_head() -> None:
    region = region_of(
        "amoadd.d a1, a2, (a3); again: ld a1, 0(a0); sd a1, 0(a2); bnez a1, again; fence; ret"
    )
    entry = Ordering(region.blocks, (ROOT, CODE), forgets).entry
    assert not entry[at(4)]
    assert not loops({key: region.blocks[key] for key in region.blocks if key != at(4)})
