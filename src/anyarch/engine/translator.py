"""The translator as LLVM text: guest code to records, blocks found by pc, links resolved.

It reads code through the page flags, decodes with ``aa_decode`` and lets ``aa_fuse`` join records.
One lock guards what all threads of an address space share; looking up a block takes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyarch.engine.arena import (
    DROPPED_LIMIT,
    PAGE_CODE,
    PAGE_EXEC,
    PAGE_HOOK,
    TABLE_BITS,
    TRANSLATOR,
)
from anyarch.engine.records import LINK_NBYTES, field_offset
from anyarch.engine.returns import clear_text
from anyarch.host.context import NOTE_NBYTES, NOTES, ExitCode

_FIELDS: Final = ("translator", "pc", "record", "stop", "notes")
OFFSETS: Final = {name: 8 * index for index, name in enumerate(TRANSLATOR)}
MAXIMUM_RECORD: Final = 256
BLOCK_LIMIT: Final = 128  # instructions in one block
ENDS: Final = 1 << 24  # control does not fall through
BRANCHES: Final = 1 << 25  # control may leave; counted blocks end here


def translator_text(lengths: Sequence[tuple[int, int, int]], noted: tuple[int, int]) -> str:
    """LLVM text; ``lengths`` are the architecture's rows of mask, value, bytes, ``noted`` is the
    offset in the context of registers that are noted at polls, and how many."""
    tests = "\n".join(
        f"  %lm{i} = and i64 %window, {mask}\n"
        f"  %lc{i} = icmp eq i64 %lm{i}, {value}\n"
        f"  br i1 %lc{i}, label %known{i}, label %next{i}\n"
        f"known{i}:\n  ret i64 {nbytes}\nnext{i}:"
        for i, (mask, value, nbytes) in enumerate(lengths)
    )
    length = (
        "define internal i64 @aa_length(i64 %window) #0 {\nentry:\n"
        f"{tests}\n  ret i64 {lengths[-1][2]}\n}}"
    )
    return length + _TEXT.format(
        **{f"t_{name}": offset for name, offset in OFFSETS.items()},
        **{f"c_{name}": field_offset(name) for name in _FIELDS},
        notes=NOTES,
        note_nbytes=NOTE_NBYTES,
        registers=noted[0],
        words=noted[1],
        exec=PAGE_EXEC,
        code=PAGE_CODE,
        hook=PAGE_HOOK,
        room=MAXIMUM_RECORD * (BLOCK_LIMIT + 4),
        limit=BLOCK_LIMIT,
        mask=(1 << TABLE_BITS) - 1,
        half=1 << (TABLE_BITS - 1),
        half_key=(4 << (TABLE_BITS - 1)) + 1,
        ends=ENDS,
        branches=BRANCHES,
        link=16 + LINK_NBYTES,
        dropped=DROPPED_LIMIT,
        flush=int(ExitCode.FLUSH),
        new=int(ExitCode.NEW),
        clear=clear_text(),
        stop=int(ExitCode.STOP),
    )


# aa_translate(context, pc, flags, limit): flags bit 0 enters the block in the table, bit 1 ignores
# hooks. Gives the first record, or null when the arena is full. A block never leaves its page.
_TEXT: Final = """
define internal ptr @aa_lookup(ptr %context, i64 %pc) #0 {{
entry:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %wanted = add i64 %pc, 1
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %record = load atomic ptr, ptr %recordp acquire, align 8
  %empty = icmp eq ptr %record, null
  br i1 %empty, label %absent, label %check
check:
  %key = load atomic i64, ptr %slot acquire, align 8
  %same = icmp eq i64 %key, %wanted
  br i1 %same, label %found, label %again
again:
  %following = add i64 %probe, 1
  br label %loop
found:
  ret ptr %record
absent:
  ret ptr null
}}

define internal void @aa_insert(ptr %t, i64 %pc, ptr %record) #0 {{
entry:
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %old = load ptr, ptr %recordp
  %empty = icmp eq ptr %old, null
  br i1 %empty, label %store, label %again
again:
  %following = add i64 %probe, 1
  br label %loop
