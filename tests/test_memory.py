"""Guest address spaces: mapping as Linux does it, page flags, checked access, snapshots."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyarch.errors import HostError, MemoryFault
from anyarch.host import mapping as host
from anyarch.memory.pageflags import CODE, EXEC, HOOK, READ, WRITE
from anyarch.memory.regions import Region
from anyarch.memory.snapshot import restore, save
from anyarch.memory.space import AddressSpace

PAGE = 4096
R, W, X = 1, 2, 4
RW = R | W


@pytest.fixture
def space() -> Iterator[AddressSpace]:
    space = AddressSpace()
    yield space
    space.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(b"".join(bytes([65 + i]) * PAGE for i in range(4)) + b"tail")
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def spans(space: AddressSpace) -> list[tuple[int, int, int]]:
    return [region[:3] for region in space.regions()]


def check_books(space: AddressSpace) -> None:
    """The host's view of the reservation is the space's: protections, and nothing else in it."""
    wanted: dict[int, str] = {}
    for region in space.regions():
        read = "r" if region.prot else "-"
        write = "w" if region.prot & W else "-"
        for page in range(region.start, region.end, PAGE):
            wanted[page] = read + write + "-"
    seen: dict[int, str] = {}
    covered = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split()[:2]
        low, high = (int(x, 16) - space.base for x in span.split("-"))
        low, high = max(low, 0), min(high, space.limit)
        if low < high:
            covered += high - low
            if permissions[:3] != "---":
                seen.update(dict.fromkeys(range(low, high, PAGE), permissions[:3]))
    assert covered == space.limit
    assert {page: p for page, p in wanted.items() if p != "---"} == seen


# Mapping


def test_placement_is_top_down(space: AddressSpace) -> None:
    first = space.map(None, PAGE, RW)
    second = space.map(None, 3 * PAGE, RW)
    assert first == space.mmap_base - PAGE
    assert second == first - 3 * PAGE
    space.unmap(first, PAGE)
    assert space.map(None, PAGE, R) == first
    assert space.find_free(PAGE) == second - PAGE


def test_hint_is_honoured_when_free(space: AddressSpace) -> None:
    assert space.map(0x123456, PAGE, R) == 0x124000
    other = space.map(0x124000, PAGE, R)
    assert other == space.mmap_base - PAGE
    assert space.map(0x124000, PAGE, RW, fixed=True) == 0x124000


def test_memory_is_zero_shared_with_the_host_pointer_and_replaced(space: AddressSpace) -> None:
    address = space.map(None, 2 * PAGE, RW)
    assert space.read(address, 2 * PAGE) == bytes(2 * PAGE)
    space.write(address + 10, b"hello")
    assert ctypes.string_at(space.base + address + 10, 5) == b"hello"
    space.map(address, PAGE, RW, fixed=True)
    assert space.read(address + 10, 5) == bytes(5)


@pytest.mark.parametrize(
    ("arguments", "options", "number"),
    [
        ((0x10000, 0, R), {}, errno.EINVAL),
        ((0x10001, PAGE, R), {"fixed": True}, errno.EINVAL),
        ((0x10000, PAGE, 8), {}, errno.EINVAL),
        ((0x10000, PAGE, R), {"offset": 5}, errno.EINVAL),
        ((1 << 38, PAGE, R), {"fixed": True}, errno.ENOMEM),
        (((1 << 38) - PAGE, 2 * PAGE, R), {"fixed": True}, errno.ENOMEM),
        ((0, 1 << 39, R), {}, errno.ENOMEM),
        ((0, 1 << 62, R), {}, errno.ENOMEM),
        ((0x20000, PAGE, R), {"noreplace": True}, errno.EEXIST),
        ((0x1F000, 2 * PAGE, R), {"noreplace": True}, errno.EEXIST),
        ((0, PAGE, R), {"fd": 9999}, errno.EBADF),
    ],
)
def test_map_errors(
    space: AddressSpace, arguments: tuple[int, int, int], options: dict[str, int], number: int
) -> None:
    space.map(0x20000, PAGE, RW, fixed=True)
    before = space.regions()
    with pytest.raises(OSError) as caught:
        space.map(*arguments, **options)  # type: ignore[arg-type]
    assert caught.value.errno == number
    assert space.regions() == before
    check_books(space)


def test_host_errors_pass_through_and_leave_the_books_right(
    space: AddressSpace, tmp_path: Path
) -> None:
    path = tmp_path / "read-only"
    path.write_bytes(b"x" * PAGE)
    fd = os.open(path, os.O_RDONLY)
    directory = os.open(tmp_path, os.O_RDONLY)
    space.map(0x20000, PAGE, RW, fixed=True)
    space.write(0x20000, b"kept")
    for descriptor, number in ((fd, errno.EACCES), (directory, errno.ENODEV)):
        for address in (0x20000, 0x30000):
            with pytest.raises(OSError) as caught:
                shared = descriptor == fd
                space.map(address, PAGE, RW, fixed=True, fd=descriptor, shared=shared)
            assert caught.value.errno == number
            check_books(space)
    assert space.read(0x20000, 4) == b"kept"
    space.map(0x30000, PAGE, RW, fixed=True, fd=fd)  # private: a copy may be written
    space.write(0x30000, b"y")
    assert path.read_bytes()[:1] == b"x"
    os.close(fd)
    os.close(directory)


def test_file_mappings(space: AddressSpace, file: int) -> None:
    private = space.map(None, 2 * PAGE, R, fd=file, offset=PAGE, name="/some/file")
    shared = space.map(None, PAGE, RW, fd=file, offset=PAGE, shared=True)
    assert space.read(private + PAGE - 1, 2) == b"BC"
    space.write(shared, b"written")
    assert os.pread(file, 7, PAGE) == b"written"
    region = next(r for r in space.regions() if r.start == private)
    assert region == Region(private, private + 2 * PAGE, R, False, True, PAGE, "/some/file")
    with pytest.raises(MemoryFault) as caught:  # past the end of the file
        tail = space.map(None, 2 * PAGE, R, fd=file, offset=4 * PAGE)
        assert space.read(tail, 4) == b"tail"
        space.read(tail + PAGE - 4, 8)
    assert caught.value.address == tail + PAGE


def test_unmap_splits(space: AddressSpace, file: int) -> None:
    space.map(0x100000, 4 * PAGE, RW, fixed=True, fd=file)
    space.unmap(0x101000, PAGE + 1)  # a length is rounded up
    assert [(*r[:2], r.offset) for r in space.regions()] == [
        (0x100000, 0x101000, 0),
        (0x103000, 0x104000, 3 * PAGE),
    ]
    space.unmap(0, space.limit)
    assert space.regions() == []
    space.unmap(0x100000, PAGE)  # nothing there: no error
    for address, nbytes in ((1, PAGE), (0, 0), (space.limit, PAGE), (0, space.limit + 1)):
        with pytest.raises(OSError) as caught:
            space.unmap(address, nbytes)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("is_split", [False, True])
def test_unmap_where_the_host_has_as_many_mappings_as_it_may(
    space: AddressSpace, monkeypatch: pytest.MonkeyPatch, is_split: bool
) -> None:
    """It refuses to replace a mapping, and to split one, but not to take one away."""
    start = space.map(None, 3 * PAGE, RW)
    space.write(start, b"kept")
    before = spans(space)
    map_pages, unmap_pages = host.map_pages, host.unmap_pages
    full = True

    def map_when_there_is_room(*arguments: int, **options: int) -> int:
        if full:
            raise OSError(errno.ENOMEM, "full")
        return map_pages(*arguments, **options)

    def unmap_what_is_whole(pointer: int, nbytes: int) -> None:
        nonlocal full
        if is_split:
            raise OSError(errno.ENOMEM, "full")
        full = False
        unmap_pages(pointer, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(host, "map_pages", map_when_there_is_room)
        patch.setattr(host, "unmap_pages", unmap_what_is_whole)
        if is_split:
            with pytest.raises(OSError, match="full"):
                space.unmap(start + PAGE, PAGE)
        else:
            space.unmap(start, 3 * PAGE)
    if is_split:
        assert spans(space) == before
        assert space.read(start, 4) == b"kept"
    else:
        assert not spans(space)
        assert space.map(start, PAGE, R, fixed=True) == start
    check_books(space)


def test_neighbours_merge(space: AddressSpace) -> None:
    for i in (0, 2, 1):
        space.map(0x100000 + i * PAGE, PAGE, RW, fixed=True)
    assert spans(space) == [(0x100000, 0x103000, RW)]
    space.protect(0x101000, PAGE, R)
    assert [s[2] for s in spans(space)] == [RW, R, RW]
    space.protect(0x100000, 3 * PAGE, RW)
    assert spans(space) == [(0x100000, 0x103000, RW)]


def test_protect_stops_at_a_hole(space: AddressSpace) -> None:
    space.map(0x100000, 2 * PAGE, RW, fixed=True)
    space.map(0x103000, PAGE, RW, fixed=True)
    with pytest.raises(OSError) as caught:
        space.protect(0x100000, 4 * PAGE, R)
    assert caught.value.errno == errno.ENOMEM
    assert spans(space) == [(0x100000, 0x102000, R), (0x103000, 0x104000, RW)]
    space.protect(0x100000, 0, R)
    for address, prot in ((0x100001, R), (0x100000, 8)):
        with pytest.raises(OSError) as caught:
            space.protect(address, PAGE, prot)
        assert caught.value.errno == errno.EINVAL


def test_executable_memory_is_only_readable_on_the_host(space: AddressSpace) -> None:
    space.map(0x100000, PAGE, X, fixed=True)
    space.map(0x101000, PAGE, RW | X, fixed=True)
    check_books(space)
    assert space.read(0x100000, 4) == bytes(4)
    space.write(0x101000, b"ok")


def test_remap_shrinks_grows_and_moves(space: AddressSpace) -> None:
    space.map(0x100000, 3 * PAGE, RW, fixed=True)
    space.write(0x100000, b"first")
    assert space.remap(0x100000, 3 * PAGE, PAGE) == 0x100000
    assert spans(space) == [(0x100000, 0x101000, RW)]
    assert space.remap(0x100000, PAGE, 4 * PAGE) == 0x100000
    space.write(0x103FF0, b"last")
    space.map(0x104000, PAGE, R, fixed=True)
    with pytest.raises(OSError) as caught:
        space.remap(0x100000, 4 * PAGE, 5 * PAGE)
    assert caught.value.errno == errno.ENOMEM
    moved = space.remap(0x100000, 4 * PAGE, 5 * PAGE, 1)
    assert space.read(moved, 5) == b"first"
    assert space.read(moved + 0x3FF0, 4) == b"last"
    assert space.read(moved + 4 * PAGE, 4) == bytes(4)
    with pytest.raises(MemoryFault):
        space.read(0x100000, 1)
    check_books(space)
    fixed = space.remap(moved, 5 * PAGE, 2 * PAGE, 3, 0x200000)
    assert fixed == 0x200000
    assert spans(space) == [(0x104000, 0x105000, R), (0x200000, 0x202000, RW)]
    check_books(space)
    kept = space.remap(fixed, 2 * PAGE, 2 * PAGE, 5)
    assert space.read(kept, 5) == b"first"
    assert space.read(fixed, 5) == bytes(5)
    check_books(space)


def test_remap_of_what_the_host_has_as_several_mappings(
    space: AddressSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.17 a move fails where huge pages were asked for in a part."""
    start = space.map(None, 2 * PAGE, RW)
    space.write(start, b"kept")
    move_pages = host.move_pages
    advised: list[tuple[int, int, int]] = []

    def move_what_is_one(*arguments: int) -> int:
        if not advised:
            raise OSError(errno.EFAULT, "several")
        return move_pages(*arguments)

    monkeypatch.setattr(host, "move_pages", move_what_is_one)
    monkeypatch.setattr(host, "advise_pages", lambda *arguments: advised.append(arguments))
    moved = space.remap(start, 2 * PAGE, 2 * PAGE, 3, start - 16 * PAGE)
    assert space.read(moved, 4) == b"kept"
    assert advised == [(space.base + start, 2 * PAGE, host.MADV_HUGEPAGE)]
    check_books(space)


