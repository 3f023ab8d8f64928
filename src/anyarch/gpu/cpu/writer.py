"""LLVM text for one function, where an operation is on a scalar or on all lanes of a warp.

`vec` says which: the same rule writes `add i32` for what is uniform and `add <32 x i32>` for what
varies. An element type may be packed, "2 x half": then two of them lie in each lane.
"""

from __future__ import annotations

import struct
from typing import Final

from anyarch.gpu.cpu.shapes import LANES

__all__ = ["Writer", "bits_of", "float_text", "integer_of"]

BITS: Final = {"half": 16, "bfloat": 16, "float": 32, "double": 64, "ptr": 64}
_MANGLED: Final = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}


def bits_of(elem: str) -> int:
    """Width of an element type."""
    if elem[0] == "2":
        return 2 * bits_of(elem[4:])
    return BITS[elem] if elem in BITS else int(elem[1:])


def integer_of(elem: str) -> str:
    """The integer type of the same width."""
    return f"i{bits_of(elem)}"


def float_text(bits: int, elem: str) -> str:
    """A float constant by its bits, NaN payloads included."""
    if elem == "double":
        return f"0x{bits:016X}"
    if elem == "half":
        return f"0xH{bits:04X}"
    if elem == "bfloat":
        return f"0xR{bits:04X}"
    exponent = bits >> 23 & 0xFF
    if exponent == 0xFF and bits & 0x7FFFFF:
        wide = bits >> 31 << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
        return f"0x{wide:016X}"
    (value,) = struct.unpack("<f", bits.to_bytes(4, "little"))
    (wide,) = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{wide:016X}"


