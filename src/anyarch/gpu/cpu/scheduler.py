"""The native code that runs blocks: taking them in turn, fibres, barriers, meetings of threads.

A block without barriers runs its warps one after another. Otherwise each warp is a fibre with a
stack of its own; the fibres of a worker are in a ring, and whoever waits switches to the next. Of
what follows only `gpu_run` is called from Python; kernels reach the rest through their worker.
"""

from __future__ import annotations

from typing import Final

from anyarch.gpu.cpu.records import (
    BARRIERS,
    FIBRE_NBYTES,
    LAUNCH,
    MODE_BLOCKS,
    MODE_FIBRES,
    WORKER,
    WORKER_NBYTES,
)

__all__ = ["MEETING_NBYTES", "scheduler_text"]

# Offsets in a fibre's record.
_SP, _NEXT, _PREVIOUS, _WORKER, _WARP, _LOCAL = 0, 8, 16, 24, 32, 40
# A meeting of threads: arrived, came, leaving, then 32 values. One for each lane that can be the
# lowest of a set, for each warp.
MEETING_NBYTES: Final = 16 + 8 * 32
_B0: Final = WORKER["barriers"]  # {arrived, phase, expected} of barrier 0
_SAVE: Final = "\n".join(f"    push {r}" for r in ("rbp", "rbx", "r12", "r13", "r14", "r15"))
_RESTORE: Final = "\n".join(f"    pop {r}" for r in ("r15", "r14", "r13", "r12", "rbx", "rbp"))
# A fibre that does not run has on top of its stack where it goes on. `gpu_sync` is barrier 0 with
# all threads, which is nearly every barrier.
_ASSEMBLY: Final = f"""\
.intel_syntax noprefix
.text
.globl gpu_switch
.hidden gpu_switch
.type gpu_switch, @function
.p2align 4
gpu_switch:
{_SAVE}
    lea rax, [rip + gpu_switched]
    push rax
    mov [rdi], rsp
    mov rsp, rsi
    pop rcx
    jmp rcx
gpu_switched:
{_RESTORE}
    ret
.globl gpu_begin
.hidden gpu_begin
.type gpu_begin, @function
.p2align 4
gpu_begin:
    pop rdi
    call gpu_fibre
    ud2
.globl gpu_sync
.hidden gpu_sync
.type gpu_sync, @function
.p2align 4
gpu_sync:
    mov eax, [rdi + {_B0}]
    inc eax
    mov dword ptr [rdi + {_B0 + 8}], 0
    cmp eax, [rdi + {WORKER["live"]}]
    jae gpu_sync_last
    mov [rdi + {_B0}], eax
{_SAVE}
    push rdi
    mov ebx, [rdi + {_B0 + 4}]
    push rbx
gpu_sync_wait:
    mov rax, [rdi + {WORKER["current"]}]
    mov rdx, [rax + {_NEXT}]
    mov rsi, [rdx + {_WORKER}]
    lea rcx, [rip + gpu_sync_resumed]
    push rcx
    mov [rax + {_SP}], rsp
    mov rsp, [rdx + {_SP}]
    mov [rsi + {WORKER["current"]}], rdx
    mov rax, [rsi + {WORKER["root"]}]
    mov [rax + {WORKER["running"]}], rsi
    pop rcx
    jmp rcx
    .p2align 4
gpu_sync_resumed:
    mov rdi, [rsp + 8]
    mov eax, [rsp]
    cmp eax, [rdi + {_B0 + 4}]
    je gpu_sync_check
    add rsp, 16
{_RESTORE}
    pop rcx
    jmp rcx
gpu_sync_check:
    sub rsp, 8
    call gpu_stop_check
    add rsp, 8
    mov rdi, [rsp + 8]
    jmp gpu_sync_wait
gpu_sync_last:
    mov dword ptr [rdi + {_B0}], 0
    inc dword ptr [rdi + {_B0 + 4}]
    ret
.att_syntax
"""


def _at(result: str, base: str, offset: int | str) -> str:
    return f"%{result} = getelementptr i8, ptr %{base}, i64 {offset}"


def _worker(result: str, name: str, type_: str, base: str = "worker") -> str:
    return (
        f"%{result}.p = getelementptr i8, ptr %{base}, i64 {WORKER[name]}\n"
        f"  %{result} = load {type_}, ptr %{result}.p"
    )


