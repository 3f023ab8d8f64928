"""Loads and stores of general registers, scalars and vectors as a whole (Arm DDI 0487, C4.1.94).

Each table row is an instruction in all addressing modes that it has; ``Access`` says what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.guests.aarch64.memory import register_offset, untagged
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine


@dataclass(frozen=True, slots=True)
class Access:
    """What is transferred: ``size`` bits of memory, and how a loaded value is extended."""

    size: int
    store: bool
    vector: bool = False
    signed: int = 0  # the width that a loaded value is sign-extended to

    def perform(self, m: Machine, base: Bits, rt: Bits, displacement: Bits | int = 0) -> None:
        """Load or store at a displacement from a base."""
        address = untagged(base, displacement)
        if self.store:
            m.store(address, m.v[rt, self.size] if self.vector else m.x[rt, self.size])
            return
        value = m.load(address, self.size)
        if self.vector:
            m.v[rt, self.size] = value
        elif self.signed:
            m.x[rt, self.signed] = value.sext(self.signed)
        else:
            m.x[rt, self.size] = value

    @property
    def register(self) -> str:
        """The field in rows and texts."""
        return "vt" if self.vector else "rt"

    @property
    def format(self) -> str:
        """How the register is shown."""
        if self.vector:
            return "bhsdq"[self.size.bit_length() - 4]
        return "x" if max(self.signed, self.size) == 64 else "w"

    @property
    def scale(self) -> int:
        """Logarithm of the size in bytes."""
        return self.size.bit_length() - 4


# Mnemonic, size and opc bits.
_SINGLE: Final = (
    ("strb", "00 111 0", "00", Access(8, True)),
    ("ldrb", "00 111 0", "01", Access(8, False)),
    ("ldrsb", "00 111 0", "10", Access(8, False, signed=64)),
    ("ldrsb", "00 111 0", "11", Access(8, False, signed=32)),
    ("strh", "01 111 0", "00", Access(16, True)),
    ("ldrh", "01 111 0", "01", Access(16, False)),
    ("ldrsh", "01 111 0", "10", Access(16, False, signed=64)),
    ("ldrsh", "01 111 0", "11", Access(16, False, signed=32)),
    ("str", "10 111 0", "00", Access(32, True)),
    ("ldr", "10 111 0", "01", Access(32, False)),
    ("ldrsw", "10 111 0", "10", Access(32, False, signed=64)),
    ("str", "11 111 0", "00", Access(64, True)),
    ("ldr", "11 111 0", "01", Access(64, False)),
    ("str", "00 111 1", "00", Access(8, True, vector=True)),
    ("ldr", "00 111 1", "01", Access(8, False, vector=True)),
    ("str", "00 111 1", "10", Access(128, True, vector=True)),
    ("ldr", "00 111 1", "11", Access(128, False, vector=True)),
    ("str", "01 111 1", "00", Access(16, True, vector=True)),
    ("ldr", "01 111 1", "01", Access(16, False, vector=True)),
    ("str", "10 111 1", "00", Access(32, True, vector=True)),
    ("ldr", "10 111 1", "01", Access(32, False, vector=True)),
    ("str", "11 111 1", "00", Access(64, True, vector=True)),
    ("ldr", "11 111 1", "01", Access(64, False, vector=True)),
)

Body = Callable[..., None]


def _register(fields: dict[str, Bits]) -> Bits:
    return fields["vt"] if "vt" in fields else fields["rt"]


def _unsigned(m: Machine, access: Access, imm12: Bits, base: Bits, **rt: Bits) -> None:
    """Access at a base and a scaled displacement."""
    access.perform(m, m.r[base], _register(rt), imm12 << access.scale)


def _unscaled(m: Machine, access: Access, imm9: Bits, base: Bits, **rt: Bits) -> None:
    """Access at a base and a displacement."""
    access.perform(m, m.r[base], _register(rt), imm9)


def _post(m: Machine, access: Access, imm9: Bits, base: Bits, **rt: Bits) -> None:
    """Access at a base, and add a displacement to the base."""
    address = m.r[base]
    access.perform(m, address, _register(rt))
    m.r[base] = address + imm9


def _pre(m: Machine, access: Access, imm9: Bits, base: Bits, **rt: Bits) -> None:
    """Add a displacement to a base, and access there."""
    access.perform(m, m.r[base], _register(rt), imm9)
    m.r[base] = m.r[base] + imm9


def _offset(
    m: Machine, access: Access, rm: Bits, option: int, scaled: Bits, base: Bits, **rt: Bits
) -> None:
    """Access at a base and an extended register."""
    amount = scaled.select(scaled.constant(access.scale, 64), 0)
    access.perform(m, m.r[base] + register_offset(m, rm, option, amount), _register(rt))


WORD_OR_MORE: Final = "option != 0, option != 1, option != 4, option != 5"


def _define(
    name: str, row: str, text: str, body: Body, static: str = "", where: str = "", **fixed: object
) -> None:
    insn(row, text, static=static, where=where, name=name)(bind(body, name, __name__, **fixed))


def _define_single(mnemonic: str, prefix: str, opc: str, access: Access) -> None:
    register = access.register
    shown = f"{{{register}:{access.format}}}"
    own = f"{mnemonic}_{access.format}"
    letters = mnemonic[2:]  # ldr, str: the unscaled and unprivileged forms put u and t before r
    _define(
        f"{own}_unsigned",
        f"{prefix} 01 {opc} imm12 base {register}",
        f"{mnemonic} {shown}, [{{base}}{{imm12:disp{access.scale}}}]",
        _unsigned,
        access=access,
    )
    _define(
        f"{own}_unscaled",
        f"{prefix} 00 {opc} 0 imm9 00 base {register}",
        f"{mnemonic[:2]}u{letters} {shown}, [{{base}}{{imm9:disp0}}]",
        _unscaled,
        access=access,
    )
    _define(
        f"{own}_post",
        f"{prefix} 00 {opc} 0 imm9 01 base {register}",
        f"{mnemonic} {shown}, [{{base}}], {{imm9}}",
        _post,
        access=access,
    )
    _define(
        f"{own}_pre",
        f"{prefix} 00 {opc} 0 imm9 11 base {register}",
        f"{mnemonic} {shown}, [{{base}}, {{imm9}}]!",
        _pre,
        access=access,
    )
    _define(
        f"{own}_register",
        f"{prefix} 00 {opc} 1 rm option scaled:1 10 base {register}",
        f"{mnemonic} {shown}, [{{base}}, {{rm:offset{access.scale}}}]",
        _offset,
        static="option",
        where=WORD_OR_MORE,
        access=access,
    )
    if not access.vector:
        _define(
            f"{own}_unprivileged",
            f"{prefix} 00 {opc} 0 imm9 10 base {register}",
            f"{mnemonic[:2]}t{letters} {shown}, [{{base}}{{imm9:disp0}}]",
            _unscaled,
            access=access,
        )


for _row in _SINGLE:
    _define_single(*_row)


# Prefetches do nothing.


@insn("11 111 0 01 10 imm12 base prfop:5", "prfm {prfop}, [{base}{imm12:disp3}]")
def prfm_unsigned(m: Machine, imm12: Bits, base: Bits, prfop: Bits) -> None:
    """Prefetch."""


@insn("11 111 0 00 10 0 imm9 00 base prfop:5", "prfum {prfop}, [{base}{imm9:disp0}]")
def prfum(m: Machine, imm9: Bits, base: Bits, prfop: Bits) -> None:
    """Prefetch at an unscaled displacement."""


@insn(
    "11 111 0 00 10 1 rm option scaled:1 10 base prfop:5",
    "prfm {prfop}, [{base}, {rm:offset3}]",
    where=WORD_OR_MORE,
)
def prfm_register(
    m: Machine, rm: Bits, option: Bits, scaled: Bits, base: Bits, prfop: Bits
) -> None:
    """Prefetch at a register offset."""


@insn("11 011 0 00 imm[20:2] prfop:5", "prfm {prfop}, {imm:target}")
def prfm_literal(m: Machine, imm: Bits, prfop: Bits) -> None:
    """Prefetch near pc."""


# Literals.


def _literal(m: Machine, access: Access, imm: Bits, **rt: Bits) -> None:
    """Load from near pc."""
    value = m.load(m.pc + imm, access.size)
    if access.vector:
        m.v[rt["vt"], access.size] = value
    elif access.signed:
        m.x[rt["rt"]] = value.sext(64)
    else:
        m.x[rt["rt"], access.size] = value


for _mnemonic, _opc, _access in (
    ("ldr", "00 011 0", Access(32, False)),
    ("ldr", "01 011 0", Access(64, False)),
    ("ldrsw", "10 011 0", Access(32, False, signed=64)),
    ("ldr", "00 011 1", Access(32, False, vector=True)),
    ("ldr", "01 011 1", Access(64, False, vector=True)),
    ("ldr", "10 011 1", Access(128, False, vector=True)),
):
    _define(
        f"{_mnemonic}_{_access.format}_literal",
        f"{_opc} 00 imm[20:2] {_access.register}",
        f"{_mnemonic} {{{_access.register}:{_access.format}}}, {{imm:target}}",
        _literal,
        access=_access,
    )


# Pairs.


def _pair(
    m: Machine, access: Access, base: Bits, displacement: Bits | int, first: Bits, second: Bits
) -> None:
    """Two transfers, one behind the other."""
    access.perform(m, base, first, displacement)
    access.perform(m, base, second, displacement + access.size // 8)


def _pair_fields(fields: dict[str, Bits]) -> tuple[Bits, Bits]:
    return (fields["vt"], fields["vt2"]) if "vt" in fields else (fields["rt"], fields["rt2"])


def _pair_offset(m: Machine, access: Access, imm7: Bits, base: Bits, **rt: Bits) -> None:
    """Access a pair at a base and a displacement."""
    _pair(m, access, m.r[base], imm7 << access.scale, *_pair_fields(rt))


def _pair_post(m: Machine, access: Access, imm7: Bits, base: Bits, **rt: Bits) -> None:
    """Access a pair at a base, and add a displacement to the base."""
    address = m.r[base]
    _pair(m, access, address, 0, *_pair_fields(rt))
    m.r[base] = address + (imm7 << access.scale)


def _pair_pre(m: Machine, access: Access, imm7: Bits, base: Bits, **rt: Bits) -> None:
    """Add a displacement to a base, and access a pair there."""
    displacement = imm7 << access.scale
    _pair(m, access, m.r[base], displacement, *_pair_fields(rt))
    m.r[base] = m.r[base] + displacement


_PAIRS: Final = (
    ("stp", "00 101 0", 0, Access(32, True)),
    ("ldp", "00 101 0", 1, Access(32, False)),
    ("ldpsw", "01 101 0", 1, Access(32, False, signed=64)),
    ("stp", "10 101 0", 0, Access(64, True)),
    ("ldp", "10 101 0", 1, Access(64, False)),
    ("stp", "00 101 1", 0, Access(32, True, vector=True)),
    ("ldp", "00 101 1", 1, Access(32, False, vector=True)),
    ("stp", "01 101 1", 0, Access(64, True, vector=True)),
    ("ldp", "01 101 1", 1, Access(64, False, vector=True)),
    ("stp", "10 101 1", 0, Access(128, True, vector=True)),
    ("ldp", "10 101 1", 1, Access(128, False, vector=True)),
)

for _mnemonic, _opc, _load, _access in _PAIRS:
    _register_ = _access.register
    _fields = f"imm7 {_register_}2 base {_register_}"
    _shown = f"{{{_register_}:{_access.format}}}, {{{_register_}2:{_access.format}}}"
    _scale = _access.scale
    for _mode, _bits, _text, _body in (
        ("offset", "010", f"[{{base}}{{imm7:disp{_scale}}}]", _pair_offset),
        ("post", "001", f"[{{base}}]{{imm7:post{_scale}}}", _pair_post),
        ("pre", "011", f"[{{base}}{{imm7:post{_scale}}}]!", _pair_pre),
        ("nontemporal", "000", f"[{{base}}{{imm7:disp{_scale}}}]", _pair_offset),
    ):
        if _mode == "nontemporal" and _mnemonic == "ldpsw":
            continue
        _own = f"{_mnemonic[:2]}n{_mnemonic[2:]}" if _mode == "nontemporal" else _mnemonic
        _define(
            f"{_mnemonic}_{_access.format}_{_mode}",
            f"{_opc} {_bits} {_load} {_fields}",
            f"{_own} {_shown}, {_text}",
            _body,
            access=_access,
        )
