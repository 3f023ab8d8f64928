"""Names of files: where on the host is what a guest names.

An absolute name is looked up in a root folder first, then on the host. A relative one is the host
kernel's to find, except below folders where the guest's view is another one: those in the root,
whose links are meant inside it, ``/``, and those in /proc.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from errno import EACCES, EINVAL
from typing import Final

from anyarch.linux.places import pack_place

AT_FDCWD: Final = -100
# Which names are for Python to find: the word of the thunk's table.
ABSOLUTE, RELATIVE, BELOW_DESCRIPTORS = 1, 2, 4
_MAXIMUM_LINKS: Final = 40
# Folders that are the machine's even where the root has some of that name (mostly empty ones).
_KERNEL: Final = frozenset((b"dev", b"proc", b"sys"))
_SHARED: Final = frozenset((b"tmp", b"run", b"home", b"root"))
_FOLDERS_KEPT: Final = 4096
_LOOK_AGAIN: Final = 64  # names below plain folders, after which descriptors are looked through


def host_path(root: bytes | None, path: bytes, follow: bool, *, stay: bool = False) -> bytes:
    """The host path of an absolute guest path.

    Links are followed as the guest sees them, the last one only with ``follow``. A name that is
    neither in the root nor on the host is one to be created: on the host, or in the root where
    only that has the folder, or where both have it and ``stay`` asks for it.
    """
    if root is None or not path.startswith(b"/"):
        return path
    tail = b"/" if path.endswith((b"/", b"/.")) else b""
    follow = follow or bool(tail)
    parts = _split(path)
    found: list[bytes] = []
    layer = root  # where ``found`` is: the root, or nothing for the host
    links = 0
    while parts:
        part = parts.pop()
        if part == b"..":
            del found[-1:]
            layer = root if os.path.isdir(_join(root, found)) else b""
            continue
        if not found and (part in _KERNEL or (part in _SHARED and not parts)):
            return _join(b"", [part, *reversed(parts)]) + tail
        target = _link(_join(layer, [*found, part]))
        if target is None and layer:
            layer = b""
            target = _link(_join(layer, [*found, part]))
        if target is None:
            if links and os.path.lexists(path):
                return path
            found.append(part)
            if not parts and _is_created_in_root(root, found[:-1], stay):
                layer = root
            return _join(layer, [*found, *reversed(parts)]) + tail
        if not target or not (follow or parts):
            found.append(part)
            continue
        links += 1
        if links > _MAXIMUM_LINKS:
            return path
        if target.startswith(b"/"):
            found.clear()
            layer = root
        parts += _split(target)
    return _join(layer, found) + tail if found else layer or b"/"


def _split(path: bytes) -> list[bytes]:
    """The parts of a path, last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _join(layer: bytes, parts: list[bytes]) -> bytes:
    return b"/".join((layer, *parts))


def _link(path: bytes) -> bytes | None:
    """Where a link points; empty for what is no link or may not be looked at, None for what does
    not exist."""
    try:
        return os.readlink(path)
    except OSError as error:
        return b"" if error.errno in (EINVAL, EACCES) else None


def _is_created_in_root(root: bytes, folder: list[bytes], stay: bool) -> bool:
    on_host = os.path.isdir(_join(b"", folder) or b"/")
    return os.path.isdir(_join(root, folder)) and (stay or not on_host)


def guest_path(root: bytes | None, path: bytes) -> bytes:
    """The guest's path of a host's that exists."""
    if root is not None:
        if path == root:
            return b"/"
        if path.startswith(root + b"/"):
            return path[len(root) :]
    return path


