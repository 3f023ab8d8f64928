"""Regions: what the compiler takes at once, a guest function or loop nest, and its LLVM text.

A region begins at one pc and follows direct control flow. Guest registers are values inside;
in the context they are exact at calls, system calls, polls and exits. Every access tells the
context its pc first. The first word of the region's record is its handler, the second its pc; cells
with links to other code follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from anyarch.emit.llvm import declarations
from anyarch.engine.arena import TABLE_BITS
from anyarch.engine.interpreter import IN_CONTEXT
from anyarch.engine.jit import CELL, FIRST_CELL
from anyarch.engine.records import (
    HandlerEmitter,
    RecordLayout,
    field_offset,
    leaves_after,
    record_constants,
    runs_in_reference,
    uses_rounding,
)
from anyarch.errors import MemoryFault
from anyarch.host.context import REGISTERS, ExitCode
from anyarch.ir.graph import Graph, Node
from anyarch.ir.ops import OPS, evaluate
from anyarch.ir.rewrite import optimise
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import Form

LIMIT: Final = 600  # guest instructions in one region


@dataclass(slots=True)
class Template:
    """A form's meaning, traced once for all its occurrences."""

    graph: Graph
    constants: set[int]
    is_native: bool


@dataclass(slots=True)
class Occurrence:
    """An instruction at an address."""

    pc: int
    word: int
    nbytes: int
    form: Form
    template: Template

    @property
    def next_pc(self) -> int:
        """Address of the instruction after it."""
        return self.pc + self.nbytes

    def constant(self, node: Node) -> int:
        """The value of a node that depends only on the word and its address."""
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

    pc: int
    instructions: list[Occurrence] = field(default_factory=list)
    successors: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Region:
    """A compiled unit: its text, the pcs of its cells, and the code that it was made from."""

    pc: int
    text: str
    cells: list[int]
    ranges: list[tuple[int, int]]
    instructions: int


class RegionCompiler:
    """Makes regions of one architecture; keeps the templates."""

    def __init__(self, architecture: Architecture, *, bounded: bool) -> None:
        self.architecture, self.bounded = architecture, bounded
        self._templates: dict[str, Template] = {}

    def template(self, form: Form) -> Template:
        """The traced meaning of a form."""
        found = self._templates.get(form.name)
        if found is None:
            graph = optimise(form.trace(self.architecture.layout))
            found = Template(graph, record_constants(graph), not runs_in_reference(graph))
            self._templates[form.name] = found
        return found

    def discover(self, pc: int, read: Callable[[int, int], bytes]) -> dict[int, Block]:
        """The blocks reached from ``pc`` by direct control flow; ``read`` raises MemoryFault."""
        instructions: dict[int, Occurrence] = {}
        leaders = {pc}
        work = [pc]
        while work and len(instructions) < LIMIT:
            at = work.pop(0)
            while at not in instructions and len(instructions) < LIMIT:
                found = self._decode(at, read)
                if found is None:
                    break
                instructions[at] = found
                following, targets = self._flow(found)
                for target in targets:
                    leaders.add(target)
                    work.append(target)
                if following is None:
                    break
                if targets or self._splits(found):
                    leaders.add(following)
                at = following
        return self._blocks(instructions, leaders)

    def _blocks(self, instructions: dict[int, Occurrence], leaders: set[int]) -> dict[int, Block]:
        blocks = {}
        for leader in sorted(leaders & instructions.keys()):
            block = blocks[leader] = Block(leader)
            at: int | None = leader
            while at is not None and at in instructions and (at == leader or at not in leaders):
                found = instructions[at]
                block.instructions.append(found)
                at, targets = self._flow(found)
                block.successors.extend(targets)
            if at is not None:
                block.successors.append(at)
        return blocks

    def _decode(self, pc: int, read: Callable[[int, int], bytes]) -> Occurrence | None:
        architecture = self.architecture
        shortest = min(row[2] for row in architecture.lengths)
        try:
            data = read(pc, shortest)
            nbytes = architecture.length(int.from_bytes(data, "little"))
            if nbytes > shortest:
                data = read(pc, nbytes)
        except MemoryFault:
            return None
        word = int.from_bytes(data, "little")
        instruction = architecture.decoder.decode(word)
        if instruction is None:
            return None
        static = {name: instruction.row.extract(name, word) for name in instruction.static}
        form = Form(instruction, static)
        return Occurrence(pc, word, instruction.row.nbytes, form, self.template(form))

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
                is_call = self.links(found)
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

    def links(self, found: Occurrence) -> bool:
        """Whether a jump is a call: it stores the address behind it in a register."""
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                index, value = effect.node.args
                if (
                    value.number in found.template.constants
                    and found.constant(value) == found.next_pc
                    and found.constant(index)
                    != self.architecture.layout.by_name[str(effect.node.attrs[0])].zero
                    and any(e.node.op == "jump" for e in found.template.graph.effects)
                ):
                    return True
        return False

    def compile_text(self, pc: int, read: Callable[[int, int], bytes]) -> Region | None:
        """The region at ``pc``, or None where there is nothing to compile."""
        blocks = self.discover(pc, read)
        if pc not in blocks or not blocks[pc].instructions[0].template.is_native:
            return None
        emitter = RegionEmitter(self, blocks, pc)
        text = emitter.text()
        ranges = [(block.pc, block.instructions[-1].next_pc) for block in blocks.values()]
        count = sum(len(block.instructions) for block in blocks.values())
        return Region(pc, text, emitter.cells, ranges, count)


