"""Loading a program: its segments, its interpreter's, the stack, and what the kernel says in it.

Addresses are the same in every run (there is no randomisation), so that translated code can be
kept. Sources: Linux ``fs/binfmt_elf.c`` for the order of things on the stack, ``auxvec.h``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import Final

from anyarch.data import dataclass
from anyarch.errors import LoadError
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.elf import ET_DYN, MACHINES, PF_R, PF_W, PF_X, Elf, Segment, read_elf
from anyarch.linux.placement import places
from anyarch.memory.space import AddressSpace

PAGE: Final = 4096
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
_STACK_LEAST, _STACK_MOST = 1 << 20, 1 << 30  # bytes
_STACK_GAP: Final = 1 << 20  # to the next mapping below, as Linux keeps it
_STACK_ROOM: Final = 128 << 20  # that mmap leaves free for it
_ARGUMENTS_LEAST, _ARGUMENTS_MOST = 1 << 17, 6 << 20  # bytes, whatever the limit on the stack
# Auxiliary vector entries, auxvec.h.
_AT_NULL, _AT_PHDR, _AT_PHENT, _AT_PHNUM, _AT_PAGESZ, _AT_BASE, _AT_FLAGS, _AT_ENTRY = (
    0, 3, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
_AT_UID, _AT_EUID, _AT_GID, _AT_EGID, _AT_PLATFORM, _AT_HWCAP, _AT_CLKTCK = range(11, 18)
_AT_SECURE, _AT_RANDOM, _AT_HWCAP2, _AT_EXECFN, _AT_MINSIGSTKSZ = 23, 25, 26, 31, 51


@dataclass(slots=True)
class Image:
    """A loaded program."""

    elf: Elf
    host_path: bytes  # without links, as the kernel has it
    name: bytes  # as it was executed
    arguments: list[bytes]
    start: int  # first pc: the interpreter's entry where there is one
    entry: int  # the program's own entry
    stack: int  # first stack pointer
    heap: int  # where brk starts
    trampoline: int  # code that returns from a signal handler
    auxv: bytes
    argument_range: tuple[int, int]  # where their texts are, one after another
    environment_range: tuple[int, int]


def load_program(
    space: AddressSpace,
    abi: LinuxAbi,
    host_path: bytes,
    name: bytes,
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    find: Callable[[bytes], bytes],
    stack_limit: int,
) -> Image:
    """Load the program in ``host_path`` into ``space``, which is empty. The path may be that of a
    descriptor, whose file has no name any more.

    ``find`` gives the host path of a guest path (of the interpreter). ``stack_limit`` is the soft
    RLIMIT_STACK. Raises
    :class:`~anyarch.errors.LoadError`.
    """
    fd = _open(host_path)
    try:
        elf = read_elf(fd, os.fsdecode(name))
        _check_machine(elf, abi)
        top = _map_stack(space, abi, elf, stack_limit)  # first: nothing else is to be in its place
        bias = _load(space, abi, fd, elf, abi.task_size // 3 * 2)
        host_path = os.readlink(b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)
    start = entry = elf.entry + bias
    interpreter_bias = 0
    if elf.interpreter is not None:
        interpreter, interpreter_bias = _load_interpreter(space, abi, elf, find)
        start = interpreter.entry + interpreter_bias
    trampoline = space.map(
        abi.task_size - 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, fixed=True, name="[sigreturn]"
    )
    space.write(trampoline, abi.trampoline)
    space.protect(trampoline, PAGE, PROT_READ | PROT_EXEC)
    headers = elf.headers_address()
    auxv = [
        (_AT_HWCAP, abi.hwcap),
        (_AT_PAGESZ, PAGE),
        (_AT_CLKTCK, os.sysconf("SC_CLK_TCK")),
        (_AT_PHDR, headers + bias if headers else 0),
        (_AT_PHENT, 56),
        (_AT_PHNUM, len(elf.segments)),
        (_AT_BASE, interpreter_bias),
        (_AT_FLAGS, 0),
        (_AT_ENTRY, entry),
        (_AT_UID, os.getuid()),
        (_AT_EUID, os.geteuid()),
        (_AT_GID, os.getgid()),
        (_AT_EGID, os.getegid()),
        (_AT_SECURE, 0),
        (_AT_HWCAP2, abi.hwcap2),
        (_AT_MINSIGSTKSZ, abi.signal_stack_nbytes),
    ]
    stack, words, ranges = _fill_stack(space, abi, top, name, arguments, environment, auxv)
    return Image(
        elf,
        host_path,
        name,
        list(arguments),
        start,
        entry,
        stack,
        _end(elf, bias),
        trampoline,
        words,
        *ranges,
    )


def load_library(
    space: AddressSpace, abi: LinuxAbi, host_path: bytes, address: int | None = None
) -> int:
    """Map a shared library at an address, by default where a dynamic linker would; its bias.

    Raises :class:`~anyarch.errors.LoadError`.
    """
    fd = _open(host_path)
    try:
        elf = read_elf(fd, os.fsdecode(host_path))
        _check_machine(elf, abi)
        first, last = elf.loads[0].address // PAGE * PAGE, elf.loads[-1]
        if address is None:
            nbytes = _round(last.address + last.memory_nbytes) - first
            address = next(places(fd, nbytes, abi.task_size), 0)
        return _load(space, abi, fd, elf, address)
    finally:
        os.close(fd)


def _open(host_path: bytes) -> int:
    try:
        return os.open(host_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LoadError(f"{os.fsdecode(host_path)}: {error.strerror}") from error


def _check_machine(elf: Elf, abi: LinuxAbi) -> None:
    if elf.machine != abi.elf_machine:
        machine = MACHINES.get(elf.machine, f"ELF machine {elf.machine}")
        raise LoadError(f"{elf.path}: built for {machine}; expected {abi.name}")


def _load_interpreter(
    space: AddressSpace, abi: LinuxAbi, program: Elf, find: Callable[[bytes], bytes]
) -> tuple[Elf, int]:
    assert program.interpreter is not None
    host_path = find(os.fsencode(program.interpreter))
    remedy = (
        f"dynamic programs need -L ROOT, a folder with the {abi.name} system that "
        f"contains {program.interpreter}"
    )
    try:
        fd = os.open(host_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LoadError(
            f"{program.path}: its interpreter {program.interpreter} cannot be opened "
            f"({error.strerror}): {remedy}"
        ) from error
    try:
        elf = read_elf(fd, program.interpreter)
        if elf.machine != abi.elf_machine:
            raise LoadError(
                f"{program.path}: its interpreter {program.interpreter} is not built for "
                f"{abi.name}: {remedy}"
            )
        return elf, _load(space, abi, fd, elf, 0)
    finally:
        os.close(fd)


def _load(space: AddressSpace, abi: LinuxAbi, fd: int, elf: Elf, hint: int) -> int:
    """Map the segments and return the bias: mapped address minus the file's address."""
    name = os.readlink(f"/proc/self/fd/{fd}")
    loads = elf.loads
    first = loads[0].address // PAGE * PAGE
    nbytes = _round(loads[-1].address + loads[-1].memory_nbytes) - first
    try:
        if elf.type == ET_DYN:
            alignment = max(PAGE, *(segment.alignment for segment in loads))
            bias = _reserve(space, nbytes, alignment, hint) - first
        elif first + nbytes > abi.task_size:
            raise LoadError(
                f"{elf.path}: its segments end at {first + nbytes:#x}; expected at most "
                f"{abi.task_size:#x} for {abi.name}"
            )
        else:
            bias = space.map(first, nbytes, 0, fixed=True, noreplace=True) - first
        space.unmap(first + bias, nbytes)
        for segment in loads:
            _map_segment(space, fd, bias, segment, name)
    except OSError as error:
        raise LoadError(
            f"{elf.path}: cannot map {nbytes:#x} bytes at {first:#x}: {error.strerror}"
        ) from error
    return bias


