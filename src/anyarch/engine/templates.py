"""Templates: the machine code of handlers with holes for what records hold.

Blocks are not run record by record for long: ``aa_assemble`` puts the templates of their records
one behind the other, fills the holes, and has the first record lead there. What is left of a
record's work is what its instruction does: no operands are read, no handler is jumped to. Records
stay what tells where the guest is. Copy-and-patch: Xu and Kjolstad, OOPSLA 2021.

The code of a block is preceded by the handler that its first record had, in 16 bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from anyarch.engine.blockcode import (
    ADVANCE_NBYTES,
    CODE_HEADER,
    HANDLER_PREFIX,
    NEEDS_RECORD,
    ROW,
)
from anyarch.engine.handlers import HandlerEmitter
from anyarch.engine.records import Slot

if TYPE_CHECKING:
    from anyarch.emit.objects import Object, Symbol

PATCH: Final = struct.Struct("<HHiI")  # place in the code, slot, addend, kind
NEXT: Final = "aa_next"  # the template behind

# Kinds of patches by hole and width: what is read from the record, and how much is written.
_KINDS: Final = {
    ("u2", 4): 0, ("s2", 4): 1, ("s4", 4): 2, ("u2", 8): 3, ("s2", 8): 4, ("s4", 8): 5, ("s8", 8): 6
}  # fmt: skip
_RELATIVE: Final = 7
_RANGES: Final = {
    "u2": (0, 1 << 16), "s2": (-(1 << 15), 1 << 15), "s4": (-(1 << 31), 1 << 31), "s8": (-1, -1)
}  # fmt: skip


class TemplateEmitter(HandlerEmitter):
    """The body of a template: what a handler does, where slots are symbols, but for links.

    ``start`` is where its record begins, after the template's first; ``accesses`` becomes true
    where it accesses guest memory.
    """

    start = 0
    accesses = False
    serves_modes = False  # where there are others blocks have no code

    def _hole(self, slot: Slot) -> str | None:
        """The slot's value as an operand of 64 bits; None where it has to be read."""
        if slot.kind == "link":
            return None
        kind = "s" if slot.kind == "value" else "u"
        value = f"ptrtoint (ptr @{kind}{slot.nbytes}_{self.start + slot.offset} to i64)"
        if slot.nbytes < 8:
            return value
        # LLVM takes symbols for addresses that fit into 32 bits.
        return self.let(f'call i64 asm "movabsq $1, $0", "=r,i"(i64 {value})')

    def _slot(self, slot: Slot) -> str:
        hole = self._hole(slot)
        if hole is None:
            return super()._slot(slot)
        return hole if slot.nbytes == 8 else self.let(f"trunc i64 {hole} to i{8 * slot.nbytes}")

    def place(self, slot: Slot) -> str:
        hole = self._hole(slot)
        return super().place(slot) if hole is None else self.context(hole)

    def load_register(self, file: str, pointer: str, size: int) -> str:
        link = self.architecture.convention.link
        if size == 64 and link is not None and file == link[0]:
            # An instruction of its own: processors that have what was just stored in a register
            # take it from there for loads that do nothing else.
            loaded = super().load_register(file, pointer, size)
            return self.let(f'call i64 asm "", "=r,0"(i64 {loaded})')
        return super().load_register(file, pointer, size)

    def constant(self, slot: Slot, size: int) -> str:
        hole = self._hole(slot)
        if hole is None:
            return super().constant(slot, size)
        return self.let(f"add i64 {hole}, 0" if size == 64 else f"trunc i64 {hole} to i{size}")

    def announce(self) -> None:
        self.accesses = True  # where it faults tells which record it is

    def go_on(self) -> None:
        """Continue with the next template."""
        result = "%" + self.name("r")
        self.line(
            f"{result} = musttail call i32 @{NEXT}(ptr noalias %context, ptr %record, ptr %memory)"
        )
        self.line(f"ret i32 {result}")


