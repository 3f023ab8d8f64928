"""The instruction language: other architectures, messages, printing graphs, rewriting them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyarch.errors import DefinitionError
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.ir.bits import Bits, Concrete
from anyarch.ir.graph import Graph, Node
from anyarch.ir.ops import OPS, check_widths
from anyarch.ir.rewrite import RULES, Rule, optimise
from anyarch.isa.architecture import Architecture
from anyarch.isa.assembly import assemble, disassemble
from anyarch.isa.decoder import find_overlaps
from anyarch.isa.instruction import Form, InstructionSet, Kind
from anyarch.isa.machine import Machine, Tracer, when
from anyarch.isa.registers import Layout, RegisterFile, State
from tests.graph_evaluator import World, value_of
from tests.language_guests import ARM, X86
from tests.vectors_format import CODE, ENGINES, PAGE, check, parse

SAMPLES = {"arm": ARM, "x86": X86}
CASES = {
    "arm": """
        adds x, x0, x1, x2, lsl 3 | x1=1 x2=2 => x0=17 nzcv=0
        adds x, x0, x1, x1, lsl 0 | x1=0x8000000000000000 => x0=0 nzcv=7
        adds x, x0, x1, x2, asr 63 | x1=0 x2=-1 => x0=-1 nzcv=8
        adds x, x0, x1, x2, lsr 1 | x1=0x7fffffffffffffff x2=2 => x0=0x8000000000000000 nzcv=9
        adds w, x0, x1, x2, lsl 0 | x1=0xffffffff x2=0xabcd00000001 => x0=0 nzcv=6
        adds w, x0, x0, x0, asr 31 | x0=0x80000000 => x0=0x7fffffff nzcv=3
        adds w, x0, x1, x2, lsl 32 | => illegal
        adds x, xzr, x1, xzr, lsl 0 | x1=-5 => nzcv=8
        csel x, x0, x1, x2, eq | x1=1 x2=2 nzcv=4 => x0=1
        csel x, x0, x1, x2, ne | x1=1 x2=2 nzcv=4 => x0=2
        csel w, x0, x1, x2, hi | x1=0xffffffff00000001 x2=2 nzcv=2 => x0=1
        csel x, x0, x1, x2, gt | x1=1 x2=2 nzcv=9 => x0=1
        csel x, x0, x1, xzr, lt | x1=1 nzcv=9 => x0=0
        csel x, x0, x1, x2, nv | x1=1 x2=2 nzcv=0 => x0=1
        add v0.16b, v1.16b, v2.16b | v1=0xff01ff01ff01ff01ff01ff01ff01ff01 \
            v2=0x02020202020202020202020202020202 => v0=0x01030103010301030103010301030103
        add v0.2s, v1.2s, v2.2s | v1=0x1111111111111111ffffffff00000001 v2=0x200000002 \
            => v0=0x0000000100000003
        add v3.2d, v3.2d, v3.2d | v3=0x80000000000000010000000000000003 \
            => v3=0x00000000000000020000000000000006
        0x4ee28420 | v1=1 v2=2 nzcv=0 => v0=3
        0x0ee28420 | => illegal
    """,
    "x86": """
        add rax, rcx | rax=1 rcx=2 => rax=3 cf=0 pf=1 af=0 zf=0 sf=0 of=0
        add r15, r8 | r15=-1 r8=1 => r15=0 cf=1 pf=1 af=1 zf=1 sf=0 of=0
        add rdx, rdx | rdx=0x4000000000000008 => rdx=0x8000000000000010 cf=0 pf=0 af=1 zf=0 \
            sf=1 of=1
        mov eax, 0x12345678 | => rax=0x12345678
        mov edi, 0xffffffff | rdi=-1 => rdi=0xffffffff
        rep movsb | rcx=1 rsi=0x1000 rdi=0x1010 [0x1000:1]=0xaa \
            => rcx=0 rsi=0x1001 rdi=0x1011 [0x1010:1]=0xaa
        rep movsb | rcx=3 rsi=0x1fff rdi=0x2000 [0x1fff:2]=0xaa \
            => rcx=2 rsi=0x2000 rdi=0x2001 [0x2000:1]=0xaa pc=0
        rep movsb | rcx=0 rsi=0x9000 rdi=0x9000 =>
        rep movsb | rcx=5 rsi=0x1000 rdi=0x9000 [0x1000:1]=1 => fault 0x9000
        rep movsb | rcx=5 rsi=0x9000 rdi=0x1000 [0x1000:1]=1 => fault 0x9000
    """,
}
LINES = [
    (guest, line.strip())
    for guest, text in CASES.items()
    for line in text.replace("\\\n", "").splitlines()
    if line.strip()
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("guest", "line"), LINES)
def test_other_architectures(guest: str, line: str, engine: str) -> None:
    assert check(SAMPLES[guest], parse(line, guest), ENGINES[engine]) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_repeated_instruction(engine: str) -> None:
    """A whole copy: the instruction jumps to itself, then ends."""
    code = assemble(X86, "rep movsb")
    data = bytes(range(1, 101)).ljust(PAGE, b"\0")
    machine = ENGINES[engine](X86, {CODE: code.ljust(PAGE, b"\0"), 0x1000: data})
    for name, value in {"rcx": 100, "rsi": 0x1000, "rdi": 0x1800}.items():
        found = X86.layout.find(name)
        assert found is not None
        machine.state.set(*found, value)
    machine.state.pc = CODE
    machine.run(100)
    assert machine.state.pc == CODE + 2
    assert machine.state.get("r", 1) == 0
    assert machine.read(0x1800, 101) == data[:101]


@pytest.mark.parametrize(
    ("guest", "text", "code"),
    [
        ("arm", "adds x, x0, x1, x2, lsl 3", "200c02ab"),
        ("arm", "csel w, x3, x4, xzr, ge", "83a09f1a"),
        ("arm", "add v0.4s, v1.4s, v2.4s", "2084a24e"),
        ("x86", "add rax, rcx", "4801c8"),
        ("x86", "add r9, rbx", "4901d9"),
        ("x86", "add rbp, r14", "4c01f5"),
        ("x86", "mov esi, 0x12345678", "be78563412"),
        ("x86", "rep movsb", "f3a4"),
    ],
)
def test_text_of_other_architectures(guest: str, text: str, code: str) -> None:
    """Both ways; the bytes are the manuals'."""
    architecture = SAMPLES[guest]
    assert assemble(architecture, text).hex() == code
    (line,) = disassemble(architecture, bytes.fromhex(code))
    assert line.text == text
    assert find_overlaps(architecture.isa.instructions) == []


