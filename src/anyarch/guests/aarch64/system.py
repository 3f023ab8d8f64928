"""System registers and cache maintenance that programs may use (Arm DDI 0487, D24 and C5).

The identification registers read as Linux gives them to programs (arm64/cpu-feature-registers.rst).
Other system registers are undefined at EL0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.guests.aarch64.integers import get_nzcv, set_nzcv
from anyarch.guests.aarch64.memory import untagged
from anyarch.guests.aarch64.registers import DIT, SSBS, TPIDR, TPIDRRO
from anyarch.guests.aarch64.status import read_fpcr, read_fpsr, write_fpcr, write_fpsr
from anyarch.ir.bits import Bits, Concrete
from anyarch.isa.machine import Machine

Read = Callable[[Machine], Bits]
Write = Callable[[Machine, Bits], None]

LINE_NBYTES: Final = 64  # of caches, and what dc zva clears
FREQUENCY: Final = 1_000_000_000  # of cntvct_el0, which counts nanoseconds


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """A register by op0, op1, CRn, CRm, op2: how it is read, and written where it can be."""

    name: str
    number: tuple[int, int, int, int, int]
    read: Read
    write: Write | None = None


def _constant(value: int) -> Read:
    return lambda m: Concrete(value, 64)


def _plain(index: int) -> Read:
    return lambda m: m.system[index]


def _write_plain(index: int) -> Write:
    def write(m: Machine, value: Bits) -> None:
        m.system[index] = value

    return write


def _bit(index: int, bit: int) -> tuple[Read, Write]:
    def write(m: Machine, value: Bits) -> None:
        m.system[index] = value & 1 << bit

    return _plain(index), write


def _read_flags(m: Machine) -> Bits:
    return get_nzcv(m).zext(64) << 28


def _write_flags(m: Machine, value: Bits) -> None:
    set_nzcv(m, value[28:32])


# Features by the position of their four bits, as far as programs see them.
ISAR0: Final = (
    2 << 4  # AES, PMULL
    | 1 << 8  # SHA1
    | 2 << 12  # SHA256, SHA512
    | 1 << 16  # CRC32
    | 2 << 20  # LSE
    | 1 << 28  # RDM
    | 1 << 32  # SHA3
    | 1 << 44  # dot product
    | 1 << 48  # FHM
    | 2 << 52  # FlagM2
)
ISAR1: Final = (
    2 << 0  # DPB2
    | 1 << 12  # JSCVT
    | 1 << 16  # FCMA
    | 2 << 20  # LRCPC2
    | 1 << 32  # FRINTTS
    | 1 << 36  # SB
    | 1 << 44  # BF16
    | 1 << 52  # I8MM
)
PFR0: Final = 1 << 16 | 1 << 20 | 1 << 48 | 0x11  # FP16, Advanced SIMD with it, DIT, EL0 and EL1
PFR1: Final = 1 << 4  # SSBS
IDENTIFICATION: Final = {  # by CRm and op2; all others of op0 3, op1 0, CRn 0 read as zero
    (0, 0): ("midr_el1", 0x000F_0000),
    (0, 5): ("mpidr_el1", 1 << 31),
    (0, 6): ("revidr_el1", 0),
    (4, 0): ("id_aa64pfr0_el1", PFR0),
    (4, 1): ("id_aa64pfr1_el1", PFR1),
    (4, 4): ("id_aa64zfr0_el1", 0),
    (5, 0): ("id_aa64dfr0_el1", 6),
    (5, 1): ("id_aa64dfr1_el1", 0),
    (6, 0): ("id_aa64isar0_el1", ISAR0),
    (6, 1): ("id_aa64isar1_el1", ISAR1),
    (6, 2): ("id_aa64isar2_el1", 0),
    (7, 0): ("id_aa64mmfr0_el1", 0xFF000000),
    (7, 1): ("id_aa64mmfr1_el1", 0),
    (7, 2): ("id_aa64mmfr2_el1", 0),
}

REGISTERS: Final = (
    *(
        SystemRegister(name, (3, 0, 0, crm, op2), _constant(value))
        for (crm, op2), (name, value) in IDENTIFICATION.items()
    ),
    # CTR: instruction and data lines of 64 bytes; neither IDC nor DIC, so changes are announced.
    SystemRegister("ctr_el0", (3, 3, 0, 0, 1), _constant(0x8444_C004)),
    SystemRegister("dczid_el0", (3, 3, 0, 0, 7), _constant(4)),  # words of 64 bytes, as a logarithm
    SystemRegister("nzcv", (3, 3, 4, 2, 0), _read_flags, _write_flags),
    SystemRegister("dit", (3, 3, 4, 2, 5), *_bit(DIT, 24)),
    SystemRegister("ssbs", (3, 3, 4, 2, 6), *_bit(SSBS, 12)),
    SystemRegister("fpcr", (3, 3, 4, 4, 0), read_fpcr, write_fpcr),
    SystemRegister("fpsr", (3, 3, 4, 4, 1), read_fpsr, write_fpsr),
    SystemRegister("tpidr_el0", (3, 3, 13, 0, 2), _plain(TPIDR), _write_plain(TPIDR)),
    SystemRegister("tpidrro_el0", (3, 3, 13, 0, 3), _plain(TPIDRRO)),
    SystemRegister("cntfrq_el0", (3, 3, 14, 0, 0), _constant(FREQUENCY)),
    SystemRegister("cntpct_el0", (3, 3, 14, 0, 1), lambda m: m.counter("cycle")),
    SystemRegister("cntvct_el0", (3, 3, 14, 0, 2), lambda m: m.counter("cycle")),
)


def _mrs(m: Machine, read: Read, rt: Bits) -> None:
    """Read a system register."""
    m.x[rt] = read(m)


def _msr(m: Machine, write: Write, rt: Bits) -> None:
    """Write a system register."""
    write(m, m.x[rt])


for _register in REGISTERS:
    _op0, _op1, _crn, _crm, _op2 = _register.number
    _place = f"{_op0 & 1} {_op1:03b} {_crn:04b} {_crm:04b} {_op2:03b} rt"
    _name = f"mrs_{_register.name}"
    insn(f"1101010100 1 1 {_place}", f"mrs {{rt}}, {_register.name}", name=_name)(
        bind(_mrs, _name, __name__, read=_register.read)
    )
    if _register.write is not None:
        _name = f"msr_{_register.name}"
        insn(f"1101010100 0 1 {_place}", f"msr {_register.name}, {{rt}}", name=_name)(
            bind(_msr, _name, __name__, write=_register.write)
        )


# The rest of the identification space reads as zero.
_KNOWN: Final = frozenset(crm << 3 | op2 for crm, op2 in IDENTIFICATION)


@insn(
    "1101010100 1 1 1 000 0000 0 id:6 rt",
    "mrs {rt}, {id:idregister}",
    where=", ".join(f"id != {number}" for number in sorted({*_KNOWN, *range(16)})),
)
def mrs_reserved(m: Machine, id: Bits, rt: Bits) -> None:
    """Read a reserved identification register."""
    m.x[rt] = 0


def _msr_immediate(m: Machine, index: int, bit: int, imm: Bits) -> None:
    """Write one bit of the process state."""
    m.system[index] = imm[0].zext(64) << bit


for _name, _bits, _index, _position in (("dit", "010", DIT, 24), ("ssbs", "001", SSBS, 12)):
    insn(
        f"1101010100 0 00 011 0100 imm:4 {_bits} 11111",
        f"msr {_name}, {{imm:hex}}",
        name=f"msr_{_name}_immediate",
    )(bind(_msr_immediate, f"msr_{_name}_immediate", __name__, index=_index, bit=_position))


# Caches. The data side is coherent; only changed code has to be announced.


def _touch(m: Machine, rt: Bits) -> None:
    """Clean a line, which must be readable."""
    m.load(untagged(m.x[rt]), 8)


for _name, _crm in (("cvac", 10), ("cvau", 11), ("cvap", 12), ("cvadp", 13), ("civac", 14)):
    insn(f"1101010100 0 01 011 0111 {_crm:04b} 001 rt", f"dc {_name}, {{rt}}", name=f"dc_{_name}")(
        bind(_touch, f"dc_{_name}", __name__)
    )


@insn("1101010100 0 01 011 0111 0101 001 rt", "ic ivau, {rt}")
def ic_ivau(m: Machine, rt: Bits) -> None:
    """Announce changed code, which takes effect at the next barrier."""
    address = untagged(m.x[rt])
    m.load(address, 8)
    m.announce_code(address & -LINE_NBYTES, LINE_NBYTES)


@insn("1101010100 0 01 011 0111 0100 001 rt", "dc zva, {rt}")
def dc_zva(m: Machine, rt: Bits) -> None:
    """Clear a block of memory."""
    start = untagged(m.x[rt]) & -LINE_NBYTES
    for offset in range(0, LINE_NBYTES, 16):
        m.store(start + offset, Concrete(0, 128))
