"""Where code begins in an ELF file: what symbols, unwind tables, relocations and data say.

All of it are hints for ahead-of-time compilation: a wrong address costs the time to compile it, a
missing one is compiled when it runs. System V ABI chapters 4 and 5; LSB 5.0, section 10.6.2
(.eh_frame_hdr).
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationTable
from elftools.elf.sections import SymbolTableSection

from anyarch.errors import LoadError
from anyarch.memory.space import AddressSpace

# What pyelftools raises when headers point outside the file or say what cannot be.
_DAMAGED: Final = (
    ELFError, ValueError, OverflowError, OSError, LookupError, TypeError, AttributeError,
    AssertionError, MemoryError, zlib.error, struct.error,
)  # fmt: skip
_PF_X: Final = 1
_TABLE: Final = 0x3B  # DW_EH_PE_datarel | DW_EH_PE_sdata4, the encoding that linkers write


def function_addresses(path: str) -> set[int]:
    """Addresses, as the file counts them, at which code seems to begin. LoadError."""
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            code = [
                (segment["p_vaddr"], segment["p_vaddr"] + segment["p_filesz"])
                for segment in elf.iter_segments("PT_LOAD")
                if segment["p_flags"] & _PF_X
            ]
            found = {elf["e_entry"], *_symbols(elf), *_unwind_table(elf), *_dynamic(elf)}
            if elf["e_type"] == "ET_EXEC":
                found.update(_words(elf, code))
    except _DAMAGED as error:
        raise LoadError(f"{path}: damaged ELF file: {error}") from None
    return {at for at in found if at % 2 == 0 and any(start <= at < end for start, end in code)}


def _symbols(elf: ELFFile) -> Iterator[int]:
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection):
            yield from (symbol["st_value"] for symbol in section.iter_symbols() if _is_code(symbol))


def _is_code(symbol: Any) -> bool:
    defined = symbol["st_shndx"] != "SHN_UNDEF"
    return defined and symbol["st_info"]["type"] in ("STT_FUNC", "STT_GNU_IFUNC")


def _unwind_table(elf: ELFFile) -> Iterator[int]:
    """The functions that the table of .eh_frame_hdr is sorted by."""
    for segment in elf.iter_segments("PT_GNU_EH_FRAME"):
        data, base = segment.data(), segment["p_vaddr"]
        if len(data) < 12 or data[0] != 1 or data[2] != 3 or data[3] != _TABLE:
            continue  # 3: the count is a udata4
        pointer_nbytes = {0x0: 8, 0x3: 4, 0x4: 8, 0xB: 4, 0xC: 8}.get(data[1] & 15, 4)
        (count,) = struct.unpack_from("<I", data, 4 + pointer_nbytes)
        for number in range(count):
            (at,) = struct.unpack_from("<i", data, 8 + pointer_nbytes + 8 * number)
            yield base + at


def _dynamic(elf: ELFFile) -> Iterator[int]:
    """Constructors and destructors, exported symbols, and what relocations make point to code."""
    for segment in elf.iter_segments():
        if not isinstance(segment, DynamicSegment):
            continue
        for tag in segment.iter_tags():
            if tag.entry.d_tag in ("DT_INIT", "DT_FINI"):
                yield tag.entry.d_val
        symbols = list(segment.iter_symbols())
        yield from (symbol["st_value"] for symbol in symbols if _is_code(symbol))
        for table in segment.get_relocation_tables().values():
            if not isinstance(table, RelocationTable) or not table.is_RELA():
                continue
            for relocation in table.iter_relocations():
                number, addend = relocation["r_info_sym"], relocation["r_addend"]
                if not number:
                    yield addend
                elif number < len(symbols) and symbols[number]["st_shndx"] != "SHN_UNDEF":
                    yield symbols[number]["st_value"] + addend


def _words(elf: ELFFile, code: list[tuple[int, int]]) -> Iterator[int]:
    """Words in the data of a program at fixed addresses that may be pointers to code."""
    for segment in elf.iter_segments("PT_LOAD"):
        if segment["p_flags"] & _PF_X:
            continue
        data = segment.data()
        skipped = -segment["p_vaddr"] % 8
        count = max(0, len(data) - skipped) // 8
        for word in struct.unpack_from(f"<{count}Q", data, skipped):
            if any(start <= word < end for start, end in code):
                yield word


class FunctionNames:
    """Names of the code in an address space, from the symbols of the files that are mapped."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._files: dict[str, tuple[list[int], list[str]]] = {}  # by path: file offsets, names

    def name(self, address: int) -> str:
        """``function+0x10 (file)``, or as much of it as is known."""
        for region in self._space.regions():
            if region.start <= address < region.end and region.file:
                break
        else:
            return f"{address:#x}"
        if region.name not in self._files:
            self._files[region.name] = _named_offsets(region.name)
        offsets, names = self._files[region.name]
        offset = address - region.start + region.offset
        index = bisect_right(offsets, offset) - 1
        file = os.path.basename(region.name)
        if index < 0:
            return f"{address:#x} ({file})"
        beyond = offset - offsets[index]
        return f"{names[index]}+{beyond:#x} ({file})" if beyond else f"{names[index]} ({file})"


def _named_offsets(path: str) -> tuple[list[int], list[str]]:
    found: dict[int, str] = {}
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            loads = [segment.header for segment in elf.iter_segments("PT_LOAD")]
            for section in elf.iter_sections():
                if isinstance(section, SymbolTableSection):
                    for symbol in section.iter_symbols():
                        for load in loads if _is_code(symbol) else ():
                            inside = symbol["st_value"] - load["p_vaddr"]
                            if 0 <= inside < load["p_filesz"]:
                                found[load["p_offset"] + inside] = symbol.name
    except _DAMAGED:
        pass
    offsets = sorted(found)
    return offsets, [found[offset] for offset in offsets]