def test_remap_of_files_and_duplicates(space: AddressSpace, file: int) -> None:
    space.map(0x100000, PAGE, R, fixed=True, fd=file, offset=PAGE)
    moved = space.remap(0x100000, PAGE, 2 * PAGE, 1)
    assert space.read(moved + PAGE - 1, 2) == b"BC"
    assert spans(space) == [(moved, moved + 2 * PAGE, R)]
    shared = space.map(None, PAGE, RW, shared=True)
    double = space.remap(shared, 0, PAGE, 1)
    space.write(shared, b"both")
    assert space.read(double, 4) == b"both"
    check_books(space)


@pytest.mark.parametrize(
    ("arguments", "options", "number"),
    [
        ((0x100001, PAGE, PAGE), {}, errno.EINVAL),
        ((0x100000, PAGE, 0), {}, errno.EINVAL),
        ((0x100000, PAGE, PAGE), {"flags": 2, "new_address": 0x300000}, errno.EINVAL),
        ((0x100000, PAGE, PAGE), {"flags": 3, "new_address": 0x100000}, errno.EINVAL),
        ((0x100000, 0, PAGE), {"flags": 1}, errno.EINVAL),
        ((0x500000, PAGE, PAGE), {}, errno.EFAULT),
        ((0x100000, 9 * PAGE, 10 * PAGE), {"flags": 1}, errno.EFAULT),
    ],
)
def test_remap_errors(
    space: AddressSpace, arguments: tuple[int, int, int], options: dict[str, int], number: int
) -> None:
    space.map(0x100000, 2 * PAGE, RW, fixed=True)
    with pytest.raises(OSError) as caught:
        space.remap(*arguments, **options)  # type: ignore[arg-type]
    assert caught.value.errno == number


