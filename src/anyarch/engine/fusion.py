"""Fusing records: the automaton that makes sequences of handlers one handler.

The translator tells it each record as it is built. A read of the register that the record before
has written is linked: the fused handler takes the value from a host register.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from anyarch.engine.records import RecordLayout

HASH_MULTIPLIER: Final = 0x9E3779B97F4A7C15


def hash_slots(keys: dict[int, int]) -> list[tuple[int, int]]:
    """An open-addressed table, at most a quarter full; empty slots have the key -1."""
    size = 1 << (4 * len(keys) + 4).bit_length()
    slots = [(-1, -1)] * size
    for key, value in keys.items():
        index = (key * HASH_MULTIPLIER & (1 << 64) - 1) >> (64 - (size.bit_length() - 1))
        while slots[index][0] != -1:
            index = (index + 1) % size
        slots[index] = key, value
    return slots


def _relative(number: int) -> str:
    """Distance of a handler from the table of sequences: blobs hold no absolute addresses."""
    if number < 0:
        return "0"
    return (
        f"trunc (i64 sub (i64 ptrtoint (ptr @h_{number} to i64), "
        "i64 ptrtoint (ptr @aa_sequences to i64)) to i32)"
    )


def fusion_text(
    sequences: Mapping[tuple[tuple[int, int], ...], int], layouts: Sequence[RecordLayout]
) -> str:
    """LLVM text: ``aa_fuse(sequence, its first record, previous handler and record, handler,
    record)`` gives the longer sequence, having made its handler the first record's, or -1.

    A sequence is of (handler, mask of linked reads); ``layouts`` are those of the handlers.
    """
    keys = {}
    for sequence, number in sequences.items():
        head = sequences[sequence[:-1]] if len(sequence) > 2 else sequence[0][0]
        handler, mask = sequence[-1]
        keys[head << 32 | mask << 24 | handler] = number
    slots = hash_slots(keys)
    entries = ", ".join(
        f"{{ i64, i32, i32 }} {{ i64 {key}, i32 {number}, i32 {_relative(number)} }}"
        for key, number in slots
    )
    rows = []
    for layout in layouts:
        places = [layout.write, *layout.reads[:3]]
        rows.append(f"i32 {sum(place << 8 * index for index, place in enumerate(places))}")
    return _TEXT.format(
        entries=entries,
        slots=len(slots),
        last=len(slots) - 1,
        shift=64 - (len(slots).bit_length() - 1),
        multiplier=HASH_MULTIPLIER,
        count=len(rows),
        rows=", ".join(rows),
    )


_TEXT: Final = """
@aa_sequences = internal constant [{slots} x {{ i64, i32, i32 }}] [{entries}]
@aa_links = internal constant [{count} x i32] [{rows}]

define internal i64 @aa_match(i64 %key, ptr %head) #0 {{
entry:
  %mixed = mul i64 %key, {multiplier}
  %first = lshr i64 %mixed, {shift}
  br label %loop
loop:
  %index = phi i64 [ %first, %entry ], [ %wrapped, %again ]
  %slot = getelementptr {{ i64, i32, i32 }}, ptr @aa_sequences, i64 %index
  %known = load i64, ptr %slot
  %same = icmp eq i64 %known, %key
  br i1 %same, label %found, label %other
other:
  %empty = icmp eq i64 %known, -1
  br i1 %empty, label %none, label %again
again:
  %following = add i64 %index, 1
  %wrapped = and i64 %following, {last}
  br label %loop
found:
  %np = getelementptr i8, ptr %slot, i64 8
  %number = load i32, ptr %np
  %op = getelementptr i8, ptr %slot, i64 12
  %offset = load i32, ptr %op
  %wide = sext i32 %offset to i64
  %handler = getelementptr i8, ptr @aa_sequences, i64 %wide
  store ptr %handler, ptr %head, align 8
  %result = zext i32 %number to i64
  ret i64 %result
none:
  ret i64 -1
}}

define internal i64 @aa_linked(i32 %links, i32 %shift, ptr %record, i16 %written) #0 {{
entry:
  %moved = lshr i32 %links, %shift
  %place = and i32 %moved, 255
  %absent = icmp eq i32 %place, 0
  br i1 %absent, label %no, label %compare
compare:
  %wide = zext i32 %place to i64
  %at = getelementptr i8, ptr %record, i64 %wide
  %read = load i16, ptr %at
  %same = icmp eq i16 %read, %written
  %result = zext i1 %same to i64
  ret i64 %result
no:
  ret i64 0
}}

define internal i64 @aa_fuse(
  i64 %sequence, ptr %head, i64 %pn, ptr %previous, i64 %number, ptr %record
) #0 {{
entry:
  %fresh = icmp slt i64 %sequence, 0
  br i1 %fresh, label %none, label %link
none:
  ret i64 -1
link:
  %plp = getelementptr i32, ptr @aa_links, i64 %pn
  %pl = load i32, ptr %plp
  %place = and i32 %pl, 255
  %placed = zext i32 %place to i64
  %state = shl i64 %sequence, 32
  %base = or i64 %state, %number
  %nothing = icmp eq i32 %place, 0
  br i1 %nothing, label %plain, label %compare
compare:
  %wp = getelementptr i8, ptr %previous, i64 %placed
  %written = load i16, ptr %wp
  %lp = getelementptr i32, ptr @aa_links, i64 %number
  %l = load i32, ptr %lp
  %b0 = call i64 @aa_linked(i32 %l, i32 8, ptr %record, i16 %written)
  %b1 = call i64 @aa_linked(i32 %l, i32 16, ptr %record, i16 %written)
  %b2 = call i64 @aa_linked(i32 %l, i32 24, ptr %record, i16 %written)
  %m1 = shl i64 %b1, 1
  %m2 = shl i64 %b2, 2
  %m01 = or i64 %b0, %m1
  %mask = or i64 %m01, %m2
  %unlinked = icmp eq i64 %mask, 0
  br i1 %unlinked, label %plain, label %masked
masked:
  %high = shl i64 %mask, 24
  %key = or i64 %base, %high
  %found = call i64 @aa_match(i64 %key, ptr %head)
  %missed = icmp slt i64 %found, 0
  br i1 %missed, label %plain, label %done
done:
  ret i64 %found
plain:
  %r = call i64 @aa_match(i64 %base, ptr %head)
  ret i64 %r
}}
"""
