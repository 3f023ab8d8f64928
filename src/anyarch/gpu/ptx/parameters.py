"""Parameters and results of functions that are registers: PTX ISA 9.0, section 7.1."""

from __future__ import annotations

from anyarch.gpu.ptx.tree import (
    Address,
    Function,
    Immediate,
    Instruction,
    Place,
    Register,
    Statement,
    Symbol,
    Variable,
    VectorOperand,
)


def element_names(name: str, count: int) -> list[str]:
    letters = "xyzw" if count <= 4 else "01234567"
    return [f"{name}.{letters[n]}" for n in range(count)]


def register_of(variable: Variable) -> Register | VectorOperand:
    """What a parameter that is a register, or several, is called by."""
    if variable.vector == 1:
        return Register(variable.name, variable.type)
    names = element_names(variable.name, variable.vector)
    return VectorOperand(tuple(Register(name, variable.type) for name in names))


def pass_in_memory(function: Function) -> None:
    """Parameters and results that are registers become `.param`, with loads and stores."""
    registers = [v for v in (*function.returns, *function.parameters) if v.space == "reg"]
    if function.statements is None or not registers:
        return

    def access(opcode: str, variable: Variable, place: Place) -> list[Instruction]:
        register = register_of(variable)
        memory = Address(Symbol(variable.name + ".param"))
        text = f"{opcode}.param of {variable.name}"
        if variable.type != "pred":
            operands = (register, memory) if opcode == "ld" else (memory, register)
            size = (f"v{variable.vector}",) if variable.vector != 1 else ()
            modifiers = ("param", *size, variable.type)
            return [Instruction(opcode, modifiers, operands, place, text=text)]
        number = Register(variable.name + ".byte", "b16")
        function.registers[number.name] = number
        one, zero = Immediate(1), Immediate(0)
        if opcode == "ld":
            return [
                Instruction("ld", ("param", "u8"), (number, memory), place, text=text),
                Instruction("setp", ("ne", "u16"), (register, number, zero), place, text=text),
            ]
        return [
            Instruction("selp", ("b16",), (number, one, zero, register), place, text=text),
            Instruction("st", ("param", "u8"), (memory, number), place, text=text),
        ]

    statements: list[Statement] = []
    for variable in function.parameters:
        if variable in registers:
            statements += access("ld", variable, function.place)
    results = [v for v in function.returns if v in registers]
    for statement in function.statements:
        if isinstance(statement, Instruction) and statement.opcode == "ret":
            for variable in results:
                statements += access("st", variable, statement.place)
        statements.append(statement)
    for variable in results:
        statements += access("st", variable, function.place)
    function.statements = statements
    for variable in registers:
        variable.space, variable.name = "param", variable.name + ".param"
        if variable.type == "pred":
            variable.type = "u8"
