"""The runtime that every blob of handlers contains: entering native code, signals, system calls.

`runtime_text` is LLVM text with module assembly; append handlers to it and compile. The machine's
part (offsets, assembly) is in a module named after the machine. Signal frames: signal(7),
sigaltstack(2), and the kernel's ucontext, whose uc_stack tells whose thread was interrupted.
"""

from __future__ import annotations

from anyarch.host import signalpage as page
from anyarch.host import x86_64 as machine
from anyarch.host.context import FIELDS, PASS, SIGNAL_INFO, ExitCode
from anyarch.host.cpu import features
from anyarch.host.signalmask import FAULT_SIGNALS
from anyarch.host.x86_64_untagging import untagging_text

__all__ = ["EXPORTS", "runtime_text"]

EXPORTS = (
    "aa_enter",
    "aa_leave",
    "aa_fault",
    "aa_signal",
    "aa_syscall",
    "aa_syscall_block",
    "aa_take_pending",
    "aa_spawn",
    "aa_restorer",
)
_SI_CODE, _SI_ADDRESS, _SI_VALUE = 8, 16, 24
_SI_QUEUE, _SI_TKILL = -1, -6
_SIGILL, _SIGBUS, _SIGFPE, _SIGSEGV = 4, 7, 8, 11
_SIGCHLD = 17
_ALL_DESCRIPTORS = 0xFFFFFFFF


def runtime_text() -> str:
    """LLVM text of the runtime for this host, to be compiled together with handlers."""
    lines = machine.assembly(features()).splitlines()
    assembly = "\n".join(f'module asm "{line}"' for line in lines)
    parts = (
        _YIELD,
        _DECLARATIONS,
        _FIND,
        _QUEUE,
        _STOP_ALL,
        _CHAIN,
        untagging_text(),
        _FAULT,
        _SIGNAL,
        _TAKE,
        _BLOCK,
        _SPAWN,
    )
    return "\n".join((assembly, *parts))


def _at(result: str, base: str, offset: int | str) -> str:
    return f"%{result} = getelementptr i8, ptr %{base}, i64 {offset}"


def _field(result: str, base: str, name: str) -> str:
    return _at(result, base, FIELDS[name][0])


def _syscall(number: int, *arguments: str) -> str:
    padded = ", ".join([*arguments, "i64 0", "i64 0", "i64 0", "i64 0"][:4])
    return f"call i64 asm sideeffect {machine.SYSCALL_4}(i64 {number}, {padded})"


_YIELD = f"""
define internal void @aa_yield() nounwind {{
  %r = {_syscall(machine.NR_SCHED_YIELD)}
  ret void
}}
"""

_DECLARATIONS = """
declare i32 @aa_enter(ptr, ptr, ptr)
declare i64 @aa_syscall(ptr, i64, i64, i64, i64, i64, i64, i64)
"""

# The interrupted thread's context, or null. Only ours has an alternate stack of this size and
# alignment, so that nothing is read through a pointer that may be wild.
_FIND = f"""
define internal ptr @aa_find(ptr %uc) noinline nounwind {{
  {_at("start.p", "uc", machine.UC_STACK)}
  {_at("size.p", "uc", machine.UC_STACK + 16)}
  %start = load i64, ptr %start.p
  %size = load i64, ptr %size.p
  %size.ok = icmp eq i64 %size, {page.STACK_NBYTES - page.STACK_START}
  %low = and i64 %start, {page.STACK_NBYTES - 1}
  %low.ok = icmp eq i64 %low, {page.STACK_START}
  %ok = and i1 %size.ok, %low.ok
  br i1 %ok, label %look, label %none
look:
  %base.i = sub i64 %start, {page.STACK_START}
  %base = inttoptr i64 %base.i to ptr
  {_at("magic.p", "base", 8)}
  %magic = load volatile i64, ptr %magic.p
  %context = load volatile ptr, ptr %base
  %magic.ok = icmp eq i64 %magic, {page.STACK_MAGIC}
  %result = select i1 %magic.ok, ptr %context, ptr null
  ret ptr %result
none:
  ret ptr null
}}
"""

