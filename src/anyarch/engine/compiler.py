"""The compiler, a process of its own: guest code in, compiled regions out.

It is started when something has to be compiled, belongs to no guest (own session, adopted by init,
no descriptor but its socket), and ends with its client or when its memory has grown too large;
the client then starts another. Its death costs only speed. It also keeps in the cache what it has
compiled, so that nothing is lost with a guest that is killed, and collects what is old there.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from anyarch.data import dataclass
from anyarch.engine.bundle import (
    CALLS,
    STUB_NBYTES,
    CompiledRegion,
    digest_of,
    pack_lines,
    pack_traces,
    unpack,
)
from anyarch.errors import CompileError, DefinitionError, MemoryFault

if TYPE_CHECKING:
    import socket

    from anyarch.engine.leftovers import Leftovers
    from anyarch.engine.regions import Region
    from anyarch.engine.store import RegionStore
    from anyarch.host.code import NativeCode

# What a client sends begins with one byte and the size of what follows.
_MESSAGE: Final = struct.Struct("<cI")
_COMPILE, _MEMORY, _LEAVE = b"c", b"m", b"l"
# pc, address of the window, its size, precise and masked (two bits), key of the mapping or zeros,
# size of the hints, of what was visited; then the window, the hints and what was visited.
_REQUEST: Final = struct.Struct("<QQIB32sII")
# A reply with the size of the packed region, 0 for none, and microseconds that it took to compile;
# or, before it, that many bytes of guest memory are needed from an address, or whether they are
# constant: the client answers with the bytes, with a byte or none.
_REPLY: Final = struct.Struct("<cIQ")
_DONE, _READ, _CONSTANT = b"d", b"r", b"c"
WINDOW: Final = 16384  # guest code on either side of pc that the compiler is shown
MEMORY_LIMIT: Final = 400 << 20  # of the compiler's process, in bytes
_HIGH_DESCRIPTOR: Final = 900
_GLANCE: Final = 10  # milliseconds after which who waits for a region sees that the guest has ended
_LEAVING: Final = 0.1  # seconds that a guest that ends waits for its compiler at most
_IDLE: Final = 1.0  # seconds without a request after which there is time for other work
# Of processor time, for what a guest that has ended has left: so many times what the guest took,
# for who had many things to do longer has more to be compiled; but not less and not more than this.
_LEFT_TIMES: Final = 10.0
_LEFT_SECONDS: Final = 30.0, 120.0
_BUILDS: Final = 4  # of a region until all its accesses are in its tables
_LEFT_LOCK: Final = "leftovers"  # held by the one of a cache's compilers that does that
_GARBAGE: Final = 50_000  # objects after which the compiler looks for cycles
_PATIENCE: Final = 8  # compilers that die before one answers; then there is none to be had


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compiled: the region at ``pc``, from the code around it, the window.

    It is kept under ``key``, the mapping's and the form's, if there is one. ``read`` gives other
    memory, for jump tables, MemoryFault where there is none; ``is_constant`` tells what cannot
    change unseen. ``hints`` are values that the registers of the link register's file once had at
    ``pc``, eight bytes each: they may lead to jump tables. ``visited`` has a byte for every other
    address of the window, 0 where the guest was never seen to begin a block; nothing where that is
    unknown. What ``precise`` and ``masked`` ask for RegionEmitter tells.
    """

    pc: int
    start: int
    window: bytes
    read: Callable[[int, int], bytes]
    key: str | None = None
    precise: bool = False
    hints: bytes = b""
    is_constant: Callable[[int, int], bool] = lambda address, nbytes: False
    visited: bytes = b""
    masked: bool = False

    def was_visited(self, pc: int) -> bool:
        """Whether the guest may have been at a pc."""
        offset = pc - self.start >> 1
        return not 0 <= offset < len(self.visited) or self.visited[offset] != 0

    def read_code(self, address: int, nbytes: int) -> bytes:
        """Code in the window; MemoryFault outside."""
        offset = address - self.start
        if not 0 <= offset <= len(self.window) - nbytes:
            raise MemoryFault(address, "execute")
        return self.window[offset : offset + nbytes]


