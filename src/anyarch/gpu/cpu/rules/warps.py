"""Exchange between the lanes of a warp: PTX ISA 9.0, 9.7.9.6 (shfl), 9.7.13.7 to 9.7.13.12.

Where a flow of control is a single thread, threads meet: each brings a value, and once all named
ones have come, each sees all values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.records import WORKER
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import Constant, Immediate, Instruction, Operand, Pair

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_NUMBERS: Final = tuple(range(LANES))
_BITS: Final = f"<{LANES} x i1>"
_WORDS: Final = f"<{LANES} x i64>"
VALUES: Final = 16  # offset of the values in a slot where threads meet


def meet(e: FunctionEmitter, members: str, value: str) -> tuple[str, str]:
    """Meet the threads in `members`: a pointer to the 32 values and the set that came."""
    function = e.load_field("ptr", "worker", WORKER["exchange"])
    slot = e.let(f"call ptr {function}(ptr %worker, i32 {members}, i64 {value})")
    place = e.let(f"getelementptr i8, ptr {slot}, i64 8")
    return e.let(f"getelementptr i8, ptr {slot}, i64 {VALUES}"), e.let(f"load i32, ptr {place}")


def _partners(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The lane that a shuffle reads, and whether it is in range."""
    b, bound, segment = b & 31, c & 31, c >> 8 & 31
    most, least = lane & segment | bound & ~segment, lane & segment
    match mode:
        case "up":
            source = lane - b
            inside = source >= most
        case "down":
            source = lane + b
            inside = source <= most
        case "bfly":
            source = lane ^ b
            inside = source <= most
        case _:
            source = least | b & ~segment & 31
            inside = source <= most
    return (source if inside else lane), inside


def _partners_of(e: FunctionEmitter, mode: str, lane: str, b: str, c: str) -> tuple[str, str]:
    """The same for lanes that are only known at run time."""
    w = "i32"
    b = e.op("and", w, b, e.k(w, 31))
    bound = e.op("and", w, c, e.k(w, 31))
    segment = e.op("and", w, e.op("lshr", w, c, e.k(w, 8)), e.k(w, 31))
    outside = e.op("xor", w, segment, e.k(w, 31))
    least = e.op("and", w, lane, segment)
    most = e.op("or", w, least, e.op("and", w, bound, outside))
    match mode:
        case "up":
            source = e.op("sub", w, lane, b)
            inside = e.cmp("icmp sge", w, source, most)
        case "down":
            source = e.op("add", w, lane, b)
            inside = e.cmp("icmp sle", w, source, most)
        case "bfly":
            source = e.op("xor", w, lane, b)
            inside = e.cmp("icmp sle", w, source, most)
        case _:
            source = e.op("or", w, least, e.op("and", w, b, outside))
            inside = e.cmp("icmp sle", w, source, most)
    return e.sel(inside, w, source, lane), inside


@rule("shfl")
def shfl(e: FunctionEmitter, i: Instruction) -> None:
    """Read another lane's register."""
    d, a, b, c, *rest = i.operands
    mode = next(m for m in i.modifiers if m in ("up", "down", "bfly", "idx"))
    target, flag = (d.first, d.second) if isinstance(d, Pair) else (d, None)
    e.vec = e.width > 1
    value = e.get(a, "i32")
    if e.width == 1:
        members = e.get(rest[0], "i32") if rest else "-1"
        values, _ = meet(e, members, e.let(f"zext i32 {value} to i64"))
        source, inside = _partners_of(e, mode, e.lane_id(), e.get(b, "i32"), e.get(c, "i32"))
        wide = e.let(f"zext i32 {source} to i64")
        place = e.let(f"getelementptr i64, ptr {values}, i64 {wide}")
        result = e.let(f"trunc i64 {e.let(f'load i64, ptr {place}')} to i32")
    elif isinstance(b, Immediate) and isinstance(c, Immediate):
        known = [_partners(mode, lane, b.value, c.value) for lane in _NUMBERS]
        result = e.shuffle(LANES, "i32", value, "poison", [source for source, _ in known])
        inside = "<" + ", ".join(f"i1 {int(good)}" for _, good in known) + ">"
    else:
        lanes = e.lanes("i32", _NUMBERS)
        source, inside = _partners_of(e, mode, lanes, e.get(b, "i32"), e.get(c, "i32"))
        result = permute(e, value, source)
    e.define(target, "i32", result)
    if flag is not None:
        e.define(flag, "i1", inside)


