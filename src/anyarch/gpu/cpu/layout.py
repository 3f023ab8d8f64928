"""Where the variables of a module lie, and what they hold before a kernel runs."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import SIZES, Module, Symbol, Variable

__all__ = ["FUNCTION_HANDLES", "ModuleLayout", "lay_out_module"]

# The address of a function is a number that no memory has; indirect calls compare it.
FUNCTION_HANDLES: Final = 0x4000_0000_0000_0000
_GAP: Final = 64  # between variables


@dataclass(slots=True)
class ModuleLayout:
    """Offsets of `.global` and `.const` variables in one piece of memory, function handles.

    `addresses` are (offset, addend) of 8-byte words that hold an address in that memory.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    handles: dict[str, int] = field(default_factory=dict)
    image: bytearray = field(default_factory=bytearray)
    addresses: list[tuple[int, int]] = field(default_factory=list)


def lay_out_module(module: Module) -> ModuleLayout:
    """Place every variable with storage; an extern one that nothing defines has none."""
    layout = ModuleLayout()
    for number, name in enumerate(module.functions):
        layout.handles[name] = FUNCTION_HANDLES + 16 * number
    placed = []
    end = 0
    for variable in module.variables.values():
        if variable.space not in ("global", "const"):
            continue
        if variable.linkage == "extern":
            continue
        end += -end % max(variable.alignment, 16)
        layout.offsets[variable.name] = end
        placed.append(variable)
        end += variable.nbytes + _GAP
    layout.image = bytearray(end)
    for variable in placed:
        _initialise(layout, variable)
    return layout


def _initialise(layout: ModuleLayout, variable: Variable) -> None:
    nbytes = max(SIZES[variable.type] // 8, 1)
    at = layout.offsets[variable.name]
    for value in variable.values:
        if isinstance(value, Symbol):
            _address(layout, variable, at, value)
        else:
            layout.image[at : at + nbytes] = _bytes(variable.type, value)
        at += nbytes


def _address(layout: ModuleLayout, variable: Variable, at: int, value: Symbol) -> None:
    if SIZES[variable.type] != 64:
        place = variable.place
        raise PtxError(
            f"the address of {value.name} does not fit .{variable.type}", place.line, place.column
        )
    if value.name in layout.handles:
        handle = layout.handles[value.name] + value.offset
        layout.image[at : at + 8] = handle.to_bytes(8, "little")
    elif value.name in layout.offsets:
        layout.addresses.append((at, layout.offsets[value.name] + value.offset))
    else:
        place = variable.place
        raise PtxError(f"no variable or function {value.name!r}", place.line, place.column)


def _bytes(type_: str, value: int | float) -> bytes:
    size = SIZES[type_]
    if type_ == "f64":
        return struct.pack("<d", value)
    if type_ == "f32":
        return struct.pack("<f", value)
    if type_ == "f16":
        return struct.pack("<e", value)
    if isinstance(value, float):
        raise PtxError(f"a float cannot initialise .{type_}")
    return (value & (1 << size) - 1).to_bytes(max(size // 8, 1), "little")
