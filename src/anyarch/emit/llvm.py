"""Graph to LLVM text: one rule per operation.

:class:`Emitter` turns pure nodes into values inside one function. Leaves and effects mean different
things to an interpreter handler, a record builder and a compiled region: a subclass supplies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from anyarch.errors import DefinitionError
from anyarch.ir import aes
from anyarch.ir.bits import Bits
from anyarch.ir.graph import Node
from anyarch.ir.ranges import unsigned_maximum
from anyarch.ir.sha import SHA1_CONSTANTS, four_rounds, two_rounds

if TYPE_CHECKING:
    from anyarch.emit.floats import Shape

UNLIKELY: Final = "!prof !0"  # first successor unlikely; module_text defines !0


class Emitter:
    """Writes the body of one LLVM function.

    ``float_rules`` says by whose rules NaNs and the like go (``FloatStatus.rules``).
    """

    float_rules = "riscv"
    decides_tininess = False  # by functions of :mod:`anyarch.emit.tininess`

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.block = "entry"
        self._count = 0
        self._known: list[dict[int, str]] = [{}]
        self.canonical_nans = True  # whether it may be seen which NaN is computed
        self.numbers: dict[str, str] = {}  # integers that are the encodings of these numbers

    def name(self, hint: str = "v") -> str:
        """A fresh local name without its sigil."""
        self._count += 1
        return f"{hint}{self._count}"

    def line(self, text: str) -> None:
        """Append an instruction without a result."""
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """Append an instruction; its result."""
        result = "%" + self.name()
        self.lines.append(f"  {result} = {text}")
        return result

    def label(self, block: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{block}:")
        self.block = block

    def branch(self, condition: str, then: str, otherwise: str, *, unlikely: bool = False) -> None:
        """Conditional branch; ``unlikely`` says that ``then`` is."""
        weights = f", {UNLIKELY}" if unlikely else ""
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}{weights}")

    def push(self) -> None:
        """Values made from here on do not dominate what follows the matching pop."""
        self._known.append({})

    def pop(self) -> None:
        """Forget the values made since the matching push."""
        self._known.pop()

    def bind(self, node: Node, value: str) -> None:
        """Say what a node's value is, in the current scope."""
        self._known[-1][node.number] = value

    def value(self, node: Node) -> str:
        """The LLVM value of a node; emitted on first use."""
        if node.op == "const":
            return str(node.value)
        for known in reversed(self._known):
            if node.number in known:
                return known[node.number]
        rule = RULES.get(node.op)
        result = self.leaf(node) if rule is None else rule(self, node)
        self.bind(node, result)
        return result

    def emulate_if(self, condition: str) -> None:
        """Leave the instruction to the reference engine where an unlikely condition holds."""
        raise DefinitionError("only handlers can leave an instruction to the reference engine")

    def defer(self, node: Node, shape: Shape, value: str) -> bool:
        """Whether it is seen to elsewhere that a floating-point result's NaN and its underflow are
        the guest's."""
        return False

    def leaf(self, node: Node) -> str:
        """Value of a field, pc or register; an effect's value is bound when it is emitted."""
        raise DefinitionError(f"no rule emits {node}")


Rule = Callable[[Emitter, Node], str]


