"""Asynchronous copies and mbarriers: PTX ISA 9.0, 9.7.9.25 and 9.7.13.15.

A copy is done at once, which the ISA allows. An mbarrier is opaque to programs; here its low bits
hold how many are still to arrive, the next how many a phase expects, those above the bytes that are
still to come, and the highest the phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.records import WORKER
from anyarch.gpu.cpu.rules import access, checks
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.ptx.tree import Address, Constant, Immediate, Instruction, Operand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_COUNT: Final = 20  # bits of a count of arrivals, of which there are two
_BYTES: Final = 23  # bits of the count of bytes, which may be below zero
_PHASE: Final = 63
_LOW: Final = (1 << _COUNT) - 1
_UPDATE: Final = checks.LOAD | checks.STORE | checks.STRONG


def _places(
    e: FunctionEmitter, i: Instruction, address: Operand, space: str, nbytes: int | str, kind: int
) -> tuple[str, list[tuple[str, str]]]:
    """A pointer and, for warps, the lanes' offsets from it as an input of a loop."""
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    place = access.resolve(e, i, address, space)
    if e.width == 1:
        align = 0 if isinstance(nbytes, int) else 16
        checks.access(e, place.pointer, place.space, nbytes, kind, align=align)
        return place.pointer, []
    pointer = place.pointer
    if place.fits:
        assert place.exact is not None
        pointer, index = place.origin, place.exact()
    elif place.scalar:
        index = e.lanes("i64", (0,) * LANES)
    else:
        index = access.index_of(e, place)
    return pointer, [("i64", index)]


@rule("cp")
def cp(e: FunctionEmitter, i: Instruction) -> None:
    """cp.async: copy 4, 8 or 16 bytes to shared memory, zeros past the source's size."""
    if "async" not in i.modifiers or "reduce" in i.modifiers:
        e.fail(f"{i.name} is not supported")
    if {"commit_group", "wait_group", "wait_all"} & set(i.modifiers):
        e.line(access.BARRIER)
        return
    if "bulk" in i.modifiers:
        _bulk(e, i)
        return
    if "mbarrier" in i.modifiers:
        if "noinc" in i.modifiers:  # else one more is waited for, which arrives
            _change(e, i, i.operands[0], [("arrivals", Immediate(1))])
        return
    target, source, size, *rest = i.operands
    if not isinstance(size, Immediate) or size.value not in (4, 8, 16):
        e.fail("cp.async copies 4, 8 or 16 bytes")
    limit = rest[0] if rest and "cache_hint" not in " ".join(i.modifiers) else None
    if limit is not None and e.shape(limit).kind == "uniform" and isinstance(limit, Immediate):
        words = min(limit.value, size.value) // 4
    else:
        words = size.value // 4
    varying = limit is not None and not isinstance(limit, Immediate)
    pointers = [
        _places(e, i, target, "shared", size.value, checks.STORE),
        _places(e, i, source, "global", 0 if varying else 4 * words, checks.LOAD),
    ]
    inputs = [*pointers[0][1], *pointers[1][1]]
    if varying:
        assert limit is not None
        inputs.append(("i32", e.get(limit, "i32", e.width > 1)))
    total = size.value // 4

    def body(_: str, *values: str) -> list[str]:
        given = list(values)
        here = [
            access.offset_pointer(e, pointer, given.pop(0)) if offsets else pointer
            for pointer, offsets in pointers
        ]
        for word in range(total):
            into = access.offset_pointer(e, here[0], 4 * word)
            if word >= words:
                e.line(f"store i32 0, ptr {into}, align 4")
                continue
            if varying:
                e.line(f"store i32 0, ptr {into}, align 4")
                copy, skip = e.name("copy"), e.name("skip")
                e.branch(e.let(f"icmp ugt i32 {given[0]}, {4 * word}"), copy, skip)
                e.label(copy)
            value = e.let(f"load i32, ptr {access.offset_pointer(e, here[1], 4 * word)}, align 4")
            e.line(f"store i32 {value}, ptr {into}, align 4")
            if varying:
                e.jump(skip)
                e.label(skip)
        return []

    _for_lanes(e, inputs, [], body)


def _for_lanes(
    e: FunctionEmitter, inputs: list[tuple[str, str]], outputs: list[str], body: access.Body
) -> list[str]:
    """`body` for each active lane; where a flow is a thread, once."""
    if e.width > 1:
        return access.each_lane(e, e.active(), inputs, outputs, body)
    e.vec = False
    return body("0", *(value for _, value in inputs))


