"""Regions on disk: for each executable mapping a file that only grows, shared by all processes.

A header says how far the file is whole. A writer holds the file's lock, writes behind that place,
and moves it last: killed at any point it leaves what was there before. Readers take no lock; each
record carries a checksum, for what the disk or a crash of the machine damages. Only compilers write
(``engine.compiler``): a guest's process may fork, die, or close descriptors at any instant.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from anyarch.engine.bundle import CompiledRegion, digest_of, unpack
from anyarch.engine.cache import REGIONS, CodeCache, key_for, lock_file, read_own
from anyarch.errors import Error, MemoryFault
from anyarch.memory.regions import Region

__all__ = ["Bundle", "BundleFile", "RegionStore", "verify_regions", "write_bundle"]

_MAGIC: Final = b"anyarch\x12"
# Magic, end of the last whole record, what tells the file from others that had its name.
_HEADER: Final = struct.Struct("<8sQ16s32x")
# Checksum of all that follows, pc, bytes of the region, whether it was compiled ahead of time.
_RECORD: Final = struct.Struct("<IQII")
_CHECKSUM_NBYTES: Final = 4
_WRITE: Final = 2  # PROT_WRITE

_BUNDLE_MAGIC: Final = b"anyarch\x22"
_BUNDLE: Final = struct.Struct("<8sI52x")  # magic, number of sections
_SECTION: Final = struct.Struct("<32sQQ")  # key, position, bytes


class RegionStore:
    """The regions in a cache, and before them those in bundles that were given.

    ``native`` is the key of the interpreter: definitions, compiler, processor. ``files`` says that
    only regions of mapped files are kept: what a program generates differs in its next run.
    """

    def __init__(
        self,
        cache: CodeCache,
        native: str = "",
        bundles: Iterable[BundleFile] = (),
        *,
        files: bool = False,
    ) -> None:
        self.cache, self.native, self.files = cache, native, files
        self.bundles = tuple(bundles)
        self._indices: dict[str, _Index] = {}

    def key_of(self, mapping: Region, first_page: bytes) -> str | None:
        """The key of the regions in an executable mapping; None where none are kept.

        Of the mapping's contents only the first page is in the key: each region has a digest of
        the code that it was made from.
        """
        if self.files and (mapping.prot & _WRITE or not mapping.file):
            return None
        return key_for("regions", self.native, mapping.start, first_page)

    def variant(self, name: str) -> RegionStore:
        """The same cache's regions of another form."""
        native = f"{self.native} {name}"
        return RegionStore(self.cache, native, self.bundles, files=self.files)

    def load(self, key: str) -> Bundle:
        """All that there is for a mapping."""
        found = Bundle()
        for bundle in self.bundles:
            found.add(bundle.section(key))
        with contextlib.suppress(OSError):
            found.add(read_own(self.cache.path_of(key, REGIONS)) or b"")
        return found

    def find(self, key: str, pc: int, read: Callable[[int, int], bytes]) -> CompiledRegion | None:
        """The region at a pc that somebody has kept and that applies to the code there."""
        with contextlib.suppress(OSError):
            path = self.cache.path_of(key, REGIONS)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                index = self._index(key, fd)
                for position, nbytes in reversed(index.places.get(pc, ())):
                    region = _region(os.pread(fd, nbytes, position))
                    if region is not None and _applies(region, read):
                        return region
            finally:
                os.close(fd)
        return None

    def append(self, key: str, regions: Iterable[CompiledRegion], *, ahead: bool = False) -> bool:
        """Keep regions, compiled ``ahead`` of time or because they are hot; False where that is
        impossible. Those that are there already are left, and precise ones stand for both."""
        path = self.cache.path_of(key, REGIONS)
        try:
            self.cache.make_directory()
            fd = lock_file(path)
        except OSError:
            return False
        try:
            index = self._index(key, fd)
            records = b"".join(
                _record(region, ahead) for region in regions if not index.has(fd, region)
            )
            if records:
                _write(fd, index.end, records)
                _write(fd, 0, _header(index.end + len(records), index.identity))
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _index(self, key: str, fd: int) -> _Index:
        """What the open file holds; only what is new since the last time is read."""
        identity, end = _open_header(os.pread(fd, _HEADER.size, 0), os.fstat(fd).st_size)
        index = self._indices.get(key)
        if index is None or index.identity != identity or end < index.end:
            index = self._indices[key] = _Index(identity or os.urandom(16))
        index.add(os.pread(fd, end - index.end, index.end))
        return index


