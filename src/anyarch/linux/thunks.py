"""System calls without Python: the table of calls that native code may pass on, and that code.

The table has 512 entries of 16 bytes: the host's number (i16, -1 sends the call to Python), a bit
for each argument that is a pointer (u8); which argument, plus one, is an iovec (u8); a bit for
each operation that is served (u16, 0 serves all); which argument is a path, or eight more, the
address of a socket, and which receives a stat (u8, four bits each); which is a timeout that begins
with the call and which a signal mask (u8, alike); how often it was called (u64). Two words after
the last entry say that a call was made and interrupted, and that a fault now is one of the call's
arguments; a third has the flags of :mod:`anyarch.linux.paths`: which paths are for Python; two
more, when the last call with a timeout began. A call with a mask is for Python: signals that it
lets in may have arrived before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from anyarch.host.context import FIELDS
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.calls.table import IOVECS, OPEN_FLAGS, PATHS, POINTERS, Argument, Call
from anyarch.linux.masks import MASK_CALL, mask_thunk_text
from anyarch.linux.numbers import HOST_NUMBERS
from anyarch.linux.paths import ABSOLUTE, AT_FDCWD, BELOW_DESCRIPTORS, RELATIVE
from anyarch.linux.places import HOST_NAME_NBYTES, PLACES_NBYTES, places_text

ENTRIES: Final = 512
_ENTRY: Final = struct.Struct("<hBBHBBQ")
ENTRY_NBYTES: Final = _ENTRY.size
INTERRUPTED: Final = ENTRIES * _ENTRY.size  # u64: the last native call gave -EINTR
TOUCHING: Final = INTERRUPTED + 8  # u64: the thunk itself is touching guest memory
PATHS_LEFT: Final = TOUCHING + 8  # u64: flags, which paths are left to Python
BEGAN: Final = PATHS_LEFT + 8  # struct timespec, CLOCK_MONOTONIC
OPENED: Final = BEGAN + 16  # u64: one more than the descriptor that was opened last, or 0
FLAGS_RAISED: Final = OPENED + 8  # u64: flags of open that are two bits higher on the host,
FLAGS_LOWERED: Final = FLAGS_RAISED + 8  # and two bits lower
PLACES: Final = FLAGS_LOWERED + 8
TABLE_NBYTES: Final = PLACES + PLACES_NBYTES
_VECTORS: Final = 16  # iovec entries that are translated on the stack
_CLOCK_MONOTONIC: Final = 1
_MASKS: Final = ("mask", "sigmask")  # arguments that are in force while a call waits
_OWN_PATHS: Final = b"proc"  # absolute paths that begin so are for Python
_LOOKS, _SOCKET_NAME = 4, 8  # added to the place of a path: the call changes no names; a socket's
_LOOKING: Final = frozenset(
    ("faccessat", "faccessat2", "newfstatat", "openat", "readlinkat", "statx")
)
_OPENAT: Final = HOST_NUMBERS["openat"]
_CREATING: Final = 0o20000100  # O_CREAT, O_TMPFILE: the same on all


def fill_thunk_table(
    abi: LinuxAbi, find: Callable[[str], Call | None], paths_left: int = 0
) -> bytes:
    """The table for a guest's call numbers, from the call that ``find`` has for each name.

    ``paths_left``: which calls that name files go to Python.
    """
    table = bytearray(empty_thunk_table())
    for number, name in abi.calls.items():
        call = find(name)
        entry = None if call is None or not call.native else _entry(abi, call)
        if entry is not None:
            table[number * _ENTRY.size : (number + 1) * _ENTRY.size] = entry
    table[PATHS_LEFT] = paths_left
    for flag, host_flag in abi.open_flags.items():
        place = FLAGS_RAISED if host_flag == flag << 2 else FLAGS_LOWERED
        (flags,) = struct.unpack_from("<Q", table, place)
        struct.pack_into("<Q", table, place, flags | flag)
    return bytes(table)


def _entry(abi: LinuxAbi, call: Call) -> bytes | None:
    pointers = vector = path = stat = mask = 0
    for index, argument in enumerate(call.arguments):
        if argument.parameter in OPEN_FLAGS and abi.open_flags and call.name != "openat":
            return None  # its flags must be translated
        if argument.kind in PATHS:
            if path or index > 1 or (index == 1 and call.arguments[0].kind != "dirfd"):
                return None
            path = index + 1 + (_LOOKS if call.name in _LOOKING else 0)
        if argument.parameter == "sockaddr" and call.handler is not None:
            path = _SOCKET_NAME + index + 1
        if argument.parameter == "stat":
            stat = index + 1
        if is_mask(argument):
            mask = index + 1
        if argument.kind in IOVECS:
            vector = index + 1
        elif argument.kind in POINTERS:
            pointers |= 1 << index
    names = [argument.name for argument in call.arguments]
    timeout = names.index(call.timeout) + 1 if call.timeout else 0
    number = HOST_NUMBERS[call.name]
    places = path | stat << 4, timeout | mask << 4
    return _ENTRY.pack(number, pointers, vector, call.operations, *places, 0)


def is_mask(argument: Argument) -> bool:
    """Whether an argument is the signal mask that is in force during a call."""
    return argument.kind == "sigset_in" and argument.name in _MASKS


def empty_thunk_table() -> bytes:
    """A table that sends every call to Python, as strace needs."""
    return _ENTRY.pack(-1, 0, 0, 0, 0, 0, 0) * ENTRIES + bytes(TABLE_NBYTES - INTERRUPTED)


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


def _touching(value: int) -> str:
    return f"""\
  store volatile i64 {value}, ptr %touching, align 8