def _binary(instruction: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        a, b = (e.value(arg) for arg in node.args)
        return e.let(f"{instruction} i{node.size} {a}, {b}")

    return rule


def _shift(instruction: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        a, b = (e.value(arg) for arg in node.args)
        size = node.size
        if unsigned_maximum(node.args[1]) < size:
            return e.let(f"{instruction} i{size} {a}, {b}")
        if instruction == "ashr":
            b = e.let(f"call i{size} @llvm.umin.i{size}(i{size} {b}, i{size} {size - 1})")
            return e.let(f"ashr i{size} {a}, {b}")
        shifted = e.let(f"{instruction} i{size} {a}, {b}")
        inside = e.let(f"icmp ult i{size} {b}, {size}")
        return e.let(f"select i1 {inside}, i{size} {shifted}, i{size} 0")

    return rule


def _divide(instruction: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        a, b = (e.value(arg) for arg in node.args)
        t = f"i{node.size}"
        zero = e.let(f"icmp eq {t} {b}, 0")
        unsafe = zero
        if instruction[0] == "s":
            minimum = e.let(f"icmp eq {t} {a}, {-(1 << (node.size - 1))}")
            minus_one = e.let(f"icmp eq {t} {b}, -1")
            overflow = e.let(f"and i1 {minimum}, {minus_one}")
            unsafe = e.let(f"or i1 {zero}, {overflow}")
        divisor = e.let(f"select i1 {unsafe}, {t} 1, {t} {b}")
        result = e.let(f"{instruction} {t} {a}, {divisor}")
        by_zero = "-1" if instruction.endswith("div") else a
        return e.let(f"select i1 {zero}, {t} {by_zero}, {t} {result}")

    return rule


def _compare(predicate: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        a, b = (e.value(arg) for arg in node.args)
        return e.let(f"icmp {predicate} i{node.args[0].size} {a}, {b}")

    return rule


def _select(e: Emitter, node: Node) -> str:
    c, a, b = (e.value(arg) for arg in node.args)
    return e.let(f"select i1 {c}, i{node.size} {a}, i{node.size} {b}")


def _extend(instruction: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        (source,) = node.args
        return e.let(f"{instruction} i{source.size} {e.value(source)} to i{node.size}")

    return rule


def _extract(e: Emitter, node: Node) -> str:
    (source,) = node.args
    value, low = e.value(source), node.attrs[0]
    if low:
        value = e.let(f"lshr i{source.size} {value}, {low}")
    if node.size == source.size:
        return value
    return e.let(f"trunc i{source.size} {value} to i{node.size}")


def _concat(e: Emitter, node: Node) -> str:
    high, low = node.args
    t = f"i{node.size}"
    above = e.let(f"zext i{high.size} {e.value(high)} to {t}")
    above = e.let(f"shl {t} {above}, {low.size}")
    below = e.let(f"zext i{low.size} {e.value(low)} to {t}")
    return e.let(f"or {t} {above}, {below}")


def _unary(intrinsic: str, extra: str = "") -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        t = f"i{node.size}"
        return e.let(f"call {t} @llvm.{intrinsic}.{t}({t} {e.value(node.args[0])}{extra})")

    return rule


@cache
def host_has(feature: str) -> bool:
    """Whether the processor that code is made for has a feature, by LLVM's name."""
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get(feature))


def _plain(e: Emitter, value: Bits) -> str:
    """What stands for an operation that the host lacks."""
    assert isinstance(value, Node)
    return e.value(value)


def _clmul(e: Emitter, node: Node) -> str:
    """The host's carry-less multiplication of 64 bits; narrower operands are extended."""
    if not host_has("pclmul"):
        a, b = (arg.zext(node.size) for arg in node.args)
        total = a.constant(0, node.size)
        for index in range(node.args[1].size):
            total = total ^ b[index].select(a << index, total.constant(0, node.size))
        return _plain(e, total)
    vectors = []
    for arg in node.args:
        if arg.size > 64:
            raise DefinitionError("clmul of more than 64 bits has no rule")
        value = e.value(arg)
        if arg.size < 64:
            value = e.let(f"zext i{arg.size} {value} to i64")
        vectors.append(e.let(f"insertelement <2 x i64> zeroinitializer, i64 {value}, i32 0"))
    product = e.let(
        f"call <2 x i64> @llvm.x86.pclmulqdq(<2 x i64> {vectors[0]}, <2 x i64> {vectors[1]}, i8 0)"
    )
    wide = e.let(f"bitcast <2 x i64> {product} to i128")
    return wide if node.size == 128 else e.let(f"trunc i128 {wide} to i{node.size}")


# Lanes: values are integers; each operation casts its operands and its result.


def _vector(size: int, lane: int) -> str:
    return f"<{size // lane} x i{lane}>"


def _as_lanes(e: Emitter, node: Node, lane: int) -> str:
    return e.let(f"bitcast i{node.size} {e.value(node)} to {_vector(node.size, lane)}")


def _from_lanes(e: Emitter, value: str, size: int, lane: int) -> str:
    return e.let(f"bitcast {_vector(size, lane)} {value} to i{size}")


def _splatted(e: Emitter, value: int, size: int, lane: int) -> str:
    return "<" + ", ".join([f"i{lane} {value}"] * (size // lane)) + ">"


def _lanes(text: Callable[[str], str]) -> Rule:
    """``text`` gives the instruction for a type, up to its operands."""

    def rule(e: Emitter, node: Node) -> str:
        lane = int(node.attrs[0])
        t = _vector(node.size, lane)
        operands = [_as_lanes(e, arg, lane) for arg in node.args]
        instruction = text(t)
        if instruction.endswith("("):
            suffix = ", i1 false)" if "ctlz" in instruction else ")"
            arguments = ", ".join(f"{t} {operand}" for operand in operands)
            result = e.let(f"call {t} {instruction}{arguments}{suffix}")
        else:
            result = e.let(f"{instruction} {t} {', '.join(operands)}")
        return _from_lanes(e, result, node.size, lane)

    return rule


def _intrinsic(name: str) -> Rule:
    return _lanes(lambda t: f"@llvm.{name}.v{t[1:-1].replace(' x ', '')}(")


def _lanes_shift(instruction: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        lane = int(node.attrs[0])
        t = _vector(node.size, lane)
        a, b = (_as_lanes(e, arg, lane) for arg in node.args)
        limit = _splatted(e, lane, node.size, lane)
        amount = node.args[1]
        known = amount.op == "vsplat" and unsigned_maximum(amount.args[0]) < lane
        if not known and instruction == "ashr":
            last = _splatted(e, lane - 1, node.size, lane)
            name = f"@llvm.umin.v{node.size // lane}i{lane}"
            b = e.let(f"call {t} {name}({t} {b}, {t} {last})")
        result = e.let(f"{instruction} {t} {a}, {b}")
        if not known and instruction != "ashr":
            inside = e.let(f"icmp ult {t} {b}, {limit}")
            count = node.size // lane
            zero = "zeroinitializer"
            result = e.let(f"select <{count} x i1> {inside}, {t} {result}, {t} {zero}")
        return _from_lanes(e, result, node.size, lane)

    return rule


def _lanes_compare(predicate: str) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        lane = int(node.attrs[0])
        t = _vector(node.size, lane)
        a, b = (_as_lanes(e, arg, lane) for arg in node.args)
        found = e.let(f"icmp {predicate} {t} {a}, {b}")
        mask = e.let(f"sext <{node.size // lane} x i1> {found} to {t}")
        return _from_lanes(e, mask, node.size, lane)

    return rule


def _lanes_resize(instruction: str, numerator: int, denominator: int) -> Rule:
    def rule(e: Emitter, node: Node) -> str:
        (source,) = node.args
        lane = int(node.attrs[0])
        target = lane * numerator // denominator
        value = _as_lanes(e, source, lane)
        t = _vector(source.size, lane)
        result = e.let(f"{instruction} {t} {value} to {_vector(node.size, target)}")
        return _from_lanes(e, result, node.size, target)

    return rule


def _lanes_shuffle(e: Emitter, node: Node) -> str:
    lane = int(node.attrs[0])
    a, b = (_as_lanes(e, arg, lane) for arg in node.args)
    t = _vector(node.args[0].size, lane)
    indices = ", ".join(f"i32 {index}" for index in node.attrs[1:])
    mask = f"<{len(node.attrs) - 1} x i32> <{indices}>"
    result = e.let(f"shufflevector {t} {a}, {t} {b}, {mask}")
    return _from_lanes(e, result, node.size, lane)


def _lanes_splat(e: Emitter, node: Node) -> str:
    (source,) = node.args
    lane, count = source.size, node.size // source.size
    t = _vector(node.size, lane)
    first = e.let(f"insertelement {t} zeroinitializer, i{lane} {e.value(source)}, i32 0")
    result = e.let(f"shufflevector {t} {first}, {t} {first}, <{count} x i32> zeroinitializer")
    return _from_lanes(e, result, node.size, lane)


def _lane_index(e: Emitter, index: Node, count: int) -> str:
    value = e.let(f"{'trunc' if index.size > 32 else 'zext'} i{index.size} {e.value(index)} to i32")
    return e.let(f"and i32 {value}, {count - 1}")


def _lanes_element(e: Emitter, node: Node) -> str:
    source, index = node.args
    t = _vector(source.size, node.size)
    value = _as_lanes(e, source, node.size)
    at = _lane_index(e, index, source.size // node.size)
    return e.let(f"extractelement {t} {value}, i32 {at}")


def _lanes_insert(e: Emitter, node: Node) -> str:
    source, index, lane = node.args
    t = _vector(source.size, lane.size)
    value = _as_lanes(e, source, lane.size)
    at = _lane_index(e, index, source.size // lane.size)
    result = e.let(f"insertelement {t} {value}, i{lane.size} {e.value(lane)}, i32 {at}")
    return _from_lanes(e, result, node.size, lane.size)


def _aes(e: Emitter, name: str, value: str, *keys: str) -> str:
    t = "<2 x i64>"
    arguments = ", ".join(f"{t} {argument}" for argument in (value, *keys))
    return e.let(f"call {t} @llvm.x86.aesni.{name}({arguments})")


def _aes_step(name: str, *, before: str | None = None, keyed: bool = True) -> Rule:
    """The host's instruction with a key of zeros; ``before`` undoes its other steps."""

    def rule(e: Emitter, node: Node) -> str:
        if not host_has("aes"):
            return _plain(e, aes.step(node.op, node.args[0]))
        value = e.let(f"bitcast i128 {e.value(node.args[0])} to <2 x i64>")
        if before is not None:
            value = _aes(e, before, value, "zeroinitializer")
        keys = ("zeroinitializer",) if keyed else ()
        return e.let(f"bitcast <2 x i64> {_aes(e, name, value, *keys)} to i128")

    return rule


def _lanes_table(e: Emitter, node: Node) -> str:
    """The host's byte shuffle gives zero where bit 7 is set: so indices from 16 up get it."""
    table, indices = node.args
    value = e.value(indices)
    if indices.size < 128:
        value = e.let(f"zext i{indices.size} {value} to i128")
    t = "<16 x i8>"
    wanted = e.let(f"bitcast i128 {value} to {t}")
    offset = _splatted(e, 0x70, 128, 8)
    wanted = e.let(f"call {t} @llvm.uadd.sat.v16i8({t} {wanted}, {t} {offset})")
    source = _as_lanes(e, table, 8)
    result = e.let(f"call {t} @llvm.x86.ssse3.pshuf.b.128({t} {source}, {t} {wanted})")
    wide = e.let(f"bitcast {t} {result} to i128")
    return wide if node.size == 128 else e.let(f"trunc i128 {wide} to i{node.size}")


def _sha1_rounds(e: Emitter, node: Node) -> str:
    """The host's has the first lane highest, and adds the constant itself."""
    kind = int(node.attrs[0])
    if not host_has("sha"):
        return _plain(e, four_rounds(kind, *node.args))
    t = "<4 x i32>"

    def reverse(value: str) -> str:
        return e.let(f"shufflevector {t} {value}, {t} {value}, {t} <i32 3, i32 2, i32 1, i32 0>")

    state, words = (_as_lanes(e, arg, 32) for arg in node.args)
    constant = _splatted(e, SHA1_CONSTANTS[kind], 128, 32)
    words = e.let(f"sub {t} {words}, {constant}")
    operands = ", ".join(f"{t} {reverse(value)}" for value in (state, words))
    result = e.let(f"call {t} @llvm.x86.sha1rnds4({operands}, i8 {kind})")
    return _from_lanes(e, reverse(result), 128, 32)


def _sha256_rounds(e: Emitter, node: Node) -> str:
    if not host_has("sha"):
        return _plain(e, two_rounds(*node.args))
    t = "<4 x i32>"
    operands = ", ".join(f"{t} {_as_lanes(e, arg, 32)}" for arg in node.args)
    return _from_lanes(e, e.let(f"call {t} @llvm.x86.sha256rnds2({operands})"), 128, 32)


RULES: Final[dict[str, Rule]] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "and": _binary("and"),
    "or": _binary("or"),
    "xor": _binary("xor"),
    "shl": _shift("shl"),
    "shr": _shift("lshr"),
    "sar": _shift("ashr"),
    "udiv": _divide("udiv"),
    "urem": _divide("urem"),
    "sdiv": _divide("sdiv"),
    "srem": _divide("srem"),
    "eq": _compare("eq"),
    "ne": _compare("ne"),
    "ult": _compare("ult"),
    "ule": _compare("ule"),
    "slt": _compare("slt"),
    "sle": _compare("sle"),
    "select": _select,
    "zext": _extend("zext"),
    "sext": _extend("sext"),
    "extract": _extract,
    "concat": _concat,
    "clmul": _clmul,
    "clz": _unary("ctlz", ", i1 false"),
    "ctz": _unary("cttz", ", i1 false"),
    "popcount": _unary("ctpop"),
    "bswap": _unary("bswap"),
    "bitreverse": _unary("bitreverse"),
    "vadd": _lanes(lambda t: "add"),
    "vsub": _lanes(lambda t: "sub"),
    "vmul": _lanes(lambda t: "mul"),
    "vshl": _lanes_shift("shl"),
    "vshr": _lanes_shift("lshr"),
    "vsar": _lanes_shift("ashr"),
    "vclz": _intrinsic("ctlz"),
    "vpopcount": _intrinsic("ctpop"),
    "vbitreverse": _intrinsic("bitreverse"),
    "veq": _lanes_compare("eq"),
    "vult": _lanes_compare("ult"),
    "vule": _lanes_compare("ule"),
    "vslt": _lanes_compare("slt"),
    "vsle": _lanes_compare("sle"),
    "vumin": _intrinsic("umin"),
    "vumax": _intrinsic("umax"),
    "vsmin": _intrinsic("smin"),
    "vsmax": _intrinsic("smax"),
    "vuadds": _intrinsic("uadd.sat"),
    "vusubs": _intrinsic("usub.sat"),
    "vsadds": _intrinsic("sadd.sat"),
    "vssubs": _intrinsic("ssub.sat"),
    "vwiden": _lanes_resize("zext", 2, 1),
    "vwiden_signed": _lanes_resize("sext", 2, 1),
    "vnarrow": _lanes_resize("trunc", 1, 2),
    "vshuffle": _lanes_shuffle,
    "vsplat": _lanes_splat,
    "velement": _lanes_element,
    "vinsert": _lanes_insert,
    "vtable": _lanes_table,
    "sha1_rounds": _sha1_rounds,
    "sha256_rounds": _sha256_rounds,
    "aes_encrypt": _aes_step("aesenclast"),
    "aes_decrypt": _aes_step("aesdeclast"),
    "aes_mix": _aes_step("aesenc", before="aesdeclast"),
    "aes_unmix": _aes_step("aesimc", keyed=False),
}


def declarations(text: str) -> str:
    """Declarations of the intrinsics that a text calls and does not declare."""
    found: dict[str, str] = {}
    declared = set(re.findall(r"^declare .*(@llvm\.[\w.]+)\(", text, re.MULTILINE))
    pattern = re.compile(r"call (\S+|<[^>]*>|\{[^}]*\}) (@llvm\.[\w.]+)\(")
    for match in pattern.finditer(text):
        name = match[2]
        if name in found or name in declared:
            continue
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        arguments = _split_arguments(text[match.end() : end - 1])
        types = ", ".join(_type_of(argument) for argument in arguments)
        found[name] = f"declare {match[1]} {name}({types})"
    return "\n".join(found.values()) + "\n"


def _split_arguments(text: str) -> list[str]:
    result, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            result.append(text[start:index].strip())
            start = index + 1
    result.append(text[start:].strip())
    return [argument for argument in result if argument]


def _type_of(argument: str) -> str:
    if argument.startswith("<"):
        return argument[: argument.index(">") + 1]
    return argument.split()[0]
