"""The reference engine: runs definitions on concrete values, one instruction at a time.

Slow and obvious: the oracle of every other engine. It shares no code generator with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from anyarch.engine.exits import Exit
from anyarch.errors import MemoryFault
from anyarch.host.context import ExitCode
from anyarch.ir import softfloat
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.graph import FLOATS, ROUNDED, Attr, count_lanes
from anyarch.ir.ops import merge, signed
from anyarch.isa.architecture import Architecture
from anyarch.isa.instruction import Instruction
from anyarch.isa.machine import Machine
from anyarch.isa.registers import RegisterFile, State

FORMATS = {
    "f16": softfloat.F16,
    "bf16": softfloat.BF16,
    "f32": softfloat.F32,
    "f64": softfloat.F64,
}
RULES = {"riscv": softfloat.RISCV, "arm": softfloat.ARM, "x86": softfloat.X86}
EXITS = {
    "illegal": ExitCode.ILLEGAL,
    "breakpoint": ExitCode.BREAKPOINT,
    "halt": ExitCode.HALT,
}
PAST = frozenset({ExitCode.SYSCALL, ExitCode.HALT})


class Memory(Protocol):
    """What the reference engine needs of guest memory; all may raise MemoryFault."""

    def read(self, address: int, nbytes: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def fetch(self, address: int, nbytes: int) -> bytes: ...


class Leave(Exception):
    """Unwinds a definition that does not complete."""

    def __init__(self, code: ExitCode, address: int = 0, detail: int = 0) -> None:
        self.code, self.address, self.detail = code, address, detail


AMO: dict[str, Callable[[int, int, int], int]] = {
    "xchg": lambda a, b, n: b,
    "add": lambda a, b, n: a + b,
    "sub": lambda a, b, n: a - b,
    "and": lambda a, b, n: a & b,
    "or": lambda a, b, n: a | b,
    "xor": lambda a, b, n: a ^ b,
    "max": lambda a, b, n: max(a, b, key=lambda v: signed(v, n)),
    "min": lambda a, b, n: min(a, b, key=lambda v: signed(v, n)),
    "umax": lambda a, b, n: max(a, b),
    "umin": lambda a, b, n: min(a, b),
}


class ConcreteMachine(Machine):
    """Performs what a definition says on a state and a memory."""

    def __init__(self, architecture: Architecture, state: State, memory: Memory) -> None:
        super().__init__(architecture.layout, 0)
        self.architecture, self.state, self.memory = architecture, state, memory
        self.active = True
        self.writes: list[tuple[str, int, int]] = []
        self.target: int | None = None
        self.leave_after: ExitCode | None = None
        self.accrued = 0
        self.reservation: tuple[int, int] | None = None
        self.counters: Callable[[str], int] = lambda name: 0

    def begin(self, nbytes: int) -> None:
        """Prepare for one instruction."""
        self.nbytes = nbytes
        self.active = True
        self.writes.clear()
        self.target = None
        self.leave_after = None
        self.accrued = 0

    @property
    def pc(self) -> Bits:
        return Concrete(self.state.pc, 64)

    def enter_guard(self, condition: Bits) -> object:
        assert isinstance(condition, Concrete)
        outer = self.active
        self.active = outer and condition.value == 1
        return outer

    def leave_guard(self, outer: object) -> None:
        self.active = bool(outer)

    def read_register(self, file: RegisterFile, index: Bits) -> Bits:
        assert isinstance(index, Concrete)
        return Concrete(self.state.get(file.name, index.value), file.size)

    def write_register(self, file: RegisterFile, index: Bits, value: Bits) -> None:
        assert isinstance(index, Concrete) and isinstance(value, Concrete)
        if self.active:
            self.writes.append((file.name, index.value, value.value))

    def perform(self, op: str, size: int, operands: tuple[Bits, ...], *attrs: Attr) -> Bits | None:
        if not self.active:
            return Concrete(0, size) if size else None
        values = [operand.value for operand in operands if isinstance(operand, Concrete)]
        if op in FLOATS:
            return Concrete(self._floats(op, size, operands, values, attrs), size)
        method = getattr(self, f"_{op}")
        result: int | None = method(size, operands, values, attrs)
        return None if result is None else Concrete(result, size)

    # Effects: (result size, operands, their values, attributes) -> value or None.
    def _load(self, size: int, operands: object, v: list[int], attrs: object) -> int:
        return int.from_bytes(self.memory.read(v[0], size // 8), "little")

    def _store(self, size: int, operands: tuple[Bits, ...], v: list[int], attrs: object) -> None:
        nbytes = operands[1].size // 8
        self.memory.write(v[0], v[1].to_bytes(nbytes, "little"))

    def _amo(
        self, size: int, operands: tuple[Bits, ...], v: list[int], attrs: tuple[Attr, ...]
    ) -> int:
        old = self._load(size, operands, v, attrs)
        new = AMO[str(attrs[0])](old, v[1], size) & ((1 << size) - 1)
        self._store(0, operands, [v[0], new], attrs)
        return old

    def _compare_exchange(
        self, size: int, operands: tuple[Bits, ...], v: list[int], attrs: object
    ) -> int:
        old = self._load(size, operands, v, attrs)
        # A failed compare still writes the old value back, as the host's instruction does: the
        # page must be writable either way.
        new = v[2] if old == v[1] else old
        self._store(0, (operands[0], operands[2]), [v[0], new], attrs)
        return old

    def _load_reserved(self, size: int, operands: object, v: list[int], attrs: object) -> int:
        value = self._load(size, operands, v, attrs)
        self.reservation = (v[0], value)
        return value

    def _store_conditional(
        self, _: int, operands: tuple[Bits, ...], v: list[int], attrs: object
    ) -> int:
        held, self.reservation = self.reservation, None
        if held is None or held[0] != v[0]:
            return 0
        size = operands[1].size  # it may be smaller than what was reserved
        if self._load(size, operands, v, attrs) != held[1] & ((1 << size) - 1):
            return 0
        self._store(0, operands, v, attrs)
        return 1

    def _clear_reservation(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        self.reservation = None

    def _fence(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        """One instruction at a time needs no fence."""

    def _jump(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        self.target = v[0]

    def _exception(
        self, size: int, operands: object, v: list[int], attrs: tuple[Attr, ...]
    ) -> None:
        raise Leave(ExitCode.EXCEPTION, v[0], int(attrs[0]))

    def _exit(self, size: int, operands: object, v: list[int], attrs: tuple[Attr, ...]) -> None:
        if attrs[0] == "code_changed":
            return  # nothing of the code is kept here
        code = EXITS[str(attrs[0])]
        if code not in PAST:
            raise Leave(code)
        self.leave_after = code

    def _announce_code(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        """Nothing of the code is kept here."""

    def _code_announced(self, size: int, operands: object, v: list[int], attrs: object) -> int:
        return 0

    def _syscall(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        self.leave_after = ExitCode.SYSCALL

    def _counter(self, size: int, operands: object, v: list[int], attrs: tuple[Attr, ...]) -> int:
        return self.counters(str(attrs[0]))

    def _flags(self, size: int, operands: object, v: list[int], attrs: object) -> int:
        assert self.architecture.float_status is not None
        return self.state.get(*self.architecture.float_status.flags)

    def _set_flags(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        assert self.architecture.float_status is not None
        self.state.set(*self.architecture.float_status.flags, v[0])

    def _set_rounding(self, size: int, operands: object, v: list[int], attrs: object) -> None:
        assert self.architecture.float_status is not None
        self.state.set(*self.architecture.float_status.rounding, v[0])

    def _rounding(self, attr: Attr) -> int:
        if attr != "dynamic":
            return int(attr)
        assert self.architecture.float_status is not None
        mode = self.state.get(*self.architecture.float_status.rounding)
        if self.architecture.float_status.rules == "arm":
            return mode & 3
        if mode > 4:
            raise Leave(ExitCode.ILLEGAL)
        return mode

    def _floats(
        self,
        op: str,
        size: int,
        operands: tuple[Bits, ...],
        v: list[int],
        attrs: tuple[Attr, ...],
    ) -> int:
        """Lane by lane."""
        count = count_lanes(op, size, operands[0].size, str(attrs[0]))
        if count == 1:
            return self._float(op, size, operands, v, attrs)
        is_comparison = op in COMPARISONS
        lane = 1 if is_comparison else size // count
        results = []
        for index in range(count):
            each = tuple(
                operand.extract(index * (operand.size // count), operand.size // count)
                for operand in operands
            )
            values = [operand.value for operand in each if isinstance(operand, Concrete)]
            result = self._float(op, lane, each, values, attrs)
            results.append(-result if is_comparison else result)
        return merge(results, size // count)

    def _float(
        self,
        op: str,
        size: int,
        operands: tuple[Bits, ...],
        v: list[int],
        attrs: tuple[Attr, ...],
    ) -> int:
        status = self.architecture.float_status
        assert status is not None
        rounding = self._rounding(attrs[-1]) if op in ROUNDED else 0
        rules = RULES[status.rules]
        if status.rules == "arm" and (mode := self.state.get(*status.rounding)) > 3:
            rules = self._arm_mode(op, v, attrs, mode)
        result, flags = evaluate_float(op, size, operands, v, attrs, rounding, rules)
        self.accrued |= flags
        return result

    def _arm_mode(
        self, op: str, v: list[int], attrs: tuple[Attr, ...], mode: int
    ) -> softfloat.Rules:
        """The rules in a mode that is more than a rounding mode; flushes operands."""
        fmt = FORMATS[str(attrs[0])]
        target = FORMATS[str(attrs[1])] if op == "fconvert" else fmt
        if op == "fconvert":
            mode &= ~softfloat.ARM_FZ16  # half precision is not flushed in conversions
        if not op.startswith("ffrom") and op != "fbf16_dot":
            count = 1 if op == "fto_fixed" else len(v)
            for index in range(count):
                own = softfloat.F32 if op == "ffma_long" and index == 2 else fmt
                v[index], flag = softfloat.arm_unpack(own, v[index], mode)
                self.accrued |= flag
        if op == "ffma_long":
            target = softfloat.F32
        return softfloat.arm_rules(target, mode)


COMPARISONS = {
    "feq": softfloat.eq_quiet,
    "flt": softfloat.lt_signaling,
    "fle": softfloat.le_signaling,
    "flt_quiet": softfloat.lt_quiet,
    "fle_quiet": softfloat.le_quiet,
}
EXTREMA = {
    "fmin_number": softfloat.minimum_number,
    "fmax_number": softfloat.maximum_number,
    "fmin": softfloat.minimum,
    "fmax": softfloat.maximum,
}


def evaluate_float(
    op: str,
    size: int,
    operands: tuple[Bits, ...],
    v: list[int],
    attrs: tuple[Attr, ...],
    rounding: int,
    rules: softfloat.Rules,
) -> tuple[int, int]:
    """Value and flags of a floating-point effect on concrete operands."""
    fmt = FORMATS[str(attrs[0])]
    if op in COMPARISONS:
        return COMPARISONS[op](fmt, v[0], v[1])
    if op in EXTREMA:
        return EXTREMA[op](fmt, v[0], v[1], rules)
    match op:
        case "fconvert":
            return softfloat.convert(fmt, FORMATS[str(attrs[1])], v[0], rounding, rules)
        case "fto_int":
            return softfloat.to_int(fmt, v[0], size, bool(attrs[1]), rounding, rules)
        case "fto_int_modular":
            return softfloat.to_int_modular(fmt, v[0], size)
        case "ffrom_int":
            return softfloat.from_int(fmt, v[0], operands[0].size, bool(attrs[1]), rounding)
        case "ffma_long":
            return softfloat.fma_long(v[0], v[1], v[2], rounding, rules)
        case "fbf16_dot":
            return softfloat.bf16_dot(v[0], v[1], v[2]), 0
        case "fto_fixed":
            signed_ = bool(attrs[1])
            return softfloat.to_int(fmt, v[0], size, signed_, rounding, rules, fraction_bits=v[1])
        case "ffrom_fixed":
            bits, signed_ = operands[0].size, bool(attrs[1])
            return softfloat.from_int(fmt, v[0], bits, signed_, rounding, v[1], rules.tininess)
        case "fround_size":
            return softfloat.round_to_size(fmt, v[0], int(attrs[1]), rounding, rules)
        case "froot_estimate" | "freciprocal_exponent":
            unrounded: Callable[..., tuple[int, int]] = getattr(softfloat, op[1:])
            return unrounded(fmt, *v, rules)
        case "fround" | "fround_exact":
            exact = op == "fround_exact"
            return softfloat.round_to_integral(fmt, v[0], rounding, exact, rules)
    arithmetic: Callable[..., tuple[int, int]] = getattr(softfloat, op[1:])
    return arithmetic(fmt, *v, rounding, rules)


class Reference:
    """Steps definitions over a state and a memory."""

    def __init__(self, architecture: Architecture, state: State, memory: Memory) -> None:
        self.architecture, self.state, self.memory = architecture, state, memory
        self.machine = ConcreteMachine(architecture, state, memory)
        self.retired = 0
        self.stop = False

    def fetch(self, pc: int) -> tuple[int, Instruction | None]:
        """The word at ``pc`` and its definition; raises MemoryFault with the bad address."""
        lengths = self.architecture.lengths
        shortest = min(row[2] for row in lengths)
        data = self.memory.fetch(pc, shortest)
        nbytes = self.architecture.length(int.from_bytes(data, "little"))
        if nbytes > shortest:
            data += self.memory.fetch(pc + shortest, nbytes - shortest)
        word = int.from_bytes(data, "little")
        return word, self.architecture.decoder.decode(word)

    def step(self) -> Exit | None:
        """Run one instruction; None when it completed and execution goes on."""
        state, machine = self.state, self.machine
        try:
            word, instruction = self.fetch(state.pc)
        except MemoryFault as fault:
            return Exit(ExitCode.FETCH, state.pc, fault.address)
        if instruction is None:
            return Exit(ExitCode.ILLEGAL, state.pc)
        machine.begin(instruction.row.nbytes)
        try:
            instruction.run(machine, word)
        except MemoryFault as fault:
            return Exit(ExitCode.FAULT, state.pc, fault.address, 11)
        except Leave as leave:
            return Exit(leave.code, state.pc, leave.address, leave.detail)
        for file, index, value in machine.writes:
            state.set(file, index, value)
        if machine.accrued and (status := self.architecture.float_status) is not None:
            state.set(*status.flags, state.get(*status.flags) | machine.accrued)
        next_pc = state.pc + machine.nbytes if machine.target is None else machine.target
        state.pc = next_pc & ((1 << 64) - 1)
        self.retired += 1
        if machine.leave_after is not None:
            return Exit(machine.leave_after, state.pc)
        return None

    def run(self, budget: int | None = None) -> Exit:
        """Step until something ends the run or ``budget`` instructions have completed."""
        left = -1 if budget is None else budget
        while left:
            if self.stop:
                return Exit(ExitCode.STOP, self.state.pc)
            ended = self.step()
            if ended is not None:
                return ended
            left -= 1
        return Exit(ExitCode.BUDGET, self.state.pc)
