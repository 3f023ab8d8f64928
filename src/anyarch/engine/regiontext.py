"""The LLVM function of a region.

Guest registers are values inside it. In the context they are exact at polls, system calls and
exits; at a fault only those that the convention keeps there, or in the precise form all. Every
access has a debug location, whose line is the index of the guest's pc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from typing import Final

from anyarch.emit import floats, tininess
from anyarch.emit.llvm import declarations
from anyarch.engine.arena import REGION_TABLE_BITS as TABLE_BITS
from anyarch.engine.bundle import CALLS
from anyarch.engine.convention import (
    ATTRIBUTES,
    CALL,
    OFFSET_BITS,
    STACK_ALIGNMENT,
    STACK_POINTER,
    VECTOR_TYPES,
    Place,
    RegionConvention,
)
from anyarch.engine.deferral import DEFERRED, Check, Contents, Deferred, Group
from anyarch.engine.deferral import LIMIT as GROUP_LIMIT
from anyarch.engine.folding import Folding
from anyarch.engine.jumptables import Table
from anyarch.engine.records import (
    HandlerEmitter,
    RecordLayout,
    field_offset,
    leaves_after,
    uses_rounding,
)
from anyarch.engine.regionflags import INPUTS, PACKED, FlagUse, emit_kind, pack, unpack
from anyarch.engine.regionfloats import FloatUse, Result, Scalars, register_of, scalar_of
from anyarch.engine.regions import (
    ROOT,
    Block,
    Key,
    Occurrence,
    Region,
    RegionCompiler,
    loops,
)
from anyarch.host.context import REGISTERS, ExitCode
from anyarch.ir.graph import Graph, Node

_SEGMENT: Final = "ptr addrspace(256)"  # relative to gs
_FIRST_LOCATION: Final = 20
POLLED_ARMS: Final = 4  # of a jump table that lead backwards and poll on their own
_NAME: Final = re.compile(r"%[\w.]+")
# Effects before which registers have to be the guest's.
_LEAVING: Final = floats.EMULATED.union(
    "jump exit exception syscall set_rounding flags set_flags".split()
)
_STEPS: Final = 5  # from a load to what LLVM may merge it into
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
runtimeVersion: 0, emissionKind: LineTablesOnly)
!6 = !{{i32 2, !"Debug Info Version", i32 3}}
!9 = {STACK_ALIGNMENT}
!7 = distinct !DISubprogram(name: "region", scope: !4, file: !4, type: !8, unit: !5, \
spFlags: DISPFlagDefinition)
!8 = !DISubroutineType(types: !1)
!llvm.dbg.cu = !{{!5}}
!llvm.module.flags = !{{!6, !9}}
"""


