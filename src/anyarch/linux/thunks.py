"""System calls without Python: the table of calls that native code may pass on, and that code.

The table has 512 entries of 16 bytes: the host's number (i32, -1 sends the call to Python), a bit
for each argument that is a pointer (u8), the argument that is an iovec plus one (u8), a bit for
each operation that is served (u16, 0 serves all), and how often it was called (u64). A word after
the last entry says that a call was made and interrupted.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from anyarch.host.context import FIELDS
from anyarch.linux.calls.table import IOVECS, POINTERS, Call
from anyarch.linux.numbers import HOST_NUMBERS

ENTRIES: Final = 512
_ENTRY: Final = struct.Struct("<iBBHQ")
INTERRUPTED: Final = ENTRIES * _ENTRY.size  # u64: the last native call gave -EINTR
TABLE_NBYTES: Final = INTERRUPTED + 8
_VECTORS: Final = 16  # iovec entries that are translated on the stack
_TO_PYTHON: Final = _ENTRY.pack(-1, 0, 0, 0, 0)


def fill_thunk_table(
    numbers: Mapping[int, str], calls: Mapping[str, Call], *, without: frozenset[str] = frozenset()
) -> bytes:
    """The table for a guest's call numbers; calls named in ``without`` go to Python."""
    table = bytearray(_TO_PYTHON * ENTRIES + bytes(8))
    for number, name in numbers.items():
        call = calls.get(name)
        host = HOST_NUMBERS.get(name)
        if call is None or not call.native or host is None or name in without:
            continue
        pointers = vector = 0
        for index, argument in enumerate(call.arguments):
            if argument.kind in IOVECS:
                vector = index + 1
            elif argument.kind in POINTERS:
                pointers |= 1 << index
        _ENTRY.pack_into(table, number * _ENTRY.size, host, pointers, vector, call.operations, 0)
    return bytes(table)


def empty_thunk_table() -> bytes:
    """A table that sends every call to Python, as strace needs."""
    return _TO_PYTHON * ENTRIES + bytes(8)


def native_counts(table: bytes) -> dict[int, int]:
    """How often each call number was served natively."""
    counts = enumerate(entry[-1] for entry in _ENTRY.iter_unpack(table[:INTERRUPTED]))
    return {number: count for number, count in counts if count}


def _register(index: int, result: str) -> str:
    """Load an address of the guest's register that the context's field ``abi`` names."""
    place = FIELDS["abi"][0] + 2 * index
    return f"""\
  %{result}.o.p = getelementptr i8, ptr %context, i64 {place}
  %{result}.o.16 = load i16, ptr %{result}.o.p, align 2
  %{result}.o = zext i16 %{result}.o.16 to i64
  %{result}.p = getelementptr i8, ptr %context, i64 %{result}.o
"""


def _argument(index: int) -> str:
    return f"""\
{_register(index + 1, f"a{index}")}\
  %a{index} = load volatile i64, ptr %a{index}.p, align 8
  %a{index}.bit = and i64 %pointers, {1 << index}
  %a{index}.number = icmp eq i64 %a{index}.bit, 0
  %a{index}.null = icmp eq i64 %a{index}, 0
  %a{index}.keep = or i1 %a{index}.number, %a{index}.null
  %a{index}.moved = add i64 %a{index}, %memory.i
  %h{index} = select i1 %a{index}.keep, i64 %a{index}, i64 %a{index}.moved
"""


