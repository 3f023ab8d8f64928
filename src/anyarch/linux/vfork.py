"""What a child of vfork writes reaches its parent, which waits until the child executes or ends.

The child is a copy. Before it goes its own way it compares the memory that such children use (the
stack above the caller, small writable mappings) with what it was given, and sends what it changed:
no byte beside it, because the parent's other threads run on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from anyarch.errors import MemoryFault
from anyarch.host.signals import exchange_action
from anyarch.memory.space import PROT_WRITE, AddressSpace

_STACK_NBYTES: Final = 1 << 16  # of the caller's frames
_REGION_NBYTES: Final = 1 << 18
_TOTAL_NBYTES: Final = 1 << 20
_PAGE: Final = 4096
READ_NBYTES: Final = 1 << 16
_SIGPIPE, _IGNORE = 13, struct.pack("<QQQQ", 1, 0, 0, 0)
_FIRST_DESCRIPTOR: Final = 900  # ours are kept away from the guest's
_RUN: Final = struct.Struct("<QI")  # address and length of changed bytes, which follow


def _read(fd: int) -> bytes:
    return os.read(fd, READ_NBYTES)


class Loan:
    """The memory that a parent lends a child, and the pipe on which it waits for it."""

    __slots__ = ("_kept", "_reading", "_space", "descriptor")

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._kept: list[tuple[int, bytes]] = []
        self._reading, writing = os.pipe()
        try:
            self.descriptor = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
        except OSError:  # a limit below: it stays where it is
            self.descriptor = writing
        else:
            os.close(writing)

    def wait(self, read: Callable[[int], bytes] = _read) -> None:
        """In the parent: until the child has executed a program or ended. ``read`` returns what
        can be read from a descriptor, or raises to give up."""
        self._close_writing()
        changes = b""
        try:
            while data := read(self._reading):
                changes += data
        finally:
            self._close_reading()
        for address, data in _runs(changes):
            with contextlib.suppress(MemoryFault):
                self._space.write(address, data)

    def accept(self, stack_pointer: int) -> None:
        """In the child, before it runs: remember the memory as it is. In the parent another thread
        might change it between that and the fork."""
        self._close_reading()  # the parent's end is not ours
        self._kept = _keep(self._space, stack_pointer)

    def cancel(self) -> None:
        """There is no child, or it is not the calling process."""
        self._close_reading()
        self._close_writing()

    # A process may be forked meanwhile: what it gets of a loan tells the truth.
    def _close_reading(self) -> None:
        with self._space.lock:
            if self._reading >= 0:
                os.close(self._reading)
            self._reading = -1

    def _close_writing(self) -> None:
        with self._space.lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
            self.descriptor = -1

    def send(self) -> None:
        """In the child: tell the parent what has changed; it goes on waiting."""
        for start, before in self._kept:
            try:
                after = self._space.read(start, len(before))
            except MemoryFault:
                continue  # unmapped by the child: nothing that the parent would read
            if after != before:
                _write_all(self.descriptor, b"".join(_differences(start, before, after)))

    def end(self) -> None:
        """In the child: the parent goes on."""
        self._close_writing()


def _keep(space: AddressSpace, stack_pointer: int) -> list[tuple[int, bytes]]:
    kept: list[tuple[int, bytes]] = []
    left = _TOTAL_NBYTES
    for region in space.regions():
        if region.shared or not region.prot & PROT_WRITE:
            continue
        start, end = region.start, region.end
        if start <= stack_pointer < end:
            start = stack_pointer // 8 * 8
            end = min(end, start + _STACK_NBYTES)
        if end - start <= min(_REGION_NBYTES, left):
            with contextlib.suppress(MemoryFault):
                kept.append((start, space.read(start, end - start)))
                left -= end - start
    return kept


def _differences(start: int, before: bytes, after: bytes) -> list[bytes]:
    changes = []
    for page in range(0, len(before), _PAGE):
        old, new = before[page : page + _PAGE], after[page : page + _PAGE]
        if old == new:
            continue
        changed = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        at = 0
        for run in changed.to_bytes(len(new), "little").split(b"\0"):
            if run:
                data = new[at : at + len(run)]
                changes.append(_RUN.pack(start + page + at, len(data)) + data)
            at += len(run) + 1
    return changes


def _runs(changes: bytes) -> Iterator[tuple[int, bytes]]:
    """What the child has sent; it may have died while it did."""
    at = 0
    while at + _RUN.size <= len(changes):
        address, nbytes = _RUN.unpack_from(changes, at)
        at += _RUN.size + nbytes
        if at <= len(changes):
            yield address, changes[at - nbytes : at]


def _write_all(fd: int, data: bytes) -> None:
    """Write, also where the parent is dead: that is nothing that the guest would be told of."""
    action = exchange_action(_SIGPIPE, _IGNORE)
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data) :]
    exchange_action(_SIGPIPE, action)
