"""The native interpreter's module: handlers, builders, decoder and translator as LLVM text.

One text per architecture and variant; compiled once, cached as a flat blob. The translator reads
guest code, decodes it with the tree of ``isa.decoder`` and builds records up to the end of a block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final

from anyarch.emit.llvm import Emitter
from anyarch.engine.interpreter import (
    PAGE_CODE,
    PAGE_EXEC,
    PAGE_HOOK,
    TABLE_BITS,
    TRANSLATOR,
)
from anyarch.engine.records import (
    LINK_NBYTES,
    BuilderEmitter,
    HandlerEmitter,
    RecordLayout,
    field_offset,
    lay_out,
    record_constants,
    runs_in_reference,
)
from anyarch.errors import DefinitionError
from anyarch.host.context import ExitCode
from anyarch.ir.graph import Graph
from anyarch.ir.rewrite import optimise
from anyarch.isa.decoder import Switch, Tree
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import Form, Instruction

# Fields of the translator's state, eight bytes each.
TRANSLATOR_OFFSETS: Final = {name: 8 * index for index, name in enumerate(TRANSLATOR)}
MAXIMUM_RECORD: Final = 256
BLOCK_LIMIT: Final = 128  # instructions in one block
ENDS: Final = 1 << 24  # control does not fall through
BRANCHES: Final = 1 << 25  # control may leave; counted blocks end here


@dataclass(slots=True)
class Handler:
    """A native handler and the graph that it implements."""

    number: int
    body: str
    nbytes: int
    graph: Graph
    layout: RecordLayout
    constants: set[int]
    fusible: bool  # may be followed by another handler's body
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class InterpreterModule:
    """Generates the module text of one architecture."""

    architecture: Architecture
    bounded: bool
    handlers: dict[str, Handler] = field(default_factory=dict)
    by_name: dict[str, Handler] = field(default_factory=dict)
    builders: dict[str, str] = field(default_factory=dict)  # body to name
    leaves: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # builder, handler, info
    # Fused sequences of (handler, link mask), with their own numbers after the handlers'.
    sequences: dict[tuple[tuple[int, int], ...], int] = field(default_factory=dict)

    def text(self) -> str:
        """LLVM text of everything but the host runtime."""
        decoder = self._decoder()
        parts = [
            "!0 = !{!\"branch_weights\", i32 1, i32 4000}",
            "!1 = !{}",
            "!2 = !{!\"branch_weights\", i32 1000, i32 1}",
            "attributes #0 = { nounwind strictfp \"no-stack-arg-probe\" }",
            "attributes #1 = { strictfp }",
            *self.handlers_text(),
            *self._fused_text(),
            *(
                f"define internal void @{name}(i64 %word, i64 %pc, ptr %record) #0 "
                f"{{\nentry:\n{body}\n  ret void\n}}"
                for body, name in self.builders.items()
            ),
            decoder,
            self._fusion(),
            self._internal(),
            self._translator(),
        ]
        body = "\n".join(parts)
        return body + "\n" + declarations(body)

    def handlers_text(self) -> list[str]:
        """Definitions of all handlers."""
        result = []
        for handler in self.handlers.values():
            result.append(
                f"; {', '.join(handler.names)}\n"
                f"define hidden i32 @h_{handler.number}(ptr noalias %context, ptr %record, "
                f"ptr %memory) #0 {{\n{handler.body}\n}}"
            )
        return result

    def _fused_text(self) -> list[str]:
        """Handlers of sequences, their prefixes included: the translator grows them one by one."""
        wanted: set[tuple[tuple[int, int], ...]] = set()
        by_number = {handler.number: handler for handler in self.handlers.values()}
        for names in self.architecture.fused:
            items = []
            for name in names:
                form, _, mask = name.partition("@")
                items.append((self.by_name[form].number, int(mask or "0")))
            if not all(by_number[number].fusible for number, _ in items[:-1]):
                raise DefinitionError(f"{' '.join(names)}: control may not fall through")
            wanted |= {tuple(items[:length]) for length in range(2, len(items) + 1)}
        result = []
        for sequence in sorted(wanted):
            number = self.sequences[sequence] = len(self.handlers) + len(self.sequences)
            body = self._sequence_body([(by_number[n], mask) for n, mask in sequence])
            result.append(
                f"define hidden i32 @h_{number}(ptr noalias %context, ptr %record, ptr %memory)"
                f" #0 {{\n{body}\n}}"
            )
        return result

    def _sequence_body(self, handlers: list[tuple[Handler, int]]) -> str:
        lines: list[str] = []
        record, block, offset = "%record", "entry", 0
        written: str | None = None
        for index, (handler, mask) in enumerate(handlers):
            emitter = HandlerEmitter(
                handler.graph,
                handler.layout,
                handler.constants,
                self.architecture,
                bounded=self.bounded,
                record=record,
                prefix=f"s{index}",
            )
            emitter.block = block
            if mask and written is None:
                raise DefinitionError(f"{handler.names[0]}: nothing before it to link with")
            for bit, place in enumerate(handler.layout.reads):
                if mask >> bit & 1 and written is not None:
                    emitter.linked[place] = written
            emitter.effects()
            written = emitter.written() if handler.layout.write else None
            falls_through = emitter.jumps() and emitter.finish()
            lines += emitter.lines
            offset += handler.nbytes
            block = emitter.block
            if falls_through:
                record = f"%record{index}"
                lines.append(f"  {record} = getelementptr i8, ptr %record, i64 {offset}")
                if index == len(handlers) - 1:
                    emitter.lines = []
                    emitter.dispatch(record)
                    lines += emitter.lines
        return with_status("\n".join(lines))

    def _fusion(self) -> str:
        """The automaton that makes sequences, and the table of what can be linked."""
        keys = {}
        for sequence, number in self.sequences.items():
            head = self.sequences[sequence[:-1]] if len(sequence) > 2 else sequence[0][0]
            handler, mask = sequence[-1]
            keys[head << 32 | mask << 24 | handler] = number
        slots = hash_slots(keys)
        entries = ", ".join(
            f"{{ i64, i32, i32 }} {{ i64 {key}, i32 {number}, i32 {_relative(number)} }}"
            for key, number in slots
        )
        rows = []
        for handler_ in self.handlers.values():
            places = [handler_.layout.write, *handler_.layout.reads[:3]]
            rows.append(f"i32 {sum(place << 8 * index for index, place in enumerate(places))}")
        return FUSION_TEXT.format(
            entries=entries,
            slots=len(slots),
            last=len(slots) - 1,
            shift=64 - (len(slots).bit_length() - 1),
            multiplier=HASH_MULTIPLIER,
            count=len(rows),
            rows=", ".join(rows),
        )

    def handler(self, form: Form) -> Handler:
        """The handler of a form, shared with all forms of equal meaning."""
        graph = optimise(form.trace(self.architecture.layout))
        graph.verify()
        constants = record_constants(graph)
        layout = lay_out(graph, constants, form.instruction.row.nbytes)
        emitter = HandlerEmitter(
            graph, layout, constants, self.architecture, bounded=self.bounded
        )
        fusible = False
        if runs_in_reference(graph):
            emitter.leave(ExitCode.EMULATE)
            layout = RecordLayout(nbytes=16)
        else:
            emitter.effects()
            if emitter.jumps() and emitter.finish():
                fusible = True
                following = emitter.let(f"getelementptr i8, ptr %record, i64 {layout.nbytes}")
                emitter.dispatch(following)
        body = with_status("\n".join(emitter.lines))
        found = self.handlers.get(body)
        if found is None:
            found = Handler(
                len(self.handlers), body, layout.nbytes, graph, layout, constants, fusible
            )
            self.handlers[body] = found
        found.names.append(form.name)
        self.by_name[form.name] = found
        builder = BuilderEmitter(form.instruction.row, layout, self.architecture.layout)
        # The builder's own graph has the same slots: the layout refers to its nodes.
        builder.slots()
        self._add_builder(form, found, layout, builder, graph)
        return found

    def _add_builder(
        self, form: Form, handler: Handler, layout: RecordLayout, builder: Emitter, graph: Graph
    ) -> None:
        ops = {effect.node.op for effect in graph.effects}
        ends = any(
            effect.guard is None and effect.node.op in ("jump", "exit", "exception")
            for effect in graph.effects
        )
        branches = ends or bool(ops & {"jump", "syscall"})
        info = layout.nbytes | form.instruction.row.nbytes << 16
        info |= (ENDS if ends else 0) | (BRANCHES if branches else 0) | handler.number << 32
        if layout.nbytes > MAXIMUM_RECORD:
            raise DefinitionError(f"{form.name}: its record has {layout.nbytes} bytes")
        name = self.builders.setdefault("\n".join(builder.lines), f"b_{len(self.builders)}")
        self.leaves[form.name] = name, handler.number, info

    def _decoder(self) -> str:
        e = Emitter()
        counter = itertools.count()
        e.label("entry")
        self._decode_tree(e, self.architecture.decoder.tree, counter)
        e.label("none")
        e.line("ret i64 0")
        lines = "\n".join(e.lines)
        return f"define internal i64 @aa_decode(i64 %word, i64 %pc, ptr %record) #0 {{\n{lines}\n}}"

    def _decode_tree(self, e: Emitter, tree: Tree, counter: itertools.count[int]) -> None:
        if isinstance(tree, Switch):
            masked = e.let(f"and i64 %word, {tree.mask & (1 << 64) - 1}")
            labels = {value: f"t{next(counter)}" for value in tree.cases}
            cases = " ".join(f"i64 {value}, label %{label}" for value, label in labels.items())
            e.line(f"switch i64 {masked}, label %none [ {cases} ]")
            for value, label in labels.items():
                e.label(label)
                self._decode_tree(e, tree.cases[value], counter)
            return
        for instruction in tree.instructions:
            following = f"t{next(counter)}"
            self._decode_leaf(e, instruction, following, counter)
            e.label(following)
        e.line("br label %none")

    def _decode_leaf(
        self, e: Emitter, instruction: Instruction, following: str, counter: itertools.count[int]
    ) -> None:
        row = instruction.row
        here = f"t{next(counter)}"
        masked = e.let(f"and i64 %word, {row.mask}")
        conditions = [e.let(f"icmp eq i64 {masked}, {row.value}")]
        for condition in row.conditions:
            value = self._raw(e, instruction, condition.field)
            predicate = "eq" if condition.equal else "ne"
            conditions.append(e.let(f"icmp {predicate} i64 {value}, {condition.value}"))
        good = conditions[0]
        for condition_value in conditions[1:]:
            good = e.let(f"and i1 {good}, {condition_value}")
        e.branch(good, here, following)
        e.label(here)
        self._decode_static(e, instruction, list(instruction.forms()), counter)

    def _decode_static(
        self, e: Emitter, instruction: Instruction, forms: list[Form],
        counter: itertools.count[int],
    ) -> None:
        for form in forms:
            self.handler(form)
        if not instruction.static:
            self._call_builder(e, forms[0])
            return
        key = "0"
        keys = {form.name: 0 for form in forms}
        shift = 0
        for name in instruction.static:
            value = self._raw(e, instruction, name)
            shifted = e.let(f"shl i64 {value}, {shift}")
            key = e.let(f"or i64 {key}, {shifted}")
            for form in forms:
                keys[form.name] |= form.static[name] << shift
            shift += instruction.row.width(name)
        labels = {form.name: f"t{next(counter)}" for form in forms}
        cases = " ".join(f"i64 {keys[f.name]}, label %{labels[f.name]}" for f in forms)
        e.line(f"switch i64 {key}, label %none [ {cases} ]")
        for form in forms:
            e.label(labels[form.name])
            self._call_builder(e, form)

    def _call_builder(self, e: Emitter, form: Form) -> None:
        builder, handler, info = self.leaves[form.name]
        e.line(f"store ptr @h_{handler}, ptr %record, align 8")
        e.line(f"call void @{builder}(i64 %word, i64 %pc, ptr %record)")
        e.line(f"ret i64 {info}")

    def _raw(self, e: Emitter, instruction: Instruction, name: str) -> str:
        total = "0"
        for piece in instruction.row.fields[name]:
            shifted = e.let(f"lshr i64 %word, {piece.at}")
            part = e.let(f"and i64 {shifted}, {(1 << piece.size) - 1}")
            moved = e.let(f"shl i64 {part}, {piece.to}")
            total = e.let(f"or i64 {total}, {moved}")
        return total

    def _internal(self) -> str:
        """Handlers that belong to no instruction."""
        graph = Graph("internal")
        texts = []

        def handler(name: str) -> HandlerEmitter:
            del name
            return HandlerEmitter(
                graph, RecordLayout(), set(), self.architecture, bounded=self.bounded
            )

        def define(name: str, e: HandlerEmitter) -> None:
            texts.append(
                f"define hidden i32 @aa_{name}(ptr noalias %context, ptr %record, ptr %memory)"
                f" #0 {{\n{with_status(chr(10).join(e.lines))}\n}}"
            )

        e = handler("goto")
        e.follow_link(16)
        define("goto", e)
        for name, code in (("illegal", ExitCode.ILLEGAL), ("hook", ExitCode.HOOK)):
            e = handler(name)
            e.leave(code)
            define(name, e)
        e = handler("fetch")
        at = e.let("getelementptr i8, ptr %record, i64 16")
        e.store_field("fault_address", e.let(f"load i64, ptr {at}, align 8"))
        e.leave(ExitCode.FETCH)
        define("fetch", e)
        e = handler("count")
        at = e.let("getelementptr i8, ptr %record, i64 16")
        count = e.let(f"load i64, ptr {at}, align 8")
        pointer = e.context(field_offset("remaining"))
        remaining = e.let(f"load i64, ptr {pointer}, align 8")
        left = e.let(f"sub i64 {remaining}, {count}")
        e.leave_if(e.let(f"icmp slt i64 {left}, 0"), ExitCode.BUDGET)
        e.line(f"store i64 {left}, ptr {pointer}, align 8")
        e.dispatch(e.let("getelementptr i8, ptr %record, i64 24"))
        define("count", e)
        return "\n".join(texts)

    def _translator(self) -> str:
        lengths = "\n".join(
            f"  %lm{i} = and i64 %window, {mask}\n"
            f"  %lc{i} = icmp eq i64 %lm{i}, {value}\n"
            f"  br i1 %lc{i}, label %known{i}, label %next{i}\n"
            f"known{i}:\n  ret i64 {nbytes}\nnext{i}:"
            for i, (mask, value, nbytes) in enumerate(self.architecture.lengths)
        )
        length = (
            "define internal i64 @aa_length(i64 %window) #0 {\nentry:\n"
            f"{lengths}\n  ret i64 {self.architecture.lengths[-1][2]}\n}}"
        )
        return length + TRANSLATOR_TEXT.format(
            **{f"t_{name}": offset for name, offset in TRANSLATOR_OFFSETS.items()},
            **{
                f"c_{name}": field_offset(name)
                for name in ("translator", "pc", "record", "stop")
            },
            exec=PAGE_EXEC,
            code=PAGE_CODE,
            hook=PAGE_HOOK,
            room=MAXIMUM_RECORD * (BLOCK_LIMIT + 4),
            limit=BLOCK_LIMIT,
            mask=(1 << TABLE_BITS) - 1,
            half=1 << (TABLE_BITS - 1),
            ends=ENDS,
            branches=BRANCHES,
            link=16 + LINK_NBYTES,
            flush=int(ExitCode.FLUSH),
        )


HASH_MULTIPLIER: Final = 0x9E3779B97F4A7C15


def hash_slots(keys: dict[int, int]) -> list[tuple[int, int]]:
    """An open-addressed table, at most a quarter full; empty slots have the key -1."""
    size = 1 << (4 * len(keys) + 4).bit_length()
    slots = [(-1, -1)] * size
    for key, value in keys.items():
        index = (key * HASH_MULTIPLIER & (1 << 64) - 1) >> (64 - (size.bit_length() - 1))
        while slots[index][0] != -1:
            index = (index + 1) % size
        slots[index] = key, value
    return slots


def _relative(number: int) -> str:
    """Distance of a handler from the table of sequences: blobs hold no absolute addresses."""
    if number < 0:
        return "0"
    return (
        f"trunc (i64 sub (i64 ptrtoint (ptr @h_{number} to i64), "
        "i64 ptrtoint (ptr @aa_sequences to i64)) to i32)"
    )


def with_status(body: str) -> str:
    """The body with an entry block; room for MXCSR where it is used."""
    status = "  %status = alloca i32, align 4\n" if "%status" in body else ""
    return f"entry:\n{status}{body}"


def declarations(text: str) -> str:
    """Declarations of the intrinsics that a text calls."""
    import re

    found: dict[str, str] = {}
    pattern = re.compile(r"call (\S+|<[^>]*>|\{[^}]*\}) (@llvm\.[\w.]+)\(")
    for match in pattern.finditer(text):
        name = match[2]
        if name in found:
            continue
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        arguments = _split_arguments(text[match.end() : end - 1])
        types = ", ".join(_type_of(argument) for argument in arguments)
        found[name] = f"declare {match[1]} {name}({types})"
    return "\n".join(found.values()) + "\n"


def _split_arguments(text: str) -> list[str]:
    result, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            result.append(text[start:index].strip())
            start = index + 1
    result.append(text[start:].strip())
    return [argument for argument in result if argument]


def _type_of(argument: str) -> str:
    if argument.startswith("<"):
        return argument[: argument.index(">") + 1]
    return argument.split()[0]


# A read of the register that the record before has written is linked: the fused handler takes the
# value from a host register. aa_fuse gives the longer sequence and makes it head's handler, or -1.
FUSION_TEXT: Final = """
@aa_sequences = internal constant [{slots} x {{ i64, i32, i32 }}] [{entries}]
@aa_links = internal constant [{count} x i32] [{rows}]

