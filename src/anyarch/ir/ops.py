"""The pure operations of the IR: one table row each.

All are total: a division by zero and an over-long shift have a defined value. Operands and results
are unsigned integers below ``2**size``; the meaning of sign is in the operation's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# evaluate(size, operand values, operand sizes, attributes) -> value before truncation to size
Evaluate = Callable[[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]], int]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: ``shape`` names the rule that relates operand and result widths."""

    name: str
    arity: int
    shape: str  # same | compare | select | extend | extract | concat | double | unary
    evaluate: Evaluate


def signed(value: int, size: int) -> int:
    """The two's complement reading of ``value``."""
    return value - (1 << size) if value >> (size - 1) else value


def _udiv(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return v[0] // v[1] if v[1] else -1


def _urem(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return v[0] % v[1] if v[1] else v[0]


def _sdiv(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    x, y = signed(v[0], size), signed(v[1], size)
    if not y:
        return -1
    quotient = abs(x) // abs(y)
    return -quotient if (x < 0) != (y < 0) else quotient


def _srem(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    x, y = signed(v[0], size), signed(v[1], size)
    if not y:
        return x
    rest = abs(x) % abs(y)
    return -rest if x < 0 else rest


def _clmul(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    x, y, result = v[0], v[1], 0
    while y:
        low = y & -y
        result ^= x * low
        y ^= low
    return result


def _ctz(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return (v[0] & -v[0]).bit_length() - 1 if v[0] else size


def _bswap(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return int.from_bytes(v[0].to_bytes(size // 8, "little"), "big")


_ROWS: Final = (
    Op("add", 2, "same", lambda n, v, s, a: v[0] + v[1]),
    Op("sub", 2, "same", lambda n, v, s, a: v[0] - v[1]),
    Op("mul", 2, "same", lambda n, v, s, a: v[0] * v[1]),
    Op("and", 2, "same", lambda n, v, s, a: v[0] & v[1]),
    Op("or", 2, "same", lambda n, v, s, a: v[0] | v[1]),
    Op("xor", 2, "same", lambda n, v, s, a: v[0] ^ v[1]),
    Op("shl", 2, "same", lambda n, v, s, a: v[0] << v[1] if v[1] < n else 0),
    Op("shr", 2, "same", lambda n, v, s, a: v[0] >> v[1] if v[1] < n else 0),
    Op("sar", 2, "same", lambda n, v, s, a: signed(v[0], n) >> min(v[1], n - 1)),
    Op("udiv", 2, "same", _udiv),
    Op("urem", 2, "same", _urem),
    Op("sdiv", 2, "same", _sdiv),
    Op("srem", 2, "same", _srem),
    Op("eq", 2, "compare", lambda n, v, s, a: v[0] == v[1]),
    Op("ne", 2, "compare", lambda n, v, s, a: v[0] != v[1]),
    Op("ult", 2, "compare", lambda n, v, s, a: v[0] < v[1]),
    Op("ule", 2, "compare", lambda n, v, s, a: v[0] <= v[1]),
    Op("slt", 2, "compare", lambda n, v, s, a: signed(v[0], s[0]) < signed(v[1], s[1])),
    Op("sle", 2, "compare", lambda n, v, s, a: signed(v[0], s[0]) <= signed(v[1], s[1])),
    Op("select", 3, "select", lambda n, v, s, a: v[1] if v[0] else v[2]),
    Op("zext", 1, "extend", lambda n, v, s, a: v[0]),
    Op("sext", 1, "extend", lambda n, v, s, a: signed(v[0], s[0])),
    Op("extract", 1, "extract", lambda n, v, s, a: v[0] >> a[0]),
    Op("concat", 2, "concat", lambda n, v, s, a: v[0] << s[1] | v[1]),
    Op("clmul", 2, "double", _clmul),
    Op("clz", 1, "unary", lambda n, v, s, a: n - v[0].bit_length()),
    Op("ctz", 1, "unary", _ctz),
    Op("popcount", 1, "unary", lambda n, v, s, a: v[0].bit_count()),
    Op("bswap", 1, "unary", _bswap),
    Op("bitreverse", 1, "unary", lambda n, v, s, a: int(f"{v[0]:0{n}b}"[::-1], 2)),
)

OPS: Final[dict[str, Op]] = {row.name: row for row in _ROWS}


def evaluate(
    op: str, size: int, values: tuple[int, ...], sizes: tuple[int, ...], attrs: tuple[int, ...] = ()
) -> int:
    """The value of a pure operation on concrete operands, below ``2**size``."""
    return int(OPS[op].evaluate(size, values, sizes, attrs)) & ((1 << size) - 1)


def check_widths(op: str, size: int, sizes: tuple[int, ...], attrs: tuple[int, ...]) -> str | None:
    """What is wrong with the widths of an operation, or None."""
    row = OPS[op]
    if len(sizes) != row.arity:
        return f"{op} takes {row.arity} operands, not {len(sizes)}"
    match row.shape:
        case "same" | "unary":
            good = all(s == size for s in sizes)
        case "compare":
            good = size == 1 and sizes[0] == sizes[1]
        case "select":
            good = sizes[0] == 1 and sizes[1] == sizes[2] == size
        case "extend":
            good = sizes[0] <= size
        case "extract":
            good = attrs[0] >= 0 and attrs[0] + size <= sizes[0]
        case "concat":
            good = sizes[0] + sizes[1] == size
        case _:
            good = sizes[0] == sizes[1] and size == 2 * sizes[0]
    return None if good else f"{op} gives {size} bits from operands of {sizes} bits {attrs or ''}"
