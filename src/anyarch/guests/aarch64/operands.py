"""AArch64 assembly text: how operands read and print (Arm DDI 0487, C1.2).

Immediates have no ``#``, as assemblers permit. Many operands show bits beside their own field: a
general register's width is bit 31 or what the format's name says, an arrangement is in Q and size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from anyarch.errors import AssemblyError
from anyarch.ir.ops import signed
from anyarch.isa.syntax import (
    ADDRESS_MASK,
    Format,
    Operand,
    Scope,
    Slot,
    Syntax,
    suffix,
)

_REGISTER: Final = re.compile(r"([wx])(\d+|zr|sp)|(sp)")
CONDITIONS: Final = (
    *("eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc"),
    *("hi", "ls", "ge", "lt", "gt", "le", "al", "nv"),
)
_CONDITION_SYNONYMS: Final = {"hs": "cs", "lo": "cc"}
SHIFTS: Final = ("lsl", "lsr", "asr", "ror")
EXTENDS: Final = ("uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw", "sxtx")
SF: Final = 1 << 31


def _general_name(slot: Slot, number: int, letter: str) -> str:
    if number < 31:
        return f"{letter}{number}"
    if slot.kind.file == "x":
        return f"{letter}zr"
    return "sp" if letter == "x" else "wsp"


def _read_general(slot: Slot, text: str) -> tuple[int, str]:
    """Number and letter of a general register."""
    match = _REGISTER.fullmatch(text)
    if match:
        letter, name = ("x", "sp") if match[3] else (match[1], match[2])
        special = "zr" if slot.kind.file == "x" else "sp"
        if name == special and not (name == "sp" and letter == "x" and not match[3]):
            return 31, letter
        if name.isdigit() and int(name) < 31:
            return int(name), letter
    last = "xzr or wzr" if slot.kind.file == "x" else "sp or wsp"
    raise AssemblyError(f"{text!r} cannot be {slot.name}; expected x0 to x30, w0 to w30, {last}")


def _general(letter: str) -> Format:
    """A general register of a width that the instruction's name says."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        number, found = _read_general(slot, text)
        if found != letter:
            raise AssemblyError(
                f"{text!r} cannot be {slot.name}; expected one beginning with {letter}"
            )
        return number

    return Format(lambda slot, word, pc: _general_name(slot, slot.raw(word), letter), read)


def _sized(bit: int) -> Format:
    """A general register of 64 bits where ``bit`` of the word is set."""

    def show(slot: Slot, word: int, pc: int) -> str:
        return _general_name(slot, slot.raw(word), "wx"[word >> bit & 1])

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        number, letter = _read_general(slot, text)
        return Operand(number, 1 << bit, (letter == "x") << bit)

    return Format(show, read, bits=1 << bit)


def _choice(names: Mapping[int, str], synonyms: Mapping[str, str] | None = None) -> Format:
    values = {name: value for value, name in names.items()}

    def read(slot: Slot, text: str, scope: Scope) -> int:
        name = (synonyms or {}).get(text, text)
        if name not in values:
            raise AssemblyError(f"{text!r} cannot be {slot.name}; expected {', '.join(values)}")
        return values[name]

    return Format(lambda slot, word, pc: names[slot.raw(word)], read)


# Shifted and extended registers: the kind of shift is shown by the amount's operand.


def _shift_amount(at: int = 22) -> Format:
    """``, lsl 3``: the amount, with the kind of shift from bits 23:22; nothing for lsl 0."""
    mask = 3 << at

    def show(slot: Slot, word: int, pc: int) -> str:
        shift, amount = word >> at & 3, slot.raw(word)
        return f", {SHIFTS[shift]} {amount}" if shift or amount else ""

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        if not text:
            return Operand(0, mask, 0)
        name, _, amount = text.lstrip(", ").partition(" ")
        return Operand(
            slot.fit(scope.evaluate(amount), negative=False), mask, SHIFTS.index(name) << at
        )

    return Format(show, read, r"(?:\s*,\s*(?:lsl|lsr|asr|ror) [^,]+)?", bits=mask)