define internal i64 @aa_match(i64 %key, ptr %head) #0 {{
entry:
  %mixed = mul i64 %key, {multiplier}
  %first = lshr i64 %mixed, {shift}
  br label %loop
loop:
  %index = phi i64 [ %first, %entry ], [ %wrapped, %again ]
  %slot = getelementptr {{ i64, i32, i32 }}, ptr @aa_sequences, i64 %index
  %known = load i64, ptr %slot
  %same = icmp eq i64 %known, %key
  br i1 %same, label %found, label %other
other:
  %empty = icmp eq i64 %known, -1
  br i1 %empty, label %none, label %again
again:
  %following = add i64 %index, 1
  %wrapped = and i64 %following, {last}
  br label %loop
found:
  %np = getelementptr i8, ptr %slot, i64 8
  %number = load i32, ptr %np
  %op = getelementptr i8, ptr %slot, i64 12
  %offset = load i32, ptr %op
  %wide = sext i32 %offset to i64
  %handler = getelementptr i8, ptr @aa_sequences, i64 %wide
  store ptr %handler, ptr %head, align 8
  %result = zext i32 %number to i64
  ret i64 %result
none:
  ret i64 -1
}}

define internal i64 @aa_linked(i32 %links, i32 %shift, ptr %record, i16 %written) #0 {{
entry:
  %moved = lshr i32 %links, %shift
  %place = and i32 %moved, 255
  %absent = icmp eq i32 %place, 0
  br i1 %absent, label %no, label %compare