class Bundle:
    """The regions of a mapping, in memory: read where they are asked for, for they may be many."""

    def __init__(self) -> None:
        self._hot: list[memoryview] = []
        self._records: dict[int, list[memoryview]] = {}
        self._made: dict[int, CompiledRegion] = {}

    def add(self, data: bytes) -> None:
        """Note the regions in a file's contents."""
        _, end = _open_header(data[: _HEADER.size], len(data))
        view = memoryview(data)[:end]
        for pc, at, nbytes in _walk(view, _HEADER.size):
            record = view[at : at + nbytes]
            self._records.setdefault(pc, []).append(record)
            if not _RECORD.unpack_from(record)[3]:  # not ahead of time
                self._hot.append(record)

    def keep(self, region: CompiledRegion) -> None:
        """Note a region that was made now."""
        self._made[region.pc] = region

    @property
    def pcs(self) -> Iterable[int]:
        """Where regions begin, those apart that were made now."""
        return self._records.keys()

    @property
    def hot(self) -> Iterator[CompiledRegion]:
        """The undamaged ones that were compiled because time was spent there."""
        return filter(None, map(_region, self._hot))

    def at(self, pc: int) -> Iterator[CompiledRegion]:
        """The undamaged ones at a pc, the latest first."""
        if pc in self._made:
            yield self._made[pc]
        yield from filter(None, map(_region, reversed(self._records.get(pc, []))))

    def __iter__(self) -> Iterator[CompiledRegion]:
        """All undamaged ones, in the order in which they were kept."""
        for records in self._records.values():
            yield from filter(None, map(_region, records))
        yield from self._made.values()


class _Index:
    """Where the regions of a file are."""

    __slots__ = ("end", "identity", "places")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.end = _HEADER.size  # of the last record that is whole
        self.places: dict[int, list[tuple[int, int]]] = {}

    def add(self, data: bytes) -> None:
        """Note the records in what follows ``end``."""
        start = self.end
        for pc, at, nbytes in _walk(data, 0):
            self.places.setdefault(pc, []).append((start + at, nbytes))
            self.end = start + at + nbytes

    def has(self, fd: int, region: CompiledRegion) -> bool:
        """Whether the file has a region for the same pc and code, precise if it is."""
        for position, nbytes in self.places.get(region.pc, ()):
            other = _region(os.pread(fd, nbytes, position))
            if other is None or other.precise < region.precise:
                continue
            if _source(other) == _source(region):
                return True
        return False


def _source(region: CompiledRegion) -> object:
    return region.ranges, region.digest, region.tables


def _header(end: int, identity: bytes = b"") -> bytes:
    return _HEADER.pack(_MAGIC, end, identity or os.urandom(16))


def _open_header(header: bytes, nbytes: int) -> tuple[bytes, int]:
    """The identity of a file of some size, and how far it is whole; nothing if it is damaged."""
    if len(header) == _HEADER.size:
        magic, end, identity = _HEADER.unpack(header)
        if magic == _MAGIC and end >= _HEADER.size:
            return identity, min(end, nbytes)  # it may have grown since its size was asked for
    return b"", _HEADER.size


def _walk(data: bytes | memoryview, at: int) -> Iterator[tuple[int, int, int]]:
    """The records in ``data``: pc, position, bytes; up to the first that cannot be one."""
    while at + _RECORD.size <= len(data):
        _, pc, nbytes, _ = _RECORD.unpack_from(data, at)
        nbytes += _RECORD.size
        if nbytes == _RECORD.size or at + nbytes > len(data):
            return
        yield pc, at, nbytes
        at += nbytes