store:
  ; Record before key: a reader without the lock that sees the key finds the record.
  %key = add i64 %pc, 1
  store atomic ptr %record, ptr %recordp release, align 8
  store atomic i64 %key, ptr %slot release, align 8
  %usedp = getelementptr i8, ptr %t, i64 {t_table_used}
  %used = load i64, ptr %usedp
  %more = add i64 %used, 1
  store i64 %more, ptr %usedp
  ret void
}}

define internal i64 @aa_window(i64 %pc, ptr %memory, ptr %flags, i64 %available) #0 {{
entry:
  %at = getelementptr i8, ptr %memory, i64 %pc
  %whole = icmp uge i64 %available, 8
  br i1 %whole, label %direct, label %partial
direct:
  %word = load volatile i64, ptr %at, align 1
  ret i64 %word
partial:
  br label %loop
loop:
  %i = phi i64 [ 0, %partial ], [ %next, %loop ]
  %sum = phi i64 [ 0, %partial ], [ %more, %loop ]
  %bytep = getelementptr i8, ptr %at, i64 %i
  %byte = load volatile i8, ptr %bytep
  %wide = zext i8 %byte to i64
  %shift = shl i64 %i, 3
  %placed = shl i64 %wide, %shift
  %more = or i64 %sum, %placed
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %available
  br i1 %done, label %end, label %loop
end:
  ret i64 %more
}}

define hidden ptr @aa_translate(ptr %context, i64 %pc, i64 %mode, i64 %limit, ptr %memory) #0 {{
entry:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %nextp = getelementptr i8, ptr %t, i64 {t_arena_next}
  %start = load ptr, ptr %nextp
  %endp = getelementptr i8, ptr %t, i64 {t_arena_end}
  %end = load i64, ptr %endp
  %startn = ptrtoint ptr %start to i64
  %room = sub i64 %end, %startn
  %full1 = icmp slt i64 %room, {room}
  %usedp = getelementptr i8, ptr %t, i64 {t_table_used}
  %used = load i64, ptr %usedp
  %full2 = icmp ugt i64 %used, {half}
  %countp = getelementptr i8, ptr %t, i64 {t_block_count}
  %blocks = load i64, ptr %countp
  %capp = getelementptr i8, ptr %t, i64 {t_block_capacity}
  %capacity = load i64, ptr %capp
  %full3 = icmp uge i64 %blocks, %capacity
  %droppedp = getelementptr i8, ptr %t, i64 {t_dropped}
  %dropped = load i64, ptr %droppedp
  %full4 = icmp uge i64 %dropped, {dropped}
  %full12 = or i1 %full1, %full2
  %full5 = call i1 @aa_code_full(ptr %t)
  %full34 = or i1 %full3, %full4
  %full345 = or i1 %full34, %full5
  %full = or i1 %full12, %full345
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  store i64 %pc, ptr %pcp
  %crecp = getelementptr i8, ptr %context, i64 {c_record}
  store volatile i64 0, ptr %crecp
  br i1 %full, label %no, label %yes
no:
  ret ptr null
yes:
  %flagsp = getelementptr i8, ptr %t, i64 {t_page_flags}
  %flags = load ptr, ptr %flagsp
  %alp = getelementptr i8, ptr %t, i64 {t_address_limit}
  %address_limit = load i64, ptr %alp
  %cop = getelementptr i8, ptr %t, i64 {t_counting}
  %counting64 = load i64, ptr %cop
  %counting = icmp ne i64 %counting64, 0
  %ignore64 = and i64 %mode, 2
  %ignore = icmp ne i64 %ignore64, 0
  %first_page = lshr i64 %pc, 12
  br i1 %counting, label %count, label %loop
count:
  store ptr @aa_count, ptr %start
  %cpo = getelementptr i8, ptr %start, i64 8
  store i64 0, ptr %cpo
  %after_count = getelementptr i8, ptr %start, i64 24
  br label %loop
