"""Which lanes of a warp can ever be active in a block: `if (threadIdx.x < 8)` leaves eight."""

from __future__ import annotations

from typing import Final

from anyarch.gpu.cpu.flow import END, Flow, writes
from anyarch.gpu.cpu.shapes import LANES, Shapes, split_of
from anyarch.gpu.ptx.tree import Instruction, Register

__all__ = ["ALL_LANES", "possible_lanes"]

ALL_LANES: Final = (1 << LANES) - 1


def possible_lanes(flow: Flow, shapes: Shapes) -> list[int]:
    """For each block the lanes that may be active, as bits."""
    sides = _predicates(flow, shapes)
    possible = [0] * len(flow.blocks)
    possible[0] = ALL_LANES
    todo = [0]
    while todo:
        block = flow.blocks[todo.pop()]
        branch = block.branch
        edges = [ALL_LANES] * len(branch.targets)
        if branch.kind == "cond" and branch.register in sides:
            edges = list(sides[branch.register])
            if branch.negated:
                edges.reverse()
        for target, lanes in zip(branch.targets, edges):
            if target == END:
                continue
            new = possible[target] | (possible[block.index] & lanes)
            if new != possible[target]:
                possible[target] = new
                todo.append(target)
    return possible


def _predicates(flow: Flow, shapes: Shapes) -> dict[Register, tuple[int, int]]:
    """Lanes that may find a predicate true, and those that may find it false."""
    written: dict[Register, list[Instruction]] = {}
    for block in flow.blocks:
        for instruction in block.body:
            for register in writes(instruction):
                written.setdefault(register, []).append(instruction)
    found = {}
    for register, instructions in written.items():
        if register.type == "pred" and len(instructions) == 1:
            (one,) = instructions
            lanes = _lanes(shapes, one, True), _lanes(shapes, one, False)
            if lanes != (ALL_LANES, ALL_LANES):
                found[register] = lanes
    return found


def _lanes(shapes: Shapes, instruction: Instruction, value: bool) -> int:
    split = split_of(shapes, instruction)
    shape = shapes.operand(instruction.operands[1])
    if split is None or shape is None or shape.most < 0:
        return ALL_LANES
    if (split.below is value and split.base > 0) or (
        split.above is value and split.base < shape.most
    ):
        return ALL_LANES
    if split.base > shape.most:
        return 0
    return sum(1 << n for n, is_ in enumerate(split.inside) if is_ is value)
