"""The control flow of a function: basic blocks, liveness, post-dominators, loops, one linear order.

A guarded instruction that is no plain operation (a call, a barrier) becomes a branch around it, so
that within a block only plain operations and memory accesses have guards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import (
    Address,
    Constant,
    Function,
    Immediate,
    Instruction,
    Label,
    Operand,
    Pair,
    Register,
    Symbol,
    VectorOperand,
)

__all__ = ["END", "Block", "Branch", "Flow", "Loop", "reads", "writes"]

END: Final = -1  # where a thread is done with the function

# Instructions without a result; `red` and the rest only read their operands.
_NO_RESULT: Final = frozenset(
    "st red bar barrier membar fence bra brx call ret exit trap brkpt prefetch prefetchu cp "
    "discard applypriority nanosleep pmevent stmatrix st_async isspacep_none griddepcontrol "
    "setmaxnreg fence_proxy stackrestore createpolicy_none multimem_none".split()
)
_BRANCHED: Final = frozenset(
    "call bar barrier ret exit trap brkpt shfl vote match redux "
    "mma wmma wgmma ldmatrix stmatrix movmatrix".split()
)
# Carry-out and carry-in of extended arithmetic (9.7.2) go through one hidden register.
CARRY: Final = Register("%carry", "pred")


@dataclass(slots=True)
class Branch:
    """How a block ends: `jump`, `cond` (on `register`, first target if true), `index`."""

    kind: str
    targets: tuple[int, ...]
    register: Register | None = None
    negated: bool = False
    instruction: Instruction | None = None


@dataclass(slots=True)
class Block:
    """Instructions that run one after another."""

    index: int
    body: list[Instruction] = field(default_factory=list)
    branch: Branch = field(default_factory=lambda: Branch("jump", (END,)))


@dataclass(slots=True)
class Loop:
    """A strongly connected part of the flow, without the loops inside of its own."""

    header: int
    blocks: frozenset[int]
    number: int


def writes(instruction: Instruction) -> Iterator[Register]:
    """Registers that an instruction writes."""
    operands = instruction.operands
    if instruction.opcode == "call":
        if operands and isinstance(operands[0], Constant) and len(operands) > 1:
            yield from _registers(operands[0])
    elif instruction.opcode in ("mbarrier", "cp", "tensormap", "wmma"):
        if operands and not isinstance(operands[0], Address):
            yield from _registers(operands[0])
    elif (operands and instruction.opcode not in _NO_RESULT) or (
        instruction.opcode in ("bar", "barrier") and "red" in instruction.modifiers
    ):
        yield from _registers(operands[0])
    if "cc" in instruction.modifiers:
        yield CARRY


def reads(instruction: Instruction) -> Iterator[Register]:
    """Registers that an instruction reads, its guard among them, and what a guard leaves as is."""
    operands = instruction.operands
    if instruction.guard is not None:
        yield instruction.guard
        yield from writes(instruction)
    if instruction.opcode == "call":
        first = operands[0] if operands else None
        skip = isinstance(first, Constant) and len(operands) > 1
        for operand in operands[1:] if skip else operands:
            yield from _registers(operand)
    elif instruction.opcode in ("mbarrier", "cp", "tensormap", "wmma"):
        skip = bool(operands) and not isinstance(operands[0], Address)
        for operand in operands[1:] if skip else operands:
            yield from _registers(operand)
    elif instruction.opcode == "wgmma" or (
        instruction.opcode in _NO_RESULT
        and not (instruction.opcode in ("bar", "barrier") and "red" in instruction.modifiers)
    ):  # it adds to its result
        for operand in operands:
            yield from _registers(operand)
    else:
        first = operands[0] if operands else None
        if isinstance(first, Address):
            yield from _registers(first)
        for operand in operands[1:]:
            yield from _registers(operand)
    if instruction.opcode in ("addc", "subc", "madc"):
        yield CARRY


def _registers(operand: Operand) -> Iterator[Register]:
    match operand:
        case Register():
            yield operand
        case Address(base=Register() as base):
            yield base
        case VectorOperand(elements=several) | Constant(operands=several):
            for one in several:
                yield from _registers(one)
        case Pair():
            yield from _registers(operand.first)
            yield from _registers(operand.second)
        case _:
            pass


class Flow:
    """The blocks of a function, `blocks[0]` the entry, and what is known of them."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.blocks = _build(function)
        self._forward_ends()
        self._prune()
        self.numbers: dict[Register, int] = {}
        self.loops: list[Loop] = []
        self.loop_of_header: dict[int, Loop] = {}
        self.order: list[int | Loop] = []
        self._place(frozenset(range(len(self.blocks))), frozenset())
        self.position = {
            (node if isinstance(node, int) else ("latch", node.number)): at
            for at, node in enumerate(self.order)
        }
        self.position[END] = len(self.order)
        self._liveness()
        self._post_dominators()

    def successors(self, index: int) -> tuple[int, ...]:
        """Blocks that may follow, END among them."""
        return () if index == END else self.blocks[index].branch.targets

    def number(self, register: Register) -> int:
        """A small number, for sets of registers as bits of an int."""
        return self.numbers.setdefault(register, len(self.numbers))

    def _forward_ends(self) -> None:
        """Going to a block that only ends is ending: a lane that leaves early waits nowhere."""
        ends = {
            b.index
            for b in self.blocks
            if not b.body and b.branch.kind == "jump" and b.branch.targets == (END,)
        }
        for block in self.blocks:
            block.branch.targets = tuple(END if t in ends else t for t in block.branch.targets)

    def _prune(self) -> None:
        """Drop blocks that nothing reaches."""
        seen = {0}
        todo = [0]
        while todo:
            for target in self.successors(todo.pop()):
                if target != END and target not in seen:
                    seen.add(target)
                    todo.append(target)
        kept = [b for b in self.blocks if b.index in seen]
        renumber = {b.index: n for n, b in enumerate(kept)} | {END: END}
        for block in kept:
            block.index = renumber[block.index]
            block.branch.targets = tuple(renumber[t] for t in block.branch.targets)
        self.blocks = kept

    def _place(self, nodes: frozenset[int], headers: frozenset[int]) -> None:
        """Append `nodes` in an order in which only edges to a loop's header go back."""
        for part in _components(self, nodes, headers):
            if len(part) == 1:
                (only,) = part
                if only in headers or only not in self.successors(only):
                    self.order.append(only)
                    continue
            outside = {
                t
                for n in range(len(self.blocks))
                if n not in part
                for t in self.successors(n)
                if t in part
            }
            header = 0 if 0 in part else min(outside or part)
            loop = Loop(header, frozenset(part), len(self.loops))
            self.loops.append(loop)
            self.loop_of_header[header] = loop
            self._place(frozenset(part), headers | {header})
            self.order.append(loop)

    def _liveness(self) -> None:
        count = len(self.blocks)
        use, self.defs = [0] * count, [0] * count
        for block in self.blocks:
            defined = used = 0
            for instruction in block.body:
                for register in reads(instruction):
                    bit = 1 << self.number(register)
                    used |= bit & ~defined
                for register in writes(instruction):
                    defined |= 1 << self.number(register)
            if block.branch.register is not None:
                used |= 1 << self.number(block.branch.register) & ~defined
            use[block.index], self.defs[block.index] = used, defined
        self.live_in = [0] * count
        changed = True
        while changed:
            changed = False
            for block in reversed(self.blocks):
                out = 0
                for target in block.branch.targets:
                    if target != END:
                        out |= self.live_in[target]
                new = use[block.index] | out & ~self.defs[block.index]
                if new != self.live_in[block.index]:
                    self.live_in[block.index] = new
                    changed = True

    def _post_dominators(self) -> None:
        """Immediate post-dominators; a loop that never ends is taken to have an exit."""
        count = len(self.blocks)
        follow = [set(self.successors(n)) for n in range(count)]
        reaches = {END}
        while True:
            more = {n for n in range(count) if n not in reaches and follow[n] & reaches}
            if more:
                reaches |= more
                continue
            rest = [n for n in range(count) if n not in reaches]
            if not rest:
                break
            follow[rest[-1]].add(END)
        before: dict[int, list[int]] = {n: [] for n in range(-1, count)}
        for n in range(count):
            for target in follow[n]:
                before[target].append(n)
        number: dict[int, int] = {}
        postorder: list[int] = []
        stack: list[tuple[int, Iterator[int]]] = [(END, iter(before[END]))]
        seen = {END}
        while stack:
            node, rest_of = stack[-1]
            for n in rest_of:
                if n not in seen:
                    seen.add(n)
                    stack.append((n, iter(before[n])))
                    break
            else:
                number[node] = len(postorder)
                postorder.append(node)
                stack.pop()
        ipdom: dict[int, int] = {END: END}
        changed = True
        while changed:
            changed = False
            for node in reversed(postorder[:-1]):
                new: int | None = None
                for target in follow[node]:
                    if target in ipdom:
                        new = target if new is None else _meet(ipdom, number, target, new)
                assert new is not None
                if ipdom.get(node) != new:
                    ipdom[node] = new
                    changed = True
        self.ipdom = ipdom

    def reach(self, start: int, stop: int) -> frozenset[int]:
        """Blocks on the way from `start`, itself among them, as far as `stop`."""
        if start in (stop, END):
            return frozenset()
        seen = {start}
        todo = [start]
        while todo:
            for target in self.successors(todo.pop()):
                if target not in (stop, END) and target not in seen:
                    seen.add(target)
                    todo.append(target)
        return frozenset(seen)


