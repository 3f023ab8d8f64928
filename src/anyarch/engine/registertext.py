"""Text of a region's registers: each a variable, or two where it holds a floating-point number."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final

from anyarch.emit import floats
from anyarch.engine.convention import VECTOR_TYPES, Place
from anyarch.engine.flagtext import FlagText
from anyarch.engine.folding import Folding
from anyarch.engine.records import field_offset
from anyarch.engine.regionfloats import register_of, scalar_of
from anyarch.engine.regions import Key, Occurrence
from anyarch.host.context import REGISTERS
from anyarch.ir.graph import Node

_HALF: Final = 32
_MOST_SCALE: Final = 3  # of x86's addresses


class RegisterText(FlagText):
    """Writes reads and writes of registers, and their way to the context and back."""

    def value(self, node: Node) -> str:
        if node.op != "const" and node.number in self.constants:
            return str(self.here.constant(node))
        register = register_of(node)
        # What is bound may be an input of flags that another instruction has set.
        if register is not None and not any(node.number in known for known in self._known):
            place = self._float_place(self.here, register)
            if place is not None and floats.SIZES.get(self.scalars.get(place, "")) == node.size:
                number = self._number(place)
                kind = floats.TYPES[self.scalars[place]]
                bits = self.let(f"bitcast {kind} {number} to i{node.size}")
                self.numbers[bits] = number
                return bits
            if place in self.unwritten and place not in self.scalars and node.op == "select":
                bits = self.let(f"bitcast float {self._single(place)} to i32")
                self.numbers[bits] = self._single(place)
                return bits
        if node.op in ("extract", "velement") and node.size in (32, 64):
            return self._element(node)
        if node.op == "shr" and (index := self._index(node)):
            return index
        return super().value(node)

    def _index(self, node: Node) -> str:
        """An index of 32 bits that one instruction has shifted up and this one shifts down, to
        where it scales; empty where it is none.

        LLVM would make one mask of that, which is more than an address can have; so it is not
        shown that the upper half is zero."""
        register, count = node.args
        if register.op != "register" or count.number not in self.constants or node.size != 64:
            return ""
        place = self.registers.place(str(register.attrs[0]), self.here.constant(register.args[0]))
        down = self.here.constant(count)
        if place not in self.raised or not _HALF - _MOST_SCALE <= down < _HALF:
            return ""
        low = self.let(f'call i64 asm "movl ${{1:k}}, ${{0:k}}", "=r,r"(i64 {self.raised[place]})')
        result = self.let(f"shl i64 {low}, {_HALF - down}")
        self.bind(node, result)
        return result

    def _raises(self, value: Node) -> str:
        """The index of 32 bits that a value has in its upper half, or nothing."""
        if value.op != "shl" or value.size != 64 or value.args[1].number not in self.constants:
            return ""
        if self.here.constant(value.args[1]) != _HALF or value.args[0].op != "register":
            return ""
        return self.value(value.args[0])

    def _element(self, node: Node) -> str:
        """A lane of a vector, extracted as a number: else it would come by a general register."""
        source = node.args[0]
        lane: int | None = None
        if source.size == 128 and node.op == "extract":
            lane = int(node.attrs[0]) // node.size if int(node.attrs[0]) % node.size == 0 else None
        elif source.size == 128 and node.args[1].number in self.constants:
            lane = self.here.constant(node.args[1]) % (128 // node.size)
        if lane is None or any(node.number in known for known in self._known):
            return super().value(node)
        kind = {32: "float", 64: "double"}[node.size]
        vector = f"<{128 // node.size} x {kind}>"
        whole = self.let(f"bitcast i128 {self.value(source)} to {vector}")
        number = self.let(f"extractelement {vector} {whole}, i32 {lane}")
        result = self.let(f"bitcast {kind} {number} to i{node.size}")
        self.numbers[result] = number
        self.bind(node, result)
        return result

    def leaf(self, node: Node) -> str:
        if node.op == "register":
            file, number = str(node.attrs[0]), self.here.constant(node.args[0])
            if self._is_zero(file, number):
                return "0"
            if self._is_flag((file, number)):
                return self._flag(number)
            if file in self.vector_files:
                kind, value = self._raw(self.registers.place(file, number), as_is=True)
                return self.let(f"bitcast {kind} {value} to i{node.size}")
            pointer = self._register("read", file, node.args[0])
            return self.let(f"load i{node.size}, {pointer}, align 8")
        return super().leaf(node)

    def _register(self, kind: str, file: str, index: Node) -> str:
        number = self.here.constant(index)
        if self._is_zero(file, number):
            return self.context(field_offset("zero" if kind == "read" else "scratch"))
        if file in self.in_context:
            return self.context(REGISTERS + self.registers.offset(file, number))
        return f"ptr {variable_of(self.registers.place(file, number))}"

    def _write(self, node: Node) -> None:
        file, number = str(node.attrs[0]), self.here.constant(node.args[0])
        if self._is_zero(file, number):
            return
        place = self.registers.place(file, number)
        if self._is_flag(place):
            self.dirty.add(place)
            return
        if file in self.vector_files:
            self._write_vector(place, node.args[1])
        else:
            if place in self.traced and self._must_hold(place):
                self._hold(place)
            super()._write(node)
            raised = self._raises(node.args[1]) if len(self._known) == 1 else ""
            self.raised.pop(place, None)
            if raised:
                self.raised[place] = raised
        if file in self.in_context:
            return
        self.loaded = {address for address in self.loaded if address[0] != place}
        if self._gets_dirty(place):
            self.dirty.add(place)
        elif place in self.stored and not self.precise:
            self.pending[place] = None
        elif self.precise or place in self.eager:
            value = self.value(node.args[1])
            size = node.args[1].size
            pointer = self.context(self.convention.offset(place))
            order = "volatile " if self.precise else ""
            self.line(f"store {order}i{size} {value}, {pointer}, align 8")

    def _must_hold(self, place: Place) -> bool:
        """Whether what a register holds could be forgotten before the instruction writes it."""
        return place != self.convention.link or self.holds_link or self.here.pc in self.held

    def _hold(self, place: Place) -> None:
        """Have LLVM know until here what a register holds: a fault before this may want it."""
        kind, value = self._raw(place)
        self.line(f"call void (...) @llvm.fake.use({kind} {value})")

    def _write_vector(self, place: Place, value: Node) -> None:
        scalar = scalar_of(value)
        implied: set[Place] = set()
        if self.result is not None:
            for operand in self.result.operands:
                implied |= self.implied.get(operand, set()) | ({operand} & self.lazy.keys())
        self._forget_number(place)
        if self.result is not None:
            self.lazy[place], self.implied[place] = self.result, implied - {place}
        # Inside a guard the variable has to be the one that it is on the other path.
        if scalar is not None and (len(self._known) == 1 or self.scalars.get(place) == scalar[1]):
            number, fmt = scalar
            kind, bits = floats.TYPES[fmt], self.value(number)
            content = self.numbers.get(bits) or self.let(f"bitcast i{number.size} {bits} to {kind}")
            self.line(f"store {kind} {content}, ptr {variable_of(place)}.{fmt}, align 8")
            if self._is_split(place):
                t = self._type(place)
                self.line(f"store {t} zeroinitializer, ptr {variable_of(place)}, align 8")
            self.scalars[place] = fmt
            return
        self.scalars.pop(place, None)
        kind = self._type(place)
        bits = self.let(f"bitcast i{value.size} {self.value(value)} to {kind}")
        self.line(f"store {kind} {bits}, ptr {variable_of(place)}, align 8")

    def _commit(self) -> None:
        for effect in self.graph.effects:
            if effect.node.op == "write" and effect.guard is not None:
                place = self._float_place(self.here, effect.node)
                if place in self.scalars and place is not None:
                    self._box(place)
        super()._commit()
        if self.flag_use is not None and self.flag_use.sets(self.here):
            self._keep_flags(self.flag_use)

    def _learn(self, found: Occurrence) -> None:
        """Remember which registers hold constants after an instruction: for computed calls."""
        learned: list[tuple[Place, int | None]] = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                index, value = effect.node.args
                where = self.registers.place(str(effect.node.attrs[0]), found.constant(index))
                known = self._fold(found, value) if effect.guard is None else None
                learned.append((where, known))
        for where, known in learned:
            self.known.pop(where, None)
            if known is not None:
                self.known[where] = known

    def _fold(self, found: Occurrence, node: Node) -> int | None:
        """The value of a node where constants and known registers determine it."""

        def held(register: Node) -> int | None:
            number = found.constant(register.args[0])
            return self.known.get(self.registers.place(str(register.attrs[0]), number))

        return Folding(found, held).value(node)

    def _type(self, place: Place) -> str:
        """Of the variable of a register."""
        size = self.registers.by_name[place[0]].size
        return VECTOR_TYPES[size] if place[0] in self.vector_files else f"i{size}"

    def _put(self, place: Place, value: str) -> None:
        """Set a variable."""
        self.scalars.pop(place, None)
        self._forget_number(place)
        self.line(f"store {self._type(place)} {value}, ptr {variable_of(place)}, align 8")

    def _raw(self, place: Place, *, as_is: bool = False) -> tuple[str, str]:
        """Type and value of a register as a whole; ``as_is`` with what NaN it has."""
        kind = self._type(place)
        is_lazy = place in self.lazy and not as_is
        if place not in self.scalars:
            value = self.let(f"load {kind}, ptr {variable_of(place)}, align 8")
            if not is_lazy:
                return kind, value
            if self.lazy[place].fmt == "f64":
                return kind, floats.canonical(self, "f64", value)
            low = self.let(f"trunc i64 {self.let(f'bitcast {kind} {value} to i64')} to i32")
            number = self.let(f"bitcast i32 {low} to float")
            return kind, self._boxed(kind, floats.canonical(self, "f32", number))
        number = self._number(place)
        if is_lazy:
            number = floats.canonical(self, self.lazy[place].fmt, number)
        if self._size(place) == 128:
            element = floats.TYPES[self.scalars[place]]
            whole = f"<{128 // floats.SIZES[self.scalars[place]]} x {element}>"
            rest = "zeroinitializer"
            if self._is_split(place):
                old = self.let(f"load {kind}, ptr {variable_of(place)}, align 8")
                rest = self.let(f"bitcast {kind} {old} to {whole}")
            joined = self.let(f"insertelement {whole} {rest}, {element} {number}, i32 0")
            return kind, self.let(f"bitcast {whole} {joined} to {kind}")
        return kind, self._boxed(kind, number)

    def _boxed(self, kind: str, single: str) -> str:
        """The whole of a register that holds a single."""
        low = self.let(f"zext i32 {self.let(f'bitcast float {single} to i32')} to i64")
        return self.let(f"bitcast i64 {self.let(f'or i64 {low}, {-1 << 32}')} to {kind}")

    def _number(self, place: Place) -> str:
        """The number in a register that holds a scalar."""
        fmt = self.scalars[place]
        return self.let(f"load {floats.TYPES[fmt]}, ptr {variable_of(place)}.{fmt}, align 8")

    def _single(self, place: Place) -> str:
        """The single in a register that is as it was at the entry, where that was looked at."""
        return self.singles.setdefault(place, f"%single.{place[1]}")

    def _forget_number(self, place: Place) -> None:
        """A register is overwritten: what was known of its NaN is so no more."""
        self.unwritten.discard(place)
        self.lazy.pop(place, None)
        self.implied.pop(place, None)
        for places in self.implied.values():
            places.discard(place)

    def _show_numbers(self, index: int) -> None:
        """Make NaNs canonical that have to be so before an instruction of the block: as few
        comparisons as will do, for a result is a NaN where what it was made of is one."""
        due = {
            place
            for place, result in self.lazy.items()
            if result.until is not None and result.until <= index
        }
        implied: set[Place] = set().union(*(self.implied[place] for place in due))
        by_format: dict[str, list[Place]] = {}
        for place in sorted(due - implied):
            by_format.setdefault(self.lazy[place].fmt, []).append(place)
        for fmt, places in by_format.items():
            if len(places) % 2:  # another is compared for nothing
                places += self._shown_next(fmt, due | implied)
            for first, second in zip(places[::2], [*places[1::2], *places[-1:]], strict=False):
                self._show_two(fmt, first, second)

    def _shown_next(self, fmt: str, others: Set[Place]) -> list[Place]:
        """The result, if there is one, whose NaN has to be canonical next."""
        later = [
            (result.until, place)
            for place, result in self.lazy.items()
            if result.until is not None and result.fmt == fmt and place not in others
        ]
        return [min(later)[1]] if later else []

    def _show_two(self, fmt: str, first: Place, second: Place) -> None:
        settled = self.lazy.keys() & {first, second} | self.implied[first] | self.implied[second]
        numbers = [self._lazy_number(place) for place in (first, second)]
        nan, done = self.name("nan"), self.name("done")
        self.branch(
            floats.compare(self, floats.Shape(fmt), "uno", *numbers), nan, done, unlikely=True
        )
        self.label(nan)
        for place in sorted(settled):
            variable, kind = self._lazy_variable(place)
            number = self._lazy_number(place)
            canonical = floats.canonical(self, self.lazy[place].fmt, number)
            self.line(f"store {kind} {canonical}, ptr {variable}, align 8")
        self.line(f"br label %{done}")
        self.label(done)
        for place in settled:
            self._shown(place)

    def _shown(self, place: Place) -> None:
        del self.lazy[place]
        for places in self.implied.values():
            places.discard(place)

    def _lazy_variable(self, place: Place) -> tuple[str, str]:
        """Where the number of a register is that has a NaN not canonical yet, and its type."""
        fmt = self.lazy[place].fmt
        scalar = f".{fmt}" if place in self.scalars else ""
        return f"{variable_of(place)}{scalar}", floats.TYPES[fmt]

    def _lazy_number(self, place: Place) -> str:
        variable, kind = self._lazy_variable(place)
        return self.let(f"load {kind}, ptr {variable}, align 8")

    def _is_split(self, place: Place) -> bool:
        """Whether what is above a scalar may be other than zero: it is in the whole's variable."""
        return place in self.root_scalars and self._size(place) == 128

    def _size(self, place: Place) -> int:
        return self.registers.by_name[place[0]].size

    def _formats(self, place: Place) -> list[str]:
        """Of the scalars that a register may hold."""
        if place[0] not in self.vector_files:
            return []
        return ["f32"] if self._size(place) == 64 else ["f32", "f64"]

    def _box(self, place: Place) -> None:
        """From here on the variable of the whole register is the one."""
        kind, value = self._raw(place, as_is=True)
        self.scalars.pop(place, None)
        self.line(f"store {kind} {value}, ptr {variable_of(place)}, align 8")

    def _agree(self, key: Key) -> None:
        """Before a jump to a block: have variables as it expects them."""
        kept = dict(self.scalars)
        for place, fmt in sorted(kept.items()):
            if self.entry_scalars[key].get(place) != fmt:
                self._box(place)
        self.scalars = kept  # on the other path, if there is one

    def _travelling(self) -> list[str]:
        """The values of the registers that are passed."""
        return [
            "undef" if place in self.overwritten else self._raw(place)[1]
            for place in self.convention.types
        ]

    def _spill(
        self,
        places: Iterable[Place] | None = None,
    ) -> None:
        """Write the registers that may be dirty here to the context."""
        wanted = set(self.dirty if places is None else places)
        flags = {place for place in wanted if self._is_flag(place)}
        if flags:
            self._spill_flags()
        for place in sorted(wanted - flags):
            kind, value = self._raw(place)
            pointer = self.context(self.convention.offset(place))
            self.line(f"store {kind} {value}, {pointer}, align 8")

    def _commit_passed(self) -> None:
        """Write the registers that travel to the context."""
        link = self.convention.link
        self._spill(self.convention.passed if link is None else (link, *self.convention.passed))

    def _commit_exact(self) -> None:
        """Write those to the context that came in host registers and have to be exact there."""
        if self.precise:
            self._commit_passed()
        elif not self.traced:
            self._spill(self.convention.traced)

    def _reload(self, places: Iterable[Place]) -> None:
        """Read registers that do not travel; what is not used falls away."""
        wanted = list(places)
        if any(place[0] == self.architecture.convention.flags for place in wanted):
            self._reload_flags()
        for place in wanted:
            travels = place in self.convention.types or place == self.convention.link
            if not travels and not self._is_flag(place):
                self._reload_one(place)

    def _reload_one(self, place: Place) -> None:
        kind = self._type(place)
        pointer = self.context(self.convention.offset(place))
        self._put(place, self.let(f"load {kind}, {pointer}, align 8"))

    def _keep(self, *, leaving: bool = False) -> None:
        """Bring the stored registers in the context up to date: they are until the next write,
        unless this is only on a path that leaves, or guarded."""
        for place in self.pending:
            kind, value = self._raw(place)
            pointer = self.context(self.convention.offset(place))
            self.line(f"store volatile {kind} {value}, {pointer}, align 8")
        if not leaving and len(self._known) == 1:
            self.pending = {}


def variable_of(place: Place) -> str:
    """The variable of a register."""
    return f"%{place[0]}.{place[1]}"
