"""Code that chooses by the lanes of a warp, or goes through them one after another."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from anyarch.gpu.cpu.activity import ALL_LANES
from anyarch.gpu.cpu.records import WORKER
from anyarch.gpu.cpu.shapes import LANES

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["Body", "each_lane", "either", "is_full", "shared"]

_FEW: Final = 8
Body: TypeAlias = Callable[..., list[str]]  # of a loop over lanes: (lane, input…) -> outputs


def either(
    e: FunctionEmitter,
    condition: str,
    type_: str,
    likely: Callable[[], list[str]],
    otherwise: Callable[[], list[str]],
) -> list[str]:
    """The results of one of two pieces of code."""
    fast, slow, after = e.name("fast"), e.name("slow"), e.name("after")
    e.branch(condition, fast, slow, "!1")
    e.label(fast)
    first = likely()
    from_fast = e.current
    e.jump(after)
    e.label(slow)
    second = otherwise()
    from_slow = e.current
    e.jump(after)
    e.label(after)
    return [
        e.let(f"phi {type_} [ {a}, %{from_fast} ], [ {b}, %{from_slow} ]")
        for a, b in zip(first, second)
    ]


def shared(
    e: FunctionEmitter,
    name: str,
    inputs: list[tuple[str, str]],
    outputs: list[str],
    build: Callable[..., list[str]],
) -> list[str]:
    """What `build` gives for (type, value) inputs; in kernels that have many of the like it becomes
    a function, since LLVM takes long for long texts.

    `name` says all that `build` depends on besides. Where the function faults is no instruction of
    the kernel's: which one it was is noted before the call.
    """
    if not e.kernel.shares:
        return build(*(value for _, value in inputs))
    constants = [value for _, value in inputs if not value.startswith("%")]
    # Few lanes are worth code of their own.
    possible = e.possible if e.possible.bit_count() <= _FEW else ALL_LANES
    key = zlib.crc32("|".join((name, str(possible), *constants)).encode())
    full = f"shared.{name}.{key:08x}"
    variable = [(t, v) for t, v in inputs if v.startswith("%")]
    result = f"{{ {', '.join(outputs)} }}" if outputs else "void"
    if full not in e.declarations:
        e.declarations[full] = ""  # it is known while it is written
        numbered = iter(range(len(variable)))
        given = [f"%a{next(numbered)}" if v.startswith("%") else v for _, v in inputs]
        body, values = e.apart(full, possible, lambda: build(*given))
        for n, (type_, value) in enumerate(zip(outputs, values)):
            whole = f"%result{n - 1}" if n else "poison"
            body.append(f"  %result{n} = insertvalue {result} {whole}, {type_} {value}, {n}")
        parameters = ", ".join(f"{t} %a{n}" for n, (t, _) in enumerate(variable))
        body.append(f"  ret {result}" + (f" %result{len(outputs) - 1}" if outputs else ""))
        head = (
            f"define internal {result} @{full}({parameters}) {e.kernel.shared_attributes(full)} {{"
        )
        e.declarations[full] = "\n".join([head, "entry:", *body, "}"])
    if not e.is_apart:
        assert e.instruction is not None
        place = e.instruction.place
        line = e.let(f"getelementptr i8, ptr %worker, i64 {WORKER['line']}")
        e.line(f"store volatile <2 x i32> <i32 {place.line}, i32 {place.column}>, ptr {line}")
    call = f"call {result} @{full}({', '.join(f'{t} {v}' for t, v in variable)})"
    if not outputs:
        e.line(call)
        return []
    whole = e.let(call)
    return [e.let(f"extractvalue {result} {whole}, {n}") for n in range(len(outputs))]


def is_full(e: FunctionEmitter, mask: str) -> str:
    """Whether a mask has all lanes that it can have, as a scalar."""
    if not mask.startswith("%"):
        return "true"
    wanted = e.possible - (1 << LANES if e.possible >> LANES - 1 else 0)
    return e.let(f"icmp eq i32 {e.mask_bits(mask)}, {wanted}")


def each_lane(
    e: FunctionEmitter,
    mask: str,
    inputs: list[tuple[str, str]],
    outputs: list[str],
    body: Body,
) -> list[str]:
    """A loop over active lanes. `body(lane, input…)` writes scalar code and gives the outputs,
    which are collected to vectors."""
    sources = []
    for elem, value in inputs:
        slot = e.alloca(e.t(elem, True), "in")
        e.line(f"store {e.t(elem, True)} {value}, ptr {slot}")
        sources.append((elem, slot))
    targets = [(elem, e.alloca(e.t(elem, True), "out")) for elem in outputs]
    left = e.alloca("i32", "left")
    bits = e.mask_bits(mask)
    e.line(f"store i32 {bits}, ptr {left}")
    loop, after = e.name("each"), e.name("done")
    e.branch(e.let(f"icmp ne i32 {bits}, 0"), loop, after)
    e.label(loop)
    now = e.let(f"load i32, ptr {left}")
    lane = e.invoke("llvm.cttz.i32", "i32", [("i32", now), ("i1", "true")])
    wide = e.let(f"zext i32 {lane} to i64")
    scalars = []
    for elem, slot in sources:
        place = e.let(f"getelementptr {elem}, ptr {slot}, i64 {wide}")
        scalars.append(e.let(f"load {elem}, ptr {place}"))
    before, e.vec = e.vec, False
    results = body(lane, *scalars)
    e.vec = before
    for (elem, slot), value in zip(targets, results):
        place = e.let(f"getelementptr {elem}, ptr {slot}, i64 {wide}")
        e.line(f"store {elem} {value}, ptr {place}")
    less = e.let(f"sub i32 {now}, 1")
    rest = e.let(f"and i32 {now}, {less}")
    e.line(f"store i32 {rest}, ptr {left}")
    e.branch(e.let(f"icmp ne i32 {rest}, 0"), loop, after)
    e.label(after)
    return [e.let(f"load {e.t(elem, True)}, ptr {slot}") for elem, slot in targets]
