"""FPCR.FZ and DN in native code: usual numbers are native, subnormal ones and NaNs are not."""

from __future__ import annotations

import random
from typing import Final

from anyarch.emit import floateffects, flushing
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.guests.aarch64.registers import MODE
from anyarch.guests.aarch64.status import DN, FZ
from anyarch.host.context import ExitCode
from anyarch.ir.graph import FLOATS
from anyarch.isa.assembly import assemble
from anyarch.isa.instruction import Instruction
from tests.aarch64.definitions import compare_definitions
from tests.aarch64.emulator import DEFINITIONS
from tests.aarch64.test_groups import beside, ordinary, register
from tests.vectors_format import CODE, PAGE, CompiledMachine, ReferenceMachine

CASES: Final = 24
MODES: Final = (1 << 24, 1 << 24, 1 << 25, 1 << 24 | 1 << 25, 1 << 24 | 2 << 22, 1 << 24 | 3 << 22)


def is_served(instruction: Instruction) -> bool:
    nodes = [
        effect.node
        for form in instruction.forms()
        for effect in form.trace(ARCHITECTURE.layout).effects
        if effect.node.op in FLOATS
    ]
    return bool(nodes) and all(
        floateffects.is_native(node) and flushing.is_served(node) for node in nodes
    )


def vector(source: random.Random) -> int:
    kind = source.random()
    if kind < 0.3:
        return ordinary(source)
    if kind < 0.5:
        return register(source)
    size = source.choice((32, 64))
    name = source.choice(("fmul", "fdiv", "fmadd"))
    lanes: list[int] = []
    while len(lanes) < 128 // size:
        lanes += beside(source, name, size)
    return sum(lane << size * at for at, lane in enumerate(lanes[: 128 // size]))


def test_definitions() -> None:
    served = [each for each in DEFINITIONS if is_served(each)]
    assert len(served) > 100
    problems = compare_definitions(served, random.Random("modes"), vector, MODES, CASES)
    assert not problems, "\n" + "\n".join(problems[:20])


def test_what_is_compiled_is_left() -> None:
    """A region knows rounding modes alone; handlers go on."""
    lines = [
        "fmul d0, d0, d1",
        "fadd d2, d2, d0",
        "subs x1, x1, 1",
        f"b.ne {CODE:#x}",
    ]
    code = b"".join(assemble(ARCHITECTURE, line, CODE + 4 * at) for at, line in enumerate(lines))
    pages = {CODE: code.ljust(PAGE, b"\0")}
    machines = ReferenceMachine(ARCHITECTURE, pages), CompiledMachine(ARCHITECTURE, pages)
    for machine in machines:
        machine.state.pc = CODE
        machine.state.set("r", 1, 3000)
        machine.state.set("v", 0, 0x3FF0000000000000)
        machine.state.set("v", 1, 0x3FE0000000000000)
        machine.state.set("fpstatus", MODE, 1 << FZ | 1 << DN)
    reference, compiled = machines
    assert reference.run(1 << 16).code is ExitCode.ILLEGAL
    assert compiled.engine.run().code is ExitCode.ILLEGAL
    assert compiled.engine.arena.is_plain
    for file, index, value in reference.state.registers():
        assert compiled.state.get(file, index) == value, (file, index)
