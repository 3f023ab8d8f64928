"""Calls, barriers, fences, traps: PTX ISA 9.0, 9.7.12, 9.7.13, 9.7.19."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu.flow import END
from anyarch.gpu.cpu.function import NeedsThreads
from anyarch.gpu.cpu.records import (
    ASSERTION,
    LAUNCH,
    OUTPUT_ARGUMENTS,
    OUTPUT_RECORD,
    TRAP,
    WORKER,
)
from anyarch.gpu.cpu.rules import checks
from anyarch.gpu.cpu.rules.access import BARRIER, Access, each_lane, load, store
from anyarch.gpu.cpu.rules.memory import memory_elem
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.rules.warps import meet
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.ptx.tree import (
    Constant,
    Function,
    Instruction,
    Operand,
    Prototype,
    Register,
    Symbol,
    Variable,
    VectorOperand,
)

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

SYNC, ARRIVE, POPC, AND, OR = range(5)


def waits_together(e: FunctionEmitter) -> None:
    """A warp waits as one; that is right only if no lane waits elsewhere in the function."""
    if e.width > 1 and not e.linear.waiting.get(e.block.index, set()) <= {END}:
        raise NeedsThreads


@rule("bar", "barrier")
def bar(e: FunctionEmitter, i: Instruction) -> None:
    """Barriers by number, with counts; bar.warp.sync; reductions."""
    if "warp" in i.modifiers:
        if e.width == 1:
            checks.meet(e, after=False)
            meet(e, e.get(i.operands[0], "i32", False), "0")
            checks.meet(e, after=True)
        else:
            e.line(BARRIER)
        return
    if "cluster" in i.modifiers:
        return  # a cluster of one block
    waits_together(e)
    operands = list(i.operands)
    e.vec = False
    if "red" not in i.modifiers:
        kind = ARRIVE if "arrive" in i.modifiers else SYNC
        number = _scalar(e, operands[0])
        count = _scalar(e, operands[1]) if len(operands) > 1 else "0"
        if e.rounds is not None:
            e.wait(i)
            return
        if (number, count, kind) == ("0", "0", SYNC):
            checks.arrive(e, number, count, kind)
            function = e.load_field("ptr", "worker", WORKER["sync"])
            e.line(f"call void {function}(ptr %worker)")
            return
        _barrier(e, number, count, kind, "0")
        return
    target, number_, *rest = operands
    predicate = rest[-1]
    count = _scalar(e, rest[0]) if len(rest) > 1 else "0"
    vote = e.get(predicate, "i1", e.width > 1)
    kind = next(k for m, k in (("popc", POPC), ("and", AND), ("or", OR)) if m in i.modifiers)
    if e.width == 1:
        value = e.let(f"zext i1 {vote} to i32")
    else:
        active = e.active()
        yes = e.let(f"and {e.t('i1', True)} {vote}, {active}")
        bits = e.mask_bits(yes)
        if kind == POPC:
            value = e.invoke("llvm.ctpop.i32", "i32", [("i32", bits)])
        else:
            wanted = e.mask_bits(active) if kind == AND else "0"
            compare = "eq" if kind == AND else "ne"
            hit = e.let(f"icmp {compare} i32 {bits}, {wanted}")
            value = e.let(f"zext i1 {hit} to i32")
    e.vec = False
    result = _barrier(e, _scalar(e, number_), count, kind, value)
    if kind == POPC:
        e.define(target, "i32", result, False)
    else:
        e.define(target, "i1", e.let(f"icmp ne i32 {result}, 0"), False)


def _scalar(e: FunctionEmitter, operand: Operand) -> str:
    if e.shape(operand).kind != "uniform":
        raise NeedsThreads
    return e.get(operand, "i32", False)


def _barrier(e: FunctionEmitter, number: str, count: str, kind: int, value: str) -> str:
    checks.arrive(e, number, count, kind)
    function = e.load_field("ptr", "worker", WORKER["barrier"])
    operands = f"ptr %worker, i32 {number}, i32 {count}, i32 {kind}, i32 {value}"
    return e.let(f"call i32 {function}({operands})")


@rule("membar", "fence")
def fence(e: FunctionEmitter, i: Instruction) -> None:
    """Order memory: threads of a block share a processor, others need its fence."""
    checks.fence(e)
    local = {"cta", "proxy", "mbarrier_init", "sync_restrict"} & set(i.modifiers)
    e.line(BARRIER if local else "fence seq_cst")


@rule("trap", "brkpt")
def trap(e: FunctionEmitter, i: Instruction) -> None:
    """End the launch with an error."""
    e.leave(TRAP)
    e.label(e.name("dead"))


@rule("call")
def call(e: FunctionEmitter, i: Instruction) -> None:
    """Call a function: direct, one of the runtime's, or through a register."""
    operands = list(i.operands)
    returns: tuple[Operand, ...] = ()
    if isinstance(operands[0], Constant) and len(operands) > 1:
        returns = operands.pop(0).operands  # type: ignore[union-attr]
    target = operands.pop(0)
    arguments: tuple[Operand, ...] = ()
    if operands and isinstance(operands[0], Constant):
        arguments = operands.pop(0).operands  # type: ignore[union-attr]
    if isinstance(target, Symbol):
        function = e.kernel.module.functions.get(target.name)
        if function is None:
            e.fail(f"no function {target.name!r}")
        if function.statements is None:
            _runtime(e, i, function, returns, arguments)
            return
        _direct(e, function, returns, arguments, None)
        return
    if not isinstance(target, Register):
        e.fail("a call goes to a function or a register")
    prototype = None
    if operands and isinstance(operands[0], Symbol):
        prototype = e.function.prototypes.get(operands[0].name)
    _indirect(e, target, prototype, returns, arguments)


