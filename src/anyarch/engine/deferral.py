"""Floating-point results whose NaNs and underflow are looked at together, behind several.

Where a result is a NaN it may be another than the guest's; but then what is computed from it is a
NaN, too. So a group of instructions runs as the host does it, and only results that no other
result of the group is made of are looked at, once. On the unlikely path that finds something the
whole group is run anew, exactly (``RegionEmitter._settle``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from anyarch.emit import floats
from anyarch.emit.floats import Shape
from anyarch.emit.llvm import Emitter
from anyarch.emit.tininess import LEAST_EXPONENT
from anyarch.engine.regions import Occurrence

Place = tuple[str, int]
Contents = list[tuple[str, str, str]]  # of a register: type, variable, value

LIMIT: Final = 24  # instructions of a group
# Operations with results that are looked at later: a NaN operand makes them NaNs.
DEFERRED: Final = frozenset("fadd fsub fmul fdiv fsqrt ffma".split())


@dataclass(slots=True)
class Check:
    """A result, as the host has it."""

    shape: Shape
    value: str
    may_be_tiny: bool
    is_covered: bool = False  # a NaN shows in another result


@dataclass(slots=True)
class Deferred:
    """An instruction that may have to run anew, and what it read that is not of the group."""

    found: Occurrence
    sources: dict[Place, tuple[str, Contents]]  # format of the scalar in it, or ""; contents


@dataclass(slots=True)
class Group:
    """Instructions since results were last looked at. ``owners`` are the registers that the group
    wrote last, with the result that is all that they hold, if there is one."""

    instructions: list[Deferred] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    owners: dict[Place, Check | None] = field(default_factory=dict)
    written: set[Place] = field(default_factory=set)

    @property
    def touched(self) -> set[Place]:
        """Registers that are changed where the group runs anew."""
        return self.written.union(*(each.sources for each in self.instructions))

    def look(self, e: Emitter, otherwise: str) -> None:
        """Go on where all results are right as they are, else to a label."""
        for condition in self._nans(e):
            fine = e.name("fine")
            e.branch(condition, otherwise, fine, unlikely=True)
            e.label(fine)
        products = self._by_shape([check for check in self.checks if check.may_be_tiny])
        if not products:
            return
        closer, done = e.name("closer"), e.name("looked")
        for shape, values in products.items():
            fine = e.name("fine")
            e.branch(_small(e, shape, values), closer, fine, unlikely=True)
            e.label(fine)
        e.line(f"br label %{done}")
        e.label(closer)  # zeros lead here, too
        found = "false"
        for shape, values in products.items():
            for value in values:
                found = e.let(f"or i1 {found}, {_least(e, shape, value)}")
        e.branch(found, otherwise, done, unlikely=True)
        e.label(done)

    def _nans(self, e: Emitter) -> Iterator[str]:
        """Conditions of which one holds where there is a NaN; of two numbers each."""
        open_ = self._by_shape([check for check in self.checks if not check.is_covered])
        for shape, values in open_.items():
            for at in range(0, len(values), 2):
                pair = values[at : at + 2]
                yield floats.any_lane(e, shape, floats.compare(e, shape, "uno", pair[0], pair[-1]))

    def _by_shape(self, checks: list[Check]) -> dict[Shape, list[str]]:
        result: dict[Shape, list[str]] = {}
        for check in checks:
            result.setdefault(check.shape, []).append(check.value)
        return result


def _small(e: Emitter, shape: Shape, values: list[str]) -> str:
    """Whether one of some numbers is at most the least normal one, or zero. NaNs do not count."""
    least = values[0]
    for value in values[1:]:
        least = floats.smaller_magnitude(e, shape, least, value)
    # The intrinsic, not the bits: those would go to a general register.
    magnitude = e.let(f"call {shape.kind} @llvm.fabs.{shape.suffix}({shape.kind} {least})")
    limit = shape.number(2.0 ** LEAST_EXPONENT[shape.fmt])
    return floats.any_lane(e, shape, floats.compare(e, shape, "ole", magnitude, limit))


def _least(e: Emitter, shape: Shape, value: str) -> str:
    """Whether a number has the least normal magnitude, in any lane."""
    bits = e.let(f"bitcast {shape.kind} {value} to {shape.bits}")
    least = shape.integer(floats.LEAST_NORMAL[shape.fmt])
    magnitude = floats.magnitude(e, shape, bits)
    return floats.any_lane(e, shape, e.let(f"icmp eq {shape.bits} {magnitude}, {least}"))
