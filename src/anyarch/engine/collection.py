"""Keeping the cache within a size: the least recently used entries go, and what crashes left.

One process collects at a time; all others read and write meanwhile. Removing a file takes nothing
from those who have it open, and who appends to it holds its lock, which a collector needs too.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Final

from anyarch.data import dataclass
from anyarch.engine.cache import KINDS, LOCK, REGIONS, CodeCache, Entry, lock_file
from anyarch.engine.ownfiles import FINDINGS
from anyarch.engine.store import verify_regions
from anyarch.errors import Error

DEFAULT_LIMIT: Final = 2 << 30
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_INTERVAL: Final = 600.0  # seconds between collections that nobody asked for
_ABANDONED: Final = 3600.0  # age in seconds of a temporary file whose writer is taken for dead
_ROOM: Final = 8  # a collection leaves a limit's eighth free, so that the next is not due at once
_STAMP: Final = "collection"  # its lock is held while collecting, its time is that of the last one
_TEMPORARY: Final = re.compile(r"([0-9A-Za-z]+\.(blob|regions)|findings)\.\d+\.[0-9a-f]{8}")
_LOCKS: Final = re.compile(r"[0-9A-Za-z]+\.blob\.lock")


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did: files and bytes that went, bytes that are left."""

    removed: int
    freed: int
    left: int


def parse_size(text: str) -> int:
    """Bytes from text such as ``500M`` or ``2G``; ValueError.

    >>> parse_size("64k"), parse_size("1.5 GiB")
    (65536, 1610612736)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r}: expected a size such as 500M or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


def cache_limit() -> int:
    """The cache's limit in bytes: $ANYARCH_CACHE_LIMIT, or 2 GiB."""
    text = os.environ.get("ANYARCH_CACHE_LIMIT")
    if not text:
        return DEFAULT_LIMIT
    try:
        return parse_size(text)
    except ValueError as error:
        raise Error(f"ANYARCH_CACHE_LIMIT: {error}") from None


def collect(cache: CodeCache, limit: int, *, wait: bool = True) -> Collected | None:
    """Remove the least recently used entries until the cache is within ``limit`` bytes, and what
    writers left that were killed. None where another process collects and ``wait`` is false, or
    where there is no cache."""
    try:
        lock = lock_file(os.path.join(cache.path, _STAMP), wait=wait)
    except OSError:
        return None
    try:
        os.utime(lock)  # first: a collector that dies is not followed by another at once
        freed = _sweep(cache)
        removed = 0
        entries = sorted(cache.entries(), key=lambda entry: entry.used)
        left = sum(entry.nbytes for entry in entries)
        if left > limit:
            for entry in entries:
                if left <= limit - limit // _ROOM:
                    break
                if _remove(cache, entry):
                    removed += 1
                    freed += entry.nbytes
                    left -= entry.nbytes
        return Collected(removed, freed, left)
    finally:
        os.close(lock)


def collect_when_due(cache: CodeCache) -> Collected | None:
    """Collect if nobody has done so for a while."""
    try:
        age = time.time() - os.stat(os.path.join(cache.path, _STAMP)).st_mtime
    except OSError:
        age = _INTERVAL
    if 0 <= age < _INTERVAL:
        return None
    try:
        limit = cache_limit()
    except Error:  # told to who asks for a command
        return None
    return collect(cache, limit, wait=False)


def _remove(cache: CodeCache, entry: Entry) -> bool:
    """Remove an entry, unless it was used since it was listed or is being written."""
    path = cache.path_of(entry.key, entry.kind)
    try:
        status = os.stat(path, follow_symlinks=False)
        if max(status.st_atime, status.st_mtime) > entry.used:
            return False
        if entry.kind != REGIONS:
            os.unlink(path)
            return True
        lock = lock_file(path, create=False, wait=False)
        try:
            os.unlink(path)
        finally:
            os.close(lock)
    except OSError:
        return False
    return True


def _sweep(cache: CodeCache) -> int:
    """Remove what killed processes left; the bytes freed."""
    freed = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(cache.path):
            path = os.path.join(cache.path, name)
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                if time.time() - status.st_mtime < _ABANDONED:
                    continue
                if _TEMPORARY.fullmatch(name):
                    os.unlink(path)
                    freed += status.st_size
                elif _LOCKS.fullmatch(name):
                    lock = lock_file(path, create=False, wait=False)
                    os.unlink(path)
                    os.close(lock)
    return freed


def verify(cache: CodeCache) -> Iterator[tuple[Entry, int]]:
    """Read every entry, and tell how much of it was damaged: a blob is deleted then, of a file of
    regions the damaged ones."""
    for entry in list(cache.entries()):
        path = cache.path_of(entry.key, entry.kind)
        damaged = 0
        if entry.kind == REGIONS:
            with contextlib.suppress(OSError):  # collected meanwhile
                damaged = verify_regions(path)
        elif os.path.lexists(path):
            damaged = int(cache.get(entry.key) is None)
        yield entry, damaged


def clear(cache: CodeCache) -> int:
    """Delete every entry, and what killed writers left; the bytes freed."""
    freed = 0
    try:
        names = os.listdir(cache.path)
    except OSError:
        return 0
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == LOCK:
            stem, suffix = os.path.splitext(stem)
        is_entry = suffix in KINDS and stem.isalnum()
        if is_entry or name == FINDINGS or _TEMPORARY.fullmatch(name):
            path = os.path.join(cache.path, name)
            with contextlib.suppress(OSError):
                nbytes = os.lstat(path).st_size
                os.unlink(path)
                freed += nbytes
    return freed
