"""What an instruction computes where some registers are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from anyarch.ir.ops import OPS, evaluate

if TYPE_CHECKING:
    from anyarch.engine.regions import Occurrence
    from anyarch.ir.graph import Node


class Folding:
    """Values of an instruction's nodes, each found once; ``held`` is what a register's node is
    known to hold, or None."""

    __slots__ = ("_found", "_held", "_known")

    def __init__(self, found: Occurrence, held: Callable[[Node], int | None]) -> None:
        self._found, self._held = found, held
        self._known: dict[int, int | None] = {}

    def value(self, node: Node) -> int | None:
        """The value of a node where constants and known registers determine it."""
        number = node.number
        if number not in self._known:
            self._known[number] = self._fold(node)
        return self._known[number]

    def _fold(self, node: Node) -> int | None:
        if node.op == "const" or node.number in self._found.template.constants:
            return self._found.constant(node)
        if node.op == "register":
            return self._held(node)
        if node.op not in OPS:
            return None
        values = []
        for arg in node.args:
            value = self.value(arg)
            if value is None:
                return None
            values.append(value)
        sizes = tuple(arg.size for arg in node.args)
        return evaluate(node.op, node.size, tuple(values), sizes, tuple(map(int, node.attrs)))
