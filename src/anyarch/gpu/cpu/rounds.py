"""Kernels whose warps can run in rounds: each from one barrier to the next, in a plain loop.

A barrier for all threads of a block needs no fibres: run every warp as far as its next barrier,
then every warp on from there. What a warp keeps over a barrier lies in a record of its own.
Where warps cannot differ in which barrier comes next, each barrier has a loop of its own, and what
is the same in all warps stays in registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from anyarch.gpu.cpu.flow import CARRY, END, Flow, reads, writes
from anyarch.gpu.cpu.shapes import Shapes
from anyarch.gpu.cpu.writer import bits_of
from anyarch.gpu.ptx.tree import (
    Address,
    Constant,
    Function,
    Immediate,
    Instruction,
    Operand,
    Pair,
    Register,
    Special,
    Symbol,
    VectorOperand,
)

__all__ = ["COMMON_NBYTES", "Record", "Rounds", "is_wait", "runs_in_rounds"]

# What is the same in all warps: as it was when a round began, then as it is when it ends.
COMMON_NBYTES: Final = 1 << 13
_COMMON_SLOT: Final = 16
_ALIGN: Final = 64

# Instructions that give every warp the same where they read the same.
_PURE: Final = frozenset(
    "mov add sub mul mad fma div rem shl shr and or xor not neg abs cvt setp set selp slct min max "
    "lop3 prmt bfe bfi popc clz bfind brev shf sqrt rsqrt rcp ex2 lg2 sin cos sad mul24 mad24 cnot "
    "copysign testp".split()
)
# What takes less to compute again than to keep: so many of these one after another, for scalars
# and for vectors.
_CHEAP: Final = frozenset(
    "mov add sub mul mad shl shr and or xor not setp selp cvt cvta ld".split()
)
_CHEAP_STEPS: Final = 6, 3
# A loop for each barrier has a copy of what follows it; together not more than so many times all.
_COPIES: Final = 4
_SMALL: Final = 2000  # instructions
_SAME: Final = ("%ctaid.", "%ntid.", "%nctaid.", "%nwarpid", "%gridid")
_STEADY: Final = ("%tid.", "%laneid", *_SAME)


def is_wait(instruction: Instruction) -> bool:
    """Whether an instruction waits for other warps."""
    return instruction.opcode in ("bar", "barrier") and not {"warp", "cluster"} & set(
        instruction.modifiers
    )


def runs_in_rounds(function: Function) -> bool:
    """Whether each wait in a function is barrier 0 with all threads of the block, none of them
    between a call and its parameters."""
    body = [s for s in function.statements or () if isinstance(s, Instruction)]
    if not any(is_wait(i) for i in body):
        return False
    passing = False
    waited = False
    for i in body:
        if is_wait(i):
            if passing or not _is_plain(i):
                return False
            waited = True
        elif i.opcode == "call":
            passing = waited = False
        elif i.opcode == "st" and "param" in _spaces(i):
            passing = True
        elif i.opcode == "ld" and "param" in _spaces(i) and waited and _is_result(function, i):
            return False
    return True


def _is_result(function: Function, instruction: Instruction) -> bool:
    address = instruction.operands[1]
    return (
        isinstance(address, Address)
        and isinstance(address.base, Symbol)
        and address.base.name in function.variables
    )


def _is_plain(instruction: Instruction) -> bool:
    if {"red", "arrive"} & set(instruction.modifiers) or len(instruction.operands) != 1:
        return False
    (number,) = instruction.operands
    return isinstance(number, Immediate) and number.value == 0


class Record:
    """Where registers lie over a barrier: in a warp's own record, behind the mask of its lanes, or
    in the one that all warps share."""

    def __init__(self) -> None:
        self._end = _ALIGN
        self._common_end = 0
        self._arrays: int | None = None
        self._places: dict[Register, list[tuple[str, int]]] = {}

    def reserve(self, nbytes: int) -> int:
        """Room for a warp's local arrays: where it is."""
        if self._arrays is None:
            self._end += -self._end % _ALIGN
            self._arrays = self._end
            self._end += nbytes
        return self._arrays

    @property
    def nbytes(self) -> int:
        """Size of a warp's record."""
        return (self._end + _ALIGN - 1) // _ALIGN * _ALIGN

    def places(
        self, register: Register, types: tuple[str, ...], common: bool
    ) -> list[tuple[str, int]]:
        """LLVM type and offset of each part of a register."""
        found = self._places.get(register)
        if found is None:
            found = self._places[register] = []
            for type_ in types:
                if common:
                    found.append((type_, self._common_end))
                    self._common_end += _COMMON_SLOT
                else:
                    nbytes = _nbytes(type_)
                    self._end += -self._end % nbytes
                    found.append((type_, self._end))
                    self._end += nbytes
        return found


