"""The code cache: what comes back is what was put, or nothing; one builder at a time."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anyarch.emit.blob import Blob
from anyarch.engine import ownfiles
from anyarch.engine.cache import CodeCache, key_for, source_digest, toolchain_key
from anyarch.engine.collection import clear, collect, verify
from anyarch.engine.ownfiles import Findings, Stamp
from anyarch.host.code import load, load_file

RETURN_7 = b"\xb8\x07\x00\x00\x00\xc3"  # mov eax, 7; ret
KEY = key_for("test", 1)


@pytest.fixture
def cache(tmp_path: Path) -> CodeCache:
    return CodeCache(str(tmp_path / "cache"))


def blob(code: bytes = RETURN_7) -> Blob:
    return Blob(code, {"first": 0, "x.y$z": 5})


def file_of(cache: CodeCache, key: str = KEY) -> Path:
    return Path(cache.path) / f"{key}.blob"


def test_round_trip_and_execution(cache: CodeCache) -> None:
    assert cache.get(KEY) is None
    assert cache.put(KEY, blob())
    got = cache.get(KEY)
    assert got == blob()
    assert got is not None
    assert got.path == str(file_of(cache))
    code = load(got)
    assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("first"))() == 7
    maps = Path("/proc/self/maps").read_text()
    (line,) = [x for x in maps.splitlines() if x.startswith(f"{code.start:x}-")]
    assert line.split()[1] == "r-xp"
    assert line.endswith(got.path)
    code.unmap()


def test_a_blob_just_stored_is_mapped_from_its_file(cache: CodeCache) -> None:
    many = Blob(RETURN_7, {f"symbol_{i}": 0 for i in range(1000)})  # the header exceeds a page
    cache.put(KEY, many)
    code = load(many)
    assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("symbol_999"))() == 7
    assert f"{code.start:x}-" in Path("/proc/self/maps").read_text()
    assert cache.get(KEY) == many
    code.unmap()


def test_load_does_not_trust_a_file_that_was_replaced(cache: CodeCache) -> None:
    cache.put(KEY, blob())
    got = cache.get(KEY)
    assert got is not None
    cache.put(KEY, blob(b"\xb8\x09\x00\x00\x00\xc3"))
    for change in (lambda: None, file_of(cache).unlink, lambda: file_of(cache).write_bytes(b"")):
        change()
        code = load(got)
        assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("first"))() == 7
        code.unmap()


def test_every_damaged_byte_is_noticed(cache: CodeCache) -> None:
    cache.put(KEY, blob())
    path = file_of(cache)
    good = path.read_bytes()
    places = [*range(80), 2000, len(good) - 1]
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert cache.get(KEY) is None, f"byte {place}"
        assert not path.exists()
    for wrong in (b"", good[:40], good[:-1], good + b"x", b"\x7fELF" + good[4:]):
        path.write_bytes(wrong)
        assert cache.get(KEY) is None
        assert not path.exists()
    assert cache.build_once(KEY, blob) == blob()
    assert cache.get(KEY) == blob()


def test_files_that_others_may_write_are_ignored(cache: CodeCache, tmp_path: Path) -> None:
    cache.put(KEY, blob())
    file_of(cache).chmod(0o666)
    assert cache.get(KEY) is None
    file_of(cache).chmod(0o600)
    target = file_of(cache).rename(tmp_path / "elsewhere")
    file_of(cache).symlink_to(target)
    assert cache.get(KEY) is None


def test_permissions(cache: CodeCache) -> None:
    cache.put(KEY, blob())
    assert Path(cache.path).stat().st_mode & 0o777 == 0o700
    assert file_of(cache).stat().st_mode & 0o777 == 0o600
    assert os.listdir(cache.path) == [file_of(cache).name]


def test_unwritable_directory_costs_only_speed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    cache = CodeCache(str(tmp_path / "file" / "cache"))
    assert cache.get(KEY) is None
    assert not cache.put(KEY, blob())
    assert cache.build_once(KEY, blob) == blob()
    assert (list(cache.entries()), cache.nbytes, clear(cache), list(verify(cache))) == (
        [],
        0,
        0,
        [],
    )
    assert collect(cache, 0) is None


def test_builder_that_fails_leaves_nothing(cache: CodeCache) -> None:
    def fail() -> Blob:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.build_once(KEY, fail)
    assert os.listdir(cache.path) == []
    assert cache.build_once(KEY, blob) == blob()


def test_threads_build_once(cache: CodeCache) -> None:
    built: list[int] = []
    results: list[Blob] = []

    def build() -> Blob:
        built.append(1)
        time.sleep(0.1)
        return blob()

    threads = [
        threading.Thread(target=lambda: results.append(cache.build_once(KEY, build)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert results == [blob()] * 4


BUILDER = """
import os, sys, time
sys.path[:0] = {path!r}
from anyarch.emit.blob import Blob
from anyarch.engine.cache import CodeCache
def build():
    fd = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"built\\n")
    {action}
    return Blob(b"\\xc3", {{"f": 0}})