compare:
  %wide = zext i32 %place to i64
  %at = getelementptr i8, ptr %record, i64 %wide
  %read = load i16, ptr %at
  %same = icmp eq i16 %read, %written
  %result = zext i1 %same to i64
  ret i64 %result
no:
  ret i64 0
}}

define internal i64 @aa_fuse(i64 %sequence, ptr %head, i64 %pn, ptr %previous, i64 %number, ptr %record) #0 {{
entry:
  %fresh = icmp slt i64 %sequence, 0
  br i1 %fresh, label %none, label %link
none:
  ret i64 -1
link:
  %plp = getelementptr i32, ptr @aa_links, i64 %pn
  %pl = load i32, ptr %plp
  %place = and i32 %pl, 255
  %placed = zext i32 %place to i64
  %state = shl i64 %sequence, 32
  %base = or i64 %state, %number
  %nothing = icmp eq i32 %place, 0
  br i1 %nothing, label %plain, label %compare
compare:
  %wp = getelementptr i8, ptr %previous, i64 %placed
  %written = load i16, ptr %wp
  %lp = getelementptr i32, ptr @aa_links, i64 %number
  %l = load i32, ptr %lp
  %b0 = call i64 @aa_linked(i32 %l, i32 8, ptr %record, i16 %written)
  %b1 = call i64 @aa_linked(i32 %l, i32 16, ptr %record, i16 %written)
  %b2 = call i64 @aa_linked(i32 %l, i32 24, ptr %record, i16 %written)
  %m1 = shl i64 %b1, 1
  %m2 = shl i64 %b2, 2
  %m01 = or i64 %b0, %m1
  %mask = or i64 %m01, %m2
  %unlinked = icmp eq i64 %mask, 0
  br i1 %unlinked, label %plain, label %masked