def _extended() -> Format:
    """``rm, sxtw 2``: rm with the kind of extension (bits 15:13) and amount (bits 12:10)."""
    mask = 0x3F << 10 | SF

    def show(slot: Slot, word: int, pc: int) -> str:
        option, amount = word >> 13 & 7, word >> 10 & 7
        wide = option & 3 == 3 and word & SF
        text = f"{_general_name(slot, slot.raw(word), 'x' if wide else 'w')}, {EXTENDS[option]}"
        return f"{text} {amount}" if amount else text

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        register, _, rest = text.partition(",")
        name, _, amount = rest.strip().partition(" ")
        shift = scope.evaluate(amount) if amount else 0
        if not 0 <= shift <= 4:
            raise AssemblyError(f"the shift of an extended register is {shift}; expected 0 to 4")
        option = EXTENDS.index(name)
        number, letter = _read_general(slot, register.strip())
        bits = option << 13 | shift << 10
        if letter == "x":
            return Operand(number, mask, bits | SF)
        return Operand(number, mask & ~SF, bits)

    return Format(show, read, rf"[^,]+,\s*(?:{'|'.join(EXTENDS)})(?: \d+)?", bits=0x3F << 10)


def _register_offset(scale: int) -> Format:
    """``x1, lsl 3``, ``w1, sxtw``: an offset register with option (15:13) and S (12)."""
    mask = 0xF << 12

    def show(slot: Slot, word: int, pc: int) -> str:
        option, scaled = word >> 13 & 7, word >> 12 & 1
        register = _general_name(slot, slot.raw(word), "x" if option & 1 else "w")
        if option == 3:
            return f"{register}, lsl {scale}" if scaled else register
        return f"{register}, {EXTENDS[option]}" + (f" {scale}" if scaled else "")

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        register, _, rest = text.partition(",")
        name, _, amount = rest.strip().partition(" ")
        number, letter = _read_general(slot, register.strip())
        option = EXTENDS.index(name) if name and name != "lsl" else 3
        if (option & 1) != (letter == "x"):
            raise AssemblyError(f"{text!r}: uxtw and sxtw take a w register, lsl and sxtx an x one")
        if amount and scope.evaluate(amount) not in ({scale} if scale else {0}):
            raise AssemblyError(f"{text!r}: the amount is {scale} where there is one")
        return Operand(number, mask, option << 13 | bool(amount) << 12)

    return Format(
        show, read, r"[^,\[\]]+(?:\s*,\s*(?:lsl|uxtw|sxtw|sxtx)(?: [^,\]]+)?)?", bits=mask
    )


# Immediates.


def _scaled(scale: int, *, omit: bool = True) -> Format:
    """``, 8``: a displacement in units of ``1 << scale``; nothing for zero."""

    def show(slot: Slot, word: int, pc: int) -> str:
        value = slot.number(word) << scale
        return f", {value}" if value or not omit else ""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        value = scope.evaluate(text.lstrip(", ")) if text else 0
        if value & ((1 << scale) - 1):
            raise AssemblyError(f"{slot.name} is {value}; expected a multiple of {1 << scale}")
        return slot.fit(value >> scale, negative=slot.kind.signed)

    return Format(show, read, r"(?:\s*,\s*[^,\[\]]+)?" if omit else r"\s*,\s*[^,\[\]]+")


def _show_lsl12(slot: Slot, word: int, pc: int) -> str:
    return ", lsl 12" if slot.raw(word) else ""


def _read_page(slot: Slot, text: str, scope: Scope) -> int:
    distance = signed((scope.evaluate(text) & ~0xFFF) - (scope.pc & ~0xFFF) & ADDRESS_MASK, 64)
    return slot.fit(distance, negative=True, shown=f"the distance to {text}")


def _show_page(slot: Slot, word: int, pc: int) -> str:
    return f"{(pc & ~0xFFF) + slot.number(word) & ADDRESS_MASK:#x}"


def bitmask(size: int, width: int, immr: int, imms: int) -> int:
    """The value of a logical immediate: elements of ``size`` bits in ``width``."""
    ones, rotation = (1 << (imms & size - 1) + 1) - 1, immr & size - 1
    element = (ones >> rotation | ones << size - rotation) & (1 << size) - 1
    return sum(element << at for at in range(0, width, size))


def bitmask_fields(value: int, width: int) -> tuple[int, int, int] | None:
    """N, immr and imms of a logical immediate, or None where there is none."""
    for size in (2, 4, 8, 16, 32, 64):
        if size > width:
            return None
        element = value & (1 << size) - 1
        ones = element.bit_count()
        if sum(element << at for at in range(0, width, size)) != value or not 0 < ones < size:
            continue
        for rotation in range(size):
            imms = (~(2 * size - 1) & 0x3F) | (ones - 1)
            if bitmask(size, width, rotation, ones - 1) == value:
                return int(size == 64), rotation, imms
    return None


