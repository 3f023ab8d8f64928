"""Several modules as one: PTX ISA 9.0, 11.6 (linking directives).

Places of the modules must differ: each is parsed with another first line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import (
    Address,
    Constant,
    Function,
    Instruction,
    Module,
    Operand,
    Pair,
    Symbol,
    Variable,
    VectorOperand,
)

__all__ = ["link"]

_WEAK: Final = ("weak", "common")


def link(modules: Sequence[Module]) -> Module:
    """What each declares as extern is another's visible definition; what has no linkage is each
    module's own. PtxError for what two define. The modules are not to be used any more."""
    if len(modules) == 1:
        return modules[0]
    first = modules[0]
    version = max(module.version for module in modules)
    result = Module(version, first.target, first.address_size)
    for number, module in enumerate(modules):
        _rename(module, number, result)
        files = max(result.files, default=0)
        _renumber_files(module, files)
        result.files |= module.files
        for name, variable in module.variables.items():
            _join(result.variables, name, variable, variable.linkage == "extern", "variable")
        for name, function in module.functions.items():
            _join(result.functions, name, function, function.statements is None, "function")
    return result


def _join(into: dict[str, Any], name: str, new: Any, declared: bool, what: str) -> None:
    """Enter a definition, or a declaration where there is nothing better."""
    known = into.get(name)
    if known is None:
        into[name] = new
        return
    if declared:
        return
    if isinstance(known, Variable):
        weak = known.linkage in ("extern", *_WEAK)
    else:
        weak = known.statements is None or known.linkage == "weak"
    if weak and not (known.linkage in _WEAK and new.linkage in _WEAK):
        into[name] = new
    elif new.linkage not in _WEAK:
        place = new.place
        raise PtxError(f"{what} {name!r} is defined twice", place.line, place.column)


def _is_own(thing: Function | Variable) -> bool:
    """Whether other modules do not see it."""
    if isinstance(thing, Function):
        return not thing.linkage and not thing.entry and thing.statements is not None
    return not thing.linkage


def _rename(module: Module, number: int, others: Module) -> None:
    """Give what is a module's own another name where one of `others` is called the same."""
    taken = others.variables.keys() | others.functions.keys()
    own: dict[str, Function | Variable] = {**module.variables, **module.functions}
    names = {name: f"{name}${number}" for name, one in own.items() if _is_own(one)}
    names = {name: new for name, new in names.items() if name in taken}
    if not names:
        return
    for old, new in names.items():
        one = own[old]
        if one.name == old:  # and no alias
            one.name = new
    module.variables = {names.get(name, name): v for name, v in module.variables.items()}
    module.functions = {names.get(name, name): f for name, f in module.functions.items()}
    for variable in module.variables.values():
        variable.values = tuple(
            replace(v, name=names.get(v.name, v.name)) if isinstance(v, Symbol) else v
            for v in variable.values
        )
    for function in module.functions.values():
        inside = {v.name for v in (*function.parameters, *function.returns)}
        inside |= function.variables.keys()
        seen = {old: new for old, new in names.items() if old not in inside}
        for statement in function.statements or ():
            if isinstance(statement, Instruction):
                statement.operands = tuple(_renamed(o, seen) for o in statement.operands)


def _renamed(operand: Operand, names: dict[str, str]) -> Operand:
    match operand:
        case Symbol() if operand.name in names:
            return replace(operand, name=names[operand.name])
        case Address(base=Symbol() as base) if base.name in names:
            return replace(operand, base=replace(base, name=names[base.name]))
        case VectorOperand():
            return replace(operand, elements=tuple(_renamed(o, names) for o in operand.elements))
        case Constant():
            return replace(operand, operands=tuple(_renamed(o, names) for o in operand.operands))
        case Pair():
            return Pair(_renamed(operand.first, names), _renamed(operand.second, names))
    return operand


def _renumber_files(module: Module, more: int) -> None:
    """Numbers of files that no other module uses."""
    if not more or not module.files:
        return
    module.files = {number + more: name for number, name in module.files.items()}
    for function in {id(f): f for f in module.functions.values()}.values():
        for statement in function.statements or ():
            if isinstance(statement, Instruction) and statement.source is not None:
                file, line = statement.source
                statement.source = file + more, line