"""


def _check_path(text: str) -> str:
    """Go on at ``path_ready`` unless the path in ``text`` is one of those for Python."""
    place = f"ptr %context, ptr %folders, ptr {text}, ptr %name, i1 %opens"
    blocks = [
        f"""\
  %letter0 = load volatile i8, ptr {text}
  %is_absolute = icmp eq i8 %letter0, {ord("/")}
  %is_empty = icmp eq i8 %letter0, 0
  br i1 %is_absolute, label %absolute, label %not_absolute
not_absolute:
  br i1 %is_empty, label %path_ready, label %relative
relative:
  %dirfd = trunc i64 %a0 to i32
  %dirfd.none = icmp eq i32 %dirfd, {AT_FDCWD}
  %from_cwd = or i1 %path.first, %dirfd.none
  %from = select i1 %from_cwd, i64 {RELATIVE}, i64 {BELOW_DESCRIPTORS}
  %from.left = and i64 %left, %from
  %from.native = icmp eq i64 %from.left, 0
  br i1 %from.native, label %path_ready, label %own_path
absolute:
  %absolute.left = and i64 %left, {ABSOLUTE}
  %absolute.native = icmp eq i64 %absolute.left, 0
  br i1 %absolute.native, label %first, label %rooted
rooted:
  %looks.bit = and i8 %path, {_LOOKS}
  %looks = icmp ne i8 %looks.bit, 0
  %creating.bit = and i64 %third.flags, {_CREATING}
  %creating = icmp ne i64 %creating.bit, 0
  %creates = and i1 %creating, %opens
  %looks.only = xor i1 %creates, true
  %placed = and i1 %looks, %looks.only
  br i1 %placed, label %recalled, label %own_path
recalled:
  %folders = getelementptr i8, ptr %table, i64 {PLACES}
  %host.name = call ptr @aa_linux_place({place})
  %unknown = icmp eq ptr %host.name, null
  br i1 %unknown, label %own_path, label %found
found:
  %name.i = ptrtoint ptr %host.name to i64
  store i64 %name.i, ptr %path.slot, align 8
  br label %path_ready
first:
  ; "/" itself, "//" and "/." are not looked into.
  %first.p = getelementptr i8, ptr {text}, i64 1
  %first.byte = load volatile i8, ptr %first.p
  %first.odd = icmp ule i8 %first.byte, {ord("/")}
  br i1 %first.odd, label %own_path, label %letter1
