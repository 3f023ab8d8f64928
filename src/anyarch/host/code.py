"""Native code in memory: blobs mapped for execution, never writable and executable at once."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from anyarch.emit.blob import Blob
from anyarch.errors import HostError
from anyarch.host.context import FIELDS, Context
from anyarch.host.cpu import PAGE
from anyarch.host.freelist import FreeList
from anyarch.host.mapping import (
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    libc,
    map_pages,
    map_twice,
    protect_pages,
    reserve,
    round_up,
    unmap_pages,
)
from anyarch.host.signalmask import ALL_SIGNALS, set_host_mask

__all__ = ["NativeCode", "load", "load_file"]

_ARENA_NBYTES = 1 << 28
CELL_DISTANCE = _ARENA_NBYTES // 2  # from a region's code to its cells
BLOCK_ROOM_NBYTES = 1 << 26  # for one address space's blocks, see host/blockroom
_BLOCK_ROOMS = 20
_ALIGN = 64  # of the widest constant that code may read as an aligned vector
_STUB_NBYTES = 16
_WCLONE = -(1 << 31)  # wait for a process that tells its end to nobody: __WCLONE
MXCSR_DEFAULT = 0x1F80  # every exception masked, round to nearest
_BOUND = ("aa_leave", "aa_syscall_window", "aa_syscall_window_end", "aa_syscall_interrupted")

_enter_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_take_type = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
_syscall_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_SYSCALL_BLOCK = FIELDS["syscall_block"][0]
_pack_block = struct.Struct("<7Q").pack_into
_U64 = (1 << 64) - 1


class NativeCode:
    """A mapped blob. It stays mapped until :meth:`unmap`: records and signal actions point into it.

    `start` and `end` are host pointers.
    """

    __slots__ = ("_enter", "_symbols", "_syscall", "_take_pending", "end", "start")

    def __init__(self, start: int, nbytes: int, symbols: dict[str, int]) -> None:
        self.start = start
        self.end = start + nbytes
        self._symbols = symbols
        self._enter = _enter_type(self._address_or_0("aa_enter"))
        self._syscall = _syscall_type(self._address_or_0("aa_syscall_block"))
        self._take_pending = _take_type(self._address_or_0("aa_take_pending"))

    def _address_or_0(self, symbol: str) -> int:
        return self.start + self._symbols[symbol] if symbol in self._symbols else 0

    def address(self, symbol: str) -> int:
        """Host pointer of a symbol; KeyError if the blob does not define it."""
        return self.start + self._symbols[symbol]

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._symbols

    @property
    def symbols(self) -> dict[str, int]:
        """Offset of each symbol from `start`."""
        return self._symbols

    def bind(self, context: Context) -> None:
        """Tell `context` where this code lies, which the signal handlers need."""
        missing = [name for name in _BOUND if name not in self._symbols]
        if missing:
            raise HostError(
                f"the blob lacks {', '.join(missing)}: compile it together with "
                "anyarch.host.runtime.runtime_text()"
            )
        arena = code_arena()
        context.set("code_start", arena.start)
        context.set("code_end", arena.blocks_end)
        context.set("leave_pointer", self.address("aa_leave"))
        context.set("syscall_window", self.address("aa_syscall_window"))
        context.set("syscall_window_end", self.address("aa_syscall_window_end"))
        context.set("syscall_interrupted", self.address("aa_syscall_interrupted"))
        if context.get("mxcsr") == 0:
            context.set("mxcsr", MXCSR_DEFAULT)

    def enter(self, context: Context, entry: int, record: int = 0) -> int:
        """Run native code at host pointer `entry` until it returns or faults: an `ExitCode`.

        The thread must be prepared (:func:`anyarch.host.signals.prepare_thread`), the context
        bound and given a stack. The GIL is released meanwhile. KeyboardInterrupt may replace
        the result, which `context` keeps as `exit_code`.
        """
        result: int = self._enter(context.pointer, entry, record)
        return result

    def syscall(self, context: Context, number: int, *arguments: int) -> int:
        """Host system call with the GIL released: its result or -errno.

        -512 (ERESTARTSYS) means that it was not done, or not finished and may be repeated,
        because `context.stop` is set: a signal arrived.
        """
        numbers = (number, *arguments, 0, 0, 0, 0, 0, 0)[:7]
        try:
            _pack_block(context.view, _SYSCALL_BLOCK, *numbers)
        except struct.error:  # negative ones
            _pack_block(context.view, _SYSCALL_BLOCK, *(n & _U64 for n in numbers))
        result: int = self._syscall(context.pointer)
        return result

    def take_pending(self, context: Context) -> int:
        """The context's `pending` signals, cleared in the same instant."""
        result: int = self._take_pending(context.pointer)
        return result

    def spawn(self, command: list[str], environment: dict[str, str], descriptor: int) -> None:
        """Start a program with a descriptor as its standard input, in a session of its own.

        It is no child of ours, has none of our other descriptors, and has every signal blocked.
        """
        variables = [f"{name}={value}" for name, value in environment.items()]
        argv, envp = (
            (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)
            for texts in (command, variables)
        )
        spawn = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        before = set_host_mask(ALL_SIGNALS)  # no handler of ours runs in it
        try:
            pid = spawn(self.address("aa_spawn"))(argv[0], argv, envp, descriptor, null)
        finally:
            set_host_mask(before)
            os.close(null)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        os.waitpid(pid, _WCLONE)

    def unmap(self) -> None:
        """Give the memory back; the caller knows that nothing points into it any more."""
        if self.end > self.start:
            unmap_pages(self.start, round_up(self.end - self.start))
            self.end = self.start