def test_random_operations_agree_with_a_page_model(space: AddressSpace) -> None:
    """Protection, contents and flags of every page of a small window, after every operation."""
    generator = random.Random(7)
    window, pages = 0x400000, 12
    model: dict[int, tuple[int, int]] = {}  # page: protection, first byte

    def some() -> tuple[int, int]:
        first = generator.randrange(pages)
        return first, generator.randint(1, pages - first)

    for step in range(600):
        kind = generator.choice(["map", "map", "unmap", "protect", "write", "remap"])
        first, count = some()
        start, span = window + first * PAGE, range(first, first + count)
        prot = generator.choice([0, R, RW, X, R | X, RW | X])
        if kind == "map":
            space.map(start, count * PAGE, prot, fixed=True)
            model.update(dict.fromkeys(span, (prot, 0)))
        elif kind == "unmap":
            space.unmap(start, count * PAGE)
            for page in span:
                model.pop(page, None)
        elif kind == "protect":
            try:
                space.protect(start, count * PAGE, prot)
            except OSError:
                assert any(page not in model for page in span)
            for page in span:
                if page not in model:
                    break
                model[page] = (prot, model[page][1])
        elif kind == "write":
            value = step % 255 + 1
            if model.get(first, (0, 0))[0] & W:
                space.write(start, bytes([value]))
                model[first] = (model[first][0], value)
            else:
                with pytest.raises(MemoryFault):
                    space.write(start, bytes([value]))
        elif first in model and {model.get(p, (9,))[0] for p in span} == {model[first][0]}:
            target, _ = some()
            target = min(target, pages - count)
            to = range(target, target + count)
            if not set(to) & set(span):
                new = window + target * PAGE
                space.remap(start, count * PAGE, count * PAGE, 3, new)
                for old, page in zip(span, to, strict=True):
                    model[page] = model.pop(old)
        for page in range(pages):
            prot, value = model.get(page, (0, 0))
            address = window + page * PAGE
            assert space.flags[address] == prot
            if prot:
                assert space.read(address, 1) == bytes([value])
            else:
                with pytest.raises(MemoryFault):
                    space.read(address, 1)
        covered = {p for a, b, _ in spans(space) for p in range(a, b, PAGE)}
        assert covered == {window + page * PAGE for page in model}
    check_books(space)


