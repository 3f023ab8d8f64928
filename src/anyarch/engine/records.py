"""Records of the native interpreter: what a handler reads, and how the builder fills it.

A record is ``{handler pointer, u16 pc offset, slots…}``. Whatever in a graph depends only on the
instruction word and its address is computed once by the builder and read from a slot; the rest is
the handler. Forms with equal handlers share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from anyarch.emit import floateffects, floats
from anyarch.emit.llvm import Emitter
from anyarch.engine.arena import PAGE_CODE, TABLE_BITS, TRANSLATOR
from anyarch.errors import DefinitionError
from anyarch.host.context import FIELDS, REGISTERS, ExitCode
from anyarch.ir.graph import FLOATS, Effect, Graph, Node
from anyarch.ir.ranges import signed_range
from anyarch.isa.architecture import Architecture
from anyarch.isa.encoding import Row
from anyarch.isa.registers import Layout

_BASE_NBYTES: Final = 112  # of stack between its top and handlers that no region has called
HEADER: Final = 10  # handler pointer, pc offset
LINK_NBYTES: Final = 24  # record pointer, resolver's handler pointer, target pc
SIGNATURE: Final = "(ptr noalias %context, ptr %record, ptr %memory)"

# Ends with pc at the instruction; the others leave past it.
EXIT_CODES: Final = {
    "illegal": ExitCode.ILLEGAL,
    "breakpoint": ExitCode.BREAKPOINT,
    "code_changed": ExitCode.CODE_CHANGED,
    "halt": ExitCode.HALT,
}
LEAVING_AFTER: Final = frozenset({"code_changed", "halt"})


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a record. ``kind``: value, read, write (register offsets) or link."""

    kind: str
    node: Node
    file: str
    offset: int
    nbytes: int


@dataclass(slots=True)
class RecordLayout:
    """The slots of one form, by what they hold."""

    slots: dict[tuple[str, str, int], Slot] = field(default_factory=dict)
    nbytes: int = 0

    def slot(self, kind: str, node: Node, file: str = "") -> Slot:
        """The slot for a node."""
        return self.slots[kind, file, node.number]

    @property
    def reads(self) -> list[int]:
        """Offsets of the slots that say which register is read, ascending."""
        return sorted(slot.offset for slot in self.slots.values() if slot.kind == "read")

    @property
    def write(self) -> int:
        """Offset of the slot that says which register is written; 0 where not exactly one is."""
        writes = [slot.offset for slot in self.slots.values() if slot.kind == "write"]
        return writes[0] if len(writes) == 1 else 0


def record_constants(graph: Graph) -> set[int]:
    """Numbers of the nodes that depend only on the instruction word and its address.

    Slots hold 64 bits: wider ones are made of narrower ones by the handler.
    """
    result: set[int] = set()
    for node in graph.live():
        if node.op in ("const", "field", "pc") or (
            node.op not in ("register", *FLOATS)
            and node.args
            and 0 < node.size <= 64
            and not any(node is effect.node for effect in graph.effects)
            and all(arg.number in result for arg in node.args)
        ):
            result.add(node.number)
    return result


