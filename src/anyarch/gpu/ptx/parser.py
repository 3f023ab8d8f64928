"""Tokens to a tree: PTX ISA 9.0, chapters 4, 5, 10 and 11.

Names are resolved here, so that what follows works on a flat list of statements: a register, label
or variable that a nested scope declares anew gets a name of its own.
"""

from __future__ import annotations

import re
from typing import Final

from anyarch.gpu.ptx.expressions import Expressions, float_of
from anyarch.gpu.ptx.lexer import Token
from anyarch.gpu.ptx.parameters import element_names, pass_in_memory, register_of
from anyarch.gpu.ptx.tree import (
    SIZES,
    Address,
    Constant,
    Function,
    Immediate,
    Instruction,
    Label,
    Module,
    Operand,
    Pair,
    Prototype,
    Register,
    Special,
    Symbol,
    Targets,
    Variable,
    VectorOperand,
)

__all__ = ["parse"]

_LINKAGE: Final = ("extern", "visible", "weak", "common")
_SPACES: Final = ("global", "const", "shared", "local", "param", "tex")
_ACCESSES: Final = ("ld", "ldu", "st", "atom", "red")
_SPECIAL: Final = re.compile(
    r"%(tid|ntid|ctaid|nctaid|laneid|warpid|nwarpid|smid|nsmid|gridid|is_explicit_cluster|clusterid"
    r"|nclusterid|cluster_ctaid|cluster_nctaid|cluster_ctarank|cluster_nctarank|aggr_smem_size"
    r"|lanemask_(eq|le|lt|ge|gt)|clock|clock_hi|clock64|pm\d(_64)?|envreg\d+|globaltimer(_lo|_hi)?"
    r"|reserved_smem_offset_\w+|total_smem_size|dynamic_smem_size|current_graph_exec)"
)
_ELEMENT: Final = re.compile(r"\.(x|y|z|w|r|g|b|a|b[0-3]+|h[01]+)")
# Directives of entries and functions that take numbers (11.2 to 11.4).
_NUMBERS: Final = (
    *("maxntid", "reqntid", "maxnreg", "minnctapersm", "maxnctapersm", "reqnctapercluster"),
    *("maxclusterrank", "abi_preserve", "abi_preserve_control"),
)
_FLAGS: Final = ("noreturn", "explicitcluster", "blocksareclusters")


def parse(text: str, first_line: int = 1) -> Module:
    """Parse PTX; PtxError says line, column and, in a body, the instruction. Lines are counted from
    `first_line`."""
    return _Parser(text, first_line).module()


class _Scope:
    """Names that a pair of braces declares."""

    def __init__(self) -> None:
        self.names: dict[str, Register | Variable | VectorOperand | str] = {}
        self.ranges: dict[str, tuple[int, str]] = {}  # %r<100>: count and type
        self.suffix = ""


