"""What differs between Linux architectures, as data: one :class:`LinuxAbi` per guest.

Everything else in this package is neutral. The signal frame here is the one that new architectures
share (``siginfo``, then ``ucontext``); its last part, the machine context, is the guest's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from anyarch.data import dataclass, field


class Registers(Protocol):
    """The guest's registers, by register file and index."""

    pc: int

    def get(self, file: str, index: int, /) -> int:
        """Read a register as an unsigned integer."""
        ...

    def set(self, file: str, index: int, value: int, /) -> None:
        """Write a register, modulo its width."""
        ...

    def file(self, name: str, /) -> bytes:
        """All registers of a file, little-endian."""
        ...

    def set_file(self, name: str, data: bytes, /) -> None:
        """Write all registers of a file."""
        ...


@dataclass(frozen=True, slots=True)
class Handler:
    """What a signal handler is entered with."""

    address: int
    signum: int
    stack: int  # the frame: siginfo, then ucontext
    siginfo: int
    ucontext: int
    restorer: int  # where the handler returns to


@dataclass(frozen=True, slots=True)
class LinuxAbi:
    """One guest architecture as Linux programs see it."""

    name: str
    machine: str  # for uname
    elf_machine: int
    file: str  # the register file of everything below
    number: int
    arguments: tuple[int, ...]
    result: int
    stack: int
    thread_pointer: tuple[str, int]
    call_nbytes: int  # of the system call instruction
    task_size: int  # end of a program's addresses
    hwcap: int
    calls: Mapping[int, str]  # system call names by number
    trampoline: bytes  # code that calls rt_sigreturn
    context_nbytes: int  # of the machine context in a signal frame
    save_context: Callable[[Registers], bytes]
    restore_context: Callable[[Registers, bytes], None]
    enter_handler: Callable[[Registers, Handler], None]
    core_registers: Callable[[Registers], tuple[bytes, bytes]]  # of a core: pr_reg, floating point
    hwprobe: Mapping[int, int] = field(default_factory=dict)  # riscv_hwprobe, value by key
    cpuinfo: str = ""  # one processor's part of /proc/cpuinfo, with {index}
    hwcap2: int = 0
    platform: str | None = None
    signal_stack_nbytes: int = 2048  # AT_MINSIGSTKSZ
    return_address: int | None = None  # the register that holds it, if one does
    registers: int = 32  # in ``file``
    has_restorer: bool = False  # sigaction carries sa_restorer
    open_flags: Mapping[int, int] = field(default_factory=dict)  # guest bit to host bit
    exceptions: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # signal, si_code

    def number_of(self, name: str) -> int:
        """The number of a system call; KeyError when this architecture has none."""
        for number, known in self.calls.items():
            if known == name:
                return number
        raise KeyError(name)

    def host_open_flags(self, flags: int) -> int:
        """The host's value of guest ``O_*`` flags."""
        return _translate(flags, self.open_flags.items())

    def guest_open_flags(self, flags: int) -> int:
        """The guest's value of host ``O_*`` flags."""
        return _translate(flags, [(host, guest) for guest, host in self.open_flags.items()])


def _translate(flags: int, pairs: Collection[tuple[int, int]]) -> int:
    known = 0
    for source, _ in pairs:
        known |= source
    result = flags & ~known
    for source, target in pairs:
        if flags & source:
            result |= target
    return result


_HOST_STAT: Final = struct.Struct("<QQQIIIxxxxQqqq6q")
_GENERIC_STAT: Final = struct.Struct("<QQIIIIQQqiiq6qQ")


def generic_stat(host: bytes) -> bytes:
    """``struct stat`` of asm-generic from that of an x86-64 host."""
    device, inode, links, mode, uid, gid, special, size, block, blocks, *times = _HOST_STAT.unpack(
        host[: _HOST_STAT.size]
    )
    return _GENERIC_STAT.pack(
        device, inode, mode, links, uid, gid, special, 0, size, block, 0, blocks, *times, 0
    )
