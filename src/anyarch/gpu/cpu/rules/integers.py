"""Integer arithmetic, carry chains, bit fields: PTX ISA 9.0, 9.7.1, 9.7.2, 9.7.8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyarch.gpu.cpu.flow import CARRY
from anyarch.gpu.cpu.rules import floats
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import Split, split_of
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.ptx.tree import SIZES, Constant, Immediate, Instruction, Operand, Pair, Register

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter


def is_float(type_: str) -> bool:
    """Whether a type is of a floating-point format."""
    return "f" in type_


def wide_target(e: FunctionEmitter, operand: Operand) -> Register | None:
    """The register that an instruction writes, if it is a wide or indexed one."""
    kinds = ("wide", "indexed")
    if e.width > 1 and isinstance(operand, Register) and e.shapes.of(operand).kind in kinds:
        return operand
    return None


def narrow_part(e: FunctionEmitter, target: Register, operand: Operand) -> str:
    """The 32-bit operand that a wide or indexed result extends."""
    return e.get(operand, "i32", e.shapes.of(target).kind == "indexed")


def wide_parts(e: FunctionEmitter, operand: Operand) -> tuple[str | None, str]:
    """Parts of a wide, indexed or uniform operand; the first is None for a uniform one."""
    if isinstance(operand, Register) and e.shape(operand).kind in ("wide", "indexed"):
        return e.wide(operand)
    return None, e.get(operand, "i64", False)


@rule("add", "sub")
def add(e: FunctionEmitter, i: Instruction) -> None:
    """d = a ± b; .sat for s32 clamps; .cc sets the carry."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.add(e, i)
        return
    d, a, b = i.operands
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        a32, a64 = wide_parts(e, a)
        b32, b64 = wide_parts(e, b)
        e.define_wide(target, a32 or b32 or "0", e.op(i.opcode, "i64", a64, b64))
        return
    elem = elem_of(type_)
    e.choose(i, a, b)
    x, y = e.get(a, elem), e.get(b, elem)
    if "cc" in i.modifiers:
        result = e.op(i.opcode, elem, x, y)
        # A subtraction adds the complement: its carry says that nothing was borrowed.
        carry = (
            e.cmp("icmp ult", elem, result, x)
            if i.opcode == "add"
            else e.cmp("icmp uge", elem, x, y)
        )
        e.define(d, elem, result)
        e.define(CARRY, "i1", carry)
    elif "sat" in i.modifiers:
        e.define(d, elem, e.call(f"llvm.s{i.opcode}.sat", elem, x, y))
    else:
        e.define(d, elem, e.op(i.opcode, elem, x, y))


@rule("addc", "subc")
def add_with_carry(e: FunctionEmitter, i: Instruction) -> None:
    """d = a + b + carry, or a - b less what was borrowed, which is when there is no carry."""
    elem = elem_of(i.types[-1])
    d, a, b = i.operands
    e.choose(i, a, b, CARRY)
    x, y = e.get(a, elem), e.get(b, elem)
    carry = e.get(CARRY, "i1")
    name = i.opcode[:3]
    if name == "sub":
        carry = e.op("xor", "i1", carry, e.k("i1", 1))
    wide = e.cast("zext", "i1", elem, carry)
    first = e.op(name, elem, x, y)
    result = e.op(name, elem, first, wide)
    if "cc" in i.modifiers:
        if name == "add":
            outs = e.cmp("icmp ult", elem, first, x), e.cmp("icmp ult", elem, result, first)
        else:
            outs = e.cmp("icmp ult", elem, x, y), e.cmp("icmp ult", elem, first, wide)
        e.define(d, elem, result)
        out = e.op("or", "i1", *outs)
        if name == "sub":
            out = e.op("xor", "i1", out, e.k("i1", 1))
        e.define(CARRY, "i1", out)
    else:
        e.define(d, elem, result)


def high_product(e: FunctionEmitter, elem: str, a: str, b: str, signed: bool) -> str:
    """The upper half of the product."""
    size = int(elem[1:])
    double = f"i{2 * size}"
    extend = "sext" if signed else "zext"
    x, y = e.cast(extend, elem, double, a), e.cast(extend, elem, double, b)
    product = e.op("mul", double, x, y)
    shifted = e.op("lshr", double, product, e.k(double, size))
    return e.cast("trunc", double, elem, shifted)