class Client:
    """The connection to a compiler process; made anew when it is gone."""

    def __init__(self, command: list[str], environment: dict[str, str], native: NativeCode) -> None:
        self._command, self._environment, self._native = command, environment, native
        self._socket: socket.socket | None = None
        self._inode = 0
        self._failures = 0  # since the last success
        self._owner = 0
        self._is_ending = False
        self.started = 0
        self.seconds = 0.0  # that compilers have worked for us

    def compile(self, request: Request) -> CompiledRegion | None:
        """The region, or None; the compiler's death is None as well."""
        for _ in range(2):
            if self._failures >= _PATIENCE or self._is_ending:
                return None
            try:
                connection = self._connect()
                head = _REQUEST.pack(
                    request.pc,
                    request.start,
                    len(request.window),
                    request.precise | request.masked << 1,
                    bytes.fromhex(request.key or ""),
                    len(request.hints),
                    len(request.visited),
                )
                body = request.window + request.hints + request.visited
                _send(connection, _COMPILE, head + body)
                kind, nbytes, number = self._reply(connection)
                while kind != _DONE:
                    if kind == _CONSTANT:
                        data = b"y" if request.is_constant(number, nbytes) else b""
                    else:
                        try:
                            data = request.read(number, nbytes)
                        except MemoryFault:
                            data = b""
                    _send(connection, _MEMORY, data)
                    kind, nbytes, number = self._reply(connection)
                packed = _receive(connection, nbytes)
                self._failures = 0
                self.seconds += number / 1e6
                return unpack(packed)[0] if packed else None
            except _Ending:
                return None
            except (OSError, struct.error, ValueError):
                self._failures += 1
                self.close()
        return None

    def _reply(self, connection: socket.socket) -> tuple[bytes, int, int]:
        import select  # here, as the socket's module: short programs have nothing compiled

        ready = select.poll()
        ready.register(connection, select.POLLIN)
        while not ready.poll(_GLANCE):
            if self._is_ending:
                raise _Ending
        kind, nbytes, number = _REPLY.unpack(_receive(connection, _REPLY.size))
        return kind, nbytes, number

    def end(self) -> None:
        """Nothing more is asked for; who waits in :meth:`compile` gets None. From any thread."""
        self._is_ending = True

    @property
    def is_there(self) -> bool:
        """Whether there is a compiler that something may be left to."""
        connection = self._socket
        return connection is not None and self._owner == os.getpid() and self._is_open(connection)

    def leave(self, leftovers: Leftovers) -> None:
        """The compiler, if there is one, goes on with these when its client has gone."""
        connection = self._socket
        if connection is not None and self.is_there:
            with contextlib.suppress(OSError):
                connection.settimeout(_LEAVING)  # it may be in the middle of something
                _send(connection, _LEAVE, leftovers.pack())

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
        import socket

        ours, theirs = socket.socketpair()
        with theirs:
            self._native.spawn(self._command, self._environment, theirs.fileno())
        self._socket = _raise_descriptor(ours)
        self._inode = os.fstat(self._socket.fileno()).st_ino
        self._owner = os.getpid()
        self.started += 1
        return self._socket


class _Ending(Exception):
    """The guest has ended before the compiler answered."""


def _raise_descriptor(connection: socket.socket) -> socket.socket:
    """Move the socket out of the way of the guest's descriptors."""
    import fcntl
    import socket

    try:
        high = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH_DESCRIPTOR)
    except OSError:
        return connection
    connection.close()
    return socket.socket(fileno=high)


