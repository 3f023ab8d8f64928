"""What is an instruction, and its text, against an independent disassembler and assembler."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.isa.assembly import assemble, format_word
from anyarch.isa.decoder import find_overlaps
from anyarch.isa.instruction import Instruction

PC: Final = 0x10000
DEFINITIONS: Final = ARCHITECTURE.isa.instructions

# Words that capstone knows as instructions and the package does not: mask, value, why.
UNKNOWN: Final = (
    (0x1E000000, 0x00000000, "SME, and udf, which is undefined by definition"),
    (0x1E000000, 0x04000000, "SVE"),
    (0xFF200400, 0xF8200400, "pointer authentication: ldraa, ldrab"),
    (0xFFFF0000, 0xDAC10000, "pointer authentication: pacia to xpacd"),
    (0xFFE0FC00, 0x9AC03000, "pointer authentication: pacga"),
    (0xFE1F0800, 0xD61F0800, "pointer authentication: braa, blraa, retaa, eretaa"),
    (0xFFFFFC1F, 0xD69F0000, "eret, of system software"),
    (0xFFFFFC1F, 0xD6BF0000, "drps, of debuggers"),
    (0xFF200000, 0xD9200000, "memory tagging: ldg, stg and the like"),
    (0xBF800000, 0x91800000, "memory tagging: addg, subg"),
    (0xDFE0F000, 0x9AC00000, "memory tagging: subp, subps"),
    (0xFFE0F800, 0x9AC01000, "memory tagging: irg, gmi"),
    (0x3B200C00, 0x19000400, "memory copy and set (FEAT_MOPS)"),
    (0xFF000010, 0x54000010, "bc.cond (FEAT_HBC)"),
    (0xFFFFFC00, 0xD5031000, "wfet, wfit (FEAT_WFxT)"),
    (0xFF000000, 0xD5000000, "system registers and instructions that programs may not use"),
    (
        0xFF000000,
        0xD4000000,
        "exceptions that programs may not raise: hvc, smc, hlt, dcps, tcancel",
    ),
    (0xFFE08000, 0xCE408000, "SM3"),
    (0xFFE08000, 0xCE400000, "SM3"),
    (0xFFE0B000, 0xCE608000, "SM3"),
    (0xFFFFFC00, 0xCEC08400, "SM4"),
    (0xFFE0FC00, 0xCE60C800, "SM4"),
    (0xFFE08C00, 0xF8208000, "64-byte loads and stores (FEAT_LS64)"),
)


def random_words(count: int, seed: int) -> list[int]:
    """Half of them any words, half of the definitions' rows."""
    source = random.Random(seed)
    words = [source.getrandbits(32) for _ in range(count // 2)]
    for _ in range(count // 2):
        row = source.choice(DEFINITIONS).row
        words.append(row.value | (source.getrandbits(32) & ~row.mask))
    return words


def test_no_overlap() -> None:
    assert not find_overlaps(DEFINITIONS)


def test_rows_have_32_bits() -> None:
    assert not [str(each) for each in DEFINITIONS if each.row.size != 32]


def is_lenient(instruction: Instruction, word: int) -> bool:
    """Whether capstone refuses what the manual leaves open: should-be-ones that are not, and
    registers that must differ but do not."""
    row = instruction.row
    if any(row.extract(n, word) != 31 for n in ("ones", "ones2") if n in row.fields):
        return True
    if "zeros" in row.fields and row.extract("zeros", word):
        return True
    registers = [
        row.extract(n, word) for n in ("rt", "rt2", "vt", "vt2", "rs", "base") if n in row.fields
    ]
    return instruction.extension in ("loads", "atomics") and len(registers) != len(set(registers))


def test_same_words_as_capstone() -> None:
    capstone = pytest.importorskip("capstone")
    disassembler = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    disassembler.skipdata = True
    words = random_words(200_000, 1)
    code = b"".join(word.to_bytes(4, "little") for word in words)
    problems = []
    both = 0
    lines = disassembler.disasm_lite(code, PC)
    for word, (_, _, mnemonic, operands) in zip(words, lines, strict=True):
        theirs = mnemonic != ".byte"
        ours = ARCHITECTURE.decoder.decode(word)
        if theirs and ours is not None:
            both += 1
        elif theirs and not any(word & mask == value for mask, value, _ in UNKNOWN):
            problems.append(f"{word:#010x} is {mnemonic} {operands}")
        elif ours is not None and not theirs and not is_lenient(ours, word):
            problems.append(f"{word:#010x} is no instruction to capstone, {ours} to us")
    assert not problems, "\n" + "\n".join(problems[:50])
    assert both > 100_000  # the comparison compared something


def text_of(word: int) -> str:
    return format_word(ARCHITECTURE, word.to_bytes(4, "little"), PC)


def sample(count: int, seed: int) -> list[tuple[Instruction, int]]:
    """Words of every definition that the manual gives a meaning."""
    source = random.Random(seed)
    result = []
    for instruction in DEFINITIONS:
        row = instruction.row
        for _ in range(count):
            word = row.value | (source.getrandbits(32) & ~row.mask)
            if row.matches(word) and not is_lenient(instruction, word):
                result.append((instruction, word))
    return result


def test_text_assembles_to_the_same_word() -> None:
    problems = []
    for instruction, word in sample(3, 2):
        if is_redundant(instruction, word):
            continue
        text = text_of(word)
        back = int.from_bytes(assemble(ARCHITECTURE, text, PC), "little")
        if back != word:
            problems.append(f"{instruction.name}: {word:#010x} is `{text}`, which is {back:#010x}")
    assert not problems, "\n" + "\n".join(problems)


def is_redundant(instruction: Instruction, word: int) -> bool:
    """A logical immediate whose rotation is not less than its element: it has a shorter form."""
    if "imms:bitmask" not in instruction.text:
        return False
    return instruction.row.extract("immr", word) >= int(instruction.name.rpartition("_")[2])


ARCHITECTURE_DIRECTIVE: Final = (
    ".arch armv8.6-a+crypto+sha3+fp16+fp16fml+i8mm+bf16+flagm+sb+ssbs+lse+rcpc+rdm+dotprod+crc\n"
)


def test_text_is_that_of_another_assembler(tmp_path: Path) -> None:
    """LLVM's assembler, as zig ships it, makes the same words of our text."""
    pytest.importorskip("ziglang")
    from elftools.elf.elffile import ELFFile

    cases = []
    for instruction, word in sample(2, 3):
        text = text_of(word)
        if is_redundant(instruction, word) or instruction.name in ("adrp", "mrs_id_aa64zfr0_el1"):
            continue
        if re.search(r"\{\w+=\d+\}$", text):  # bits that no assembler's text shows
            continue
        if "target" in instruction.text:  # absolute there, relative here
            before, _, address = text.rpartition("0x")
            distance = (int(address, 16) - PC + (1 << 63)) % (1 << 64) - (1 << 63)
            text = f"{before}.{distance:+d}"
        cases.append((word, text))
    source, output = tmp_path / "text.s", tmp_path / "text.o"
    source.write_text(ARCHITECTURE_DIRECTIVE + "\n".join(text for _, text in cases) + "\n")
    features = "aes+sha2+sha3+fullfp16+fp16fml+altnzcv+fptoint+flagm+sb+ssbs+perfmon+lor+ccidx"
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "aarch64-linux-musl",
        "-c",
        str(source),
    ]
    command += ["-o", str(output), f"-mcpu=generic+v8_6a+{features}"]
    done = subprocess.run(command, capture_output=True, text=True)
    errors = re.findall(r"text\.s:(\d+):\d+: error: (.*)", done.stderr)
    assert not errors, [(cases[int(line) - 2], message) for line, message in errors[:20]]
    assert done.returncode == 0, done.stderr
    with output.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        assert section is not None
        code = section.data()
    problems = [
        f"`{text}` is {made:#010x} there, {word:#010x} here"
        for (word, text), made in zip(cases, _words(code), strict=True)
        if made != word
    ]
    assert not problems, "\n" + "\n".join(problems)


def _words(code: bytes) -> list[int]:
    return [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