"""
    ]
    for index, letter in enumerate(_OWN_PATHS, 1):
        after = f"letter{index + 1}" if index < len(_OWN_PATHS) else "own_path"
        blocks.append(f"""\
letter{index}:
  %letter{index}.p = getelementptr i8, ptr {text}, i64 {index}
  %letter{index}.byte = load volatile i8, ptr %letter{index}.p
  %letter{index}.same = icmp eq i8 %letter{index}.byte, {letter}
  br i1 %letter{index}.same, label %{after}, label %path_ready
""")
    return "".join(blocks)


def _copy_stat() -> str:
    """The host's struct stat in ``%stat``, to asm-generic's at ``%guest``: the fields before the
    size differ, everything from there on is where it was."""
    lines = []
    # (host offset, guest offset, type)
    fields = [(0, 0, "i64"), (8, 8, "i64"), (24, 16, "i32"), (16, 20, "i32"), (28, 24, "i32")]
    fields += [(32, 28, "i32"), (40, 32, "i64")]
    fields += [(offset, offset, "i64") for offset in range(48, 120, 8)]
    for number, (source, target, kind) in enumerate(fields):
        lines += [
            f"%s{number}.p = getelementptr i8, ptr %stat, i64 {source}",
            f"%s{number} = load {kind}, ptr %s{number}.p, align 8",
            f"%t{number}.p = getelementptr i8, ptr %guest, i64 {target}",
            f"store volatile {kind} %s{number}, ptr %t{number}.p, align 1",
        ]
    for target in (40, 120):
        lines += [
            f"%z{target}.p = getelementptr i8, ptr %guest, i64 {target}",
            f"store volatile i64 0, ptr %z{target}.p, align 1",
        ]
    return "\n".join(f"  {line}" for line in lines)


def thunk_text() -> str:
    """LLVM text of ``aa_linux_thunk``: 0 when it served the call, 1 when Python is to."""
    table = FIELDS["syscall_table"][0]
    passed = "i64 %h0, i64 %second, i64 %third, i64 %h3, i64 %h4, i64 %h5"
    clock = f"i64 {_CLOCK_MONOTONIC}, i64 %began.i, i64 0, i64 0, i64 0, i64 0"
    return f"""{mask_thunk_text()}{places_text()}