loop:
  %record = phi ptr [ %start, %yes ], [ %after_count, %count ], [ %record_next, %continue ]
  %cur = phi i64 [ %pc, %yes ], [ %pc, %count ], [ %cur_next, %continue ]
  %n = phi i64 [ 0, %yes ], [ 0, %count ], [ %n_next, %continue ]
  %sequence = phi i64 [ -1, %yes ], [ -1, %count ], [ %sequence_next, %continue ]
  %head = phi ptr [ %start, %yes ], [ %start, %count ], [ %head_next, %continue ]
  %previous = phi ptr [ %start, %yes ], [ %start, %count ], [ %record, %continue ]
  %previous_number = phi i64 [ 0, %yes ], [ 0, %count ], [ %number, %continue ]
  %delta = sub i64 %cur, %pc
  %delta16 = trunc i64 %delta to i16
  %offp = getelementptr i8, ptr %record, i64 8
  store i16 %delta16, ptr %offp
  %page = lshr i64 %cur, 12
  %moved = icmp ne i64 %page, %first_page
  %enough = icmp uge i64 %n, %limit
  %close = or i1 %moved, %enough
  br i1 %close, label %goto, label %bounds
bounds:
  %beyond = icmp uge i64 %cur, %address_limit
  br i1 %beyond, label %no_fetch, label %permitted
permitted:
  %flagp = getelementptr i8, ptr %flags, i64 %page
  %flag = load i8, ptr %flagp
  %x = and i8 %flag, {exec}
  %nx = icmp eq i8 %x, 0
  br i1 %nx, label %no_fetch, label %hooks
no_fetch:
  br label %fetch
hooks:
  %h = and i8 %flag, {hook}
  %hooked = icmp ne i8 %h, 0
  %notice = xor i1 %ignore, true
  %hook_now = and i1 %hooked, %notice
  br i1 %hook_now, label %hook, label %mark
hook:
  store ptr @aa_hook, ptr %record
  %hook_end = getelementptr i8, ptr %record, i64 16
  br label %done
mark:
  %c = and i8 %flag, {code}
  %fresh = icmp eq i8 %c, 0
  br i1 %fresh, label %mark_now, label %read
mark_now:
  %marked = atomicrmw or ptr %flagp, i8 {code} monotonic
  br label %read
read:
  %inside = and i64 %cur, 4095
  %rest = sub i64 4096, %inside
  %next_page = add i64 %page, 1
  %next_start = shl i64 %next_page, 12
  %near = icmp ult i64 %rest, 8
  br i1 %near, label %edge, label %decode
edge:
  %edge_beyond = icmp uge i64 %next_start, %address_limit
  br i1 %edge_beyond, label %decode, label %edge_flags
edge_flags:
  %nflagp = getelementptr i8, ptr %flags, i64 %next_page
  %nflag = load i8, ptr %nflagp
  %nxx = and i8 %nflag, {exec}
  %nexec = icmp ne i8 %nxx, 0
  %rest2 = select i1 %nexec, i64 8, i64 %rest
  br label %decode
decode:
  %available = phi i64 [ %rest, %read ], [ %rest, %edge ], [ %rest2, %edge_flags ]
  %window = call i64 @aa_window(i64 %cur, ptr %memory, ptr %flags, i64 %available)
  %info = call i64 @aa_decode(i64 %window, i64 %cur, ptr %record)
  %none = icmp eq i64 %info, 0
  br i1 %none, label %unknown, label %known
unknown:
  %wanted = call i64 @aa_length(i64 %window)
  %cut = icmp ugt i64 %wanted, %available
  br i1 %cut, label %fetch_next, label %illegal
fetch_next:
  br label %fetch
illegal:
  store ptr @aa_illegal, ptr %record
  %illegal_end = getelementptr i8, ptr %record, i64 16
  br label %done
known:
  %nbytes16 = lshr i64 %info, 16
  %nbytes = and i64 %nbytes16, 255
  %short = icmp ugt i64 %nbytes, %available
  br i1 %short, label %fetch_next, label %accept
accept:
  store i16 %delta16, ptr %offp
  %straddles = icmp ugt i64 %nbytes, %rest
  br i1 %straddles, label %mark_next, label %advance
mark_next:
  %mnp = getelementptr i8, ptr %flags, i64 %next_page
  %mn = atomicrmw or ptr %mnp, i8 {code} monotonic
  br label %advance
