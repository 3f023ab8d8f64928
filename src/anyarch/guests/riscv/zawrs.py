"""Zawrs, wait on a reservation set (unprivileged ISA manual 20240411, chapter 15).

The manual lets a wait end at any time; here both end at once.
"""

from __future__ import annotations

from anyarch.guests.riscv.fields import insn
from anyarch.isa.machine import Machine


@insn("000000001101 00000 000 00000 1110011", "wrs.nto")
def wrs_nto(m: Machine) -> None:
    """Wait on the reservation set, no timeout."""


@insn("000000011101 00000 000 00000 1110011", "wrs.sto")
def wrs_sto(m: Machine) -> None:
    """Wait on the reservation set, with a short timeout."""