def _launch(result: str, name: str, type_: str) -> str:
    return (
        f"%{result}.p = getelementptr i8, ptr %launch, i64 {LAUNCH[name]}\n"
        f"  %{result} = load {type_}, ptr %{result}.p"
    )


def scheduler_text() -> str:
    """LLVM text, to be compiled together with the host's runtime."""
    assembly = "\n".join(f'module asm "{line}"' for line in _ASSEMBLY.splitlines())
    return "\n".join((assembly, _DECLARE, _RESUME, _PAUSE, _BARRIER, _FIBRE, _MEET, _BLOCK, _RUN))


_DECLARE = """
declare void @gpu_switch(ptr, i64)
declare void @gpu_begin()
declare void @gpu_sync(ptr)
"""

# Make a fibre the one that runs: its block's record tells kernels who they are.
_RESUME = f"""
define internal void @gpu_select(ptr %fibre) alwaysinline nounwind {{
  {_at("worker.p", "fibre", _WORKER)}
  %worker = load ptr, ptr %worker.p
  {_at("w.current", "worker", WORKER["current"])}
  store ptr %fibre, ptr %w.current
  {_worker("root", "root", "ptr")}
  {_at("running", "root", WORKER["running"])}
  store ptr %worker, ptr %running
  ret void
}}
"""

_PAUSE = f"""
define hidden void @gpu_pause(ptr %worker) nounwind {{
  {_worker("fibre", "current", "ptr")}
  %none = icmp eq ptr %fibre, null
  br i1 %none, label %done, label %look
look:
  {_at("next.p", "fibre", _NEXT)}
  %next = load ptr, ptr %next.p
  %alone = icmp eq ptr %next, %fibre
  br i1 %alone, label %done, label %switch
switch:
  call void @gpu_select(ptr %next)
  {_at("sp.p", "next", _SP)}
  %sp = load i64, ptr %sp.p
  call void @gpu_switch(ptr %fibre, i64 %sp)
  br label %done
done:
  ret void
}}
"""

# Barriers (9.7.13.1): {arrived, phase, expected, value}, then the result of the last reduction.
# An arrival counts flows of control; a count of 0 means all that have not ended.
_BARRIER = f"""
define internal void @gpu_release(ptr %barrier) alwaysinline nounwind {{
  store i32 0, ptr %barrier
  {_at("phase.p", "barrier", 4)}
  %phase = load i32, ptr %phase.p
  %next = add i32 %phase, 1
  store i32 %next, ptr %phase.p
  {_at("value.p", "barrier", 12)}
  %value = load i32, ptr %value.p
  {_at("result.p", "barrier", 16)}
  store i32 %value, ptr %result.p
  ret void
}}

define hidden i32 @gpu_barrier(ptr %worker, i32 %number, i32 %count, i32 %kind,
                               i32 %value) nounwind {{
entry:
  {_worker("launch", "launch", "ptr")}
  {_launch("width", "width", "i32")}
  {_worker("live", "live", "i32")}
  %low = and i32 %number, {BARRIERS - 1}
  {_worker("used", "used", "i32")}
  %use = shl i32 1, %low
  %used.now = or i32 %used, %use
  store i32 %used.now, ptr %used.p
  %wide = zext i32 %low to i64
  %offset = mul i64 %wide, 32
  %from = add i64 %offset, {WORKER["barriers"]}
  {_at("barrier", "worker", "%from")}
  {_at("phase.p", "barrier", 4)}
  {_at("expected.p", "barrier", 8)}
  {_at("value.p", "barrier", 12)}
  {_at("result.p", "barrier", 16)}
  %all = icmp eq i32 %count, 0
  %flows = udiv i32 %count, %width
  %wanted = select i1 %all, i32 0, i32 %flows
  store i32 %wanted, ptr %expected.p
  %arrived = load i32, ptr %barrier
  %first = icmp eq i32 %arrived, 0
  %old = load i32, ptr %value.p
  %sum = add i32 %old, %value
  %both = and i32 %old, %value
  %either = or i32 %old, %value
  %is.and = icmp eq i32 %kind, 3
  %is.or = icmp eq i32 %kind, 4
  %joined = select i1 %is.and, i32 %both, i32 %sum
  %joined2 = select i1 %is.or, i32 %either, i32 %joined
  %new = select i1 %first, i32 %value, i32 %joined2
  store i32 %new, ptr %value.p
  %now = add i32 %arrived, 1
  store i32 %now, ptr %barrier
  %need = select i1 %all, i32 %live, i32 %wanted
  %complete = icmp uge i32 %now, %need
  br i1 %complete, label %release, label %incomplete
release:
  call void @gpu_release(ptr %barrier)
  %done.result = load i32, ptr %result.p
  ret i32 %done.result
incomplete:
  %passes = icmp eq i32 %kind, 1
  br i1 %passes, label %go, label %wait
go:
  ret i32 0
wait:
  %phase = load volatile i32, ptr %phase.p
  {_worker("context", "context", "ptr")}
  br label %loop
loop:
  call void @gpu_pause(ptr %worker)
  %seen = load volatile i32, ptr %phase.p
  %same = icmp eq i32 %seen, %phase
  br i1 %same, label %stopped, label %leave
stopped:
  {_worker("stop", "stop", "ptr")}
  %flag = load volatile i32, ptr %stop
  %go.on = icmp eq i32 %flag, 0
  br i1 %go.on, label %loop, label %end
end:
  {_worker("function", "leave", "ptr")}
  call void %function(ptr %context, i32 1)
  unreachable
leave:
  %result = load i32, ptr %result.p
  ret i32 %result
}}
"""