def permute(e: FunctionEmitter, value: str, source: str) -> str:
    """For each lane the value of another."""
    if not e.kernel.avx512:
        slot = e.alloca(e.t("i32", True), "lanes")
        e.line(f"store {e.t('i32', True)} {value}, ptr {slot}")
        result = "poison"
        for lane in _NUMBERS:
            which = e.let(f"extractelement {e.t('i32', True)} {source}, i64 {lane}")
            place = e.let(f"getelementptr i32, ptr {slot}, i32 {which}")
            one = e.let(f"load i32, ptr {place}")
            result = e.let(f"insertelement {e.t('i32', True)} {result}, i32 {one}, i64 {lane}")
        return result
    type_ = "<16 x i32>"
    low, high = e.parts("i32", value, 16)
    name = "llvm.x86.avx512.vpermi2var.d.512"
    picked = [
        e.invoke(name, type_, [(type_, low), (type_, part), (type_, high)])
        for part in e.parts("i32", source, 16)
    ]
    return e.whole("i32", picked, 16)


def _members(e: FunctionEmitter, operand: Operand | None) -> str:
    """Active lanes that take part, as an integer."""
    bits = e.mask_bits(e.active())
    if operand is None or e.shape(operand).kind != "uniform":
        return bits
    return e.let(f"and i32 {bits}, {e.get(operand, 'i32', False)}")


@rule("activemask")
def activemask(e: FunctionEmitter, i: Instruction) -> None:
    """The lanes that run together; a thread that is alone names itself."""
    (d,) = i.operands
    if e.width == 1:
        bit = e.let(f"shl i32 1, {e.lane_id()}")
        e.define(d, "i32", bit, False)
    else:
        e.define(d, "i32", e.mask_bits(e.active()), False)


@rule("vote")
def vote(e: FunctionEmitter, i: Instruction) -> None:
    """all, any, uni of a predicate, or its ballot."""
    d, a, *rest = i.operands
    members = rest[0] if rest else None
    if e.width == 1:
        mine = e.let(f"zext i1 {e.get(a, 'i1', False)} to i64")
        named = e.get(members, "i32", False) if members is not None else "-1"
        values, present = meet(e, named, mine)
        all_values = e.let(f"load {_WORDS}, ptr {values}, align 8")
        votes = e.let(f"icmp ne {_WORDS} {all_values}, zeroinitializer")
        yes = e.let(f"and i32 {e.let(f'bitcast {_BITS} {votes} to i32')}, {present}")
    else:
        present = _members(e, members)
        predicate = e.get(a, "i1", True)
        yes = e.let(f"and i32 {e.mask_bits(predicate)}, {present}")
    e.vec = False
    if "ballot" in i.modifiers:
        e.define(d, "i32", yes, False)
        return
    if "any" in i.modifiers:
        result = e.let(f"icmp ne i32 {yes}, 0")
    else:
        result = e.let(f"icmp eq i32 {yes}, {present}")
        if "uni" in i.modifiers:
            none = e.let(f"icmp eq i32 {yes}, 0")
            result = e.let(f"or i1 {result}, {none}")
    e.define(d, "i1", result, False)


@rule("match")
def match(e: FunctionEmitter, i: Instruction) -> None:
    """The lanes that hold the same value."""
    d, a, members = i.operands
    elem = elem_of(i.types[-1])
    target, flag = (d.first, d.second) if isinstance(d, Pair) else (d, None)
    if e.width == 1:
        e.vec = False
        mine = e.resize(elem, "i64", e.get(a, elem, False))
        values, present = meet(e, e.get(members, "i32", False), mine)
        vector = e.let(f"load {_WORDS}, ptr {values}, align 8")
        here = _same(e, "i64", vector, mine, present)
        if "any" in i.modifiers:
            e.define(target, "i32", here, False)
            return
        _match_all(e, target, flag, here, present, False)
        return
    active = e.active()
    present = _members(e, members)
    value = e.get(a, elem, True)
    if "all" in i.modifiers:
        first = e.invoke("llvm.cttz.i32", "i32", [("i32", present), ("i1", "false")])
        one = e.let(f"extractelement {e.t(elem, True)} {value}, i32 {first}")
        here = _same(e, elem, value, one, present)
        _match_all(e, target, flag, here, present, False)
        return
    from anyarch.gpu.cpu.rules.access import each_lane

    def body(_: str, mine: str) -> list[str]:
        return [_same(e, elem, value, mine, present)]

    (result,) = each_lane(e, active, [(elem, value)], ["i32"], body)
    e.define(target, "i32", result, True)


