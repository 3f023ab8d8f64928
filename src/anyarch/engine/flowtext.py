"""Text of a region's control flow: jumps, calls, returns, system calls, and leaving."""

from __future__ import annotations

from anyarch.engine.accesstext import AccessText
from anyarch.engine.arena import REGION_TABLE_BITS as TABLE_BITS
from anyarch.engine.bundle import CALLS
from anyarch.engine.convention import CALL, NOTED, OFFSET_BITS, Place
from anyarch.engine.jumptables import Table
from anyarch.engine.records import field_offset
from anyarch.engine.regionloops import polls_before
from anyarch.engine.regions import ROOT, Key
from anyarch.engine.regionsurvey import WayBack
from anyarch.engine.registertext import variable_of
from anyarch.host.context import ExitCode
from anyarch.ir.graph import Node


class FlowText(AccessText):
    """Writes where control goes, and what has to be true of registers there."""

    def answer(self) -> None:
        """One block for all polls that leave with the same variables to be written: leaving is as
        much code as some ten guest instructions."""
        state = (
            frozenset(self.dirty),
            frozenset(self.pending),
            frozenset(self.overwritten.items()),
            frozenset(self.scalars.items()),
            frozenset((place, result.fmt) for place, result in self.lazy.items()),
            self.flag_kinds,
        )
        if state not in self.answers:
            lines, block, origins = self.lines, self.block, self.origins
            self.lines, self.origins = [], {}
            self.answers[state] = self.name("answer")
            self.label(self.answers[state])
            if self.overwritten:
                self.store_field("unfinished", str(max(self.overwritten.values())))
            self.end(ExitCode.STOP)
            self.shared += self.lines
            self.lines, self.block, self.origins = lines, block, origins
        self.line(f"br label %{self.answers[state]}")

    def leave(self, code: ExitCode) -> None:
        self.store_field("pc", str(self.here.pc))
        self.end(code)

    def end(self, code: ExitCode) -> None:
        self._keep(leaving=True)
        self._spill()
        self.store_field("exit_code", str(int(code)))
        self._tail_call(self._native("region_leave"))

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
        if link is None:
            return "%in.0"
        return self.let(f"load i64, ptr {variable_of(link)}, align 8")

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
        self._tail_call(self._native("region_drop"))
        self.label(going)

    def _go(self, pc: int) -> None:
        """Continue at a known pc, inside or outside."""
        key = self.block_key[0], pc
        if key not in self.blocks:
            self._exit_to(pc)
            return
        self._keep()
        self._go_inside(key)

    def _go_inside(self, key: Key) -> None:
        """Continue at a block."""
        self.line(f"br label %{self._way_to(key)}")

    def _way_to(self, key: Key) -> str:
        """The label for a block that has variables as it expects them, or of a poll on the way
        there."""
        self._spill(self._settled_before(key))
        self._carry_flags(key)
        copy, polls = self.loops.polls(self.block_key, self.copy, key)
        if self.is_first:  # from before the loop: to its first copy, where a poll leads
            copy, polls = 0, False
        if not polls:
            self._agree(key)
            return label_of(key, copy)
        way = WayBack(
            key,
            self.loops.comes_round(self.block_key, key),
            frozenset(self.scalars.items()),
            frozenset((place, result.fmt) for place, result in self.lazy.items()),
        )
        label, kinds = self.ways_back.setdefault(way, (self.name("back"), set()))
        kinds |= self.flag_kinds
        return label

    def _settled_before(self, key: Key) -> set[Place]:
        """The registers that are dirty here, and are not where a block begins."""
        dirty = self.dirty - self.entry_dirty[key]
        return {place for place in dirty if not self._is_flag(place)}

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
        elif (register := self.compiler.returns_through(self.here, target)) is not None:
            self._return(self.value(target), register)
        else:
            self.find(self.value(target))

    def _return(self, pc: str, register: Place) -> None:
        if self.block_key[0] != ROOT:
            self._return_inside(pc)
            return
        self._keep()
        self._spill()
        if register == self.convention.link:
            self._check_link(pc)
            pc = self._link()
        elif self.convention.link is not None:
            self._spill([self.convention.link])
            pc = self.let(f"or i64 {pc}, {NOTED}")
        last = "undef"
        values = zip(
            ["i64", *self.convention.types.values()], [pc, *self._travelling()], strict=True
        )
        for index, (kind, value) in enumerate(values):
            last = self.let(f"insertvalue {self.convention.result} {last}, {kind} {value}, {index}")
        self.line(f"ret {self.convention.result} {last}")

    def _check_link(self, pc: str) -> None:
        """What returns says that the link register is the pc. Where it is not, or could be taken
        for one with NOTED, others go on there."""
        link = self._link()
        difference = self.let(f"xor i64 {pc}, {link}")
        note = self.let(f"and i64 {link}, {NOTED}")
        other = self.let(f"icmp ne i64 {self.let(f'or i64 {difference}, {note}')}, 0")
        plain, odd = self.name("plain"), self.name("odd")
        self.branch(other, odd, plain, unlikely=True)
        self.label(odd)
        self.store_field("pc", pc)
        self._tail_call(self._native("region_goto"))
        self.label(plain)

    def _return_inside(self, pc: str) -> None:
        """From an inlined function, mostly to where it was called."""
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
        self._go_inside((ROOT, expected))

    def _switch(self, pc: str) -> None:
        """Jump to one of the targets that are known, or wherever else."""
        self._keep()
        if polls_before(self.here):
            self.stop_poll(pc)
        missing, dirty = self.name("other"), self.dirty
        keys = [(self.block_key[0], arm) for arm in self.here.arms]
        settled = set[Place]().union(*map(self._settled_before, filter(self.blocks.get, keys)))
        self._spill(settled)
        self.dirty = dirty - settled
        arms = {arm: self._arm(arm, missing) for arm in self.here.arms}
        table = self.here.table
        if table is not None and (entry := self.entries[table.load]):
            self._switch_entry(table, entry, arms, missing)
        else:
            self._switch_target(pc, arms, missing)
        self.label(missing)
        self.find(pc)
        self.dirty = dirty

    def _arm(self, pc: int, missing: str) -> str:
        """The label of a known target."""
        key = self.block_key[0], pc
        if key not in self.blocks:
            return missing
        return self._way_to(key)

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
        if self.here.callee is not None:
            self._go_inside((self.here.next_pc, self.here.callee))
            return
        known = self._fold(self.here, target)
        if known is not None and not known & CALLS:
            self._forget_flags(known)
            self._spill()
            function = self._cell(known, call=True)  # last: it is part of the call then
        else:
            pc = self.value(target)
            self._spill()
            function = self._look_up(pc, "region_call")
        is_linked = self.compiler.links(self.here) == self.convention.link
        wanted = self.here.next_pc
        link = str(wanted) if is_linked else self._link()
        if not is_linked and self.convention.link is not None:
            wanted |= NOTED
        operands = self.convention.arguments(link, self._travelling())
        result = self.let(f"call {CALL} {self.convention.result} {function}({operands}) #2")
        pc, *values = (
            self.let(f"extractvalue {self.convention.result} {result}, {index}")
            for index in range(len(self.convention.passed) + 1)
        )
        other = self.let(f"icmp ne i64 {pc}, {wanted}")
        elsewhere, expected = self.name("elsewhere"), self.name("expected")
        self.branch(other, elsewhere, expected, unlikely=True)
        self.label(elsewhere)
        self._tail_call(self._native("region_return"), values, pc)
        self.label(expected)
        for place, value in zip(self.convention.passed, values, strict=True):
            self._put(place, value)
        if self.convention.link is not None and not is_linked:
            self._reload_one(self.convention.link)
        self._commit_exact()
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
        self.store_field("pc", pc)
        other = self._native(otherwise)
        self.line(f"br label %{done}")
        self.label(done)
        return self.let(f"phi ptr [ {region}, %{hit} ], [ {other}, %{miss} ]")

    def find(self, pc: str) -> None:
        self._keep()
        self._spill()
        self._tail_call(self._look_up(pc, "region_goto"))

    def _next_pc(self) -> str:
        return str(self.here.next_pc)

    def _syscall(self) -> None:
        self._keep()
        self._spill()
        self._settle_flags()
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
        if self.convention.link is not None:
            self._reload_one(self.convention.link)
        self.stop_poll(self._next_pc())
        self._check_mode(self.here.next_pc)


def label_of(key: Key, copy: int = 0) -> str:
    """The label of a block, or of a copy of it."""
    label = f"b{key[1]:x}" if key[0] == ROOT else f"i{key[0]:x}.{key[1]:x}"
    return f"{label}.{copy}" if copy else label
