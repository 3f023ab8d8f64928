"""Values of the instruction language: fixed-width bit vectors.

``Bits`` has the operators; what an operation yields is decided by the subclass: a
:class:`Concrete` computes (the reference engine), a ``Node`` records (the compilers).
"""

from __future__ import annotations

from typing import NoReturn, Self

from anyarch.errors import DefinitionError
from anyarch.ir.ops import check_widths, evaluate, signed


class Bits:
    """A bit vector of ``size`` bits. Comparisons give one bit; widths must match exactly.

    An ``int`` operand takes the width of the other operand. There is no implicit sign: use
    ``slt``/``sle``/``sar``/``sext`` for signed readings, ``<``, ``<=`` and ``>>`` are unsigned.
    """

    __slots__ = ("size",)
    size: int

    def apply(
        self, op: str, size: int, operands: tuple[Bits, ...], attrs: tuple[int, ...] = ()
    ) -> Bits:
        """The result of a pure operation on operands of this kind."""
        raise NotImplementedError

    def constant(self, value: int, size: int) -> Bits:
        """A constant of the same kind as this value."""
        raise NotImplementedError

    def _other(self, other: Bits | int, op: str) -> Bits:
        if isinstance(other, int):
            return self.constant(other, self.size)
        if other.size != self.size:
            raise DefinitionError(
                f"{op} of {self.size} and {other.size} bits: widths must match; "
                "use .zext(), .sext() or [low:high] to say what is meant"
            )
        return other

    def _binary(self, op: str, other: Bits | int) -> Bits:
        return self.apply(op, self.size, (self, self._other(other, op)))

    def _compare(self, op: str, other: Bits | int, *, swap: bool = False) -> Bits:
        right = self._other(other, op)
        return self.apply(op, 1, (right, self) if swap else (self, right))

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            "the truth of a Bits value is not known while a definition is traced; use "
            "`with when(condition):` or `condition.select(a, b)`, or name the field in static="
        )

    def __add__(self, other: Bits | int) -> Bits:
        return self._binary("add", other)

    def __radd__(self, other: int) -> Bits:
        return self.constant(other, self.size) + self

    def __sub__(self, other: Bits | int) -> Bits:
        return self._binary("sub", other)

    def __rsub__(self, other: int) -> Bits:
        return self.constant(other, self.size) - self

    def __mul__(self, other: Bits | int) -> Bits:
        return self._binary("mul", other)

    def __and__(self, other: Bits | int) -> Bits:
        return self._binary("and", other)

    def __or__(self, other: Bits | int) -> Bits:
        return self._binary("or", other)

    def __xor__(self, other: Bits | int) -> Bits:
        return self._binary("xor", other)

    def __invert__(self) -> Bits:
        return self._binary("xor", -1)

    def __neg__(self) -> Bits:
        return self.constant(0, self.size) - self

    def __lshift__(self, other: Bits | int) -> Bits:
        return self._binary("shl", other)

    def __rshift__(self, other: Bits | int) -> Bits:
        return self._binary("shr", other)

    def sar(self, other: Bits | int) -> Bits:
        """Shift right, copying the sign."""
        return self._binary("sar", other)

    def rol(self, other: Bits | int) -> Bits:
        """Rotate left by an amount taken modulo the width."""
        amount = self._other(other, "rol") & (self.size - 1)
        return (self << amount) | (self >> ((self.size - amount) & (self.size - 1)))

    def ror(self, other: Bits | int) -> Bits:
        """Rotate right by an amount taken modulo the width."""
        amount = self._other(other, "ror") & (self.size - 1)
        return (self >> amount) | (self << ((self.size - amount) & (self.size - 1)))

    def udiv(self, other: Bits | int) -> Bits:
        """Unsigned quotient; all ones when the divisor is zero."""
        return self._binary("udiv", other)

    def urem(self, other: Bits | int) -> Bits:
        """Unsigned remainder; the dividend when the divisor is zero."""
        return self._binary("urem", other)

    def sdiv(self, other: Bits | int) -> Bits:
        """Signed quotient towards zero; -1 when the divisor is zero; wraps on overflow."""
        return self._binary("sdiv", other)

    def srem(self, other: Bits | int) -> Bits:
        """Signed remainder, the dividend's sign; the dividend when the divisor is zero."""
        return self._binary("srem", other)

    def __eq__(self, other: object) -> Bits:  # type: ignore[override]  # records, as Amaranth does
        if not isinstance(other, (Bits, int)):
            return NotImplemented
        return self._compare("eq", other)

    def __ne__(self, other: object) -> Bits:  # type: ignore[override]  # as above
        if not isinstance(other, (Bits, int)):
            return NotImplemented
        return self._compare("ne", other)

    def __hash__(self) -> int:
        return id(self)

    def __lt__(self, other: Bits | int) -> Bits:
        return self._compare("ult", other)

    def __le__(self, other: Bits | int) -> Bits:
        return self._compare("ule", other)

    def __gt__(self, other: Bits | int) -> Bits:
        return self._compare("ult", other, swap=True)

    def __ge__(self, other: Bits | int) -> Bits:
        return self._compare("ule", other, swap=True)

    def slt(self, other: Bits | int) -> Bits:
        """Signed less than."""
        return self._compare("slt", other)

    def sle(self, other: Bits | int) -> Bits:
        """Signed less than or equal."""
        return self._compare("sle", other)

    def sgt(self, other: Bits | int) -> Bits:
        """Signed greater than."""
        return self._compare("slt", other, swap=True)

    def sge(self, other: Bits | int) -> Bits:
        """Signed greater than or equal."""
        return self._compare("sle", other, swap=True)

    def select(self, then: Bits | int, otherwise: Bits | int) -> Bits:
        """``then`` where this one bit is set, else ``otherwise``."""
        if self.size != 1:
            raise DefinitionError(f"select needs a condition of one bit, not {self.size}")
        if isinstance(then, int):
            if isinstance(otherwise, int):
                raise DefinitionError("select needs one Bits operand, to know the width")
            then = self.constant(then, otherwise.size)
        if isinstance(otherwise, int):
            otherwise = self.constant(otherwise, then.size)
        if then.size != otherwise.size:
            raise DefinitionError(f"select of {then.size} and {otherwise.size} bits")
        return self.apply("select", then.size, (self, then, otherwise))

    def zext(self, size: int) -> Bits:
        """Extended with zeros to ``size`` bits."""
        return self if size == self.size else self.apply("zext", self._wider(size), (self,))

    def sext(self, size: int) -> Bits:
        """Extended with copies of the sign to ``size`` bits."""
        return self if size == self.size else self.apply("sext", self._wider(size), (self,))

    def _wider(self, size: int) -> int:
        if size < self.size:
            raise DefinitionError(
                f"cannot extend {self.size} bits to {size}; use .trunc({size}) or [0:{size}]"
            )
        return size

    def trunc(self, size: int) -> Bits:
        """The low ``size`` bits."""
        return self.extract(0, size)

    def extract(self, low: int, size: int) -> Bits:
        """``size`` bits from bit ``low`` up."""
        if low < 0 or size <= 0 or low + size > self.size:
            raise DefinitionError(f"bits {low}..{low + size - 1} of a value of {self.size} bits")
        if size == self.size:
            return self
        return self.apply("extract", size, (self,), (low,))

    def __getitem__(self, key: int | slice) -> Bits:
        if isinstance(key, int):
            return self.extract(key if key >= 0 else self.size + key, 1)
        if (key.start or 0) < 0 or (key.stop or 0) < 0 or key.step is not None:
            raise DefinitionError("slices of bits count from bit 0: value[low:high]")
        low = key.start or 0
        high = self.size if key.stop is None else key.stop
        return self.extract(low, high - low)

    def concat(self, low: Bits) -> Bits:
        """This value above ``low``."""
        return self.apply("concat", self.size + low.size, (self, low))

    def lanes(self, size: int) -> list[Bits]:
        """The value as lanes of ``size`` bits, lowest first."""
        return [self.extract(low, size) for low in range(0, self.size, size)]

    def clmul(self, other: Bits) -> Bits:
        """Carry-less product, twice as wide."""
        return self.apply("clmul", 2 * self.size, (self, self._other(other, "clmul")))

    def clz(self) -> Bits:
        """Leading zeros; the width for zero."""
        return self.apply("clz", self.size, (self,))

    def ctz(self) -> Bits:
        """Trailing zeros; the width for zero."""
        return self.apply("ctz", self.size, (self,))

    def popcount(self) -> Bits:
        """Number of set bits."""
        return self.apply("popcount", self.size, (self,))

    def bswap(self) -> Bits:
        """Bytes in reverse order."""
        return self.apply("bswap", self.size, (self,))

    def bitreverse(self) -> Bits:
        """Bits in reverse order."""
        return self.apply("bitreverse", self.size, (self,))

    def aes(self, step: str) -> Bits:
        """A step of AES on a state of 128 bits: ``aes_encrypt`` (shift rows, substitute bytes),
        ``aes_decrypt`` (its inverse), ``aes_mix`` (mix columns), ``aes_unmix``."""
        return self.apply(step, 128, (self,))

    def sha1_rounds(self, kind: int, words: Bits) -> Bits:
        """Four rounds of SHA-1; this is a, b, c, d (:func:`anyarch.ir.sha.four_rounds`)."""
        return self.apply("sha1_rounds", 128, (self, words), (kind,))

    def sha256_rounds(self, abef: Bits, words: Bits) -> Bits:
        """Two rounds of SHA-256; this is c, d, g, h (:func:`anyarch.ir.sha.two_rounds`)."""
        return self.apply("sha256_rounds", 128, (self, abef, words))


