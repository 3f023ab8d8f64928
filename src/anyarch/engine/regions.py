"""Regions: what the compiler takes at once, a guest function or loop nest.

A region begins at one pc and follows direct control flow, the arms of jump tables, and calls of
small functions that call nothing, or that it is itself. What it is made of is here;
``engine.regiontext`` has its text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from anyarch.engine.effects import runs_in_reference
from anyarch.engine.folding import Folding
from anyarch.engine.jumptables import Table, Values
from anyarch.engine.records import record_constants
from anyarch.errors import MemoryFault
from anyarch.ir.graph import Graph, Node
from anyarch.ir.ops import evaluate
from anyarch.ir.rewrite import optimise
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import Form

LIMIT: Final = 600  # guest instructions in one region
NEST_LIMIT: Final = 1500  # in one that is a single loop nest
INLINE_LIMIT: Final = 40  # of a function that is compiled into its caller
LOOK_LIMIT: Final = 24  # of code at a call's target that is looked at
ROOT: Final = -1  # the context of blocks that were not reached by a call

Read = Callable[[int, int], bytes]  # guest memory; raises MemoryFault
IsConstant = Callable[[int, int], bool]  # whether some bytes at an address cannot change unseen
WasVisited = Callable[[int], bool]  # whether the guest may have been at a pc
Key = tuple[int, int]  # of a block: where an inlined call returns to, or ROOT; its pc


@dataclass(slots=True)
class Template:
    """A form's meaning, traced once for all its occurrences."""

    graph: Graph
    live: tuple[Node, ...]
    constants: set[int]
    moving: set[int]  # constants that depend on the address too
    is_native: bool


@dataclass(slots=True)
class Occurrence:
    """An instruction at an address."""

    pc: int
    word: int
    nbytes: int
    form: Form
    template: Template
    arms: list[int] = field(default_factory=list)  # known targets of a computed jump
    table: Table | None = None  # that they are from, if it stays as it is
    callee: int | None = None  # of a call whose function is part of the region
    known: dict[int, int] = field(default_factory=dict)  # constants by number of the node
    fixed: dict[int, int] = field(default_factory=dict)  # those that are the same at all addresses

    @property
    def next_pc(self) -> int:
        """Address of the instruction after it."""
        return self.pc + self.nbytes

    @property
    def is_inlined(self) -> bool:
        """Whether it is a call whose function is part of the region."""
        return self.callee is not None

    def constant(self, node: Node) -> int:
        """The value of a node that depends only on the word and its address."""
        number = node.number
        values = self.known if number in self.template.moving else self.fixed
        found = values.get(number)
        if found is None:
            found = values[number] = self._evaluate(node)
        return found

    def _evaluate(self, node: Node) -> int:
        match node.op:
            case "const":
                return node.value
            case "pc":
                return self.pc
            case "field":
                return self.form.instruction.row.extract(str(node.attrs[0]), self.word)
        values = tuple(self.constant(arg) for arg in node.args)
        sizes = tuple(arg.size for arg in node.args)
        return evaluate(node.op, node.size, values, sizes, tuple(int(a) for a in node.attrs))


@dataclass(slots=True)
class Block:
    """Straight-line instructions, and where control goes after them."""

    key: Key
    instructions: list[Occurrence] = field(default_factory=list)
    successors: list[Key] = field(default_factory=list)

    @property
    def pc(self) -> int:
        """Where it begins."""
        return self.key[1]


