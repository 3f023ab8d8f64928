"""An architecture as engines and front ends see it.

What running a program from cached native code needs is here at once; the definitions are loaded
when something asks for them, since that takes longer than a short program runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from anyarch.data import dataclass, field
from anyarch.isa.registers import Layout

if TYPE_CHECKING:
    from anyarch.isa.assembly import Assembler
    from anyarch.isa.decoder import Decoder
    from anyarch.isa.instruction import InstructionSet
    from anyarch.isa.syntax import Syntax


@dataclass(frozen=True, slots=True)
class FloatStatus:
    """Where the guest keeps floating-point flags and rounding mode."""

    flags: tuple[str, int]
    rounding: tuple[str, int]
    rules: str = "riscv"


@dataclass(frozen=True, slots=True)
class Convention:
    """How compiled regions call each other: registers as (file, number) that stay in the host's.

    ``link`` has the return address at a call. ``integers`` (at most ten, of 64 bits) and
    ``vectors`` (at most sixteen) are arguments and results of every region. ``kept`` ones are right
    at a fault too. ``flags`` is a file of at most eight registers of eight bits, computed when
    something reads them.
    """

    link: tuple[str, int] | None = None
    integers: tuple[tuple[str, int], ...] = ()
    vectors: tuple[tuple[str, int], ...] = ()
    kept: tuple[tuple[str, int], ...] = ()
    flags: str = ""

    @property
    def traced(self) -> tuple[tuple[str, int], ...]:
        """Kept ones that stay in the host's: where they are at a fault a table tells."""
        return tuple(place for place in self.kept if place == self.link or place in self.integers)


@dataclass(frozen=True)
class Architecture:
    """Everything that engines and front ends know of a guest."""

    name: str
    definitions: Callable[[], InstructionSet]  # loads and gives the instruction set
    layout: Layout
    lengths: tuple[tuple[int, int, int], ...]  # (mask, value, nbytes) on the first bytes
    float_status: FloatStatus | None = None
    stack_pointer: tuple[str, int] = ("x", 2)
    return_registers: tuple[tuple[str, int], ...] = ()  # a jump through one is a return
    convention: Convention = field(default_factory=Convention)
    elf_machine: int = 0
    exceptions: Mapping[int, str] = field(default_factory=dict)
    pointer_bits: int = 64  # what programs keep above those of a pointer is no part of the address
    fused: tuple[tuple[str, ...], ...] = ()  # sequences that the interpreter runs as one handler

    @cached_property
    def isa(self) -> InstructionSet:
        """The definitions."""
        return self.definitions()

    @property
    def syntax(self) -> Syntax:
        """How assembly text is read and written."""
        return self.isa.syntax

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder in Python, built once."""
        from anyarch.isa.decoder import Decoder

        return Decoder(self)

    @cached_property
    def assembler(self) -> Assembler:
        """The templates of all instructions, built once."""
        from anyarch.isa.assembly import Assembler

        return Assembler(self)

    def length(self, word: int) -> int:
        """Length in bytes of the instruction that begins with ``word``, known or not."""
        for mask, value, nbytes in self.lengths:
            if word & mask == value:
                return nbytes
        return self.lengths[-1][2]
