"""Relocatable ELF objects as LLVM writes them, taken apart quickly: sections, symbols, relocations.

System V ABI, AMD64 supplement 1.0, chapter 4. Programs of guests are read with pyelftools; this is
for the thousands of small objects that the compiler makes.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.errors import CompileError

# ELF constants (elf.h) under their own names.
SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 2, 4, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2
STB_LOCAL = 0
_EM_X86_64 = 62
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELOCATION: Final = struct.Struct("<QIIq")


class Section:
    """A row of the section header table."""

    __slots__ = (
        "_elf", "align", "flags", "info", "kind", "link", "name", "nbytes", "offset", "place",
    )  # fmt: skip

    def __init__(self, name: str, fields: tuple[int, ...], elf: bytes) -> None:
        self.name, self._elf = name, elf
        _, self.kind, self.flags, _, self.offset, self.nbytes = fields[:6]
        self.link, self.info, self.align, _ = fields[6:]
        self.place = -1  # offset in the image; -1 outside it

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self._elf[self.offset : self.offset + self.nbytes]


class Symbol:
    """A row of the symbol table."""

    __slots__ = ("binding", "name", "nbytes", "section", "value")

    def __init__(self, name: str, binding: int, section: int, value: int, nbytes: int) -> None:
        self.name = name
        self.binding = binding
        self.section = section
        self.value = value
        self.nbytes = nbytes


class Object:
    """A little-endian x86-64 ELF file; CompileError where it is none."""

    __slots__ = ("_bytes", "sections", "symbols")

    def __init__(self, elf: bytes) -> None:
        if elf[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", elf, 18)[0] != _EM_X86_64:
            raise CompileError("the object is not a little-endian x86-64 ELF file")
        self._bytes = elf
        self.sections = self._read_sections()
        self.symbols = self._read_symbols()

    def relocations(self, section: Section) -> list[tuple[int, int, int, int]]:
        """What is to be relocated in a section, by offset: offset, type, symbol, addend."""
        found: list[tuple[int, int, int, int]] = []
        for table in self.sections:
            if table.kind == SHT_RELA and self.sections[table.info] is section:
                found += _RELOCATION.iter_unpack(table.content)
        return sorted(found)

    def _read_sections(self) -> list[Section]:
        elf = self._bytes
        (start,) = struct.unpack_from("<Q", elf, 40)
        _, count, names_index = struct.unpack_from("<HHH", elf, 58)
        if count == 0:  # more than 65,279 sections: the count is in section 0
            count, names_index = struct.unpack_from("<QI", elf, start + 32)
        rows = list(_SECTION.iter_unpack(elf[start : start + count * _SECTION.size]))
        names = rows[names_index][4]
        return [Section(self._string(names + row[0]), row, elf) for row in rows]

    def _read_symbols(self) -> list[Symbol]:
        for table in self.sections:
            if table.kind == SHT_SYMTAB:
                names = self.sections[table.link].offset
                return [
                    Symbol(self._string(names + name), info >> 4, section, value, nbytes)
                    for name, info, _, section, value, nbytes in _SYMBOL.iter_unpack(table.content)
                ]
        return []

    def _string(self, offset: int) -> str:
        return self._bytes[offset : self._bytes.index(0, offset)].decode()
