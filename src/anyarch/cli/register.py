"""``anyarch register``: entries of binfmt_misc, by which the kernel runs guests' programs itself.

An entry names a launcher, a script that we write: an entry itself can hold no arguments. Source:
Linux, ``admin-guide/binfmt-misc.rst``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyarch._native import PACKAGES
from anyarch.errors import Error, HostError
from anyarch.linux.architectures import ABIS

BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
LAUNCHERS: Final = Path("/usr/local/lib/anyarch")
# P keeps argv[0]. Not F, which opens the launcher now, for other file systems: Python would have
# to be there too. Not O, which the kernel does not combine with scripts, nor C, which needs O.
FLAGS: Final = "P"
_IDENT: Final = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
# Any OS/ABI: static glibc programs say GNU. Executables of types 2 and 3.
_MASK: Final = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
_INTERPRETER_NBYTES: Final = 127
_SHEBANG_NBYTES: Final = 255
_SCRIPT: Final = """\
#!{python} -I
# Written by `anyarch register`; the kernel starts it for {name} programs.
import sys

if {source!r} not in sys.path:
    sys.path.insert(0, {source!r})
from anyarch.cli import main

_, path, name, *arguments = sys.argv
raise SystemExit(main([*{options!r}, "--argv0", name, "--", path, *arguments]))
"""


@dataclass(frozen=True, slots=True)
class Registration:
    """What the kernel is told of an architecture, and the launcher that it is to start."""

    name: str
    magic: bytes
    launcher: Path
    script: str

    @property
    def entry(self) -> str:
        """The line that is written to ``register``, or kept in ``/etc/binfmt.d``."""
        magic, mask = ("".join(f"\\x{byte:02x}" for byte in data) for data in (self.magic, _MASK))
        return f":{self.name}:M::{magic}:{mask}:{self.launcher}:{FLAGS}"

    @property
    def file(self) -> Path:
        """The kernel's file for it."""
        return BINFMT / self.name


def registrations(
    names: Sequence[str], root: str | None, folder: Path = LAUNCHERS
) -> list[Registration]:
    """What there is to register for some architectures, or for all. Raises Error."""
    unknown = [name for name in names if name not in PACKAGES]
    if unknown:
        raise Error(f"no architecture {unknown[0]!r}; expected one of {', '.join(PACKAGES)}")
    if root is not None and not os.path.isdir(root):
        raise Error(f"-L {root} is no directory")
    options = ["run"] if root is None else ["run", "-L", os.path.abspath(root)]
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = []
    for abi in ABIS.values():
        if names and abi.name not in names:
            continue
        launcher = folder.absolute() / abi.name
        if len(os.fsencode(launcher)) > _INTERPRETER_NBYTES or set(str(launcher)) & set(":\n"):
            raise Error(
                f"{launcher}: the kernel takes paths of up to {_INTERPRETER_NBYTES} bytes without "
                "colons; choose another folder with --launchers"
            )
        script = _SCRIPT.format(
            python=sys.executable, name=abi.name, source=source, options=options
        )
        magic = _IDENT + (2).to_bytes(2, "little") + abi.elf_machine.to_bytes(2, "little")
        found.append(Registration(f"anyarch-{abi.name}", magic, launcher, script))
    return found


def printed(found: Sequence[Registration]) -> Iterator[str]:
    """The lines of a file in ``/etc/binfmt.d``, from which systemd registers at every start."""
    for each in found:
        yield f"# {each.launcher}, which --apply writes:"
        yield from (f"#   {line}".rstrip() for line in each.script.splitlines())
        yield each.entry


def apply(found: Sequence[Registration]) -> Iterator[str]:
    """Write launchers and register; yields what was done. Raises HostError."""
    _check_mounted()
    if " " in sys.executable or len(os.fsencode(sys.executable)) + 5 > _SHEBANG_NBYTES:
        raise HostError(f"{sys.executable}: a script cannot name this Python in its first line")
    for each in found:
        try:
            each.launcher.parent.mkdir(parents=True, exist_ok=True)
            each.launcher.write_text(each.script)
            each.launcher.chmod(0o755)
        except OSError as error:
            raise HostError(
                f"{error.filename}: {error.strerror}; the launchers go where you may write with "
                "--launchers FOLDER"
            ) from error
        if each.file.exists():
            _write(each.file, "-1")
        _write(BINFMT / "register", each.entry)
        yield f"{each.name}: {each.launcher}"
        for other in _others(each):
            yield f"{each.name}: {other} is for the same programs; the entry made last is used"


def remove(found: Sequence[Registration]) -> Iterator[str]:
    """Unregister, and delete the launchers that the kernel names; yields what was done."""
    _check_mounted()
    for each in found:
        if not each.file.exists():
            yield f"{each.name}: not registered"
            continue
        launcher = Path(_interpreter(each.file))
        _write(each.file, "-1")
        try:
            launcher.unlink(missing_ok=True)
        except OSError as error:
            yield f"{launcher}: {error.strerror}; it stays"
        yield f"{each.name}: removed"


def registered() -> list[str]:
    """The architectures that the kernel starts anyarch for."""
    return [abi.name for abi in ABIS.values() if (BINFMT / f"anyarch-{abi.name}").exists()]


def is_mounted() -> bool:
    """Whether the kernel's files are where they belong."""
    return (BINFMT / "register").exists()


def _check_mounted() -> None:
    if not is_mounted():
        raise HostError(
            f"{BINFMT} is not mounted: as root, `mount -t binfmt_misc binfmt_misc {BINFMT}` (after "
            "`modprobe binfmt_misc` where the kernel does not know it)"
        )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except PermissionError as error:
        raise HostError(f"{path}: {error.strerror}; only root may register programs") from error
    except OSError as error:
        raise HostError(f"{path}: the kernel refuses {text}: {error.strerror}") from error


def _interpreter(file: Path) -> str:
    for line in file.read_text().splitlines():
        if line.startswith("interpreter "):
            return line.removeprefix("interpreter ")
    raise HostError(f"{file}: it names no interpreter; expected an entry with one")


def _others(own: Registration) -> list[str]:
    """Entries of other emulators with the same magic."""
    magic = f"magic {own.magic.hex()}"
    files = [file for file in BINFMT.iterdir() if file.name not in (own.name, "register", "status")]
    return sorted(file.name for file in files if magic in file.read_text().splitlines())
