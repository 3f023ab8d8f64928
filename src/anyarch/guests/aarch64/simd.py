"""What Advanced SIMD definitions share: rows per lane size, reads and writes of vectors.

A definition is written for lanes; it serves vectors of 64 and 128 bits (``q``) and, where the
instruction set has them, scalars, which are vectors of one lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from anyarch.guests.aarch64.fields import bind, insn
from anyarch.ir.bits import Bits
from anyarch.ir.lanes import Lanes
from anyarch.isa.machine import Machine

LETTERS: Final = {8: "b", 16: "h", 32: "s", 64: "d"}
SIZE_BITS: Final = {8: "00", 16: "01", 32: "10", 64: "11"}

Body = Callable[..., None]


def read(m: Machine, register: Bits, lane: int, size: int) -> Lanes:
    """The low ``size`` bits of a register as lanes."""
    return Lanes(m.v[register, size], lane)


def write(m: Machine, register: Bits, value: Lanes) -> None:
    """Write a vector or scalar, with zeros above it."""
    m.v[register, value.bits.size] = value.bits


def saturated(m: Machine, result: Lanes, exact: Lanes) -> Lanes:
    """``result``, having noted where it is not exact."""
    m.qc[0] = m.qc[0] | result.any_differs(exact).zext(8)
    return result


def define(
    name: str,
    row: str,
    text: str,
    body: Body,
    /,
    *,
    where: str = "",
    static: str = "",
    **fixed: object,
) -> None:
    """One instruction."""
    insn(row, text, static=static, where=where, name=name)(bind(body, name, **fixed))


def full(is_full: bool) -> dict[str, Any]:
    """``q`` fixed where there are vectors of 128 bits only."""
    return {"q": 1} if is_full else {}


def arrangement(lane: int) -> str:
    """The format of a vector of 64 or 128 bits, by Q; of doublewords only 128 are vectors."""
    return "v2d" if lane == 64 else f"q{LETTERS[lane]}"


def _on_vectors(
    m: Machine,
    function: Callable[..., Lanes],
    lane: int,
    q: int,
    operands: Sequence[str],
    **fields: Bits,
) -> None:
    size = 128 if q else 64
    values = [read(m, fields[name], lane, size) for name in operands]
    write(m, fields["vd"], function(m, *values))


def _on_scalars(
    m: Machine, function: Callable[..., Lanes], lane: int, operands: Sequence[str], **fields: Bits
) -> None:
    values = [read(m, fields[name], lane, lane) for name in operands]
    write(m, fields["vd"], function(m, *values))


def elementwise(
    mnemonic: str,
    vector_row: str,
    scalar_row: str,
    function: Callable[..., Lanes],
    *,
    lanes: Sequence[int],
    scalars: Sequence[int] = (),
    operands: str = "vn vm",
    text: str = "",
) -> None:
    """Define an instruction of like lanes for vectors and scalars.

    ``size`` in a row is the lanes' size. ``operands`` are the registers that the function gets,
    ``text`` is what follows the registers.
    """
    names = operands.split()
    suffix = "_zero" if text else ""
    shown = [name for name in ("vd", "vn", "vm") if name == "vd" or name in vector_row.split()]

    def fill(row: str, lane: int) -> str:
        return " ".join(SIZE_BITS[lane] if token == "size" else token for token in row.split())

    for lane in lanes:
        row = fill(vector_row, lane)
        if lane == 64:
            row = row.replace("q:1", "1", 1)
        registers = ", ".join(f"{{{name}:{arrangement(lane)}}}" for name in shown)
        fixed: dict[str, Any] = {"function": function, "lane": lane, "operands": names}
        if lane == 64:
            fixed["q"] = 1
        define(
            f"{mnemonic}{suffix}_{LETTERS[lane]}_vector",
            row,
            f"{mnemonic} {registers}{text}",
            named(_on_vectors, function),
            static="" if lane == 64 else "q",
            **fixed,
        )
    for lane in scalars:
        registers = ", ".join(f"{{{name}:{LETTERS[lane]}}}" for name in shown)
        define(
            f"{mnemonic}{suffix}_{LETTERS[lane]}_scalar",
            fill(scalar_row, lane),
            f"{mnemonic} {registers}{text}",
            named(_on_scalars, function),
            function=function,
            lane=lane,
            operands=names,
        )


def named(body: Body, function: Callable[..., object]) -> Body:
    """``body`` with the docstring and module of the function that it applies."""

    def result(m: Machine, **fields: object) -> None:
        body(m, **fields)

    result.__doc__, result.__module__ = function.__doc__, function.__module__
    return result
