"""Loops that load, change and conditionally store a value until that succeeds, as one operation.

Compilers write an atomic addition so where the processor may lack an instruction for it. Threads
that contend for a value would each have to get it twice: to load it, and to store it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from anyarch.engine.regions import Block, Occurrence
from anyarch.ir.graph import Node
from anyarch.isa.registers import Layout

Place = tuple[str, int]
_OPERATIONS: Final = frozenset("add sub and or xor".split())


@dataclass(frozen=True, slots=True)
class Update:
    """What is done to the value in memory: an operation of ``amo``, and its operand, a node of the
    instruction ``found``."""

    operation: str
    found: Occurrence
    operand: Node


def find_update(block: Block, layout: Layout) -> Update | None:
    """The update that a block is, if it is one: the load, at most one instruction that changes what
    was loaded, the store, and the branch back."""
    if not 3 <= len(block.instructions) <= 4:
        return None
    load, *change, store, branch = block.instructions
    loaded, stored = _access(load, "load_reserved"), _access(store, "store_conditional")
    if loaded is None or stored is None:
        return None
    if not _repeats(branch, _written(store, layout), load.pc, layout):
        return None
    into = _written(load, layout)
    address, value = stored.args
    source = _register(store, value, layout)
    if into is None or source is None or stored.args[1].size != loaded.size:
        return None
    if _places(load, loaded.args[0], layout) != _places(store, address, layout):
        return None
    if into in _places(store, address, layout):
        return None
    if not change:
        return None if source == into else Update("xchg", store, value)
    return _changed(change[0], into, source, value.size, layout)


def _changed(
    change: Occurrence, into: Place, source: Place, size: int, layout: Layout
) -> Update | None:
    effects = change.template.graph.effects
    if not change.template.is_native or len(effects) != 1 or _written(change, layout) != source:
        return None
    result = effects[0].node.args[1]
    if result.op == "zext":
        (result,) = result.args
    if result.op not in _OPERATIONS or result.size < size:
        return None
    operands = list(result.args)
    if result.op != "sub" and _register(change, operands[0], layout) != into:
        operands.reverse()
    if _register(change, operands[0], layout) != into:
        return None
    if into in _places(change, operands[1], layout):
        return None
    return Update(result.op, change, operands[1])


def _repeats(branch: Occurrence, status: Place | None, pc: int, layout: Layout) -> bool:
    """Whether an instruction goes back to ``pc`` where a register is not zero."""
    effects = branch.template.graph.effects
    if len(effects) != 1 or effects[0].node.op != "jump" or status is None:
        return False
    (target,), guard = effects[0].node.args, effects[0].guard
    if target.number not in branch.template.constants or branch.constant(target) != pc:
        return False
    if guard is None or guard.op != "ne" or guard.args[1].op != "const":
        return False
    return guard.args[1].value == 0 and _register(branch, guard.args[0], layout) == status


def _access(found: Occurrence, op: str) -> Node | None:
    """The one access of an instruction that has no other."""
    effects = [e for e in found.template.graph.effects if e.node.op not in ("write", "exception")]
    if len(effects) != 1 or effects[0].guard is not None or effects[0].node.op != op:
        return None
    return effects[0].node


def _written(found: Occurrence, layout: Layout) -> Place | None:
    """The one register that an instruction writes, always."""
    writes = [e for e in found.template.graph.effects if e.node.op == "write"]
    if len(writes) != 1 or writes[0].guard is not None:
        return None
    return _place(found, writes[0].node, layout)


def _register(found: Occurrence, node: Node, layout: Layout) -> Place | None:
    """The register whose low bits a node is."""
    if node.op == "shl" and node.args[1].number in found.template.constants:
        if found.constant(node.args[1]) != 0:
            return None
        node = node.args[0]
    if node.op == "extract" and node.attrs[0] == 0:
        (node,) = node.args
    return _place(found, node, layout) if node.op == "register" else None


def _place(found: Occurrence, node: Node, layout: Layout) -> Place | None:
    file, number = str(node.attrs[0]), found.constant(node.args[0])
    return None if number == layout.by_name[file].zero else layout.place(file, number)


def _places(found: Occurrence, node: Node, layout: Layout) -> set[Place | None]:
    """The registers that a node is made of."""
    result: set[Place | None] = set()
    work = [node]
    while work:
        node = work.pop()
        if node.op == "register":
            result.add(_place(found, node, layout))
        work.extend(node.args)
    return result