@dataclass(frozen=True, slots=True)
class Template:
    """One template before LLVM compiles it: of ``number``, for records of ``nbytes`` in all."""

    number: int
    body: str
    nbytes: int
    accesses: int = 0  # how many of the records access memory
    faulting: int = 0  # where the one that does begins

    @property
    def needs_record(self) -> bool:
        """Whether it looks at its record."""
        return any(
            "%record" in line and f"@{NEXT}(" not in line and not line.startswith("  %record")
            for line in self.body.splitlines()
        )


def hole_texts(bodies: str) -> list[str]:
    """Declarations of the holes that are used."""
    import re

    lines = []
    for name in sorted(set(re.findall(r"@([us][248]_\d+)", bodies))):
        low, high = _RANGES[name[:2]]
        lines.append(f"@{name} = external global i8, !absolute_symbol !{{i64 {low}, i64 {high}}}")
    return lines


OUTSIDE: Final = tuple(  # what handlers go on with, in other modules
    f"declare hidden i32 @{name}(ptr noalias, ptr, ptr)" for name in ("aa_answer", "aa_run")
)


def template_text(templates: Sequence[Template], header: Sequence[str]) -> str:
    """LLVM text of a module of templates; ``header`` are lines of the module in which handlers are
    compiled."""
    from anyarch.emit.llvm import declarations

    bodies = "\n".join(
        f"define hidden i32 @t_{template.number}(ptr noalias %context, ptr %record, ptr %memory)"
        f" #0 {{\n{template.body}\n}}"
        for template in templates
    )
    behind = f"declare hidden i32 @{NEXT}(ptr noalias, ptr, ptr)"
    text = "\n".join([*header, *hole_texts(bodies), *OUTSIDE, behind, bodies])
    return text + "\n" + declarations(text)


def assemble_templates(
    compiled: Iterable[tuple[Sequence[Template], bytes]], heads: Mapping[int, int], count: int
) -> str:
    """LLVM text: the tables of templates, compiled to objects, and ``aa_assemble``.

    ``heads`` are numbers for which others stand in where there is no template, which take fewer
    records at once; ``count`` is one more than the highest number.
    """
    from anyarch.emit.objects import Object

    tables = _Tables(count)
    for templates, elf in compiled:
        tables.add(Object(elf), templates)
    tables.stand_in(heads)
    return tables.text()


