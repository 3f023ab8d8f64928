"""Files that only this user writes, where they are, and what was found out from files as long as
they look the same."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from typing import Final

from anyarch.engine.digests import blake2b

_TOUCHED: Final = 3600.0  # seconds for which a file counts as used without being touched again
FINDINGS: Final = "findings"
_MOST: Final = 32  # findings: those of each version of anyarch that is in use, and of its guests
_SETTLED: Final = 2.0  # seconds after a change in which another may leave the times as they are


def cache_path() -> str:
    """The folder of a user's cache: $ANYARCH_CACHE, $XDG_CACHE_HOME/anyarch or ~/.cache/anyarch."""
    if path := os.environ.get("ANYARCH_CACHE"):
        return os.path.abspath(path)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(os.path.abspath(base), "anyarch")


def lock_file(path: str, *, create: bool = True, wait: bool = True) -> int:
    """A descriptor of the file that a path names, locked against all others who lock it; OSError.

    Whoever holds the lock may unlink the file, or put another in its place: then the next one does
    not get the lock of what is gone. Without ``wait`` a lock that is held is a BlockingIOError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held, named = os.fstat(fd), os.stat(path, follow_symlinks=False)
            if (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def open_own(path: str) -> tuple[int, os.stat_result] | None:
    """A descriptor of a file that only this user or root can have written, which counts as a use
    of it; None for a file of others. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        if status.st_uid in (os.geteuid(), 0) and not status.st_mode & 0o022:
            # File systems note the time of an access once a day, or never.
            if time.time() - max(status.st_atime, status.st_mtime) > _TOUCHED:
                with contextlib.suppress(OSError):
                    os.utime(fd)
                    status = os.fstat(fd)
            return fd, status
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def read_own(path: str) -> bytes | None:
    """The contents of a file as :func:`open_own` opens it."""
    found = open_own(path)
    if found is None:
        return None
    fd, status = found
    try:
        return read_all(fd, status.st_size)
    finally:
        os.close(fd)


def read_all(fd: int, nbytes: int) -> bytes:
    """A file of known size, without the file objects of `open`, which cost more than reading."""
    data = os.read(fd, nbytes)
    while len(data) < nbytes and (more := os.read(fd, nbytes - len(data))):
        data += more
    return data


class Stamp:
    """What the file system says of some files, by path; it is another when one has changed."""

    __slots__ = ("is_settled", "text")

    def __init__(self, files: Iterable[tuple[str, os.stat_result]]) -> None:
        newest, lines = 0.0, []
        for path, s in files:
            newest = max(newest, s.st_ctime)
            numbers = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            lines.append(f"{path} {numbers}")
        lines.sort()
        self.text = blake2b("\n".join(lines).encode(), digest_size=32).hexdigest()
        # Whether it will be another after any change from now on.
        self.is_settled = time.time() - newest > _SETTLED


class Findings:
    """What was found out by reading files, which takes ten times as long as looking at what the
    file system says of them: a short text for each stamp, in a file of the cache's folder."""

    __slots__ = ("_known", "_path")

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FINDINGS)
        self._known: dict[str, str] | None = None

    def get(self, stamp: Stamp) -> str | None:
        """What was found out from files with this stamp."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(stamp.text)

    def put(self, stamp: Stamp, finding: str) -> None:
        """Remember a finding, where that is possible. Of two processes that do so at the same time
        one may lose its own."""
        if not stamp.is_settled:
            return
        known = self._known = self._read()
        known[stamp.text] = finding
        lines = [f"{key} {value}\n" for key, value in known.items()][-_MOST:]
        temporary = f"{self._path}.{os.getpid()}.{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            fd = os.open(temporary, flags, 0o600)
            try:
                os.write(fd, "".join(lines).encode())
            finally:
                os.close(fd)
            os.replace(temporary, self._path)

    def _read(self) -> dict[str, str]:
        try:
            text = read_own(self._path) or b""
        except OSError:
            return {}
        pairs = (line.partition(" ") for line in text.decode("ascii", "replace").splitlines())
        return {stamp: finding for stamp, _, finding in pairs}
