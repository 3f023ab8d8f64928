"""What an instruction has at hand beside registers: special registers, symbols, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from anyarch.gpu.cpu.records import FIBRE_LOCAL, FIBRE_WARP, LAUNCH, WORKER
from anyarch.gpu.cpu.rounds import COMMON_NBYTES, Record, Rounds
from anyarch.gpu.cpu.shapes import LANES, Shapes
from anyarch.gpu.cpu.writer import Writer
from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import Function, Instruction, Symbol, Variable

if TYPE_CHECKING:
    from anyarch.gpu.cpu.kernel import KernelCompiler

__all__ = ["Frame"]

_MANY: Final = 64
# Fields of a worker that stay while a kernel runs.
_FIXED: Final = {
    WORKER[name]
    for name in ("context", "shared", "leave", "barrier", "pause", "stop", "exchange", "sync")
}


class Frame(Writer):
    """Writes what a function needs once, where it begins, and where memory lies."""

    def __init__(self, kernel: KernelCompiler, function: Function) -> None:
        super().__init__(kernel.declarations, kernel.width)
        self.kernel, self.function = kernel, function
        self.flow = kernel.flow_of(function)
        self.shapes = Shapes(self.flow, kernel.block, kernel.local_stride, function.entry)
        in_rounds = kernel.rounds and function.entry
        self.rounds = Rounds(self.flow, self.shapes) if in_rounds else None
        self.record = Record()
        self.instruction: Instruction | None = None
        self._frame_arrays: str | None = None
        self._entry: list[str] = []
        self._entry_values: dict[str, str] = {}
        self._parameters: dict[str, str] = {}

    def load_field(self, type_: str, base: str, offset: int) -> str:
        """Load from a record (`%worker`, `%launch`)."""
        pointer = self.let(f"getelementptr i8, ptr %{base}, i64 {offset}")
        fixed = base == "launch" or offset in _FIXED
        return self.let(f"load {type_}, ptr {pointer}{', !invariant.load !2' if fixed else ''}")

    def at_entry(self, key: str, build: Callable[[], str]) -> str:
        """A value computed once, where the function begins."""
        found = self._entry_values.get(key)
        if found is None:
            lines, self.lines = self.lines, self._entry
            found = self._entry_values[key] = build()
            self.lines = lines
        return found

    def fail(self, message: str) -> NoReturn:
        """Raise PtxError at the current instruction."""
        raise self._error(message)

    def _error(self, message: str) -> PtxError:
        instruction = self.instruction
        if instruction is None:
            return PtxError(message)
        place = instruction.place
        return PtxError(message, place.line, place.column, instruction.text)

    # Special registers.

    def _special_scalar(self, name: str) -> tuple[str, int]:
        def field(record: str, offset: int, type_: str = "i32") -> str:
            key = f"{record}{offset}"
            return self.at_entry(key, lambda: self.load_field(type_, record, offset))

        stem, _, axis = name[1:].partition(".")
        number = "xyz".find(axis) if axis else 0
        if number < 0:
            return "0", 32
        match stem:
            case "tid":
                return self.at_entry(name, lambda: self._thread(number)), 32
            case "ntid":
                return str(self.kernel.block.size[number]), 32
            case "ctaid" if self.function.entry:
                return f"%block.{axis}", 32
            case "ctaid":
                return field("worker", WORKER["ctaid"] + 4 * number), 32
            case "nctaid":
                return field("launch", LAUNCH["grid"] + 4 * number), 32
            case "laneid":
                return self.lane_id(), 32
            case "warpid":
                return self.at_entry(name, self.warp_number), 32
            case "nwarpid":
                return str(-(-math.prod(self.kernel.block.size) // LANES)), 32
            case "gridid":
                return field("launch", LAUNCH["number"], "i64"), 64
            case "dynamic_smem_size":
                return field("launch", LAUNCH["dynamic"]), 32
            case "total_smem_size":
                return field("launch", LAUNCH["shared"]), 32
            case "clock64" | "globaltimer":
                return self._clock(), 64
            case "clock" | "globaltimer_lo":
                return self.let(f"trunc i64 {self._clock()} to i32"), 32
            case "clock_hi" | "globaltimer_hi":
                high = self.let(f"lshr i64 {self._clock()}, 32")
                return self.let(f"trunc i64 {high} to i32"), 32
            case "envreg1" | "envreg2":  # the address of the workspace of a cooperative launch
                half = LAUNCH["workspace"] + (4 if stem == "envreg1" else 0)
                return field("launch", half), 32
            case "is_explicit_cluster":
                return "false", 1
            case "nsmid" | "nclusterid" | "cluster_nctaid" | "cluster_nctarank":
                return "1", 32
        if stem.startswith("lanemask_"):
            return self._lane_mask(stem[-2:]), 32
        if stem.endswith("_64"):
            return "0", 64
        return "0", 32

    def _clock(self) -> str:
        self.declare("llvm.readcyclecounter", "i64", [])
        return self.let("call i64 @llvm.readcyclecounter()")

    def warp(self) -> str:
        """The number of this flow of control in its block."""
        if self.function.entry:
            return "%warp"
        if not self.kernel.fibres:
            return self.at_entry("warp", lambda: self.load_field("i32", "worker", WORKER["warp"]))
        return self.at_entry("warp", lambda: self._fibre_field("i32", FIBRE_WARP))

    def _fibre_field(self, type_: str, offset: int) -> str:
        fibre = self.load_field("ptr", "worker", WORKER["current"])
        return self.let(
            f"load {type_}, ptr {self.let(f'getelementptr i8, ptr {fibre}, i64 {offset}')}"
        )

    def warp_number(self) -> str:
        """The number of the warp in its block."""
        warp = self.warp()
        return warp if self.width > 1 else self.let(f"lshr i32 {warp}, 5")

    def lane_id(self) -> str:
        """%laneid, of a flow of control that is one thread."""
        if self.width > 1:
            return "0"
        warp = self.warp()
        return self.at_entry("%laneid", lambda: self.let(f"and i32 {warp}, 31"))

    def _lane_mask(self, which: str) -> str:
        if self.width > 1:
            return "0"
        lane = self.lane_id()
        bit = self.let(f"shl i32 1, {lane}")
        below = self.let(f"sub i32 {bit}, 1")
        match which:
            case "eq":
                return bit
            case "lt":
                return below
            case "le":
                return self.let(f"or i32 {bit}, {below}")
            case "ge":
                return self.let(f"xor i32 {below}, -1")
        up_to = self.let(f"or i32 {bit}, {below}")
        return self.let(f"xor i32 {up_to}, -1")

    def _thread(self, axis: int) -> str:
        """The scalar part of %tid."""
        warp = self.warp()
        block = self.kernel.block
        if self.width > 1 and block.zeros[axis] >= _MANY:
            return "0"
        first = warp if self.width == 1 else self.let(f"shl i32 {warp}, 5")
        if axis == 0 and self.width > 1 and block.zeros[1] >= _MANY:
            return first  # a block of one dimension
        sizes = self.kernel.block.size
        if axis == 0:
            return self.let(f"urem i32 {first}, {sizes[0]}")
        rows = self.let(f"udiv i32 {first}, {sizes[0]}")
        if axis == 1:
            return self.let(f"urem i32 {rows}, {sizes[1]}")
        return self.let(f"udiv i32 {rows}, {sizes[1]}")

    def _thread_vector(self, axis: int) -> str:
        """%tid of a block whose lanes follow no pattern."""
        type_ = self.t("i32", True)
        first = self.let(f"shl i32 {self.warp()}, 5")
        numbers = self.lanes("i32", tuple(range(LANES)))
        linear = self.let(f"add {type_} {self.splat('i32', first)}, {numbers}")
        sizes = [f"splat (i32 {n})" for n in self.kernel.block.size]
        if axis == 0:
            return self.let(f"urem {type_} {linear}, {sizes[0]}")
        rows = self.let(f"udiv {type_} {linear}, {sizes[0]}")
        return self.let(f"{'urem' if axis == 1 else 'udiv'} {type_} {rows}, {sizes[1]}")

    # Symbols and memory.

    def frame(self) -> str:
        """This function's place in the local memory of each lane."""
        if self.function.entry:
            return "0"
        return "%frame"

    def symbol_value(self, symbol: Symbol) -> str:
        """The address of a symbol in its own space: a scalar of 64 bits."""
        name, offset = symbol.name, symbol.offset
        variable = self.variable(name)
        if variable is None:
            handle = self.kernel.layout.handles.get(name)
            if handle is None:
                self.fail(f"{name!r} has no address")
            return str(handle + offset)
        match variable.space:
            case "shared":
                return str(self.kernel.shared_offset(variable) + offset)
            case "local":
                place = self.kernel.local_offset(self.function, variable) + offset
                frame = self.frame()
                return str(place) if frame == "0" else self.let(f"add i64 {frame}, {place}")
            case "param":
                if self.function.entry and name in self.kernel.parameter_offsets:
                    return str(self.kernel.parameter_offsets[name] + offset)
                self.fail("the address of a parameter of a device function is not supported")
            case _:
                found = self.kernel.layout.offsets.get(name)
                if found is None:
                    self.fail(f"variable {name!r} is declared but not defined")
                return self.let(f"add i64 {self.module_memory()}, {found + offset}")
        return None

    def variable(self, name: str) -> Variable | None:
        """What a name stands for in this function."""
        found = self.function.variables.get(name)
        if found is not None:
            return found
        for parameter in (*self.function.parameters, *self.function.returns):
            if parameter.name == name:
                return parameter
        return self.kernel.module.variables.get(name)

    def module_memory(self) -> str:
        """Address of the module's variables."""
        return self.at_entry("memory", lambda: self.load_field("i64", "launch", LAUNCH["memory"]))

    def shared_base(self) -> str:
        """Address of the shared window, as a number."""
        return self.at_entry("shared", lambda: self.load_field("i64", "worker", WORKER["shared"]))

    def shared_pointer(self) -> str:
        """Address of the shared window, as a pointer."""
        return self.at_entry("shared.p", lambda: self.load_field("ptr", "worker", WORKER["shared"]))

    def local_base(self) -> str:
        """Address of this warp's local memory, as a number."""
        return self.at_entry("local", lambda: self._local_field("i64"))

    def local_pointer(self) -> str:
        """Address of this warp's local memory, as a pointer."""
        if self.kernel.array_element:
            return self._arrays()
        return self.at_entry("local.p", lambda: self._local_field("ptr"))

    def _arrays(self) -> str:
        """Memory of local arrays: of the frame, or kept over barriers."""
        nbytes = self.kernel.local * LANES
        if self.rounds is not None:
            place = self.record.reserve(nbytes)
            return self.at_entry("arrays", lambda: self.kept_pointer("kept", place))
        if self._frame_arrays is None:
            self._frame_arrays = self.alloca(f"[{nbytes} x i8]", "arrays")
        return self._frame_arrays

    def _local_field(self, type_: str) -> str:
        if self.kernel.fibres:
            return self._fibre_field(type_, FIBRE_LOCAL)
        return self.load_field(type_, "worker", WORKER["local"])

    def parameter_pointer(self) -> str:
        """The kernel's parameters."""
        return self.at_entry(
            "parameters", lambda: self.load_field("ptr", "launch", LAUNCH["parameters"])
        )

    def parameter_slot(self, name: str) -> str | None:
        """Memory of a device function's parameter, or of a call's."""
        found = self._parameters.get(name)
        if found is None:
            variable = self.function.variables.get(name)
            if variable is None or variable.space != "param":
                return None
            nbytes = max(variable.nbytes, 1) * self.width
            found = self._parameters[name] = self.alloca(f"[{nbytes} x i8]", "p")
        return found

    def kept_pointer(self, base: str, place: int) -> str:
        """A place in what a warp, or the block, keeps over barriers."""
        if base == "common.out":
            base, place = "common", place + COMMON_NBYTES // 2
        return self.let(f"getelementptr i8, ptr %{base}, i64 {place}")
