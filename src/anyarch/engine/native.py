"""The native interpreter: handlers, builders, decoder and translator as LLVM text.

Several modules per architecture and variant, compiled once by processes of their own; linked and
cached as a flat blob. The translator reads
guest code, decodes it with the tree of ``isa.decoder`` and builds records up to the end of a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from anyarch.emit.blob import Blob
from anyarch.emit.compile import Module, compile_object, compile_objects, link
from anyarch.emit.llvm import Emitter, declarations
from anyarch.engine.blockcode import HANDLER_PREFIX
from anyarch.engine.convention import STACK_ALIGNMENT, RegionConvention
from anyarch.engine.effects import runs_in_reference
from anyarch.engine.fusion import fusion_text
from anyarch.engine.handlers import HandlerEmitter
from anyarch.engine.records import (
    LINK_NBYTES,
    BuilderEmitter,
    RecordLayout,
    call_of,
    field_offset,
    lay_out,
    record_constants,
)
from anyarch.engine.templates import (
    OUTSIDE,
    Template,
    TemplateEmitter,
    assemble_templates,
    template_text,
)
from anyarch.engine.translator import BRANCHES, ENDS, MAXIMUM_RECORD, translator_text
from anyarch.errors import DefinitionError
from anyarch.host.context import REGISTERS, ExitCode
from anyarch.ir.graph import Graph
from anyarch.ir.rewrite import optimise
from anyarch.isa.architecture import Architecture
from anyarch.isa.decoder import Switch, Tree
from anyarch.isa.instruction import Form, Instruction

_HEADER = [
    '!0 = !{!"branch_weights", i32 1, i32 4000}',
    "!1 = !{}",
    '!2 = !{!"branch_weights", i32 1000, i32 1}',
    '!3 = !{!"rsp"}',
    f"!4 = {STACK_ALIGNMENT}",
    "!llvm.module.flags = !{!4}",
    'attributes #0 = { nounwind strictfp "no-stack-arg-probe" }',
    "attributes #1 = { strictfp }",
]


_MODULE_SIZE = 400_000  # characters of a module's text
Item = TypeVar("Item")


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
    """Generates the modules of one architecture."""

    architecture: Architecture
    bounded: bool
    handlers: dict[str, Handler] = field(default_factory=dict)
    by_name: dict[str, Handler] = field(default_factory=dict)
    builders: dict[str, str] = field(default_factory=dict)  # body to name
    leaves: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # builder, handler, info
    # Fused sequences of (handler, link mask), with their own numbers after the handlers'.
    sequences: dict[tuple[tuple[int, int], ...], int] = field(default_factory=dict)

    def build(
        self,
        runtime: str,
        jobs: int = 1,
        progress: Callable[[int, int], None] = lambda done, count: None,
    ) -> Blob:
        """Compile everything, by as many processes as ``jobs`` says, with the text of what runs it.

        ``progress`` is told how many of the modules are compiled. What is made does not depend on
        ``jobs``. Imports the compiler.
        """
        parts = self._parts(runtime)
        groups = list(split(self._templates(), lambda template: len(template.body)))
        parts += (Module(template_text(group, _HEADER), static=True) for group in groups)
        count = len(parts) + 1
        objects = compile_objects(parts, jobs, lambda done: progress(done, count))
        compiled = zip(groups, objects[len(parts) - len(groups) :], strict=True)
        tables = assemble_templates(compiled, self._heads, self._goto + 1)
        objects[len(parts) - len(groups) :] = [
            compile_object("\n".join([*_HEADER, tables, declarations(tables)]))
        ]
        progress(count, count)
        return link(objects)

    def _parts(self, runtime: str) -> list[Module]:
        """The modules: decoder, builders and translator; then handlers."""
        decoder = self._decoder()
        handlers = [*self.handlers_text(), *self._fused_text()]
        parts = [
            *_HEADER,
            *(
                f"declare hidden i32 @h_{number}(ptr noalias, ptr, ptr)"
                for number in range(len(self.handlers) + len(self.sequences))
            ),
            "declare hidden i1 @aa_code_full(ptr)",
            "declare hidden void @aa_assemble(ptr, ptr, ptr, i64, i1)",
            *(
                f"define internal void @{name}(i64 %word, i64 %pc, ptr %record) #0 "
                f"{{\nentry:\n{body}\n  ret void\n}}"
                for body, name in self.builders.items()
            ),
            decoder,
            fusion_text(self.sequences, [handler.layout for handler in self.handlers.values()]),
            self._internal(),
            RegionConvention(self.architecture).text(),
            translator_text(self.architecture.lengths, self._noted()),
        ]
        text = runtime + "\n".join(parts) + "\n"
        texts = [text + declarations(text)]
        for group in split(handlers, len):
            body = "\n".join([*_HEADER, *OUTSIDE, *group])
            texts.append(body + "\n" + declarations(body))
        return [Module(text) for text in texts]

    def _noted(self) -> tuple[int, int]:
        """Registers that may lead to jump tables: offset in the context, and how many."""
        layout, link = self.architecture.layout, self.architecture.convention.link
        if link is None:
            return REGISTERS, 1
        return REGISTERS + layout.offset(link[0], 0), layout.by_name[link[0]].count

    def handlers_text(self) -> list[str]:
        """Definitions of all handlers."""
        result = []
        for handler in self.handlers.values():
            result.append(
                f"; {', '.join(handler.names)}\n"
                f"define hidden i32 @h_{handler.number}(ptr noalias %context, ptr %record, "
                f"ptr %memory) #0 {_prefix(handler.number + 1)} {{\n{handler.body}\n}}"
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
                f" #0 {_prefix(number + 1)} {{\n{body}\n}}"
            )
        return result

    def _sequence_body(self, handlers: list[tuple[Handler, int]]) -> str:
        def emitter(handler: Handler, index: int, record: str, offset: int) -> HandlerEmitter:
            return HandlerEmitter(
                handler.graph,
                handler.layout,
                handler.constants,
                self.architecture,
                bounded=self.bounded,
                record=record,
                prefix=f"s{index}",
            )

        def go_on(emitter: HandlerEmitter, record: str) -> None:
            emitter.dispatch(record)

        return _body(handlers, emitter, go_on)

    def _templates(self) -> list[Template]:
        """The templates of all handlers and sequences."""
        by_number = {handler.number: handler for handler in self.handlers.values()}
        made = [
            self._template(number + 1, [(handler, 0)])
            for number, handler in by_number.items()
            if not runs_in_reference(handler.graph)
        ]
        for sequence, number in self.sequences.items():
            handlers = [(by_number[n], mask) for n, mask in sequence]
            template = self._template(number + 1, handlers)
            if any(mask for _, mask in sequence) and template.accesses <= 1:  # there is a gain
                made.append(template)
        e = self._template_emitter(Graph("goto"), RecordLayout(), set())
        e.follow_link(16)
        body = with_status("\n".join(e.lines))
        made.append(Template(self._goto, body, 16 + LINK_NBYTES))
        return made

    @property
    def _heads(self) -> dict[int, int]:
        """By row of a sequence, that of its first handler."""
        return {number + 1: sequence[0][0] + 1 for sequence, number in self.sequences.items()}

    @property
    def _goto(self) -> int:
        """The row of what ends a block that goes on elsewhere."""
        return len(self.handlers) + len(self.sequences) + 1

    def _template(self, number: int, handlers: list[tuple[Handler, int]]) -> Template:
        emitters: list[TemplateEmitter] = []

        def make(handler: Handler, index: int, record: str, offset: int) -> HandlerEmitter:
            made = self._template_emitter(
                handler.graph, handler.layout, handler.constants, record, f"s{index}", offset
            )
            emitters.append(made)
            return made

        def go_on(emitter: HandlerEmitter, record: str) -> None:
            emitters[-1].go_on()

        body = _body(handlers, make, go_on)
        accessing = [made.start for made in emitters if made.accesses]
        nbytes = sum(handler.nbytes for handler, _ in handlers)
        return Template(number, body, nbytes, len(accessing), *accessing[:1])

    def _template_emitter(
        self,
        graph: Graph,
        layout: RecordLayout,
        constants: set[int],
        record: str = "%record",
        prefix: str = "",
        start: int = 0,
    ) -> TemplateEmitter:
        made = TemplateEmitter(
            graph,
            layout,
            constants,
            self.architecture,
            bounded=self.bounded,
            record=record,
            prefix=prefix,
        )
        made.start = start
        return made

    def handler(self, form: Form) -> Handler:
        """The handler of a form, shared with all forms of equal meaning."""
        graph = optimise(form.trace(self.architecture.layout))
        graph.verify()
        constants = record_constants(graph)
        call = call_of(graph, constants, self.architecture)
        layout = lay_out(graph, constants, form.instruction.row.nbytes, call)
        emitter = HandlerEmitter(graph, layout, constants, self.architecture, bounded=self.bounded)
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
        branches = ends or bool(ops & {"jump", "syscall", "exit"})
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
        self,
        e: Emitter,
        instruction: Instruction,
        forms: list[Form],
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

        def define(name: str, e: HandlerEmitter, row: int = 0) -> None:
            texts.append(
                f"define hidden i32 @aa_{name}(ptr noalias %context, ptr %record, ptr %memory)"
                f" #0 {_prefix(row)} {{\n{with_status(chr(10).join(e.lines))}\n}}"
            )

        e = handler("goto")
        e.follow_link(16)
        define("goto", e, self._goto)
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
        remaining = e.let(f"load i64, {pointer}, align 8")
        left = e.let(f"sub i64 {remaining}, {count}")
        e.leave_if(e.let(f"icmp slt i64 {left}, 0"), ExitCode.BUDGET)
        e.line(f"store i64 {left}, {pointer}, align 8")
        e.dispatch(e.let("getelementptr i8, ptr %record, i64 24"))
        define("count", e)
        return "\n".join(texts)


def split(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Runs of items, each with some text: as much as is worth a module of its own."""
    group: list[Item] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total > _MODULE_SIZE:
            yield group
            group, total = [], 0
    if group:
        yield group


def with_status(body: str) -> str:
    """The body with an entry block; room for MXCSR where it is used."""
    status = "  %status = alloca i32, align 4\n" if "%status" in body else ""
    return f"entry:\n{status}{body}"


def _prefix(row: int) -> str:
    """What is before a handler: which template does the same; 0 for none."""
    return f"prefix [{HANDLER_PREFIX // 4} x i32] [i32 {row}, i32 0, i32 0, i32 0]"


def _body(
    handlers: list[tuple[Handler, int]],
    make: Callable[[Handler, int, str, int], HandlerEmitter],
    go_on: Callable[[HandlerEmitter, str], None],
) -> str:
    """Several handlers' bodies as one; ``make`` gives the emitter of each by its index, record and
    the record's offset, ``go_on`` continues with the record behind the last."""
    lines: list[str] = []
    record, block, offset = "%record", "entry", 0
    written: str | None = None
    for index, (handler, mask) in enumerate(handlers):
        emitter = make(handler, index, record, offset)
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
                go_on(emitter, record)
                lines += emitter.lines
    return with_status("\n".join(lines))
