"""Systems of other architectures for tests on real programs: Debian packages, fetched on demand.

They are extracted below the cache folder and never installed. apt does the fetching, with a
configuration of its own; where it is missing or offline, the caller's tests are skipped.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SUITE: Final = "trixie"


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """An architecture by the names that it goes by."""

    debian: str
    uname: str
    node: str
    linker: str


MACHINES: Final = (
    Machine("riscv64", "riscv64", "riscv64", "ld-linux-riscv64-lp64d.so.1"),
    Machine("arm64", "aarch64", "arm64", "ld-linux-aarch64.so.1"),
)


def cache_folder() -> Path:
    """Where sysroots are kept between runs."""
    chosen = os.environ.get("ANYARCH_SYSROOTS")
    base = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    return Path(chosen) if chosen else Path(base) / "anyarch-sysroots"


def sysroot(architecture: str, *packages: str) -> Path:
    """A folder with ``packages`` and what they depend on; skips the test when it cannot be had."""
    name = "+".join((architecture, *packages)).replace("/", "_")
    folder = cache_folder() / name
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _fill(folder, architecture, packages)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no {architecture} packages {', '.join(packages)}: {_reason(error)}")
        (folder / ".complete").touch()
    return folder


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"{error.cmd[0]} exited with {error.returncode}"
    return str(error)


def _mirror() -> str:
    """The mirror that this machine's own apt uses."""
    for path in sorted(Path("/etc/apt").glob("sources.list.d/*.sources")):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(":")
            if key == "URIs" and value.strip().rstrip("/").endswith("/debian"):
                return value.split()[0]
    for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")):
        if path.exists():
            for line in path.read_text().splitlines():
                words = [word for word in line.split() if not word.startswith("[")]
                if words[:1] == ["deb"] and words[1].rstrip("/").endswith("/debian"):
                    return words[1]
    raise FileNotFoundError("this machine's apt has no Debian mirror")


def _fill(folder: Path, architecture: str, packages: tuple[str, ...]) -> None:
    work = folder / ".apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (folder / "usr").mkdir()
    source = f"deb [arch={architecture} trusted=yes] {_mirror()} {SUITE} main\n"
    (work / "sources.list").write_text(source)
    (work / "status").touch()
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": work,
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": f"{{ {architecture}; }}",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
    }
    lines = [
        f"{key} {value};" if str(value).startswith("{") else f'{key} "{value}";'
        for key, value in settings.items()
    ]
    (work / "apt.conf").write_text("\n".join(lines) + "\n")
    environment = dict(os.environ, APT_CONFIG=str(work / "apt.conf"))
    install = ["install", "-y", "--no-install-recommends", "--download-only", *packages]
    for command in (["update"], install):
        subprocess.run(
            ["apt-get", "-qq", *command],
            env=environment,
            check=True,
            capture_output=True,
            timeout=300,
        )
    for package in sorted((work / "cache/archives").glob("*.deb")):
        command = ["dpkg", "-x", str(package), str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    for name in ("bin", "sbin", "lib", "lib64"):
        link = folder / name
        if not link.exists() and (folder / "usr" / name).is_dir():
            link.symlink_to(f"usr/{name}")
