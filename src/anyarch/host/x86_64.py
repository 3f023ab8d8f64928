"""What the signal handlers and the runtime need to know of x86-64 Linux.

Offsets into the kernel's `struct ucontext` (arch/x86/include/uapi/asm/sigcontext.h), system call
numbers, and the assembly that cannot be written in LLVM's language: changing stacks.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.host.context import FIELDS

# struct ucontext
UC_STACK: Final = 16  # ss_sp, ss_flags, ss_size
UC_ARGUMENT_0: Final = 104  # rdi
UC_ARGUMENT_1: Final = 112  # rsi
UC_REGISTERS: Final = 40  # r8 to r15, then the others
REGISTERS_NBYTES: Final = 128
# Where in there each register is, by its number in DWARF (System V ABI, figure 3.36).
DWARF_ORDER: Final = (13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7)
UC_PC: Final = 168
UC_SIGMASK: Final = 296

NR_MPROTECT: Final = 10
NR_RT_SIGACTION: Final = 13
NR_RT_SIGPROCMASK: Final = 14
NR_SCHED_YIELD: Final = 24
NR_DUP2: Final = 33
NR_GETPID: Final = 39
NR_CLONE: Final = 56
NR_EXECVE: Final = 59
NR_ARCH_PRCTL: Final = 158
ARCH_SET_GS: Final = 0x1001
NR_SETSID: Final = 112
NR_SIGALTSTACK: Final = 131
NR_GETTID: Final = 186
NR_EXIT_GROUP: Final = 231
NR_RT_TGSIGQUEUEINFO: Final = 297
NR_CLONE3: Final = 435
NR_CLOSE_RANGE: Final = 436

SYSCALL_4: Final = (  # inline assembly and its constraints: number, four arguments
    '"syscall", "={rax},{rax},{rdi},{rsi},{rdx},{r10},~{rcx},~{r11},~{memory}"'
)


def closure(target: int, data: int) -> bytes:
    """Code that jumps to `target` with `data` as fourth C argument: a signal action's address."""
    return struct.pack("<2sQ2sQ2s", b"\x48\xb9", data, b"\x48\xb8", target, b"\xff\xe0")


def fork_function(before: int, in_child: int, in_parent: int) -> bytes:
    """A C function that calls `before`, clone3 with its two arguments, and one of the others; its
    result is clone3's."""
    return (
        b"\x53\x41\x54\x41\x55"  # push rbx; push r12; push r13
        + b"\x48\x89\xfb\x49\x89\xf4"  # mov rbx, rdi; mov r12, rsi
        + struct.pack("<2sQ2s", b"\x48\xb8", before, b"\xff\xd0")  # call before
        + b"\x48\x89\xdf\x4c\x89\xe6"  # mov rdi, rbx; mov rsi, r12
        + struct.pack("<sI2s", b"\xb8", NR_CLONE3, b"\x0f\x05")  # mov eax, clone3; syscall
        + b"\x49\x89\xc5\x48\x85\xc0"  # mov r13, rax; test rax, rax
        + struct.pack("<2sQ", b"\x48\xb8", in_child)  # mov rax, in_child
        + struct.pack("<2sQ", b"\x48\xb9", in_parent)  # mov rcx, in_parent
        + b"\x48\x0f\x45\xc1\xff\xd0"  # cmovnz rax, rcx; call rax
        + b"\x4c\x89\xe8"  # mov rax, r13
        + b"\x41\x5d\x41\x5c\x5b\xc3"  # pop r13; pop r12; pop rbx; ret
    )


def call_stub(pc: int, helper: str, stack_nbytes: int) -> bytes:
    """Code that has a function of the context go on at `pc` for a region, all arguments left."""
    return (
        b"\x49\x89\xe3"  # mov r11, rsp
        + struct.pack("<3sI", b"\x49\x81\xcb", stack_nbytes - 1)  # or r11, size of the stack - 1
        + b"\x4d\x8b\x5b\xf9"  # mov r11, [r11 - 7]: the context
        + struct.pack("<2sQ", b"\x49\xba", pc)  # mov r10, pc
        + struct.pack("<3sI", b"\x4d\x89\x93", _O["pc"])  # mov [r11 + pc], r10
        + struct.pack("<3sI", b"\x41\xff\xa3", _O[helper])  # jmp [r11 + helper]
    )


_O = {name: offset for name, (offset, _) in FIELDS.items()}

ASSEMBLY: Final = f"""\
.intel_syntax noprefix
.text
.globl aa_enter
.hidden aa_enter
.type aa_enter, @function
.p2align 4
aa_enter:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    stmxcsr [rdi + {_O["host_mxcsr"]}]
    ldmxcsr [rdi + {_O["mxcsr"]}]
    mov [rdi + {_O["host_stack"]}], rsp
    mov rsp, [rdi + {_O["own_stack"]}]
    push rdi
    sub rsp, 8
    mov dword ptr [rdi + {_O["in_native"]}], 1
    mov rax, rsi
    mov rsi, rdx
    mov rdx, [rdi + {_O["memory_base"]}]
    call rax
    mov rdi, [rsp + 8]
    mov esi, eax
.globl aa_leave
.hidden aa_leave
.type aa_leave, @function
aa_leave:
    mov dword ptr [rdi + {_O["in_native"]}], 0
    stmxcsr [rdi + {_O["mxcsr"]}]
    ldmxcsr [rdi + {_O["host_mxcsr"]}]
    VZEROUPPER
    mov [rdi + {_O["exit_code"]}], esi
    mov rsp, [rdi + {_O["host_stack"]}]
    mov eax, esi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
.globl aa_drop
.hidden aa_drop
.type aa_drop, @function
.p2align 4
aa_drop:
    mov rsp, [rdi + {_O["own_stack"]}]
    push rdi
    sub rsp, 8
aa_drop_again:
    mov rdx, [rdi + {_O["memory_base"]}]
    xor esi, esi
    call [rdi + {_O["run_entry"]}]
    mov rdi, [rsp + 8]
    test eax, eax
    jz aa_drop_again
    mov esi, eax
    jmp aa_leave
.globl aa_syscall
.hidden aa_syscall
.type aa_syscall, @function
.p2align 4
aa_syscall:
    mov rax, rsi
    mov rsi, rcx
    mov rcx, rdi
    mov rdi, rdx
    mov rdx, r8
    mov r10, r9
    mov r8, [rsp + 8]
    mov r9, [rsp + 16]
.globl aa_syscall_window
.hidden aa_syscall_window
aa_syscall_window:
    cmp dword ptr [rcx + {_O["stop"]}], 0
    jne aa_syscall_interrupted
    syscall
.globl aa_syscall_window_end
.hidden aa_syscall_window_end
aa_syscall_window_end:
    ret
.globl aa_syscall_interrupted
.hidden aa_syscall_interrupted
aa_syscall_interrupted:
    mov rax, -512
    ret
.globl aa_restorer
.hidden aa_restorer
.type aa_restorer, @function
.p2align 4
    nop
aa_restorer:
    mov eax, 15
    syscall
.att_syntax
"""


def assembly(features: frozenset[str]) -> str:
    """The runtime's assembly for a processor with `features`."""
    # Upper halves of vector registers left in use would slow down all later SSE code.
    return ASSEMBLY.replace("VZEROUPPER", "vzeroupper" if "avx" in features else "")
