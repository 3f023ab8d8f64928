"""Loads of adjacent bytes, which one load can do.

Compilers for processors without unaligned accesses make words of bytes. Where nothing is stored
between them, and no page ends, the bytes may as well be loaded together where the first is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from anyarch.engine.regions import Occurrence
from anyarch.ir.graph import Node

_SIZES: Final = (8, 4, 2)  # bytes in one load
_MASK: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63

Address = tuple[tuple[str, int], int]  # a register and a constant
AddressOf = Callable[[Occurrence, Node], Address | None]


@dataclass(frozen=True, slots=True)
class Word:
    """Bytes that are loaded together: the pc of the load of each, the lowest byte first."""

    pcs: tuple[int, ...]

    @property
    def first(self) -> int:
        """The one that comes first in the program: all are loaded there, and a fault has its place
        and its address."""
        return min(self.pcs)

    @property
    def size(self) -> int:
        """In bits."""
        return 8 * len(self.pcs)


def words(
    instructions: list[Occurrence], address_of: AddressOf, exact: Set[tuple[str, int]]
) -> Mapping[int, Word]:
    """By the pcs of their loads, the words that a block loads as bytes, without a write between
    them of a register that is ``exact`` at faults."""
    if sum(map(_loads_byte, instructions)) < min(_SIZES):
        return {}
    found: dict[int, Word] = {}
    loads: dict[Address, int] = {}  # since something was stored, or the register was written
    for each in instructions:
        effects = each.template.graph.effects if each.template.is_native else ()
        node = effects[0].node if effects else None
        if (
            any(effect.node.op not in ("load", "write", "jump") for effect in effects)
            or not effects
        ):
            found |= _joined(loads)
            loads = {}
        elif node is not None and node.op == "load" and node.size == 8 and node.attrs[0] == "plain":
            address = address_of(each, node.args[0])
            if address is not None and effects[0].guard is None:
                loads.setdefault(address, each.pc)
        for effect in effects:
            if effect.node.op == "write":
                file, number = str(effect.node.attrs[0]), each.constant(effect.node.args[0])
                if (file, number) in exact:
                    found |= _joined(loads)
                    loads = {}
                elif any(register == (file, number) for register, _ in loads):
                    found |= _joined(loads)
                    loads = {at: pc for at, pc in loads.items() if at[0] != (file, number)}
    return found | _joined(loads)


def _joined(loads: Mapping[Address, int]) -> dict[int, Word]:
    """The words among loads of bytes: the longest first, then those at the lowest addresses."""
    found: dict[int, Word] = {}
    for nbytes in _SIZES:
        for register, offset in sorted(loads, key=_signed):
            at = [(register, offset + index & _MASK) for index in range(nbytes)]
            pcs = [loads.get(each, -1) for each in at]
            if -1 not in pcs and found.keys().isdisjoint(pcs):
                found |= dict.fromkeys(pcs, Word(tuple(pcs)))
    return found


def _signed(address: Address) -> Address:
    register, offset = address
    return register, (offset ^ _SIGN) - _SIGN


def _loads_byte(found: Occurrence) -> bool:
    """Whether loading a byte is what an instruction does first."""
    if not found.template.is_native or not found.template.graph.effects:
        return False
    first = found.template.graph.effects[0]
    node = first.node
    return node.op == "load" and node.size == 8 and node.attrs[0] == "plain" and first.guard is None
