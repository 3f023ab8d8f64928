"""Graph to LLVM text: one rule per operation.

:class:`Emitter` turns pure nodes into values inside one function. Leaves and effects mean different
things to an interpreter handler, a record builder and a compiled region: a subclass supplies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from anyarch.errors import DefinitionError
from anyarch.ir.graph import Node
from anyarch.ir.ranges import unsigned_maximum

UNLIKELY: Final = "!prof !0"  # first successor unlikely; module_text defines !0


class Emitter:
    """Writes the body of one LLVM function.

    ``float_rules`` says by whose rules NaNs and the like go (``FloatStatus.rules``).
    """

    float_rules = "riscv"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.block = "entry"
        self._count = 0
        self._known: list[dict[int, str]] = [{}]
        self.canonical_nans = True  # whether it may be seen which NaN is computed

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


def _clmul(e: Emitter, node: Node) -> str:
    """The host's carry-less multiplication of 64 bits; narrower operands are extended."""
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
}


def declarations(text: str) -> str:
    """Declarations of the intrinsics that a text calls."""
    found: dict[str, str] = {}
    pattern = re.compile(r"call (\S+|<[^>]*>|\{[^}]*\}) (@llvm\.[\w.]+)\(")
    for match in pattern.finditer(text):
        name = match[2]
        if name in found:
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