def _same(e: FunctionEmitter, elem: str, vector: str, one: str, present: str) -> str:
    equal = e.let(f"icmp eq {e.t(elem, True)} {vector}, {e.splat(elem, one)}")
    return e.let(f"and i32 {e.mask_bits(equal)}, {present}")


def _match_all(
    e: FunctionEmitter, target: Operand, flag: Operand | None, here: str, present: str, vec: bool
) -> None:
    e.vec = False
    agree = e.let(f"icmp eq i32 {here}, {present}")
    e.define(target, "i32", e.let(f"select i1 {agree}, i32 {present}, i32 0"), vec)
    if flag is not None and not isinstance(flag, Constant):
        e.define(flag, "i1", agree, vec)


@rule("redux")
def redux(e: FunctionEmitter, i: Instruction) -> None:
    """Combine a value over lanes."""
    d, a, members = i.operands
    type_ = i.types[-1]
    operation = next(m for m in i.modifiers if m in ("add", "min", "max", "and", "or", "xor"))
    if "f" in type_:
        e.fail("redux of floats is not supported")
    signed = type_[0] == "s"
    neutral = {"add": 0, "or": 0, "xor": 0, "and": -1}.get(operation)
    name = operation
    if neutral is None:
        name = ("s" if signed else "u") + operation
        least, most = (-(1 << 31), (1 << 31) - 1) if signed else (0, -1)
        neutral = most if operation == "min" else least
    vector = e.t("i32", True)
    if e.width == 1:
        mine = e.let(f"zext i32 {e.get(a, 'i32', False)} to i64")
        values, present = meet(e, e.get(members, "i32", False), mine)
        wide = e.let(f"load {_WORDS}, ptr {values}, align 8")
        value = e.let(f"trunc {_WORDS} {wide} to {vector}")
    else:
        if e.shape(members).kind != "uniform":
            _redux_groups(e, i, d, a, members, name, neutral)
            return
        present = _members(e, members)
        value = e.get(a, "i32", True)
    e.define(d, "i32", _reduce(e, name, neutral, value, present), False)


def _reduce(e: FunctionEmitter, name: str, neutral: int, value: str, present: str) -> str:
    vector = e.t("i32", True)
    lanes = e.let(f"bitcast i32 {present} to {_BITS}")
    chosen = e.let(f"select {_BITS} {lanes}, {vector} {value}, {vector} splat (i32 {neutral})")
    return e.invoke(f"llvm.vector.reduce.{name}.v{LANES}i32", "i32", [(vector, chosen)])


def _redux_groups(
    e: FunctionEmitter,
    i: Instruction,
    d: Operand,
    a: Operand,
    members: Operand,
    name: str,
    neutral: int,
) -> None:
    from anyarch.gpu.cpu.rules.access import each_lane

    value = e.get(a, "i32", True)
    active = e.active()
    bits = e.mask_bits(active)

    def body(_: str, group: str) -> list[str]:
        return [_reduce(e, name, neutral, value, e.let(f"and i32 {group}, {bits}"))]

    inputs = [("i32", e.get(members, "i32", True))]
    (result,) = each_lane(e, active, inputs, ["i32"], body)
    e.define(d, "i32", result, True)


@rule("elect")
def elect(e: FunctionEmitter, i: Instruction) -> None:
    """One lane of those named is the leader."""
    d, members = i.operands
    if not isinstance(d, Pair):
        e.fail("elect.sync has two results")
    if e.width == 1:
        _, present = meet(e, e.get(members, "i32", False), "0")
        lane = e.lane_id()
        first = e.invoke("llvm.cttz.i32", "i32", [("i32", present), ("i1", "false")])
        e.vec = False
        e.define(d.first, "i32", first, False)
        e.define(d.second, "i1", e.let(f"icmp eq i32 {first}, {lane}"), False)
        return
    present = _members(e, members)
    first = e.invoke("llvm.cttz.i32", "i32", [("i32", present), ("i1", "false")])
    e.define(d.first, "i32", first, False)
    e.vec = True
    numbers = e.lanes("i32", _NUMBERS)
    e.define(d.second, "i1", e.cmp("icmp eq", "i32", e.splat("i32", first), numbers), True)