masked:
  %high = shl i64 %mask, 24
  %key = or i64 %base, %high
  %found = call i64 @aa_match(i64 %key, ptr %head)
  %missed = icmp slt i64 %found, 0
  br i1 %missed, label %plain, label %done
done:
  ret i64 %found
plain:
  %r = call i64 @aa_match(i64 %base, ptr %head)
  ret i64 %r
}}
"""

# aa_translate(context, pc, flags, limit): flags bit 0 enters the block in the table, bit 1 ignores
# hooks. Gives the first record, or null when the arena is full. A block never leaves its page.
TRANSLATOR_TEXT: Final = """
define internal ptr @aa_lookup(ptr %context, i64 %pc) #0 {{
entry:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %record = load ptr, ptr %recordp
  %empty = icmp eq ptr %record, null
  br i1 %empty, label %absent, label %check
check:
  %key = load i64, ptr %slot
  %same = icmp eq i64 %key, %pc
  br i1 %same, label %found, label %again
again:
  %following = add i64 %probe, 1
  br label %loop
found:
  ret ptr %record
absent:
  ret ptr null
}}

define internal void @aa_insert(ptr %t, i64 %pc, ptr %record) #0 {{
entry:
  %tablep = getelementptr i8, ptr %t, i64 {t_table}
  %table = load ptr, ptr %tablep
  %shifted = lshr i64 %pc, 2
  br label %loop
