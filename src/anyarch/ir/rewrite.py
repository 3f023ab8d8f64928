"""The optimiser: a table of rewrite rules, applied bottom-up, and dead values dropped.

A rule receives the graph and a node with rewritten operands and returns a node to use instead,
or None. Rules never change what an effect does or when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.ir.graph import Graph, Node, is_effect
from anyarch.ir.ops import OPS

Rule = Callable[[Graph, Node], Node | None]


def _is(node: Node, value: int) -> bool:
    return node.op == "const" and node.value == value & ((1 << node.size) - 1)


def constant_right(graph: Graph, node: Node) -> Node | None:
    """Commutative operations have their constant on the right."""
    left, right = node.args
    if left.op == "const" and right.op != "const":
        return graph.pure(node.op, node.size, (right, left))
    return None


def neutral(value: int) -> Rule:
    """``x op value`` is ``x``."""
    return lambda graph, node: node.args[0] if _is(node.args[1], value) else None


def absorbing(value: int) -> Rule:
    """``x op value`` is ``value``."""
    return lambda graph, node: node.args[1] if _is(node.args[1], value) else None


def same_operands(value: int | None) -> Rule:
    """``x op x`` is a constant, or ``x``."""

    def rule(graph: Graph, node: Node) -> Node | None:
        if node.args[0] is not node.args[1]:
            return None
        return node.args[0] if value is None else graph.const(value, node.size)

    return rule


def multiply_power(graph: Graph, node: Node) -> Node | None:
    """A product with a power of two is a shift."""
    left, right = node.args
    if right.op == "const" and right.value and not right.value & (right.value - 1):
        amount = graph.const(right.value.bit_length() - 1, node.size)
        return graph.pure("shl", node.size, (left, amount))
    return None


def divide_power(graph: Graph, node: Node) -> Node | None:
    """An unsigned quotient by a power of two is a shift, the remainder a mask."""
    left, right = node.args
    if right.op != "const" or not right.value or right.value & (right.value - 1):
        return None
    if node.op == "udiv":
        amount = graph.const(right.value.bit_length() - 1, node.size)
        return graph.pure("shr", node.size, (left, amount))
    return graph.pure("and", node.size, (left, graph.const(right.value - 1, node.size)))


def add_constants(graph: Graph, node: Node) -> Node | None:
    """``(x + a) + b`` is ``x + (a + b)``."""
    left, right = node.args
    if right.op == "const" and left.op == "add" and left.args[1].op == "const":
        total = graph.const(left.args[1].value + right.value, node.size)
        return graph.pure("add", node.size, (left.args[0], total))
    return None


def subtract_constant(graph: Graph, node: Node) -> Node | None:
    """``x - constant`` is ``x + -constant``."""
    left, right = node.args
    if right.op == "const":
        return graph.pure("add", node.size, (left, graph.const(-right.value, node.size)))
    return None


def select_known(graph: Graph, node: Node) -> Node | None:
    """A select with a known condition, or with equal sides."""
    condition, then, otherwise = node.args
    if condition.op == "const":
        return then if condition.value else otherwise
    return then if then is otherwise else None


def extend_twice(graph: Graph, node: Node) -> Node | None:
    """An extension of the same extension; a sign extension of a zero extension."""
    (inner,) = node.args
    if inner.op == node.op or inner.op == "zext":
        return graph.pure(inner.op, node.size, inner.args)
    return None


def extract_through(graph: Graph, node: Node) -> Node | None:
    """An extract of an extract, of an extension or of one side of a concat."""
    (inner,) = node.args
    low = int(node.attrs[0])
    if low == 0 and node.size == inner.size:
        return inner
    if inner.op == "extract":
        return graph.pure("extract", node.size, inner.args, (low + int(inner.attrs[0]),))
    if inner.op in ("zext", "sext") and low + node.size <= inner.args[0].size:
        source = inner.args[0]
        if node.size == source.size:
            return source
        return graph.pure("extract", node.size, (source,), (low,))
    if inner.op == "zext" and low == 0 and node.size > inner.args[0].size:
        return graph.pure("zext", node.size, inner.args)
    if inner.op == "concat":
        high, below = inner.args
        if low + node.size <= below.size:
            return _extract(graph, below, low, node.size)
        if low >= below.size:
            return _extract(graph, high, low - below.size, node.size)
    return None


def _extract(graph: Graph, source: Node, low: int, size: int) -> Node:
    if size == source.size:
        return source
    return graph.pure("extract", size, (source,), (low,))


def not_of_compare(graph: Graph, node: Node) -> Node | None:
    """The complement of a comparison is the opposite comparison."""
    inner, right = node.args
    if node.size != 1 or not _is(right, 1):
        return None
    a_b = inner.args
    match inner.op:
        case "eq":
            return graph.pure("ne", 1, a_b)
        case "ne":
            return graph.pure("eq", 1, a_b)
        case "ult" | "slt":
            return graph.pure(inner.op[0] + "le", 1, a_b[::-1])
        case "ule" | "sle":
            return graph.pure(inner.op[0] + "lt", 1, a_b[::-1])
    return None


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "add": (constant_right, neutral(0), add_constants),
    "sub": (neutral(0), same_operands(0), subtract_constant),
    "mul": (constant_right, neutral(1), absorbing(0), multiply_power),
    "and": (constant_right, neutral(-1), absorbing(0), same_operands(None)),
    "or": (constant_right, neutral(0), absorbing(-1), same_operands(None)),
    "xor": (constant_right, neutral(0), same_operands(0), not_of_compare),
    "shl": (neutral(0),),
    "shr": (neutral(0),),
    "sar": (neutral(0),),
    "udiv": (neutral(1), divide_power),
    "urem": (divide_power,),
    "sdiv": (neutral(1),),
    "eq": (same_operands(1),),
    "ne": (same_operands(0),),
    "ult": (same_operands(0),),
    "ule": (same_operands(1),),
    "slt": (same_operands(0),),
    "sle": (same_operands(1),),
    "select": (select_known,),
    "zext": (extend_twice,),
    "sext": (extend_twice,),
    "extract": (extract_through,),
}


def optimise(graph: Graph, fields: dict[str, int] | None = None) -> Graph:
    """A new graph with the rules applied, dead nodes dropped, and ``fields`` made constant."""
    result = Graph(graph.name)
    replaced: dict[int, Node] = {}
    effects = {id(effect.node): effect for effect in graph.effects}
    for node in graph.live():
        args = tuple(replaced[arg.number] for arg in node.args)
        if is_effect(node):
            effect = effects[id(node)]
            guard = None if effect.guard is None else replaced[effect.guard.number]
            if guard is not None and guard.op == "const":
                if not guard.value:
                    replaced[node.number] = result.const(0, max(node.size, 1))
                    continue
                guard = None
            new = result.effect(node.op, node.size, args, *node.attrs, guard=guard)
        elif node.op == "field" and fields is not None and node.attrs[0] in fields:
            new = result.const(fields[str(node.attrs[0])], node.size)
        elif node.op in OPS:
            new = _apply(result, result.pure(node.op, node.size, args, node.attrs))
        else:
            new = result.node(node.op, node.size, args, *node.attrs)
        replaced[node.number] = new
    return result


def _apply(graph: Graph, node: Node) -> Node:
    for _ in range(16):
        for rule in RULES.get(node.op, ()):
            found = rule(graph, node)
            if found is not None and found is not node:
                node = found
                break
        else:
            return node
    return node