def _show_bitmask(slot: Slot, word: int, pc: int) -> str:
    n, imms = word >> 22 & 1, word >> 10 & 0x3F
    size = 1 << (n << 6 | ~imms & 0x3F).bit_length() - 1
    return f"{bitmask(size, 64 if word & SF else 32, word >> 16 & 0x3F, imms):#x}"


def _read_bitmask(slot: Slot, text: str, scope: Scope) -> Operand:
    width = 64 if slot.row.value & SF else 32
    value = scope.evaluate(text) & (1 << width) - 1
    found = bitmask_fields(value, width)
    if found is None:
        raise AssemblyError(f"{text} is no repeated run of ones, as a logical immediate must be")
    n, immr, imms = found
    mask, bits = 0x1FFF << 10, n << 22 | immr << 16 | imms << 10
    if (slot.row.value ^ bits) & slot.row.mask & mask:
        raise AssemblyError("another element size")  # another row has it
    return Operand(imms & (1 << slot.width) - 1, mask, bits)


def _second(letter: str) -> Format:
    """The register after an even one, which the field names."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        number, found = _read_general(slot, text)
        if found != letter:
            raise AssemblyError(f"{text!r} cannot follow {slot.name}")
        return number - 1

    return Format(lambda slot, word, pc: _general_name(slot, slot.raw(word) + 1, letter), read)


def _show_identification(slot: Slot, word: int, pc: int) -> str:
    return f"s3_0_c0_c{slot.raw(word) >> 3}_{slot.raw(word) & 7}"


def _read_identification(slot: Slot, text: str, scope: Scope) -> int:
    match = re.fullmatch(r"s3_0_c0_c(\d)_(\d)", text)
    if match is None:
        raise AssemblyError(f"{text!r} is no system register that programs may use")
    return int(match[1]) << 3 | int(match[2])


def _hw(slot: Slot, word: int, pc: int) -> str:
    return f", lsl {16 * slot.raw(word)}" if slot.raw(word) else ""


def _read_hw(slot: Slot, text: str, scope: Scope) -> int:
    amount = scope.evaluate(text.split()[-1]) if text else 0
    if amount % 16:
        raise AssemblyError(f"{text!r}: a multiple of 16 is expected")
    return slot.fit(amount // 16, negative=False)


# Floating-point and vector registers.

_SCALAR: Final = re.compile(r"([bhsdq])(\d+)")
_VECTOR: Final = re.compile(r"v(\d+)\.(\d*)([bhsdq])")


def _scalar_number(slot: Slot, text: str, letter: str) -> int:
    match = _SCALAR.fullmatch(text)
    if match is None or match[1] not in letter or int(match[2]) > 31:
        raise AssemblyError(
            f"{text!r} cannot be {slot.name}; expected {letter[0]}0 to {letter[0]}31"
        )
    return int(match[2])


def _scalar(letter: str) -> Format:
    """A scalar of a width that the instruction's name says."""
    return Format(
        lambda slot, word, pc: f"{letter}{slot.raw(word)}",
        lambda slot, text, scope: _scalar_number(slot, text, letter),
    )


