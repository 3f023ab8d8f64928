"""Functions on matrices in memory, as LLVM text; a kernel gets each that it needs once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from anyarch.gpu.cpu.rules.smallfloats import FORMATS
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import Writer, float_text

__all__ = ["SIZES", "MatrixCode", "Product"]

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


class MatrixCode:
    """Writes functions into the declarations of a module and gives their names."""

    def __init__(self, declarations: dict[str, str]) -> None:
        self.declarations = declarations

    def _define(self, name: str, parameters: str, write: Callable[[Writer], None]) -> str:
        if name not in self.declarations:
            self.declarations[name] = ""  # it is known while it is written
            w = Writer(self.declarations, 1)
            write(w)
            body = "\n".join(w.lines)
            begin = "\n".join([f"define internal void @{name}({parameters}) #2 {{", "entry:"])
            self.declarations[name] = "\n".join([begin, *w.allocas, body, "  ret void\n}"])
        return name

    # Multiplications of fragments: (ptr a, ptr b, ptr c, ptr d).

    def mma(self, p: Product) -> str:
        """Of the fragments of mma."""

        def write(w: Writer) -> None:
            a = _lines(w, "%a", p.m, p.k * SIZES[p.a] // 8, p.word, p.m // 8)
            b = _lines(w, "%b", p.n, p.k * SIZES[p.b] // 8, p.word, 1)
            c = _matrix(w, "%c", p, p.c)
            d = w.alloca(f"[{p.m * p.n} x {p.elem}]")
            self._multiply(w, p, a, b, c, d)
            _fragment(w, d, p)

        return self._define(f"matrix.mma.{p.name}", "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def wgmma(self, p: Product, packed: bool, negative: bool) -> str:
        """(…, i1 adds): of sixteen rows of wgmma. The lines of b, and of a if it is `packed`, lie
        one after another; the product may be `negative`, and c is zero unless it `adds`."""

        def write(w: Writer) -> None:
            a, count = "%a", p.m * p.n
            if not packed:
                a = _lines(w, "%a", p.m, p.k * SIZES[p.a] // 8, p.word, p.m // 8)
            c, d = (w.alloca(f"[{count} x {p.elem}]") for _ in range(2))
            kept, after = w.name("kept"), w.name("after")
            w.line(f"store [{count} x {p.elem}] zeroinitializer, ptr {c}")
            w.branch("%adds", kept, after)
            w.label(kept)
            own = _matrix(w, "%c", p, p.c)
            with _counted(w, count) as n:
                value = w.let(f"load {p.elem}, ptr {_at(w, own, n, 4)}")
                if negative:  # -(a × b - c)
                    value = w.let(f"fneg {p.elem} {value}")
                w.line(f"store {p.elem} {value}, ptr {_at(w, c, n, 4)}")
            w.jump(after)
            w.label(after)
            self._multiply(w, p, a, "%b", c, d)
            if negative:
                with _counted(w, count) as n:
                    value = w.let(f"load {p.elem}, ptr {_at(w, d, n, 4)}")
                    negated = w.let(f"fneg {p.elem} {value}")
                    w.line(f"store {p.elem} {negated}, ptr {_at(w, d, n, 4)}")
            _fragment(w, d, p)

        name = f"matrix.wgmma.{p.name}.{int(packed)}{int(negative)}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d, i1 %adds", write)

    def described(self, lines: int, k: int, size: int, turned: bool) -> str:
        """(ptr window, i64 descriptor, i64 first, ptr target): lines of k elements, not in order.

        9.7.15.5: a descriptor has the start, two distances and how pieces of 16 bytes are swizzled;
        `turned` says that neighbours belong to different lines.
        """

        def field(w: Writer, at: int) -> str:
            bits = w.let(f"and i64 {w.let(f'lshr i64 %descriptor, {at}')}, 16383")
            return w.let(f"shl i64 {bits}, 4")

        def write(w: Writer) -> None:
            start, leading, stride = (field(w, at) for at in (0, 16, 32))
            mode = w.let("lshr i64 %descriptor, 62")
            # 0: none, 1, 2, 3: of 128, 64 and 32 bytes.
            none = w.let(f"icmp eq i64 {mode}, 0")
            width = w.let(f"lshr i64 256, {mode}")
            width = w.let(f"select i1 {none}, i64 16, i64 {width}")
            mask = w.let(f"sub i64 {width}, 16")
            each = 1 if turned else 16 * 8 // size  # elements that are copied at once
            nbytes = size // 8 if turned else 16
            with _counted(w, lines) as line, _counted(w, k // each) as piece:
                row = w.let(f"add i64 {line}, %first")
                # Across: in bytes along what is contiguous; down: the other way.
                if turned:
                    across, down = w.let(f"mul i64 {row}, {nbytes}"), piece
                else:
                    across, down = w.let(f"mul i64 {piece}, 16"), row
                group = w.let(f"lshr i64 {down}, 3")
                inner = w.let(f"and i64 {down}, 7")
                block = w.let(f"udiv i64 {across}, {width}")
                rest = w.let(f"urem i64 {across}, {width}")
                by_group, by_block = stride, leading
                if turned:  # without swizzling the two distances change places
                    by_group = w.let(f"select i1 {none}, i64 {leading}, i64 {stride}")
                    by_block = w.let(f"select i1 {none}, i64 {stride}, i64 {leading}")
                place = start
                for number, distance in ((group, by_group), (inner, width), (block, by_block)):
                    moved = w.let(f"mul i64 {number}, {distance}")
                    place = w.let(f"add i64 {place}, {moved}")
                place = w.let(f"add i64 {place}, {rest}")
                turn = w.let(f"and i64 {w.let(f'lshr i64 {place}, 3')}, {mask}")
                place = w.let(f"xor i64 {place}, {turn}")
                source = _at(w, "%window", place, 1)
                type_ = f"i{size}" if turned else "<4 x i32>"
                value = w.let(f"load {type_}, ptr {source}, align 1")
                at = w.let(f"add i64 {w.let(f'mul i64 {line}, {k // each}')}, {piece}")
                w.line(f"store {type_} {value}, ptr {_at(w, '%target', at, nbytes)}, align 1")

        name = f"matrix.described.{lines}.{k}.{size}.{int(turned)}"
        parameters = "ptr %window, i64 %descriptor, i64 %first, ptr %target"
        return self._define(name, parameters, write)

    def wmma(self, p: Product) -> str:
        """Of the fragments of wmma, which are the matrices as they are."""

        def write(w: Writer) -> None:
            c, d, count = "%c", "%d", p.m * p.n
            if p.c == "f16":
                c = w.alloca(f"[{count} x float]")
                self._unpack(w, "f16", "%c", c, count)
            if p.d == "f16":
                d = w.alloca(f"[{count} x float]")
            self._multiply(w, p, "%a", "%b", c, d)
            if p.d == "f16":
                with _counted(w, count // 8) as n:
                    value = w.let(f"load <8 x float>, ptr {_at(w, d, n, 32)}, align 4")
                    half = w.let(f"fptrunc <8 x float> {value} to <8 x half>")
                    w.line(f"store <8 x half> {half}, ptr {_at(w, '%d', n, 16)}, align 2")

        return self._define(f"matrix.wmma.{p.name}", "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _multiply(self, w: Writer, p: Product, a: str, b: str, c: str, d: str) -> None:
        """Of lines of packed elements; c and d are of the type that is computed in."""
        if p.a == "b1":
            operation = "and" if "and" in p.modifiers else "xor"
            name = self._bits(p.m, p.n, p.k, operation)
        else:
            sources = []
            for packed, type_, lines in ((a, p.a, p.m), (b, p.b, p.n)):
                if type_ == "f64":
                    sources.append(packed)
                    continue
                whole = w.alloca(f"[{lines * p.k} x {p.elem}]")
                self._unpack(w, type_, packed, whole, lines * p.k)
                sources.append(whole)
            a, b = sources
            name = self._core(p.m, p.n, p.k, p.elem, "satfinite" in p.modifiers)
        w.line(f"call void @{name}(ptr {a}, ptr {b}, ptr {c}, ptr {d})")

    def _core(self, m: int, n: int, k: int, elem: str, saturate: bool) -> str:
        vector = f"<8 x {elem}>"
        nbytes = 8 if elem == "double" else 4

        def write(w: Writer) -> None:
            turned = w.alloca(f"[{k * n} x {elem}]")
            with _counted(w, n) as row, _counted(w, k) as column:
                source = w.let(f"add i64 {w.let(f'mul i64 {row}, {k}')}, {column}")
                target = w.let(f"add i64 {w.let(f'mul i64 {column}, {n}')}, {row}")
                one = w.let(f"load {elem}, ptr {_at(w, '%b', source, nbytes)}")
                w.line(f"store {elem} {one}, ptr {_at(w, turned, target, nbytes)}")
            total = w.alloca(vector)
            with _counted(w, m) as row, _counted(w, n // 8) as part:
                at = w.let(f"mul i64 {part}, 8")
                place = w.let(f"add i64 {w.let(f'mul i64 {row}, {n}')}, {at}")
                start = w.let(f"load {vector}, ptr {_at(w, '%c', place, nbytes)}, align {nbytes}")
                first = "zeroinitializer" if saturate else start
                w.line(f"store {vector} {first}, ptr {total}")
                with _counted(w, k) as column:
                    which = w.let(f"add i64 {w.let(f'mul i64 {row}, {k}')}, {column}")
                    one = w.let(f"load {elem}, ptr {_at(w, '%a', which, nbytes)}")
                    inserted = w.let(f"insertelement {vector} poison, {elem} {one}, i64 0")
                    zeros = "<8 x i32> zeroinitializer"
                    x = w.let(f"shufflevector {vector} {inserted}, {vector} poison, {zeros}")
                    which = w.let(f"add i64 {w.let(f'mul i64 {column}, {n}')}, {at}")
                    y = w.let(f"load {vector}, ptr {_at(w, turned, which, nbytes)}, align {nbytes}")
                    old = w.let(f"load {vector}, ptr {total}")
                    new = _multiply_add(w, elem, vector, x, y, old)
                    w.line(f"store {vector} {new}, ptr {total}")
                result = w.let(f"load {vector}, ptr {total}")
                if saturate:
                    operands = [(vector, result), (vector, start)]
                    result = w.invoke("llvm.sadd.sat.v8i32", vector, operands)
                target = _at(w, "%d", place, nbytes)
                w.line(f"store {vector} {result}, ptr {target}, align {nbytes}")

        name = f"matrix.core.{m}.{n}.{k}.{elem}{'.sat' if saturate else ''}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _bits(self, m: int, n: int, k: int, operation: str) -> str:
        """Single bits: how many are left of two lines."""

        def write(w: Writer) -> None:
            total = w.alloca("i32")
            with _counted(w, m) as row, _counted(w, n) as column:
                place = w.let(f"add i64 {w.let(f'mul i64 {row}, {n}')}, {column}")
                start = w.let(f"load i32, ptr {_at(w, '%c', place, 4)}")
                w.line(f"store i32 {start}, ptr {total}")
                with _counted(w, k // 32) as word:
                    sides = []
                    for base, line in (("%a", row), ("%b", column)):
                        at = w.let(f"add i64 {w.let(f'mul i64 {line}, {k // 32}')}, {word}")
                        sides.append(w.let(f"load i32, ptr {_at(w, base, at, 4)}"))
                    both = w.let(f"{operation} i32 {sides[0]}, {sides[1]}")
                    count = w.invoke("llvm.ctpop.i32", "i32", [("i32", both)])
                    old = w.let(f"load i32, ptr {total}")
                    w.line(f"store i32 {w.let(f'add i32 {old}, {count}')}, ptr {total}")
                result = w.let(f"load i32, ptr {total}")
                w.line(f"store i32 {result}, ptr {_at(w, '%d', place, 4)}")

        name = f"matrix.bits.{m}.{n}.{k}.{operation}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _unpack(self, w: Writer, type_: str, source: str, target: str, count: int) -> None:
        """Call what makes floats, or integers of 32 bits, of packed elements."""

        def write(f: Writer) -> None:
            with _counted(f, "%groups") as n:
                at = f.let(f"mul i64 {n}, {SIZES[type_]}")  # bytes of 8 elements
                place = f.let(f"getelementptr i8, ptr %source, i64 {at}")
                value, kind = self._eight(f, type_, place)
                into = _at(f, "%target", f.let(f"mul i64 {n}, 8"), 4)
                f.line(f"store <8 x {kind}> {value}, ptr {into}, align 4")

        name = f"matrix.unpack.{type_}"
        self._define(name, "ptr %source, ptr %target, i64 %groups", write)
        w.line(f"call void @{name}(ptr {source}, ptr {target}, i64 {count // 8})")

    def _eight(self, w: Writer, type_: str, place: str) -> tuple[str, str]:
        """Eight elements at a place, and the type that they become."""
        match type_:
            case "f16":
                half = w.let(f"load <8 x half>, ptr {place}, align 2")
                return w.let(f"fpext <8 x half> {half} to <8 x float>"), "float"
            case "bf16":
                bits = w.let(f"load <8 x i16>, ptr {place}, align 2")
                wide = w.let(f"zext <8 x i16> {bits} to <8 x i32>")
                return w.let(f"shl <8 x i32> {wide}, splat (i32 16)"), "i32"
            case "tf32":
                bits = w.let(f"load <8 x i32>, ptr {place}, align 4")
                return w.let(f"and <8 x i32> {bits}, splat (i32 {~0x1FFF})"), "i32"
            case "s8" | "u8":
                small = w.let(f"load <8 x i8>, ptr {place}, align 1")
                extend = "sext" if type_ == "s8" else "zext"
                return w.let(f"{extend} <8 x i8> {small} to <8 x i32>"), "i32"
            case "s4" | "u4":
                pairs = w.let(f"load <4 x i8>, ptr {place}, align 1")
                order = [0, 0, 1, 1, 2, 2, 3, 3]
                twice = w.shuffle(4, "i8", pairs, "poison", order)
                wide = w.let(f"zext <8 x i8> {twice} to <8 x i32>")
                left = ", ".join(f"i32 {28 - n % 2 * 4}" for n in range(8))
                moved = w.let(f"shl <8 x i32> {wide}, <{left}>")
                shift = "ashr" if type_ == "s4" else "lshr"
                return w.let(f"{shift} <8 x i32> {moved}, splat (i32 28)"), "i32"
        table = self._table(type_)
        result = "poison"
        for n in range(8):
            one = w.let(f"load i8, ptr {_at(w, place, str(n), 1)}")
            index = w.let(f"zext i8 {one} to i64")
            value = w.let(f"load float, ptr {_at(w, '@' + table, index, 4)}")
            result = w.let(f"insertelement <8 x float> {result}, float {value}, i64 {n}")
        return result, "float"

    def _table(self, type_: str) -> str:
        """All values of an 8-bit float."""
        name = f"matrix.values.{type_}"
        values = ", ".join(f"float {float_text(v, 'float')}" for v in FORMATS[type_].values())
        self.declarations[name] = f"@{name} = internal constant [256 x float] [{values}]"
        return name

    # Between memory and fragments.

    def move(self, rows: int, columns: int, size: int, across: bool, store: bool) -> str:
        """(ptr memory, i64 stride, ptr fragment): a matrix whose rows, or else columns, lie
        `stride` elements apart."""
        line = columns * size // 8

        def copy(w: Writer, type_: str, memory: str, fragment: str, align: int) -> None:
            source, target = (fragment, memory) if store else (memory, fragment)
            value = w.let(f"load {type_}, ptr {source}, align {align}")
            w.line(f"store {type_} {value}, ptr {target}, align {align}")

        def write(w: Writer) -> None:
            if across:
                step = w.let(f"ashr i64 {w.let(f'mul i64 %stride, {size}')}, 3")
                with _counted(w, rows) as row, _counted(w, line // 4) as word:
                    start = _at(w, "%memory", w.let(f"mul i64 {row}, {step}"), 1)
                    into = _at(w, "%fragment", w.let(f"mul i64 {row}, {line}"), 1)
                    places = _at(w, start, word, 4), _at(w, into, word, 4)
                    copy(w, "i32", *places, min(size // 8 or 4, 4))
                return
            with _counted(w, rows) as row, _counted(w, columns) as column:
                at = w.let(f"add i64 {w.let(f'mul i64 {column}, %stride')}, {row}")
                number = w.let(f"add i64 {w.let(f'mul i64 {row}, {columns}')}, {column}")
                places = _at(w, "%memory", at, size // 8), _at(w, "%fragment", number, size // 8)
                copy(w, f"i{size}", *places, size // 8)

        name = f"matrix.move.{rows}.{columns}.{size}.{int(across)}{int(store)}"
        return self._define(name, "ptr %memory, i64 %stride, ptr %fragment", write)

    def rows(self, count: int, transposed: bool, store: bool) -> str:
        """(ptr base, ptr places, ptr fragment): matrices by the places of their rows."""

        def write(w: Writer) -> None:
            fragment = "%fragment"
            if transposed and store:
                fragment = w.alloca(f"[{count * LANES} x i32]")
                _transpose(w, "%fragment", fragment, count)
            with _counted(w, 8 * count) as row:
                offset = w.let(f"load i64, ptr {_at(w, '%places', row, 8)}")
                memory = w.let(f"getelementptr i8, ptr %base, i64 {offset}")
                here = _at(w, fragment, row, 16)
                source, target = (here, memory) if store else (memory, here)
                value = w.let(f"load <4 x i32>, ptr {source}, align 1")
                w.line(f"store <4 x i32> {value}, ptr {target}, align 1")
            if transposed and not store:
                _transpose(w, "%fragment", "%fragment", count)

        name = f"matrix.rows.{count}.{int(transposed)}{int(store)}"
        return self._define(name, "ptr %base, ptr %places, ptr %fragment", write)

    def transpose(self) -> str:
        """(ptr source, ptr target): one matrix."""

        def write(w: Writer) -> None:
            _transpose(w, "%source", "%target", 1)

        return self._define("matrix.transpose", "ptr %source, ptr %target", write)


@contextmanager
def _counted(w: Writer, count: int | str) -> Iterator[str]:
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


def _at(w: Writer, base: str, number: str, nbytes: int) -> str:
    """The pointer of an element."""
    offset = number if nbytes == 1 else w.let(f"mul i64 {number}, {nbytes}")
    return w.let(f"getelementptr i8, ptr {base}, i64 {offset}")


def _multiply_add(w: Writer, elem: str, vector: str, x: str, y: str, z: str) -> str:
    if elem == "i32":
        return w.let(f"add {vector} {w.let(f'mul {vector} {x}, {y}')}, {z}")
    name = f"llvm.fma.v8f{64 if elem == 'double' else 32}"
    return w.invoke(name, vector, [(vector, x), (vector, y), (vector, z)])


def _lines(w: Writer, fragment: str, count: int, nbytes: int, word: str, groups: int) -> str:
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
            source = _at(w, fragment, str(register * 8 * piece + line % 8 * piece), 1)
            value = w.let(f"load {type_}, ptr {source}, align 4")
            place = _at(w, target, str(line * nbytes + at * piece), 1)
            w.line(f"store {type_} {value}, ptr {place}, align 4")
    return target


def _matrix(w: Writer, fragment: str, p: Product, type_: str) -> str:
    """c of mma as a matrix: lanes hold neighbours of a row in two registers, or one of halves."""
    target = w.alloca(f"[{p.m * p.n} x {p.elem}]")
    nbytes = 8 if p.elem == "double" else 4
    for row, block in itertools.product(range(p.m), range(p.n // 8)):
        place = _at(w, target, str((row * p.n + block * 8) * nbytes), 1)
        lanes = row % 8 * 4 * nbytes
        register = block * (p.m // 8) + row // 8
        if type_ == "f16":
            source = _at(w, fragment, str(register * LANES * 4 + lanes), 1)
            half = w.let(f"load <8 x half>, ptr {source}, align 4")
            value = w.let(f"fpext <8 x half> {half} to <8 x float>")
        else:
            parts = []
            for column in range(2):
                at = (2 * register + column) * LANES * nbytes + lanes
                source = _at(w, fragment, str(at), 1)
                parts.append(w.let(f"load <4 x {p.elem}>, ptr {source}, align 4"))
            first, second = parts
            value = w.shuffle(4, p.elem, first, second, [0, 4, 1, 5, 2, 6, 3, 7])
        w.line(f"store <8 x {p.elem}> {value}, ptr {place}, align 4")
    return target


def _fragment(w: Writer, source: str, p: Product) -> None:
    """The reverse, for d."""
    nbytes = 8 if p.elem == "double" else 4
    for row, block in itertools.product(range(p.m), range(p.n // 8)):
        place = _at(w, source, str((row * p.n + block * 8) * nbytes), 1)
        value = w.let(f"load <8 x {p.elem}>, ptr {place}, align 4")
        lanes = row % 8 * 4 * nbytes
        register = block * (p.m // 8) + row // 8
        if p.d == "f16":
            half = w.let(f"fptrunc <8 x float> {value} to <8 x half>")
            target = _at(w, "%d", str(register * LANES * 4 + lanes), 1)
            w.line(f"store <8 x half> {half}, ptr {target}, align 4")
            continue
        for column in range(2):
            part = w.shuffle(8, p.elem, value, "poison", [column + 2 * n for n in range(4)])
            at = (2 * register + column) * LANES * nbytes + lanes
            w.line(f"store <4 x {p.elem}> {part}, ptr {_at(w, '%d', str(at), 1)}, align 4")


def _transpose(w: Writer, source: str, target: str, count: int) -> None:
    """8 × 8 matrices of 16 bits."""
    for n in range(count):
        value = w.let(f"load <64 x i16>, ptr {_at(w, source, str(n), 128)}, align 4")
        order = [column * 8 + row for row in range(8) for column in range(8)]
        turned = w.shuffle(64, "i16", value, "poison", order)
        w.line(f"store <64 x i16> {turned}, ptr {_at(w, target, str(n), 128)}, align 4")
