"""Byte code from the cache: the same modules as Python's own, as long as their sources are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyarch.engine.cache import CodeCache
from anyarch.engine.collection import clear, collect, verify
from anyarch.engine.modulecache import MODULES

_PROGRAM = """
import sys
from anyarch.engine import modulecache
modulecache.begin("test")
import anyarch.linux, anyarch.linux.numbers as module
from anyarch.errors import Error
modulecache.keep()
package = sys.modules["anyarch.linux"]
print(type(module.__loader__).__name__, type(package.__loader__).__name__)
print(module.__file__, module.__name__, module.__package__, module.HOST_NUMBERS["read"])
print(module.__spec__.origin, module.__spec__.cached, package.__path__)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what the program imports."""
    here = Path(__file__).parent.parent / "src" / "anyarch"
    made = tmp_path / "source" / "anyarch"
    for name in ("__init__", "_version", "data", "errors", "linux/__init__", "linux/numbers"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / f"{name}.py").write_text((here / f"{name}.py").read_text())
    (made / "engine").mkdir()
    for name in ("__init__", "modulecache", "ownfiles", "digests"):
        text = (here / "engine" / f"{name}.py").read_text()
        (made / "engine" / f"{name}.py").write_text(text)
    (tmp_path / "cache").mkdir()
    return made


def _run(source: Path, *options: str) -> list[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(source.parent),
        "ANYARCH_CACHE": str(source.parent.parent / "cache"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *options, "-c", _PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def _files(source: Path) -> list[Path]:
    return sorted((source.parent.parent / "cache").glob("*" + MODULES))


def test_a_second_run_gets_the_same_modules_from_the_cache(source: Path) -> None:
    first, second = _run(source), _run(source)
    assert first[0] == "SourceFileLoader SourceFileLoader"
    assert second[0] == "_Loader _Loader"
    assert first[1:] == second[1:]
    assert _run(source, "-O")[0] == "SourceFileLoader SourceFileLoader", "asserts are left out"
    assert len(_files(source)) == 2


def test_a_changed_source_is_loaded_anew_and_kept(source: Path) -> None:
    _run(source)
    numbers = source / "linux" / "numbers.py"
    numbers.write_text(numbers.read_text() + "\nHOST_NUMBERS['read'] = 4711\n")
    changed = _run(source)
    assert changed[0] == "SourceFileLoader _Loader"
    assert changed[1].endswith(" 4711")
    assert _run(source)[0] == "_Loader _Loader"
    assert _run(source)[1] == changed[1]


def test_nothing_is_kept_where_python_may_not_write_byte_code(source: Path) -> None:
    _run(source, "-B")
    assert _files(source) == []


@pytest.mark.parametrize("damage", [b"", b"anyarch", b"x" * 4096, None])
def test_a_file_that_is_none_is_ignored(source: Path, damage: bytes | None) -> None:
    expected = _run(source)
    (file,) = _files(source)
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert _run(source) == expected
    file.chmod(0o666)
    assert _run(source) == expected


def test_the_cache_counts_verifies_collects_and_clears_it(source: Path) -> None:
    cache = CodeCache(str(source.parent.parent / "cache"))
    _run(source)
    (file,) = _files(source)
    assert [(entry.key + entry.kind, entry.nbytes) for entry in cache.entries()] == [
        (file.name, file.stat().st_size)
    ]
    assert [count for _, count in verify(cache)] == [0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert [count for _, count in verify(cache)] == [1]
    assert not file.exists()
    _run(source)
    collected = collect(cache, 0)
    assert collected is not None
    assert collected.removed == 1
    _run(source)
    assert clear(cache) > 0
    assert _files(source) == []