# Messages.
X = Layout((RegisterFile("x", 4, 64),))


def own(row: str = "00000000", text: str = "a", **options: str) -> Callable[..., object]:
    """A decorator of a new instruction set."""
    return InstructionSet("sample", {"rd": Kind(2, file="x"), "imm": Kind(size=64)}).insn(
        row, text, **options
    )


def a(m: Machine, **fields: Bits) -> None:
    """Do nothing."""


def traced(definition: Callable[[Machine, Bits], None]) -> Graph:
    """The graph of a definition with one 64-bit operand."""
    isa = InstructionSet("sample", {"imm": Kind(size=64)})

    @isa.insn("imm:8", "a")
    def run(m: Machine, imm: Bits) -> None:
        definition(m, imm)

    return Form(isa.instructions[0], {}).trace(X)


def truth(m: Machine, imm: Bits) -> None:
    if imm == 0:
        m.x[0] = imm


def widths(m: Machine, imm: Bits) -> None:
    m.x[0] = imm + imm.trunc(32)


def register_width(m: Machine, imm: Bits) -> None:
    m.x[0] = imm.trunc(32)


def wide_guard(m: Machine, imm: Bits) -> None:
    with when(imm):
        m.x[0] = imm


def wide_select(m: Machine, imm: Bits) -> None:
    m.x[0] = imm.select(imm, imm)