def _slot_of(e: FunctionEmitter, operand: Operand, variable: Variable, argument: bool) -> str:
    """Memory in which a parameter passes."""
    if isinstance(operand, Symbol):
        slot = e.parameter_slot(operand.name)
        if slot is not None:
            return slot
    nbytes = max(variable.nbytes, 1) * e.width
    slot = e.alloca(f"[{nbytes} x i8]", "p")
    if argument and isinstance(operand, VectorOperand):
        elem, vec = memory_elem(variable.type), e.width > 1
        values = [(vec, e.get(one, elem, vec)) for one in operand.elements]
        store(e, _pieces(e, slot, variable), elem, values)
    elif argument:
        elem = memory_elem(variable.type)
        vec = e.width > 1
        if isinstance(operand, Register) and operand.type == "pred":
            flag = e.get(operand, "i1", vec)
            value = e.let(f"zext {e.t('i1', vec)} {flag} to {e.t(elem, vec)}")
        else:
            value = e.get(operand, elem, vec)
        e.line(f"store {e.t(elem, vec)} {value}, ptr {slot}")
    return slot


def _pieces(e: FunctionEmitter, slot: str, variable: Variable) -> Access:
    """Each lane's piece of a parameter's memory."""
    place = Access(slot)
    if e.width > 1:
        place.lanes = tuple(n * variable.nbytes for n in range(LANES))
    return place


def _direct(
    e: FunctionEmitter,
    function: Function,
    returns: tuple[Operand, ...],
    arguments: tuple[Operand, ...],
    lanes: str | None,
) -> None:
    if len(returns) != len(function.returns) or len(arguments) != len(function.parameters):
        e.fail(f"{function.name} takes {len(function.parameters)} arguments")
    if e.kernel.may_wait(function):
        waits_together(e)
    slots = [_slot_of(e, o, v, False) for o, v in zip(returns, function.returns)]
    slots += [_slot_of(e, o, v, True) for o, v in zip(arguments, function.parameters)]
    _call(e, function, slots, lanes)
    _fetch(e, returns, function.returns, slots)


