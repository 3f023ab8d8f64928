"""AArch64 field kinds, and the decorators of all definitions in this package.

Fields have the names of the manual's assembly symbols: ``rd`` is <Xd>, ``rd_sp`` <Xd|SP>, ``vd`` a
scalar or vector register.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from anyarch.guests.aarch64.operands import SYNTAX
from anyarch.isa.instruction import InstructionSet, Kind
from anyarch.isa.machine import Machine

KINDS: Final = {
    **{name: Kind(5, file="x", format="sized") for name in ("rd", "rn", "rm", "ra")},
    **{name: Kind(5, file="x", format="x") for name in ("rt", "rt2", "rs")},
    **{name: Kind(5, file="r", format="sized") for name in ("rd_sp", "rn_sp")},
    "base": Kind(5, file="r", format="x"),  # <Xn|SP> of a memory operand
    **{name: Kind(5, file="v") for name in ("vd", "vn", "vm", "va", "vt", "vt2")},
    "cond": Kind(4, format="cond"),
    "nzcv": Kind(4),
    "shift": Kind(2),
    "option": Kind(3),
    "imm3": Kind(3),
    "imm5": Kind(5, size=64),
    "imm6": Kind(6, size=64),
    "imm7": Kind(7, size=64, signed=True),
    "imm9": Kind(9, size=64, signed=True),
    "imm12": Kind(12, size=64),
    "imm16": Kind(16, size=64),
    "immr": Kind(6, size=64),
    "imms": Kind(6, size=64),
    "imm": Kind(size=64, signed=True),
    "ar": Kind(2),
    # Should be ones; other values are ignored.
    "ones": Kind(5, hidden=31),
    "ones2": Kind(5, hidden=31),
    "zeros": Kind(5),
    "imm8": Kind(8),
    "q": Kind(1),
}

aarch64: Final = InstructionSet("aarch64", KINDS, syntax=SYNTAX)
insn = aarch64.insn

Definition = Callable[..., None]
_IGNORED: Final = re.compile(r"(any|ones)\d*$")


def bind(function: Definition, name: str, extension: str = "", /, **fixed: object) -> Definition:
    """A definition with some arguments fixed, under a name of its own.

    It does not see fields that mean nothing: those named ``any`` or ``ones`` and a number.
    """

    def bound(m: Machine, **fields: object) -> None:
        seen = {name: value for name, value in fields.items() if not _IGNORED.match(name)}
        function(m, **fixed, **seen)

    bound.__name__, bound.__doc__ = name, function.__doc__
    bound.__module__ = extension or function.__module__
    return bound


# In 32-bit forms these fields are one bit narrower: the bit above is zero.
_NARROW: Final = {"imm6": "0 imm6:5", "immr": "0 immr:5", "imms": "0 imms:5"}


def sized(
    row: str, text: str, *, static: str = "", where: str = "", name: str = ""
) -> Callable[[Definition], Definition]:
    """``insn`` for a row with ``sf``: two instructions, of which the function gets the ``size``.

    ``N`` in the row equals sf.
    """

    def decorate(function: Definition) -> Definition:
        own = name or function.__name__.rstrip("_")
        for sf, size in ((0, 32), (1, 64)):
            tokens = [str(sf) if token in ("sf", "N") else token for token in row.split()]
            if not sf:
                tokens = [_NARROW.get(token, token) for token in tokens]
            each = f"{own}_{size}"
            insn(" ".join(tokens), text, static=static, where=where, name=each)(
                bind(function, each, size=size)
            )
        return function

    return decorate
