"""Our own modules' byte code, read from one file of the cache.

Python looks for each module in folders, and opens and reads a file for it: for the hundred modules
of a run that takes a fifth of the time in which a short program ends. So the first run leaves the
code of what it has imported, and later ones take it from there as long as a source has the size and
the time that it had: what Python itself goes by.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import struct
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Final

from anyarch.engine.digests import blake2b
from anyarch.engine.ownfiles import cache_path, read_own

MODULES: Final = ".modules"  # suffix of such a file
_MAGIC: Final = b"anyarch\x31"
_HEADER: Final = struct.Struct("<8s32sQ")  # magic, digest and number of the bytes that follow
_PACKAGE: Final = __name__.partition(".")[0]

# A module: its source's path, time of change in nanoseconds, size; whether it is a package; code.
_Entry = tuple[str, int, int, bool, bytes]


class _Loader(SourceFileLoader):
    """Loads a module from code that is at hand."""

    def __init__(self, name: str, path: str, code: bytes) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType | None:
        found: CodeType = marshal.loads(self.code)
        return found


class ModuleCache:
    """A finder of our modules, for programs that import the same ones at each start: ``role`` tells
    which program."""

    def __init__(self, role: str) -> None:
        source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        about = f"{source}\n{sys.implementation.cache_tag}\n{sys.flags.optimize}\n{role}"
        key = blake2b(about.encode(), digest_size=32).hexdigest()
        self._path = os.path.join(cache_path(), key + MODULES)
        self._entries = self._read()
        self._before = frozenset(_ours())  # what is imported already, and always before us
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module's spec, where its source is as it was; None leaves it to Python."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        origin, changed, nbytes, is_package, code = entry
        try:
            status = os.stat(origin)
        except OSError:
            return None
        if (status.st_mtime_ns, status.st_size) != (changed, nbytes):
            return None
        spec = ModuleSpec(name, _Loader(name, origin, code), origin=origin, is_package=is_package)
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(origin))
        return spec

    def keep(self) -> None:
        """Leave the code of what is imported now to the next run, if it did not come from here and
        Python may write byte code."""
        loaded = {name: module for name, module in _ours().items() if name not in self._before}
        if sys.dont_write_bytecode or all(_is_kept(module) for module in loaded.values()):
            return
        if not os.access(os.path.dirname(self._path), os.W_OK):
            return
        with contextlib.suppress(OSError, ImportError, ValueError):
            entries = dict(self._entries)
            for name, module in loaded.items():
                entries[name] = _entry(name, module)
            _write(self._path, entries)

    def _read(self) -> dict[str, _Entry]:
        try:
            data = read_own(self._path) or b""
        except OSError:
            return {}
        return _unpack(data)


_current: ModuleCache | None = None


def begin(role: str) -> None:
    """From here on take our modules from the cache; see :class:`ModuleCache`."""
    global _current
    if _current is None:
        _current = ModuleCache(role)


def keep() -> None:
    """Leave what is imported now to the next program that begins like this one."""
    if _current is not None:
        _current.keep()


def _ours() -> dict[str, ModuleType]:
    """Our modules that are imported."""
    return {name: module for name, module in sys.modules.items() if name.startswith(_PACKAGE + ".")}


def _is_kept(module: ModuleType) -> bool:
    return isinstance(module.__loader__, _Loader)


def _entry(name: str, module: ModuleType) -> _Entry:
    loader = module.__loader__
    if not isinstance(loader, SourceFileLoader):
        raise ImportError(f"{name} comes from no file")
    path = loader.get_filename(name)
    status = os.stat(path)
    code = loader.code if isinstance(loader, _Loader) else marshal.dumps(loader.get_code(name))
    return path, status.st_mtime_ns, status.st_size, loader.is_package(name), code


def _unpack(data: bytes) -> dict[str, _Entry]:
    """What a file holds; nothing if it is another kind of file, or cut off."""
    if len(data) < _HEADER.size:
        return {}
    magic, _, nbytes = _HEADER.unpack_from(data)
    if magic != _MAGIC or nbytes != len(data) - _HEADER.size:
        return {}
    found: dict[str, _Entry] = marshal.loads(memoryview(data)[_HEADER.size :])
    return found


def _write(path: str, entries: dict[str, _Entry]) -> None:
    body = marshal.dumps(entries)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(_HEADER.pack(_MAGIC, _digest(body), len(body)) + body)
            file.flush()
            os.fsync(fd)  # readers see whether it is whole by its size only
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _digest(body: bytes | memoryview) -> bytes:
    return blake2b(body, digest_size=32).digest()


def is_whole(path: str) -> bool:
    """Whether a file's contents are what was written. OSError."""
    data = read_own(path) or b""
    if len(data) < _HEADER.size:
        return False
    magic, digest, _ = _HEADER.unpack_from(data)
    return bool(magic == _MAGIC and digest == _digest(memoryview(data)[_HEADER.size :]))