advance:
  %number = lshr i64 %info, 32
  %longer = call i64 @aa_fuse(
    i64 %sequence, ptr %head, i64 %previous_number, ptr %previous, i64 %number, ptr %record)
  %alone = icmp slt i64 %longer, 0
  %sequence_next = select i1 %alone, i64 %number, i64 %longer
  %head_next = select i1 %alone, ptr %record, ptr %head
  %size = and i64 %info, 65535
  %record_next = getelementptr i8, ptr %record, i64 %size
  %cur_next = add i64 %cur, %nbytes
  %n_next = add i64 %n, 1
  %endbits = and i64 %info, {ends}
  %ending = icmp ne i64 %endbits, 0
  br i1 %ending, label %done_counted, label %maybe
maybe:
  %branchbits = and i64 %info, {branches}
  %branching = icmp ne i64 %branchbits, 0
  %close_counted = and i1 %branching, %counting
  br i1 %close_counted, label %goto_counted, label %continue
continue:
  br label %loop
goto_counted:
  %gdelta = sub i64 %cur_next, %pc
  %gdelta16 = trunc i64 %gdelta to i16
  %goffp = getelementptr i8, ptr %record_next, i64 8
  store i16 %gdelta16, ptr %goffp
  br label %goto
fetch:
  %bad = phi i64 [ %cur, %no_fetch ], [ %next_start, %fetch_next ]
  store ptr @aa_fetch, ptr %record
  store i16 %delta16, ptr %offp
  %badp = getelementptr i8, ptr %record, i64 16
  store i64 %bad, ptr %badp
  %fetch_end = getelementptr i8, ptr %record, i64 24
  br label %done
goto:
  %grec = phi ptr [ %record, %loop ], [ %record_next, %goto_counted ]
  %gpc = phi i64 [ %cur, %loop ], [ %cur_next, %goto_counted ]
  %gn = phi i64 [ %n, %loop ], [ %n_next, %goto_counted ]
  store ptr @aa_goto, ptr %grec
  %linkp = getelementptr i8, ptr %grec, i64 16
  %stub = getelementptr i8, ptr %grec, i64 24
  store ptr %stub, ptr %linkp
  store ptr @aa_resolve, ptr %stub
  %gpcp = getelementptr i8, ptr %grec, i64 32
  store i64 %gpc, ptr %gpcp
  %goto_end = getelementptr i8, ptr %grec, i64 {link}
  br label %done
done_counted:
  br label %done
done:
  %last = phi ptr [ %hook_end, %hook ], [ %illegal_end, %illegal ], [ %fetch_end, %fetch ],
                  [ %goto_end, %goto ], [ %record_next, %done_counted ]
  %total = phi i64 [ %n, %hook ], [ %n, %illegal ], [ %n, %fetch ],
                   [ %gn, %goto ], [ %n_next, %done_counted ]
  br i1 %counting, label %fill, label %commit
fill:
  %fillp = getelementptr i8, ptr %start, i64 16
  store i64 %total, ptr %fillp
  br label %commit
commit:
  store ptr %last, ptr %nextp
  %brp = getelementptr i8, ptr %t, i64 {t_block_records}
  %br = load ptr, ptr %brp
  %bpp = getelementptr i8, ptr %t, i64 {t_block_pcs}
  %bp = load ptr, ptr %bpp
  %bre = getelementptr i64, ptr %br, i64 %blocks
  store ptr %start, ptr %bre
  %bpe = getelementptr i64, ptr %bp, i64 %blocks
  store i64 %pc, ptr %bpe
  %blocks1 = add i64 %blocks, 1
  store i64 %blocks1, ptr %countp
  %keep64 = and i64 %mode, 1
  %keep = icmp ne i64 %keep64, 0
  %plain = xor i1 %counting, true
  %assembled = and i1 %keep, %plain
  call void @aa_assemble(ptr %t, ptr %start, ptr %last, i64 %blocks, i1 %assembled)
  br i1 %keep, label %insert, label %out
insert:
  call void @aa_insert(ptr %t, i64 %pc, ptr %start)
  br label %out
out:
  ret ptr %start
}}

