"""A small evaluator of graphs: what tests compare a graph with a rewritten one by.

The world is made up but fixed: what memory, counters and floating point give is a function of the
request alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anyarch.ir.graph import Graph, Node, is_effect
from anyarch.ir.ops import OPS, evaluate


@dataclass(frozen=True, slots=True)
class World:
    """What a graph reads: raw fields, pc, and registers by file and index."""

    fields: Mapping[str, int]
    pc: int
    register: Callable[[str, int], int]


# An effect that happened: operation, operand values, attributes.
Event = tuple[str, tuple[int, ...], tuple[int | str, ...]]


def run_graph(graph: Graph, world: World) -> list[Event]:
    """The effects that happen, in order; nothing after an exception."""
    values: dict[int, int] = {}
    guards = {each.node.number: each.guard for each in graph.effects}
    events: list[Event] = []
    for node in graph.live():
        if not is_effect(node):
            values[node.number] = _pure(node, values, world)
            continue
        guard = guards[node.number]
        if guard is not None and not values[guard.number]:
            values[node.number] = 0
            continue
        operands = tuple(values[arg.number] for arg in node.args)
        events.append((node.op, operands, node.attrs))
        if node.op == "exception":
            break
        values[node.number] = answer(events[-1]) & ((1 << node.size) - 1)
    return events


def answer(event: Event) -> int:
    """What the world answers to an effect."""
    return int.from_bytes(hashlib.blake2b(repr(event).encode()).digest(), "little")


def value_of(root: Node, world: World) -> int:
    """The value of a node below which are no effects."""
    values: dict[int, int] = {}
    stack = [root]
    while stack:
        waiting = [arg for arg in stack[-1].args if arg.number not in values]
        if not waiting:
            node = stack.pop()
            values[node.number] = _pure(node, values, world)
        stack += waiting
    return values[root.number]


def _pure(node: Node, values: Mapping[int, int], world: World) -> int:
    if node.op in OPS:
        operands = tuple(values[arg.number] for arg in node.args)
        sizes = tuple(arg.size for arg in node.args)
        return evaluate(node.op, node.size, operands, sizes, tuple(map(int, node.attrs)))
    match node.op:
        case "const":
            return node.value
        case "field":
            return world.fields[str(node.attrs[0])]
        case "pc":
            return world.pc
        case "register":
            whole = world.register(str(node.attrs[0]), values[node.args[0].number])
            return whole & ((1 << node.size) - 1)
    raise AssertionError(f"{node} is no pure node")
