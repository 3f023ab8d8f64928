"""RISC-V 64 Linux: registers, system call numbers, signal context.

Sources: the psABI's calling convention, and the kernel's exported headers under ``arch/riscv``:
``asm/sigcontext.h``, ``asm/hwcap.h``, ``asm/hwprobe.h``.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.linux.abi import Handler, LinuxAbi, Registers
from anyarch.linux.numbers import GENERIC

RA, SP, TP, A0 = 1, 2, 4, 10
_CALLS: Final = {number: name for number, name in GENERIC.items() if name != "renameat"} | {
    258: "riscv_hwprobe",
    259: "riscv_flush_icache",
}

# struct sigcontext: pc and x1 to x31, then a union of 528 bytes whose D form is f0 to f31 and fcsr;
# the union's last words are the header that ends the list of extension states: zeros.
_WORD: Final = struct.Struct("<Q")
_FCSR: Final = struct.Struct("<I")
_INTEGERS_NBYTES: Final = 32 * 8
_FLOATS_NBYTES: Final = 32 * 8
_CONTEXT_NBYTES: Final = _INTEGERS_NBYTES + 528


def _save_context(state: Registers) -> bytes:
    integers = _WORD.pack(state.pc) + state.file("x")[_WORD.size :]
    fcsr = _FCSR.pack(state.get("fcsr", 0) | state.get("fcsr", 1) << 5)
    return (integers + state.file("f") + fcsr).ljust(_CONTEXT_NBYTES, b"\0")


def _restore_context(state: Registers, context: bytes) -> None:
    (pc,) = _WORD.unpack_from(context)
    (fcsr,) = _FCSR.unpack_from(context, _INTEGERS_NBYTES + _FLOATS_NBYTES)
    state.pc = pc & ~1
    state.set_file("x", context[:_INTEGERS_NBYTES])
    state.set_file("f", context[_INTEGERS_NBYTES : _INTEGERS_NBYTES + _FLOATS_NBYTES])
    state.set("fcsr", 0, fcsr & 31)
    state.set("fcsr", 1, fcsr >> 5 & 7)


def _enter_handler(state: Registers, handler: Handler) -> None:
    state.set("x", RA, handler.restorer)
    state.set("x", SP, handler.stack)
    state.set("x", A0, handler.signum)
    state.set("x", A0 + 1, handler.siginfo)
    state.set("x", A0 + 2, handler.ucontext)
    state.pc = handler.address


def _core_registers(state: Registers) -> tuple[bytes, bytes]:
    context = _save_context(state)
    return context[:_INTEGERS_NBYTES], context[_INTEGERS_NBYTES : _INTEGERS_NBYTES + 33 * 8]


def _letters(names: str) -> int:
    return sum(1 << ord(name) - ord("a") for name in names)


# asm/hwprobe.h, key IMA_EXT_0: what is defined under guests/riscv.
_EXTENSIONS: Final = sum(
    1 << bit
    for bit in (
        0,  # F and D
        1,  # C
        3,  # Zba
        4,  # Zbb
        5,  # Zbs
        6,  # Zicboz
        7,  # Zbc
        27,  # Zfh
        28,  # Zfhmin
        32,  # Zfa
        34,  # Zacas
        35,  # Zicond
        36,  # Zihintpause
        48,  # Zawrs
    )
)

RISCV64: Final = LinuxAbi(
    name="riscv64",
    machine="riscv64",
    elf_machine=0xF3,
    file="x",
    number=17,
    arguments=(10, 11, 12, 13, 14, 15),
    result=A0,
    stack=SP,
    thread_pointer=("x", TP),
    call_nbytes=4,
    task_size=1 << 38,  # Sv39
    hwcap=_letters("imafdc"),
    calls=_CALLS,
    trampoline=bytes.fromhex("9308b008 73000000"),  # li a7, 139; ecall
    context_nbytes=_CONTEXT_NBYTES,
    save_context=_save_context,
    restore_context=_restore_context,
    enter_handler=_enter_handler,
    core_registers=_core_registers,
    return_address=RA,
    hwprobe={
        0: 0,  # vendor, architecture and implementation ids
        1: 0,
        2: 0,
        3: 1,  # base behaviour: IMA
        4: _EXTENSIONS,
        5: 3,  # misaligned accesses are fast
        6: 64,  # block of cbo.zero
        7: (1 << 38) - 1,  # highest address
        8: 10_000_000,  # frequency of the time counter
        9: 3,  # misaligned scalar accesses are fast
    },
    exceptions={4: (7, 1), 6: (7, 1)},  # misaligned: SIGBUS, BUS_ADRALN
    cpuinfo=(
        "processor\t: {index}\nhart\t\t: {index}\nisa\t\t: rv64imafdc_zicntr_zicsr_zifencei\n"
        "mmu\t\t: sv39\nuarch\t\t: anyarch\nmvendorid\t: 0x0\nmarchid\t\t: 0x0\nmimpid\t\t: 0x0\n\n"
    ),
)