class _Tables:
    """What is compiled, taken apart."""

    def __init__(self, count: int) -> None:
        self._code = bytearray()
        self._data = bytearray()
        self._patches: list[bytes] = []
        self._targets = ["aa_template_data"]
        self._longest = 0
        self._rows = [bytes(ROW.size)] * count
        self._made: set[int] = set()
        self._object: Object
        self._data_places: dict[int, int] = {}  # of the object's sections
        self._text = b""

    def add(self, found: Object, templates: Sequence[Template]) -> None:
        """The templates that an object has."""
        self._object, self._data_places = found, {}
        symbols = {symbol.name: symbol for symbol in found.symbols}
        (text,) = {symbols[f"t_{template.number}"].section for template in templates}
        self._text = found.sections[text].content
        relocations = found.relocations(found.sections[text])
        for template in templates:
            self._add(template, symbols[f"t_{template.number}"], relocations)

    def stand_in(self, heads: Mapping[int, int]) -> None:
        """Give numbers that have no template the rows of others."""
        for number, head in heads.items():
            if number not in self._made:
                self._rows[number] = self._rows[head]

    def _add(
        self, template: Template, symbol: Symbol, relocations: list[tuple[int, int, int, int]]
    ) -> None:
        start, end = symbol.value, symbol.value + symbol.nbytes
        code = bytearray(self._text[start:end])
        patches, ways = [], []
        first = bisect_left(relocations, (start,))
        for offset, kind, index, addend in relocations[first : bisect_left(relocations, (end,))]:
            target = self._object.symbols[index]
            if target.name == NEXT:
                ways.append(offset - start)
                continue
            patch = self._patch(offset - start, kind, index, addend)
            if patch is None:
                return  # the records' handlers do it
            patches.append(patch)
        if ways and ways[-1] == len(code) - 4 and code[-5] == 0xE9:
            del code[-5:], ways[-1]
        for place in ways:
            struct.pack_into("<i", code, place, len(code) - place - 4)
        flags = NEEDS_RECORD if template.needs_record else 0
        self._rows[template.number] = ROW.pack(
            len(self._code), len(code), template.nbytes, len(self._patches), len(patches), flags,
            template.faulting, 0,
        )  # fmt: skip
        self._made.add(template.number)
        self._code += code
        self._longest = max(self._longest, len(code))
        self._patches += patches

    def _patch(self, place: int, kind: int, index: int, addend: int) -> bytes | None:
        symbol = self._object.symbols[index]
        hole, _, slot = symbol.name.partition("_")
        if hole in _RANGES:
            # R_X86_64_64, R_X86_64_32S, and for what has no sign R_X86_64_32
            width = {1: 8, 11: 4, 10: 4 if hole[0] == "u" else 0}.get(kind, 0)
            if (hole, width) not in _KINDS:
                return None
            return PATCH.pack(place, int(slot), addend, _KINDS[hole, width])
        if kind not in (2, 4):  # R_X86_64_PC32, R_X86_64_PLT32
            return None
        if symbol.section:
            addend += self._place_data(symbol.section) + symbol.value
            return PATCH.pack(place, 0, addend, _RELATIVE)
        if symbol.name not in self._targets:
            self._targets.append(symbol.name)
        return PATCH.pack(place, self._targets.index(symbol.name), addend, _RELATIVE)

    def _place_data(self, index: int) -> int:
        """Where the constants of a section are."""
        if index not in self._data_places:
            section = self._object.sections[index]
            self._data += bytes(-len(self._data) % max(section.align, 1))
            self._data_places[index] = len(self._data)
            self._data += section.content
        return self._data_places[index]

    def text(self) -> str:
        """LLVM text of the tables and of ``aa_assemble``."""
        from anyarch.engine.translator import BLOCK_LIMIT, OFFSETS

        relative = ", ".join(
            f"i32 trunc (i64 sub (i64 ptrtoint (ptr @{name} to i64), "
            "i64 ptrtoint (ptr @aa_template_code to i64)) to i32)"
            for name in self._targets
        )
        arrays = [
            ("code", bytes(self._code) + bytes(16), 16),
            ("rows", b"".join(self._rows), 8),
            ("patches", b"".join(self._patches), 4),
            ("data", bytes(self._data) or bytes(1), 64),
        ]
        lines = [
            f"@aa_template_{name} = hidden constant [{len(data)} x i8] "
            f'c"{_escaped(data)}", align {align}'
            for name, data, align in arrays
        ]
        lines += (
            f"declare hidden i32 @{name}(ptr noalias, ptr, ptr)" for name in self._targets[1:]
        )
        lines.append(
            f"@aa_template_targets = internal constant [{len(self._targets)} x i32] [{relative}]"
        )
        return "\n".join(lines) + _TEXT.format(
            **{f"t_{name}": offset for name, offset in OFFSETS.items()},
            row=ROW.size,
            patch=PATCH.size,
            header=CODE_HEADER,
            advance=ADVANCE_NBYTES,
            prefix=HANDLER_PREFIX,
            room=(BLOCK_LIMIT + 4) * (self._longest + 32) + 64,
            relative=_RELATIVE,
        )


def _escaped(data: bytes) -> str:
    return "".join(f"\\{byte:02X}" for byte in data)


