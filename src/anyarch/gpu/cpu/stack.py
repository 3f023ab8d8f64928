"""Memory that a function takes from its stack: alloca, stacksave, stackrestore (PTX ISA 9.0,
9.7.18).

They become instructions on a local variable and a register that says how much of it is in use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.tree import (
    Immediate,
    Instruction,
    Module,
    Operand,
    Register,
    Statement,
    Symbol,
    Variable,
)

__all__ = ["lower_stacks"]

_NBYTES: Final = 16 << 10  # that one call of a function has for each thread
_ALIGNMENT: Final = 128
_OPCODES: Final = ("alloca", "stacksave", "stackrestore")
_MEMORY: Final = "%stack"
_TOP: Final = Register("%stack.top", "u64")
_SIZE: Final = Register("%stack.size", "u64")
_FULL: Final = Register("%stack.full", "pred")


def lower_stacks(module: Module) -> None:
    """Replace them in all functions; PtxError for operands that are not the ISA's."""
    for function in module.functions.values():
        body = function.statements or []
        if not any(isinstance(s, Instruction) and s.opcode in _OPCODES for s in body):
            continue
        if _MEMORY in function.variables:  # an alias of one that is done
            continue
        place = function.place
        function.variables[_MEMORY] = Variable(
            _MEMORY, "local", "b8", place, align=_ALIGNMENT, count=_NBYTES
        )
        begin: list[Statement] = [
            Instruction("mov", ("u64",), (_TOP, Immediate(0)), place),
            Instruction("setp", ("ne", "u64"), (_FULL, _TOP, _TOP), place),
        ]
        function.statements = begin + [new for old in body for new in _lower(old)]


def _lower(statement: Statement) -> list[Statement]:
    if not isinstance(statement, Instruction) or statement.opcode not in _OPCODES:
        return [statement]
    place = statement.place
    count = {"alloca": (2, 3)}.get(statement.opcode, (1,))
    type_ = statement.types[0] if len(statement.types) == 1 else ""
    if type_ not in ("u32", "u64") or len(statement.operands) not in count:
        message = "it takes a type, .u32 or .u64, and its operands"
        raise PtxError(message, place.line, place.column, statement.text)
    made: list[Statement] = []

    def add(opcode: str, modifiers: tuple[str, ...], *operands: Operand) -> None:
        made.append(
            replace(statement, opcode=opcode, modifiers=modifiers, operands=operands),
        )

    to_long, from_long = ("u64", type_), (type_, "u64")
    operand = statement.operands[0]
    if statement.opcode == "stacksave":
        add("cvt", from_long, operand, _TOP)
    elif statement.opcode == "stackrestore":
        add("cvt", to_long, _TOP, operand)
    else:
        size, *rest = statement.operands[1:]
        align = rest[0].value if rest and isinstance(rest[0], Immediate) else 8
        offset = Register("%stack.offset", type_)
        add("add", ("u64",), _TOP, _TOP, Immediate(align - 1))
        add("and", ("b64",), _TOP, _TOP, Immediate(-align))
        add("cvt", from_long, offset, _TOP)
        add("cvt", to_long, _SIZE, size)
        add("mov", (type_,), operand, Symbol(_MEMORY))
        add("add", (type_,), operand, operand, offset)
        add("add", ("u64",), _TOP, _TOP, _SIZE)
        add("setp", ("gt", "u64"), _FULL, _TOP, Immediate(_NBYTES))
        made.append(
            replace(statement, opcode="trap", modifiers=(), operands=(), guard=_FULL, negated=False)
        )
    return made
