"""Matrices of a warp: PTX ISA 9.0, 9.7.14 (wmma, mma, ldmatrix, stmatrix, movmatrix).

All lanes bring parts of the operands. These go through memory to functions that multiply: a is
m × k, b is kept as n × k, c is m × n, in a type that holds every element exactly. Sums of floats
are of products in order of k, each rounded; a GPU rounds otherwise (9.7.14.5.14 leaves it open).
Which lane has which element is the ISA's for mma; for wmma, whose fragments are opaque, words lie
in lanes in the order of the matrix.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.rules import access, checks
from anyarch.gpu.cpu.rules.fragments import SIZES, Product
from anyarch.gpu.cpu.rules.matrixcode import MatrixCode
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.rules.warps import meet
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.ptx.tree import Address, Immediate, Instruction, Operand, VectorOperand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_SHAPE: Final = re.compile(r"m(\d+)n(\d+)k(\d+)")
_TYPES: Final = (*SIZES, "f32", "s32")


def _product(e: FunctionEmitter, i: Instruction) -> Product:
    shape = next((_SHAPE.fullmatch(m) for m in i.modifiers if _SHAPE.fullmatch(m)), None)
    types = [m for m in i.modifiers if m in _TYPES]
    if shape is None or "block_scale" in i.modifiers or (i.opcode == "wgmma" and _is_sparse(i)):
        e.fail(f"{i.name} is not supported")
    if len(types) == 2 and i.opcode == "wmma":  # .f16.f16: of d and c
        types = [types[0], "f16", "f16", types[1]]
    if len(types) == 3 and i.opcode == "wgmma":  # d is what is added to
        types.append(types[0])
    if len(types) != 4 or types[1] not in SIZES or types[2] not in SIZES:
        e.fail("it needs the types of d, a, b and c")
    m, n, k = (int(number) for number in shape.groups())
    if i.opcode == "mma" and (m not in (8, 16) or n != 8):
        e.fail(f"{i.name} is not supported")
    d, a, b, c = types
    return Product(m, n, k, d, a, b, c, frozenset(i.modifiers))


def _is_sparse(i: Instruction) -> bool:
    return bool({"sp", "sp::ordered_metadata"} & set(i.modifiers))


def _registers(operand: Operand) -> tuple[Operand, ...]:
    return operand.elements if isinstance(operand, VectorOperand) else (operand,)


def _gather(e: FunctionEmitter, operand: Operand, word: str, role: str) -> str:
    """Memory with all lanes' registers, register after register."""
    registers = _registers(operand)
    buffer = e.scratch(f"[{len(registers) * LANES} x {word}]", role)
    for number, register in enumerate(registers):
        place = access.offset_pointer(e, buffer, number * LANES * int(word[1:]) // 8)
        if e.width > 1:
            e.line(f"store {e.t(word, True)} {e.get(register, word, True)}, ptr {place}")
            continue
        e.vec = False
        mine = e.resize(word, "i64", e.get(register, word, False))
        values, _ = meet(e, "-1", mine)
        words = f"<{LANES} x i64>"
        all_ = e.let(f"load {words}, ptr {values}, align 8")
        if word != "i64":
            all_ = e.let(f"trunc {words} {all_} to <{LANES} x {word}>")
        e.line(f"store <{LANES} x {word}> {all_}, ptr {place}")
    return buffer


def _scatter(e: FunctionEmitter, operand: Operand, word: str, buffer: str, distinct: int) -> None:
    """Registers from such memory; of `distinct` registers, again and again."""
    for number, register in enumerate(_registers(operand)):
        nbytes = int(word[1:]) // 8
        place = access.offset_pointer(e, buffer, number % distinct * LANES * nbytes)
        if e.width > 1:
            value = e.let(f"load {e.t(word, True)}, ptr {place}")
        else:
            e.vec = False
            lane = e.let(f"zext i32 {e.lane_id()} to i64")
            mine = e.let(f"getelementptr {word}, ptr {place}, i64 {lane}")
            value = e.let(f"load {word}, ptr {mine}")
        e.define(register, word, value, e.width > 1)


def _code(e: FunctionEmitter) -> MatrixCode:
    return MatrixCode(e.declarations)


@rule("mma")
def mma(e: FunctionEmitter, i: Instruction) -> None:
    """d = a × b + c."""
    p = _product(e, i)
    d, a, b, c = i.operands[:4]
    sources = [_gather(e, o, p.word, role) for o, role in ((a, "a"), (b, "b"), (c, "c"))]
    result = e.scratch(f"[{len(_registers(d)) * LANES} x {p.word}]", "d")
    if _is_sparse(i):
        metadata, selector = i.operands[4:6]
        if p.k * SIZES[p.a] not in (256, 512) or not isinstance(selector, Immediate):
            e.fail(f"{i.name} is not supported")
        name = _code(e).sparse(p, selector.value)
        operands = ", ".join(
            f"ptr {s}" for s in (*sources, result, _gather(e, metadata, "i32", "e"))
        )
        e.line(f"call void @{name}({operands})")
        _scatter(e, d, p.word, result, len(_registers(d)))
        return
    if (p.m, p.k, p.a) == (8, 4, "f16"):
        by_rows = [m == "row" for m in i.modifiers if m in ("row", "col")]
        name = _code(e).quads(p, *by_rows)
    else:
        name = _code(e).mma(p)
    operands = ", ".join(f"ptr {s}" for s in (*sources, result))
    e.line(f"call void @{name}({operands})")
    _scatter(e, d, p.word, result, len(_registers(d)))


@rule("wgmma")
def wgmma(e: FunctionEmitter, i: Instruction) -> None:
    """d = a × b + d: four warps, 64 rows, of which each warp makes sixteen; at once."""
    if "mma_async" not in i.modifiers:
        checks.fence(e)
        return
    p = _product(e, i)
    if p.a == "b1":
        e.fail(f"{i.name} is not supported")
    p = replace(p, m=16)
    d, a, b, scale, *rest = i.operands
    numbers = [one.value for one in rest if isinstance(one, Immediate)]
    signs, turns = numbers[:2], numbers[2:]
    code = _code(e)
    before, e.vec = e.vec, False
    warp = e.let(f"and i32 {e.warp_number()}, 3")
    first = e.let(f"zext i32 {e.let(f'shl i32 {warp}, 4')} to i64")
    e.vec = before
    if isinstance(a, VectorOperand):
        left, packed = _gather(e, a, "i32", "a"), False
        turn_b = bool(turns and turns[-1])
    else:
        left, packed = e.scratch(f"[{16 * p.k * SIZES[p.a] // 8} x i8]", "a.lines"), True
        name = code.described(16, p.k, SIZES[p.a], bool(turns and turns[0]), e.kernel.check)
        _describe(e, name, a, first, left)
        turn_b = len(turns) > 1 and bool(turns[1])
    right = e.scratch(f"[{p.n * p.k * SIZES[p.b] // 8} x i8]", "b.lines")
    name = code.described(p.n, p.k, SIZES[p.b], turn_b, e.kernel.check)
    _describe(e, name, b, "0", right)
    total = _gather(e, d, "i32", "c")
    adds = "true" if isinstance(scale, Immediate) else _common(e, scale, "i1")
    if isinstance(scale, Immediate) and not scale.value:
        adds = "false"
    negative = len(signs) == 2 and signs[0] * signs[1] == -1
    result = e.scratch(f"[{len(_registers(d)) * LANES} x i32]", "d")
    name = code.wgmma(p, packed, negative)
    e.line(f"call void @{name}(ptr {left}, ptr {right}, ptr {total}, ptr {result}, i1 {adds})")
    _scatter(e, d, "i32", result, len(_registers(d)))


def _describe(e: FunctionEmitter, name: str, operand: Operand, first: str, target: str) -> None:
    """Lines of a matrix in shared memory, from the `first` on, by its descriptor."""
    descriptor = _common(e, operand, "i64")
    operands = f"ptr {e.shared_pointer()}, i64 {descriptor}, i64 {first}, ptr {target}"
    if e.kernel.check:  # one lane looks for its warp
        e.vec = False
        looks = e.let(f"icmp eq i32 {e.lane_id()}, 0")
        place = checks.place(e)
        operands += f", ptr %worker, ptr %launch, i64 {place}, i32 {e.warp()}, i1 {looks}"
    e.line(f"call void @{name}({operands})")


# wmma: words of the matrix in order, word n in lane n % 32 of register n // 32.


@rule("wmma")
def wmma(e: FunctionEmitter, i: Instruction) -> None:
    """Load, multiply or store matrices."""
    if "mma" in i.modifiers:
        p = _product(e, i)
        d, a, b, c = i.operands[:4]
        sources = [_gather(e, o, p.word, role) for o, role in ((a, "a"), (b, "b"), (c, "c"))]
        result = e.scratch(f"[{len(_registers(d)) * LANES} x {p.word}]", "d")
        name = _code(e).wmma(p)
        operands = ", ".join(f"ptr {s}" for s in (*sources, result))
        e.line(f"call void @{name}({operands})")
        _scatter(e, d, p.word, result, len(_registers(d)))
        return
    store = "store" in i.modifiers
    shape = next((_SHAPE.fullmatch(m) for m in i.modifiers if _SHAPE.fullmatch(m)), None)
    which = next((m for m in i.modifiers if m in ("a", "b", "c", "d")), "")
    if shape is None or not which:
        e.fail(f"{i.name} is not supported")
    m, n, k = (int(number) for number in shape.groups())
    type_ = next(t for t in reversed(i.modifiers) if t in _TYPES)
    size = {"f32": 32, "s32": 32}.get(type_) or SIZES[type_]
    # The fragment's rows and columns; b is kept as its columns.
    rows, columns = {"a": (m, k), "b": (n, k)}.get(which, (m, n))
    across = ("row" in i.modifiers) != (which == "b")  # whether rows lie in one piece in memory
    word = "i64" if size == 64 else "i32"
    nbytes = int(word[1:]) // 8
    if store:
        address, fragment, *rest = i.operands
    else:
        fragment, address, *rest = i.operands
    stride = rest[0] if rest else None
    space = access.space_of(i)
    count = rows * columns * size // (8 * nbytes)  # words
    pointer = _common_pointer(e, i, address, space)
    step = _common(e, stride, "i32") if stride is not None else str(columns if across else rows)
    wide = e.let(f"sext i32 {step} to i64") if step.startswith("%") else step
    if e.width == 1:
        _check(e, pointer, space, wide, (rows, columns, size, across), store)
    name = _code(e).move(rows, columns, size, across, store)
    if store:
        buffer = _gather(e, fragment, word, "d")
        call = f"call void @{name}(ptr {pointer}, i64 {wide}, ptr {buffer})"
        if e.width > 1:
            e.line(call)
        else:  # one lane for all
            e.vec = False
            with e.when(e.let(f"icmp eq i32 {e.lane_id()}, 0")):
                e.line(call)
        return
    buffer = e.scratch(f"[{count} x {word}]", "d")
    e.line(f"call void @{name}(ptr {pointer}, i64 {wide}, ptr {buffer})")
    _scatter(e, fragment, word, buffer, max(count // LANES, 1))


def _check(
    e: FunctionEmitter,
    pointer: str,
    space: str,
    stride: str,
    matrix: tuple[int, int, int, bool],
    store: bool,
) -> None:
    """A checked kernel's lane 0 accesses all lines of a matrix, a thread at a time."""
    if not e.kernel.check:
        return
    rows, columns, size, across = matrix
    lines, length = (rows, columns) if across else (columns, rows)
    kind = checks.STORE if store else checks.LOAD
    e.vec = False
    with e.when(e.let(f"icmp eq i32 {e.lane_id()}, 0")):
        for line in range(lines):
            offset = e.let(f"mul i64 {stride}, {line * size}")
            place = access.offset_pointer(e, pointer, e.let(f"sdiv i64 {offset}, 8"))
            nbytes = length * size // 8
            checks.access(e, place, space, nbytes, kind, align=min(size // 8 or 4, nbytes))


def _common(e: FunctionEmitter, operand: Operand, elem: str) -> str:
    """An operand that the ISA asks to be the same in all lanes, as a scalar."""
    if e.width == 1 or e.shape(operand).kind == "uniform":
        return e.get(operand, elem, False)
    vector = e.get(operand, elem, True)
    return e.let(f"extractelement {e.t(elem, True)} {vector}, i64 0")


def _common_pointer(e: FunctionEmitter, i: Instruction, address: Operand, space: str) -> str:
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    place = access.resolve(e, i, address, space)
    if place.scalar:
        return place.pointer
    pointer, index = _lane_places(e, place)
    first = e.let(f"extractelement {e.t('i64', True)} {index}, i64 0")
    return access.offset_pointer(e, pointer, first)


def _lane_places(e: FunctionEmitter, place: access.Access) -> tuple[str, str]:
    """A pointer, and each lane's offset from it."""
    if place.fits:
        assert place.exact is not None
        return place.origin, place.exact()
    if place.scalar:
        return place.pointer, e.lanes("i64", (0,) * LANES)
    return place.pointer, access.index_of(e, place)


# ldmatrix, stmatrix: eight rows of 16 bytes a matrix, whose addresses lanes 8n to 8n + 7 bring.


@rule("ldmatrix", "stmatrix")
def ldmatrix(e: FunctionEmitter, i: Instruction) -> None:
    """Load or store up to four 8 × 8 matrices of 16-bit elements."""
    if "m8n8" not in i.modifiers or "b16" not in i.modifiers:
        e.fail(f"{i.name} is not supported")
    count = next(int(m[1:]) for m in i.modifiers if m in ("x1", "x2", "x4"))
    transposed = "trans" in i.modifiers
    store = i.opcode == "stmatrix"
    address, fragment = i.operands[:2] if store else i.operands[1::-1]
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    if len(_registers(fragment)) != count:
        e.fail(f"it takes {count} registers")
    space = access.space_of(i)
    place = access.resolve(e, i, address, space)
    places = e.scratch(f"[{LANES} x i64]", "places")
    if e.width == 1:
        e.vec = False
        if e.kernel.check:
            mine = e.let(f"icmp ult i32 {e.lane_id()}, {8 * count}")
            with e.when(mine):
                kind = checks.STORE if store else checks.LOAD
                checks.access(e, place.pointer, space, 16, kind)
        values, _ = meet(e, "-1", e.let(f"ptrtoint ptr {place.pointer} to i64"))
        words = f"<{LANES} x i64>"
        loaded = e.let(f"load {words}, ptr {values}, align 8")
        e.line(f"store {words} {loaded}, ptr {places}")
        base = "%base"
    else:
        base, index = _lane_places(e, place)
        e.line(f"store {e.t('i64', True)} {index}, ptr {places}")
    name = _code(e).rows(count, transposed, store)
    call = f"call void @{name}(ptr {base}, ptr {places}, "
    if store:
        buffer = _gather(e, fragment, "i32", "d")
        if e.width > 1:
            e.line(f"{call}ptr {buffer})")
        else:
            with e.when(e.let(f"icmp eq i32 {e.lane_id()}, 0")):
                e.line(f"{call}ptr {buffer})")
        return
    buffer = e.scratch(f"[{count * LANES} x i32]", "d")
    e.line(f"{call}ptr {buffer})")
    _scatter(e, fragment, "i32", buffer, count)


@rule("movmatrix")
def movmatrix(e: FunctionEmitter, i: Instruction) -> None:
    """Transpose an 8 × 8 matrix of 16-bit elements."""
    if "trans" not in i.modifiers or "b16" not in i.modifiers:
        e.fail(f"{i.name} is not supported")
    d, a = i.operands
    source = _gather(e, a, "i32", "a")
    result = e.scratch(f"[{LANES} x i32]", "d")
    e.line(f"call void @{_code(e).transpose()}(ptr {source}, ptr {result})")
    _scatter(e, d, "i32", result, 1)
