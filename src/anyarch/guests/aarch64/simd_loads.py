"""Loads and stores of structures (Arm DDI 0487, C4.1.94, "Advanced SIMD load/store").

LD2 to LD4 separate the elements of structures into registers, ST2 to ST4 join them; LD1 and ST1
take registers one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from anyarch.guests.aarch64.memory import untagged
from anyarch.guests.aarch64.simd import LETTERS, define
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes, splat
from anyarch.isa.machine import Machine


def _register(vt: Bits, number: int) -> Bits:
    return (vt + number) & 31 if number else vt


def _multiple(
    m: Machine, load: bool, structures: bool, count: int, lane: int, q: int, address: Bits, vt: Bits
) -> None:
    size = 128 if q else 64
    start = untagged(address)
    registers = [_register(vt, number) for number in range(count)]
    if not structures:
        for number, register in enumerate(registers):
            at = start + number * (size // 8)
            if load:
                m.v[register, size] = m.load(at, size)
            else:
                m.store(at, m.v[register, size])
        return
    # All of the structures as chunks of a register's size.
    lanes = size // lane
    if load:
        chunks = [
            Lanes(m.load(start + number * (size // 8), size), lane) for number in range(count)
        ]
        for number, register in enumerate(registers):
            m.v[register, size] = _gather(chunks, range(number, lanes * count, count)).bits
        return
    columns = [Lanes(m.v[register, size], lane) for register in registers]
    elements = [number % count * lanes + number // count for number in range(lanes * count)]
    for number in range(count):
        chunk = _gather(columns, elements[number * lanes : (number + 1) * lanes])
        m.store(start + number * (size // 8), chunk.bits)


def _gather(sources: Sequence[Lanes], indices: Sequence[int]) -> Lanes:
    """Lanes by index, of two or more values one behind the other."""
    result, lanes = sources[0], sources[0].count
    picked = [index if index < lanes else 0 for index in indices]
    for number, source in enumerate(sources[1:], 1):
        for at, index in enumerate(indices):
            if number * lanes <= index < (number + 1) * lanes:
                picked[at] = lanes + index - number * lanes
        result = result.shuffle(source, picked)
        picked = list(range(lanes))
    return result


def _plain(m: Machine, base: Bits, **fields: object) -> None:
    """Load or store structures."""
    _multiple(m, address=m.r[base], **fields)  # type: ignore[arg-type]  # the fields of the row


def _post_immediate(m: Machine, base: Bits, **fields: object) -> None:
    """Load or store structures, and add their size to the base."""
    address = m.r[base]
    _multiple(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + int(str(fields["count"])) * (16 if fields["q"] else 8)


def _post_register(m: Machine, base: Bits, rm: Bits, **fields: object) -> None:
    """Load or store structures, and add a register to the base."""
    address = m.r[base]
    _multiple(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + m.x[rm]


# Mnemonic's number, opcode, registers.
_MULTIPLE: Final = (
    (4, "0000", 4),
    (1, "0010", 4),
    (3, "0100", 3),
    (1, "0110", 3),
    (1, "0111", 1),
    (2, "1000", 2),
    (1, "1010", 2),
)
_ARRANGEMENTS: Final = {8: ("8b", "16b"), 16: ("4h", "8h"), 32: ("2s", "4s"), 64: ("1d", "2d")}

for _number, _opcode, _count in _MULTIPLE:
    for _size, (_lane, _shapes) in enumerate(_ARRANGEMENTS.items()):
        for _q in (0, 1):
            if _number > 1 and _lane == 64 and not _q:
                continue
            for _load, _mnemonic in ((1, f"ld{_number}"), (0, f"st{_number}")):
                _fixed: dict[str, Any] = {
                    "load": bool(_load),
                    "structures": _number > 1,
                    "count": _count,
                    "lane": _lane,
                    "q": _q,
                }
                _own = f"{_mnemonic}_{_count}_{_shapes[_q]}"
                _list = f"{{vt:list{_count}_{_shapes[_q]}}}"
                _tail = f"{_opcode} {_size:02b} base vt"
                _nbytes = _count * (16 if _q else 8)
                define(
                    f"{_own}",
                    f"0 {_q} 0011000 {_load} 000000 {_tail}",
                    f"{_mnemonic} {_list}, [{{base}}]",
                    _plain,
                    **_fixed,
                )
                define(
                    f"{_own}_post",
                    f"0 {_q} 0011001 {_load} 0 11111 {_tail}",
                    f"{_mnemonic} {_list}, [{{base}}], {_nbytes}",
                    _post_immediate,
                    **_fixed,
                )
                define(
                    f"{_own}_register",
                    f"0 {_q} 0011001 {_load} 0 rm {_tail}",
                    f"{_mnemonic} {_list}, [{{base}}], {{rm:x}}",
                    _post_register,
                    where="rm != 31",
                    **_fixed,
                )


# One structure, to or from one element of each register.


def _single(
    m: Machine, load: bool, count: int, lane: int, address: Bits, i: Bits, vt: Bits
) -> None:
    for number in range(count):
        register = _register(vt, number)
        at = untagged(address, number * (lane // 8))
        if load:
            m.v[register] = Lanes(m.v[register], lane).insert(i, m.load(at, lane)).bits
        else:
            m.store(at, Lanes(m.v[register], lane).element(i))


def _replicate(m: Machine, count: int, lane: int, q: int, address: Bits, vt: Bits) -> None:
    size = 128 if q else 64
    for number in range(count):
        value = m.load(untagged(address, number * (lane // 8)), lane)
        m.v[_register(vt, number), size] = splat(value, size // lane).bits


def _single_plain(m: Machine, base: Bits, **fields: object) -> None:
    """Load or store one element of each register."""
    _single(m, address=m.r[base], **fields)  # type: ignore[arg-type]  # as above


def _single_immediate(m: Machine, base: Bits, **fields: object) -> None:
    """Load or store one element of each register, and add their size to the base."""
    address = m.r[base]
    _single(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + int(str(fields["count"])) * int(str(fields["lane"])) // 8


def _single_register(m: Machine, base: Bits, rm: Bits, **fields: object) -> None:
    """Load or store one element of each register, and add a register to the base."""
    address = m.r[base]
    _single(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + m.x[rm]


def _replicate_plain(m: Machine, base: Bits, **fields: object) -> None:
    """Load elements to all lanes."""
    _replicate(m, address=m.r[base], **fields)  # type: ignore[arg-type]  # as above


def _replicate_immediate(m: Machine, base: Bits, **fields: object) -> None:
    """Load elements to all lanes, and add their size to the base."""
    address = m.r[base]
    _replicate(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + int(str(fields["count"])) * int(str(fields["lane"])) // 8


def _replicate_register(m: Machine, base: Bits, rm: Bits, **fields: object) -> None:
    """Load elements to all lanes, and add a register to the base."""
    address = m.r[base]
    _replicate(m, address=address, **fields)  # type: ignore[arg-type]  # as above
    m.r[base] = address + m.x[rm]


# Q, then L and R, then opcode above its lowest bit, S and size.
_ELEMENT: Final = {
    8: ("i[3]", "00", "i[2] i[1:0]"),
    16: ("i[2]", "01", "i[1] i[0] 0"),
    32: ("i[1]", "10", "i[0] 00"),
    64: ("i:1", "10", "0 01"),
}

for _lane, (_q_bits, _scale, _low) in _ELEMENT.items():
    _letter = LETTERS[_lane]
    for _count in range(1, 5):
        _selem = _count - 1
        _opcode = f"{_scale}{_selem >> 1}"
        _nbytes = _count * _lane // 8
        for _load, _mnemonic in ((1, f"ld{_count}"), (0, f"st{_count}")):
            _own = f"{_mnemonic}_{_letter}_single"
            _list = f"{{vt:list{_count}_{_letter}}}{{i:index}}"
            _tail = f"{_opcode} {_low} base vt"
            _fixed = {"load": bool(_load), "count": _count, "lane": _lane}
            define(
                _own,
                f"0 {_q_bits} 0011010 {_load} {_selem & 1} 00000 {_tail}",
                f"{_mnemonic} {_list}, [{{base}}]",
                _single_plain,
                **_fixed,
            )
            define(
                f"{_own}_post",
                f"0 {_q_bits} 0011011 {_load} {_selem & 1} 11111 {_tail}",
                f"{_mnemonic} {_list}, [{{base}}], {_nbytes}",
                _single_immediate,
                **_fixed,
            )
            define(
                f"{_own}_register",
                f"0 {_q_bits} 0011011 {_load} {_selem & 1} rm {_tail}",
                f"{_mnemonic} {_list}, [{{base}}], {{rm:x}}",
                _single_register,
                where="rm != 31",
                **_fixed,
            )
        for _q in (0, 1):
            _shape = _ARRANGEMENTS[_lane][_q]
            _size_bits = {8: "00", 16: "01", 32: "10", 64: "11"}[_lane]
            _own, _list = f"ld{_count}r_{_shape}", f"{{vt:list{_count}_{_shape}}}"
            _tail = f"11{_selem >> 1} 0 {_size_bits} base vt"
            _fixed = {"count": _count, "lane": _lane, "q": _q}
            define(
                _own,
                f"0 {_q} 0011010 1 {_selem & 1} 00000 {_tail}",
                f"ld{_count}r {_list}, [{{base}}]",
                _replicate_plain,
                **_fixed,
            )
            define(
                f"{_own}_post",
                f"0 {_q} 0011011 1 {_selem & 1} 11111 {_tail}",
                f"ld{_count}r {_list}, [{{base}}], {_nbytes}",
                _replicate_immediate,
                **_fixed,
            )
            define(
                f"{_own}_register",
                f"0 {_q} 0011011 1 {_selem & 1} rm {_tail}",
                f"ld{_count}r {_list}, [{{base}}], {{rm:x}}",
                _replicate_register,
                where="rm != 31",
                **_fixed,
            )
