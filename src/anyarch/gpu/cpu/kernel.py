"""A kernel and all functions that it reaches, as one LLVM module."""

from __future__ import annotations

import math
import re
from dataclasses import astuple
from typing import Final

from anyarch.gpu.cpu.arrays import element_nbytes
from anyarch.gpu.cpu.checker import checker_text
from anyarch.gpu.cpu.entry import FIBRE, blocks_text, rounds_text
from anyarch.gpu.cpu.flow import Flow, reads, writes
from anyarch.gpu.cpu.function import FunctionEmitter, NeedsThreads
from anyarch.gpu.cpu.layout import ModuleLayout
from anyarch.gpu.cpu.lines import Lines
from anyarch.gpu.cpu.outline import Facts
from anyarch.gpu.cpu.polling import observes, polling_loops
from anyarch.gpu.cpu.rounds import is_wait, runs_in_rounds
from anyarch.gpu.cpu.shapes import LANES, BlockShape, block_shape
from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx import signature_of
from anyarch.gpu.ptx.tree import (
    Address,
    Constant,
    Function,
    Instruction,
    Module,
    Operand,
    Symbol,
    Variable,
    VectorOperand,
)
from anyarch.host.cpu import features

__all__ = ["KernelCompiler", "compile_text", "inspect"]

_INLINE: Final = 400  # statements of a function that is merged into its callers
_MANY_ACCESSES: Final = 40  # more of them share their code
_RECORDS_NBYTES: Final = 1 << 19  # of a worker's stack, for what warps keep over barriers
_RECURSION_NBYTES: Final = 1 << 15  # local memory of a thread that calls itself

_WIDE: Final = '"prefer-vector-width"="512" "min-legal-vector-width"="512"'
_TAIL: Final = f"""
attributes #0 = {{ nounwind "no-builtins" {_WIDE} }}
attributes #1 = {{ alwaysinline nounwind "no-builtins" {_WIDE} }}
attributes #2 = {{ noinline nounwind "no-builtins" {_WIDE} }}
!0 = !{{!"branch_weights", i32 1, i32 100000}}
!1 = !{{!"branch_weights", i32 100000, i32 1}}
!2 = !{{}}
"""


def compile_text(
    module: Module,
    layout: ModuleLayout,
    kernel: Function,
    size: tuple[int, int, int],
    threads: bool = False,
    lines: Lines | None = None,
    check: bool = False,
) -> str:
    """LLVM text for blocks of a shape: the kernel as `kernel`, and its `facts`.

    `threads` asks for a flow of control for each thread, `lines`, new ones, for debug information,
    `check` for the checked mode.
    """
    if not threads and not check:
        try:
            compiler = KernelCompiler(module, layout, kernel, block_shape(*size))
            compiler.lines = lines
            return compiler.compile()
        except NeedsThreads:
            if lines is not None:
                lines.instructions.clear()
    compiler = KernelCompiler(module, layout, kernel, block_shape(*size, width=1))
    compiler.lines, compiler.check = lines, check
    return compiler.compile()


def inspect(
    module: Module, layout: ModuleLayout, kernel: Function, size: tuple[int, int, int]
) -> tuple[Facts, str]:
    """Raise PtxError for what cannot be compiled; facts and LLVM text for blocks of a shape."""
    compiler = KernelCompiler(module, layout, kernel, block_shape(*size))
    try:
        text = compiler.compile()
    except NeedsThreads:
        compiler = KernelCompiler(module, layout, kernel, block_shape(*size, width=1))
        text = compiler.compile()
    return compiler.facts, text


