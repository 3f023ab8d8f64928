"""RISC-V assembly text: operand formats, pseudo-instructions, further register names.

Sources: the assembly programmer's manual (riscv-asm-manual), the tables of pseudo-instructions;
unprivileged ISA manual 20240411, chapters 2.7 (fence), 20 (rounding modes) and 28 (Zfa).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anyarch.errors import AssemblyError
from anyarch.ir.ops import signed
from anyarch.isa.syntax import Format, Scope, Slot, Syntax, suffix

_FENCE_BITS: Final = "wroi"  # from bit 0 up
_CONSTANT_NAMES: Final = {1: "min", 30: "inf", 31: "nan"}  # of fli, whatever the format


def _show_fence(slot: Slot, word: int, pc: int) -> str:
    return "".join(_FENCE_BITS[bit] for bit in (3, 2, 1, 0) if slot.raw(word) >> bit & 1) or "0"


def _read_fence(slot: Slot, text: str, scope: Scope) -> int:
    if text == "0":
        return 0
    if not text or len(set(text)) != len(text) or not set(text) <= set(_FENCE_BITS):
        raise AssemblyError(f"{text!r} is no {slot.name}; expected letters of iorw, or 0")
    return sum(1 << _FENCE_BITS.index(letter) for letter in text)


def _constants() -> list[str]:
    from anyarch.guests.riscv.zfa import CONSTANTS  # not before its instructions' turn

    return [_CONSTANT_NAMES.get(number) or repr(value) for number, value in enumerate(CONSTANTS)]


def _read_constant(slot: Slot, text: str, scope: Scope) -> int:
    known = {name: number for number, name in enumerate(_constants())}
    try:
        return known[text if text in known else repr(float(text))]
    except (KeyError, ValueError):
        raise AssemblyError(
            f"fli cannot load {text!r}; expected one of {', '.join(known)}"
        ) from None


def _load_immediate(operands: Sequence[str]) -> list[str]:
    """``li rd, number``: the usual sequence of lui, addi(w), slli."""
    try:
        register, text = operands
        value = int(text, 0)
    except ValueError:
        raise AssemblyError("li takes a register and a number, as in `li a0, 0x1234`") from None
    if not -1 << 63 <= value < 1 << 64:
        raise AssemblyError(f"{text} does not fit 64 bits")
    return _build(register, signed(value & ((1 << 64) - 1), 64))


def _build(register: str, value: int) -> list[str]:
    low = signed(value & 0xFFF, 12)
    if value == low:
        return [f"addi {register}, zero, {low}"]
    if -1 << 31 <= value < 1 << 31:
        upper = [f"lui {register}, {value - low >> 12 & 0xFFFFF:#x}"]
        return upper + ([f"addiw {register}, {register}, {low}"] if low else [])
    high = value - low >> 12
    zeros = (high & -high).bit_length() - 1
    text = [*_build(register, high >> zeros), f"slli {register}, {register}, {12 + zeros}"]
    return text + ([f"addi {register}, {register}, {low}"] if low else [])


_ALIASES: Final = {
    "nop": "addi zero, zero, 0",
    "mv {rd}, {rs}": "addi {rd}, {rs}, 0",
    "not {rd}, {rs}": "xori {rd}, {rs}, -1",
    "neg {rd}, {rs}": "sub {rd}, zero, {rs}",
    "negw {rd}, {rs}": "subw {rd}, zero, {rs}",
    "sext.w {rd}, {rs}": "addiw {rd}, {rs}, 0",
    "seqz {rd}, {rs}": "sltiu {rd}, {rs}, 1",
    "snez {rd}, {rs}": "sltu {rd}, zero, {rs}",
    "sltz {rd}, {rs}": "slt {rd}, {rs}, zero",
    "sgtz {rd}, {rs}": "slt {rd}, zero, {rs}",
    "beqz {rs}, {target}": "beq {rs}, zero, {target}",
    "bnez {rs}, {target}": "bne {rs}, zero, {target}",
    "blez {rs}, {target}": "bge zero, {rs}, {target}",
    "bgez {rs}, {target}": "bge {rs}, zero, {target}",
    "bltz {rs}, {target}": "blt {rs}, zero, {target}",
    "bgtz {rs}, {target}": "blt zero, {rs}, {target}",
    "bgt {rs}, {rt}, {target}": "blt {rt}, {rs}, {target}",
    "ble {rs}, {rt}, {target}": "bge {rt}, {rs}, {target}",
    "bgtu {rs}, {rt}, {target}": "bltu {rt}, {rs}, {target}",
    "bleu {rs}, {rt}, {target}": "bgeu {rt}, {rs}, {target}",
    "j {target}": "jal zero, {target}",
    "jal {target}": "jal ra, {target}",
    "jr {rs}": "jalr zero, 0({rs})",
    "jalr {rs}": "jalr ra, 0({rs})",
    "jalr {rd}, {rs}, {imm}": "jalr {rd}, {imm}({rs})",
    "ret": "jalr zero, 0(ra)",
    "fence": "fence iorw, iorw",
    "fence.tso": "fence rw, rw {{fm=8}}",
    "pause": "fence w, 0",
    "zext.b {rd}, {rs}": "andi {rd}, {rs}, 255",
    "zext.w {rd}, {rs}": "add.uw {rd}, {rs}, zero",
    "csrr {rd}, {csr}": "csrrs {rd}, {csr}, zero",
    "csrw {csr}, {rs}": "csrrw zero, {csr}, {rs}",
    "csrs {csr}, {rs}": "csrrs zero, {csr}, {rs}",
    "csrc {csr}, {rs}": "csrrc zero, {csr}, {rs}",
    "csrwi {csr}, {imm}": "csrrwi zero, {csr}, {imm}",
    "csrsi {csr}, {imm}": "csrrsi zero, {csr}, {imm}",
    "csrci {csr}, {imm}": "csrrci zero, {csr}, {imm}",
    "rdcycle {rd}": "csrrs {rd}, cycle, zero",
    "rdtime {rd}": "csrrs {rd}, time, zero",
    "rdinstret {rd}": "csrrs {rd}, instret, zero",
    "frcsr {rd}": "csrrs {rd}, fcsr, zero",
    "fscsr {rs}": "csrrw zero, fcsr, {rs}",
    "fscsr {rd}, {rs}": "csrrw {rd}, fcsr, {rs}",
    "frrm {rd}": "csrrs {rd}, frm, zero",
    "fsrm {rs}": "csrrw zero, frm, {rs}",
    "fsrm {rd}, {rs}": "csrrw {rd}, frm, {rs}",
    "frflags {rd}": "csrrs {rd}, fflags, zero",
    "fsrmi {n}": "csrrwi zero, frm, {n}",
    "fsrmi {rd}, {n}": "csrrwi {rd}, frm, {n}",
    "fsflagsi {n}": "csrrwi zero, fflags, {n}",
    "fsflagsi {rd}, {n}": "csrrwi {rd}, fflags, {n}",
    "fsflags {rs}": "csrrw zero, fflags, {rs}",
    "fsflags {rd}, {rs}": "csrrw {rd}, fflags, {rs}",
    **{
        f"{name}.{size} {{rd}}, {{rs}}": f"{instruction}.{size} {{rd}}, {{rs}}, {{rs}}"
        for name, instruction in (("fmv", "fsgnj"), ("fneg", "fsgnjn"), ("fabs", "fsgnjx"))
        for size in "hsd"
    },
}

SYNTAX: Final = Syntax(
    formats={
        "rounding": suffix(
            {0: ", rne", 1: ", rtz", 2: ", rdn", 3: ", rup", 4: ", rmm", 7: ""},
            "[, rne|rtz|rdn|rup|rmm]",
        ),
        "ordering": suffix({0: "", 1: ".rl", 2: ".aq", 3: ".aqrl"}, "[.aq|.rl|.aqrl]"),
        "fence": Format(_show_fence, _read_fence, expected="iorw"),
        "fli": Format(
            lambda slot, word, pc: _constants()[slot.raw(word)],
            _read_constant,
            expected="constant",
        ),
    },
    aliases=_ALIASES,
    expansions={"li": _load_immediate},
    register_names={"fp": "s0"},
)
