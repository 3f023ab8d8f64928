"""Registers that each block of a region reads and writes, and where the context is behind."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from anyarch.engine.adjacency import Word
from anyarch.engine.composition import Composition
from anyarch.engine.convention import Place, RegionConvention
from anyarch.engine.deferral import Check, Group
from anyarch.engine.dirtiness import Changes, dirty_at_entries
from anyarch.engine.effects import EffectEmitter, uses_rounding
from anyarch.engine.ordering import Ordering
from anyarch.engine.overwriting import Distances, Overwriting
from anyarch.engine.regionflags import IN_CONTEXT, FlagUse, Kinds
from anyarch.engine.regionfloats import FloatUse, Result, Scalars
from anyarch.engine.regionloops import Loops
from anyarch.engine.regions import ROOT, Key, Occurrence, Region, RegionCompiler
from anyarch.engine.updates import Update
from anyarch.ir.graph import Graph, Node

_UNTRACED: Final = 2  # accesses that store traced registers on their own, at most


@dataclass(frozen=True, slots=True)
class WayBack:
    """Ways to the head of a loop that share a poll. What comes from inside of the loop has one of
    its own: registers are there what the loop has just made of them, and need not be merged with
    what they were before it. So have ways with other variables: what is not to be seen but where
    the poll leaves is made there."""

    head: Key
    comes_round: bool
    scalars: frozenset[tuple[Place, str]]
    lazy: frozenset[tuple[Place, str]]  # results whose NaNs are as they are, and their formats


class RegionSurvey(EffectEmitter):
    """What is known of a region before its text is written, and the state of writing it."""

    decides_tininess = True
    polled = "i32"  # the field `stop` alone: what is compiled need not be noted

    def __init__(
        self,
        compiler: RegionCompiler,
        region: Region,
        *,
        precise: bool = False,
        masked: bool = False,
        guarded: Set[int] = frozenset(),
        held: Set[int] = frozenset(),
        untraced: Set[int] = frozenset(),
    ) -> None:
        super().__init__(Graph("region"), set(), compiler.architecture, bounded=compiler.bounded)
        self.compiler, self.region, self.blocks = compiler, region, region.blocks
        self.convention = RegionConvention(compiler.architecture)
        self.forgetting: dict[int, bool] = {}  # by pc, of what is not inlined
        self.precise, self.masked = precise, masked
        self.guarded, self.held, self.untraced = guarded, held, untraced
        # Exact at faults: by a table, or in the context, stored when they change.
        self.traced, self.stored = self.convention.traced, self.convention.stored
        if len(untraced) > _UNTRACED or precise:
            self.traced, self.stored = (), self.stored.union(self.traced)
        self.cells: list[int] = []
        self.goes_on = False  # to other code, other than by returning
        self.pcs: list[int] = []
        self.tables: list[str] = []
        # Labels of the polls on ways back, and the kinds that flags may have there.
        self.ways_back: dict[WayBack, tuple[str, set[int]]] = {}
        self.answers: dict[object, str] = {}  # labels of blocks that leave at polls
        self.shared: list[str] = []  # their lines
        self.root: Key = (ROOT, region.pc)
        self.here: Occurrence = self.blocks[self.root].instructions[0]
        self.block_key: Key = self.root
        self.in_context = {self.status.rounding[0]} if self.status else set()
        self.used: dict[Place, None] = {}
        if self.convention.link is not None:
            self.used[self.convention.link] = None
        self.held_link: set[Key] = set()  # blocks where the link register may hold no constant
        self.holds_link = False
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
        self.flag_kinds: Kinds = frozenset({IN_CONTEXT})  # that they may be of
        self.flag_values: dict[int, str] = {}  # that this block has computed
        self.carriers: set[int] = set()  # flags that have variables
        self.loops = Loops(self.blocks, self._forgets, unrolls=not precise)
        self.ordering = Ordering(self.blocks, self.root, self._forgets)
        self.settled = False  # whether no store is on its way
        self.is_first = False  # whether the block is one that no loop comes back to
        self.copy = 0  # of an unrolled block, the one that is being written
        self._survey()
        self._survey_floats()
        self.dirty: set[Place] = set()
        self.overwriting = Overwriting(self.blocks, self.registers, self._forgets)
        # At a poll: registers that need not be exact, and the instructions until each is.
        self.overwritten: Distances = {}
        self.defers = not precise and not self.bounded and self.float_rules == "arm"
        self.update: Update | None = None  # that the block is
        self.group = Group()  # of floating-point results that are looked at later
        self.made: dict[int, Check] | None = None  # results of an instruction of the group, by node
        self.result: Result | None = None  # of the instruction, if its NaN may stay as it is
        self.scalars: Scalars = {}  # registers whose variable is that of a number alone
        self.pending: dict[Place, None] = {}  # kept registers that the context does not have yet
        self.known: dict[Place, int] = {}  # registers that hold a constant in this block
        self.raised: dict[
            Place, str
        ] = {}  # registers that hold 2**32 times something in this block
        self.loaded: set[tuple[Place, int]] = set()  # addresses (register, offset) loaded from
        self.words: Mapping[int, Word] = {}  # that the block loads as bytes, by pc
        self.loaded_words: dict[Word, str] = {}
        self.compositions: dict[Place, Composition | None] = {}  # of registers, of these words
        self.entries: dict[int, str] = {}  # by pc: where a jump table's entry was loaded from
        # Values and variables that hold what was loaded, or something made of it: the debug
        # location of that load, and in how many steps.
        self.origins: dict[str, tuple[str, int]] = {}

    def _is_zero(self, file: str, number: int) -> bool:
        return number == self.registers.by_name[file].zero

    def _survey(self) -> None:
        """Registers that each block reads or writes; what may be dirty where a block begins."""
        changes: dict[Key, Changes] = {}
        for key, block in self.blocks.items():
            made = changes[key] = Changes()
            for found in block.instructions:
                self._note(found, made)
            if not block.successors or any(to not in self.blocks for to in block.successors):
                made.shows = True
        flags = frozenset(place for place in self.used if self._is_flag(place))
        self.entry_dirty = dirty_at_entries(
            self.blocks, self.root, changes, self.loops.looping, flags
        )
        self._survey_loops({key: made.dirty for key, made in changes.items()})
        self._survey_link()

    def _note(self, found: Occurrence, made: Changes) -> None:
        """Add to what a block does what an instruction of it does."""
        if not found.template.is_native:
            made.dirty, made.cleans, made.shows = set(), True, True
            return
        for node in found.template.live:
            if node.op in ("register", "write"):
                number = found.constant(node.args[0])
                file = str(node.attrs[0])
                if file in self.in_context or self._is_zero(file, number):
                    continue
                place = self.registers.place(file, number)
                self.used[place] = None
                if node.op == "write" and self._gets_dirty(place):
                    made.dirty.add(place)
        if not made.shows:
            for effect in found.template.graph.effects:
                if effect.node.op == "write" and effect.guard is None:
                    number = found.constant(effect.node.args[0])
                    place = self.registers.place(str(effect.node.attrs[0]), number)
                    made.overwrites.add(place)
        if self._forgets(found):
            made.dirty, made.cleans, made.shows = set(), True, True

    def _survey_link(self) -> None:
        """Blocks where the link register may hold something other than a constant."""
        work = [self.root]
        for block in self.blocks.values():  # whatever comes before, it does behind these
            holds = False
            for found in block.instructions:
                holds = self._holds_link(found, holds)
            if holds:
                work += block.successors
        while work:
            key = work.pop()
            if key in self.held_link or key not in self.blocks:
                continue
            self.held_link.add(key)
            holds = True
            for found in self.blocks[key].instructions:
                holds = self._holds_link(found, holds)
            if holds:
                work += self.blocks[key].successors

    def _holds_link(self, found: Occurrence, before: bool) -> bool:
        """Whether the link register may hold no constant after an instruction."""
        for effect in found.template.graph.effects:
            if effect.node.op == "syscall":
                return True
            if effect.node.op == "write":
                index, value = effect.node.args
                if (str(effect.node.attrs[0]), found.constant(index)) == self.convention.link:
                    before = value.number not in found.template.constants
        return before

    def _survey_loops(self, gains: dict[Key, set[Place]]) -> None:
        """What is written before loops and never in them goes to the context at once: else it would
        occupy host registers all through the loops, for the sake of the region's end."""
        looping = self.loops.looping
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
        self.entry_unwritten = self.float_use.unwritten(self.root)
        self.unwritten: set[Place] = set()  # registers as they were at the entry
        self.singles: dict[Place, str] = {}  # what these are as singles
        self.lazy: dict[Place, Result] = {}  # registers with a NaN not canonical yet
        # By register: others, not canonical yet, that hold no NaN where it holds none.
        self.implied: dict[Place, set[Place]] = {}

    def _overwritten(self, key: Key) -> Distances:
        """What a poll before a block need not keep: see :mod:`anyarch.engine.overwriting`."""
        if self.precise:
            return {}
        kept = {*self.stored, *self.traced, self.convention.link}
        return {
            place: distance
            for place, distance in self.overwriting.before(key).items()
            if place in self.used and place not in kept and not self._is_flag(place)
        }

    def _float_place(self, found: Occurrence, node: Node) -> Place | None:
        """The register that a node reads or writes, where scalars are held in such."""
        file = str(node.attrs[0])
        if file not in self.vector_files:
            return None
        return self.registers.place(file, found.constant(node.args[0]))

    def _forgets(self, found: Occurrence) -> bool:
        """Whether registers come anew from elsewhere after an instruction."""
        if found.is_inlined:
            return False
        known = self.forgetting.get(found.pc)
        if known is None:
            ops = {effect.node.op for effect in found.template.graph.effects}
            is_call = self.compiler.links(found) is not None
            known = self.forgetting[found.pc] = "syscall" in ops or is_call
        return known

    def _is_flag(self, place: Place) -> bool:
        return self.flag_use is not None and place[0] == self.flag_use.file.name

    def _gets_dirty(self, place: Place) -> bool:
        """Whether a write leaves the context behind, without the convention taking care of it."""
        return not (
            self.precise
            or place in self.eager
            or place in self.convention.types
            or place in self.stored
            or place == self.convention.link
        )
