"""What kernels print: records of vprintf to text. CUDA C++ Programming Guide, formatted output."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["format_text"]

_SPEC: Final = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?(hh|h|ll|l|j|z|t|L)?([a-zA-Z%])")
_LONG: Final = ("l", "ll", "j", "z", "t")


def format_text(text: str, arguments: bytes, read_string: Callable[[int], str]) -> str:
    """`printf` with arguments as a kernel lays them out: each aligned to its size."""
    at = 0

    def take(code: str, nbytes: int) -> int | float:
        nonlocal at
        at += -at % nbytes
        if at + nbytes > len(arguments):
            return 0
        (value,) = struct.unpack_from("<" + code, arguments, at)
        at += nbytes
        found: int | float = value
        return found

    def convert(match: re.Match[str]) -> str:
        flags, width, precision, length, kind = match.groups()
        if kind == "%":
            return "%"
        if width == "*":
            number = int(take("i", 4))
            flags, width = (flags + "-", str(-number)) if number < 0 else (flags, str(number))
        if precision == "*":
            precision = str(int(take("i", 4)))
        spec = "%" + flags + (width or "") + (f".{precision}" if precision is not None else "")
        if kind in "di":
            value = take("q", 8) if length in _LONG else take("i", 4)
            return (spec + "d") % value
        if kind in "uoxX":
            value = take("Q", 8) if length in _LONG else take("I", 4)
            return (spec + ("d" if kind == "u" else kind)) % value
        if kind == "c":
            return (spec + "c") % (int(take("i", 4)) & 255)
        if kind == "s":
            return (spec + "s") % read_string(int(take("Q", 8)))
        if kind == "p":
            return f"{int(take('Q', 8)):#x}"
        if kind in "eEfFgGaA":
            value = take("d", 8)
            if kind in "aA":
                return float(value).hex()
            return (spec + kind) % value
        return match[0]

    return _SPEC.sub(convert, text)


def read_c_string(address: int, limit: int = 1 << 16) -> str:
    """A string of the device's memory, which is the host's."""
    if not address:
        return "(null)"
    return ctypes.string_at(address)[:limit].decode(errors="replace")