def _send(connection: socket.socket, kind: bytes, data: bytes) -> None:
    connection.sendall(_MESSAGE.pack(kind, len(data)) + data)


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
    compile_region: Callable[[Request], CompiledRegion | None],
    store: RegionStore,
) -> None:
    """The compiler's main loop, on the socket that is standard input."""
    import gc
    import select
    import signal
    import socket

    from anyarch.engine.collection import collect_when_due  # only here: guests load this module

    for number in range(1, signal.SIGRTMIN):  # as the guest may have left them
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a client that has gone is an error like others
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.nice(5)
    os.chdir("/")
    gc.freeze()  # what is imported stays
    gc.set_threshold(_GARBAGE)
    service = _Service(socket.socket(fileno=os.dup(0)), compile_region, store)
    try:
        while _resident() < MEMORY_LIMIT:
            if not select.select([service.connection], [], [], _IDLE)[0]:
                collect_when_due(store.cache)
            service.serve_one()
    except (OSError, struct.error):  # the client has gone
        service.finish()
        collect_when_due(store.cache)


class _Service:
    """The compiler's end of a connection."""

    def __init__(
        self,
        connection: socket.socket,
        compile_region: Callable[[Request], CompiledRegion | None],
        store: RegionStore,
    ) -> None:
        self.connection, self._compile, self._store = connection, compile_region, store
        self._left = b""  # what the client has left to be done, packed

    def _receive(self) -> tuple[bytes, bytes]:
        """The next message, other than what is left."""
        while True:
            kind, nbytes = _MESSAGE.unpack(_receive(self.connection, _MESSAGE.size))
            data = _receive(self.connection, nbytes)
            if kind != _LEAVE:
                return kind, data
            self._left = data

    def serve_one(self) -> None:
        """Answer one request."""
        _, data = self._receive()
        pc, start, nbytes, form, raw_key, *sizes = _REQUEST.unpack_from(data)
        parts, at = [], _REQUEST.size
        for size in (nbytes, *sizes):
            parts.append(data[at : at + size])
            at += size
        window, hints, visited = parts

        def read(address: int, count: int) -> bytes:
            if start <= address <= start + nbytes - count:
                return window[address - start : address - start + count]
            self.connection.sendall(_REPLY.pack(_READ, count, address))
            _, received = self._receive()
            if len(received) < count:
                raise MemoryFault(address, "read")
            return received

        def is_constant(address: int, count: int) -> bool:
            self.connection.sendall(_REPLY.pack(_CONSTANT, count, address))
            return bool(self._receive()[1])

        key = raw_key.hex() if any(raw_key) else None
        precise, masked = bool(form & 1), bool(form & 2)
        request = Request(
            pc, start, window, read, key, precise, hints, is_constant, visited, masked
        )
        begun = time.perf_counter_ns()
        region, known = self._find(request)
        packed = b"" if region is None else region.pack()
        microseconds = (time.perf_counter_ns() - begun) // 1000
        try:
            self.connection.sendall(_REPLY.pack(_DONE, len(packed), microseconds) + packed)
        finally:  # what a guest that has gone was waiting for is kept too
            if key and region is not None and not known:
                self._store.append(key, [region])

    def _find(self, request: Request) -> tuple[CompiledRegion | None, bool]:
        """The region that was asked for, and whether the store has it: another process may have had
        it compiled since the client looked."""
        if request.key:
            known = self._store.find(request.key, request.pc, request.read_code)
            if known is not None and _is_for(known, request):
                return known, True
        try:
            return self._compile(request), False
        except (CompileError, DefinitionError):
            return None, False

    def finish(self) -> None:
        """Compile what the client has left, for a while."""
        with contextlib.suppress(OSError, struct.error):
            while True:
                self._receive()
        self.connection.close()
        if not self._left:
            return
        from anyarch.engine.cache import lock_file
        from anyarch.engine.leftovers import Leftovers
        from anyarch.host.priority import stand_back

        try:
            self._store.cache.make_directory()
            lock = lock_file(os.path.join(self._store.cache.path, _LEFT_LOCK), wait=False)
        except OSError:  # another goes on for a guest of its own: one at a time is enough
            return
        stand_back()
        left = Leftovers.unpack(self._left)
        least, most = _LEFT_SECONDS
        until = time.process_time() + min(max(least, _LEFT_TIMES * left.seconds), most)
        requests, region = left.requests(), None
        with contextlib.suppress(StopIteration):
            while time.process_time() < until and _resident() < MEMORY_LIMIT:
                request, ahead = requests.send(region)
                region, known = self._find(request)
                if region is not None and request.key and not known:
                    self._store.append(request.key, [region], ahead=ahead)
        os.close(lock)