def shrinking(m: Machine, imm: Bits) -> None:
    m.x[0] = imm.zext(32).zext(64)


def outside(m: Machine, imm: Bits) -> None:
    m.x[0] = imm.extract(60, 8).zext(64)


def unknown_file(m: Machine, imm: Bits) -> None:
    m.q[0] = imm


def odd_store(m: Machine, imm: Bits) -> None:
    m.store(imm, imm.trunc(12))


def short_address(m: Machine, imm: Bits) -> None:
    m.x[0] = m.load(imm.trunc(32), 64)


def foreign_value(m: Machine, imm: Bits) -> None:
    m.x[0] = imm + Tracer(X, 4, "other").pc


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (truth, r"not known while a definition is traced; use `with when\(condition\):`"),
        (widths, r"add of 64 and 32 bits: widths must match; use \.zext\(\)"),
        (register_width, r"x\[…\] takes 64 bits, not 32; extend or truncate"),
        (wide_guard, r"when\(\) needs a condition of one bit, not 64"),
        (wide_select, r"select needs a condition of one bit, not 64"),
        (shrinking, r"cannot extend 64 bits to 32; use \.trunc\(32\)"),
        (outside, r"bits 60\.\.67 of a value of 64 bits"),
        (unknown_file, r"no register file or operation named q"),
        (odd_store, r"run: n\d+ = store.* needs a 64-bit address, whole bytes"),
        (short_address, r"needs a 64-bit address"),
        (foreign_value, r"run: a value of other is used"),
    ],
)
def test_message_of_definition(definition: Callable[[Machine, Bits], None], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        traced(definition)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ("0000000", {}, r"encoding row '0000000' has 7 bits, not whole bytes"),
        ("", {}, r"has 0 bits"),
        ("000000 2d", {}, r"encoding row '000000 2d': cannot read '2d'"),
        ("000 rx", {}, r"encoding row '000 rx': the width of rx is not declared"),
        ("000000 rd", {"where": "rd > 1"}, r"cannot read the condition 'rd > 1'"),
        ("000000 rd", {"where": "rs != 1"}, r"cannot read the condition 'rs != 1'"),
        ("000000 rd", {"static": "rs"}, r"sample: a has no field rs to be static"),
    ],
)
def test_message_of_row(row: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        own(row, **options)(a)


def test_message_of_name_and_text() -> None:
    isa = InstructionSet("sample", {"rd": Kind(2, file="x")})
    isa.insn("000000 rd", "a {rs}")(a)
    with pytest.raises(DefinitionError, match="sample: a is defined twice"):
        isa.insn("000001 rd", "a {rd}")(a)
    architecture = Architecture("sample", lambda: isa, X, ((0, 0, 1),))
    with pytest.raises(DefinitionError, match=r"the text 'a \{rs\}' shows rs, which is no field"):
        assemble(architecture, "a x0")


def test_overlap_names_both() -> None:
    isa = InstructionSet("sample", {"rd": Kind(4, file="x")})
    isa.insn("0000 rd", "a", where="rd != 2")(a)
    isa.insn("0000 00 imm:2", "b", name="b", where="imm != 3")(a)
    (problem,) = find_overlaps(isa.instructions)
    assert "test_language:a [0000 rd]" in problem
    assert "test_language:b [0000 00 imm:2]" in problem
    assert problem.endswith("both match 0x0")


def test_no_overlap_by_condition() -> None:
    isa = InstructionSet("sample", {"rd": Kind(4, file="x")})
    isa.insn("0000 rd", "a", where="rd != 2")(a)
    isa.insn("0000 0010", "b", name="b")(a)
    assert find_overlaps(isa.instructions) == []


# Graphs print as the Python that rebuilds them.
def shape(graph: Graph) -> list[object]:
    """Everything of a graph but the numbers of its nodes."""
    order = {node.number: place for place, node in enumerate(graph.live())}
    guards = {e.node.number: e.guard for e in graph.effects if e.guard is not None}
    return [
        (
            node.op,
            node.size,
            [order[arg.number] for arg in node.args],
            node.attrs,
            order[guards[node.number].number] if node.number in guards else None,
        )
        for node in graph.live()
    ]


FORMS = [form for each in ARCHITECTURE.isa.instructions for form in each.forms()]


def test_printed_graph_rebuilds() -> None:
    for form in FORMS:
        graph = form.trace(ARCHITECTURE.layout)
        scope: dict[str, Graph] = {}
        exec(graph.to_python(), {"Graph": Graph}, scope)  # the contract of to_python
        scope["g"].verify()
        assert scope["g"].name == graph.name
        assert shape(scope["g"]) == shape(graph), form.name


# Rewriting. Hypothesis picks seeds: drawing every node through it takes a hundred times as long.
SIZES = (1, 2, 8, 13, 32, 64)
BINARY = [name for name, op in OPS.items() if op.shape == "same"]
COMPARES = [name for name, op in OPS.items() if op.shape == "compare"]
SEEDS = st.integers(0, (1 << 64) - 1)
EXTENDS = ["zext", "sext"]


class Expressions:
    """Random expressions over two registers of a graph."""

    def __init__(self, graph: Graph, source: random.Random) -> None:
        self.graph, self.source = graph, source

    def constant(self, size: int) -> Node:
        """A number that rules look for, or another."""
        top = (1 << size) - 1
        known = (0, 1, top, 1 << self.source.randrange(size))
        return self.graph.const(self.source.choice((*known, self.source.getrandbits(size))), size)

    def register(self, size: int) -> Node:
        """One of two registers."""
        return self.graph.register("r", self.graph.const(self.source.randrange(2), 8), size)

    def node(self, size: int, depth: int) -> Node:
        """Any expression."""
        if depth == 0 or self.source.random() < 0.25:
            leaf = self.source.choice((self.constant, self.register))
            return leaf(size)
        names = [*BINARY, "select", *(COMPARES if size == 1 else [*EXTENDS, "concat"])]
        if size < max(SIZES):
            names.append("extract")
        return self.operation(self.source.choice(names), size, depth)

    def operation(self, op: str, size: int, depth: int) -> Node:
        """An operation on random operands, not folded."""
        source, inner = self.source, depth - 1
        args: tuple[Node, ...]
        attrs: tuple[int, ...] = ()
        match OPS[op].shape:
            case "same":
                args = self.pair(op, size, inner)
            case "compare":
                args = self.pair(op, source.choice(SIZES), inner)
            case "select":
                args = (self.node(1, inner), *self.pair("add", size, inner))
            case "extend":
                width = source.choice([s for s in SIZES if s < size])
                args = (self.chained(EXTENDS, width, inner),)
            case "extract":
                wide = source.choice([s for s in SIZES if s > size])
                args = (self.chained([*EXTENDS, "concat", "extract"], wide, inner),)
                attrs = (source.randint(0, wide - size),)
            case _:
                low = source.randint(1, size - 1)
                args = (self.node(size - low, inner), self.node(low, inner))
        assert check_widths(op, size, tuple(arg.size for arg in args), attrs) is None
        return self.graph.node(op, size, args, *attrs)

    def pair(self, op: str, size: int, depth: int) -> tuple[Node, Node]:
        """Two operands as rules look for them: constants, equal ones, the same operation again."""
        chain = COMPARES if size == 1 else [op] if op in BINARY else BINARY
        left = self.source.choice(
            (
                lambda: self.constant(size),
                lambda: self.register(size),
                lambda: self.chained(chain, size, depth),
                lambda: self.node(size, depth),
            )
        )()
        right = self.source.choice(
            (
                lambda: left,
                lambda: self.constant(size),
                lambda: self.register(size),
                lambda: self.node(size, depth),
            )
        )()
        return left, right

    def chained(self, names: list[str], size: int, depth: int) -> Node:
        """Often one of some operations."""
        fitting = [name for name in names if size in sizes_of(name)]
        if depth <= 0 or not fitting or self.source.random() < 0.3:
            return self.node(size, max(depth, 0))
        return self.operation(self.source.choice(fitting), size, depth)


def sizes_of(op: str) -> list[int]:
    """Sizes of results that an operation can be drawn for."""
    match OPS[op].shape:
        case "compare":
            return [1]
        case "extend" | "concat":
            return [size for size in SIZES if size > 1]
        case "extract":
            return [size for size in SIZES if size < max(SIZES)]
    return [*SIZES, 1, 1]  # one bit often: it has rules of its own


def random_world(source: random.Random) -> World:
    """Random registers, short ones too."""
    values = [source.getrandbits(64) >> source.choice((0, 0, 32, 60, 64)) for _ in range(2)]
    return World({}, 0, lambda file, index: values[index])


ALL_RULES = [(op, rule) for op, rules in RULES.items() for rule in rules]


@pytest.mark.parametrize(
    ("op", "rule"),
    ALL_RULES,
    ids=[f"{op}-{rule.__qualname__.partition('.')[0]}" for op, rule in ALL_RULES],
)
def test_rule_preserves_value(op: str, rule: Rule) -> None:
    applied = 0

    @settings(max_examples=20, deadline=None, database=None)
    @given(SEEDS)
    def try_rule(seed: int) -> None:
        nonlocal applied
        source = random.Random(seed)
        for _ in range(50):
            graph = Graph("rule")
            node = Expressions(graph, source).operation(op, source.choice(sizes_of(op)), 2)
            found = rule(graph, node)
            if found is not None:
                applied += 1
                assert found.size == node.size
                world = random_world(source)
                assert value_of(found, world) == value_of(node, world), node

    try_rule()
    assert applied, "the rule never applied"


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_optimise_preserves_value(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(25):
        graph = Graph("expression")
        node = Expressions(graph, source).node(source.choice(SIZES), 4)
        graph.effect("write", 0, (graph.const(0, 8), node), "r")
        better = optimise(graph)
        better.verify()
        world = random_world(source)
        assert value_of(better.effects[0].node.args[1], world) == value_of(node, world)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_concrete_and_traced_agree(a: int, b: int) -> None:
    """The same Python expression computes and records the same value."""

    def expression(x: Bits, y: Bits) -> Bits:
        low = (x.trunc(32) * 3 + y[8:40]).rol(y.trunc(32)) ^ x[32:].clz()
        high = (x.slt(y)).select(x.sdiv(y), 5 - y).bswap().trunc(32)
        return high.concat(low)

    graph = Graph("agree")
    x, y = (graph.register("r", graph.const(n, 8), 64) for n in (0, 1))
    recorded = graph.lift(expression(x, y))
    inputs = World({}, 0, lambda file, index: (a, b)[index])
    computed = expression(Concrete(a, 64), Concrete(b, 64))
    assert isinstance(computed, Concrete)
    assert value_of(recorded, inputs) == computed.value


def test_whole_register_files() -> None:
    files = (
        RegisterFile("x", 3, 16, zero=1),
        RegisterFile("v", 2, 8),
        RegisterFile("y", 3, 16, shares="x"),
    )
    state = State(Layout(files))
    state.set_file("x", bytes.fromhex("0102 0304 0506"))
    assert [state.get("x", index) for index in range(3)] == [0x0201, 0, 0x0605]
    assert state.file("y") == bytes.fromhex("0102 0000 0506")
    state.set_file("y", bytes.fromhex("0102 0304 0506"))
    state.set_file("v", b"ab")
    assert [state.get("y", 1), state.get("x", 1), state.get("v", 1)] == [0x0403, 0, ord("b")]
    with pytest.raises(DefinitionError, match="x has 6 bytes, not 5"):
        state.set_file("x", bytes(5))
