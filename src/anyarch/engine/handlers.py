"""Handlers of the native interpreter: what runs for a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from anyarch.emit import floateffects, flushing
from anyarch.engine.arena import TABLE_BITS
from anyarch.engine.effects import EffectEmitter
from anyarch.engine.records import RETURN, RecordLayout, Slot, call_of, field_offset
from anyarch.engine.returns import note_text, return_text
from anyarch.host.context import REGISTERS, ExitCode
from anyarch.ir.graph import FLOATS, Graph, Node
from anyarch.isa.architecture import Architecture

SIGNATURE: Final = "(ptr noalias %context, ptr %record, ptr %memory)"


class HandlerEmitter(EffectEmitter):
    """The body of a handler: reads slots, performs effects, commits, goes on."""

    serves_modes = True  # of floating point, beside rounding: see :mod:`anyarch.emit.flushing`

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
        super().__init__(
            graph, constants, architecture, bounded=bounded, record=record, prefix=prefix
        )
        self.layout = layout
        self.linked: dict[int, str] = {}  # read slot's offset: the value that was just written

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

    def check_rounding(self) -> None:
        nodes = [effect.node for effect in self.graph.effects if effect.node.op in FLOATS]
        if not (self.serves_modes and self.float_rules == "arm" and _are_served(nodes)):
            super().check_rounding()
            return
        mode = self.let(f"load i32, {self._rounding_mode()}, align 8")
        looking, usual = self.name("mode"), self.name("usual")
        self.branch(self.let(f"icmp ugt i32 {mode}, 3"), looking, usual, unlikely=True)
        self.label(looking)
        self.push()
        beyond = self.let(f"icmp ugt i32 {self.let(f'and i32 {mode}, {~flushing.MODES}')}, 0")
        self.emulate_if(beyond)
        for node in nodes:
            flushing.emulate_unusual(self, node)
        self.pop()
        self.line(f"br label %{usual}")
        self.label(usual)

    def dispatch(self, record: str) -> None:
        """Tail-call the handler of a record."""
        handler = self.let(f"load ptr, ptr {record}, align 8")
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 {handler}"
            f"(ptr noalias %context, ptr {record}, ptr %memory)"
        )
        self.line(f"ret i32 {result}")

    def written(self) -> str | None:
        """The value that :attr:`RecordLayout.write` stores, where that is unconditional."""
        for effect in self.graph.effects:
            if effect.node.op == "write" and effect.node.args[0].op != "const":
                return self.value(effect.node.args[1]) if effect.guard is None else None
        return None

    def _jump(self, target: Node) -> None:
        self._note_call()
        if target.number in self.constants and target.op != "const":
            offset = self.layout.slot("link", target).offset
            self.follow_link(offset)
            return
        pc = self.value(target)
        returning = self._returns(target)
        if returning is not None:
            back, on = self.name("back"), self.name("on")
            self.branch(returning, back, on)
            self.label(back)
            self.lines += return_text(pc, self.name("ring")).splitlines()
            self.label(on)
        self.stop_poll(pc)
        self.find(pc)

    def _note_call(self) -> None:
        """Have a call's return lead to the block behind it."""
        call = call_of(self.graph, self.constants, self.architecture)
        if call is None:
            return
        slot = self.layout.slot("link", call, RETURN)
        link = self.let(f"getelementptr i8, ptr {self.record}, i64 {slot.offset}")
        keeps = self._is_for_returns("write", self._writes[0].args[0], self._writes[0])
        self.lines += note_text(link, self.name("ring"), only_if=keeps).splitlines()

    @property
    def _writes(self) -> list[Node]:
        return [effect.node for effect in self.graph.effects if effect.node.op == "write"]

    def _is_for_returns(self, kind: str, index: Node, node: Node) -> str:
        """Whether the register that a node reads or writes is one that calls return through."""
        file = str(node.attrs[0])
        places = self.architecture.return_registers
        if index.op == "const":
            return "true" if self.registers.place(file, index.value) in places else "false"
        offset = self._slot(self.layout.slot(kind, index, file))
        result = "false"
        for name, number in places:
            if name == self.registers.place(file, 0)[0]:
                wanted = REGISTERS + self.registers.offset(name, number)
                result = self.let(f"or i1 {result}, {self.let(f'icmp eq i16 {offset}, {wanted}')}")
        return result

    def _returns(self, target: Node) -> str | None:
        """Whether a computed jump is a return, as far as the record tells; None: it is not."""
        read = [node for node in _below(target) if node.op == "register"]
        written = self._writes
        if len(read) != 1 or len(written) > 1:
            return None
        index = read[0].args[0]
        if index.op == "const" and written:
            return None
        result = self._is_for_returns("read", index, read[0])
        if written:  # a call, unless it keeps no address
            index = written[0].args[0]
            if index.op == "const":
                return None
            kept = self._slot(self.layout.slot("write", index, str(written[0].attrs[0])))
            plain = self.let(f"icmp eq i16 {kept}, {field_offset('scratch')}")
            result = self.let(f"and i1 {result}, {plain}")
        return None if result == "false" else result

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


def _are_served(nodes: list[Node]) -> bool:
    """Whether other modes than rounding modes leave native code the usual cases of all these
    effects: none is made of another, so that they can be looked at before they happen."""
    return all(
        floateffects.is_native(node)
        and flushing.is_served(node)
        and not any(below.op in FLOATS for arg in node.args for below in _below(arg))
        for node in nodes
    )


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