# A fibre's whole life. What has ended counts as arrived: barriers that wait for all may be full.
_FIBRE = f"""
define hidden void @gpu_fibre(ptr %fibre) nounwind {{
entry:
  {_at("worker.p", "fibre", _WORKER)}
  %worker = load ptr, ptr %worker.p
  {_at("warp.p", "fibre", _WARP)}
  %warp = load i32, ptr %warp.p
  {_worker("launch", "launch", "ptr")}
  {_worker("base", "base", "ptr")}
  {_launch("kernel", "kernel", "ptr")}
  call void %kernel(ptr %worker, ptr %launch, ptr %base, i32 %warp)
  {_worker("live", "live", "i32")}
  %fewer = sub i32 %live, 1
  store i32 %fewer, ptr %live.p
  call void @gpu_ended(ptr %worker, i32 %warp)
  {_worker("used", "used", "i32")}
  %seldom = icmp ne i32 %used, 0
  %last.barrier = select i1 %seldom, i64 {BARRIERS}, i64 1
  br label %barriers
barriers:
  %n = phi i64 [ 0, %entry ], [ %n.next, %after ]
  %offset = mul i64 %n, 32
  %from = add i64 %offset, {WORKER["barriers"]}
  {_at("barrier", "worker", "%from")}
  %arrived = load i32, ptr %barrier
  {_at("expected.p", "barrier", 8)}
  %expected = load i32, ptr %expected.p
  %some = icmp ne i32 %arrived, 0
  %all = icmp eq i32 %expected, 0
  %full = icmp uge i32 %arrived, %fewer
  %waits = and i1 %some, %all
  %opens = and i1 %waits, %full
  br i1 %opens, label %open, label %after
open:
  call void @gpu_release(ptr %barrier)
  br label %after
after:
  %n.next = add i64 %n, 1
  %more = icmp ult i64 %n.next, %last.barrier
  br i1 %more, label %barriers, label %unlink
unlink:
  {_at("next.p", "fibre", _NEXT)}
  {_at("previous.p", "fibre", _PREVIOUS)}
  %next = load ptr, ptr %next.p
  %previous = load ptr, ptr %previous.p
  %alone = icmp eq ptr %next, %fibre
  br i1 %alone, label %last, label %others
others:
  {_at("p.next", "previous", _NEXT)}
  store ptr %next, ptr %p.next
  {_at("n.previous", "next", _PREVIOUS)}
  store ptr %previous, ptr %n.previous
  call void @gpu_select(ptr %next)
  {_at("sp.p", "next", _SP)}
  %sp = load i64, ptr %sp.p
  call void @gpu_switch(ptr %fibre, i64 %sp)
  unreachable
last:
  {_worker("root", "root", "ptr")}
  {_worker("main", "main", "i64", "root")}
  call void @gpu_switch(ptr %fibre, i64 %main)
  unreachable
}}
"""

