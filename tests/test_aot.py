"""Ahead-of-time compilation: what it finds and compiles, and that nothing is left to compile."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final

import pytest
from elftools.elf.elffile import ELFFile

import anyarch
from anyarch import JitOptions
from anyarch._native import native_code, native_key
from anyarch.cli import main
from anyarch.engine.aot import Explored, Explorer, Progress, Text, compile_ahead
from anyarch.engine.bundle import CompiledRegion, digest_of
from anyarch.engine.cache import REGIONS, CodeCache
from anyarch.engine.journal import Journal, PerfMap
from anyarch.engine.regions import RegionCompiler
from anyarch.errors import LoadError
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.host.blockroom import BlockRoom
from anyarch.host.code import append_region
from anyarch.isa.assembly import assemble
from anyarch.linux.functions import function_addresses
from anyarch.linux.placement import places, reservation_places
from tests.programs.build import RISCV, compile_c

CODE: Final = 0x10000
ROOT: Final = Path(__file__).resolve().parents[1]
TASK_SIZE: Final = 1 << 38


# What code reaches.
def explore(text: str, at: int = CODE) -> Explored:
    data = assemble(ARCHITECTURE, text, CODE).ljust(8192, b"\0")
    explorer = Explorer(RegionCompiler(ARCHITECTURE, bounded=False), [Text(CODE, data, "key")])
    found = explorer.explore(at, known=True)
    assert found is not None
    assert not found.packed
    return found


def test_callees_and_functions_that_are_handed_on_are_found() -> None:
    text = """
        addi sp, sp, -16; sd ra, 0(sp); jal ra, far
        auipc a0, 0; addi a0, a0, 48; jal ra, far
        ld ra, 0(sp); addi sp, sp, 16; ret
        far: addi sp, sp, -16; sd ra, 0(sp); jal ra, far; ld ra, 0(sp); addi sp, sp, 16; ret
        other: ret
    """
    found = explore(text)
    far = CODE + 9 * 4
    assert far in found.entries
    assert CODE + 12 + 48 in found.entries, "auipc and addi make an address of code"
    assert CODE + 12 not in found.entries, "auipc alone does not"


def test_loops_are_found_but_not_every_jump_backward() -> None:
    text = """
        li a1, 3; outer: li a2, 5; inner: addi a2, a2, -1; bnez a2, inner
        addi a1, a1, -1; bnez a1, outer; j away
        back: ret
        away: beqz a0, back; ret
    """
    found = explore(text)
    assert set(found.heads) == {CODE + 4, CODE + 8}
    assert not found.inner


def test_where_a_region_was_cut_off() -> None:
    text = "; ".join(["addi a0, a0, 1"] * 700 + ["ret"])
    found = explore(text)
    (cut,) = found.inner
    assert found.ranges == ((CODE, cut),)
    assert CODE < cut < CODE + 4 * 700


def test_nothing_is_found_in_data() -> None:
    explorer = Explorer(
        RegionCompiler(ARCHITECTURE, bounded=False), [Text(CODE, bytes(4096), "key")]
    )
    assert explorer.explore(CODE, known=False) is None
    assert explorer.explore(CODE + 8192, known=False) is None


# The order of work.
class Inline(Executor):
    """Does everything at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def made(pc: int) -> CompiledRegion:
    return CompiledRegion(pc, 0, 2, (), ((pc, pc + 8),), digest_of(((pc, pc + 8),), zeros), b"code")


def zeros(address: int, nbytes: int) -> bytes:
    return bytes(nbytes)


def plan(
    graph: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]],
    known: dict[int, list[CompiledRegion]],
) -> tuple[list[tuple[int, bool]], Progress, list[CompiledRegion]]:
    """Work through what reaches what; which pcs were explored, and whether they were known."""
    asked: list[tuple[int, bool]] = []

    def work(batch: list[tuple[int, bool]]) -> list[Explored | None]:
        asked.extend(batch)
        result: list[Explored | None] = []
        for pc, is_known in batch:
            if pc not in graph:
                result.append(None)
                continue
            packed = b"" if is_known else made(pc).pack()
            result.append(Explored(pc, packed, ((pc, pc + 16),), *graph[pc]))
        return result

    texts = [Text(CODE, bytes(4096), "key")]
    steps = list(compile_ahead(texts, [CODE], known, Inline(), 1, work))
    return asked, steps[-1][0], [region for _, new in steps for region in new]