# Send a signal with its siginfo to a thread of this process.
_QUEUE = f"""
define internal void @aa_queue(i64 %thread, i32 %signal, ptr %info) noinline nounwind {{
  %process = {_syscall(machine.NR_GETPID)}
  %number = zext i32 %signal to i64
  %info.i = ptrtoint ptr %info to i64
  %r = {
    _syscall(
        machine.NR_RT_TGSIGQUEUEINFO, "i64 %process", "i64 %thread", "i64 %number", "i64 %info.i"
    )
}
  ret void
}}
"""

# Ask every thread to stop; those of other threads that block in a system call are woken.
_STOP_ALL = f"""
define internal void @aa_stop_all(ptr %page) noinline nounwind {{
entry:
  %self = {_syscall(machine.NR_GETTID)}
  {_at("info", "page", page.STOP_INFO)}
  {_at("used.p", "page", page.SLOTS_USED)}
  %used = load volatile i64, ptr %used.p
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %step ]
  %more = icmp ult i64 %i, %used
  br i1 %more, label %body, label %done
body:
  %scaled = shl i64 %i, 4
  %offset = add i64 %scaled, {page.SLOTS}
  {_at("slot", "page", "%offset")}
  %context = load volatile ptr, ptr %slot
  %empty = icmp eq ptr %context, null
  br i1 %empty, label %step, label %stop
stop:
  {_field("stop.p", "context", "stop")}
  store atomic i32 1, ptr %stop.p seq_cst, align 4
  {_at("thread.p", "slot", 8)}
  %thread = load volatile i64, ptr %thread.p
  %own = icmp eq i64 %thread, %self
  br i1 %own, label %step, label %wake
wake:
  call void @aa_queue(i64 %thread, i32 {page.STOP_SIGNAL}, ptr %info)
  br label %step
step:
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""

# Run the previous action. A function is called; the default action is put back, and happens when
# the instruction faults again or the signal, sent once more, arrives. A previous handler that
# raises the signal once more (faulthandler) meets the default action, not itself.
_CHAIN = f"""
define internal void @aa_chain(i32 %signal, ptr %info, ptr %uc, ptr %page) noinline nounwind {{
  %n = zext i32 %signal to i64
  %scaled = shl i64 %n, 5
  %offset = add i64 %scaled, {page.ACTIONS}
  {_at("action", "page", "%offset")}
  %flag.o = add i64 %n, {page.CHAINING}
  {_at("flag", "page", "%flag.o")}
  {_at("code.p", "info", _SI_CODE)}
  %code = load i32, ptr %code.p
  %sent = icmp sle i32 %code, 0
  %handler = load volatile ptr, ptr %action
  %handler.i = ptrtoint ptr %handler to i64
  %busy = load volatile i8, ptr %flag
  %idle = icmp eq i8 %busy, 0
  %function = icmp ugt i64 %handler.i, 1
  %run = and i1 %idle, %function
  br i1 %run, label %call, label %no_call
call:
  store volatile i8 1, ptr %flag
  call void %handler(i32 %signal, ptr %info, ptr %uc)
  store volatile i8 0, ptr %flag
  ret void
no_call:
  %ignore = icmp eq i64 %handler.i, 1
  %drop = and i1 %ignore, %sent
  br i1 %drop, label %done, label %default
default:
  {_at("default.p", "page", page.ACTIONS)}
  %default.i = ptrtoint ptr %default.p to i64
  %r = {_syscall(machine.NR_RT_SIGACTION, "i64 %n", "i64 %default.i", "i64 0", "i64 8")}
  br i1 %sent, label %again, label %done
again:
  %self = {_syscall(machine.NR_GETTID)}
  call void @aa_queue(i64 %self, i32 %signal, ptr %info)
  ret void
done:
  ret void
}}
"""

_FAULT = f"""
define hidden void @aa_fault(i32 %signal, ptr %info, ptr %uc, ptr %page) nounwind {{
  {_at("code.p", "info", _SI_CODE)}
  %code = load i32, ptr %code.p
  %raised = icmp sgt i32 %code, 0
  br i1 %raised, label %real, label %sent
sent:
  call void @aa_signal(i32 %signal, ptr %info, ptr %uc, ptr %page)
  ret void
real:
  %context = call ptr @aa_find(ptr %uc)
  %known = icmp ne ptr %context, null
  br i1 %known, label %look, label %chain
look:
  {_at("uc.stack.p", "uc", machine.UC_STACK)}
  %uc.stack = load ptr, ptr %uc.stack.p
  {_at("stack", "uc.stack", -page.STACK_START)}
  %is.repeated = call i1 @aa_tag(ptr %uc, ptr %stack)
  %is.first = xor i1 %is.repeated, true
  {_field("in_native.p", "context", "in_native")}
  {_field("start.p", "context", "code_start")}
  {_field("end.p", "context", "code_end")}
  {_at("pc.p", "uc", machine.UC_PC)}
  %in_native = load volatile i32, ptr %in_native.p
  %start = load volatile i64, ptr %start.p
  %end = load volatile i64, ptr %end.p
  %pc = load i64, ptr %pc.p
  %inside = icmp ne i32 %in_native, 0
  %above = icmp uge i64 %pc, %start
  %below = icmp ult i64 %pc, %end
  %between = and i1 %above, %below
  %ours = and i1 %inside, %between
  br i1 %ours, label %tags, label %chain
tags:
  {_field("ignored.p", "context", "ignored_bits")}
  %ignored.32 = load volatile i32, ptr %ignored.p
  %ignored = zext i32 %ignored.32 to i64
  %is_segv = icmp eq i32 %signal, {_SIGSEGV}
  %is_bus = icmp eq i32 %signal, {_SIGBUS}
  %is_data = or i1 %is_segv, %is_bus
  %may.repeat = and i1 %is_data, %is.first
  br i1 %may.repeat, label %untag, label %leave
untag:
  %repeated = call i1 @aa_untag(ptr %uc, ptr %info, ptr %stack, i64 %ignored)
  br i1 %repeated, label %pass, label %leave
pass:
  {_field("met.p", "context", "tags_met")}
  {_at("pass.p", "context", PASS)}
  store volatile i32 1, ptr %met.p
  store volatile i8 1, ptr %pass.p
  ret void
leave:
  {_at("address.p", "info", _SI_ADDRESS)}
  {_field("base.p", "context", "memory_base")}
  %address = load i64, ptr %address.p
  %base = load volatile i64, ptr %base.p
  %guest = sub i64 %address, %base
  %told.signal = load i32, ptr %info
  %told.code = load i32, ptr %code.p
  %is_ill = icmp eq i32 %signal, {_SIGILL}
  %is_fpe = icmp eq i32 %signal, {_SIGFPE}
  %is_code = or i1 %is_ill, %is_fpe
  %shown = select i1 %is_code, i64 %address, i64 %guest
  {_field("fault_address.p", "context", "fault_address")}
  {_field("fault_signal.p", "context", "fault_signal")}
  {_field("fault_code.p", "context", "fault_code")}
  store volatile i64 %shown, ptr %fault_address.p
  store volatile i32 %told.signal, ptr %fault_signal.p
  store volatile i32 %told.code, ptr %fault_code.p
  {_field("host.p", "context", "fault_host")}
  store volatile i64 %pc, ptr %host.p
  {_at("registers.p", "uc", machine.UC_REGISTERS)}
  {_field("registers.c", "context", "fault_registers")}
  %registers = load <16 x i64>, ptr %registers.p, align 8
  store volatile <16 x i64> %registers, ptr %registers.c, align 8
  {_field("continue.p", "context", "leave_pointer")}
  %continue = load volatile i64, ptr %continue.p
  %context.i = ptrtoint ptr %context to i64
  {_at("argument0.p", "uc", machine.UC_ARGUMENT_0)}
  {_at("argument1.p", "uc", machine.UC_ARGUMENT_1)}
  store i64 %continue, ptr %pc.p
  store i64 %context.i, ptr %argument0.p
  store i64 {int(ExitCode.FAULT)}, ptr %argument1.p
  ret void
chain:
  call void @aa_chain(i32 %signal, ptr %info, ptr %uc, ptr %page)
  ret void
}}
"""

# A system call that was about to happen when the signal came does not happen: it would block, and
# nobody would look at the stop flag.
_REWIND = f"""
  {_at("pc.p", "uc", machine.UC_PC)}
  {_field("window.p", "context", "syscall_window")}
  {_field("window_end.p", "context", "syscall_window_end")}
  {_field("interrupted.p", "context", "syscall_interrupted")}
  %pc = load i64, ptr %pc.p
  %window = load volatile i64, ptr %window.p
  %window_end = load volatile i64, ptr %window_end.p
  %interrupted = load volatile i64, ptr %interrupted.p
  %above = icmp uge i64 %pc, %window
  %below = icmp ult i64 %pc, %window_end
  %between = and i1 %above, %below
  %new = select i1 %between, i64 %interrupted, i64 %pc
  store i64 %new, ptr %pc.p
