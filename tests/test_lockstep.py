"""The native interpreter against the reference engine: random programs from the encoding rows.

``ANYARCH_LOCKSTEP=20`` runs twenty times as many, and other ones each time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyarch import Cpu
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.context import ExitCode
from tests.fuzz import lockstep
from tests.fuzz.lockstep import BY_NAME, FORMS, Case, Insn, Maker, NativeEngine

FACTOR = float(os.environ.get("ANYARCH_LOCKSTEP", "1"))
OTHER = random.SystemRandom().getrandbits(32) if "ANYARCH_LOCKSTEP" in os.environ else 0
SEEDS = st.integers(0, (1 << 32) - 1)

Engines = Sequence[NativeEngine]


def repeated(count: int) -> settings:
    """So many examples, the same ones in every run."""
    return settings(
        max_examples=max(1, int(count * FACTOR)),
        derandomize=not OTHER,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def bounded() -> Engines:
    return engines_of(bounded=True)


@pytest.fixture(scope="module")
def flat() -> Engines:
    return engines_of(bounded=False)


def engines_of(*, bounded: bool) -> Engines:
    """Records alone, records that are counted, and code for blocks."""
    return [
        NativeEngine(bounded=bounded),
        NativeEngine(bounded=bounded, counting=True),
        NativeEngine(bounded=bounded, code=True),
    ]


def problems(case: Case, engines: Engines, *, stepping: bool = False) -> list[str]:
    """What differs on any engine; empty where the case does not end without a budget."""
    expected = lockstep.run_reference(case)
    result = []
    for engine in engines:
        if expected.ended.code is ExitCode.BUDGET and not engine.counting:
            continue  # it would run for ever
        found = engine.run(case, lockstep.LIMIT if engine.counting else None)
        result += lockstep.differences(expected, found, steps=engine.counting)
        if stepping:
            found = engine.run_stepping(case, lockstep.LIMIT)
            result += [f"stepping: {each}" for each in lockstep.differences(expected, found)]
    return result


def check(case: Case, engines: Engines, *, stepping: bool = False) -> None:
    """Fail with the smallest program found that shows a difference."""
    if not problems(case, engines, stepping=stepping):
        return
    index = 0
    while index < len(case.program):
        smaller = without(case, index)
        if smaller.program and problems(smaller, engines, stepping=stepping):
            case = smaller
        else:
            index += 1
    pytest.fail(f"{case}\n" + "\n".join(problems(case, engines, stepping=stepping)[:20]))


def without(case: Case, index: int) -> Case:
    """The case without one instruction, jumps over it kept."""
    program = [
        replace(each, target=each.target - 1)
        if each.target is not None and each.target > index
        else each
        for each in case.program[:index] + case.program[index + 1 :]
    ]
    return replace(case, program=tuple(program))


@pytest.mark.parametrize("extension", sorted({form.instruction.extension for form in FORMS}))
def test_every_form(extension: str, bounded: Engines, flat: Engines) -> None:
    forms = [form for form in FORMS if form.instruction.extension == extension]
    for number, form in enumerate(forms):
        source = random.Random(f"{form.name} {number} {OTHER}")
        for _ in range(max(1, int(4 * FACTOR))):
            check(Maker(source).case([form.name]), bounded)
        if "jump" not in lockstep.operations(form.name) or lockstep.jumps_directly(form.name):
            check(Maker(source, wild=False).case([form.name]), flat)


@given(seed=SEEDS)
@repeated(500)
def test_forward_only(seed: int, bounded: Engines) -> None:
    source = random.Random(seed)
    check(Maker(source).case(), bounded, stepping=seed % 3 == 0)


@given(seed=SEEDS)
@repeated(300)
def test_loops(seed: int, bounded: Engines) -> None:
    source = random.Random(seed)
    check(Maker(source).case(loops=True), bounded, stepping=seed % 3 == 0)


@given(seed=SEEDS)
@repeated(300)
def test_flat(seed: int, flat: Engines) -> None:
    source = random.Random(seed)
    check(Maker(source, wild=False).case(loops=seed % 2 == 0), flat, stepping=seed % 3 == 0)


@given(seed=SEEDS)
@repeated(30)
def test_long_blocks(seed: int, bounded: Engines) -> None:
    """Longer than a block of records may be."""
    source = random.Random(seed)
    case = Maker(source).case(length=240)
    harmless = [
        each
        for each in case.program
        if not lockstep.operations(each.form.name) & {"load", "store", "amo", "jump", "exit"}
    ]
    check(replace(case, program=tuple(harmless)), bounded)


@pytest.mark.parametrize("part", range(4))
def test_fused_sequences(part: int, bounded: Engines, flat: Engines) -> None:
    for number, names in enumerate(ARCHITECTURE.fused):
        if number % 4 != part:
            continue
        source = random.Random(f"{names} {OTHER}")
        for _ in range(max(1, int(5 * FACTOR))):
            check(Maker(source).case(names), bounded)
        check(Maker(source, wild=False).case(names), flat)


@given(seed=SEEDS)
@repeated(40)
def test_budgets_are_exact(seed: int, bounded: Engines) -> None:
    case = Maker(random.Random(seed)).case(loops=True, length=8)
    engine = bounded[True]
    for budget in (0, 1, 2, 3, 5, 8, 13, 21, 34):
        expected = lockstep.run_reference(case, budget)
        found = engine.run(case, budget)
        assert not lockstep.differences(expected, found, steps=True), f"{case} budget {budget}"


@given(seed=SEEDS)
@repeated(40)
def test_a_run_goes_on_where_its_budget_ended(seed: int, bounded: Engines) -> None:
    source = random.Random(seed)
    case = Maker(source).case(loops=True, length=8)
    expected = lockstep.run_reference(case)
    interpreter = bounded[True].engine
    bounded[True].prepare(case)
    before, left = interpreter.retired, lockstep.LIMIT
    while left:
        part = min(left, source.randrange(1, 9))
        ended = interpreter.run(part)
        left -= part
        if ended.code is not ExitCode.BUDGET:
            break
    found = bounded[True].outcome(ended, interpreter.retired - before)
    assert not lockstep.differences(expected, found, steps=True), str(case)


@pytest.mark.parametrize("size", ["w", "d"])
@pytest.mark.parametrize("between", ["", "sd", "sc_w", "sc_d", "lr_w", "lr_d"])
def test_reservations(size: str, between: str, bounded: Engines) -> None:
    """Load-reserved and store-conditional of one address, something between them."""
    source = random.Random(f"{size} {between} {OTHER}")
    for _ in range(40):
        case = Maker(source).case()
        address = lockstep.DATA + 8 * source.randrange(64) + source.choice((0, 0, 0, 4))
        x = list(case.x)
        x[8], x[9] = address, address + source.choice((0, 0, 0, 8, 4))
        program = [_memory(f"lr_{size}", 10, 8), _memory(f"sc_{size}", 12, 8, 13)]
        if between:
            rd = 0 if between == "sd" else 11
            program.insert(1, _memory(between, rd, 9, source.choice((10, 13))))
        check(replace(case, program=tuple(program), x=tuple(x)), bounded, stepping=True)


def _memory(name: str, rd: int, base: int, rs2: int = 0) -> Insn:
    row = BY_NAME[name].instruction.row
    word = row.value
    for field, number in (("rd", rd), ("rs1", base), ("rs2", rs2)):
        if field in row.fields:
            word |= row.insert(field, number)
    return Insn(BY_NAME[name], word)


@pytest.mark.parametrize("address", [1 << 47, 1 << 62, 1 << 63, 0x9CAA075CAF35755C])
@pytest.mark.parametrize("name", ["ld", "sd", "lr_d", "amoadd_d", "fld"])
def test_addresses_that_the_host_cannot_have(name: str, address: int, flat: Engines) -> None:
    """The host's fault says nothing of an address that is not canonical."""
    case = Maker(random.Random(name)).case()
    x = list(case.x)
    x[8] = address & -8
    row = BY_NAME[name].instruction.row
    insn = Insn(BY_NAME[name], row.value | row.insert("rs1", 8))
    check(replace(case, program=(insn,), x=tuple(x)), flat)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_spent_budget_limits_no_later_run(engine: str) -> None:
    cpu = Cpu("riscv64", engine=engine)
    cpu.map(lockstep.CODE, lockstep.PAGE)
    cpu.write_assembly(lockstep.CODE, "loop: addi a0, a0, 1; j loop")
    assert cpu.run(lockstep.CODE, count=100).code is ExitCode.BUDGET
    assert (cpu["a0"], cpu.step(), cpu["a0"]) == (50, None, 51)
    assert cpu.step(3) is None
    assert (cpu["a0"], cpu.pc) == (52, lockstep.CODE)
    assert cpu.run(timeout=0.05).code is ExitCode.STOP
    assert cpu["a0"] > 53


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("prot", ["-", "r"])
def test_a_store_that_faults_stores_nothing(engine: str, prot: str) -> None:
    cpu = Cpu("riscv64", engine=engine)
    cpu.map(lockstep.CODE, lockstep.PAGE)
    cpu.map(lockstep.DATA, 2 * lockstep.PAGE, "rw")
    second = lockstep.DATA + lockstep.PAGE
    cpu.protect(second, lockstep.PAGE, prot)
    cpu.write_assembly(lockstep.CODE, "sd a0, -3(a1)")
    cpu["a0"], cpu["a1"] = 0x1122334455667788, second
    ended = cpu.run(lockstep.CODE)
    assert (ended.code, ended.pc, ended.address) == (ExitCode.FAULT, lockstep.CODE, second)
    assert cpu.read(second - 8, 8) == bytes(8)
