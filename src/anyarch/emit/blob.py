"""What is compiled, apart from how: who only loads it needs no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyarch.emit.variables import Ranges


class Blob:
    """Position-independent code and constants, and the offset of each global symbol.

    `path` and `position` say which file holds the same bytes as `code`, so that a loader may map
    the file in place of copying; `path` is empty for a blob that is only in memory.
    """

    __slots__ = ("code", "lines", "path", "position", "symbols", "variables")

    def __init__(
        self, code: bytes, symbols: dict[str, int], path: str = "", position: int = 0
    ) -> None:
        self.code = code
        self.symbols = symbols
        self.path = path
        self.position = position
        self.lines: list[tuple[int, int]] = []  # (offset, line) of the debug information
        self.variables: dict[int, Ranges] = {}  # of the debug information, by the line

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Blob):
            return NotImplemented
        return self.code == other.code and self.symbols == other.symbols

    __hash__ = None  # type: ignore[assignment]  # mutable, compared by content

    def __repr__(self) -> str:
        return f"Blob({len(self.code)} bytes, {len(self.symbols)} symbols)"
