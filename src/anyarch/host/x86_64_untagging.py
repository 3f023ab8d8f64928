"""Accesses through pointers with ignored bits, done once more without these (x86-64).

The host faults where an address is not canonical, which one with such bits never is. Who compiled
the access has left registers in a form of its own, so it is that very instruction that has to be
done: a copy of it, in the thread's page for that, takes its base (or index) from a register that it
does not use. Behind it that register is put back, and control returns to what follows.

Encodings: Intel's Software Developer's Manual, volume 2, chapter 2 and appendix A. Instructions
that cannot be what a guest's access is compiled to are refused.
"""

from __future__ import annotations

from typing import Final

from anyarch.host import signalpage as page
from anyarch.host import x86_64 as machine
from anyarch.host.mapping import PROT_EXEC, PROT_READ, PROT_WRITE

# What follows the opcode: nothing that is ours; an operand in memory; a byte behind it; a word; a
# byte or a word where the register field is less than two, as in `test`.
_PLAIN, _BYTE, _WORD, _TEST_BYTE, _TEST_WORD = range(1, 6)
_NARROW: Final = 8  # added: the register field names a byte, maybe ah, ch, dh or bh
_MAPS: Final = 4  # of opcodes: one byte; 0F; 0F 38; 0F 3A
# Where the frame has registers by the number that instructions have.
_PLACES: Final = (13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7)
_STACK_POINTER: Final = 4
# What may take the pointer's place: no instruction has them as operands without saying so, and no
# addressing mode has a meaning of its own for them. The others do where no prefix can be.
_SPARE: Final = sum(1 << number for number in (8, 9, 10, 11, 14))
_SPARE_LOW: Final = sum(1 << number for number in (1, 2, 6, 7))
# siginfo, sigaction(2)
_SI_CODE, _SI_ADDRESS, _SI_KERNEL, _SEGV_MAPERR, _SIGSEGV = 8, 16, 128, 1, 11
_UNUSED: Final = 16  # the highest bits of a canonical address are copies of the one below them
_PREFIXES: Final = 4  # of one byte, that an access has at most
_LOCKED_OR_WIDE: Final = (0x26, 0x2E, 0x36, 0x3E, 0x66, 0xF0, 0xF2, 0xF3)


def _forms() -> bytes:
    """What follows each opcode, by map."""
    one, two = bytearray(256), bytearray(256)
    for first in range(0, 0x40, 8):
        for number in range(4):
            one[first + number] = _PLAIN
    for numbers, form in (
        ((0x63, *range(0x84, 0x8C), *range(0xD0, 0xD4), 0xFE, 0xFF), _PLAIN),
        ((0x6B, 0x80, 0x83, 0xC0, 0xC1, 0xC6), _BYTE),
        ((0x69, 0x81, 0xC7), _WORD),
        ((0xF6,), _TEST_BYTE),
        ((0xF7,), _TEST_WORD),
    ):
        for number in numbers:
            one[number] = form
    for number in (*range(0, 0x40, 8), *range(2, 0x40, 8), 0x84, 0x86, 0x88, 0x8A):
        one[number] |= _NARROW
    for start, end in (
        (0x10, 0x18), (0x28, 0x30), (0x40, 0x77), (0x78, 0x80), (0x90, 0xA0), (0xA3, 0xA6),
        (0xAB, 0xAE), (0xAF, 0xC8), (0xD0, 0xFF),
    ):  # fmt: skip
        two[start:end] = bytes([_PLAIN]) * (end - start)
    for number in (*range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6):
        two[number] = _BYTE
    for number in (0xB0, 0xC0):
        two[number] |= _NARROW
    return bytes(one + two + bytes([_PLAIN]) * 256 + bytes([_BYTE]) * 256)


def _constant(name: str, data: bytes) -> str:
    text = "".join(f"\\{byte:02X}" for byte in data)
    return f'@{name} = internal constant [{len(data)} x i8] c"{text}"'


