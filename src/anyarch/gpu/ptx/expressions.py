"""Constant expressions: PTX ISA 9.0, section 4.6."""

from __future__ import annotations

import struct
from typing import Final

from anyarch.gpu.ptx.cursor import Cursor

_U64: Final = (1 << 64) - 1
_OPERATORS: Final = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)


class Expressions(Cursor):
    """Reads constant expressions, with C's precedences."""

    def expression(self, level: int = 0) -> int | float:
        if level == len(_OPERATORS):
            return self.unary()
        if not level and self.token.kind == "number" and self.tokens[self.at + 1].text in ",;]})":
            return self.unary()  # nearly always
        value = self.expression(level + 1)
        while self.token.text in _OPERATORS[level] and self.token.kind == "mark":
            token = self.next()
            other = self.expression(level + 1)
            if isinstance(value, float) or isinstance(other, float):
                self.fail("an operator of constant expressions takes integers", token)
            if token.text in "/%" and not other:
                self.fail("division by zero in a constant expression", token)
            value = _wrap(_apply(token.text, value, other))
        if level == 0 and self.accept("?"):
            then = self.expression()
            self.expect(":")
            otherwise = self.expression()
            return then if value else otherwise
        return value

    def unary(self) -> int | float:
        token = self.next()
        if token.kind == "number":
            return _number(token.text)
        if token.text == "(":
            if self.token.kind == "dot":  # (.s64) or (.u64), a cast
                self.next()
                self.expect(")")
                return self.unary()
            value = self.expression()
            self.expect(")")
            return value
        if token.text in ("-", "+", "~", "!"):
            operand = self.unary()
            if token.text == "-":
                return -operand
            if token.text == "+":
                return operand
            if isinstance(operand, float):
                self.fail(f"{token.text} takes an integer", token)
            return ~operand if token.text == "~" else int(not operand)
        if token.text == "WARP_SZ":
            return 32
        self.fail(f"expected a constant, found {token.text or 'the end of the text'!r}", token)
        return None

    def integer(self) -> int:
        value = self.expression()
        if isinstance(value, float):
            self.fail("expected an integer")
        return value


def _apply(operator: str, a: int, b: int) -> int:
    match operator:
        case "||":
            return int(bool(a or b))
        case "&&":
            return int(bool(a and b))
        case "|":
            return a | b
        case "^":
            return a ^ b
        case "&":
            return a & b
        case "==":
            return int(a == b)
        case "!=":
            return int(a != b)
        case "<":
            return int(a < b)
        case ">":
            return int(a > b)
        case "<=":
            return int(a <= b)
        case ">=":
            return int(a >= b)
        case "<<":
            return a << (b & 63)
        case ">>":
            return a >> (b & 63)
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            quotient = abs(a) // abs(b)
            return quotient if (a < 0) == (b < 0) else -quotient
        case _:
            rest = abs(a) % abs(b)
            return -rest if a < 0 else rest


def _wrap(value: int) -> int:
    """Constant expressions are of 64 bits; what fits as unsigned stays so."""
    if -(1 << 63) <= value <= _U64:
        return value
    return value & _U64


def _number(text: str) -> int | float:
    if text[:2] in ("0f", "0F", "0d", "0D"):
        return int(text[2:], 16)
    digits = text.rstrip("U")
    if digits[:2] in ("0x", "0X", "0b", "0B"):
        return int(digits, 0)
    if "." in digits or "e" in digits or "E" in digits:
        return float(digits)
    if digits.startswith("0") and digits.strip("01234567") == "":
        return int(digits, 8)
    return int(digits)


def float_of(value: int, bits: int) -> float:
    if bits == 32:
        result: float = struct.unpack("<f", value.to_bytes(4, "little"))[0]
    else:
        result = struct.unpack("<d", value.to_bytes(8, "little"))[0]
    return result