def _is_for(region: CompiledRegion, request: Request) -> bool:
    """Whether a region whose code is there has the tables and the form that were asked for."""
    try:
        return region.precise >= request.precise and all(
            request.is_constant(at, len(data)) and request.read(at, len(data)) == data
            for at, data in region.tables
        )
    except MemoryFault:
        return False


class RegionMaker(Protocol):
    """Compiles the region that is asked for, or one that was discovered already; None where there
    is none. Raises CompileError."""

    def __call__(self, request: Request, region: Region | None = None) -> CompiledRegion | None: ...


def compile_with(compiler: object) -> RegionMaker:
    """What :func:`serve` needs, from a RegionCompiler."""
    from anyarch.emit.blob import Blob
    from anyarch.emit.compile import compile_blob, skip_scheduling
    from anyarch.engine.regions import RegionCompiler
    from anyarch.engine.regiontext import RegionEmitter
    from anyarch.engine.tracing import trace
    from anyarch.host.code import CELL_DISTANCE
    from anyarch.host.stack import STACK_NBYTES
    from anyarch.host.x86_64 import call_stub

    assert isinstance(compiler, RegionCompiler)
    skip_scheduling()

    def compile_region(request: Request, region: Region | None = None) -> CompiledRegion | None:
        pc = request.pc
        region = region or compiler.discover(
            pc,
            request.read_code,
            request.read,
            request.hints,
            request.is_constant,
            request.was_visited,
        )
        if region is None:
            return None
        guarded: set[int] = set()
        held: set[int] = set()
        untraced: set[int] = set()
        for left in reversed(range(_BUILDS)):
            emitter, blob = build(region, request, guarded, held, untraced)
            places = {(line - 1) // 2 for _, line in blob.lines}
            missing = {pc for place, pc in enumerate(emitter.pcs) if place not in places}
            traces, lost = trace(emitter, blob)
            if missing <= guarded and lost <= untraced:
                break
            guarded |= missing  # accesses that were merged into something else
            # Where LLVM does not say where registers are, not even of those that it was to hold.
            untraced |= lost & held if left > 1 else set(emitter.pcs)
            held |= lost
        ranges = tuple(region.ranges)
        return CompiledRegion(
            pc,
            blob.symbols["region"],
            region.instructions,
            tuple(emitter.cells),
            ranges,
            digest_of(ranges, request.read_code),
            blob.code.ljust(-(-len(blob.code) // 16) * 16) + stubs(emitter.cells),
            pack_lines(((at, emitter.pc_of(line)) for at, line in blob.lines if line), pc),
            request.precise,
            tuple(region.tables),
            pack_traces(traces),
        )

    def stubs(cells: list[int]) -> bytes:
        helpers = ("region_call" if cell & CALLS else "region_goto" for cell in cells)
        made = (
            call_stub(cell & ~CALLS, helper, STACK_NBYTES)
            for cell, helper in zip(cells, helpers, strict=True)
        )
        return b"".join(stub.ljust(STUB_NBYTES) for stub in made)

    def build(
        region: Region, request: Request, guarded: set[int], held: set[int], untraced: set[int]
    ) -> tuple[RegionEmitter, Blob]:
        emitter = RegionEmitter(
            compiler,
            region,
            precise=request.precise,
            masked=request.masked,
            guarded=guarded,
            held=held,
            untraced=untraced,
        )
        return emitter, compile_blob(emitter.text(), places={"cells": CELL_DISTANCE})

    return compile_region
