"""The address space: mapping, protection, the heap."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from anyarch.linux.calls.table import Family

if TYPE_CHECKING:
    from anyarch.linux.process import Process

MEMORY: Final = Family()
_PAGE: Final = 4096
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE = 1, 2, 3
_MAP_FIXED, _MAP_ANONYMOUS, _MAP_POPULATE, _MAP_FIXED_NOREPLACE = 0x10, 0x20, 0x8000, 0x100000
_MADV_POPULATE: Final = 14

for _name, _signature in {
    "msync": "addr:pointer length:size flags:flags.msync",
    "mincore": "addr:pointer length:size vec:pointer",
    "mlock": "addr:pointer len:size",
    "mlock2": "addr:pointer len:size flags:hex",
    "munlock": "addr:pointer len:size",
}.items():
    MEMORY.passed(_name, _signature, native=True)

for _name, _signature in {
    "mlockall": "flags:hex",
    "munlockall": "",
    "membarrier": "cmd:int",
}.items():
    MEMORY.passed(_name, _signature)


@MEMORY.handled("brk", "brk:address", result="address")
def brk(process: Process, address: int) -> int:
    """Move the end of the heap; the old end is the answer where that is impossible."""
    old, new = process.heap_end, address
    if not process.image.heap <= new <= process.image.heap + process.heap_limit:
        return old
    mapped, wanted = _round(old), _round(new)
    try:
        if wanted > mapped:
            process.space.map(
                mapped,
                wanted - mapped,
                _PROT_READ | _PROT_WRITE,
                fixed=True,
                noreplace=True,
                name="[heap]",
            )
        elif wanted < mapped:
            process.space.unmap(wanted, mapped - wanted)
    except OSError:
        return old
    process.heap_end = new
    return new


def _round(address: int) -> int:
    return -(-address // _PAGE) * _PAGE


@MEMORY.handled(
    "mmap",
    "addr:address length:size prot:flags.prot flags:flags.map fd:fd offset:off",
    result="address",
)
def mmap(
    process: Process, address: int, length: int, prot: int, flags: int, fd: int, offset: int
) -> int:
    """Map anonymous memory or a file."""
    kind = flags & 3
    length = _round(length)
    if not length or kind == 0 or offset % _PAGE:
        return -errno.EINVAL
    noreplace = bool(flags & _MAP_FIXED_NOREPLACE)
    fixed = noreplace or bool(flags & _MAP_FIXED)
    if fixed and (address % _PAGE):
        return -errno.EINVAL
    if length > process.task_size or (fixed and address + length > process.task_size):
        return -errno.ENOMEM
    anonymous = bool(flags & _MAP_ANONYMOUS)
    fd = -1 if anonymous else fd & 0xFFFFFFFF
    if not anonymous and fd in process.reserved:
        return -errno.EBADF
    if not fixed and address + length > process.task_size:
        address = 0
    mapped = process.space.map(
        address // _PAGE * _PAGE,
        length,
        prot & 7,
        fixed=fixed,
        noreplace=noreplace,
        fd=fd,
        offset=0 if anonymous else offset,
        shared=kind != _MAP_PRIVATE,
    )
    if flags & _MAP_POPULATE:
        process.call("madvise", process.space.base + mapped, length, _MADV_POPULATE)
    return mapped


@MEMORY.handled("munmap", "addr:address length:size")
def munmap(process: Process, address: int, length: int) -> int:
    """Unmap pages."""
    length = _round(length)
    if address % _PAGE or not length or address + length > process.task_size:
        return -errno.EINVAL
    process.space.unmap(address, length)
    return 0


@MEMORY.handled("mprotect", "addr:address length:size prot:flags.prot")
def mprotect(process: Process, address: int, length: int, prot: int) -> int:
    """Change what may be done with pages."""
    length = _round(length)
    if address % _PAGE or prot & ~7:
        return -errno.EINVAL
    if address + length > process.task_size:
        return -errno.ENOMEM
    if length:
        process.space.protect(address, length, prot)
    return 0


@MEMORY.handled(
    "mremap",
    "old:address old_size:size new_size:size flags:flags.mremap new:address",
    result="address",
)
def mremap(process: Process, old: int, old_size: int, size: int, flags: int, new: int) -> int:
    """Grow, shrink or move a mapping."""
    old_size, size = _round(old_size), _round(size)
    if old % _PAGE or not size or flags & ~7 or (flags & 6 and not flags & 1):
        return -errno.EINVAL
    if size > process.task_size or old + old_size > process.task_size:
        return -errno.EFAULT if size <= process.task_size else -errno.ENOMEM
    return process.space.remap(old, old_size, size, flags, new)


_MADV_KEPT: Final = frozenset((0, 1, 2, 3, 4, *range(8, 23)))


@MEMORY.handled("madvise", "addr:address length:size advice:enum.madvise")
def madvise(process: Process, address: int, length: int, advice: int) -> int:
    """Advice about pages, as far as the host takes it from any program."""
    if address + length > process.task_size:
        return -errno.ENOMEM
    if advice not in _MADV_KEPT:
        return -errno.EINVAL
    return process.call("madvise", process.space.base + address, length, advice)
