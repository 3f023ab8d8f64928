"""The line table of an object that LLVM has emitted: which line each machine instruction is of.

DWARF 5, section 6.2. Only what tells offsets and lines is decoded: files, columns and flags are
skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from anyarch.errors import CompileError

# Standard opcodes (section 6.2.5.2) and extended ones (6.2.5.3).
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _CONST_ADD_PC, _FIXED_ADVANCE_PC = 1, 2, 3, 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2
_UNIT = struct.Struct("<IH")  # its size, version
_STEPS = struct.Struct("<bBB")  # line base, line range, opcode base


def read_lines(data: bytes, addresses: Mapping[int, int]) -> list[tuple[int, int]]:
    """Rows of (offset, line) in the order of the table, the contents of ``.debug_line``.

    ``addresses`` are what relocations say, by their place in ``data``. CompileError for a table of
    a form that LLVM does not emit for x86-64.
    """
    rows: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        size, version = _UNIT.unpack_from(data, at)
        if not 2 <= version <= 5 or at + 4 + size > len(data):
            raise CompileError(f"the line table has version {version} and {size} bytes")
        end = at + 4 + size
        at += _UNIT.size + (2 if version >= 5 else 0)  # sizes of an address and a selector
        (header,) = struct.unpack_from("<I", data, at)
        start = at + 4 + header
        at += 7 if version >= 4 else 6  # size of an instruction, operations in it, first flag
        base, span, first = _STEPS.unpack_from(data, at)
        counts = data[at + 3 : at + 2 + first]
        _run(data, start, end, (base, span, first, counts), addresses, rows)
        at = end
    return rows


def _run(
    data: bytes,
    at: int,
    end: int,
    form: tuple[int, int, int, bytes],
    addresses: Mapping[int, int],
    rows: list[tuple[int, int]],
) -> None:
    """Run a line number program; instructions are one byte at least, so an advance is of bytes."""
    base, span, first, counts = form
    offset, line = 0, 1
    while at < end:
        code = data[at]
        at += 1
        if code >= first:
            offset += (code - first) // span
            line += base + (code - first) % span
            rows.append((offset, line))
        elif code == 0:
            size, at = read_unsigned(data, at)
            if data[at] == _END_SEQUENCE:
                offset, line = 0, 1
            elif data[at] == _SET_ADDRESS:
                offset = addresses.get(at + 1, 0) or int.from_bytes(data[at + 1 : at + 9], "little")
            at += size
        elif code == _COPY:
            rows.append((offset, line))
        elif code == _ADVANCE_PC:
            step, at = read_unsigned(data, at)
            offset += step
        elif code == _ADVANCE_LINE:
            step, after = read_unsigned(data, at)
            bits = 7 * (after - at)
            line += step - (step >> bits - 1 << bits)
            at = after
        elif code == _CONST_ADD_PC:
            offset += (255 - first) // span
        elif code == _FIXED_ADVANCE_PC:
            offset += int.from_bytes(data[at : at + 2], "little")
            at += 2
        else:
            for _ in range(counts[code - 1]):
                _, at = read_unsigned(data, at)


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """An LEB128 number, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
