"""Condition flags that the context has as a function and its inputs.

Between regions nobody makes flags that nobody has asked for: what sets them last leaves in the
context which function makes them, of what. Outside of regions there are no such flags.
"""

from __future__ import annotations

from typing import Final

from anyarch.host.context import FIELDS
from anyarch.isa.registers import RegisterFile

INPUTS: Final = 4  # of 64 bits
MAKER: Final = "preserve_allcc i64"  # how a function that makes flags is called
ARGUMENTS: Final = ", ".join(f"i64 %in{index}" for index in range(INPUTS))


def input_field(index: int) -> int:
    """The offset in the context of an input."""
    return FIELDS["flags_inputs"][0] + 8 * index


def settling(file: RegisterFile, offset: int, context: str, base: str) -> str:
    """The function ``@flags.settled()``: has the flags, which are at ``offset`` in the context, in
    their registers, and gives them, packed. ``base`` is the operand of the context, which the lines
    ``context`` make.
    """
    size = 8 * file.count
    kind = base.rpartition(" ")[0]
    places = {"maker": FIELDS["flags_maker"][0], "held": offset}
    places |= {f"in{index}": input_field(index) for index in range(INPUTS)}
    lines = [
        context,
        *(f"  %{name}.p = getelementptr i8, {base}, i64 {at}" for name, at in places.items()),
        f"  %maker = load ptr, {kind} %maker.p, align 8",
        "  %made = icmp eq ptr %maker, null",
        "  br i1 %made, label %known, label %make\nknown:",
        f"  %held = load i{size}, {kind} %held.p, align 1",
        f"  %known.v = zext i{size} %held to i64\n  ret i64 %known.v\nmake:",
        *(f"  %in{index} = load i64, {kind} %in{index}.p, align 8" for index in range(INPUTS)),
        f"  %word = call {MAKER} %maker({ARGUMENTS})",
        f"  %flags = trunc i64 %word to i{size}",
        f"  store i{size} %flags, {kind} %held.p, align 1",
        f"  store ptr null, {kind} %maker.p, align 8\n  ret i64 %word",
    ]
    return function("@flags.settled", "", lines)


def function(name: str, parameters: str, lines: list[str]) -> str:
    """A rarely called function of a module that gives flags, packed."""
    body = "\n".join(lines)
    return (
        f"define internal {MAKER} {name}({parameters}) "
        f"noinline nounwind align 1 {{\nentry:\n{body}\n}}\n"
    )
