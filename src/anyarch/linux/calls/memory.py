"""The address space: mapping, protection, the heap."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family
from anyarch.linux.placement import places, reservation_places

if TYPE_CHECKING:
    from anyarch.linux.thread import Thread

MEMORY: Final = Family()
_PAGE: Final = 4096
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE = 1, 2, 3
_MAP_FIXED, _MAP_ANONYMOUS, _MAP_POPULATE, _MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x8000, 0x100000
_MAP_GROWSDOWN, _MAP_DENYWRITE, _MAP_LOCKED = 0x100, 0x800, 0x2000
_MAP_KNOWN: Final = 0xFC17F973  # the flags that a mapping of every file takes
_F_GETFD: Final = 1
_MADV_HUGEPAGE, _MADV_NOHUGEPAGE = 14, 15
_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23
_PR_GET_THP_DISABLE: Final = 42
_HUGE_PAGE: Final = 2 << 20

for _name, _signature in {
    "get_mempolicy": "mode:struct_out.int mask:pointer maxnode:size addr:pointer flags:hex",
    "set_mempolicy": "mode:int mask:pointer maxnode:size",
    "mbind": "addr:pointer len:size mode:int mask:pointer maxnode:size flags:hex",
    "membarrier": "cmd:int flags:hex cpu:int",
    "process_madvise": "fd:fd iov:iovec_in.count count:size advice:enum.madvise flags:hex",
    "process_mrelease": "fd:fd flags:hex",
}.items():
    MEMORY.passed(_name, _signature)


@MEMORY.handled("brk", "brk:address", result="address")
def brk(thread: Thread, address: int) -> int:
    """Move the end of the heap; the old end is the answer where that is impossible."""
    process = thread.process
    with thread.space.lock:
        old, new = process.heap_end, address
        if not process.image.heap <= new <= process.image.heap + process.heap_limit:
            return old
        mapped, wanted = _round(old), _round(new)
        try:
            if wanted > mapped:
                thread.space.map(
                    mapped,
                    wanted - mapped,
                    _PROT_READ | _PROT_WRITE,
                    fixed=True,
                    noreplace=True,
                    name="[heap]",
                )
            elif wanted < mapped:
                thread.space.unmap(wanted, mapped - wanted)
        except OSError:
            return old
        process.heap_end = new
        return new


def _round(address: int, unit: int = _PAGE) -> int:
    return -(-address // unit) * unit


@MEMORY.handled(
    "mmap",
    "addr:address length:size prot:flags.prot flags:flags.map fd:fd offset:off",
    result="address",
)
def mmap(
    thread: Thread, address: int, length: int, prot: int, flags: int, fd: int, offset: int
) -> int:
    """Map anonymous memory or a file."""
    kind = flags & 3
    length = _round(length)
    anonymous = bool(flags & _MAP_ANONYMOUS)
    fd = -1 if anonymous else fd & 0xFFFFFFFF
    if offset % _PAGE:
        return -errno.EINVAL
    if not anonymous and (fd in thread.reserved or thread.call("fcntl", fd, _F_GETFD) < 0):
        return -errno.EBADF
    if not length or kind == 0:
        return -errno.EINVAL
    if kind == _MAP_SHARED_VALIDATE and flags & ~_MAP_KNOWN:
        return -errno.EOPNOTSUPP
    noreplace = bool(flags & _MAP_FIXED_NOREPLACE)
    fixed = noreplace or bool(flags & _MAP_FIXED)
    if fixed and (address % _PAGE):
        return -errno.EINVAL
    if length > thread.process.task_size or (fixed and address + length > thread.process.task_size):
        return -errno.ENOMEM
    if not fixed and address + length > thread.process.task_size:
        address = 0
    name = "" if anonymous else _file_name(fd)
    mapped = None
    if not anonymous and not fixed and not address and not offset and kind == _MAP_PRIVATE:
        mapped = _place_file(thread, length, prot & 7, fd, name)
    elif flags & ~_MAP_DENYWRITE == _MAP_PRIVATE | _MAP_ANONYMOUS and not prot and not address:
        mapped = _place_reservation(thread, length)
    if mapped is None:
        mapped = thread.space.map(
            address // _PAGE * _PAGE,
            length,
            prot & 7,
            fixed=fixed,
            noreplace=noreplace,
            fd=fd,
            offset=0 if anonymous else offset,
            shared=kind != _MAP_PRIVATE,
            name=name,
        )
    if flags & ~(_MAP_POPULATE | _MAP_LOCKED) == _MAP_PRIVATE | _MAP_ANONYMOUS:
        _prefer_huge_pages(thread, mapped, length)
    if flags & _MAP_GROWSDOWN and anonymous and kind == _MAP_PRIVATE:
        thread.process.growing.add(mapped + length)
        thread.engine.keep_exact()
    if flags & _MAP_LOCKED or thread.process.locks_mappings:
        thread.call("mlock", thread.space.base + mapped, length)
    if flags & _MAP_POPULATE:
        writes = prot & _PROT_WRITE and kind == _MAP_PRIVATE
        advice = _MADV_POPULATE_WRITE if writes else _MADV_POPULATE_READ
        thread.call("madvise", thread.space.base + mapped, length, advice)
    return mapped


def _prefer_huge_pages(thread: Thread, address: int, length: int) -> None:
    """Ask for huge pages where a program maps much memory to read and write it.

    Not where it chooses the place (parts of what it has reserved, used here and there), does not
    want all of it reserved, or for stacks: such memory is mostly empty. Nor in a process that gives
    such advice itself, or has huge pages switched off.
    """
    end = address + length
    if _round(address, _HUGE_PAGE) + _HUGE_PAGE > end or thread.process.advises_huge_pages:
        return
    region = thread.space.region_at(address)
    if region is None or region.end < end or region.file or region.shared:
        return
    if region.prot != _PROT_READ | _PROT_WRITE:
        return
    if thread.call("prctl", _PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0:
        # The result does not matter: a kernel without huge pages gives EINVAL.
        thread.call("madvise", thread.space.base + address, length, _MADV_HUGEPAGE)


def _place_file(thread: Thread, length: int, prot: int, fd: int, name: str) -> int | None:
    """Map a file with code where it belongs; None where it is none, or its places are taken."""
    for place in places(fd, length, thread.process.task_size):
        try:
            return thread.space.map(place, length, prot, noreplace=True, fd=fd, name=name)
        except FileExistsError:
            continue
    return None


def _place_reservation(thread: Thread, length: int) -> int | None:
    """Reserve room for the file that was opened last where that belongs, if it is for that."""
    fd, thread.opened = thread.opened, -1
    if fd >= 0:
        for place in reservation_places(fd, length, thread.process.task_size):
            try:
                return thread.space.map(place, length, 0, noreplace=True)
            except FileExistsError:
                continue
    return None


def _file_name(fd: int) -> str:
    """The file's name, for /proc/self/maps."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


