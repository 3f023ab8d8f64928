"""Exclusive, ordered and atomic accesses (Arm DDI 0487, C4.1.94; FEAT_LSE, FEAT_LRCPC2, FEAT_LOR).

Exclusive accesses compare with the value that was loaded. Misaligned accesses are an exception:
the processor has no FEAT_LSE2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.guests.aarch64.memory import aligned, untagged
from anyarch.ir.bits import Bits
from anyarch.isa.machine import Machine

SIZES: Final = (("b", 8, "w"), ("h", 16, "w"), ("", 32, "w"), ("", 64, "x"))


def _define(name: str, row: str, text: str, body: Callable[..., None], **fixed: object) -> None:
    insn(row, text, name=name)(bind(body, name, __name__, **fixed))


# Exclusives of one register. The release and acquire bits change nothing: all loads acquire, and
# stores are more than releases.


def _load_exclusive(m: Machine, size: int, base: Bits, rt: Bits) -> None:
    """Load and take a reservation."""
    m.x[rt, size] = m.load_reserved(aligned(m, m.r[base], size), size)


def _store_exclusive(m: Machine, size: int, rs: Bits, base: Bits, rt: Bits) -> None:
    """Store where the reservation holds: 0 where it did, else 1."""
    stored = m.store_conditional(aligned(m, m.r[base], size), m.x[rt, size])
    m.x[rs, 32] = (~stored).zext(32)


def _load_acquire(m: Machine, size: int, base: Bits, rt: Bits) -> None:
    """Load, with what follows after it."""
    m.x[rt, size] = m.load(aligned(m, m.r[base], size), size, "acquire")


def _store_release(m: Machine, size: int, base: Bits, rt: Bits) -> None:
    """Store, with what precedes before it."""
    m.store(aligned(m, m.r[base], size), m.x[rt, size], "seq")


def _load_pair(m: Machine, size: int, rt2: Bits, base: Bits, rt: Bits) -> None:
    """Load a pair and take a reservation."""
    pair = m.load_reserved(aligned(m, m.r[base], 2 * size), 2 * size)
    m.x[rt, size] = pair[:size]
    m.x[rt2, size] = pair[size:]


def _store_pair(m: Machine, size: int, rs: Bits, rt2: Bits, base: Bits, rt: Bits) -> None:
    """Store a pair where the reservation holds: 0 where it did, else 1."""
    pair = m.x[rt2, size].concat(m.x[rt, size])
    m.x[rs, 32] = (~m.store_conditional(aligned(m, m.r[base], 2 * size), pair)).zext(32)


for _number, (_suffix, _size, _letter) in enumerate(SIZES):
    _rt, _base = f"{{rt:{_letter}}}", "[{base}]"
    for _name, _o, _text, _body in (
        ("stxr", "00 0 rs 0 ones", f"{{rs:w}}, {_rt}, {_base}", _store_exclusive),
        ("stlxr", "00 0 rs 1 ones", f"{{rs:w}}, {_rt}, {_base}", _store_exclusive),
        ("ldxr", "01 0 ones 0 ones2", f"{_rt}, {_base}", _load_exclusive),
        ("ldaxr", "01 0 ones 1 ones2", f"{_rt}, {_base}", _load_exclusive),
        ("stllr", "10 0 ones 0 ones2", f"{_rt}, {_base}", _store_release),
        ("stlr", "10 0 ones 1 ones2", f"{_rt}, {_base}", _store_release),
        ("ldlar", "11 0 ones 0 ones2", f"{_rt}, {_base}", _load_acquire),
        ("ldar", "11 0 ones 1 ones2", f"{_rt}, {_base}", _load_acquire),
    ):
        _define(
            f"{_name}{_suffix}_{_size}",
            f"{_number:02b} 001000 {_o} base rt",
            f"{_name}{_suffix} {_text}",
            _body,
            size=_size,
        )

for _size, _letter in ((32, "w"), (64, "x")):
    _both = f"{{rt:{_letter}}}, {{rt2:{_letter}}}, [{{base}}]"
    for _name, _o, _text, _function in (
        ("stxp", "00 1 rs 0 rt2", f"{{rs:w}}, {_both}", _store_pair),
        ("stlxp", "00 1 rs 1 rt2", f"{{rs:w}}, {_both}", _store_pair),
        ("ldxp", "01 1 ones 0 rt2", _both, _load_pair),
        ("ldaxp", "01 1 ones 1 rt2", _both, _load_pair),
    ):
        _define(
            f"{_name}_{_size}",
            f"1{_size // 64} 001000 {_o} base rt",
            f"{_name} {_text}",
            _function,
            size=_size,
        )


# Compare and swap.


def _cas(m: Machine, size: int, rs: Bits, base: Bits, rt: Bits) -> None:
    """Compare with rs and swap in rt if equal; the old value is the result."""
    address = aligned(m, m.r[base], size)
    m.x[rs, size] = m.compare_exchange(address, m.x[rs, size], m.x[rt, size])


def _casp(m: Machine, size: int, rs: Bits, base: Bits, rt: Bits) -> None:
    """Compare with a pair and swap in a pair if equal; the old values are the result."""
    address = aligned(m, m.r[base], 2 * size)
    expected = m.x[rs + 1, size].concat(m.x[rs, size])
    new = m.x[rt + 1, size].concat(m.x[rt, size])
    old = m.compare_exchange(address, expected, new)
    m.x[rs, size] = old[:size]
    m.x[rs + 1, size] = old[size:]


for _number, (_suffix, _size, _letter) in enumerate(SIZES):
    for _a, _r, _order in ((0, 0, ""), (1, 0, "a"), (0, 1, "l"), (1, 1, "al")):
        _define(
            f"cas{_order}{_suffix}_{_size}",
            f"{_number:02b} 0010001 {_a} 1 rs {_r} 11111 base rt",
            f"cas{_order}{_suffix} {{rs:{_letter}}}, {{rt:{_letter}}}, [{{base}}]",
            _cas,
            size=_size,
        )
        if _size < 32:
            continue
        _define(
            f"casp{_order}_{_size}",
            f"0{_size // 64} 0010000 {_a} 1 rs[4:1] 0 {_r} 11111 base rt[4:1] 0",
            f"casp{_order} {{rs:{_letter}}}, {{rs:pair{_letter}}}, {{rt:{_letter}}}, "
            f"{{rt:pair{_letter}}}, [{{base}}]",
            _casp,
            size=_size,
        )


# Atomic operations.


def _amo(m: Machine, size: int, operation: str, rs: Bits, base: Bits, rt: Bits, ar: Bits) -> None:
    """Change memory by a register; the old value is the result."""
    value = m.x[rs, size]
    if operation == "clr":
        operation, value = "and", ~value
    m.x[rt, size] = m.amo(operation, aligned(m, m.r[base], size), value)


_OPERATIONS: Final = (
    ("ldadd", "0 000", "add"),
    ("ldclr", "0 001", "clr"),
    ("ldeor", "0 010", "xor"),
    ("ldset", "0 011", "or"),
    ("ldsmax", "0 100", "max"),
    ("ldsmin", "0 101", "min"),
    ("ldumax", "0 110", "umax"),
    ("ldumin", "0 111", "umin"),
    ("swp", "1 000", "xchg"),
)

for _number, (_suffix, _size, _letter) in enumerate(SIZES):
    for _mnemonic, _o, _operation in _OPERATIONS:
        _define(
            f"{_mnemonic}{_suffix}_{_size}",
            f"{_number:02b} 111000 ar 1 rs {_o} 00 base rt",
            f"{_mnemonic}{{ar:ordering}}{_suffix} {{rs:{_letter}}}, {{rt:{_letter}}}, [{{base}}]",
            _amo,
            size=_size,
            operation=_operation,
        )
    _define(
        f"ldapr{_suffix}_{_size}",
        f"{_number:02b} 111000 1 0 1 11111 1 100 00 base rt",
        f"ldapr{_suffix} {{rt:{_letter}}}, [{{base}}]",
        _load_acquire,
        size=_size,
    )


# Ordered accesses with a displacement (FEAT_LRCPC2).


def _stlur(m: Machine, size: int, imm9: Bits, base: Bits, rt: Bits) -> None:
    """Store, with what precedes before it."""
    m.store(untagged(m.r[base], imm9), m.x[rt, size], "release")


def _ldapur(m: Machine, size: int, signed: int, imm9: Bits, base: Bits, rt: Bits) -> None:
    """Load, with what follows after it."""
    value = m.load(untagged(m.r[base], imm9), size, "acquire")
    if signed:
        m.x[rt, signed] = value.sext(signed)
    else:
        m.x[rt, size] = value


for _mnemonic, _number, _opc, _size, _signed in (
    ("ldapurb", 0, 1, 8, 0),
    ("ldapursb", 0, 2, 8, 64),
    ("ldapursb", 0, 3, 8, 32),
    ("ldapurh", 1, 1, 16, 0),
    ("ldapursh", 1, 2, 16, 64),
    ("ldapursh", 1, 3, 16, 32),
    ("ldapur", 2, 1, 32, 0),
    ("ldapursw", 2, 2, 32, 64),
    ("ldapur", 3, 1, 64, 0),
):
    _letter = "x" if max(_signed, _size) == 64 else "w"
    _define(
        f"{_mnemonic}_{_letter}",
        f"{_number:02b} 011001 {_opc:02b} 0 imm9 00 base rt",
        f"{_mnemonic} {{rt:{_letter}}}, [{{base}}{{imm9:disp0}}]",
        _ldapur,
        size=_size,
        signed=_signed,
    )

for _number, (_suffix, _size, _letter) in enumerate(SIZES):
    _define(
        f"stlur{_suffix}_{_size}",
        f"{_number:02b} 011001 00 0 imm9 00 base rt",
        f"stlur{_suffix} {{rt:{_letter}}}, [{{base}}{{imm9:disp0}}]",
        _stlur,
        size=_size,
    )
