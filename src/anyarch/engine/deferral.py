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
from anyarch.ir.graph import Node

_DELAYS: Final = {"fdiv": 13, "fsqrt": 20}
_DELAY: Final = 4  # of other operations

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
    delay: int  # in host cycles, about, from when what the group reads is there
    covered: set[int] = field(default_factory=set)  # lanes of which a NaN shows in another result

    @property
    def is_covered(self) -> bool:
        """Whether every NaN shows in another result."""
        return len(self.covered) == self.shape.lanes


Lane = tuple[Check, int]


@dataclass(slots=True)
class Deferred:
    """An instruction that may have to run anew, and what it read that is not of the group."""

    found: Occurrence
    sources: dict[Place, tuple[str, Contents]]  # format of the scalar in it, or ""; contents


@dataclass(slots=True)
class Group:
    """Instructions since results were last looked at. ``owners`` are the registers that the group
    wrote last, with the lanes of results that they hold, from the lowest bits up."""

    instructions: list[Deferred] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    owners: dict[Place, list[Lane | None]] = field(default_factory=dict)
    written: set[Place] = field(default_factory=set)

    @property
    def touched(self) -> set[Place]:
        """Registers that are changed where the group runs anew."""
        return self.written.union(*(each.sources for each in self.instructions))

    def add(self, node: Node, shape: Shape, value: str, sources: list[Lane]) -> Check:
        """A result of the group, made of others of it."""
        for check, lane in sources:
            check.covered.add(lane)
        delay = max((check.delay for check, _ in sources), default=0)
        delay += _DELAYS.get(node.op, _DELAY)
        result = Check(shape, value, floats.may_be_tiny(node), delay)
        self.checks.append(result)
        return result

    def look(self, e: Emitter, otherwise: str) -> None:
        """Go on where all results are right as they are, else to a label."""
        # What is early first: what waits for the last results fills the processor's queue.
        self.checks.sort(key=lambda check: check.delay)
        for values in _by_format([check for check in self.checks if not check.is_covered]):
            for condition in _nans(e, values):
                fine = e.name("fine")
                e.branch(condition, otherwise, fine, unlikely=True)
                e.label(fine)
        products = _by_format([check for check in self.checks if check.may_be_tiny])
        if not products:
            return
        closer, done = e.name("closer"), e.name("looked")
        for values in products:
            fine = e.name("fine")
            e.branch(_small(e, values), closer, fine, unlikely=True)
            e.label(fine)
        e.line(f"br label %{done}")
        e.label(closer)  # zeros lead here, too
        found = "false"
        for values in products:
            for shape, value in values:
                found = e.let(f"or i1 {found}, {_least(e, shape, value)}")
        e.branch(found, otherwise, done, unlikely=True)
        e.label(done)


Values = list[tuple[Shape, str]]


def _by_format(checks: list[Check]) -> list[Values]:
    result: dict[str, Values] = {}
    for check in checks:
        result.setdefault(check.shape.fmt, []).append((check.shape, check.value))
    return list(result.values())


def _nans(e: Emitter, values: Values) -> Iterator[str]:
    """Conditions of which one holds where one of some values of a format has a NaN."""
    one = Shape(values[0][0].fmt)
    scalars = [floats.widened(e, shape, value) for shape, value in values if shape == one]
    vectors = [floats.widened(e, shape, value) for shape, value in values if shape != one]
    if len(scalars) % 2 and len(vectors) % 2:
        t, odd = one.widened.kind, scalars.pop()
        vectors.append(
            e.let(
                f"shufflevector {t} {odd}, {t} poison, <{one.widened.lanes} x i32> zeroinitializer"
            )
        )
    if vectors:
        signs = _unordered(e, one.widened, vectors)
        yield e.let(f"icmp ne i32 {signs}, 0")
    if len(scalars) > 2:
        lowest = e.let(f"and i32 {_unordered(e, one, scalars)}, 1")
        yield e.let(f"icmp ne i32 {lowest}, 0")
    elif scalars:
        pair = [e.let(f"extractelement {one.widened.kind} {scalar}, i32 0") for scalar in scalars]
        yield floats.compare(e, one, "uno", pair[0], pair[-1])


def _unordered(e: Emitter, shape: Shape, values: list[str]) -> str:
    """By lane, as bits, whether one of some vectors of 128 bits has a NaN; in a lane that a shape
    of one lane has not anything."""
    wide, found = shape.widened, ""
    for at in range(0, len(values), 2):
        mask = floats.unordered_mask(e, shape, values[at], values[min(at + 1, len(values) - 1)])
        bits = e.let(f"bitcast {wide.kind} {mask} to {wide.bits}")
        found = e.let(f"or {wide.bits} {found}, {bits}") if found else bits
    return floats.signs(e, wide, e.let(f"bitcast {wide.bits} {found} to {wide.kind}"))


def _small(e: Emitter, values: Values) -> str:
    """Whether one of some numbers is at most the least normal one, or zero. NaNs do not count."""
    # A vector first, for its lanes stay where numbers are compared with its lowest one.
    vectors = [each for each in values if each[0].lanes > 1]
    first = [*vectors, *values][0]
    shape, least = first[0], floats.widened(e, *first)
    wide = shape.widened
    if len(vectors) == 1 or len(values) == 1:  # no comparison takes all signs away
        least = floats.magnitudes(e, wide, least)
    for each in values:
        if each is not first:
            least = floats.smaller_magnitude(e, each[0], least, floats.widened(e, *each))
    if shape.lanes == 1:
        number = e.let(f"extractelement {wide.kind} {least}, i32 0")
        limit = shape.number(2.0 ** LEAST_EXPONENT[shape.fmt])
        return floats.compare(e, shape, "ole", number, limit)
    # Encodings of magnitudes are in order: what is at most the limit gets a sign.
    bits = e.let(f"bitcast {wide.kind} {least} to {wide.bits}")
    limit = wide.integer(floats.LEAST_NORMAL[shape.fmt] + 1)
    below = e.let(f"sub {wide.bits} {bits}, {limit}")
    signs = floats.signs(e, wide, e.let(f"bitcast {wide.bits} {below} to {wide.kind}"))
    return e.let(f"icmp ne i32 {signs}, 0")


def _least(e: Emitter, shape: Shape, value: str) -> str:
    """Whether a number has the least normal magnitude, in any lane."""
    bits = e.let(f"bitcast {shape.kind} {value} to {shape.bits}")
    least = shape.integer(floats.LEAST_NORMAL[shape.fmt])
    magnitude = floats.magnitude(e, shape, bits)
    return floats.any_lane(e, shape, e.let(f"icmp eq {shape.bits} {magnitude}, {least}"))