def test_everything_reached_is_compiled_once() -> None:
    a, b, c, d = (CODE + 64 * i for i in range(4))
    graph = {
        a: ((b, c, a), (), (a + 4,)),
        b: ((a, 0x999000), (), ()),  # somewhere outside
        c: ((), (d,), ()),
        d: ((), (), ()),
        a + 4: ((), (), ()),
    }
    asked, progress, regions = plan(graph, {})
    assert sorted(asked) == sorted((pc, False) for pc in graph)
    assert {region.pc for region in regions} == set(graph)
    assert (progress.compiled, progress.done, progress.found) == (5, 5, 5)


def test_code_that_another_region_has_is_not_compiled_where_one_was_cut_off() -> None:
    a, b = CODE, CODE + 64
    graph = {a: ((b,), (b + 8, b + 16), ()), b: ((), (), ()), b + 16: ((), (), ())}
    asked, _, _ = plan(graph, {})
    assert asked == [(a, False), (b, False), (b + 16, False)]


def test_what_is_known_is_followed_and_not_compiled_again() -> None:
    a, b, c = CODE, CODE + 64, CODE + 128
    graph = {a: ((b, c), (), ()), b: ((), (), ()), c: ((), (), ())}
    changed = CompiledRegion(c, 0, 2, (), ((c, c + 8),), bytes(16), b"of other code")
    asked, progress, regions = plan(graph, {a: [made(a)], c: [changed]})
    assert asked == [(a, True), (b, False), (c, False)]
    assert {region.pc for region in regions} == {b, c}
    assert (progress.known, progress.compiled) == (1, 2)


# Files.
def test_functions_of_files() -> None:
    path = Path(sys.executable).resolve()
    found = function_addresses(str(path))
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_entry"] in found
        table = elf.get_section_by_name(".dynsym")
        assert table is not None
        names = {
            symbol["st_value"]
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"] % 2 == 0
        } - {0}
        assert names <= found
        (code,) = [s for s in elf.iter_segments("PT_LOAD") if s["p_flags"] & 1]
        low, high = code["p_vaddr"], code["p_vaddr"] + code["p_filesz"]
    assert all(low <= address < high for address in found)


def test_functions_of_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    good = Path(sys.executable).resolve().read_bytes()[:100_000]
    for data in (b"", b"\x7fELF", good, good[:70]):
        path.write_bytes(data)
        try:
            function_addresses(str(path))
        except LoadError as error:
            assert str(error).startswith(f"{path}: damaged ELF file")


def test_places_follow_from_the_file(tmp_path: Path) -> None:
    def of(data: bytes, nbytes: int = 1 << 20) -> list[int]:
        path = tmp_path / "file"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            return list(places(fd, nbytes, TASK_SIZE))
        finally:
            os.close(fd)

    library = b"\x7fELF".ljust(16, b"\0") + b"\x03\0" + bytes(8000)
    found = of(library)
    assert len(set(found)) == len(found) > 1
    assert of(library) == found
    assert not set(of(library + b"x")) & set(found)
    assert not set(of(library.replace(b"ELF", b"ELF\x02", 1))) & set(found)
    for nbytes in (1 << 12, 1 << 30):
        for place in of(library, nbytes):
            assert place % (1 << 20) == 0
            assert TASK_SIZE // 8 * 3 <= place <= TASK_SIZE // 8 * 5 - nbytes
    assert of(library, TASK_SIZE) == []
    assert of(b"#!/bin/sh\n" * 1000) == []
    assert of(b"\x7fELF".ljust(16, b"\0") + b"\x02\0" + bytes(8000)) == [], "not ET_DYN"
    assert of(b"") == []


def test_places_of_what_a_dynamic_linker_reserves(tmp_path: Path) -> None:
    """glibc's reserves room in which an alignment of more than a page fits; others ask at once."""

    def reserved(alignment: int, nbytes: int, kind: int = 3) -> tuple[list[int], list[int]]:
        path = tmp_path / "file"
        loads = ((5, 0, 0, 0x1800), (6, 0x1F00, 0x21F00, 0x5123))
        path.write_bytes(
            struct.pack(
                "<16sHHIQQQIHHHHHH",
                b"\x7fELF\2\1\1",
                kind,
                0xB7,
                1,
                0,
                64,
                0,
                0,
                64,
                56,
                2,
                0,
                0,
                0,
            )
            + b"".join(
                struct.pack("<IIQQQQQQ", 1, flags, offset, at, at, 0x100, size, alignment)
                for flags, offset, at, size in loads
            )
            + bytes(0x3000)
        )
        fd = os.open(path, os.O_RDONLY)
        try:
            return (
                list(reservation_places(fd, nbytes, TASK_SIZE)),
                list(places(fd, 0x28000, TASK_SIZE)),
            )
        finally:
            os.close(fd)

    found, expected = reserved(0x10000, 0x38000)  # the segments end at 0x27023
    assert found == expected != []
    assert reserved(0x1000, 0x29000)[0] == []
    assert reserved(0x10000, 0x28000)[0] == []
    assert reserved(0x10000, 0x38000, 2)[0] == []


