"""Effects to LLVM text: memory, flags, exceptions and exits, as handlers and regions have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.emit import floateffects, floats
from anyarch.emit.llvm import Emitter
from anyarch.engine.arena import PAGE_CODE, TRANSLATOR
from anyarch.engine.records import LEAVING_AFTER, field_offset
from anyarch.host.context import FIELDS, REGISTERS, ExitCode
from anyarch.ir.graph import FLOATS, Effect, Graph, Node
from anyarch.isa.architecture import Architecture

# Ends with pc at the instruction; the others leave past it.
EXIT_CODES: Final = {
    "illegal": ExitCode.ILLEGAL,
    "breakpoint": ExitCode.BREAKPOINT,
    "code_changed": ExitCode.CODE_CHANGED,
    "halt": ExitCode.HALT,
}


class EffectEmitter(Emitter):
    """Performs the effects of an instruction. Where its registers are, and how control goes on,
    subclasses say."""

    polled = "i64"  # the context's fields `stop` and `notes`

    def __init__(
        self,
        graph: Graph,
        constants: set[int],
        architecture: Architecture,
        *,
        bounded: bool,
        record: str = "%record",
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.graph, self.constants, self.architecture = graph, constants, architecture
        self.registers, self.bounded, self.record = architecture.layout, bounded, record
        self.status = architecture.float_status
        if self.status is not None:
            self.float_rules = self.status.rules
        self.prefix = prefix
        self._record_stored = False

    # What subclasses say.
    def _register(self, kind: str, file: str, index: Node) -> str:
        """Operand of a register, to ``read`` or to ``write``."""
        raise NotImplementedError

    def _jump(self, target: Node) -> None:
        """Go to a pc for good."""
        raise NotImplementedError

    def _next_pc(self) -> str:
        """The address of the instruction that follows."""
        raise NotImplementedError

    def _syscall(self) -> None:
        """Have a system call served, at the instruction that follows."""
        raise NotImplementedError

    def name(self, hint: str = "v") -> str:
        return self.prefix + super().name(hint)

    def context(self, offset: int | str) -> str:
        """Operand with the type of a pointer to a context byte."""
        return "ptr " + self.let(f"getelementptr i8, ptr %context, i64 {offset}")

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
        address = self.pointer(node)
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

    def pointer(self, node: Node) -> str:
        """Operand of an address, for an access there."""
        return self.value(node)

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
