"""Every definition as a whole: decoded and assembled as others do it, traced and optimised."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from anyarch.guests.riscv import ARCHITECTURE
from anyarch.ir.rewrite import optimise
from anyarch.isa.assembly import format_word
from anyarch.isa.decoder import find_overlaps
from anyarch.isa.instruction import Form, Instruction
from tests.graph_evaluator import Event, World, answer, run_graph

LAYOUT: Final = ARCHITECTURE.layout
INSTRUCTIONS: Final = ARCHITECTURE.isa.instructions
NBYTES: Final = {2: "compressed", 4: "full"}


def random_word(instruction: Instruction, source: random.Random, **fields: int) -> int:
    """A word of the instruction, with some fields given."""
    row = instruction.row
    while True:
        word = row.value | source.getrandbits(row.size) & ~row.mask
        for name, value in fields.items():
            for piece in row.fields[name]:
                word &= ~(((1 << piece.size) - 1) << piece.at)
            word |= row.insert(name, value)
        if row.matches(word):
            return word


def test_no_overlaps() -> None:
    assert find_overlaps(INSTRUCTIONS) == []


@pytest.mark.parametrize("instruction", INSTRUCTIONS, ids=lambda instruction: instruction.name)
def test_decodes_its_own_words(instruction: Instruction) -> None:
    source = random.Random(instruction.name)
    for _ in range(20):
        assert ARCHITECTURE.decoder.decode(random_word(instruction, source)) is instruction


# Capstone 5 as a decoder. Its instruction names are canonical; the order suffix is part of them.
UNKNOWN: Final = {
    *("zacas", "zawrs", "zba", "zbb", "zbs", "zbc", "zicond", "zicbo", "zfh", "zfa", "zcb")
}
PRIVILEGED: Final = {"uret", "sret", "mret", "dret", "wfi", "sfence.vma"}


def explained(word: int, ours: Instruction | None, theirs: str | None) -> bool:
    """Whether a difference is one that Capstone 5 is known for."""
    if ours is None:
        assert theirs is not None
        return (
            # Access to a CSR that we do not have, or a write to a counter.
            theirs.startswith("csrr")
            or theirs in PRIVILEGED
            # Reserved: no immediate. All zeros is illegal by definition.
            or (theirs == "c.lui" and word & 0x107C == 0)
            or theirs == "c.unimp"
        )
    if theirs is not None:
        return False
    # Hints write x0.
    hint = ours.extension == "rv64c" and word & 0xF80 == 0 and "rd" in ours.row.fields
    exact = ours.name in ("fcvt_d_w", "fcvt_d_wu", "fcvt_d_s")
    return (
        ours.extension in UNKNOWN
        or hint
        or ours.name == "c_nop_hint"
        # Reserved fields that the manual asks to ignore.
        or (ours.name == "fence" and word & 0xF00F8F80 != 0)
        or (ours.name == "fence_i" and word & 0xFFFF8F80 != 0)
        # An exact conversion with a rounding mode.
        or (exact and ours.row.extract("rm", word) != 0)
    )


def random_words(source: random.Random, count: int) -> Iterator[int]:
    """Words of known rows, such words with one bit changed, and words of known opcodes."""
    full = [instruction for instruction in INSTRUCTIONS if instruction.row.size == 32]
    opcodes = sorted({instruction.row.value & 0x7F for instruction in full})
    for _ in range(count):
        row = source.choice(full).row
        word = row.value | source.getrandbits(32) & ~row.mask
        kind = source.random()
        if kind < 0.4:
            yield word
        elif kind < 0.7:
            yield word ^ 1 << source.randrange(7, 32)
        else:
            yield source.getrandbits(25) << 7 | source.choice(opcodes)


def capstone_differences(words: Iterator[int], nbytes: int) -> list[str]:
    capstone = pytest.importorskip("capstone")
    decoder = capstone.Cs(
        capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC
    )
    differences = []
    for word in words:
        ours: Instruction | None = ARCHITECTURE.decoder.decode(word)
        found = next(decoder.disasm(word.to_bytes(nbytes, "little"), 0), None)
        theirs = None if found is None else str(decoder.insn_name(found.id))
        if theirs is not None:
            for order in (".aq.rl", ".aqrl", ".aq", ".rl"):
                theirs = theirs.removesuffix(order)
        mnemonic = None if ours is None else ours.mnemonic.partition("{")[0]
        if mnemonic != theirs and not explained(word, ours, theirs):
            differences.append(f"{word:#x}: {mnemonic}, Capstone says {theirs}")
    return differences


def test_all_compressed_words_against_capstone() -> None:
    words = (word for word in range(1 << 16) if word & 3 != 3)
    assert capstone_differences(words, 2) == []


def test_random_words_against_capstone() -> None:
    assert capstone_differences(random_words(random.Random(1), 100_000), 4) == []


# LLVM's assembler knows all extensions.
CPU: Final = (
    "baseline_rv64+c+d+zicsr+zifencei+zba+zbb+zbs+zbc+zfh+zfa+zcb+zacas+zawrs+zicond+zicbom+zicboz"
)


def _assembled_by_llvm(folder: Path, lines: list[str]) -> bytes:
    pytest.importorskip("ziglang")
    source, output = folder / "words.s", folder / "words.o"
    source.write_text("\n".join([".text", *lines]) + "\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-c", "-target", "riscv64-linux-musl"]
    command += [f"-mcpu={CPU}", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    elffile = pytest.importorskip("elftools.elf.elffile")
    with output.open("rb") as file:
        data: bytes = elffile.ELFFile(file).get_section_by_name(".text").data()
    return data


@pytest.mark.parametrize("nbytes", NBYTES, ids=NBYTES.get)
def test_text_against_llvm(nbytes: int, tmp_path: Path) -> None:
    """LLVM assembles our text to the word that it was printed from."""
    words: list[tuple[int, str]] = []
    for instruction in INSTRUCTIONS:
        source = random.Random(instruction.name)
        for _ in range(8 if instruction.row.nbytes == nbytes else 0):
            word = random_word(instruction, source)
            text = format_word(ARCHITECTURE, word.to_bytes(nbytes, "little"))
            hidden = "{" in text  # fields that only our syntax can write
            no_shift = "shamt" in instruction.row.fields and nbytes == 2
            if not hidden and not (no_shift and instruction.row.extract("shamt", word) == 0):
                words.append((word, text))
    mode = ".option rvc" if nbytes == 2 else ".option norvc"
    data = _assembled_by_llvm(tmp_path, [mode, *(text for _, text in words)])
    assert len(data) == nbytes * len(words)
    for index, (word, text) in enumerate(words):
        found = int.from_bytes(data[index * nbytes :][:nbytes], "little")
        assert found == word, f"{text}: {found:#x} for LLVM, {word:#x} here"


# Definitions as graphs.
FORMS: Final = [form for instruction in INSTRUCTIONS for form in instruction.forms()]


def visible(events: list[Event]) -> list[Event]:
    """Without writes to the zero register, which a trace with constant fields leaves out."""
    zero = {file.name: file.zero for file in LAYOUT.files}
    return [e for e in events if e[0] != "write" or e[1][0] != zero[str(e[2][0])]]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_optimised_graph_means_the_same(form: Form) -> None:
    """Symbolic and constant fields, as traced and optimised: one meaning."""
    row = form.instruction.row
    symbolic = form.trace(LAYOUT)
    optimised = optimise(symbolic)
    optimised.verify()
    source = random.Random(form.name)
    for _ in range(6):
        word = random_word(form.instruction, source, **form.static)
        constant = form.trace(LAYOUT, word)
        fields = {name: row.extract(name, word) for name in row.fields}
        special = optimise(symbolic, fields)
        special.verify()
        salt = source.getrandbits(64)

        def register(file: str, index: int, salt: int = salt) -> int:
            declared = LAYOUT.by_name[file]
            if index == declared.zero:
                return 0
            value = answer((file, (index, salt), ())) & ((1 << declared.size) - 1)
            return value >> value % 3 * 21  # short values too: aligned, small, zero

        world = World(fields, source.getrandbits(64), register)
        expected = visible(run_graph(symbolic, world))
        assert visible(run_graph(optimised, world)) == expected
        assert visible(run_graph(special, world)) == expected
        assert visible(run_graph(constant, world)) == expected
        assert visible(run_graph(optimise(constant), world)) == expected
