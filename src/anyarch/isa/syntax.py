"""Operand formats: how a field reads and prints in assembly text, and what a guest adds to them.

A template such as ``lw {rd}, {imm}({rs1})`` names fields; ``{imm:target}`` names a format too. The
formats here serve every architecture; a guest declares its own in the :class:`Syntax` that its
``Architecture`` carries, with its pseudo-instructions and further register names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from anyarch.errors import AssemblyError, DefinitionError
from anyarch.ir.ops import signed
from anyarch.isa.encoding import Row
from anyarch.isa.registers import Layout

if TYPE_CHECKING:
    from anyarch.isa.instruction import Kind

ADDRESS_MASK: Final = (1 << 64) - 1
# An operand expression: no separator, and no bracket that a template may have as a literal.
EXPRESSION: Final = r"[^,(){}\[\]]+?"


class Scope(Protocol):
    """What an operand may refer to."""

    @property
    def pc(self) -> int:
        """Address of the instruction."""

    def evaluate(self, text: str) -> int:
        """Value of an expression of numbers, labels and ``.``; raises AssemblyError."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A field in a template: everything a format may need to know of it."""

    name: str
    row: Row
    kind: Kind
    layout: Layout
    register_names: Mapping[str, str]

    @property
    def width(self) -> int:
        """Bits of the field's value, always-zero low bits included."""
        return self.row.width(self.name)

    @property
    def step(self) -> int:
        """What values must be a multiple of."""
        return 1 << min(piece.to for piece in self.row.fields[self.name])

    def raw(self, word: int) -> int:
        """The field in an instruction word."""
        return self.row.extract(self.name, word)

    def number(self, word: int) -> int:
        """The field as a number, signed where its kind is."""
        return signed(self.raw(word), self.width) if self.kind.signed else self.raw(word)

    def fit(self, value: int, *, negative: bool, shown: str = "") -> int:
        """The raw field of ``value``; raises AssemblyError where it does not fit."""
        low, high = (
            (-1 << self.width - 1, 1 << self.width - 1) if negative else (0, 1 << self.width)
        )
        if low <= value < high and value % self.step == 0:
            try:
                raw = value & ((1 << self.width) - 1)
                self.row.insert(self.name, raw)
                return raw
            except ValueError:
                pass  # a bit between the pieces is set: no encoding either
        multiple = f", a multiple of {self.step}" if self.step > 1 else ""
        raise AssemblyError(
            f"{shown or self.name} is {value}; expected {low} to {high - self.step}{multiple}"
        )


@dataclass(frozen=True, slots=True)
class Operand:
    """What an operand's text says: its own field, and the bits under ``mask`` of the word."""

    raw: int
    mask: int
    bits: int


@dataclass(frozen=True, slots=True)
class Format:
    """``show`` prints a field; ``read`` gives its raw value from text that ``pattern`` matches.

    ``bits`` are those of the word, beside the field's own, that the text shows too (AArch64: a
    register's name tells the width); fields that lie in them need no place in the template.
    """

    show: Callable[[Slot, int, int], str]  # slot, instruction word, pc
    read: Callable[[Slot, str, Scope], int | Operand]
    pattern: str = EXPRESSION
    expected: str = ""  # how messages describe the operand; the field's name where empty
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a guest adds to assembly text.

    ``aliases`` maps ``mv {rd}, {rs}`` to instructions separated by semicolons. ``expansions`` maps
    a mnemonic to a function of its operands' text that returns instructions, for what a text cannot
    say (``li``). Both are for assembling only; disassembly prints instructions.
    """

    formats: Mapping[str, Format] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    expansions: Mapping[str, Callable[[Sequence[str]], list[str]]] = field(default_factory=dict)
    register_names: Mapping[str, str] = field(default_factory=dict)


def suffix(names: Mapping[int, str], expected: str) -> Format:
    """A format of fixed texts that join what precedes them, such as ``.aq`` or ``, rtz``.

    One of them may be empty: the value that an assembler assumes where nothing is written.
    """
    values = {_squeeze(name): value for value, name in names.items()}
    longest_first = sorted(values, key=len, reverse=True)
    pattern = "|".join(re.escape(name).replace(",", r"\s*,\s*") for name in longest_first)

    def show(slot: Slot, word: int, pc: int) -> str:
        raw = slot.raw(word)
        if raw not in names:
            raise DefinitionError(
                f"{slot.row.text}: {slot.name} = {raw} has no text; exclude it with where="
            )
        return names[raw]

    return Format(show, lambda slot, text, scope: values[_squeeze(text)], pattern, expected)


def _squeeze(text: str) -> str:
    return text.replace(" ", "")


def _read_register(slot: Slot, text: str, scope: Scope) -> int:
    kind = slot.kind
    found = slot.layout.find(slot.register_names.get(text, text))
    count = min(1 << slot.width, slot.layout.by_name[str(kind.file)].count - kind.base)
    if found is None or found[0] != kind.file or not 0 <= found[1] - kind.base < count:
        file = slot.layout.by_name[str(kind.file)]
        first, last = file.label(kind.base), file.label(kind.base + count - 1)
        raise AssemblyError(
            f"{text!r} cannot be {slot.name}; expected a register from {first} to {last}"
        )
    return found[1] - kind.base


def _show_register(slot: Slot, word: int, pc: int) -> str:
    return slot.layout.by_name[str(slot.kind.file)].label(slot.raw(word) + slot.kind.base)


def _show_number(slot: Slot, word: int, pc: int) -> str:
    return str(slot.number(word))


def _read_number(slot: Slot, text: str, scope: Scope) -> int:
    return slot.fit(scope.evaluate(text), negative=slot.kind.signed)


def _read_hex(slot: Slot, text: str, scope: Scope) -> int:
    return slot.fit(scope.evaluate(text), negative=False)


def _read_target(slot: Slot, text: str, scope: Scope) -> int:
    distance = signed((scope.evaluate(text) - scope.pc) & ADDRESS_MASK, 64)
    return slot.fit(distance, negative=True, shown=f"the distance to {text}")


def _show_target(slot: Slot, word: int, pc: int) -> str:
    return f"{(pc + slot.number(word)) & ADDRESS_MASK:#x}"


def _show_upper(slot: Slot, word: int, pc: int) -> str:
    return f"{slot.number(word) >> 12 & 0xFFFFF:#x}"


def _read_upper(slot: Slot, text: str, scope: Scope) -> int:
    value = scope.evaluate(text)
    if not -0x80000 <= value <= 0xFFFFF:
        raise AssemblyError(f"{slot.name} is {value:#x}; expected -0x80000 to 0xfffff (20 bits)")
    return slot.fit(signed(value & 0xFFFFF, 20) << 12, negative=True)


REGISTER: Final = Format(_show_register, _read_register)
NUMBER: Final = Format(_show_number, _read_number)
FORMATS: Final[Mapping[str, Format]] = {
    "hex": Format(lambda slot, word, pc: f"{slot.raw(word):#x}", _read_hex),
    "target": Format(_show_target, _read_target, expected="address, label or .+offset"),
    "upper": Format(_show_upper, _read_upper, expected="bits 31:12"),
}