# The bytes: add rsi, imm32 (48 81 C6); jmp [rsi] (FF 26).
_TEXT: Final = """
define hidden i1 @aa_code_full(ptr %t) #0 {{
  %nextp = getelementptr i8, ptr %t, i64 {t_code_next}
  %next = load i64, ptr %nextp
  %endp = getelementptr i8, ptr %t, i64 {t_code_end}
  %end = load i64, ptr %endp
  %room = sub i64 %end, %next
  %full = icmp slt i64 %room, {room}
  ret i1 %full
}}

; Code for the records in [start, last), which are block number `block`, if it is to have any.
define hidden void @aa_assemble(ptr %t, ptr %start, ptr %last, i64 %block, i1 %wanted) #0 {{
entry:
  %nextp = getelementptr i8, ptr %t, i64 {t_code_next}
  %next = load i64, ptr %nextp
  %code = add i64 %next, {header}
  %codesp = getelementptr i8, ptr %t, i64 {t_block_codes}
  %codes = load ptr, ptr %codesp
  %codep = getelementptr i64, ptr %codes, i64 %block
  store i64 %code, ptr %codep
  %distancep = getelementptr i8, ptr %t, i64 {t_code_write}
  %distance = load i64, ptr %distancep
  %on = icmp ne i64 %distance, 0
  %now = and i1 %on, %wanted
  br i1 %now, label %loop, label %none
loop:
  %record = phi ptr [ %start, %entry ], [ %record_next, %placed ]
  %known = phi ptr [ %start, %entry ], [ %known_next, %placed ]
  %out = phi i64 [ %code, %entry ], [ %out_next, %placed ]
  %end = icmp uge ptr %record, %last
  br i1 %end, label %finish, label %look
look:
  %handler = load ptr, ptr %record
  %indexp = getelementptr i8, ptr %handler, i64 -{prefix}
  %index = load i32, ptr %indexp
  %recordn = ptrtoint ptr %record to i64
  %knownn = ptrtoint ptr %known to i64
  %ahead = sub i64 %recordn, %knownn
  %ahead_placed = shl i64 %ahead, 24
  %add = or i64 %ahead_placed, 13009224
  %index64 = zext i32 %index to i64
  %row_offset = mul i64 %index64, {row}
  %row = getelementptr i8, ptr @aa_template_rows, i64 %row_offset
  %sizep = getelementptr i8, ptr %row, i64 6
  %size16 = load i16, ptr %sizep
  %size = zext i16 %size16 to i64
  %bare = icmp eq i16 %size16, 0
  br i1 %bare, label %leave, label %place
place:
  %from32 = load i32, ptr %row
  %from = zext i32 %from32 to i64
  %nbytesp = getelementptr i8, ptr %row, i64 4
  %nbytes16 = load i16, ptr %nbytesp
  %nbytes = zext i16 %nbytes16 to i64
  %firstp = getelementptr i8, ptr %row, i64 8
  %first32 = load i32, ptr %firstp
  %first = zext i32 %first32 to i64
  %countp = getelementptr i8, ptr %row, i64 12
  %count16 = load i16, ptr %countp
  %count = zext i16 %count16 to i64
  %flagsp = getelementptr i8, ptr %row, i64 14
  %flags = load i16, ptr %flagsp
  %needs = icmp ne i16 %flags, 0
  %behind = icmp ne i64 %ahead, 0
  %adding = and i1 %needs, %behind
  br i1 %adding, label %advance, label %copy
advance:
  %advance_write = add i64 %out, %distance
  %advancep = inttoptr i64 %advance_write to ptr
  store i64 %add, ptr %advancep, align 1
  %advanced = add i64 %out, {advance}
  br label %copy
copy:
  %here = phi i64 [ %out, %place ], [ %advanced, %advance ]
  %known_next = phi ptr [ %known, %place ], [ %record, %advance ]
  %write = add i64 %here, %distance
  %to = inttoptr i64 %write to ptr
  %source = getelementptr i8, ptr @aa_template_code, i64 %from
  br label %chunk
chunk:
  %i = phi i64 [ 0, %copy ], [ %i_next, %chunk ]
  %sourcep = getelementptr i8, ptr %source, i64 %i
  %top = getelementptr i8, ptr %to, i64 %i
  %bytes = load <2 x i64>, ptr %sourcep, align 1
  store <2 x i64> %bytes, ptr %top, align 1
  %i_next = add i64 %i, 16
  %copied = icmp uge i64 %i_next, %nbytes
  br i1 %copied, label %patches, label %chunk
patches:
  %k = phi i64 [ 0, %chunk ], [ %k_next, %stored ]
  %patched = icmp uge i64 %k, %count
  br i1 %patched, label %placed, label %patch
patch:
  %number = add i64 %first, %k
  %patch_offset = mul i64 %number, {patch}
  %patchp = getelementptr i8, ptr @aa_template_patches, i64 %patch_offset
  %place16 = load i16, ptr %patchp
  %placed_at = zext i16 %place16 to i64
  %slotp = getelementptr i8, ptr %patchp, i64 2
  %slot16 = load i16, ptr %slotp
  %slot = zext i16 %slot16 to i64
  %addendp = getelementptr i8, ptr %patchp, i64 4
  %addend32 = load i32, ptr %addendp
  %addend = sext i32 %addend32 to i64
  %kindp = getelementptr i8, ptr %patchp, i64 8
  %kind = load i32, ptr %kindp
  %holep = getelementptr i8, ptr %to, i64 %placed_at
  %valuep = getelementptr i8, ptr %record, i64 %slot
  switch i32 %kind, label %target [
    i32 0, label %u2
    i32 1, label %s2
    i32 2, label %s4
    i32 3, label %u2
    i32 4, label %s2
    i32 5, label %s4
    i32 6, label %s8
  ]
u2:
  %u2_16 = load i16, ptr %valuep, align 2
  %u2_64 = zext i16 %u2_16 to i64
  br label %fill
s2:
  %s2_16 = load i16, ptr %valuep, align 2
  %s2_64 = sext i16 %s2_16 to i64
  br label %fill
s4:
  %s4_32 = load i32, ptr %valuep, align 4
  %s4_64 = sext i32 %s4_32 to i64
  br label %fill
s8:
  %s8_64 = load i64, ptr %valuep, align 8
  br label %fill
target:
  %targetp = getelementptr i32, ptr @aa_template_targets, i64 %slot
  %target32 = load i32, ptr %targetp
  %target64 = sext i32 %target32 to i64
  %base = ptrtoint ptr @aa_template_code to i64
  %absolute = add i64 %target64, %base
  %hole_address = add i64 %here, %placed_at
  %difference = sub i64 %absolute, %hole_address
  br label %fill
fill:
  %value = phi i64 [ %u2_64, %u2 ], [ %s2_64, %s2 ], [ %s4_64, %s4 ], [ %s8_64, %s8 ],
              [ %difference, %target ]
  %sum = add i64 %value, %addend
  %above = icmp uge i32 %kind, 3
  %below = icmp ult i32 %kind, {relative}
  %wide = and i1 %above, %below
  br i1 %wide, label %fill8, label %fill4
fill8:
  store i64 %sum, ptr %holep, align 1
  br label %stored
fill4:
  %sum32 = trunc i64 %sum to i32
  store i32 %sum32, ptr %holep, align 1
  br label %stored
stored:
  %k_next = add i64 %k, 1
  br label %patches
placed:
  %record_next = getelementptr i8, ptr %record, i64 %size
  %out_next = add i64 %here, %nbytes
  br label %loop
leave:
  %nothing = icmp eq ptr %record, %start
  br i1 %nothing, label %none, label %jump
jump:
  %leave_write = add i64 %out, %distance
  %leavep = inttoptr i64 %leave_write to ptr
  store i64 %add, ptr %leavep, align 1
  %jumpp = getelementptr i8, ptr %leavep, i64 {advance}
  store i16 9983, ptr %jumpp, align 1
  %left = add i64 %out, 9
  br label %finish
finish:
  %stop = phi i64 [ %out, %loop ], [ %left, %jump ]
  %first_handler = load i64, ptr %start
  %header_write = add i64 %next, %distance
  %headerp = inttoptr i64 %header_write to ptr
  store i64 %first_handler, ptr %headerp
  %rounded = add i64 %stop, 15
  %aligned = and i64 %rounded, -16
  store i64 %aligned, ptr %nextp
  store atomic i64 %code, ptr %start release, align 8
  br label %none
none:
  ret void
}}
"""
