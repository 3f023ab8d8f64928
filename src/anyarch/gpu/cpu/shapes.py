"""How each register varies over the lanes of a warp.

A register is *uniform* (one scalar), *affine* (a scalar plus a constant for each lane), *wide* (an
affine 32-bit value extended to 64 bits, times a constant, plus a scalar: the usual index of an
array), *indexed* (the same of a 32-bit vector), or *varying* (a vector). Affine and wide values
give contiguous memory accesses, indexed ones gathers by 32-bit numbers. The analysis does not
follow paths: a register has one shape. A register that a divergent branch makes
different in lanes that meet again is varying (Karrenberg and Hack, Whole-Function Vectorization).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.gpu.cpu.flow import CARRY, END, Flow, reads, writes
from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import (
    SIZES,
    Address,
    Constant,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Register,
    Special,
    VectorOperand,
)

__all__ = [
    "LANES",
    "UNIFORM",
    "VARYING",
    "BlockShape",
    "Shape",
    "Shapes",
    "Split",
    "block_shape",
    "split_of",
]

LANES: Final = 32
_MANY: Final = 64  # known zero bits of zero
_LONG: Final = ("wide", "indexed")


@dataclass(frozen=True, slots=True)
class Shape:
    """`lanes` are the constants of affine and wide values; `zeros` the low bits of the scalar that
    are known to be zero; the scalar is 0 to `most` unless that is negative. A wide value is
    extend(base32 + lanes) * scale + base64, an indexed one extend(vector32) * scale + base64."""

    kind: str  # uniform | affine | wide | indexed | varying
    lanes: tuple[int, ...] = ()
    scale: int = 1
    signed: bool = False
    zeros: int = 0
    most: int = -1

    @property
    def scalar(self) -> bool:
        """Whether scalars hold it."""
        return self.kind not in ("indexed", "varying")


UNIFORM: Final = Shape("uniform")
VARYING: Final = Shape("varying")


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What is known of a block when a kernel is compiled: its size, and what follows from it.

    `axes` are the lanes' constants of `%tid.x`, `.y`, `.z`, or None where they are not constant;
    `zeros` known zero bits of the scalar parts; `full` says that every warp has all its lanes.
    """

    size: tuple[int, int, int]
    axes: tuple[tuple[int, ...] | None, ...]
    zeros: tuple[int, ...]
    full: bool
    width: int = LANES


def block_shape(x: int, y: int, z: int, width: int = LANES) -> BlockShape:
    """The shape of a block of x × y × z threads, warps of `width` lanes."""
    size = x, y, z
    if width == 1:
        return BlockShape(size, (None, None, None), (0, 0, 0), True, 1)
    full = x * y * z % LANES == 0
    axes, zeros = _axes(x, y, z)
    return BlockShape(size, axes, zeros, full)