"""

_SIGNAL = f"""
define internal void @aa_stop_here(ptr %context, ptr %uc) noinline nounwind {{
  {_field("stop.p", "context", "stop")}
  store atomic i32 1, ptr %stop.p seq_cst, align 4
  {_REWIND}
  ret void
}}

define internal ptr @aa_first_slot(ptr %page) noinline nounwind {{
entry:
  {_at("used.p", "page", page.SLOTS_USED)}
  %used = load volatile i64, ptr %used.p
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %step ]
  %more = icmp ult i64 %i, %used
  br i1 %more, label %body, label %none
body:
  %scaled = shl i64 %i, 4
  %offset = add i64 %scaled, {page.SLOTS}
  {_at("slot", "page", "%offset")}
  %context = load volatile ptr, ptr %slot
  %empty = icmp eq ptr %context, null
  br i1 %empty, label %step, label %found
step:
  %next = add i64 %i, 1
  br label %head
found:
  ret ptr %slot
none:
  ret ptr null
}}

define internal i64 @aa_note(ptr %context, i32 %signal, ptr %info) noinline nounwind {{
  %n = zext i32 %signal to i64
  %index = sub i64 %n, 1
  %bit = shl i64 1, %index
  {_field("pending.p", "context", "pending")}
  %pending = load atomic i64, ptr %pending.p seq_cst, align 8
  %old = and i64 %pending, %bit
  %fresh = icmp eq i64 %old, 0
  br i1 %fresh, label %copy, label %done
copy:
  %info.o = shl i64 %index, 7
  %info.a = add i64 %info.o, {SIGNAL_INFO}
  {_at("slot", "context", "%info.a")}
  %words = load <16 x i64>, ptr %info, align 8
  store <16 x i64> %words, ptr %slot, align 8
  %r = atomicrmw or ptr %pending.p, i64 %bit seq_cst
  br label %done
done:
  {_field("stop.p", "context", "stop")}
  store atomic i32 1, ptr %stop.p seq_cst, align 4
  ret i64 %bit
}}