def _bulk(e: FunctionEmitter, i: Instruction) -> None:
    """cp.async.bulk: copy any multiple of 16 bytes between shared and global memory."""
    if "prefetch" in i.modifiers:
        return
    spaces = [m.split("::")[0] for m in i.modifiers if m.split("::")[0] in ("shared", "global")]
    if {"tensor", "multicast::cluster", "cp_mask"} & set(i.modifiers) or len(spaces) != 2:
        e.fail(f"{i.name} is not supported")
    target, source, size = i.operands[:3]
    nbytes = e.get(size, "i32", e.width > 1)
    known = e.let(f"zext i32 {nbytes} to i64") if e.width == 1 else 0
    into, to_places = _places(e, i, target, spaces[0], known, checks.STORE)
    out_of, from_places = _places(e, i, source, spaces[1], known, checks.LOAD)
    e.declarations["bulk.copy"] = _BULK_COPY

    def body(_: str, *values: str) -> list[str]:
        given = list(values)
        here, there = into, out_of
        if to_places:
            here = access.offset_pointer(e, into, given.pop(0))
        if from_places:
            there = access.offset_pointer(e, out_of, given.pop(0))
        e.line(f"call void @bulk.copy(ptr {here}, ptr {there}, i32 {given[0]})")
        return []

    e.line(access.BARRIER)
    _for_lanes(e, [*to_places, *from_places, ("i32", nbytes)], [], body)
    e.line(access.BARRIER)
    if len(i.operands) > 3 and isinstance(i.operands[3], Address):
        _change(e, i, i.operands[3], [("completed", size)])


# A loop that stays one: there is no memcpy to call.
_BULK_COPY: Final = """
define internal void @bulk.copy(ptr %to, ptr %from, i32 %nbytes) #2 {
entry:
  %none = icmp eq i32 %nbytes, 0
  br i1 %none, label %done, label %loop
loop:
  %at = phi i32 [ 0, %entry ], [ %next, %loop ]
  %source = getelementptr i8, ptr %from, i32 %at
  %target = getelementptr i8, ptr %to, i32 %at
  %value = load <4 x i32>, ptr %source, align 4
  store <4 x i32> %value, ptr %target, align 4
  %next = add i32 %at, 16
  %more = icmp ult i32 %next, %nbytes
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""


@rule("mbarrier")
def mbarrier(e: FunctionEmitter, i: Instruction) -> None:
    """Barriers in shared memory."""
    modifiers = set(i.modifiers)
    operands = list(i.operands)
    if "init" in modifiers:
        pointer, places = _barrier(e, i, operands[0], checks.STORE | checks.STRONG)
        inputs = [*places, ("i32", e.get(operands[1], "i32", e.width > 1))]

        def begin(_: str, *values: str) -> list[str]:
            here = access.offset_pointer(e, pointer, values[0]) if places else pointer
            wide = e.let(f"zext i32 {values[-1]} to i64")
            high = e.let(f"shl i64 {wide}, {_COUNT}")
            e.line(f"store i64 {e.let(f'or i64 {high}, {wide}')}, ptr {here}, align 8")
            return []

        _for_lanes(e, inputs, [], begin)
    elif "inval" in modifiers:
        return
    elif "pending_count" in modifiers:
        e.choose(i, operands[1])
        low = e.op("and", "i64", e.get(operands[1], "i64"), e.k("i64", _LOW))
        e.define(operands[0], "i32", e.cast("trunc", "i64", "i32", low))
    elif "arrive" in modifiers or "arrive_drop" in modifiers:
        target = None
        if not isinstance(operands[0], Address):
            target = operands.pop(0)
            if isinstance(target, Constant):
                target = None
        changes: list[tuple[str, Operand]] = []
        if "expect_tx" in modifiers:  # before the arrival, which is one
            changes.append(("expected", operands[1]))
            del operands[1:]
        count = operands[1] if len(operands) > 1 else Immediate(1)
        changes.append(("arrivals", count))
        if "arrive_drop" in modifiers:
            changes.append(("dropped", count))
        _change(e, i, operands[0], changes, target)
    elif "expect_tx" in modifiers:
        _change(e, i, operands[0], [("expected", operands[1])])
    elif "complete_tx" in modifiers:
        _change(e, i, operands[0], [("completed", operands[1])])
    elif "test_wait" in modifiers or "try_wait" in modifiers:
        _wait(e, i)
    else:
        e.fail(f"{i.name} is not supported")


def _barrier(
    e: FunctionEmitter, i: Instruction, address: Operand, kind: int
) -> tuple[str, list[tuple[str, str]]]:
    """Where an instruction's mbarriers lie, as `_places` says it."""
    space = access.space_of(i) if i.opcode == "mbarrier" else "shared"
    return _places(e, i, address, space, 8, kind)