class _Parser(Expressions):
    def __init__(self, text: str, first_line: int) -> None:
        super().__init__(text, first_line)
        self.result = Module((0, 0), (), 64)
        self.function: Function | None = None
        self.scopes: list[_Scope] = []
        self.scope_count = 0
        self.labels: list[tuple[Token, str]] = []
        self.source: tuple[int, int] | None = None
        self.space = ""  # of the variable in the last address

    # Module level.

    def module(self) -> Module:
        self.scopes = [_Scope()]
        if not self.accept(".version"):
            self.fail("PTX begins with .version")
        token = self.next()
        found = re.fullmatch(r"(\d+)\.(\d+)", token.text)
        if not found:
            self.fail("expected a version such as 9.0", token)
        self.result.version = int(found[1]), int(found[2])
        self.expect(".target")
        targets = [self.word("a target").text]
        while self.accept(","):
            targets.append(self.word("a target").text)
        self.result.target = tuple(targets)
        while self.token.kind != "end":
            self.directive()
        return self.result

    def directive(self) -> None:
        token = self.token
        name = token.text[1:] if token.kind == "dot" else ""
        if name == "address_size":
            self.next()
            self.result.address_size = self.integer()
            if self.result.address_size != 64:
                self.fail("only 64-bit addresses are supported", token)
        elif name in (*_LINKAGE, *_SPACES, "func", "entry"):
            linkage = ""
            while self.token.text[1:] in _LINKAGE:
                linkage = self.next().text[1:]
            if self.token.text in (".func", ".entry"):
                self.function_or_entry(linkage)
            else:
                self.variables(linkage)
        elif name == "file":
            self.next()
            number = self.integer()
            self.result.files[number] = self.next().text.strip('"')
            while self.accept(","):
                self.integer()
        elif name == "section":
            self.skip_section()
        elif name in ("loc", "pragma"):
            self.line_directive()
        elif name == "alias":
            self.next()
            alias = self.word("a function")
            self.expect(",")
            target = self.word("a function")
            self.expect(";")
            if target.text not in self.result.functions:
                self.fail(f"no function {target.text!r} to alias", target)
            self.result.functions[alias.text] = self.result.functions[target.text]
        elif token.text == ";":
            self.next()
        elif name in ("version", "target"):
            self.fail(f".{name} may be given once, at the start")
        else:
            self.fail(f"expected a directive, found {token.text!r}")

    def skip_section(self) -> None:
        self.next()
        while self.token.text not in ("{", ""):
            self.next()
        self.expect("{")
        while not self.accept("}"):
            if self.next().kind == "end":
                self.fail("a section without an end")

    def line_directive(self) -> None:
        """`.loc` and `.pragma`."""
        token = self.next()
        if token.text == ".pragma":
            while self.next().text != ";":
                if self.token.kind == "end":
                    self.fail("a pragma without an end")
            return
        file, line = self.integer(), self.integer()
        self.integer()
        if self.accept(","):
            self.expect("function_name")
            self.word("a label")
            if self.accept("+"):
                self.integer()
            self.expect(",")
            self.expect("inlined_at")
            self.integer(), self.integer(), self.integer()
        self.source = file, line

    # Variables.

    def variables(self, linkage: str, where: dict[str, Variable] | None = None) -> None:
        """Declarations of one directive: `.shared .align 4 .b8 a[16], b;`."""
        space = self.next().text[1:].split("::")[0]
        type_, align, vector = self.type_modifiers()
        while True:
            variable = self.declarator(space, type_, align, vector)
            variable.linkage = linkage
            if self.accept("="):
                variable.values = self.initialiser(variable)
            self.declare_variable(variable, where)
            if not self.accept(","):
                break
        self.expect(";")

    def type_modifiers(self) -> tuple[str, int, int]:
        type_, align, vector = "", 0, 1
        pointer = False
        while self.token.kind == "dot":
            token = self.next()
            name = token.text[1:]
            if name == "align":
                number = self.integer()
                if number < 1 or number & number - 1:
                    self.fail(f"an alignment is a power of two, not {number}", token)
                align = align if pointer else number
            elif name == "ptr":
                pointer = True
            elif name in ("v2", "v4", "v8"):
                vector = int(name[1:])
            elif name in SIZES:
                type_ = name
            elif not (pointer and name in _SPACES) and name not in ("attribute", "managed"):
                self.fail(f"expected a type, found {token.text!r}", token)
            if name == "attribute":
                self.skip_parentheses()
        if not type_:
            self.fail("a declaration needs a type")
        return type_, align, vector

    def skip_parentheses(self) -> None:
        self.expect("(")
        depth = 1
        while depth:
            token = self.next()
            if token.kind == "end":
                self.fail("a parenthesis without an end")
            depth += (token.text == "(") - (token.text == ")")

    def declarator(self, space: str, type_: str, align: int, vector: int) -> Variable:
        token = self.word("a name")
        count: int | None = None
        while self.accept("["):
            number = 0 if self.token.text == "]" else self.integer()
            self.expect("]")
            if number < 0:
                self.fail("the size of an array is not negative", token)
            count = number if count is None else count * number
        return Variable(token.text, space, type_, self.place(token), align, vector, count)

    def declare_variable(self, variable: Variable, where: dict[str, Variable] | None) -> None:
        token = self.tokens[self.at - 1]
        if where is None:
            known = self.result.variables.get(variable.name)
            if known is not None and known.linkage != "extern" and variable.linkage != "extern":
                self.fail(f"{variable.name!r} is defined twice", token)
            if known is None or known.linkage == "extern":
                self.result.variables[variable.name] = variable
            self.scopes[0].names[variable.name] = variable
            return
        scope = self.scopes[-1]
        if variable.name in scope.names:
            self.fail(f"{variable.name!r} is declared twice in this scope", token)
        scope.names[variable.name] = variable
        variable.name = self.unique(variable.name, where)
        where[variable.name] = variable

    def unique(self, name: str, taken: dict[str, Variable] | dict[str, Register]) -> str:
        suffix = self.scopes[-1].suffix
        result = name + suffix
        while result in taken:
            result += "'"
        return result

    def initialiser(self, variable: Variable) -> tuple[int | float | Symbol, ...]:
        if self.token.text != "{":
            return (self.initial_value(variable),)
        values: list[int | float | Symbol] = []
        depth = 0
        while True:
            if self.accept("{"):
                depth += 1
            elif self.accept("}"):
                depth -= 1
            elif not self.accept(","):
                values.append(self.initial_value(variable))
            if not depth:
                break
        if variable.count == 0:
            variable.count = len(values) // variable.vector
        limit = variable.vector * (1 if variable.count is None else variable.count)
        if len(values) > limit:
            self.fail(f"{len(values)} values for {limit} elements of {variable.name!r}")
        return tuple(values)

    def initial_value(self, variable: Variable) -> int | float | Symbol:
        token = self.token
        if token.kind == "word" and token.text == "generic":
            self.next()
            self.expect("(")
            symbol = self.word("a variable")
            self.expect(")")
        elif token.kind == "word" and token.text == "mask":
            self.fail("mask() in an initialiser is not supported")
        elif token.kind == "word":
            symbol = self.next()
        else:
            value = self.expression()
            if isinstance(value, float):
                return value
            if token.text[:2] in ("0f", "0F", "0d", "0D") and variable.type[0] == "f":
                bits = 32 if token.text[1] in "fF" else 64
                return float_of(value, bits)
            return value
        offset = 0
        if self.token.text in ("+", "-"):
            sign = 1 if self.next().text == "+" else -1
            offset = sign * self.integer()
        return Symbol(symbol.text, offset)

    # Functions.

    def function_or_entry(self, linkage: str) -> None:
        entry = self.next().text == ".entry"
        self.scopes = [self.scopes[0], _Scope()]
        attributes: dict[str, tuple[int, ...]] = {}
        while self.token.kind == "dot" and self.token.text != ".noreturn":
            token = self.next()
            if token.text != ".attribute":
                self.fail(f"unexpected {token.text!r}", token)
            self.skip_parentheses()
        returns = self.parameter_list() if self.token.text == "(" and not entry else ()
        token = self.word("a function's name")
        parameters = self.parameter_list() if self.token.text == "(" else ()
        function = Function(token.text, entry, returns, parameters, self.place(token), linkage)
        self.function_directives(attributes)
        function.directives = attributes
        known = self.result.functions.get(token.text)
        if known is not None and known.statements is not None and self.token.text == "{":
            self.fail(f"{token.text!r} is defined twice", token)
        if self.accept(";"):
            self.result.functions.setdefault(function.name, function)
            return
        self.result.functions[function.name] = function
        self.body(function)

    def function_directives(self, into: dict[str, tuple[int, ...]]) -> None:
        while self.token.kind == "dot":
            token = self.token
            name = token.text[1:]
            if name in _FLAGS:
                self.next()
                into[name] = ()
            elif name in _NUMBERS:
                self.next()
                numbers = [self.integer()]
                while self.accept(","):
                    numbers.append(self.integer())
                into[name] = tuple(numbers)
            elif name in ("pragma", "loc"):
                self.line_directive()
            else:
                self.fail(f"unexpected {token.text!r} before a body")

    def parameter_list(self) -> tuple[Variable, ...]:
        self.expect("(")
        found: list[Variable] = []
        while not self.accept(")"):
            if found:
                self.expect(",")
            token = self.next()
            if token.text not in (".param", ".reg"):
                self.fail(f"expected .param, found {token.text!r}", token)
            type_, align, vector = self.type_modifiers()
            if self.token.text in (",", ")"):
                found.append(Variable("_", token.text[1:], type_, self.place(token), align, vector))
                continue
            variable = self.declarator(token.text[1:], type_, align, vector)
            if variable.name in self.scopes[-1].names and variable.name != "_":
                self.fail(f"{variable.name!r} is declared twice", token)
            if variable.space == "reg":
                self.scopes[-1].names[variable.name] = register_of(variable)
            else:
                self.scopes[-1].names[variable.name] = variable
            found.append(variable)
        return tuple(found)

    def body(self, function: Function) -> None:
        self.function = function
        function.statements = []
        self.labels = []
        self.source = None
        self.scope_count = 0
        for variable in (*function.returns, *function.parameters):
            if variable.space == "reg":
                found = register_of(variable)
                for register in found.elements if isinstance(found, VectorOperand) else (found,):
                    assert isinstance(register, Register)
                    function.registers[register.name] = register
        opening = self.expect("{")
        self.scopes.append(_Scope())
        self.declare_labels(self.scopes[-1])
        depth = 1
        while depth:
            token = self.token
            if token.kind == "end":
                self.fail("a body without an end", opening)
            if self.accept("{"):
                depth += 1
                self.scope_count += 1
                scope = _Scope()
                scope.suffix = f"@{self.scope_count}"
                self.scopes.append(scope)
                self.declare_labels(scope)
            elif self.accept("}"):
                depth -= 1
                self.scopes.pop()
            else:
                self.statement(function)
        self.in_instruction = None
        self.function = None
        pass_in_memory(function)

    def declare_labels(self, scope: _Scope) -> None:
        """Labels of a scope may be used before they come."""
        depth, at = 0, self.at
        tokens = self.tokens
        while at + 1 < len(tokens):
            text = tokens[at].text
            if text == "{":
                depth += 1
            elif text == "}":
                depth -= 1
                if depth < 0:
                    break
            elif (
                depth == 0
                and text == ":"
                and tokens[at - 1].kind == "word"
                and (
                    tokens[at - 2].text in (";", "{", "}", ":")
                    or tokens[at - 2].line < tokens[at - 1].line  # after .loc, which ends so
                )
            ):
                name = tokens[at - 1].text
                if name in scope.names:
                    self.fail(f"label {name!r} is defined twice", tokens[at - 1])
                scope.names[name] = name + scope.suffix
            at += 1

    def statement(self, function: Function) -> None:
        assert function.statements is not None
        self.in_instruction = None
        token = self.token
        if token.kind == "dot":
            self.body_directive(function)
        elif token.text == ";":
            self.next()
        elif token.kind == "word" and self.tokens[self.at + 1].text == ":":
            self.label(function)
        elif token.kind == "word" or token.text == "@":
            function.statements.append(self.instruction())
        else:
            self.fail(f"expected an instruction, found {token.text!r}")

    def body_directive(self, function: Function) -> None:
        name = self.token.text[1:]
        if name == "reg":
            self.registers(function)
        elif name in ("local", "shared", "param", "const", "global") or name.startswith("shared::"):
            where = function.variables if name not in ("const", "global") else None
            self.variables("", where)
        elif name in ("loc", "pragma"):
            self.line_directive()
        elif name == "section":
            self.skip_section()
        elif name in _LINKAGE:
            self.next()
            self.variables(name, function.variables)
        else:
            self.fail(f"unexpected {self.token.text!r} in a body")

    def registers(self, function: Function) -> None:
        self.next()
        type_, _, vector = self.type_modifiers()
        scope = self.scopes[-1]
        while True:
            token = self.word("a register")
            if vector != 1:
                self.vector_registers(function, token.text, type_, vector)
            elif self.accept("<"):
                number = self.unary()  # an expression would read on at the bracket
                if isinstance(number, float):
                    self.fail("expected a count")
                scope.ranges[token.text] = number, type_
                self.expect(">")
            else:
                if token.text in scope.names:
                    self.fail(f"{token.text!r} is declared twice in this scope", token)
                self.add_register(function, scope, token.text, type_)
            if not self.accept(","):
                break
        self.expect(";")

    def vector_registers(self, function: Function, name: str, type_: str, vector: int) -> None:
        """`a`, or `a<3>`, which is a0 to a2."""
        scope, names = self.scopes[-1], [name]
        if self.accept("<"):
            count = self.unary()
            self.expect(">")
            names = [f"{name}{n}" for n in range(int(count))]
        for one in names:
            elements = [
                self.add_register(function, scope, element, type_)
                for element in element_names(one, vector)
            ]
            scope.names[one] = VectorOperand(tuple(elements))

    def add_register(self, function: Function, scope: _Scope, name: str, type_: str) -> Register:
        suffix = scope.suffix
        unique = name + suffix
        while unique in function.registers:
            unique += "'"
        register = Register(unique, type_)
        function.registers[unique] = register
        scope.names[name] = register
        return register

    def label(self, function: Function) -> None:
        assert function.statements is not None
        token = self.next()
        self.next()
        follows = self.token.text
        if follows in (".branchtargets", ".calltargets"):
            self.next()
            names = [self.target_name(self.word("a label"))]
            while self.accept(","):
                names.append(self.target_name(self.word("a label")))
            self.expect(";")
            unique = str(self.scopes[-1].names[token.text])
            function.targets[unique] = Targets(unique, tuple(names), self.place(token))
        elif follows == ".callprototype":
            self.next()
            self.scopes.append(_Scope())  # its parameters' names mean nothing outside
            returns = self.parameter_list() if self.token.text == "(" else ()
            self.word("_")
            parameters = self.parameter_list() if self.token.text == "(" else ()
            self.function_directives({})
            self.expect(";")
            self.scopes.pop()
            unique = str(self.scopes[-1].names[token.text])
            place = self.place(token)
            function.prototypes[unique] = Prototype(unique, returns, parameters, place)
        else:
            unique = str(self.scopes[-1].names[token.text])
            function.statements.append(Label(unique, self.place(token)))

    def target_name(self, token: Token) -> str:
        found = self.look_up(token.text)
        if isinstance(found, str):
            return found
        if token.text in self.result.functions:
            return token.text
        self.fail(f"no label {token.text!r}", token)
        return None

    # Instructions.

    def instruction(self) -> Instruction:
        first = self.token
        self.in_instruction = first
        guard: Register | None = None
        negated = False
        if self.accept("@"):
            negated = self.accept("!")
            token = self.word("a predicate")
            found = self.look_up(token.text)
            if not isinstance(found, Register) or found.type != "pred":
                self.fail(f"{token.text!r} is no predicate", token)
            guard = found
        opcode = self.word("an instruction")
        modifiers = []
        while self.token.kind == "dot":
            modifiers.append(self.next().text[1:])
        operands: list[Operand] = []
        self.space = ""
        if self.token.text != ";":
            operands.append(self.operand())
            while self.accept(","):
                operands.append(self.operand())
        self.expect(";")
        if opcode.text in _ACCESSES and self.space in _SPACES and not _named_space(modifiers):
            modifiers.insert(0, self.space)  # that of the variable
        result = Instruction(
            opcode.text,
            tuple(modifiers),
            tuple(operands),
            self.place(opcode),
            guard,
            negated,
            self.source,
            self.text_of(first),
        )
        self.in_instruction = None
        return result

    def operand(self) -> Operand:
        token = self.token
        if token.text == "[":
            return self.address()
        if token.text == "{":
            self.next()
            elements: list[Operand] = []
            while not self.accept("}"):
                if elements:
                    self.expect(",")
                elements.append(self.operand())
            return VectorOperand(tuple(elements))
        if token.text == "(" and self.tokens[self.at + 1].kind in ("word", "mark"):
            after = self.tokens[self.at + 1]
            if after.kind == "word" or after.text == ")":
                self.next()
                listed: list[Operand] = []
                while not self.accept(")"):
                    if listed:
                        self.expect(",")
                    listed.append(self.operand())
                return Constant("list", tuple(listed))
        if token.text == "!":
            self.next()
            return Constant("not", (self.operand(),))
        if token.kind == "word" and token.text != "WARP_SZ":
            named = self.named()
            if isinstance(named, Register) and self.token.text in ("+", "-"):
                return Constant("sum", (named, Immediate(self.offset())))
            return named
        return self.immediate()

    def immediate(self) -> Operand:
        negative = self.token.text == "-"
        token = self.tokens[self.at + 1] if negative else self.token
        if token.kind == "number" and token.text[:2] in ("0f", "0F", "0d", "0D"):
            self.at += 1 + negative
            bits = 32 if token.text[1] in "fF" else 64
            value = int(token.text[2:], 16)
            if negative:
                value ^= 1 << bits - 1
            return Immediate(value, bits)
        if token.kind != "number" and token.text not in ("+", "~", "!", "(", "WARP_SZ"):
            self.fail(f"expected an operand, found {token.text or 'the end of the text'!r}", token)
        value_ = self.expression()
        if isinstance(value_, float):
            return Immediate(0, 0, value_)
        return Immediate(value_)

    def named(self) -> Operand:
        token = self.next()
        name = token.text
        result: Operand
        if name == "_":
            result = Constant("sink")
        elif (found := self.look_up(name)) is not None:
            if isinstance(found, Register):
                result = found
            elif isinstance(found, VectorOperand):
                result = found
                if self.token.kind == "dot" and re.fullmatch(r"\.[xyzwrgba]", self.token.text):
                    result = self.element(found, self.next())
            elif isinstance(found, str):
                result = Symbol(found, self.offset())
            else:
                result = Symbol(found.name, self.offset())
        elif name.startswith("%") and _SPECIAL.fullmatch(name):
            if self.token.kind == "dot" and re.fullmatch(r"\.[xyzw]", self.token.text):
                name += self.next().text
            result = Special(name)
        elif name in self.result.functions:
            result = Symbol(name, self.offset())
        else:
            self.fail(f"{name!r} is not declared", token)
        if (
            self.token.kind == "dot"
            and isinstance(result, Register)
            and _ELEMENT.fullmatch(self.token.text)
        ):
            result = Constant("element", (result,), self.next().text[1:])
        if self.accept("|"):
            result = Pair(result, self.operand())
        return result

    def element(self, vector: VectorOperand, token: Token) -> Operand:
        number = (
            "xyzw".find(token.text[1]) if token.text[1] in "xyzw" else "rgba".find(token.text[1])
        )
        if number >= len(vector.elements):
            self.fail(f"the register has {len(vector.elements)} elements", token)
        return vector.elements[number]

    def offset(self) -> int:
        if self.token.text in ("+", "-"):
            sign = 1 if self.next().text == "+" else -1
            return sign * self.integer()
        return 0

    def address(self) -> Operand:
        self.expect("[")
        token = self.token
        base: Register | Symbol | None = None
        offset = 0
        if token.kind == "word":
            self.next()
            found = self.look_up(token.text)
            if isinstance(found, Register):
                base = found
            elif isinstance(found, Variable):
                base = Symbol(found.name)
                self.space = found.space
            elif token.text in self.result.functions:
                base = Symbol(token.text)
            else:
                self.fail(f"{token.text!r} is not declared", token)
            while self.token.text in ("+", "-"):
                offset += self.offset()
        else:
            offset = self.integer()
        if self.accept(","):  # a texture and its coordinates
            rest = [self.operand()]
            while self.accept(","):
                rest.append(self.operand())
            self.expect("]")
            return Constant("texture", (Address(base, offset), *rest))
        self.expect("]")
        return Address(base, offset)

    def look_up(self, name: str) -> Register | Variable | VectorOperand | str | None:
        for scope in reversed(self.scopes):
            found = scope.names.get(name)
            if found is not None:
                return found
            if scope.ranges:
                stem = name.rstrip("0123456789")
                # `%r1<10>` declares %r10 to %r19, so that the stem may end in digits too.
                for cut in range(len(stem), len(name)):
                    declared = scope.ranges.get(name[:cut])
                    number = name[cut:]
                    if declared and int(number) < declared[0] and str(int(number)) == number:
                        assert self.function is not None
                        return self.add_register(self.function, scope, name, declared[1])
        return None


def _named_space(modifiers: list[str]) -> bool:
    return any(m.split("::")[0] in _SPACES for m in modifiers)
