"""Names of files: absolute ones are looked up in a root folder first; some are the guest's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anyarch.linux.process import Process

_MAXIMUM_LINKS: Final = 40


def find_in_root(root: bytes, path: bytes, follow: bool) -> bytes | None:
    """The host path of ``path`` inside ``root``, or None where it does not exist there.

    Absolute links inside the root stay inside it.
    """
    parts = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    found: list[bytes] = []
    links = 0
    while parts:
        part = parts.pop()
        if part == b"..":
            del found[-1:]
            continue
        candidate = b"/".join((root, *found, part))
        try:
            target = os.readlink(candidate) if follow or parts else b""
        except OSError as error:
            if error.errno != 22:  # EINVAL: it exists and is no link
                return None
            target = b""
        if not target:
            found.append(part)
            continue
        links += 1
        if links > _MAXIMUM_LINKS:
            return None
        if target.startswith(b"/"):
            found.clear()
        parts += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
    result = b"/".join((root, *found))
    return result if os.path.lexists(result) else None


def host_path(root: bytes | None, path: bytes, follow: bool) -> bytes:
    """The host path of a guest path."""
    if root is None or not path.startswith(b"/"):
        return path
    return find_in_root(root, path, follow) or path


class Proc:
    """What of /proc is the guest's own, and not the interpreter's."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def _own_part(self, path: bytes) -> bytes | None:
        """The file's name inside our folder of /proc."""
        if not path.startswith(b"/proc/"):
            return None
        owner, _, name = path[6:].partition(b"/")
        if owner == b"thread-self" or owner in (b"self", b"%d" % os.getpid()):
            return name
        return None

    def program_link(self, path: bytes) -> bytes | None:
        """Where /proc/self/exe points, if ``path`` is that."""
        if self._own_part(path) != b"exe":
            return None
        return os.path.realpath(self._process.image.host_path)

    def substitute(self, path: bytes, follow: bool) -> bytes:
        """The path to use for ``path``: the program's for /proc/self/exe."""
        return (self.program_link(path) if follow else None) or path

    def contents(self, path: bytes) -> bytes | None:
        """The text of a file of /proc that is not the interpreter's, or None."""
        if path == b"/proc/cpuinfo" and self._process.abi.cpuinfo:
            text = self._process.abi.cpuinfo
            count = len(os.sched_getaffinity(0))
            return "".join(text.format(index=index) for index in range(count)).encode()
        part = self._own_part(path)
        if part == b"maps":
            return self._maps()
        if part == b"cmdline":
            return b"".join(argument + b"\0" for argument in self._process.image.arguments)
        if part == b"auxv":
            return self._process.image.auxv
        if part == b"environ":
            return b"".join(text + b"\0" for text in self._process.environment)
        return None

    def _maps(self) -> bytes:
        lines = []
        for region in self._process.space.regions():
            letters = "".join(
                letter if region.prot & bit else "-" for letter, bit in zip("rwx", (1, 2, 4))
            )
            shared = "s" if region.shared else "p"
            start, end = region.start, region.end
            line = f"{start:08x}-{end:08x} {letters}{shared} {region.offset:08x} 00:00 0 "
            lines.append(f"{line:<73}{region.name}".rstrip() + "\n")
        return "".join(lines).encode()
