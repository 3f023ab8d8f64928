"""One function of a kernel as LLVM text: blocks, masks, control flow.

What each instruction does is in the modules of `rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anyarch.gpu.cpu.activity import ALL_LANES, possible_lanes
from anyarch.gpu.cpu.flow import END, Block, Loop, writes
from anyarch.gpu.cpu.linear import Linear, Node
from anyarch.gpu.cpu.lines import SHARED
from anyarch.gpu.cpu.records import WORKER
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.values import Values
from anyarch.gpu.ptx.tree import Function, Immediate, Instruction, Place, Register

if TYPE_CHECKING:
    from anyarch.gpu.cpu.kernel import KernelCompiler
    from anyarch.gpu.cpu.rules.registry import Rule

__all__ = ["FunctionEmitter", "NeedsThreads"]


class NeedsThreads(Exception):
    """The kernel waits where its lanes have gone different ways: each needs a flow of its own."""


class FunctionEmitter(Values):
    """Writes one function."""

    def __init__(self, kernel: KernelCompiler, function: Function) -> None:
        super().__init__(kernel, function)
        self.linear = Linear(self.flow, self.shapes.divergent)
        self._possible = [ALL_LANES]
        if self.width > 1:
            self._possible = possible_lanes(self.flow, self.shapes)
            self._look_for_locks()
        self.loaded: dict[int, str] = {}  # what one load has brought for later ones, by their id
        self._masks: dict[int, str] = {}
        self._lanes: dict[int, str] = {}
        self._apart: int | None = None  # possible lanes, while another function is written

    def _look_for_locks(self) -> None:
        """A lane that holds a lock must go on while others of its warp try to take it.

        Trying is a loop that some lanes leave before others, with an exchange, or a compare with
        what does not change in the loop; a retry of a computed value always lets one lane through.
        """
        for loop in self.flow.loops:
            if not self.linear.waiting.get(("latch", loop.number)):
                continue
            body = [i for n in loop.blocks for i in self.flow.blocks[n].body]
            written = {r for i in body if not _is_constant(i) for r in writes(i)}
            for instruction in body:
                if instruction.opcode != "atom":
                    continue
                old = instruction.operands[2]
                fixed = not isinstance(old, Register) or old not in written
                if "exch" in instruction.modifiers or ("cas" in instruction.modifiers and fixed):
                    raise NeedsThreads

    # The whole function.

    def text(self) -> str:
        """The definition."""
        arguments = ["ptr %worker", "ptr %launch", "ptr %base"]
        if not self.kernel.windows_escape:
            arguments[2] = "ptr noalias %base"
        if self.function.entry:
            arguments += ["i32 %warp", "i32 %block.x", "i32 %block.y", "i32 %block.z"]
            if self.rounds is not None:
                arguments += ["i32 %resume", "ptr noalias %kept", "ptr noalias %common"]
        else:
            arguments += ["i64 %frame", "i32 %lanes"]
            for number, variable in enumerate((*self.function.returns, *self.function.parameters)):
                arguments.append(f"ptr %p{number}")
                self._parameters[variable.name] = f"%p{number}"
        body = self._body()
        name = self.kernel.symbol(self.function)
        head = f"define internal {'i32' if self.rounds else 'void'} @{name}"
        attributes = self.kernel.attributes(self.function)
        if self.kernel.lines is not None:
            attributes += f" !dbg !{self.kernel.lines.scope(self.function.name)}"
        lines = [f"{head}({', '.join(arguments)}) {attributes} {{", "entry:"]
        lines += [*self.allocas, *self._entry, *body, "}"]
        return "\n".join(lines)

    def _body(self) -> list[str]:
        from anyarch.gpu.cpu.rules import checks

        for node in self.flow.order:
            if isinstance(node, Loop):
                self._latch(node)
            else:
                self._block(self.flow.blocks[node])
        self.label("end")
        if self.function.entry:
            checks.end(self)
        self.line(f"ret i32 {self.rounds.end}" if self.rounds else "ret void")
        body, self.lines = self.lines, []
        if self.width > 1:
            if self.function.entry:
                first = self._entry_mask()
            else:
                first = self.let(f"bitcast i32 %lanes to {self.t('i1', True)}")
            for slot in self._masks.values():
                self.line(f"store {self.t('i1', True)} zeroinitializer, ptr {slot}")
            self.line(f"store {self.t('i1', True)} {first}, ptr {self._mask_slot(0)}")
        if self.function.entry:
            checks.begin(self)
        if self.rounds is None:
            self.line("br label %b0")
        else:
            cases = " ".join(f"i32 {n}, label %r{n}" for n in range(1, self.rounds.end))
            cases += f" i32 {self.rounds.end}, label %end"
            self.line(f"switch i32 %resume, label %b0 [{cases}]")
        self._entry += self.lines
        return body

    def wait(self, instruction: Instruction) -> None:
        """Leave the kernel at a barrier, and go on there when it is entered again."""
        rounds = self.rounds
        assert rounds is not None
        number = rounds.numbers[id(instruction)]
        kept = [(r, self._places(r)) for r in rounds.kept[number]]
        for register, places in kept:
            base = "common.out" if register in rounds.common else "kept"
            for (type_, place), value in zip(places, self._stored(register)):
                self.line(f"store {type_} {value}, ptr {self.kept_pointer(base, place)}, align 8")
        if not rounds.full[number]:
            self.line(f"store i32 {self.mask_bits(self.mask)}, ptr {self.kept_pointer('kept', 0)}")
        self.line(f"ret i32 {number}")
        self.label(f"r{number}")
        self.forget()
        self.mask = self.k_mask(True)
        if not rounds.full[number]:
            bits = self.let(f"load i32, ptr {self.kept_pointer('kept', 0)}")
            self.mask = self.let(f"bitcast i32 {bits} to {self.t('i1', True)}")
        # All lanes are here, so those of every block that is not over are.
        for block in sorted(set(self.linear.source.values())):
            self.line(f"store {self.t('i1', True)} {self.mask}, ptr {self._lanes_slot(block)}")
        for register, places in kept:
            base = "common" if register in rounds.common else "kept"
            values = []
            for type_, place in places:
                pointer = self.kept_pointer(base, place)
                values.append(self.let(f"load {type_}, ptr {pointer}, align 8"))
            self._store(register, tuple(t for t, _ in places), tuple(values))
        for again in rounds.renewed[number]:
            self._emit(again)
        self.instruction = instruction

    def _places(self, register: Register) -> list[tuple[str, int]]:
        """Types and places of what is kept of a register over a barrier."""
        assert self.rounds is not None
        common = register in self.rounds.common
        return self.record.places(register, self._slot_types(register), common)

    def _entry_mask(self) -> str:
        if self.kernel.block.full:
            return self.k_mask(True)
        threads = math.prod(self.kernel.block.size)
        first = self.let("shl i32 %warp, 5")
        left = self.let(f"sub i32 {threads}, {first}")
        numbers = self.lanes("i32", tuple(range(LANES)))
        return self.let(f"icmp ugt <{LANES} x i32> {self.splat('i32', left)}, {numbers}")

    # Masks and control flow.

    @property
    def possible(self) -> int:
        """The lanes that can be active in the current block, as bits."""
        if self._apart is not None:
            return self._apart
        return self._possible[self.block.index] if self.width > 1 else ALL_LANES

    @property
    def is_apart(self) -> bool:
        """Whether what is written is no function of the kernel's."""
        return self._apart is not None

    @property
    def in_loop(self) -> bool:
        """Whether the current block is part of a loop."""
        return any(self.block.index in loop.blocks for loop in self.flow.loops)

    def k_mask(self, value: bool) -> str:
        """All lanes, or none."""
        if self.width == 1:
            return "true" if value else "false"
        return "splat (i1 true)" if value else "zeroinitializer"

    def _mask_slot(self, block: int) -> str:
        if block not in self._masks:
            self._masks[block] = self.alloca(self.t("i1", True), "mask")
        return self._masks[block]

    def _lanes_slot(self, block: int) -> str:
        """Where the lanes of a block are kept for those that have the same."""
        if block not in self._lanes:
            self._lanes[block] = self.alloca(self.t("i1", True), "lanes")
        return self._lanes[block]

    def any_lane(self, mask: str) -> str:
        """Whether a mask has a lane."""
        bits = self.mask_bits(mask)
        return self.let(f"icmp ne i32 {bits}, 0")

    def mask_bits(self, mask: str) -> str:
        """A mask as an integer."""
        return self.let(f"bitcast {self.t('i1', True)} {mask} to i32")

    def _label_of(self, node: Node) -> str:
        if node == END:
            return "end"
        return f"b{node}" if isinstance(node, int) else f"l{node[1]}"

    def _go(self, node: Node, targets: set[Node]) -> str:
        return self._label_of(self.linear.go(node, targets))

    def _block(self, block: Block) -> None:
        self.block = block
        self.label(f"b{block.index}")
        self.forget()
        source = self.linear.source.get(block.index)
        if self.width > 1 and source is not None:
            slot = self._lanes_slot(source)
            self.mask = self.let(f"load {self.t('i1', True)}, ptr {slot}")
        elif self.width > 1:
            slot = self._mask_slot(block.index)
            self.mask = self.let(f"load {self.t('i1', True)}, ptr {slot}")
            self.line(f"store {self.t('i1', True)} zeroinitializer, ptr {slot}")
            if self.linear.checked(block.index):
                follows = self._label_of(self.linear.first(self.linear.waiting[block.index]))
                inside = f"b{block.index}.go"
                self.branch(self.any_lane(self.mask), inside, follows)
                self.label(inside)
            if self.possible != ALL_LANES:
                bits = [f"i1 {self.possible >> n & 1}" for n in range(LANES)]
                lanes = f"<{', '.join(bits)}>"
                self.mask = self.let(f"and {self.t('i1', True)} {self.mask}, {lanes}")
            if block.index in self.linear.source.values():
                kept = self._lanes_slot(block.index)
                self.line(f"store {self.t('i1', True)} {self.mask}, ptr {kept}")
        for instruction in block.body:
            self._emit(instruction)
        self.instruction = None
        self._end_block(block)

    def apart(
        self, name: str, possible: int, build: Callable[[], list[str]]
    ) -> tuple[list[str], list[str]]:
        """The lines of a function of its own that `build` writes, and what it gives."""
        kept = self.lines, self.allocas, self._scratch, self.current, self.location, self._apart
        self.lines, self.allocas, self._scratch, self.current = [], [], {}, "entry"
        self._apart = possible
        if self.kernel.lines is not None:
            self.location = self.kernel.lines.location(name, SHARED)
        values = build()
        lines = [*self.allocas, *self.lines]
        self.lines, self.allocas, self._scratch, self.current, self.location, self._apart = kept
        return lines, values

    def _send(self, target: int, lanes: str) -> None:
        """Let lanes wait at a block."""
        if target == END or self.width == 1 or target in self.linear.source:
            return
        slot = self._mask_slot(target)
        type_ = self.t("i1", True)
        old = self.let(f"load {type_}, ptr {slot}")
        self.line(f"store {type_} {self.let(f'or {type_} {old}, {lanes}')}, ptr {slot}")

    def _end_block(self, block: Block) -> None:
        branch, index = block.branch, block.index
        target = self.linear.target
        if branch.register is None:
            (only,) = branch.targets
            self._send(only, self.mask)
            self.jump(self._go(index, {target(index, only)}))
            return
        if index in self.shapes.divergent:
            self._diverge(block)
            return
        self.vec = False
        if branch.kind == "cond":
            condition = self.get(branch.register, "i1")
            then, otherwise = branch.targets[::-1] if branch.negated else branch.targets
            labels = self.name("e"), self.name("e")
            self.branch(condition, *labels)
            for label, successor in zip(labels, (then, otherwise)):
                self.label(label)
                self._send(successor, self.mask)
                self.jump(self._go(index, {target(index, successor)}))
            return
        value = self.get(branch.register, "i32")
        labels_ = [self.name("e") for _ in branch.targets]
        cases = " ".join(f"i32 {n}, label %{label}" for n, label in enumerate(labels_[:-1]))
        self.line(f"switch i32 {value}, label %{labels_[-1]} [{cases}]")
        for label, successor in zip(labels_, branch.targets):
            self.label(label)
            self._send(successor, self.mask)
            self.jump(self._go(index, {target(index, successor)}))

    def _diverge(self, block: Block) -> None:
        branch, index = block.branch, block.index
        assert branch.register is not None
        self.vec = True
        type_ = self.t("i1")
        if branch.kind == "cond":
            condition = self.get(branch.register, "i1")
            then, otherwise = branch.targets[::-1] if branch.negated else branch.targets
            self._send(then, self.let(f"and {type_} {self.mask}, {condition}"))
            inverse = self.let(f"xor {type_} {condition}, splat (i1 true)")
            self._send(otherwise, self.let(f"and {type_} {self.mask}, {inverse}"))
        else:
            value = self.get(branch.register, "i32")
            left = self.mask
            for number, successor in enumerate(branch.targets[:-1]):
                here = self.cmp("icmp eq", "i32", value, self.k("i32", number))
                self._send(successor, self.let(f"and {type_} {left}, {here}"))
                inverse = self.let(f"xor {type_} {here}, splat (i1 true)")
                left = self.let(f"and {type_} {left}, {inverse}")
            self._send(branch.targets[-1], left)
        self.jump(self._go(index, {self.linear.target(index, s) for s in branch.targets}))

    def _latch(self, loop: Loop) -> None:
        self.label(f"l{loop.number}")
        if self.kernel.fibres and loop.number in self.kernel.polling_loops(self.function):
            pause = self.load_field("ptr", "worker", WORKER["pause"])
            self.line(f"call void {pause}(ptr %worker)")
        flag = self.at_entry("stop", lambda: self.load_field("ptr", "worker", WORKER["stop"]))
        stop = self.let(f"load volatile i32, ptr {flag}")
        stopped, goes = self.name("stop"), self.name("goes")
        self.branch(self.let(f"icmp ne i32 {stop}, 0"), stopped, goes, "!0")
        self.label(stopped)
        self.instruction = next(iter(self.flow.blocks[loop.header].body), None)
        self.leave(1)
        self.instruction = None
        self.label(goes)
        waiting = self.linear.waiting.get(("latch", loop.number))
        if self.width == 1 or not waiting:
            self.jump(f"b{loop.header}")
            return
        slot = self._mask_slot(loop.header)
        lanes = self.let(f"load {self.t('i1', True)}, ptr {slot}")
        self.branch(
            self.any_lane(lanes),
            f"b{loop.header}",
            self._label_of(self.linear.first(waiting)),
        )

    def leave(self, code: int) -> None:
        """End the launch with an exit code, here."""
        place = self.instruction.place if self.instruction is not None else Place(0, 0)
        line = self.let(f"getelementptr i8, ptr %worker, i64 {WORKER['line']}")
        self.line(f"store <2 x i32> <i32 {place.line}, i32 {place.column}>, ptr {line}")
        context = self.load_field("ptr", "worker", WORKER["context"])
        function = self.load_field("ptr", "worker", WORKER["leave"])
        self.line(f"call void {function}(ptr {context}, i32 {code})")
        self.line("unreachable")

    @contextmanager
    def when(self, condition: str, weights: str = "") -> Iterator[None]:
        """Code that runs only if a scalar is true; registers may be written in it."""
        then, after = self.name("t"), self.name("a")
        self.branch(condition, then, after, weights)
        self.label(then)
        cache, vectors = dict(self._cache), dict(self._vectors)
        yield
        self.jump(after)
        self.label(after)
        self._cache, self._vectors = cache, vectors
        if self.instruction is not None:
            for register in writes(self.instruction):
                self._cache.pop(register, None)
                self._vectors.pop(register, None)

    # Instructions.

    def _emit(self, instruction: Instruction) -> None:
        from anyarch.gpu.cpu.rules import RULES

        self.instruction = instruction
        if self.kernel.lines is not None:
            self.location = self.kernel.lines.location(self.function.name, instruction)
        rule = RULES.get(instruction.opcode)
        if rule is None:
            self.fail(f"instruction {instruction.opcode} is not supported")
        self.guard = None
        try:
            self._emit_guarded(instruction, rule)
        except (ValueError, IndexError, KeyError, StopIteration, AttributeError) as error:
            # Rules take operands and modifiers apart as the ISA says they are.
            raise self._error("its operands or modifiers are not those of the ISA") from error
        self.guard = None

    def _emit_guarded(self, instruction: Instruction, rule: Rule) -> None:
        guard = instruction.guard
        if guard is None:
            rule(self, instruction)
            return
        if self.shapes.of(guard).kind == "uniform":
            self.vec = False
            condition = self.get(guard, "i1")
            if instruction.negated:
                condition = self.let(f"xor i1 {condition}, true")
            with self.when(condition):
                rule(self, instruction)
            return
        self.vec = True
        condition = self.get(guard, "i1")
        if instruction.negated:
            condition = self.op("xor", "i1", condition, "splat (i1 true)")
        self.guard = condition
        rule(self, instruction)


def _is_constant(instruction: Instruction) -> bool:
    return instruction.opcode == "mov" and isinstance(instruction.operands[1], Immediate)
