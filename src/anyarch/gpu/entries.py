"""Finds the kernels of PTX text and their parameters, without parsing their bodies.

PTX ISA 9.0: 4.1 (comments), 5.1.6.1 (kernel parameters), 5.1.6.2 (`.ptr`), 5.4.6 (parameterised
names do not occur here), 11.1 (`.entry`).
"""

from __future__ import annotations

import re
from typing import Final

from anyarch.gpu.errors import PtxError
from anyarch.gpu.signature import TYPE_NBYTES, Signature, lay_out

__all__ = ["find_entries"]

_COMMENT_OR_STRING: Final = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\]|\\.)*"', re.DOTALL)
_ENTRY: Final = re.compile(r"\.entry\s+([A-Za-z_$%][\w$]*)\s*(\(|\.|\{|;)?")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|\d+")


def find_entries(ptx: str) -> dict[str, Signature]:
    """The signature of every kernel that the text declares or defines, by name."""
    text = _COMMENT_OR_STRING.sub(_blank, ptx)
    found: dict[str, Signature] = {}
    for match in _ENTRY.finditer(text):
        parameters = ""
        if match[2] == "(":
            end = text.find(")", match.end())
            if end < 0:
                raise _error(text, match.start(), f"the parameters of {match[1]} have no end")
            parameters = text[match.end() : end]
        found[match[1]] = _signature(text, match.end(), parameters)
    return found


def _blank(match: re.Match[str]) -> str:
    """Spaces in place of a comment, so that lines and columns stay."""
    return re.sub(r"[^\n]", " ", match[0])


def _signature(text: str, start: int, parameters: str) -> Signature:
    declared = []
    position = start
    for one in parameters.split(","):
        if one.strip():
            declared.append(_parameter(text, position + len(one) - len(one.lstrip()), one.strip()))
        position += len(one) + 1
    return lay_out(declared)


def _parameter(text: str, position: int, one: str) -> tuple[str, str, int | None, int]:
    words = re.findall(r"\.?[\w$%]+|\[|\]", one)
    if words[:1] != [".param"]:
        raise _error(text, position, f"expected .param, found {one!r}")
    type_, align, name, pointer = "", 0, "", False
    count: int | None = None
    rest = iter(words[1:])
    for word in rest:
        if word == ".align":
            number = int(next(rest, "1"), 0)
            # The alignment after `.ptr` is of what it points to.
            align = align if pointer else number
        elif word == ".ptr":
            pointer = True
        elif word.startswith("."):
            type_ = word[1:] if word[1:] in TYPE_NBYTES else type_
        elif word == "[":
            size = next(rest, "]")
            count = int(size, 0) if _NUMBER.fullmatch(size) else 0
        elif word != "]":
            name = word
    if not type_ or not name:
        raise _error(text, position, f"a parameter needs a type and a name: {one!r}")
    return name, type_, count, align


def _error(text: str, position: int, message: str) -> PtxError:
    line = text.count("\n", 0, position) + 1
    return PtxError(message, line, position - text.rfind("\n", 0, position))
