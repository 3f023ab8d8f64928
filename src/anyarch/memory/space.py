"""A guest's address space: mapped flat into ours, at `base` + guest address.

The operations and their errors are those of Linux (mmap(2), munmap(2), mprotect(2), mremap(2)).
Guest code is never executed by the host, so that what the guest may execute the host may read.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import RLock
from collections.abc import Callable
from typing import Final

from anyarch.errors import HostError, MemoryFault
from anyarch.host import mapping as host
from anyarch.host.cpu import PAGE
from anyarch.memory.access import read, write
from anyarch.memory.pageflags import PageFlags
from anyarch.memory.regions import Region, Regions

__all__ = ["AddressSpace"]

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
_PROT_ALL: Final = PROT_READ | PROT_WRITE | PROT_EXEC

_MREMAP_ALL: Final = host.MREMAP_MAYMOVE | host.MREMAP_FIXED | host.MREMAP_DONTUNMAP

_GUARD: Final = 2 << 20  # on both sides, and the alignment of `base`: a huge page
_LOWEST: Final = 0x10000  # mmap never chooses lower addresses (vm.mmap_min_addr)
_STACK_GAP: Final = 128 << 20  # Linux leaves at least this below the end for the stack
_CSTRING_CHUNK: Final = 256


class AddressSpace:
    """`2**bits` bytes of guest addresses.

    `base` is the host pointer of guest address 0, `limit` the first address past the end,
    `page_flags` the host pointer of a byte per 4 KiB page (:mod:`anyarch.memory.pageflags`).
    `on_code_change(start, end)` is called, with the lock held, before pages whose code was
    translated, or that are marked like such, are unmapped or replaced, and when they get another
    protection. `bounded` tells native code to check every address against the limit. With `direct`,
    `base` is 0 where the host has nothing at these addresses yet: then no access has to add
    anything. Safe to use from several threads.
    """

    def __init__(self, bits: int = 38, *, bounded: bool = False, direct: bool = False) -> None:
        if not 16 <= bits <= 46:
            raise HostError(f"address space of {bits} bits: expected 16 to 46")
        self.limit = 1 << bits
        self.bounded = bounded
        self.mmap_base = self.limit - _STACK_GAP if bits >= 32 else self.limit
        self.on_code_change: Callable[[int, int], None] | None = None
        self.lock = RLock()
        self.version = 0  # changes when something executable is mapped
        self._regions = Regions()
        self._start = self._nbytes = 0
        try:
            self._reserve_all(direct)
            self.flags = PageFlags(self.limit)
        except OSError as error:
            if self._start:
                host.unmap_pages(self._start, self._nbytes)
            raise HostError(
                f"cannot reserve {bits} bits of address space: {error}; is there a limit on "
                "virtual memory (ulimit -v)?"
            ) from error

    def _reserve_all(self, direct: bool) -> None:
        self._nbytes = self.limit + _GUARD - _LOWEST
        if direct and host.reserve_at(_LOWEST, self._nbytes):
            self._start, self.base = _LOWEST, 0
            return
        self._nbytes = self.limit + 2 * _GUARD
        self._start = host.reserve(self._nbytes, _GUARD)
        self.base = self._start + _GUARD

    @property
    def page_flags(self) -> int:
        """Host pointer of the page flags."""
        return self.flags.pointer

    def close(self) -> None:
        """Give all memory back; the space must not be used any more, by native code neither."""
        if self._start:
            host.unmap_pages(self._start, self._nbytes)
            self.flags.unmap()
            self._start = 0

    # Mapping

    def map(
        self,
        address: int | None,
        nbytes: int,
        prot: int,
        *,
        fixed: bool = False,
        noreplace: bool = False,
        fd: int = -1,
        offset: int = 0,
        shared: bool = False,
        name: str = "",
    ) -> int:
        """Map memory, of a file if `fd` is given; returns the address.

        Without `fixed` or `noreplace` the address is a hint. OSError as mmap(2).
        """
        if nbytes <= 0 or offset % PAGE or offset < 0 or prot & ~_PROT_ALL:
            raise _error(errno.EINVAL)
        nbytes = host.round_up(nbytes)
        if nbytes > self.limit:
            raise _error(errno.ENOMEM)
        fixed = fixed or noreplace
        hint = address or 0
        with self.lock:
            if fixed:
                if hint % PAGE:
                    raise _error(errno.EINVAL)
                if not 0 <= hint <= self.limit - nbytes:
                    raise _error(errno.ENOMEM)
                if noreplace and not self._regions.is_free(hint, hint + nbytes):
                    raise _error(errno.EEXIST)
                start = hint
            else:
                start = self._choose(hint, nbytes)
            end = start + nbytes
            self._announce(start, end)
            self._map_host(start, end, prot, fd, offset, shared)
            self._regions.insert(Region(start, end, prot, shared, fd >= 0, offset, name))
            self.version += prot & PROT_EXEC
            self.flags.fill(start, end, prot)
            return start

    def find_free(self, nbytes: int) -> int:
        """Where mmap would place `nbytes`: the highest free addresses. OSError(ENOMEM) if none."""
        nbytes = host.round_up(nbytes)
        with self.lock:
            low = min(_LOWEST, self.limit // 16)
            found = self._regions.find_free(nbytes, low, self.mmap_base)
            if found is None:
                found = self._regions.find_free(nbytes, low, self.limit)
            if found is None:
                raise _error(errno.ENOMEM)
            return found

    def unmap(self, address: int, nbytes: int) -> None:
        """Unmap a range, holes in it included. OSError as munmap(2)."""
        end = address + host.round_up(nbytes)
        if address % PAGE or nbytes <= 0 or not 0 <= address < end <= self.limit:
            raise _error(errno.EINVAL)
        with self.lock:
            if self._regions.is_free(address, end):
                return
            self._announce(address, end)
            self.flags.fill(address, end, 0)
            try:
                self._reserve(address, end)
            except OSError:  # the host has as many mappings as it may, and would have one more
                for region in self._regions.overlap(address, end):
                    self.flags.fill(region.start, region.end, region.prot)
                raise
            self._regions.remove(address, end)

    def protect(self, address: int, nbytes: int, prot: int) -> None:
        """Change the protection of a range, up to the first hole in it. OSError as mprotect(2)."""
        if address % PAGE or nbytes < 0 or prot & ~_PROT_ALL:
            raise _error(errno.EINVAL)
        end = address + host.round_up(nbytes)
        if not 0 <= address <= end <= self.limit:
            raise _error(errno.ENOMEM)
        with self.lock:
            reached = address
            for region in self._regions.overlap(address, end):
                if region.start != reached:
                    break
                if region.prot != prot:
                    pointer = self.base + region.start
                    host.protect_pages(pointer, region.end - region.start, _host_prot(prot))
                    self._regions.insert(region._replace(prot=prot))
                    self.version += prot & PROT_EXEC
                    # Other threads run and translate here meanwhile: code is dropped when nothing
                    # more can be translated that finds the flags from before.
                    changed = self.flags.code_runs(region.start, region.end)
                    self.flags.fill(region.start, region.end, prot)
                    if self.on_code_change is not None:
                        for low, high in changed:
                            self.on_code_change(low, high)
                reached = region.end
            if reached != end:
                raise _error(errno.ENOMEM)

    def keep_from_children(self, address: int, nbytes: int, kept: bool) -> None:
        """Say whether a forked child is to be without a range: MADV_DONTFORK of madvise(2).

        The host is not told: what it left unmapped in a child would be room for our own memory.
        """
        end = address + host.round_up(nbytes)
        with self.lock:
            for region in list(self._regions.overlap(address, end)):
                self._regions.insert(region._replace(parents=kept))

    def after_fork(self) -> None:
        """In a forked child: unmap what is its parent's alone."""
        for region in self.regions():
            if region.parents:
                self.unmap(region.start, region.end - region.start)

    def remap(
        self,
        address: int,
        old_nbytes: int,
        new_nbytes: int,
        flags: int = 0,
        new_address: int = 0,
    ) -> int:
        """Resize or move a mapping; `flags` and errors (OSError) are those of mremap(2)."""
        maymove = bool(flags & host.MREMAP_MAYMOVE)
        fixed = bool(flags & host.MREMAP_FIXED)
        dontunmap = bool(flags & host.MREMAP_DONTUNMAP)
        if flags & ~_MREMAP_ALL:
            raise _error(errno.EINVAL)
        old_nbytes, new_nbytes = host.round_up(old_nbytes), host.round_up(new_nbytes)
        if address % PAGE or new_nbytes <= 0 or old_nbytes < 0:
            raise _error(errno.EINVAL)
        if (fixed or dontunmap) and not maymove:
            raise _error(errno.EINVAL)
        if dontunmap and old_nbytes != new_nbytes:
            raise _error(errno.EINVAL)
        if new_nbytes > self.limit:
            raise _error(errno.ENOMEM)
        with self.lock:
            if fixed:
                if new_address % PAGE or not 0 <= new_address <= self.limit - new_nbytes:
                    raise _error(errno.EINVAL)
                if address < new_address + new_nbytes and new_address < address + old_nbytes:
                    raise _error(errno.EINVAL)
            source = self._regions.find(address)
            if source is None or address + max(old_nbytes, 1) > source.end:
                raise _error(errno.EFAULT)
            if old_nbytes == 0 and not source.shared:
                raise _error(errno.EINVAL)
            if not fixed and not dontunmap and old_nbytes:
                if new_nbytes <= old_nbytes:
                    if new_nbytes < old_nbytes:
                        self.unmap(address + new_nbytes, old_nbytes - new_nbytes)
                    return address
                if self._grow(source, address + old_nbytes, address + new_nbytes):
                    return address
                if not maymove:
                    raise _error(errno.ENOMEM)
            target = new_address if fixed else self._choose(0, new_nbytes)
            self._move(source, address, old_nbytes, new_nbytes, target, dontunmap)
            return target

    def regions(self) -> list[Region]:
        """What is mapped, in order of address."""
        with self.lock:
            return list(self._regions)

    def region_at(self, address: int) -> Region | None:
        """What is mapped at an address."""
        with self.lock:
            return self._regions.find(address)

    def _choose(self, hint: int, nbytes: int) -> int:
        hint = host.round_up(hint)
        if _LOWEST <= hint <= self.limit - nbytes and self._regions.is_free(hint, hint + nbytes):
            return hint
        return self.find_free(nbytes)

    def _announce(self, start: int, end: int) -> None:
        """Report pages in a range that is about to change with translated code, or with constants
        that compiled code relies on."""
        for region in self._regions.overlap(start, end):
            if region.prot & PROT_EXEC or region.prot == PROT_READ:
                for low, high in self.flags.code_runs(region.start, region.end):
                    self.flags.clear_code(low, high)
                    if self.on_code_change is not None:
                        self.on_code_change(low, high)

    def _map_host(
        self, start: int, end: int, prot: int, fd: int, offset: int, shared: bool
    ) -> None:
        flags = host.MAP_FIXED | (host.MAP_SHARED if shared else host.MAP_PRIVATE)
        if fd < 0:
            flags |= host.MAP_ANONYMOUS
        nbytes, pointer = end - start, self.base + start
        try:
            host.map_pages(
                nbytes, _host_prot(prot), pointer=pointer, flags=flags, fd=fd, offset=offset
            )
        except OSError:
            self._keep_reserved(start, end)
            raise

    def _reserve(self, start: int, end: int) -> None:
        """Return addresses to the reservation, whatever is mapped there."""
        pointer = self.base + start
        flags = host.MAP_FIXED | host.MAP_PRIVATE | host.MAP_ANONYMOUS | host.MAP_NORESERVE
        try:
            host.map_pages(end - start, 0, pointer=pointer, flags=flags)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            # With as many mappings as there may be one has to go before another takes its place.
            host.unmap_pages(pointer, end - start)
            host.map_pages(end - start, 0, pointer=pointer, flags=flags)

    def _keep_reserved(self, start: int, end: int) -> None:
        """Reserve addresses again that the host has left unmapped, if nothing else took them.

        Some kernels unmap what was there before they notice that a file cannot be mapped.
        """
        flags = host.MAP_PRIVATE | host.MAP_ANONYMOUS | host.MAP_NORESERVE
        flags |= host.MAP_FIXED_NOREPLACE
        try:
            host.map_pages(end - start, 0, pointer=self.base + start, flags=flags)
        except FileExistsError:
            return
        self._regions.remove(start, end)
        self.flags.fill(start, end, 0)

    def _grow(self, source: Region, start: int, end: int) -> bool:
        """Extend private memory in place; other mappings grow by moving."""
        if source.file or source.shared or source.end != start or end > self.limit:
            return False
        if not self._regions.is_free(start, end):
            return False
        self._map_host(start, end, source.prot, -1, 0, False)
        self._regions.insert(source.part(start, start)._replace(end=end))
        self.flags.fill(start, end, source.prot)
        return True

    def _move(
        self, source: Region, address: int, old: int, new: int, target: int, keep: bool
    ) -> None:
        moved = source.part(address, address)._replace(start=target, end=target + new)
        self._announce(address, address + old)
        self._announce(target, target + new)
        flags = host.MREMAP_MAYMOVE | host.MREMAP_FIXED
        common = min(old, new)
        pointer, target_pointer = self.base + address, self.base + target
        if keep or not (source.file or source.shared):
            # The old range stays ours throughout: nothing else of this process can get into it.
            flags |= host.MREMAP_DONTUNMAP
            try:
                host.move_pages(pointer, common, common, flags, target_pointer)
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
                # To the host these are several mappings if we asked for huge pages in some only.
                host.advise_pages(pointer, common, host.MADV_HUGEPAGE)
                host.move_pages(pointer, common, common, flags, target_pointer)
            if new > common:
                self._map_host(target + common, target + new, source.prot, -1, 0, False)
            if not keep:
                self._reserve(address, address + old)
        else:
            host.move_pages(pointer, old, new, flags, target_pointer)
        if old and not keep:
            self._regions.remove(address, address + old)
            self.flags.fill(address, address + old, 0)
            if source.file or source.shared:
                self._keep_reserved(address, address + old)
        self._regions.insert(moved)
        self.flags.fill(target, target + new, source.prot)

    # Contents

    def read(self, address: int, nbytes: int) -> bytes:
        """Copy guest memory; MemoryFault names the first address that cannot be read."""
        self._check(address, nbytes, "read")
        data = read(self.base + address, nbytes)
        while len(data) < nbytes:
            rest = nbytes - len(data)
            more = read(self.base + address + len(data), rest)
            if not more:
                raise MemoryFault(address + len(data), "read")
            data += more
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy into guest memory; MemoryFault names the first address that cannot be written.

        What lies before that address has been written, as by a system call.
        """
        data = bytes(data)
        self._check(address, len(data), "write")
        done = write(self.base + address, data) if data else 0
        while done < len(data):
            count = write(self.base + address + done, data[done:])
            if not count:
                raise MemoryFault(address + done, "write")
            done += count

    def read_cstring(self, address: int, limit: int = 4096) -> bytes:
        """The bytes before the next zero byte; OSError(ENAMETOOLONG) if `limit` bytes hold none."""
        parts: list[bytes] = []
        done = 0
        while done < limit:
            start = address + done
            nbytes = min(_CSTRING_CHUNK, PAGE - start % PAGE, limit - done)
            part = self.read(start, nbytes)
            end = part.find(0)
            if end >= 0:
                parts.append(part[:end])
                return b"".join(parts)
            parts.append(part)
            done += nbytes
        raise _error(errno.ENAMETOOLONG)

    def read_int(self, address: int, nbytes: int, *, signed: bool = False) -> int:
        """A little-endian integer."""
        return int.from_bytes(self.read(address, nbytes), "little", signed=signed)

    def write_int(self, address: int, value: int, nbytes: int) -> None:
        """Write a little-endian integer, modulo its width."""
        self.write(address, (value & ((1 << 8 * nbytes) - 1)).to_bytes(nbytes, "little"))

    def _check(self, address: int, nbytes: int, access: str) -> None:
        if nbytes < 0:
            raise ValueError(f"{nbytes} bytes: expected none or more")
        if not 0 <= address <= self.limit - nbytes:
            bad = self.limit if 0 <= address < self.limit else address
            raise MemoryFault(bad, access)

    def __del__(self) -> None:
        # getattr: the constructor may have failed; at exit the process ends anyway.
        if getattr(self, "_start", 0) and not sys.is_finalizing():
            self.close()


def _host_prot(prot: int) -> int:
    """Execution is reading; the host cannot write without reading."""
    if prot & PROT_WRITE:
        return host.PROT_READ | host.PROT_WRITE
    return host.PROT_READ if prot else host.PROT_NONE


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
