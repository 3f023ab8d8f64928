"""Asynchronous copies and mbarriers: PTX ISA 9.0, 9.7.9.25 and 9.7.13.15.

A copy is done at once, which the ISA allows. An mbarrier is opaque to programs; here it holds its
phase in bit 63, what it expects in bits 32 to 62, and what is still to arrive below.
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

_PHASE: Final = 63
_UPDATE: Final = checks.LOAD | checks.STORE | checks.STRONG


def _places(
    e: FunctionEmitter, i: Instruction, address: Operand, space: str, nbytes: int, kind: int
) -> tuple[str, list[tuple[str, str]]]:
    """A pointer and, for warps, the lanes' offsets from it as an input of a loop."""
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    place = access.resolve(e, i, address, space)
    if e.width == 1:
        checks.access(e, place.pointer, place.space, nbytes, kind)
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
    if "async" not in i.modifiers or "bulk" in i.modifiers:
        e.fail(f"{i.name} is not supported")
    if {"commit_group", "wait_group", "wait_all"} & set(i.modifiers):
        e.line(access.BARRIER)
        return
    if "mbarrier" in i.modifiers:
        _arrive(e, i, None, i.operands[0], "1", drop=False)
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


@rule("mbarrier")
def mbarrier(e: FunctionEmitter, i: Instruction) -> None:
    """Barriers in shared memory."""
    modifiers = set(i.modifiers)
    operands = list(i.operands)
    if "expect_tx" in modifiers or "complete_tx" in modifiers:
        e.fail("mbarriers that count bytes are not supported")
    if "init" in modifiers:
        pointer, places = _places(e, i, operands[0], "shared", 8, checks.STORE | checks.STRONG)
        inputs = [*places, ("i32", e.get(operands[1], "i32", e.width > 1))]

        def begin(_: str, *values: str) -> list[str]:
            here = access.offset_pointer(e, pointer, values[0]) if places else pointer
            wide = e.let(f"zext i32 {values[-1]} to i64")
            high = e.let(f"shl i64 {wide}, 32")
            e.line(f"store i64 {e.let(f'or i64 {high}, {wide}')}, ptr {here}, align 8")
            return []

        _for_lanes(e, inputs, [], begin)
    elif "inval" in modifiers:
        return
    elif "pending_count" in modifiers:
        e.choose(i, operands[1])
        e.define(operands[0], "i32", e.get(operands[1], "i32"))
    elif "arrive" in modifiers or "arrive_drop" in modifiers:
        target = None
        if not isinstance(operands[0], Address):
            target = operands.pop(0)
            if isinstance(target, Constant):
                target = None
        count = e.get(operands[1], "i32", False) if len(operands) > 1 else "1"
        _arrive(e, i, target, operands[0], count, drop="arrive_drop" in modifiers)
    elif "test_wait" in modifiers or "try_wait" in modifiers:
        _wait(e, i)
    else:
        e.fail(f"{i.name} is not supported")


def _arrive(
    e: FunctionEmitter,
    i: Instruction,
    target: Operand | None,
    address: Operand,
    count: str,
    drop: bool,
) -> None:
    checks.fence(e)
    pointer, places = _places(e, i, address, "shared", 8, _UPDATE)

    def body(_: str, *values: str) -> list[str]:
        here = access.offset_pointer(e, pointer, values[0]) if places else pointer
        old = e.let(f"load i64, ptr {here}, align 8")
        state = old
        if drop:
            state = e.let(f"sub i64 {state}, {1 << 32}")
        less = e.let(f"sub i64 {state}, {e.let(f'zext i32 {count} to i64')}")
        pending = e.let(f"trunc i64 {less} to i32")
        complete = e.let(f"icmp eq i32 {pending}, 0")
        expected = e.let(f"and i64 {e.let(f'lshr i64 {less}, 32')}, {(1 << 31) - 1}")
        turned = e.let(f"xor i64 {less}, {-1 << _PHASE}")
        renewed = e.let(f"or i64 {turned}, {expected}")
        new = e.let(f"select i1 {complete}, i64 {renewed}, i64 {less}")
        e.line(f"store i64 {new}, ptr {here}, align 8")
        return [old]

    e.line(access.BARRIER)
    (old,) = _for_lanes(e, places, ["i64"], body)
    e.line(access.BARRIER)
    if target is not None:
        e.define(target, "i64", old, e.width > 1)


def _wait(e: FunctionEmitter, i: Instruction) -> None:
    """Whether a phase is over, named by the state that an arrival gave, or by its parity."""
    target, address, which = i.operands[:3]
    parity = "parity" in i.modifiers
    checks.fence(e)
    pointer, places = _places(e, i, address, "shared", 8, checks.LOAD | checks.STRONG)
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