def _top() -> Format:
    """The upper doubleword of a vector."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        match = re.fullmatch(r"v(\d+)\.d\[1\]", text)
        if match is None or int(match[1]) > 31:
            raise AssemblyError(f"{text!r} cannot be {slot.name}; expected v0.d[1]")
        return int(match[1])

    return Format(lambda slot, word, pc: f"v{slot.raw(word)}.d[1]", read, r"v\d+\.d\[1\]")


def _scalar_by(letters: str, at: int, width: int, step: int = 0) -> Format:
    """A scalar whose width ``letters`` names by bits ``at`` up of the word."""
    mask = (1 << width) - 1 << at

    def show(slot: Slot, word: int, pc: int) -> str:
        return f"{letters[(word >> at & (1 << width) - 1)]}{slot.raw(word)}"

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        number = _scalar_number(slot, text, letters.replace("?", ""))
        return Operand(number, mask, letters.index(text[0]) << at)

    return Format(show, read, bits=mask)


ARRANGEMENTS: Final = ("8b", "4h", "2s", "1d", "16b", "8h", "4s", "2d")  # by Q:size


def _arranged(names: Callable[[int], str], at: tuple[int, ...] = (22, 23, 30)) -> Format:
    """A vector whose arrangement is what ``names`` says of the bits ``at``, lowest first."""
    mask = sum(1 << bit for bit in at)

    def key(word: int) -> int:
        return sum((word >> bit & 1) << index for index, bit in enumerate(at))

    def show(slot: Slot, word: int, pc: int) -> str:
        return f"v{slot.raw(word)}.{names(key(word))}"

    def read(slot: Slot, text: str, scope: Scope) -> Operand:
        match = _VECTOR.fullmatch(text)
        if match and int(match[1]) < 32:
            for number in range(1 << len(at)):
                bits = sum((number >> index & 1) << bit for index, bit in enumerate(at))
                fixed = slot.row.mask & mask
                if names(number) == match[2] + match[3] and bits & fixed == slot.row.value & fixed:
                    return Operand(int(match[1]), mask, bits)
        raise AssemblyError(f"{text!r} cannot be {slot.name}; expected a vector such as v0.16b")

    return Format(show, read, bits=mask)


def _fixed(arrangement: str) -> Format:
    """A vector of one arrangement."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        match = _VECTOR.fullmatch(text)
        if match is None or match[2] + match[3] != arrangement or int(match[1]) > 31:
            raise AssemblyError(f"{text!r} cannot be {slot.name}; expected v0.{arrangement}")
        return int(match[1])

    return Format(lambda slot, word, pc: f"v{slot.raw(word)}.{arrangement}", read)


# Elements: `v1.h` by one field, its index in brackets by another.