class Paths:
    """How a process finds files: its root, and whether relative names need a closer look.

    ``announce`` is told which names native code must leave to Python, ``forget`` that folders may
    be elsewhere than :meth:`place_of` told.
    """

    __slots__ = ("_announce", "_folders", "_forget", "_places", "_plain", "flags", "root")

    def __init__(
        self,
        root: bytes | None,
        announce: Callable[[int], None] = lambda flags: None,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self.root = root
        self.flags = ABSOLUTE if root is not None else 0
        self._announce, self._forget = announce, forget
        self._places: dict[
            bytes, tuple[int, bytes] | None
        ] = {}  # of those folders, for native code
        self._folders: dict[bytes, bytes] = {}  # host paths without links, by guest path
        self._plain = 0  # names below descriptors of plain folders, one after another
        self.moved()

    def resolve(self, path: bytes, follow: bool, dirfd: int = AT_FDCWD) -> bytes:
        """The host path of a guest's. Of /proc the plain name: no dots, ``self`` for our number."""
        stay = False
        if not path.startswith(b"/"):
            folder = self._folder(dirfd) if path else None
            if folder is None:
                return path
            stay = folder != b"/" and b".." not in path
            path = folder + b"/" + path
        if self.root is not None:
            found = self._find_below(path, follow)
            if found is not None:
                return found
        if path[1:2] in (b"/", b"."):
            path = _without_dots(path)
        path = host_path(self.root, self._see_through(path), follow, stay=stay)
        return _plain_name(path) if path.startswith(b"/proc/") else path

    def _find_below(self, path: bytes, follow: bool) -> bytes | None:
        """The host path of what lies in a folder that was found before, if that is quickly told."""
        folder, _, name = path.rpartition(b"/")
        place = self._folders.get(folder)
        if place is None:
            self._look_up_folder(folder)
            return None
        if name in (b"", b".", b".."):
            return None
        found = place + b"/" + name
        target = _link(found)
        return None if target is None or (target and follow) else found

    def _look_up_folder(self, folder: bytes) -> None:
        assert self.root is not None
        if not folder or _KERNEL.intersection(folder.split(b"/", 2)[1:2]) or b"//" in folder:
            return
        place = host_path(self.root, folder, True)
        if os.path.isdir(place) and (
            place.startswith(self.root + b"/") or not os.path.lexists(self.root + place)
        ):
            if len(self._folders) >= _FOLDERS_KEPT:
                self._folders.clear()
                self._places.clear()
            self._folders[folder] = place
            self._places[folder] = pack_place(folder, place, self.root)

    def place_of(self, path: bytes) -> tuple[int, bytes] | None:
        """What native code can be told of the folder of an absolute name, see ``places.py``."""
        return self._places.get(path[: path.rfind(b"/")]) if path.startswith(b"/") else None

    def changed(self, path: bytes) -> None:
        """What a host path names is about to change: folders may be elsewhere."""
        if self._folders and self.root is not None and path.startswith(self.root):
            self._folders.clear()
            self._places.clear()
            self._forget()

    def guest(self, path: bytes) -> bytes:
        """The guest's path of a host's that exists."""
        return guest_path(self.root, path)

    def _folder(self, dirfd: int) -> bytes | None:
        """The guest's name of a folder from which names are not the host kernel's to find."""
        dirfd = dirfd & 0xFFFFFFFF
        if dirfd == AT_FDCWD & 0xFFFFFFFF:
            return self._name(_working_folder()) if self.flags & RELATIVE else None
        if not self.flags & BELOW_DESCRIPTORS:
            return None
        name = self._name(_link(b"/proc/self/fd/%d" % dirfd) or b"")
        self._plain = self._plain + 1 if name is None else 0
        if self._plain == _LOOK_AGAIN:
            self._plain = 0
            self._look_through_descriptors()
        return name

    def _name(self, folder: bytes) -> bytes | None:
        """The guest's name of such a folder, by its host path."""
        name = self.guest(folder)
        if name != folder or name in (b"/", b"/proc") or name.startswith(b"/proc/"):
            return name
        return None

    def _see_through(self, path: bytes) -> bytes:
        """A path without the links of /proc that lead to folders where names mean other things."""
        parts = path.split(b"/", 6)
        if parts[1:3] == [b"dev", b"fd"]:
            parts = path.split(b"/", 4)
            parts[1:3] = [b"proc", b"self", b"fd"]
        if len(parts) < 5 or parts[1] != b"proc" or parts[2] not in _own_numbers():
            return path
        name, rest = parts[3], parts[4:]
        if name == b"root":
            return _join(b"", rest)
        folder = None
        if name == b"cwd":
            folder = self._name(_working_folder())
        elif name == b"fd" and len(rest) > 1 and rest[0].isdigit():
            folder = self._name(_link(b"/proc/self/fd/" + rest[0]) or b"")
            rest = rest[1:]
        return path if folder is None else _join(folder, rest)

    # What changes how names are found

    def moved(self) -> None:
        """The working directory is another one."""
        near = self._name(_working_folder()) is not None
        self._set_flags(self.flags & ~RELATIVE | (RELATIVE if near else 0))

    def confined(self) -> None:
        """The host's kernel has another root now: all names are below that."""
        self.root = None
        self._folders.clear()
        self._places.clear()
        self._set_flags(self.flags & ~ABSOLUTE)

    def opened(self, fd: int, path: bytes) -> None:
        """``fd`` was opened by a host path."""
        if self.flags & BELOW_DESCRIPTORS:
            return
        if not path.startswith(b"/"):
            path = _link(b"/proc/self/fd/%d" % fd) or b""
        if self._name(path) is None:
            return
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self._set_flags(self.flags | BELOW_DESCRIPTORS)

    def _look_through_descriptors(self) -> None:
        for fd in os.listdir(b"/proc/self/fd"):
            target = _link(b"/proc/self/fd/" + fd)
            if target and self._name(target) is not None and os.path.isdir(target):
                return
        self._set_flags(self.flags & ~BELOW_DESCRIPTORS)

    def _set_flags(self, flags: int) -> None:
        if flags != self.flags:
            self.flags = flags
            self._announce(flags)


def _working_folder() -> bytes:
    try:
        return os.getcwdb()
    except OSError:  # it was removed
        return b""


def _own_numbers() -> tuple[bytes, ...]:
    return b"self", b"thread-self", b"%d" % os.getpid()


def _without_dots(path: bytes) -> bytes:
    """An absolute path that begins with a name."""
    rest = path
    while rest:
        part, _, after = rest.partition(b"/")
        if part not in (b"", b".", b".."):
            break
        rest = after
    return b"/" + rest


def _plain_name(path: bytes) -> bytes:
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if len(parts) > 2 and (parts[-1] in (b"cwd", b"root") or parts[-1].isdigit()):
                return path  # that may be a link to anywhere
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    if parts[:1] != [b"proc"] or len(parts) < 2:
        return path
    if len(parts) > 2 and parts[1] == b"%d" % os.getpid():
        parts[1] = b"self"  # of itself /proc/self is a link, its number a folder
    return _join(b"", parts) + (b"/" if path.endswith(b"/") else b"")
