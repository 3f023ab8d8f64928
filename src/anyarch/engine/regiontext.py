"""The LLVM function of a region.

Guest registers are values inside it. In the context they are exact at polls, system calls and
exits; at a fault only those that the convention keeps there, or in the precise form all. Every
access has a debug location, whose line is the index of the guest's pc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from anyarch.emit import floateffects, floats, tininess
from anyarch.emit.llvm import declarations
from anyarch.engine.accesstext import FIRST_LOCATION, SEGMENT
from anyarch.engine.adjacency import words
from anyarch.engine.convention import ATTRIBUTES, CALL, STACK_ALIGNMENT, STACK_POINTER, Place
from anyarch.engine.deferral import DEFERRED, Contents, Deferred, Group, Lane
from anyarch.engine.deferral import LIMIT as GROUP_LIMIT
from anyarch.engine.effects import leaves_after
from anyarch.engine.flowtext import FlowText, label_of
from anyarch.engine.pendingflags import INPUTS, settling
from anyarch.engine.regionflags import Kinds
from anyarch.engine.regionfloats import Result
from anyarch.engine.regions import Block, Occurrence
from anyarch.engine.regionsurvey import WayBack
from anyarch.engine.registertext import variable_of
from anyarch.engine.updates import find_update
from anyarch.host.context import ExitCode
from anyarch.ir.graph import Node

# Effects before which registers have to be the guest's.
_LEAVING: Final = frozenset("jump exit exception syscall set_rounding flags set_flags".split())
FIRST_TRACED: Final = 12  # the metadata of the first register whose place is in a table
_FIRST: Final = "begin"  # label of the first block, where loops come back to another of it
_CANONICAL: Final = 0x7FC00000  # the NaN of a register that holds no single
_HEADER: Final = f"""\
target triple = "x86_64-unknown-linux-gnu"
@cells = external hidden global [1 x ptr]
{ATTRIBUTES}
attributes #1 = {{ strictfp }}
!0 = !{{!"branch_weights", i32 1, i32 4000}}
!1 = !{{}}
!2 = !{{!"branch_weights", i32 1000, i32 1}}
!3 = !{{!"rsp"}}
!4 = !DIFile(filename: "guest", directory: "")
!5 = distinct !DICompileUnit(language: DW_LANG_C, file: !4, isOptimized: true, \
runtimeVersion: 0, emissionKind: FullDebug)
!6 = !{{i32 2, !"Debug Info Version", i32 3}}
!9 = {STACK_ALIGNMENT}
!7 = distinct !DISubprogram(name: "region", scope: !4, file: !4, type: !8, unit: !5, \
spFlags: DISPFlagDefinition)
!8 = !DISubroutineType(types: !1)
!10 = !DIBasicType(size: 64, encoding: DW_ATE_unsigned)
!11 = !DILocation(line: 0, scope: !7)
!llvm.dbg.cu = !{{!5}}
!llvm.module.flags = !{{!6, !9}}
"""


class RegionEmitter(FlowText):
    """Writes the module of a region; afterwards ``cells`` are the pcs that it is linked to, and
    ``pcs`` the guest addresses that lines of its debug information stand for, two each.

    ``precise`` writes each register to the context when it changes; ``masked`` takes ignored bits
    from pointers, else accesses through such fault. At the pcs in ``guarded`` LLVM
    is kept from merging a load with a store, or with what is made of its value: its place would be
    lost. The debug variables of the convention's ``traced`` registers, numbered from line 1, tell
    where these are: behind the accesses in ``held`` LLVM still needs what they hold, so that it is
    not made later or forgotten before; at those in ``untraced`` all kept registers are in the
    context. Where many are untraced those are stored as they change, as other kept ones.

    Its bases have the parts: registers (survey, flags, text), memory, control flow.
    """

    def text(self) -> str:
        """The module: the region's function, named ``region``."""
        for key, block in self.blocks.items():
            for copy in range(self.loops.copies(key)):
                self._block(block, label_of(key, copy), copy)
        if self.loops.is_inside(self.root):
            self.is_first = True
            self._block(self.blocks[self.root], _FIRST)
        for way, (label, kinds) in self.ways_back.items():
            self._poll_back(way, label, frozenset(kinds))
        blocks, self.lines = self.lines, []
        self._entry()
        body = "\n".join([*self.lines, *blocks, *self.shared])
        if "%status" in body:
            body = body.replace("entry:\n", "entry:\n  %status = alloca i32, align 4\n", 1)
        locations = [
            f"!{FIRST_LOCATION + index} = !DILocation(line: {index + 1}, scope: !7)"
            for index in range(2 * len(self.pcs))
        ]
        traced = [
            f'!{FIRST_TRACED + index} = !DILocalVariable(name: "r", arg: {index + 1}, scope: !7, '
            f"file: !4, line: {index + 1}, type: !10)"
            for index in range(len(self.traced))
        ]
        module = "\n".join(
            [
                _HEADER,
                *traced,
                *locations,
                *self.tables,
                f"define hidden {CALL} {self.convention.result} @region"
                f"({self.convention.parameters}) #2 !dbg !7 {{",
                body,
                "}",
                *self._flag_functions(body),
                tininess.text() if "@tiny_" in body else "",
            ]
        )
        return module + "\n" + declarations(module)

    def _flag_functions(self, body: str) -> Iterator[str]:
        if self.flag_use is not None and "@flags." in body:
            yield self.flag_use.text()
        if "@flags.settled(" in body:
            direct = self.compiler.direct
            context = "" if direct else self.convention.context()
            base = f"{SEGMENT} null" if direct else "ptr %context"
            file = self.registers.by_name[self.architecture.convention.flags]
            yield settling(file, self.convention.offset((file.name, 0)), context, base)

    def _entry(self) -> None:
        """Variables, and what is checked first; written after the blocks, which tell what."""
        self.here, self.block_key = self.blocks[self.root].instructions[0], self.root
        self.dirty, self.scalars, self.lazy, self.pending = set(), {}, {}, {}
        self.label("entry")
        variables = dict.fromkeys([*self.used, *self.convention.passed])
        if any(self._is_flag(place) for place in variables):
            self.line("%flags.kind = alloca ptr, align 8")
            for index in range(INPUTS):
                self.line(f"%flags.{index} = alloca i64, align 8")
        for index in self.carriers:
            self.line(f"{self._carrier(index)} = alloca i1, align 1")
        for place in variables:
            if self._is_flag(place):
                continue
            self.line(f"{variable_of(place)} = alloca {self._type(place)}, align 8")
            if place in self.traced:
                variable = f"!{FIRST_TRACED + self.traced.index(place)}"
                self.line(
                    f"#dbg_declare(ptr {variable_of(place)}, {variable}, !DIExpression(), !11)"
                )
            for fmt in self._formats(place):
                self.line(f"{variable_of(place)}.{fmt} = alloca {floats.TYPES[fmt]}, align 8")
        self.lines.append(STACK_POINTER if self.compiler.direct else self.convention.context())
        for index, place in enumerate(self.convention.passed, 1):
            self._put(place, f"%in.{index}")
        link = self.convention.link
        if link is not None:
            self._put(link, "%in.0")
        self._commit_exact()
        self._reload(self.used)
        # What only returns, and polls in its loops, ends soon and needs little stack.
        if self.goes_on:
            self._check_stack("%sp")
        self._check_mode(self.region.pc)
        self._check_scalars()
        for place, name in self.singles.items():
            self._take_single(place, name)
        self._carry_flags(self.root)
        first = _FIRST if self.loops.is_inside(self.root) else label_of(self.root)
        self.line(f"br label %{first}")

    def _block(self, block: Block, label: str, copy: int = 0) -> None:
        self.label(label)
        self.copy = copy
        self._begin(block)
        self.entries = {found.table.load: "" for found in block.instructions if found.table}
        exact = self.precise or self.float_rules == "arm"  # there every NaN tells its origin
        results = {} if exact else self.float_use.results(block)
        self.update = None if self.precise else find_update(block, self.registers)
        self.words, self.loaded_words, self.compositions = {}, {}, {}
        if not self.precise and not self.bounded and not self.entries:
            self.words = words(
                block.instructions,
                self._address_of,
                {*self.stored, *self.traced},
            )
        last = block.instructions[-1]
        for index, found in enumerate(block.instructions):
            self._show_numbers(index)
            self.result = results.get(index)
            self.canonical_nans = self.result is None
            if not self._instruction(found):
                return
            self.settled = self.ordering.step(found, self.settled)
        self._settle()
        self._show_numbers(len(block.instructions))
        self._go(last.next_pc)

    def _begin(self, block: Block) -> None:
        """What is known where a block begins."""
        self.block_key, self.holds_link = block.key, block.key in self.held_link
        self.dirty = set(self.entry_dirty[block.key])
        self.raised = {}
        self.known, self.loaded, self.pending, self.origins = {}, set(), {}, {}
        self.scalars = dict(self.entry_scalars[block.key])
        self.unwritten = set(self.entry_unwritten[block.key])
        self.lazy, self.implied = {}, {}
        self.settled = self.ordering.entry[block.key]
        self._take_flags(block.key)

    def _poll_back(self, way: WayBack, label: str, kinds: Kinds) -> None:
        """Poll on the way back to the head of a loop."""
        block = self.blocks[way.head]
        self.label(label)
        self._begin(block)
        self._enter(block.instructions[0])
        self.scalars = dict(way.scalars)
        self.lazy = {place: Result(fmt, None, frozenset()) for place, fmt in way.lazy}
        self.flag_kinds = kinds  # those that are carried are in their variables already
        self.overwritten = self._overwritten(way.head)
        self.dirty -= self.overwritten.keys()
        self.stop_poll(str(block.pc))
        self.overwritten = {}
        self._agree(way.head)
        self.line(f"br label %{label_of(way.head)}")

    def _instruction(self, found: Occurrence) -> bool:
        """Emit one instruction; whether control goes on behind it in this block."""
        self.here = found
        is_deferred = self._admits(found)
        if not is_deferred and self._must_settle(found):
            self._settle()
        self._enter(found)
        if not found.template.is_native:
            self.line(f"; reference engine: {found.form.name}")
            self._exit_to(found.pc)
            return False
        if is_deferred:
            self._defer(found)
        else:
            self.effects()
            for place, _ in self._vector_writes(found):
                self.group.owners.pop(place, None)
        if found.pc in self.held:
            for place in self.traced:
                self._hold(place)
        ended = any(
            effect.guard is None and effect.node.op in ("exit", "exception")
            for effect in self.graph.effects
            if not leaves_after(effect)
        )
        if ended or not self.jumps():
            return False
        self._learn(found)
        self.holds_link = self._holds_link(found, self.holds_link)
        if any(effect.node.op == "set_rounding" for effect in self.graph.effects):
            self._check_mode(found.next_pc)
        return self.finish()

    def _enter(self, found: Occurrence) -> None:
        self.here = found
        self._known = [{}]
        self.graph, self.constants = found.template.graph, found.template.constants

    def defer(self, node: Node, shape: floats.Shape, value: str) -> bool:
        if self.made is None:
            return False
        sources = [lane for arg in node.args for lane in self._lanes(arg, shape.size) if lane]
        self.made[node.number] = self.group.add(node, shape, value, sources)
        return True

    def _lanes(self, node: Node, size: int) -> list[Lane | None]:
        """The lanes of the group's results, of ``size`` bits, that a value is put together from."""
        result: list[Lane | None] = [None] * (node.size // size)
        made = None if self.made is None else self.made.get(node.number)
        if made is not None:
            known: list[Lane | None] = [(made, lane) for lane in range(made.shape.lanes)]
        elif node.op == "register":
            place = self._float_place(self.here, node)
            known = self.group.owners.get(place, []) if place is not None else []
        elif node.op == "zext":
            (low,) = node.args
            known = [*self._lanes(low, size), *result[low.size // size :]]
        elif node.op == "extract" and int(node.attrs[0]) % size == 0:
            lowest = int(node.attrs[0]) // size
            known = self._lanes(node.args[0], size)[lowest:][: len(result)]
        elif node.op == "velement" and node.size == size and node.args[1].number in self.constants:
            source = self._lanes(node.args[0], size)
            known = [source[self.here.constant(node.args[1]) % len(source)]]
        elif node.op == "vsplat":
            known = self._lanes(node.args[0], size) * (node.size // node.args[0].size)
        else:
            return result
        return known if len(known) == len(result) else result

    def _admits(self, found: Occurrence) -> bool:
        """Whether an instruction may run as one of a group: it only makes vector registers of such,
        by operations that are deferred or of what the group has made."""
        if not self.defers or not found.template.is_native:
            return False
        effects = found.template.graph.effects
        reads = self._vector_reads(found)
        if reads is None or any(effect.guard is not None for effect in effects):
            return False
        ops = {effect.node.op for effect in effects} - {"write"}
        writes = [effect.node for effect in effects if effect.node.op == "write"]
        if any(floateffects.may_leave(effect.node) for effect in effects):
            return False
        if not ops <= DEFERRED or any(self._float_place(found, node) is None for node in writes):
            return False
        return bool(ops) or any(place in self.group.owners for place in reads)

    def _must_settle(self, found: Occurrence) -> bool:
        """Whether an instruction of no group may see what the group has made, or leaves."""
        owners = self.group.owners
        if not self.group.instructions:
            return False
        if not found.template.is_native:
            return True
        effects = found.template.graph.effects
        leaves = any(
            effect.node.op in _LEAVING or floateffects.may_leave(effect.node) for effect in effects
        )
        if leaves or len(self.group.instructions) >= GROUP_LIMIT:
            return True
        guarded = any(
            effect.guard is not None and self._float_place(found, effect.node) in owners
            for effect in effects
            if effect.node.op == "write"
        )
        return guarded or any(
            node.op == "register" and self._float_place(found, node) in owners
            for node in found.template.graph.live()
        )

    def _vector_reads(self, found: Occurrence) -> set[Place] | None:
        """The vector registers that an instruction reads; None where it reads others."""
        result = set()
        for node in found.template.graph.live():
            if node.op == "register":
                place = self._float_place(found, node)
                if place is None:
                    return None
                result.add(place)
        return result

    def _vector_writes(self, found: Occurrence) -> list[tuple[Place, Node]]:
        result = []
        for effect in found.template.graph.effects:
            if effect.node.op == "write":
                place = self._float_place(found, effect.node)
                if place is not None:
                    result.append((place, effect.node.args[1]))
        return result

    def _defer(self, found: Occurrence) -> None:
        """Emit an instruction as one of the group."""
        if len(self.group.instructions) >= GROUP_LIMIT:
            self._settle()
            self._enter(found)
        sources = {}
        for place in sorted(self._vector_reads(found) or ()):
            if place not in self.group.owners:
                sources[place] = self.scalars.get(place, ""), self._contents(place)
        self.group.instructions.append(Deferred(found, sources))
        self.made = {}
        self.effects()
        owners = {
            place: next((lanes for size in (64, 32) if any(lanes := self._lanes(value, size))), [])
            for place, value in self._vector_writes(found)
        }
        self.group.owners |= owners
        self.group.written |= owners.keys()
        self.made = None

    def _contents(self, place: Place) -> Contents:
        """What the variables of a register hold."""
        wanted = []
        fmt = self.scalars.get(place)
        if fmt is not None:
            wanted.append((floats.TYPES[fmt], f"{variable_of(place)}.{fmt}"))
        if fmt is None or self._is_split(place):
            wanted.append((self._type(place), variable_of(place)))
        return [(t, name, self.let(f"load {t}, ptr {name}, align 8")) for t, name in wanted]

    def _settle(self) -> None:
        """Have all registers be the guest's: look at what was deferred, run it anew if need be."""
        group, self.group = self.group, Group()
        if not group.instructions:
            return
        here, scalars = self.here, dict(self.scalars)
        running, settled = self.name("anew"), self.name("settled")
        group.look(self, running)
        self.line(f"br label %{settled}")
        self.label(running)
        kept = [self._contents(place) for place in sorted(group.touched - group.owners.keys())]
        for each in group.instructions:
            for place, (fmt, contents) in each.sources.items():
                self._restore(contents)
                self.scalars.pop(place, None)
                if fmt:
                    self.scalars[place] = fmt
            self._enter(each.found)
            self.effects()
        for contents in kept:
            self._restore(contents)
        self.line(f"br label %{settled}")
        self.label(settled)
        self.scalars = scalars
        self._enter(here)

    def _restore(self, contents: Contents) -> None:
        for kind, name, value in contents:
            self.line(f"store {kind} {value}, ptr {name}, align 8")

    def _check_scalars(self) -> None:
        """What the first block takes for scalars: singles are checked once, at the entry."""
        for place, fmt in sorted(self.root_scalars.items()):
            kind, value = self._raw(place)
            size, number = self._size(place), floats.SIZES[fmt]
            bits = self.let(f"bitcast {kind} {value} to i{size}")
            if size == 64:
                boxed = self.let(f"icmp uge i64 {bits}, {-1 << 32}")
                staying, leaving = self.name("single"), self.name("double")
                self.line(f"br i1 {boxed}, label %{staying}, label %{leaving}, !prof !2")
                self.label(leaving)
                self.store_field("pc", str(self.region.pc))
                self.end(ExitCode.EMULATE)
                self.label(staying)
            t, low = floats.TYPES[fmt], self.let(f"trunc i{size} {bits} to i{number}")
            opaque = self.let(self._opaque(t, low))
            self.line(f"store {t} {opaque}, ptr {variable_of(place)}.{fmt}, align 8")

    def _take_single(self, place: Place, name: str) -> None:
        """What a register is as a single: a NaN unless it has ones above one."""
        kind, value = self._raw(place)
        bits = self.let(f"bitcast {kind} {value} to i64")
        boxed = self.let(f"icmp uge i64 {bits}, {-1 << 32}")
        low = self.let(f"trunc i64 {bits} to i32")
        single = self.let(f"select i1 {boxed}, i32 {low}, i32 {_CANONICAL}")
        self.line(f"{name} = {self._opaque('float', single)}")

    def _opaque(self, kind: str, bits: str) -> str:
        """A number from its bits, which LLVM would else keep in a general register in a loop."""
        size = floats.SIZES[{"float": "f32", "double": "f64"}[kind]]
        number = self.let(f"bitcast i{size} {bits} to {kind}")
        return f'call {kind} asm "", "=x,0"({kind} {number})'
