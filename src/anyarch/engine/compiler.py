"""The compiler, a process of its own: guest code in, compiled regions out.

It is started when something has to be compiled, belongs to no guest (own session, adopted by init,
no descriptor but its socket), and ends with its client or when its memory has grown too large;
the client then starts another. Its death costs only speed. It also keeps in the cache what it has
compiled, so that nothing is lost with a guest that is killed, and collects what is old there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from anyarch.engine.bundle import CompiledRegion, digest_of, pack_lines, unpack
from anyarch.engine.collection import collect_when_due
from anyarch.errors import CompileError, DefinitionError, MemoryFault

if TYPE_CHECKING:
    from anyarch.engine.regions import Region
    from anyarch.engine.store import RegionStore
    from anyarch.host.code import NativeCode

# pc, address of the window, its size, key of the mapping or zeros; then the window.
_REQUEST: Final = struct.Struct("<QQI32s")
# Size of the packed region, 0 for none; microseconds that it took to compile.
_REPLY: Final = struct.Struct("<IQ")
WINDOW: Final = 16384  # guest code on either side of pc that the compiler is shown
MEMORY_LIMIT: Final = 400 << 20  # of the compiler's process, in bytes
_HIGH_DESCRIPTOR: Final = 900
_IDLE: Final = 1.0  # seconds without a request after which there is time for other work
_PATIENCE: Final = 8  # compilers that die before one answers; then there is none to be had


class Client:
    """The connection to a compiler process; made anew when it is gone."""

    def __init__(self, command: list[str], environment: dict[str, str], native: NativeCode) -> None:
        self._command, self._environment, self._native = command, environment, native
        self._socket: socket.socket | None = None
        self._inode = 0
        self._failures = 0  # since the last success
        self._owner = 0
        self.started = 0
        self.seconds = 0.0  # that compilers have worked for us

    def compile(
        self, pc: int, start: int, window: bytes, key: str | None = None
    ) -> CompiledRegion | None:
        """The region at ``pc``, or None; the compiler's death is None as well.

        ``key`` is that of the mapping, under which the compiler keeps the region.
        """
        if self._failures >= _PATIENCE:
            return None
        for _ in range(2):
            try:
                connection = self._connect()
                head = _REQUEST.pack(pc, start, len(window), bytes.fromhex(key or ""))
                connection.sendall(head + window)
                nbytes, microseconds = _REPLY.unpack(_receive(connection, _REPLY.size))
                packed = _receive(connection, nbytes)
                self._failures = 0
                self.seconds += microseconds / 1e6
                return unpack(packed)[0] if packed else None
            except (OSError, struct.error, ValueError):
                self._failures += 1
                self.close()
        return None

    def close(self) -> None:
        """Drop the connection; the compiler ends."""
        found, self._socket = self._socket, None
        if found is not None and self._is_open(found):
            found.close()
        elif found is not None:
            found.detach()

    def _is_open(self, connection: socket.socket) -> bool:
        """Whether the descriptor is still the connection: a guest closes what it likes."""
        try:
            return os.fstat(connection.fileno()).st_ino == self._inode
        except OSError:
            return False

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            if self._owner == os.getpid() and self._is_open(self._socket):
                return self._socket
            self.close()  # a forked child does not talk on its parent's
        ours, theirs = socket.socketpair()
        with theirs:
            self._native.spawn(self._command, self._environment, theirs.fileno())
        self._socket = _raise_descriptor(ours)
        self._inode = os.fstat(self._socket.fileno()).st_ino
        self._owner = os.getpid()
        self.started += 1
        return self._socket


def _raise_descriptor(connection: socket.socket) -> socket.socket:
    """Move the socket out of the way of the guest's descriptors."""
    import fcntl

    try:
        high = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR)
    except OSError:
        return connection
    connection.close()
    return socket.socket(fileno=high)


def _receive(connection: socket.socket, nbytes: int) -> bytes:
    parts = []
    while nbytes:
        part = connection.recv(min(nbytes, 1 << 20))
        if not part:
            raise ConnectionError("the compiler has ended")
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)


def _resident() -> int:
    """Bytes of memory in use. The peak that getrusage tells includes that of who started us."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serve(
    compile_region: Callable[[int, Callable[[int, int], bytes]], CompiledRegion | None],
    store: RegionStore,
) -> None:
    """The compiler's main loop, on the socket that is standard input."""
    for number in range(1, signal.SIGRTMIN):  # as the guest may have left them
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.nice(5)
    os.chdir("/")
    connection = socket.socket(fileno=os.dup(0))
    try:
        while _resident() < MEMORY_LIMIT:
            if not select.select([connection], [], [], _IDLE)[0]:
                collect_when_due(store.cache)
            _serve_one(connection, compile_region, store)
    except (OSError, struct.error):  # the client has gone
        connection.close()
        collect_when_due(store.cache)


def _serve_one(
    connection: socket.socket,
    compile_region: Callable[[int, Callable[[int, int], bytes]], CompiledRegion | None],
    store: RegionStore,
) -> None:
    pc, start, nbytes, raw_key = _REQUEST.unpack(_receive(connection, _REQUEST.size))
    window = _receive(connection, nbytes)
    key = raw_key.hex() if any(raw_key) else None

    def read(address: int, count: int) -> bytes:
        offset = address - start
        if not 0 <= offset <= len(window) - count:
            raise MemoryFault(address, "execute")
        return window[offset : offset + count]

    begun = time.perf_counter_ns()
    # Another process may have had it compiled since the client looked.
    region = store.find(key, pc, read) if key else None
    known = region is not None
    if region is None:
        try:
            region = compile_region(pc, read)
        except (CompileError, DefinitionError):
            region = None
    packed = b"" if region is None else region.pack()
    microseconds = (time.perf_counter_ns() - begun) // 1000
    try:
        connection.sendall(_REPLY.pack(len(packed), microseconds) + packed)
    finally:  # what a guest that has gone was waiting for is kept too
        if key and region is not None and not known:
            store.append(key, [region])


def compile_with(compiler: object) -> Callable[..., CompiledRegion | None]:
    """What :func:`serve` needs, from a RegionCompiler."""
    from anyarch.emit.compile import Blob, compile_blob
    from anyarch.engine.regions import RegionCompiler
    from anyarch.engine.regiontext import RegionEmitter
    from anyarch.host.code import CELL_DISTANCE

    assert isinstance(compiler, RegionCompiler)

    def compile_region(pc: int, read: Callable[[int, int], bytes]) -> CompiledRegion | None:
        region = compiler.discover(pc, read)
        if region is None:
            return None
        emitter, blob = build(region, guarded=False)
        missing = set(range(1, len(emitter.pcs) + 1)) - {line for _, line in blob.lines}
        if missing:  # an access was merged into another
            emitter, blob = build(region, guarded=True)
        ranges = tuple(region.ranges)
        return CompiledRegion(
            pc,
            blob.symbols["region"],
            region.instructions,
            tuple(emitter.cells),
            ranges,
            digest_of(ranges, read),
            blob.code,
            pack_lines(((at, emitter.pcs[line - 1]) for at, line in blob.lines if line), pc),
        )

    def build(region: Region, *, guarded: bool) -> tuple[RegionEmitter, Blob]:
        emitter = RegionEmitter(compiler, region, guarded=guarded)
        return emitter, compile_blob(emitter.text(), places={"cells": CELL_DISTANCE})

    return compile_region
