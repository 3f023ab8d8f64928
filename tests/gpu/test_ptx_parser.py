"""The PTX parser: what it reads, what it says of what it cannot, and that nothing else happens."""

from __future__ import annotations

import os
import random

import pytest

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx import parse, parse_signatures
from anyarch.gpu.ptx.lexer import tokenise
from anyarch.gpu.ptx.tree import Immediate, Instruction, Register, Symbol, VectorOperand

HEAD = ".version 8.3\n.target sm_90, debug\n.address_size 64\n"


def body(text: str) -> list[object]:
    module = parse(HEAD + ".entry k(.param .u64 p) {\n" + text + "\n}")
    statements = module.functions["k"].statements
    assert statements is not None
    return list(statements)


def test_module_directives() -> None:
    module = parse(
        HEAD
        + '.file 1 "a.cu", 123, 456\n'
        + ".visible .global .align 8 .u64 table[2][3] = {{1, 2}, {-1}};\n"
        + ".const .f32 c[] = {0f3F800000, 2.5, 1e3};\n"
        + ".extern .shared .align 16 .b8 dynamic[];\n"
        + ".global .u64 where = table+8;\n.global .u64 g = generic(table);\n"
        + ".weak .func (.param .b32 r) f(.param .b32 a, .param .align 8 .b8 s[24]);\n"
        + '.section .debug_str { .b8 1, 2 }\n.pragma "nounroll";\n'
    )
    assert module.version == (8, 3)
    assert module.target == ("sm_90", "debug")
    assert module.files == {1: "a.cu"}
    table = module.variables["table"]
    assert (table.count, table.values, table.nbytes) == (6, (1, 2, -1), 48)
    assert module.variables["c"].values == (1.0, 2.5, 1000.0)
    assert module.variables["c"].count == 3
    assert module.variables["where"].values == (Symbol("table", 8),)
    assert module.variables["g"].values == (Symbol("table"),)
    assert module.variables["dynamic"].count == 0
    function = module.functions["f"]
    assert function.statements is None
    assert [v.nbytes for v in function.parameters] == [4, 24]


def test_constant_expressions() -> None:
    module = parse(
        HEAD + ".global .s32 a[1+2*3] = { (7-2)<<2, ~0, 0x1F & 0b101, 017, 3 > 2 ? 5 : 6 };"
    )
    variable = module.variables["a"]
    assert variable.count == 7
    assert variable.values == (20, -1, 5, 15, 5)


def test_instructions() -> None:
    statements = body(
        ".reg .b32 %r<5>; .reg .pred p, q; .reg .f32 f; .reg .b64 %rd1;\n"
        "@!p ld.global.v2.u32 {%r1, _}, [%rd1+-8];\n"
        "setp.lt.and.s32 p|q, %r1, %r2, !p;\n"
        "mov.f32 f, 0fBF800000; add.s32 %r3, %r4, -5; mov.u32 %r0, %tid.y;"
    )
    load, compare, move, add, special = statements
    assert isinstance(load, Instruction)
    assert load.guard == Register("p", "pred") and load.negated
    assert load.name == "ld.global.v2.u32"
    assert isinstance(load.operands[0], VectorOperand)
    assert (load.place.line, load.place.column) == (6, 5)
    assert isinstance(compare, Instruction) and len(compare.operands) == 4
    assert isinstance(move, Instruction) and move.operands[1] == Immediate(0xBF800000, 32)
    assert isinstance(add, Instruction) and add.operands[2] == Immediate(-5)
    assert isinstance(special, Instruction) and special.operands[1].name == "%tid.y"


def test_scopes_rename_what_they_hide() -> None:
    statements = body(
        ".reg .b32 a; mov.b32 a, 1; bra done;\n"
        "{ .reg .b32 a; done: mov.b32 a, 2; bra done; }\n"
        "done: mov.b32 a, 3;"
    )
    written = [
        s.operands[0] for s in statements if isinstance(s, Instruction) and s.opcode == "mov"
    ]
    assert written[0] == written[2] != written[1]
    jumps = [s.operands[0] for s in statements if isinstance(s, Instruction) and s.opcode == "bra"]
    assert jumps[0] != jumps[1]


def test_prototypes_and_targets() -> None:
    module = parse(
        HEAD
        + ".entry k() { .reg .b64 %rd; .reg .b32 %r;\n"
        + "proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b64 _);\n"
        + "list: .branchtargets one, two;\n"
        + "brx.idx %r, list;\none: call (%r), %rd, (%r, %rd), proto;\ntwo: ret; }"
    )
    kernel = module.functions["k"]
    assert [v.nbytes for v in kernel.prototypes["proto"].parameters] == [4, 8]
    assert kernel.targets["list"].labels == ("one", "two")


def test_signatures() -> None:
    found = parse_signatures(
        HEAD + ".entry k(.param .u32 a, .param .u64 .ptr .global .align 4 b, "
        ".param .align 16 .b8 s[20], .param .f64 d) { ret; }"
    )
    assert [(p.name, p.offset, p.nbytes) for p in found["k"].parameters] == [
        ("a", 0, 4), ("b", 8, 8), ("s", 16, 20), ("d", 40, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("", "PTX begins with .version", 1, 1),
        (HEAD + ".global .u33 a;", "expected a type, found '.u33'", 4, 9),
        (HEAD + ".entry k() { add.s32 %r1, %r2, 1; }", "'%r1' is not declared", 4, 22),
        (HEAD + ".entry k() {\n  ret\n}", "expected an operand, found '}'", 6, 1),
        (HEAD + ".entry k() { bra nowhere; }", "'nowhere' is not declared", 4, 18),
        (HEAD + ".entry k() { ret; ", "a body without an end", 4, 12),
        (HEAD + ".entry k() { .reg .b32 a; @a ret; }", "'a' is no predicate", 4, 28),
        (HEAD + ".global .u32 a = 1 / 0;", "division by zero", 4, 20),
        (HEAD + "/* no end", "a comment without an end", 4, 1),
        (HEAD + ".entry k() { ` }", "no PTX: '`'", 4, 14),
        (HEAD + ".global .u32 a[2] = {1, 2, 3};", "3 values for 2 elements", 4, 30),
        (HEAD + ".entry k() {} .entry k() {}", "'k' is defined twice", 4, 22),
    ],
)
def test_errors_say_where(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(PtxError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_an_error_in_a_body_shows_the_instruction() -> None:
    with pytest.raises(PtxError, match=r"line 4, column 43: '%x' is not declared") as caught:
        parse(HEAD + ".entry k() { .reg .b32 %r; add.s32 %r, %r, %x; }".replace("%r, %r", "%r,%r"))
    assert caught.value.instruction.startswith("add.s32 %r,%r, %x")


def damaged(text: str, chance: random.Random) -> str:
    """A text with tokens dropped, doubled, swapped or changed."""
    tokens = [t.text for t in tokenise(text)]
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(tokens) - 1)
        match chance.randrange(5):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                tokens[at], tokens[at + 1] = tokens[at + 1], tokens[at]
            case 3:
                tokens[at] = chance.choice(tokens)
            case _:
                tokens[at] = chance.choice(
                    ("{", "}", ";", "[", "%r1", "-", "0x", "9" * 40, ".b8", "@")
                )
    return " ".join(tokens)


def test_damaged_text_gives_an_error_of_ours_or_a_module() -> None:
    path = os.path.join(os.path.dirname(__file__), "kernels.ptx")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    chance = random.Random(3)
    refused = 0
    for _ in range(300):
        try:
            parse(damaged(text, chance))
        except PtxError:
            refused += 1
    assert 100 < refused < 300
