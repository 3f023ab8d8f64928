"""What a definition sees of the machine, and the tracer that records what it does.

``Machine`` has the vocabulary of definitions; a subclass says how a register is read, how an
effect is performed, and what a guard means. The tracer records; ``engine.reference`` performs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from anyarch.errors import DefinitionError
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.graph import Attr, Graph, Node, count_lanes
from anyarch.isa.registers import Layout, RegisterFile

Rounding = int | Literal["dynamic"]
_active = threading.local()


@contextmanager
def when(condition: Bits) -> Iterator[None]:
    """Do what is inside only where ``condition``, one bit, is set. Nests."""
    machine: Machine = _active.machine
    if condition.size != 1:
        raise DefinitionError(f"when() needs a condition of one bit, not {condition.size}")
    outer = machine.enter_guard(condition)
    try:
        yield
    finally:
        machine.leave_guard(outer)


class RegisterView:
    """``m.x[index]`` and ``m.x[index, size]``: reads truncate, writes extend with zeros."""

    __slots__ = ("file", "machine")

    def __init__(self, machine: Machine, file: RegisterFile) -> None:
        self.machine, self.file = machine, file

    def _split(self, key: Bits | int | tuple[Bits | int, int]) -> tuple[Bits, int]:
        index, size = key if isinstance(key, tuple) else (key, self.file.size)
        return (Concrete(index, 8) if isinstance(index, int) else index), size

    def __getitem__(self, key: Bits | int | tuple[Bits | int, int]) -> Bits:
        index, size = self._split(key)
        return self.machine.read_register(self.file, index).trunc(size)

    def __setitem__(self, key: Bits | int | tuple[Bits | int, int], value: Bits | int) -> None:
        index, size = self._split(key)
        if isinstance(value, int):
            value = Concrete(value, size)
        if value.size != size:
            raise DefinitionError(
                f"{self.file.name}[…] takes {size} bits, not {value.size}; extend or truncate"
            )
        self.machine.write_register(self.file, index, value.zext(self.file.size))


class FloatingPoint:
    """``m.fp``: operations on raw bit patterns of a format named f16, bf16, f32, f64.

    Operands wider than the format are lanes, and so is the result (``to_int`` is told the size of
    all, ``from_int`` their number); comparisons then give lanes of ones or zeros.
    Every operation accrues flags. ``rounding`` is 0 nearest-even, 1 towards zero, 2 down, 3 up,
    4 nearest-away, or "dynamic" for the guest's mode (an invalid one is an illegal instruction).
    """

    __slots__ = ("_machine",)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _do(self, op: str, size: int, operands: tuple[Bits, ...], *attrs: Attr) -> Bits:
        result = self._machine.perform(op, size, operands, *attrs)
        assert result is not None
        return result

    def _compare(self, op: str, fmt: str, a: Bits, b: Bits) -> Bits:
        lanes = count_lanes(op, 0, a.size, fmt)
        return self._do(op, 1 if lanes == 1 else a.size, (a, b), fmt)

    def add(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """a + b"""
        return self._do("fadd", a.size, (a, b), fmt, rounding)

    def sub(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """a - b"""
        return self._do("fsub", a.size, (a, b), fmt, rounding)

    def mul(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """a * b"""
        return self._do("fmul", a.size, (a, b), fmt, rounding)

    def div(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """a / b"""
        return self._do("fdiv", a.size, (a, b), fmt, rounding)

    def sqrt(self, fmt: str, a: Bits, rounding: Rounding) -> Bits:
        """Square root."""
        return self._do("fsqrt", a.size, (a,), fmt, rounding)

    def fma(self, fmt: str, a: Bits, b: Bits, c: Bits, rounding: Rounding) -> Bits:
        """a * b + c, rounded once."""
        return self._do("ffma", a.size, (a, b, c), fmt, rounding)

    def convert(self, source: str, target: str, a: Bits, rounding: Rounding) -> Bits:
        """From format ``source`` to format ``target``."""
        lanes = count_lanes("fconvert", 0, a.size, source)
        size = lanes * int(target.lstrip("bf"))
        return self._do("fconvert", size, (a,), source, target, rounding)

    def to_int(self, fmt: str, a: Bits, size: int, signed: bool, rounding: Rounding) -> Bits:
        """To an integer; out of range as the architecture's rules say."""
        return self._do("fto_int", size, (a,), fmt, int(signed), rounding)

    def to_int_modular(self, fmt: str, a: Bits, size: int) -> Bits:
        """To an integer modulo 2**size, towards zero (RISC-V fcvtmod.w.d)."""
        return self._do("fto_int_modular", size, (a,), fmt)

    def from_int(self, fmt: str, a: Bits, signed: bool, rounding: Rounding, lanes: int = 1) -> Bits:
        """From an integer of a's width."""
        return self._do("ffrom_int", lanes * int(fmt[1:]), (a,), fmt, int(signed), rounding)

    def round(self, fmt: str, a: Bits, rounding: Rounding, *, exact: bool) -> Bits:
        """To an integral value; inexact is raised only when ``exact``."""
        return self._do("fround_exact" if exact else "fround", a.size, (a,), fmt, rounding)

    def eq(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """Quiet equality, one bit."""
        return self._compare("feq", fmt, a, b)

    def lt(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """Signaling less than, one bit."""
        return self._compare("flt", fmt, a, b)

    def le(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """Signaling less than or equal, one bit."""
        return self._compare("fle", fmt, a, b)

    def lt_quiet(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """Quiet less than, one bit."""
        return self._compare("flt_quiet", fmt, a, b)

    def le_quiet(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """Quiet less than or equal, one bit."""
        return self._compare("fle_quiet", fmt, a, b)

    def min_number(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """IEEE 754-2019 minimumNumber."""
        return self._do("fmin_number", a.size, (a, b), fmt)

    def max_number(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """IEEE 754-2019 maximumNumber."""
        return self._do("fmax_number", a.size, (a, b), fmt)

    def min(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """IEEE 754-2019 minimum: a NaN operand gives NaN."""
        return self._do("fmin", a.size, (a, b), fmt)

    def max(self, fmt: str, a: Bits, b: Bits) -> Bits:
        """IEEE 754-2019 maximum: a NaN operand gives NaN."""
        return self._do("fmax", a.size, (a, b), fmt)

    def fma_long(self, a: Bits, b: Bits, c: Bits, rounding: Rounding) -> Bits:
        """a * b + c, rounded once: a and b f16, c and the result f32 (Arm FMLAL)."""
        return self._do("ffma_long", 32, (a, b, c), "f16", rounding)

    def bf16_dot(self, a: Bits, b: Bits, c: Bits) -> Bits:
        """c plus the products of two pairs of BFloat16 numbers, by Arm's BFDOT: no flags."""
        return self._do("fbf16_dot", 32, (a, b, c), "f32")

    def to_fixed(
        self, fmt: str, a: Bits, fraction_bits: Bits, size: int, signed: bool, rounding: Rounding
    ) -> Bits:
        """To an integer that counts units of 2**-fraction_bits."""
        return self._do("fto_fixed", size, (a, fraction_bits), fmt, int(signed), rounding)

    def from_fixed(
        self, fmt: str, a: Bits, fraction_bits: Bits, signed: bool, rounding: Rounding
    ) -> Bits:
        """From an integer of a's width that counts units of 2**-fraction_bits."""
        size = int(fmt[1:])
        return self._do("ffrom_fixed", size, (a, fraction_bits), fmt, int(signed), rounding)

    def round_to_size(self, fmt: str, a: Bits, size: int, rounding: Rounding) -> Bits:
        """To an integral value that an integer of ``size`` bits has; else the least (Arm)."""
        return self._do("fround_size", a.size, (a,), fmt, size, rounding)

    def mul_extended(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """a * b; infinity times zero is two (Arm FMULX)."""
        return self._do("fmul_extended", a.size, (a, b), fmt, rounding)

    def reciprocal_step(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """2 - a * b, rounded once (Arm FRECPS)."""
        return self._do("freciprocal_step", a.size, (a, b), fmt, rounding)

    def root_step(self, fmt: str, a: Bits, b: Bits, rounding: Rounding) -> Bits:
        """(3 - a * b) / 2, rounded once (Arm FRSQRTS)."""
        return self._do("froot_step", a.size, (a, b), fmt, rounding)

    def reciprocal_estimate(self, fmt: str, a: Bits, rounding: Rounding) -> Bits:
        """Arm's FRECPE."""
        return self._do("freciprocal_estimate", a.size, (a,), fmt, rounding)

    def root_estimate(self, fmt: str, a: Bits) -> Bits:
        """Arm's FRSQRTE."""
        return self._do("froot_estimate", a.size, (a,), fmt)

    def reciprocal_exponent(self, fmt: str, a: Bits) -> Bits:
        """Arm's FRECPX."""
        return self._do("freciprocal_exponent", a.size, (a,), fmt)

    @property
    def flags(self) -> Bits:
        """Accrued flags, 5 bits: inexact 1, underflow 2, overflow 4, division 8, invalid 16."""
        return self._do("flags", 5, ())

    @flags.setter
    def flags(self, value: Bits) -> None:
        self._machine.perform("set_flags", 0, (value,))

    def set_rounding(self, value: Bits) -> None:
        """Set the dynamic rounding mode; what values above 4 mean is the architecture's."""
        self._machine.perform("set_rounding", 0, (value,))


class Machine:
    """Base of everything a definition can run on."""

    def __init__(self, layout: Layout, nbytes: int) -> None:
        self.layout = layout
        self.nbytes = nbytes
        self.fp = FloatingPoint(self)
        for file in layout.files:
            setattr(self, file.name, RegisterView(self, file))

    def __getattr__(self, name: str) -> RegisterView:
        raise DefinitionError(f"the machine has no register file or operation named {name}")

    # What a subclass provides.
    def read_register(self, file: RegisterFile, index: Bits) -> Bits:
        raise NotImplementedError

    def write_register(self, file: RegisterFile, index: Bits, value: Bits) -> None:
        raise NotImplementedError

    def perform(self, op: str, size: int, operands: tuple[Bits, ...], *attrs: Attr) -> Bits | None:
        raise NotImplementedError

    def enter_guard(self, condition: Bits) -> object:
        raise NotImplementedError

    def leave_guard(self, outer: object) -> None:
        raise NotImplementedError

    @property
    def pc(self) -> Bits:
        """Address of the instruction."""
        raise NotImplementedError

    @property
    def next_pc(self) -> Bits:
        """Address after the instruction."""
        return self.pc + self.nbytes

    # The vocabulary.
    def _value(self, op: str, size: int, operands: tuple[Bits, ...], *attrs: Attr) -> Bits:
        result = self.perform(op, size, operands, *attrs)
        assert result is not None
        return result

    def jump(self, target: Bits) -> None:
        """Continue at ``target``."""
        self.perform("jump", 0, (target,))

    def load(self, address: Bits, size: int, order: str = "plain") -> Bits:
        """``size`` bits from memory, little-endian, any alignment. Order: plain, acquire, seq."""
        return self._value("load", size, (address,), order)

    def store(self, address: Bits, value: Bits, order: str = "plain") -> None:
        """Store the whole value. Order: plain, release, seq."""
        self.perform("store", 0, (address, value), order)

    def amo(self, operation: str, address: Bits, value: Bits, order: str = "seq") -> Bits:
        """Atomic xchg, add, sub, and, or, xor, max, min, umax, umin: the old value.

        The address is a multiple of the size."""
        return self._value("amo", value.size, (address, value), operation, order)

    def compare_exchange(
        self, address: Bits, expected: Bits, new: Bits, order: str = "seq"
    ) -> Bits:
        """Atomic compare and exchange: the old value. The address is a multiple of the size."""
        return self._value("compare_exchange", new.size, (address, expected, new), order)

    def load_reserved(self, address: Bits, size: int) -> Bits:
        """Load and take a reservation. Later accesses wait for it."""
        return self._value("load_reserved", size, (address,))

    def store_conditional(self, address: Bits, value: Bits) -> Bits:
        """Store where the reservation still holds: one bit, set when it stored."""
        return self._value("store_conditional", 1, (address, value))

    def clear_reservation(self) -> None:
        """Give the reservation up."""
        self.perform("clear_reservation", 0, ())

    def fence(self, order: str = "seq_cst") -> None:
        """Order memory accesses: all, or with "acq_rel" all but earlier writes and later reads."""
        self.perform("fence", 0, (), order)

    def exception(self, cause: int, value: Bits | None = None) -> None:
        """Raise a guest exception: no register is written, pc stays."""
        self.perform("exception", 0, (Concrete(0, 64) if value is None else value,), cause)

    def illegal(self) -> None:
        """This operand combination is no instruction."""
        self.exit("illegal")

    def exit(self, name: str) -> None:
        """Leave: illegal, breakpoint (pc at the instruction) or code_changed, halt (past it)."""
        self.perform("exit", 0, (), name)

    def announce_code(self, address: Bits, nbytes: int) -> None:
        """The line of code at an address may have changed; see :meth:`code_announced`."""
        self.perform("announce_code", 0, (address,), nbytes)

    def code_announced(self) -> Bits:
        """One bit: what was translated of announced lines is to go, by the exit code_changed."""
        return self._value("code_announced", 1, ())

    def syscall(self) -> None:
        """System call of the environment; pc is past the instruction when it happens."""
        self.perform("syscall", 0, ())

    def counter(self, name: str) -> Bits:
        """A 64-bit counter: cycle, time, instret."""
        return self._value("counter", 64, (), name)


@contextmanager
def activate(machine: Machine) -> Iterator[None]:
    """Make ``when`` refer to this machine while a definition runs."""
    previous = getattr(_active, "machine", None)
    _active.machine = machine
    try:
        yield
    finally:
        _active.machine = previous


class Tracer(Machine):
    """Records a definition as a graph."""

    def __init__(self, layout: Layout, nbytes: int, name: str) -> None:
        super().__init__(layout, nbytes)
        self.graph = Graph(name)
        self._guard: Node | None = None
        self._writes: list[tuple[str, Node, Node, Node | None]] = []

    @property
    def pc(self) -> Bits:
        return self.graph.pc()

    def enter_guard(self, condition: Bits) -> object:
        outer = self._guard
        node = self.graph.lift(condition)
        self._guard = node if outer is None else self.graph.pure("and", 1, (outer, node))
        return outer

    def leave_guard(self, outer: object) -> None:
        assert outer is None or isinstance(outer, Node)
        self._guard = outer

    def read_register(self, file: RegisterFile, index: Bits) -> Bits:
        node = self.graph.lift(index)
        if node.op == "const" and node.value == file.zero:
            return self.graph.const(0, file.size)
        return self.graph.register(file.name, node, file.size)

    def write_register(self, file: RegisterFile, index: Bits, value: Bits) -> None:
        node = self.graph.lift(index)
        if not (node.op == "const" and node.value == file.zero):
            self._writes.append((file.name, node, self.graph.lift(value), self._guard))

    def perform(self, op: str, size: int, operands: tuple[Bits, ...], *attrs: Attr) -> Bits | None:
        args = tuple(self.graph.lift(operand) for operand in operands)
        node = self.graph.effect(op, size, args, *attrs, guard=self._guard)
        return node if size else None

    def finish(self) -> Graph:
        """The verified graph: register writes after all other effects."""
        for file, index, value, guard in self._writes:
            self.graph.effect("write", 0, (index, value), file, guard=guard)
        self.graph.verify()
        return self.graph
