"""Instruction sets: definitions, and what the definitions give without any engine.

An :class:`InstructionSet` collects the functions that ``insn`` decorates, knows the field kinds,
and gives for each definition its :class:`Form` per value of the static fields.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyarch.errors import DefinitionError
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.graph import Graph
from anyarch.isa.encoding import Row, parse_row
from anyarch.isa.machine import Machine, Tracer, activate
from anyarch.isa.registers import Layout
from anyarch.isa.syntax import Syntax

Function = TypeVar("Function", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field's raw bits become the value that a definition receives.

    ``signed`` extends the sign to ``size`` bits; ``size`` 0 leaves the raw width. A register field
    has ``file``, and ``base`` is added to it (RISC-V's three-bit register numbers). ``format`` is
    how it reads and prints where a text names no other format; ``hidden`` what the bits are where
    a text does not show the field (Arm's should-be-one).
    """

    width: int = 0
    size: int = 0
    signed: bool = False
    file: str | None = None
    base: int = 0
    format: str = ""
    hidden: int = 0

    def value(self, raw: Bits) -> Bits:
        """The definition's view of the raw bits."""
        if self.file is not None:
            return raw.zext(max(8, raw.size)) + self.base
        if self.size:
            return raw.sext(self.size) if self.signed else raw.zext(self.size)
        return raw


@dataclass(frozen=True, slots=True)
class Instruction:
    """One definition: encoding, assembly text and meaning."""

    name: str
    row: Row
    text: str
    function: Callable[..., None]
    static: tuple[str, ...]
    extension: str
    kinds: Mapping[str, Kind]

    @property
    def mnemonic(self) -> str:
        """First word of the assembly text."""
        return self.text.split()[0] if self.text else self.name

    def __str__(self) -> str:
        return f"{self.extension}:{self.name} [{self.row.text}]"

    def arguments(self, raw: Callable[[str, int], Bits], static: Mapping[str, int]) -> list[Any]:
        """The function's arguments after the machine, from raw field values."""
        result: list[Any] = []
        for name in self.row.fields:
            if name in static:
                result.append((name, static[name]))
            else:
                kind = self.kinds.get(name, Kind())
                result.append((name, kind.value(raw(name, self.row.width(name)))))
        return result

    def run(self, machine: Machine, word: int) -> None:
        """Run the definition on a machine, with the fields of ``word``."""
        static = {name: self.row.extract(name, word) for name in self.static}
        arguments = self.arguments(
            lambda name, size: Concrete(self.row.extract(name, word), size), static
        )
        with activate(machine):
            self.function(machine, **dict(arguments))

    def forms(self) -> Iterator[Form]:
        """One form per permitted value of the static fields."""
        ranges = [range(1 << self.row.width(name)) for name in self.static]
        for values in itertools.product(*ranges):
            static = dict(zip(self.static, values, strict=True))
            permitted = all(
                (static[c.field] == c.value) == c.equal
                for c in self.row.conditions
                if c.field in static
            )
            if permitted:
                yield Form(self, static)


@dataclass(frozen=True, slots=True)
class Form:
    """A definition with its static fields fixed: what one handler implements."""

    instruction: Instruction
    static: Mapping[str, int]

    @property
    def name(self) -> str:
        """The instruction's name with the static values."""
        values = "".join(f"_{name}{value}" for name, value in self.static.items())
        return self.instruction.name + values

    def trace(self, layout: Layout, word: int | None = None) -> Graph:
        """The meaning as a graph; fields are constants where ``word`` is given."""
        row = self.instruction.row
        tracer = Tracer(layout, row.nbytes, self.name)

        def raw(name: str, size: int) -> Bits:
            if word is None:
                return tracer.graph.field(name, size)
            return tracer.graph.const(row.extract(name, word), size)

        arguments = self.instruction.arguments(raw, self.static)
        with activate(tracer):
            self.instruction.function(tracer, **dict(arguments))
        return tracer.finish()


@dataclass(slots=True)
class InstructionSet:
    """The definitions of one architecture."""

    name: str
    kinds: Mapping[str, Kind]
    unit: int = 32
    instructions: list[Instruction] = field(default_factory=list)
    syntax: Syntax = field(default_factory=Syntax)  # assembly text: formats, pseudo-instructions
    _names: set[str] = field(default_factory=set)

    def insn(
        self, row: str, text: str, *, static: str = "", where: str = "", name: str = ""
    ) -> Callable[[Function], Function]:
        """Decorate a definition: encoding row, assembly text, meaning.

        ``static`` names fields that the function receives as Python ints, one handler per value;
        ``where`` lists conditions such as ``rd != 0``.
        """
        widths = {key: kind.width for key, kind in self.kinds.items() if kind.width}

        def decorate(function: Function) -> Function:
            own = name or function.__name__.rstrip("_")
            if own in self._names:
                raise DefinitionError(f"{self.name}: {own} is defined twice")
            self._names.add(own)
            parsed = parse_row(row, widths, where, unit=self.unit)
            names = tuple(static.split())
            for each in names:
                if each not in parsed.fields:
                    raise DefinitionError(f"{self.name}: {own} has no field {each} to be static")
            extension = function.__module__.rpartition(".")[2]
            self.instructions.append(
                Instruction(own, parsed, text, function, names, extension, self.kinds)
            )
            return function

        return decorate
