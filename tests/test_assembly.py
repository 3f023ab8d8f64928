"""Assembler and disassembler: round trips over every form, an independent assembler, messages."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from anyarch.errors import AssemblyError
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.isa.assembly import assemble, disassemble, format_word
from anyarch.isa.instruction import Form

FORMS: Final = [form for each in ARCHITECTURE.isa.instructions for form in each.forms()]
PC: Final = 0x1_0000


def random_word(form: Form, source: random.Random) -> int | None:
    """A word of this form, or None where the conditions were not met by chance."""
    row = form.instruction.row
    for _ in range(200):
        word = row.value
        for name in row.fields:
            if name in form.static:
                word |= row.insert(name, form.static[name])
            else:
                for piece in row.fields[name]:
                    word |= source.getrandbits(piece.size) << piece.at
        for condition in row.conditions:
            if condition.equal and condition.field not in form.static:
                word &= ~row.insert(condition.field, row.extract(condition.field, word))
                word |= row.insert(condition.field, condition.value)
        if row.matches(word) and ARCHITECTURE.decoder.decode(word) is form.instruction:
            return word
    return None


@pytest.mark.parametrize(
    "form", FORMS, ids=lambda form: f"{form.instruction.extension}-{form.name}"
)
def test_every_form_survives_a_round_trip(form: Form) -> None:
    source = random.Random(form.name)
    words = {random_word(form, source) for _ in range(20)}
    assert words != {None}, "no word of this form was found"
    for word in words - {None}:
        assert word is not None
        data = word.to_bytes(form.instruction.row.nbytes, "little")
        text = format_word(ARCHITECTURE, data, PC)
        assert assemble(ARCHITECTURE, text, PC) == data, text


@given(st.binary(max_size=64), st.integers(0, (1 << 64) - 1).map(lambda pc: pc & ~1))
def test_any_bytes_survive_a_round_trip(data: bytes, pc: int) -> None:
    lines = list(disassemble(ARCHITECTURE, data, pc))
    assert b"".join(line.data for line in lines) == data
    for line in lines:
        assert assemble(ARCHITECTURE, line.text, line.address) == line.data, line.text


# What zig's assembler needs to be told of; the rest is in its default.
EXTENSIONS: Final = "zba zbb zbc zbs zfh zfa zicond zicbom zicboz zacas zawrs zifencei zicntr zcb"


def test_an_independent_assembler_agrees(tmp_path: Path) -> None:
    """What the disassembler prints means the same bytes to LLVM's assembler."""
    source = random.Random(7)
    lines, expected = [".option norelax"], b""
    lines += [f".option arch, +{name}" for name in EXTENSIONS.split()]
    for form in FORMS:
        word = random_word(form, source)
        assert word is not None
        row = form.instruction.row
        data = word.to_bytes(row.nbytes, "little")
        text = format_word(ARCHITECTURE, data, 0)
        if "{" in text:
            continue  # hidden fields are this assembler's own notation
        if ":target}" in form.instruction.text:
            head, _, target = text.rpartition(" ")
            distance = int(target, 0)
            distance -= (distance >> 63) << 64
            text = f"{head} .{distance:+d}"
        compressed = [".option rvc", ".option arch, +zcb"]  # norvc has switched Zcb off
        lines += [*(compressed if row.nbytes == 2 else [".option norvc"]), text]
        expected += data
    path, output = tmp_path / "all.s", tmp_path / "all.o"
    path.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "riscv64-linux-musl", "-c"]
    command += ["-o", str(output), str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with output.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        assert section is not None
        actual = section.data()
    shown = [line.text for line in disassemble(ARCHITECTURE, actual)]
    assert shown == [line.text for line in disassemble(ARCHITECTURE, expected)]
    assert actual == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nop", "addi zero, zero, 0"),
        ("mv a0, fp", "addi a0, s0, 0"),
        ("not x10, x11", "xori a0, a1, -1"),
        ("neg a0, a1", "sub a0, zero, a1"),
        ("ret", "jalr zero, 0(ra)"),
        ("jr t0", "jalr zero, 0(t0)"),
        ("jalr t0, a1, 8", "jalr t0, 8(a1)"),
        ("j .-4", "jal zero, 0xfffc"),
        ("bgtz a0, .+8", "blt zero, a0, 0x10008"),
        ("seqz a0, a1", "sltiu a0, a1, 1"),
        ("snez a0, a1", "sltu a0, zero, a1"),
        ("csrr a0, fcsr", "csrrs a0, fcsr, zero"),
        ("frcsr a0", "csrrs a0, fcsr, zero"),
        ("fmv.d fa0, fa1", "fsgnj.d fa0, fa1, fa1"),
        ("fence", "fence iorw, iorw"),
        ("fence.tso", "fence rw, rw {fm=8}"),
        ("lw a0,(sp)", "lw a0, 0(sp)"),
        ("\tsd  a0 , -8( sp )  # comment", "sd a0, -8(sp)"),
        ("lui a0, 0x80000", "lui a0, 0x80000"),
        ("lui a0, -1", "lui a0, 0xfffff"),
        ("addi a0, a0, 0b11 + 4", "addi a0, a0, 7"),
    ],
)
def test_input_forms(text: str, expected: str) -> None:
    (line,) = disassemble(ARCHITECTURE, assemble(ARCHITECTURE, text, PC), PC)
    assert line.text == expected


