"""``anyarch register``: what it prints, what it refuses, and the kernel starting guests by it.

The kernel's part is tested in a user namespace, which has entries of its own from Linux 6.7 on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch.cli import main
from anyarch.cli.register import BINFMT, registrations
from anyarch.engine.cache import CodeCache
from anyarch.errors import Error
from tests.programs.build import AARCH64, HOST, RISCV, compile_c

SOURCE: Final = Path(anyarch.__file__).parents[1]
MIXED: Final = Path(__file__).with_name("mixed.c")
MASK: Final = r"\xff\xff\xff\xff\xff\xff\xff\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
NAMESPACE: Final = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNT: Final = f"mount -t binfmt_misc binfmt_misc {BINFMT}"


def test_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["register", "--launchers", str(tmp_path), "-L", "/usr", "riscv64"]) == 0
    *comments, entry = capsys.readouterr().out.splitlines()
    magic = r"\x7f\x45\x4c\x46\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xf3\x00"
    assert entry == f":anyarch-riscv64:M::{magic}:{MASK}:{tmp_path}/riscv64:P"
    assert all(line.startswith("#") for line in comments)
    assert f"#   #!{sys.executable} -I" in comments
    assert not list(tmp_path.iterdir()), "printing writes nothing"


def test_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["register", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [fact["name"] for fact in facts] == ["anyarch-riscv64", "anyarch-aarch64"]
    assert all(r"\xb7\x00" in fact["entry"] for fact in facts[1:])


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Error, match="no architecture 'm68k'; expected one of riscv64"):
        registrations(["m68k"], None)
    with pytest.raises(Error, match="-L /no/such is no directory"):
        registrations([], "/no/such")
    with pytest.raises(Error, match="paths of up to 127 bytes"):
        registrations([], None, tmp_path / ("x" * 128))
    assert main(["register", "--apply", "--remove"]) == 2
    capsys.readouterr()
    if not (BINFMT / "register").exists():
        for option in ("--apply", "--remove"):
            assert main(["register", option, "--launchers", str(tmp_path)]) == 125
            assert "mount -t binfmt_misc" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script for sh as root of a user namespace with a binfmt_misc of its own."""
    environment = {**os.environ, "ANYARCH_CACHE": CodeCache().path, "PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [*NAMESPACE, f"{MOUNT} || exit 1\n{script}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def _namespaces(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    done = in_namespace(f"test -e {BINFMT}/register", tmp_path_factory.mktemp("namespace"))
    if done.returncode:
        pytest.skip(f"no binfmt_misc in a user namespace: {done.stderr.strip()}")


@pytest.mark.usefixtures("_namespaces")
def test_the_kernel_starts_guests(tmp_path: Path) -> None:
    for name, target in (("arm", AARCH64), ("riscv", RISCV), ("host", HOST)):
        (tmp_path / name).symlink_to(compile_c(MIXED, target))
    script = f"""
register="env PYTHONPATH={SOURCE} {sys.executable} -m anyarch register"
register="$register --launchers {tmp_path}/launchers"
$register --apply && $register --apply arm64 2> errors; cat errors
unset PYTHONPATH
./host fork ./arm fork ./host fork ./riscv end; echo $?
./arm die; echo $?
cp {compile_c(Path(__file__).parents[1] / "programs/arguments.c", AARCH64)} arguments
PYTHONPATH=/guest python3 -c 'import os; os.execv("./arguments", ["called", "", "-L", "x y"])'
$register --remove; $register --remove riscv64
./riscv end || echo gone
ls launchers
"""
    done = in_namespace(script, tmp_path)
    host = os.uname().machine
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"anyarch-riscv64: {tmp_path}/launchers/riscv64",
        f"anyarch-aarch64: {tmp_path}/launchers/aarch64",
    ]
    assert lines[2].startswith("anyarch: error: no architecture 'arm64'")
    kept = "default 1 ignored 0 blocked 0 pending 0 closed -1 open -1 mark none"
    assert lines[3:12] == [
        f"{host} fork",
        "aarch64 fork",
        f"{host} fork",
        f"riscv64 end {kept}",
        f"{host}: child 3",
        "aarch64: child 4",
        f"{host}: child 4",
        "4",
        "aarch64 die",
    ]
    assert lines[12:17] == [
        "143",
        "3 arguments, null at the end 1, named 0",
        "1: ''",
        "2: '-L'",
        "3: 'x y'",
    ]
    assert lines[-4:] == [
        "anyarch-riscv64: removed",
        "anyarch-aarch64: removed",
        "anyarch-riscv64: not registered",
        "gone",
    ]
    assert done.returncode == 0


@pytest.mark.usefixtures("_namespaces")
def test_a_launcher_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = f"{sys.executable} -m anyarch register --apply --launchers {tmp_path}/file/below"
    done = in_namespace(f"{command}; echo $?; ls {BINFMT}", tmp_path)
    assert done.stdout.split() == ["125", "register", "status"]
    assert "Not a directory; the launchers go where you may write" in done.stderr