define hidden void @aa_signal(i32 %signal, ptr %info, ptr %uc, ptr %page) nounwind {{
  %context = call ptr @aa_find(ptr %uc)
  %known = icmp ne ptr %context, null
  {_at("code.p", "info", _SI_CODE)}
  {_at("value.p", "info", _SI_VALUE)}
  %code = load i32, ptr %code.p
  %value = load ptr, ptr %value.p
  %queued = icmp eq i32 %code, {_SI_QUEUE}
  %marked = icmp eq ptr %value, %page
  %request = and i1 %queued, %marked
  br i1 %request, label %stop, label %other
stop:
  br i1 %known, label %stop_here, label %done
stop_here:
  call void @aa_stop_here(ptr %context, ptr %uc)
  ret void
other:
  %n = zext i32 %signal to i64
  %mode.o = add i64 %n, {page.MODES}
  {_at("mode.p", "page", "%mode.o")}
  %mode = load volatile i8, ptr %mode.p
  switch i8 %mode, label %chain [ i8 {page.MODE_GUEST}, label %guest
                                  i8 {page.MODE_INTERRUPT}, label %interrupt ]
chain:
  call void @aa_chain(i32 %signal, ptr %info, ptr %uc, ptr %page)
  ret void
interrupt:
  call void @aa_stop_all(ptr %page)
  br i1 %known, label %interrupt_here, label %chain
interrupt_here:
  call void @aa_stop_here(ptr %context, ptr %uc)
  br label %chain
guest:
  br i1 %known, label %note, label %forward
forward:
  %slot = call ptr @aa_first_slot(ptr %page)
  %nobody = icmp eq ptr %slot, null
  br i1 %nobody, label %done, label %forward_to
forward_to:
  {_at("thread.p", "slot", 8)}
  %thread = load volatile i64, ptr %thread.p
  ; The kernel lets a thread send another what sigqueue made, which may have to queue, but not
  ; what the kernel or kill made.
  %negative = icmp slt i32 %code, 0
  %not_kill = icmp ne i32 %code, {_SI_TKILL}
  %queueable = and i1 %negative, %not_kill
  br i1 %queueable, label %send, label %note_there
send:
  call void @aa_queue(i64 %thread, i32 %signal, ptr %info)
  ret void
note_there:
  %there = load volatile ptr, ptr %slot
  %gone = icmp eq ptr %there, null
  br i1 %gone, label %done, label %note_and_wake
note_and_wake:
  %bit.there = call i64 @aa_note(ptr %there, i32 %signal, ptr %info)
  {_at("wake", "page", page.STOP_INFO)}
  call void @aa_queue(i64 %thread, i32 {page.STOP_SIGNAL}, ptr %wake)
  ret void
note:
  %bit = call i64 @aa_note(ptr %context, i32 %signal, ptr %info)
  ; The next one waits in the kernel until this one was taken: real-time signals queue, and of a
  ; timer that expires all the time the next one would come before anything else. Not those of
  ; faults: one that is blocked kills.
  {_at("mask.p", "uc", machine.UC_SIGMASK)}
  %mask = load i64, ptr %mask.p
  %blockable = and i64 %bit, {~FAULT_SIGNALS}
  %blocked = or i64 %mask, %blockable
  store i64 %blocked, ptr %mask.p
  br label %stop_here
done:
  ret void
}}
"""

_TAKE = f"""
define hidden i64 @aa_take_pending(ptr %context) nounwind {{
  {_field("pending.p", "context", "pending")}
  %old = atomicrmw xchg ptr %pending.p, i64 0 seq_cst
  ret i64 %old
}}
"""

# A program in a session of its own that is nobody's child, and of our descriptors has three. Who
# starts it ends at once, and tells its end to nobody (clone without a signal): no wait of ours but
# one that asks for such processes finds it. Not done in Python, where a fork takes locks.
_SPAWN = f"""
define hidden i64 @aa_spawn(ptr %path, ptr %argv, ptr %envp, i64 %input, i64 %output) nounwind {{
entry:
  %pid = {_syscall(machine.NR_CLONE)}
  %starter = icmp eq i64 %pid, 0
  br i1 %starter, label %start, label %done
done:
  ret i64 %pid
start:
  %second = {_syscall(machine.NR_CLONE, f"i64 {_SIGCHLD}")}
  %program = icmp eq i64 %second, 0
  br i1 %program, label %run, label %end
run:
  %session = {_syscall(machine.NR_SETSID)}
  %in = {_syscall(machine.NR_DUP2, "i64 %input", "i64 0")}
  %out = {_syscall(machine.NR_DUP2, "i64 %output", "i64 1")}
  %err = {_syscall(machine.NR_DUP2, "i64 %output", "i64 2")}
  %closed = {_syscall(machine.NR_CLOSE_RANGE, "i64 3", f"i64 {_ALL_DESCRIPTORS}", "i64 0")}
  %path.i = ptrtoint ptr %path to i64
  %argv.i = ptrtoint ptr %argv to i64
  %envp.i = ptrtoint ptr %envp to i64
  %failed = {_syscall(machine.NR_EXECVE, "i64 %path.i", "i64 %argv.i", "i64 %envp.i")}
  br label %end
end:
  %ended = {_syscall(machine.NR_EXIT_GROUP, "i64 0")}
  unreachable
}}
"""

# For Python, where one argument costs a microsecond: the numbers are in the context.
_BLOCK = f"""
define hidden i64 @aa_syscall_block(ptr %context) nounwind {{
  {
    "".join(
        f'''{_at(f"p{i}", "context", FIELDS["syscall_block"][0] + 8 * i)}
  %a{i} = load i64, ptr %p{i}
  '''
        for i in range(7)
    )
}%result = call i64 @aa_syscall(ptr %context, {", ".join(f"i64 %a{i}" for i in range(7))})
  ret i64 %result
}}
"""