def _checksum(data: bytes | memoryview) -> int:
    """For accidents, as of a disk, in a third of the time that a digest takes."""
    from zlib import crc32  # only here: runs without regions do without

    return crc32(data)


def _record(region: CompiledRegion, ahead: bool) -> bytes:
    packed = region.pack()
    checked = _RECORD.pack(0, region.pc, len(packed), ahead)[_CHECKSUM_NBYTES:] + packed
    return _checksum(checked).to_bytes(_CHECKSUM_NBYTES, "little") + checked


def _region(record: bytes | memoryview) -> CompiledRegion | None:
    """The region in a record, or None where it is damaged."""
    if len(record) <= _RECORD.size:
        return None
    if _checksum(memoryview(record)[_CHECKSUM_NBYTES:]) != _RECORD.unpack_from(record)[0]:
        return None
    try:
        (region,) = unpack(bytes(record[_RECORD.size :]))
    except (ValueError, struct.error):
        return None
    return region


def _applies(region: CompiledRegion, read: Callable[[int, int], bytes]) -> bool:
    try:
        return digest_of(region.ranges, read) == region.digest
    except MemoryFault:
        return False


def _write(fd: int, position: int, data: bytes) -> None:
    while data:
        count = os.pwrite(fd, data, position)
        position, data = position + count, data[count:]


def verify_regions(path: str) -> int:
    """How many records of a file are damaged; the others are kept in a new file. OSError."""
    fd = lock_file(path, create=False)
    try:
        data = read_own(path) or b""
        identity, end = _open_header(data[: _HEADER.size], len(data))
        records = [data[at : at + nbytes] for _, at, nbytes in _walk(data[:end], _HEADER.size)]
        good = [record for record in records if _region(record) is not None]
        whole = _HEADER.size + sum(map(len, records)) == end
        # A file without a header is one whose first writer was killed.
        alien = not identity and any(data[: _HEADER.size])
        damaged = len(records) - len(good) + (not whole) + alien
        if damaged and good:
            temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
            new = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                body = b"".join(good)
                _write(new, 0, _header(_HEADER.size + len(body)) + body)
            finally:
                os.close(new)
            os.replace(temporary, path)  # who waits for the lock looks for the new file
        elif not good:
            os.unlink(path)
        return damaged
    finally:
        os.close(fd)


class BundleFile:
    """Regions of several mappings in one file, to be shipped with a program.

    Raises Error for a file that is none, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self._data = file.read()
        except OSError as error:
            raise Error(f"{path}: {error.strerror}; expected a bundle of compiled code") from None
        self.sections: dict[str, tuple[int, int]] = {}
        try:
            magic, count = _BUNDLE.unpack_from(self._data)
            if magic != _BUNDLE_MAGIC:
                raise Error(f"{path}: not a bundle; `anyarch compile PROGRAM -o FILE` makes one")
            for number in range(count):
                place = _BUNDLE.size + number * _SECTION.size
                key, position, nbytes = _SECTION.unpack_from(self._data, place)
                if position + nbytes > len(self._data):
                    raise struct.error
                self.sections[key.hex()] = position, nbytes
        except struct.error:
            raise Error(f"{path}: the bundle is cut off; make it anew") from None

    def section(self, key: str) -> bytes:
        """What it has for a mapping, as a file of its own would."""
        position, nbytes = self.sections.get(key, (0, 0))
        return self._data[position : position + nbytes]


def write_bundle(path: str, sections: Mapping[str, Iterable[CompiledRegion]]) -> int:
    """Write a bundle of regions by key; the bytes written. OSError."""
    head = [_BUNDLE.pack(_BUNDLE_MAGIC, len(sections))]
    position = _BUNDLE.size + len(sections) * _SECTION.size
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            for key, regions in sections.items():
                end = _HEADER.size
                file.seek(position + end)
                for region in regions:
                    end += file.write(_record(region, True))
                file.seek(position)
                file.write(_header(end))
                head.append(_SECTION.pack(bytes.fromhex(key), position, end))
                position += end
            file.seek(0)
            file.write(b"".join(head))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return position
