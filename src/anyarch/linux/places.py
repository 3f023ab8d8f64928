"""Where on the host the folders of absolute names are, for native code: with a root, a call that
looks at a file needs no Python when its folder was found before.

Each thread has a table of such folders. An entry is taken for what it says while it is of the
table's generation; the thread alone writes entries, so that none is read half written. Only what
is surely the same file is found here: a name that is a link is left to Python, and so is the
opening of a folder.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.linux.numbers import HOST_NUMBERS

_ENTRIES: Final = 64
_ENTRY: Final = struct.Struct("<QHHH2x112s128s")  # generation, lengths, bytes of the root; names
_FOLDER, _PLACE = 16, 128  # where the names are in an entry
_NAME_NBYTES: Final = 240  # longer ones are for Python
PLACES_NBYTES: Final = 8 + _ENTRIES * _ENTRY.size  # the generation comes first
HOST_NAME_NBYTES: Final = 512
_MULTIPLIER: Final = 31
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_S_IFMT, _S_IFLNK, _S_IFDIR = 0xF000, 0xA000, 0x4000
_MODE: Final = 24  # in the host's struct stat
_ENOENT, _ENOTDIR = 2, 20


def pack_place(folder: bytes, place: bytes, root: bytes) -> tuple[int, bytes] | None:
    """Where in the table an entry is, and the entry but for its generation; None for long names.

    ``place`` is the host's path of a guest's folder.
    """
    if len(folder) > _PLACE - _FOLDER or len(place) > _ENTRY.size - _PLACE:
        return None
    number = 0
    for letter in folder:
        number = (number * _MULTIPLIER + letter) & 0xFFFFFFFF
    inside = len(root) if place.startswith(root + b"/") else 0
    entry = _ENTRY.pack(0, len(folder), len(place), inside, folder, place)
    return 8 + number % _ENTRIES * _ENTRY.size, entry[8:]


def _stat(result: str, name: str) -> str:
    """``%{result}``: 0 where a name is a file's, or the error; the mode is in ``%stat`` then."""
    numbers = f"i64 {HOST_NUMBERS['newfstatat']}, i64 {_AT_FDCWD}"
    return f"""\
  %{result}.i = ptrtoint ptr {name} to i64
  %{result} = call i64 @aa_syscall(ptr %context, {numbers}, i64 %{result}.i, i64 %stat.i, \
i64 {_AT_SYMLINK_NOFOLLOW}, i64 0, i64 0)
"""


def _absent(result: str, yes: str) -> str:
    """Go on at ``yes`` where a stat found nothing, else at ``none``."""
    return f"""\
  %{result}.none = icmp eq i64 %{result}, -{_ENOENT}
  %{result}.no_folder = icmp eq i64 %{result}, -{_ENOTDIR}
  %{result}.absent = or i1 %{result}.none, %{result}.no_folder
  br i1 %{result}.absent, label %{yes}, label %none
"""


def _usable(name: str) -> str:
    """Go on at ``told`` where what a stat has found is surely what is meant, else at ``none``."""
    return f"""\
  %{name}.mode.p = getelementptr i8, ptr %stat, i64 {_MODE}
  %{name}.mode = load i32, ptr %{name}.mode.p, align 8
  %{name}.type = and i32 %{name}.mode, {_S_IFMT}
  %{name}.link = icmp eq i32 %{name}.type, {_S_IFLNK}
  %{name}.folder = icmp eq i32 %{name}.type, {_S_IFDIR}
  %{name}.opened = and i1 %{name}.folder, %opens
  %{name}.left = or i1 %{name}.link, %{name}.opened
  br i1 %{name}.left, label %none, label %told
"""


def _copy(name: str, source: str, target: str, nbytes: str, after: str) -> str:
    """Copy bytes, one or more."""
    return f"""\
  br label %{name}
{name}:
  %{name}.i = phi i64 [ 0, %{name}.from ], [ %{name}.next, %{name} ]
  %{name}.s = getelementptr i8, ptr {source}, i64 %{name}.i
  %{name}.byte = load volatile i8, ptr %{name}.s
  %{name}.t = getelementptr i8, ptr {target}, i64 %{name}.i
  store i8 %{name}.byte, ptr %{name}.t
  %{name}.next = add i64 %{name}.i, 1
  %{name}.more = icmp ult i64 %{name}.next, {nbytes}
  br i1 %{name}.more, label %{name}, label %{after}
"""


