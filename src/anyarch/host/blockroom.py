"""Room for the code of blocks, which native code writes itself: written through one mapping, run
through another, so that no memory is writable and executable at once.

A forked child runs what its parent had written there, and neither writes where the other could
come: the child takes room of its own, the parent goes on behind what there was, and begins anew in
other memory.
"""

from __future__ import annotations

from anyarch.errors import HostError
from anyarch.host.code import BLOCK_ROOM_NBYTES, code_arena
from anyarch.host.mapping import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    map_pages,
    map_twice,
    unmap_pages,
)


class BlockRoom:
    """A part of the code arena, from ``start`` to ``end``; what is written ``distance`` behind an
    address is run there. HostError where there is none to be had."""

    __slots__ = ("_forks", "distance", "end", "start")

    def __init__(self) -> None:
        start = code_arena().block_rooms.take(BLOCK_ROOM_NBYTES)
        if start is None:
            raise HostError("the room for code of blocks is used up")
        self.start, self.end, self.distance = start, start + BLOCK_ROOM_NBYTES, 0
        try:
            self._map()
        except OSError as error:
            self.close()
            raise HostError(f"cannot map room for code of blocks: {error}") from error

    def renew(self) -> bool:
        """Nothing here is run any more in this process: have memory that no other process runs.
        Where that cannot be, the room is closed, and False."""
        if self._forks != code_arena().forks:
            try:
                self._map()
            except OSError:
                self.close()
                return False
        return True

    def close(self) -> None:
        """Give the room back: nothing there is run any more."""
        self.seal()
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
        map_pages(BLOCK_ROOM_NBYTES, PROT_NONE, pointer=self.start, flags=flags)
        code_arena().block_rooms.give(self.start, BLOCK_ROOM_NBYTES)

    def seal(self) -> None:
        """Write here no more; what is here can be run."""
        if self.distance:
            unmap_pages(self.start + self.distance, BLOCK_ROOM_NBYTES)
            self.distance = 0

    def _map(self) -> None:
        self.seal()
        self.distance = map_twice(BLOCK_ROOM_NBYTES, self.start) - self.start
        self._forks = code_arena().forks