@dataclass(slots=True)
class Region:
    """What is compiled together; ``ranges`` is the guest code that it was made from, ``tables``
    are the jump tables that it relies on. ``examined`` is code beyond it that it relies on, by pc.
    """

    pc: int
    blocks: dict[Key, Block]
    read: Read
    examined: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Guest code [start, end), without overlap."""
        own = {(b.pc, b.instructions[-1].next_pc) for b in self.blocks.values()}
        edges = sorted(own.union(*self.examined.values()))
        joined: list[tuple[int, int]] = []
        for start, end in edges:
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        return joined

    @property
    def tables(self) -> list[tuple[int, bytes]]:
        """Address and contents of each."""
        found = {
            instruction.table.address: instruction.table.data
            for block in self.blocks.values()
            for instruction in block.instructions
            if instruction.table is not None
        }
        return sorted(found.items())

    @property
    def instructions(self) -> int:
        """How many guest instructions."""
        return sum(len(block.instructions) for block in self.blocks.values())


class RegionCompiler:
    """Finds regions of one architecture; keeps the templates.

    ``bounded`` has them check addresses, ``direct`` has guest addresses be those of the host.
    """

    def __init__(self, architecture: Architecture, *, bounded: bool, direct: bool = False) -> None:
        self.architecture, self.bounded, self.direct = architecture, bounded, direct
        self._templates: dict[str, Template] = {}
        self._forms: dict[int, Form] = {}  # by word
        self._fixed: dict[int, dict[int, int]] = {}  # constants of words: they are met often
        self._by_name: dict[str, Form] = {}
        self._shortest = min(row[2] for row in architecture.lengths)

    def template(self, form: Form) -> Template:
        """The traced meaning of a form."""
        found = self._templates.get(form.name)
        if found is None:
            graph = optimise(form.trace(self.architecture.layout))
            live, constants = tuple(graph.live()), record_constants(graph)
            moving: set[int] = set()
            for node in live:  # operands come first
                if node.op == "pc" or any(arg.number in moving for arg in node.args):
                    moving.add(node.number)
            found = Template(graph, live, constants, moving, not runs_in_reference(graph))
            self._templates[form.name] = found
        return found

    def discover(
        self,
        pc: int,
        read: Read,
        read_data: Read | None = None,
        hints: bytes = b"",
        is_constant: IsConstant = lambda address, nbytes: False,
        was_visited: WasVisited = lambda pc: True,
    ) -> Region | None:
        """The region at ``pc``, or None where there is nothing to compile.

        ``read_data`` reads jump tables, which may lie where no code is; ``is_constant`` tells
        whether memory stays as it is; ``hints`` are values that registers once had there
        (:class:`anyarch.engine.compiler.Request`). Branches to where the guest never was are not
        followed.
        """
        values = Values(self.architecture, hints=hints)
        read_data = read_data or read
        instructions, leaders, left = self._walk(
            pc, read, NEST_LIMIT, read_data, values, was_visited
        )
        if pc not in instructions or not instructions[pc].template.is_native:
            return None
        if len(instructions) > LIMIT:
            instructions = self._select(instructions, leaders, left, pc)
        blocks: dict[Key, Block] = {}
        ends = {found.next_pc: found for found in instructions.values()}
        for found in list(instructions.values()):
            table = found.table
            if table is not None and not is_constant(table.address, len(table.data)):
                found.table = None
            before = None if found.pc in leaders else ends.get(found.pc)
            target = self._call_target(found, before)
            if target is not None and was_visited(target):
                body = self._small(target, read, calls=target == pc)
                if body is not None:
                    found.callee = target
                    blocks |= self._blocks(*body, found.next_pc)
        blocks |= self._blocks(instructions, leaders, ROOT)
        return Region(pc, blocks, read)

    def _walk(
        self,
        pc: int,
        read: Read,
        limit: int,
        read_data: Read,
        values: Values,
        was_visited: WasVisited = lambda pc: True,
    ) -> tuple[dict[int, Occurrence], set[int], set[int]]:
        """Instructions reached from ``pc`` without calls, where blocks begin, and where there was
        no room for more."""
        instructions: dict[int, Occurrence] = {}
        leaders, left = {pc}, set[int]()
        work = [(pc, values)]
        while work and len(instructions) < limit:
            at, values = work.pop(0)
            while at not in instructions and len(instructions) < limit:
                found = self._decode(at, read)
                if found is None:
                    break
                instructions[at] = found
                following, targets = self._flow(found)
                if following is None and not targets:
                    found.table = values.table(found, read, read_data)
                    if found.table is not None:
                        found.arms = targets = list(dict.fromkeys(found.table.targets))
                values.step(found)
                for target in targets:
                    leaders.add(target)
                    # The arms of a jump table are followed all: a guest gets to others later.
                    if following is None or was_visited(target):
                        work.append((target, values.copy()))
                if following is None:
                    break
                if targets or self._splits(found):
                    leaders.add(following)
                at = following
            if at not in instructions:
                left.add(at)
        left.update(at for at, _ in work if at not in instructions)
        return instructions, leaders, left

    def _select(
        self, instructions: dict[int, Occurrence], leaders: set[int], left: set[int], pc: int
    ) -> dict[int, Occurrence]:
        """Of too many instructions those for the region at ``pc``: the loop nest that it is in, and
        as much as there is room for of what follows, the nearest first. A loop nest that there is
        no room for is left out: registers stay in registers in the region that will begin there.
        One that goes on where the walk has ended is cut like any other code.
        """
        blocks = self._blocks(instructions, leaders, ROOT)
        nests = {
            key: nest
            for nest in components(blocks)
            if not any(to in left for k in nest for _, to in blocks[k].successors)
            for key in nest
        }
        chosen: dict[int, Occurrence] = {}
        seen: set[Key] = set()
        waiting: deque[Key] = deque([(ROOT, pc)])
        while waiting:
            key = waiting.popleft()
            if key in seen or key not in blocks:
                continue
            nest = nests.get(key)
            together = [k for k in blocks if k in nest] if nest else [key]
            seen.update(together)
            found = [each for k in together for each in blocks[k].instructions]
            if chosen and len(chosen) + len(found) > LIMIT:
                continue
            chosen.update((each.pc, each) for each in (found if nest else found[:LIMIT]))
            waiting.extend(s for k in together for s in blocks[k].successors)
        return chosen

    def _small(
        self, pc: int, read: Read, *, calls: bool
    ) -> tuple[dict[int, Occurrence], set[int]] | None:
        """A small function, which calls nothing unless it ``calls``. It may keep its return address
        in its frame."""
        instructions, leaders, _ = self._walk(
            pc, read, INLINE_LIMIT, read, Values(self.architecture)
        )
        if len(instructions) >= INLINE_LIMIT or pc not in instructions:
            return None
        for found in instructions.values():
            following, targets = self._flow(found)
            graph = found.template.graph
            is_call = self.links(found) is not None
            if not found.template.is_native or (is_call and not calls):
                return None
            if any(
                target not in instructions for target in (following, *targets) if target is not None
            ):
                return None
            for effect in graph.effects:
                node = effect.node
                if node.op in ("syscall", "exit", "exception", "set_rounding"):
                    return None
                if (
                    node.op == "jump"
                    and not is_call
                    and node.args[0].number not in found.template.constants
                    and not (effect.guard is None and self.is_return(found, node.args[0]))
                ):
                    return None
        return instructions, leaders

    def overwrites(self, region: Region, pc: int, file: str) -> bool:
        """Whether code beyond the region, at ``pc``, writes all registers of a file before anything
        can read one; the region relies on that then."""
        if pc not in region.examined:
            region.examined[pc] = self._overwriting(pc, file, region.read)
        return bool(region.examined[pc])

    def _overwriting(self, pc: int, file: str, read: Read) -> list[tuple[int, int]]:
        """The instructions that do, or nothing where they do not."""
        seen: set[tuple[int, int]] = set()
        work = [pc]
        while work:
            found = self._decode(work.pop(), read)
            if found is None or not found.template.is_native or len(seen) == LOOK_LIMIT:
                return []
            if (found.pc, found.next_pc) in seen:
                continue
            seen.add((found.pc, found.next_pc))
            graph = found.template.graph
            if any(node.op == "register" and node.attrs[0] == file for node in found.template.live):
                return []
            written = {
                found.constant(effect.node.args[0])
                for effect in graph.effects
                if effect.node.op == "write"
                and effect.node.attrs[0] == file
                and effect.guard is None
            }
            if len(written) == self.architecture.layout.by_name[file].count:
                continue
            following, targets = self._flow(found)
            ops = {effect.node.op for effect in graph.effects}
            unknown = "jump" in ops and not targets
            if unknown or ops & {"syscall", "exit", "exception", "set_rounding"}:
                return []
            work += [*targets, *([following] if following is not None else [])]
        return sorted(seen)

    def _blocks(
        self, instructions: dict[int, Occurrence], leaders: set[int], context: int
    ) -> dict[Key, Block]:
        blocks = {}
        for leader in sorted(leaders & instructions.keys()):
            block = blocks[context, leader] = Block((context, leader))
            at: int | None = leader
            while at is not None and at in instructions and (at == leader or at not in leaders):
                found = instructions[at]
                block.instructions.append(found)
                at, targets = self._flow(found)
                block.successors.extend((context, t) for t in targets or found.arms)
                if found.callee is not None:
                    block.successors.append((found.next_pc, found.callee))
                    at = None
                elif at is None and not targets and not found.arms and context != ROOT:
                    block.successors.append((ROOT, context))
            if at is not None:
                block.successors.append((context, at))
        return blocks

    def _decode(self, pc: int, read: Read) -> Occurrence | None:
        architecture = self.architecture
        try:
            data = read(pc, self._shortest)
            nbytes = architecture.length(int.from_bytes(data, "little"))
            if nbytes > self._shortest:
                data = read(pc, nbytes)
        except MemoryFault:
            return None
        word = int.from_bytes(data, "little")
        form = self._form(word)
        if form is None:
            return None
        made = Occurrence(pc, word, form.instruction.row.nbytes, form, self.template(form))
        made.fixed = self._fixed.setdefault(word, made.fixed)
        return made

    def _form(self, word: int) -> Form | None:
        """What an instruction is; remembered, for the same ones are met again and again."""
        if word not in self._forms:
            instruction = self.architecture.decoder.decode(word)
            if instruction is None:
                return None
            static = {name: instruction.row.extract(name, word) for name in instruction.static}
            made = Form(instruction, static)
            self._forms[word] = self._by_name.setdefault(made.name, made)
        return self._forms[word]

    def _flow(self, found: Occurrence) -> tuple[int | None, list[int]]:
        """The pc after an instruction, if control can come there, and direct jump targets."""
        if not found.template.is_native:
            return found.next_pc, []
        following: int | None = found.next_pc
        targets = []
        for effect in found.template.graph.effects:
            node = effect.node
            if node.op == "jump":
                (target,) = node.args
                is_call = self.links(found) is not None
                if effect.guard is None and not is_call:
                    following = None
                if target.number in found.template.constants and not is_call:
                    targets.append(found.constant(target))
            elif node.op in ("exit", "exception") and effect.guard is None:
                following = None
        return following, targets

    def _splits(self, found: Occurrence) -> bool:
        """Whether a block ends behind the instruction though control goes on."""
        ops = {effect.node.op for effect in found.template.graph.effects}
        return bool(ops & {"syscall", "jump"}) or not found.template.is_native

    def links(self, found: Occurrence) -> tuple[str, int] | None:
        """The register in which a call keeps the address behind it; None for other instructions.

        A jump that keeps it where no function returns from (a PLT entry) is no call.
        """
        effects = found.template.graph.effects
        if any(effect.node.op == "jump" for effect in effects):
            for effect in effects:
                if effect.node.op == "write":
                    index, value = effect.node.args
                    file = str(effect.node.attrs[0])
                    where = self.architecture.layout.place(file, found.constant(index))
                    if (
                        where in self.architecture.return_registers
                        and value.number in found.template.constants
                        and found.constant(value) == found.next_pc
                    ):
                        return where
        return None

    def _call_target(self, found: Occurrence, before: Occurrence | None) -> int | None:
        """Where a direct call through the link register goes; ``before`` is what runs before it,
        and may make a part of the address."""
        link = self.architecture.convention.link
        if not found.template.is_native or link is None or self.links(found) != link:
            return None

        def held(register: Node) -> int | None:
            where = self._place(found, register)
            for effect in before.template.graph.effects if before is not None else ():
                node = effect.node
                if before is not None and node.op == "write" and effect.guard is None:
                    value = node.args[1]
                    is_known = value.number in before.template.constants
                    if is_known and self._place(before, node) == where:
                        return before.constant(value)
            return None

        for effect in found.template.graph.effects:
            if effect.node.op == "jump":
                return Folding(found, held).value(effect.node.args[0])
        return None

    def _place(self, found: Occurrence, node: Node) -> tuple[str, int]:
        """The register that a node reads or writes."""
        return self.architecture.layout.place(str(node.attrs[0]), found.constant(node.args[0]))

    def is_return(self, found: Occurrence, target: Node) -> bool:
        """Whether a computed jump goes where a return address is kept."""
        return self.returns_through(found, target) is not None

    def returns_through(self, found: Occurrence, target: Node) -> tuple[str, int] | None:
        """The register with a return address that a computed jump goes to, if there is one."""
        stack, registers = [target], set()
        while stack:
            node = stack.pop()
            if node.op == "register":
                file = str(node.attrs[0])
                registers.add(self.architecture.layout.place(file, found.constant(node.args[0])))
            stack.extend(node.args)
        for register in self.architecture.return_registers:
            if register in registers:
                return register
        return None


def loops(blocks: Mapping[Key, Block]) -> dict[Key, int]:
    """The blocks that can follow themselves, by the number of the loop nest that they are in."""
    return {key: number for number, nest in enumerate(components(blocks)) for key in nest}


def components(blocks: Mapping[Key, Block]) -> list[set[Key]]:
    """The loop nests: blocks that can follow each other (strongly connected components, Tarjan
    1972)."""
    order: dict[Key, int] = {}
    lowest: dict[Key, int] = {}
    open_blocks: dict[Key, None] = {}
    nests: list[set[Key]] = []
    for root in blocks:
        stack = [] if root in order else [(root, iter(blocks[root].successors))]
        while stack:
            key, successors = stack[-1]
            if key not in order:
                order[key] = lowest[key] = len(order)
                open_blocks[key] = None
            following = next((s for s in successors if s in blocks), None)
            if following is None:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    lowest[above] = min(lowest[above], lowest[key])
                if lowest[key] == order[key]:
                    component = set()
                    while key not in component:
                        component.add(open_blocks.popitem()[0])
                    if len(component) > 1 or key in blocks[key].successors:
                        nests.append(component)
            elif following not in order:
                stack.append((following, iter(blocks[following].successors)))
            elif following in open_blocks:
                lowest[key] = min(lowest[key], order[following])
    return nests