loop:
  %probe = phi i64 [ %shifted, %entry ], [ %following, %again ]
  %index = and i64 %probe, {mask}
  %offset = shl i64 %index, 4
  %slot = getelementptr i8, ptr %table, i64 %offset
  %recordp = getelementptr i8, ptr %slot, i64 8
  %old = load ptr, ptr %recordp
  %empty = icmp eq ptr %old, null
  br i1 %empty, label %store, label %again
again:
  %following = add i64 %probe, 1
  br label %loop
store:
  store i64 %pc, ptr %slot
  store ptr %record, ptr %recordp
  %usedp = getelementptr i8, ptr %t, i64 {t_table_used}
  %used = load i64, ptr %usedp
  %more = add i64 %used, 1
  store i64 %more, ptr %usedp
  ret void
}}

define internal i64 @aa_window(i64 %pc, ptr %memory, ptr %flags, i64 %available) #0 {{
entry:
  %at = getelementptr i8, ptr %memory, i64 %pc
  %whole = icmp uge i64 %available, 8
  br i1 %whole, label %direct, label %partial
direct:
  %word = load volatile i64, ptr %at, align 1
  ret i64 %word
partial:
  br label %loop
loop:
  %i = phi i64 [ 0, %partial ], [ %next, %loop ]
  %sum = phi i64 [ 0, %partial ], [ %more, %loop ]
  %bytep = getelementptr i8, ptr %at, i64 %i
  %byte = load volatile i8, ptr %bytep
  %wide = zext i8 %byte to i64
  %shift = shl i64 %i, 3
  %placed = shl i64 %wide, %shift
  %more = or i64 %sum, %placed
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %available
  br i1 %done, label %end, label %loop
