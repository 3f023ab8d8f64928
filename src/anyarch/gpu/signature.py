"""The parameters of a kernel, and where each lies in the block that a launch passes.

PTX ISA 9.0, 5.1.6 (parameter state space): parameters follow each other, each aligned as its type,
or as its `.align` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TYPE_NBYTES", "Parameter", "Signature", "lay_out"]

TYPE_NBYTES: Final = {
    f"{letter}{size}": size // 8
    for letter, sizes in {
        "b": (8, 16, 32, 64, 128),
        "u": (8, 16, 32, 64),
        "s": (8, 16, 32, 64),
        "f": (16, 32, 64),
    }.items()
    for size in sizes
} | {"bf16": 2, "f16x2": 4, "bf16x2": 4, "texref": 8, "samplerref": 8, "surfref": 8}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    `type` is the PTX type without its dot ("u64", "f32", "b8"), or "" where only the size is known
    (a cubin). An array (a structure passed by value) has `count` elements; None is a scalar.
    """

    name: str
    type: str
    offset: int
    nbytes: int
    count: int | None = None

    def __str__(self) -> str:
        if not self.type:
            return f"{self.nbytes} bytes"
        return f".{self.type}" + (f"[{self.count}]" if self.count is not None else "")


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters of a kernel in order; `nbytes` is the size of the parameter block."""

    parameters: tuple[Parameter, ...]
    nbytes: int


def lay_out(declared: list[tuple[str, str, int | None, int]]) -> Signature:
    """Place parameters given as (name, type, array count or None, alignment or 0 for natural)."""
    parameters = []
    offset = 0
    for name, type_, count, align in declared:
        each = TYPE_NBYTES[type_]
        nbytes = each * (1 if count is None else count)
        offset += -offset % (align or each)
        parameters.append(Parameter(name, type_, offset, nbytes, count))
        offset += nbytes
    return Signature(tuple(parameters), offset)