@given(st.integers(-1 << 63, (1 << 64) - 1))
def test_li_loads_any_value(value: int) -> None:
    registers = {"zero": 0, "a0": 0}
    for line in disassemble(ARCHITECTURE, assemble(ARCHITECTURE, f"li a0, {value}")):
        mnemonic, *operands = re.split(r",? ", line.text)
        number = int(operands[-1], 0)
        match mnemonic:
            case "lui":
                result = (number << 12 ^ 1 << 31) - (1 << 31)
            case "addi":
                result = registers[operands[1]] + number
            case "addiw":
                low = registers[operands[1]] + number & 0xFFFFFFFF
                result = (low ^ 1 << 31) - (1 << 31)
            case "slli":
                result = registers[operands[1]] << number
            case _:
                pytest.fail(f"li used {line.text}")
        registers["a0"] = result & ((1 << 64) - 1)
    assert registers["a0"] == value & ((1 << 64) - 1)


def test_labels_and_data() -> None:
    text = "start: beqz a0, done; j start\ndone: ret\n.word done - start, 0xdeadbeef\n.byte -1, 2"
    data = assemble(ARCHITECTURE, text, 0x1000)
    assert [line.text for line in disassemble(ARCHITECTURE, data[:12], 0x1000)] == [
        "beq a0, zero, 0x1008",
        "jal zero, 0x1000",
        "jalr zero, 0(ra)",
    ]
    assert data[12:] == bytes.fromhex("08000000 efbeadde ff02")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nop\nlw a0, 4096(a0)", "line 2: `lw a0, 4096(a0)`: imm is 4096; expected -2048 to 2047"),
        ("lw a0, f1", "expected `lw rd, imm(rs1)`"),
        ("lww a0, 0(a1)", "riscv64 has no instruction 'lww'; did you mean lw"),
        ("beq a0, a1, foo", "'foo' is neither a number nor a label of this text"),
        ("beq a0, a1, .+3", "expected -4096 to 4094, a multiple of 2"),
        ("add a0, a1, fa0", "'fa0' cannot be rs2; expected a register from zero to t6"),
        ("a: a: nop", "the label 'a' is defined twice"),
        ("li a0, q", "li takes a register and a number"),
        ("li a0, 0x10000000000000000", "does not fit 64 bits"),
        ("fadd.s fa0, fa1, fa2, rxx", "expected `fadd.s fd, fs1, fs2[, rne|rtz|rdn|rup|rmm]`"),
        ("fence rq, w", "'rq' is no pred; expected letters of iorw"),
        (".byte 256", "does not fit .byte"),
        ("addi a0, a0, 1 {foo=1}", "names no field that the text does not show"),
        ("fence rw, rw {fm=16}", "fm is 16; it has 4 bits"),
        ("addi a0, a0, 08", "'08' is no number"),
    ],
)
def test_messages(text: str, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(ARCHITECTURE, text)
    assert message in str(caught.value)


def test_a_cut_instruction_prints_as_bytes() -> None:
    lines = list(disassemble(ARCHITECTURE, bytes.fromhex("130505"), 0x10))
    assert [(line.address, line.text) for line in lines] == [
        (0x10, ".byte 0x13"),
        (0x11, ".byte 0x05"),
        (0x12, ".byte 0x05"),
    ]
