"""Blocks in one order for a warp whose lanes go different ways.

Lanes that branch off wait in the mask of the block they go to. A uniform branch stays a branch as
far as no lanes wait in between; a divergent one goes to the nearest block in which lanes may wait
(Moll and Hack, Partial Control-Flow Linearization, PLDI 2018). Loops end in a latch of their own,
which goes on while lanes wait at the header.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from anyarch.gpu.cpu.flow import END, Flow, Loop

__all__ = ["Linear", "Node"]

Node: TypeAlias = "int | tuple[str, int]"  # a block, END, or the latch of a loop


@dataclass(slots=True)
class Linear:
    """Where control really goes.

    `waiting[n]` are the nodes after n in which lanes may wait while n runs; `unsure` the nodes
    that may be entered with no lane.
    """

    flow: Flow
    divergent: Collection[int]
    waiting: dict[Node, set[Node]] = field(default_factory=dict)
    unsure: set[Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        before = None
        while before != self._measure():
            before = self._measure()
            for node in self.flow.order:
                if isinstance(node, Loop):
                    self._visit_latch(node)
                else:
                    self._visit(node)

    def _measure(self) -> tuple[int, int]:
        return sum(map(len, self.waiting.values())), len(self.unsure)

    def first(self, nodes: Collection[Node]) -> Node:
        """The one that comes first in the order."""
        return min(nodes, key=lambda n: self.flow.position[n])

    def target(self, block: int, successor: int) -> Node:
        """The node that an edge leads to: for a backward edge its loop's latch."""
        loop = self.flow.loop_of_header.get(successor)
        if loop is not None and block in loop.blocks:
            return "latch", loop.number
        return successor

    def go(self, node: Node, targets: Collection[Node]) -> Node:
        """Where control goes from a node for lanes that go to `targets`."""
        return self.first({*targets, *self.waiting.get(node, ())})

    def checked(self, node: Node) -> bool:
        """Whether a node must look whether it has any lane."""
        return node in self.unsure and bool(self.waiting.get(node))

    def _edge(self, node: Node, targets: set[Node], sure: bool) -> None:
        everything = targets | self.waiting.get(node, set())
        following = self.first(everything)
        if following == END:
            return
        self.waiting.setdefault(following, set()).update(everything - {following})
        if not sure or following not in targets:
            self.unsure.add(following)

    def _visit(self, block: int) -> None:
        branch = self.flow.blocks[block].branch
        targets = {self.target(block, s) for s in branch.targets}
        if block in self.divergent and len(targets) > 1:
            self._edge(block, targets, sure=False)
        else:
            for target in targets:
                self._edge(block, {target}, sure=True)
        if self.checked(block):
            self._edge(block, set(), sure=False)

    def _visit_latch(self, loop: Loop) -> None:
        latch = ("latch", loop.number)
        waiting = self.waiting.get(latch, set())
        self.waiting.setdefault(loop.header, set()).update(waiting)
        if waiting:
            self._edge(latch, set(), sure=False)