@rule("mul")
def mul(e: FunctionEmitter, i: Instruction) -> None:
    """d = a × b: .lo, .hi, or .wide."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.mul(e, i)
        return
    d, a, b = i.operands
    elem = elem_of(type_)
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        if "wide" in i.modifiers:
            e.define_wide(target, narrow_part(e, target, a), "0")
            return
        factor, other = (b, a) if isinstance(b, Immediate) else (a, b)
        first, second = wide_parts(e, other)
        e.define_wide(target, first or "0", e.op("mul", "i64", second, e.get(factor, "i64")))
        return
    e.choose(i, a, b)
    _product(e, i, d, elem, e.get(a, elem), e.get(b, elem))


def _product(e: FunctionEmitter, i: Instruction, d: Operand, elem: str, x: str, y: str) -> None:
    signed = i.types[-1][0] == "s"
    if "wide" in i.modifiers:
        double = f"i{2 * int(elem[1:])}"
        extend = "sext" if signed else "zext"
        wide = e.cast(extend, elem, double, x), e.cast(extend, elem, double, y)
        e.define(d, double, e.op("mul", double, *wide))
    elif "hi" in i.modifiers:
        e.define(d, elem, high_product(e, elem, x, y, signed))
    else:
        e.define(d, elem, e.op("mul", elem, x, y))


@rule("mad", "madc")
def mad(e: FunctionEmitter, i: Instruction) -> None:
    """d = a × b + c: .lo, .hi, .wide; with carry in and out."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.fma(e, i)
        return
    d, a, b, c = i.operands
    elem = elem_of(type_)
    if (target := wide_target(e, d)) is not None:
        _wide_mad(e, i, target)
        return
    e.choose(i, a, b, c, *((CARRY,) if i.opcode == "madc" else ()))
    x, y = e.get(a, elem), e.get(b, elem)
    signed = type_[0] == "s"
    if "wide" in i.modifiers:
        double = f"i{2 * SIZES[type_]}"
        extend = "sext" if signed else "zext"
        wide = e.cast(extend, elem, double, x), e.cast(extend, elem, double, y)
        product = e.op("mul", double, *wide)
        e.define(d, double, e.op("add", double, product, e.get(c, double)))
        return
    hi = "hi" in i.modifiers
    product = high_product(e, elem, x, y, signed) if hi else e.op("mul", elem, x, y)
    z = e.get(c, elem)
    if "sat" in i.modifiers:
        e.define(d, elem, e.call("llvm.sadd.sat", elem, product, z))
        return
    first = result = e.op("add", elem, product, z)
    if i.opcode == "madc":
        carry = e.cast("zext", "i1", elem, e.get(CARRY, "i1"))
        result = e.op("add", elem, first, carry)
    if "cc" in i.modifiers:
        out = e.cmp("icmp ult", elem, first, product)
        if i.opcode == "madc":
            out = e.op("or", "i1", out, e.cmp("icmp ult", elem, result, first))
        e.define(d, elem, result)
        e.define(CARRY, "i1", out)
    else:
        e.define(d, elem, result)


def _wide_mad(e: FunctionEmitter, i: Instruction, target: Register) -> None:
    _, a, b, c = i.operands
    e.vec = False
    first, second = wide_parts(e, c)
    if "wide" not in i.modifiers:
        factor, other = (b, a) if isinstance(b, Immediate) else (a, b)
        base32, base64 = wide_parts(e, other)
        scaled = e.op("mul", "i64", base64, e.get(factor, "i64"))
        e.define_wide(target, base32 or first or "0", e.op("add", "i64", scaled, second))
    elif first is None:
        e.define_wide(target, narrow_part(e, target, a), second)
    else:
        extend = "sext" if i.types[-1][0] == "s" else "zext"
        factors = [e.cast(extend, "i32", "i64", e.get(o, "i32")) for o in (a, b)]
        product = e.op("mul", "i64", *factors)
        e.define_wide(target, first, e.op("add", "i64", product, second))


@rule("mul24", "mad24")
def mul24(e: FunctionEmitter, i: Instruction) -> None:
    """The product of the low 24 bits; .hi gives its bits 47 to 16."""
    d, *sources = i.operands
    signed = i.types[-1][0] == "s"
    e.choose(i, *sources)
    factors = []
    for operand in sources[:2]:
        up = e.op("shl", "i32", e.get(operand, "i32"), e.k("i32", 8))
        down = e.op("ashr" if signed else "lshr", "i32", up, e.k("i32", 8))
        factors.append(e.cast("sext" if signed else "zext", "i32", "i64", down))
    product = e.op("mul", "i64", *factors)
    if "hi" in i.modifiers:
        product = e.op("lshr", "i64", product, e.k("i64", 16))
    result = e.cast("trunc", "i64", "i32", product)
    if i.opcode == "mad24":
        z = e.get(sources[2], "i32")
        if "sat" in i.modifiers:
            result = e.call("llvm.sadd.sat", "i32", result, z)
        else:
            result = e.op("add", "i32", result, z)
    e.define(d, "i32", result)


@rule("sad")
def sad(e: FunctionEmitter, i: Instruction) -> None:
    """d = c + |a − b|."""
    d, a, b, c = i.operands
    elem, signed = elem_of(i.types[-1]), i.types[-1][0] == "s"
    e.choose(i, a, b, c)
    x, y = e.get(a, elem), e.get(b, elem)
    less = e.cmp("icmp slt" if signed else "icmp ult", elem, x, y)
    difference = e.sel(less, elem, e.op("sub", elem, y, x), e.op("sub", elem, x, y))
    e.define(d, elem, e.op("add", elem, difference, e.get(c, elem)))


