"""PTX text to tokens. PTX ISA 9.0, chapter 4 (syntax)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from anyarch.gpu.errors import PtxError

__all__ = ["Token", "tokenise"]


class Token(NamedTuple):
    """`kind` is word, dot (a directive or modifier with its dot), number, string, mark or end."""

    kind: str
    text: str
    line: int
    column: int


_PATTERN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\f\v]+|//[^\n]*)
  | (?P<newline>\n)
  | (?P<comment>/\*.*?\*/)
  | (?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}
      |\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+
      |0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?)
  | (?P<word>[A-Za-z][\w$]*|[_$%][\w$]*)
  | (?P<dot>\.[A-Za-z_\d][\w$]*(?:::[\w$]+)*)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<open>/\*)
  | (?P<mark><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!?:;,(){}\[\]<>=@.])
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenise(text: str, first_line: int = 1) -> list[Token]:
    """All tokens, the last of kind `end`; PtxError for a character that begins none."""
    tokens = []
    line, start, position = first_line, 0, 0
    match_at = _PATTERN.match
    while position < len(text):
        found = match_at(text, position)
        if found is None or found.lastgroup == "open":
            character = text[position]
            what = "a comment without an end" if text.startswith("/*", position) else "no PTX"
            raise PtxError(f"{what}: {character!r}", line, position - start + 1)
        kind = found.lastgroup or ""
        end = found.end()
        if kind == "newline":
            line += 1
            start = end
        elif kind == "comment":
            count = text.count("\n", position, end)
            if count:
                line += count
                start = text.rindex("\n", position, end) + 1
        elif kind != "space":
            tokens.append(Token(kind, found[0], line, position - start + 1))
        position = end
    tokens.append(Token("end", "", line, position - start + 1))
    return tokens