@MEMORY.handled("munmap", "addr:address length:size")
def munmap(thread: Thread, address: int, length: int) -> int:
    """Unmap pages."""
    length = _round(length)
    if address % _PAGE or not length or address + length > thread.process.task_size:
        return -errno.EINVAL
    thread.space.unmap(address, length)
    return 0


@MEMORY.handled("mprotect", "addr:address length:size prot:flags.prot")
def mprotect(thread: Thread, address: int, length: int, prot: int) -> int:
    """Change what may be done with pages."""
    length = _round(length)
    if address % _PAGE or prot & ~7:
        return -errno.EINVAL
    if address + length > thread.process.task_size:
        return -errno.ENOMEM
    if length:
        thread.space.protect(address, length, prot)
    return 0


@MEMORY.handled(
    "mremap",
    "old:address old_size:size new_size:size flags:flags.mremap new:address",
    result="address",
)
def mremap(thread: Thread, old: int, old_size: int, size: int, flags: int, new: int) -> int:
    """Grow, shrink or move a mapping."""
    old_size, size = _round(old_size), _round(size)
    if old % _PAGE or not size or flags & ~7 or (flags & 6 and not flags & 1):
        return -errno.EINVAL
    if size > thread.process.task_size or old + old_size > thread.process.task_size:
        return -errno.EFAULT if size <= thread.process.task_size else -errno.ENOMEM
    result = thread.space.remap(old, old_size, size, flags, new)
    if size > old_size:
        _prefer_huge_pages(thread, result, size)
    return result


def _has_hole(thread: Thread, address: int, length: int) -> bool:
    """Whether a range has pages that are not mapped. To the host they are: it keeps them for us."""
    reached = address
    for region in thread.space.regions():
        if region.end > reached:
            if region.start > reached:
                break
            reached = region.end
            if reached >= address + length:
                return False
    return length > 0


