"""AArch64 Linux: registers, system call numbers, signal context.

Sources: the kernel's exported headers under ``arch/arm64``: ``asm/sigcontext.h``, ``asm/hwcap.h``,
``asm/fcntl.h``; ``arch/arm64/elf_hwcaps.rst``.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.linux.abi import Handler, LinuxAbi, Registers
from anyarch.linux.numbers import GENERIC

FP, LR, SP = 29, 30, 31

# struct sigcontext: the fault's address, x0 to x30, sp, pc, pstate; then 4096 aligned bytes of
# records, of which the first is the floating-point one and the next, of zeros, ends the list.
_INTEGERS: Final = struct.Struct("<Q256sQQ8x")
_FLOATS: Final = struct.Struct("<IIII512s")
_CONTEXT_NBYTES: Final = _INTEGERS.size + 4096
_FPSIMD_MAGIC: Final = 0x46508001

# Bits of FPCR above the rounding mode, as fpmode keeps them; accrued flags of FPSR.
_MODES: Final = ((3, 24), (4, 25), (5, 26), (6, 19))
_FLAGS: Final = ((0, 4), (1, 3), (2, 2), (3, 1), (4, 0), (5, 7))
_ROUNDINGS: Final = (0, 3, 2, 1)  # FPCR's numbers to the engines', and back


def _move(value: int, places: tuple[tuple[int, int], ...], *, back: bool = False) -> int:
    pairs = [(theirs, ours) if back else (ours, theirs) for ours, theirs in places]
    return sum((value >> source & 1) << target for source, target in pairs)


def _fpcr(state: Registers) -> int:
    mode = state.get("fpstatus", 1)
    return _ROUNDINGS[mode & 3] << 22 | _move(mode, _MODES)


def _fpsr(state: Registers) -> int:
    return _move(state.get("fpstatus", 0), _FLAGS) | (state.get("qc", 0) & 1) << 27


def _pstate(state: Registers) -> int:
    flags = sum((state.get("flag", index) & 1) << 31 - index for index in range(4))
    return flags | state.get("system", 2) | state.get("system", 3)


def _save_context(state: Registers) -> bytes:
    status = _fpsr(state), _fpcr(state)
    floats = _FLOATS.pack(_FPSIMD_MAGIC, _FLOATS.size, *status, state.file("v"))
    context = _INTEGERS.pack(0, state.file("r"), state.pc, _pstate(state)) + floats
    return context.ljust(_CONTEXT_NBYTES, b"\0")


def _restore_context(state: Registers, context: bytes) -> None:
    _, integers, pc, pstate = _INTEGERS.unpack_from(context)
    _, _, fpsr, fpcr, vectors = _FLOATS.unpack_from(context, _INTEGERS.size)
    state.pc = pc
    state.set_file("r", integers)
    for index in range(4):
        state.set("flag", index, pstate >> 31 - index & 1)
    state.set("system", 2, pstate & 1 << 24)
    state.set("system", 3, pstate & 1 << 12)
    state.set_file("v", vectors)
    state.set("fpstatus", 0, _move(fpsr, _FLAGS, back=True))
    state.set("fpstatus", 1, _ROUNDINGS[fpcr >> 22 & 3] | _move(fpcr, _MODES, back=True))
    state.set("qc", 0, fpsr >> 27 & 1)


def _enter_handler(state: Registers, handler: Handler) -> None:
    state.set("r", LR, handler.restorer)
    state.set("r", SP, handler.stack)
    state.set("r", 0, handler.signum)
    state.set("r", 1, handler.siginfo)
    state.set("r", 2, handler.ucontext)
    state.pc = handler.address


def _core_registers(state: Registers) -> tuple[bytes, bytes]:
    floats = state.file("v") + struct.pack("<II8x", _fpsr(state), _fpcr(state))
    return state.file("r") + struct.pack("<QQ", state.pc, _pstate(state)), floats


# What is defined under guests/aarch64, by the bit in AT_HWCAP and the word in /proc/cpuinfo.
_HWCAP: Final = {
    0: "fp",
    1: "asimd",
    3: "aes",
    4: "pmull",
    5: "sha1",
    6: "sha2",
    7: "crc32",
    8: "atomics",
    9: "fphp",
    10: "asimdhp",
    11: "cpuid",
    12: "asimdrdm",
    13: "jscvt",
    14: "fcma",
    15: "lrcpc",
    16: "dcpop",
    17: "sha3",
    20: "asimddp",
    21: "sha512",
    23: "asimdfhm",
    24: "dit",
    26: "ilrcpc",
    27: "flagm",
    28: "ssbs",
    29: "sb",
}
_HWCAP2: Final = {0: "dcpodp", 7: "flagm2", 8: "frint", 13: "i8mm", 14: "bf16", 15: "dgh"}

AARCH64: Final = LinuxAbi(
    name="aarch64",
    machine="aarch64",
    elf_machine=0xB7,
    file="r",
    number=8,
    arguments=(0, 1, 2, 3, 4, 5),
    result=0,
    stack=SP,
    thread_pointer=("system", 0),
    call_nbytes=4,
    task_size=1 << 38,
    hwcap=sum(1 << bit for bit in _HWCAP),
    hwcap2=sum(1 << bit for bit in _HWCAP2),
    platform="aarch64",
    calls=GENERIC,
    trampoline=bytes.fromhex("681180d2 010000d4"),  # mov x8, 139; svc 0
    context_nbytes=_CONTEXT_NBYTES,
    save_context=_save_context,
    restore_context=_restore_context,
    enter_handler=_enter_handler,
    core_registers=_core_registers,
    return_address=LR,
    signal_stack_nbytes=5120,
    has_restorer=True,
    open_flags={0o40000: 0o200000, 0o100000: 0o400000, 0o200000: 0o40000, 0o400000: 0o100000},
    exceptions={1: (7, 1)},  # misaligned: SIGBUS, BUS_ADRALN
    cpuinfo=(
        "processor\t: {index}\nBogoMIPS\t: 2000.00\n"
        f"Features\t: {' '.join([*_HWCAP.values(), *_HWCAP2.values()])}\n"
        "CPU implementer\t: 0x00\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        "CPU part\t: 0x000\nCPU revision\t: 0\n\n"
    ),
)