def _meet(ipdom: dict[int, int], number: dict[int, int], a: int, b: int) -> int:
    while a != b:
        while number[a] < number[b]:
            a = ipdom[a]
        while number[b] < number[a]:
            b = ipdom[b]
    return a


def _components(flow: Flow, nodes: frozenset[int], headers: frozenset[int]) -> list[set[int]]:
    """Strongly connected components in topological order, edges to `headers` left out (Tarjan)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    found: list[set[int]] = []

    def inside(n: int) -> Iterator[int]:
        return iter([t for t in flow.successors(n) if t in nodes and t not in headers])

    roots: Iterable[int] = sorted(nodes, key=lambda n: (n not in headers, n))
    for root in roots:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        work = [(root, inside(root))]
        while work:
            node, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, inside(target)))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    part: set[int] = set()
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        part.add(member)
                        if member == node:
                            break
                    found.append(part)
    return found[::-1]


def _build(function: Function) -> list[Block]:
    """Blocks of the statements; targets are block numbers."""
    blocks = [Block(0)]
    labels: dict[str, int] = {}
    pending: list[tuple[Block, Instruction]] = []
    open_ = True

    def start() -> Block:
        nonlocal open_
        block = Block(len(blocks))
        if open_:
            blocks[-1].branch = Branch("jump", (block.index,))
        blocks.append(block)
        open_ = True
        return block

    for statement in function.statements or ():
        if isinstance(statement, Label):
            if blocks[-1].body or not open_ or len(blocks) == 1:
                start()
            labels[statement.name] = blocks[-1].index
            continue
        if not open_:
            start()
        opcode = statement.opcode
        if opcode in ("bra", "brx"):
            pending.append((blocks[-1], statement))
            open_ = False
            if statement.guard is not None:
                start()
        elif opcode in ("ret", "exit"):
            if opcode == "exit" and not function.entry:
                raise PtxError(
                    "exit in a device function is not supported",
                    statement.place.line,
                    statement.place.column,
                    statement.text,
                )
            block = blocks[-1]
            if statement.guard is None:
                block.branch = Branch("jump", (END,))
                open_ = False
            else:
                open_ = False
                follows = start()
                targets = (END, follows.index)
                block.branch = Branch("cond", targets, statement.guard, statement.negated)
        elif statement.guard is not None and opcode in _BRANCHED:
            block = blocks[-1]
            open_ = False
            inner = start()
            guard, negated = statement.guard, statement.negated
            inner.body.append(
                Instruction(
                    opcode,
                    statement.modifiers,
                    statement.operands,
                    statement.place,
                    source=statement.source,
                    text=statement.text,
                )
            )
            follows = start()
            targets = (inner.index, follows.index)
            block.branch = Branch("cond", targets, guard, negated)
        else:
            blocks[-1].body.append(statement)
    for block, statement in pending:
        block.branch = _branch(function, block, statement, labels)
    return blocks


def _branch(
    function: Function, block: Block, statement: Instruction, labels: dict[str, int]
) -> Branch:
    def fail(message: str) -> PtxError:
        place = statement.place
        return PtxError(message, place.line, place.column, statement.text)

    if statement.opcode == "bra":
        (target,) = statement.operands or (None,)
        if not isinstance(target, Symbol) or target.name not in labels:
            raise fail("bra takes a label of this function")
        number = labels[target.name]
        if statement.guard is None:
            return Branch("jump", (number,))
        if number == block.index + 1:
            return Branch("jump", (number,))
        targets = (number, block.index + 1)
        return Branch("cond", targets, statement.guard, statement.negated)
    index, listed = (*statement.operands, None, None)[:2]
    if statement.guard is not None:
        raise fail("a guarded brx is not supported")
    if not isinstance(listed, Symbol) or listed.name not in function.targets:
        raise fail("brx.idx takes an index and a list of targets")
    names = function.targets[listed.name].labels
    unknown = [name for name in names if name not in labels]
    if unknown or not names:
        raise fail(f"no label {unknown[0]!r}" if unknown else "an empty list of targets")
    if isinstance(index, Immediate):
        return Branch("jump", (labels[names[min(index.value, len(names) - 1)]],))
    if not isinstance(index, Register):
        raise fail("brx.idx takes a register")
    return Branch("index", tuple(labels[n] for n in names), index, instruction=statement)
