"""Where the files are that a guest names: root folder, links, folders to start from, sockets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch.engine.cache import CodeCache
from anyarch.linux.paths import Paths, host_path
from tests.programs.build import AARCH64, RISCV, Target, compile_c

PROGRAM: Final = Path(__file__).parent / "root_programs" / "paths.c"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a system's files."""
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/real").write_text("x")
    (root / "etc").mkdir()
    (root / "etc/own").write_text("own")
    (root / "etc/absolute").symlink_to("/usr/lib/real")
    (root / "etc/dangling").symlink_to("/nowhere/at/all")
    (root / "lib").symlink_to("/usr/lib")
    (root / "loop").symlink_to("loop")
    (root / "only").mkdir()
    (root / "usr/lib/name").symlink_to("../../lib/real")
    return root


def find(root: Path, path: str, follow: bool = True, **options: bool) -> str:
    """The host path, with the root's own as a dollar sign."""
    found = host_path(os.fsencode(root), path.encode(), follow, **options)
    return found.decode().replace(str(root), "$")


def test_links_stay_inside_the_root(root: Path) -> None:
    assert find(root, "/lib/name") == "$/usr/lib/real"
    assert find(root, "/lib/name", False) == "$/usr/lib/name"
    assert find(root, "/lib/name/", False) == "$/usr/lib/real/"
    assert find(root, "/../../lib/./real") == "$/usr/lib/real"
    assert find(root, "/etc/absolute") == "$/usr/lib/real"
    assert find(root, "/lib/..") == "$/usr"
    assert find(root, "/") == "$"
    assert find(root, "/loop") == "/loop"


def test_what_the_root_lacks_is_the_hosts(root: Path, tmp_path: Path) -> None:
    assert find(root, "/nothing") == "/nothing"
    assert find(root, "/nothing/more") == "/nothing/more"
    assert find(root, "/etc/dangling") == "/nowhere/at/all"
    assert find(root, "/proc/self/maps") == "/proc/self/maps"
    assert find(root, "/usr/../dev/null") == "/dev/null"
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to("/usr/lib/real")
    (tmp_path / "work/back").symlink_to("link")
    assert find(root, f"{tmp_path}/work/back") == "$/usr/lib/real"
    assert find(root, f"{tmp_path}/work/back", False) == f"{tmp_path}/work/back"