class CodeArena:
    """The one range of host addresses that holds all our code: blobs from its start, regions in the
    upper half, where they are written one by one through a second, writable mapping. Behind it
    is room for the cells through which regions reach each other, as far from each region, and
    then for the code of blocks.

    A forked child shares the memory of regions until it writes there. So its parent writes only
    where no region was, or into a copy.
    """

    __slots__ = (
        "_free", "_is_shared", "_next", "_owner", "_region_next", "_region_write",
        "block_rooms", "blocks_end", "end", "forks", "start",
    )  # fmt: skip

    def __init__(self) -> None:
        cells_end = _ARENA_NBYTES + CELL_DISTANCE
        rooms = BLOCK_ROOM_NBYTES * _BLOCK_ROOMS
        try:
            self.start = reserve(cells_end + rooms, PAGE)
            protect_pages(self.start + _ARENA_NBYTES, CELL_DISTANCE, PROT_READ | PROT_WRITE)
        except OSError as error:
            raise HostError(f"cannot reserve room for native code: {error}") from error
        self.end = self.start + _ARENA_NBYTES
        self._next = self.start
        self._region_next = self.start + _ARENA_NBYTES // 2
        self._region_write = 0
        self._owner = 0  # the process that appends
        self._is_shared = False  # a forked child may run what is here
        self.blocks_end = self.start + cells_end + rooms
        self.block_rooms = FreeList()
        self.block_rooms.give(self.start + cells_end, rooms)
        self.forks = 0  # of this process, and whether it is a child
        self._free = FreeList()  # of the region area

    def place(self, nbytes: int) -> int:
        """Room for a blob: whole pages, not accessible yet."""
        start = self._next
        self._next += round_up(nbytes)
        if self._next > self.start + _ARENA_NBYTES // 2:
            raise HostError("the room for native code is used up")
        return start

    def append(self, code: bytes) -> int:
        """Copy position-independent code into the region area; its host pointer."""
        nbytes = len(code) + _ALIGN - 1 & -_ALIGN
        start = self._free.take(nbytes)
        if start is not None:
            if self._is_shared:
                self._map_regions()
        elif self._region_next + nbytes > self.end - PAGE:  # see map_twice
            raise HostError("the room for compiled regions is used up")
        else:
            start = self._region_next
            self._region_next += nbytes
        self._write(start, code)
        return start

    def release(self, start: int, nbytes: int) -> None:
        """Give back the room of code that no thread can reach; as many bytes as were appended."""
        self._free.give(start, nbytes + _ALIGN - 1 & -_ALIGN)

    def append_stubs(self, codes: Sequence[bytes]) -> range:
        """Copy pieces of up to 16 bytes of code, to stay for ever; their host pointers."""
        whole = b"".join([code.ljust(_STUB_NBYTES, b"\0") for code in codes])
        start = self.append(whole)
        return range(start, start + len(whole), _STUB_NBYTES)

    def _write(self, start: int, code: bytes) -> None:
        if self._owner != os.getpid():
            self._map_regions()
        ctypes.memmove(self._region_write + start - (self.end - CELL_DISTANCE), code, len(code))

    def after_fork(self) -> None:
        """A child has been forked, or we are one."""
        self._is_shared = True
        self.forks += 1

    def _map_regions(self) -> None:
        """Memory for regions that is shared with no child or parent, with what there was."""
        half = CELL_DISTANCE
        first = self.end - half
        kept = ctypes.string_at(first, self._region_next - first) if self._owner else b""
        try:
            if self._region_write:
                unmap_pages(self._region_write, half)
                self._region_write = 0
            self._region_write = map_twice(half, first, kept)
        except OSError as error:
            raise HostError(f"cannot map room for compiled regions: {error}") from error
        self._owner = os.getpid()
        self._is_shared = False


