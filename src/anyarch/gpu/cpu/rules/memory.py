"""Loads, stores and what goes with them: PTX ISA 9.0, 9.7.9.8 to 9.7.9.20."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyarch.gpu.cpu.rules import access
from anyarch.gpu.cpu.rules.neighbours import load_neighbours
from anyarch.gpu.cpu.rules.registry import rule
from anyarch.gpu.cpu.shapes import LANES
from anyarch.gpu.cpu.values import elem_of
from anyarch.gpu.cpu.writer import bits_of
from anyarch.gpu.ptx.tree import SIZES, Address, Instruction, Operand, Symbol, VectorOperand

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter


def memory_elem(type_: str) -> str:
    """The LLVM type of an element in memory."""
    if type_ in ("f32", "f64"):
        return elem_of(type_)
    return f"i{max(SIZES[type_], 8)}"


def _elements(operand: Operand) -> tuple[Operand, ...]:
    return operand.elements if isinstance(operand, VectorOperand) else (operand,)


@rule("ld", "ldu")
def ld(e: FunctionEmitter, i: Instruction) -> None:
    """Load one element or a vector of them."""
    d, address = i.operands[:2]
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    type_ = i.types[-1]
    elem = memory_elem(type_)
    targets = _elements(d)
    space = access.space_of(i)
    signed = type_[0] == "s"
    if space == "param" and isinstance(address.base, Symbol):
        slot = e.parameter_slot(address.base.name)
        if slot is not None:
            _load_parameter(e, slot, address, elem, targets, signed)
            return
    if space == "local" and len(targets) > 1 and e.kernel.array_element:
        # The elements of a vector are not neighbours there.
        places = [access.resolve(e, i, _moved(e, address, n), space) for n in range(len(targets))]
        loads = [access.load(e, place, elem, 1) for place in places]
        for target, (vec, values) in zip(targets, loads):
            e.define(target, elem, values[0], vec, signed)
        return
    place = access.resolve(e, i, address, space)
    if e.width > 1 and id(i) not in e.loaded:
        load_neighbours(e, i, place)
    if (known := e.loaded.get(id(i))) is not None:
        e.vec = True
        e.define(targets[0], elem, e.bits("i32", elem, known), True, signed)
        return

    def finish() -> None:
        vec, values = access.load(e, place, elem, len(targets))
        for target, value in zip(targets, values):
            e.define(target, elem, value, vec, signed)

    if place.scalar and e.guard is not None:
        with e.when(e.any_lane(e.active())):
            finish()
    else:
        finish()


@rule("st")
def st(e: FunctionEmitter, i: Instruction) -> None:
    """Store one element or a vector of them."""
    if "async" in i.modifiers:
        e.fail("st.async is not supported")
    address, source = i.operands[:2]
    if not isinstance(address, Address):
        e.fail("expected an address in brackets")
    elem = memory_elem(i.types[-1])
    sources = _elements(source)
    space = access.space_of(i)
    if space == "param" and isinstance(address.base, Symbol):
        slot = e.parameter_slot(address.base.name)
        if slot is not None:
            _store_parameter(e, slot, address, elem, sources)
            return
    if space == "local" and len(sources) > 1 and e.kernel.array_element:
        for n, one in enumerate(sources):
            place = access.resolve(e, i, _moved(e, address, n), space)
            access.store(e, place, elem, [(True, e.seen(one, elem, True))])
        return
    place = access.resolve(e, i, address, space)

    def finish() -> None:
        values = []
        for one in sources:
            vec = e.shape(one).kind != "uniform"
            values.append((vec, e.seen(one, elem, vec)))
        access.store(e, place, elem, values)

    if place.scalar and e.guard is not None:
        with e.when(e.any_lane(e.active())):
            finish()
    else:
        finish()


def _moved(e: FunctionEmitter, address: Address, elements: int) -> Address:
    return Address(address.base, address.offset + elements * e.kernel.array_element)


# Parameters of device functions, on both sides of a call: a scalar is a vector of all lanes, an
# array lies in each lane's own piece.


def _load_parameter(
    e: FunctionEmitter,
    slot: str,
    address: Address,
    elem: str,
    targets: tuple[Operand, ...],
    signed: bool,
) -> None:
    assert isinstance(address.base, Symbol)
    variable = e.variable(address.base.name)
    assert variable is not None
    offset = address.offset + address.base.offset
    vec = e.width > 1
    if variable.count is None and variable.vector == 1:
        whole = memory_elem(variable.type)
        value = e.let(f"load {e.t(whole, vec)}, ptr {slot}")
        if whole != elem:
            before, e.vec = e.vec, vec
            size = bits_of(whole)
            bits = e.bits(whole, f"i{size}", value)
            if offset:
                bits = e.op("lshr", f"i{size}", bits, e.k(f"i{size}", 8 * offset))
            value = e.convert(f"i{size}", elem, bits)
            e.vec = before
        elif offset:
            e.fail("this access lies outside of the parameter")
        e.define(targets[0], elem, value, vec, signed)
        return
    place = access.Access(access.offset_pointer(e, slot, offset))
    if vec:
        place.lanes = tuple(n * variable.nbytes for n in range(LANES))
    vec, values = access.load(e, place, elem, len(targets))
    for target, value in zip(targets, values):
        e.define(target, elem, value, vec, signed)


def _store_parameter(
    e: FunctionEmitter, slot: str, address: Address, elem: str, sources: tuple[Operand, ...]
) -> None:
    assert isinstance(address.base, Symbol)
    variable = e.variable(address.base.name)
    assert variable is not None
    offset = address.offset + address.base.offset
    vec = e.width > 1
    values = [e.seen(one, elem, vec) for one in sources]
    if variable.count is None and variable.vector == 1:
        whole = memory_elem(variable.type)
        (value,) = values
        if offset:
            e.fail("this access lies outside of the parameter")
        if whole != elem:
            before, e.vec = e.vec, vec
            value = e.convert(elem, whole, value)
            e.vec = before
        if vec:
            old = e.let(f"load {e.t(whole, True)}, ptr {slot}")
            lanes = f"<{LANES} x i1> {e.active()}"
            type_ = e.t(whole, True)
            value = e.let(f"select {lanes}, {type_} {value}, {type_} {old}")
        e.line(f"store {e.t(whole, vec)} {value}, ptr {slot}")
        return
    place = access.Access(access.offset_pointer(e, slot, offset))
    if vec:
        place.lanes = tuple(n * variable.nbytes for n in range(LANES))
    access.store(e, place, elem, [(vec, v) for v in values])


@rule(
    "prefetch",
    "prefetchu",
    "discard",
    "applypriority",
    "nanosleep",
    "pmevent",
    "griddepcontrol",
    "setmaxnreg",
)
def hint(e: FunctionEmitter, i: Instruction) -> None:
    """A hint: nothing that a kernel can see."""