end:
  ret i64 %more
}}

define hidden ptr @aa_translate(ptr %context, i64 %pc, i64 %mode, i64 %limit, ptr %memory) #0 {{
entry:
  %tp = getelementptr i8, ptr %context, i64 {c_translator}
  %t = load ptr, ptr %tp
  %nextp = getelementptr i8, ptr %t, i64 {t_arena_next}
  %start = load ptr, ptr %nextp
  %endp = getelementptr i8, ptr %t, i64 {t_arena_end}
  %end = load i64, ptr %endp
  %startn = ptrtoint ptr %start to i64
  %room = sub i64 %end, %startn
  %full1 = icmp slt i64 %room, {room}
  %usedp = getelementptr i8, ptr %t, i64 {t_table_used}
  %used = load i64, ptr %usedp
  %full2 = icmp ugt i64 %used, {half}
  %countp = getelementptr i8, ptr %t, i64 {t_block_count}
  %blocks = load i64, ptr %countp
  %capp = getelementptr i8, ptr %t, i64 {t_block_capacity}
  %capacity = load i64, ptr %capp
  %full3 = icmp uge i64 %blocks, %capacity
  %full12 = or i1 %full1, %full2
  %full = or i1 %full12, %full3
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  store i64 %pc, ptr %pcp
  %crecp = getelementptr i8, ptr %context, i64 {c_record}
  store volatile i64 0, ptr %crecp
  br i1 %full, label %no, label %yes
no:
  ret ptr null
yes:
  %flagsp = getelementptr i8, ptr %t, i64 {t_page_flags}
  %flags = load ptr, ptr %flagsp
  %alp = getelementptr i8, ptr %t, i64 {t_address_limit}
  %address_limit = load i64, ptr %alp
  %cop = getelementptr i8, ptr %t, i64 {t_counting}
  %counting64 = load i64, ptr %cop
  %counting = icmp ne i64 %counting64, 0
  %ignore64 = and i64 %mode, 2
  %ignore = icmp ne i64 %ignore64, 0
  %first_page = lshr i64 %pc, 12
  br i1 %counting, label %count, label %loop
count:
  store ptr @aa_count, ptr %start
  %cpo = getelementptr i8, ptr %start, i64 8
  store i64 0, ptr %cpo
  %after_count = getelementptr i8, ptr %start, i64 24
  br label %loop
loop:
  %record = phi ptr [ %start, %yes ], [ %after_count, %count ], [ %record_next, %continue ]
  %cur = phi i64 [ %pc, %yes ], [ %pc, %count ], [ %cur_next, %continue ]
  %n = phi i64 [ 0, %yes ], [ 0, %count ], [ %n_next, %continue ]
  %sequence = phi i64 [ -1, %yes ], [ -1, %count ], [ %sequence_next, %continue ]
  %head = phi ptr [ %start, %yes ], [ %start, %count ], [ %head_next, %continue ]
  %previous = phi ptr [ %start, %yes ], [ %start, %count ], [ %record, %continue ]
  %previous_number = phi i64 [ 0, %yes ], [ 0, %count ], [ %number, %continue ]
  %delta = sub i64 %cur, %pc
  %delta16 = trunc i64 %delta to i16
  %offp = getelementptr i8, ptr %record, i64 8
  store i16 %delta16, ptr %offp
  %page = lshr i64 %cur, 12
  %moved = icmp ne i64 %page, %first_page
  %enough = icmp uge i64 %n, %limit
  %close = or i1 %moved, %enough
  br i1 %close, label %goto, label %bounds
bounds:
  %beyond = icmp uge i64 %cur, %address_limit
  br i1 %beyond, label %no_fetch, label %permitted
