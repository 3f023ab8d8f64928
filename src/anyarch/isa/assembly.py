"""Assembler and disassembler, derived from the definitions' text templates.

``assemble`` reads instructions, labels, ``.byte .half .word .dword`` and the guest's pseudo-
instructions; ``disassemble`` prints canonical instructions, which assemble to the same bytes.
Fields that a template does not show are appended where they are not zero: ``fence rw, rw {fm=8}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from anyarch.errors import AssemblyError, DefinitionError
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import Instruction, Kind
from anyarch.isa.syntax import (
    ADDRESS_MASK,
    EXPRESSION,
    FORMATS,
    NUMBER,
    REGISTER,
    Format,
    Operand,
    Slot,
)

_FIELD: Final = re.compile(r"\{(\w+)(?::(\w+))?\}")
_LABEL: Final = re.compile(r"([A-Za-z_.$][\w.$]*):\s*")
_HIDDEN: Final = re.compile(r"\s*\{(\w+=\w+(?:,\s*\w+=\w+)*)\}$")
_TERM: Final = re.compile(r"\s*([+-]?)\s*(\w+|[\w.$]+)\s*")
_DIRECTIVES: Final = {".byte": 1, ".half": 2, ".word": 4, ".dword": 8}
_UNKNOWN: Final = {1: ".byte", 2: ".half", 4: ".word", 8: ".dword"}


@dataclass(frozen=True, slots=True)
class Line:
    """One disassembled instruction, or data that is none."""

    address: int
    data: bytes
    text: str


@dataclass(slots=True)
class Labels:
    """Labels known so far, and the address that ``.`` and targets are relative to."""

    pc: int
    names: dict[str, int] = field(default_factory=dict)
    complete: bool = False  # until all labels are placed an unknown one stands for pc

    def evaluate(self, text: str) -> int:
        """Sum of numbers, labels and ``.``."""
        total = position = 0
        while position < len(text):
            match = _TERM.match(text, position)
            if match is None or (position and not match[1]):
                raise AssemblyError(
                    f"cannot read {text.strip()!r}; expected a number, a label or a sum of them"
                )
            value = self._term(match[2])
            total += -value if match[1] == "-" else value
            position = match.end()
        return total

    def _term(self, text: str) -> int:
        if text[0].isdigit():
            try:
                return int(text, 0)
            except ValueError:
                raise AssemblyError(
                    f"{text!r} is no number; expected decimal, 0x…, 0o… or 0b…"
                ) from None
        if text == ".":
            return self.pc
        if text in self.names:
            return self.names[text]
        if self.complete:
            raise AssemblyError(f"{text!r} is neither a number nor a label of this text")
        return self.pc


class Template:
    """The assembly text of one instruction, both ways."""

    __slots__ = ("hidden", "instruction", "literals", "pattern", "slots")

    def __init__(self, architecture: Architecture, instruction: Instruction) -> None:
        self.instruction = instruction
        syntax = architecture.syntax
        pieces = _FIELD.split(instruction.text)
        self.literals = pieces[::3]
        self.slots: list[tuple[Slot, Format]] = []
        for name, form in zip(pieces[1::3], pieces[2::3], strict=True):
            if name not in instruction.row.fields:
                raise DefinitionError(
                    f"{instruction}: the text {instruction.text!r} shows {name}, "
                    "which is no field of the encoding"
                )
            kind = instruction.kinds.get(name, Kind())
            slot = Slot(name, instruction.row, kind, architecture.layout, syntax.register_names)
            self.slots.append((slot, self._format(architecture, form, kind)))
        shown = {slot.name for slot, _ in self.slots}
        bits = 0
        for _, each in self.slots:
            bits |= each.bits
        self.hidden = tuple(
            name
            for name, pieces in instruction.row.fields.items()
            if name not in shown and any(~bits >> p.at & ((1 << p.size) - 1) for p in pieces)
        )
        self.pattern = re.compile(self._regex())

    def _format(self, architecture: Architecture, name: str | None, kind: Kind) -> Format:
        name = name or kind.format
        if not name:
            return NUMBER if kind.file is None else REGISTER
        found = architecture.syntax.formats.get(name) or FORMATS.get(name)
        if found is None:
            known = ", ".join(sorted({*architecture.syntax.formats, *FORMATS}))
            raise DefinitionError(
                f"{self.instruction}: no operand format named {name}; known are {known}"
            )
        return found

    def _regex(self) -> str:
        regex = _flexible(self.literals[0])
        for (_, form), literal in zip(self.slots, self.literals[1:], strict=True):
            # `lw a0, (sp)`: a displacement before a bracket may be left out.
            omitted = form.pattern == EXPRESSION and literal.startswith("(")
            regex += f"({form.pattern}{'|' if omitted else ''}){_flexible(literal)}"
        return regex

    def show(self, word: int, pc: int) -> str:
        """The text of an instruction word that this template's row matches."""
        row = self.instruction.row
        text = self.literals[0]
        for (slot, form), literal in zip(self.slots, self.literals[1:], strict=True):
            text += form.show(slot, word, pc) + literal
        default = self._hidden_defaults()
        extra = [
            f"{name}={row.extract(name, word)}"
            for name in self.hidden
            if row.extract(name, word) != default[name]
        ]
        return f"{text} {{{', '.join(extra)}}}" if extra else text

    def _hidden_defaults(self) -> dict[str, int]:
        demanded = {c.field: c.value for c in self.instruction.row.conditions if c.equal}
        kinds = self.instruction.kinds
        return {
            name: demanded.get(name, kinds[name].hidden if name in kinds else 0)
            for name in self.hidden
        }

    def read(self, operands: re.Match[str], hidden: Mapping[str, int], labels: Labels) -> int:
        """The instruction word; raises AssemblyError where an operand does not fit."""
        row = self.instruction.row
        values = self._hidden_defaults()
        for name, value in hidden.items():
            if name not in values:
                raise AssemblyError(f"{{{name}=…}} names no field that the text does not show")
            if not 0 <= value < 1 << row.width(name):
                raise AssemblyError(f"{name} is {value}; it has {row.width(name)} bits")
            values[name] = value
        elsewhere: list[Operand] = []
        for (slot, form), text in zip(self.slots, operands.groups(), strict=True):
            read = form.read(slot, (text or "").strip(), labels)
            value = read.raw if isinstance(read, Operand) else read
            if values.setdefault(slot.name, value) != value:
                raise AssemblyError(
                    f"{slot.name} appears twice in {self.instruction.text!r} with different values"
                )
            if isinstance(read, Operand):
                elsewhere.append(read)
        word = row.value
        for name, value in values.items():
            word |= row.insert(name, value)
        for each in elsewhere:
            word |= each.bits
        if any(word & each.mask != each.bits for each in elsewhere):
            raise AssemblyError("these operands do not go together")
        if not row.matches(word):
            raise AssemblyError(f"these operands have another meaning: {self._broken(word)}")
        return word

    def _broken(self, word: int) -> str:
        row = self.instruction.row
        return ", ".join(
            f"{c.field} must {'' if c.equal else 'not '}be {c.value}"
            for c in row.conditions
            if (row.extract(c.field, word) == c.value) != c.equal
        )

    @property
    def expected(self) -> str:
        """The text with the operands named, for messages."""
        text = self.literals[0]
        for (slot, form), literal in zip(self.slots, self.literals[1:], strict=True):
            text += (form.expected or slot.name) + literal
        return text