def _axes(
    x: int, y: int, z: int
) -> tuple[tuple[tuple[int, ...] | None, ...], tuple[int, int, int]]:
    lanes = tuple(range(LANES))
    nothing = (0,) * LANES
    if y == z == 1:
        return (lanes, nothing, nothing), (5, _MANY, _MANY)
    if x % LANES == 0:
        return (lanes, nothing, nothing), (5, 0, 0)
    if x & (x - 1):
        return (None, None, None), (0, 0, 0)
    across = tuple(n % x for n in lanes)
    down = tuple(n // x for n in lanes)
    rows = LANES // x
    if y % rows == 0:
        return (across, down, nothing), (_MANY, _zeros(rows), 0)
    if y & (y - 1) or z % (rows // y):
        return (across, None, None), (_MANY, 0, 0)
    deep = tuple(n // y for n in down)
    down = tuple(n % y for n in down)
    return (across, down, deep), (_MANY, _MANY, _zeros(rows // y))


def _zeros(value: int) -> int:
    return (value & -value).bit_length() - 1 if value else _MANY


_LANE_MASKS: Final[dict[str, Callable[[int], int]]] = {
    "%lanemask_eq": lambda n: 1 << n,
    "%lanemask_le": lambda n: (2 << n) - 1,
    "%lanemask_lt": lambda n: (1 << n) - 1,
    "%lanemask_ge": lambda n: 0xFFFFFFFF & -(1 << n),
    "%lanemask_gt": lambda n: 0xFFFFFFFF & -(2 << n),
}


class Shapes:
    """The shapes of a function's registers, its divergent branches, and which definitions must
    leave inactive lanes as they are."""

    def __init__(self, flow: Flow, block: BlockShape, local_stride: int, entry: bool) -> None:
        self.flow, self.block, self.local_stride, self.entry = flow, block, local_stride, entry
        self.known: dict[Register, Shape] = {}
        self.masked = [0] * len(flow.blocks)
        self.divergent: set[int] = set()
        if block.width == 1:
            return
        while True:
            self._settle()
            if not self._diverge():
                break

    def of(self, register: Register) -> Shape:
        """The shape of a register; one that is never written is taken as uniform."""
        return self.known.get(register, UNIFORM)

    def keeps(self, block: int, register: Register) -> bool:
        """Whether a definition in a block leaves lanes that are not active as they are."""
        return bool(self.masked[block] >> self.flow.number(register) & 1)

    def _settle(self) -> None:
        """Shapes to a fixed point, given what is masked."""
        flow = self.flow
        changed = True
        while changed:
            changed = False
            for at in flow.order:
                if not isinstance(at, int):
                    continue
                for instruction in flow.blocks[at].body:
                    try:
                        shape = self._shape(instruction)
                    except (ValueError, IndexError) as error:
                        place = instruction.place
                        raise PtxError(
                            "its operands are not those of the ISA",
                            place.line,
                            place.column,
                            instruction.text,
                        ) from error
                    if shape is None:
                        continue
                    for register in writes(instruction):
                        new = shape if register is not CARRY or shape.kind == "uniform" else VARYING
                        if new.kind in _LONG and register.type[1:] != "64":
                            new = VARYING
                        if register.type == "pred" and new.kind not in ("uniform", "varying"):
                            new = VARYING
                        if self.masked[at] >> flow.number(register) & 1:
                            new = VARYING
                        old = self.known.get(register)
                        joined = new if old is None else _join(old, new)
                        if joined != old:
                            self.known[register] = joined
                            changed = True

    def _diverge(self) -> bool:
        """Find divergent branches and what they mask; whether anything is new."""
        flow, changed = self.flow, False
        for block in flow.blocks:
            branch = block.branch
            if branch.register is None or block.index in self.divergent:
                continue
            if self.of(branch.register).kind == "uniform":
                continue
            self.divergent.add(block.index)
            changed = True
            stop = flow.ipdom[block.index]
            targets = sorted(set(branch.targets))
            reached = [flow.reach(t, stop) for t in targets]
            for a, side in enumerate(reached):
                live = 0
                for b, other in enumerate(reached):
                    if a == b:
                        continue
                    if targets[b] != END:
                        live |= flow.live_in[targets[b]]
                    for join in side & other:
                        live |= flow.live_in[join]
                if stop != END:
                    live |= flow.live_in[stop]
                for index in side:
                    self.masked[index] |= flow.defs[index] & live
        return changed

    # Shapes of operands and results.

    def operand(self, operand: Operand) -> Shape | None:
        """The shape of an operand; None while it is not known."""
        match operand:
            case Register():
                return self.known.get(operand)
            case Immediate():
                return Shape("uniform", zeros=_zeros(operand.value))
            case Special():
                return self._special(operand.name)
            case Address(base=base):
                return UNIFORM if base is None else self.operand(base)
            case VectorOperand(elements=several) | Constant(operands=several):
                return self._all([self.operand(one) for one in several])
            case Pair():
                return self._all([self.operand(operand.first), self.operand(operand.second)])
            case _:
                return UNIFORM

    def _special(self, name: str) -> Shape:
        if name.startswith("%tid."):
            axis = "xyz".find(name[-1])
            if axis < 0:
                return UNIFORM
            lanes = self.block.axes[axis]
            if lanes is None:
                return VARYING
            most = (self.block.size[0] - 1) // LANES * LANES if axis == 0 else -1
            return _affine(lanes, self.block.zeros[axis], most)
        if name == "%laneid":
            return _affine(tuple(range(LANES)), _MANY, 0)
        if name.startswith("%ntid.") and name[-1] in "xyz":
            return Shape("uniform", zeros=_zeros(self.block.size["xyz".index(name[-1])]))
        if name in _LANE_MASKS:
            function = _LANE_MASKS[name]
            return _affine(tuple(function(n) for n in range(LANES)), _MANY)
        return UNIFORM

    @staticmethod
    def _all(shapes: list[Shape | None]) -> Shape | None:
        if any(s is None for s in shapes):
            return None
        return UNIFORM if all(s.kind == "uniform" for s in shapes if s) else VARYING

    def _shape(self, instruction: Instruction) -> Shape | None:
        """The shape of what an instruction writes."""
        guard = instruction.guard
        if guard is not None:
            guard_shape = self.operand(guard)
            if guard_shape is None:
                return None
            if guard_shape.kind != "uniform":
                return VARYING
        opcode = instruction.opcode
        rule = _RULES.get(opcode)
        if rule is not None:
            return rule(self, instruction)
        return self.plain(instruction)

    def plain(self, instruction: Instruction) -> Shape | None:
        """Uniform if all that is read is."""
        shapes = [self.known.get(r) for r in reads(instruction) if r is not instruction.guard]
        own = set(writes(instruction)) if instruction.guard is not None else set()
        if own:  # what the guard leaves as is joins anyway
            shapes = [
                self.known.get(r)
                for r in reads(instruction)
                if r is not instruction.guard and r not in own
            ]
        for operand in instruction.operands[1:]:
            if isinstance(operand, Special):
                shapes.append(self._special(operand.name))
        return self._all(shapes)


def _affine(lanes: tuple[int, ...], zeros: int, most: int = -1) -> Shape:
    if not any(lanes):
        return Shape("uniform", zeros=zeros)
    return Shape("affine", lanes, zeros=zeros, most=0 if zeros >= _MANY else most)


def _join(a: Shape, b: Shape) -> Shape:
    if a == b:
        return a
    if (a.kind, a.lanes, a.scale, a.signed) == (b.kind, b.lanes, b.scale, b.signed):
        most = a.most if a.most == b.most else -1
        return Shape(a.kind, a.lanes, a.scale, a.signed, min(a.zeros, b.zeros), most)
    return VARYING


_Rule = Callable[[Shapes, Instruction], Shape | None]


def _size(instruction: Instruction) -> int:
    return SIZES[instruction.types[-1]] if instruction.types else 32


def _is_float(instruction: Instruction) -> bool:
    return bool(instruction.types) and "f" in instruction.types[-1]


def _sources(shapes: Shapes, instruction: Instruction) -> list[Shape] | None:
    found = [shapes.operand(o) for o in instruction.operands[1:]]
    if any(s is None for s in found):
        return None
    return [s for s in found if s is not None]


def _wrap(lanes: list[int], size: int) -> tuple[int, ...]:
    """Constants of a value of `size` bits, as the nearest signed numbers."""
    half = 1 << size - 1
    return tuple((n + half) % (1 << size) - half for n in lanes)


def _mov(shapes: Shapes, instruction: Instruction) -> Shape | None:
    source = instruction.operands[1] if len(instruction.operands) == 2 else None
    target = instruction.operands[0]
    if isinstance(source, Register | Special | Immediate) and isinstance(target, Register):
        shape = shapes.operand(source)
        if shape is not None and shape.kind == "affine" and target.size != _size(instruction):
            return VARYING
        return shape
    return shapes.plain(instruction)


def _cvta(shapes: Shapes, instruction: Instruction) -> Shape | None:
    shape = shapes.operand(instruction.operands[1])
    if shape is None or "local" not in instruction.modifiers:
        return shape
    if "to" in instruction.modifiers or shape.kind != "uniform":
        return VARYING
    return _affine(tuple(n * shapes.local_stride for n in range(LANES)), 0)


def _add(shapes: Shapes, instruction: Instruction) -> Shape | None:
    if _is_float(instruction) or {"sat", "cc"} & set(instruction.modifiers):
        return shapes.plain(instruction)
    sources = _sources(shapes, instruction)
    if sources is None:
        return None
    a, b = sources
    sign = -1 if instruction.opcode == "sub" else 1
    return _sum(a, b, sign, _size(instruction))


def _sum(a: Shape, b: Shape, sign: int, size: int) -> Shape:
    zeros = min(a.zeros, b.zeros)
    if a.kind in _LONG and b.kind == "uniform":
        return Shape(a.kind, a.lanes, a.scale, a.signed)
    if b.kind in _LONG and a.kind == "uniform" and sign == 1:
        return Shape(b.kind, b.lanes, b.scale, b.signed)
    if not {a.kind, b.kind} <= {"uniform", "affine"}:
        return VARYING
    first, second = a.lanes or (0,) * LANES, b.lanes or (0,) * LANES
    return _affine(_wrap([m + sign * n for m, n in zip(first, second)], size), zeros)


def _times(a: Shape, factor: int, size: int) -> Shape:
    zeros = min(a.zeros + _zeros(factor), _MANY)
    match a.kind:
        case "uniform":
            return Shape("uniform", zeros=zeros)
        case "affine":
            most = a.most * factor if 0 <= a.most * factor < 1 << 30 else -1
            return _affine(_wrap([n * factor for n in a.lanes], size), zeros, most)
        case "wide" | "indexed" if factor and abs(a.scale * factor) < 1 << 31:
            return Shape(a.kind, a.lanes, a.scale * factor, a.signed)
    return VARYING


def _literal(operand: Operand) -> int | None:
    return operand.value if isinstance(operand, Immediate) and not operand.bits else None


def _product(shapes: Shapes, operands: tuple[Operand, ...], size: int) -> Shape | None:
    a, b = shapes.operand(operands[0]), shapes.operand(operands[1])
    if a is None or b is None:
        return None
    if (factor := _literal(operands[1])) is not None:
        return _times(a, factor, size)
    if (factor := _literal(operands[0])) is not None:
        return _times(b, factor, size)
    if a.kind == b.kind == "uniform":
        return Shape("uniform", zeros=min(a.zeros + b.zeros, _MANY))
    return VARYING


def _mul(shapes: Shapes, instruction: Instruction) -> Shape | None:
    if _is_float(instruction) or "hi" in instruction.modifiers:
        return shapes.plain(instruction)
    size = _size(instruction)
    if "wide" in instruction.modifiers:
        sources = _sources(shapes, instruction)
        if sources is None:
            return None
        factor = _literal(instruction.operands[2])
        signed = instruction.types[-1][0] == "s"
        if factor is not None:  # 32 bits of it, read as the type says
            factor &= 0xFFFFFFFF
            if signed and factor >> 31:
                factor -= 1 << 32
        if size == 32 and sources[0].kind == "affine" and factor and abs(factor) < 1 << 31:
            return Shape("wide", sources[0].lanes, factor, signed)
        if size == 32 and sources[0].kind == "varying" and factor and 0 < factor < 1 << 31:
            return Shape("indexed", (), factor, signed)
        return shapes.plain(instruction)
    return _product(shapes, instruction.operands[1:], size)


def _mad(shapes: Shapes, instruction: Instruction) -> Shape | None:
    modifiers = set(instruction.modifiers)
    if _is_float(instruction) or modifiers & {"hi", "sat", "cc"}:
        return shapes.plain(instruction)
    size = _size(instruction)
    other = shapes.operand(instruction.operands[3])
    if other is None:
        return None
    if "wide" in modifiers:
        product = _mul(shapes, instruction)
        return None if product is None else _sum(product, other, 1, 64)
    product = _product(shapes, instruction.operands[1:3], size)
    return None if product is None else _sum(product, other, 1, size)


def _shl(shapes: Shapes, instruction: Instruction) -> Shape | None:
    amount = _literal(instruction.operands[2])
    shape = shapes.operand(instruction.operands[1])
    if amount is None or shape is None or not 0 <= amount < _size(instruction):
        return shapes.plain(instruction)
    return _times(shape, 1 << amount, _size(instruction))


def _shr(shapes: Shapes, instruction: Instruction) -> Shape | None:
    """A shift that drops only bits in which base and lanes do not touch."""
    amount = _literal(instruction.operands[2])
    shape = shapes.operand(instruction.operands[1])
    if shape is None or amount is None or shape.kind not in ("affine", "uniform"):
        return shapes.plain(instruction)
    if shape.kind == "uniform":
        return Shape("uniform", zeros=max(shape.zeros - amount, 0))
    if shape.zeros >= 5 and amount >= 0 and _within(shape):
        zeros = max(shape.zeros - amount, 0)
        return _affine(tuple(n >> amount for n in shape.lanes), zeros)
    return VARYING


def _within(shape: Shape) -> bool:
    """Whether the lanes' constants fit the zero bits of the scalar: adding is or-ing."""
    return all(0 <= n < 1 << min(shape.zeros, 31) for n in shape.lanes)


def _and(shapes: Shapes, instruction: Instruction) -> Shape | None:
    mask = _literal(instruction.operands[2])
    shape = shapes.operand(instruction.operands[1])
    if shape is None or mask is None or shape.kind != "affine" or not _within(shape):
        return shapes.plain(instruction)
    most = -1 if shape.most < 0 or mask < 0 else min(shape.most, mask)
    return _affine(tuple(n & mask for n in shape.lanes), shape.zeros, most)


def _or(shapes: Shapes, instruction: Instruction) -> Shape | None:
    """`or` of a literal that does not reach into the scalar: the lanes have it then."""
    literal = _literal(instruction.operands[2])
    shape = shapes.operand(instruction.operands[1])
    if shape is None or literal is None or shape.kind != "affine" or not _within(shape):
        return shapes.plain(instruction)
    if not 0 <= literal < 1 << min(shape.zeros, 31):
        return shapes.plain(instruction)
    return _affine(tuple(n | literal for n in shape.lanes), shape.zeros, shape.most)


def _cvt(shapes: Shapes, instruction: Instruction) -> Shape | None:
    shape = shapes.operand(instruction.operands[1])
    types = instruction.types
    if shape is None or len(types) != 2 or shape.kind == "uniform":
        return shape
    source, target = types[1], types[0]
    integers = source[0] in "us" and target[0] in "us" and "sat" not in instruction.modifiers
    if shape.kind == "affine" and integers and source in ("u32", "s32"):
        if target in ("u64", "s64"):
            return Shape("wide", shape.lanes, 1, source == "s32")
        if target in ("u32", "s32"):
            return shape
    if shape.kind == "varying" and integers and source in ("u32", "s32"):
        if target in ("u64", "s64"):
            return Shape("indexed", (), 1, source == "s32")
        return VARYING
    if integers and SIZES[source] == SIZES[target] == 64:
        return shape
    return VARYING


def _setp(shapes: Shapes, instruction: Instruction) -> Shape | None:
    """Uniform where the lanes of a warp are on the same side: `tid < 64`."""
    sources = _sources(shapes, instruction)
    if sources is None:
        return None
    plain = shapes.plain(instruction)
    if len(sources) != 2 or _is_float(instruction) or plain == UNIFORM:
        return plain
    a, b = sources
    literal = _literal(instruction.operands[2])
    if a.kind != "affine" or b.kind != "uniform" or a.zeros < 5 or not _within(a):
        return plain
    split = split_of(shapes, instruction)
    if split is not None and len(set(split.inside)) == 1:
        return UNIFORM
    if max(a.lanes) >= LANES:
        return plain
    name = set(instruction.modifiers)
    below = name & {"lt", "ge", "lo", "hs"}
    above = name & {"gt", "le", "hi", "ls"}
    if (below and b.zeros >= 5) or (above and literal is not None and literal % LANES == LANES - 1):
        return UNIFORM
    return plain


@dataclass(frozen=True, slots=True)
class Split:
    """What a comparison of an affine value with a literal gives: for each lane where the scalar is
    `base`, and for all where it is below or above."""

    base: int
    inside: tuple[bool, ...]
    below: bool
    above: bool


_BELOW: Final = {"lt": True, "lo": True, "le": True, "ls": True, "ne": True}
_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lo": operator.lt,
    "le": operator.le,
    "ls": operator.le,
    "gt": operator.gt,
    "hi": operator.gt,
    "ge": operator.ge,
    "hs": operator.ge,
}


def split_of(shapes: Shapes, instruction: Instruction) -> Split | None:
    """How a setp sorts warps, where it compares an affine value, whose lanes do not reach into the
    scalar, with a literal that is not negative."""
    if instruction.opcode != "setp" or len(instruction.operands) != 3:
        return None
    if instruction.types[-1] not in ("s32", "u32", "b32"):
        return None
    literal = _literal(instruction.operands[2])
    shape = shapes.operand(instruction.operands[1])
    if literal is None or not 0 <= literal < 1 << 31 or shape is None or shape.kind != "affine":
        return None
    if shape.zeros < 5 or not _within(shape) or instruction.guard is not None:
        return None
    names = [m for m in instruction.modifiers if m in _COMPARE]
    if len(names) != 1:
        return None
    (name,) = names
    low = literal & (1 << min(shape.zeros, 31)) - 1
    inside = tuple(_COMPARE[name](n, low) for n in shape.lanes)
    above = name in ("ne", "gt", "hi", "ge", "hs")
    return Split(literal - low, inside, name in _BELOW, above)


def _selp(shapes: Shapes, instruction: Instruction) -> Shape | None:
    sources = _sources(shapes, instruction)
    if sources is None:
        return None
    if sources[2].kind != "uniform":
        return VARYING
    return _join(sources[0], sources[1])


def _load(shapes: Shapes, instruction: Instruction) -> Shape | None:
    modifiers = set(instruction.modifiers)
    if "local" in modifiers:
        return VARYING
    address = shapes.operand(instruction.operands[1])
    if address is None:
        return None
    if any(m.split("::")[0] == "param" for m in modifiers) and not shapes.entry:
        return VARYING
    operand = instruction.operands[1]
    if "param" in modifiers and isinstance(operand, Address):
        name = getattr(operand.base, "name", "")
        if name in shapes.flow.function.variables:  # what a call gave back
            return VARYING
    return UNIFORM if address.kind == "uniform" else VARYING


def _varying(shapes: Shapes, instruction: Instruction) -> Shape | None:
    return VARYING


def _warp(shapes: Shapes, instruction: Instruction) -> Shape | None:
    """The same in every lane that takes part, if all name the same lanes."""
    if instruction.opcode in ("activemask",):
        return UNIFORM
    members = shapes.operand(instruction.operands[-1])
    return None if members is None else UNIFORM if members.kind == "uniform" else VARYING


_RULES: Final[dict[str, _Rule]] = {
    "mov": _mov,
    "cvta": _cvta,
    "add": _add,
    "sub": _add,
    "mul": _mul,
    "mad": _mad,
    "shl": _shl,
    "shr": _shr,
    "and": _and,
    "or": _or,
    "cvt": _cvt,
    "selp": _selp,
    "setp": _setp,
    "ld": _load,
    "ldu": _load,
    "call": _varying,
    "atom": _varying,
    "mbarrier": _varying,
    "ldmatrix": _varying,
    "movmatrix": _varying,
    "mma": _varying,
    "wmma": _varying,
    "wgmma": _varying,
    "shfl": _varying,
    "match": _varying,
    "elect": _varying,
    "vote": _warp,
    "redux": _warp,
    "activemask": _warp,
}