@rule("div", "rem")
def div(e: FunctionEmitter, i: Instruction) -> None:
    """Quotient or remainder, rounded towards zero; by zero, as GPUs do: all ones, the dividend."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.div(e, i)
        return
    d, a, b = i.operands
    elem, signed = elem_of(type_), type_[0] == "s"
    e.choose(i, a, b)
    x, y = e.get(a, elem), e.get(b, elem)
    zero = e.cmp("icmp eq", elem, y, e.k(elem, 0))
    if SIZES[type_] <= 32 and e.vec:
        quotient = _divide_as_doubles(e, elem, x, y, signed)
    else:
        bad = zero
        if signed:  # the one quotient that does not fit; the processor would trap
            smallest = e.cmp("icmp eq", elem, x, e.k(elem, 1 << SIZES[type_] - 1))
            minus = e.cmp("icmp eq", elem, y, e.k(elem, -1))
            bad = e.op("or", "i1", zero, e.op("and", "i1", smallest, minus))
        safe = e.sel(bad, elem, e.k(elem, 1), y)
        quotient = e.op("sdiv" if signed else "udiv", elem, x, safe)
    if i.opcode == "div":
        e.define(d, elem, e.sel(zero, elem, e.k(elem, -1), quotient))
    else:
        rest = e.op("sub", elem, x, e.op("mul", elem, quotient, y))
        e.define(d, elem, e.sel(zero, elem, x, rest))


def _divide_as_doubles(e: FunctionEmitter, elem: str, x: str, y: str, signed: bool) -> str:
    """53 bits hold a quotient of 32-bit numbers exactly enough: its distance from the next
    integer is more than the rounding error."""
    name = "sitofp" if signed else "uitofp"
    quotient = e.op(
        "fdiv", "double", e.cast(name, elem, "double", x), e.cast(name, elem, "double", y)
    )
    finite = e.cmp(
        "fcmp olt",
        "double",
        e.call("llvm.fabs", "double", quotient),
        e.real("double", float(1 << 33)),
    )
    safe = e.sel(finite, "double", quotient, e.real("double", 0.0))
    whole = e.cast("fptosi", "double", "i64", safe)
    return e.cast("trunc", "i64", elem, whole)


@rule("abs", "neg")
def absolute(e: FunctionEmitter, i: Instruction) -> None:
    """d = |a| or −a."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.sign(e, i)
        return
    d, a = i.operands
    elem = elem_of(type_)
    e.choose(i, a)
    x = e.get(a, elem)
    if i.opcode == "neg":
        e.define(d, elem, e.op("sub", elem, e.k(elem, 0), x))
    else:
        e.define(d, elem, e.call("llvm.abs", elem, x, extra="i1 false"))


@rule("min", "max")
def minimum(e: FunctionEmitter, i: Instruction) -> None:
    """The smaller or larger of two; .relu clamps at zero."""
    type_ = i.types[-1]
    if is_float(type_):
        floats.minimum(e, i)
        return
    d, a, b = i.operands
    elem, signed = elem_of(type_), type_[0] == "s"
    e.choose(i, a, b)
    name = f"llvm.{'s' if signed else 'u'}{i.opcode}"
    result = e.call(name, elem, e.get(a, elem), e.get(b, elem))
    if "relu" in i.modifiers:
        result = e.call("llvm.smax", elem, result, e.k(elem, 0))
    e.define(d, elem, result)


@rule("and", "or", "xor")
def logic(e: FunctionEmitter, i: Instruction) -> None:
    """Bitwise."""
    d, a, b = i.operands
    elem = elem_of(i.types[-1])
    e.choose(i, a, b)
    if i.opcode == "or" and not e.vec and e.shape(d).kind == "affine":
        e.define(d, elem, e.get(a, elem))  # the lanes have the literal
        return
    e.define(d, elem, e.op(i.opcode, elem, e.get(a, elem), e.get(b, elem)))


@rule("not", "cnot")
def invert(e: FunctionEmitter, i: Instruction) -> None:
    """Bitwise, or 1 for zero and 0 for all else."""
    d, a = i.operands
    elem = elem_of(i.types[-1])
    e.choose(i, a)
    x = e.get(a, elem)
    if i.opcode == "cnot":
        zero = e.cmp("icmp eq", elem, x, e.k(elem, 0))
        e.define(d, elem, e.cast("zext", "i1", elem, zero))
    else:
        e.define(d, elem, e.op("xor", elem, x, e.k(elem, -1)))


@rule("shl", "shr")
def shift(e: FunctionEmitter, i: Instruction) -> None:
    """Amounts of the width and above shift everything out."""
    d, a, b = i.operands
    type_ = i.types[-1]
    elem, size = elem_of(type_), SIZES[type_]
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        first, second = wide_parts(e, a)
        e.define_wide(target, first or "0", e.op("shl", "i64", second, e.get(b, "i64")))
        return
    e.choose(i, a, b)
    x = e.get(a, elem)
    signed = type_[0] == "s" and i.opcode == "shr"
    name = "shl" if i.opcode == "shl" else "ashr" if signed else "lshr"
    if isinstance(b, Immediate):
        amount = b.value & 0xFFFFFFFF
        if amount >= size:
            if not signed:
                e.define(d, elem, e.k(elem, 0))
                return
            amount = size - 1
        e.define(d, elem, e.op(name, elem, x, e.k(elem, amount)))
        return
    e.define(d, elem, shift_by(e, name, elem, x, e.get(b, "i32")))