class RegionEmitter(HandlerEmitter):
    """The LLVM function of a region."""

    def __init__(self, compiler: RegionCompiler, blocks: dict[int, Block], pc: int) -> None:
        super().__init__(
            Graph("region"),
            RecordLayout(),
            set(),
            compiler.architecture,
            bounded=compiler.bounded,
        )
        self.compiler, self.blocks, self.pc = compiler, blocks, pc
        self.architecture = compiler.architecture
        self.cells: list[int] = []
        self.here: Occurrence = blocks[pc].instructions[0]
        self.in_context = {self.status.rounding[0]} if self.status else set()
        self.used: dict[tuple[str, int], None] = {}
        self.entry_dirty: dict[int, set[tuple[str, int]]] = {}
        self.rounds = any(
            uses_rounding(found.template.graph)
            for block in blocks.values()
            for found in block.instructions
        )
        self._survey()
        self.dirty: set[tuple[str, int]] = set()
        self.known: dict[tuple[str, int], int] = {}  # registers that hold a constant in this block

    # Which registers.
    def _survey(self) -> None:
        """Registers that each block reads or writes; what may be dirty where a block begins."""
        gains: dict[int, set[tuple[str, int]]] = {}
        cleans: dict[int, bool] = {}
        for block in self.blocks.values():
            written: set[tuple[str, int]] = set()
            clean = False
            for found in block.instructions:
                if not found.template.is_native:
                    written, clean = set(), True
                    continue
                for node in found.template.graph.live():
                    if node.op == "register":
                        self._note(found, node.args[0], str(node.attrs[0]))
                    elif node.op == "write":
                        where = self._note(found, node.args[0], str(node.attrs[0]))
                        if where is not None:
                            written.add(where)
                ops = {effect.node.op for effect in found.template.graph.effects}
                if "syscall" in ops or self.compiler.links(found):
                    written, clean = set(), True
            gains[block.pc], cleans[block.pc] = written, clean
        self.entry_dirty = {pc: set() for pc in self.blocks}
        work = list(self.blocks)
        while work:
            pc = work.pop()
            out = gains[pc] | (set() if cleans[pc] else self.entry_dirty[pc])
            for successor in self.blocks[pc].successors:
                if successor in self.entry_dirty and not out <= self.entry_dirty[successor]:
                    self.entry_dirty[successor] |= out
                    work.append(successor)

    def _note(self, found: Occurrence, index: Node, file: str) -> tuple[str, int] | None:
        number = found.constant(index)
        if file in self.in_context or number == self.registers.by_name[file].zero:
            return None
        self.used[file, number] = None
        return file, number

    # Text.
    def text(self) -> str:
        """The module: the region's function, named ``region``."""
        self.label("entry")
        for file, number in self.used:
            size = self.registers.by_name[file].size
            self.line(f"{self._variable(file, number)} = alloca i{size}, align 8")
        self._reload()
        self.here = self.blocks[self.pc].instructions[0]
        self._check_stack()
        self._check_mode(self.pc)
        self.stop_poll(str(self.pc))
        self.line(f"br label %{_label(self.pc)}")
        for block in self.blocks.values():
            self._block(block)
        body = "\n".join(self.lines)
        if "%status" in body:
            body = body.replace("entry:\n", "entry:\n  %status = alloca i32, align 4\n", 1)
        module = "\n".join(
            [
                '!0 = !{!"branch_weights", i32 1, i32 4000}',
                "!1 = !{}",
                '!2 = !{!"branch_weights", i32 1000, i32 1}',
                '!3 = !{!"rsp"}',
                'attributes #0 = { nounwind strictfp "no-stack-arg-probe" }',
                "attributes #1 = { strictfp }",
                "define i32 @region(ptr noalias %context, ptr %record, ptr %memory) #0 {",
                body,
                "}",
            ]
        )
        return module + "\n" + declarations(module)

    def _variable(self, file: str, number: int) -> str:
        return f"%{file}.{number}"

    def _block(self, block: Block) -> None:
        self.label(_label(block.pc))
        self.dirty = set(self.entry_dirty[block.pc])
        self.known = {}
        last = block.instructions[-1]
        for found in block.instructions:
            if not self._instruction(found):
                return
        self._go(last.next_pc)

    def _instruction(self, found: Occurrence) -> bool:
        """Emit one instruction; whether control goes on behind it in this block."""
        self.here = found
        self._known = [{}]
        self.graph, self.constants = found.template.graph, found.template.constants
        self._record_stored = False
        if not found.template.is_native:
            self._spill()
            self.line(f"; reference engine: {found.form.name}")
            self._exit_to(found.pc)
            return False
        self.effects()
        ended = any(
            effect.guard is None and effect.node.op in ("exit", "exception")
            for effect in self.graph.effects
            if not leaves_after(effect)
        )
        if ended or not self.jumps():
            return False
        self._learn(found)
        if any(effect.node.op == "set_rounding" for effect in self.graph.effects):
            self._spill()
            self._check_mode(found.next_pc)
        return self.finish()

    # What differs from a handler.
    def value(self, node: Node) -> str:
        if node.op != "const" and node.number in self.constants:
            return str(self.here.constant(node))
        return super().value(node)

    def leaf(self, node: Node) -> str:
        if node.op == "register":
            file, number = str(node.attrs[0]), self.here.constant(node.args[0])
            if number == self.registers.by_name[file].zero:
                return "0"
            pointer = self._register("read", file, node.args[0])
            return self.let(f"load i{node.size}, ptr {pointer}, align 8")
        return super().leaf(node)

    def _register(self, kind: str, file: str, index: Node) -> str:
        number = self.here.constant(index)
        if number == self.registers.by_name[file].zero:
            return self.context(field_offset("zero" if kind == "read" else "scratch"))
        if file in self.in_context:
            return self.context(REGISTERS + self.registers.offset(file, number))
        return self._variable(file, number)

    def _write(self, node: Node) -> None:
        file, number = str(node.attrs[0]), self.here.constant(node.args[0])
        super()._write(node)
        if file not in self.in_context and number != self.registers.by_name[file].zero:
            self.dirty.add((file, number))

    def _learn(self, found: Occurrence) -> None:
        """Remember which registers hold constants after an instruction: for computed calls."""
        learned: list[tuple[tuple[str, int], int | None]] = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                index, value = effect.node.args
                where = str(effect.node.attrs[0]), found.constant(index)
                known = self._fold(found, value) if effect.guard is None else None
                learned.append((where, known))
        for where, known in learned:
            self.known.pop(where, None)
            if known is not None:
                self.known[where] = known

    def _fold(self, found: Occurrence, node: Node) -> int | None:
        """The value of a node where constants and known registers determine it."""
        if node.op == "const" or node.number in found.template.constants:
            return found.constant(node)
        if node.op == "register":
            return self.known.get((str(node.attrs[0]), found.constant(node.args[0])))
        if node.op not in OPS:
            return None
        values = [self._fold(found, arg) for arg in node.args]
        if any(value is None for value in values):
            return None
        return evaluate(
            node.op,
            node.size,
            tuple(value for value in values if value is not None),
            tuple(arg.size for arg in node.args),
            tuple(int(attr) for attr in node.attrs),
        )

    def store_field(self, name: str, value: str) -> None:
        if name == "record":
            super().store_field("pc", str(self.here.pc))
            return
        super().store_field(name, value)

    def leave(self, code: ExitCode) -> None:
        self._spill()
        super().store_field("pc", str(self.here.pc))
        super().store_field("record", str(IN_CONTEXT))
        self.line(f"ret i32 {int(code)}")

    def _spill(self) -> None:
        """Write the registers that may be dirty here to the context."""
        for file, number in sorted(self.dirty):
            size = self.registers.by_name[file].size
            value = self.let(f"load i{size}, ptr {self._variable(file, number)}, align 8")
            pointer = self.context(REGISTERS + self.registers.offset(file, number))
            self.line(f"store i{size} {value}, ptr {pointer}, align 8")

    def _reload(self) -> None:
        """Read all registers from the context; what is not used falls away."""
        for file, number in self.used:
            size = self.registers.by_name[file].size
            pointer = self.context(REGISTERS + self.registers.offset(file, number))
            value = self.let(f"load i{size}, ptr {pointer}, align 8")
            self.line(f"store i{size} {value}, ptr {self._variable(file, number)}, align 8")
        super().store_field("record", str(IN_CONTEXT))

    def _check_mode(self, pc: int) -> None:
        """The region takes the rounding mode for a valid one: checked where it may have changed."""
        if self.rounds and self.status is not None:
            mode = self.let(f"load i32, ptr {self._rounding_mode()}, align 8")
            invalid = self.let(f"icmp ugt i32 {mode}, 3")
            leaving, staying = self.name("mode"), self.name("valid")
            self.branch(invalid, leaving, staying, unlikely=True)
            self.label(leaving)
            super().store_field("pc", str(pc))
            super().store_field("record", str(IN_CONTEXT))
            self.line(f"ret i32 {int(ExitCode.EMULATE)}")
            self.label(staying)

    def check_rounding(self) -> None:
        """See _check_mode."""

    def _check_stack(self) -> None:
        """Host frames are a cache: drop them all when they have become too many."""
        pointer = self.context(field_offset("stack_limit"))
        limit = self.let(f"load i64, ptr {pointer}, align 8")
        stack = self.let("call i64 @llvm.read_register.i64(metadata !3)")
        low = self.let(f"icmp ult i64 {stack}, {limit}")
        dropping, going = self.name("drop"), self.name("go")
        self.branch(low, dropping, going, unlikely=True)
        self.label(dropping)
        super().store_field("pc", str(self.pc))
        self._tail_call(self._native("drop_entry"), "%record")
        self.label(going)

    def _native(self, name: str) -> str:
        pointer = self.context(field_offset(name))
        return self.let(f"load ptr, ptr {pointer}, align 8")

    def _tail_call(self, function: str, record: str) -> None:
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 {function}"
            f"(ptr noalias %context, ptr {record}, ptr %memory)"
        )
        self.line(f"ret i32 {result}")

    def stop_poll(self, target: str) -> None:
        def spilled() -> str:
            self._spill()
            return target

        self._poll(spilled)

    # Control flow.
    def _go(self, pc: int) -> None:
        """Continue at a known pc, inside or outside."""
        if pc in self.blocks:
            if pc <= self.here.pc:
                self.stop_poll(str(pc))
            self.line(f"br label %{_label(pc)}")
            return
        self._spill()
        self._exit_to(pc)

    def _cell(self, pc: int) -> str:
        """Pointer to the record that the cell for a pc is linked to."""
        if pc not in self.cells:
            self.cells.append(pc)
        offset = FIRST_CELL + CELL * self.cells.index(pc)
        cell = self.let(f"getelementptr i8, ptr %record, i64 {offset}")
        return self.let(f"load ptr, ptr {cell}, align 8")

    def _exit_to(self, pc: int) -> None:
        self.dispatch(self._cell(pc))

    def _jump(self, target: Node) -> None:
        if self.compiler.links(self.here):
            self._call(target)
        elif (known := self._fold(self.here, target)) is not None:
            if target.number not in self.constants:
                self._spill()  # _survey does not see this edge: nothing is dirty along it
            self._go(known)
        else:
            pc = self.value(target)
            self._spill()
            if self._is_return(target):
                super().store_field("pc", pc)
                self.line("ret i32 0")
            else:
                self._clean_poll(pc)
                self.find(pc)

    def _clean_poll(self, target: str) -> None:
        kept, self.dirty = self.dirty, set()
        self.stop_poll(target)
        self.dirty = kept

    def _is_return(self, target: Node) -> bool:
        stack, registers = [target], set()
        while stack:
            node = stack.pop()
            if node.op == "register":
                registers.add((str(node.attrs[0]), self.here.constant(node.args[0])))
            stack.extend(node.args)
        return bool(registers & set(self.architecture.return_registers))

    def _call(self, target: Node) -> None:
        """Call guest code as a host function; it comes back with the expected pc, or not."""
        known = self._fold(self.here, target)
        if known is not None:
            self._spill()
            record = self._cell(known)
            handler = self.let(f"load ptr, ptr {record}, align 8")
        else:
            pc = self.value(target)
            self._spill()
            super().store_field("pc", pc)
            record, handler = self._look_up(pc)
        status = self.let(f"call i32 {handler}(ptr noalias %context, ptr {record}, ptr %memory)")
        leaving, back = self.name("leave"), self.name("back")
        ended = self.let(f"icmp ne i32 {status}, 0")
        self.branch(ended, leaving, back, unlikely=True)
        self.label(leaving)
        self.line(f"ret i32 {status}")
        self.label(back)
        pointer = self.context(field_offset("pc"))
        pc = self.let(f"load i64, ptr {pointer}, align 8")
        other = self.let(f"icmp ne i64 {pc}, {self.here.next_pc}")
        elsewhere, expected = self.name("elsewhere"), self.name("expected")
        self.branch(other, elsewhere, expected, unlikely=True)
        self.label(elsewhere)
        self._tail_call(self._native("run_entry"), "%record")
        self.label(expected)
        self.dirty = set()
        self._reload()
        self._check_mode(self.here.next_pc)
        if self.here.next_pc in self.blocks:
            self.line(f"br label %{_label(self.here.next_pc)}")
        else:
            self._exit_to(self.here.next_pc)

    def _look_up(self, pc: str) -> tuple[str, str]:
        """Record and handler of a computed pc: from the table, else what looks it up."""
        pointer = self.context(field_offset("jump_cache"))
        table = self.let(f"load ptr, ptr {pointer}, align 8")
        shifted = self.let(f"lshr i64 {pc}, 2")
        index = self.let(f"and i64 {shifted}, {(1 << TABLE_BITS) - 1}")
        offset = self.let(f"shl i64 {index}, 4")
        entry = self.let(f"getelementptr i8, ptr {table}, i64 {offset}")
        known = self.let(f"load i64, ptr {entry}, align 8")
        same = self.let(f"icmp eq i64 {known}, {self.let(f'add i64 {pc}, 1')}")
        hit, miss, done = self.name("hit"), self.name("miss"), self.name("done")
        self.branch(same, hit, miss)
        self.label(hit)
        at = self.let(f"getelementptr i8, ptr {entry}, i64 8")
        record = self.let(f"load ptr, ptr {at}, align 8")
        handler = self.let(f"load ptr, ptr {record}, align 8")
        self.line(f"br label %{done}")
        self.label(miss)
        run = self._native("run_entry")
        self.line(f"br label %{done}")
        self.label(done)
        return (
            self.let(f"phi ptr [ {record}, %{hit} ], [ %record, %{miss} ]"),
            self.let(f"phi ptr [ {handler}, %{hit} ], [ {run}, %{miss} ]"),
        )

    def find(self, pc: str) -> None:
        super().store_field("pc", pc)
        record, handler = self._look_up(pc)
        self._tail_call(handler, record)

    def _next_pc(self) -> str:
        return str(self.here.next_pc)

    def _syscall(self) -> None:
        self._spill()
        self.dirty = set()  # from here on the context has what is true: the call may write there
        super()._syscall()
        self._reload()
        self._check_mode(self.here.next_pc)

    def finish(self) -> bool:
        for effect in self.graph.effects:
            if effect.node.op == "exit":  # leaves past the instruction
                self._spill()
        return super().finish()


def _label(pc: int) -> str:
    return f"b{pc:x}"