class RegionEmitter(HandlerEmitter):
    """Writes the module of a region; afterwards ``cells`` are the pcs that it is linked to, and
    ``pcs`` the guest addresses that lines of its debug information stand for, from line 1.

    ``precise`` writes each register to the context when it changes. At the pcs in ``guarded`` LLVM
    is kept from merging a load with a store, or with what is made of its value: its place would be
    lost.
    """

    decides_tininess = True
    polled = "i32"  # the field `stop` alone: what is compiled need not be noted

    def __init__(
        self,
        compiler: RegionCompiler,
        region: Region,
        *,
        precise: bool = False,
        guarded: Set[int] = frozenset(),
    ) -> None:
        super().__init__(
            Graph("region"),
            RecordLayout(),
            set(),
            compiler.architecture,
            bounded=compiler.bounded,
        )
        self.compiler, self.region, self.blocks = compiler, region, region.blocks
        self.convention = RegionConvention(compiler.architecture)
        self.precise, self.guarded = precise, guarded
        self.cells: list[int] = []
        self.goes_on = False  # to other code, other than by returning
        self.pcs: list[int] = []
        self.tables: list[str] = []
        self.answers: dict[object, str] = {}  # labels of blocks that leave at polls
        self.shared: list[str] = []  # their lines
        self.root: Key = (ROOT, region.pc)
        self.here: Occurrence = self.blocks[self.root].instructions[0]
        self.block_key: Key = self.root
        self.in_context = {self.status.rounding[0]} if self.status else set()
        self.used: dict[Place, None] = {}
        self.entry_dirty: dict[Key, set[Place]] = {}
        self.eager: set[Place] = set()  # written to the context at once
        self.vector_files = {file for file, _ in self.architecture.convention.vectors}
        self.rounds = any(
            uses_rounding(found.template.graph, self.float_rules)
            for block in self.blocks.values()
            for found in block.instructions
        )
        self.flag_use: FlagUse | None = None
        if self.architecture.convention.flags and not precise:
            file = self.registers.by_name[self.architecture.convention.flags]
            self.flag_use = FlagUse(self.blocks, file, self.root, self._forgets)
        self.flags_kind: int | None = PACKED  # None where it is a variable
        self.flag_values: dict[int, str] = {}  # that this block has computed
        self._survey()
        self._survey_floats()
        self.dirty: set[Place] = set()
        self.defers = not precise and not self.bounded and self.float_rules == "arm"
        self.group = Group()  # of floating-point results that are looked at later
        self.made: dict[int, Check] | None = None  # results of an instruction of the group, by node
        self.result: Result | None = None  # of the instruction, if its NaN may stay as it is
        self.scalars: Scalars = {}  # registers whose variable is that of a number alone
        self.pending: dict[Place, None] = {}  # kept registers that the context does not have yet
        self.known: dict[Place, int] = {}  # registers that hold a constant in this block
        self.loaded: set[tuple[Place, int]] = set()  # addresses (register, offset) loaded from
        self.entries: dict[int, str] = {}  # by pc: where a jump table's entry was loaded from
        # Values and variables that hold what was loaded, or something made of it: the debug
        # location of that load, and in how many steps.
        self.origins: dict[str, tuple[str, int]] = {}

    # Which registers.
    def _is_zero(self, file: str, number: int) -> bool:
        return number == self.registers.by_name[file].zero

    def _survey(self) -> None:
        """Registers that each block reads or writes; what may be dirty where a block begins."""
        gains: dict[Key, set[Place]] = {}
        cleans: dict[Key, bool] = {}
        for key, block in self.blocks.items():
            written: set[Place] = set()
            clean = False
            for found in block.instructions:
                if not found.template.is_native:
                    written, clean = set(), True
                    continue
                for node in found.template.live:
                    if node.op in ("register", "write"):
                        number = found.constant(node.args[0])
                        file = str(node.attrs[0])
                        if file in self.in_context or self._is_zero(file, number):
                            continue
                        place = self.registers.place(file, number)
                        self.used[place] = None
                        if node.op == "write" and self._gets_dirty(place):
                            written.add(place)
                if self._forgets(found):
                    written, clean = set(), True
            gains[key], cleans[key] = written, clean
        self.entry_dirty = {key: set() for key in self.blocks}
        work = list(self.blocks)
        while work:
            key = work.pop()
            out = gains[key] | (set() if cleans[key] else self.entry_dirty[key])
            for successor in self.blocks[key].successors:
                if successor in self.entry_dirty and not out <= self.entry_dirty[successor]:
                    self.entry_dirty[successor] |= out
                    work.append(successor)
        self._survey_loops(gains)

    def _survey_loops(self, gains: dict[Key, set[Place]]) -> None:
        """What is written before loops and never in them goes to the context at once: else it would
        occupy host registers all through the loops, for the sake of the region's end."""
        looping = loops(self.blocks)
        lasting: set[Place] = set().union(*(self.entry_dirty[key] for key in looping))
        in_loops: set[Place] = set().union(*(gains[key] for key in looping))
        self.eager = {
            place
            for place in lasting - in_loops
            if place[0] not in self.vector_files and not self._is_flag(place)
        }
        for dirty in self.entry_dirty.values():
            dirty -= self.eager

    def _survey_floats(self) -> None:
        self.float_use = FloatUse(
            self.blocks,
            self._float_place,
            self._forgets,
            accesses_leave=self.bounded,
        )
        self.root_scalars = self.float_use.needed(self.root)
        self.entry_scalars = self.float_use.scalars(self.root, self.root_scalars)
        self.lazy: dict[Place, Result] = {}  # registers with a NaN not canonical yet
        # By register: others, not canonical yet, that hold no NaN where it holds none.
        self.implied: dict[Place, set[Place]] = {}

    def _float_place(self, found: Occurrence, node: Node) -> Place | None:
        """The register that a node reads or writes, where scalars are held in such."""
        file = str(node.attrs[0])
        if file not in self.vector_files:
            return None
        return self.registers.place(file, found.constant(node.args[0]))

    def _forgets(self, found: Occurrence) -> bool:
        """Whether registers come anew from elsewhere after an instruction."""
        ops = {effect.node.op for effect in found.template.graph.effects}
        is_call = self.compiler.links(found) is not None and not found.is_inlined
        return "syscall" in ops or is_call

    def _gets_dirty(self, place: Place) -> bool:
        """Whether a write leaves the context behind, without the convention taking care of it."""
        return not (
            self.precise
            or place in self.eager
            or place in self.convention.types
            or place in self.convention.kept
        )

    # The module.
    def text(self) -> str:
        """The module: the region's function, named ``region``."""
        for block in self.blocks.values():
            self._block(block)
        blocks, self.lines = self.lines, []
        self._entry()
        body = "\n".join([*self.lines, *blocks, *self.shared])
        if "%status" in body:
            body = body.replace("entry:\n", "entry:\n  %status = alloca i32, align 4\n", 1)
        locations = [
            f"!{_FIRST_LOCATION + index} = !DILocation(line: {index + 1}, scope: !7)"
            for index in range(len(self.pcs))
        ]
        module = "\n".join(
            [
                _HEADER,
                *locations,
                *self.tables,
                f"define hidden {CALL} {self.convention.result} @region"
                f"({self.convention.parameters}) #2 !dbg !7 {{",
                body,
                "}",
                self.flag_use.text() if self.flag_use is not None and "@flags(" in body else "",
                tininess.text() if "@tiny_" in body else "",
            ]
        )
        return module + "\n" + declarations(module)

    def _entry(self) -> None:
        """Variables, and what is checked first; written after the blocks, which tell what."""
        self.here, self.block_key = self.blocks[self.root].instructions[0], self.root
        self.dirty, self.scalars, self.lazy, self.pending = set(), {}, {}, {}
        self.label("entry")
        variables = dict.fromkeys([*self.used, *self.convention.passed])
        if any(self._is_flag(place) for place in variables):
            for name in ("kind", *range(INPUTS)):
                self.line(f"%flags.{name} = alloca i64, align 8")
        for place in variables:
            if self._is_flag(place):
                continue
            self.line(f"{_variable(place)} = alloca {self._type(place)}, align 8")
            for fmt in self._formats(place):
                self.line(f"{_variable(place)}.{fmt} = alloca {floats.TYPES[fmt]}, align 8")
        self.lines.append(STACK_POINTER if self.compiler.direct else self.convention.context())
        for index, place in enumerate(self.convention.passed, 1):
            self._put(place, f"%in.{index}")
        if self.precise:
            self._commit_passed()
        link = self.convention.link
        if link in self.used and link is not None:
            self._put(link, "%in.0")
        self._reload(place for place in self.used if place != link)
        # What only returns, and polls in its loops, ends soon and needs little stack.
        if self.goes_on:
            self._check_stack("%sp")
        self._check_mode(self.region.pc)
        self._check_scalars()
        self.line(f"br label %{_label(self.root)}")

    def _block(self, block: Block) -> None:
        self.label(_label(block.key))
        self.block_key = block.key
        self.dirty = set(self.entry_dirty[block.key])
        self.known, self.loaded, self.pending, self.origins = {}, set(), {}, {}
        self.entries = {found.table.load: "" for found in block.instructions if found.table}
        self.scalars = dict(self.entry_scalars[block.key])
        if self.flag_use is not None:
            self.flags_kind, self.flag_values = self.flag_use.entry.get(block.key), {}
        exact = self.precise or self.float_rules == "arm"  # there every NaN tells its origin
        results = {} if exact else self.float_use.results(block)
        self.lazy, self.implied = {}, {}
        last = block.instructions[-1]
        for index, found in enumerate(block.instructions):
            self._show_numbers(index)
            self.result = results.get(index)
            self.canonical_nans = self.result is None
            if not self._instruction(found):
                return
        self._settle()
        self._show_numbers(len(block.instructions))
        self._go(last.next_pc)

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
        ended = any(
            effect.guard is None and effect.node.op in ("exit", "exception")
            for effect in self.graph.effects
            if not leaves_after(effect)
        )
        if ended or not self.jumps():
            return False
        self._learn(found)
        if any(effect.node.op == "set_rounding" for effect in self.graph.effects):
            self._check_mode(found.next_pc)
        return self.finish()

    def _enter(self, found: Occurrence) -> None:
        self.here = found
        self._known = [{}]
        self.graph, self.constants = found.template.graph, found.template.constants

    # Floating-point results that are looked at later: see engine.deferral.
    def defer(self, node: Node, shape: floats.Shape, value: str) -> bool:
        if self.made is None:
            return False
        for arg in node.args:
            self._cover(arg, shape)
        check = Check(shape, value, floats.may_be_tiny(node))
        self.made[node.number] = check
        self.group.checks.append(check)
        return True

    def _cover(self, node: Node, shape: floats.Shape) -> None:
        """What an operand was made of shows its NaNs in the result."""
        if node.op == "vsplat" and node.args[0].op == "velement":
            source, index = node.args[0].args
            if index.number in self.constants and self.here.constant(index) == 0:
                node, shape = source, floats.Shape(shape.fmt)
        register = node if node.op == "register" else register_of(node)
        if register is None:
            return
        place = self._float_place(self.here, register)
        owner = None if place is None else self.group.owners.get(place)
        if owner is not None and owner.shape == shape:
            owner.is_covered = True

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
        ops = {effect.node.op for effect in effects}
        if ops & _LEAVING or len(self.group.instructions) >= GROUP_LIMIT:
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
        for place, value in self._vector_writes(found):
            scalar = scalar_of(value)
            number = value if scalar is None else scalar[0]
            self.group.owners[place] = self.made.get(number.number)
            self.group.written.add(place)
        self.made = None

    def _contents(self, place: Place) -> Contents:
        """What the variables of a register hold."""
        wanted = []
        fmt = self.scalars.get(place)
        if fmt is not None:
            wanted.append((floats.TYPES[fmt], f"{_variable(place)}.{fmt}"))
        if fmt is None or self._is_split(place):
            wanted.append((self._type(place), _variable(place)))
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

    # Values.
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
        if node.op in ("extract", "velement") and node.size in (32, 64):
            return self._element(node)
        return super().value(node)

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
        return f"ptr {_variable(self.registers.place(file, number))}"

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
            super()._write(node)
        if file in self.in_context:
            return
        self.loaded = {address for address in self.loaded if address[0] != place}
        if self._gets_dirty(place):
            self.dirty.add(place)
        elif place in self.convention.kept and not self.precise:
            self.pending[place] = None
        elif self.precise or place in self.eager:
            value = self.value(node.args[1])
            size = node.args[1].size
            pointer = self.context(self.convention.offset(place))
            order = "volatile " if self.precise else ""
            self.line(f"store {order}i{size} {value}, {pointer}, align 8")

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
            self.line(f"store {kind} {content}, ptr {_variable(place)}.{fmt}, align 8")
            if self._is_split(place):
                t = self._type(place)
                self.line(f"store {t} zeroinitializer, ptr {_variable(place)}, align 8")
            self.scalars[place] = fmt
            return
        self.scalars.pop(place, None)
        kind = self._type(place)
        bits = self.let(f"bitcast i{value.size} {self.value(value)} to {kind}")
        self.line(f"store {kind} {bits}, ptr {_variable(place)}, align 8")

    def _commit(self) -> None:
        for effect in self.graph.effects:
            if effect.node.op == "write" and effect.guard is not None:
                place = self._float_place(self.here, effect.node)
                if place in self.scalars and place is not None:
                    self._box(place)
        super()._commit()
        if self.flag_use is not None and self.flag_use.sets(self.here):
            self._keep_flags(self.flag_use)

    # Flags.
    def _is_flag(self, place: Place) -> bool:
        return self.flag_use is not None and place[0] == self.flag_use.file.name

    def _keep_flags(self, use: FlagUse) -> None:
        """Keep what the flags are made of, after all values of the instruction are known."""
        kind = use.kind(self.here)
        if kind is not None:
            for index, node in enumerate(kind.inputs):
                value = self.value(node)
                wide = value if node.size == 64 else self.let(f"zext i{node.size} {value} to i64")
                self.line(f"store i64 {wide}, ptr %flags.{index}, align 8")
            self.line(f"store i64 {kind.number}, ptr %flags.kind, align 8")
            self.flags_kind = kind.number
            self.flag_values = {i: self.value(node) for i, node in enumerate(kind.values)}
            return
        values = {index: self._flag(index) for index in range(use.file.count)}
        for effect in self.graph.effects:
            if effect.node.op == "write" and effect.node.attrs[0] == use.file.name:
                index = self.here.constant(effect.node.args[0])
                value = self.value(effect.node.args[1])
                if effect.guard is not None:
                    guard = self.value(effect.guard)
                    value = self.let(f"select i1 {guard}, i8 {value}, i8 {values[index]}")
                values[index] = value
        self._put_flags(pack(self, [values[index] for index in range(use.file.count)]))
        self.flag_values = values

    def _put_flags(self, word: str) -> None:
        """Set the flags, packed."""
        self.line(f"store i64 {word}, ptr %flags.0, align 8")
        self.line(f"store i64 {PACKED}, ptr %flags.kind, align 8")
        self.flags_kind, self.flag_values = PACKED, {}

    def _flag(self, index: int) -> str:
        """The value of a flag."""
        if index in self.flag_values:
            return self.flag_values[index]
        values = self._all_flags()
        if len(self._known) == 1:
            self.flag_values = dict(enumerate(values))
        return values[index]

    def _all_flags(self) -> list[str]:
        """The values of all flags."""
        assert self.flag_use is not None
        count = self.flag_use.file.count
        if len(self.flag_values) == count:
            return [self.flag_values[index] for index in range(count)]
        if not self.flags_kind:
            word = self._packed_flags()
            return [unpack(self, word, index) for index in range(count)]
        outer, self._known = self._known, [{}]
        constants, self.constants = self.constants, set()
        kind = self.flag_use.kinds[self.flags_kind - 1]
        values = emit_kind(self, kind, self._flag_inputs())
        self._known, self.constants = outer, constants
        return values

    def _flag_inputs(self) -> list[str]:
        return [self.let(f"load i64, ptr %flags.{i}, align 8") for i in range(INPUTS)]

    def _packed_flags(self, *, rare: bool = False) -> str:
        """All flags in one word; ``rare`` where code should rather be short."""
        if self.flags_kind == PACKED:
            return self.let("load i64, ptr %flags.0, align 8")
        if self.flags_kind is not None and not rare:
            return pack(self, self._all_flags())
        kind = str(self.flags_kind or self.let("load i64, ptr %flags.kind, align 8"))
        inputs = ", ".join(f"i64 {value}" for value in self._flag_inputs())
        return self.let(f"call preserve_allcc i64 @flags(i64 {kind}, {inputs})")

    def _flags_type(self) -> str:
        assert self.flag_use is not None
        return f"i{8 * self.flag_use.file.count}"

    def _flags_pointer(self) -> str:
        assert self.flag_use is not None
        return self.context(self.convention.offset((self.flag_use.file.name, 0)))

    def _reload_flags(self) -> None:
        t = self._flags_type()
        word = self.let(f"load {t}, {self._flags_pointer()}, align 1")
        self._put_flags(self.let(f"zext {t} {word} to i64"))

    def _spill_flags(self, *, rare: bool) -> None:
        t = self._flags_type()
        word = self.let(f"trunc i64 {self._packed_flags(rare=rare)} to {t}")
        self.line(f"store {t} {word}, {self._flags_pointer()}, align 1")

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

    # Memory.
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
        if found:
            return text, (location, 0) if text.startswith(("load", "bitcast")) else None
        origins = [self.origins[name] for name in _NAME.findall(text) if name in self.origins]
        if not origins:
            return text, None
        location, steps = min(origins, key=lambda origin: origin[1])
        return f"{text}, !dbg {location}", (location, steps + 1) if steps < _STEPS else None

    def announce(self) -> None:
        """Kept registers have to be in the context; where we are the debug location tells."""
        self._keep()

    def answer(self) -> None:
        """One block for all polls that leave with the same variables to be written: leaving is as
        much code as some ten guest instructions."""
        state = (
            frozenset(self.dirty),
            frozenset(self.pending),
            frozenset(self.scalars.items()),
            frozenset((place, result.fmt) for place, result in self.lazy.items()),
            self.flags_kind,
        )
        if state not in self.answers:
            lines, block, origins = self.lines, self.block, self.origins
            self.lines, self.origins = [], {}
            self.answers[state] = self.name("answer")
            self.label(self.answers[state])
            self.end(ExitCode.STOP)
            self.shared += self.lines
            self.lines, self.block, self.origins = lines, block, origins
        self.line(f"br label %{self.answers[state]}")

    def memory(self, address: str) -> str:
        kind = "ptr" if self.compiler.direct else _SEGMENT
        return f"{kind} " + self.let(f"inttoptr i64 {address} to {kind}")

    def context(self, offset: int | str) -> str:
        if self.compiler.direct:
            return f"{_SEGMENT} inttoptr (i64 {offset} to {_SEGMENT})"
        return super().context(offset)

    def access(self, text: str) -> str:
        if not self.pcs or self.pcs[-1] != self.here.pc:
            self.pcs.append(self.here.pc)
        return f"{text}, !dbg !{_FIRST_LOCATION + len(self.pcs) - 1}"

    def _load(self, node: Node) -> str:
        kind = self._float_kind(node)
        if kind and node.attrs[0] == "plain":
            pointer = self._address(node.args[0], node.size // 8)
            loaded = self.let(self.access(f"load volatile {kind}, {pointer}, align 1"))
            # Where only the bits are used LLVM makes one load of both, which is where the cast is.
            result = self.let(self.access(f"bitcast {kind} {loaded} to i{node.size}"))
            is_guarded = self.here.pc in self.guarded
            return self._sealed(result, node.size) if is_guarded else result
        result = super()._load(node)
        if self.here.pc in self.entries:
            self.entries[self.here.pc] = self.value(node.args[0])
        if self.here.pc in self.guarded and node.size <= 64:
            result = self._sealed(result, node.size)
        address = self._address_of(node.args[0])
        if address is not None:
            self.loaded.add(address)
        return result

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
            self.here.pc in self.guarded or self._address_of(node.args[0]) in self.loaded
        ):
            self.bind(value, self._sealed(self.value(value), value.size))
        super()._store(node)

    def _address_of(self, node: Node) -> tuple[Place, int] | None:
        """An address as a register and a constant."""
        offset = 0
        if node.op == "add" and node.args[1].number in self.constants:
            node, offset = node.args[0], self.here.constant(node.args[1])
        if node.op == "sext" and node.args[0].op == "extract":  # of which a tag is not part
            node = node.args[0].args[0]
        if node.op != "register":
            return None
        return self.registers.place(str(node.attrs[0]), self.here.constant(node.args[0])), offset

    # Registers and the context.
    def _type(self, place: Place) -> str:
        """Of the variable of a register."""
        size = self.registers.by_name[place[0]].size
        return VECTOR_TYPES[size] if place[0] in self.vector_files else f"i{size}"

    def _put(self, place: Place, value: str) -> None:
        """Set a variable."""
        self.scalars.pop(place, None)
        self._forget_number(place)
        self.line(f"store {self._type(place)} {value}, ptr {_variable(place)}, align 8")

    def _raw(self, place: Place, *, as_is: bool = False) -> tuple[str, str]:
        """Type and value of a register as a whole; ``as_is`` with what NaN it has."""
        kind = self._type(place)
        is_lazy = place in self.lazy and not as_is
        if place not in self.scalars:
            value = self.let(f"load {kind}, ptr {_variable(place)}, align 8")
            if is_lazy:
                value = floats.canonical(self, self.lazy[place].fmt, value)
            return kind, value
        number = self._number(place)
        if is_lazy:
            number = floats.canonical(self, self.lazy[place].fmt, number)
        if self._size(place) == 128:
            element = floats.TYPES[self.scalars[place]]
            whole = f"<{128 // floats.SIZES[self.scalars[place]]} x {element}>"
            rest = "zeroinitializer"
            if self._is_split(place):
                old = self.let(f"load {kind}, ptr {_variable(place)}, align 8")
                rest = self.let(f"bitcast {kind} {old} to {whole}")
            joined = self.let(f"insertelement {whole} {rest}, {element} {number}, i32 0")
            return kind, self.let(f"bitcast {whole} {joined} to {kind}")
        low = self.let(f"zext i32 {self.let(f'bitcast float {number} to i32')} to i64")
        return kind, self.let(f"bitcast i64 {self.let(f'or i64 {low}, {-1 << 32}')} to {kind}")

    def _number(self, place: Place) -> str:
        """The number in a register that holds a scalar."""
        fmt = self.scalars[place]
        return self.let(f"load {floats.TYPES[fmt]}, ptr {_variable(place)}.{fmt}, align 8")

    def _forget_number(self, place: Place) -> None:
        """A register is overwritten: what was known of its NaN is so no more."""
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
            for first, second in zip(places[::2], [*places[1::2], *places[-1:]], strict=False):
                self._show_two(fmt, first, second)

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
        return f"{_variable(place)}{scalar}", floats.TYPES[fmt]

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
        self.line(f"store {kind} {value}, ptr {_variable(place)}, align 8")

    def _agree(self, key: Key) -> None:
        """Before a jump to a block: have variables as it expects them."""
        kept = dict(self.scalars)
        for place, fmt in sorted(kept.items()):
            if self.entry_scalars[key].get(place) != fmt:
                self._box(place)
        self.scalars = kept  # on the other path, if there is one

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
            low = self.let(f"trunc i{size} {bits} to i{number}")
            t = floats.TYPES[fmt]
            # Opaque, or LLVM would keep the bits in an integer register all through a loop.
            opaque = self.let(
                f'call {t} asm "", "=x,0"({t} {self.let(f"bitcast i{number} {low} to {t}")})'
            )
            self.line(f"store {t} {opaque}, ptr {_variable(place)}.{fmt}, align 8")

    def _travelling(self) -> list[str]:
        """The values of the registers that are passed."""
        return [self._raw(place)[1] for place in self.convention.types]

    def _spill(self, places: Iterable[Place] | None = None, *, rare: bool = False) -> None:
        """Write the registers that may be dirty here to the context."""
        wanted = set(self.dirty if places is None else places)
        flags = {place for place in wanted if self._is_flag(place)}
        if flags:
            self._spill_flags(rare=rare)
        for place in sorted(wanted - flags):
            kind, value = self._raw(place)
            pointer = self.context(self.convention.offset(place))
            self.line(f"store {kind} {value}, {pointer}, align 8")

    def _commit_passed(self) -> None:
        """Write the registers that travel to the context."""
        self._spill(place for place in self.convention.passed if place not in self.convention.kept)

    def _reload(self, places: Iterable[Place]) -> None:
        """Read registers that do not travel; what is not used falls away."""
        flags = False
        for place in places:
            if self._is_flag(place):
                flags = True
            elif place not in self.convention.types:
                self._reload_one(place)
        if flags:
            self._reload_flags()

    def _reload_one(self, place: Place) -> None:
        kind = self._type(place)
        pointer = self.context(self.convention.offset(place))
        self._put(place, self.let(f"load {kind}, {pointer}, align 8"))

    def _keep(self, *, leaving: bool = False) -> None:
        """Bring the kept registers in the context up to date: they are until the next write, unless
        this is only on a path that leaves, or guarded."""
        for place in self.pending:
            kind, value = self._raw(place)
            pointer = self.context(self.convention.offset(place))
            self.line(f"store volatile {kind} {value}, {pointer}, align 8")
        if not leaving and len(self._known) == 1:
            self.pending = {}

    # Leaving.
    def leave(self, code: ExitCode) -> None:
        self.store_field("pc", str(self.here.pc))
        self.end(code)

    def end(self, code: ExitCode) -> None:
        self._keep(leaving=True)
        self._spill(rare=True)
        self.store_field("exit_code", str(int(code)))
        self._tail_call(self._native("region_leave"), link="undef")

    def _native(self, name: str) -> str:
        pointer = self.context(field_offset(name))
        return self.let(f"load ptr, {pointer}, align 8")

    def _tail_call(self, function: str, values: list[str] | None = None, link: str = "") -> None:
        """Leave everything to another function of the convention."""
        operands = self.convention.arguments(link or self._link(), values or self._travelling())
        result = self.let(
            f"musttail call {CALL} {self.convention.result} {function}({operands}) #2"
        )
        self.line(f"ret {self.convention.result} {result}")

    def _link(self) -> str:
        """The value of the link register."""
        link = self.convention.link
        if link is None or link not in self.used:
            return "%in.0"
        return self.let(f"load i64, ptr {_variable(link)}, align 8")

    def _check_mode(self, pc: int) -> None:
        """The region takes the rounding mode for a valid one: checked where it may have changed."""
        if self.rounds and self.status is not None:
            mode = self.let(f"load i32, {self._rounding_mode()}, align 8")
            invalid = self.let(f"icmp ugt i32 {mode}, 3")
            leaving, staying = self.name("mode"), self.name("valid")
            self.branch(invalid, leaving, staying, unlikely=True)
            self.label(leaving)
            self.store_field("pc", str(pc))
            self.end(ExitCode.EMULATE)
            self.label(staying)

    def check_rounding(self) -> None:
        """See _check_mode."""

    def _check_stack(self, stack: str) -> None:
        """Poll; and host frames are a cache: drop them all when they have become too many."""
        pointer = self.context(field_offset("stack_limit"))
        limit = self.let(f"load volatile i64, {pointer}, align 2")
        low = self.let(f"icmp ult i64 {stack}, {limit}")
        dropping, going = self.name("drop"), self.name("go")
        self.branch(low, dropping, going, unlikely=True)
        self.label(dropping)
        self.stop_poll(str(self.region.pc))
        self.store_field("pc", str(self.region.pc))
        self._tail_call(self._native("region_drop"), link="undef")
        self.label(going)

    # Control flow.
    def _go(self, pc: int) -> None:
        """Continue at a known pc, inside or outside."""
        key = self.block_key[0], pc
        if key not in self.blocks:
            self._exit_to(pc)
            return
        self._keep()
        if pc <= self.here.pc:
            self.stop_poll(str(pc))
        self._agree(key)
        self.line(f"br label %{_label(key)}")

    def _cell(self, pc: int, *, call: bool = False) -> str:
        """The function that the cell for a pc is linked to."""
        self.goes_on = True
        key = pc | CALLS if call else pc
        if key not in self.cells:
            self.cells.append(key)
        offset = 8 * self.cells.index(key)
        cell = f"getelementptr (i8, ptr @cells, i64 {offset})" if offset else "@cells"
        return self.let(f"load ptr, ptr {cell}, align 8")

    def _forget_flags(self, pc: int) -> None:
        """The context may have other flags where the code that follows, at ``pc``, sets all."""
        use = self.flag_use
        dirty = {place for place in self.dirty if self._is_flag(place)}
        if use is not None and dirty and self.compiler.overwrites(self.region, pc, use.file.name):
            self.dirty -= dirty

    def _exit_to(self, pc: int) -> None:
        self._forget_flags(pc)
        if pc & CALLS:  # no cell can say so
            self.find(str(pc))
            return
        self._keep()
        self._spill()
        self._tail_call(self._cell(pc))

    def _jump(self, target: Node) -> None:
        if self.compiler.links(self.here):
            self._call(target)
        elif (known := self._fold(self.here, target)) is not None:
            self._go(known)
        elif self.here.arms:
            self._switch(self.value(target))
        elif self.compiler.is_return(self.here, target):
            self._return(self.value(target))
        else:
            self.find(self.value(target))

    def _return(self, pc: str) -> None:
        if self.block_key[0] != ROOT:
            self._return_inside(pc)
            return
        self._keep()
        self._spill()
        last = "undef"
        values = zip(
            ["i64", *self.convention.types.values()], [pc, *self._travelling()], strict=True
        )
        for index, (kind, value) in enumerate(values):
            last = self.let(f"insertvalue {self.convention.result} {last}, {kind} {value}, {index}")
        self.line(f"ret {self.convention.result} {last}")

    def _return_inside(self, pc: str) -> None:
        """From an inlined function, mostly to where it was called. No poll: the caller's own code
        has one if it goes back."""
        expected, goes_on = self.block_key[0], self.goes_on
        elsewhere, back = self.name("elsewhere"), self.name("back")
        other = self.let(f"icmp ne i64 {pc}, {expected}")
        self._keep()
        self.branch(other, elsewhere, back, unlikely=True)
        self.label(elsewhere)
        self.stop_poll(pc)
        self.find(pc)
        self.goes_on = goes_on  # that way polls by itself
        self.label(back)
        if (ROOT, expected) not in self.blocks:
            self._exit_to(expected)
            return
        self._agree((ROOT, expected))
        self.line(f"br label %{_label((ROOT, expected))}")

    def _switch(self, pc: str) -> None:
        """Jump to one of the targets that are known, or wherever else."""
        self._keep()
        backward = {arm for arm in self.here.arms if arm <= self.here.pc}
        if len(backward) > POLLED_ARMS:  # as in an interpreter, where all lead back
            self.stop_poll(pc)
            backward.clear()
        missing = self.name("other")
        arms = {arm: self._arm(arm, missing, backward) for arm in self.here.arms}
        table = self.here.table
        if table is not None and (entry := self.entries[table.load]):
            self._switch_entry(table, entry, arms, missing)
        else:
            self._switch_target(pc, arms, missing)
        for arm in backward:
            self.label(arms[arm])
            self._go(arm)
        self.label(missing)
        self.find(pc)

    def _arm(self, pc: int, missing: str, backward: set[int]) -> str:
        """The label of a known target, or of the way there."""
        key = self.block_key[0], pc
        if key not in self.blocks:
            backward.discard(pc)
            return missing
        if pc in backward:
            return self.name("arm")
        self._agree(key)
        return _label(key)

    def _switch_entry(self, table: Table, entry: str, arms: dict[int, str], missing: str) -> None:
        """By the address of the entry that was loaded: what it holds is known."""
        offset = self.let(f"sub i64 {entry}, {table.address}")
        index = self.let(f"lshr i64 {offset}, {table.nbytes.bit_length() - 1}")
        inside = self.let(f"icmp ult i64 {offset}, {len(table.data)}")
        rest = self.let(f"and i64 {offset}, {table.nbytes - 1}")
        aligned = self.let(f"icmp eq i64 {rest}, 0")
        looking, never = self.name("look"), self.name("never")
        valid = self.let(f"and i1 {inside}, {aligned}")
        self.line(f"br i1 {valid}, label %{looking}, label %{missing}, !prof !2")
        self.label(looking)
        cases = " ".join(f"i64 {i}, label %{arms[to]}" for i, to in enumerate(table.targets))
        self.line(f"switch i64 {index}, label %{never} [ {cases} ]")
        self.label(never)
        self.line("unreachable")

    def _switch_target(self, pc: str, arms: dict[int, str], missing: str) -> None:
        """By the target, which is near all others."""
        low, count = min(arms), (max(arms) - min(arms)) // 2 + 1
        numbers = {(arm - low) // 2: index for index, arm in enumerate(arms, 1)}
        listed = ", ".join(f"i16 {numbers.get(index, 0)}" for index in range(count))
        name = f"@arms{len(self.tables)}"
        self.tables.append(f"{name} = internal constant [{count} x i16] [{listed}]")
        index = self.let(f"lshr i64 {self.let(f'sub i64 {pc}, {low}')}, 1")
        inside = self.let(f"icmp ult i64 {index}, {count}")
        looking = self.name("look")
        self.line(f"br i1 {inside}, label %{looking}, label %{missing}, !prof !2")
        self.label(looking)
        at = self.let(f"getelementptr i16, ptr {name}, i64 {index}")
        number = self.let(f"load i16, ptr {at}, align 2")
        cases = " ".join(f"i16 {i}, label %{label}" for i, label in enumerate(arms.values(), 1))
        self.line(f"switch i16 {number}, label %{missing} [ {cases} ]")

    def _call(self, target: Node) -> None:
        """Call guest code as a host function; it comes back with the expected pc, or not."""
        self._keep()
        known = self._fold(self.here, target)
        if self.here.is_inlined and known is not None:
            self._agree((self.here.next_pc, known))
            self.line(f"br label %{_label((self.here.next_pc, known))}")
            return
        if known is not None and not known & CALLS:
            self._forget_flags(known)
            function = self._cell(known, call=True)
        else:
            pc = self.value(target)
            self.store_field("pc", pc)
            function = self._look_up(pc, "region_call")
        self._spill()
        link = str(self.here.next_pc)
        if self.compiler.links(self.here) != self.convention.link:
            link = self._link()
        operands = self.convention.arguments(link, self._travelling())
        result = self.let(f"call {CALL} {self.convention.result} {function}({operands}) #2")
        pc, *values = (
            self.let(f"extractvalue {self.convention.result} {result}, {index}")
            for index in range(len(self.convention.passed) + 1)
        )
        other = self.let(f"icmp ne i64 {pc}, {self.here.next_pc}")
        elsewhere, expected = self.name("elsewhere"), self.name("expected")
        self.branch(other, elsewhere, expected, unlikely=True)
        self.label(elsewhere)
        self._tail_call(self._native("region_return"), values, pc)
        self.label(expected)
        for place, value in zip(self.convention.passed, values, strict=True):
            self._put(place, value)
        if self.precise:
            self._commit_passed()
        self.dirty = set()
        self._reload(self.used)
        self._check_mode(self.here.next_pc)
        self._go(self.here.next_pc)

    def _look_up(self, pc: str, otherwise: str) -> str:
        """The function for a computed pc: a region from the table, else what runs code at pc."""
        self.goes_on = True
        table = self._native("region_table")
        index = self.let(f"and i64 {self.let(f'lshr i64 {pc}, 1')}, {(1 << TABLE_BITS) - 1}")
        at = self.let(f"getelementptr i64, ptr {table}, i64 {index}")
        entry = self.let(f"load i64, ptr {at}, align 8")
        tag = self.let(f"lshr i64 {entry}, {OFFSET_BITS}")
        wanted = self.let(f"add i64 {self.let(f'lshr i64 {pc}, {TABLE_BITS + 1}')}, 1")
        same = self.let(f"icmp eq i64 {tag}, {wanted}")
        hit, miss, done = self.name("hit"), self.name("miss"), self.name("done")
        self.line(f"br i1 {same}, label %{hit}, label %{miss}, !prof !2")
        self.label(hit)
        offset = self.let(f"and i64 {entry}, {(1 << OFFSET_BITS) - 1}")
        region = self.let(f"getelementptr i8, ptr {self._native('region_base')}, i64 {offset}")
        self.line(f"br label %{done}")
        self.label(miss)
        other = self._native(otherwise)
        self.line(f"br label %{done}")
        self.label(done)
        return self.let(f"phi ptr [ {region}, %{hit} ], [ {other}, %{miss} ]")

    def find(self, pc: str) -> None:
        self.store_field("pc", pc)
        function = self._look_up(pc, "region_goto")
        self._keep()
        self._spill()
        self._tail_call(function)

    def _next_pc(self) -> str:
        return str(self.here.next_pc)

    def _syscall(self) -> None:
        self._keep()
        self._spill()
        self._commit_passed()
        self.dirty = set()  # from here on the context has what is true: the call may write there
        self.store_field("pc", self._next_pc())
        thunk, memory = self._native("syscall_thunk"), self._native("memory_base")
        context = self._native("context") if self.compiler.direct else "%context"
        result = self.let(f"call i32 {thunk}(ptr {context}, ptr {memory})")
        unserved = self.let(f"icmp ne i32 {result}, 0")
        leaving, staying = self.name("leave"), self.name("stay")
        self.branch(unserved, leaving, staying, unlikely=True)
        self.label(leaving)
        self.store_field("record", "1")
        leave = self._native("leave_pointer")
        self.line(f"call void {leave}(ptr {context}, i32 {int(ExitCode.SYSCALL)})")
        self.line("unreachable")
        self.label(staying)
        self._reload(place for place in self.used if place not in self.convention.types)
        for place in self.convention.passed:
            self._reload_one(place)
        self.stop_poll(self._next_pc())
        self._check_mode(self.here.next_pc)


def _variable(place: Place) -> str:
    return f"%{place[0]}.{place[1]}"


def _label(key: Key) -> str:
    return f"b{key[1]:x}" if key[0] == ROOT else f"i{key[0]:x}.{key[1]:x}"