def shift_by(e: FunctionEmitter, name: str, elem: str, x: str, amount: str) -> str:
    """A shift by an amount of 32 bits, of any size."""
    size = int(elem[1:])
    limit = e.call("llvm.umin", "i32", amount, e.k("i32", size - 1))
    safe = e.resize("i32", elem, limit)
    result = e.op(name, elem, x, safe)
    if name == "ashr":
        return result
    inside = e.cmp("icmp ult", "i32", amount, e.k("i32", size))
    return e.sel(inside, elem, result, e.k(elem, 0))


@rule("shf")
def funnel_shift(e: FunctionEmitter, i: Instruction) -> None:
    """Shift the pair b:a; .clamp or .wrap says what 32 and above do."""
    d, a, b, c = i.operands
    e.choose(i, a, b, c)
    x, y, amount = (e.get(o, "i32") for o in (a, b, c))
    left = "l" in i.modifiers
    shifted = e.call("llvm.fshl" if left else "llvm.fshr", "i32", y, x, amount)
    if "wrap" not in i.modifiers and not (isinstance(c, Immediate) and 0 <= c.value < 32):
        inside = e.cmp("icmp ult", "i32", amount, e.k("i32", 32))
        shifted = e.sel(inside, "i32", shifted, x if left else y)
    e.define(d, "i32", shifted)


@rule("lop3")
def lop3(e: FunctionEmitter, i: Instruction) -> None:
    """Any function of three bits, by its truth table; with .and/.or also a predicate."""
    d, a, b, c, table, *rest = i.operands
    if not isinstance(table, Immediate):
        e.fail("the table of lop3 must be a constant")
    e.choose(i, a, b, c, *rest)
    x = [e.get(o, "i32") for o in (a, b, c)]
    inverse = [e.op("xor", "i32", v, e.k("i32", -1)) for v in x]
    result = e.k("i32", 0)
    for row in range(8):
        if table.value >> row & 1:
            bits = [x[n] if row >> 2 - n & 1 else inverse[n] for n in range(3)]
            term = e.op("and", "i32", e.op("and", "i32", bits[0], bits[1]), bits[2])
            result = e.op("or", "i32", result, term)
    if isinstance(d, Pair):
        some = e.cmp("icmp ne", "i32", result, e.k("i32", 0))
        other = e.get(rest[0], "i1")
        name = "and" if "and" in i.modifiers else "or"
        e.define(d.first, "i32", result)
        e.define(d.second, "i1", e.op(name, "i1", some, other))
    else:
        e.define(d, "i32", result)


@rule("popc", "clz", "brev")
def count(e: FunctionEmitter, i: Instruction) -> None:
    """Population count, leading zeros, reversal."""
    d, a = i.operands
    elem = elem_of(i.types[-1])
    e.choose(i, a)
    x = e.get(a, elem)
    match i.opcode:
        case "popc":
            result = e.call("llvm.ctpop", elem, x)
        case "clz":
            result = e.call("llvm.ctlz", elem, x, extra="i1 false")
        case _:
            e.define(d, elem, e.call("llvm.bitreverse", elem, x))
            return
    e.define(d, "i32", e.resize(elem, "i32", result))


@rule("bfind")
def bfind(e: FunctionEmitter, i: Instruction) -> None:
    """The place of the first bit that is no sign bit, −1 if none; .shiftamt: the left shift."""
    d, a = i.operands
    type_ = i.types[-1]
    elem, size = elem_of(type_), SIZES[type_]
    e.choose(i, a)
    x = e.get(a, elem)
    if type_[0] == "s":
        negative = e.cmp("icmp slt", elem, x, e.k(elem, 0))
        x = e.sel(negative, elem, e.op("xor", elem, x, e.k(elem, -1)), x)
    zeros = e.resize(elem, "i32", e.call("llvm.ctlz", elem, x, extra="i1 false"))
    place = e.op("sub", "i32", e.k("i32", size - 1), zeros)
    if "shiftamt" in i.modifiers:
        none = e.cmp("icmp slt", "i32", place, e.k("i32", 0))
        place = e.sel(none, "i32", e.k("i32", -1), zeros)
    e.define(d, "i32", place)