def _nbytes(type_: str) -> int:
    """Room for a value, a power of two from 8."""
    count, elem = 1, type_
    if type_[0] == "<":
        number, _, elem = type_[1:-1].partition(" x ")
        count = int(number)
    return max(8, 1 << (max(bits_of(elem) * count // 8, 1) - 1).bit_length())


class Rounds:
    """The barriers of a kernel, numbered from 1; 0 is its start.

    `kept[n]` are registers that are read after barrier n, without those that the instructions
    `renewed[n]` give once more, `full[n]` says that all lanes come to it, `follows[n]` are the
    barriers that may come next (`end` is the kernel's), `common` the registers that are the same in
    all warps; `lockstep` that all warps come to the same barriers.
    """

    def __init__(self, flow: Flow, shapes: Shapes) -> None:
        self.flow, self.shapes = flow, shapes
        self.numbers: dict[int, int] = {}
        places: list[tuple[int, int]] = [(0, -1)]
        for block in flow.blocks:
            for at, instruction in enumerate(block.body):
                if is_wait(instruction):
                    self.numbers[id(instruction)] = len(places)
                    places.append((block.index, at))
        self.end = len(places)
        self.kept = [self._live(*place) for place in places]
        self.renewed: list[list[Instruction]] = [[] for _ in places]
        self._renew()
        self.full = [shapes.block.full and self._gathers(block) for block, _ in places]
        self._spans: list[int] = []
        self.follows = [self._next(*place) for place in places]
        self._varies: set[Register] = set()
        total = sum(len(b.body) + 1 for b in flow.blocks)
        copies = sum(self._spans)
        self.lockstep = self._spread({block for block, _ in places[1:]}) and (
            copies <= max(_COPIES * total, _SMALL)
        )
        same = {
            r
            for kept in self.kept
            for r in kept
            if self.lockstep and r not in self._varies and shapes.of(r).kind == "uniform"
        }
        most = COMMON_NBYTES // 2 // _COMMON_SLOT
        self.common = frozenset(sorted(same, key=flow.number)[:most])

    def _live(self, index: int, at: int) -> list[Register]:
        """Registers that are read after an instruction before they are written."""
        block = self.flow.blocks[index]
        names = {number: register for register, number in self.flow.numbers.items()}
        bits = 0
        for target in block.branch.targets:
            if target != END:
                bits |= self.flow.live_in[target]
        live = {names[n] for n in range(bits.bit_length()) if bits >> n & 1}
        if block.branch.register is not None:
            live.add(block.branch.register)
        for instruction in reversed(block.body[at + 1 :]):
            live -= set(writes(instruction))
            live |= set(reads(instruction))
        return sorted(live, key=self.flow.number)

    def _renew(self) -> None:
        """Find what is computed again after a barrier: what one instruction gives, outside of
        loops, from what likewise never changes."""
        looped = {n for loop in self.flow.loops for n in loop.blocks}
        definitions: dict[Register, Instruction] = {}
        several: set[Register] = set()
        order: dict[int, int] = {}
        for block in self.flow.blocks:
            for instruction in block.body:
                order[id(instruction)] = len(order)
                for register in writes(instruction):
                    if register in definitions or block.index in looped:
                        several.add(register)
                    definitions[register] = instruction
        steady = {r: i for r, i in definitions.items() if r not in several}
        for number, kept in enumerate(self.kept):
            stays: set[Register] = set()
            steps: dict[Register, frozenset[int]] = {}  # what a register takes, by order
            by_order: dict[int, Instruction] = {}
            for register in sorted(kept, key=lambda r: order.get(id(definitions.get(r)), -1)):
                found = _steps(register, steady, order, stays, by_order)
                vector = self.shapes.of(register).kind in ("varying", "indexed")
                if found is None or len(found) > _CHEAP_STEPS[vector]:
                    stays.add(register)
                else:
                    steps[register] = found
            needed = sorted({n for found in steps.values() for n in found})
            self.renewed[number] = [by_order[n] for n in needed]
            self.kept[number] = [r for r in kept if r in stays]

    def _gathers(self, index: int) -> bool:
        """Whether all lanes of a warp come to a block: where they part, they meet again before."""
        return not any(
            index in self.flow.reach(target, self.flow.ipdom[branch])
            for branch in self.shapes.divergent
            for target in self.flow.successors(branch)
        )

    def _next(self, index: int, at: int) -> list[int]:
        """The barriers that may be the first after a place."""
        found: set[int] = set()
        seen: set[int] = set()
        span = 0
        todo = [(index, at + 1)]
        while todo:
            place, start = todo.pop()
            block = self.flow.blocks[place]
            span += len(block.body) + 1 - start
            waits = (self.numbers.get(id(i), 0) for i in block.body[start:])
            number = next((n for n in waits if n), 0)
            if number:
                found.add(number)
                continue
            for target in block.branch.targets:
                if target == END:
                    found.add(self.end)
                elif target not in seen:
                    seen.add(target)
                    todo.append((target, 0))
        self._spans.append(span)
        return sorted(found)

    def _spread(self, waits: set[int]) -> bool:
        """Find registers that warps may differ in; whether no branch on such decides on a wait."""
        branches: set[int] = set()
        masked: set[Register] = set()
        lockstep, changed = True, True
        while changed:
            changed = False
            for block in self.flow.blocks:
                for instruction in block.body:
                    if all(r in self._varies for r in writes(instruction)):
                        continue
                    if self._may_vary(instruction) or masked & set(writes(instruction)):
                        self._varies |= set(writes(instruction))
                        changed = True
                branch = block.branch.register
                if branch is None or block.index in branches:
                    continue
                if branch in self._varies or block.index in self.shapes.divergent:
                    branches.add(block.index)
                    changed = True
                    stop = self.flow.ipdom[block.index]
                    for target in set(block.branch.targets):
                        inside = self.flow.reach(target, stop)
                        lockstep = lockstep and not inside & waits
                        masked |= {
                            r for n in inside for i in self.flow.blocks[n].body for r in writes(i)
                        }
        return lockstep

    def _may_vary(self, instruction: Instruction) -> bool:
        if any(r in self._varies for r in reads(instruction)) or CARRY in reads(instruction):
            return True
        if any(self.shapes.of(r).kind != "uniform" for r in writes(instruction)):
            return True
        if any(not _is_same(o) for o in instruction.operands[1:]):
            return True
        if instruction.opcode == "ld":
            return not {"param", "const"} & set(_spaces(instruction))
        return instruction.opcode not in _PURE


def _steps(
    register: Register,
    steady: dict[Register, Instruction],
    order: dict[int, int],
    kept: set[Register],
    by_order: dict[int, Instruction],
) -> frozenset[int] | None:
    """The instructions that give a register from what is kept, by their order; None if none do."""
    instruction = steady.get(register)
    if instruction is None or instruction.guard is not None or not _is_cheap(instruction):
        return None
    found = {order[id(instruction)]}
    by_order[order[id(instruction)]] = instruction
    for one in reads(instruction):
        if one not in kept:
            more = _steps(one, steady, order, kept, by_order)
            if more is None:
                return None
            found |= more
    return frozenset(found)


def _is_cheap(instruction: Instruction) -> bool:
    if instruction.opcode not in _CHEAP or not isinstance(instruction.operands[0], Register):
        return False
    if CARRY in reads(instruction) or "cc" in instruction.modifiers:
        return False
    if instruction.opcode == "ld":
        place = instruction.operands[1]
        return (
            "param" in _spaces(instruction)
            and isinstance(place, Address)
            and isinstance(place.base, Symbol)
        )
    return all(
        isinstance(o, (Immediate, Register, Symbol))
        or (isinstance(o, Special) and o.name.startswith(_STEADY))
        for o in instruction.operands[1:]
    )


def _spaces(instruction: Instruction) -> Iterator[str]:
    return (m.split("::")[0] for m in instruction.modifiers)


def _is_same(operand: Operand) -> bool:
    """Whether an operand that is no register is the same in all warps."""
    match operand:
        case Special():
            return operand.name.startswith(_SAME)
        case VectorOperand(elements=several) | Constant(operands=several):
            return all(map(_is_same, several))
        case Pair():
            return _is_same(operand.first) and _is_same(operand.second)
    return True