def _call(e: FunctionEmitter, function: Function, slots: list[str], lanes: str | None) -> None:
    frame = e.frame()
    size = e.kernel.frame_nbytes(e.function)
    place = str(size) if frame == "0" else e.let(f"add i64 {frame}, {size}")
    if lanes is None:
        lanes = "1" if e.width == 1 else e.mask_bits(e.active())
    operands = ["ptr %worker", "ptr %launch", "ptr %base", f"i64 {place}", f"i32 {lanes}"]
    operands += [f"ptr {slot}" for slot in slots]
    e.line(f"call void @{e.kernel.symbol(function)}({', '.join(operands)})")


def _fetch(
    e: FunctionEmitter,
    returns: tuple[Operand, ...],
    variables: tuple[Variable, ...],
    slots: list[str],
) -> None:
    """Results that go to registers."""
    vec = e.width > 1
    for operand, variable, slot in zip(returns, variables, slots):
        if isinstance(operand, VectorOperand):
            elem = memory_elem(variable.type)
            count = len(operand.elements)
            several, values = load(e, _pieces(e, slot, variable), elem, count)
            for one, value in zip(operand.elements, values):
                e.define(one, elem, value, several)
        elif isinstance(operand, Register):
            elem = memory_elem(variable.type)
            value = e.let(f"load {e.t(elem, vec)}, ptr {slot}")
            if operand.type == "pred":
                elem, value = "i1", e.let(f"trunc {e.t(elem, vec)} {value} to {e.t('i1', vec)}")
            e.define(operand, elem, value, vec)


def _indirect(
    e: FunctionEmitter,
    target: Register,
    prototype: Prototype | None,
    returns: tuple[Operand, ...],
    arguments: tuple[Operand, ...],
) -> None:
    """Compare the handle with those of all functions that the shape fits."""
    candidates = [
        f
        for f in e.kernel.address_taken
        if len(f.returns) == len(returns) and len(f.parameters) == len(arguments)
    ]
    if prototype is not None:
        nbytes = [v.nbytes for v in (*prototype.returns, *prototype.parameters)]
        candidates = [
            f for f in candidates if [v.nbytes for v in (*f.returns, *f.parameters)] == nbytes
        ]
        variables = prototype.returns, prototype.parameters
    elif candidates:
        variables = candidates[0].returns, candidates[0].parameters
    else:
        e.fail("no function can be the target of this call")
    if any(e.kernel.may_wait(f) for f in candidates):
        waits_together(e)
    slots = [_slot_of(e, o, v, False) for o, v in zip(returns, variables[0])]
    slots += [_slot_of(e, o, v, True) for o, v in zip(arguments, variables[1])]
    varying = e.shape(target).kind != "uniform"
    value = e.get(target, "i64", varying)
    bits = "1" if e.width == 1 else e.mask_bits(e.active())
    for function in candidates:
        handle = e.kernel.layout.handles[function.name]
        call_, after = e.name("call"), e.name("next")
        if varying:
            e.vec = True
            equal = e.cmp("icmp eq", "i64", value, e.k("i64", handle))
            lanes = e.let(f"and i32 {e.mask_bits(equal)}, {bits}")
            e.branch(e.let(f"icmp ne i32 {lanes}, 0"), call_, after)
        else:
            lanes = bits
            e.branch(e.let(f"icmp eq i64 {value}, {handle}"), call_, after)
        e.label(call_)
        _call(e, function, slots, lanes)
        e.jump(after)
        e.label(after)
    _fetch(e, returns, variables[0], slots)


# Functions that the runtime of CUDA supplies.


def _runtime(
    e: FunctionEmitter,
    i: Instruction,
    function: Function,
    returns: tuple[Operand, ...],
    arguments: tuple[Operand, ...],
) -> None:
    name = function.name
    slots = [_slot_of(e, o, v, True) for o, v in zip(arguments, function.parameters)]
    results = [_slot_of(e, o, v, False) for o, v in zip(returns, function.returns)]
    vec = e.width > 1
    values = [
        e.let(f"load {e.t(memory_elem(v.type), vec)}, ptr {slot}")
        for v, slot in zip(function.parameters, slots)
        if v.count is None
    ]
    if name == "vprintf":
        _output(e, values, 1)
        one = e.splat("i32", "1") if vec else "1"
        for slot in results:
            e.line(f"store {e.t('i32', vec)} {one}, ptr {slot}")
    elif name in ("__assertfail", "__assert_fail"):
        _output(e, [values[0], values[0]], 2)
        e.leave(ASSERTION)
        e.label(e.name("dead"))
    elif name == "malloc":
        _allocate(e, values[0], results[0])
    elif name in ("free", "cudaDeviceSynchronize"):
        return
    else:
        e.fail(f"function {name!r} is declared but not defined")
    _fetch(e, returns, function.returns, results)