# Meetings of the threads of a warp, where each is a flow of its own. A set of threads has the slot
# of its lowest; a slot is free again when all have left.
_MEET = f"""
define internal ptr @gpu_slot(ptr %worker, i32 %warp, i32 %lane) alwaysinline nounwind {{
  {_worker("slots", "slots", "ptr")}
  %group = and i32 %warp, -32
  %number = add i32 %group, %lane
  %wide = zext i32 %number to i64
  %offset = mul i64 %wide, {MEETING_NBYTES}
  {_at("slot", "slots", "%offset")}
  ret ptr %slot
}}

define internal i32 @gpu_alive(ptr %worker, i32 %warp) alwaysinline nounwind {{
  {_worker("ended", "ended", "ptr")}
  %group = lshr i32 %warp, 5
  %wide = zext i32 %group to i64
  %place = getelementptr i32, ptr %ended, i64 %wide
  %mask = load volatile i32, ptr %place
  %alive = xor i32 %mask, -1
  ret i32 %alive
}}

define internal void @gpu_ended(ptr %worker, i32 %warp) nounwind {{
  {_worker("ended", "ended", "ptr")}
  %none = icmp eq ptr %ended, null
  br i1 %none, label %done, label %mark
mark:
  %group = lshr i32 %warp, 5
  %wide = zext i32 %group to i64
  %place = getelementptr i32, ptr %ended, i64 %wide
  %old = load i32, ptr %place
  %lane = and i32 %warp, 31
  %bit = shl i32 1, %lane
  %new = or i32 %old, %bit
  store i32 %new, ptr %place
  br label %done
done:
  ret void
}}

define hidden ptr @gpu_meet(ptr %worker, i32 %members, i64 %value) nounwind {{
entry:
  {_worker("fibre", "current", "ptr")}
  {_at("warp.p", "fibre", _WARP)}
  %warp = load i32, ptr %warp.p
  %lane = and i32 %warp, 31
  %bit = shl i32 1, %lane
  %named = or i32 %members, %bit
  %lowest = call i32 @llvm.cttz.i32(i32 %named, i1 true)
  %slot = call ptr @gpu_slot(ptr %worker, i32 %warp, i32 %lowest)
  {_at("came.p", "slot", 8)}
  {_at("leaving.p", "slot", 4)}
  br label %free
free:
  %leaving = load volatile i32, ptr %leaving.p
  %taken = icmp ne i32 %leaving, 0
  br i1 %taken, label %busy, label %arrive
busy:
  call void @gpu_pause(ptr %worker)
  call void @gpu_stop_check(ptr %worker)
  br label %free
arrive:
  %wide = zext i32 %lane to i64
  %offset = mul i64 %wide, 8
  %from = add i64 %offset, 16
  {_at("place", "slot", "%from")}
  store i64 %value, ptr %place
  %old = load volatile i32, ptr %slot
  %new = or i32 %old, %bit
  store volatile i32 %new, ptr %slot
  br label %look
look:
  %going = load volatile i32, ptr %leaving.p
  %mine = and i32 %going, %bit
  %open = icmp ne i32 %mine, 0
  br i1 %open, label %leave, label %count
count:
  %arrived = load volatile i32, ptr %slot
  %alive = call i32 @gpu_alive(ptr %worker, i32 %warp)
  %threads = call i32 @gpu_threads(ptr %worker, i32 %warp)
  %possible = and i32 %alive, %threads
  %wanted = and i32 %named, %possible
  %missing.i = xor i32 %arrived, -1
  %missing = and i32 %wanted, %missing.i
  %complete = icmp eq i32 %missing, 0
  br i1 %complete, label %release, label %wait
release:
  store volatile i32 %arrived, ptr %leaving.p
  store volatile i32 %arrived, ptr %came.p
  store volatile i32 0, ptr %slot
  br label %look
wait:
  call void @gpu_pause(ptr %worker)
  call void @gpu_stop_check(ptr %worker)
  br label %look
leave:
  %rest.i = xor i32 %bit, -1
  %rest = and i32 %going, %rest.i
  store volatile i32 %rest, ptr %leaving.p
  ret ptr %slot
}}

define internal i32 @gpu_threads(ptr %worker, i32 %warp) alwaysinline nounwind {{
  {_worker("launch", "launch", "ptr")}
  {_launch("threads", "threads", "i32")}
  %first = and i32 %warp, -32
  %left = sub i32 %threads, %first
  %whole = icmp uge i32 %left, 32
  %amount = and i32 %left, 31
  %bit = shl i32 1, %amount
  %partial = sub i32 %bit, 1
  %mask = select i1 %whole, i32 -1, i32 %partial
  ret i32 %mask
}}

define hidden void @gpu_stop_check(ptr %worker) nounwind {{
  {_worker("stop", "stop", "ptr")}
  %flag = load volatile i32, ptr %stop
  %go = icmp eq i32 %flag, 0
  br i1 %go, label %done, label %end
end:
  {_worker("context", "context", "ptr")}
  {_worker("function", "leave", "ptr")}
  call void %function(ptr %context, i32 1)
  unreachable
done:
  ret void
}}
"""