# Page flags


def test_flags_follow_protection(space: AddressSpace) -> None:
    table = space.page_flags
    space.map(0x100000, 2 * PAGE, RW, fixed=True)
    assert ctypes.string_at(table + 0xFF, 4) == bytes([0, READ | WRITE, READ | WRITE, 0])
    space.protect(0x101000, PAGE, R | X)
    assert space.flags[0x101FFF] == READ | EXEC
    space.unmap(0x100000, PAGE)
    assert ctypes.string_at(table + 0x100, 2) == bytes([0, READ | EXEC])
    assert space.flags[space.limit] == 0
    with pytest.raises(IndexError):
        space.flags[space.limit + PAGE]


def test_flags_of_huge_ranges_take_no_memory_when_inaccessible(space: AddressSpace) -> None:
    nbytes = 64 << 30
    start = space.map(None, nbytes, 0)
    space.protect(start + (1 << 20), PAGE, RW)
    assert space.flags[start + (1 << 20)] == RW
    space.unmap(start, nbytes)
    assert space.flags[start + (1 << 20)] == 0


def test_code_changes_are_announced_once(space: AddressSpace) -> None:
    seen: list[tuple[int, int]] = []
    space.on_code_change = lambda low, high: seen.append((low, high))
    space.map(0x100000, 8 * PAGE, R | X, fixed=True)

    def translate(*pages: int) -> None:
        for page in pages:
            ctypes.c_uint8.from_address(space.page_flags + 0x100 + page).value |= CODE

    translate(1, 2, 5)
    space.protect(0x100000, 8 * PAGE, RW | X)
    assert seen == [(0x101000, 0x103000), (0x105000, 0x106000)]
    space.protect(0x100000, 8 * PAGE, R | X)
    assert len(seen) == 2  # no code left
    translate(0)
    space.protect(0x100000, 8 * PAGE, R | X)
    assert len(seen) == 2  # nothing changes
    space.map(0x100000, PAGE, R, fixed=True)
    translate(3, 7)
    space.unmap(0x103000, PAGE)
    space.remap(0x104000, 4 * PAGE, 4 * PAGE, 3, 0x200000)
    assert seen[2:] == [(0x100000, 0x101000), (0x103000, 0x104000), (0x107000, 0x108000)]
    assert space.flags[0x203000] == R | X