def test_a_root_that_may_not_be_searched(root: Path) -> None:
    """It is no reason to take the host's: the call on the name fails."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user, who may not")
    (root / "usr").chmod(0o700)
    assert find(root, "/usr/lib/real") == "$/usr/lib/real"
    child = os.fork()  # where there is no other thread, which would change its user too
    if child == 0:
        status = 1
        try:
            os.seteuid(65534)
            status = 0 if find(root, "/usr/lib/real") == "$/usr/lib/real" else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_names_to_be_created(root: Path) -> None:
    assert find(root, "/etc/new") == "/etc/new"
    assert find(root, "/etc/new", stay=True) == "$/etc/new"
    assert find(root, "/only/new") == "$/only/new"
    assert find(root, "/only/no/new") == "/only/no/new"


def test_relative_names(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags: list[int] = []
    paths = Paths(os.fsencode(root), flags.append)
    assert paths.resolve(b"etc/own", True) == b"etc/own"
    monkeypatch.chdir(root / "etc")
    paths.moved()
    assert paths.resolve(b"absolute", True) == os.fsencode(root) + b"/usr/lib/real"
    assert paths.resolve(b"../../../etc/own", True) == os.fsencode(root) + b"/etc/own"
    assert paths.resolve(b"new", True) == os.fsencode(root) + b"/etc/new"
    monkeypatch.chdir(tmp_path)
    paths.moved()
    assert paths.resolve(b"new", True) == b"new"
    assert flags == [3, 1]


def test_folders_are_remembered_until_names_change(root: Path) -> None:
    paths = Paths(os.fsencode(root))
    base = os.fsencode(root)
    (root / "usr/other").mkdir()
    (root / "usr/other/real").write_text("y")
    for _ in range(3):
        assert paths.resolve(b"/lib/real", True) == base + b"/usr/lib/real"
        assert paths.resolve(b"/lib/name", True) == base + b"/usr/lib/real"
        assert paths.resolve(b"/lib/name", False) == base + b"/usr/lib/name"
        assert paths.resolve(b"/etc/.", True) == base + b"/etc/"
    paths.changed(base + b"/lib")
    (root / "lib").unlink()
    (root / "lib").symlink_to("usr/other")
    assert paths.resolve(b"/lib/real", True) == base + b"/usr/other/real"


def test_names_below_descriptors(root: Path, tmp_path: Path) -> None:
    """Descriptors are looked at only while one is open where names mean other things."""
    flags: list[int] = []
    paths = Paths(os.fsencode(root), flags.append)
    folder = os.open(root / "etc", os.O_RDONLY)
    plain = os.open(tmp_path, os.O_RDONLY)
    try:
        paths.opened(plain, os.fsencode(tmp_path))
        assert flags == []
        paths.opened(folder, os.fsencode(root / "etc"))
        assert flags == [5]
        assert paths.resolve(b"absolute", True, folder) == os.fsencode(root) + b"/usr/lib/real"
        for _ in range(100):
            assert paths.resolve(b"name", True, plain) == b"name"
        assert flags == [5]
        os.close(folder)
        for _ in range(100):
            assert paths.resolve(b"name", True, plain) == b"name"
        assert flags == [5, 1]
    finally:
        os.close(plain)


def test_relative_name_that_leads_into_the_root(root: Path, tmp_path: Path) -> None:
    """What was opened tells, not its name."""
    flags: list[int] = []
    paths = Paths(os.fsencode(root), flags.append)
    (tmp_path / "way").symlink_to(root / "etc")
    plain = os.open(tmp_path, os.O_RDONLY)
    folder = os.open("way", os.O_RDONLY, dir_fd=plain)
    try:
        paths.opened(plain, b"plain")
        assert flags == []
        paths.opened(folder, b"way")
        assert flags == [5]
    finally:
        os.close(folder)
        os.close(plain)


@pytest.mark.parametrize("traced", [False, True], ids=["native", "traced"])
def test_program_in_a_root(root: Path, traced: bool, tmp_path: Path) -> None:
    """Traced, no call runs natively."""
    program = compile_c(PROGRAM, RISCV)
    (root / "run-me").write_text("#!/bin/interpreter argument\n")
    (root / "run-me").chmod(0o755)
    (root / "bin").mkdir()
    (root / "bin/real").write_bytes(program.read_bytes())
    (root / "bin/real").chmod(0o755)
    (root / "bin/interpreter").symlink_to("/bin/real")
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to("/bin/interpreter")
    flags = ["--strace", "-o", os.devnull] if traced else []
    command = [sys.executable, "-m", "anyarch", "run", "-L", root, *flags, "/bin/interpreter"]
    source = str(Path(anyarch.__file__).parents[1])
    done = subprocess.run(
        command,
        cwd=work,
        env=dict(os.environ, PYTHONPATH=source, ANYARCH_CACHE=CodeCache().path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.stdout.decode().splitlines() == [
        "relative own",
        "absolute x",
        "by descriptor x",
        "climbing own",
        "openat2 x",
        "openat2 by descriptor x",
        "beneath own",
        "in a root x",
        "no links 1",
        "attribute 1",
        "link: by link",
        "executed 0",
        "link refused 1",
        "cwd /etc",
        "exe /bin/real",
        "open file /usr/lib/real",
        "working folder /etc",
        "created in the root 1",
        "socket /only/socket 1",
        "datagram 1",
        "long name 1",
        "script: /bin/interpreter argument /run-me",
        "script: /bin/interpreter argument run-me",
        "link: ./link",
    ]
    assert done.returncode == 0
    assert (root / "only/file").exists()
    assert not Path("/only").exists()


@pytest.mark.parametrize("guest", [RISCV, AARCH64], ids=lambda guest: guest.name)
def test_native_code_finds_what_python_finds(root: Path, guest: Target, tmp_path: Path) -> None:
    program = compile_c(PROGRAM.with_name("places.c"), guest)
    (root / "usr/lib/absolute").symlink_to("/usr/lib/real")
    (root / "only/here").mkdir()
    (root / "only/here/file").write_text("only")
    kept = tmp_path / "kept"
    shutil.copytree(root, kept, symlinks=True)
    beside = tmp_path / "beside"
    (beside / "x").mkdir(parents=True)
    (beside / "x/file").write_text("host")
    outputs, counts = [], ""
    for flags in (["--stats"], ["--strace", "-o", os.devnull]):
        shutil.rmtree(root)
        shutil.copytree(kept, root, symlinks=True)
        (root / str(beside)[1:] / "x").mkdir(parents=True)
        command = [sys.executable, "-m", "anyarch", "run", "-L", root, *flags, program]
        done = subprocess.run(
            [*command, beside / "x/file"],
            env=dict(
                os.environ,
                PYTHONPATH=str(Path(anyarch.__file__).parents[1]),
                ANYARCH_CACHE=CodeCache().path,
            ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        outputs.append(done.stdout.splitlines())
        counts = counts or done.stderr
    assert outputs[0] == outputs[1]
    assert "/usr/lib/real: 0 100000 0 -22  0 x" in outputs[0]
    assert f"{beside}/x/file: 0 100000 0 -22  0 host" in outputs[0]
    assert outputs[0][-7] == "/only/here/file: 0 100000 0 -22  0 only"
    assert {"below a folder 0", "renamed 0", "linked 0"} < set(outputs[0])
    served = {
        name: (int(native), int(python))
        for name, native, python in re.findall(r"^  (\w+) +(\d+) +(\d+)$", counts, re.MULTILINE)
    }
    for name in ("openat", "newfstatat", "faccessat", "readlinkat"):
        assert served[name][0] >= served[name][1] * 0.7, (name, served[name])