class Assembler:
    """The templates and pseudo-instructions of one architecture, by mnemonic."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.templates = {
            instruction.name: Template(architecture, instruction)
            for instruction in architecture.isa.instructions
            if instruction.text
        }

    @cached_property
    def _by_mnemonic(self) -> tuple[dict[str, list[Template]], list[tuple[str, Template]]]:
        """Templates by mnemonic, and those with a field in it by the part before the field."""
        exact: dict[str, list[Template]] = {}
        partial: list[tuple[str, Template]] = []
        for template in self.templates.values():
            mnemonic = template.instruction.mnemonic
            prefix, brace, _ = mnemonic.partition("{")
            if brace:
                partial.append((prefix, template))
            else:
                exact.setdefault(mnemonic, []).append(template)
        return exact, partial

    @cached_property
    def _aliases(self) -> dict[tuple[str, int], tuple[list[str], str]]:
        """Pseudo-instructions by mnemonic and number of operands."""
        table = {}
        for pattern, expansion in self.architecture.syntax.aliases.items():
            mnemonic, operands = _split(pattern)
            table[mnemonic, len(operands)] = [name.strip("{}") for name in operands], expansion
        return table

    def candidates(self, mnemonic: str) -> list[Template]:
        """Templates whose mnemonic this may be."""
        exact, partial = self._by_mnemonic
        found = list(exact.get(mnemonic, ()))
        return found + [template for prefix, template in partial if mnemonic.startswith(prefix)]

    def expand(self, text: str) -> list[str]:
        """The instructions that a pseudo-instruction stands for, or the text itself."""
        mnemonic, operands = _split(text)
        found = self._aliases.get((mnemonic, len(operands)))
        if found is not None:
            names, expansion = found
            filled = expansion.format(**dict(zip(names, operands, strict=True)))
            return [part.strip() for part in filled.split(";")]
        expansion_of = self.architecture.syntax.expansions.get(mnemonic)
        return [text] if expansion_of is None else expansion_of(operands)

    def encode(self, text: str, labels: Labels) -> bytes:
        """The bytes of one instruction or data directive."""
        mnemonic, operands = _split(text)
        if mnemonic in _DIRECTIVES:
            return _data(mnemonic, operands, labels)
        hidden: dict[str, int] = {}
        body = text
        if match := _HIDDEN.search(body):
            body = body[: match.start()]
            hidden = {
                name.strip(): labels.evaluate(value)
                for name, _, value in (item.partition("=") for item in match[1].split(","))
            }
        problems = []
        candidates = self.candidates(mnemonic)
        for template in candidates:
            if found := template.pattern.fullmatch(body):
                try:
                    word = template.read(found, hidden, labels)
                except AssemblyError as error:
                    problems.append(str(error))
                    continue
                row = template.instruction.row
                return word.to_bytes(row.nbytes, "little")
        raise AssemblyError(self._explain(mnemonic, candidates, problems))

    def _explain(self, mnemonic: str, candidates: list[Template], problems: list[str]) -> str:
        if problems:
            return "; or ".join(dict.fromkeys(problems))
        forms = [template.expected for template in candidates]
        forms += [
            " ".join([name, ", ".join(names)]).strip()
            for (name, _), (names, _) in self._aliases.items()
            if name == mnemonic
        ]
        if forms:
            shown = " or ".join(f"`{form}`" for form in dict.fromkeys(forms))
            return f"the operands do not match; expected {shown}"
        import difflib  # only for a message

        exact, partial = self._by_mnemonic
        known = {*exact, *(prefix for prefix, _ in partial), *(name for name, _ in self._aliases)}
        close = difflib.get_close_matches(mnemonic, known, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"{self.architecture.name} has no instruction {mnemonic!r}{hint}"


def assemble(architecture: Architecture, text: str, pc: int = 0) -> bytes:
    """The bytes of assembly text placed at ``pc``.

    Statements end at a newline or ``;``, comments begin with ``#`` or ``//``. Targets are labels,
    absolute addresses or ``.+8``. Raises AssemblyError with line, text and what was expected.

    >>> from anyarch.guests.riscv import ARCHITECTURE
    >>> assemble(ARCHITECTURE, "loop: addi a0, a0, -1; bne a0, zero, loop").hex(" ", 4)
    '1305f5ff e31e05fe'
    """
    assembler: Assembler = architecture.assembler
    labels = Labels(pc)
    statements: list[tuple[int, str]] = []
    placed: list[tuple[int, int, str, int]] = []
    for number, line in enumerate(text.split("\n"), 1):
        code = re.split(r"#|//", line, maxsplit=1)[0]
        statements += [(number, " ".join(part.split())) for part in code.split(";") if part.strip()]
    for number, statement in statements:
        try:
            rest = statement
            while match := _LABEL.match(rest):
                if match[1] in labels.names:
                    raise AssemblyError(f"the label {match[1]!r} is defined twice")
                labels.names[match[1]] = labels.pc
                rest = rest[match.end() :]
            for part in assembler.expand(rest) if rest else ():
                nbytes = len(assembler.encode(part, labels))
                placed.append((labels.pc, number, part, nbytes))
                labels.pc += nbytes
        except AssemblyError as error:
            raise AssemblyError(f"line {number}: `{statement}`: {error}") from None
    labels.complete = True
    result = bytearray()
    for address, number, part, nbytes in placed:
        labels.pc = address
        try:
            data = assembler.encode(part, labels)
            if len(data) != nbytes:
                raise AssemblyError("its length depends on a label that follows; use a number")
        except AssemblyError as error:
            raise AssemblyError(f"line {number}: `{part}`: {error}") from None
        result += data
    return bytes(result)


def disassemble(architecture: Architecture, data: bytes, pc: int = 0) -> Iterator[Line]:
    """A line for each instruction in ``data``; what is no instruction prints as data.

    >>> from anyarch.guests.riscv import ARCHITECTURE
    >>> for line in disassemble(ARCHITECTURE, bytes.fromhex("1305f5ff e31e05fe"), 0x1000):
    ...     print(f"{line.address:#x}: {line.text}")
    0x1000: addi a0, a0, -1
    0x1004: bne a0, zero, 0x1000
    """
    offset = 0
    shortest = min(row[2] for row in architecture.lengths)
    while offset < len(data):
        address = (pc + offset) & ADDRESS_MASK
        nbytes = architecture.length(int.from_bytes(data[offset : offset + shortest], "little"))
        if offset + nbytes > len(data):
            yield from (
                Line(address + index, bytes([byte]), f".byte {byte:#04x}")
                for index, byte in enumerate(data[offset:])
            )
            return
        chunk = data[offset : offset + nbytes]
        yield Line(address, chunk, format_word(architecture, chunk, address))
        offset += nbytes


def format_word(architecture: Architecture, data: bytes, pc: int = 0) -> str:
    """The text of the one instruction in ``data``."""
    word = int.from_bytes(data, "little")
    instruction: Instruction | None = architecture.decoder.decode(word)
    if instruction is not None and instruction.row.nbytes == len(data):
        assembler: Assembler = architecture.assembler
        if template := assembler.templates.get(instruction.name):
            return template.show(word, pc)
    if len(data) in _UNKNOWN:
        return f"{_UNKNOWN[len(data)]} {word:#0{2 + 2 * len(data)}x}"
    return ".byte " + ", ".join(f"{byte:#04x}" for byte in data)


def _data(directive: str, operands: list[str], labels: Labels) -> bytes:
    nbytes = _DIRECTIVES[directive]
    result = bytearray()
    for operand in operands:
        value = labels.evaluate(operand)
        if not -1 << 8 * nbytes - 1 <= value < 1 << 8 * nbytes:
            raise AssemblyError(f"{value:#x} does not fit {directive}: it has {8 * nbytes} bits")
        result += (value & ((1 << 8 * nbytes) - 1)).to_bytes(nbytes, "little")
    if not result:
        raise AssemblyError(f"{directive} needs at least one value")
    return bytes(result)


def _split(text: str) -> tuple[str, list[str]]:
    """Mnemonic and operands of a statement."""
    mnemonic, _, rest = text.strip().partition(" ")
    return mnemonic, [part.strip() for part in rest.split(",")] if rest.strip() else []


def _flexible(literal: str) -> str:
    """A pattern for literal text in which blanks around punctuation do not matter."""
    pattern = ""
    for token in re.findall(r"\s+|[,()\[\]]|[^\s,()\[\]]+", literal):
        if token in set(",()[]"):
            pattern += rf"\s*{re.escape(token)}\s*"
        else:
            pattern += (
                r"\s*"
                if token.isspace() and pattern.endswith(r"\s*")
                else (r"\s+" if token.isspace() else re.escape(token))
            )
    return pattern