define i32 @aa_linux_thunk(ptr %context, ptr %memory) {{
entry:
  %stat = alloca [144 x i8], align 16
  %vectors = alloca [{_VECTORS} x {{ i64, i64 }}], align 16
  %name = alloca [{HOST_NAME_NBYTES} x i8], align 16
  %path.slot = alloca i64, align 8
  %memory.i = ptrtoint ptr %memory to i64
{_register(0, "number")}\
  %number = load volatile i64, ptr %number.p, align 8
  %known = icmp ult i64 %number, {ENTRIES}
  br i1 %known, label %look, label %python
look:
  %table.p = getelementptr i8, ptr %context, i64 {table}
  %table = load volatile ptr, ptr %table.p, align 8
  %touching = getelementptr i8, ptr %table, i64 {TOUCHING}
  %left.p = getelementptr i8, ptr %table, i64 {PATHS_LEFT}
  %left = load volatile i64, ptr %left.p, align 8
  %entry.o = shl i64 %number, 4
  %entry.p = getelementptr i8, ptr %table, i64 %entry.o
  %host.16 = load i16, ptr %entry.p, align 2
  %native = icmp sge i16 %host.16, 0
  br i1 %native, label %check, label %python
check:
  %host = zext i16 %host.16 to i64
  %times.p = getelementptr i8, ptr %entry.p, i64 8
  %is_mask = icmp eq i64 %host, {MASK_CALL}
  br i1 %is_mask, label %mask, label %pass
mask:
  %unserved = call i32 @aa_linux_mask(ptr %context, ptr %memory, ptr %touching)
  %masked = icmp eq i32 %unserved, 0
  br i1 %masked, label %count_call, label %python
pass:
  %pointers.p = getelementptr i8, ptr %entry.p, i64 2
  %pointers.8 = load i8, ptr %pointers.p
  %pointers = zext i8 %pointers.8 to i64
  %vector.p = getelementptr i8, ptr %entry.p, i64 3
  %vector = load i8, ptr %vector.p
  %served.p = getelementptr i8, ptr %entry.p, i64 4
  %served.16 = load i16, ptr %served.p, align 2
  %served = zext i16 %served.16 to i64
  %places.p = getelementptr i8, ptr %entry.p, i64 6
  %places = load i8, ptr %places.p
  %path = and i8 %places, 15
  %stat.argument = lshr i8 %places, 4
  %waits.p = getelementptr i8, ptr %entry.p, i64 7
  %waits = load i8, ptr %waits.p
{"".join(_argument(index) for index in range(6))}\
  store i64 %h1, ptr %path.slot, align 8
  %opens = icmp eq i64 %host, {_OPENAT}
  %raised.p = getelementptr i8, ptr %table, i64 {FLAGS_RAISED}
  %raised = load i64, ptr %raised.p, align 8
  %lowered.p = getelementptr i8, ptr %table, i64 {FLAGS_LOWERED}
  %lowered = load i64, ptr %lowered.p, align 8
  %moved = or i64 %raised, %lowered
  %kept = xor i64 %moved, -1
  %flags.kept = and i64 %h2, %kept
  %flags.up = and i64 %h2, %raised
  %flags.raised = shl i64 %flags.up, 2
  %flags.down = and i64 %h2, %lowered
  %flags.lowered = lshr i64 %flags.down, 2
  %flags.1 = or i64 %flags.kept, %flags.raised
  %flags.2 = or i64 %flags.1, %flags.lowered
  %third.flags = select i1 %opens, i64 %flags.2, i64 %h2
  %every = icmp eq i64 %served, 0
  %operation = and i64 %a1, 127
  %small = icmp ult i64 %operation, 16
  %shift = and i64 %operation, 15
  %shifted = lshr i64 %served, %shift
  %bit = trunc i64 %shifted to i1
  %named = and i1 %small, %bit
  %go = or i1 %every, %named
  br i1 %go, label %served_here, label %python
served_here:
  %at_once = icmp eq i8 %waits, 0
  br i1 %at_once, label %paths, label %waiting
waiting:
  ; A mask is the fourth argument of every call that is served here, a timeout the first, third or
  ; fourth.
  %unmasked = icmp ult i8 %waits, 16
  %mask.null = icmp eq i64 %a3, 0
  %open = or i1 %unmasked, %mask.null
  br i1 %open, label %timed, label %python
timed:
  %timeout.place = and i8 %waits, 15
  %timeout.none = icmp eq i8 %timeout.place, 0
  %timeout.first = icmp eq i8 %timeout.place, 1
  %timeout.third = icmp eq i8 %timeout.place, 3
  %timeout.34 = select i1 %timeout.third, i64 %a2, i64 %a3
  %timeout.134 = select i1 %timeout.first, i64 %a0, i64 %timeout.34
  %timeout = select i1 %timeout.none, i64 0, i64 %timeout.134
  %endless = icmp eq i64 %timeout, 0
  ; Of calls with operations the first alone has a timeout that begins with the call: futex.
  %operation.other = icmp ne i64 %operation, 0
  %operated = xor i1 %every, true
  %until = and i1 %operated, %operation.other
  %no_clock = or i1 %endless, %until
  br i1 %no_clock, label %paths, label %look_at_clock
look_at_clock:
  %began.p = getelementptr i8, ptr %table, i64 {BEGAN}
  %began.i = ptrtoint ptr %began.p to i64
  %looked = call i64 @aa_syscall(ptr %context, i64 {HOST_NUMBERS["clock_gettime"]}, {clock})
  br label %paths
paths:
  %unnamed = icmp eq i8 %path, 0
  br i1 %unnamed, label %path_ready, label %named_file
named_file:
  %is_socket = icmp uge i8 %path, {_SOCKET_NAME}
  br i1 %is_socket, label %named_socket, label %path_argument
named_socket:
  ; Its address is the second or the fifth argument.
  %socket.second = icmp eq i8 %path, {_SOCKET_NAME + 2}
  %socket.address = select i1 %socket.second, i64 %a1, i64 %a4
  %socket.none = icmp eq i64 %socket.address, 0
  %socket.left = and i64 %left, {ABSOLUTE}
  %socket.native = icmp eq i64 %socket.left, 0
  %socket.pass = or i1 %socket.none, %socket.native
  br i1 %socket.pass, label %path_ready, label %python
path_argument:
  ; A path is the first or the second argument.
  %path.first = icmp eq i8 %path, 1  ; none of those that only look
  %path.address = select i1 %path.first, i64 %a0, i64 %a1
  %text = getelementptr i8, ptr %memory, i64 %path.address
  %path.null = icmp eq i64 %path.address, 0
  br i1 %path.null, label %path_ready, label %own
own:
{_touching(1)}\
{_check_path("%text")}\
own_path:
{_touching(0)}\
  br label %python
path_ready:
{_touching(0)}\
  %plain = icmp eq i8 %vector, 0
  br i1 %plain, label %scalar, label %count
scalar:
  ; A stat is received by the second or the third argument.
  %stat.i = ptrtoint ptr %stat to i64
  %stat.second = icmp eq i8 %stat.argument, 2
  %stat.third = icmp eq i8 %stat.argument, 3
  %named.1 = load i64, ptr %path.slot, align 8
  %g1 = select i1 %stat.second, i64 %stat.i, i64 %named.1
  %g2 = select i1 %stat.third, i64 %stat.i, i64 %third.flags
  br label %call
count:
  ; An iovec is the second argument of every call that has one, its length the third.
  %few = icmp ule i64 %a2, {_VECTORS}
  br i1 %few, label %vector_begin, label %python
vector_begin:
{_touching(1)}\
  br label %head
head:
  %i = phi i64 [ 0, %vector_begin ], [ %next, %body ]
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
{_touching(0)}\
  %vectors.i = ptrtoint ptr %vectors to i64
  br label %call
call:
  %second = phi i64 [ %g1, %scalar ], [ %vectors.i, %vector_ready ]
  %third = phi i64 [ %g2, %scalar ], [ %h2, %vector_ready ]
  %result = call i64 @aa_syscall(ptr %context, i64 %host, {passed})
  %not_begun = icmp eq i64 %result, -512
  br i1 %not_begun, label %python, label %begun
begun:
  %interrupted = icmp eq i64 %result, -4
  br i1 %interrupted, label %tell, label %received
tell:
  %told = getelementptr i8, ptr %table, i64 {INTERRUPTED}
  store volatile i64 1, ptr %told, align 8
  br label %python
received:
  br i1 %opens, label %opened, label %tested
opened:
  %descriptor = add i64 %result, 1
  %descriptor.none = icmp slt i64 %result, 0
  %descriptor.1 = select i1 %descriptor.none, i64 0, i64 %descriptor
  %descriptor.p = getelementptr i8, ptr %table, i64 {OPENED}
  store i64 %descriptor.1, ptr %descriptor.p, align 8
  br label %done
tested:
  %failed = icmp ne i64 %result, 0
  %no_stat = icmp eq i8 %stat.argument, 0
  %skip = or i1 %failed, %no_stat
  br i1 %skip, label %done, label %convert
convert:
  %stat.is_second = icmp eq i8 %stat.argument, 2
  %guest.address = select i1 %stat.is_second, i64 %a1, i64 %a2
  %guest = getelementptr i8, ptr %memory, i64 %guest.address
{_touching(1)}\
{_copy_stat()}
{_touching(0)}\
  br label %done
done:
{_register(7, "result")}\
  store volatile i64 %result, ptr %result.p, align 8
  br label %count_call
count_call:
  %times = load i64, ptr %times.p, align 8
  %times.next = add i64 %times, 1
  store i64 %times.next, ptr %times.p, align 8
  ret i32 0
python:
  ret i32 1
}}
"""
