"""Local arrays whose addresses go nowhere but into loads and stores of local memory.

They lie in the frame of the native function, element by element, the lanes of an element side by
side: what all lanes take from the same place of their arrays is one vector, and LLVM keeps small
arrays in registers. Any other local memory lies thread by thread, as generic addresses need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyarch.gpu.cpu.flow import reads, writes
from anyarch.gpu.ptx.tree import SIZES, Address, Function, Instruction, Symbol

__all__ = ["element_nbytes"]

_MOST: Final = 1 << 11  # bytes of a thread's arrays that are kept so


def element_nbytes(functions: Sequence[Function], nbytes: int) -> int:
    """The size of every element that functions load from and store to local memory, of which a
    thread has `nbytes`; 0 if it cannot be kept side by side."""
    if not 0 < nbytes <= _MOST:
        return 0
    sizes: set[int] = set()
    for function in functions:
        body = [s for s in function.statements or () if isinstance(s, Instruction)]
        read = {r for i in body for r in reads(i)}
        for i in body:
            spaces = {m.split("::")[0] for m in i.modifiers}
            if "local" not in spaces:
                if i.opcode in ("ld", "st") and _names_local(function, i):
                    return 0
                continue
            if i.opcode == "cvta" and "to" not in spaces and read.isdisjoint(writes(i)):
                continue
            if i.opcode not in ("ld", "st") or not function.entry:
                return 0
            sizes.add(max(SIZES[i.types[-1]] // 8, 1))
    return sizes.pop() if len(sizes) == 1 and max(sizes) <= 8 else 0


def _names_local(function: Function, instruction: Instruction) -> bool:
    """Whether an access without a space names a local variable."""
    return any(
        isinstance(o, Address)
        and isinstance(o.base, Symbol)
        and o.base.name in function.variables
        and function.variables[o.base.name].space == "local"
        for o in instruction.operands
    )
