"""Regions on disk: nothing that was kept is lost or comes back wrong, whoever is killed when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from anyarch.emit.blob import Blob
from anyarch.engine.bundle import CompiledRegion
from anyarch.engine.cache import REGIONS, CodeCache, key_for
from anyarch.engine.collection import (
    cache_limit,
    collect,
    collect_when_due,
    parse_size,
    verify,
)
from anyarch.engine.store import BundleFile, RegionStore, verify_regions, write_bundle
from anyarch.errors import Error
from anyarch.memory.regions import Region
from tests.stored_regions import guest_code, large_region, region

KEY: Final = key_for("mapping")
CODE: Final = 0x10000
WRITER: Final = """
import os, sys, time
sys.path[:0] = {path!r}
from anyarch.emit.blob import Blob
from anyarch.engine.cache import CodeCache, REGIONS, key_for, lock_file
from anyarch.engine.collection import collect
from anyarch.engine.store import RegionStore
from tests.stored_regions import large_region, region
cache, store, KEY, CODE = CodeCache({cache!r}), RegionStore(CodeCache({cache!r})), {key!r}, 0x10000
print(flush=True)
{action}
"""


@pytest.fixture
def cache(tmp_path: Path) -> CodeCache:
    return CodeCache(str(tmp_path / "cache"))


def start(cache: CodeCache, action: str) -> subprocess.Popen[bytes]:
    script = WRITER.format(
        path=[p for p in sys.path if p], cache=cache.path, key=KEY, action=action
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    wait_for_line(child)  # it has begun
    return child


def wait_for_line(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline()


def kill(child: subprocess.Popen[bytes], delay: float = 0.0) -> None:
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)


def test_what_is_appended_is_loaded(cache: CodeCache) -> None:
    store = RegionStore(cache)
    assert list(store.load(KEY)) == []
    assert store.append(KEY, [region(CODE), region(CODE + 64)])
    assert RegionStore(cache).append(KEY, [region(CODE + 128)])
    assert list(RegionStore(cache).load(KEY)) == [region(CODE + at) for at in (0, 64, 128)]
    assert store.find(KEY, CODE + 128, guest_code) == region(CODE + 128)
    assert store.find(KEY, CODE + 4, guest_code) is None
    assert store.find(key_for("other"), CODE, guest_code) is None
    assert list(store.load(key_for("other"))) == []


def test_a_region_is_kept_once_for_each_code(cache: CodeCache) -> None:
    store, other = RegionStore(cache), RegionStore(cache)
    for _ in range(2):
        store.append(KEY, [region(CODE)])
        other.append(KEY, [region(CODE)])
    changed = CompiledRegion(CODE, 0, 2, (), ((CODE, CODE + 8),), bytes(16), b"another")
    other.append(KEY, [changed])
    assert list(store.load(KEY)) == [region(CODE), changed]
    assert store.find(KEY, CODE, guest_code) == region(CODE), "the one that applies"


def test_a_precise_region_is_kept_beside_the_fast_one(cache: CodeCache) -> None:
    """Where something has faulted, the next run compiles nothing either."""
    store, fast = RegionStore(cache), region(CODE)
    exact = CompiledRegion(CODE, 0, 2, fast.cells, fast.ranges, fast.digest, b"exact", precise=True)
    for _ in range(2):
        assert store.append(KEY, [fast])
        assert store.append(KEY, [exact])
    assert list(store.load(KEY)) == [fast, exact]
    assert store.find(KEY, CODE, guest_code) == exact


def test_keys_of_mappings() -> None:
    store = RegionStore(CodeCache("/nowhere"), "interpreter", files=True)
    text = Region(CODE, CODE + 8192, 5, file=True)
    key = store.key_of(text, b"page")
    assert key == store.key_of(text._replace(end=CODE + 4096), b"page")
    others = [
        store.key_of(text, b"another page"),
        store.key_of(text._replace(start=0), b"page"),
        RegionStore(CodeCache("/nowhere"), "another", files=True).key_of(text, b"page"),
    ]
    assert len({key, *others}) == 4
    assert store.key_of(text._replace(prot=7), b"page") is None
    assert store.key_of(text._replace(file=False), b"page") is None
    assert RegionStore(CodeCache("/nowhere")).key_of(text._replace(prot=7, file=False), b"page")


def test_every_place_where_a_writer_can_be_killed(cache: CodeCache) -> None:
    store = RegionStore(cache)
    store.append(KEY, [region(CODE)])
    path = Path(cache.path_of(KEY, REGIONS))
    before = path.read_bytes()
    store.append(KEY, [region(CODE + 64)])
    after = path.read_bytes()
    # The record is written first, then the header.
    torn = [before + after[len(before) : cut] for cut in range(len(before), len(after), 7)]
    torn += [b"", after[: len(before) - 1], bytes(64) + after[64:-3]]
    for data in torn:
        path.write_bytes(data)
        fresh = RegionStore(cache)
        kept = list(fresh.load(KEY))
        assert kept == ([region(CODE)] if data[:64] == before[:64] else [])
        assert fresh.append(KEY, [region(CODE + 128)])
        assert list(RegionStore(cache).load(KEY)) == [*kept, region(CODE + 128)]


def test_no_damage_comes_back_as_a_region(cache: CodeCache) -> None:
    store = RegionStore(cache)
    regions = [region(CODE + 64 * i) for i in range(6)]
    store.append(KEY, regions)
    path = Path(cache.path_of(KEY, REGIONS))
    good = path.read_bytes()
    source = random.Random(1)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(source.randrange(1, 4)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        path.write_bytes(data[: source.choice((len(data), source.randrange(len(data))))])
        fresh = RegionStore(cache)
        loaded = list(fresh.load(KEY))
        assert all(found in regions for found in loaded)
        assert all(fresh.find(KEY, r.pc, guest_code) in (r, None) for r in regions)
        verify_regions(str(path))
        if path.exists():
            assert verify_regions(str(path)) == 0
            assert list(RegionStore(cache).load(KEY)) == loaded
        assert fresh.append(KEY, [region(4096)])
        assert list(RegionStore(cache).load(KEY)) == [*loaded, region(4096)]


def test_a_file_of_others_is_ignored(cache: CodeCache) -> None:
    store = RegionStore(cache)
    store.append(KEY, [region(CODE)])
    Path(cache.path_of(KEY, REGIONS)).chmod(0o666)
    assert list(store.load(KEY)) == []


def test_processes_that_append_at_once_lose_nothing(cache: CodeCache) -> None:
    children = [
        start(
            cache,
            f"for i in range(200): store.append(KEY, [region(CODE + 64 * (4 * i + {n}))])",
        )
        for n in range(4)
    ]
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    loaded = list(RegionStore(cache).load(KEY))
    assert {r.pc for r in loaded} == {CODE + 64 * i for i in range(800)}
    assert all(found == region(found.pc) for found in loaded)


def test_writers_that_are_killed_leave_what_is_right(cache: CodeCache) -> None:
    source = random.Random(2)
    seen: set[int] = set()
    for round_ in range(8):
        children = [
            start(
                cache,
                f"for i in range({1000 * round_}, 100000):\n"
                f"    store.append(KEY, [large_region(CODE + 64 * (2 * i + {n}))])",
            )
            for n in range(2)
        ]
        for child in children:
            kill(child, source.random() * 0.1)
        loaded = list(RegionStore(cache).load(KEY))
        for found in loaded:
            assert found == large_region(found.pc)
        assert seen <= {found.pc for found in loaded}
        seen = {found.pc for found in loaded}
    assert len(seen) > 8
    assert not any(damaged for _, damaged in verify(cache)), "what was torn is not in the file"


def test_a_collector_that_is_killed_is_followed_by_another(cache: CodeCache) -> None:
    source = random.Random(3)
    for round_ in range(8):
        for i in range(60):
            cache.put(key_for("blob", round_, i), Blob(bytes(5000), {"f": 0}))
            RegionStore(cache).append(key_for("regions", round_, i), [region(CODE + 64 * i)])
        collector = start(cache, "while True: collect(cache, 100_000)")
        appender = start(
            cache,
            "for i in range(100000): store.append(key_for('new', i % 50), [region(64 * i)])",
        )
        kill(collector, source.random() * 0.05)
        kill(appender)
        for entry in list(cache.entries()):
            if entry.kind == REGIONS:
                loaded = list(RegionStore(cache).load(entry.key))
                assert all(found == region(found.pc) for found in loaded)
        assert not any(damaged for _, damaged in verify(cache))
        done = collect(cache, 50_000)
        assert done is not None
        assert done.left <= 50_000
        assert cache.nbytes == done.left


def test_the_least_recently_used_go_first(cache: CodeCache) -> None:
    now = time.time()
    names = []
    for i in range(10):
        key = key_for("entry", i)
        names.append(key)
        if i % 2:
            cache.put(key, Blob(bytes(4000), {"f": 0}))
        else:
            RegionStore(cache).append(key, [region(CODE, bytes(8000))])
        kind = ".blob" if i % 2 else REGIONS
        os.utime(cache.path_of(key, kind), (now - 86400 * (10 - i),) * 2)
    # One of the oldest is read: that is a use, whatever the file system notes of accesses.
    assert list(RegionStore(cache).load(names[0]))
    assert cache.get(names[1])
    total = cache.nbytes
    done = collect(cache, total - 1)
    assert done is not None
    left = {entry.key for entry in cache.entries()}
    assert done.removed >= 1
    assert set(names[:2]) <= left
    assert left == {names[0], names[1], *names[2 + done.removed :]}
    assert (done.left, done.freed) == (cache.nbytes, total - cache.nbytes)
    assert collect(cache, 0) is not None
    assert cache.nbytes == 0


def test_what_is_being_written_is_not_collected(cache: CodeCache) -> None:
    child = start(
        cache,
        "store.append(KEY, [region(CODE)])\n"
        "held = lock_file(cache.path_of(KEY, REGIONS))\n"
        "print(flush=True)\n"
        "time.sleep(100)",
    )
    wait_for_line(child)
    done = collect(cache, 0)
    assert done is not None
    assert done.removed == 0
    kill(child)
    done = collect(cache, 0)
    assert done is not None
    assert done.removed == 1


def test_an_appender_follows_a_file_that_was_collected(cache: CodeCache) -> None:
    store = RegionStore(cache)
    store.append(KEY, [region(CODE), region(CODE + 64)])
    collect(cache, 0)
    assert list(store.load(KEY)) == []
    assert store.find(KEY, CODE, guest_code) is None
    assert store.append(KEY, [region(CODE + 128)])
    assert list(store.load(KEY)) == [region(CODE + 128)]
    assert store.find(KEY, CODE + 128, guest_code) == region(CODE + 128)


def test_what_killed_processes_left_is_collected(cache: CodeCache) -> None:
    cache.put(KEY, Blob(b"\xc3", {"f": 0}))
    folder = Path(cache.path)
    left = [f"{KEY}.blob.12.0123abcd", f"{KEY}.regions.12.0123abcd", f"{KEY}.blob.lock"]
    kept = [f"{KEY}.blob.13.0123abcd", "notes.txt", "a.b.c"]
    for name in (*left, *kept):
        (folder / name).write_bytes(b"x")
    for name in (*left, *kept[1:]):
        os.utime(folder / name, (time.time() - 7200,) * 2)
    collect(cache, 1 << 30)
    assert sorted(os.listdir(folder)) == sorted([*kept, f"{KEY}.blob", "collection"])


def test_only_one_collects_and_only_now_and_then(cache: CodeCache) -> None:
    assert collect_when_due(cache) is None, "there is no cache"
    cache.put(KEY, Blob(b"\xc3", {"f": 0}))
    assert collect_when_due(cache) is not None
    assert collect_when_due(cache) is None
    os.utime(Path(cache.path) / "collection", (time.time() - 3600,) * 2)
    child = start(
        cache,
        "held = lock_file(cache.path + '/collection')\nprint(flush=True)\ntime.sleep(100)",
    )
    wait_for_line(child)
    assert collect_when_due(cache) is None
    kill(child)
    assert collect_when_due(cache) is not None


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_size("10") == 10
    assert parse_size("2G") == parse_size("2 GiB") == parse_size("2048mb") == 2 << 30
    for wrong in ("", "G", "-1", "1 X", "1e3"):
        with pytest.raises(ValueError, match="expected a size"):
            parse_size(wrong)
    monkeypatch.delenv("ANYARCH_CACHE_LIMIT", raising=False)
    assert cache_limit() == 2 << 30
    monkeypatch.setenv("ANYARCH_CACHE_LIMIT", "5m")
    assert cache_limit() == 5 << 20
    monkeypatch.setenv("ANYARCH_CACHE_LIMIT", "much")
    with pytest.raises(Error, match="ANYARCH_CACHE_LIMIT: 'much': expected a size"):
        cache_limit()


def test_bundle_files(cache: CodeCache, tmp_path: Path) -> None:
    path = str(tmp_path / "program.bundle")
    other = key_for("other")
    write_bundle(path, {KEY: [region(CODE)], other: [region(64), region(128)]})
    store = RegionStore(cache, bundles=[BundleFile(path)])
    store.append(KEY, [region(CODE + 64)])
    assert list(store.load(KEY)) == [region(CODE), region(CODE + 64)]
    assert list(store.load(other)) == [region(64), region(128)]
    assert list(store.load(key_for("none"))) == []
    data = Path(path).read_bytes()
    for wrong, message in (
        (b"", "cut off"),
        (data[:-1], "cut off"),
        (b"\x7fELF" + data[4:], "not a bundle"),
    ):
        Path(path).write_bytes(wrong)
        with pytest.raises(Error, match=message):
            BundleFile(path)
    with pytest.raises(Error, match="No such file"):
        BundleFile(path + "x")