def thunk_text() -> str:
    """LLVM text of ``aa_linux_thunk``: 0 when it served the call, 1 when Python is to."""
    table = FIELDS["syscall_table"][0]
    passed = "i64 %h0, i64 %second, i64 %h2, i64 %h3, i64 %h4, i64 %h5"
    return f"""
define i32 @aa_linux_thunk(ptr %context, ptr %memory) {{
entry:
  %vectors = alloca [{_VECTORS} x {{ i64, i64 }}], align 16
  %memory.i = ptrtoint ptr %memory to i64
{_register(0, "number")}\
  %number = load volatile i64, ptr %number.p, align 8
  %known = icmp ult i64 %number, {ENTRIES}
  br i1 %known, label %look, label %python
look:
  %table.p = getelementptr i8, ptr %context, i64 {table}
  %table = load volatile ptr, ptr %table.p, align 8
  %entry.o = shl i64 %number, 4
  %entry.p = getelementptr i8, ptr %table, i64 %entry.o
  %host.32 = load volatile i32, ptr %entry.p, align 4
  %native = icmp sge i32 %host.32, 0
  br i1 %native, label %check, label %python
check:
  %host = zext i32 %host.32 to i64
  %pointers.p = getelementptr i8, ptr %entry.p, i64 4
  %pointers.8 = load i8, ptr %pointers.p
  %pointers = zext i8 %pointers.8 to i64
  %vector.p = getelementptr i8, ptr %entry.p, i64 5
  %vector = load i8, ptr %vector.p
  %served.p = getelementptr i8, ptr %entry.p, i64 6
  %served.16 = load i16, ptr %served.p, align 2
  %served = zext i16 %served.16 to i64
{"".join(_argument(index) for index in range(6))}\
  %every = icmp eq i64 %served, 0
  %operation = and i64 %a1, 127
  %small = icmp ult i64 %operation, 16
  %shift = and i64 %operation, 15
  %shifted = lshr i64 %served, %shift
  %bit = trunc i64 %shifted to i1
  %named = and i1 %small, %bit
  %go = or i1 %every, %named
  br i1 %go, label %vectored, label %python
vectored:
  %plain = icmp eq i8 %vector, 0
  br i1 %plain, label %call, label %count
count:
  ; An iovec is the second argument of every call that has one, its length the third.
  %few = icmp ule i64 %a2, {_VECTORS}
  br i1 %few, label %head, label %python
head:
  %i = phi i64 [ 0, %count ], [ %next, %body ]
  %more = icmp ult i64 %i, %a2
  br i1 %more, label %body, label %vector_ready
body:
  %i.o = shl i64 %i, 4
  %source.a = add i64 %a1, %i.o
  %source = getelementptr i8, ptr %memory, i64 %source.a
  %source.n = getelementptr i8, ptr %source, i64 8
  %place = load volatile i64, ptr %source, align 1
  %nbytes = load volatile i64, ptr %source.n, align 1
  %place.null = icmp eq i64 %place, 0
  %place.moved = add i64 %place, %memory.i
  %place.host = select i1 %place.null, i64 0, i64 %place.moved
  %target = getelementptr i8, ptr %vectors, i64 %i.o
  %target.n = getelementptr i8, ptr %target, i64 8
  store i64 %place.host, ptr %target, align 8
  store i64 %nbytes, ptr %target.n, align 8
  %next = add i64 %i, 1
  br label %head
vector_ready:
  %vectors.i = ptrtoint ptr %vectors to i64
  br label %call
call:
  %second = phi i64 [ %h1, %vectored ], [ %vectors.i, %vector_ready ]
  %result = call i64 @aa_syscall(ptr %context, i64 %host, {passed})
  %not_begun = icmp eq i64 %result, -512
  br i1 %not_begun, label %python, label %begun
begun:
  %interrupted = icmp eq i64 %result, -4
  br i1 %interrupted, label %tell, label %done
tell:
  %told = getelementptr i8, ptr %table, i64 {INTERRUPTED}
  store volatile i64 1, ptr %told, align 8
  br label %python
done:
  %times.p = getelementptr i8, ptr %entry.p, i64 8
  %times = load i64, ptr %times.p, align 8
  %times.next = add i64 %times, 1
  store i64 %times.next, ptr %times.p, align 8
{_register(7, "result")}\
  store volatile i64 %result, ptr %result.p, align 8
  ret i32 0
python:
  ret i32 1
}}
"""
