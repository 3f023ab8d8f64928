"""Typed operation graphs: what a traced definition means.

Pure operations form a hash-consed graph of :class:`Node`; what must happen in order, or may not
happen, is the list of :class:`Effect`, each under a guard of one bit. Register reads see the entry
state; register writes and jumps take place together after the last effect that can fault.
A graph prints as the Python that rebuilds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from anyarch.errors import DefinitionError
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.ops import OPS, check_widths, evaluate

Attr = int | str

LEAVES: Final = frozenset({"const", "field", "pc", "register"})

# Effects: number of operands, and whether the effect yields a value.
EFFECTS: Final[dict[str, tuple[int, bool]]] = {
    "load": (1, True),  # address; (order,)
    "store": (2, False),  # address, value; (order,)
    "amo": (2, True),  # address, value; (operation, order): the old value
    "compare_exchange": (3, True),  # address, expected, new; (order,): the old value
    "load_reserved": (1, True),  # address
    "store_conditional": (2, True),  # address, value: one bit, set when it stored
    "clear_reservation": (0, False),
    "fence": (0, False),  # (order,)
    "write": (2, False),  # index, value; (file,)
    "jump": (1, False),  # target
    "exception": (1, False),  # value; (cause,): nothing after it happens
    "exit": (0, False),  # (name,): leaves to Python after the commit
    "announce_code": (1, False),  # address; (nbytes,): the line there may hold other code now
    "code_announced": (0, True),  # one bit: a line was announced in which code was translated
    "syscall": (0, False),
    "counter": (0, True),  # (name,)
    "flags": (0, True),  # accrued floating-point flags
    "set_flags": (1, False),
    "set_rounding": (1, False),
}

# Floating-point effects (they accrue flags): operands. Attributes: format and, where it matters,
# destination format or (size, signed), then the rounding mode, a number or "dynamic".
FLOATS: Final[dict[str, int]] = {
    "fadd": 2,
    "fsub": 2,
    "fmul": 2,
    "fdiv": 2,
    "fsqrt": 1,
    "ffma": 3,
    "fconvert": 1,
    "fto_int": 1,
    "ffrom_int": 1,
    "fround": 1,
    "fround_exact": 1,
    "fto_int_modular": 1,
    "feq": 2,
    "flt": 2,
    "fle": 2,
    "flt_quiet": 2,
    "fle_quiet": 2,
    "fmin_number": 2,
    "fmax_number": 2,
    "fmin": 2,
    "fmax": 2,
    # Arm's. Those on fixed-point numbers take the number of fraction bits too.
    "ffma_long": 3,
    "fbf16_dot": 3,
    "fto_fixed": 2,
    "ffrom_fixed": 2,
    "fround_size": 1,
    "fmul_extended": 2,
    "freciprocal_step": 2,
    "froot_step": 2,
    "freciprocal_estimate": 1,
    "froot_estimate": 1,
    "freciprocal_exponent": 1,
}
# What works on each lane of operands that are wider than their format; comparisons then give lanes
# of ones or zeros.
BY_LANES: Final = frozenset(FLOATS) - {"ffma_long", "fbf16_dot", "fto_fixed", "ffrom_fixed"}
# Those that take a rounding mode.
ROUNDED: Final = frozenset(
    (
        "fadd fsub fmul fdiv fsqrt ffma ffma_long fconvert fto_int ffrom_int fround fround_exact "
        "fto_fixed ffrom_fixed fround_size fmul_extended freciprocal_step froot_step "
        "freciprocal_estimate"
    ).split()
)


class Node(Bits):
    """An operation in a graph; made by :meth:`Graph.node`, which shares equal pure nodes."""

    __slots__ = ("args", "attrs", "graph", "number", "op")

    def __init__(
        self,
        graph: Graph,
        number: int,
        op: str,
        size: int,
        args: tuple[Node, ...],
        attrs: tuple[Attr, ...],
    ) -> None:
        self.graph, self.number, self.op = graph, number, op
        self.size, self.args, self.attrs = size, args, attrs

    def apply(
        self, op: str, size: int, operands: tuple[Bits, ...], attrs: tuple[int, ...] = ()
    ) -> Node:
        graph = self.graph
        return graph.pure(op, size, tuple(graph.lift(operand) for operand in operands), attrs)

    def constant(self, value: int, size: int) -> Node:
        return self.graph.const(value, size)

    @property
    def value(self) -> int:
        """The value of a constant."""
        assert self.op == "const"
        return int(self.attrs[0])

    def __repr__(self) -> str:
        inside = ", ".join([*(f"n{a.number}" for a in self.args), *map(repr, self.attrs)])
        return f"n{self.number} = {self.op}({inside}): {self.size}"


@dataclass(slots=True, eq=False)
class Effect:
    """A node whose place in the order matters, under an optional guard."""

    node: Node
    guard: Node | None


class Graph:
    """The meaning of one instruction form."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.effects: list[Effect] = []
        self._known: dict[tuple[object, ...], Node] = {}

    def node(self, op: str, size: int, args: tuple[Node, ...] = (), *attrs: Attr) -> Node:
        """A shared leaf or pure node, as given: no width check, no folding."""
        key = (op, size, args, attrs)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._append(op, size, args, attrs)
        return found

    def _append(self, op: str, size: int, args: tuple[Node, ...], attrs: tuple[Attr, ...]) -> Node:
        node = Node(self, len(self.nodes), op, size, args, attrs)
        self.nodes.append(node)
        return node

    def const(self, value: int, size: int) -> Node:
        """A constant, modulo its width."""
        return self.node("const", size, (), value & ((1 << size) - 1))

    def field(self, name: str, size: int) -> Node:
        """A field of the instruction word."""
        return self.node("field", size, (), name)

    def pc(self) -> Node:
        """The address of the instruction."""
        return self.node("pc", 64)

    def register(self, file: str, index: Node, size: int) -> Node:
        """The entry value of a register."""
        return self.node("register", size, (index,), file)

    def pure(
        self, op: str, size: int, args: tuple[Node, ...], attrs: tuple[Attr, ...] = ()
    ) -> Node:
        """A pure operation, checked, folded when all operands are constant."""
        sizes = tuple(arg.size for arg in args)
        numbers = tuple(int(attr) for attr in attrs)
        if problem := check_widths(op, size, sizes, numbers):
            raise DefinitionError(f"{self.name}: {problem}")
        if all(arg.op == "const" for arg in args):
            values = tuple(arg.value for arg in args)
            return self.const(evaluate(op, size, values, sizes, numbers), size)
        return self.node(op, size, args, *attrs)

    def effect(
        self,
        op: str,
        size: int,
        args: tuple[Node, ...] = (),
        *attrs: Attr,
        guard: Node | None = None,
    ) -> Node:
        """Append an effect; the node is its value where it has one (size 0 where not)."""
        node = self._append(op, size, args, attrs)
        self.effects.append(Effect(node, guard))
        return node

    def lift(self, value: Bits) -> Node:
        """A value of this graph: a node of it, or a concrete value as a constant."""
        if isinstance(value, Node):
            if value.graph is not self:
                raise DefinitionError(f"{self.name}: a value of {value.graph.name} is used")
            return value
        if isinstance(value, Concrete):
            return self.const(value.value, value.size)
        raise DefinitionError(f"{self.name}: {value!r} is no value of this graph")

    def live(self) -> list[Node]:
        """The nodes that effects need, operands first."""
        seen: set[int] = set()

        def visit(node: Node) -> Iterator[Node]:
            if node.number in seen:
                return
            seen.add(node.number)
            for arg in node.args:
                yield from visit(arg)
            yield node

        order: list[Node] = []
        for effect in self.effects:
            if effect.guard is not None:
                order.extend(visit(effect.guard))
            order.extend(visit(effect.node))
        return order

    def verify(self) -> None:
        """Check widths, effects and order; raise DefinitionError naming the node."""
        done: set[int] = set()
        for node in self.live():
            self._verify_node(node)
        for effect in self.effects:
            roots = (*effect.node.args, *([effect.guard] if effect.guard is not None else []))
            for root in roots:
                for needed in _effects_below(root):
                    if needed.number not in done:
                        raise DefinitionError(f"{self.name}: {effect.node} uses a later effect")
            if effect.guard is not None and effect.guard.size != 1:
                raise DefinitionError(f"{self.name}: the guard of {effect.node} is not one bit")
            done.add(effect.node.number)

    def _verify_node(self, node: Node) -> None:
        if node.op in OPS:
            sizes = tuple(arg.size for arg in node.args)
            problem = check_widths(node.op, node.size, sizes, tuple(int(a) for a in node.attrs))
            if problem:
                raise DefinitionError(f"{self.name}: {problem}")
        elif node.op in EFFECTS:
            arity, yields = EFFECTS[node.op]
            if len(node.args) != arity or bool(node.size) != yields:
                raise DefinitionError(f"{self.name}: malformed effect {node}")
            if node.op in ("load", "store", "amo", "compare_exchange") and (
                node.args[0].size != 64 or (node.size or node.args[-1].size) % 8
            ):
                raise DefinitionError(f"{self.name}: {node} needs a 64-bit address, whole bytes")
        elif node.op in FLOATS:
            if len(node.args) != FLOATS[node.op]:
                raise DefinitionError(f"{self.name}: malformed floating-point effect {node}")
            lanes = float_lanes(node)
            if any(size % lanes for size in (node.size, *(arg.size for arg in node.args))):
                raise DefinitionError(f"{self.name}: {lanes} lanes do not fit {node}")
        elif node.op not in LEAVES:
            raise DefinitionError(f"{self.name}: unknown operation {node}")

    def to_python(self) -> str:
        """Python source that rebuilds this graph as ``g``."""
        lines = [f"g = Graph({self.name!r})"]
        guards = {effect.node.number: effect.guard for effect in self.effects}
        for node in self.live():
            args = "".join(f"n{arg.number}, " for arg in node.args)
            attrs = "".join(f", {attr!r}" for attr in node.attrs)
            if node.number in guards:
                guard = guards[node.number]
                under = "" if guard is None else f", guard=n{guard.number}"
                call = f"g.effect({node.op!r}, {node.size}, ({args}){attrs}{under})"
            else:
                call = f"g.node({node.op!r}, {node.size}, ({args}){attrs})"
            lines.append(f"n{node.number} = {call}")
        return "\n".join(lines) + "\n"


def count_lanes(op: str, size: int, first: int, fmt: str) -> int:
    """Lanes of a floating-point effect, from the sizes of its result and of its first operand."""
    if op not in BY_LANES:
        return 1
    return max(1, (size if op == "ffrom_int" else first) // int(fmt.lstrip("bf")))


def float_lanes(node: Node) -> int:
    """The same of a node."""
    return count_lanes(node.op, node.size, node.args[0].size, str(node.attrs[0]))


def is_effect(node: Node) -> bool:
    """Whether the node's place in the order matters."""
    return node.op in EFFECTS or node.op in FLOATS


def _effects_below(root: Node) -> Iterator[Node]:
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if node.number in seen:
            continue
        seen.add(node.number)
        if is_effect(node):
            yield node
        stack.extend(node.args)
