"""The native half of the checked mode: functions that a checked kernel calls, and their memory.

Every thread is a flow of control. Its loads and stores are looked at before they happen. Races in
shared memory are found with vector clocks (Flanagan and Freund, FastTrack, PLDI 2009): each byte
keeps who wrote it last and two who read it since; an access is ordered after another if its thread
has heard, through barriers, fences and the like, of the other's time. Fences are taken to order all
that came before in all threads of the block, so that through them races may be missed, but none is
reported that is not there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from anyarch.gpu.cpu.records import LAUNCH, WORKER

__all__ = [
    "CHECK",
    "HEAD",
    "HEAD_NBYTES",
    "RANGE_NBYTES",
    "Found",
    "area_nbytes",
    "checker_text",
    "read_report",
]

CHECK: Final = 34  # exit code of a launch in which something was found
# Flags of an access.
LOAD, STORE, STRONG = 1, 2, 4
SHARED, LOCAL, GLOBAL = 256, 512, 1024  # the space, if it is named
# What was found.
OUTSIDE, MISALIGNED, UNINITIALISED, WRITES, OVERWRITES, READS, ENDED, STUCK = range(1, 9)

_SHADOW: Final = 64  # bytes for a byte of shared memory: last write, two reads
_REPORT: Final = struct.Struct("<IIQQQIIQ")
# The area's head; what follows depends on the number of threads.
HEAD: Final = {
    "kind": 0,  # i32
    "thread": 4,  # i32
    "place": 8,  # i64, line and column
    "address": 16,  # i64
    "nbytes": 24,  # i64
    "other": 32,  # i32, another thread
    "other_place": 40,  # i64
    "waiting": 48,  # i32, threads that wait at barriers
    "ended": 52,  # i32, threads that have ended
    "last": 56,  # i32, the last of them
    "dirty": 60,  # i32, whether clocks beyond the usual barrier were used
    "shared": 64,  # i64, bytes of shared memory
    "arrived": 128,  # 16 × i32
}
HEAD_NBYTES: Final = 256
RANGE_NBYTES: Final = 24  # start, end, and where the bytes lie that say what is initialised, or 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a checked kernel did wrong, who and where; `other` is a second thread, -1 for none."""

    kind: int
    thread: int
    place: tuple[int, int]
    address: int
    nbytes: int
    other: int
    other_place: tuple[int, int]


def read_report(area: bytes) -> Found:
    """What lies at the start of an area after a launch has ended with `CHECK`."""
    kind, thread, place, address, nbytes, other, _, elsewhere = _REPORT.unpack_from(area)
    return Found(kind, thread, _pair(place), address, nbytes, other, _pair(elsewhere))


def _pair(place: int) -> tuple[int, int]:
    return place >> 32, place & 0xFFFFFFFF


