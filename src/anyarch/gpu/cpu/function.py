"""One function of a kernel as LLVM text: registers, masks, control flow.

What each instruction does is in the modules of `rules`. A register lives in memory of the frame
(one scalar, two for a wide one, or a vector), which LLVM turns into values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from anyarch.gpu.cpu.activity import ALL_LANES, possible_lanes
from anyarch.gpu.cpu.flow import END, Block, Loop, reads, writes
from anyarch.gpu.cpu.linear import Linear, Node
from anyarch.gpu.cpu.lines import SHARED
from anyarch.gpu.cpu.records import FIBRE_LOCAL, FIBRE_WARP, LAUNCH, WORKER
from anyarch.gpu.cpu.rounds import COMMON_NBYTES, Record, Rounds
from anyarch.gpu.cpu.shapes import LANES, UNIFORM, Shape, Shapes
from anyarch.gpu.cpu.writer import BITS, Writer, bits_of, float_text, integer_of
from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import (
    SIZES,
    Constant,
    Function,
    Immediate,
    Instruction,
    Operand,
    Place,
    Register,
    Special,
    Symbol,
    Variable,
)

if TYPE_CHECKING:
    from anyarch.gpu.cpu.kernel import KernelCompiler
    from anyarch.gpu.cpu.rules.registry import Rule

__all__ = ["FunctionEmitter", "NeedsThreads", "elem_of", "storage"]

_MANY: Final = 64
_NAN: Final = {"float": 0x7FFFFFFF, "half": 0x7FFF}
_ARITHMETIC: Final = frozenset(
    "add sub mul fma mad div rcp sqrt rsqrt ex2 lg2 sin cos tanh min max cvt abs neg".split()
)
# Fields of a worker that stay while a kernel runs.
_FIXED: Final = {
    WORKER[name]
    for name in ("context", "shared", "leave", "barrier", "pause", "stop", "exchange", "sync")
}


class NeedsThreads(Exception):
    """The kernel waits where its lanes have gone different ways: each needs a flow of its own."""


def elem_of(type_: str) -> str:
    """The LLVM type of a PTX type."""
    match type_:
        case "pred":
            return "i1"
        case "f16":
            return "half"
        case "f32" | "tf32":
            return "float"
        case "f64":
            return "double"
        case "bf16":
            return "bfloat"
        case "f16x2":
            return "2 x half"
        case "bf16x2":
            return "2 x bfloat"
        case "u16x2" | "s16x2":
            return "2 x i16"
    return f"i{SIZES[type_]}"


def storage(register: Register) -> str:
    """The LLVM type in which a register is kept."""
    if register.type in ("f32", "f64"):
        return elem_of(register.type)
    return f"i{register.size}"


class FunctionEmitter(Writer):
    """Writes one function."""

    def __init__(self, kernel: KernelCompiler, function: Function) -> None:
        super().__init__(kernel.declarations, kernel.width)
        self.kernel, self.function = kernel, function
        self.flow = kernel.flow_of(function)
        self.shapes = Shapes(self.flow, kernel.block, kernel.local_stride, function.entry)
        self.linear = Linear(self.flow, self.shapes.divergent)
        self._possible = [ALL_LANES]
        if self.width > 1:
            self._possible = possible_lanes(self.flow, self.shapes)
        in_rounds = kernel.rounds and function.entry
        self.rounds = Rounds(self.flow, self.shapes) if in_rounds else None
        self.record = Record()
        if self.width > 1:
            self._look_for_locks()
        self.block = self.flow.blocks[0]
        self.mask = self.k_mask(True)
        self.guard: str | None = None
        self.instruction: Instruction | None = None
        self._slots: dict[Register, tuple[str, ...]] = {}
        self._cache: dict[Register, tuple[str, ...]] = {}
        self._vectors: dict[Register, str] = {}
        self.loaded: dict[int, str] = {}  # what one load has brought for later ones, by their id
        self._masks: dict[int, str] = {}
        self._lanes: dict[int, str] = {}
        self._apart: int | None = None  # possible lanes, while another function is written
        self._frame_arrays: str | None = None
        self._entry: list[str] = []
        self._entry_values: dict[str, str] = {}
        self._parameters: dict[str, str] = {}
        self._read: set[Register] | None = None
        self._arithmetic: set[Register] | None = None

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
                self.line(f"store {type_} {value}, ptr {self._kept_pointer(base, place)}, align 8")
        if not rounds.full[number]:
            self.line(f"store i32 {self.mask_bits(self.mask)}, ptr {self._kept_pointer('kept', 0)}")
        self.line(f"ret i32 {number}")
        self.label(f"r{number}")
        self.forget()
        self.mask = self.k_mask(True)
        if not rounds.full[number]:
            bits = self.let(f"load i32, ptr {self._kept_pointer('kept', 0)}")
            self.mask = self.let(f"bitcast i32 {bits} to {self.t('i1', True)}")
        # All lanes are here, so those of every block that is not over are.
        for block in sorted(set(self.linear.source.values())):
            self.line(f"store {self.t('i1', True)} {self.mask}, ptr {self._lanes_slot(block)}")
        for register, places in kept:
            base = "common" if register in rounds.common else "kept"
            values = []
            for type_, place in places:
                pointer = self._kept_pointer(base, place)
                values.append(self.let(f"load {type_}, ptr {pointer}, align 8"))
            self._store(register, tuple(t for t, _ in places), tuple(values))

    def _kept_pointer(self, base: str, place: int) -> str:
        if base == "common.out":
            base, place = "common", place + COMMON_NBYTES // 2
        return self.let(f"getelementptr i8, ptr %{base}, i64 {place}")

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

    def load_field(self, type_: str, base: str, offset: int) -> str:
        """Load from a record (`%worker`, `%launch`)."""
        pointer = self.let(f"getelementptr i8, ptr %{base}, i64 {offset}")
        fixed = base == "launch" or offset in _FIXED
        return self.let(f"load {type_}, ptr {pointer}{', !invariant.load !2' if fixed else ''}")

    def at_entry(self, key: str, build: Callable[[], str]) -> str:
        """A value computed once, where the function begins."""
        found = self._entry_values.get(key)
        if found is None:
            lines, self.lines = self.lines, self._entry
            found = self._entry_values[key] = build()
            self.lines = lines
        return found

    def fail(self, message: str) -> NoReturn:
        """Raise PtxError at the current instruction."""
        raise self._error(message)

    def _error(self, message: str) -> PtxError:
        instruction = self.instruction
        if instruction is None:
            return PtxError(message)
        place = instruction.place
        return PtxError(message, place.line, place.column, instruction.text)

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

    def forget(self) -> None:
        """Values known in this block are not known in the next."""
        self._cache.clear()
        self._vectors.clear()

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

    def active(self) -> str:
        """The lanes for which the current instruction runs."""
        if self.guard is None:
            return self.mask
        return self.let(f"and {self.t('i1', True)} {self.mask}, {self.guard}")

    def canonical(self, elem: str, value: str) -> str:
        """The one NaN that GPUs give where a float's bits can be seen; in the current mode."""
        nan = _NAN.get(elem)
        if nan is None:
            return value
        bad = self.cmp("fcmp uno", elem, value, value)
        # As integers: for LLVM one NaN is as good as another, and it drops such a choice.
        integer = integer_of(elem)
        bits = self.sel(bad, integer, self.k(integer, nan), self.bits(elem, integer, value))
        return self.bits(integer, elem, bits)

    def _computed(self, register: Register) -> bool:
        """Whether a float register only ever holds results of arithmetic: what is loaded or moved
        keeps its bits."""
        if self._arithmetic is None:
            written: dict[Register, bool] = {}
            for block in self.flow.blocks:
                for i in block.body:
                    for one in writes(i):
                        written[one] = written.get(one, True) and _is_arithmetic(i)
            self._arithmetic = {r for r, all_ in written.items() if all_ and r.type == "f32"}
        return register in self._arithmetic

    def seen(self, operand: Operand, elem: str, vec: bool) -> str:
        """An operand whose bits are about to be seen, in memory for example."""
        value = self.get(operand, elem, vec)
        if elem != "float" or not isinstance(operand, Register) or not self._computed(operand):
            return value
        before, self.vec = self.vec, vec
        value = self.canonical(elem, value)
        self.vec = before
        return value

    def is_read(self, operand: Operand) -> bool:
        """Whether any instruction reads a register."""
        if self._read is None:
            self._read = {r for b in self.flow.blocks for i in b.body for r in reads(i)}
            self._read |= {b.branch.register for b in self.flow.blocks if b.branch.register}
        return not isinstance(operand, Register) or operand in self._read

    def choose(self, instruction: Instruction, *operands: Operand) -> None:
        """Set `vec` for an instruction that computes its result from operands alone."""
        self.vec = False
        if self.width == 1:
            return
        for register in writes(instruction):
            if self.shapes.of(register).scalar:
                return
        self.vec = any(self.shape(operand).kind != "uniform" for operand in operands)

    def shape(self, operand: Operand) -> Shape:
        """The shape of an operand."""
        if self.width == 1:
            return UNIFORM
        return self.shapes.operand(operand) or UNIFORM

    # Registers and other operands as values.

    def _slot(self, register: Register) -> tuple[str, ...]:
        slots = self._slots.get(register)
        if slots is None:
            slots = tuple(self.alloca(t, "r") for t in self._slot_types(register))
            self._slots[register] = slots
        return slots

    def _slot_types(self, register: Register) -> tuple[str, ...]:
        match self.shapes.of(register).kind:
            case "wide":
                return "i32", "i64"
            case "indexed":
                return self.t("i32", True), "i64"
            case kind:
                return (self.t(storage(register), kind == "varying"),)

    def _stored(self, register: Register) -> tuple[str, ...]:
        """What a register's slots hold."""
        found = self._cache.get(register)
        if found is None:
            slots, types = self._slot(register), self._slot_types(register)
            found = tuple(self.let(f"load {t}, ptr {s}") for t, s in zip(types, slots))
            self._cache[register] = found
        return found

    def wide(self, register: Register) -> tuple[str, str]:
        """The two parts of a wide or indexed register."""
        first, second = self._stored(register)
        return first, second

    def _vector(self, register: Register) -> str:
        """A register as a vector of its storage type."""
        found = self._vectors.get(register)
        if found is not None:
            return found
        shape, elem = self.shapes.of(register), storage(register)
        stored = self._stored(register)
        match shape.kind:
            case "varying":
                return stored[0]
            case "uniform":
                found = self.splat(elem, stored[0])
            case "affine":
                found = self._add_lanes(elem, stored[0], shape)
            case _:
                found = self.wide_vector(shape, stored[0], stored[1])
        self._vectors[register] = found
        return found

    def _add_lanes(self, elem: str, base: str, shape: Shape) -> str:
        vector = self.t(elem, True)
        lanes = self.lanes(elem, shape.lanes)
        return self.let(f"add {vector} {self.splat(elem, base)}, {lanes}")

    def wide_vector(self, shape: Shape, base32: str, base64: str) -> str:
        """All lanes of a wide or indexed value."""
        narrow = base32
        if shape.kind == "wide":
            narrow = self._add_lanes("i32", base32, shape)
        extend = "sext" if shape.signed else "zext"
        type_ = self.t("i64", True)
        value = self.let(f"{extend} {self.t('i32', True)} {narrow} to {type_}")
        if shape.scale != 1:
            value = self.let(f"mul {type_} {value}, splat (i64 {shape.scale})")
        return self.let(f"add {type_} {value}, {self.splat('i64', base64)}")

    def get(self, operand: Operand, elem: str, vec: bool | None = None) -> str:
        """An operand as a value of type `elem`, in the current mode.

        In scalar mode an affine operand is its scalar part. A wider register gives its low bits.
        """
        vec = self.vec if vec is None else vec
        before, self.vec = self.vec, vec
        try:
            return self._get(operand, elem, vec)
        finally:
            self.vec = before

    def _get(self, operand: Operand, elem: str, vec: bool) -> str:
        match operand:
            case Register():
                value = self._vector(operand) if vec else self._scalar(operand)
                kept = storage(operand)
                if kept == "float" and elem != kept and self._computed(operand):
                    value = self.canonical(kept, value)
                return self.convert(kept, elem, value)
            case Immediate():
                return self._immediate(operand, elem)
            case Special():
                value, size = self._special(operand.name, vec)
                return self.convert(f"i{size}", elem, value)
            case Symbol():
                value = self.symbol_value(operand)
                if vec and value.startswith("%"):
                    value = self.splat("i64", value)
                elif vec:
                    value = f"splat (i64 {value})"
                return self.convert("i64", elem, value)
            case Constant(kind="not", operands=(inner,)):
                value = self._get(inner, "i1", vec)
                return self.op("xor", "i1", value, self.k("i1", 1))
            case Constant(kind="sum", operands=(inner, Immediate() as more)):
                integer = integer_of(elem)
                value = self._get(inner, integer, vec)
                value = self.op("add", integer, value, self.k(integer, more.value))
                return self.bits(integer, elem, value)
        self.fail("an operand is not of the expected kind")
        return None

    def _scalar(self, register: Register) -> str:
        shape = self.shapes.of(register)
        stored = self._stored(register)
        if shape.kind == "varying":
            raise AssertionError(f"{register.name} varies, in a scalar operation")
        if shape.kind in ("wide", "indexed"):
            raise AssertionError(f"{register.name} is {shape.kind}, in a scalar operation")
        return stored[0]

    def convert(self, source: str, elem: str, value: str) -> str:
        """Bits of a register as a type that an instruction reads."""
        if source == elem:
            return value
        have, want = bits_of(source), bits_of(elem)
        if have == want:
            if (self.t(source), self.t(elem)) == (self.t(integer_of(elem)), self.t(elem)):
                pass
            return self.bits(source, elem, value)
        if source == "i1" or elem == "i1":
            self.fail("a predicate register and a number do not mix")
        integer = self.bits(source, integer_of(source), value)
        sized = self.resize(integer_of(source), integer_of(elem), integer)
        return self.bits(integer_of(elem), elem, sized)

    def _immediate(self, operand: Immediate, elem: str) -> str:
        inner = elem[4:] if elem[0] == "2" else elem
        if inner == "bfloat" or inner not in BITS:
            if operand.real is not None:
                self.fail(f"a float where {elem} is expected")
            return self.bits_constant(elem, operand.value)
        if operand.real is not None:
            return self.real(elem, operand.real)
        if elem[0] == "2":
            return self.bits_constant(elem, operand.value)
        if operand.bits:
            if operand.bits == bits_of(elem):
                return self.k(elem, operand.value)
            return self.real(elem, _real(operand))
        if elem == "half":
            return self.k(elem, operand.value)
        return self.real(elem, float(operand.value))

    def bits_constant(self, elem: str, value: int) -> str:
        """A constant of any type by its bits."""
        if elem[0] == "2":
            integer = self.k("i32", value)
            return self.bits("i32", elem, integer)
        if elem in BITS:
            text = float_text(value & (1 << bits_of(elem)) - 1, elem)
            return f"splat ({elem} {text})" if self.vec else text
        return self.k(elem, value)

    # Special registers and symbols.

    def _special(self, name: str, vec: bool) -> tuple[str, int]:
        shape = self.shape(Special(name))
        if self.width == 1:
            shape = UNIFORM
        if name.startswith("%tid.") and shape.kind == "varying":
            axis = name[-1]
            return self.at_entry(name + "v", lambda: self._thread_vector("xyz".find(axis))), 32
        value, size = self._special_scalar(name)
        if not vec:
            return value, size
        elem = f"i{size}"
        if shape.kind == "uniform":
            return self.splat(elem, value), size
        return self._add_lanes(elem, value, shape), size

    def _special_scalar(self, name: str) -> tuple[str, int]:
        def field(record: str, offset: int, type_: str = "i32") -> str:
            key = f"{record}{offset}"
            return self.at_entry(key, lambda: self.load_field(type_, record, offset))

        stem, _, axis = name[1:].partition(".")
        number = "xyz".find(axis) if axis else 0
        if number < 0:
            return "0", 32
        match stem:
            case "tid":
                return self.at_entry(name, lambda: self._thread(number)), 32
            case "ntid":
                return str(self.kernel.block.size[number]), 32
            case "ctaid" if self.function.entry:
                return f"%block.{axis}", 32
            case "ctaid":
                return field("worker", WORKER["ctaid"] + 4 * number), 32
            case "nctaid":
                return field("launch", LAUNCH["grid"] + 4 * number), 32
            case "laneid":
                return self._lane(), 32
            case "warpid":
                return self.at_entry(name, self._warp_number), 32
            case "nwarpid":
                return str(-(-math.prod(self.kernel.block.size) // LANES)), 32
            case "gridid":
                return field("launch", LAUNCH["number"], "i64"), 64
            case "dynamic_smem_size":
                return field("launch", LAUNCH["dynamic"]), 32
            case "total_smem_size":
                return field("launch", LAUNCH["shared"]), 32
            case "clock64" | "globaltimer":
                return self._clock(), 64
            case "clock" | "globaltimer_lo":
                return self.let(f"trunc i64 {self._clock()} to i32"), 32
            case "clock_hi" | "globaltimer_hi":
                high = self.let(f"lshr i64 {self._clock()}, 32")
                return self.let(f"trunc i64 {high} to i32"), 32
            case "envreg1" | "envreg2":  # the address of the workspace of a cooperative launch
                half = LAUNCH["workspace"] + (4 if stem == "envreg1" else 0)
                return field("launch", half), 32
            case "is_explicit_cluster":
                return "false", 1
            case "nsmid" | "nclusterid" | "cluster_nctaid" | "cluster_nctarank":
                return "1", 32
        if stem.startswith("lanemask_"):
            return self._lane_mask(stem[-2:]), 32
        if stem.endswith("_64"):
            return "0", 64
        return "0", 32

    def _clock(self) -> str:
        self.declare("llvm.readcyclecounter", "i64", [])
        return self.let("call i64 @llvm.readcyclecounter()")

    def warp(self) -> str:
        """The number of this flow of control in its block."""
        if self.function.entry:
            return "%warp"
        if not self.kernel.fibres:
            return self.at_entry("warp", lambda: self.load_field("i32", "worker", WORKER["warp"]))
        return self.at_entry("warp", lambda: self._fibre_field("i32", FIBRE_WARP))

    def _fibre_field(self, type_: str, offset: int) -> str:
        fibre = self.load_field("ptr", "worker", WORKER["current"])
        return self.let(
            f"load {type_}, ptr {self.let(f'getelementptr i8, ptr {fibre}, i64 {offset}')}"
        )

    def _warp_number(self) -> str:
        warp = self.warp()
        return warp if self.width > 1 else self.let(f"lshr i32 {warp}, 5")

    def _lane(self) -> str:
        if self.width > 1:
            return "0"
        warp = self.warp()
        return self.at_entry("%laneid", lambda: self.let(f"and i32 {warp}, 31"))

    def _lane_mask(self, which: str) -> str:
        if self.width > 1:
            return "0"
        lane = self._lane()
        bit = self.let(f"shl i32 1, {lane}")
        below = self.let(f"sub i32 {bit}, 1")
        match which:
            case "eq":
                return bit
            case "lt":
                return below
            case "le":
                return self.let(f"or i32 {bit}, {below}")
            case "ge":
                return self.let(f"xor i32 {below}, -1")
        up_to = self.let(f"or i32 {bit}, {below}")
        return self.let(f"xor i32 {up_to}, -1")

    def _thread(self, axis: int) -> str:
        """The scalar part of %tid."""
        warp = self.warp()
        block = self.kernel.block
        if self.width > 1 and block.zeros[axis] >= _MANY:
            return "0"
        first = warp if self.width == 1 else self.let(f"shl i32 {warp}, 5")
        if axis == 0 and self.width > 1 and block.zeros[1] >= _MANY:
            return first  # a block of one dimension
        sizes = self.kernel.block.size
        if axis == 0:
            return self.let(f"urem i32 {first}, {sizes[0]}")
        rows = self.let(f"udiv i32 {first}, {sizes[0]}")
        if axis == 1:
            return self.let(f"urem i32 {rows}, {sizes[1]}")
        return self.let(f"udiv i32 {rows}, {sizes[1]}")

    def _thread_vector(self, axis: int) -> str:
        """%tid of a block whose lanes follow no pattern."""
        type_ = self.t("i32", True)
        first = self.let(f"shl i32 {self.warp()}, 5")
        numbers = self.lanes("i32", tuple(range(LANES)))
        linear = self.let(f"add {type_} {self.splat('i32', first)}, {numbers}")
        sizes = [f"splat (i32 {n})" for n in self.kernel.block.size]
        if axis == 0:
            return self.let(f"urem {type_} {linear}, {sizes[0]}")
        rows = self.let(f"udiv {type_} {linear}, {sizes[0]}")
        return self.let(f"{'urem' if axis == 1 else 'udiv'} {type_} {rows}, {sizes[1]}")

    def frame(self) -> str:
        """This function's place in the local memory of each lane."""
        if self.function.entry:
            return "0"
        return "%frame"

    def symbol_value(self, symbol: Symbol) -> str:
        """The address of a symbol in its own space: a scalar of 64 bits."""
        name, offset = symbol.name, symbol.offset
        variable = self.variable(name)
        if variable is None:
            handle = self.kernel.layout.handles.get(name)
            if handle is None:
                self.fail(f"{name!r} has no address")
            return str(handle + offset)
        match variable.space:
            case "shared":
                return str(self.kernel.shared_offset(variable) + offset)
            case "local":
                place = self.kernel.local_offset(self.function, variable) + offset
                frame = self.frame()
                return str(place) if frame == "0" else self.let(f"add i64 {frame}, {place}")
            case "param":
                if self.function.entry and name in self.kernel.parameter_offsets:
                    return str(self.kernel.parameter_offsets[name] + offset)
                self.fail("the address of a parameter of a device function is not supported")
            case _:
                found = self.kernel.layout.offsets.get(name)
                if found is None:
                    self.fail(f"variable {name!r} is declared but not defined")
                return self.let(f"add i64 {self.module_memory()}, {found + offset}")
        return None

    def variable(self, name: str) -> Variable | None:
        """What a name stands for in this function."""
        found = self.function.variables.get(name)
        if found is not None:
            return found
        for parameter in (*self.function.parameters, *self.function.returns):
            if parameter.name == name:
                return parameter
        return self.kernel.module.variables.get(name)

    def module_memory(self) -> str:
        """Address of the module's variables."""
        return self.at_entry("memory", lambda: self.load_field("i64", "launch", LAUNCH["memory"]))

    def shared_base(self) -> str:
        """Address of the shared window, as a number."""
        return self.at_entry("shared", lambda: self.load_field("i64", "worker", WORKER["shared"]))

    def shared_pointer(self) -> str:
        """Address of the shared window, as a pointer."""
        return self.at_entry("shared.p", lambda: self.load_field("ptr", "worker", WORKER["shared"]))

    def local_base(self) -> str:
        """Address of this warp's local memory, as a number."""
        return self.at_entry("local", lambda: self._local_field("i64"))

    def local_pointer(self) -> str:
        """Address of this warp's local memory, as a pointer."""
        if self.kernel.array_element:
            return self._arrays()
        return self.at_entry("local.p", lambda: self._local_field("ptr"))

    def _arrays(self) -> str:
        """Memory of local arrays: of the frame, or kept over barriers."""
        nbytes = self.kernel.local * LANES
        if self.rounds is not None:
            place = self.record.reserve(nbytes)
            return self.at_entry("arrays", lambda: self._kept_pointer("kept", place))
        if self._frame_arrays is None:
            self._frame_arrays = self.alloca(f"[{nbytes} x i8]", "arrays")
        return self._frame_arrays

    def _local_field(self, type_: str) -> str:
        if self.kernel.fibres:
            return self._fibre_field(type_, FIBRE_LOCAL)
        return self.load_field(type_, "worker", WORKER["local"])

    def parameter_pointer(self) -> str:
        """The kernel's parameters."""
        return self.at_entry(
            "parameters", lambda: self.load_field("ptr", "launch", LAUNCH["parameters"])
        )

    def parameter_slot(self, name: str) -> str | None:
        """Memory of a device function's parameter, or of a call's."""
        found = self._parameters.get(name)
        if found is None:
            variable = self.function.variables.get(name)
            if variable is None or variable.space != "param":
                return None
            nbytes = max(variable.nbytes, 1) * self.width
            found = self._parameters[name] = self.alloca(f"[{nbytes} x i8]", "p")
        return found

    # Results.

    def define(
        self,
        register: Operand,
        elem: str,
        value: str,
        vec: bool | None = None,
        signed: bool = False,
    ) -> None:
        """Write a register; narrower values are extended, wider ones cut."""
        if isinstance(register, Constant) and register.kind == "sink":
            return
        if not isinstance(register, Register):
            self.fail("a result must be a register")
        vec = self.vec if vec is None else vec
        kept = storage(register)
        before, self.vec = self.vec, vec
        if elem != kept:
            if "i1" in (elem, kept):
                self.fail("a predicate register and a number do not mix")
            if elem in _NAN and self.instruction and _is_arithmetic(self.instruction):
                value = self.canonical(elem, value)
            integer = self.bits(elem, integer_of(elem), value)
            sized = self.resize(integer_of(elem), integer_of(kept), integer, signed)
            value = self.bits(integer_of(kept), kept, sized)
        self.vec = before
        shape = self.shapes.of(register)
        if shape.kind in ("wide", "indexed"):
            raise AssertionError(f"{register.name} is {shape.kind}, its definition is not")
        if shape.kind != "varying":
            if vec:
                raise AssertionError(f"{register.name} is a scalar, its definition is not")
            self._store(register, (kept,), (value,))
            return
        if not vec:
            value = self.splat(kept, value)
        vector = self.t(kept, True)
        lanes = None
        if self.shapes.keeps(self.block.index, register):
            lanes = self.active()
        elif self.guard is not None:
            lanes = self.guard
        if lanes is not None:
            (old,) = self._stored(register)
            type_ = self.t("i1", True)
            value = self.let(f"select {type_} {lanes}, {vector} {value}, {vector} {old}")
        self._store(register, (vector,), (value,))

    def define_wide(self, register: Register, base32: str, base64: str) -> None:
        """Write a wide or indexed register."""
        narrow = self.t("i32", self.shapes.of(register).kind == "indexed")
        self._store(register, (narrow, "i64"), (base32, base64))

    def _store(self, register: Register, types: tuple[str, ...], values: tuple[str, ...]) -> None:
        for type_, value, slot in zip(types, values, self._slot(register)):
            self.line(f"store {type_} {value}, ptr {slot}")
        self._cache[register] = values
        self._vectors.pop(register, None)


def _is_arithmetic(instruction: Instruction) -> bool:
    """Whether results that are no numbers are the one NaN; some conversions keep its bits."""
    if instruction.opcode == "cvt":
        return instruction.types[1:] not in (("f64",), ("bf16",))
    return instruction.opcode in _ARITHMETIC


def _is_constant(instruction: Instruction) -> bool:
    return instruction.opcode == "mov" and isinstance(instruction.operands[1], Immediate)


def _real(operand: Immediate) -> float:
    import struct

    code, size = ("<f", 4) if operand.bits == 32 else ("<d", 8)
    value: float = struct.unpack(code, operand.value.to_bytes(size, "little"))[0]
    return value
