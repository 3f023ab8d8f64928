"""How regions call each other: arguments and results in host registers, and the way in and out.

A region is a function that gets the link register, then the registers of the architecture's
:class:`Convention`, and returns the pc to continue at and the same registers. Everything else is
in the context. Between two regions that is all; the functions here lead from and to other code.

The pc that is given tells the link register, too: what returns through that leaves it so. Else
the pc is given with NOTED, and the link register is in the context.
"""

from __future__ import annotations

from typing import Final

from anyarch.engine.arena import REGION_TABLE_BITS as TABLE_BITS
from anyarch.engine.pendingflags import MAKER, settling
from anyarch.engine.returns import note_text, return_text
from anyarch.host.context import FIELDS, REGISTERS
from anyarch.host.stack import STACK_NBYTES
from anyarch.isa.architecture import Architecture

CALL: Final = "x86_regcallcc"
ATTRIBUTES: Final = (
    "attributes #2 = { nounwind strictfp null_pointer_is_valid "
    '"no-stack-arg-probe" "no-realign-stack" "no_callee_saved_registers" }'
)
NOTED: Final = 1  # in the pc that a function gives: the link register is in the context
FROM_REGION: Final = 2  # who polls, where a region jumps to code of another kind
FROM_CALL: Final = 4  # the same, where it calls
OFFSET_BITS: Final = 28  # of an entry's place relative to region_base

# Of a stack frame: what a call leaves. A region that has no frame then needs no padding either.
STACK_ALIGNMENT: Final = '!{i32 1, !"override-stack-alignment", i32 8}'
STACK_POINTER: Final = "  %sp = call i64 @llvm.read_register.i64(metadata !3)"
VECTOR_TYPES: Final = {64: "double", 128: "<2 x i64>"}

Place = tuple[str, int]


