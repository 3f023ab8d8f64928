"""What a checked kernel does beside its work; nothing in any other. See `gpu/cpu/checker.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyarch.gpu.cpu import checker
from anyarch.gpu.cpu.checker import LOAD, STORE, STRONG

if TYPE_CHECKING:
    from anyarch.gpu.cpu.function import FunctionEmitter

__all__ = ["LOAD", "STORE", "STRONG", "access", "arrive", "begin", "end", "fence", "meet", "place"]

_SPACES: Final = {
    "shared": checker.SHARED,
    "local": checker.LOCAL,
    "global": checker.GLOBAL,
    "const": checker.GLOBAL,
}
_STRONG: Final = {"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"}
_ORDERS: Final = {"acquire", "release", "acq_rel"}


def place(e: FunctionEmitter) -> int:
    """Line and column of the instruction, as the checker keeps them."""
    assert e.instruction is not None
    return e.instruction.place.line << 32 | e.instruction.place.column


def _call(e: FunctionEmitter, name: str, operands: str) -> None:
    e.line(f"call void @check.{name}(ptr %worker, {operands})")


def begin(e: FunctionEmitter) -> None:
    """A thread begins."""
    if e.kernel.check:
        _call(e, "begin", f"i32 {e.warp()}")


def end(e: FunctionEmitter) -> None:
    """A thread ends."""
    if e.kernel.check:
        _call(e, "end", f"i32 {e.warp()}")


def access(
    e: FunctionEmitter,
    pointer: str,
    space: str | None,
    nbytes: int | str,
    kind: int,
    *,
    align: int = 0,
    value: tuple[str, str] | None = None,
) -> None:
    """An access to `nbytes` at a pointer is about to happen; `value` is what a store stores. Where
    `nbytes` is computed, `align` is given."""
    if not e.kernel.check or space in (None, "param") or not nbytes:
        return
    assert space is not None and e.instruction is not None
    modifiers = set(e.instruction.modifiers)
    flags = kind | _SPACES.get(space, 0)
    if modifiers & _STRONG:
        flags |= STRONG
    if modifiers & _ORDERS:
        fence(e)
    stored = "null"
    if value is not None:
        elem, text = value
        stored = e.scratch(elem, "stored")
        e.line(f"store {elem} {text}, ptr {stored}")
    local = e.local_base() if e.kernel.local_stride else "0"
    _call(
        e,
        "access",
        f"ptr %launch, ptr {pointer}, i64 {nbytes}, i64 {align or nbytes}, i32 {flags}, "
        f"i64 {place(e)}, i32 {e.warp()}, i64 {local}, ptr {stored}",
    )


def arrive(e: FunctionEmitter, number: str, count: str, kind: int) -> None:
    """A thread comes to a barrier."""
    if e.kernel.check:
        operands = f"i32 {e.warp()}, i32 {number}, i32 {count}, i32 {kind}, i64 {place(e)}"
        _call(e, "arrive", operands)


def fence(e: FunctionEmitter) -> None:
    """Memory is ordered."""
    if e.kernel.check:
        _call(e, "fence", f"i32 {e.warp()}")


def meet(e: FunctionEmitter, *, after: bool) -> None:
    """Threads of a warp wait for each other, with all that they wrote."""
    if e.kernel.check:
        _call(e, "met" if after else "meets", f"i32 {e.warp()}")