# Whole programs.
FREESTANDING: Final = """
static long call(long n, long a, long b, long c) {
    register long a7 __asm__("a7") = n; register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b; register long a2 __asm__("a2") = c;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
    return a0;
}
typedef unsigned long word;
__attribute__((noinline)) static word twice(word x) { return 2 * x + 1; }
__attribute__((noinline)) static word mix(word x) {
    for (int i = 0; i < 5; i++) x = x * 31 + (x >> 7);
    return x;
}
static word (*const volatile table[])(word) = {twice, mix};
__attribute__((noinline)) static word run(word count) {
    word x = 1;
    for (word i = 0; i < count; i++) {
        for (word j = 0; j < 10; j++) x += (x << 1) ^ j;
        x = table[i & 1](x);
    }
    return x;
}
void begin(void) {
    char text[17];
    word x = run(400000);
    for (int i = 0; i < 16; i++) text[i] = "0123456789abcdef"[x >> (4 * (15 - i)) & 15];
    text[16] = '\\n';
    call(64, 1, (long)text, 17);
    call(93, 0, 0, 0);
}
"""
EXPECTED: Final = "776151211a7189f6\n"
FLAGS: Final = ("-nostdlib", "-nostartfiles", "-ffreestanding", "-Wl,-e,begin", "-Wno-everything",
                "-fno-sanitize=undefined")  # fmt: skip


