"""The code cache: native code that was compiled is kept, under a key that says from what.

A blob is a file, written under another name and renamed, so that it is whole or absent; its
contents are checked on every read. The regions of a mapping are a file that grows
(``engine.store``); ``engine.collection`` bounds the size of all. A cache that cannot be used only
costs speed. What runs a guest imports this module, so it imports nothing that is slow.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from anyarch.data import dataclass
from anyarch.emit.blob import Blob
from anyarch.engine.digests import blake2b
from anyarch.engine.ownfiles import (
    Findings,
    Stamp,
    cache_path,
    lock_file,
    open_own,
    read_all,
    read_own,
)
from anyarch.host.cpu import PAGE, identity

__all__ = [
    "BLOB",
    "KINDS",
    "LOCK",
    "REGIONS",
    "CodeCache",
    "Entry",
    "key_for",
    "lock_file",
    "pack",
    "read_own",
    "source_digest",
    "toolchain_key",
    "unpack",
]

# magic and version, position of the code, bytes of code, of the offset table, of the names;
# then SHA-256 of everything else.
_HEADER: Final = struct.Struct("<8sIIII32s")
_DIGEST_NBYTES: Final = 32
_MAGIC: Final = b"anyarch\x02"
BLOB: Final = ".blob"
REGIONS: Final = ".regions"
KINDS: Final = (BLOB, REGIONS)
LOCK: Final = ".lock"
_MAX_NBYTES: Final = (1 << 32) - 1


class Entry(NamedTuple):
    """A file of the cache: its key, size, time of last use in seconds, and suffix."""

    key: str
    nbytes: int
    used: float
    kind: str  # one of KINDS


@dataclass(frozen=True, slots=True)
class BlobFile:
    """A blob in an open file, which is the receiver's to close."""

    fd: int
    position: int
    nbytes: int
    symbols: dict[str, int]


