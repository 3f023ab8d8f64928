"""What is left of a program that a signal has killed: a report for people, a core for debuggers.

Loaded only when one of them was asked for. The core is an ELF file as Linux writes it
(``fs/binfmt_elf.c``, core(5)): notes with registers, then the memory.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

from anyarch.errors import MemoryFault
from anyarch.linux.signals import CORE_SIGNALS, SYNCHRONOUS
from anyarch.linux.symbols import signal_name

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread
    from anyarch.memory.regions import Region

_PAGE: Final = 4096
_CHUNK: Final = 1 << 20
_CODES: Final = {
    (11, 1): "nothing is mapped there",
    (11, 2): "its protection forbids that",
    (7, 1): "it is misaligned",
    (7, 2): "past the end of the mapped file",
    (4, 1): "no such instruction",
    (4, 5): "a privileged instruction",
}
_NT_PRSTATUS, _NT_FPREGSET, _NT_PRPSINFO, _NT_AUXV = 1, 2, 3, 6
_NT_FILE, _NT_SIGINFO = 0x46494C45, 0x53494749
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_NOTE, _ET_CORE, _EM_FLAGS = 1, 4, 4, 48
_MANY: Final = 0xFFF0  # segments that the header can count


def report_crash(thread: Thread, signum: int, info: bytes) -> None:
    """Say on stderr what the thread died of, and where it was."""
    state, abi = thread.state, thread.abi
    lines = [f"anyarch: process {os.getpid()} was killed by {signal_name(signum)}"]
    code = int.from_bytes(info[8:12], "little", signed=True)
    if signum in SYNCHRONOUS and code > 0:
        (address,) = struct.unpack_from("<Q", info, 16)
        why = _CODES.get((signum, code), f"si_code {code}")
        lines.append(f"  address {address:#x}: {why}")
    lines.append(f"  pc      {locate(thread, state.pc)}")
    if abi.return_address is not None:
        lines.append(f"  called from {locate(thread, state.get(abi.file, abi.return_address))}")
    try:
        code_bytes = thread.space.read(state.pc, 4)
        lines.append(f"  code    {code_bytes.hex(' ')}")
    except MemoryFault:
        lines.append("  code    not readable")
    values = [(f"{abi.file}{n}", state.get(abi.file, n)) for n in range(abi.registers)]
    for row in range(0, len(values), 4):
        shown = (f"{name:>4} {value:016x}" for name, value in values[row : row + 4])
        lines.append("  " + "  ".join(shown))
    print("\n".join(lines), file=sys.stderr, flush=True)


def locate(thread: Thread, address: int) -> str:
    """An address with the symbol and file that it lies in."""
    for region in thread.space.regions():
        if region.start <= address < region.end:
            name = os.fsdecode(thread.process.paths.guest(os.fsencode(region.name)))
            if not region.file:
                return f"{address:#x} in {name or 'memory of no file'}"
            symbol = _symbol(region.name, address - region.start + region.offset)
            return f"{address:#x} {symbol}in {name}"
    return f"{address:#x}, where nothing is mapped"


def _symbol(path: str, offset: int) -> str:
    """``name+distance `` of the function at a file offset, or nothing."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    best, found = -1, ""
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            address = None
            for segment in elf.iter_segments("PT_LOAD"):
                start = segment["p_offset"]
                if start <= offset < start + segment["p_filesz"]:
                    address = offset - start + segment["p_vaddr"]
            if address is None:
                return ""
            for section in elf.iter_sections():
                if not isinstance(section, SymbolTableSection):
                    continue
                for symbol in section.iter_symbols():
                    value = symbol["st_value"]
                    if symbol["st_info"]["type"] == "STT_FUNC" and best < value <= address:
                        best, found = value, symbol.name
    except (OSError, ELFError):
        return ""
    return f"{found}+{address - best:#x} " if found else ""