@rule("fns")
def fns(e: FunctionEmitter, i: Instruction) -> None:
    """The n-th set bit at or after (n > 0), or before (n < 0), a place; −1 if there is none."""
    d, mask, base, offset = i.operands
    e.choose(i, mask, base, offset)
    x, b, n = (e.get(o, "i32") for o in (mask, base, offset))
    result = e.k("i32", -1)
    forward = e.cmp("icmp sgt", "i32", n, e.k("i32", 0))
    still = e.cmp("icmp eq", "i32", n, e.k("i32", 0))
    steps = e.sel(forward, "i32", n, e.op("sub", "i32", e.k("i32", 0), n))
    reverse = e.call("llvm.bitreverse", "i32", x)
    source = e.sel(forward, "i32", x, reverse)
    mirrored = e.op("sub", "i32", e.k("i32", 31), b)
    start = e.sel(forward, "i32", b, mirrored)
    left = e.op("shl", "i32", e.k("i32", -1), e.op("and", "i32", start, e.k("i32", 31)))
    source = e.op("and", "i32", source, left)
    for _ in range(31):
        more = e.cmp("icmp sgt", "i32", steps, e.k("i32", 1))
        lowest = e.op("and", "i32", source, e.op("sub", "i32", source, e.k("i32", 1)))
        source = e.sel(more, "i32", lowest, source)
        steps = e.sel(more, "i32", e.op("sub", "i32", steps, e.k("i32", 1)), steps)
    place = e.call("llvm.cttz", "i32", source, extra="i1 false")
    back = e.op("sub", "i32", e.k("i32", 31), place)
    found = e.cmp("icmp ne", "i32", source, e.k("i32", 0))
    result = e.sel(found, "i32", e.sel(forward, "i32", place, back), result)
    bit = e.op("and", "i32", shift_by(e, "lshr", "i32", x, b), e.k("i32", 1))
    here = e.cmp("icmp ne", "i32", bit, e.k("i32", 0))
    exact = e.sel(here, "i32", b, e.k("i32", -1))
    e.define(d, "i32", e.sel(still, "i32", exact, result))


@rule("bfe")
def bfe(e: FunctionEmitter, i: Instruction) -> None:
    """`len` bits from `pos`; what lies beyond the word is zero or the sign."""
    d, a, b, c = i.operands
    type_ = i.types[-1]
    elem, size = elem_of(type_), SIZES[type_]
    e.choose(i, a, b, c)
    x = e.get(a, elem)
    place, count_ = (e.op("and", "i32", e.get(o, "i32"), e.k("i32", 255)) for o in (b, c))
    double = f"i{2 * size}" if size == 32 else elem
    signed = type_[0] == "s"
    if size == 32:
        wide = e.cast("sext" if signed else "zext", elem, double, x)
        shifted = shift_by(e, "ashr" if signed else "lshr", double, wide, place)
    else:
        wide = x
        shifted = shift_by(e, "ashr" if signed else "lshr", elem, wide, place)
    total = int(double[1:])
    drop = e.op(
        "sub", "i32", e.k("i32", total), e.call("llvm.umin", "i32", count_, e.k("i32", total))
    )
    up = shift_by(e, "shl", double, shifted, drop)
    down = shift_by(e, "ashr" if signed else "lshr", double, up, drop)
    none = e.cmp("icmp eq", "i32", count_, e.k("i32", 0))
    result = e.sel(none, double, e.k(double, 0), down)
    e.define(d, elem, e.resize(double, elem, result))


@rule("bfi")
def bfi(e: FunctionEmitter, i: Instruction) -> None:
    """b with `len` bits from `pos` replaced by the low bits of a."""
    d, a, b, c, n = i.operands
    type_ = i.types[-1]
    elem = elem_of(type_)
    e.choose(i, a, b, c, n)
    x, y = e.get(a, elem), e.get(b, elem)
    place, count_ = (e.op("and", "i32", e.get(o, "i32"), e.k("i32", 255)) for o in (c, n))
    ones = shift_by(e, "shl", elem, e.k(elem, -1), count_)
    field = e.op("xor", elem, ones, e.k(elem, -1))
    mask = shift_by(e, "shl", elem, field, place)
    moved = shift_by(e, "shl", elem, x, place)
    kept = e.op("and", elem, y, e.op("xor", elem, mask, e.k(elem, -1)))
    e.define(d, elem, e.op("or", elem, e.op("and", elem, moved, mask), kept))


@rule("bmsk")
def bmsk(e: FunctionEmitter, i: Instruction) -> None:
    """A mask of `len` bits from `pos`."""
    d, a, b = i.operands
    e.choose(i, a, b)
    place, count_ = e.get(a, "i32"), e.get(b, "i32")
    if "wrap" in i.modifiers:
        place = e.op("and", "i32", place, e.k("i32", 31))
        count_ = e.op("and", "i32", count_, e.k("i32", 31))
    ones = e.op("xor", "i32", shift_by(e, "shl", "i32", e.k("i32", -1), count_), e.k("i32", -1))
    e.define(d, "i32", shift_by(e, "shl", "i32", ones, place))


@rule("szext")
def szext(e: FunctionEmitter, i: Instruction) -> None:
    """Sign- or zero-extend the low N bits."""
    d, a, b = i.operands
    e.choose(i, a, b)
    x, count_ = e.get(a, "i32"), e.get(b, "i32")
    if "wrap" in i.modifiers:
        count_ = e.op("and", "i32", count_, e.k("i32", 31))
    clamped = e.call("llvm.umin", "i32", count_, e.k("i32", 32))
    drop = e.op("sub", "i32", e.k("i32", 32), clamped)
    up = shift_by(e, "shl", "i32", x, drop)
    e.define(d, "i32", shift_by(e, "ashr" if i.types[-1][0] == "s" else "lshr", "i32", up, drop))


