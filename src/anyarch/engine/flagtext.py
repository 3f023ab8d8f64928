"""Text of a region's flags: kept as what they are made of until one is asked for."""

from __future__ import annotations

from anyarch.engine.pendingflags import INPUTS, MAKER, input_field
from anyarch.engine.records import field_offset
from anyarch.engine.regionflags import IN_CONTEXT, PACKED, FlagUse, emit_kind, pack, unpack
from anyarch.engine.regions import Key
from anyarch.engine.regionsurvey import RegionSurvey


class FlagText(RegionSurvey):
    """Writes what becomes of the flags."""

    def _keep_flags(self, use: FlagUse) -> None:
        """Keep what the flags are made of, after all values of the instruction are known."""
        kind = use.kind(self.here)
        if kind is not None:
            for index, node in enumerate(kind.inputs):
                value = self.value(node)
                wide = value if node.size == 64 else self.let(f"zext i{node.size} {value} to i64")
                self.line(f"store i64 {wide}, ptr %flags.{index}, align 8")
            self._set_kind(kind.number)
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
        word = pack(self, [values[index] for index in range(use.file.count)])
        self.line(f"store i64 {word}, ptr %flags.0, align 8")
        self._set_kind(PACKED)
        self.flag_values = values

    def _take_flags(self, key: Key) -> None:
        """What is known of flags where a block begins."""
        if self.flag_use is not None:
            self.flag_kinds = self.flag_use.before(key)
            self.flag_values = {}
            for index in sorted(self.flag_use.carried(key)):
                flag = self.let(f"load i1, ptr {self._carrier(index)}, align 1")
                self.flag_values[index] = self.let(f"zext i1 {flag} to i8")

    def _carry_flags(self, key: Key) -> None:
        """Before a jump to a block: have the flags that are values of their own there."""
        if self.flag_use is not None:
            for index in sorted(self.flag_use.carried(key)):
                flag = self.let(f"trunc i8 {self._flag(index)} to i1")
                self.line(f"store i1 {flag}, ptr {self._carrier(index)}, align 1")

    def _carrier(self, index: int) -> str:
        """The variable of a flag that is a value of its own."""
        self.carriers.add(index)
        return f"%flag.{index}"

    def _set_kind(self, number: int) -> None:
        self.line(f"store ptr {_maker(number)}, ptr %flags.kind, align 8")
        self.flag_kinds, self.flag_values = frozenset({number}), {}

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
        number = min(self.flag_kinds)
        if len(self.flag_kinds) > 1 or number in (IN_CONTEXT, PACKED):
            word = self._packed_flags()
            return [unpack(self, word, index) for index in range(count)]
        outer, self._known = self._known, [{}]
        constants, self.constants = self.constants, set()
        values = emit_kind(self, self.flag_use.kinds[number - 1], self._flag_inputs(INPUTS))
        self._known, self.constants = outer, constants
        return values

    def _flag_inputs(self, count: int) -> list[str]:
        return [self.let(f"load i64, ptr %flags.{i}, align 8") for i in range(count)]

    def _packed_flags(self) -> str:
        """All flags in one word, where they are in one already or their kind is not known."""
        if self.flag_kinds == {IN_CONTEXT}:
            return self._settled_flags()
        if self.flag_kinds == {PACKED}:
            return self.let("load i64, ptr %flags.0, align 8")
        maker, values = self._flag_maker(), self._flag_inputs(INPUTS)
        inputs = ", ".join(f"i64 {value}" for value in values)
        if IN_CONTEXT not in self.flag_kinds:
            return self.let(f"call {MAKER} {maker}({inputs})")
        kept, held, done = self.name("kept"), self.name("held"), self.name("done")
        self.branch(self.let(f"icmp eq ptr {maker}, null"), held, kept)
        self.label(held)
        settled = self._settled_flags()
        self.line(f"br label %{done}")
        self.label(kept)
        made = self.let(f"call {MAKER} {maker}({inputs})")
        self.line(f"br label %{done}")
        self.label(done)
        return self.let(f"phi i64 [ {settled}, %{held} ], [ {made}, %{kept} ]")

    def _flag_maker(self) -> str:
        if len(self.flag_kinds) == 1:
            return _maker(min(self.flag_kinds))
        return self.let("load ptr, ptr %flags.kind, align 8")

    def _settled_flags(self) -> str:
        """The flags that the context has, which are in their registers then."""
        return self.let(f"call {MAKER} @flags.settled()")

    def _settle_flags(self) -> None:
        """Have what flags the context has in their registers."""
        if not self.architecture.convention.flags:
            return
        maker = self.let(f"load ptr, {self.context(field_offset('flags_maker'))}, align 8")
        making, made = self.name("make"), self.name("made")
        self.branch(self.let(f"icmp ne ptr {maker}, null"), making, made, unlikely=True)
        self.label(making)
        self._settled_flags()
        self.line(f"br label %{made}")
        self.label(made)

    def _reload_flags(self) -> None:
        """The context has the flags; here they are registers like others or what it has."""
        if self.flag_use is None:
            self._settle_flags()
        else:
            self._set_kind(IN_CONTEXT)

    def _spill_flags(self) -> None:
        """Leave the flags in the context: as they are, or as what they are made of."""
        assert self.flag_use is not None
        file = self.flag_use.file
        pointer = self.context(field_offset("flags_maker"))
        if self.flag_kinds == {PACKED}:
            t = f"i{8 * file.count}"
            word = self.let(f"trunc i64 {self._packed_flags()} to {t}")
            place = self.context(self.convention.offset((file.name, 0)))
            self.line(f"store {t} {word}, {place}, align 1")
            self.line(f"store ptr null, {pointer}, align 8")
            return
        if self.flag_kinds == {IN_CONTEXT}:
            return
        maker, count = self._flag_maker(), max(map(self.flag_use.inputs, self.flag_kinds))
        kept, done = self.name("kept"), self.name("done")
        if IN_CONTEXT in self.flag_kinds:
            self.branch(self.let(f"icmp eq ptr {maker}, null"), done, kept)
            self.label(kept)
        self.line(f"store ptr {maker}, {pointer}, align 8")
        for index, value in enumerate(self._flag_inputs(count)):
            self.line(f"store i64 {value}, {self.context(input_field(index))}, align 8")
        if IN_CONTEXT in self.flag_kinds:
            self.line(f"br label %{done}")
            self.label(done)


def _maker(kind: int) -> str:
    return "null" if kind == IN_CONTEXT else f"@flags.{kind}"
