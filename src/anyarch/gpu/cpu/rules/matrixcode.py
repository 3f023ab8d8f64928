"""Functions on matrices in memory, as LLVM text; a kernel gets each that it needs once."""

from __future__ import annotations

from collections.abc import Callable

from anyarch.gpu.cpu.checker import LOAD, SHARED
from anyarch.gpu.cpu.rules.fragments import (
    SIZES,
    Product,
    counted,
    element,
    expand,
    fragment_of,
    lines_of,
    matrix_of,
    quad_places,
    transpose,
)
from anyarch.gpu.cpu.rules.smallfloats import FORMATS
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.writer import Writer, float_text

__all__ = ["MatrixCode"]


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
            a = lines_of(w, "%a", p.m, p.k * SIZES[p.a] // 8, p.word, p.m // 8)
            b = lines_of(w, "%b", p.n, p.k * SIZES[p.b] // 8, p.word, 1)
            c = matrix_of(w, "%c", p, p.c)
            d = w.alloca(f"[{p.m * p.n} x {p.elem}]")
            self._multiply(w, p, a, b, c, d)
            fragment_of(w, d, p)

        return self._define(f"matrix.mma.{p.name}", "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def sparse(self, p: Product, selector: int) -> str:
        """(…, ptr metadata): of the fragments of mma whose a is sparse."""

        def write(w: Writer) -> None:
            stored = p.k // 2
            packed = lines_of(w, "%a", p.m, stored * SIZES[p.a] // 8, p.word, p.m // 8)
            there = self._whole(w, p.a, packed, p.m * stored, p.elem)
            a = expand(w, p, selector, there, "%metadata")
            lines = lines_of(w, "%b", p.n, p.k * SIZES[p.b] // 8, p.word, 1)
            b = self._whole(w, p.b, lines, p.n * p.k, p.elem)
            c = matrix_of(w, "%c", p, p.c)
            d = w.alloca(f"[{p.m * p.n} x {p.elem}]")
            name = self._core(p.m, p.n, p.k, p.elem, "satfinite" in p.modifiers)
            w.line(f"call void @{name}(ptr {a}, ptr {b}, ptr {c}, ptr {d})")
            fragment_of(w, d, p)

        parameters = "ptr %a, ptr %b, ptr %c, ptr %d, ptr %metadata"
        return self._define(f"matrix.sparse.{p.name}.{selector}", parameters, write)

    def quads(self, p: Product, rows_a: bool, rows_b: bool) -> str:
        """Of the fragments of m8n8k4 of f16; `rows_a` and `rows_b` say how lanes share them."""

        def write(w: Writer) -> None:
            name = self._core(8, 8, 4, "float", False)
            with counted(w, 4) as quad:

                def bring(which: str, by_rows: bool, type_: str) -> str:
                    wide = type_ == "f32"
                    packed = w.alloca(f"[64 x {'float' if wide else 'half'}]")
                    fragment = element(w, f"%{which}", quad, 16)
                    self._rearrange(w, (which, by_rows, wide), packed, fragment, gather=True)
                    count = 64 if which == "c" else 32
                    return packed if wide else self._whole(w, "f16", packed, count, "float")

                a, b = bring("a", rows_a, "f16"), bring("b", rows_b, "f16")
                c, d = bring("c", True, p.c), w.alloca("[64 x float]")
                w.line(f"call void @{name}(ptr {a}, ptr {b}, ptr {c}, ptr {d})")
                if p.d == "f16":
                    packed = w.alloca("[64 x half]")
                    _round(w, d, packed, 64)
                    d = packed
                fragment = element(w, "%d", quad, 16)
                self._rearrange(w, ("c", True, p.d == "f32"), d, fragment, gather=False)

        name = f"matrix.quads.{p.name}.{int(rows_a)}{int(rows_b)}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _rearrange(
        self, w: Writer, which: tuple[str, bool, bool], matrix: str, fragment: str, *, gather: bool
    ) -> None:
        """Between the elements of a matrix in order and a fragment of `quad_places`."""
        places = quad_places(*which)
        size = 32 if which[2] else 16
        table = f"matrix.places.{which[0]}{int(which[1])}{int(which[2])}"
        listed = ", ".join(f"i32 {place}" for place in places)
        self.declarations[table] = f"@{table} = internal constant [{len(places)} x i32] [{listed}]"
        with counted(w, len(places)) as n:
            place = w.let(f"load i32, ptr {element(w, '@' + table, n, 4)}")
            there = element(w, fragment, w.let(f"zext i32 {place} to i64"), 1)
            here = element(w, matrix, n, size // 8)
            source, target = (there, here) if gather else (here, there)
            value = w.let(f"load i{size}, ptr {source}, align {size // 8}")
            w.line(f"store i{size} {value}, ptr {target}, align {size // 8}")

    def wgmma(self, p: Product, packed: bool, negative: bool) -> str:
        """(…, i1 adds): of sixteen rows of wgmma. The lines of b, and of a if it is `packed`, lie
        one after another; the product may be `negative`, and c is zero unless it `adds`."""

        def write(w: Writer) -> None:
            a, count = "%a", p.m * p.n
            if not packed:
                a = lines_of(w, "%a", p.m, p.k * SIZES[p.a] // 8, p.word, p.m // 8)
            c, d = (w.alloca(f"[{count} x {p.elem}]") for _ in range(2))
            kept, after = w.name("kept"), w.name("after")
            w.line(f"store [{count} x {p.elem}] zeroinitializer, ptr {c}")
            w.branch("%adds", kept, after)
            w.label(kept)
            own = matrix_of(w, "%c", p, p.c)
            with counted(w, count) as n:
                value = w.let(f"load {p.elem}, ptr {element(w, own, n, 4)}")
                if negative:  # -(a × b - c)
                    value = w.let(f"fneg {p.elem} {value}")
                w.line(f"store {p.elem} {value}, ptr {element(w, c, n, 4)}")
            w.jump(after)
            w.label(after)
            self._multiply(w, p, a, "%b", c, d)
            if negative:
                with counted(w, count) as n:
                    value = w.let(f"load {p.elem}, ptr {element(w, d, n, 4)}")
                    negated = w.let(f"fneg {p.elem} {value}")
                    w.line(f"store {p.elem} {negated}, ptr {element(w, d, n, 4)}")
            fragment_of(w, d, p)

        name = f"matrix.wgmma.{p.name}.{int(packed)}{int(negative)}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d, i1 %adds", write)

    def described(self, lines: int, k: int, size: int, turned: bool, checked: bool) -> str:
        """(ptr window, i64 descriptor, i64 first, ptr target): lines of k elements, not in order.

        9.7.15.5: a descriptor has the start, two distances and how pieces of 16 bytes are swizzled;
        `turned` says that neighbours belong to different lines. Where it is `checked`, followed by
        (…, ptr worker, ptr launch, i64 place, i32 thread, i1 looks): whether this thread's accesses
        are looked at.
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
            with counted(w, lines) as line, counted(w, k // each) as piece:
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
                source = element(w, "%window", place, 1)
                type_ = f"i{size}" if turned else "<4 x i32>"
                if checked:
                    looks, after = w.name("looks"), w.name("after")
                    w.branch("%looks", looks, after)
                    w.label(looks)
                    w.line(
                        f"call void @check.access(ptr %worker, ptr %launch, ptr {source}, "
                        f"i64 {nbytes}, i64 {nbytes}, i32 {LOAD | SHARED}, i64 %place, "
                        "i32 %thread, i64 0, ptr null)"
                    )
                    w.jump(after)
                    w.label(after)
                value = w.let(f"load {type_}, ptr {source}, align 1")
                at = w.let(f"add i64 {w.let(f'mul i64 {line}, {k // each}')}, {piece}")
                w.line(f"store {type_} {value}, ptr {element(w, '%target', at, nbytes)}, align 1")

        name = f"matrix.described.{lines}.{k}.{size}.{int(turned)}"
        parameters = "ptr %window, i64 %descriptor, i64 %first, ptr %target"
        if checked:
            parameters += ", ptr %worker, ptr %launch, i64 %place, i32 %thread, i1 %looks"
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
                _round(w, d, "%d", count)

        return self._define(f"matrix.wmma.{p.name}", "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _multiply(self, w: Writer, p: Product, a: str, b: str, c: str, d: str) -> None:
        """Of lines of packed elements; c and d are of the type that is computed in."""
        if p.a == "b1":
            operation = "and" if "and" in p.modifiers else "xor"
            name = self._bits(p.m, p.n, p.k, operation)
        else:
            a = self._whole(w, p.a, a, p.m * p.k, p.elem)
            b = self._whole(w, p.b, b, p.n * p.k, p.elem)
            name = self._core(p.m, p.n, p.k, p.elem, "satfinite" in p.modifiers)
        w.line(f"call void @{name}(ptr {a}, ptr {b}, ptr {c}, ptr {d})")

    def _core(self, m: int, n: int, k: int, elem: str, saturate: bool) -> str:
        vector = f"<8 x {elem}>"
        nbytes = 8 if elem == "double" else 4

        def write(w: Writer) -> None:
            turned = w.alloca(f"[{k * n} x {elem}]")
            with counted(w, n) as row, counted(w, k) as column:
                source = w.let(f"add i64 {w.let(f'mul i64 {row}, {k}')}, {column}")
                target = w.let(f"add i64 {w.let(f'mul i64 {column}, {n}')}, {row}")
                one = w.let(f"load {elem}, ptr {element(w, '%b', source, nbytes)}")
                w.line(f"store {elem} {one}, ptr {element(w, turned, target, nbytes)}")
            total = w.alloca(vector)
            with counted(w, m) as row, counted(w, n // 8) as part:
                at = w.let(f"mul i64 {part}, 8")
                place = w.let(f"add i64 {w.let(f'mul i64 {row}, {n}')}, {at}")
                start = w.let(
                    f"load {vector}, ptr {element(w, '%c', place, nbytes)}, align {nbytes}"
                )
                first = "zeroinitializer" if saturate else start
                w.line(f"store {vector} {first}, ptr {total}")
                with counted(w, k) as column:
                    which = w.let(f"add i64 {w.let(f'mul i64 {row}, {k}')}, {column}")
                    one = w.let(f"load {elem}, ptr {element(w, '%a', which, nbytes)}")
                    inserted = w.let(f"insertelement {vector} poison, {elem} {one}, i64 0")
                    zeros = "<8 x i32> zeroinitializer"
                    x = w.let(f"shufflevector {vector} {inserted}, {vector} poison, {zeros}")
                    which = w.let(f"add i64 {w.let(f'mul i64 {column}, {n}')}, {at}")
                    y = w.let(
                        f"load {vector}, ptr {element(w, turned, which, nbytes)}, align {nbytes}"
                    )
                    old = w.let(f"load {vector}, ptr {total}")
                    new = _multiply_add(w, elem, vector, x, y, old)
                    w.line(f"store {vector} {new}, ptr {total}")
                result = w.let(f"load {vector}, ptr {total}")
                if saturate:
                    operands = [(vector, result), (vector, start)]
                    result = w.invoke("llvm.sadd.sat.v8i32", vector, operands)
                target = element(w, "%d", place, nbytes)
                w.line(f"store {vector} {result}, ptr {target}, align {nbytes}")

        name = f"matrix.core.{m}.{n}.{k}.{elem}{'.sat' if saturate else ''}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _bits(self, m: int, n: int, k: int, operation: str) -> str:
        """Single bits: how many are left of two lines."""

        def write(w: Writer) -> None:
            total = w.alloca("i32")
            with counted(w, m) as row, counted(w, n) as column:
                place = w.let(f"add i64 {w.let(f'mul i64 {row}, {n}')}, {column}")
                start = w.let(f"load i32, ptr {element(w, '%c', place, 4)}")
                w.line(f"store i32 {start}, ptr {total}")
                with counted(w, k // 32) as word:
                    sides = []
                    for base, line in (("%a", row), ("%b", column)):
                        at = w.let(f"add i64 {w.let(f'mul i64 {line}, {k // 32}')}, {word}")
                        sides.append(w.let(f"load i32, ptr {element(w, base, at, 4)}"))
                    both = w.let(f"{operation} i32 {sides[0]}, {sides[1]}")
                    count = w.invoke("llvm.ctpop.i32", "i32", [("i32", both)])
                    old = w.let(f"load i32, ptr {total}")
                    w.line(f"store i32 {w.let(f'add i32 {old}, {count}')}, ptr {total}")
                result = w.let(f"load i32, ptr {total}")
                w.line(f"store i32 {result}, ptr {element(w, '%d', place, 4)}")

        name = f"matrix.bits.{m}.{n}.{k}.{operation}"
        return self._define(name, "ptr %a, ptr %b, ptr %c, ptr %d", write)

    def _whole(self, w: Writer, type_: str, packed: str, count: int, elem: str) -> str:
        """Packed elements as they are computed with."""
        if type_ == "f64":
            return packed
        whole = w.alloca(f"[{count} x {elem}]")
        self._unpack(w, type_, packed, whole, count)
        return whole

    def _unpack(self, w: Writer, type_: str, source: str, target: str, count: int) -> None:
        """Call what makes floats, or integers of 32 bits, of packed elements."""

        def write(f: Writer) -> None:
            with counted(f, "%groups") as n:
                at = f.let(f"mul i64 {n}, {SIZES[type_]}")  # bytes of 8 elements
                place = f.let(f"getelementptr i8, ptr %source, i64 {at}")
                value, kind = self._eight(f, type_, place)
                into = element(f, "%target", f.let(f"mul i64 {n}, 8"), 4)
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
            one = w.let(f"load i8, ptr {element(w, place, str(n), 1)}")
            index = w.let(f"zext i8 {one} to i64")
            value = w.let(f"load float, ptr {element(w, '@' + table, index, 4)}")
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
                with counted(w, rows) as row, counted(w, line // 4) as word:
                    start = element(w, "%memory", w.let(f"mul i64 {row}, {step}"), 1)
                    into = element(w, "%fragment", w.let(f"mul i64 {row}, {line}"), 1)
                    places = element(w, start, word, 4), element(w, into, word, 4)
                    copy(w, "i32", *places, min(size // 8 or 4, 4))
                return
            with counted(w, rows) as row, counted(w, columns) as column:
                at = w.let(f"add i64 {w.let(f'mul i64 {column}, %stride')}, {row}")
                number = w.let(f"add i64 {w.let(f'mul i64 {row}, {columns}')}, {column}")
                places = (
                    element(w, "%memory", at, size // 8),
                    element(w, "%fragment", number, size // 8),
                )
                copy(w, f"i{size}", *places, size // 8)

        name = f"matrix.move.{rows}.{columns}.{size}.{int(across)}{int(store)}"
        return self._define(name, "ptr %memory, i64 %stride, ptr %fragment", write)

    def rows(self, count: int, transposed: bool, store: bool) -> str:
        """(ptr base, ptr places, ptr fragment): matrices by the places of their rows."""

        def write(w: Writer) -> None:
            fragment = "%fragment"
            if transposed and store:
                fragment = w.alloca(f"[{count * LANES} x i32]")
                transpose(w, "%fragment", fragment, count)
            with counted(w, 8 * count) as row:
                offset = w.let(f"load i64, ptr {element(w, '%places', row, 8)}")
                memory = w.let(f"getelementptr i8, ptr %base, i64 {offset}")
                here = element(w, fragment, row, 16)
                source, target = (here, memory) if store else (memory, here)
                value = w.let(f"load <4 x i32>, ptr {source}, align 1")
                w.line(f"store <4 x i32> {value}, ptr {target}, align 1")
            if transposed and not store:
                transpose(w, "%fragment", "%fragment", count)

        name = f"matrix.rows.{count}.{int(transposed)}{int(store)}"
        return self._define(name, "ptr %base, ptr %places, ptr %fragment", write)

    def transpose(self) -> str:
        """(ptr source, ptr target): one matrix."""

        def write(w: Writer) -> None:
            transpose(w, "%source", "%target", 1)

        return self._define("matrix.transpose", "ptr %source, ptr %target", write)


def _round(w: Writer, source: str, target: str, count: int) -> None:
    """Make halves of floats."""
    with counted(w, count // 8) as n:
        value = w.let(f"load <8 x float>, ptr {element(w, source, n, 32)}, align 4")
        half = w.let(f"fptrunc <8 x float> {value} to <8 x half>")
        w.line(f"store <8 x half> {half}, ptr {element(w, target, n, 16)}, align 2")


def _multiply_add(w: Writer, elem: str, vector: str, x: str, y: str, z: str) -> str:
    if elem == "i32":
        return w.let(f"add {vector} {w.let(f'mul {vector} {x}, {y}')}, {z}")
    name = f"llvm.fma.v8f{64 if elem == 'double' else 32}"
    return w.invoke(name, vector, [(vector, x), (vector, y), (vector, z)])