@rule("prmt")
def prmt(e: FunctionEmitter, i: Instruction) -> None:
    """Bytes of the pair b:a, chosen by nibbles, or by one of six modes."""
    d, a, b, c = i.operands
    e.choose(i, a, b, c)
    x, y, selector = (e.get(o, "i32") for o in (a, b, c))
    low, high = (e.cast("zext", "i32", "i64", v) for v in (x, y))
    pair = e.op("or", "i64", e.op("shl", "i64", high, e.k("i64", 32)), low)
    modes = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")
    mode = next((m for m in i.modifiers if m in modes), None)
    if mode is not None:
        two = e.op("and", "i32", selector, e.k("i32", 3))
        table = _PRMT[mode]
        selector = e.k("i32", table[3])
        for n in (2, 1, 0):
            here = e.cmp("icmp eq", "i32", two, e.k("i32", n))
            selector = e.sel(here, "i32", e.k("i32", table[n]), selector)
    result = e.k("i32", 0)
    for n in range(4):
        nibble = e.op("lshr", "i32", selector, e.k("i32", 4 * n))
        which = e.op("and", "i32", nibble, e.k("i32", 7))
        amount = e.cast("zext", "i32", "i64", e.op("shl", "i32", which, e.k("i32", 3)))
        byte = e.cast("trunc", "i64", "i8", e.op("lshr", "i64", pair, amount))
        sign = e.op("ashr", "i8", byte, e.k("i8", 7))
        bit = e.op("and", "i32", nibble, e.k("i32", 8))
        replicate = e.cmp("icmp ne", "i32", bit, e.k("i32", 0))
        byte = e.sel(replicate, "i8", sign, byte)
        wide = e.op("shl", "i32", e.cast("zext", "i8", "i32", byte), e.k("i32", 8 * n))
        result = e.op("or", "i32", result, wide)
    e.define(d, "i32", result)


_PRMT = {  # selectors for c = 0 to 3
    "f4e": (0x3210, 0x4321, 0x5432, 0x6543),
    "b4e": (0x5670, 0x6701, 0x7012, 0x0123),
    "rc8": (0x0000, 0x1111, 0x2222, 0x3333),
    "ecl": (0x3210, 0x3211, 0x3222, 0x3333),
    "ecr": (0x0000, 0x1110, 0x2210, 0x3210),
    "rc16": (0x1010, 0x3232, 0x1010, 0x3232),
}


