"""Reading ELF64 files: the header and the program headers, nothing a running program does not need.

Every offset and size is checked against the file before use; a damaged file is a
:class:`~anyarch.errors.LoadError` that names the field. System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from anyarch.data import dataclass
from anyarch.errors import LoadError

ET_EXEC: Final = 2
ET_DYN: Final = 3
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_PHDR: Final = 6
PT_TLS: Final = 7
PT_GNU_STACK: Final = 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4

MACHINES: Final = {0xF3: "riscv", 0xB7: "aarch64", 0x3E: "x86-64", 0x28: "arm", 0x03: "i386"}
_TYPES: Final = {1: "a relocatable object", 4: "a core dump"}
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_PAGE: Final = 4096
_ADDRESS_LIMIT: Final = 1 << 56  # no architecture here gives a program more


@dataclass(slots=True, frozen=True)
class Segment:
    """One program header."""

    type: int
    flags: int
    offset: int
    address: int
    file_nbytes: int
    memory_nbytes: int
    alignment: int


@dataclass(slots=True, frozen=True)
class Elf:
    """What an ELF file says about running it."""

    path: str
    type: int
    machine: int
    flags: int
    entry: int
    header_offset: int  # of the program headers in the file
    segments: tuple[Segment, ...]
    interpreter: str | None  # of a dynamically linked program

    @property
    def loads(self) -> tuple[Segment, ...]:
        """The segments that are mapped, in the file's order (ascending addresses)."""
        return tuple(segment for segment in self.segments if segment.type == PT_LOAD)

    @property
    def executable_stack(self) -> bool:
        """Whether the program asks for a stack that can be executed."""
        flags = [segment.flags for segment in self.segments if segment.type == PT_GNU_STACK]
        return bool(flags and flags[0] & PF_X)

    def headers_address(self) -> int:
        """The unbiased address at which the program headers are mapped, or 0."""
        for segment in self.segments:
            if segment.type == PT_PHDR:
                return segment.address
        for segment in self.loads:
            if segment.offset <= self.header_offset < segment.offset + segment.file_nbytes:
                return segment.address + self.header_offset - segment.offset
        return 0


def read_elf(fd: int, path: str) -> Elf:
    """Read the ELF file open as ``fd``; ``path`` is for messages only.

    Raises :class:`~anyarch.errors.LoadError` when the file cannot be run.
    """
    nbytes = os.fstat(fd).st_size
    head = os.pread(fd, _HEADER.size, 0)
    if head[:4] != b"\x7fELF":
        raise LoadError(f"{path}: not an ELF file: the first bytes are {head[:4].hex(' ')!r}")
    if len(head) < _HEADER.size:
        raise LoadError(f"{path}: truncated: {len(head)} bytes, but the ELF header needs 64")
    ident, type_, machine, version, entry, offset, _, flags, _, entry_nbytes, count, *_ = (
        _HEADER.unpack(head)
    )
    _require(path, "e_ident[EI_CLASS]", ident[4], ident[4] == 2, "2 (64-bit)")
    _require(path, "e_ident[EI_DATA]", ident[5], ident[5] == 1, "1 (little-endian)")
    _require(path, "e_version", version, version == 1, "1")
    if type_ not in (ET_EXEC, ET_DYN):
        what = _TYPES.get(type_, f"of type {type_}")
        raise LoadError(f"{path}: it is {what}; expected an executable (e_type 2 or 3)")
    _require(path, "e_phentsize", entry_nbytes, entry_nbytes == _SEGMENT.size, str(_SEGMENT.size))
    _require(path, "e_phnum", count, 0 < count < 0xFFFF, "at least one program header")
    end = offset + count * _SEGMENT.size
    _require(path, "e_phoff", offset, end <= nbytes, f"{count} headers within {nbytes} bytes")
    table = os.pread(fd, count * _SEGMENT.size, offset)
    if len(table) != count * _SEGMENT.size:
        raise LoadError(f"{path}: the program headers could not be read in full")
    segments = []
    interpreter = None
    for index, fields in enumerate(_SEGMENT.iter_unpack(table)):
        kind, permissions, start, address, _, file_nbytes, memory_nbytes, alignment = fields
        segment = Segment(kind, permissions, start, address, file_nbytes, memory_nbytes, alignment)
        if kind == PT_LOAD:
            _check_load(path, index, segment, nbytes)
        elif kind == PT_INTERP:
            interpreter = _read_interpreter(fd, path, index, segment, nbytes)
        segments.append(segment)
    elf = Elf(path, type_, machine, flags, entry, offset, tuple(segments), interpreter)
    _check_order(elf)
    return elf


def _require(path: str, field: str, value: int, holds: bool, expected: str) -> None:
    if not holds:
        raise LoadError(f"{path}: damaged ELF header: {field} is {value}; expected {expected}")


def _check_load(path: str, index: int, segment: Segment, nbytes: int) -> None:
    def damaged(what: str) -> LoadError:
        return LoadError(f"{path}: damaged program header {index}: {what}")

    if segment.offset + segment.file_nbytes > nbytes:
        raise damaged(
            f"p_offset {segment.offset:#x} + p_filesz {segment.file_nbytes:#x} is past "
            f"the end of the file ({nbytes:#x} bytes; is it truncated?)"
        )
    if segment.file_nbytes > segment.memory_nbytes:
        raise damaged(
            f"p_filesz {segment.file_nbytes:#x} exceeds p_memsz {segment.memory_nbytes:#x}"
        )
    if segment.address + segment.memory_nbytes > _ADDRESS_LIMIT:
        raise damaged(
            f"p_vaddr {segment.address:#x} + p_memsz {segment.memory_nbytes:#x} is past "
            f"{_ADDRESS_LIMIT:#x}, the end of any address space"
        )
    if (segment.address - segment.offset) % _PAGE:
        raise damaged(
            f"p_vaddr {segment.address:#x} and p_offset {segment.offset:#x} differ modulo the "
            f"page size; expected them to agree"
        )
    if segment.alignment & (segment.alignment - 1):
        raise damaged(f"p_align {segment.alignment:#x}; expected a power of two")


def _read_interpreter(fd: int, path: str, index: int, segment: Segment, nbytes: int) -> str:
    if not 2 <= segment.file_nbytes <= 4096 or segment.offset + segment.file_nbytes > nbytes:
        raise LoadError(
            f"{path}: damaged program header {index}: the interpreter's name has p_filesz "
            f"{segment.file_nbytes} at p_offset {segment.offset:#x}; expected 2 to 4096 bytes "
            f"inside the file"
        )
    name = os.pread(fd, segment.file_nbytes, segment.offset)
    if name[-1:] != b"\0":
        raise LoadError(f"{path}: damaged: the interpreter's name does not end in a zero byte")
    return os.fsdecode(name[: name.index(b"\0")])


def _check_order(elf: Elf) -> None:
    loads = elf.loads
    if not loads:
        raise LoadError(f"{elf.path}: nothing to load: it has no program header of type PT_LOAD")
    previous = 0
    for segment in loads:
        if segment.address < previous:
            raise LoadError(
                f"{elf.path}: damaged program headers: the PT_LOAD segment at "
                f"{segment.address:#x} overlaps or precedes the one that ends at {previous:#x}; "
                f"expected ascending addresses"
            )
        previous = segment.address + segment.memory_nbytes