def join(lanes: list[Bits]) -> Bits:
    """The inverse of :meth:`Bits.lanes`: lowest lane first."""
    result = lanes[0]
    for lane in lanes[1:]:
        result = lane.concat(result)
    return result


class Concrete(Bits):
    """A known value. ``int(value)`` is unsigned; :attr:`signed` the other reading."""

    __slots__ = ("value",)

    def __init__(self, value: int, size: int) -> None:
        self.size = size
        self.value = value & ((1 << size) - 1)

    def apply(
        self, op: str, size: int, operands: tuple[Bits, ...], attrs: tuple[int, ...] = ()
    ) -> Bits:
        if any(not isinstance(operand, Concrete) for operand in operands):
            other = next(operand for operand in operands if not isinstance(operand, Concrete))
            return other.apply(op, size, operands, attrs)
        values = tuple(operand.value for operand in operands)  # type: ignore[attr-defined]  # checked
        sizes = tuple(operand.size for operand in operands)
        if problem := check_widths(op, size, sizes, attrs):
            raise DefinitionError(problem)
        return Concrete(evaluate(op, size, values, sizes, attrs), size)

    def constant(self, value: int, size: int) -> Self:
        return type(self)(value, size)

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    @property
    def signed(self) -> int:
        """The two's complement reading."""
        return signed(self.value, self.size)

    def __repr__(self) -> str:
        return f"Concrete({self.value:#x}, {self.size})"