permitted:
  %flagp = getelementptr i8, ptr %flags, i64 %page
  %flag = load i8, ptr %flagp
  %x = and i8 %flag, {exec}
  %nx = icmp eq i8 %x, 0
  br i1 %nx, label %no_fetch, label %hooks
no_fetch:
  br label %fetch
hooks:
  %h = and i8 %flag, {hook}
  %hooked = icmp ne i8 %h, 0
  %notice = xor i1 %ignore, true
  %hook_now = and i1 %hooked, %notice
  br i1 %hook_now, label %hook, label %mark
hook:
  store ptr @aa_hook, ptr %record
  %hook_end = getelementptr i8, ptr %record, i64 16
  br label %done
mark:
  %c = and i8 %flag, {code}
  %fresh = icmp eq i8 %c, 0
  br i1 %fresh, label %mark_now, label %read
mark_now:
  %marked = or i8 %flag, {code}
  store i8 %marked, ptr %flagp
  br label %read
read:
  %inside = and i64 %cur, 4095
  %rest = sub i64 4096, %inside
  %next_page = add i64 %page, 1
  %next_start = shl i64 %next_page, 12
  %near = icmp ult i64 %rest, 8
  br i1 %near, label %edge, label %decode
edge:
  %edge_beyond = icmp uge i64 %next_start, %address_limit
  br i1 %edge_beyond, label %decode, label %edge_flags
edge_flags:
  %nflagp = getelementptr i8, ptr %flags, i64 %next_page
  %nflag = load i8, ptr %nflagp
  %nxx = and i8 %nflag, {exec}
  %nexec = icmp ne i8 %nxx, 0
  %rest2 = select i1 %nexec, i64 8, i64 %rest
  br label %decode
decode:
  %available = phi i64 [ %rest, %read ], [ %rest, %edge ], [ %rest2, %edge_flags ]
  %window = call i64 @aa_window(i64 %cur, ptr %memory, ptr %flags, i64 %available)
  %info = call i64 @aa_decode(i64 %window, i64 %cur, ptr %record)
  %none = icmp eq i64 %info, 0
  br i1 %none, label %unknown, label %known
unknown:
  %wanted = call i64 @aa_length(i64 %window)
  %cut = icmp ugt i64 %wanted, %available
  br i1 %cut, label %fetch_next, label %illegal
fetch_next:
  br label %fetch
illegal:
  store ptr @aa_illegal, ptr %record
  %illegal_end = getelementptr i8, ptr %record, i64 16
  br label %done
known:
  %nbytes16 = lshr i64 %info, 16
  %nbytes = and i64 %nbytes16, 255
  %short = icmp ugt i64 %nbytes, %available
  br i1 %short, label %fetch_next, label %accept
accept:
  store i16 %delta16, ptr %offp
  %straddles = icmp ugt i64 %nbytes, %rest
  br i1 %straddles, label %mark_next, label %advance
mark_next:
  %mnp = getelementptr i8, ptr %flags, i64 %next_page
  %mn = load i8, ptr %mnp
  %mnc = or i8 %mn, {code}
  store i8 %mnc, ptr %mnp
  br label %advance
advance:
  %number = lshr i64 %info, 32
  %longer = call i64 @aa_fuse(i64 %sequence, ptr %head, i64 %previous_number, ptr %previous, i64 %number, ptr %record)
  %alone = icmp slt i64 %longer, 0
  %sequence_next = select i1 %alone, i64 %number, i64 %longer
  %head_next = select i1 %alone, ptr %record, ptr %head
  %size = and i64 %info, 65535
  %record_next = getelementptr i8, ptr %record, i64 %size
  %cur_next = add i64 %cur, %nbytes
  %n_next = add i64 %n, 1
  %endbits = and i64 %info, {ends}
  %ending = icmp ne i64 %endbits, 0
  br i1 %ending, label %done_counted, label %maybe
maybe:
  %branchbits = and i64 %info, {branches}
  %branching = icmp ne i64 %branchbits, 0
  %close_counted = and i1 %branching, %counting
  br i1 %close_counted, label %goto_counted, label %continue
continue:
  br label %loop
goto_counted:
  %gdelta = sub i64 %cur_next, %pc
  %gdelta16 = trunc i64 %gdelta to i16
  %goffp = getelementptr i8, ptr %record_next, i64 8
  store i16 %gdelta16, ptr %goffp
  br label %goto
fetch:
  %bad = phi i64 [ %cur, %no_fetch ], [ %next_start, %fetch_next ]
  store ptr @aa_fetch, ptr %record
  store i16 %delta16, ptr %offp
  %badp = getelementptr i8, ptr %record, i64 16
  store i64 %bad, ptr %badp
  %fetch_end = getelementptr i8, ptr %record, i64 24
  br label %done
