"""Blocks in one order for a warp whose lanes go different ways.

Lanes that branch off wait in the mask of the block they go to. A uniform branch stays a branch as
far as no lanes wait in between; a divergent one goes to the nearest block in which lanes may wait
(Moll and Hack, Partial Control-Flow Linearization, PLDI 2018). Loops end in a latch of their own,
which goes on while lanes wait at the header.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from anyarch.gpu.cpu.flow import END, Flow, Loop

__all__ = ["Linear", "Node"]

Node: TypeAlias = "int | tuple[str, int]"  # a block, END, or the latch of a loop


@dataclass(slots=True)
class Linear:
    """Where control really goes.

    `waiting[n]` are the nodes after n in which lanes may wait while n runs; `unsure` the nodes
    that may be entered with no lane; `source[b]` is an earlier block with the same lanes as b:
    where an `if` or a loop begins, for what comes after it.
    """

    flow: Flow
    divergent: Collection[int]
    waiting: dict[Node, set[Node]] = field(default_factory=dict)
    unsure: set[Node] = field(default_factory=set)
    source: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        before = None
        while before != self._measure():
            before = self._measure()
            for node in self.flow.order:
                if isinstance(node, Loop):
                    self._visit_latch(node)
                else:
                    self._visit(node)
        if self.divergent:
            self._find_sources()

    def _find_sources(self) -> None:
        """Blocks that every lane of an earlier one comes to, and no other lane, once each."""
        flow = self.flow
        plain = _dominators(len(flow.blocks), flow.successors)
        nodes: list[Node] = [n if isinstance(n, int) else ("latch", n.number) for n in flow.order]
        place = {node: at for at, node in enumerate(nodes)}
        linear = _dominators(
            len(nodes), lambda at: [place[n] for n in self._really(nodes[at]) if n != END]
        )
        inside = [
            frozenset(loop.number for loop in flow.loops if n in loop.blocks)
            for n in range(len(flow.blocks))
        ]
        for first in (n for n in flow.order if isinstance(n, int)):
            after = flow.ipdom[first]
            while after != END:
                if (
                    after not in self.source
                    and plain[after] >> first & 1
                    and linear[place[after]] >> place[first] & 1
                    and inside[first] == inside[after]
                ):
                    self.source[after] = self.source.get(first, first)
                after = flow.ipdom[after]

    def _really(self, node: Node) -> list[Node]:
        """Where control goes from a node."""
        waiting = self.waiting.get(node, set())
        if not isinstance(node, int):
            loop = next(one for one in self.flow.loops if one.number == node[1])
            return [loop.header, *([self.first(waiting)] if waiting else [])]
        targets = {self.target(node, s) for s in self.flow.successors(node)}
        if node in self.divergent:
            found = [self.go(node, targets)]
        else:
            found = [self.go(node, {target}) for target in targets]
        if self.checked(node):
            found.append(self.first(waiting))
        return found

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


def _dominators(count: int, successors: Callable[[int], Iterable[int]]) -> list[int]:
    """For each of some nodes, of which 0 is the entry, the nodes that all ways to it go through,
    as bits."""
    everything = (1 << count) - 1
    found = [everything] * count
    found[0] = 1
    changed = True
    while changed:
        changed = False
        for node in range(count):
            for target in successors(node):
                if target == END:
                    continue
                new = found[target] & (found[node] | 1 << target)
                if new != found[target]:
                    found[target] = new
                    changed = True
    return found
