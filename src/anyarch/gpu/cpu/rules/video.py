"""Scalar video instructions: PTX ISA 9.0, 9.7.17. In 64 bits, which hold every intermediate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.ptx.tree import Constant, Instruction, Operand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

_W = "i64"


def _selected(text: str) -> tuple[int, int]:
    """First bit and size of what a selector names: b0 to b3, h0, h1, or all."""
    if not text:
        return 0, 32
    size = 8 if text[0] == "b" else 16
    return int(text[1]) * size, size


def _source(e: FunctionEmitter, operand: Operand, signed: bool) -> str:
    """An operand, or the byte or half of it that is selected, extended."""
    first, size = 0, 32
    if isinstance(operand, Constant) and operand.kind == "element":
        first, size = _selected(operand.text)
        operand = operand.operands[0]
    value = e.cast("zext", "i32", _W, e.get(operand, "i32"))
    up = e.op("shl", _W, value, e.k(_W, 64 - first - size))
    return e.op("ashr" if signed else "lshr", _W, up, e.k(_W, 64 - size))


@rule("vadd", "vsub", "vabsdiff", "vmin", "vmax", "vshl", "vshr", "vset")
def video(e: FunctionEmitter, i: Instruction) -> None:
    """Compute on parts of words, saturate, and combine with a third operand."""
    d, a, b, *rest = i.operands
    types = i.types
    if i.opcode == "vset":
        types = ("u32", *types)
    result_signed, *signed = (type_[0] == "s" for type_ in types)
    e.choose(i, *_plain(a), *_plain(b), *rest)
    x, y = _source(e, a, signed[0]), _source(e, b, signed[1])
    value = _compute(e, i, x, y, signed[0])
    first, size = 0, 32
    target = d
    if isinstance(d, Constant) and d.kind == "element":
        first, size = _selected(d.text)
        (target,) = d.operands
    if "sat" in i.modifiers:
        low = -(1 << size - 1) if result_signed else 0
        high = (1 << size - 1) - 1 if result_signed else (1 << size) - 1
        value = e.call("llvm.smax", _W, value, e.k(_W, low))
        value = e.call("llvm.smin", _W, value, e.k(_W, high))
    result = e.cast("trunc", _W, "i32", value)
    if target is not d:  # a part of the third operand is replaced
        mask = (1 << size) - 1 << first
        kept = e.op("and", "i32", e.get(rest[0], "i32"), e.k("i32", ~mask))
        moved = e.op("shl", "i32", result, e.k("i32", first))
        result = e.op("or", "i32", kept, e.op("and", "i32", moved, e.k("i32", mask)))
    elif rest:
        third = e.get(rest[0], "i32")
        if "add" in i.modifiers:
            result = e.op("add", "i32", result, third)
        else:
            letter = "s" if result_signed else "u"
            name = "min" if "min" in i.modifiers else "max"
            result = e.call(f"llvm.{letter}{name}", "i32", result, third)
    e.define(target, "i32", result)


def _plain(operand: Operand) -> tuple[Operand, ...]:
    return operand.operands if isinstance(operand, Constant) else (operand,)


def _compute(e: FunctionEmitter, i: Instruction, x: str, y: str, signed: bool) -> str:
    match i.opcode:
        case "vadd":
            return e.op("add", _W, x, y)
        case "vsub":
            return e.op("sub", _W, x, y)
        case "vabsdiff":
            return e.call("llvm.abs", _W, e.op("sub", _W, x, y), extra="i1 false")
        case "vmin" | "vmax":
            return e.call(f"llvm.s{i.opcode[1:]}", _W, x, y)
        case "vset":
            name = next(m for m in i.modifiers if m in ("eq", "ne", "lt", "le", "gt", "ge"))
            name = name if name in ("eq", "ne") else "s" + name
            return e.cast("zext", "i1", _W, e.cmp(f"icmp {name}", _W, x, y))
    amount = y
    if "clamp" in i.modifiers:
        amount = e.call("llvm.umin", _W, amount, e.k(_W, 32))
    else:
        amount = e.op("and", _W, amount, e.k(_W, 31))
    shift = "shl" if i.opcode == "vshl" else "ashr" if signed else "lshr"
    return e.op(shift, _W, x, amount)