assert CodeCache({cache!r}).build_once("key", build).code == b"\\xc3"
"""


def run_builder(cache: CodeCache, log: Path, action: str) -> subprocess.Popen[bytes]:
    paths = [p for p in sys.path if p]
    script = BUILDER.format(path=paths, log=str(log), cache=cache.path, action=action)
    return subprocess.Popen([sys.executable, "-c", script])


def test_processes_build_once(cache: CodeCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    children = [run_builder(cache, log, "time.sleep(0.5)") for _ in range(3)]
    assert [child.wait(30) for child in children] == [0, 0, 0]
    assert log.read_text() == "built\n"
    assert os.listdir(cache.path) == ["key.blob"]


def test_builder_that_is_killed_does_not_block_the_next(cache: CodeCache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = run_builder(cache, log, "os.kill(os.getpid(), 9)")
    assert killed.wait(30) == -9
    assert cache.get("key") is None
    assert run_builder(cache, log, "pass").wait(30) == 0
    assert log.read_text() == "built\nbuilt\n"
    assert os.listdir(cache.path) == ["key.blob"]


def test_housekeeping(cache: CodeCache) -> None:
    keys = [key_for("entry", i) for i in range(3)]
    for i, key in enumerate(keys):
        cache.put(key, blob(RETURN_7 * (i + 1)))
    entries = {entry.key: entry for entry in cache.entries()}
    assert set(entries) == set(keys)
    assert all(abs(entry.used - time.time()) < 60 for entry in entries.values())
    assert cache.nbytes == sum(file_of(cache, key).stat().st_size for key in keys)
    assert damaged_keys(cache) == []
    file_of(cache, keys[1]).write_bytes(b"damaged")
    (Path(cache.path) / f"{keys[0]}.blob.123.abcdef01").write_bytes(b"left by a killed writer")
    (Path(cache.path) / "notes.txt").write_text("not ours")
    assert damaged_keys(cache) == [keys[1]]
    assert clear(cache) > 0
    assert os.listdir(cache.path) == ["notes.txt"]


def damaged_keys(cache: CodeCache) -> list[str]:
    return [entry.key for entry, damaged in verify(cache) if damaged]


def test_keys() -> None:
    assert key_for("a", "bc") != key_for("ab", "c")
    assert key_for("a", 1) == key_for("a", 1)
    with pytest.raises(ValueError, match="letters and digits"):
        CodeCache("/nowhere").get("../escape")


def test_directory_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYARCH_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    monkeypatch.setenv("HOME", "/three")
    assert CodeCache().path == "/one"
    monkeypatch.delenv("ANYARCH_CACHE")
    assert CodeCache().path == "/two/anyarch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert CodeCache().path == "/three/.cache/anyarch"


def test_source_digest_follows_names_and_contents(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "a.py").write_text("x = 1\n")
    (package / "inner" / "b.py").write_text("y = 1\n")
    digests = [source_digest([str(package)])]

    def changed() -> bool:
        digests.append(source_digest([str(package)]))
        return digests[-1] not in digests[:-1]

    assert not changed()
    (package / "__pycache__" / "c.py").write_text("ignored")
    (package / "notes.txt").write_text("ignored")
    assert not changed()
    (package / "inner" / "b.py").write_text("y = 2\n")
    assert changed()
    (package / "a.py").rename(package / "c.py")
    assert changed()


def test_source_digest_is_remembered_while_sources_look_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    places = [str(source)]
    digest = source_digest(places, Findings(str(tmp_path)))
    assert digest == source_digest(places)
    assert not (tmp_path / "findings").exists(), "sources may change again unseen"
    monkeypatch.setattr(ownfiles, "_SETTLED", -1.0)
    assert source_digest(places, Findings(str(tmp_path))) == digest
    stamp = Stamp([(str(source), source.stat())])
    assert Findings(str(tmp_path)).get(stamp) == digest
    Findings(str(tmp_path)).put(stamp, "remembered")
    assert source_digest(places, Findings(str(tmp_path))) == "remembered"
    time.sleep(0.01)
    source.write_text("x = 2\n")
    changed = source_digest(places, Findings(str(tmp_path)))
    assert changed == source_digest(places) != digest


def test_findings_are_few_and_none_where_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownfiles, "_SETTLED", -1.0)
    status = tmp_path.stat()
    stamps = [Stamp([(str(number), status)]) for number in range(100)]
    for number, stamp in enumerate(stamps):
        Findings(str(tmp_path)).put(stamp, str(number))
    known = Findings(str(tmp_path))
    kept = [stamp for stamp in stamps if known.get(stamp) is not None]
    assert 16 <= len(kept) < 64
    assert kept == stamps[-len(kept) :]
    assert known.get(stamps[-1]) == "99"
    (tmp_path / "findings").chmod(0o666)
    assert Findings(str(tmp_path)).get(stamps[-1]) is None
    assert Findings("/nowhere").get(stamps[-1]) is None
    Findings("/nowhere").put(stamps[-1], "nothing happens")


def test_a_blob_is_mapped_in_place_and_checked_when_its_file_has_changed(
    cache: CodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownfiles, "_SETTLED", -1.0)
    assert cache.open(KEY) is None
    cache.put(KEY, blob())
    for _ in range(2):
        stored = CodeCache(cache.path).open(KEY)
        assert stored is not None
        assert (stored.nbytes, stored.symbols) == (len(RETURN_7), blob().symbols)
        code = load_file(stored.fd, stored.position, stored.nbytes, stored.symbols)
        os.close(stored.fd)
        assert code is not None
        assert ctypes.CFUNCTYPE(ctypes.c_int)(code.address("first"))() == 7
        code.unmap()
    time.sleep(0.01)
    damaged = bytearray(file_of(cache).read_bytes())
    damaged[-1] ^= 1
    file_of(cache).write_bytes(damaged)
    assert CodeCache(cache.path).open(KEY) is None
    assert not file_of(cache).exists()
    cache.put(KEY, blob())
    file_of(cache).chmod(0o666)
    assert CodeCache(cache.path).open(KEY) is None


def test_toolchain_key_names_the_installed_compiler_without_importing_it() -> None:
    import llvmlite

    assert f"llvmlite {llvmlite.__version__};" in toolchain_key()
    slow = "llvmlite elftools importlib.metadata dataclasses inspect tempfile pathlib json hashlib"
    script = (
        "import sys; before = set(sys.modules)\n"
        "from anyarch.engine.cache import CodeCache, toolchain_key\n"
        "toolchain_key(); CodeCache('/nowhere').get('key')\n"
        f"print([m for m in {slow.split()!r} if m in sys.modules and m not in before])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