def _reserve(space: AddressSpace, nbytes: int, alignment: int, hint: int) -> int:
    if hint:
        hint = hint // alignment * alignment
        return space.map(hint, nbytes, 0, fixed=True, noreplace=True)
    start = space.map(0, nbytes + alignment - PAGE, 0)
    aligned = -(-start // alignment) * alignment
    space.unmap(start, nbytes + alignment - PAGE)
    return aligned


def _map_segment(space: AddressSpace, fd: int, bias: int, segment: Segment, name: str) -> None:
    if not segment.memory_nbytes:
        return
    prot = (
        (PROT_READ if segment.flags & PF_R else 0)
        | (PROT_WRITE if segment.flags & PF_W else 0)
        | (PROT_EXEC if segment.flags & PF_X else 0)
    )
    address = segment.address + bias
    first = address // PAGE * PAGE
    file_end = address + segment.file_nbytes
    end = _round(address + segment.memory_nbytes)
    mapped = first
    if segment.file_nbytes:
        mapped = _round(file_end)
        zeros = mapped - file_end if segment.memory_nbytes > segment.file_nbytes else 0
        space.map(
            first,
            mapped - first,
            prot | PROT_WRITE if zeros else prot,
            fixed=True,
            fd=fd,
            offset=segment.offset // PAGE * PAGE,
            name=name,
        )
        if zeros:
            space.write(file_end, bytes(zeros))
            if not prot & PROT_WRITE:
                space.protect(first, mapped - first, prot)
    if end > mapped:
        space.map(mapped, end - mapped, prot, fixed=True)


def _end(elf: Elf, bias: int) -> int:
    last = elf.loads[-1]
    return _round(last.address + last.memory_nbytes + bias)


def _round(address: int) -> int:
    return -(-address // PAGE) * PAGE


def _map_stack(space: AddressSpace, abi: LinuxAbi, elf: Elf, limit: int) -> int:
    nbytes = _round(min(max(limit, _STACK_LEAST), _STACK_MOST))
    prot = PROT_READ | PROT_WRITE | (PROT_EXEC if elf.executable_stack else 0)
    top = abi.task_size - 16 * PAGE
    space.map(top - nbytes, nbytes, prot, fixed=True, name="[stack]")
    space.mmap_base = min(abi.task_size - _STACK_ROOM, top - nbytes - _STACK_GAP)
    return top


def grow_stack(space: AddressSpace, limit: int) -> None:
    """Extend the stack for a higher limit, as far as nothing is in the way.

    All of it at once: the host's kernel does not extend it when a system call reaches below.
    """
    with space.lock:
        below, stack = 0, None
        for region in space.regions():
            if region.name == "[stack]":
                stack = region
                break
            below = region.end
        if stack is None:
            return
        start = max(stack.end - _round(min(limit, _STACK_MOST)), below + _STACK_GAP)
        if start < stack.start:
            nbytes = stack.start - start
            space.map(start, nbytes, stack.prot, fixed=True, noreplace=True, name="[stack]")


def arguments_fit(texts: Sequence[bytes], stack_limit: int) -> bool:
    """Whether arguments and environment are not too long for execve, with their pointers."""
    nbytes = sum(len(text) + 9 for text in texts)
    return nbytes <= min(max(stack_limit // 4, _ARGUMENTS_LEAST), _ARGUMENTS_MOST)


def _fill_stack(
    space: AddressSpace,
    abi: LinuxAbi,
    top: int,
    name: bytes,
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    auxv: list[tuple[int, int]],
) -> tuple[int, bytes, tuple[tuple[int, int], tuple[int, int]]]:
    """Write the first stack; return the stack pointer, the auxiliary vector, and where the texts
    of arguments and of the environment are."""
    strings = bytearray()
    offsets = []
    for text in (*arguments, *environment, name, (abi.platform or "").encode()):
        offsets.append(len(strings))
        strings += text + b"\0"
    nbytes = -(-(len(strings) + 16 + 8) // 16) * 16
    base = top - nbytes
    addresses = [base + 16 + offset for offset in offsets]
    auxv = [*auxv, (_AT_RANDOM, base), (_AT_EXECFN, addresses[-2])]
    if abi.platform is not None:
        auxv.append((_AT_PLATFORM, addresses[-1]))
    auxv.append((_AT_NULL, 0))
    vector = b"".join(struct.pack("<QQ", *pair) for pair in auxv)
    split = len(arguments)
    words = [split, *addresses[:split], 0, *addresses[split:-2], 0]
    table = struct.pack(f"<{len(words)}Q", *words) + vector
    stack = (base - len(table)) // 16 * 16
    space.write(stack, table)
    space.write(base, os.urandom(16) + strings)
    middle = addresses[split]
    return stack, vector, ((base + 16, middle), (middle, addresses[-2]))
