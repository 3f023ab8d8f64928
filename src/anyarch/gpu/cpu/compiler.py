"""Native code of kernels: found in the code cache, or compiled by a process of its own.

The process that launches kernels never imports the compiler. Run as a module, this is that process:
requests come on the socket that is its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import struct
import sys
from functools import cache
from hashlib import sha256
from threading import Lock
from typing import Final

from anyarch.emit.blob import Blob
from anyarch.engine.cache import CodeCache, key_for, pack, source_digest, toolchain_key, unpack
from anyarch.errors import CompileError
from anyarch.host.code import NativeCode, load

__all__ = [
    "code_digest",
    "compile_kernel",
    "compile_lines",
    "runtime",
    "sources_key",
    "start_compiler",
]

_SIZE: Final = struct.Struct("<IB")  # size of what follows; optimisation level or, back, success
_WITH_LINES: Final = 128  # added to the level: the line table is asked for in place of the code
_ROW: Final = struct.Struct("<II")


@cache
def sources_key() -> str:
    """A digest of everything that shapes native code of kernels."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parts = ("gpu/ptx", "gpu/cpu", "emit", "host")
    return key_for(source_digest(os.path.join(root, p) for p in parts), toolchain_key())


@cache
def runtime() -> NativeCode:
    """The native code that runs blocks, mapped."""
    cache_ = CodeCache()
    key = key_for("gpu runtime", sources_key())
    blob = cache_.get(key)
    if blob is None:
        blob = _compile_in_subprocess()
        cache_.put(key, blob)
    return load(blob)


def _runtime_blob() -> Blob:
    from anyarch.emit.compile import compile_blob
    from anyarch.gpu.cpu.scheduler import scheduler_text
    from anyarch.host.runtime import runtime_text

    return compile_blob(runtime_text() + scheduler_text())


def _environment() -> dict[str, str]:
    root = os.path.dirname(os.path.abspath(__file__))
    for _ in range(3):
        root = os.path.dirname(root)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return dict(os.environ, PYTHONPATH=path)


def _compile_in_subprocess() -> Blob:
    """The runtime itself; without it no other process can be started our way."""
    import subprocess

    command = [sys.executable, "-P", "-m", "anyarch.gpu.cpu.compiler", "runtime"]
    done = subprocess.run(
        command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    blob = unpack(done.stdout) if done.returncode == 0 else None
    if blob is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise CompileError(f"the kernel runtime could not be compiled: {lines[-1]}")
    return blob


class _Client:
    """The connection to the compiler process, made when first used and after fork."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._owner = 0
        self._lock = Lock()

    def compile(self, text: str, level: int) -> bytes:
        with self._lock:
            for attempt in range(2):
                try:
                    return self._ask(text.encode(), level)
                except (OSError, EOFError, struct.error) as error:
                    self.close()
                    if attempt:
                        raise CompileError(f"the compiler process has ended: {error}") from None
        raise AssertionError

    def start(self) -> None:
        with self._lock, contextlib.suppress(OSError, CompileError):
            self._connect()

    def _ask(self, data: bytes, level: int) -> bytes:
        connection = self._connect()
        connection.sendall(_SIZE.pack(len(data), level) + data)
        nbytes, good = _SIZE.unpack(_receive(connection, _SIZE.size))
        reply = _receive(connection, nbytes)
        if not good:
            raise CompileError(reply.decode(errors="replace"))
        return reply

    def _connect(self) -> socket.socket:
        if self._socket is not None and self._owner == os.getpid():
            return self._socket
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "anyarch.gpu.cpu.compiler"]
            runtime().spawn(command, _environment(), theirs.fileno())
        self._socket, self._owner = ours, os.getpid()
        return ours

    def close(self) -> None:
        """Let the compiler process end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _receive(connection: socket.socket, nbytes: int) -> bytes:
    parts = []
    while nbytes:
        part = connection.recv(min(nbytes, 1 << 20))
        if not part:
            raise EOFError("the connection has ended")
        parts.append(part)
        nbytes -= len(part)
    return b"".join(parts)


_client = _Client()
atexit.register(_client.close)


def start_compiler() -> None:
    """Let the compiler process get ready: its first request comes soon."""
    _client.start()


def compile_kernel(text: str, level: int = 3) -> Blob:
    """Compile LLVM text in the compiler process; CompileError says what is wrong."""
    blob = unpack(_client.compile(text, level))
    if blob is None:
        raise CompileError("what the compiler process sent is damaged")
    return blob


def compile_lines(text: str, level: int = 3) -> tuple[bytes, list[tuple[int, int]]]:
    """The digest of the code of text with debug information, and its rows (offset, line)."""
    reply = _client.compile(text, level + _WITH_LINES)
    return reply[:32], list(_ROW.iter_unpack(reply[32:]))


def code_digest(code: bytes) -> bytes:
    """What tells code from other code."""
    return sha256(code).digest()


def _serve() -> None:
    import llvmlite.binding  # noqa: F401 - slow, and there may be time before the first request

    from anyarch.emit.compile import compile_blob

    connection = socket.socket(fileno=os.dup(0))
    os.chdir("/")
    try:
        while True:
            nbytes, level = _SIZE.unpack(_receive(connection, _SIZE.size))
            text = _receive(connection, nbytes).decode()
            try:
                blob = compile_blob(text, opt=level & ~_WITH_LINES)
                reply, good = pack(blob), 1
                if level & _WITH_LINES:
                    rows = b"".join(_ROW.pack(*row) for row in blob.lines)
                    reply = code_digest(blob.code) + rows
            except CompileError as error:
                reply, good = str(error).encode(), 0
            connection.sendall(_SIZE.pack(len(reply), good) + reply)
    except (OSError, EOFError):
        pass  # the client has gone


if __name__ == "__main__":
    if sys.argv[1:] == ["runtime"]:
        sys.stdout.buffer.write(pack(_runtime_blob()))
    else:
        _serve()
