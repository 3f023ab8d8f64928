"""Which lane has which element: fragments of mma (PTX ISA 9.0, 9.7.14.5 and 9.7.14.6) in memory,
register after register and lane after lane, and matrices of lines one after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import Writer

__all__ = [
    "SIZES",
    "Product",
    "counted",
    "element",
    "expand",
    "fragment_of",
    "lines_of",
    "matrix_of",
    "quad_places",
    "transpose",
]

# Bits of an element of a or b.
SIZES: Final = {
    **dict.fromkeys(("f16", "bf16"), 16),
    **dict.fromkeys(("s8", "u8", "e4m3", "e5m2"), 8),
    **dict.fromkeys(("s4", "u4"), 4),
    "tf32": 32,
    "f64": 64,
    "b1": 1,
}


@dataclass(frozen=True, slots=True)
class Product:
    """A multiplication: sizes, the types of d, a, b and c, and what else it names."""

    m: int
    n: int
    k: int
    d: str
    a: str
    b: str
    c: str
    modifiers: frozenset[str]

    @property
    def word(self) -> str:
        """The type of a register."""
        return "i64" if self.a == "f64" else "i32"

    @property
    def elem(self) -> str:
        """The type that is computed in."""
        if self.a == "f64":
            return "double"
        return "float" if "f" in self.d else "i32"

    @property
    def name(self) -> str:
        """What tells its code from another's."""
        chosen = sorted(self.modifiers & {"satfinite", "xor", "and", "popc"})
        parts = f"m{self.m}n{self.n}k{self.k}", self.d, self.a, self.b, self.c, *chosen
        return ".".join(parts)


@contextmanager
def counted(w: Writer, count: int | str) -> Iterator[str]:
    """A loop from 0 to below `count`, which is at least 1."""
    slot = w.alloca("i64", "n")
    loop, after = w.name("loop"), w.name("after")
    w.line(f"store i64 0, ptr {slot}")
    w.jump(loop)
    w.label(loop)
    number = w.let(f"load i64, ptr {slot}")
    yield number
    following = w.let(f"add i64 {number}, 1")
    w.line(f"store i64 {following}, ptr {slot}")
    w.branch(w.let(f"icmp ult i64 {following}, {count}"), loop, after)
    w.label(after)


def element(w: Writer, base: str, number: str, nbytes: int) -> str:
    """The pointer of an element."""
    offset = number if nbytes == 1 else w.let(f"mul i64 {number}, {nbytes}")
    return w.let(f"getelementptr i8, ptr {base}, i64 {offset}")


