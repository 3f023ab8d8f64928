"""What of /proc is the guest's own, and not the interpreter's.

Files are asked for by their plain names, as :meth:`anyarch.linux.paths.Paths.resolve` gives them.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from anyarch.host.cpu import PAGE
from anyarch.host.mapping import MAP_SHARED, PROT_READ, map_pages, unmap_pages
from anyarch.linux.hostcalls import host_call
from anyarch.memory.regions import Region

if TYPE_CHECKING:
    from anyarch.linux.image import Image
    from anyarch.linux.process import Process

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
# struct prctl_mm_map: eleven addresses, then the auxiliary vector and the program's descriptor,
# neither of which changes.
_MM_MAP: Final = struct.Struct("<11QQIi")
_REGION: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ")
_MARK: Final = b"/memfd:anyarch:"
_NAME_NBYTES: Final = 240  # of a memfd


class Proc:
    """The guest's files of /proc."""

    __slots__ = ("_label", "_process", "_shows_arguments")

    def __init__(self, process: Process) -> None:
        self._process = process
        self._label = 0  # a mapping that others can see
        self._shows_arguments = False

    def publish(self, image: Image) -> None:
        """Let other processes see what is executed: its arguments and environment where the host's
        kernel can be told where they are, and the program's path in the name of a mapping."""
        stat = _read(b"/proc/self/stat").rpartition(b")")[2].split()
        fields = [int(stat[number - 3]) for number in (26, 27, 45, 46, 47, 28)]
        fields.insert(5, host_call("brk", 0))
        base = self._process.space.base
        texts = [base + address for address in (*image.argument_range, *image.environment_range)]
        words = _MM_MAP.pack(*fields, *texts, 0, 0, -1)
        pointer = self._process.leader.scratch_bytes(words)
        result = host_call("prctl", _PR_SET_MM, _PR_SET_MM_MAP, pointer, len(words), 0)
        self._shows_arguments = result == 0
        if self._label:
            unmap_pages(self._label, PAGE)
            self._label = 0
        name = b"anyarch:" + image.host_path
        if len(name) <= _NAME_NBYTES:
            fd = os.memfd_create(os.fsdecode(name))
            with contextlib.suppress(OSError):
                self._label = map_pages(PAGE, PROT_READ, flags=MAP_SHARED, fd=fd)
            os.close(fd)

    def substitute(self, path: bytes, follow: bool) -> bytes:
        """The path to use for ``path``: the program's for /proc/self/exe."""
        if follow and path.endswith(b"/exe") and path.startswith(b"/proc/"):
            return self._program(path) or path
        return path

    def link(self, path: bytes) -> bytes | None:
        """Where a link of /proc points for the guest, if that is not where it does for the host."""
        if not path.startswith(b"/proc/"):
            return None
        program = self._program(path)
        if program is None:
            try:
                program = os.readlink(path)
            except OSError:
                return None
        shown = self._process.paths.guest(program)
        return None if shown == program and not path.endswith(b"/exe") else shown

    def _program(self, path: bytes) -> bytes | None:
        """Where a /proc/NUMBER/exe points on the host, if ``path`` is one of a guest's."""
        if _own_part(path) == b"exe":
            return self._process.image.host_path
        owner, _, name = path[6:].partition(b"/")
        if name != b"exe" or not owner.isdigit():
            return None
        try:
            maps = _read(b"/proc/%s/maps" % owner)
        except OSError:
            return None
        mark = maps.find(_MARK)
        if mark < 0:
            return None
        line = maps[mark + len(_MARK) : maps.index(b"\n", mark)]
        return line.removesuffix(b" (deleted)")

    def contents(self, path: bytes) -> bytes | None:
        """The text of a file of /proc that is not the interpreter's, or None."""
        if not path.startswith(b"/proc/"):
            return None
        if path == b"/proc/cpuinfo" and self._process.abi.cpuinfo:
            text = self._process.abi.cpuinfo
            count = len(os.sched_getaffinity(0))
            return "".join(text.format(index=index) for index in range(count)).encode()
        match _own_part(path):
            case b"maps":
                return self._maps()
            case b"smaps":
                return self._smaps()
            case b"cmdline" if not self._shows_arguments:
                return b"".join(argument + b"\0" for argument in self._process.image.arguments)
            case b"environ" if not self._shows_arguments:
                return b"".join(text + b"\0" for text in self._process.environment)
            case b"auxv":
                return self._process.image.auxv
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
                name = os.fsdecode(self._process.paths.guest(os.fsencode(name)))
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
            48: image.argument_range[0],
            49: image.argument_range[1],
            50: image.environment_range[0],
            51: image.environment_range[1],
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


def _own_part(path: bytes) -> bytes | None:
    """The file's name inside our folder of /proc, or inside that of one of our threads."""
    owner, _, name = path[6:].partition(b"/")
    if owner == b"thread-self":
        return name if name not in (b"stat", b"comm") else None
    if owner != b"self":
        return None
    if name.startswith(b"task/"):
        thread, _, inner = name[5:].partition(b"/")
        return inner if thread.isdigit() and inner not in (b"stat", b"comm") else None
    return name


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