KILLED: Final = """
import os, signal, sys
from anyarch._compile import compile_work, gather
for progress in compile_work(gather(sys.argv[1:2], None, libraries=False), 1, sys.argv[2]):
    if progress.done == progress.found or progress.compiled and sys.argv[3] == "working":
        print(progress.compiled, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    source = tmp_path / "program.c"
    source.write_text(FREESTANDING)
    return compile_c(source, RISCV, flags=FLAGS)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CodeCache]:
    """One that has the interpreter and nothing else."""
    native_code("riscv64")
    folder = tmp_path / "cache"
    folder.mkdir(0o700)
    for file in Path(CodeCache().path).glob(native_key("riscv64", "flat") + "*"):
        shutil.copy(file, folder)
    monkeypatch.setenv("ANYARCH_CACHE", str(folder))
    return CodeCache(str(folder))


def run(program: Path, *options: str) -> tuple[str, int, int]:
    """What it prints, and how many regions were compiled and loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "anyarch", "run", "--engine", "jit", "--stats", *options, program],
        env=dict(os.environ, PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    ((compiled, loaded),) = re.findall(r"(\d+) regions compiled, (\d+) from", done.stderr)
    return done.stdout, int(compiled), int(loaded)


def compiled(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compile", "-j", "1", "--json", *arguments]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_nothing_is_left_to_compile(
    program: Path, cache: CodeCache, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = compiled(capsys, str(program))
    assert facts["compiled"] >= 5
    assert facts["instructions"] > 60
    assert facts["files"] == [str(program)]
    output, count, loaded = run(program)
    assert output == EXPECTED
    assert count == 0
    assert loaded > 0
    again = compiled(capsys, str(program))
    assert (again["compiled"], again["known"]) == (0, facts["compiled"])


def test_a_bundle_is_used_without_a_cache(
    program: Path, cache: CodeCache, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = tmp_path / "program.bundle"
    facts = compiled(capsys, str(program), "-o", str(bundle))
    assert facts["written"] == bundle.stat().st_size
    again = compiled(capsys, str(program), "-o", str(bundle))
    assert (again["compiled"], again["written"]) == (0, facts["written"])
    for entry in cache.entries():
        if entry.kind == REGIONS:
            Path(cache.path_of(entry.key, REGIONS)).unlink()
    _, count, loaded = run(program, "--bundle", str(bundle))
    assert count == 0
    assert loaded > 0
    assert not [entry for entry in cache.entries() if entry.kind == REGIONS]
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert main(["run", "--engine", "jit", "--bundle", str(bundle), str(program)]) == 125
    assert "the bundle is cut off" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["working", "idle"])
def test_a_killed_one_is_gone_on_with(
    program: Path, cache: CodeCache, tmp_path: Path, workers: str
) -> None:
    """What it had compiled is in the cache, also on the way to a bundle; no worker outlives it."""
    bundle = tmp_path / "program.bundle"
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(program), str(bundle), workers],
        env=dict(os.environ, PYTHONPATH=str(ROOT / "src")),
        stdout=subprocess.PIPE,
    )
    assert killed.stdout is not None
    before = int(killed.stdout.readline())
    assert killed.wait(100) == -signal.SIGKILL
    assert before > 0
    # Workers have the pipe, too: it ends when the last of them does.
    assert select.select([killed.stdout], [], [], 60)[0], "a worker is still there"
    assert not killed.stdout.read()
    killed.stdout.close()
    done = subprocess.run(
        [sys.executable, "-m", "anyarch", "compile", "--json", program, "-o", bundle],
        env=dict(os.environ, PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        timeout=100,
        check=True,
    )
    facts = json.loads(done.stdout)
    assert facts["known"] >= before
    assert facts["compiled"] + facts["known"] == facts["done"]
    _, count, _ = run(program, "--bundle", str(bundle))
    assert count == 0


def test_what_cannot_be_compiled(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    for path, message in ((text, "not an ELF file"), (tmp_path / "none", "No such file")):
        assert main(["compile", str(path)]) == 125
        assert message in capsys.readouterr().err


def test_from_python(program: Path, cache: CodeCache, tmp_path: Path) -> None:
    options = JitOptions(samples=1, interval=0.0005, cache=str(tmp_path / "another"))
    shutil.copytree(cache.path, tmp_path / "another")
    done = anyarch.run(program, engine="jit", jit=options, statistics=True)
    assert (done.status, done.stdout.decode()) == (0, EXPECTED)
    assert done.statistics is not None
    assert done.statistics["blocks"] > 0
    assert set(done.statistics["regions"]) == {"compiled", "loaded", "dropped", "refused"}
    assert not [entry for entry in cache.entries() if entry.kind == REGIONS]
    plain = anyarch.run(program, engine="interp", statistics=True)
    assert plain.statistics is not None
    assert "regions" not in plain.statistics
    assert anyarch.run(program).statistics is None
    with pytest.raises(anyarch.Error, match="No such file"):
        anyarch.run(program, engine="jit", jit=JitOptions(bundles=["/no/such/bundle"]))


# Reports.
def test_the_journal_adds_up() -> None:
    journal = Journal()
    assert journal.lines() == []
    for pc in (CODE, CODE + 64):
        journal.note("compiled", made(pc), 0.25)
    journal.note("refused", None, 0.5)
    first, second = journal.lines()
    assert first.startswith("2 regions compiled: 4 instructions, 8 bytes, 0.500 s; ")
    assert second.startswith("1 regions refused: 0 instructions, 0 bytes, 0.500 s; ")


def test_perf_looks_into_its_map_for_our_code() -> None:
    """Only for memory without a file of its own, which shared memory of nobody's is to it."""
    places = {append_region(b"\xc3")}
    room = BlockRoom()
    places.add(room.start)
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    found = {
        (place, modes, "".join(name))
        for span, modes, _, _, _, *name in lines
        for place in places
        if int(span.split("-")[0], 16) <= place < int(span.split("-")[1], 16)
    }
    room.close()
    assert found == {(place, "r-xs", "/dev/zero (deleted)") for place in places}


def test_perf_maps_of_parent_and_child(tmp_path: Path) -> None:
    perf = PerfMap(lambda pc: f"name_{pc:x}", str(tmp_path))
    journal = Journal(perf)
    journal.placed(made(CODE), 0x7000)
    pid = os.fork()
    if pid == 0:
        journal.placed(made(CODE + 64), 0x8000)
        os._exit(0)
    os.waitpid(pid, 0)
    journal.placed(made(CODE + 128), 0x9000)
    lines = ["7000 4 name_10000\n", "8000 4 name_10040\n", "9000 4 name_10080\n"]
    assert (tmp_path / f"perf-{pid}.map").read_text() == "".join(lines[:2])
    assert (tmp_path / f"perf-{os.getpid()}.map").read_text() == lines[0] + lines[2]