class RegionConvention:
    """The convention of one architecture as LLVM text."""

    def __init__(self, architecture: Architecture) -> None:
        self.layout = architecture.layout
        declared = architecture.convention
        self.link, self.flags = declared.link, declared.flags
        self.traced = declared.traced
        self.stored = frozenset(declared.kept) - {*declared.traced}  # to the context, on change
        self.passed: tuple[Place, ...] = declared.integers + declared.vectors
        self.types = dict.fromkeys(declared.integers, "i64") | {
            place: VECTOR_TYPES[self.layout.by_name[place[0]].size] for place in declared.vectors
        }
        listed = ", ".join(["i64", *self.types.values()])
        self.result = f"{{ {listed} }}"
        self.parameters = ", ".join(
            ["i64 %in.0", *(f"{t} %in.{i}" for i, t in enumerate(self.types.values(), 1))]
        )

    def arguments(self, link: str, values: list[str]) -> str:
        """Operands of a call."""
        typed = zip(self.types.values(), values, strict=True)
        return ", ".join([f"i64 {link}", *(f"{t} {value}" for t, value in typed)])

    def offset(self, place: Place) -> int:
        """Byte offset of a register in the context."""
        return REGISTERS + self.layout.offset(*place)

    # From and to other code.
    def text(self) -> str:
        """Functions for the native module, which has `aa_run`, `aa_leave` and `aa_drop`."""
        own = self.parameters
        head = f"{CALL} {self.result} @aa_region_"
        settle = self._settle()
        return "\n".join(
            [
                ATTRIBUTES,
                "declare void @aa_leave(ptr, i32)",
                "declare void @aa_drop(ptr)",
                self._settling(),
                self._entry(),
                f"define hidden {head}call({own}) #2 {{\n{self.context()}\n{self._commit('in.')}"
                f"{self._commit_link()}{settle}{self._run('%in.0')}}}",
                f"define hidden {head}goto({own}) #2 {{\n{self.context()}\n{self._commit('in.')}"
                f"{self._commit_link()}{settle}{self._run()}}}",
                f"define hidden {head}return({own}) #2 {{\n{self.context()}\n{self._commit('in.')}"
                f"{self._commit_result('%in.0')}{settle}{self._run()}}}",
                f"define hidden {head}leave({own}) #2 {{\n{self.context()}\n{self._commit('in.')}"
                f"{self._commit_link()}{settle}{_store('record', '1')}"
                f"{_load('code', 'exit_code', 'i32')}"
                "  call void @aa_leave(ptr %context, i32 %code)\n  unreachable\n}",
                f"define hidden {head}drop({own}) #2 {{\n{self.context()}\n{self._commit('in.')}"
                f"{self._commit_link()}{settle}"
                "  call void @aa_drop(ptr %context)\n  unreachable\n}",
            ]
        )

    def _entry(self) -> str:
        """The handler of a region's record {handler, pc, entry}: from the interpreter into it."""
        loads, values = self._reload("in")
        link = "0"
        if self.link is not None:
            link = "%link"
            loads += (
                f"  %link.p = getelementptr i8, ptr %context, i64 {self.offset(self.link)}\n"
                "  %link = load i64, ptr %link.p, align 8\n"
            )
        extracts = "".join(
            f"  %out.{i} = extractvalue {self.result} %out, {i}\n"
            for i in range(len(self.passed) + 1)
        )
        return (
            "define hidden i32 @aa_region(ptr noalias %context, ptr %record, ptr %memory) #0 {\n"
            # Of a region that a fault has left: registers have been read and set since.
            f"{_store('flags_maker', '0') if self.flags else ''}"
            f"{loads}  %entry.p = getelementptr i8, ptr %record, i64 16\n"
            "  %entry = load ptr, ptr %entry.p, align 8\n"
            f"  %out = call {CALL} {self.result} %entry({self.arguments(link, values)}) #2\n"
            f"{extracts}{self._commit('out.')}{self._commit_result('%out.0')}{self._settle()}"
            f"{_load('to', 'pc', 'i64')}{return_text('%to')}}}"
        )

    def _settling(self) -> str:
        if not self.flags:
            return ""
        offset = self.offset((self.flags, 0))
        return settling(self.layout.by_name[self.flags], offset, self.context(), "ptr %context")

    def _settle(self) -> str:
        """Before other code runs: have the flags in their registers."""
        if not self.flags:
            return ""
        return (
            f"{_load('maker', 'flags_maker', 'ptr')}"
            "  %made = icmp eq ptr %maker, null\n"
            "  br i1 %made, label %settled, label %make\nmake:\n"
            f"  call {MAKER} @flags.settled()\n"
            "  br label %settled\nsettled:\n"
        )

    def context(self) -> str:
        """`%context`, which `aa_enter` pushed first on the stack that `%sp` points into."""
        return (
            f"{STACK_POINTER}\n"
            f"  %top = or i64 %sp, {STACK_NBYTES - 1}\n"
            "  %first = sub i64 %top, 7\n"
            "  %first.p = inttoptr i64 %first to ptr\n"
            "  %context = load ptr, ptr %first.p, align 8, !invariant.load !1"
        )

    def _commit(self, prefix: str) -> str:
        return "".join(
            f"  %{prefix}p{i} = getelementptr i8, ptr %context, i64 {self.offset(place)}\n"
            f"  store {t} %{prefix}{i}, ptr %{prefix}p{i}, align 8\n"
            for i, (place, t) in enumerate(self.types.items(), 1)
        )

    def _commit_link(self, value: str = "%in.0") -> str:
        if self.link is None:
            return ""
        return (
            f"  %link.sp = getelementptr i8, ptr %context, i64 {self.offset(self.link)}\n"
            f"  store i64 {value}, ptr %link.sp, align 8\n"
        )

    def _commit_result(self, value: str) -> str:
        """The pc that a function gave, and the link register if it tells that too."""
        if self.link is None:
            return _store("pc", value)
        return (
            f"  %note = and i64 {value}, {NOTED}\n  %returned = xor i64 {value}, %note\n"
            f"{_store('pc', '%returned')}"
            f"  %linked = icmp eq i64 %note, 0\n"
            f"  %before.p = getelementptr i8, ptr %context, i64 {self.offset(self.link)}\n"
            # A region writes there by a way that LLVM does not know.
            "  %before = load volatile i64, ptr %before.p, align 8\n"
            f"  %linked.v = select i1 %linked, i64 {value}, i64 %before\n"
            f"{self._commit_link('%linked.v')}"
        )

    def _result(self, pc: str) -> str:
        """`%result`, of what guest code did that has returned to a pc, an even one."""
        if self.link is None:
            return f"  %result = add i64 {pc}, 0\n"
        return (
            f"  %link.lp = getelementptr i8, ptr %context, i64 {self.offset(self.link)}\n"
            "  %link.l = load i64, ptr %link.lp, align 8\n"
            f"  %link.same = icmp eq i64 %link.l, {pc}\n"
            f"  %link.noted = or i64 {pc}, {NOTED}\n"
            f"  %result = select i1 %link.same, i64 {pc}, i64 %link.noted\n"
        )

    def _reload(self, prefix: str) -> tuple[str, list[str]]:
        text = "".join(
            f"  %{prefix}.p{i} = getelementptr i8, ptr %context, i64 {self.offset(place)}\n"
            f"  %{prefix}.v{i} = load {t}, ptr %{prefix}.p{i}, align 8\n"
            for i, (place, t) in enumerate(self.types.items(), 1)
        )
        return text, [f"%{prefix}.v{i}" for i in range(1, len(self.passed) + 1)]

    def _run(self, expected: str = "") -> str:
        """Continue at the context's pc until guest code returns, and give that pc; ``expected`` is
        where to, if it was called.

        Code of other kinds calls regions too, and goes on when they return: only what comes back
        to ``expected`` is for the region that called.
        """
        loads, values = self._reload("back")
        source = FROM_CALL if expected else FROM_REGION
        if not expected and self.link is None:
            wanted = "  %wanted = icmp eq i64 0, 0\n"
        elif not expected:  # where no instruction can be is for the engine to tell
            wanted = "  %odd = and i64 %next, 1\n  %wanted = icmp eq i64 %odd, 0\n"
        else:
            wanted = f"  %wanted = icmp eq i64 %next, {expected}\n"
        lines = [
            _load("memory", "memory_base", "ptr"),
            "  br label %run\nrun:\n",
            note_text("null"),
            f"  %status = call i32 @aa_run(ptr %context, ptr inttoptr (i64 {source} to ptr), "
            "ptr %memory)\n",
            "  %ended = icmp ne i32 %status, 0\n",
            "  br i1 %ended, label %leave, label %back\nleave:\n",
            "  call void @aa_leave(ptr %context, i32 %status)\n  unreachable\nback:\n",
            _load("next", "pc", "i64"),
            wanted,
            "  br i1 %wanted, label %done, label %run\ndone:\n",
            loads,
            self._result("%next"),
        ]
        last = "undef"
        for i, (t, value) in enumerate(
            zip(["i64", *self.types.values()], ["%result", *values], strict=True)
        ):
            lines.append(f"  %r{i} = insertvalue {self.result} {last}, {t} {value}, {i}\n")
            last = f"%r{i}"
        lines.append(f"  ret {self.result} {last}\n")
        return "".join(lines)


def _load(name: str, field: str, kind: str) -> str:
    return (
        f"  %{name}.p = getelementptr i8, ptr %context, i64 {FIELDS[field][0]}\n"
        f"  %{name} = load {kind}, ptr %{name}.p, align {FIELDS[field][1]}\n"
    )


def _store(field: str, value: str) -> str:
    return (
        f"  %{field}.sp = getelementptr i8, ptr %context, i64 {FIELDS[field][0]}\n"
        f"  store i64 {value}, ptr %{field}.sp, align 8\n"
    )


def table_entry(pc: int, offset: int) -> tuple[int, int]:
    """Index and value of the table's entry for a region at ``offset`` from region_base.

    Key and place are one word: no reader sees the key of one region and the place of another.
    """
    return pc >> 1 & (1 << TABLE_BITS) - 1, (pc >> TABLE_BITS + 1) + 1 << OFFSET_BITS | offset