@MEMORY.handled(
    "remap_file_pages", "addr:address size:size prot:flags.prot pgoff:size flags:flags.map"
)
def remap_file_pages(
    thread: Thread, address: int, size: int, prot: int, offset: int, flags: int
) -> int:
    """Show another part of the file in pages of a shared mapping."""
    start = address // _PAGE * _PAGE
    if start + size > thread.process.task_size or _has_hole(thread, start, size // _PAGE * _PAGE):
        return -errno.EINVAL
    thread.engine.code_changed(start, size)
    arguments = (thread.space.base + address, size, prot, offset, flags)
    return thread.call("remap_file_pages", *arguments)


def _lock(thread: Thread, name: str, address: int, length: int, *flags: int) -> int:
    start, end = address // _PAGE * _PAGE, _round(address + length)
    if end > thread.process.task_size:
        return -errno.ENOMEM if end >> 64 == 0 else -errno.EINVAL
    result = thread.call(name, thread.space.base + address, length, *flags)
    return -errno.ENOMEM if result == 0 and _has_hole(thread, start, end - start) else result


@MEMORY.handled("mlock", "addr:address len:size")
def mlock(thread: Thread, address: int, length: int) -> int:
    """Keep pages in memory."""
    return _lock(thread, "mlock", address, length)


@MEMORY.handled("mlock2", "addr:address len:size flags:hex")
def mlock2(thread: Thread, address: int, length: int, flags: int) -> int:
    """Keep pages in memory, now or once they are used."""
    return _lock(thread, "mlock2", address, length, flags)


@MEMORY.handled("munlock", "addr:address len:size")
def munlock(thread: Thread, address: int, length: int) -> int:
    """No longer keep pages in memory."""
    return _lock(thread, "munlock", address, length)


_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_MLOCK_ONFAULT: Final = 1


@MEMORY.handled("mlockall", "flags:hex")
def mlockall(thread: Thread, flags: int) -> int:
    """Keep all pages in memory: the guest's, not the interpreter's."""
    if flags & ~(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) or flags in (0, _MCL_ONFAULT):
        return -errno.EINVAL
    how = _MLOCK_ONFAULT if flags & _MCL_ONFAULT else 0
    if flags & _MCL_CURRENT:
        for region in thread.space.regions():
            start, pointer = region.start, thread.stack_pointer
            if region.name == "[stack]" and start <= pointer < region.end:
                start = pointer // _PAGE * _PAGE  # Linux would not have mapped what is below
            arguments = (thread.space.base + start, region.end - start, how)
            result = thread.call("mlock2", *arguments) if region.prot else 0
            if result < 0:
                return result
    thread.process.locks_mappings = bool(flags & _MCL_FUTURE)
    return 0


@MEMORY.handled("munlockall")
def munlockall(thread: Thread) -> int:
    """No longer keep pages in memory."""
    thread.process.locks_mappings = False
    for region in thread.space.regions():
        thread.call("munlock", thread.space.base + region.start, region.end - region.start)
    return 0


_MS_ASYNC, _MS_INVALIDATE, _MS_SYNC = 1, 2, 4


@MEMORY.handled("msync", "addr:address length:size flags:flags.msync")
def msync(thread: Thread, address: int, length: int, flags: int) -> int:
    """Write mapped pages to their files."""
    known = _MS_ASYNC | _MS_INVALIDATE | _MS_SYNC
    if flags & ~known or address % _PAGE or (flags & _MS_ASYNC and flags & _MS_SYNC):
        return -errno.EINVAL
    if address + length > thread.process.task_size:
        return -errno.ENOMEM
    result = thread.call("msync", thread.space.base + address, length, flags)
    return -errno.ENOMEM if result == 0 and _has_hole(thread, address, length) else result


@MEMORY.handled("mincore", "addr:address length:size vec:pointer")
def mincore(thread: Thread, address: int, length: int, vector: int) -> int:
    """Which pages are in memory."""
    if address % _PAGE:
        return -errno.EINVAL
    if address + length > thread.process.task_size or _has_hole(thread, address, length):
        return -errno.ENOMEM
    return thread.call("mincore", thread.space.base + address, length, thread.pointer(vector))


_MADV_DONTFORK, _MADV_DOFORK = 10, 11
_MADV_KEPT: Final = frozenset((*range(5), *range(8, 23), 24, 25, 102, 103))


@MEMORY.handled("madvise", "addr:address length:size advice:enum.madvise")
def madvise(thread: Thread, address: int, length: int, advice: int) -> int:
    """Advice about pages, as far as the host takes it from any program."""
    if address + length > thread.process.task_size:
        return -errno.ENOMEM
    if advice not in _MADV_KEPT:
        return -errno.EINVAL
    if advice in (_MADV_DONTFORK, _MADV_DOFORK):
        if address % _PAGE:
            return -errno.EINVAL
        thread.space.keep_from_children(address, length, advice == _MADV_DONTFORK)
        return -errno.ENOMEM if _has_hole(thread, address, length) else 0
    if advice in (_MADV_HUGEPAGE, _MADV_NOHUGEPAGE):
        thread.process.advises_huge_pages = True
    result = thread.call("madvise", thread.space.base + address, length, advice)
    return -errno.ENOMEM if result == 0 and _has_hole(thread, address, length) else result


_IOV_MAXIMUM: Final = 1024


def _copy_process(
    thread: Thread,
    name: str,
    pid: int,
    local: int,
    count: int,
    remote: int,
    others: int,
    flags: int,
) -> int:
    """Memory of a process of ours is where ours is: a forked child has the parent's layout."""
    if max(count, others) > _IOV_MAXIMUM:
        return -errno.EINVAL
    mine = thread.scratch_bytes(thread.host_vector(local, count))
    theirs = thread.scratch_bytes(thread.host_vector(remote, others))
    return thread.call(name, pid, mine, count, theirs, others, flags)


_VECTORS = "pid:pid local:address liovcnt:size remote:address riovcnt:size flags:hex"


@MEMORY.handled("process_vm_readv", _VECTORS)
def process_vm_readv(thread: Thread, pid: int, *rest: int) -> int:
    """Copy from another process."""
    return _copy_process(thread, "process_vm_readv", pid, *rest)


@MEMORY.handled("process_vm_writev", _VECTORS)
def process_vm_writev(thread: Thread, pid: int, *rest: int) -> int:
    """Copy to another process."""
    return _copy_process(thread, "process_vm_writev", pid, *rest)