; Blocks that begin in [start, end) are not found any more; who is linked to one looks again.
define hidden void @aa_invalidate(ptr %t, i64 %start, i64 %end) #0 {{
entry:
  call void @aa_lock(ptr %t, ptr %t)
  %countp = getelementptr i8, ptr %t, i64 {t_block_count}
  %count = load i64, ptr %countp
  %pcsp = getelementptr i8, ptr %t, i64 {t_block_pcs}
  %pcs = load ptr, ptr %pcsp
  %recordsp = getelementptr i8, ptr %t, i64 {t_block_records}
  %records = load ptr, ptr %recordsp
  %droppedp = getelementptr i8, ptr %t, i64 {t_dropped}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %continue ]
  %done = icmp uge i64 %i, %count
  br i1 %done, label %out, label %look
look:
  %pcp = getelementptr i64, ptr %pcs, i64 %i
  %pc = load i64, ptr %pcp
  %above = icmp uge i64 %pc, %start
  %below = icmp ult i64 %pc, %end
  %inside = and i1 %above, %below
  br i1 %inside, label %check, label %continue
check:
  %rp = getelementptr ptr, ptr %records, i64 %i
  %record = load ptr, ptr %rp
  %handler = load ptr, ptr %record
  %stale = icmp eq ptr %handler, @aa_stale
  br i1 %stale, label %continue, label %drop
drop:
  %before = load i64, ptr %droppedp
  %dropped = add i64 %before, 1
  store i64 %dropped, ptr %droppedp
  store atomic ptr @aa_stale, ptr %record release, align 8
  call void @aa_remove(ptr %t, i64 %pc)
  br label %continue
continue:
  %next = add i64 %i, 1
  br label %loop
out:
  call void @aa_unlock(ptr %t)
  ret void
}}

; A removed entry keeps its record, so that probing goes on behind it, and a key that matches no pc:
; that of a pc whose own place is so far away that probing never comes from there.
define internal void @aa_remove(ptr %t, i64 %pc) #0 {{
entry:
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %wanted = add i64 %pc, 1
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %record = load ptr, ptr %recordp
  %empty = icmp eq ptr %record, null
  br i1 %empty, label %out, label %check
check:
  %key = load i64, ptr %slot
  %same = icmp eq i64 %key, %wanted
  br i1 %same, label %drop, label %again
again:
  %following = add i64 %probe, 1
  br label %loop
drop:
  %upper = icmp uge i64 %index, {half}
  %gone = select i1 %upper, i64 1, i64 {half_key}
  store atomic i64 %gone, ptr %slot release, align 8
  br label %out
out:
  ret void
}}

; The first record of a block that was dropped: find its pc in the index, and look that up.
define hidden i32 @aa_stale(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %countp = getelementptr i8, ptr %t, i64 {t_block_count}
  %count = load i64, ptr %countp
  %recordsp = getelementptr i8, ptr %t, i64 {t_block_records}
  %records = load ptr, ptr %recordsp
  br label %loop
loop:
  %low = phi i64 [ 0, %entry ], [ %low_next, %narrow ]
  %high = phi i64 [ %count, %entry ], [ %high_next, %narrow ]
  %sum = add i64 %low, %high
  %middle = lshr i64 %sum, 1
  %rp = getelementptr ptr, ptr %records, i64 %middle
  %at = load ptr, ptr %rp
  %found = icmp eq ptr %at, %record
  br i1 %found, label %go, label %narrow
narrow:
  %less = icmp ult ptr %at, %record
  %after = add i64 %middle, 1
  %low_next = select i1 %less, i64 %after, i64 %low
  %high_next = select i1 %less, i64 %high, i64 %middle
  br label %loop
go:
  %pcsp = getelementptr i8, ptr %t, i64 {t_block_pcs}
  %pcs = load ptr, ptr %pcsp
  %pcp = getelementptr i64, ptr %pcs, i64 %middle
  %pc = load i64, ptr %pcp
  %cpcp = getelementptr i8, ptr %context, i64 {c_pc}
  store i64 %pc, ptr %cpcp
  %r = musttail call i32 @aa_run(ptr noalias %context, ptr %record, ptr %memory)
  ret i32 %r
}}

define internal void @aa_lock(ptr %t, ptr %context) #0 {{
entry:
  %lockp = getelementptr i8, ptr %t, i64 {t_lock}
  %mine = ptrtoint ptr %context to i64
  br label %try
try:
  %spins = phi i64 [ 0, %entry ], [ %more, %wait ], [ 0, %yield ]
  %pair = cmpxchg ptr %lockp, i64 0, i64 %mine acquire monotonic
  %taken = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %taken, label %done, label %held