def _protect(result: str, prot: int) -> str:
    return (
        f"%{result} = call i64 asm sideeffect {machine.SYSCALL_4}(i64 {machine.NR_MPROTECT}, "
        f"i64 %slot, i64 {page.SLOT_NBYTES}, i64 {prot}, i64 0)"
    )


def _moved(value: str, by: str) -> str:
    """The frame's word of a register, as a pointer."""
    return (
        f"  %{value}.row = getelementptr i8, ptr @aa_places, i64 %{by}\n"
        f"  %{value}.place = load i8, ptr %{value}.row\n"
        f"  %{value}.index = zext i8 %{value}.place to i64\n"
        f"  %{value}.offset = shl i64 %{value}.index, 3\n"
        f"  %{value}.from = add i64 %{value}.offset, {machine.UC_REGISTERS}\n"
        f"  %{value}.p = getelementptr i8, ptr %uc, i64 %{value}.from"
    )


def untagging_text() -> str:
    """LLVM text of two functions for the fault handler.

    ``aa_untag(frame, info, stack, ignored)``: whether the instruction that faulted is repeated,
    when the handler returns, at its address without the highest ``ignored`` bits, copies of the one
    below them in their place; not where it has that one already, or one that is not canonical
    either. Then the siginfo tells it, which the kernel has not. ``stack`` is the thread's alternate
    stack, from its aligned base.

    ``aa_tag(frame, stack)``: whether it was what is repeated that faulted. The frame is that of the
    instruction itself then.
    """
    more = " ".join(f"i8 {byte}, label %more" for byte in _LOCKED_OR_WIDE)
    return f"""
{_constant("aa_forms", _forms())}
{_constant("aa_places", bytes(_PLACES))}

define internal i1 @aa_tag(ptr %uc, ptr %stack) noinline nounwind {{
  %pc.p = getelementptr i8, ptr %uc, i64 {machine.UC_PC}
  %pc = load i64, ptr %pc.p
  %stack.i = ptrtoint ptr %stack to i64
  %slot = add i64 %stack.i, {page.SLOT}
  %inside = sub i64 %pc, %slot
  %repeated = icmp ult i64 %inside, {page.SLOT_NBYTES}
  br i1 %repeated, label %back, label %done
back:
  %kept = getelementptr i8, ptr %stack, i64 {page.REPEATED}
  %words = load <3 x i64>, ptr %kept, align 8
  %old.pc = extractelement <3 x i64> %words, i32 0
  %place = extractelement <3 x i64> %words, i32 1
  %value = extractelement <3 x i64> %words, i32 2
  %register = getelementptr i8, ptr %uc, i64 %place
  store i64 %value, ptr %register
  store i64 %old.pc, ptr %pc.p
  br label %done
done:
  ret i1 %repeated
}}

define internal i1 @aa_untag(ptr %uc, ptr %info, ptr %stack, i64 %ignored) noinline nounwind {{
entry:
  %pc.p = getelementptr i8, ptr %uc, i64 {machine.UC_PC}
  %pc = load i64, ptr %pc.p
  %code = inttoptr i64 %pc to ptr
  br label %prefix
prefix:
  %prefixes = phi i64 [ 0, %entry ], [ %prefixes.1, %more ]
  %wide.0 = phi i1 [ false, %entry ], [ %wide, %more ]
  %head = getelementptr i8, ptr %code, i64 %prefixes
  %first = load i8, ptr %head
  %is.wide = icmp eq i8 %first, {0x66}
  %wide = or i1 %wide.0, %is.wide
  %prefixes.1 = add i64 %prefixes, 1
  switch i8 %first, label %encoded [ {more} ]
more:
  %many = icmp ugt i64 %prefixes.1, {_PREFIXES}
  br i1 %many, label %no, label %prefix

encoded:
  %word = load i32, ptr %head, align 1
  switch i8 %first, label %legacy [ i8 {0xC5}, label %short i8 {0xC4}, label %vex
                                    i8 {0x62}, label %evex ]
short:  ; the same in three bytes, in which there is room for the register
  %short.r = and i32 %word, {0x8000}
  %short.w = shl i32 %word, 8
  %short.rest = and i32 %short.w, {0x7F0000}
  %short.1 = or i32 %short.r, %short.rest
  %short.prefix = or i32 %short.1, {0x61C4}
  br label %vector
vex:
  br label %vector
evex:
  br label %vector
vector:
  %v.prefix = phi i32 [ %short.prefix, %short ], [ %word, %vex ], [ %word, %evex ]
  %v.nbytes = phi i64 [ 3, %short ], [ 3, %vex ], [ 4, %evex ]
  %v.length = phi i64 [ 2, %short ], [ 3, %vex ], [ 4, %evex ]
  %v.at = add i64 %prefixes, %v.length
  %v.inverted = xor i32 %v.prefix, -1
  %v.r.1 = lshr i32 %v.inverted, 12
  %v.r = and i32 %v.r.1, 8
  %v.x.1 = lshr i32 %v.inverted, 11
  %v.x = and i32 %v.x.1, 8
  %v.b.1 = lshr i32 %v.inverted, 10
  %v.b = and i32 %v.b.1, 8
  %v.second.1 = lshr i32 %v.inverted, 19
  %v.second = and i32 %v.second.1, 15
  %v.map.1 = lshr i32 %v.prefix, 8
  %v.map.2 = and i32 %v.map.1, 7
  %v.map.3 = zext i32 %v.map.2 to i64
  ; Maps 5 and 6, of halves, are like 2.
  switch i32 %v.map.2, label %no [ i32 1, label %known i32 2, label %known i32 3, label %known
                                   i32 5, label %halves i32 6, label %halves ]
halves:
  br label %known
known:
  %v.map = phi i64 [ %v.map.3, %vector ], [ %v.map.3, %vector ], [ %v.map.3, %vector ],
                   [ 2, %halves ]
  br label %opcode

legacy:
  %high = and i8 %first, {0xF0}
  %has.rex = icmp eq i8 %high, {0x40}
  %rex.nbytes = zext i1 %has.rex to i64
  %first.32 = zext i8 %first to i32
  %rex = select i1 %has.rex, i32 %first.32, i32 {0x40}
  %l.at = add i64 %prefixes, %rex.nbytes
  %l.r.1 = shl i32 %rex, 1
  %l.r = and i32 %l.r.1, 8
  %l.x.1 = shl i32 %rex, 2
  %l.x = and i32 %l.x.1, 8
  %l.b.1 = shl i32 %rex, 3
  %l.b = and i32 %l.b.1, 8
  %l.p = getelementptr i8, ptr %code, i64 %l.at
  %l.word = load i32, ptr %l.p, align 1
  %l.0 = and i32 %l.word, 255
  %l.1 = and i32 %l.word, 65535
  %is.two = icmp eq i32 %l.0, {0x0F}
  %is.38 = icmp eq i32 %l.1, {0x380F}
  %is.3a = icmp eq i32 %l.1, {0x3A0F}
  %l.map.1 = zext i1 %is.two to i64
  %l.map.2 = select i1 %is.38, i64 2, i64 %l.map.1
  %l.map = select i1 %is.3a, i64 3, i64 %l.map.2
  %is.three = icmp ugt i64 %l.map, 1
  %l.skip = select i1 %is.three, i64 2, i64 %l.map.1
  %l.opcode = add i64 %l.at, %l.skip
  br label %opcode

opcode:
  %is.vector = phi i1 [ true, %known ], [ false, %legacy ]
  %has.prefix = phi i1 [ true, %known ], [ %has.rex, %legacy ]
  %bits = phi i32 [ %v.prefix, %known ], [ %rex, %legacy ]
  %bits.nbytes = phi i64 [ %v.nbytes, %known ], [ 1, %legacy ]
  %tail = phi i64 [ %v.at, %known ], [ %l.at, %legacy ]  ; what is copied as it is
  %at = phi i64 [ %v.at, %known ], [ %l.opcode, %legacy ]
  %map = phi i64 [ %v.map, %known ], [ %l.map, %legacy ]
  %r = phi i32 [ %v.r, %known ], [ %l.r, %legacy ]
  %x = phi i32 [ %v.x, %known ], [ %l.x, %legacy ]
  %b = phi i32 [ %v.b, %known ], [ %l.b, %legacy ]
  %second = phi i32 [ %v.second, %known ], [ 16, %legacy ]
  %opcode.p = getelementptr i8, ptr %code, i64 %at
  %opcode.8 = load i8, ptr %opcode.p
  %opcode.64 = zext i8 %opcode.8 to i64
  %row.1 = shl i64 %map, 8
  %row = or i64 %row.1, %opcode.64
  %form.p = getelementptr i8, ptr @aa_forms, i64 %row
  %form.8 = load i8, ptr %form.p
  %form = and i8 %form.8, 7
  %narrow.1 = and i8 %form.8, {_NARROW}
  %narrow = icmp ne i8 %narrow.1, 0
  %no.form = icmp eq i8 %form, 0
  br i1 %no.form, label %no, label %operand

operand:  ; ModRM, SIB
  %operand.at = add i64 %at, 1
  %operand.p = getelementptr i8, ptr %code, i64 %operand.at
  %pair = load i16, ptr %operand.p, align 1
  %pair.32 = zext i16 %pair to i32
  %mod.1 = lshr i32 %pair.32, 6
  %mod = and i32 %mod.1, 3
  %field.1 = lshr i32 %pair.32, 3
  %field = and i32 %field.1, 7
  %rm = and i32 %pair.32, 7
  %is.register = icmp eq i32 %mod, 3
  %has.sib = icmp eq i32 %rm, 4
  %scale.1 = lshr i32 %pair.32, 14
  %scale = zext i32 %scale.1 to i64
  %sib.index.1 = lshr i32 %pair.32, 11
  %sib.index = and i32 %sib.index.1, 7
  %sib.base.1 = lshr i32 %pair.32, 8
  %sib.base = and i32 %sib.base.1, 7
  %low = select i1 %has.sib, i32 %sib.base, i32 %rm
  %base = or i32 %low, %b
  %index = or i32 %sib.index, %x
  %index.4 = icmp ne i32 %index, 4
  %has.index = and i1 %has.sib, %index.4
  %mod.0 = icmp eq i32 %mod, 0
  %low.5 = icmp eq i32 %low, 5
  %absolute = and i1 %mod.0, %low.5
  %has.base = xor i1 %absolute, true
  %has.any = or i1 %has.base, %has.index
  %has.none = xor i1 %has.any, true
  %on.stack.1 = icmp eq i32 %base, {_STACK_POINTER}
  %on.stack = and i1 %on.stack.1, %has.base
  %bad.1 = or i1 %is.register, %has.none
  %bad = or i1 %bad.1, %on.stack
  br i1 %bad, label %no, label %displacement

displacement:
  %mod.1b = icmp eq i32 %mod, 1
  %mod.2 = icmp eq i32 %mod, 2
  %long = or i1 %mod.2, %absolute
  %d.nbytes.1 = zext i1 %mod.1b to i64
  %d.nbytes = select i1 %long, i64 4, i64 %d.nbytes.1
  %sib.nbytes = zext i1 %has.sib to i64
  %d.at.1 = add i64 %operand.at, 1
  %d.at = add i64 %d.at.1, %sib.nbytes
  %d.p = getelementptr i8, ptr %code, i64 %d.at
  %d.word = load i32, ptr %d.p, align 1
  %d.byte = trunc i32 %d.word to i8
  %d.32 = sext i32 %d.word to i64
  ; AVX-512 has it scaled; but what that adds tells nothing of the ignored bits.
  %d.8 = sext i8 %d.byte to i64
  %d.short = select i1 %mod.1b, i64 %d.8, i64 0
  %d = select i1 %long, i64 %d.32, i64 %d.short
  %word.nbytes = select i1 %wide, i64 2, i64 4
  %is.test = icmp ult i32 %field, 2
  %test.byte = zext i1 %is.test to i64
  %test.word = select i1 %is.test, i64 %word.nbytes, i64 0
  %d.end = add i64 %d.at, %d.nbytes
  switch i8 %form, label %no [ i8 {_PLAIN}, label %plain i8 {_BYTE}, label %byte
                               i8 {_WORD}, label %immediate i8 {_TEST_BYTE}, label %test.b
                               i8 {_TEST_WORD}, label %test.w ]
plain:
  br label %address
byte:
  br label %address
immediate:
  br label %address
test.b:
  br label %address
test.w:
  br label %address

address:
  %i.nbytes = phi i64 [ 0, %plain ], [ 1, %byte ], [ %word.nbytes, %immediate ],
                      [ %test.byte, %test.b ], [ %test.word, %test.w ]
  %length = add i64 %d.end, %i.nbytes
  %base.64 = zext i32 %base to i64
  %index.64 = zext i32 %index to i64
{_moved("b", "base.64")}
{_moved("i", "index.64")}
  %base.value = load i64, ptr %b.p
  %index.value = load i64, ptr %i.p
  %base.part = select i1 %has.base, i64 %base.value, i64 0
  %scaled = shl i64 %index.value, %scale
  %index.part = select i1 %has.index, i64 %scaled, i64 0
  %sum = add i64 %base.part, %index.part
  %tagged = add i64 %sum, %d
  %raised = shl i64 %tagged, %ignored
  %untagged = ashr i64 %raised, %ignored
  %tag = sub i64 %tagged, %untagged
  %is.tagged = icmp ne i64 %tag, 0
  %canonical.1 = shl i64 %untagged, {_UNUSED}
  %canonical = ashr i64 %canonical.1, {_UNUSED}
  %is.canonical = icmp eq i64 %canonical, %untagged
  %helps = and i1 %is.tagged, %is.canonical
  br i1 %helps, label %choose, label %tell

tell:
  %is.evex = icmp eq i8 %first, {0x62}
  %is.inexact = and i1 %is.evex, %mod.1b
  %code.p = getelementptr i8, ptr %info, i64 {_SI_CODE}
  %info.code = load i32, ptr %code.p
  %is.told = icmp ne i32 %info.code, {_SI_KERNEL}
  %is.left = or i1 %is.inexact, %is.told
  br i1 %is.left, label %no, label %tell.it
tell.it:
  %address.p = getelementptr i8, ptr %info, i64 {_SI_ADDRESS}
  store i64 %untagged, ptr %address.p
  store i32 {_SIGSEGV}, ptr %info
  store i32 {_SEGV_MAPERR}, ptr %code.p
  br label %no

choose:
  %index.tag = lshr i64 %tag, %scale
  %pointer = select i1 %has.base, i64 %base.value, i64 %index.value
  %change = select i1 %has.base, i64 %tag, i64 %index.tag
  %new = sub i64 %pointer, %change
  %high.1 = icmp uge i32 %field, 4
  %high.2 = and i1 %high.1, %narrow
  %high.3 = xor i1 %has.prefix, true
  %is.high = and i1 %high.2, %high.3  ; ah to bh, which no REX prefix may go with
  %field.low = and i32 %field, 3
  %field.whole = or i32 %field, %r
  %operand.used = select i1 %is.high, i32 %field.low, i32 %field.whole
  %used.1 = shl i32 1, %operand.used
  %used.2 = shl i32 1, %base
  %used.3 = shl i32 1, %index
  %used.4 = shl i32 1, %second
  %used.12 = or i32 %used.1, %used.2
  %used.34 = or i32 %used.3, %used.4
  %used = or i32 %used.12, %used.34
  %unused = xor i32 %used, -1
  %candidates = select i1 %is.high, i32 {_SPARE_LOW}, i32 {_SPARE}
  %free = and i32 %candidates, %unused
  %spare = call i32 @llvm.cttz.i32(i32 %free, i1 true)
  %spare.low = and i32 %spare, 7
  %spare.64 = zext i32 %spare to i64
{_moved("s", "spare.64")}
  %spare.value = load i64, ptr %s.p
  %rex.bit = select i1 %has.base, i32 1, i32 2
  %rex.new = or i32 %bits, %rex.bit
  %vector.mask = select i1 %has.base, i32 {~(1 << 13)}, i32 {~(1 << 14)}
  %vector.new = and i32 %bits, %vector.mask
  %bits.new = select i1 %is.vector, i32 %vector.new, i32 %rex.new
  %bits.size = select i1 %is.high, i64 0, i64 %bits.nbytes
  %sib.shift = select i1 %has.base, i32 8, i32 11
  %shift = select i1 %has.sib, i32 %sib.shift, i32 0
  %hole.1 = shl i32 7, %shift
  %hole = xor i32 %hole.1, -1
  %filled.1 = and i32 %pair.32, %hole
  %filled.2 = shl i32 %spare.low, %shift
  %filled = or i32 %filled.1, %filled.2
  %pair.new = trunc i32 %filled to i16
  %stack.i = ptrtoint ptr %stack to i64
  %slot = add i64 %stack.i, {page.SLOT}
  {_protect("opened", PROT_READ | PROT_WRITE)}
  %is.open = icmp eq i64 %opened, 0
  br i1 %is.open, label %write, label %no

write:
  %slot.p = getelementptr i8, ptr %stack, i64 {page.SLOT}
  %before = load i64, ptr %code, align 1
  store i64 %before, ptr %slot.p, align 1
  %bits.p = getelementptr i8, ptr %slot.p, i64 %prefixes
  store i32 %bits.new, ptr %bits.p, align 1
  %tail.from = getelementptr i8, ptr %code, i64 %tail
  %tail.p = getelementptr i8, ptr %bits.p, i64 %bits.size
  %rest = load i128, ptr %tail.from, align 1
  store i128 %rest, ptr %tail.p, align 1
  %to.operand = sub i64 %operand.at, %tail
  %new.operand = getelementptr i8, ptr %tail.p, i64 %to.operand
  store i16 %pair.new, ptr %new.operand, align 1
  %to.end = sub i64 %length, %tail
  %restore = getelementptr i8, ptr %tail.p, i64 %to.end
  ; mov spare, its value; jmp [rip + 0]
  %spare.high = lshr i32 %spare, 3
  %mov.1 = shl i32 %spare.low, 8
  %mov.2 = or i32 %mov.1, %spare.high
  %mov.3 = or i32 %mov.2, {0xB848}
  %mov = trunc i32 %mov.3 to i16
  store i16 %mov, ptr %restore, align 1
  %mov.p = getelementptr i8, ptr %restore, i64 2
  store i64 %spare.value, ptr %mov.p, align 1
  %jump = getelementptr i8, ptr %restore, i64 10
  store i64 {0x25FF}, ptr %jump, align 1
  %next = add i64 %pc, %length
  %jump.p = getelementptr i8, ptr %restore, i64 16
  store i64 %next, ptr %jump.p, align 1
  {_protect("closed", PROT_READ | PROT_EXEC)}
  %is.closed = icmp eq i64 %closed, 0
  br i1 %is.closed, label %yes, label %no
yes:
  %kept = getelementptr i8, ptr %stack, i64 {page.REPEATED}
  %place.p = getelementptr i8, ptr %kept, i64 8
  %value.p = getelementptr i8, ptr %kept, i64 16
  store i64 %pc, ptr %kept
  store i64 %s.from, ptr %place.p
  store i64 %spare.value, ptr %value.p
  store i64 %new, ptr %s.p
  store i64 %slot, ptr %pc.p
  ret i1 true
no:
  ret i1 false
}}

declare i32 @llvm.cttz.i32(i32, i1)
"""