_arena: CodeArena | None = None


def code_arena() -> CodeArena:
    """The process's arena."""
    global _arena
    if _arena is None:
        _arena = CodeArena()
        os.register_at_fork(after_in_parent=_arena.after_fork, after_in_child=_arena.after_fork)
    return _arena


def append_region(code: bytes) -> int:
    """Place the code of a region; see :meth:`CodeArena.append`."""
    return code_arena().append(code)


def release_region(start: int, nbytes: int) -> None:
    """Give back the room of a region; see :meth:`CodeArena.release`."""
    code_arena().release(start, nbytes)


def append_stubs(codes: Sequence[bytes]) -> range:
    """Place pieces of code that stay; see :meth:`CodeArena.append_stubs`."""
    return code_arena().append_stubs(codes)


def region_base() -> int:
    """Host pointer of the first region."""
    return code_arena().start + CELL_DISTANCE


def load(blob: Blob) -> NativeCode:
    """Map a blob for execution: its cache file where possible, else a private copy."""
    nbytes = len(blob.code)
    if nbytes == 0:
        raise HostError("an empty blob cannot be mapped")
    start = _map_blob(blob) or _map_copy(blob)
    return NativeCode(start, nbytes, blob.symbols)


def load_file(fd: int, position: int, nbytes: int, symbols: dict[str, int]) -> NativeCode | None:
    """Map a blob that is in an open file from ``position`` on, and was checked there; None where
    the system refuses, as for a file system that is mounted noexec."""
    start = _map_file(fd, position, nbytes)
    return NativeCode(start, nbytes, symbols) if start else None


def _map_blob(blob: Blob) -> int:
    """Map the blob's file; 0 if impossible."""
    if not blob.path:
        return 0
    try:
        fd = os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    nbytes = len(blob.code)
    try:
        start = _map_file(fd, blob.position, nbytes)
    finally:
        os.close(fd)
    # What was verified is blob.code; the file may have been replaced since.
    if start and libc.memcmp(ctypes.c_void_p(start), blob.code, ctypes.c_size_t(nbytes)):
        unmap_pages(start, round_up(nbytes))
        return 0
    return start


def _map_file(fd: int, position: int, nbytes: int) -> int:
    """Map code in a file, shared with every process that runs the same; 0 if impossible."""
    try:
        if os.fstat(fd).st_size < position + nbytes:
            return 0  # reading past the end of the file would be a bus error
        prot = PROT_READ | PROT_EXEC
        place = code_arena().place(nbytes)
        flags = MAP_PRIVATE | MAP_FIXED
        return map_pages(nbytes, prot, pointer=place, flags=flags, fd=fd, offset=position)
    except OSError:
        return 0


def _map_copy(blob: Blob) -> int:
    nbytes = len(blob.code)
    try:
        start = code_arena().place(nbytes)
        protect_pages(start, round_up(nbytes), PROT_READ | PROT_WRITE)
        ctypes.memmove(start, blob.code, nbytes)
        protect_pages(start, round_up(nbytes), PROT_READ | PROT_EXEC)
    except OSError as error:
        raise HostError(
            f"cannot map {nbytes} bytes of native code: {error}; does a security policy forbid "
            "executable memory?"
        ) from error
    return start