def _layout(threads: int, local: int) -> dict[str, int]:
    """Offsets in the area: clocks, waits, initialised bytes, the shadow of shared memory."""
    sizes = {
        "own": 4 * threads,  # each thread's time
        "base": 4 * threads,  # what every thread has heard of each
        "fence": 4 * threads,  # what fences have told
        "waits": 16 * threads,  # {place i64, barrier + 1 i32, all threads i32}
        "barriers": 64 * threads,  # what each barrier has told
        "warps": 4 * threads * (-(-threads // 32)),  # what each warp has told
        "heard": 4 * threads * threads,  # what each has heard of each
        "local": local * threads,  # whether bytes of local memory are initialised
        "shadow": 0,
    }
    found, at = {}, HEAD_NBYTES
    for name, nbytes in sizes.items():
        found[name] = at
        at += (nbytes + 63) // 64 * 64
    return found


def area_nbytes(threads: int, local: int, shared: int) -> int:
    """Bytes of the area of one block."""
    return _layout(threads, local)["shadow"] + _SHADOW * shared


def checker_text(threads: int, local: int) -> str:
    """LLVM text for blocks of so many threads with so many bytes of local memory each."""
    places = _layout(threads, local)
    values = {f"H_{k}": v for k, v in HEAD.items()} | {f"A_{k}": v for k, v in places.items()}
    values |= {f"W_{k}": v for k, v in WORKER.items()} | {f"L_{k}": v for k, v in LAUNCH.items()}
    values |= {
        "T": threads,
        "L": local,
        "STRIDE": 4 * threads,
        "OWN_NBYTES": places["barriers"] - places["own"],
        "CLOCKS_NBYTES": places["local"] - places["barriers"],
        "CHECK": CHECK,
        "SHADOW": _SHADOW,
        "OUTSIDE": OUTSIDE,
        "MISALIGNED": MISALIGNED,
        "UNINITIALISED": UNINITIALISED,
        "WRITES": WRITES,
        "OVERWRITES": OVERWRITES,
        "READS": READS,
        "ENDED": ENDED,
        "STUCK": STUCK,
    }
    text = _TEXT
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"${name}", str(values[name]))
    return text


_TEXT: Final = """
define internal void @check.report(ptr %worker, i32 %kind, i32 %t, i64 %place, i64 %address,
                                   i64 %nbytes, i32 %other, i64 %other.place) #2 {
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  store i32 %kind, ptr %area
  %t.p = getelementptr i8, ptr %area, i64 $H_thread
  store i32 %t, ptr %t.p
  %place.p = getelementptr i8, ptr %area, i64 $H_place
  store i64 %place, ptr %place.p
  %address.p = getelementptr i8, ptr %area, i64 $H_address
  store i64 %address, ptr %address.p
  %nbytes.p = getelementptr i8, ptr %area, i64 $H_nbytes
  store i64 %nbytes, ptr %nbytes.p
  %other.p = getelementptr i8, ptr %area, i64 $H_other
  store i32 %other, ptr %other.p
  %other.place.p = getelementptr i8, ptr %area, i64 $H_other_place
  store i64 %other.place, ptr %other.place.p
  %context.p = getelementptr i8, ptr %worker, i64 $W_context
  %context = load ptr, ptr %context.p
  %leave.p = getelementptr i8, ptr %worker, i64 $W_leave
  %leave = load ptr, ptr %leave.p
  call void %leave(ptr %context, i32 $CHECK)
  unreachable
}

; Entry u of a row of clocks.
define internal ptr @check.clock(ptr %area, i64 %row, i32 %u) #1 {
  %wide = zext i32 %u to i64
  %offset = mul i64 %wide, 4
  %at = add i64 %offset, %row
  %p = getelementptr i8, ptr %area, i64 %at
  ret ptr %p
}

; For what thread u waits.
define internal ptr @check.wait(ptr %area, i32 %u) #1 {
  %wide = zext i32 %u to i64
  %offset = mul i64 %wide, 16
  %from = add i64 %offset, $A_waits
  %wait = getelementptr i8, ptr %area, i64 %from
  ret ptr %wait
}

define internal i64 @check.heard(i32 %t) #1 {
  %wide = zext i32 %t to i64
  %row = mul i64 %wide, $STRIDE
  %at = add i64 %row, $A_heard
  ret i64 %at
}

; What thread t knows of thread u's time.
define internal i32 @check.known(ptr %area, i32 %t, i32 %u) #1 {
  %self = icmp eq i32 %t, %u
  %own.p = call ptr @check.clock(ptr %area, i64 $A_own, i32 %u)
  %own = load i32, ptr %own.p
  %base.p = call ptr @check.clock(ptr %area, i64 $A_base, i32 %u)
  %base = load i32, ptr %base.p
  %row = call i64 @check.heard(i32 %t)
  %heard.p = call ptr @check.clock(ptr %area, i64 %row, i32 %u)
  %heard = load i32, ptr %heard.p
  %more = icmp ugt i32 %heard, %base
  %most = select i1 %more, i32 %heard, i32 %base
  %result = select i1 %self, i32 %own, i32 %most
  ret i32 %result
}

define internal void @check.raise(ptr %p, i32 %value) #1 {
  %old = load i32, ptr %p
  %more = icmp ugt i32 %value, %old
  %new = select i1 %more, i32 %value, i32 %old
  store i32 %new, ptr %p
  ret void
}

define internal void @check.tick(ptr %area, i32 %t) #1 {
  %p = call ptr @check.clock(ptr %area, i64 $A_own, i32 %t)
  %old = load i32, ptr %p
  %new = add i32 %old, 1
  store i32 %new, ptr %p
  %dirty = getelementptr i8, ptr %area, i64 $H_dirty
  store i32 1, ptr %dirty
  ret void
}

; A row learns what thread t knows, or thread t what a row knows.
define internal void @check.tell(ptr %area, i32 %t, i64 %row) #2 {
entry:
  br label %loop
loop:
  %u = phi i32 [ 0, %entry ], [ %next, %loop ]
  %known = call i32 @check.known(ptr %area, i32 %t, i32 %u)
  %p = call ptr @check.clock(ptr %area, i64 %row, i32 %u)
  call void @check.raise(ptr %p, i32 %known)
  %next = add i32 %u, 1
  %more = icmp ult i32 %next, $T
  br i1 %more, label %loop, label %done
done:
  ret void
}

define internal void @check.hear(ptr %area, i32 %t, i64 %row) #2 {
entry:
  %mine = call i64 @check.heard(i32 %t)
  br label %loop
loop:
  %u = phi i32 [ 0, %entry ], [ %next, %loop ]
  %p = call ptr @check.clock(ptr %area, i64 %row, i32 %u)
  %told = load i32, ptr %p
  %q = call ptr @check.clock(ptr %area, i64 %mine, i32 %u)
  call void @check.raise(ptr %q, i32 %told)
  %next = add i32 %u, 1
  %more = icmp ult i32 %next, $T
  br i1 %more, label %loop, label %done
done:
  ret void
}

define internal void @check.fence(ptr %worker, i32 %t) #2 {
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  call void @check.tell(ptr %area, i32 %t, i64 $A_fence)
  call void @check.hear(ptr %area, i32 %t, i64 $A_fence)
  call void @check.tick(ptr %area, i32 %t)
  ret void
}

define internal i64 @check.warp(i32 %t) #1 {
  %warp = lshr i32 %t, 5
  %wide = zext i32 %warp to i64
  %row = mul i64 %wide, $STRIDE
  %at = add i64 %row, $A_warps
  ret i64 %at
}

define internal void @check.meets(ptr %worker, i32 %t) #2 {
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %row = call i64 @check.warp(i32 %t)
  call void @check.tell(ptr %area, i32 %t, i64 %row)
  call void @check.tick(ptr %area, i32 %t)
  ret void
}

define internal void @check.met(ptr %worker, i32 %t) #2 {
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %row = call i64 @check.warp(i32 %t)
  call void @check.hear(ptr %area, i32 %t, i64 %row)
  ret void
}

define internal void @check.clear(ptr %p, i64 %nbytes) #2 {
entry:
  %none = icmp eq i64 %nbytes, 0
  br i1 %none, label %done, label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
  %q = getelementptr i8, ptr %p, i64 %at
  store i8 0, ptr %q
  %next = add i64 %at, 1
  %more = icmp ult i64 %next, %nbytes
  br i1 %more, label %loop, label %done
done:
  ret void
}

define internal void @check.clear.lines(ptr %p, i64 %nbytes) #2 {
entry:
  %none = icmp eq i64 %nbytes, 0
  br i1 %none, label %done, label %loop
loop:
  %at = phi i64 [ 0, %entry ], [ %next, %loop ]
  %q = getelementptr i8, ptr %p, i64 %at
  store <16 x i32> zeroinitializer, ptr %q, align 64
  %next = add i64 %at, 64
  %more = icmp ult i64 %next, %nbytes
  br i1 %more, label %loop, label %done
done:
  ret void
}

; A thread begins; thread 0 is the first of its block.
define internal void @check.begin(ptr %worker, i32 %t) #2 {
entry:
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %first = icmp eq i32 %t, 0
  br i1 %first, label %block, label %thread
block:
  store i32 0, ptr %area
  %waiting.p = getelementptr i8, ptr %area, i64 $H_waiting
  store <3 x i32> zeroinitializer, ptr %waiting.p, align 4
  %arrived.p = getelementptr i8, ptr %area, i64 $H_arrived
  store <16 x i32> zeroinitializer, ptr %arrived.p, align 64
  %own.p = getelementptr i8, ptr %area, i64 $A_own
  call void @check.clear.lines(ptr %own.p, i64 $OWN_NBYTES)
  %dirty.p = getelementptr i8, ptr %area, i64 $H_dirty
  %dirty = load i32, ptr %dirty.p
  store i32 0, ptr %dirty.p
  %used = icmp ne i32 %dirty, 0
  %far = select i1 %used, i64 $CLOCKS_NBYTES, i64 0
  %rest.p = getelementptr i8, ptr %area, i64 $A_barriers
  call void @check.clear.lines(ptr %rest.p, i64 %far)
  %shared.p = getelementptr i8, ptr %area, i64 $H_shared
  %shared = load i64, ptr %shared.p
  %shadow.nbytes = mul i64 %shared, $SHADOW
  %shadow.p = getelementptr i8, ptr %area, i64 $A_shadow
  call void @check.clear.lines(ptr %shadow.p, i64 %shadow.nbytes)
  br label %ones
ones:
  %u = phi i32 [ 0, %block ], [ %next, %ones ]
  %c = call ptr @check.clock(ptr %area, i64 $A_own, i32 %u)
  store i32 1, ptr %c
  %next = add i32 %u, 1
  %more = icmp ult i32 %next, $T
  br i1 %more, label %ones, label %thread
thread:
  %wide = zext i32 %t to i64
  %offset = mul i64 %wide, $L
  %from = add i64 %offset, $A_local
  %local.p = getelementptr i8, ptr %area, i64 %from
  call void @check.clear(ptr %local.p, i64 $L)
  ret void
}

; A thread ends. Whoever waits for all threads of the block then waits for nobody.
define internal void @check.end(ptr %worker, i32 %t) #2 {
entry:
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %ended.p = getelementptr i8, ptr %area, i64 $H_ended
  %ended = load i32, ptr %ended.p
  %more.ended = add i32 %ended, 1
  store i32 %more.ended, ptr %ended.p
  %last.p = getelementptr i8, ptr %area, i64 $H_last
  store i32 %t, ptr %last.p
  %waiting.p = getelementptr i8, ptr %area, i64 $H_waiting
  %waiting = load i32, ptr %waiting.p
  %any = icmp ne i32 %waiting, 0
  br i1 %any, label %loop, label %done
loop:
  %u = phi i32 [ 0, %entry ], [ %next, %step ]
  %wait = call ptr @check.wait(ptr %area, i32 %u)
  %number.p = getelementptr i8, ptr %wait, i64 8
  %number = load i32, ptr %number.p
  %all.p = getelementptr i8, ptr %wait, i64 12
  %all = load i32, ptr %all.p
  %waits = icmp ne i32 %number, 0
  %for.all = icmp ne i32 %all, 0
  %bad = and i1 %waits, %for.all
  br i1 %bad, label %report, label %step
report:
  %where = load i64, ptr %wait
  call void @check.report(ptr %worker, i32 $ENDED, i32 %u, i64 %where, i64 0, i64 0, i32 %t, i64 0)
  unreachable
step:
  %next = add i32 %u, 1
  %more = icmp ult i32 %next, $T
  br i1 %more, label %loop, label %done
done:
  ret void
}

; A thread comes to a barrier; `kind` 1 does not wait.
define internal void @check.arrive(ptr %worker, i32 %t, i32 %number.any, i32 %count, i32 %kind,
                                   i64 %place) #2 {
entry:
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %number = and i32 %number.any, 15
  %one = add i32 %number, 1
  %full = icmp eq i32 %count, 0
  %full.i = zext i1 %full to i32
  %expected = select i1 %full, i32 $T, i32 %count
  %ended.p = getelementptr i8, ptr %area, i64 $H_ended
  %ended = load i32, ptr %ended.p
  %gone = icmp ne i32 %ended, 0
  %bad = and i1 %gone, %full
  br i1 %bad, label %report, label %join
report:
  %last.p = getelementptr i8, ptr %area, i64 $H_last
  %last = load i32, ptr %last.p
  call void @check.report(ptr %worker, i32 $ENDED, i32 %t, i64 %place, i64 0, i64 0, i32 %last,
       i64 0)
  unreachable
join:
  %number.w = zext i32 %number to i64
  %four = mul i64 %number.w, 4
  %arrived.at = add i64 %four, $H_arrived
  %arrived.p = getelementptr i8, ptr %area, i64 %arrived.at
  %arrived = load i32, ptr %arrived.p
  %now = add i32 %arrived, 1
  store i32 %now, ptr %arrived.p
  %row.at = mul i64 %number.w, $STRIDE
  %row = add i64 %row.at, $A_barriers
  br i1 %full, label %wait, label %part
part:
  call void @check.tell(ptr %area, i32 %t, i64 %row)
  br label %wait
wait:
  %mine = call ptr @check.wait(ptr %area, i32 %t)
  %mine.number = getelementptr i8, ptr %mine, i64 8
  %mine.all = getelementptr i8, ptr %mine, i64 12
  %arrives = icmp eq i32 %kind, 1
  br i1 %arrives, label %tick, label %enter
tick:
  call void @check.tick(ptr %area, i32 %t)
  br label %look
enter:
  store i64 %place, ptr %mine
  store i32 %one, ptr %mine.number
  store i32 %full.i, ptr %mine.all
  %waiting.p = getelementptr i8, ptr %area, i64 $H_waiting
  %waiting = load i32, ptr %waiting.p
  %waiting.now = add i32 %waiting, 1
  store i32 %waiting.now, ptr %waiting.p
  br label %look
look:
  %complete = icmp uge i32 %now, %expected
  br i1 %complete, label %release, label %stuck
stuck:
  %still.p = getelementptr i8, ptr %area, i64 $H_waiting
  %still = load i32, ptr %still.p
  %idle = add i32 %still, %ended
  %all.idle = icmp eq i32 %idle, $T
  br i1 %all.idle, label %find, label %done
find:
  %v = phi i32 [ 0, %stuck ], [ %v.next, %find.step ]
  %v.wait = call ptr @check.wait(ptr %area, i32 %v)
  %v.number.p = getelementptr i8, ptr %v.wait, i64 8
  %v.number = load i32, ptr %v.number.p
  %v.waits = icmp ne i32 %v.number, 0
  %v.differs = icmp ne i32 %v.number, %one
  %v.found = and i1 %v.waits, %v.differs
  br i1 %v.found, label %both, label %find.step
both:
  %v.place = load i64, ptr %v.wait
  call void @check.report(ptr %worker, i32 $STUCK, i32 %t, i64 %place, i64 0, i64 0, i32 %v,
       i64 %v.place)
  unreachable
find.step:
  %v.next = add i32 %v, 1
  %v.more = icmp ult i32 %v.next, $T
  br i1 %v.more, label %find, label %alone
alone:
  call void @check.report(ptr %worker, i32 $STUCK, i32 %t, i64 %place, i64 0, i64 0, i32 -1, i64 0)
  unreachable
release:
  store i32 0, ptr %arrived.p
  br label %each
each:
  %u = phi i32 [ 0, %release ], [ %next, %step ]
  %u.wait = call ptr @check.wait(ptr %area, i32 %u)
  %u.number.p = getelementptr i8, ptr %u.wait, i64 8
  %u.number = load i32, ptr %u.number.p
  %u.here = icmp eq i32 %u.number, %one
  br i1 %u.here, label %free, label %step
free:
  store i32 0, ptr %u.number.p
  %w.p = getelementptr i8, ptr %area, i64 $H_waiting
  %w = load i32, ptr %w.p
  %w.less = sub i32 %w, 1
  store i32 %w.less, ptr %w.p
  br i1 %full, label %step, label %told
told:
  call void @check.hear(ptr %area, i32 %u, i64 %row)
  call void @check.tick(ptr %area, i32 %u)
  br label %step
step:
  %next = add i32 %u, 1
  %more = icmp ult i32 %next, $T
  br i1 %more, label %each, label %after
after:
  br i1 %full, label %common, label %forget
forget:
  %row.p = getelementptr i8, ptr %area, i64 %row
  call void @check.clear(ptr %row.p, i64 $STRIDE)
  br label %done
common:
  %k = phi i32 [ 0, %after ], [ %k.next, %common ]
  %k.own = call ptr @check.clock(ptr %area, i64 $A_own, i32 %k)
  %k.time = load i32, ptr %k.own
  %k.base = call ptr @check.clock(ptr %area, i64 $A_base, i32 %k)
  store i32 %k.time, ptr %k.base
  %k.later = add i32 %k.time, 1
  store i32 %k.later, ptr %k.own
  %k.next = add i32 %k, 1
  %k.more = icmp ult i32 %k.next, $T
  br i1 %k.more, label %common, label %done
done:
  ret void
}

; Whether a byte's earlier access {thread + 1, clock, place} by another is not ordered before t's.
define internal i1 @check.races(ptr %area, i32 %t, ptr %earlier) #1 {
entry:
  %who = load i32, ptr %earlier
  %u = sub i32 %who, 1
  %none = icmp eq i32 %who, 0
  %self = icmp eq i32 %u, %t
  %fine = or i1 %none, %self
  br i1 %fine, label %no, label %look
look:
  %time.p = getelementptr i8, ptr %earlier, i64 4
  %time = load i32, ptr %time.p
  %known = call i32 @check.known(ptr %area, i32 %t, i32 %u)
  %later = icmp ugt i32 %time, %known
  ret i1 %later
no:
  ret i1 false
}

define internal void @check.shared(ptr %worker, ptr %area, i64 %offset, i64 %address, i64 %nbytes,
                                   i32 %flags, i64 %place, i32 %t, ptr %value) #2 {
entry:
  %size.p = getelementptr i8, ptr %area, i64 $H_shared
  %size = load i64, ptr %size.p
  %start.in = icmp ule i64 %offset, %size
  %left = sub i64 %size, %offset
  %enough = icmp ule i64 %nbytes, %left
  %inside = and i1 %start.in, %enough
  br i1 %inside, label %begin, label %outside
outside:
  call void @check.report(ptr %worker, i32 $OUTSIDE, i32 %t, i64 %place, i64 %address,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
begin:
  %load.bit = and i32 %flags, 1
  %loads = icmp ne i32 %load.bit, 0
  %store.bit = and i32 %flags, 2
  %stores = icmp ne i32 %store.bit, 0
  %strong.bit = and i32 %flags, 4
  %strong = icmp ne i32 %strong.bit, 0
  %has.value = icmp ne ptr %value, null
  %clock.p = call ptr @check.clock(ptr %area, i64 $A_own, i32 %t)
  %clock = load i32, ptr %clock.p
  %me = add i32 %t, 1
  br label %byte
byte:
  %i = phi i64 [ 0, %begin ], [ %i.next, %step ]
  %at = add i64 %offset, %i
  %shadow.o = mul i64 %at, $SHADOW
  %shadow.at = add i64 %shadow.o, $A_shadow
  %s = getelementptr i8, ptr %area, i64 %shadow.at
  %writer = load i32, ptr %s
  %s.strong.p = getelementptr i8, ptr %s, i64 48
  %s.strong.i = load i32, ptr %s.strong.p
  %s.strong = icmp ne i32 %s.strong.i, 0
  %s.place.p = getelementptr i8, ptr %s, i64 8
  %s.place = load i64, ptr %s.place.p
  %here.i = add i64 %address, %i
  %here = inttoptr i64 %here.i to ptr
  %fresh = icmp eq i32 %writer, 0
  %unset = and i1 %fresh, %loads
  br i1 %unset, label %uninitialised, label %same
uninitialised:
  call void @check.report(ptr %worker, i32 $UNINITIALISED, i32 %t, i64 %place, i64 %here.i,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
same:
  br i1 %has.value, label %compare, label %writes
compare:
  %new.p = getelementptr i8, ptr %value, i64 %i
  %new = load i8, ptr %new.p
  %old = load i8, ptr %here
  %equal.v = icmp eq i8 %new, %old
  br label %writes
writes:
  %equal = phi i1 [ false, %same ], [ %equal.v, %compare ]
  %both.strong = and i1 %strong, %s.strong
  %harmless = or i1 %both.strong, %equal
  %raced = call i1 @check.races(ptr %area, i32 %t, ptr %s)
  %harmful = xor i1 %harmless, true
  %bad = and i1 %raced, %harmful
  br i1 %bad, label %race, label %kind
race:
  %kind.w = select i1 %stores, i32 $WRITES, i32 $READS
  %other = sub i32 %writer, 1
  call void @check.report(ptr %worker, i32 %kind.w, i32 %t, i64 %place, i64 %here.i, i64 %nbytes,
       i32 %other, i64 %s.place)
  unreachable
kind:
  %r1 = getelementptr i8, ptr %s, i64 16
  %r2 = getelementptr i8, ptr %s, i64 32
  br i1 %stores, label %readers, label %reader
readers:
  %r1.raced = call i1 @check.races(ptr %area, i32 %t, ptr %r1)
  %r2.raced = call i1 @check.races(ptr %area, i32 %t, ptr %r2)
  %differs = xor i1 %equal, true
  %any.raced = or i1 %r1.raced, %r2.raced
  %over = and i1 %any.raced, %differs
  br i1 %over, label %overwrites, label %write
overwrites:
  %r = select i1 %r1.raced, ptr %r1, ptr %r2
  %r.who = load i32, ptr %r
  %r.other = sub i32 %r.who, 1
  %r.place.p = getelementptr i8, ptr %r, i64 8
  %r.place = load i64, ptr %r.place.p
  call void @check.report(ptr %worker, i32 $OVERWRITES, i32 %t, i64 %place, i64 %here.i,
       i64 %nbytes, i32 %r.other, i64 %r.place)
  unreachable
write:
  store i32 %me, ptr %s
  %s.clock = getelementptr i8, ptr %s, i64 4
  store i32 %clock, ptr %s.clock
  store i64 %place, ptr %s.place.p
  %strong.i = zext i1 %strong to i32
  store i32 %strong.i, ptr %s.strong.p
  br label %step
reader:
  br i1 %strong, label %step, label %choose
choose:
  %r1.other = call i1 @check.races(ptr %area, i32 %t, ptr %r1)
  %r2.other = call i1 @check.races(ptr %area, i32 %t, ptr %r2)
  %kept = and i1 %r1.other, %r2.other
  br i1 %kept, label %step, label %read
read:
  %target = select i1 %r1.other, ptr %r2, ptr %r1
  store i32 %me, ptr %target
  %target.clock = getelementptr i8, ptr %target, i64 4
  store i32 %clock, ptr %target.clock
  %target.place = getelementptr i8, ptr %target, i64 8
  store i64 %place, ptr %target.place
  br label %step
step:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %nbytes
  br i1 %more, label %byte, label %done
done:
  ret void
}

; Bytes that say whether others are initialised.
define internal void @check.bytes(ptr %worker, ptr %bytes, i64 %address, i64 %nbytes, i32 %flags,
                                  i64 %place, i32 %t) #2 {
entry:
  %load.bit = and i32 %flags, 1
  %loads = icmp ne i32 %load.bit, 0
  %store.bit = and i32 %flags, 2
  %stores = icmp ne i32 %store.bit, 0
  br label %byte
byte:
  %i = phi i64 [ 0, %entry ], [ %i.next, %step ]
  %p = getelementptr i8, ptr %bytes, i64 %i
  %set = load i8, ptr %p
  %clear = icmp eq i8 %set, 0
  %bad = and i1 %clear, %loads
  br i1 %bad, label %report, label %fine
report:
  %here = add i64 %address, %i
  call void @check.report(ptr %worker, i32 $UNINITIALISED, i32 %t, i64 %place, i64 %here,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
fine:
  br i1 %stores, label %mark, label %step
mark:
  store i8 1, ptr %p
  br label %step
step:
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %nbytes
  br i1 %more, label %byte, label %done
done:
  ret void
}

; Memory of the device: {start, end, bytes that say what is initialised} in ascending order.
define internal void @check.global(ptr %worker, ptr %launch, i64 %address, i64 %nbytes, i32 %flags,
                                   i64 %place, i32 %t) #2 {
entry:
  %ranges.p = getelementptr i8, ptr %launch, i64 $L_ranges
  %ranges = load ptr, ptr %ranges.p
  %count.p = getelementptr i8, ptr %launch, i64 $L_range_count
  %count = load i64, ptr %count.p
  br label %search
search:
  %low = phi i64 [ 0, %entry ], [ %low.next, %narrow ]
  %high = phi i64 [ %count, %entry ], [ %high.next, %narrow ]
  %more = icmp ult i64 %low, %high
  br i1 %more, label %narrow, label %found
narrow:
  %sum = add i64 %low, %high
  %middle = lshr i64 %sum, 1
  %middle.o = mul i64 %middle, 24
  %middle.p = getelementptr i8, ptr %ranges, i64 %middle.o
  %middle.start = load i64, ptr %middle.p
  %before = icmp ule i64 %middle.start, %address
  %above = add i64 %middle, 1
  %low.next = select i1 %before, i64 %above, i64 %low
  %high.next = select i1 %before, i64 %high, i64 %middle
  br label %search
found:
  %none = icmp eq i64 %low, 0
  br i1 %none, label %outside, label %look
look:
  %index = sub i64 %low, 1
  %offset = mul i64 %index, 24
  %range = getelementptr i8, ptr %ranges, i64 %offset
  %start = load i64, ptr %range
  %end.p = getelementptr i8, ptr %range, i64 8
  %end = load i64, ptr %end.p
  %bytes.p = getelementptr i8, ptr %range, i64 16
  %bytes = load ptr, ptr %bytes.p
  %begins = icmp ult i64 %address, %end
  %left = sub i64 %end, %address
  %fits = icmp ule i64 %nbytes, %left
  %inside = and i1 %begins, %fits
  br i1 %inside, label %known, label %outside
outside:
  call void @check.report(ptr %worker, i32 $OUTSIDE, i32 %t, i64 %place, i64 %address,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
known:
  %initialised = icmp eq ptr %bytes, null
  br i1 %initialised, label %done, label %shadow
shadow:
  %into = sub i64 %address, %start
  %here = getelementptr i8, ptr %bytes, i64 %into
  call void @check.bytes(ptr %worker, ptr %here, i64 %address, i64 %nbytes, i32 %flags,
       i64 %place, i32 %t)
  br label %done
done:
  ret void
}

; An access. `value` is what a store stores, null if that is not known.
define internal void @check.access(ptr %worker, ptr %launch, ptr %where, i64 %nbytes, i64 %align,
                                   i32 %flags, i64 %place, i32 %t, i64 %local, ptr %value) #2 {
entry:
  %area.p = getelementptr i8, ptr %worker, i64 $W_check
  %area = load ptr, ptr %area.p
  %address = ptrtoint ptr %where to i64
  %mask = sub i64 %align, 1
  %low = and i64 %address, %mask
  %askew = icmp ne i64 %low, 0
  br i1 %askew, label %misaligned, label %space
misaligned:
  call void @check.report(ptr %worker, i32 $MISALIGNED, i32 %t, i64 %place, i64 %address,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
space:
  %named = and i32 %flags, 1792
  %generic = icmp eq i32 %named, 0
  %window.p = getelementptr i8, ptr %worker, i64 $W_shared
  %window = load i64, ptr %window.p
  %offset = sub i64 %address, %window
  %above = add i64 %offset, 2147483648
  %near = icmp ult i64 %above, 4294967296
  %generic.shared = and i1 %generic, %near
  %named.shared = icmp eq i32 %named, 256
  %is.shared = or i1 %named.shared, %generic.shared
  br i1 %is.shared, label %shared, label %not.shared
shared:
  call void @check.shared(ptr %worker, ptr %area, i64 %offset, i64 %address, i64 %nbytes,
       i32 %flags, i64 %place, i32 %t, ptr %value)
  ret void
not.shared:
  %deep = sub i64 %address, %local
  %within = icmp ult i64 %deep, $L
  %generic.local = and i1 %generic, %within
  %named.local = icmp eq i32 %named, 512
  %is.local = or i1 %named.local, %generic.local
  br i1 %is.local, label %local.look, label %global
local.look:
  %end = add i64 %deep, %nbytes
  %whole = icmp ule i64 %end, $L
  %fits = and i1 %whole, %within
  br i1 %fits, label %local.fits, label %outside
outside:
  call void @check.report(ptr %worker, i32 $OUTSIDE, i32 %t, i64 %place, i64 %address,
       i64 %nbytes, i32 -1, i64 0)
  unreachable
local.fits:
  %wide = zext i32 %t to i64
  %row = mul i64 %wide, $L
  %from = add i64 %row, $A_local
  %at = add i64 %from, %deep
  %bytes = getelementptr i8, ptr %area, i64 %at
  call void @check.bytes(ptr %worker, ptr %bytes, i64 %address, i64 %nbytes, i32 %flags,
       i64 %place, i32 %t)
  ret void
global:
  call void @check.global(ptr %worker, ptr %launch, i64 %address, i64 %nbytes, i32 %flags,
       i64 %place, i32 %t)
  ret void
}
"""
