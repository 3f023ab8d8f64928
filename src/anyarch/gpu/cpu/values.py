"""Registers and other operands of instructions as values of LLVM, and results.

A register lives in memory of the frame (one scalar, two for a wide one, or a vector), which LLVM
turns into values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.flow import reads, writes
from anyarch.gpu.cpu.frame import Frame
from anyarch.gpu.cpu.shapes import UNIFORM, Shape
from anyarch.gpu.cpu.writer import BITS, bits_of, float_text, integer_of
from anyarch.gpu.ptx.tree import (
    SIZES,
    Constant,
    Function,
    Immediate,
    Instruction,
    Operand,
    Register,
    Special,
    Symbol,
)

if TYPE_CHECKING:
    from anyarch.gpu.cpu.kernel import KernelCompiler

__all__ = ["Values", "elem_of", "storage"]

_NAN: Final = {"float": 0x7FFFFFFF, "half": 0x7FFF}
_ARITHMETIC: Final = frozenset(
    "add sub mul fma mad div rcp sqrt rsqrt ex2 lg2 sin cos tanh min max cvt abs neg".split()
)


def elem_of(type_: str) -> str:
    """The LLVM type of a PTX type."""
    match type_:
        case "pred":
            return "i1"
        case "f16":
            return "half"
        case "f32" | "tf32":
            return "float"
        case "f64":
            return "double"
        case "bf16":
            return "bfloat"
        case "f16x2":
            return "2 x half"
        case "bf16x2":
            return "2 x bfloat"
        case "u16x2" | "s16x2":
            return "2 x i16"
    return f"i{SIZES[type_]}"


def storage(register: Register) -> str:
    """The LLVM type in which a register is kept."""
    if register.type in ("f32", "f64"):
        return elem_of(register.type)
    return f"i{register.size}"


class Values(Frame):
    """Reads and writes registers, in the mode that `vec` says."""

    def __init__(self, kernel: KernelCompiler, function: Function) -> None:
        super().__init__(kernel, function)
        self.block = self.flow.blocks[0]
        self.mask = "true" if self.width == 1 else "splat (i1 true)"
        self.guard: str | None = None
        self._slots: dict[Register, tuple[str, ...]] = {}
        self._cache: dict[Register, tuple[str, ...]] = {}
        self._vectors: dict[Register, str] = {}
        self._read: set[Register] | None = None
        self._arithmetic: set[Register] | None = None

    def active(self) -> str:
        """The lanes for which the current instruction runs."""
        if self.guard is None:
            return self.mask
        return self.let(f"and {self.t('i1', True)} {self.mask}, {self.guard}")

    def canonical(self, elem: str, value: str) -> str:
        """The one NaN that GPUs give where a float's bits can be seen; in the current mode."""
        nan = _NAN.get(elem)
        if nan is None:
            return value
        bad = self.cmp("fcmp uno", elem, value, value)
        # As integers: for LLVM one NaN is as good as another, and it drops such a choice.
        integer = integer_of(elem)
        bits = self.sel(bad, integer, self.k(integer, nan), self.bits(elem, integer, value))
        return self.bits(integer, elem, bits)

    def _computed(self, register: Register) -> bool:
        """Whether a float register only ever holds results of arithmetic: what is loaded or moved
        keeps its bits."""
        if self._arithmetic is None:
            written: dict[Register, bool] = {}
            for block in self.flow.blocks:
                for i in block.body:
                    for one in writes(i):
                        written[one] = written.get(one, True) and _is_arithmetic(i)
            self._arithmetic = {r for r, all_ in written.items() if all_ and r.type == "f32"}
        return register in self._arithmetic

    def seen(self, operand: Operand, elem: str, vec: bool) -> str:
        """An operand whose bits are about to be seen, in memory for example."""
        value = self.get(operand, elem, vec)
        if elem != "float" or not isinstance(operand, Register) or not self._computed(operand):
            return value
        before, self.vec = self.vec, vec
        value = self.canonical(elem, value)
        self.vec = before
        return value

    def is_read(self, operand: Operand) -> bool:
        """Whether any instruction reads a register."""
        if self._read is None:
            self._read = {r for b in self.flow.blocks for i in b.body for r in reads(i)}
            self._read |= {b.branch.register for b in self.flow.blocks if b.branch.register}
        return not isinstance(operand, Register) or operand in self._read

    def choose(self, instruction: Instruction, *operands: Operand) -> None:
        """Set `vec` for an instruction that computes its result from operands alone."""
        self.vec = False
        if self.width == 1:
            return
        for register in writes(instruction):
            if self.shapes.of(register).scalar:
                return
        self.vec = any(self.shape(operand).kind != "uniform" for operand in operands)

    def shape(self, operand: Operand) -> Shape:
        """The shape of an operand."""
        if self.width == 1:
            return UNIFORM
        return self.shapes.operand(operand) or UNIFORM

    # Registers and other operands as values.

    def _slot(self, register: Register) -> tuple[str, ...]:
        slots = self._slots.get(register)
        if slots is None:
            slots = tuple(self.alloca(t, "r") for t in self._slot_types(register))
            self._slots[register] = slots
        return slots

    def _slot_types(self, register: Register) -> tuple[str, ...]:
        match self.shapes.of(register).kind:
            case "wide":
                return "i32", "i64"
            case "indexed":
                return self.t("i32", True), "i64"
            case kind:
                return (self.t(storage(register), kind == "varying"),)

    def _stored(self, register: Register) -> tuple[str, ...]:
        """What a register's slots hold."""
        found = self._cache.get(register)
        if found is None:
            slots, types = self._slot(register), self._slot_types(register)
            found = tuple(self.let(f"load {t}, ptr {s}") for t, s in zip(types, slots))
            self._cache[register] = found
        return found

    def wide(self, register: Register) -> tuple[str, str]:
        """The two parts of a wide or indexed register."""
        first, second = self._stored(register)
        return first, second

    def _vector(self, register: Register) -> str:
        """A register as a vector of its storage type."""
        found = self._vectors.get(register)
        if found is not None:
            return found
        shape, elem = self.shapes.of(register), storage(register)
        stored = self._stored(register)
        match shape.kind:
            case "varying":
                return stored[0]
            case "uniform":
                found = self.splat(elem, stored[0])
            case "affine":
                found = self._add_lanes(elem, stored[0], shape)
            case _:
                found = self.wide_vector(shape, stored[0], stored[1])
        self._vectors[register] = found
        return found

    def _add_lanes(self, elem: str, base: str, shape: Shape) -> str:
        vector = self.t(elem, True)
        lanes = self.lanes(elem, shape.lanes)
        return self.let(f"add {vector} {self.splat(elem, base)}, {lanes}")

    def wide_vector(self, shape: Shape, base32: str, base64: str) -> str:
        """All lanes of a wide or indexed value."""
        narrow = base32
        if shape.kind == "wide":
            narrow = self._add_lanes("i32", base32, shape)
        extend = "sext" if shape.signed else "zext"
        type_ = self.t("i64", True)
        value = self.let(f"{extend} {self.t('i32', True)} {narrow} to {type_}")
        if shape.scale != 1:
            value = self.let(f"mul {type_} {value}, splat (i64 {shape.scale})")
        return self.let(f"add {type_} {value}, {self.splat('i64', base64)}")

    def get(self, operand: Operand, elem: str, vec: bool | None = None) -> str:
        """An operand as a value of type `elem`, in the current mode.

        In scalar mode an affine operand is its scalar part. A wider register gives its low bits.
        """
        vec = self.vec if vec is None else vec
        before, self.vec = self.vec, vec
        try:
            return self._get(operand, elem, vec)
        finally:
            self.vec = before

    def _get(self, operand: Operand, elem: str, vec: bool) -> str:
        match operand:
            case Register():
                value = self._vector(operand) if vec else self._scalar(operand)
                kept = storage(operand)
                if kept == "float" and elem != kept and self._computed(operand):
                    value = self.canonical(kept, value)
                return self.convert(kept, elem, value)
            case Immediate():
                return self._immediate(operand, elem)
            case Special():
                value, size = self._special(operand.name, vec)
                return self.convert(f"i{size}", elem, value)
            case Symbol():
                value = self.symbol_value(operand)
                if vec and value.startswith("%"):
                    value = self.splat("i64", value)
                elif vec:
                    value = f"splat (i64 {value})"
                return self.convert("i64", elem, value)
            case Constant(kind="not", operands=(inner,)):
                value = self._get(inner, "i1", vec)
                return self.op("xor", "i1", value, self.k("i1", 1))
            case Constant(kind="sum", operands=(inner, Immediate() as more)):
                integer = integer_of(elem)
                value = self._get(inner, integer, vec)
                value = self.op("add", integer, value, self.k(integer, more.value))
                return self.bits(integer, elem, value)
        self.fail("an operand is not of the expected kind")
        return None

    def _scalar(self, register: Register) -> str:
        shape = self.shapes.of(register)
        stored = self._stored(register)
        if shape.kind == "varying":
            raise AssertionError(f"{register.name} varies, in a scalar operation")
        if shape.kind in ("wide", "indexed"):
            raise AssertionError(f"{register.name} is {shape.kind}, in a scalar operation")
        return stored[0]

    def convert(self, source: str, elem: str, value: str) -> str:
        """Bits of a register as a type that an instruction reads."""
        if source == elem:
            return value
        have, want = bits_of(source), bits_of(elem)
        if have == want:
            if (self.t(source), self.t(elem)) == (self.t(integer_of(elem)), self.t(elem)):
                pass
            return self.bits(source, elem, value)
        if source == "i1" or elem == "i1":
            self.fail("a predicate register and a number do not mix")
        integer = self.bits(source, integer_of(source), value)
        sized = self.resize(integer_of(source), integer_of(elem), integer)
        return self.bits(integer_of(elem), elem, sized)

    def _immediate(self, operand: Immediate, elem: str) -> str:
        inner = elem[4:] if elem[0] == "2" else elem
        if inner == "bfloat" or inner not in BITS:
            if operand.real is not None:
                self.fail(f"a float where {elem} is expected")
            return self.bits_constant(elem, operand.value)
        if operand.real is not None:
            return self.real(elem, operand.real)
        if elem[0] == "2":
            return self.bits_constant(elem, operand.value)
        if operand.bits:
            if operand.bits == bits_of(elem):
                return self.k(elem, operand.value)
            return self.real(elem, _real(operand))
        if elem == "half":
            return self.k(elem, operand.value)
        return self.real(elem, float(operand.value))

    def bits_constant(self, elem: str, value: int) -> str:
        """A constant of any type by its bits."""
        if elem[0] == "2":
            integer = self.k("i32", value)
            return self.bits("i32", elem, integer)
        if elem in BITS:
            text = float_text(value & (1 << bits_of(elem)) - 1, elem)
            return f"splat ({elem} {text})" if self.vec else text
        return self.k(elem, value)

    def _special(self, name: str, vec: bool) -> tuple[str, int]:
        shape = self.shape(Special(name))
        if self.width == 1:
            shape = UNIFORM
        if name.startswith("%tid.") and shape.kind == "varying":
            axis = name[-1]
            return self.at_entry(name + "v", lambda: self._thread_vector("xyz".find(axis))), 32
        value, size = self._special_scalar(name)
        if not vec:
            return value, size
        elem = f"i{size}"
        if shape.kind == "uniform":
            return self.splat(elem, value), size
        return self._add_lanes(elem, value, shape), size

    def forget(self) -> None:
        """Values known in this block are not known in the next."""
        self._cache.clear()
        self._vectors.clear()

    # Results.

    def define(
        self,
        register: Operand,
        elem: str,
        value: str,
        vec: bool | None = None,
        signed: bool = False,
    ) -> None:
        """Write a register; narrower values are extended, wider ones cut."""
        if isinstance(register, Constant) and register.kind == "sink":
            return
        if not isinstance(register, Register):
            self.fail("a result must be a register")
        vec = self.vec if vec is None else vec
        kept = storage(register)
        before, self.vec = self.vec, vec
        if elem != kept:
            if "i1" in (elem, kept):
                self.fail("a predicate register and a number do not mix")
            if elem in _NAN and self.instruction and _is_arithmetic(self.instruction):
                value = self.canonical(elem, value)
            integer = self.bits(elem, integer_of(elem), value)
            sized = self.resize(integer_of(elem), integer_of(kept), integer, signed)
            value = self.bits(integer_of(kept), kept, sized)
        self.vec = before
        shape = self.shapes.of(register)
        if shape.kind in ("wide", "indexed"):
            raise AssertionError(f"{register.name} is {shape.kind}, its definition is not")
        if shape.kind != "varying":
            if vec:
                raise AssertionError(f"{register.name} is a scalar, its definition is not")
            self._store(register, (kept,), (value,))
            return
        if not vec:
            value = self.splat(kept, value)
        vector = self.t(kept, True)
        lanes = None
        if self.shapes.keeps(self.block.index, register):
            lanes = self.active()
        elif self.guard is not None:
            lanes = self.guard
        if lanes is not None:
            (old,) = self._stored(register)
            type_ = self.t("i1", True)
            value = self.let(f"select {type_} {lanes}, {vector} {value}, {vector} {old}")
        self._store(register, (vector,), (value,))

    def define_wide(self, register: Register, base32: str, base64: str) -> None:
        """Write a wide or indexed register."""
        narrow = self.t("i32", self.shapes.of(register).kind == "indexed")
        self._store(register, (narrow, "i64"), (base32, base64))

    def _store(self, register: Register, types: tuple[str, ...], values: tuple[str, ...]) -> None:
        for type_, value, slot in zip(types, values, self._slot(register)):
            self.line(f"store {type_} {value}, ptr {slot}")
        self._cache[register] = values
        self._vectors.pop(register, None)


def _is_arithmetic(instruction: Instruction) -> bool:
    """Whether results that are no numbers are the one NaN; some conversions keep its bits."""
    if instruction.opcode == "cvt":
        return instruction.types[1:] not in (("f64",), ("bf16",))
    return instruction.opcode in _ARITHMETIC


def _real(operand: Immediate) -> float:
    import struct

    code, size = ("<f", 4) if operand.bits == 32 else ("<d", 8)
    value: float = struct.unpack(code, operand.value.to_bytes(size, "little"))[0]
    return value
