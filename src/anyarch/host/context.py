"""The thread context: the flat buffer that native code receives as its first argument.

The first kilobyte is this header, the same for every guest. The guest's registers follow at
``REGISTERS`` in the layout that its ``registers.py`` declares. Native code addresses a field by
its offset, Python through :class:`Context`.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
from typing import Final


class ExitCode(enum.IntEnum):
    """Why native code returned to Python."""

    STOP = 1  # the stop flag was seen: a signal, Ctrl-C or another thread's request
    SYSCALL = 2  # system call that the native thunk does not serve; pc is past the instruction
    BREAKPOINT = 3  # breakpoint instruction; pc is at it
    ILLEGAL = 4  # no such instruction; pc is at it
    FAULT = 5  # data access; fault_address, fault_signal and fault_code say which
    FETCH = 6  # pc (or the page after it, fault_address) is not executable
    BUDGET = 7  # the instruction budget does not cover the block at pc
    STEP = 8  # an unchained block ended
    EMULATE = 9  # this instruction, with these operands, is for the reference engine
    FLUSH = 10  # the record arena is full
    CODE_CHANGED = 11  # the guest announced changed code; pc is past the instruction
    EXCEPTION = 12  # guest exception number in exit_detail, value in fault_address; pc is at it
    HOOK = 13  # the instruction at pc has a hook
    HALT = 14  # the guest waits for an interrupt; pc is past the instruction
    NEW = 15  # code at pc is to be compiled before it runs


# name: (offset, nbytes). Offsets are part of the cache key of native code.
FIELDS: Final[dict[str, tuple[int, int]]] = {
    "pc": (8, 8),
    "record": (16, 8),  # host pointer: the record whose instruction may fault or has left
    "memory_base": (24, 8),  # host pointer of guest address 0
    "memory_limit": (32, 8),  # size in bytes of a bounded arena
    "fault_address": (40, 8),  # guest address
    "fault_signal": (48, 4),
    "fault_code": (52, 4),  # si_code
    "exit_detail": (56, 8),
    "host_stack": (64, 8),  # saved by enter
    "own_stack": (72, 8),  # top of the stack that native code runs on
    "mxcsr": (80, 4),  # the guest's, while outside native code
    "host_mxcsr": (84, 4),
    "code_start": (88, 8),  # host addresses between which a faulting instruction is ours
    "code_end": (96, 8),
    "leave_pointer": (104, 8),  # where the fault handler continues
    "syscall_table": (112, 8),  # 512 entries of 16 bytes, see linux/thunks
    "syscall_thunk": (120, 8),  # native function (context, memory base) -> 0 served, 1 for Python
    "abi": (128, 16),  # eight u16 context offsets: number, six arguments, result
    "remaining": (144, 8),  # instruction budget, signed
    "translator": (152, 8),  # host pointer of the translator's state
    "pending": (160, 8),  # guest-owned signals that have arrived, bit (signal - 1)
    "jump_cache": (168, 8),  # host pointer: direct-mapped {guest pc, record pointer}
    "reservation_address": (176, 8),  # load-reserved: address, or all ones
    "reservation_value": (184, 16),
    "exit_code": (204, 4),
    "in_native": (200, 4),  # nonzero between enter and leave
    "scratch": (208, 16),  # written by discarded register writes
    "zero": (224, 32),  # always zero: read for hard-wired zero registers
    "syscall_window": (256, 8),  # host code from the check of `stop` to the syscall instruction
    "syscall_window_end": (264, 8),
    "syscall_interrupted": (272, 8),  # where a signal sends a thread found in that window
    # Instructions from pc after which all registers are exact, where a region has left at a poll.
    "unfinished": (280, 4),
    "run_entry": (344, 8),  # native function that continues at pc
    "region_call": (368, 8),  # native functions that regions pass all registers to: run code at pc
    "region_return": (376, 8),  # a return came back with a pc that was not expected
    "region_leave": (384, 8),  # leave with exit_code
    "region_drop": (392, 8),  # continue at pc on an empty stack
    "region_table": (400, 8),  # host pointer: region entries by hash of pc, see engine/convention
    "region_base": (408, 8),  # host pointer that the table's entries are relative to
    "fault_registers": (640, 128),  # of the host at that instruction, as in its signal frame
    "fault_host": (416, 8),  # host address of the instruction that faulted, 0 once it was seen
    "ignored_bits": (472, 4),  # of the guest's pointers, the highest ones
    "tags_met": (476, 4),  # nonzero: a region without masks has met a pointer that has some of them
    "signal_mask": (512, 8),  # what the guest blocks
    "signals_held": (520, 8),  # nonzero: signals have arrived that the mask may hold back
    # Blocks note their calls here, the last before place `returns_next`: see engine/returns.
    "returns": (768, 256),
    "returns_next": (480, 8),
    "changed_start": (560, 8),  # guest addresses: between them code was announced as changed,
    "changed_end": (568, 8),  # unless this is 0
    # Host function that makes the guest's condition flags of its inputs; 0: they are in registers.
    "flags_maker": (432, 8),
    "flags_inputs": (440, 32),
    "region_goto": (424, 8),  # like region_call, for what is no call
    "context": (528, 8),  # host pointer of the context itself
    # A region that is entered with less stack drops it. The highest two bytes, zero in an address,
    # are those of `stop`: a region sees both with one comparison.
    "stack_limit": (538, 8),
    "stop": (544, 4),  # nonzero asks running code to return; polled at taken branches and calls
    "notes": (548, 4),  # how many polls the interpreter notes without returning, see NOTES
    "syscall_block": (288, 56),  # number and six arguments of a host system call from Python
}
# Bytes of the stop field: asked from outside, a pass through Python wanted, one instruction only.
# Each has one writer at a time, so that none can undo another.
STOP, PASS, STEPPING = (FIELDS["stop"][0] + index for index in range(3))
REGISTERS: Final = 1024  # first byte of the guest's registers
SIGNAL_INFO: Final = 16384  # 64 entries of 128 bytes: the siginfo of each pending signal
# What was noted at polls, the latest first: source (see Sampler.note), pc, and the registers of the
# link register's file.
NOTES: Final = SIGNAL_INFO + 64 * 128
NOTE_COUNT: Final = 8
NOTE_NBYTES: Final = 512
NBYTES: Final = NOTES + NOTE_COUNT * NOTE_NBYTES


class Context:
    """A context buffer, page-aligned and zeroed, freed with the object."""

    __slots__ = ("_buffer", "pointer", "view")

    def __init__(self) -> None:
        self._buffer = mmap.mmap(-1, NBYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._buffer)
        self.pointer: int = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self.set("context", self.pointer)

    def get(self, name: str) -> int:
        """Read a header field as an unsigned integer."""
        offset, nbytes = FIELDS[name]
        return int.from_bytes(self.view[offset : offset + nbytes], "little")

    def set(self, name: str, value: int) -> None:
        """Write a header field, modulo its width."""
        offset, nbytes = FIELDS[name]
        value &= (1 << 8 * nbytes) - 1
        self.view[offset : offset + nbytes] = value.to_bytes(nbytes, "little")