def write_core(path: bytes, thread: Thread, signum: int, info: bytes) -> None:
    """Write a core dump, where the signal is one that leaves one."""
    if signum not in CORE_SIGNALS | SYNCHRONOUS:
        return
    regions = [region for region in thread.space.regions() if region.prot][: _MANY - 1]
    notes = b"".join(_notes(thread, signum, info))
    headers_nbytes = _HEADER.size + _SEGMENT.size * (1 + len(regions))
    position = -(-(headers_nbytes + len(notes)) // _PAGE) * _PAGE
    segments = [
        _SEGMENT.pack(_PT_NOTE, 0, headers_nbytes, 0, 0, len(notes), 0, 4),
    ]
    places = []
    for region in regions:
        nbytes = region.end - region.start
        kept = 0 if region.shared and region.file else nbytes
        flags = (region.prot & 1) << 2 | region.prot & 2 | region.prot >> 2
        segments.append(
            _SEGMENT.pack(_PT_LOAD, flags, position, region.start, 0, kept, nbytes, _PAGE)
        )
        places.append(position)
        position += kept
    with open(thread.image.host_path, "rb") as program:
        head = program.read(64)
    header = _HEADER.pack(
        head[:16],
        _ET_CORE,
        thread.abi.elf_machine,
        1,
        0,
        _HEADER.size,
        0,
        int.from_bytes(head[_EM_FLAGS : _EM_FLAGS + 4], "little"),
        _HEADER.size,
        _SEGMENT.size,
        len(segments),
        64,
        0,
        0,
    )
    with open(path, "wb") as file:
        file.write(header + b"".join(segments) + notes)
        for region, place in zip(regions, places, strict=True):
            if not (region.shared and region.file):
                _write_memory(file, thread, region, place)
        file.truncate(position)


def _write_memory(file: BinaryIO, thread: Thread, region: Region, place: int) -> None:
    """Copy a region's memory; zeros become a hole."""
    for start in range(region.start, region.end, _CHUNK):
        try:
            data = thread.space.read(start, min(_CHUNK, region.end - start))
        except MemoryFault:
            continue
        if data.strip(b"\0"):
            file.seek(place + start - region.start)
            file.write(data)


def _note(kind: int, data: bytes) -> bytes:
    padded = data.ljust(-(-len(data) // 4) * 4, b"\0")
    return struct.pack("<III8s", 5, len(data), kind, b"CORE") + padded


def _notes(thread: Thread, signum: int, info: bytes) -> Iterator[bytes]:
    """The notes: the thread that crashed comes first."""
    others = [each for each in thread.process.threads if each is not thread]
    for index, each in enumerate((thread, *others)):
        integers, floats = each.abi.core_registers(each.state)
        yield _note(
            _NT_PRSTATUS, _status(each, signum if each is thread else 0) + integers + bytes(8)
        )
        if index == 0:
            yield _note(_NT_PRPSINFO, _summary(thread))
            yield _note(_NT_SIGINFO, info.ljust(128, b"\0"))
            yield _note(_NT_AUXV, thread.image.auxv)
            yield _note(_NT_FILE, _files(thread))
        yield _note(_NT_FPREGSET, floats)


def _ids(tid: int) -> tuple[int, int, int, int]:
    return tid, os.getppid(), os.getpgrp(), os.getsid(0)


def _status(thread: Thread, signum: int) -> bytes:
    """struct elf_prstatus up to the registers."""
    head = struct.pack("<iiihxxQQ", signum, 0, 0, signum, 0, thread.signals.mask)
    return head + struct.pack("<4i", *_ids(thread.tid)) + bytes(64)


def _summary(thread: Thread) -> bytes:
    """struct elf_prpsinfo."""
    name = os.path.basename(thread.image.name)[:15]
    arguments = b" ".join(thread.image.arguments)[:79]
    ids = (os.getuid(), os.getgid(), *_ids(os.getpid()))
    return struct.pack("<4B4xQIIiiii16s80s", 0, ord("R"), 0, 0, 0, *ids, name, arguments)


def _files(thread: Thread) -> bytes:
    """What files are mapped where."""
    mapped = [region for region in thread.space.regions() if region.file]
    words = [len(mapped), _PAGE]
    names = b""
    for region in mapped:
        words += [region.start, region.end, region.offset // _PAGE]
        names += thread.process.paths.guest(os.fsencode(region.name)) + b"\0"
    return struct.pack(f"<{len(words)}Q", *words) + names
