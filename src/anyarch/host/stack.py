"""The stack that native code runs on: its own mapping, with a guard page below."""

from __future__ import annotations

import sys

from anyarch.errors import HostError
from anyarch.host.context import Context
from anyarch.host.cpu import PAGE
from anyarch.host.mapping import PROT_READ, PROT_WRITE, protect_pages, reserve, unmap_pages

__all__ = ["Stack"]


class Stack:
    """Mapped memory for `context.own_stack`; unmapped with the object.

    Host frames are only a cache of return addresses, so the size bounds how deep guest calls nest
    before the cache is dropped, not how deep a guest may recurse.
    """

    __slots__ = ("_start", "nbytes", "top")
    _exiting = staticmethod(sys.is_finalizing)  # module globals may be gone by then

    def __init__(self, nbytes: int = 1 << 20) -> None:
        self._start = 0
        if nbytes <= 0 or nbytes % PAGE:
            raise HostError(f"stack of {nbytes} bytes: expected a positive multiple of {PAGE}")
        self.nbytes = nbytes
        try:
            self._start = reserve(nbytes + PAGE, PAGE)
            protect_pages(self._start + PAGE, nbytes, PROT_READ | PROT_WRITE)
        except OSError as error:
            raise HostError(f"cannot map a stack of {nbytes} bytes: {error}") from error
        self.top = self._start + PAGE + nbytes

    @property
    def guard(self) -> int:
        """Host pointer of the guard page: a fault in it is an overflow."""
        return self._start

    def attach(self, context: Context) -> None:
        """Let native code entered with `context` run on this stack; keep the stack referenced."""
        context.set("own_stack", self.top)

    def __del__(self) -> None:
        if self._start and not self._exiting():
            unmap_pages(self._start, self.nbytes + PAGE)
            self._start = 0
