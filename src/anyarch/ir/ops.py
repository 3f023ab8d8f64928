"""The pure operations of the IR: one table row each.

All are total: a division by zero and an over-long shift have a defined value. Operands and results
are unsigned integers below ``2**size``; the meaning of sign is in the operation's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

# evaluate(size, operand values, operand sizes, attributes) -> value before truncation to size
Evaluate = Callable[[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]], int]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: ``shape`` names the rule that relates operand and result widths."""

    name: str
    arity: int
    shape: str  # see check_widths
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


# Lanes: the first attribute is the size of a lane; lanes count from the lowest.


def split(value: int, size: int, lane: int) -> list[int]:
    """The lanes of a value."""
    return [value >> at & ((1 << lane) - 1) for at in range(0, size, lane)]


def merge(lanes: list[int], lane: int) -> int:
    """The inverse of :func:`split`; lanes are taken modulo their size."""
    mask = (1 << lane) - 1
    return sum((value & mask) << index * lane for index, value in enumerate(lanes))


def _each(evaluate: Evaluate, *, mask: bool = False) -> Evaluate:
    """An operation on each lane; a comparison gives lanes of all ones or zeros."""

    def result(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
        lane = a[0]
        columns = zip(*(split(value, size, lane) for value in v), strict=True)
        sizes = (lane,) * len(v)
        values = [int(evaluate(lane, column, sizes, ())) for column in columns]
        return merge([-value if mask else value for value in values], lane)

    return result


def _saturating(operation: Callable[[int, int], int], *, signs: bool) -> Evaluate:
    def lane(n: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
        if not signs:
            return min(max(operation(v[0], v[1]), 0), (1 << n) - 1)
        exact = operation(signed(v[0], n), signed(v[1], n))
        return min(max(exact, -(1 << n - 1)), (1 << n - 1) - 1)

    return _each(lane)


def _widen(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return merge(split(v[0], s[0], a[0]), 2 * a[0])


def _widen_signed(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return merge([signed(lane, a[0]) for lane in split(v[0], s[0], a[0])], 2 * a[0])


def _narrow(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return merge(split(v[0], s[0], a[0]), a[0] // 2)


def _shuffle(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    lanes = split(v[0], s[0], a[0]) + split(v[1], s[1], a[0])
    return merge([lanes[index] for index in a[1:]], a[0])


def _splat(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    return merge([v[0]] * (size // s[0]), s[0])


def _table(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    table = split(v[0], 128, 8) + [0] * 240
    return merge([table[index] for index in split(v[1], size, 8)], 8)


def _element(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    lanes = split(v[0], s[0], size)
    return lanes[v[1] % len(lanes)]


def _insert(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    lanes = split(v[0], size, s[2])
    lanes[v[1] % len(lanes)] = v[2]
    return merge(lanes, s[2])


# AES (FIPS 197, section 5): bytes of the state in columns, the lowest first.


def _times(a: int, b: int) -> int:
    """Product in GF(2**8)."""
    result = 0
    while b:
        if b & 1:
            result ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return result


def _substitution() -> list[int]:
    table = []
    for value in range(256):
        inverse = next((x for x in range(256) if _times(value, x) == 1), 0)
        turned = inverse
        for shift in range(1, 5):
            turned ^= inverse << shift | inverse >> 8 - shift
        table.append(turned & 0xFF ^ 0x63)
    return table


@cache
def substitution_boxes() -> tuple[list[int], list[int]]:
    """AES's table of bytes, and its inverse."""
    box = _substitution()
    return box, [box.index(value) for value in range(256)]


def _aes_encrypt(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    state = split(v[0], 128, 8)
    return merge([substitution_boxes()[0][state[(5 * index) % 16]] for index in range(16)], 8)


def _aes_decrypt(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    state = split(v[0], 128, 8)
    return merge([substitution_boxes()[1][state[(-3 * index) % 16]] for index in range(16)], 8)


def _mixed(*factors: int) -> Evaluate:
    def result(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
        state = split(v[0], 128, 8)
        mixed = []
        for index in range(16):
            column, row = state[index & 12 :][:4], index & 3
            total = 0
            for offset, factor in enumerate(factors):
                total ^= _times(column[(row + offset) % 4], factor)
            mixed.append(total)
        return merge(mixed, 8)

    return result


def _sha1(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    from anyarch.ir.bits import Concrete
    from anyarch.ir.sha import four_rounds

    result = four_rounds(a[0], *(Concrete(value, 128) for value in v))
    assert isinstance(result, Concrete)
    return result.value


def _sha256(size: int, v: tuple[int, ...], s: tuple[int, ...], a: tuple[int, ...]) -> int:
    from anyarch.ir.bits import Concrete
    from anyarch.ir.sha import two_rounds

    result = two_rounds(*(Concrete(value, 128) for value in v))
    assert isinstance(result, Concrete)
    return result.value


_LANES: Final = (
    *(
        Op("v" + row.name, row.arity, "lanes", _each(row.evaluate))
        for row in _ROWS
        if row.name in ("add", "sub", "mul", "shl", "shr", "sar", "clz", "popcount", "bitreverse")
    ),
    *(
        Op("v" + row.name, 2, "lanes", _each(row.evaluate, mask=True))
        for row in _ROWS
        if row.name in ("eq", "ult", "ule", "slt", "sle")
    ),
    Op("vumin", 2, "lanes", _each(lambda n, v, s, a: min(v))),
    Op("vumax", 2, "lanes", _each(lambda n, v, s, a: max(v))),
    Op("vsmin", 2, "lanes", _each(lambda n, v, s, a: min(v, key=lambda x: signed(x, n)))),
    Op("vsmax", 2, "lanes", _each(lambda n, v, s, a: max(v, key=lambda x: signed(x, n)))),
    Op("vuadds", 2, "lanes", _saturating(lambda x, y: x + y, signs=False)),
    Op("vusubs", 2, "lanes", _saturating(lambda x, y: x - y, signs=False)),
    Op("vsadds", 2, "lanes", _saturating(lambda x, y: x + y, signs=True)),
    Op("vssubs", 2, "lanes", _saturating(lambda x, y: x - y, signs=True)),
    Op("vwiden", 1, "widen", _widen),  # lanes twice as wide, extended with zeros
    Op("vwiden_signed", 1, "widen", _widen_signed),
    Op("vnarrow", 1, "narrow", _narrow),  # the low halves of lanes
    Op("vshuffle", 2, "shuffle", _shuffle),  # lanes of both by index; (lane, index…)
    Op("vsplat", 1, "splat", _splat),  # one lane to all
    Op("velement", 2, "element", _element),  # lane of a value by index, modulo their number
    Op("vinsert", 3, "insert", _insert),  # value, index, lane: with the lane replaced
    Op("aes_encrypt", 1, "unary", _aes_encrypt),
    Op("aes_decrypt", 1, "unary", _aes_decrypt),
    Op("aes_mix", 1, "unary", _mixed(2, 3, 1, 1)),
    Op("aes_unmix", 1, "unary", _mixed(14, 11, 13, 9)),
    Op("sha1_rounds", 2, "unary", _sha1),  # see ir.sha.four_rounds
    Op("sha256_rounds", 3, "unary", _sha256),  # see ir.sha.two_rounds
    Op("vtable", 2, "table", _table),  # bytes of 128 bits by index; zero from 16 up
)

OPS: Final[dict[str, Op]] = {row.name: row for row in (*_ROWS, *_LANES)}


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
        case "lanes":
            good = all(s == size for s in sizes) and size % attrs[0] == 0
        case "widen":
            good = size == 2 * sizes[0] and sizes[0] % attrs[0] == 0
        case "narrow":
            good = sizes[0] == 2 * size and sizes[0] % attrs[0] == 0 and attrs[0] % 2 == 0
        case "shuffle":
            lanes = 2 * sizes[0] // attrs[0]
            good = sizes[0] == sizes[1] and sizes[0] % attrs[0] == 0
            good = good and size == attrs[0] * (len(attrs) - 1)
            good = good and all(0 <= index < lanes for index in attrs[1:])
        case "splat":
            good = size % sizes[0] == 0
        case "element":
            good = sizes[0] % size == 0
        case "insert":
            good = sizes[0] == size and size % sizes[2] == 0
        case "table":
            good = sizes[0] == 128 and sizes[1] == size and size % 8 == 0
        case _:
            good = sizes[0] == sizes[1] and size == 2 * sizes[0]
    return None if good else f"{op} gives {size} bits from operands of {sizes} bits {attrs or ''}"
