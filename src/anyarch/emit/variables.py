"""Where a module's debug variables are at each machine instruction.

DWARF 4, sections 2.6 (location descriptions), 7.5 (entries) and 7.7.3 (location lists), as far as
LLVM makes use of them for integers. A variable is known by the line that it is declared at.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from anyarch.data import dataclass
from anyarch.emit.lines import read_unsigned
from anyarch.errors import CompileError

NO_REGISTER: Final = -1
_TAGS: Final = (0x05, 0x34)  # DW_TAG_formal_parameter, DW_TAG_variable
_LOCATION, _LOW_PC, _CONSTANT, _DECLARED = 0x02, 0x11, 0x1C, 0x3B  # DW_AT_
# Sizes of DW_FORM_: addr, data2, data4, data1, data8, strp, ref4, sec_offset, flag_present.
_FORMS: Final = {1: 8, 5: 2, 6: 4, 0xB: 1, 7: 8, 0xE: 4, 0x13: 4, 0x17: 4, 0x19: 0}
_EXPRESSION, _UNSIGNED, _SIGNED = 0x18, 0xF, 0xD  # DW_FORM_exprloc, udata, sdata
_HEADER: Final = struct.Struct("<IHIB")  # size, version, place of the abbreviations, address size
_VERSION: Final = 4
_RANGE: Final = struct.Struct("<QQH")  # start, end, size of the expression that follows
_ALWAYS: Final = 1 << 32
STACK_POINTER: Final = 7  # register numbers are those of the System V ABI, AMD64, figure 3.36


@dataclass(frozen=True, slots=True)
class Location:
    """A value: ``offset`` more than a register holds, or ``offset`` alone where there is none; or,
    ``in_memory``, what memory has at that address, and ``addend``."""

    register: int
    offset: int
    in_memory: bool = False
    addend: int = 0


Ranges = list[tuple[int, int, Location]]  # [start, end) of offsets in the code


def read_variables(
    info: bytes, abbreviations: bytes, lists: bytes, addresses: Mapping[int, int]
) -> dict[int, Ranges]:
    """Where variables are, by the line that they are declared at: from ``.debug_info``,
    ``.debug_abbrev`` and ``.debug_loc``. ``addresses`` are what relocations say, by their place in
    ``info``. What LLVM describes in another way than is decoded here is left out. CompileError for
    entries of a form that it does not emit for regions.
    """
    _, version, _, _ = _HEADER.unpack_from(info)
    if version != _VERSION:
        raise CompileError(f"debug information of version {version}, expected {_VERSION}")
    kinds = _abbreviations(abbreviations)
    found: dict[int, Ranges] = {}
    at, base = _HEADER.size, 0
    while at < len(info):
        code, at = read_unsigned(info, at)
        tag, attributes = kinds.get(code, (0, []))
        line, place, size, constant = 0, -1, 0, None
        for name, form in attributes:
            if form == _EXPRESSION:
                nbytes, at = read_unsigned(info, at)
                number, size = at, nbytes
                at += nbytes
            elif form in (_UNSIGNED, _SIGNED):
                number, at = (read_unsigned if form == _UNSIGNED else _signed)(info, at)
            elif form in _FORMS:
                nbytes = _FORMS[form]
                number = int.from_bytes(info[at : at + nbytes], "little")
                number = addresses.get(at, number)
                at += nbytes
            else:
                raise CompileError(f"debug information with an attribute of form {form:#x}")
            if name == _LOCATION:
                place = number
            elif name == _CONSTANT:
                constant = Location(NO_REGISTER, number)
            elif name == _DECLARED:
                line = number
            elif name == _LOW_PC:
                base = number
        if tag in _TAGS and place >= 0 and not size:
            found[line] = _ranges(lists, place, base)
        elif tag in _TAGS:
            location = decode(info[place : place + size]) if size else constant
            found[line] = [] if location is None else [(0, _ALWAYS, location)]
    return found


def _ranges(data: bytes, at: int, base: int) -> Ranges:
    """A location list; its offsets are from ``base`` on."""
    found: Ranges = []
    while any(data[at : at + 16]):
        start, end, size = _RANGE.unpack_from(data, at)
        at += _RANGE.size + size
        location = decode(data[at - size : at])
        if location is not None:
            found.append((base + start, base + end, location))
    return found


def _abbreviations(data: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """By code: the tag, and names and forms of the attributes."""
    found: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    at = 0
    while True:
        code, at = read_unsigned(data, at)
        if not code:
            return found
        tag, at = read_unsigned(data, at)
        at += 1  # whether there are children: entries are read one after the other
        attributes: list[tuple[int, int]] = []
        found[code] = tag, attributes
        while True:
            name, at = read_unsigned(data, at)
            form, at = read_unsigned(data, at)
            if not name and not form:
                break
            attributes.append((name, form))


def decode(expression: bytes) -> Location | None:
    """What a location expression says; None for one that is not of the forms above."""
    register, offset, in_memory, addend = NO_REGISTER, 0, False, 0
    numbers: list[int] = []
    at, is_value = 0, False
    while at < len(expression):
        code = expression[at]
        at += 1
        if 0x50 <= code < 0x70 and at == len(expression) == 1:  # DW_OP_reg
            return Location(code - 0x50, 0)
        if 0x70 <= code < 0x90 or code == 0x91:  # DW_OP_breg, DW_OP_fbreg: from the stack pointer
            if at != 1:
                return None
            register = STACK_POINTER if code == 0x91 else code - 0x70
            offset, at = _signed(expression, at)
        elif 0x30 <= code < 0x50:  # DW_OP_lit
            numbers.append(code - 0x30)
        elif code in (0x10, 0x11):  # DW_OP_constu, DW_OP_consts
            read = read_unsigned if code == 0x10 else _signed
            number, at = read(expression, at)
            numbers.append(number)
        elif code in (0x22, 0x1C, 0x23):  # DW_OP_plus, DW_OP_minus, DW_OP_plus_uconst
            if register == NO_REGISTER:
                return None
            if code == 0x23:
                number, at = read_unsigned(expression, at)
            elif len(numbers) == 1:
                number = numbers.pop()
            else:
                return None
            number = -number if code == 0x1C else number
            offset, addend = (offset, addend + number) if in_memory else (offset + number, addend)
        elif code == 0x06 and not in_memory and not numbers:  # DW_OP_deref
            in_memory = True
        elif code == 0x9F and at == len(expression):  # DW_OP_stack_value
            is_value = True
        else:
            return None
    if register == NO_REGISTER:
        return Location(register, numbers[0]) if is_value and len(numbers) == 1 else None
    if numbers or (in_memory and not is_value):
        return None
    return Location(register, offset, in_memory or not is_value, addend)


def _signed(data: bytes, at: int) -> tuple[int, int]:
    """A signed LEB128 number, and the place behind it."""
    value, after = read_unsigned(data, at)
    bits = 7 * (after - at)
    return value - (value >> bits - 1 << bits), after