held:
  %more = add i64 %spins, 1
  %long = icmp ugt i64 %more, 200
  br i1 %long, label %yield, label %wait
wait:
  call void @llvm.x86.sse2.pause()
  br label %try
yield:
  call void @aa_yield()
  br label %try
done:
  ret void
}}

define internal void @aa_unlock(ptr %t) #0 {{
  %lockp = getelementptr i8, ptr %t, i64 {t_lock}
  store atomic i64 0, ptr %lockp release, align 8
  ret void
}}

; The first record of the block at pc, translated now if it never was; null: see aa_no_block.
define internal ptr @aa_find_block(ptr %context, i64 %pc, ptr %memory) #0 {{
entry:
  %known = call ptr @aa_lookup(ptr %context, i64 %pc)
  %missing = icmp eq ptr %known, null
  br i1 %missing, label %absent, label %found
found:
  ret ptr %known
absent:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %eagerp = getelementptr i8, ptr %t, i64 {t_eager}
  %eager = load i64, ptr %eagerp
  %now = icmp eq i64 %eager, 0
  br i1 %now, label %lock, label %ask
ask:
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  store i64 %pc, ptr %pcp
  ret ptr null
lock:
  call void @aa_lock(ptr %t, ptr %context)
  %again = call ptr @aa_lookup(ptr %context, i64 %pc)
  %still = icmp eq ptr %again, null
  br i1 %still, label %translate, label %unlock
translate:
  %made = call ptr @aa_translate(ptr %context, i64 %pc, i64 1, i64 {limit}, ptr %memory)
  br label %unlock
unlock:
  %result = phi ptr [ %again, %lock ], [ %made, %translate ]
  call void @aa_unlock(ptr %t)
  ret ptr %result
}}

; Why there is no block: it is to be compiled first, or the arena is full.
define internal i32 @aa_no_block(ptr %context) #0 {{
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %eagerp = getelementptr i8, ptr %t, i64 {t_eager}
  %eager = load i64, ptr %eagerp
  %full = icmp eq i64 %eager, 0
  %code = select i1 %full, i32 {flush}, i32 {new}
  ret i32 %code
}}

define hidden i32 @aa_no_thunk(ptr %context, ptr %memory) #0 {{
  ret i32 1
}}

define hidden i32 @aa_resolve(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %pcp = getelementptr i8, ptr %record, i64 8
  %pc = load i64, ptr %pcp
  %target = call ptr @aa_find_block(ptr %context, i64 %pc, ptr %memory)
  %full = icmp eq ptr %target, null
  br i1 %full, label %none, label %patch
none:
  %why = call i32 @aa_no_block(ptr %context)
  ret i32 %why
patch:
  %linkp = getelementptr i8, ptr %record, i64 -8
  store atomic ptr %target, ptr %linkp release, align 8
  %handler = load ptr, ptr %target
  %r = musttail call i32 %handler(ptr noalias %context, ptr %target, ptr %memory)
  ret i32 %r
}}

; Continue at the context's pc. Where no host frame expects a return, it is a poll like a branch.
define hidden i32 @aa_run(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %wantedp = getelementptr i8, ptr %context, i64 {c_stop}
  %wanted = load volatile i64, ptr %wantedp
  %asked = icmp ne i64 %wanted, 0
  br i1 %asked, label %answer, label %look
answer:
  %a = musttail call i32 @aa_answer(ptr noalias %context, ptr %record, ptr %memory)
  ret i32 %a
look:
  %r = musttail call i32 @aa_go(ptr noalias %context, ptr %record, ptr %memory)
  ret i32 %r
}}

