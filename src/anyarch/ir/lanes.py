"""A value seen as lanes: operators work on each, comparisons give lanes of ones or zeros."""

from __future__ import annotations

from collections.abc import Sequence

from anyarch.errors import DefinitionError
from anyarch.ir.bits import Bits


class Lanes:
    """``bits`` as lanes of ``lane`` bits each, lowest first.

    The second operand is lanes of the same shape, or one value for all lanes (``int`` or ``Bits``
    of a lane's size). As with :class:`Bits` the sign lies in the operation's name.
    """

    __slots__ = ("bits", "lane")

    def __init__(self, bits: Bits, lane: int) -> None:
        if bits.size % lane:
            raise DefinitionError(f"{bits.size} bits are no whole number of lanes of {lane}")
        self.bits, self.lane = bits, lane

    @property
    def count(self) -> int:
        """Number of lanes."""
        return self.bits.size // self.lane

    def __getitem__(self, index: int) -> Bits:
        return self.bits.extract(index * self.lane, self.lane)

    def constant(self, value: int) -> Lanes:
        """The same number in all lanes."""
        mask = (1 << self.lane) - 1
        whole = sum((value & mask) << at for at in range(0, self.bits.size, self.lane))
        return Lanes(self.bits.constant(whole, self.bits.size), self.lane)

    def splat(self, value: Bits) -> Lanes:
        """One lane's value in lanes of this shape."""
        return splat(value, self.count)

    def _other(self, other: Lanes | Bits | int, op: str) -> Lanes:
        if isinstance(other, int):
            return self.constant(other)
        if isinstance(other, Bits):
            other = self.splat(other)
        if other.lane != self.lane or other.bits.size != self.bits.size:
            raise DefinitionError(
                f"{op} of {self.count} lanes of {self.lane} bits and {other.count} of {other.lane}"
            )
        return other

    def _do(self, op: str, *others: Lanes | Bits | int) -> Lanes:
        operands = (self.bits, *(self._other(other, op).bits for other in others))
        return Lanes(self.bits.apply(op, self.bits.size, operands, (self.lane,)), self.lane)

    def __add__(self, other: Lanes | Bits | int) -> Lanes:
        return self._do("vadd", other)

    def __sub__(self, other: Lanes | Bits | int) -> Lanes:
        return self._do("vsub", other)

    def __mul__(self, other: Lanes | Bits | int) -> Lanes:
        return self._do("vmul", other)

    def __neg__(self) -> Lanes:
        return self.constant(0) - self

    def __and__(self, other: Lanes | Bits | int) -> Lanes:
        return Lanes(self.bits & self._other(other, "and").bits, self.lane)

    def __or__(self, other: Lanes | Bits | int) -> Lanes:
        return Lanes(self.bits | self._other(other, "or").bits, self.lane)

    def __xor__(self, other: Lanes | Bits | int) -> Lanes:
        return Lanes(self.bits ^ self._other(other, "xor").bits, self.lane)

    def __invert__(self) -> Lanes:
        return Lanes(~self.bits, self.lane)

    def __lshift__(self, other: Lanes | Bits | int) -> Lanes:
        return self._do("vshl", other)

    def __rshift__(self, other: Lanes | Bits | int) -> Lanes:
        return self._do("vshr", other)

    def sar(self, other: Lanes | Bits | int) -> Lanes:
        """Shift right, copying the sign."""
        return self._do("vsar", other)

    def equals(self, other: Lanes | Bits | int) -> Lanes:
        """Ones where equal."""
        return self._do("veq", other)

    def ult(self, other: Lanes | Bits | int) -> Lanes:
        """Ones where less, unsigned."""
        return self._do("vult", other)

    def ule(self, other: Lanes | Bits | int) -> Lanes:
        """Ones where less or equal, unsigned."""
        return self._do("vule", other)

    def slt(self, other: Lanes | Bits | int) -> Lanes:
        """Ones where less, signed."""
        return self._do("vslt", other)

    def sle(self, other: Lanes | Bits | int) -> Lanes:
        """Ones where less or equal, signed."""
        return self._do("vsle", other)

    def umin(self, other: Lanes | Bits | int) -> Lanes:
        """The smaller, unsigned."""
        return self._do("vumin", other)

    def umax(self, other: Lanes | Bits | int) -> Lanes:
        """The larger, unsigned."""
        return self._do("vumax", other)

    def smin(self, other: Lanes | Bits | int) -> Lanes:
        """The smaller, signed."""
        return self._do("vsmin", other)

    def smax(self, other: Lanes | Bits | int) -> Lanes:
        """The larger, signed."""
        return self._do("vsmax", other)

    def uadds(self, other: Lanes | Bits | int) -> Lanes:
        """Sum, saturated to unsigned numbers."""
        return self._do("vuadds", other)

    def usubs(self, other: Lanes | Bits | int) -> Lanes:
        """Difference, saturated to unsigned numbers."""
        return self._do("vusubs", other)

    def sadds(self, other: Lanes | Bits | int) -> Lanes:
        """Sum, saturated to signed numbers."""
        return self._do("vsadds", other)

    def ssubs(self, other: Lanes | Bits | int) -> Lanes:
        """Difference, saturated to signed numbers."""
        return self._do("vssubs", other)

    def clz(self) -> Lanes:
        """Leading zeros."""
        return self._do("vclz")

    def popcount(self) -> Lanes:
        """Set bits."""
        return self._do("vpopcount")

    def bitreverse(self) -> Lanes:
        """Bits in reverse order."""
        return self._do("vbitreverse")

    def select(self, then: Lanes, otherwise: Lanes) -> Lanes:
        """``then`` where the lanes of this mask are ones, ``otherwise`` where they are zeros."""
        bits = (then.bits & self.bits) | (otherwise.bits & ~self.bits)
        return Lanes(bits, self.lane)

    def widen(self, *, signed: bool) -> Lanes:
        """Lanes twice as wide."""
        op = "vwiden_signed" if signed else "vwiden"
        bits = self.bits.apply(op, 2 * self.bits.size, (self.bits,), (self.lane,))
        return Lanes(bits, 2 * self.lane)

    def narrow(self) -> Lanes:
        """The low halves of the lanes."""
        bits = self.bits.apply("vnarrow", self.bits.size // 2, (self.bits,), (self.lane,))
        return Lanes(bits, self.lane // 2)

    def shuffle(self, other: Lanes, indices: Sequence[int]) -> Lanes:
        """Lanes of this and, from :attr:`count` up, of ``other``, by index."""
        bits = self.bits.apply(
            "vshuffle",
            len(indices) * self.lane,
            (self.bits, self._other(other, "shuffle").bits),
            (self.lane, *indices),
        )
        return Lanes(bits, self.lane)

    def pick(self, indices: Sequence[int]) -> Lanes:
        """Lanes of this by index."""
        return self.shuffle(self, indices)

    def resize(self, lane: int) -> Lanes:
        """The same bits as lanes of another size."""
        return Lanes(self.bits, lane)

    def element(self, index: Bits) -> Bits:
        """A lane by a computed index, modulo their number."""
        return self.bits.apply("velement", self.lane, (self.bits, index))

    def insert(self, index: Bits, value: Bits) -> Lanes:
        """With one lane replaced."""
        bits = self.bits.apply("vinsert", self.bits.size, (self.bits, index, value))
        return Lanes(bits, self.lane)

    def any_differs(self, other: Lanes) -> Bits:
        """Whether any lane differs: one bit."""
        return self.bits != other.bits


def splat(value: Bits, count: int) -> Lanes:
    """``count`` lanes of one value."""
    return Lanes(value.apply("vsplat", count * value.size, (value,)), value.size)


def lookup(table: Bits, indices: Bits) -> Bits:
    """Bytes of a table of 128 bits, by the bytes of ``indices``; zero from 16 up."""
    return table.apply("vtable", indices.size, (table, indices))
