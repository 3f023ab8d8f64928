"""Names of files: absolute ones are looked up in a root folder first; some are the guest's own."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from anyarch.memory.regions import Region

if TYPE_CHECKING:
    from anyarch.linux.process import Process

_REGION: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ")
_MAXIMUM_LINKS: Final = 40
# Folders that are the machine's even where the root has some of that name (mostly empty ones).
_KERNEL: Final = frozenset((b"dev", b"proc", b"sys"))
_SHARED: Final = frozenset((b"tmp", b"run", b"home", b"root"))


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
    parts = [part for part in path.split(b"/", 3) if part not in (b"", b".")]
    if not parts or parts[0] in _KERNEL or (len(parts) == 1 and parts[0] in _SHARED):
        return path
    return find_in_root(root, path, follow) or path


def guest_path(root: bytes | None, path: bytes) -> bytes:
    """The guest's path of a host's that exists."""
    if root is not None:
        inside = os.path.realpath(root) + b"/"
        if path.startswith(inside):
            return path[len(inside) - 1 :]
    return path


class Proc:
    """What of /proc is the guest's own, and not the interpreter's."""

    __slots__ = ("_process",)

    def __init__(self, process: Process) -> None:
        self._process = process

    def _own_part(self, path: bytes) -> bytes | None:
        """The file's name inside our folder of /proc, or inside that of one of our threads."""
        if not path.startswith(b"/proc/"):
            return None
        owner, _, name = path[6:].partition(b"/")
        if owner not in (b"self", b"thread-self", b"%d" % os.getpid()):
            return None
        if name.startswith(b"task/"):
            thread, _, inner = name[5:].partition(b"/")
            return inner if thread.isdigit() and inner not in (b"stat", b"comm") else None
        return name

    def program_link(self, path: bytes) -> bytes | None:
        """Where /proc/self/exe points on the host, if ``path`` is that."""
        if self._own_part(path) != b"exe":
            return None
        return os.path.realpath(self._process.image.host_path)

    def program_name(self, path: bytes) -> bytes | None:
        """Where /proc/self/exe points for the guest, if ``path`` is that."""
        program = self.program_link(path)
        return None if program is None else guest_path(self._process.options.root, program)

    def substitute(self, path: bytes, follow: bool) -> bytes:
        """The path to use for ``path``: the program's for /proc/self/exe."""
        return (self.program_link(path) if follow else None) or path

    def contents(self, path: bytes) -> bytes | None:
        """The text of a file of /proc that is not the interpreter's, or None."""
        if not path.startswith(b"/proc/"):
            return None
        if path == b"/proc/cpuinfo" and self._process.abi.cpuinfo:
            text = self._process.abi.cpuinfo
            count = len(os.sched_getaffinity(0))
            return "".join(text.format(index=index) for index in range(count)).encode()
        match self._own_part(path):
            case b"maps":
                return self._maps()
            case b"smaps":
                return self._smaps()
            case b"cmdline":
                return b"".join(argument + b"\0" for argument in self._process.image.arguments)
            case b"auxv":
                return self._process.image.auxv
            case b"environ":
                return b"".join(text + b"\0" for text in self._process.environment)
            case b"stat":
                return self._stat()
            case b"statm":
                return self._statm()
            case b"status":
                return self._status()
            case b"limits":
                return self._limits()
        return None

    def _maps(self) -> bytes:
        return "".join(f"{line}\n" for _, line in self._region_lines()).encode(
            errors="surrogateescape"
        )

    def _smaps(self) -> bytes:
        """What the host says of the guest's regions: a region of its is one or a part of ours."""
        base = self._process.space.base
        lines = list(self._region_lines())
        text, shown = [], False
        for line in _read(b"/proc/self/smaps").splitlines(keepends=True):
            if head := _REGION.match(line):
                start, end = (int(word, 16) - base for word in head.groups())
                found = [each for each in lines if each[0].start <= start < each[0].end]
                shown = bool(found)
                if shown:
                    rest = found[0][1].partition(" ")[2]
                    text.append(f"{start:08x}-{end:08x} {rest}\n".encode(errors="surrogateescape"))
            elif shown:
                text.append(line)
        return b"".join(text)

    def _region_lines(self) -> Iterator[tuple[Region, str]]:
        root = self._process.options.root
        for region in self._process.space.regions():
            letters = "".join(
                letter if region.prot & bit else "-" for letter, bit in zip("rwx", (1, 2, 4))
            )
            shared = "s" if region.shared else "p"
            start, end = region.start, region.end
            device, inode, name = "00:00", 0, region.name
            if region.file and name.startswith("/"):
                with contextlib.suppress(OSError):
                    stat = os.stat(name)
                    device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
                    inode = stat.st_ino
                name = os.fsdecode(guest_path(root, os.fsencode(name)))
            line = f"{start:08x}-{end:08x} {letters}{shared} {region.offset:08x} {device} {inode} "
            yield region, f"{line:<73}{name}".rstrip()

    def _nbytes(self, bits: int = 0) -> int:
        """How much the guest has mapped, with any of these permissions where some are given."""
        regions = self._process.space.regions()
        return sum(each.end - each.start for each in regions if not bits or each.prot & bits)

    def _stat(self) -> bytes:
        """The host's line, with the guest's addresses. Fields are numbered as in proc(5)."""
        head, _, tail = _read(b"/proc/self/stat").rpartition(b")")
        image, fields = self._process.image, tail.split()
        code = [each for each in image.elf.loads if each.flags & 1] or image.elf.loads
        bias = image.entry - image.elf.entry
        values = {
            20: len(self._process.threads),
            23: self._nbytes(),
            26: code[0].address + bias,
            27: code[-1].address + code[-1].memory_nbytes + bias,
            28: image.stack,
            29: 0,
            30: 0,
            47: image.heap,
        }
        for number, value in values.items():
            fields[number - 3] = b"%d" % value
        return head + b") " + b" ".join(fields) + b"\n"

    def _statm(self) -> bytes:
        fields = _read(b"/proc/self/statm").split()
        fields[0] = b"%d" % (self._nbytes() >> 12)
        fields[3] = b"%d" % (self._nbytes(4) >> 12)
        fields[5] = b"%d" % (self._nbytes(2) >> 12)
        return b" ".join(fields) + b"\n"

    def _status(self) -> bytes:
        lines = []
        for line in _read(b"/proc/self/status").splitlines(keepends=True):
            key = line.partition(b":")[0]
            if key in (b"VmPeak", b"VmSize"):
                line = b"%s:\t%8d kB\n" % (key, self._nbytes() >> 10)
            elif key == b"VmExe":
                line = b"%s:\t%8d kB\n" % (key, self._nbytes(4) >> 10)
            elif key == b"Threads":
                line = b"Threads:\t%d\n" % len(self._process.threads)
            elif key in (b"VmStk", b"VmData"):
                continue
            lines.append(line)
        return b"".join(lines)

    def _limits(self) -> bytes:
        """The host's, but for the limits on memory, which are only remembered."""
        names = {b"Max data size": 2, b"Max stack size": 3, b"Max resident set": 5}
        names[b"Max address space"] = 9
        lines = []
        for line in _read(b"/proc/self/limits").splitlines():
            which = names.get(line[:26].strip())
            if which is not None and which in self._process.limits:
                shown = [
                    "unlimited" if n >= (1 << 64) - 1 else n for n in self._process.limits[which]
                ]
                line = f"{line[:26].decode()}{shown[0]!s:<21}{shown[1]!s:<21}bytes     ".encode()
            lines.append(line + b"\n")
        return b"".join(lines)


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