def places_text() -> str:
    """LLVM text of ``aa_linux_place``: the host's name, in the room at ``%name``, of what the
    guest's absolute name in ``%text`` means; null where Python is to find it."""
    return f"""
define internal ptr @aa_linux_place(ptr %context, ptr %places, ptr %text, ptr %name, i1 %opens) {{
entry:
  %stat = alloca [144 x i8], align 16
  %stat.i = ptrtoint ptr %stat to i64
  br label %scan
scan:
  %i = phi i64 [ 0, %entry ], [ %i.next, %scan.on ]
  %hash = phi i32 [ 0, %entry ], [ %hash.next, %scan.on ]
  %slash = phi i64 [ 0, %entry ], [ %slash.next, %scan.on ]
  %folder.hash = phi i32 [ 0, %entry ], [ %folder.hash.next, %scan.on ]
  %letter.p = getelementptr i8, ptr %text, i64 %i
  %letter = load volatile i8, ptr %letter.p
  %ends = icmp eq i8 %letter, 0
  br i1 %ends, label %scanned, label %scan.on
scan.on:
  %is_slash = icmp eq i8 %letter, {ord("/")}
  %slash.next = select i1 %is_slash, i64 %i, i64 %slash
  %folder.hash.next = select i1 %is_slash, i32 %hash, i32 %folder.hash
  %letter.32 = zext i8 %letter to i32
  %hash.more = mul i32 %hash, {_MULTIPLIER}
  %hash.next = add i32 %hash.more, %letter.32
  %i.next = add i64 %i, 1
  %short = icmp ule i64 %i.next, {_NAME_NBYTES}
  br i1 %short, label %scan, label %none
scanned:
  ; The last part, with its slash: not a folder's name alone, nor one of dots.
  %leaf = getelementptr i8, ptr %text, i64 %slash
  %leaf.nbytes = sub i64 %i, %slash
  %leaf.some = icmp uge i64 %leaf.nbytes, 2
  %leaf.first.p = getelementptr i8, ptr %leaf, i64 1
  %below = icmp ne i64 %slash, 0
  %looked = and i1 %leaf.some, %below
  br i1 %looked, label %look, label %none
look:
  %leaf.first = load volatile i8, ptr %leaf.first.p
  %dot = icmp eq i8 %leaf.first, {ord(".")}
  %few = icmp ule i64 %leaf.nbytes, 3
  %dots = and i1 %dot, %few
  br i1 %dots, label %none, label %find
find:
  %index = and i32 %folder.hash, {_ENTRIES - 1}
  %index.64 = zext i32 %index to i64
  %index.o = mul i64 %index.64, {_ENTRY.size}
  %index.8 = add i64 %index.o, 8
  %found = getelementptr i8, ptr %places, i64 %index.8
  %generation = load i64, ptr %places, align 8
  %found.generation = load i64, ptr %found, align 8
  %current = icmp eq i64 %generation, %found.generation
  %folder.nbytes.p = getelementptr i8, ptr %found, i64 8
  %folder.nbytes.16 = load i16, ptr %folder.nbytes.p, align 2
  %folder.nbytes = zext i16 %folder.nbytes.16 to i64
  %as_long = icmp eq i64 %folder.nbytes, %slash
  %likely = and i1 %current, %as_long
  %folder = getelementptr i8, ptr %found, i64 {_FOLDER}
  br i1 %likely, label %compare, label %none
compare:
  %c = phi i64 [ 0, %find ], [ %c.next, %compare.on ]
  %mine.p = getelementptr i8, ptr %folder, i64 %c
  %mine = load i8, ptr %mine.p
  %its.p = getelementptr i8, ptr %text, i64 %c
  %its = load volatile i8, ptr %its.p
  %same = icmp eq i8 %mine, %its
  br i1 %same, label %compare.on, label %none
compare.on:
  %c.next = add i64 %c, 1
  %compared = icmp eq i64 %c.next, %folder.nbytes
  br i1 %compared, label %build, label %compare
build:
  %place = getelementptr i8, ptr %found, i64 {_PLACE}
  %place.nbytes.p = getelementptr i8, ptr %found, i64 10
  %place.nbytes.16 = load i16, ptr %place.nbytes.p, align 2
  %place.nbytes = zext i16 %place.nbytes.16 to i64
  br label %head.from
head.from:
{_copy("head", "%place", "%name", "%place.nbytes", "tail.from")}\
tail.from:
  %tail.t0 = getelementptr i8, ptr %name, i64 %place.nbytes
{_copy("tail", "%leaf", "%tail.t0", "%leaf.nbytes", "built")}\
built:
  %end.i = add i64 %place.nbytes, %leaf.nbytes
  %end = getelementptr i8, ptr %name, i64 %end.i
  store i8 0, ptr %end
{_stat("here", "%name")}\
  %is_here = icmp eq i64 %here, 0
  br i1 %is_here, label %what, label %elsewhere
what:
{_usable("what")}\
elsewhere:
{_absent("here", "on_host")}\
on_host:
  %inside.p = getelementptr i8, ptr %found, i64 12
  %inside.16 = load i16, ptr %inside.p, align 2
  %inside = zext i16 %inside.16 to i64
  %outside = getelementptr i8, ptr %name, i64 %inside
{_stat("there", "%outside")}\
  %is_there = icmp eq i64 %there, 0
  br i1 %is_there, label %outer, label %nowhere
outer:
{_usable("outer")}\
nowhere:
{_absent("there", "by_name")}\
by_name:
{_stat("plainly", "%text")}\
{_absent("plainly", "told")}\
told:
  %host.name = phi ptr [ %name, %what ], [ %outside, %outer ], [ %name, %by_name ]
  ret ptr %host.name
none:
  ret ptr null
}}
"""
