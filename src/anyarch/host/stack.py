"""The stack that native code runs on: its own mapping, with a guard page below.

It lies at a multiple of its size, and `aa_enter` pushes the context first: from any stack pointer
in it compiled code finds the context without keeping a register for that.
"""

from __future__ import annotations

import sys
from typing import Final

from anyarch.errors import HostError
from anyarch.host.context import Context
from anyarch.host.cpu import PAGE
from anyarch.host.mapping import PROT_READ, PROT_WRITE, protect_pages, reserve, unmap_pages

__all__ = ["STACK_NBYTES", "Stack"]

STACK_NBYTES: Final = 1 << 20


class Stack:
    """Mapped memory for `context.own_stack`; unmapped with the object.

    Host frames are only a cache of return addresses, so the size bounds how deep guest calls nest
    before the cache is dropped, not how deep a guest may recurse.
    """

    __slots__ = ("_start", "nbytes", "top")
    _exiting = staticmethod(sys.is_finalizing)  # module globals may be gone by then

    def __init__(self, nbytes: int = STACK_NBYTES) -> None:
        self._start = 0
        if nbytes < PAGE or nbytes & nbytes - 1:
            raise HostError(f"stack of {nbytes} bytes: expected a power of two from {PAGE}")
        self.nbytes = nbytes
        try:
            # The half below the stack is never touched: its end is the guard.
            self._start = reserve(2 * nbytes, nbytes)
            protect_pages(self._start + nbytes, nbytes, PROT_READ | PROT_WRITE)
        except OSError as error:
            raise HostError(f"cannot map a stack of {nbytes} bytes: {error}") from error
        self.top = self._start + 2 * nbytes

    @property
    def guard(self) -> int:
        """Host pointer of the guard page: a fault in it is an overflow."""
        return self._start + self.nbytes - PAGE

    def attach(self, context: Context) -> None:
        """Let native code entered with `context` run on this stack; keep the stack referenced."""
        context.set("own_stack", self.top)

    def __del__(self) -> None:
        if self._start and not self._exiting():
            unmap_pages(self._start, 2 * self.nbytes)
            self._start = 0