class KernelCompiler:
    """What the functions of one kernel share."""

    def __init__(
        self, module: Module, layout: ModuleLayout, kernel: Function, block: BlockShape
    ) -> None:
        self.module, self.layout, self.kernel, self.block = module, layout, kernel, block
        if math.prod(kernel.directives.get("reqnctapercluster", ())) > 1:
            place = kernel.place
            message = f"kernel {kernel.name}: clusters of more than one block are not supported"
            raise PtxError(message, place.line, place.column)
        self.width = block.width
        self.row = _row(block)
        self.lines: Lines | None = None
        self.check = False
        self.declarations: dict[str, str] = {}
        self.avx512 = "avx512f" in features()
        self.address_taken = _address_taken(module)
        self.functions = self._reachable()
        # Whether generic accesses may reach what accesses to the spaces reach.
        bodies = [i for f in self.functions for i in f.statements or ()]
        accesses = sum(isinstance(i, Instruction) and i.opcode in ("ld", "st") for i in bodies)
        self.shares = self.width > 1 and accesses > _MANY_ACCESSES
        self.windows_escape = any(_escapes(f) for f in self.functions)
        self.parameter_offsets = {p.name: p.offset for p in signature_of(kernel).parameters}
        self._waiting: dict[str, bool] = {}
        self._flows: dict[str, Flow] = {}
        self._polling: dict[str, frozenset[int]] = {}
        self._seeing: dict[str, bool] = {}
        self._shared: dict[int, int] = {}
        self.shared, self.dynamic = self._lay_out_shared()
        self._locals: dict[str, dict[str, int]] = {}
        self._frames: dict[str, int] = {}
        for function in self.functions:
            self._lay_out_local(function)
        self._recursive = {f.name for f in self.functions if self._reaches(f, f)}
        local = self._local_nbytes(kernel)
        # Not a power of two: the lanes' memory would fall on the same lines of the cache.
        self.local = local
        self.local_stride = (local + 63) // 64 * 64 + 64 if local else 0
        self.flows = -(-math.prod(block.size) // self.width)
        waits = [f for f in self.functions if self.may_wait(f)]
        polls = any(self.polling_loops(f) or _waits_for_phase(f) for f in self.functions)
        self.rounds = waits == [kernel] and not polls and self.width > 1 and runs_in_rounds(kernel)
        self.fibres = polls or (bool(waits) and not self.rounds)
        if self.width == 1:
            self.fibres = self.fibres or any(_meets(f) for f in self.functions)

        # Size of the elements of arrays that the native function has itself, 0 if it has none.
        self.array_element = 0
        if self.width > 1 and not (self.rounds and local * LANES * self.flows > _RECORDS_NBYTES):
            self.array_element = element_nbytes(self.functions, local)
        if self.array_element:
            self.local_stride = 0

    @property
    def facts(self) -> Facts:
        """What a launch needs to know."""
        nbytes = self.local_stride * self.width * (self.flows if self.rounds else 1)
        return Facts(self.shared, self.dynamic, nbytes, self.local, int(self.fibres), self.width)

    def compile(self) -> str:
        """All functions as text."""
        emitters = [FunctionEmitter(self, f) for f in self.functions]
        parts = [e.text() for e in emitters]
        if self.rounds and emitters[0].record.nbytes * self.flows > 2 * _RECORDS_NBYTES:
            self.rounds, self.fibres = False, True  # no room for what warps keep
            emitters = [FunctionEmitter(self, f) for f in self.functions]
            parts = [e.text() for e in emitters]
        facts = self.facts
        numbers = ", ".join(f"i32 {n}" for n in astuple(facts))
        if self.check:
            parts.append(checker_text(math.prod(self.block.size), facts.local))
        parts.append(self._entry(emitters[0]))
        constant = f"@facts = constant [{len(astuple(facts))} x i32] [{numbers}]"
        return "\n".join([constant, *self.declarations.values(), *parts, _TAIL])

    def _entry(self, emitter: FunctionEmitter) -> str:
        """What is called from outside."""
        if self.fibres:
            text = FIBRE
        elif emitter.rounds is None:
            text = blocks_text(self.flows)
        else:
            local_nbytes = self.local_stride * self.width
            text = rounds_text(emitter.rounds, emitter.record, self.flows, local_nbytes)
        return text if self.lines is None else self._with_lines(text, self.lines)

    @staticmethod
    def _with_lines(text: str, lines: Lines) -> str:
        """Of code that belongs to no instruction, and all debug information."""
        text = text.replace(" #0 {", f" #0 !dbg !{lines.scope('kernel')} {{")
        called = lines.location("kernel", None)
        text = re.sub(r"(call \w+ @body\(.*)", lambda m: m[1] + called, text)
        return text + lines.text()

    def symbol(self, function: Function) -> str:
        """The name of a function in the text."""
        if function is self.kernel:
            return "body"
        return f'"device.{function.name}"'

    def attributes(self, function: Function) -> str:
        """Small functions are merged into their callers."""
        if function is self.kernel:
            return "#1"
        small = len(function.statements or ()) < _INLINE
        return "#1" if small and function.name not in self._recursive else "#2"

    def shared_attributes(self, name: str) -> str:
        """Of a function that many instructions call."""
        return "#2" if self.lines is None else f"#2 !dbg !{self.lines.scope(name)}"

    # What is reached.

    def _reachable(self) -> list[Function]:
        found = {self.kernel.name: self.kernel}
        todo = [self.kernel]
        while todo:
            for callee in self._callees(todo.pop()):
                if callee.name not in found:
                    found[callee.name] = callee
                    todo.append(callee)
        return list(found.values())

    def _callees(self, function: Function) -> list[Function]:
        callees = []
        for statement in function.statements or ():
            if not isinstance(statement, Instruction) or statement.opcode != "call":
                continue
            name = _called(statement)
            if name is None:
                callees += self.address_taken
            elif name in self.module.functions:
                callee = self.module.functions[name]
                if callee.statements is not None:
                    callees.append(callee)
        return callees

    def _reaches(self, start: Function, target: Function) -> bool:
        seen: set[str] = set()
        todo = self._callees(start)
        while todo:
            function = todo.pop()
            if function.name == target.name:
                return True
            if function.name not in seen:
                seen.add(function.name)
                todo += self._callees(function)
        return False

    def may_wait(self, function: Function) -> bool:
        """Whether a function, or one that it calls, waits at a barrier."""
        known = self._waiting.get(function.name)
        if known is None:
            self._waiting[function.name] = False  # while a recursion is looked at
            known = any(
                isinstance(s, Instruction) and is_wait(s) for s in function.statements or ()
            ) or any(self.may_wait(f) for f in self._callees(function))
            self._waiting[function.name] = known
        return known

    def flow_of(self, function: Function) -> Flow:
        """The control flow of a function."""
        found = self._flows.get(function.name)
        if found is None:
            found = self._flows[function.name] = Flow(function)
        return found

    def polling_loops(self, function: Function) -> frozenset[int]:
        """Numbers of the loops that may wait for what another thread writes."""
        found = self._polling.get(function.name)
        if found is None:
            self._polling[function.name] = frozenset()  # while a recursion is looked at
            found = polling_loops(self.flow_of(function), self._observes)
            self._polling[function.name] = found
        return found

    def _observes(self, instruction: Instruction) -> bool:
        """Whether an instruction gives what other threads may have written just now."""
        if instruction.opcode != "call":
            return observes(instruction)
        name = _called(instruction)
        if name is None:
            return True
        callee = self.module.functions.get(name)
        return callee is not None and callee.statements is not None and self._sees(callee)

    def _sees(self, function: Function) -> bool:
        known = self._seeing.get(function.name)
        if known is None:
            self._seeing[function.name] = False  # while a recursion is looked at
            body = [s for s in function.statements or () if isinstance(s, Instruction)]
            known = any(map(self._observes, body))
            self._seeing[function.name] = known
        return known

    # Memory.

    def _lay_out_shared(self) -> tuple[int, int]:
        used = {n for f in self.functions for n in _names(f)}
        variables: list[Variable] = []
        for function in self.functions:
            variables += [v for v in function.variables.values() if v.space == "shared"]
        variables += [
            v for v in self.module.variables.values() if v.space == "shared" and v.name in used
        ]
        end, align = 0, 16
        dynamic = [v for v in variables if v.linkage == "extern" or v.count == 0]
        for variable in variables:
            if variable not in dynamic:
                end += -end % variable.alignment
                self._shared[id(variable)] = end
                end += variable.nbytes
        align = max([16, *(v.alignment for v in dynamic)])
        start = end + -end % align
        for variable in dynamic:
            self._shared[id(variable)] = start
        return end, start

    def shared_offset(self, variable: Variable) -> int:
        """Where a variable lies in the shared window."""
        return self._shared[id(variable)]

    def _lay_out_local(self, function: Function) -> None:
        end = 0
        places = {}
        for variable in function.variables.values():
            if variable.space == "local":
                end += -end % variable.alignment
                places[variable.name] = end
                end += variable.nbytes
        for variable in self.module.variables.values():
            if variable.space == "local" and function.entry:
                end += -end % variable.alignment
                places[variable.name] = end
                end += variable.nbytes
        self._locals[function.name] = places
        self._frames[function.name] = (end + 15) // 16 * 16

    def local_offset(self, function: Function, variable: Variable) -> int:
        """Where a local variable lies in its function's frame."""
        return self._locals[function.name][variable.name]

    def frame_nbytes(self, function: Function) -> int:
        """Local memory of one call of a function."""
        return self._frames[function.name]

    def _local_nbytes(self, function: Function) -> int:
        if self._recursive and any(self._frames.values()):
            return _RECURSION_NBYTES
        if self._recursive:
            return 0
        deepest = max([self._local_nbytes(f) for f in self._callees(function)], default=0)
        return self._frames[function.name] + deepest


def _row(block: BlockShape) -> int:
    """Lanes that are neighbours along x, 0 where that is not worth asking for."""
    across = block.axes[0]
    if across is None:
        return 0
    length = next((n for n in range(1, LANES) if across[n] != n), LANES)
    return min(length, 16) if length >= 4 else 0


def _meets(function: Function) -> bool:
    """Whether the threads of a warp exchange anything."""
    exchanges = (
        *("shfl", "vote", "match", "redux", "elect", "bar", "barrier"),
        *("mma", "wmma", "wgmma", "ldmatrix", "stmatrix", "movmatrix"),
    )
    body = function.statements or ()
    return any(isinstance(s, Instruction) and s.opcode in exchanges for s in body)


def _waits_for_phase(function: Function) -> bool:
    """Whether a function waits at an mbarrier."""
    body = function.statements or ()
    return any(isinstance(s, Instruction) and s.opcode == "mbarrier" for s in body)


def _escapes(function: Function) -> bool:
    """Whether an address of shared or local memory becomes a generic one that is used."""
    body = [s for s in function.statements or () if isinstance(s, Instruction)]
    made = {
        register
        for i in body
        if i.opcode in ("cvta", "mapa") and "to" not in i.modifiers
        if {m.split("::")[0] for m in i.modifiers} & {"shared", "local"}
        for register in writes(i)
    }
    return any(register in made for i in body for register in reads(i))


def _called(instruction: Instruction) -> str | None:
    """The name of the function that a direct call names."""
    operands = list(instruction.operands)
    if isinstance(operands[0], Constant) and len(operands) > 1:
        operands.pop(0)
    return operands[0].name if isinstance(operands[0], Symbol) else None


def _symbols(operand: Operand) -> list[str]:
    match operand:
        case Symbol():
            return [operand.name]
        case Address(base=Symbol() as base):
            return [base.name]
        case VectorOperand(elements=several) | Constant(operands=several):
            return [name for one in several for name in _symbols(one)]
    return []


def _names(function: Function) -> list[str]:
    """All symbols that a function's instructions name."""
    return [
        name
        for s in function.statements or ()
        if isinstance(s, Instruction)
        for operand in s.operands
        for name in _symbols(operand)
    ]


def _address_taken(module: Module) -> list[Function]:
    """Functions whose address is a value somewhere."""
    names = set()
    for function in module.functions.values():
        for statement in function.statements or ():
            if isinstance(statement, Instruction) and statement.opcode != "call":
                for operand in statement.operands:
                    names.update(_symbols(operand))
    for variable in module.variables.values():
        names.update(v.name for v in variable.values if isinstance(v, Symbol))
    return [
        f
        for n, f in module.functions.items()
        if n in names and f.statements is not None and not f.entry
    ]
