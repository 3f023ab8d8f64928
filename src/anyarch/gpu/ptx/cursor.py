"""A place in the tokens of a PTX text, and errors there."""

from __future__ import annotations

from typing import NoReturn

from anyarch.gpu.errors import PtxError
from anyarch.gpu.ptx.lexer import Token, tokenise
from anyarch.gpu.ptx.tree import Place


class Cursor:
    """Reads tokens one by one; errors name the line, the column and the instruction."""

    def __init__(self, text: str, first_line: int) -> None:
        self.tokens = tokenise(text, first_line)
        self.first_line = first_line
        self.at = 0
        self.lines = text.split("\n")
        self.in_instruction: Token | None = None

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        token = token or self.token
        text = ""
        if self.in_instruction is not None:
            text = self.text_of(self.in_instruction)
        raise PtxError(message, token.line, token.column, text)

    def text_of(self, token: Token) -> str:
        """The instruction that begins at a token, as far as its line goes."""
        return self.lines[token.line - self.first_line][token.column - 1 :].split(";")[0].strip()

    def accept(self, text: str) -> bool:
        if self.token.text == text and self.token.kind != "string":
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> Token:
        if self.token.text != text:
            found = self.token.text or "the end of the text"
            self.fail(f"expected {text!r}, found {found!r}")
        return self.next()

    def word(self, what: str) -> Token:
        if self.token.kind != "word":
            self.fail(f"expected {what}, found {self.token.text or 'the end of the text'!r}")
        return self.next()

    def place(self, token: Token | None = None) -> Place:
        token = token or self.token
        return Place(token.line, token.column)
