"""What PTX text says, as data. PTX ISA 9.0, chapters 4 to 11.

Nested scopes are gone: the parser renames what they declare, and what a body declares is in tables
of the function. Every name in an instruction is resolved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

__all__ = [
    "SIZES",
    "Address",
    "Constant",
    "Function",
    "Immediate",
    "Instruction",
    "Label",
    "Module",
    "Operand",
    "Pair",
    "Place",
    "Prototype",
    "Register",
    "Special",
    "Statement",
    "Symbol",
    "Targets",
    "Variable",
    "VectorOperand",
]

# Bits of each fundamental type (5.2.1), alternate formats (5.2.3) and packed types (5.2.5).
SIZES: Final = {
    **{f"{letter}{size}": size for letter in "bus" for size in (8, 16, 32, 64)},
    "b128": 128,
    "pred": 1,
    "f16": 16,
    "f32": 32,
    "f64": 64,
    "bf16": 16,
    "tf32": 32,
    "f16x2": 32,
    "bf16x2": 32,
    "u16x2": 32,
    "s16x2": 32,
    "e4m3": 8,
    "e5m2": 8,
    "e4m3x2": 16,
    "e5m2x2": 16,
    "texref": 64,
    "samplerref": 64,
    "surfref": 64,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Register:
    """A register; its name is unique in its function."""

    name: str
    type: str

    @property
    def size(self) -> int:
        """Width in bits; 1 for a predicate."""
        return SIZES[self.type]


@dataclass(frozen=True, slots=True)
class Special:
    """A special register as an operand: `%tid.x`, `%laneid`."""

    name: str


@dataclass(frozen=True, slots=True)
class Immediate:
    """A number. `bits` is its size where the text says (0f…, 0d…), else 0; `value` is then the bits
    of a float. A float written as a decimal has `real`."""

    value: int
    bits: int = 0
    real: float | None = None


@dataclass(frozen=True, slots=True)
class Symbol:
    """The address of a variable, function or label, plus an offset."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """`[base + offset]`; base is a register, a symbol, or None for an absolute address."""

    base: Register | Symbol | None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class VectorOperand:
    """`{a, b, c, d}`; None stands for the sink `_`."""

    elements: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """`a|b`, two results."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Constant:
    """An operand that is not a value: a negated predicate, an element of a register, a list."""

    kind: str  # not | element | list | sink | texture
    operands: tuple[Operand, ...] = ()
    text: str = ""


Operand: TypeAlias = (
    Register | Special | Immediate | Symbol | Address | VectorOperand | Pair | Constant
)


@dataclass(slots=True)
class Instruction:
    """One instruction: `opcode` without modifiers, `modifiers` without their dots."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    place: Place
    guard: Register | None = None
    negated: bool = False
    source: tuple[int, int] | None = None  # file number and line of the last .loc
    text: str = ""

    @property
    def name(self) -> str:
        """Opcode with modifiers."""
        return ".".join((self.opcode, *self.modifiers))

    @property
    def types(self) -> tuple[str, ...]:
        """The modifiers that are types, in order."""
        return tuple(m for m in self.modifiers if m in SIZES)


@dataclass(slots=True)
class Label:
    """A place to jump to; its name is unique in its function."""

    name: str
    place: Place


@dataclass(slots=True)
class Targets:
    """`name: .branchtargets a, b;` or `.calltargets`."""

    name: str
    labels: tuple[str, ...]
    place: Place


Statement: TypeAlias = Instruction | Label


@dataclass(slots=True)
class Variable:
    """A variable or parameter.

    `count` is the number of elements over all dimensions, None for a scalar, 0 for an array of
    unknown size. `values` are initial elements: numbers, floats as bits, or symbols; a symbol with
    `mask(...)` keeps the operator's mask.
    """

    name: str
    space: str  # reg, global, const, shared, local, param
    type: str
    place: Place
    align: int = 0
    vector: int = 1
    count: int | None = None
    values: tuple[int | float | Symbol, ...] = ()
    linkage: str = ""

    @property
    def element_nbytes(self) -> int:
        """Bytes of one element."""
        return max(SIZES[self.type] // 8, 1) * self.vector

    @property
    def nbytes(self) -> int:
        """Bytes of the whole variable."""
        return self.element_nbytes * (1 if self.count is None else self.count)

    @property
    def alignment(self) -> int:
        """Declared or natural alignment."""
        return self.align or self.element_nbytes


@dataclass(slots=True)
class Prototype:
    """`name: .callprototype …`: the shape of an indirect call."""

    name: str
    returns: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    place: Place


@dataclass(slots=True)
class Function:
    """A kernel (`entry`) or device function; `statements` is None for a declaration."""

    name: str
    entry: bool
    returns: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    place: Place
    linkage: str = ""
    statements: list[Statement] | None = None
    registers: dict[str, Register] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)  # local, shared, param in the body
    prototypes: dict[str, Prototype] = field(default_factory=dict)
    targets: dict[str, Targets] = field(default_factory=dict)
    directives: dict[str, tuple[int, ...]] = field(default_factory=dict)  # maxntid, reqntid, …


@dataclass(slots=True)
class Module:
    """A whole PTX text."""

    version: tuple[int, int]
    target: tuple[str, ...]
    address_size: int
    variables: dict[str, Variable] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)

    @property
    def kernels(self) -> dict[str, Function]:
        """The kernels that have a body."""
        return {n: f for n, f in self.functions.items() if f.entry and f.statements is not None}
