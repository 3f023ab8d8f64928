"""Cross-compiles C sources with zig for the guest and for this machine, once per change.

Executables are static (musl) and land in ``build/programs``, named after a digest of the source
and of everything that shaped the compilation, so nothing is compiled twice and no test sees a
stale program.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from anyarch.errors import Error

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "build" / "programs"

# Equal text on every machine needs: no fused multiply-add that the source does not ask for, one
# signedness of char, operations kept in the rounding mode that they are written under, and no
# sanitizer (zig adds one to unoptimised builds).
EXACT: Final = ("-ffp-contract=off", "-fsigned-char", "-frounding-math", "-fno-sanitize=undefined")


class BuildError(Error):
    """A C source that does not compile."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A machine to compile for: zig's target triple and processor features."""

    name: str
    triple: str
    cpu: str | None = None


RISCV: Final = Target("riscv64", "riscv64-linux-musl")
RISCV_BITMANIP: Final = Target(
    "riscv64_zb", "riscv64-linux-musl", "generic_rv64+m+a+f+d+c+zba+zbb+zbs+zbc"
)
AARCH64: Final = Target("aarch64", "aarch64-linux-musl")
HOST: Final = Target("host", f"{os.uname().machine}-linux-musl")


@cache
def zig_version() -> str:
    """Version of the compiler, part of every digest."""
    return version("ziglang")


def compile_c(
    source: Path,
    target: Target,
    *,
    optimise: str = "-O2",
    flags: Sequence[str] = EXACT,
    others: Sequence[Path] = (),
) -> Path:
    """Compile C or assembly files to a static executable, named after the first; return its path.

    Raises BuildError with the compiler's own message.
    """
    options = [optimise, *flags]
    if target.cpu is not None:
        options.append(f"-mcpu={target.cpu}")
    text = "\0".join([zig_version(), target.triple, *options]).encode()
    text += b"\0".join(file.read_bytes() for file in (source, *others))
    digest = hashlib.sha256(text).hexdigest()[:12]
    output = FOLDER / f"{source.stem}-{target.name}-{digest}"
    if output.exists():
        return output
    FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple, "-static", "-s"]
    command += [*options, "-o", str(unfinished), *map(str, (source, *others)), "-lm"]
    compilation = subprocess.run(command, capture_output=True, text=True)
    if compilation.returncode != 0:
        raise BuildError(
            f"{source} does not compile for {target.triple}:\n{compilation.stderr}"
            f"command: {' '.join(command)}"
        )
    # Two processes that build the same program both end with a whole file.
    unfinished.replace(output)
    return output
