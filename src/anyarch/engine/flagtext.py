"""Text of a region's flags: kept as what they are made of until one is asked for."""

from __future__ import annotations

from anyarch.engine.regionflags import INPUTS, PACKED, FlagUse, emit_kind, pack, unpack
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
