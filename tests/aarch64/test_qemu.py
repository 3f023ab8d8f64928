"""All definitions as one program: what it writes is the same under QEMU and under the interpreter.

Each case loads random registers, executes one word and writes all registers out. This sees to
extensions that unicorn's processor does not have.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch.guests.aarch64 import ARCHITECTURE
from anyarch.isa.assembly import format_word
from anyarch.isa.instruction import Instruction
from tests.aarch64.emulator import DEFINITIONS, random_registers, random_word, unpredictable

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed"
)

NBYTES: Final = 752  # of a case: v0 to v31, x0 to x27, two words of status
SCRATCH: Final = 0x40000
MODES: Final = (0, 0, 0, 1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25, 1 << 19, 1 << 26)
FLOATS: Final = {"fp", "simd_float", "simd_dot"}
STATUS: Final = {"msr_nzcv", "mrs_nzcv", "msr_fpcr", "clrex", "cfinv", "axflag", "xaflag"}
# Stores whose reservation has another size than the harness takes: what they do is left open; what
# depends on where the program lies; QEMU's sign beyond 16 bits.
EXCEPT: Final = ("stxr", "stlxr", "stxp", "stlxp", "adr", "fcvtzs_fixed_h_scalar")


def is_fit(instruction: Instruction, word: int) -> bool:
    """Whether the harness can run a word: x28 to x30 and sp are its own."""
    row, kinds = instruction.row, instruction.kinds
    numbers = {
        name: row.extract(name, word)
        for name in row.fields
        if name in kinds and kinds[name].file in ("x", "r")
    }
    for name, number in numbers.items():
        last = 26 if "casp" in instruction.name else 27
        if number > last and (number < 31 or str(kinds[name].file) == "r"):
            return False
    if "base" in numbers:
        others = [number for name, number in numbers.items() if name != "base"]
        if numbers["base"] in [*others, *(number + 1 for number in others)]:
            return False
    displaced = instruction.name.startswith(("ldapur", "stlur"))
    return not (displaced and row.extract("imm9", word) & 7) and not unpredictable(
        instruction, word
    )


def choose(source: random.Random) -> Iterator[tuple[Instruction, int]]:
    for instruction in DEFINITIONS:
        if instruction.extension in ("branches", "system") and instruction.name not in STATUS:
            continue
        if "literal" in instruction.name or instruction.name.startswith(EXCEPT):
            continue
        words = (random_word(instruction, source) for _ in range(400))
        found = next((word for word in words if is_fit(instruction, word)), None)
        if found is not None:
            yield instruction, found


def case_text(instruction: Instruction, word: int) -> Iterator[str]:
    row = instruction.row
    yield "add x0, x29, 736\nldp x1, x2, [x0]\nmsr nzcv, x1\nmsr fpcr, x2\nmsr fpsr, xzr"
    for index in range(0, 32, 2):
        yield f"ldp q{index}, q{index + 1}, [x29], 32"
    for index in range(0, 28, 2):
        yield f"ldp x{index}, x{index + 1}, [x29], 16"
    yield "add x29, x29, 16"
    if "base" in row.fields:
        base = row.extract("base", word)
        if "option" in row.fields and row.extract("rm", word) != 31:
            yield f"and x{row.extract('rm', word)}, x{row.extract('rm', word)}, 0x7f8"
        yield f"mov x{base}, x28\n.inst {word:#x}\nsub x{base}, x{base}, x28"
    else:
        yield f".inst {word:#x}"
    for index in range(0, 32, 2):
        yield f"stp q{index}, q{index + 1}, [x30], 32"
    for index in range(0, 28, 2):
        yield f"stp x{index}, x{index + 1}, [x30], 16"
    yield "mrs x0, nzcv\nmrs x1, fpsr\nmsr fpcr, xzr\nstp x0, x1, [x30], 16"


def write_out(label: str, nbytes: int) -> str:
    return (
        f"mov x8, 64\nmov x0, 1\nadrp x1, {label}\nadd x1, x1, :lo12:{label}\n"
        f"ldr x2, ={nbytes}\nsvc 0"
    )


def build(folder: Path, cases: list[tuple[Instruction, int]], source: random.Random) -> Path:
    data = bytearray()
    lines = [".text\n.global _start\n_start:"]
    for register, label in ((29, "input"), (30, "output"), (28, "scratch")):
        lines.append(f"adrp x{register}, {label}\nadd x{register}, x{register}, :lo12:{label}")
    lines.append(f"add x28, x28, {SCRATCH >> 13:#x}, lsl 12")
    for instruction, word in cases:
        registers = random_registers(source)
        for value in registers.v:
            data += value.to_bytes(16, "little")
        mode = source.choice(MODES) if instruction.extension in FLOATS else 0
        data += struct.pack("<30Q", *registers.x[:28], registers.nzcv << 28, mode)
        lines += case_text(instruction, word)
    lines += [write_out("output", NBYTES * len(cases)), write_out("scratch", SCRATCH)]
    lines.append("mov x8, 93\nmov x0, 0\nsvc 0\n.ltorg\n.data\n.balign 4096")
    lines.append(
        f'input: .incbin "{folder}/input"\n.balign 4096\nscratch: .incbin "{folder}/scratch"'
    )
    lines.append(f".bss\n.balign 4096\noutput: .skip {NBYTES * len(cases)}\n")
    (folder / "input").write_bytes(data)
    (folder / "scratch").write_bytes(source.randbytes(SCRATCH))
    text, program = folder / "cases.s", folder / "cases"
    text.write_text("\n".join(lines))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-nostdlib"]
    subprocess.run([*command, "-static", "-o", str(program), str(text)], check=True)
    return program


def test_all_definitions(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    source = random.Random("one program")
    cases = list(choose(source))
    assert len(cases) > 0.9 * len(DEFINITIONS)
    program = build(tmp_path, cases, source)
    theirs = subprocess.run(["qemu-aarch64", "-cpu", "max", program], stdout=subprocess.PIPE)
    ours = anyarch.run(program, engine="interp", timeout=120)
    assert (theirs.returncode, len(theirs.stdout)) == (ours.status, len(ours.stdout))
    problems = []
    for number, (instruction, word) in enumerate(cases):
        part = slice(number * NBYTES, (number + 1) * NBYTES)
        if theirs.stdout[part] != ours.stdout[part]:
            text = format_word(ARCHITECTURE, word.to_bytes(4, "little"))
            problems.append(
                f"{instruction.name}: {text}: {_difference(theirs.stdout[part], ours.stdout[part])}"
            )
    assert not problems, "\n" + "\n".join(problems[:20])
    assert theirs.stdout[-SCRATCH:] == ours.stdout[-SCRATCH:]


def _difference(theirs: bytes, ours: bytes) -> str:
    names = [*(f"v{index}" for index in range(32) for _ in range(2)), *(f"x{i}" for i in range(28))]
    words = zip(
        [*names, "nzcv", "fpsr"],
        struct.iter_unpack("<Q", theirs),
        struct.iter_unpack("<Q", ours),
        strict=True,
    )
    return ", ".join(f"{name} is {b:#x}, there {a:#x}" for name, (a,), (b,) in words if a != b)
