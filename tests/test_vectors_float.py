"""Floating point and CSRs of RISC-V, beyond the vector files: all forms, and random operands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest

from anyarch.engine.reference import Reference
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.context import ExitCode
from anyarch.ir import softfloat
from anyarch.isa.decoder import find_overlaps
from anyarch.isa.instruction import Instruction
from anyarch.isa.registers import State
from tests.vectors_format import CODE, DIRECTORY, PAGE, PagedMemory, read_vectors

GROUPS: Final = {"zicsr": "zicsr", "f": "rv64f", "d": "rv64d", "zfh": "zfh", "zfa": "zfa"}
ONES: Final = (1 << 64) - 1


def _defined(extension: str) -> list[Instruction]:
    found = [each for each in ARCHITECTURE.isa.instructions if each.extension == extension]
    assert found, extension
    return found


@pytest.mark.parametrize(("group", "extension"), GROUPS.items())
def test_every_mnemonic_has_a_vector(group: str, extension: str) -> None:
    tested = {vector.text.split()[0] for vector in read_vectors(DIRECTORY / f"{group}.txt")}
    assert {instruction.mnemonic for instruction in _defined(extension)} <= tested


@pytest.mark.parametrize("extension", GROUPS.values())
def test_every_form_traces_with_fields_symbolic_and_constant(extension: str) -> None:
    for instruction in _defined(extension):
        for form in instruction.forms():
            word = instruction.row.value
            for name, value in form.static.items():
                word |= instruction.row.insert(name, value)
            symbolic = form.trace(ARCHITECTURE.layout)
            constant = form.trace(ARCHITECTURE.layout, word)
            assert symbolic.effects
            assert all(node.op != "field" for node in constant.live())


def test_no_word_has_two_definitions() -> None:
    own = [each for extension in GROUPS.values() for each in _defined(extension)]
    assert find_overlaps(own) == []


def test_reserved_rounding_modes_are_no_instructions() -> None:
    rounded = [each for each in ARCHITECTURE.isa.instructions if "rm" in each.row.fields]
    assert rounded
    for instruction in rounded:
        for mode in range(8):
            word = instruction.row.value | mode << 12
            assert instruction.row.matches(word) == (mode not in (5, 6)), str(instruction)


def test_counters_are_read_from_the_engine() -> None:
    state = State(ARCHITECTURE.layout)
    word = 0xC0202573  # csrrs a0, instret, zero
    memory = PagedMemory({CODE: word.to_bytes(4, "little").ljust(PAGE, b"\0")})
    engine = Reference(ARCHITECTURE, state, memory)
    engine.machine.counters = {"instret": 0x1_0000_0001}.__getitem__
    state.pc = CODE
    assert engine.step() is None
    assert state.get("x", 10) == 0x1_0000_0001


def _operand(rng: random.Random, fmt: softfloat.Format) -> int:
    """A value of the format, often a special one or near the limits of an integer type."""
    sign = rng.getrandbits(1) << (fmt.size - 1)
    fraction = rng.choice(
        (0, 1, (1 << fmt.fraction_bits) - 1, fmt.quiet_bit, rng.getrandbits(fmt.fraction_bits))
    )
    unit = fmt.bias
    near = unit + rng.choice((-1, 0, 1, 31, 32, 62, 63, 64, rng.randint(-30, 70)))
    top = (1 << fmt.exponent_bits) - 1
    exponent = rng.choice((0, 1, top - 1, top, near, near, near, rng.randint(0, top)))
    return sign | exponent << fmt.fraction_bits | fraction


def _differs_in_version(instruction: Instruction, values: list[int], fmt: softfloat.Format) -> bool:
    """Where the emulator follows an older manual: fmin and fmax of a signaling NaN, and
    infinity times zero plus a NaN."""
    if instruction.mnemonic.startswith(("fmin", "fmax")):
        return any(softfloat.is_signaling(fmt, value) for value in values)
    if instruction.row.fields.keys() >= {"fs3"}:
        return any(softfloat.is_nan(fmt, value) for value in values)
    return False


def _cases(rng: random.Random, count: int) -> Iterator[tuple[Instruction, int, softfloat.Format]]:
    """Random words of the register forms of F and D, with the format of their operands."""
    for extension in ("rv64f", "rv64d"):
        for instruction in _defined(extension):
            letter = instruction.mnemonic.rpartition(".")[2]
            if "imm" in instruction.row.fields:
                continue
            fmt = softfloat.F32 if letter in ("s", "w") else softfloat.F64
            for _ in range(count):
                word = rng.getrandbits(32) & ~instruction.row.mask | instruction.row.value
                if instruction.row.matches(word):
                    yield instruction, word, fmt


def test_random_operands_as_unicorn() -> None:
    """Results and flags equal another emulator's, in every rounding mode.

    That emulator does not box singles: operands are boxed, and of a single only 32 bits compare.
    """
    unicorn: Any = pytest.importorskip("unicorn")
    registers: Any = pytest.importorskip("unicorn.riscv_const")
    other = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    other.mem_map(CODE, PAGE)
    status = registers.UC_RISCV_REG_MSTATUS
    other.reg_write(status, other.reg_read(status) | 1 << 13)  # floating point is on
    state, memory = State(ARCHITECTURE.layout), PagedMemory({CODE: bytes(PAGE)})
    engine = Reference(ARCHITECTURE, state, memory)
    rng = random.Random(20)
    first = {"x": registers.UC_RISCV_REG_X0, "f": registers.UC_RISCV_REG_F0}
    compared = 0
    for instruction, word, fmt in _cases(rng, 20):
        operands = [_operand(rng, fmt) for _ in range(32)]
        used = [
            operands[instruction.row.extract(name, word)]
            for name in ("fs1", "fs2", "fs3")
            if name in instruction.row.fields
        ]
        if _differs_in_version(instruction, used, fmt):
            continue
        mode = rng.randint(0, 4)
        for index, value in enumerate(operands):
            state.set("f", index, ONES >> fmt.size << fmt.size | value)
            state.set("x", index, rng.getrandbits(rng.randint(1, 64)) * rng.choice((1, -1)))
            other.reg_write(first["f"] + index, state.get("f", index))
            if index:
                other.reg_write(first["x"] + index, state.get("x", index))
        state.set("fcsr", 0, 0)
        state.set("fcsr", 1, mode)
        other.reg_write(registers.UC_RISCV_REG_FCSR, mode << 5)
        code = word.to_bytes(4, "little")
        memory.write(CODE, code)
        other.mem_write(CODE, code)
        other.ctl_remove_cache(CODE, CODE + 4)
        state.pc = CODE
        where = f"{instruction.name} {word:#x} of {[hex(value) for value in used]}, frm {mode}"
        assert engine.step() is None, where
        other.emu_start(CODE, CODE + 4, count=1)
        single = instruction.mnemonic.startswith(("fcvt.s", "fmv.w")) or (
            fmt is softfloat.F32 and "fd" in instruction.row.fields
        )
        size = 32 if single and not instruction.mnemonic.startswith("fcvt.d") else 64
        for file, name in (("f", "fd"), ("x", "rd")):
            if name in instruction.row.fields:
                index = instruction.row.extract(name, word)
                mask = (1 << (size if file == "f" else 64)) - 1
                expected = (
                    other.reg_read(first[file] + index) & mask if (file, index) != ("x", 0) else 0
                )
                assert state.get(file, index) & mask == expected, where
        assert state.get("fcsr", 0) == other.reg_read(registers.UC_RISCV_REG_FCSR) & 31, where
        compared += 1
    assert compared > 500


def test_illegal_dynamic_mode_leaves_everything_as_it_was() -> None:
    state = State(ARCHITECTURE.layout)
    word = 0x02C5F553  # fadd.d fa0, fa1, fa2
    memory = PagedMemory({CODE: word.to_bytes(4, "little").ljust(PAGE, b"\0")})
    state.pc = CODE
    for mode in (5, 6, 7):
        state.set("fcsr", 1, mode)
        before = state.save()
        ended = Reference(ARCHITECTURE, state, memory).step()
        assert ended is not None and ended.code == ExitCode.ILLEGAL
        assert state.save() == before
