"""The native code of each guest: found in the code cache, or compiled once in a helper process.

Run as a module (``python -m anyarch._native riscv64 flat``) it compiles into the cache: that is the
helper, so that the process which runs guests never imports the compiler.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from anyarch.engine.cache import CodeCache, key_for, source_digest, toolchain_key
from anyarch.errors import CompileError, Error
from anyarch.host.code import NativeCode, load, load_file

if TYPE_CHECKING:
    from anyarch.emit.blob import Blob
    from anyarch.engine.compiler import Client
    from anyarch.engine.regions import RegionCompiler
    from anyarch.isa.architecture import Architecture
    from anyarch.memory.space import AddressSpace

PACKAGES: Final = {"riscv64": "riscv", "aarch64": "aarch64"}
# How guest memory lies in the host's: somewhere, at the same addresses (which only makes a
# difference for regions), or in a part that no access leaves.
VARIANTS: Final = ("flat", "direct", "bounded")
# What shapes native code, beside the guest's own definitions.
_SOURCES: Final = (
    *("ir", "isa", "emit", "engine", "host"),
    *(f"linux/{module}.py" for module in ("thunks", "masks", "places")),
)
_PROGRESS: Final = "progress: "  # begins a line of the helper
_MOST_JOBS: Final = 16  # processes, of some hundred megabytes each
_loaded: dict[tuple[str, str], NativeCode] = {}
_digests: dict[str, tuple[str, str]] = {}  # of sources and tools, by guest


def architecture(name: str) -> Architecture:
    """The definition of a guest."""
    if name not in PACKAGES:
        raise Error(f"no architecture {name!r}; expected one of {', '.join(PACKAGES)}")
    from importlib import import_module

    found: Architecture = import_module(f"anyarch.guests.{PACKAGES[name]}").ARCHITECTURE
    return found


def space_variant(space: AddressSpace) -> str:
    """How regions for an address space reach its memory."""
    if space.bounded:
        return "bounded"
    return "flat" if space.base else "direct"


def native_code(name: str, variant: str = "flat", cache: CodeCache | None = None) -> NativeCode:
    """The mapped interpreter of a guest; mapped once per process."""
    variant = {"direct": "flat"}.get(variant, variant)  # the interpreter is the same
    found = _loaded.get((name, variant))
    if found is None:
        cache = cache or CodeCache()
        key = native_key(name, variant, cache)
        found = _load_stored(cache, key)
        if found is None:
            found = load(cache.get(key) or _compile_in_helper(cache, key, name, variant))
        _loaded[name, variant] = found
    return found


def _load_stored(cache: CodeCache, key: str) -> NativeCode | None:
    """What the cache has, mapped from its file."""
    stored = cache.open(key)
    if stored is None:
        return None
    try:
        return load_file(stored.fd, stored.position, stored.nbytes, stored.symbols)
    finally:
        os.close(stored.fd)


def native_key(name: str, variant: str, cache: CodeCache | None = None) -> str:
    """The cache key: everything that the native code depends on."""
    if name not in _digests:
        known = (cache or CodeCache()).findings
        root = os.path.dirname(os.path.abspath(__file__))
        parts = (*_SOURCES, f"guests/{PACKAGES[name]}")
        digest = source_digest([os.path.join(root, part) for part in parts], known)
        _digests[name] = digest, toolchain_key()
    return key_for("interpreter", name, variant, *_digests[name])


def compile_native(name: str, variant: str) -> Blob:
    """Generate and compile the interpreter of a guest; imports the compiler. How far it is goes to
    standard error, a line for each step: "done of count"."""
    from anyarch.engine.native import InterpreterModule
    from anyarch.host.runtime import runtime_text
    from anyarch.linux.thunks import thunk_text

    def tell(done: int, count: int) -> None:
        print(f"{_PROGRESS}{done} of {count}", file=sys.stderr, flush=True)

    module = InterpreterModule(architecture(name), bounded=variant == "bounded")
    jobs = min(len(os.sched_getaffinity(0)), _MOST_JOBS)
    blob = module.build(runtime_text() + thunk_text(), jobs, tell)
    # Handlers are reached through tables: no name of theirs is ever looked for.
    blob.symbols = {name: at for name, at in blob.symbols.items() if name.startswith("aa_")}
    return blob


def _compile_in_helper(cache: CodeCache, key: str, name: str, variant: str) -> Blob:
    import subprocess
    import tempfile

    shown = f"anyarch: compiling the {name} interpreter, once"
    environment = _helper_environment() | {"ANYARCH_CACHE": cache.path}
    command = [sys.executable, "-P", "-m", "anyarch._native", name, variant]
    lines = ["no message"]
    with tempfile.TemporaryFile() as made:
        helper = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=made,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        with helper:
            assert helper.stderr is not None
            _show(f"{shown}…")
            for line in helper.stderr:
                if line.startswith(_PROGRESS):
                    _show(f"{shown}: {line.removeprefix(_PROGRESS).strip()} parts")
                elif line.strip():
                    lines.append(line.strip())
        _show("")
        if helper.returncode:
            raise CompileError(
                f"the {name} interpreter could not be compiled: {lines[-1]} "
                "(`anyarch doctor` tells what the compiler needs)"
            )
        made.seek(0)
        given = made.read()
    # A cache that cannot be written only costs speed: the helper gave the blob itself.
    from anyarch.engine.cache import unpack

    blob = cache.get(key) or unpack(given)
    if blob is None:
        raise CompileError(f"the compiled {name} interpreter did not arrive")
    return blob


def _show(text: str) -> None:
    """Write over the last line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def region_compiler(name: str, variant: str, cache: CodeCache | None = None) -> Client:
    """A client of a compiler process for a guest's regions; it starts when first used, and keeps
    them in ``cache``."""
    from anyarch.engine.compiler import Client

    command = [sys.executable, "-P", "-m", "anyarch._native", name, variant, "regions"]
    environment = _helper_environment() | {"ANYARCH_CACHE": (cache or CodeCache()).path}
    return Client(command, environment, native_code(name, variant))


def region_finder(name: str, variant: str) -> RegionCompiler:
    """What finds a guest's regions, in the process that compiles them."""
    from anyarch.engine.regions import RegionCompiler

    bounded, direct = variant == "bounded", variant == "direct"
    return RegionCompiler(architecture(name), bounded=bounded, direct=direct)


def _helper_environment() -> dict[str, str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.flags.ignore_environment:  # what is there is for the guest's Python
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return kept | {"PYTHONPATH": root}
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return dict(os.environ, PYTHONPATH=path)


def main(arguments: list[str]) -> int:
    """Compile one variant into the cache and write it to standard output, or serve regions."""
    from anyarch.engine.cache import pack

    name, variant, *what = arguments
    if what == ["regions"]:
        from anyarch.engine.compiler import compile_with, serve
        from anyarch.engine.store import RegionStore

        serve(compile_with(region_finder(name, variant)), RegionStore(CodeCache()))
        return 0
    blob = CodeCache().build_once(native_key(name, variant), lambda: compile_native(name, variant))
    sys.stdout.buffer.write(pack(blob))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