class Writer:
    """Lines of a function's body; `declarations` are shared by all functions of a module."""

    def __init__(self, declarations: dict[str, str], width: int) -> None:
        self.lines: list[str] = []
        self.declarations = declarations
        self.width = width
        self.vec = False
        self._count = 0
        self.current = "entry"
        self.allocas: list[str] = []
        self._scratch: dict[tuple[str, str], str] = {}
        self.location = ""  # debug information of what is written next

    # Names and lines.

    def name(self, hint: str = "v") -> str:
        """A fresh name without its sigil."""
        self._count += 1
        return f"{hint}{self._count}"

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}{self.location}")

    def let(self, text: str) -> str:
        """An instruction; its result."""
        result = "%" + self.name()
        self.lines.append(f"  {result} = {text}{self.location}")
        return result

    def label(self, name: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{name}:")
        self.current = name

    def jump(self, target: str) -> None:
        """Go to a basic block."""
        self.line(f"br label %{target}")

    def branch(self, condition: str, then: str, otherwise: str, weights: str = "") -> None:
        """Go to one of two basic blocks; `weights` is !likely or !unlikely."""
        hint = f", !prof {weights}" if weights else ""
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}{hint}")

    def alloca(self, type_: str, hint: str = "slot") -> str:
        """Memory of the function's frame; its address never becomes an integer."""
        name = f"%{hint}.{len(self.allocas)}"
        self.allocas.append(f"  {name} = alloca {type_}, align 64")
        return name

    def scratch(self, type_: str, role: str) -> str:
        """Memory that instructions use one after another, each for itself."""
        if (type_, role) not in self._scratch:
            self._scratch[type_, role] = self.alloca(type_, "scratch")
        return self._scratch[type_, role]

    # Types and constants.

    def t(self, elem: str, vec: bool | None = None) -> str:
        """The type of a value whose elements are `elem`."""
        vec = self.vec if vec is None else vec
        if elem[0] == "2":
            return f"<{2 * LANES} x {elem[4:]}>" if vec else f"<{elem}>"
        return f"<{LANES} x {elem}>" if vec else elem

    def mangled(self, elem: str) -> str:
        """The suffix of an intrinsic for values of `elem`."""
        count = (LANES if self.vec else 1) * (2 if elem[0] == "2" else 1)
        elem = elem[4:] if elem[0] == "2" else elem
        suffix = _MANGLED.get(elem, elem)
        return f"v{count}{suffix}" if count > 1 else suffix

    def k(self, elem: str, value: int) -> str:
        """An integer constant, or a float by its bits."""
        inner = elem[4:] if elem[0] == "2" else elem
        if inner in BITS:
            text = float_text(value, inner)
        else:
            size = int(inner[1:])
            value &= (1 << size) - 1
            if size > 1 and value >> size - 1:
                value -= 1 << size
            text = str(value) if size > 1 else ("true" if value else "false")
        if self.vec or elem[0] == "2":
            return f"splat ({inner} {text})"
        return text

    def real(self, elem: str, value: float) -> str:
        """A float constant of f16, f32 or f64."""
        inner = elem[4:] if elem[0] == "2" else elem
        code, size = {"half": ("<e", 2), "float": ("<f", 4), "double": ("<d", 8)}[inner]
        return self.k(elem, int.from_bytes(struct.pack(code, value)[:size], "little"))

    # Operations in the current mode.

    def op(self, name: str, elem: str, a: str, b: str) -> str:
        """A binary operation."""
        return self.let(f"{name} {self.t(elem)} {a}, {b}")

    def cmp(self, name: str, elem: str, a: str, b: str) -> str:
        """A comparison (`icmp slt`, `fcmp oeq`)."""
        return self.let(f"{name} {self.t(elem)} {a}, {b}")

    def sel(self, condition: str, elem: str, a: str, b: str) -> str:
        """Choose per lane; not for packed types."""
        type_ = self.t(elem)
        return self.let(f"select {self.t('i1')} {condition}, {type_} {a}, {type_} {b}")

    def sel2(self, condition: str, elem: str, a: str, b: str) -> str:
        """Choose per element of a packed type: the condition has as many."""
        type_, ctype = self.t(elem), self.t(elem.replace(elem[4:], "i1"))
        return self.let(f"select {ctype} {condition}, {type_} {a}, {type_} {b}")

    def cast(self, name: str, source: str, target: str, value: str) -> str:
        """A conversion."""
        if source == target:
            return value
        return self.let(f"{name} {self.t(source)} {value} to {self.t(target)}")

    def bits(self, source: str, target: str, value: str) -> str:
        """The same bits as another type of the same width."""
        return self.cast("bitcast", source, target, value)

    def resize(self, source: str, target: str, value: str, signed: bool = False) -> str:
        """An integer of another width."""
        a, b = bits_of(source), bits_of(target)
        if a == b:
            return value
        return self.cast("trunc" if a > b else "sext" if signed else "zext", source, target, value)

    def call(self, name: str, elem: str, *operands: str, extra: str = "") -> str:
        """An intrinsic whose operands and result are of one type; `extra` are more operands."""
        type_ = self.t(elem)
        full = f"{name}.{self.mangled(elem)}"
        more = [e.split(" ")[0] for e in extra.split(", ") if e]
        self.declare(full, type_, [type_] * len(operands) + more)
        listed = ", ".join([*(f"{type_} {o}" for o in operands), *([extra] if extra else [])])
        return self.let(f"call {type_} @{full}({listed})")

    def declare(self, name: str, result: str, parameters: list[str]) -> None:
        """Make an intrinsic known to the module."""
        self.declarations[name] = f"declare {result} @{name}({', '.join(parameters)})"

    def invoke(self, name: str, result: str, operands: list[tuple[str, str]]) -> str:
        """Call a declared function with (type, value) operands; "" if it returns nothing."""
        self.declare(name, result, [t.split(" ")[0] if t[0] == "p" else t for t, _ in operands])
        listed = ", ".join(f"{t} {v}" for t, v in operands)
        if result == "void":
            self.line(f"call void @{name}({listed})")
            return ""
        return self.let(f"call {result} @{name}({listed})")

    # Between scalars and lanes.

    def splat(self, elem: str, value: str) -> str:
        """A scalar in every lane."""
        if not value.startswith("%"):
            return f"splat ({elem} {value})"
        vector = self.t(elem, True)
        one = self.let(f"insertelement {vector} poison, {elem} {value}, i64 0")
        zeros = f"<{LANES} x i32> zeroinitializer"
        return self.let(f"shufflevector {vector} {one}, {vector} poison, {zeros}")

    def lanes(self, elem: str, values: tuple[int, ...]) -> str:
        """A constant for each lane."""
        size = int(elem[1:])
        mask = (1 << size) - 1
        return "<" + ", ".join(f"{elem} {v & mask}" for v in values) + ">"

    def shuffle(self, count: int, elem: str, a: str, b: str, indices: list[int]) -> str:
        """Elements of two vectors of `count`, by constant indices (-1: any)."""
        type_ = f"<{count} x {elem}>"
        listed = ", ".join("i32 poison" if n < 0 else f"i32 {n}" for n in indices)
        mask = f"<{len(indices)} x i32> <{listed}>"
        return self.let(f"shufflevector {type_} {a}, {type_} {b}, {mask}")

    def parts(self, elem: str, value: str, size: int) -> list[str]:
        """A vector of all lanes as vectors of `size` lanes."""
        return [
            self.shuffle(LANES, elem, value, "poison", list(range(at, at + size)))
            for at in range(0, LANES, size)
        ]

    def whole(self, elem: str, parts: list[str], size: int) -> str:
        """The vector of all lanes that parts of `size` lanes make."""
        while len(parts) > 1:
            indices = list(range(2 * size))
            pairs = zip(parts[::2], parts[1::2])
            parts = [self.shuffle(size, elem, a, b, indices) for a, b in pairs]
            size *= 2
        return parts[0]
