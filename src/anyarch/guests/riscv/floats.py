"""What the floating-point extensions share: formats, NaN boxing, and the definitions that F, D and
Zfh have in common, each written once (unprivileged ISA manual 20240411, chapters 20, 21 and "Zfh").

In encoding rows ``fmt`` stands for the bits of the format, in assembly text for its letter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from anyarch.guests.riscv.fields import insn
from anyarch.ir import softfloat
from anyarch.ir.bits import Bits, join
from anyarch.isa.machine import Machine, Rounding


@dataclass(frozen=True, slots=True)
class Format:
    """A floating-point format, and how its values lie in the 64-bit registers."""

    letter: str
    code: str  # the fmt field
    encoding: softfloat.Format

    @property
    def name(self) -> str:
        """The name that ``m.fp`` knows."""
        return self.encoding.name

    @property
    def size(self) -> int:
        """Bits of a value."""
        return self.encoding.size

    @property
    def nan(self) -> int:
        """The canonical NaN."""
        return softfloat.RISCV.default_nan(self.encoding)

    def read(self, m: Machine, index: Bits) -> Bits:
        """An operand: the canonical NaN unless all bits above the value are ones."""
        register = m.f[index]
        if self.size == 64:
            return register
        return (register[self.size :] == -1).select(register[: self.size], self.nan)

    def write(self, m: Machine, index: Bits, value: Bits) -> None:
        """A result, with ones above it."""
        m.f[index] = value if self.size == 64 else value.constant(-1, 64 - self.size).concat(value)


HALF: Final = Format("h", "10", softfloat.F16)
SINGLE: Final = Format("s", "00", softfloat.F32)
DOUBLE: Final = Format("d", "01", softfloat.F64)

VALID_RM: Final = "rm != 5, rm != 6"


def rounding(rm: int) -> Rounding:
    """The rounding mode that an instruction's rm field asks for."""
    return "dynamic" if rm == 7 else rm


