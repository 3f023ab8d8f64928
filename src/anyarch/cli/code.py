"""``anyarch disasm`` and ``anyarch asm``: machine code to text and back."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from anyarch.cli.architectures import DEFAULT, by_elf_machine, by_name
from anyarch.errors import Error, LoadError
from anyarch.isa.architecture import Architecture
from anyarch.isa.assembly import Line, disassemble

# What pyelftools raises when headers point outside the file or say what cannot be.
DAMAGED: Final = (
    ELFError, ValueError, OverflowError, OSError, LookupError, TypeError, AttributeError,
    AssertionError, MemoryError, zlib.error,
)  # fmt: skip
_SHF_EXECINSTR = 4
_PF_X = 1


@dataclass(frozen=True, slots=True)
class Block:
    """Code under one heading."""

    title: str
    address: int
    data: bytes


def parse_hex(words: Sequence[str]) -> bytes:
    """Instruction words as a manual prints them: each is a number of two, four, eight… digits."""
    result = bytearray()
    for word in words:
        digits = word.removeprefix("0x")
        try:
            value = int(digits, 16)
        except ValueError:
            raise Error(
                f"{word}: neither a file nor an instruction word; expected an ELF file, "
                "hex digits such as 00a58533, or a file with --raw"
            ) from None
        if len(digits) not in (2, 4, 8, 16):
            raise Error(f"{word}: {len(digits)} hex digits; expected 2, 4, 8 or 16")
        result += value.to_bytes(len(digits) // 2, "little")
    return bytes(result)


def read_blocks(
    inputs: Sequence[str], arch: str | None, *, raw: bool, base: int, symbol: str | None
) -> tuple[Architecture, list[Block]]:
    """What there is to disassemble, and as what."""
    path = inputs[0]
    is_file = len(inputs) == 1 and os.path.isfile(path)
    if is_file and not raw:
        with open(path, "rb") as file:
            if file.read(4) == b"\x7fELF":
                return _read_elf(path, arch, symbol)
        raise LoadError(f"{path}: not an ELF file; use --raw for bare machine code")
    if symbol is not None:
        raise Error("--symbol needs an ELF file")
    if raw and not is_file:
        raise Error(f"{path}: not a file, which --raw expects")
    data = Path(path).read_bytes() if is_file else parse_hex(inputs)
    return by_name(arch or DEFAULT), [Block("", base, data)]


def _read_elf(path: str, arch: str | None, symbol: str | None) -> tuple[Architecture, list[Block]]:
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            machine = elf["e_machine"]
            architecture = by_name(arch) if arch else by_elf_machine(_machine_number(path))
            if architecture is None:
                raise Error(
                    f"{path}: no definitions for its machine {machine}; name one with --arch"
                )
            sections = list(_sections(elf))
            names = _symbols(elf)
    except DAMAGED as error:
        raise LoadError(f"{path}: damaged ELF file: {error}") from None
    blocks = [block for section in sections for block in _split(section, names)]
    if symbol is None:
        return architecture, blocks
    chosen = [block for block in blocks if block.title == symbol]
    if not chosen:
        raise Error(f"{path}: no code symbol {symbol!r}; `anyarch disasm {path}` lists all")
    return architecture, chosen


def _machine_number(path: str) -> int:
    with open(path, "rb") as file:
        return int.from_bytes(file.read(20)[18:20], "little")


def _sections(elf: ELFFile) -> Iterator[Block]:
    """Executable sections, or executable segments of a file that has no section headers."""
    if elf.num_sections():
        for section in elf.iter_sections():
            if section["sh_flags"] & _SHF_EXECINSTR and section["sh_type"] == "SHT_PROGBITS":
                yield Block(section.name, section["sh_addr"], section.data())
        return
    for number, segment in enumerate(elf.iter_segments()):
        if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & _PF_X:
            yield Block(f"segment {number}", segment["p_vaddr"], segment.data())


def _symbols(elf: ELFFile) -> dict[int, str]:
    """Names by address; a function's before a label's."""
    names: dict[int, str] = {}
    for section in elf.iter_sections():
        if not isinstance(section, SymbolTableSection):
            continue
        for symbol in section.iter_symbols():
            kind = symbol["st_info"]["type"]
            if symbol["st_shndx"] == "SHN_UNDEF" or not symbol.name or symbol.name[0] == "$":
                continue
            if kind == "STT_FUNC":
                names[symbol["st_value"]] = symbol.name
            elif kind == "STT_NOTYPE":
                names.setdefault(symbol["st_value"], symbol.name)
    return names


def _split(section: Block, names: dict[int, str]) -> Iterator[Block]:
    """A section cut where symbols begin."""
    end = section.address + len(section.data)
    inside = sorted(address for address in names if section.address <= address < end)
    starts = inside if inside[:1] == [section.address] else [section.address, *inside]
    for start, stop in zip(starts, [*starts[1:], end]):
        data = section.data[start - section.address : stop - section.address]
        yield Block(names.get(start, section.title), start, data)


def lines(architecture: Architecture, block: Block) -> Iterator[Line]:
    """The lines of a block."""
    return disassemble(architecture, block.data, block.address)


def hex_word(line: Line) -> str:
    """The bytes of a line as its instruction word."""
    return f"{int.from_bytes(line.data, 'little'):0{2 * len(line.data)}x}"


def read_source(text: str) -> str:
    """Assembly text from the argument: ``-`` for standard input, a file, or the text itself."""
    if text == "-":
        return sys.stdin.read()
    if os.path.isfile(text):
        return Path(text).read_text()
    return text