def lay_out(graph: Graph, constants: set[int], nbytes: int) -> RecordLayout:
    """Assign slots: two-byte ones first, then four, then eight, links last."""
    wanted: dict[tuple[str, str, int], tuple[Node, int]] = {}

    def want(kind: str, node: Node, file: str, size: int) -> None:
        wanted.setdefault((kind, file, node.number), (node, size))

    def use(node: Node) -> None:
        if node.op == "const":
            return
        if node.number in constants:
            low, high = signed_range(node)
            size = next(
                n
                for n in (2, 4, 8)
                if n == 8 or (-(1 << 8 * n - 1) <= low and high < 1 << 8 * n - 1)
            )
            want("value", node, "", size)

    visited: set[int] = set()

    def visit(node: Node) -> None:
        if node.number in visited:
            return
        visited.add(node.number)
        if node.number in constants:
            use(node)
        elif node.op == "register":
            (index,) = node.args
            if index.op != "const":
                if index.number not in constants:
                    raise DefinitionError(f"{graph.name}: a register number is computed")
                want("read", index, str(node.attrs[0]), 2)
        else:
            for arg in node.args:
                visit(arg)

    needs_next = False
    for effect in graph.effects:
        node = effect.node
        if effect.guard is not None:
            visit(effect.guard)
        if node.op == "write":
            index, value = node.args
            if index.op != "const":
                want("write", index, str(node.attrs[0]), 2)
            visit(value)
        elif node.op == "jump" and node.args[0].number in constants:
            want("link", node.args[0], "", LINK_NBYTES)
        else:
            for arg in node.args:
                visit(arg)
        needs_next |= node.op == "syscall" or node.attrs[:1] in {(n,) for n in LEAVING_AFTER}
    if needs_next:
        next_pc = graph.pure("add", 64, (graph.pc(), graph.const(nbytes, 64)))
        want("value", next_pc, "next", 8)
    layout = RecordLayout()
    offset = HEADER
    for nbytes_wanted in (2, 4, 8, LINK_NBYTES):
        for key, (node, size) in wanted.items():
            if size == nbytes_wanted:
                align = min(size, 8)
                offset = (offset + align - 1) // align * align
                layout.slots[key] = Slot(key[0], node, key[1], offset, size)
                offset += size
    layout.nbytes = (offset + 7) // 8 * 8
    return layout


def field_offset(name: str) -> int:
    """Byte offset of a context field."""
    return FIELDS[name][0]


