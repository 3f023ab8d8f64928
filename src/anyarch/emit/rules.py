"""The rules of single and double precision, by operation."""

from __future__ import annotations

from typing import Final

from anyarch.emit import arithmetic, conversions, reciprocals
from anyarch.emit.floats import Rule

RULES: Final[dict[str, Rule]] = {
    **arithmetic.RULES,
    **conversions.RULES,
    **reciprocals.RULES,
}
# Operations that leave unusual operands to the reference engine.
EMULATED: Final = frozenset({*reciprocals.RULES, "fto_int_modular"})
