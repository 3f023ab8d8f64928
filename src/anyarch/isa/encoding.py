"""Encoding rows: the manual's tables as strings.

A row lists bits and fields from the most significant bit down: ``0000000 rs2 rs1 000 rd 0110011``.
``name`` has its declared width, ``name:w`` its own, ``imm[12|10:5]`` places its bits in the
value. Rows of byte-oriented instruction sets list bytes in memory order; there a field of whole
bytes is little-endian. Conditions such as ``rd != 0`` exclude or demand values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from anyarch.errors import DefinitionError

_TOKEN: Final = re.compile(r"([A-Za-z_]\w*)(?:\[([\d|:]+)\]|:(\d+))?")
_CONDITION: Final = re.compile(r"(\w+)\s*(==|!=)\s*(\w+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` bits of a field: value bits from ``to``, word bits from ``at``."""

    to: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Condition:
    """A demand on a field's raw value."""

    field: str
    equal: bool
    value: int


@dataclass(frozen=True, slots=True)
class Row:
    """A parsed encoding row: fixed bits, and the pieces of each field."""

    text: str
    size: int
    mask: int
    value: int
    fields: Mapping[str, tuple[Piece, ...]]
    conditions: tuple[Condition, ...]

    @property
    def nbytes(self) -> int:
        """Length of the instruction."""
        return self.size // 8

    def width(self, name: str) -> int:
        """Bits of a field's value, counting low bits that are always zero."""
        return max(piece.to + piece.size for piece in self.fields[name])

    def extract(self, name: str, word: int) -> int:
        """The raw value of a field."""
        return sum(
            (word >> piece.at & ((1 << piece.size) - 1)) << piece.to for piece in self.fields[name]
        )

    def insert(self, name: str, value: int) -> int:
        """The word bits of a field; raises ValueError when the value does not fit."""
        word = 0
        covered = 0
        for piece in self.fields[name]:
            word |= (value >> piece.to & ((1 << piece.size) - 1)) << piece.at
            covered |= ((1 << piece.size) - 1) << piece.to
        if value & ~covered:
            raise ValueError(name)
        return word

    def matches(self, word: int) -> bool:
        """Whether the word is this row's, conditions included."""
        return word & self.mask == self.value and all(
            (self.extract(c.field, word) == c.value) == c.equal for c in self.conditions
        )


def parse_row(text: str, widths: Mapping[str, int], where: str = "", *, unit: int = 0) -> Row:
    """Parse a row; ``unit=8`` for byte-oriented instruction sets."""
    size = 0
    parts: list[tuple[str | None, int, list[tuple[int, int]]]] = []
    for token in text.split():
        if set(token) <= {"0", "1"}:
            parts.append((None, len(token), [(int(token, 2), len(token))]))
            size += len(token)
            continue
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise DefinitionError(f"encoding row {text!r}: cannot read {token!r}")
        name, slices, explicit = match.groups()
        ranges: list[tuple[int, int]] = []
        if slices is not None:
            for item in slices.split("|"):
                high, _, low = item.partition(":")
                bottom = int(low or high)
                ranges.append((bottom, int(high) - bottom + 1))
        else:
            width = int(explicit) if explicit is not None else widths.get(name)
            if width is None:
                raise DefinitionError(f"encoding row {text!r}: the width of {name} is not declared")
            ranges.append((0, width))
        total = sum(width for _, width in ranges)
        parts.append((name, total, ranges))
        size += total
    if size % 8 or not size:
        raise DefinitionError(f"encoding row {text!r} has {size} bits, not whole bytes")
    mask = value = 0
    fields: dict[str, list[Piece]] = {}
    done = 0
    for name, total, ranges in parts:
        if name is None:
            for position in range(total):
                bit = _bit(done + position, total, done, size, unit)
                mask |= 1 << bit
                value |= (ranges[0][0] >> (total - 1 - position) & 1) << bit
        else:
            offset = done
            for low, width in ranges:
                at = _bit(offset + width - 1, total, done, size, unit)
                fields.setdefault(name, []).append(Piece(low, at, width))
                offset += width
        done += total
    conditions = []
    for item in filter(None, (item.strip() for item in where.split(","))):
        match = _CONDITION.fullmatch(item)
        if match is None or match[1] not in fields:
            raise DefinitionError(f"encoding row {text!r}: cannot read the condition {item!r}")
        conditions.append(Condition(match[1], match[2] == "==", int(match[3], 0)))
    frozen = {name: tuple(pieces) for name, pieces in fields.items()}
    return Row(text, size, mask, value, frozen, tuple(conditions))


def _bit(position: int, total: int, start: int, size: int, unit: int) -> int:
    """Word bit of a row position, for a token of ``total`` bits that begins at ``start``."""
    if unit != 8:
        return size - 1 - position
    if start % 8 == 0 and total > 8 and total % 8 == 0:
        return start + total - 1 - (position - start)
    return position // 8 * 8 + 7 - position % 8


def overlap(first: Row, second: Row) -> int | None:
    """A word that both rows match, or None; exact over the bits that conditions mention."""
    common = first.mask & second.mask
    if first.value & common != second.value & common:
        return None
    bits: list[int] = []
    for row in (first, second):
        for condition in row.conditions:
            for piece in row.fields[condition.field]:
                bits.extend(range(piece.at, piece.at + piece.size))
    fixed = first.mask | second.mask
    base = first.value | second.value
    free = sorted({bit for bit in bits if not fixed >> bit & 1})
    for number in range(1 << len(free)):
        word = base
        for index, bit in enumerate(free):
            word |= (number >> index & 1) << bit
        if first.matches(word) and second.matches(word):
            return word
    return None