def test_hooks_stay_where_they_were_set(space: AddressSpace) -> None:
    space.map(0x100000, PAGE, R | X, fixed=True)
    space.flags.set_hook(0x100123, True)
    space.protect(0x100000, PAGE, R)
    assert space.flags[0x100000] == R | HOOK
    space.flags.set_hook(0x100123, False)
    assert space.flags[0x100000] == R


# Contents


def test_first_bad_address_is_exact(space: AddressSpace) -> None:
    space.map(0x100000, 40 * PAGE, RW, fixed=True)
    space.protect(0x100000 + 33 * PAGE, PAGE, R)
    bad = 0x100000 + 40 * PAGE
    for start, nbytes in ((0x100000, 41 * PAGE), (bad - 1, 2), (bad - PAGE - 3, 2 * PAGE)):
        with pytest.raises(MemoryFault) as caught:
            space.read(start, nbytes)
        assert (caught.value.address, caught.value.access) == (bad, "read")
    with pytest.raises(MemoryFault) as caught:
        space.write(0x100010, b"z" * 40 * PAGE)
    assert (caught.value.address, caught.value.access) == (0x100000 + 33 * PAGE, "write")
    assert space.read(0x100000 + 33 * PAGE - 1, 2) == b"z\0"
    for address in (-1, 1 << 63, space.limit, 0x900):
        with pytest.raises(MemoryFault) as caught:
            space.read(address, 4)
        assert caught.value.address == address
    with pytest.raises(MemoryFault) as caught:
        space.read(space.limit - 2, 4)
    assert space.read(0x100000, 0) == b""