; A poll found that something is wanted: leave, or note the pc, what led there and the registers.
define hidden i32 @aa_answer(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %stopp = getelementptr i8, ptr %context, i64 {c_stop}
  %stop = load volatile i32, ptr %stopp
  %asked = icmp ne i32 %stop, 0
  br i1 %asked, label %leave, label %count
leave:
  %sourcep = getelementptr i8, ptr %context, i64 {c_record}
  store volatile ptr %record, ptr %sourcep
  ret i32 {stop}
count:
  %notesp = getelementptr i8, ptr %context, i64 {c_notes}
  %notes = load volatile i32, ptr %notesp
  %none = icmp eq i32 %notes, 0
  br i1 %none, label %go, label %note
note:
  %left = sub i32 %notes, 1
  %index = zext i32 %left to i64
  %scaled = mul i64 %index, {note_nbytes}
  %offset = add i64 %scaled, {notes}
  %entryp = getelementptr i8, ptr %context, i64 %offset
  store volatile ptr %record, ptr %entryp
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  %pc = load i64, ptr %pcp
  %pcnotep = getelementptr i8, ptr %entryp, i64 8
  store volatile i64 %pc, ptr %pcnotep
  %registersp = getelementptr i8, ptr %context, i64 {registers}
  %registers = load <{words} x i64>, ptr %registersp, align 8
  %copyp = getelementptr i8, ptr %entryp, i64 16
  store volatile <{words} x i64> %registers, ptr %copyp, align 8
  store atomic i32 %left, ptr %notesp release, align 4
  br label %go
go:
  %r = musttail call i32 @aa_go(ptr noalias %context, ptr %record, ptr %memory)
  ret i32 %r
}}

define hidden i32 @aa_go(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  %pc = load i64, ptr %pcp
  %target = call ptr @aa_find_block(ptr %context, i64 %pc, ptr %memory)
  %full = icmp eq ptr %target, null
  br i1 %full, label %none, label %go
none:
  %why = call i32 @aa_no_block(ptr %context)
  ret i32 %why
go:
  %handler = load ptr, ptr %target
  %r = musttail call i32 %handler(ptr noalias %context, ptr %target, ptr %memory)
  ret i32 %r
}}

; The bottom of the stack: guest code that returns to no host frame goes on from here.
define hidden i32 @aa_base(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
{clear}  br label %loop
loop:
  %status = call i32 @aa_run(ptr noalias %context, ptr %record, ptr %memory)
  %again = icmp eq i32 %status, 0
  br i1 %again, label %loop, label %out
out:
  ret i32 %status
}}

; A region for pc: who finds the block by pc or is linked to its first record comes to the region.
define hidden void @aa_install(ptr %t, i64 %pc, ptr %region, ptr %thunk) #0 {{
entry:
  call void @aa_lock(ptr %t, ptr %t)
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %wanted = add i64 %pc, 1
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %record = load ptr, ptr %recordp
  %empty = icmp eq ptr %record, null
  br i1 %empty, label %insert, label %check
check:
  %key = load i64, ptr %slot
  %same = icmp eq i64 %key, %wanted
  br i1 %same, label %other, label %again
other:
  %installed = icmp eq ptr %record, %region
  br i1 %installed, label %out, label %replace
again:
  %following = add i64 %probe, 1
  br label %loop
insert:
  call void @aa_insert(ptr %t, i64 %pc, ptr %region)
  br label %out
replace:
  store atomic ptr %region, ptr %recordp release, align 8
  store atomic ptr %thunk, ptr %record release, align 8
  br label %out
out:
  call void @aa_unlock(ptr %t)
  ret void
}}

define hidden void @aa_uninstall(ptr %t, i64 %pc) #0 {{
  call void @aa_lock(ptr %t, ptr %t)
  call void @aa_remove(ptr %t, i64 %pc)
  call void @aa_unlock(ptr %t)
  ret void
}}

; One instruction, from a block that nothing else will find.
define hidden i32 @aa_step(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
{clear}  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  %pc = load i64, ptr %pcp
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  call void @aa_lock(ptr %t, ptr %context)
  %made = call ptr @aa_translate(ptr %context, i64 %pc, i64 2, i64 1, ptr %memory)
  call void @aa_unlock(ptr %t)
  %full = icmp eq ptr %made, null
  br i1 %full, label %flush, label %go
flush:
  ret i32 {flush}
go:
  %handler = load ptr, ptr %made
  %r = call i32 %handler(ptr noalias %context, ptr %made, ptr %memory)
  ; A return that took nested code for its caller has ended like any other instruction.
  %returned = icmp eq i32 %r, 0
  %status = select i1 %returned, i32 {stop}, i32 %r
  ret i32 %status
}}
"""