@dataclass(slots=True)
class Family:
    """Definitions that take the format as their first argument."""

    _members: list[tuple[str, str, str, str, Callable[..., None]]] = field(default_factory=list)

    def insn(
        self, row: str, text: str, *, static: str = "", where: str = ""
    ) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorate a definition for every format that the family is defined for."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            self._members.append((row, text, static, where, function))
            return function

        return decorate

    def rounded(self, row: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """``insn`` for a row with a rounding mode, the last and optional operand of the text."""
        return self.insn(row, text + "{rm:rounding}", static="rm", where=VALID_RM)

    def define(self, fmt: Format, extension: str) -> None:
        """Define all members for ``fmt``, as part of the module named ``extension``."""
        for row, text, static, where, function in self._members:
            bits, letters = row.replace("fmt", fmt.code), text.replace("fmt", fmt.letter)
            name = letters.split()[0].replace(".", "_")
            insn(bits, letters, static=static, where=where, name=name)(
                _bind(function, fmt, name, extension)
            )


def _bind(
    function: Callable[..., None], fmt: Format, name: str, extension: str
) -> Callable[..., None]:
    def bound(m: Machine, **fields: Bits | int) -> None:
        function(m, fmt, **fields)

    bound.__name__, bound.__module__, bound.__doc__ = name, extension, function.__doc__
    return bound


BASIC: Final = Family()


@BASIC.rounded("00000 fmt fs2 fs1 rm fd 1010011", "fadd.fmt {fd}, {fs1}, {fs2}")
def fadd(m: Machine, f: Format, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Add."""
    f.write(m, fd, m.fp.add(f.name, f.read(m, fs1), f.read(m, fs2), rounding(rm)))


@BASIC.rounded("00001 fmt fs2 fs1 rm fd 1010011", "fsub.fmt {fd}, {fs1}, {fs2}")
def fsub(m: Machine, f: Format, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Subtract."""
    f.write(m, fd, m.fp.sub(f.name, f.read(m, fs1), f.read(m, fs2), rounding(rm)))


@BASIC.rounded("00010 fmt fs2 fs1 rm fd 1010011", "fmul.fmt {fd}, {fs1}, {fs2}")
def fmul(m: Machine, f: Format, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Multiply."""
    f.write(m, fd, m.fp.mul(f.name, f.read(m, fs1), f.read(m, fs2), rounding(rm)))


@BASIC.rounded("00011 fmt fs2 fs1 rm fd 1010011", "fdiv.fmt {fd}, {fs1}, {fs2}")
def fdiv(m: Machine, f: Format, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Divide."""
    f.write(m, fd, m.fp.div(f.name, f.read(m, fs1), f.read(m, fs2), rounding(rm)))


@BASIC.rounded("01011 fmt 00000 fs1 rm fd 1010011", "fsqrt.fmt {fd}, {fs1}")
def fsqrt(m: Machine, f: Format, fs1: Bits, rm: int, fd: Bits) -> None:
    """Take the square root."""
    f.write(m, fd, m.fp.sqrt(f.name, f.read(m, fs1), rounding(rm)))


# The canonical NaN hides the sign that the negated forms flip in a NaN operand.
def _negate(f: Format, value: Bits) -> Bits:
    return value ^ f.encoding.sign_mask


@BASIC.rounded("fs3 fmt fs2 fs1 rm fd 1000011", "fmadd.fmt {fd}, {fs1}, {fs2}, {fs3}")
def fmadd(m: Machine, f: Format, fs3: Bits, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Multiply and add, rounding once."""
    a, b, c = f.read(m, fs1), f.read(m, fs2), f.read(m, fs3)
    f.write(m, fd, m.fp.fma(f.name, a, b, c, rounding(rm)))


@BASIC.rounded("fs3 fmt fs2 fs1 rm fd 1000111", "fmsub.fmt {fd}, {fs1}, {fs2}, {fs3}")
def fmsub(m: Machine, f: Format, fs3: Bits, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Multiply and subtract, rounding once."""
    a, b, c = f.read(m, fs1), f.read(m, fs2), _negate(f, f.read(m, fs3))
    f.write(m, fd, m.fp.fma(f.name, a, b, c, rounding(rm)))


@BASIC.rounded("fs3 fmt fs2 fs1 rm fd 1001011", "fnmsub.fmt {fd}, {fs1}, {fs2}, {fs3}")
def fnmsub(m: Machine, f: Format, fs3: Bits, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Multiply, negate the product and add, rounding once."""
    a, b, c = _negate(f, f.read(m, fs1)), f.read(m, fs2), f.read(m, fs3)
    f.write(m, fd, m.fp.fma(f.name, a, b, c, rounding(rm)))


@BASIC.rounded("fs3 fmt fs2 fs1 rm fd 1001111", "fnmadd.fmt {fd}, {fs1}, {fs2}, {fs3}")
def fnmadd(m: Machine, f: Format, fs3: Bits, fs2: Bits, fs1: Bits, rm: int, fd: Bits) -> None:
    """Multiply, negate the product and subtract, rounding once."""
    a, b, c = _negate(f, f.read(m, fs1)), f.read(m, fs2), _negate(f, f.read(m, fs3))
    f.write(m, fd, m.fp.fma(f.name, a, b, c, rounding(rm)))


def _with_sign(f: Format, value: Bits, sign: Bits) -> Bits:
    return sign.concat(value[: f.size - 1])


@BASIC.insn("00100 fmt fs2 fs1 000 fd 1010011", "fsgnj.fmt {fd}, {fs1}, {fs2}")
def fsgnj(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the sign of the second operand."""
    f.write(m, fd, _with_sign(f, f.read(m, fs1), f.read(m, fs2)[-1]))


@BASIC.insn("00100 fmt fs2 fs1 001 fd 1010011", "fsgnjn.fmt {fd}, {fs1}, {fs2}")
def fsgnjn(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the opposite of the second operand's sign."""
    f.write(m, fd, _with_sign(f, f.read(m, fs1), ~f.read(m, fs2)[-1]))


@BASIC.insn("00100 fmt fs2 fs1 010 fd 1010011", "fsgnjx.fmt {fd}, {fs1}, {fs2}")
def fsgnjx(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the exclusive or of both signs."""
    a, b = f.read(m, fs1), f.read(m, fs2)
    f.write(m, fd, _with_sign(f, a, a[-1] ^ b[-1]))


@BASIC.insn("00101 fmt fs2 fs1 000 fd 1010011", "fmin.fmt {fd}, {fs1}, {fs2}")
def fmin(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the smaller operand; a number rather than a NaN."""
    f.write(m, fd, m.fp.min_number(f.name, f.read(m, fs1), f.read(m, fs2)))


@BASIC.insn("00101 fmt fs2 fs1 001 fd 1010011", "fmax.fmt {fd}, {fs1}, {fs2}")
def fmax(m: Machine, f: Format, fs2: Bits, fs1: Bits, fd: Bits) -> None:
    """Take the larger operand; a number rather than a NaN."""
    f.write(m, fd, m.fp.max_number(f.name, f.read(m, fs1), f.read(m, fs2)))


@BASIC.insn("10100 fmt fs2 fs1 010 rd 1010011", "feq.fmt {rd}, {fs1}, {fs2}")
def feq(m: Machine, f: Format, fs2: Bits, fs1: Bits, rd: Bits) -> None:
    """Set if equal; only signaling NaNs are invalid."""
    m.x[rd] = m.fp.eq(f.name, f.read(m, fs1), f.read(m, fs2)).zext(64)


@BASIC.insn("10100 fmt fs2 fs1 001 rd 1010011", "flt.fmt {rd}, {fs1}, {fs2}")
def flt(m: Machine, f: Format, fs2: Bits, fs1: Bits, rd: Bits) -> None:
    """Set if less than; any NaN is invalid."""
    m.x[rd] = m.fp.lt(f.name, f.read(m, fs1), f.read(m, fs2)).zext(64)


@BASIC.insn("10100 fmt fs2 fs1 000 rd 1010011", "fle.fmt {rd}, {fs1}, {fs2}")
def fle(m: Machine, f: Format, fs2: Bits, fs1: Bits, rd: Bits) -> None:
    """Set if less than or equal; any NaN is invalid."""
    m.x[rd] = m.fp.le(f.name, f.read(m, fs1), f.read(m, fs2)).zext(64)


@BASIC.insn("11100 fmt 00000 fs1 001 rd 1010011", "fclass.fmt {rd}, {fs1}")
def fclass(m: Machine, f: Format, fs1: Bits, rd: Bits) -> None:
    """Set the one bit that names the operand's class."""
    value, infinity = f.read(m, fs1), f.encoding.infinity
    magnitude = value[: f.size - 1]
    zero = magnitude == 0
    subnormal = ~zero & (magnitude < 1 << f.encoding.fraction_bits)
    infinite = magnitude == infinity
    normal = ~zero & ~subnormal & (magnitude < infinity)
    signaling = (magnitude > infinity) & (magnitude < infinity | f.encoding.quiet_bit)
    quiet = magnitude >= infinity | f.encoding.quiet_bit
    negative, positive = value[-1], ~value[-1]
    falling = [negative & each for each in (infinite, normal, subnormal, zero)]
    rising = [positive & each for each in (zero, subnormal, normal, infinite)]
    m.x[rd] = join([*falling, *rising, signaling, quiet]).zext(64)


@BASIC.rounded("11000 fmt 00000 fs1 rm rd 1010011", "fcvt.w.fmt {rd}, {fs1}")
def fcvt_w(m: Machine, f: Format, fs1: Bits, rm: int, rd: Bits) -> None:
    """Convert to a signed word."""
    m.x[rd] = m.fp.to_int(f.name, f.read(m, fs1), 32, True, rounding(rm)).sext(64)


@BASIC.rounded("11000 fmt 00001 fs1 rm rd 1010011", "fcvt.wu.fmt {rd}, {fs1}")
def fcvt_wu(m: Machine, f: Format, fs1: Bits, rm: int, rd: Bits) -> None:
    """Convert to an unsigned word, sign-extended."""
    m.x[rd] = m.fp.to_int(f.name, f.read(m, fs1), 32, False, rounding(rm)).sext(64)


@BASIC.rounded("11000 fmt 00010 fs1 rm rd 1010011", "fcvt.l.fmt {rd}, {fs1}")
def fcvt_l(m: Machine, f: Format, fs1: Bits, rm: int, rd: Bits) -> None:
    """Convert to a signed doubleword."""
    m.x[rd] = m.fp.to_int(f.name, f.read(m, fs1), 64, True, rounding(rm))


@BASIC.rounded("11000 fmt 00011 fs1 rm rd 1010011", "fcvt.lu.fmt {rd}, {fs1}")
def fcvt_lu(m: Machine, f: Format, fs1: Bits, rm: int, rd: Bits) -> None:
    """Convert to an unsigned doubleword."""
    m.x[rd] = m.fp.to_int(f.name, f.read(m, fs1), 64, False, rounding(rm))


@BASIC.rounded("11010 fmt 00010 rs1 rm fd 1010011", "fcvt.fmt.l {fd}, {rs1}")
def fcvt_from_l(m: Machine, f: Format, rs1: Bits, rm: int, fd: Bits) -> None:
    """Convert from a signed doubleword."""
    f.write(m, fd, m.fp.from_int(f.name, m.x[rs1], True, rounding(rm)))


@BASIC.rounded("11010 fmt 00011 rs1 rm fd 1010011", "fcvt.fmt.lu {fd}, {rs1}")
def fcvt_from_lu(m: Machine, f: Format, rs1: Bits, rm: int, fd: Bits) -> None:
    """Convert from an unsigned doubleword."""
    f.write(m, fd, m.fp.from_int(f.name, m.x[rs1], False, rounding(rm)))


FROM_WORD: Final = Family()  # for the formats where it rounds; see rv64d for the other


@FROM_WORD.rounded("11010 fmt 00000 rs1 rm fd 1010011", "fcvt.fmt.w {fd}, {rs1}")
def fcvt_from_w(m: Machine, f: Format, rs1: Bits, rm: int, fd: Bits) -> None:
    """Convert from a signed word."""
    f.write(m, fd, m.fp.from_int(f.name, m.x[rs1, 32], True, rounding(rm)))


@FROM_WORD.rounded("11010 fmt 00001 rs1 rm fd 1010011", "fcvt.fmt.wu {fd}, {rs1}")
def fcvt_from_wu(m: Machine, f: Format, rs1: Bits, rm: int, fd: Bits) -> None:
    """Convert from an unsigned word."""
    f.write(m, fd, m.fp.from_int(f.name, m.x[rs1, 32], False, rounding(rm)))


def convert(
    m: Machine, source: Format, target: Format, fs1: Bits, fd: Bits, mode: Rounding
) -> None:
    """Convert between two formats."""
    value = m.fp.convert(source.name, target.name, source.read(m, fs1), mode)
    target.write(m, fd, value)
