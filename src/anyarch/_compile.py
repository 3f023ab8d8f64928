"""Ahead-of-time compilation of Linux programs: what they map where, wired to the compiler."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Final

from anyarch._native import native_code, native_key, region_finder, space_variant
from anyarch._run import run
from anyarch.engine.aot import Explored, Explorer, Progress, Text, compile_ahead
from anyarch.engine.bundle import CompiledRegion
from anyarch.engine.cache import CodeCache
from anyarch.engine.store import RegionStore, write_bundle
from anyarch.errors import CompileError, Error, LoadError
from anyarch.linux.abi import LinuxAbi
from anyarch.linux.functions import function_addresses
from anyarch.linux.image import load_library, load_program
from anyarch.linux.paths import host_path
from anyarch.linux.program import find_abi
from anyarch.memory.space import AddressSpace

_WRITE, _EXEC = 2, 4
_LISTED: Final = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x([0-9a-f]+)\)$", re.MULTILINE)
_TASKS: Final = 64  # batches after which a worker is replaced: LLVM keeps memory


@dataclass(slots=True)
class Work:
    """What is to be compiled for one architecture."""

    abi: LinuxAbi
    texts: dict[str, Text] = field(default_factory=dict)  # by key
    data: list[Text] = field(default_factory=list)  # read-only mappings
    roots: set[int] = field(default_factory=set)
    variant: str = "flat"
    files: list[str] = field(default_factory=list)


def gather(paths: Sequence[str], root: str | None, *, libraries: bool) -> Work:
    """The executable mappings of programs and shared libraries, and where code begins in them.

    With ``libraries`` also those of the dynamic linker and of the libraries that it says a program
    needs: it is run for that, the program is not. Raises LoadError.
    """
    folder = os.fsencode(os.path.abspath(root)) if root is not None else None
    work: Work | None = None
    for path in paths:
        program = host_path(folder, os.fsencode(path), follow=True)
        abi = find_abi(program)
        if work is None:
            work = Work(abi)
        elif work.abi is not abi:
            raise LoadError(f"{path}: built for {abi.name}; the first file is for {work.abi.name}")
        _gather_one(work, path, program, folder, libraries)
    if work is None:
        raise Error("no PROGRAM given")
    return work


def _gather_one(
    work: Work, path: str, program: bytes, folder: bytes | None, libraries: bool
) -> None:
    abi = work.abi
    space = AddressSpace(abi.task_size.bit_length() - 1, direct=True)
    work.variant = space_variant(space)
    biases: dict[bytes, int] = {}
    if ".so" in os.path.basename(path):
        biases[program] = load_library(space, abi, program)
    else:

        def find(name: bytes) -> bytes:
            return host_path(folder, name, follow=True)

        image = load_program(space, abi, program, program, [program], [], find, 1 << 23)
        biases[program] = image.entry - image.elf.entry
        if image.elf.interpreter is not None and libraries:
            linker = find(os.fsencode(image.elf.interpreter))
            biases[linker] = image.start - function_entry(linker)
            for library, address in _libraries(image.elf.interpreter, path, folder):
                host = host_path(folder, library, follow=True)
                if not any(os.path.samefile(host, known) for known in biases):
                    biases[host] = load_library(space, abi, host, address)
    wanted = {os.path.realpath(name) for name in biases}
    store = RegionStore(CodeCache(), native_key(abi.name, work.variant), files=True)
    for mapping in space.regions():
        if os.fsencode(mapping.name) not in wanted or mapping.prot & _WRITE or not mapping.prot:
            continue
        data = space.read(mapping.start, mapping.end - mapping.start)
        key = store.key_of(mapping, data[:4096]) if mapping.prot & _EXEC else None
        if key is not None:
            work.texts[key] = Text(mapping.start, data, key)
        else:
            work.data.append(Text(mapping.start, data, ""))
    for name, bias in biases.items():
        text = os.fsdecode(name)
        work.files.append(text)
        work.roots |= {address + bias for address in function_addresses(text)}
    space.close()


def function_entry(path: bytes) -> int:
    """The entry of an ELF file, as the file counts."""
    from anyarch.linux.elf import read_elf

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_elf(fd, os.fsdecode(path)).entry
    finally:
        os.close(fd)


def _libraries(linker: str, program: str, folder: bytes | None) -> list[tuple[bytes, int]]:
    """Guest paths of the libraries that a program needs, and where the linker maps them."""
    root = os.fsdecode(folder) if folder is not None else None
    listed = run(linker, ["--list", program], root=root, engine="interp")
    if listed.status != 0:
        message = listed.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise LoadError(f"{program}: its dynamic linker cannot list its libraries: {message[-1]}")
    found = _LISTED.findall(listed.stdout.decode(errors="replace"))
    return [(os.fsencode(name), int(address, 16)) for name, address in found if name != program]


def compile_work(
    work: Work, jobs: int, output: str | None = None, cache: CodeCache | None = None
) -> Iterator[Progress]:
    """Compile into the cache, and with ``output`` also into a bundle file; yields how far it is.

    What is in the cache already is not compiled again, and what is compiled goes there as it
    comes: who is stopped goes on where it was. Raises CompileError when a worker dies, or when
    the cache cannot be written and there is no ``output``.
    """
    name = work.abi.name
    native_code(name)
    store = RegionStore(cache or CodeCache(), native_key(name, work.variant), files=True)
    texts = list(work.texts.values())
    known: dict[int, list[CompiledRegion]] = {}
    for text in texts:
        for region in store.load(text.key):
            known.setdefault(region.pc, []).append(region)
    unkept: dict[str, list[CompiledRegion]] = {text.key: [] for text in texts}
    executor = ProcessPoolExecutor(
        jobs,
        get_context("spawn"),
        _begin,
        (name, work.variant, texts, work.data),
        max_tasks_per_child=_TASKS,
    )
    last = Progress()
    try:
        for progress, made in compile_ahead(texts, work.roots, known, executor, jobs, _explore):
            fresh: dict[str, list[CompiledRegion]] = {}
            for region in made:
                for text in texts:
                    if text.start <= region.pc < text.end:
                        fresh.setdefault(text.key, []).append(region)
            for key, regions in fresh.items():
                if store.append(key, regions, ahead=True):
                    continue
                if output is None:
                    raise CompileError(f"{store.cache.path}: the cache cannot be written")
                unkept[key] += regions
            last = progress
            yield progress
        if output is not None:
            try:
                sections = {key: chain(store.load(key), made) for key, made in unkept.items()}
                last.written = write_bundle(output, sections)
            except OSError as error:
                raise CompileError(f"{output}: {error.strerror}") from None
            yield last
    except BrokenProcessPool:
        raise CompileError(
            "a compiler process died, of lack of memory perhaps (-j 1 needs the least); what was "
            "compiled is kept"
        ) from None
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


_explorer: Explorer | None = None


def _begin(name: str, variant: str, texts: list[Text], data: list[Text]) -> None:
    """In a worker process: get ready."""
    global _explorer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None
    Thread(target=_end_after, args=(parent,), daemon=True).start()
    os.nice(5)
    _explorer = Explorer(region_finder(name, variant), texts, data)


def _end_after(parent: BaseProcess) -> None:
    """A worker that has nothing to do would wait for ever after a parent that was killed."""
    parent.join()
    os._exit(1)


def _explore(batch: list[tuple[int, bool]]) -> list[Explored | None]:
    assert _explorer is not None
    return [_explorer.explore(pc, known=known) for pc, known in batch]