def lines_of(w: Writer, fragment: str, count: int, nbytes: int, word: str, groups: int) -> str:
    """Lines of a fragment of mma one after another: of a its rows, of b its columns.

    Four neighbouring lanes hold a piece of a line; registers come by groups of eight lines, then by
    pieces.
    """
    piece = 4 * int(word[1:]) // 8
    target = w.alloca(f"[{count * nbytes} x i8]")
    type_ = f"<4 x {word}>"
    for line in range(count):
        for at in range(nbytes // piece):
            register = at * groups + line // 8
            source = element(w, fragment, str(register * 8 * piece + line % 8 * piece), 1)
            value = w.let(f"load {type_}, ptr {source}, align 4")
            place = element(w, target, str(line * nbytes + at * piece), 1)
            w.line(f"store {type_} {value}, ptr {place}, align 4")
    return target


def matrix_of(w: Writer, fragment: str, p: Product, type_: str) -> str:
    """c of mma as a matrix: lanes hold neighbours of a row in two registers, or one of halves."""
    target = w.alloca(f"[{p.m * p.n} x {p.elem}]")
    nbytes = 8 if p.elem == "double" else 4
    for row, block in itertools.product(range(p.m), range(p.n // 8)):
        place = element(w, target, str((row * p.n + block * 8) * nbytes), 1)
        lanes = row % 8 * 4 * nbytes
        register = block * (p.m // 8) + row // 8
        if type_ == "f16":
            source = element(w, fragment, str(register * LANES * 4 + lanes), 1)
            half = w.let(f"load <8 x half>, ptr {source}, align 4")
            value = w.let(f"fpext <8 x half> {half} to <8 x float>")
        else:
            parts = []
            for column in range(2):
                at = (2 * register + column) * LANES * nbytes + lanes
                source = element(w, fragment, str(at), 1)
                parts.append(w.let(f"load <4 x {p.elem}>, ptr {source}, align 4"))
            first, second = parts
            value = w.shuffle(4, p.elem, first, second, [0, 4, 1, 5, 2, 6, 3, 7])
        w.line(f"store <8 x {p.elem}> {value}, ptr {place}, align 4")
    return target


def fragment_of(w: Writer, source: str, p: Product) -> None:
    """The reverse, for d."""
    nbytes = 8 if p.elem == "double" else 4
    for row, block in itertools.product(range(p.m), range(p.n // 8)):
        place = element(w, source, str((row * p.n + block * 8) * nbytes), 1)
        value = w.let(f"load <8 x {p.elem}>, ptr {place}, align 4")
        lanes = row % 8 * 4 * nbytes
        register = block * (p.m // 8) + row // 8
        if p.d == "f16":
            half = w.let(f"fptrunc <8 x float> {value} to <8 x half>")
            target = element(w, "%d", str(register * LANES * 4 + lanes), 1)
            w.line(f"store <8 x half> {half}, ptr {target}, align 4")
            continue
        for column in range(2):
            part = w.shuffle(8, p.elem, value, "poison", [column + 2 * n for n in range(4)])
            at = (2 * register + column) * LANES * nbytes + lanes
            w.line(f"store <4 x {p.elem}> {part}, ptr {element(w, '%d', str(at), 1)}, align 4")


def transpose(w: Writer, source: str, target: str, count: int) -> None:
    """8 × 8 matrices of 16 bits."""
    for n in range(count):
        value = w.let(f"load <64 x i16>, ptr {element(w, source, str(n), 128)}, align 4")
        order = [column * 8 + row for row in range(8) for column in range(8)]
        turned = w.shuffle(64, "i16", value, "poison", order)
        w.line(f"store <64 x i16> {turned}, ptr {element(w, target, str(n), 128)}, align 4")


# Sparse a (9.7.14.6.1): of each chunk of a row half of the elements are there, and a nibble of the
# metadata says which.


def expand(w: Writer, p: Product, selector: int, stored: str, metadata: str) -> str:
    """a as m × k elements that are computed with, from the m × k / 2 that are there."""
    chunks = {16: p.k // 4, 32: p.k // 2, 8: p.k // 4, 4: p.k // 8}[SIZES[p.a]]
    together = 2 if SIZES[p.a] == 4 else 1  # elements that one index selects
    there = p.k // 2 // chunks // together  # indices of a nibble that count
    whole = w.alloca(f"[{p.m * p.k} x {p.elem}]")
    with counted(w, p.m * p.k // 8) as eight:
        w.line(f"store <8 x {p.elem}> zeroinitializer, ptr {element(w, whole, eight, 32)}, align 4")
    with counted(w, p.m) as row, counted(w, chunks) as chunk:
        low = w.let(f"shl i64 {w.let(f'and i64 {row}, 7')}, 2")
        upper = w.let(f"lshr i64 {row}, 3")
        # Rows 8 to 15 have the other half of a lane's nibbles, or the lane beside it.
        if SIZES[p.a] >= 16:
            first = selector * (chunks // 4)
            lane = w.let(f"add i64 {w.let(f'lshr i64 {chunk}, 2')}, {first}")
            nibble = w.let(f"and i64 {chunk}, 3")
            nibble = w.let(f"add i64 {nibble}, {w.let(f'shl i64 {upper}, 2')}")
        else:
            beside = w.let(f"shl i64 {w.let(f'lshr i64 {chunk}, 3')}, 1")
            lane = w.let(f"add i64 {w.let(f'add i64 {beside}, {upper}')}, {2 * selector}")
            nibble = w.let(f"and i64 {chunk}, 7")
        lane = w.let(f"add i64 {lane}, {low}")
        word = w.let(f"load i32, ptr {element(w, metadata, lane, 4)}")
        shift = w.let(f"shl i32 {w.let(f'trunc i64 {nibble} to i32')}, 2")
        bits = w.let(f"lshr i32 {word}, {shift}")
        source = w.let(f"mul i64 {row}, {p.k // 2}")
        source = w.let(f"add i64 {source}, {w.let(f'mul i64 {chunk}, {there * together}')}")
        target = w.let(f"mul i64 {row}, {p.k}")
        target = w.let(f"add i64 {target}, {w.let(f'mul i64 {chunk}, {p.k // chunks}')}")
        for number in range(there):
            # Of two elements of 32 bits the indices of four halves tell one.
            index = w.let(f"lshr i32 {bits}, {1 if there == 1 else 2 * number}")
            index = w.let(f"and i32 {index}, {1 if there == 1 else 3}")
            wide = w.let(f"zext i32 {index} to i64")
            place = w.let(f"add i64 {target}, {w.let(f'mul i64 {wide}, {together}')}")
            for one in range(together):
                at = w.let(f"add i64 {source}, {number * together + one}")
                value = w.let(f"load {p.elem}, ptr {element(w, stored, at, 4)}, align 4")
                into = element(w, whole, w.let(f"add i64 {place}, {one}"), 4)
                w.line(f"store {p.elem} {value}, ptr {into}, align 4")
    return whole


# m8n8k4 of f16 (9.7.14.5.1) is four products, each of eight lanes: 4q to 4q + 3 and 16 more.


def quad_places(which: str, by_rows: bool, wide: bool) -> list[int]:
    """Where in a fragment the elements of the first product lie, in bytes, line after line: of a
    (8 × 4), b (the lines are its columns, 8 × 4) or c (8 × 8, elements of 32 bits if `wide`)."""
    found = []
    for line, at in itertools.product(range(8), range(8 if which == "c" else 4)):
        upper = 16 * (line // 4)
        if which == "c" and wide:
            lane, number = upper + (line & 1) + (at & 2), at & 4 | line & 2 | at & 1
        elif which == "c" or by_rows == (which == "a"):  # a lane has a piece of a line
            lane, number = upper + line % 4, at
        else:
            lane, number = upper + at, line % 4
        register, half = (number, 0) if which == "c" and wide else divmod(number, 2)
        found.append((register * LANES + lane) * 4 + 2 * half)
    return found
