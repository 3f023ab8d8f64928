"""Loops that wait for what another thread writes: they must let others run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.gpu.cpu.flow import Flow, reads, writes
from anyarch.gpu.ptx.tree import Address, Instruction, Symbol

__all__ = ["observes", "polling_loops"]

_ORDERED: Final = {"volatile", "relaxed", "acquire", "mmio"}


def observes(instruction: Instruction) -> bool:
    """Whether an instruction gives what other threads may have written just now."""
    if instruction.opcode == "ld":
        return bool(_ORDERED & set(instruction.modifiers))
    return instruction.opcode in ("atom", "mbarrier")


def polling_loops(flow: Flow, seen: Callable[[Instruction], bool]) -> frozenset[int]:
    """Numbers of the loops with a branch that depends on what `seen` says is seen."""
    body = [i for block in flow.blocks for i in block.body]
    depends = {r for i in body if seen(i) for r in writes(i)}
    stored = any(i.opcode == "call" and seen(i) for i in body)  # a result is loaded from memory
    before = None
    while before != (len(depends), stored):
        before = len(depends), stored
        for i in body:
            if any(r in depends for r in reads(i)) or (stored and _is_local_load(flow, i)):
                depends.update(writes(i))
                stored = stored or i.opcode == "st"
    return frozenset(
        loop.number
        for loop in flow.loops
        if any(flow.blocks[n].branch.register in depends for n in loop.blocks)
    )


def _is_local_load(flow: Flow, instruction: Instruction) -> bool:
    """Whether a load may give what this function stored: memory of its own, or a call's result."""
    if instruction.opcode != "ld":
        return False
    spaces = {m.split("::")[0] for m in instruction.modifiers}
    if "param" not in spaces:
        return not {"global", "const"} & spaces
    address = instruction.operands[1]
    base = address.base if isinstance(address, Address) else None
    return isinstance(base, Symbol) and base.name in flow.function.variables
