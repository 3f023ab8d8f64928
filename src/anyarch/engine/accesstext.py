"""Text of a region's accesses to memory, each with the place that tells the guest's pc."""

from __future__ import annotations

import re
from typing import Final

from anyarch.engine.adjacency import Address, Word
from anyarch.engine.composition import Composition, Piece, compose, piece_of
from anyarch.engine.convention import CALL, VECTOR_TYPES, Place
from anyarch.engine.ordering import stores
from anyarch.engine.regionfloats import scalar_of
from anyarch.engine.regions import Occurrence
from anyarch.engine.registertext import RegisterText
from anyarch.ir.graph import Node

SEGMENT: Final = "ptr addrspace(256)"  # relative to gs
FIRST_LOCATION: Final = 20  # the metadata of the first pc
_PAGE: Final = 4096  # bytes: what may be there or not
_NAME: Final = re.compile(r"%[\w.]+")
_STEPS: Final = 5  # from a load to what LLVM may merge it into


class AccessText(RegisterText):
    """Writes loads and stores, and keeps what LLVM merges them with at their place.

    An access has an odd line, what it may become part of the even one behind that.
    """

    def pc_of(self, line: int) -> int:
        """The guest's pc that a line of the debug information, from 1 on, stands for."""
        return self.pcs[(line - 1) // 2]

    def let(self, text: str) -> str:
        if self.origins or "!dbg" in text:
            text, origin = self._placed(text)
            result = super().let(text)
            if origin is not None:
                self.origins[result] = origin
            return result
        return super().let(text)

    def line(self, text: str) -> None:
        if self.origins:
            if text.startswith("store"):
                value, variable, *_ = (*_NAME.findall(text), "", "")
                self.origins.pop(variable, None)
                if value in self.origins and variable:
                    self.origins[variable] = self.origins[value]
            elif text.startswith(("br i1", "switch")):
                text = self._placed(text)[0]
        super().line(text)

    def _placed(self, text: str) -> tuple[str, tuple[str, int] | None]:
        """An instruction that LLVM may merge a load into, with the location of that load; and the
        origin of its result."""
        _, found, location = text.partition(", !dbg ")
        if CALL in text:  # no load becomes part of it
            return text, None
        if found:
            user = f"!{int(location[1:]) + 1}"
            return text, (user, 0) if text.startswith(("load", "bitcast")) else None
        origins = [self.origins[name] for name in _NAME.findall(text) if name in self.origins]
        if not origins:
            return text, None
        location, steps = min(origins, key=lambda origin: origin[1])
        return f"{text}, !dbg {location}", (location, steps + 1) if steps < _STEPS else None

    def announce(self) -> None:
        """Kept registers have to be in the context, unless a table tells where they are; where we
        are the debug location tells."""
        self._keep()
        if self.here.pc in self.untraced:
            for place in self.traced:
                kind, value = self._raw(place)
                pointer = self.context(self.convention.offset(place))
                self.line(f"store volatile {kind} {value}, {pointer}, align 8")

    def pointer(self, node: Node) -> str:
        """Of a pointer with bits that are no part of the address, unless regions are to mask them,
        the sum with these: the host faults where some are set, and the handler goes on."""
        bits = self.architecture.pointer_bits
        if self.masked or not self.compiler.direct or node.number in self.constants:
            return self.value(node)
        if node.op == "add":
            left, right = map(self.pointer, node.args)
            return self.let(f"add i64 {left}, {right}")
        if node.op == "sext" and node.args[0].op == "extract" and node.args[0].size == bits:
            extract = node.args[0]
            if extract.args[0].size == node.size and extract.attrs[0] == 0:
                return self.value(extract.args[0])
        return self.value(node)

    def memory(self, address: str) -> str:
        kind = "ptr" if self.compiler.direct else SEGMENT
        return f"{kind} " + self.let(f"inttoptr i64 {address} to {kind}")

    def context(self, offset: int | str) -> str:
        if self.compiler.direct:
            return f"{SEGMENT} inttoptr (i64 {offset} to {SEGMENT})"
        return super().context(offset)

    def access(self, text: str, pc: int | None = None) -> str:
        pc = self.here.pc if pc is None else pc
        if not self.pcs or self.pcs[-1] != pc:
            self.pcs.append(pc)
        return f"{text}, !dbg !{FIRST_LOCATION + 2 * len(self.pcs) - 2}"

    def _load(self, node: Node) -> str:
        kind = self._float_kind(node)
        if kind and node.attrs[0] == "plain":
            pointer = self._address(node.args[0], node.size // 8)
            loaded = self.let(self.access(f"load volatile {kind}, {pointer}, align 1"))
            # Where only the bits are used LLVM makes one load of both, which is where the cast is.
            result = self.let(self.access(f"bitcast {kind} {loaded} to i{node.size}"))
            is_guarded = self.here.pc in self.guarded
            return self._sealed(result, node.size) if is_guarded else result
        word = self.words.get(self.here.pc)
        if word is not None and self.guarded.isdisjoint(word.pcs):
            result = self._byte_of(word, node)
        else:
            result = super()._load(node)
        if self.here.pc in self.entries:
            self.entries[self.here.pc] = self.value(node.args[0])
        if self.here.pc in self.guarded and node.size <= 64:
            result = self._sealed(result, node.size)
        address = self._address_of(self.here, node.args[0])
        if address is not None:
            self.loaded.add(address)
        return result

    def _load_reserved(self, node: Node) -> str:
        if self.update is None:
            return super()._load_reserved(node)
        place = self.here, self.graph, self.constants, self._known
        self.here, self._known = self.update.found, [{}]
        self.graph, self.constants = self.here.template.graph, self.here.template.constants
        operand = self.value(self.update.operand)
        self.here, self.graph, self.constants, self._known = place
        size = self.update.operand.size
        if size > node.size:
            operand = self.let(f"trunc i{size} {operand} to i{node.size}")
        pointer = self._address(node.args[0], node.size // 8)
        return self.let(
            self.access(
                f"atomicrmw volatile {self.update.operation} {pointer}, i{node.size} {operand} "
                f"seq_cst, align {node.size // 8}"
            )
        )

    def _store_conditional(self, node: Node) -> str:
        if self.update is None:
            return super()._store_conditional(node)
        self._clear_reservation(node)
        return "true"

    def _sealed(self, value: str, size: int) -> str:
        """The value, of which LLVM does not know what it is made from."""
        if size <= 64:
            return self.let(f'call i{size} asm "", "=r,0"(i{size} {value})')
        kind = VECTOR_TYPES[size]
        vector = self.let(f"bitcast i{size} {value} to {kind}")
        sealed = self.let(f'call {kind} asm "", "=x,0"({kind} {vector})')
        return self.let(f"bitcast {kind} {sealed} to i{size}")

    def _float_kind(self, node: Node) -> str:
        """The type of a loaded value that goes to a vector register as it is, else nothing."""
        kind = {32: "float", 64: "double"}.get(node.size, "")
        for effect in self.graph.effects:
            if effect.node.op == "write" and kind:
                _, value = effect.node.args
                if self._float_place(self.here, effect.node) is not None:
                    scalar = scalar_of(value)
                    if (value if scalar is None else scalar[0]) is node:
                        return kind
        return ""

    def _store(self, node: Node) -> None:
        value = node.args[1]
        source = value.args[0] if value.op == "extract" and value.attrs[0] == 0 else value
        if (
            source.op == "register"
            and value.size in (32, 64)
            and node.attrs[0] == "plain"
            and self._float_place(self.here, source) is not None
        ):
            kind = {32: "float", 64: "double"}[value.size]
            stored = self.let(f"bitcast i{value.size} {self.value(value)} to {kind}")
            pointer = self._address(node.args[0], value.size // 8)
            self.line(self.access(f"store volatile {kind} {stored}, {pointer}, align 1"))
            return
        if value.number not in self.constants and (
            self.here.pc in self.guarded or self._address_of(self.here, node.args[0]) in self.loaded
        ):
            self.bind(value, self._sealed(self.value(value), value.size))
        super()._store(node)

    def _fence(self, node: Node) -> None:
        if node.attrs[0] == "seq_cst" and self.settled and not stores(self.here):
            self.line('fence syncscope("singlethread") seq_cst')
        else:
            super()._fence(node)

    def _byte_of(self, word: Word, node: Node) -> str:
        """One of the bytes that are loaded together with the first."""
        if self.here.pc == word.first:
            self.loaded_words[word] = self._load_word(word, node)
        shift = 8 * word.pcs.index(self.here.pc)
        shifted = self.let(f"lshr i{word.size} {self.loaded_words[word]}, {shift}")
        return self.let(f"trunc i{word.size} {shifted} to i8")

    def _load_word(self, word: Word, node: Node) -> str:
        """All bytes at once, or each on its own where a page ends between them."""
        self.announce()
        address = self.pointer(node.args[0])
        if word.first != word.pcs[0]:  # that byte is where a fault has to be
            self.let(self.access(f"load volatile i8, {self.memory(address)}, align 1"))
            address = self.let(f"sub i64 {address}, {word.pcs.index(word.first)}")
        t, nbytes = f"i{word.size}", len(word.pcs)
        inside = self.let(f"and i64 {address}, {_PAGE - 1}")
        across = self.let(f"icmp ugt i64 {inside}, {_PAGE - nbytes}")
        apart, together, done = self.name("apart"), self.name("together"), self.name("done")
        self.branch(across, apart, together, unlikely=True)
        self.label(apart)
        joined = "0"
        for pc in sorted(word.pcs):
            index = word.pcs.index(pc)
            pointer = self.memory(self.let(f"add i64 {address}, {index}"))
            byte = self.let(self.access(f"load volatile i8, {pointer}, align 1", pc))
            wide = self.let(f"shl {t} {self.let(f'zext i8 {byte} to {t}')}, {8 * index}")
            joined = self.let(f"or {t} {joined}, {wide}")
        self.line(f"br label %{done}")
        self.label(together)
        pointer = self.memory(address)
        whole = self.let(self.access(f"load volatile {t}, {pointer}, align 1", word.pcs[0]))
        self.line(f"br label %{done}")
        self.label(done)
        return self.let(f"phi {t} [ {joined}, %{apart} ], [ {whole}, %{together} ]")

    def _commit(self) -> None:
        composed = self._composed() if self.words else {}
        super()._commit()
        self.compositions |= composed

    def _composed(self) -> dict[Place, Composition | None]:
        """What the registers are composed of that the instruction writes; pieces of words become
        their values."""
        composed: dict[Place, Composition | None] = {}
        for effect in self.graph.effects:
            if effect.node.op != "write":
                continue
            index, value = effect.node.args
            place = self.registers.place(str(effect.node.attrs[0]), self.here.constant(index))
            found = None
            if effect.guard is None and self.guarded.isdisjoint(self.words):
                found = compose(self.here, value, self.words.get(self.here.pc), self._composition)
            composed[place] = found
            piece = None if found is None else piece_of(found)
            if found is not None and piece is not None:
                self.bind(value, self._piece(self.loaded_words[found.word], found, piece))
        return composed

    def _composition(self, register: Node) -> Composition | None:
        number = self.here.constant(register.args[0])
        return self.compositions.get(self.registers.place(str(register.attrs[0]), number))

    def _piece(self, word: str, composition: Composition, piece: Piece) -> str:
        """The value of a register that is a piece of a word."""
        size, whole, wanted = 8 * piece.nbytes, composition.word.size, 8 * len(composition.parts)
        if piece.start:
            word = self.let(f"lshr i{whole} {word}, {8 * piece.start}")
        if size < whole:
            word = self.let(f"trunc i{whole} {word} to i{size}")
        if piece.swapped:
            word = self.let(f"call i{size} @llvm.bswap.i{size}(i{size} {word})")
        if size < wanted:
            extended = "sext" if piece.signed else "zext"
            word = self.let(f"{extended} i{size} {word} to i{wanted}")
        return word

    def _address_of(self, found: Occurrence, node: Node) -> Address | None:
        """An instruction's address as a register and a constant."""
        offset = 0
        if node.op == "add" and node.args[1].number in found.template.constants:
            node, offset = node.args[0], found.constant(node.args[1])
        if node.op == "sext" and node.args[0].op == "extract":  # of which a tag is not part
            node = node.args[0].args[0]
        if node.op != "register":
            return None
        return self.registers.place(str(node.attrs[0]), found.constant(node.args[0])), offset