goto:
  %grec = phi ptr [ %record, %loop ], [ %record_next, %goto_counted ]
  %gpc = phi i64 [ %cur, %loop ], [ %cur_next, %goto_counted ]
  %gn = phi i64 [ %n, %loop ], [ %n_next, %goto_counted ]
  store ptr @aa_goto, ptr %grec
  %linkp = getelementptr i8, ptr %grec, i64 16
  %stub = getelementptr i8, ptr %grec, i64 24
  store ptr %stub, ptr %linkp
  store ptr @aa_resolve, ptr %stub
  %gpcp = getelementptr i8, ptr %grec, i64 32
  store i64 %gpc, ptr %gpcp
  %goto_end = getelementptr i8, ptr %grec, i64 {link}
  br label %done
done_counted:
  br label %done
done:
  %last = phi ptr [ %hook_end, %hook ], [ %illegal_end, %illegal ], [ %fetch_end, %fetch ], [ %goto_end, %goto ], [ %record_next, %done_counted ]
  %total = phi i64 [ %n, %hook ], [ %n, %illegal ], [ %n, %fetch ], [ %gn, %goto ], [ %n_next, %done_counted ]
  br i1 %counting, label %fill, label %commit
fill:
  %fillp = getelementptr i8, ptr %start, i64 16
  store i64 %total, ptr %fillp
  br label %commit
commit:
  store ptr %last, ptr %nextp
  %brp = getelementptr i8, ptr %t, i64 {t_block_records}
  %br = load ptr, ptr %brp
  %bpp = getelementptr i8, ptr %t, i64 {t_block_pcs}
  %bp = load ptr, ptr %bpp
  %bre = getelementptr i64, ptr %br, i64 %blocks
  store ptr %start, ptr %bre
  %bpe = getelementptr i64, ptr %bp, i64 %blocks
  store i64 %pc, ptr %bpe
  %blocks1 = add i64 %blocks, 1
  store i64 %blocks1, ptr %countp
  %keep64 = and i64 %mode, 1
  %keep = icmp ne i64 %keep64, 0
  br i1 %keep, label %insert, label %out
insert:
  call void @aa_insert(ptr %t, i64 %pc, ptr %start)
  br label %out
out:
  ret ptr %start
}}

define hidden i32 @aa_no_thunk(ptr %context, ptr %memory) #0 {{
  ret i32 1
}}

define hidden i32 @aa_resolve(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %pcp = getelementptr i8, ptr %record, i64 8
  %pc = load i64, ptr %pcp
  %known = call ptr @aa_lookup(ptr %context, i64 %pc)
  %missing = icmp eq ptr %known, null
  br i1 %missing, label %translate, label %patch
translate:
  %made = call ptr @aa_translate(ptr %context, i64 %pc, i64 1, i64 {limit}, ptr %memory)
  %full = icmp eq ptr %made, null
  br i1 %full, label %flush, label %patch
flush:
  ret i32 {flush}
patch:
  %target = phi ptr [ %known, %entry ], [ %made, %translate ]
  %linkp = getelementptr i8, ptr %record, i64 -8
  store atomic ptr %target, ptr %linkp release, align 8
  %handler = load ptr, ptr %target
  %r = musttail call i32 %handler(ptr noalias %context, ptr %target, ptr %memory)
  ret i32 %r
}}

define hidden i32 @aa_run(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  %pc = load i64, ptr %pcp
  %known = call ptr @aa_lookup(ptr %context, i64 %pc)
  %missing = icmp eq ptr %known, null
  br i1 %missing, label %translate, label %go
translate:
  %made = call ptr @aa_translate(ptr %context, i64 %pc, i64 1, i64 {limit}, ptr %memory)
  %full = icmp eq ptr %made, null
  br i1 %full, label %flush, label %go
flush:
  ret i32 {flush}
go:
  %target = phi ptr [ %known, %entry ], [ %made, %translate ]
  %handler = load ptr, ptr %target
  %r = musttail call i32 %handler(ptr noalias %context, ptr %target, ptr %memory)
  ret i32 %r
}}

define hidden i32 @aa_step(ptr noalias %context, ptr %record, ptr %memory) #0 {{
entry:
  %pcp = getelementptr i8, ptr %context, i64 {c_pc}
  %pc = load i64, ptr %pcp
  %made = call ptr @aa_translate(ptr %context, i64 %pc, i64 2, i64 1, ptr %memory)
  %full = icmp eq ptr %made, null
  br i1 %full, label %flush, label %go
flush:
  ret i32 {flush}
go:
  %handler = load ptr, ptr %made
  %r = musttail call i32 %handler(ptr noalias %context, ptr %made, ptr %memory)
  ret i32 %r
}}
"""