class HandlerEmitter(Emitter):
    """The body of a handler: reads slots, performs effects, commits, goes on."""

    polled = "i64"  # the context's fields `stop` and `notes`

    def __init__(
        self,
        graph: Graph,
        layout: RecordLayout,
        constants: set[int],
        architecture: Architecture,
        *,
        bounded: bool,
        record: str = "%record",
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.graph, self.layout, self.constants = graph, layout, constants
        self.architecture = architecture
        self.registers, self.bounded, self.record = architecture.layout, bounded, record
        self.status = architecture.float_status
        if self.status is not None:
            self.float_rules = self.status.rules
        self.prefix = prefix
        self.linked: dict[int, str] = {}  # read slot's offset: the value that was just written
        self._record_stored = False

    def name(self, hint: str = "v") -> str:
        return self.prefix + super().name(hint)

    # Addresses.
    def context(self, offset: int | str) -> str:
        """Operand with the type of a pointer to a context byte."""
        return "ptr " + self.let(f"getelementptr i8, ptr %context, i64 {offset}")

    def _slot(self, slot: Slot) -> str:
        pointer = self.let(f"getelementptr i8, ptr {self.record}, i64 {slot.offset}")
        bits = slot.nbytes * 8
        return self.let(f"load i{bits}, ptr {pointer}, align {slot.nbytes}, !invariant.load !1")

    def _register(self, kind: str, file: str, index: Node) -> str:
        if index.op == "const":
            declared = self.registers.by_name[file]
            if index.value == declared.zero:
                return self.context(field_offset("zero" if kind == "read" else "scratch"))
            return self.context(REGISTERS + self.registers.offset(file, index.value))
        return self.place(self.layout.slot(kind, index, file))

    def place(self, slot: Slot) -> str:
        """Operand of the register that a slot says."""
        return self.context(self.let(f"zext i16 {self._slot(slot)} to i64"))

    def constant(self, slot: Slot, size: int) -> str:
        """The value in a slot, as ``size`` bits."""
        loaded = self._slot(slot)
        bits = slot.nbytes * 8
        if bits < size:
            return self.let(f"sext i{bits} {loaded} to i{size}")
        return self.let(f"trunc i{bits} {loaded} to i{size}") if bits > size else loaded

    def leaf(self, node: Node) -> str:
        if node.op == "register":
            (index,) = node.args
            if index.op != "const":
                offset = self.layout.slot("read", index, str(node.attrs[0])).offset
                if offset in self.linked:
                    return self.linked[offset]
            pointer = self._register("read", str(node.attrs[0]), index)
            return self.load_register(str(node.attrs[0]), pointer, node.size)
        return super().leaf(node)

    def load_register(self, file: str, pointer: str, size: int) -> str:
        """The register of a file at a place in the context."""
        return self.let(f"load i{size}, {pointer}, align {min(size // 8, 8)}")

    def value(self, node: Node) -> str:
        if node.number in self.constants and node.op != "const":
            for known in reversed(self._known):
                if node.number in known:
                    return known[node.number]
            loaded = self.constant(self.layout.slot("value", node), node.size)
            self.bind(node, loaded)
            return loaded
        return super().value(node)

    # Leaving.
    def store_field(self, name: str, value: str) -> None:
        """Store a context field."""
        nbytes = FIELDS[name][1]
        pointer = self.context(field_offset(name))
        kind = "ptr" if value == self.record else f"i{nbytes * 8}"
        self.line(f"store volatile {kind} {value}, {pointer}, align {nbytes}")

    def leave(self, code: ExitCode) -> None:
        """Return to Python with pc at this instruction."""
        self.store_field("record", self.record)
        self.end(code)

    def end(self, code: ExitCode) -> None:
        """Return to Python; the context says where the guest is."""
        self.line(f"ret i32 {int(code)}")

    def leave_if(self, condition: str, code: ExitCode) -> None:
        """Return to Python where an unlikely condition holds."""
        leaving, staying = self.name("leave"), self.name("stay")
        self.branch(condition, leaving, staying, unlikely=True)
        self.label(leaving)
        self.leave(code)
        self.label(staying)

    def emulate_if(self, condition: str) -> None:
        self.leave_if(condition, ExitCode.EMULATE)

    def stop_poll(self, target: str) -> None:
        """Leave with pc at ``target`` when a stop was asked for."""
        self._poll(lambda: target)

    def _poll(self, target: Callable[[], str]) -> None:
        """Leave when a stop was asked for; ``target`` emits the pc on that path."""
        stopping, going = self.name("stop"), self.name("go")
        pointer = self.context(field_offset("stop"))
        flag = self.let(f"load volatile {self.polled}, {pointer}, align 4")
        asked = self.let(f"icmp ne {self.polled} {flag}, 0")
        self.branch(asked, stopping, going, unlikely=True)
        self.label(stopping)
        self.store_field("pc", target())
        self.answer()
        self.label(going)

    def answer(self) -> None:
        """A poll has found that something is wanted; the pc is in the context."""
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 @aa_answer"
            f"(ptr noalias %context, ptr {self.record}, ptr %memory)"
        )
        self.line(f"ret i32 {result}")

    def dispatch(self, record: str) -> None:
        """Tail-call the handler of a record."""
        handler = self.let(f"load ptr, ptr {record}, align 8")
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 {handler}"
            f"(ptr noalias %context, ptr {record}, ptr %memory)"
        )
        self.line(f"ret i32 {result}")

    # Effects.
    def effects(self) -> None:
        """Everything up to and including the commit of registers."""
        if uses_rounding(self.graph, self.float_rules):
            self.check_rounding()
        if any(effect.node.op == "set_rounding" for effect in self.graph.effects):
            # It writes a register at once: what reads that one has to come before.
            for node in self.graph.live():
                if (
                    node.op == "register"
                    and self.status
                    and node.attrs[0] == self.status.rounding[0]
                ):
                    self.value(node)
        for effect in self.graph.effects:
            if effect.node.op not in ("write", "jump", "syscall") and not leaves_after(effect):
                self._guarded(effect, self._perform)
        self._commit()

    def check_rounding(self) -> None:
        """Leave to the reference engine where the guest's rounding mode is not the host's."""
        mode = self.let(f"load i32, {self._rounding_mode()}, align 8")
        self.leave_if(self.let(f"icmp ugt i32 {mode}, 3"), ExitCode.EMULATE)

    def _guarded(self, effect: Effect, action: object) -> None:
        node = effect.node
        assert callable(action)
        if effect.guard is None:
            result = action(node)
            if node.size:
                self.bind(node, result)
            return
        condition = self.value(effect.guard)
        doing, done = self.name("do"), self.name("done")
        before = self.block
        self.branch(condition, doing, done)
        self.label(doing)
        self.push()
        result = action(node)
        self.pop()
        after = self.block
        leaves = node.op in ("exception", "exit")
        if not leaves:
            self.line(f"br label %{done}")
        self.label(done)
        if node.size:
            phi = f"phi i{node.size} [ {result}, %{after} ], [ 0, %{before} ]"
            self.bind(node, self.let(phi))

    def _perform(self, node: Node) -> str:
        if node.op in FLOATS:
            return floateffects.emit(self, node)
        method = getattr(self, f"_{node.op}")
        result = method(node)
        return "" if result is None else str(result)

    def _address(self, node: Node, nbytes: int) -> str:
        """Operand of a guest access: a typed pointer. First what the fault handler has to know."""
        self.announce()
        address = self.value(node)
        if self.bounded:
            limit = self.let(f"load i64, {self.context(field_offset('memory_limit'))}, align 8")
            last = self.let(f"sub i64 {limit}, {nbytes}")
            outside = self.let(f"icmp ugt i64 {address}, {last}")
            leaving, staying = self.name("outside"), self.name("inside")
            self.branch(outside, leaving, staying, unlikely=True)
            self.label(leaving)
            # Of an access across the limit, the first byte outside is to blame.
            across = self.let(f"icmp ult i64 {address}, {limit}")
            bad = self.let(f"select i1 {across}, i64 {limit}, i64 {address}")
            self.store_field("fault_address", bad)
            self.store_field("fault_signal", "11")
            self.store_field("fault_code", "1")
            self.leave(ExitCode.FAULT)
            self.label(staying)
        return self.memory(address)

    def announce(self) -> None:
        """Tell the fault handler which record is running."""
        if not self._record_stored:
            self.store_field("record", self.record)
            # Inside a guarded block the store does not cover what follows.
            self._record_stored = len(self._known) == 1

    def memory(self, address: str) -> str:
        """Typed pointer to a guest address."""
        return "ptr " + self.let(f"getelementptr i8, ptr %memory, i64 {address}")

    def access(self, text: str) -> str:
        """An instruction that may fault, completed with what leads from there to the guest's pc."""
        return text

    def _load(self, node: Node) -> str:
        pointer = self._address(node.args[0], node.size // 8)
        kind = memory_type(node.size)
        result = self.let(self.access(f"load volatile {kind}, {pointer}, align 1"))
        if node.size == 128:
            result = self.let(f"bitcast {kind} {result} to i128")
        if node.attrs[0] != "plain":
            self.line("fence acquire" if node.attrs[0] == "acquire" else "fence seq_cst")
        return result

    def _store(self, node: Node) -> None:
        value = self.value(node.args[1])
        size = node.args[1].size
        pointer = self._address(node.args[0], size // 8)
        if node.attrs[0] != "plain":
            self.line("fence release")
        kind = memory_type(size)
        if size == 128:
            value = self.let(f"bitcast i128 {value} to {kind}")
        self.line(self.access(f"store volatile {kind} {value}, {pointer}, align 1"))
        if node.attrs[0] == "seq":
            self.line("fence seq_cst")

    def _amo(self, node: Node) -> str:
        value, size = self.value(node.args[1]), node.size
        pointer = self._address(node.args[0], size // 8)
        return self.let(
            self.access(
                f"atomicrmw volatile {node.attrs[0]} {pointer}, i{size} {value} seq_cst, "
                f"align {size // 8}"
            )
        )

    def _exchange(self, pointer: str, expected: str, new: str, size: int) -> tuple[str, str]:
        pair = self.let(
            self.access(
                f"cmpxchg volatile {pointer}, i{size} {expected}, i{size} {new} seq_cst seq_cst, "
                f"align {size // 8}"
            )
        )
        kind = f"{{ i{size}, i1 }}"
        return (
            self.let(f"extractvalue {kind} {pair}, 0"),
            self.let(f"extractvalue {kind} {pair}, 1"),
        )

    def _compare_exchange(self, node: Node) -> str:
        address, expected, new = node.args
        old, changed = self.value(expected), self.value(new)
        pointer = self._address(address, node.size // 8)
        return self._exchange(pointer, old, changed, node.size)[0]

    def _load_reserved(self, node: Node) -> str:
        pointer = self._address(node.args[0], node.size // 8)
        result = self.let(self.access(f"load volatile i{node.size}, {pointer}, align 1"))
        self.line("fence acquire")
        self.store_field("reservation_address", self.value(node.args[0]))
        if node.size < 128:
            wide = self.let(f"zext i{node.size} {result} to i128")
        else:
            wide = result
        self.store_field("reservation_value", wide)
        return result

    def _store_conditional(self, node: Node) -> str:
        """Compare with the reserved value: other threads' stores of the same value are missed,
        as in every emulator that has no page locks."""
        address, new = node.args
        size = new.size
        t = f"i{size}"
        changed = self.value(new)
        where = self.value(address)
        held_at = self.context(field_offset("reservation_address"))
        held = self.let(f"load i64, {held_at}, align 8")
        mine = self.let(f"icmp eq i64 {held}, {where}")
        trying, failed, done = self.name("try"), self.name("failed"), self.name("done")
        self.branch(mine, trying, failed)
        self.label(trying)
        self.push()
        value_at = self.context(field_offset("reservation_value"))
        expected = self.let(f"load {t}, {value_at}, align 8")
        pointer = self._address(address, size // 8)
        stored = self._exchange(pointer, expected, changed, size)[1]
        self.pop()
        after = self.block
        self.line(f"br label %{done}")
        self.label(failed)
        self.line(f"br label %{done}")
        self.label(done)
        result = self.let(f"phi i1 [ {stored}, %{after} ], [ 0, %{failed} ]")
        self.store_field("reservation_address", "-1")
        return result

    def _clear_reservation(self, node: Node) -> None:
        self.store_field("reservation_address", "-1")

    def _fence(self, node: Node) -> None:
        self.line(f"fence {node.attrs[0]}")

    def _exception(self, node: Node) -> None:
        self.store_field("fault_address", self.value(node.args[0]))
        self.store_field("exit_detail", str(node.attrs[0]))
        self.leave(ExitCode.EXCEPTION)

    def _exit(self, node: Node) -> None:
        self.leave(EXIT_CODES[str(node.attrs[0])])

    def _announce_code(self, node: Node) -> None:
        """Lines are gathered: programs announce many, one after another."""
        (address,), nbytes = node.args, int(node.attrs[0])
        start = self.value(address)
        end = self.let(f"add i64 {start}, {nbytes}")
        state = self.let(f"load ptr, {self.context(field_offset('translator'))}, align 8")
        place = 8 * TRANSLATOR.index("page_flags")
        pointer = self.let(f"getelementptr i8, ptr {state}, i64 {place}")
        flags = self.let(f"load ptr, ptr {pointer}, align 8")
        page = self.let(f"lshr i64 {start}, 12")
        flag = self.let(
            f"load volatile i8, ptr {self.let(f'getelementptr i8, ptr {flags}, i64 {page}')}"
        )
        known = self.let(f"icmp ne i8 {self.let(f'and i8 {flag}, {PAGE_CODE}')}, 0")
        first, last = (self.context(field_offset(f"changed_{name}")) for name in ("start", "end"))
        low, high = (self.let(f"load i64, {place}, align 8") for place in (first, last))
        none = self.let(f"icmp eq i64 {high}, 0")
        lower = self.let(f"call i64 @llvm.umin.i64(i64 {low}, i64 {start})")
        lower = self.let(f"select i1 {none}, i64 {start}, i64 {lower}")
        higher = self.let(f"call i64 @llvm.umax.i64(i64 {high}, i64 {end})")
        for pointer, old, new in ((first, low, lower), (last, high, higher)):
            value = self.let(f"select i1 {known}, i64 {new}, i64 {old}")
            self.line(f"store i64 {value}, {pointer}, align 8")

    def _code_announced(self, node: Node) -> str:
        end = self.let(f"load i64, {self.context(field_offset('changed_end'))}, align 8")
        return self.let(f"icmp ne i64 {end}, 0")

    def _flags(self, node: Node) -> str:
        return floats.read_flags(self)

    def _set_flags(self, node: Node) -> None:
        floats.write_flags(self, self.value(node.args[0]))

    def _set_rounding(self, node: Node) -> None:
        (mode,) = node.args
        wide = self.let(f"zext i{mode.size} {self.value(mode)} to i32")
        self.line(f"store i32 {wide}, {self._rounding_mode()}, align 8")
        floats.set_control(self, wide)

    def _rounding_mode(self) -> str:
        """Pointer to the guest's rounding mode, in the register that holds it."""
        assert self.status is not None
        return self.context(REGISTERS + self.registers.offset(*self.status.rounding))

    def _commit(self) -> None:
        """Register writes, after all their values are known: reads saw the entry state."""
        later = [effect for effect in self.graph.effects if effect.node.op in ("write", "jump")]
        for effect in self.graph.effects:
            if leaves_after(effect) and effect.guard is not None:
                self.value(effect.guard)
        for effect in later:
            if effect.guard is not None:
                self.value(effect.guard)
            value = effect.node.args[-1]
            is_link = effect.node.op == "jump" and value.number in self.constants
            if not is_link:
                self.value(value)
        for effect in later:
            if effect.node.op == "write":
                self._guarded(effect, self._write)

    def _write(self, node: Node) -> None:
        index, value = node.args
        pointer = self._register("write", str(node.attrs[0]), index)
        align = min(value.size // 8, 8)
        self.line(f"store i{value.size} {self.value(value)}, {pointer}, align {align}")

    def written(self) -> str | None:
        """The value that :attr:`RecordLayout.write` stores, where that is unconditional."""
        for effect in self.graph.effects:
            if effect.node.op == "write" and effect.node.args[0].op != "const":
                return self.value(effect.node.args[1]) if effect.guard is None else None
        return None

    # Continuations.
    def jumps(self) -> bool:
        """Taken jumps; whether control can still fall through to the next record."""
        for effect in reversed([e for e in self.graph.effects if e.node.op == "jump"]):
            (target,) = effect.node.args
            if effect.guard is None:
                self._jump(target)
                return False
            taken, fall = self.name("taken"), self.name("fall")
            self.branch(self.value(effect.guard), taken, fall)
            self.label(taken)
            self.push()
            self._jump(target)
            self.pop()
            self.label(fall)
        return True

    def _jump(self, target: Node) -> None:
        if target.number in self.constants and target.op != "const":
            offset = self.layout.slot("link", target).offset
            self.follow_link(offset)
            return
        pc = self.value(target)
        returning = self._returns(target)
        if returning is not None:
            # A region that called may be waiting for it; at the base nobody is.
            stack = self.let("call i64 @llvm.read_register.i64(metadata !3)")
            top = self.let(f"load i64, {self.context(field_offset('own_stack'))}, align 8")
            near = self.let(f"sub i64 {top}, {_BASE_NBYTES}")
            nested = self.let(f"icmp ult i64 {stack}, {near}")
            both = self.let(f"and i1 {nested}, {returning}")
            back, on = self.name("back"), self.name("on")
            self.branch(both, back, on)
            self.label(back)
            self.store_field("pc", pc)
            self.line("ret i32 0")
            self.label(on)
        self.stop_poll(pc)
        self.find(pc)

    def _returns(self, target: Node) -> str | None:
        """Whether a computed jump is a return, as far as the record tells; None: it is not."""
        read = [node for node in _below(target) if node.op == "register"]
        written = [effect.node for effect in self.graph.effects if effect.node.op == "write"]
        if len(read) != 1 or len(written) > 1:
            return None
        file, index = str(read[0].attrs[0]), read[0].args[0]
        places = [place for place in self.architecture.return_registers if place[0] == file]
        if index.op == "const":
            return "true" if (file, index.value) in places and not written else None
        offset = self._slot(self.layout.slot("read", index, file))
        result = "false"
        for place in places:
            wanted = REGISTERS + self.registers.offset(*place)
            result = self.let(f"or i1 {result}, {self.let(f'icmp eq i16 {offset}, {wanted}')}")
        if written:  # a call, unless it keeps no address
            index = written[0].args[0]
            if index.op == "const":
                return None
            kept = self._slot(self.layout.slot("write", index, str(written[0].attrs[0])))
            plain = self.let(f"icmp eq i16 {kept}, {field_offset('scratch')}")
            result = self.let(f"and i1 {result}, {plain}")
        return result

    def follow_link(self, offset: int) -> None:
        """Poll, then go to the record that a link points to."""
        link = self.let(f"getelementptr i8, ptr {self.record}, i64 {offset}")
        target = self.let(f"getelementptr i8, ptr {link}, i64 16")
        self._poll(lambda: self.let(f"load i64, ptr {target}, align 8"))
        self.dispatch(self.let(f"load ptr, ptr {link}, align 8"))

    def find(self, pc: str) -> None:
        """Go to the block at ``pc``: first entry of the table inline, else the slow path."""
        table = self.let(f"load ptr, {self.context(field_offset('jump_cache'))}, align 8")
        shifted = self.let(f"lshr i64 {pc}, 2")
        index = self.let(f"and i64 {shifted}, {(1 << TABLE_BITS) - 1}")
        offset = self.let(f"shl i64 {index}, 4")
        entry = self.let(f"getelementptr i8, ptr {table}, i64 {offset}")
        known = self.let(f"load i64, ptr {entry}, align 8")
        same = self.let(f"icmp eq i64 {known}, {self.let(f'add i64 {pc}, 1')}")
        hit, miss = self.name("hit"), self.name("miss")
        self.line(f"br i1 {same}, label %{hit}, label %{miss}, !prof !2")
        self.label(hit)
        at = self.let(f"getelementptr i8, ptr {entry}, i64 8")
        self.dispatch(self.let(f"load ptr, ptr {at}, align 8"))
        self.label(miss)
        self.store_field("pc", pc)
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 @aa_run(ptr noalias %context, ptr %record, ptr %memory)"
        )
        self.line(f"ret i32 {result}")

    def finish(self) -> bool:
        """System calls and exits that come after the commit; whether control goes on."""
        for effect in self.graph.effects:
            node = effect.node
            if node.op == "syscall":
                self._syscall()
            elif leaves_after(effect):
                going = self.name("go")
                if effect.guard is not None:
                    leaving = self.name("leave")
                    self.branch(self.value(effect.guard), leaving, going, unlikely=True)
                    self.label(leaving)
                self.store_field("pc", self._next_pc())
                self.end(EXIT_CODES[str(node.attrs[0])])
                if effect.guard is None:
                    return False
                self.label(going)
        return True

    def _next_pc(self) -> str:
        slot = next(s for (kind, file, _), s in self.layout.slots.items() if file == "next")
        return self._slot(slot)

    def _syscall(self) -> None:
        thunk = self.let(f"load ptr, {self.context(field_offset('syscall_thunk'))}, align 8")
        self.store_field("record", self.record)  # the thunk may fault on an argument
        next_pc = self._next_pc()
        self.store_field("pc", next_pc)
        result = self.let(f"call i32 {thunk}(ptr %context, ptr %memory)")
        unserved = self.let(f"icmp ne i32 {result}, 0")
        leaving, staying = self.name("leave"), self.name("stay")
        self.branch(unserved, leaving, staying, unlikely=True)
        self.label(leaving)
        self.end(ExitCode.SYSCALL)
        self.label(staying)
        self.stop_poll(next_pc)


def _below(node: Node) -> Iterable[Node]:
    """A node and all that it is made of."""
    found: dict[int, Node] = {}
    work = [node]
    while work:
        node = work.pop()
        if node.number not in found:
            found[node.number] = node
            work.extend(node.args)
    return found.values()


def leaves_after(effect: Effect) -> bool:
    """Whether it is an exit that the instruction completes before."""
    return effect.node.op == "exit" and effect.node.attrs[0] in LEAVING_AFTER


def memory_type(size: int) -> str:
    """How a value is loaded and stored: 128 bits at once, not as two halves in any order."""
    return "<2 x i64>" if size == 128 else f"i{size}"


def uses_rounding(graph: Graph, rules: str) -> bool:
    """Whether the meaning depends on the guest's dynamic rounding mode."""
    return any(
        effect.node.op in FLOATS and floats.uses_mode(effect.node, rules)
        for effect in graph.effects
    )


def runs_in_reference(graph: Graph) -> bool:
    """Whether the handler hands the instruction to the reference engine."""
    return any(
        effect.node.op == "counter"
        or (effect.node.op in FLOATS and not floateffects.is_native(effect.node))
        for effect in graph.effects
    )


class BuilderEmitter(Emitter):
    """Fills a record's slots from the instruction word and its address."""

    def __init__(self, row: Row, layout: RecordLayout, registers: Layout) -> None:
        super().__init__()
        self.row, self.layout, self.registers = row, layout, registers

    def leaf(self, node: Node) -> str:
        if node.op == "pc":
            return "%pc"
        if node.op != "field":
            return super().leaf(node)
        name = str(node.attrs[0])
        t = f"i{max(node.size, 64)}"
        parts = []
        for piece in self.row.fields[name]:
            shifted = self.let(f"lshr i64 %word, {piece.at}") if piece.at else "%word"
            part = self.let(f"and i64 {shifted}, {(1 << piece.size) - 1}")
            parts.append(self.let(f"shl i64 {part}, {piece.to}") if piece.to else part)
        total = parts[0]
        for part in parts[1:]:
            total = self.let(f"or {t} {total}, {part}")
        return total if node.size == 64 else self.let(f"trunc i64 {total} to i{node.size}")

    def slots(self) -> None:
        """Store every slot."""
        for slot in self.layout.slots.values():
            pointer = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset}")
            match slot.kind:
                case "link":
                    resolver = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset + 8}")
                    self.line(f"store ptr {resolver}, ptr {pointer}, align 8")
                    self.line(f"store ptr @aa_resolve, ptr {resolver}, align 8")
                    pc = self.let(f"getelementptr i8, ptr %record, i64 {slot.offset + 16}")
                    self.line(f"store i64 {self.value(slot.node)}, ptr {pc}, align 8")
                case "value":
                    self._store_value(slot, pointer)
                case _:
                    self._store_register(slot, pointer)

    def _store_value(self, slot: Slot, pointer: str) -> None:
        bits, size = slot.nbytes * 8, slot.node.size
        value = self.value(slot.node)
        if size < bits:
            value = self.let(f"sext i{size} {value} to i{bits}")
        elif size > bits:
            value = self.let(f"trunc i{size} {value} to i{bits}")
        self.line(f"store i{bits} {value}, ptr {pointer}, align {slot.nbytes}")

    def _store_register(self, slot: Slot, pointer: str) -> None:
        declared = self.registers.by_name[slot.file]
        size = slot.node.size
        index = self.value(slot.node)
        if size > 16:
            raise DefinitionError(f"register number of {size} bits")
        wide = self.let(f"zext i{size} {index} to i16") if size < 16 else index
        scaled = self.let(f"mul i16 {wide}, {declared.stride}")
        start = REGISTERS + self.registers.offsets[slot.file]
        offset = self.let(f"add i16 {scaled}, {start}")
        if declared.zero is not None:
            is_zero = self.let(f"icmp eq i16 {wide}, {declared.zero}")
            instead = field_offset("zero" if slot.kind == "read" else "scratch")
            offset = self.let(f"select i1 {is_zero}, i16 {instead}, i16 {offset}")
        self.line(f"store i16 {offset}, ptr {pointer}, align 2")