def _per_lane(e: FunctionEmitter, values: list[str], outputs: list[str], body: object) -> list[str]:
    inputs = [("i64", v) for v in values]
    return each_lane(e, e.active(), inputs, outputs, body)  # type: ignore[arg-type]


def _output(e: FunctionEmitter, values: list[str], kind: int) -> None:
    """Write a record per lane for Python to print."""

    def body(lane: str, text: str, arguments: str) -> list[str]:
        counter = e.let(f"getelementptr i8, ptr %launch, i64 {LAUNCH['output_next']}")
        number = e.let(f"atomicrmw add ptr {counter}, i64 1 monotonic")
        size = e.load_field("i64", "launch", LAUNCH["output_size"])
        write, skip = e.name("write"), e.name("skip")
        e.branch(e.let(f"icmp ult i64 {number}, {size}"), write, skip)
        e.label(write)
        start = e.load_field("ptr", "launch", LAUNCH["output"])
        offset = e.let(f"mul i64 {number}, {OUTPUT_RECORD}")
        record = e.let(f"getelementptr i8, ptr {start}, i64 {offset}")
        e.line(f"store i64 {kind}, ptr {record}")

        def put(at: int, type_: str, value: str) -> None:
            place = e.let(f"getelementptr i8, ptr {record}, i64 {at}")
            e.line(f"store {type_} {value}, ptr {place}")

        put(8, "i64", text)
        for axis in range(3):
            put(16 + 4 * axis, "i32", e.load_field("i32", "worker", WORKER["ctaid"] + 4 * axis))
        put(28, "i32", e.warp())
        put(32, "i32", lane)
        target = e.let(f"getelementptr i8, ptr {record}, i64 {OUTPUT_ARGUMENTS}")
        if kind == 1:
            source = e.let(f"getelementptr i8, ptr %base, i64 {arguments}")
            words = f"<{(OUTPUT_RECORD - OUTPUT_ARGUMENTS) // 8} x i64>"
            copied = e.let(f"load {words}, ptr {source}, align 1")
            e.line(f"store {words} {copied}, ptr {target}, align 1")
        e.jump(skip)
        e.label(skip)
        return []

    if e.width == 1:
        e.vec = False
        body("0", values[0], values[1])
    else:
        _per_lane(e, values[:2], [], body)


HEAP_ALIGN: Final = 16


def _allocate(e: FunctionEmitter, size: str, result: str) -> None:
    """malloc: take from the front of the device's heap; memory comes back when the module goes."""

    def body(_: str, nbytes: str) -> list[str]:
        heap = e.load_field("ptr", "launch", LAUNCH["heap"])
        more = e.let(f"add i64 {nbytes}, {2 * HEAP_ALIGN - 1}")
        rounded = e.let(f"and i64 {more}, {-HEAP_ALIGN}")
        end = e.let(f"getelementptr i8, ptr {heap}, i64 8")
        limit = e.let(f"load i64, ptr {end}")
        place = e.let(f"atomicrmw add ptr {heap}, i64 {rounded} monotonic")
        last = e.let(f"add i64 {place}, {rounded}")
        fits = e.let(f"icmp ule i64 {last}, {limit}")
        return [e.let(f"select i1 {fits}, i64 {place}, i64 0")]

    if e.width == 1:
        e.vec = False
        (found,) = body("0", size)
        e.line(f"store i64 {found}, ptr {result}")
    else:
        (found,) = _per_lane(e, [size], ["i64"], body)
        e.line(f"store {e.t('i64', True)} {found}, ptr {result}")
