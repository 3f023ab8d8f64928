"""Regions for tests of the store, in processes of their own too: what each must be is in its pc."""

from __future__ import annotations

import random

from anyarch.engine.bundle import CompiledRegion, digest_of
from anyarch.errors import MemoryFault


def guest_code(address: int, nbytes: int) -> bytes:
    """The code that the regions were made from."""
    if address + nbytes > 1 << 30:
        raise MemoryFault(address, "execute")
    return bytes((address + i) % 251 for i in range(min(nbytes, 64))).ljust(nbytes, b"\0")


def region(pc: int, code: bytes = b"") -> CompiledRegion:
    """The region at a pc."""
    ranges = ((pc, pc + 8),)
    code = code or random.Random(pc).randbytes(100 + pc % 400)
    return CompiledRegion(pc, 0, 2, (pc + 8,), ranges, digest_of(ranges, guest_code), code)


def large_region(pc: int) -> CompiledRegion:
    """One that takes a while to write."""
    return region(pc, random.Random(pc).randbytes(300_000))