def _indexed(letter: str) -> Format:
    """The vector of an element."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        match = _VECTOR.fullmatch(text)
        if match is None or match[2] + match[3] != letter or int(match[1]) > 31:
            raise AssemblyError(f"{text!r} cannot be {slot.name}; expected v0.{letter}[0]")
        return slot.fit(int(match[1]), negative=False)

    return Format(lambda slot, word, pc: f"v{slot.raw(word)}.{letter}", read, r"v\d+\.\d?[bhsd]")


def _show_index(slot: Slot, word: int, pc: int) -> str:
    return f"[{slot.raw(word)}]"


def _read_index(slot: Slot, text: str, scope: Scope) -> int:
    return slot.fit(scope.evaluate(text.strip("[]")), negative=False)


def _list(count: int, shape: str) -> Format:
    """``{v1.16b, v2.16b}``: consecutive registers, the last followed by the first."""

    def read(slot: Slot, text: str, scope: Scope) -> int:
        names = [part.strip() for part in text.strip("{} ").split(",")]
        matches = [_VECTOR.fullmatch(name) for name in names]
        if len(names) == count and all(m and m[2] + m[3] == shape for m in matches):
            numbers = [int(match[1]) for match in matches if match]
            if all(n == (numbers[0] + index) % 32 for index, n in enumerate(numbers)):
                return numbers[0]
        raise AssemblyError(
            f"{text!r}: expected {count} consecutive registers such as {{v0.{shape}}}"
        )

    def show(slot: Slot, word: int, pc: int) -> str:
        names = (f"v{(slot.raw(word) + index) % 32}.{shape}" for index in range(count))
        return "{" + ", ".join(names) + "}"

    return Format(show, read, r"\{[^}]*\}")


def _read_right(slot: Slot, text: str, scope: Scope) -> int:
    amount = scope.evaluate(text)
    if not 1 <= amount <= 1 << slot.width:
        raise AssemblyError(f"the shift is {amount}; expected 1 to {1 << slot.width}")
    return (1 << slot.width) - amount


def _show_byte_mask(slot: Slot, word: int, pc: int) -> str:
    raw = slot.raw(word)
    return f"{sum(0xFF << 8 * bit for bit in range(8) if raw >> bit & 1):#018x}"


def _read_byte_mask(slot: Slot, text: str, scope: Scope) -> int:
    value = scope.evaluate(text)
    raw = sum(1 << bit for bit in range(8) if value >> 8 * bit & 0xFF)
    if sum(0xFF << 8 * bit for bit in range(8) if raw >> bit & 1) != value & ADDRESS_MASK:
        raise AssemblyError(f"{text}: every byte must be 0 or 0xff")
    return raw


# Floating-point immediates, as VFPExpandImm gives them.


def _expanded(imm8: int) -> float:
    exponent = (imm8 >> 4 & 7 ^ 4) - 3
    value = (1 + (imm8 & 15) / 16) * 2.0**exponent
    return -value if imm8 >> 7 else value


_IMMEDIATES: Final = {_expanded(imm8): imm8 for imm8 in range(256)}


def _read_float(slot: Slot, text: str, scope: Scope) -> int:
    try:
        return _IMMEDIATES[float(text)]
    except (KeyError, ValueError):
        raise AssemblyError(
            f"{text!r} is no immediate: expected 16/16 to 31/16 times a power of two from 1/8 to 16"
        ) from None


def _read_fraction_bits(slot: Slot, text: str, scope: Scope) -> int:
    return slot.fit(64 - scope.evaluate(text) & (1 << slot.width) - 1, negative=False)


def _show_fraction_bits(slot: Slot, word: int, pc: int) -> str:
    return str((1 << slot.width) - slot.raw(word))


SYNTAX: Final = Syntax(
    formats={
        "sized": _sized(31),
        "w": _general("w"),
        "x": _general("x"),
        "shifted": _shift_amount(),
        "extended": _extended(),
        "lsl12": Format(
            _show_lsl12, lambda slot, text, scope: int(bool(text)), r"(?:\s*,\s*lsl 12)?"
        ),
        "hw": Format(_hw, _read_hw, r"(?:\s*,\s*lsl [^,]+)?"),
        "page": Format(_show_page, _read_page, expected="address or label"),
        "bitmask": Format(_show_bitmask, _read_bitmask, bits=0x1FFF << 10),
        "cond": _choice(dict(enumerate(CONDITIONS)), _CONDITION_SYNONYMS),
        "pairw": _second("w"),
        "pairx": _second("x"),
        "idregister": Format(_show_identification, _read_identification),
        "ordering": suffix({0: "", 1: "l", 2: "a", 3: "al"}, "[a|l|al]"),
        "fpimm": Format(lambda slot, word, pc: repr(_expanded(slot.raw(word))), _read_float),
        "fbits": Format(_show_fraction_bits, _read_fraction_bits),
        "d1": _top(),
        # Vectors by Q: the name has the letter of the lanes.
        **{
            f"q{letter}": _arranged(names.__getitem__, (30,))
            for letter, names in (
                ("b", ("8b", "16b")),
                ("h", ("4h", "8h")),
                ("s", ("2s", "4s")),
                ("d", ("1d", "2d")),
            )
        },
        **{
            f"v{shape}": _fixed(shape)
            for shape in ("8b", "16b", "4h", "8h", "2s", "4s", "1d", "2d", "1q", "2h")
        },
        "hhalf": _arranged(lambda key: ("2h", "4h")[key], (30,)),
        "quarter": _choice({0: "0", 1: "90", 2: "180", 3: "270"}),
        "odd": _choice({0: "90", 1: "270"}),
        **{f"e{name}": _indexed(name) for name in ("b", "h", "s", "d", "4b", "2h")},
        **{
            f"list{count}_{shape}": _list(count, shape)
            for count in range(1, 5)
            for shape in (*ARRANGEMENTS, *"bhsd")
        },
        "right": Format(
            lambda slot, word, pc: str((1 << slot.width) - slot.raw(word)), _read_right
        ),
        "left": Format(
            lambda slot, word, pc: str(slot.raw(word)),
            lambda slot, text, scope: slot.fit(scope.evaluate(text), negative=False),
        ),
        "bytemask": Format(_show_byte_mask, _read_byte_mask),
        "index": Format(_show_index, _read_index, r"\[[^\]]+\]"),
        "b": _scalar("b"),
        "h": _scalar("h"),
        "s": _scalar("s"),
        "d": _scalar("d"),
        "q": _scalar("q"),
        **{f"offset{scale}": _register_offset(scale) for scale in range(5)},
        **{f"disp{scale}": _scaled(scale) for scale in range(5)},
        **{f"post{scale}": _scaled(scale, omit=False) for scale in range(5)},
    },
    aliases={
        "mov {rd}, {rm}": "orr {rd}, xzr, {rm}",
        "cmp {rn}, {rm}": "subs xzr, {rn}, {rm}",
        "ret": "ret x30",
        "nop": "hint 0",
        "yield": "hint 1",
        "b.hs {target}": "b.cs {target}",
        "b.lo {target}": "b.cc {target}",
    },
)