# Make the fibres of a block and put them into the ring before `head` (null: a new ring).
_BLOCK = f"""
define internal void @gpu_place(ptr %worker, ptr %launch, i64 %block) nounwind {{
  {_launch("gx", "grid", "i32")}
  %gy.p = getelementptr i8, ptr %launch, i64 {LAUNCH["grid"] + 4}
  %gy = load i32, ptr %gy.p
  %wx = zext i32 %gx to i64
  %wy = zext i32 %gy to i64
  %x = urem i64 %block, %wx
  %rows = udiv i64 %block, %wx
  %y = urem i64 %rows, %wy
  %z = udiv i64 %rows, %wy
  %x.i = trunc i64 %x to i32
  %y.i = trunc i64 %y to i32
  %z.i = trunc i64 %z to i32
  {_at("x.p", "worker", WORKER["ctaid"])}
  store i32 %x.i, ptr %x.p
  {_at("y.p", "worker", WORKER["ctaid"] + 4)}
  store i32 %y.i, ptr %y.p
  {_at("z.p", "worker", WORKER["ctaid"] + 8)}
  store i32 %z.i, ptr %z.p
  ret void
}}

define internal ptr @gpu_link(ptr %worker, ptr %launch, ptr %head) nounwind {{
entry:
  {_launch("warps", "warps", "i32")}
  {_launch("nbytes", "local_nbytes", "i64")}
  {_worker("fibres", "fibres", "ptr")}
  {_worker("local", "local_start", "i64")}
  {_worker("stacks", "stacks", "i64")}
  {_worker("stride", "stack_nbytes", "i64")}
  {_at("live.p", "worker", WORKER["live"])}
  store i32 %warps, ptr %live.p
  {_at("used.p", "worker", WORKER["used"])}
  store i32 0, ptr %used.p
  {_at("barriers", "worker", WORKER["barriers"])}
  store <{8 * BARRIERS} x i32> zeroinitializer, ptr %barriers, align 4
  {_worker("ended", "ended", "ptr")}
  %meets = icmp ne ptr %ended, null
  br i1 %meets, label %clear, label %loop
clear:
  store <32 x i32> zeroinitializer, ptr %ended, align 4
  br label %loop
loop:
  %n = phi i32 [ 0, %entry ], [ 0, %clear ], [ %n.next, %step ]
  %first = phi ptr [ %head, %entry ], [ %head, %clear ], [ %ring, %step ]
  %wide = zext i32 %n to i64
  %offset = mul i64 %wide, {FIBRE_NBYTES}
  {_at("fibre", "fibres", "%offset")}
  {_at("f.worker", "fibre", _WORKER)}
  store ptr %worker, ptr %f.worker
  {_at("f.warp", "fibre", _WARP)}
  store i32 %n, ptr %f.warp
  %mine = mul i64 %wide, %nbytes
  %place = add i64 %local, %mine
  {_at("f.local", "fibre", _LOCAL)}
  store i64 %place, ptr %f.local
  %deep = mul i64 %wide, %stride
  %top = add i64 %stacks, %deep
  %sp = sub i64 %top, 16
  %frame = inttoptr i64 %sp to ptr
  %begin = ptrtoint ptr @gpu_begin to i64
  store i64 %begin, ptr %frame
  {_at("argument.p", "frame", 8)}
  store ptr %fibre, ptr %argument.p
  store i64 %sp, ptr %fibre
  {_at("next.p", "fibre", _NEXT)}
  {_at("previous.p", "fibre", _PREVIOUS)}
  %fresh = icmp eq ptr %first, null
  br i1 %fresh, label %new, label %join
new:
  store ptr %fibre, ptr %next.p
  store ptr %fibre, ptr %previous.p
  br label %step
join:
  {_at("h.previous", "first", _PREVIOUS)}
  %last = load ptr, ptr %h.previous
  {_at("l.next", "last", _NEXT)}
  store ptr %fibre, ptr %l.next
  store ptr %fibre, ptr %h.previous
  store ptr %first, ptr %next.p
  store ptr %last, ptr %previous.p
  br label %step
step:
  %ring = select i1 %fresh, ptr %fibre, ptr %first
  %n.next = add i32 %n, 1
  %more = icmp ult i32 %n.next, %warps
  br i1 %more, label %loop, label %done
done:
  ret ptr %ring
}}
"""