@rule("dp4a", "dp2a")
def dot_product(e: FunctionEmitter, i: Instruction) -> None:
    """c plus the products of four bytes, or of two halves and two bytes."""
    d, a, b, c = i.operands
    e.choose(i, a, b, c)
    x, y, result = (e.get(o, "i32") for o in (a, b, c))
    signs = [t[0] == "s" for t in i.types]
    size = 8 if i.opcode == "dp4a" else 16
    for n in range(32 // size):
        left = _field(e, x, n * size, size, signs[0])
        place = n * 8 + (16 if "hi" in i.modifiers else 0)
        right = _field(e, y, place, 8, signs[1])
        result = e.op("add", "i32", result, e.op("mul", "i32", left, right))
    e.define(d, "i32", result)


def _field(e: FunctionEmitter, x: str, place: int, size: int, signed: bool) -> str:
    up = e.op("shl", "i32", x, e.k("i32", 32 - size - place))
    return e.op("ashr" if signed else "lshr", "i32", up, e.k("i32", 32 - size))


_SIMD = {"vadd", "vsub", "vavrg", "vabsdiff", "vmin", "vmax", "vset"}


@rule(*(f"{name}{n}" for name in _SIMD for n in (2, 4)))
def video_simd(e: FunctionEmitter, i: Instruction) -> None:
    """An operation on two halves or four bytes; .add sums them into c, else c's parts stay
    where the mask leaves them out."""
    name, parts = i.opcode[:-1], int(i.opcode[-1])
    d, a, b, c = i.operands
    if isinstance(a, Constant) or isinstance(b, Constant):
        e.fail("element selectors of video instructions are not supported")
    target = d.operands[0] if isinstance(d, Constant) else d
    e.choose(i, a, b, c)
    size = 32 // parts
    x, y, z = (e.get(o, "i32") for o in (a, b, c))
    types = i.types
    comparison = next((m for m in i.modifiers if m in _COMPARISONS), "")
    signs = [t[0] == "s" for t in (types if len(types) > 2 else [*types, *types])]
    results = []
    for n in range(parts):
        left = _field(e, x, n * size, size, signs[-2])
        right = _field(e, y, n * size, size, signs[-1])
        results.append(
            _video(e, name, left, right, comparison, signs[0], size, "sat" in i.modifiers)
        )
    if "add" in i.modifiers:
        total = z
        for one in results:
            total = e.op("add", "i32", total, one)
    else:
        total = e.k("i32", 0)
        for n, one in enumerate(results):
            low = e.op("and", "i32", one, e.k("i32", (1 << size) - 1))
            total = e.op("or", "i32", total, e.op("shl", "i32", low, e.k("i32", n * size)))
        mask = _video_mask(d, size)
        if mask != 0xFFFFFFFF:
            total = e.op("and", "i32", total, e.k("i32", mask))
            kept = e.op("and", "i32", z, e.k("i32", ~mask))
            total = e.op("or", "i32", total, kept)
    e.define(target, "i32", total)


def _video_mask(d: Operand, size: int) -> int:
    if not isinstance(d, Constant):
        return 0xFFFFFFFF
    return sum((1 << size) - 1 << size * int(n) for n in d.text[1:])


def _video(
    e: FunctionEmitter,
    name: str,
    x: str,
    y: str,
    comparison: str,
    signed: bool,
    size: int,
    saturate: bool,
) -> str:
    match name:
        case "vadd" | "vsub":
            result = e.op(name[1:], "i32", x, y)
        case "vavrg":
            total = e.op("add", "i32", e.op("add", "i32", x, y), e.k("i32", 1))
            result = e.op("ashr", "i32", total, e.k("i32", 1))
        case "vabsdiff":
            difference = e.op("sub", "i32", x, y)
            result = e.call("llvm.abs", "i32", difference, extra="i1 false")
        case "vset":
            result = e.cast("zext", "i1", "i32", compare(e, comparison, "i32", "s32", x, y))
        case _:
            result = e.call(f"llvm.s{name[1:]}", "i32", x, y)
    if saturate:
        low = -(1 << size - 1) if signed else 0
        high = (1 << size - 1) - 1 if signed else (1 << size) - 1
        result = e.call("llvm.smax", "i32", result, e.k("i32", low))
        result = e.call("llvm.smin", "i32", result, e.k("i32", high))
    return result


# Comparisons (9.7.6): PTX's name to LLVM's for signed, unsigned, and floating point.
_COMPARISONS = {
    "eq": ("eq", "eq", "oeq"),
    "ne": ("ne", "ne", "one"),
    "lt": ("slt", "ult", "olt"),
    "le": ("sle", "ule", "ole"),
    "gt": ("sgt", "ugt", "ogt"),
    "ge": ("sge", "uge", "oge"),
    "lo": ("ult", "ult", ""),
    "ls": ("ule", "ule", ""),
    "hi": ("ugt", "ugt", ""),
    "hs": ("uge", "uge", ""),
    "equ": ("", "", "ueq"),
    "neu": ("", "", "une"),
    "ltu": ("", "", "ult"),
    "leu": ("", "", "ule"),
    "gtu": ("", "", "ugt"),
    "geu": ("", "", "uge"),
    "num": ("", "", "ord"),
    "nan": ("", "", "uno"),
}


def compare(e: FunctionEmitter, name: str, elem: str, type_: str, x: str, y: str) -> str:
    """A comparison of PTX."""
    signed, unsigned, real = _COMPARISONS.get(name, ("", "", ""))
    if is_float(type_):
        predicate, kind = real, "fcmp"
    else:
        predicate, kind = signed if type_[0] == "s" else unsigned, "icmp"
    if not predicate:
        e.fail(f"comparison .{name} does not apply to .{type_}")
    return e.let(f"{kind} {predicate} {e.t(elem)} {x}, {y}")


def comparison_of(i: Instruction) -> str:
    """The comparison that an instruction names."""
    return next((m for m in i.modifiers if m in _COMPARISONS), "")


def combine(e: FunctionEmitter, i: Instruction, value: str, other: Operand | None) -> str:
    """Apply a boolean operator of setp or set."""
    name = next((m for m in i.modifiers if m in ("and", "or", "xor")), None)
    if name is None or other is None:
        return value
    return e.op(name, "i1", value, e.get(other, "i1"))


@rule("setp")
def setp(e: FunctionEmitter, i: Instruction) -> None:
    """Compare to a predicate, and optionally its inverse, combined with another."""
    type_ = i.types[-1]
    d, a, b, *rest = i.operands
    e.choose(i, a, b, *rest)
    elem = elem_of(type_)
    if elem[0] == "2":
        _setp_packed(e, i, elem)
        return
    if e.width > 1 and not isinstance(d, Pair) and (split := split_of(e.shapes, i)) is not None:
        _setp_split(e, d, e.get(a, elem, False), split, type_[0] == "s")
        return
    if type_ == "bf16":
        elem = "float"
        x, y = (floats.widen_bf16(e, e.get(o, "i16")) for o in (a, b))
    else:
        x, y = e.get(a, elem), e.get(b, elem)
    if "ftz" in i.modifiers:
        x, y = floats.flush(e, elem, x), floats.flush(e, elem, y)
    result = compare(e, comparison_of(i), elem, type_, x, y)
    other = rest[0] if rest else None
    if isinstance(d, Pair):
        inverse = e.op("xor", "i1", result, e.k("i1", 1))
        e.define(d.second, "i1", combine(e, i, inverse, other))
        e.define(d.first, "i1", combine(e, i, result, other))
    else:
        e.define(d, "i1", combine(e, i, result, other))


def _setp_split(e: FunctionEmitter, d: Operand, scalar: str, split: Split, signed: bool) -> None:
    """Compare the scalar part only: it decides for all lanes but in one case."""
    vec, e.vec = e.vec, False
    outside = "true" if split.below else "false"
    if split.below != split.above:
        side = "lt" if split.below else "gt"
        letter = "s" if signed else "u"
        outside = e.cmp(f"icmp {letter}{side}", "i32", scalar, str(split.base))
    if not vec:
        inside = e.k("i1", int(split.inside[0]))
        value = outside
        if inside != outside:
            here = e.cmp("icmp eq", "i32", scalar, str(split.base))
            value = e.sel(here, "i1", inside, outside)
        e.define(d, "i1", value, False)
        return
    here = e.cmp("icmp eq", "i32", scalar, str(split.base))
    lanes = e.lanes("i1", tuple(map(int, split.inside)))
    type_ = e.t("i1", True)
    others = e.splat("i1", outside)
    e.define(d, "i1", e.let(f"select i1 {here}, {type_} {lanes}, {type_} {others}"), True)


def _setp_packed(e: FunctionEmitter, i: Instruction, elem: str) -> None:
    d, a, b, *rest = i.operands
    if not isinstance(d, Pair):
        e.fail("setp of a packed type has two results")
    type_ = i.types[-1]
    sides = [floats.halves(e, type_, e.get(o, "i32")) for o in (a, b)]
    inner = "float" if type_ == "bf16x2" else elem[4:]
    for n, register in enumerate((d.first, d.second)):
        x, y = sides[0][n], sides[1][n]
        result = compare(e, comparison_of(i), inner, i.types[-1], x, y)
        e.define(register, "i1", combine(e, i, result, rest[0] if rest else None))


@rule("set")
def set_(e: FunctionEmitter, i: Instruction) -> None:
    """Compare to all ones or 1.0, or zero."""
    target, source = i.types[-2], i.types[-1]
    d, a, b, *rest = i.operands
    e.choose(i, a, b, *rest)
    elem = elem_of(source)
    other = rest[0] if rest else None
    if elem[0] == "2":
        sides = [floats.halves(e, source, e.get(o, "i32")) for o in (a, b)]
        inner = "float" if source == "bf16x2" else elem[4:]
        bits = []
        for n in range(2):
            one = compare(e, comparison_of(i), inner, source, sides[0][n], sides[1][n])
            bits.append(combine(e, i, one, other))
        one_of = {"f16x2": 0x3C00, "bf16x2": 0x3F80}.get(target, 0xFFFF)
        low = e.sel(bits[0], "i32", e.k("i32", one_of), e.k("i32", 0))
        high = e.sel(bits[1], "i32", e.k("i32", one_of << 16), e.k("i32", 0))
        e.define(d, "i32", e.op("or", "i32", low, high))
        return
    if source == "bf16":
        elem = "float"
        x, y = (floats.widen_bf16(e, e.get(o, "i16")) for o in (a, b))
    else:
        x, y = e.get(a, elem), e.get(b, elem)
    if "ftz" in i.modifiers:
        x, y = floats.flush(e, elem, x), floats.flush(e, elem, y)
    result = combine(e, i, compare(e, comparison_of(i), elem, source, x, y), other)
    into = elem_of(target)
    if is_float(target):
        ones = e.real(into, 1.0) if into != "bfloat" else e.k(into, 0x3F80)
        e.define(d, into, e.sel(result, into, ones, e.k(into, 0)))
    else:
        e.define(d, into, e.sel(result, into, e.k(into, -1), e.k(into, 0)))


@rule("slct")
def slct(e: FunctionEmitter, i: Instruction) -> None:
    """d = c ≥ 0 ? a : b."""
    d, a, b, c = i.operands
    elem = elem_of(i.types[-2])
    e.choose(i, a, b, c)
    if i.types[-1] == "f32":
        value = e.get(c, "float")
        if "ftz" in i.modifiers:
            value = floats.flush(e, "float", value)
        chosen = e.cmp("fcmp oge", "float", value, e.k("float", 0))
    else:
        chosen = e.cmp("icmp sge", "i32", e.get(c, "i32"), e.k("i32", 0))
    e.define(d, elem, e.sel(chosen, elem, e.get(a, elem), e.get(b, elem)))


@rule("selp")
def selp(e: FunctionEmitter, i: Instruction) -> None:
    """d = p ? a : b."""
    d, a, b, p = i.operands
    elem = elem_of(i.types[-1])
    if (target := wide_target(e, d)) is not None:
        e.vec = False
        condition = e.get(p, "i1")
        parts = [wide_parts(e, o) for o in (a, b)]
        type_ = e.t("i32", e.shapes.of(target).kind == "indexed")
        first = e.let(
            f"select i1 {condition}, {type_} {parts[0][0] or '0'}, {type_} {parts[1][0] or '0'}"
        )
        e.define_wide(target, first, e.sel(condition, "i64", parts[0][1], parts[1][1]))
        return
    e.choose(i, a, b, p)
    if elem[0] == "2":
        elem = "i32"
    e.define(d, elem, e.sel(e.get(p, "i1"), elem, e.get(a, elem), e.get(b, elem)))
