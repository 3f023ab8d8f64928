"""Compiling all code before it runs the first time: slow, and what tests want to see.

A guest that waited has lost its host stack, and comes to what is behind each call: there the rest
of a function that is in a region already is compiled again. Whole that took four fifths of the
time, quadratic in the calls of a function; so regions there are short.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from anyarch.engine.compiler import WINDOW

if TYPE_CHECKING:
    from anyarch.engine.interpreter import Interpreter
    from anyarch.engine.jit import Jit

_REACH: Final = 128  # bytes around the beginning of a region in code that another has already


class Eager:
    """In a sampler's place: a guest that comes to code without a region waits for one.

    The interpreter is left the instructions that cannot be compiled, one at a time.
    """

    def __init__(self, jit: Jit) -> None:
        self.jit = jit
        self._lock = threading.Lock()  # there is one compiler
        jit.arena.eager = True

    def begin(self, pc: int) -> None:
        """Nothing: who comes to code asks for it."""

    def passed(self, runner: Interpreter) -> None:
        """Nobody looks where threads are."""

    def provide(self, pc: int) -> bool:
        """Have the region at ``pc`` in place; False where there can be none."""
        with self._lock:
            reach = _REACH if self.jit.count_covering(pc) else WINDOW
            return self.jit.add(pc, reach=reach) or pc in self.jit.installed

    def after_fork(self) -> None:
        """In a forked child: a thread that is not there may have held the lock."""
        self._lock = threading.Lock()

    def stop(self) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """Nor to wait for."""