# Called by aa_enter with a worker. `resident` blocks run at once: one, or with a cooperative launch
# all; each has a record of its own, one after another.
_RUN = f"""
define i32 @gpu_run(ptr %context, ptr %worker, ptr %base) nounwind {{
entry:
  {_worker("launch", "launch", "ptr")}
  {_launch("blocks", "blocks", "i64")}
  {_launch("kernel", "kernel", "ptr")}
  {_launch("warps", "warps", "i32")}
  {_launch("resident", "resident", "i64")}
  {_launch("mode", "mode", "i32")}
  {_launch("chunk", "chunk", "i64")}
  {_worker("stop", "stop", "ptr")}
  {_at("next.p", "launch", LAUNCH["next"])}
  {_at("w.current", "worker", WORKER["current"])}
  {_at("w.local", "worker", WORKER["local"])}
  {_worker("local", "local_start", "i64")}
  {_at("running", "worker", WORKER["running"])}
  store ptr null, ptr %w.current
  store ptr %worker, ptr %running
  store i64 %local, ptr %w.local
  br label %take
take:
  %flag = load volatile i32, ptr %stop
  %stopped = icmp ne i32 %flag, 0
  br i1 %stopped, label %stop.now, label %next
stop.now:
  ret i32 1
next:
  %block = atomicrmw add ptr %next.p, i64 %chunk monotonic
  %left = icmp ult i64 %block, %blocks
  br i1 %left, label %start, label %done
done:
  ret i32 0
start:
  switch i32 %mode, label %direct [ i32 {MODE_BLOCKS}, label %whole
                                    i32 {MODE_FIBRES}, label %ring ]
whole:
  %rest = sub i64 %blocks, %block
  %few = icmp ult i64 %rest, %chunk
  %count = select i1 %few, i64 %rest, i64 %chunk
  call void %kernel(ptr %worker, ptr %launch, ptr %base, i64 %block, i64 %count)
  br label %take
direct:
  call void @gpu_place(ptr %worker, ptr %launch, i64 %block)
  {_worker("only", "fibres", "ptr")}
  {_at("o.worker", "only", _WORKER)}
  store ptr %worker, ptr %o.worker
  {_at("o.next", "only", _NEXT)}
  store ptr %only, ptr %o.next
  {_at("o.local", "only", _LOCAL)}
  store i64 %local, ptr %o.local
  {_at("o.warp", "only", _WARP)}
  store ptr %only, ptr %w.current
  {_at("w.live", "worker", WORKER["live"])}
  store i32 1, ptr %w.live
  {_at("barriers", "worker", WORKER["barriers"])}
  store <{8 * BARRIERS} x i32> zeroinitializer, ptr %barriers, align 4
  br label %warp
warp:
  %n = phi i32 [ 0, %direct ], [ %n.next, %warp ]
  store i32 %n, ptr %o.warp
  call void %kernel(ptr %worker, ptr %launch, ptr %base, i32 %n)
  %n.next = add i32 %n, 1
  %more = icmp ult i32 %n.next, %warps
  br i1 %more, label %warp, label %take
ring:
  %k = phi i64 [ 0, %start ], [ %k.next, %ring ]
  %head = phi ptr [ null, %start ], [ %linked, %ring ]
  %record.o = mul i64 %k, {WORKER_NBYTES}
  {_at("record", "worker", "%record.o")}
  %number = add i64 %block, %k
  call void @gpu_place(ptr %record, ptr %launch, i64 %number)
  %linked = call ptr @gpu_link(ptr %record, ptr %launch, ptr %head)
  %k.next = add i64 %k, 1
  %room = icmp ult i64 %k.next, %resident
  %following = add i64 %number, 1
  %there = icmp ult i64 %following, %blocks
  %again = and i1 %room, %there
  br i1 %again, label %ring, label %run
run:
  call void @gpu_select(ptr %linked)
  {_at("main", "worker", WORKER["main"])}
  %sp = load i64, ptr %linked
  call void @gpu_switch(ptr %main, i64 %sp)
  br label %take
}}
"""