def _change(
    e: FunctionEmitter,
    i: Instruction,
    address: Operand,
    changes: list[tuple[str, Operand]],
    target: Operand | None = None,
) -> None:
    """Change what an mbarrier counts; `target` gets its state before that."""
    checks.fence(e)
    pointer, places = _barrier(e, i, address, _UPDATE)
    inputs = [*places, *(("i32", e.get(one, "i32", e.width > 1)) for _, one in changes)]
    e.declarations["mbarrier.change"] = _CHANGE

    def body(_: str, *values: str) -> list[str]:
        here = access.offset_pointer(e, pointer, values[0]) if places else pointer
        by_name = dict(zip((name for name, _ in changes), values[len(places) :]))
        bytes_ = by_name.get("expected", "0")
        if "completed" in by_name:
            bytes_ = e.let(f"sub i32 0, {by_name['completed']}")
        old = e.let(f"load i64, ptr {here}, align 8")
        counts = by_name.get("arrivals", "0"), by_name.get("dropped", "0"), bytes_
        operands = ", ".join(f"i32 {count}" for count in counts)
        new = e.let(f"call i64 @mbarrier.change(i64 {old}, {operands})")
        e.line(f"store i64 {new}, ptr {here}, align 8")
        return [old]

    e.line(access.BARRIER)
    (old,) = _for_lanes(e, inputs, ["i64"], body)
    e.line(access.BARRIER)
    if target is not None:
        e.define(target, "i64", old, e.width > 1)


# A phase is over when nobody is to arrive and no byte is to come.
_CHANGE: Final = f"""
define internal i64 @mbarrier.change(i64 %state, i32 %arrivals, i32 %dropped, i32 %bytes) #1 {{
  %fewer = zext i32 %arrivals to i64
  %arrived = sub i64 %state, %fewer
  %pending = and i64 %arrived, {_LOW}
  %expected.o = lshr i64 %state, {_COUNT}
  %less = zext i32 %dropped to i64
  %expected.n = sub i64 %expected.o, %less
  %expected = and i64 %expected.n, {_LOW}
  %bytes.o = lshr i64 %state, {2 * _COUNT}
  %more = sext i32 %bytes to i64
  %bytes.n = add i64 %bytes.o, %more
  %to.come = and i64 %bytes.n, {(1 << _BYTES) - 1}
  %phase = and i64 %state, {-1 << _PHASE}
  %open = or i64 %pending, %to.come
  %over = icmp eq i64 %open, 0
  %turned = xor i64 %phase, {-1 << _PHASE}
  %phase.n = select i1 %over, i64 %turned, i64 %phase
  %pending.n = select i1 %over, i64 %expected, i64 %pending
  %expected.p = shl i64 %expected, {_COUNT}
  %come.p = shl i64 %to.come, {2 * _COUNT}
  %counts = or i64 %pending.n, %expected.p
  %rest = or i64 %phase.n, %come.p
  %new = or i64 %counts, %rest
  ret i64 %new
}}
"""


def _wait(e: FunctionEmitter, i: Instruction) -> None:
    """Whether a phase is over, named by the state that an arrival gave, or by its parity."""
    target, address, which = i.operands[:3]
    parity = "parity" in i.modifiers
    checks.fence(e)
    pointer, places = _barrier(e, i, address, checks.LOAD | checks.STRONG)
    elem = "i32" if parity else "i64"
    inputs = [*places, (elem, e.get(which, elem, e.width > 1))]

    def body(_: str, *values: str) -> list[str]:
        here = access.offset_pointer(e, pointer, values[0]) if places else pointer
        now = e.let(f"load volatile i64, ptr {here}, align 8")
        if parity:
            bit = e.let(f"zext i32 {e.let(f'and i32 {values[-1]}, 1')} to i64")
            then = e.let(f"shl i64 {bit}, {_PHASE}")
        else:
            then = values[-1]
        changed = e.let(f"icmp slt i64 {e.let(f'xor i64 {now}, {then}')}, 0")
        return [e.let(f"zext i1 {changed} to i8")]

    e.line(access.BARRIER)
    if e.kernel.fibres:
        pause = e.load_field("ptr", "worker", WORKER["pause"])
        e.line(f"call void {pause}(ptr %worker)")
    (over,) = _for_lanes(e, inputs, ["i8"], body)
    e.line(access.BARRIER)
    e.vec = e.width > 1
    e.define(target, "i1", e.cast("trunc", "i8", "i1", over))
    checks.fence(e)