class CodeCache:
    """Blobs on disk, shared by all processes of a user.

    The directory is `path`, by default what :func:`cache_path` says.
    """

    __slots__ = ("findings", "path")

    def __init__(self, path: str | None = None) -> None:
        self.path = os.path.abspath(path) if path else cache_path()
        self.findings = Findings(self.path)

    def open(self, key: str) -> BlobFile | None:
        """The file of a blob, to be mapped in place; None as :meth:`get`. Its contents are checked
        when it has changed since they last were."""
        path = self._file(key)
        try:
            opened = open_own(path)
            if opened is None:
                return None
            fd, status = opened
            try:
                stamp = Stamp([(key, status)])
                if self.findings.get(stamp) is None:
                    if unpack(read_all(fd, status.st_size)) is None:
                        self._delete(path)
                        os.close(fd)
                        return None
                    self.findings.put(stamp, "whole")
                return _open_blob(fd)
            except BaseException:
                os.close(fd)
                raise
        except OSError:
            return None

    def get(self, key: str) -> Blob | None:
        """The blob of a key, or None; a damaged file is deleted, one of another user ignored."""
        path = self._file(key)
        try:
            data = read_own(path)
        except OSError:
            return None
        if data is None:
            return None
        blob = unpack(data)
        if blob is None:
            self._delete(path)
            return None
        blob.path = path
        return blob

    def put(self, key: str, blob: Blob) -> bool:
        """Store a blob; False if the directory cannot be written."""
        path = self._file(key)
        temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            self.make_directory()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(temporary, flags, 0o600)
            try:
                with open(fd, "wb") as file:
                    position = file.write(pack(blob)) - len(blob.code)
                os.replace(temporary, path)
            except BaseException:
                self._delete(temporary)
                raise
        except OSError:
            return False
        blob.path, blob.position = path, position
        return True

    def build_once(self, key: str, builder: Callable[[], Blob]) -> Blob:
        """The cached blob, or what `builder` returns, stored.

        Of several processes and threads that need the same key one builds; the others wait for
        it, and build in turn if it failed.
        """
        blob = self.get(key)
        if blob is not None:
            return blob
        try:
            self.make_directory()
            lock = lock_file(self._file(key) + LOCK)
        except OSError:
            lock = -1  # the directory cannot be written
        try:
            blob = self.get(key) if lock >= 0 else None
            if blob is None:
                blob = builder()
                self.put(key, blob)
            return blob
        finally:
            if lock >= 0:
                self._delete(self._file(key) + LOCK)
                # Not by closing alone: a child forked meanwhile holds the same open file.
                fcntl.flock(lock, fcntl.LOCK_UN)
                os.close(lock)

    def entries(self) -> Iterator[Entry]:
        """Every file of code in the cache, in no particular order."""
        try:
            directory = os.scandir(self.path)
        except OSError:
            return
        with directory:
            for item in directory:
                key, kind = os.path.splitext(item.name)
                if kind in KINDS:
                    try:
                        status = item.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    used = max(status.st_atime, status.st_mtime)
                    yield Entry(key, status.st_size, used, kind)

    @property
    def nbytes(self) -> int:
        """Bytes of all cached code."""
        return sum(entry.nbytes for entry in self.entries())

    def path_of(self, key: str, kind: str) -> str:
        """The file of an entry; ValueError for what :func:`key_for` cannot have made."""
        if not key.isalnum() or not key.isascii():
            raise ValueError(f"cache key {key!r}: expected letters and digits, as key_for returns")
        return os.path.join(self.path, key + kind)

    def _file(self, key: str) -> str:
        return self.path_of(key, BLOB)

    def make_directory(self) -> None:
        """Create the cache's directory, for this user alone, where it is missing."""
        if not os.path.isdir(self.path):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)

    def _delete(self, path: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def pack(blob: Blob) -> bytes:
    """The file: header, offsets, names, zeros to the next page, code."""
    names = "\n".join(blob.symbols).encode()
    offsets = struct.pack(f"<{len(blob.symbols)}I", *blob.symbols.values())
    start = _HEADER.size + len(offsets) + len(names)
    position = (start + PAGE - 1) // PAGE * PAGE
    if len(blob.code) > _MAX_NBYTES:
        raise OSError("blob too large for the cache")
    body = b"".join((offsets, names, bytes(position - start), blob.code))  # code starts a page
    sizes = (position, len(blob.code), len(offsets), len(names))
    head = _HEADER.pack(_MAGIC, *sizes, b"")[:-_DIGEST_NBYTES]
    return head + _digest(head, body) + body


def _digest(head: bytes, body: bytes | memoryview) -> bytes:
    import hashlib  # only here: it takes longer than a key does, but less for a long text

    state = hashlib.sha256(head)
    state.update(body)
    return state.digest()


def unpack(data: bytes) -> Blob | None:
    """The blob in a file's contents, or None if anything about it is wrong."""
    if len(data) < _HEADER.size:
        return None
    magic, position, nbytes, offsets_nbytes, names_nbytes, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC or len(data) != position + nbytes:
        return None
    body = memoryview(data)[_HEADER.size :]
    if _digest(data[: _HEADER.size - _DIGEST_NBYTES], body) != digest:
        return None
    return Blob(data[position:], _symbols(body, offsets_nbytes, names_nbytes), position=position)


def _open_blob(fd: int) -> BlobFile:
    """A file's blob, of which the contents were checked before."""
    _, position, nbytes, offsets_nbytes, names_nbytes, _ = _HEADER.unpack(
        os.pread(fd, _HEADER.size, 0)
    )
    table = os.pread(fd, offsets_nbytes + names_nbytes, _HEADER.size)
    return BlobFile(fd, position, nbytes, _symbols(table, offsets_nbytes, names_nbytes))


def _symbols(table: bytes | memoryview, offsets_nbytes: int, names_nbytes: int) -> dict[str, int]:
    offsets = struct.unpack_from(f"<{offsets_nbytes // 4}I", table)
    names = bytes(table[offsets_nbytes : offsets_nbytes + names_nbytes]).decode()
    return dict(zip(names.split("\n") if names else (), offsets, strict=True))


def key_for(*parts: str | bytes | int) -> str:
    """A cache key: the same for the same parts, different for any others."""
    state = blake2b(digest_size=32)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def source_digest(places: Iterable[str], known: Findings | None = None) -> str:
    """Digest of the Python sources in some files and package directories, those below them
    included; of sources that look as before it is in ``known``."""
    files = [(place, path) for place in places for path in sorted(_sources(place))]
    stamp = None
    if known is not None:
        stamp = Stamp((path, os.stat(path)) for _, path in files)
        if found := known.get(stamp):
            return found
    import hashlib

    state = hashlib.sha256()
    for place, path in files:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        state.update((path[len(place) :] or os.path.basename(path)).encode())
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    if known is not None and stamp is not None:
        known.put(stamp, state.hexdigest())
    return state.hexdigest()


def _sources(place: str) -> Iterator[str]:
    if place.endswith(".py"):
        yield place
        return
    with os.scandir(place) as items:
        for item in items:
            if item.name.endswith(".py"):
                yield item.path
            elif item.name != "__pycache__" and item.is_dir():
                yield from _sources(item.path)


def toolchain_key() -> str:
    """What compiles native code and for which processor, without importing the compiler."""
    return f"llvmlite {_llvmlite_version()};cpu {identity()}"


def _llvmlite_version() -> str:
    """From the name of the installed distribution; importing llvmlite takes 0.1 s."""
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith("llvmlite-") and name.endswith((".dist-info", ".egg-info")):
                return name.removesuffix("-info").rpartition(".")[0].split("-")[1]
    return "unknown"