def test_strings_and_integers(space: AddressSpace) -> None:
    space.map(0x100000, PAGE, RW, fixed=True)
    space.write(0x100FF8, b"in page\0")
    assert space.read_cstring(0x100FF8) == b"in page"
    space.write(0x100000, b"a" * 1000 + b"\0")
    assert space.read_cstring(0x100000) == b"a" * 1000
    with pytest.raises(OSError) as caught:
        space.read_cstring(0x100000, 1000)
    assert caught.value.errno == errno.ENAMETOOLONG
    space.write(0x100FF8, b"no end..")
    with pytest.raises(MemoryFault) as fault:
        space.read_cstring(0x100FF8)
    assert fault.value.address == 0x101000
    space.write_int(0x100010, -2, 4)
    assert space.read(0x100010, 5) == b"\xfe\xff\xff\xffa"
    assert space.read_int(0x100010, 4) == 0xFFFFFFFE
    assert space.read_int(0x100010, 4, signed=True) == -2


def test_access_survives_concurrent_unmapping(space: AddressSpace) -> None:
    done = threading.Event()

    def toggle() -> None:
        for _ in range(300):
            space.map(0x100000, 16 * PAGE, RW, fixed=True)
            space.unmap(0x100000, 16 * PAGE)
        done.set()

    thread = threading.Thread(target=toggle)
    thread.start()
    outcomes = set()
    while not done.is_set():
        try:
            space.write(0x100000, bytes(16 * PAGE))
            outcomes.add(len(space.read(0x100000, 16 * PAGE)))
        except MemoryFault as fault:
            assert 0x100000 <= fault.address < 0x110000
    thread.join()
    assert outcomes <= {16 * PAGE}


@pytest.mark.parametrize("bits", [16, 20, 32])
def test_small_bounded_arenas(bits: int) -> None:
    space = AddressSpace(bits, bounded=True)
    assert space.bounded
    assert space.limit == 1 << bits
    address = space.map(None, PAGE, RW)
    space.write(address, b"x")
    space.map(0, PAGE, RW, fixed=True)
    space.map(space.limit - PAGE, PAGE, RW, fixed=True)
    with pytest.raises(OSError):
        space.map(None, space.limit, R)
    check_books(space)
    space.close()
    with pytest.raises(HostError, match="16 to 46"):
        AddressSpace(64)


def test_snapshot_keeps_contents_and_skips_untouched_pages(space: AddressSpace, file: int) -> None:
    space.map(0x100000, 1 << 30, RW, fixed=True)
    space.write(0x100FFE, b"over the border")
    space.write(0x40000000, b"far")
    hidden = space.map(None, PAGE, RW, name="[hidden]")
    space.write(hidden, b"hidden")
    space.protect(hidden, PAGE, 0)
    mapped = space.map(None, 8 * PAGE, R, fd=file)
    snapshot = save(space)
    assert sum(len(data) for _, _, data in snapshot.contents) == 9 * PAGE
    assert (hidden, 0, b"hidden" + bytes(PAGE - 6)) in snapshot.contents
    space.write(0x100FFE, b"something else..")
    space.map(None, PAGE, RW)
    space.unmap(mapped, PAGE)
    restore(space, snapshot)
    assert spans(space) == [region[:3] for region in snapshot.regions]
    assert space.read(0x100FFE, 15) == b"over the border"
    assert space.read(0x40000000, 3) == b"far"
    assert space.read(mapped + PAGE, 1) == b"B"
    assert save(space).contents == snapshot.contents
    check_books(space)
