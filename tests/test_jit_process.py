"""The compiled tier around programs: the compiler's process, the cache between runs, forks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from anyarch._native import native_code, native_key, region_compiler
from anyarch.engine.bundle import CALLS, CompiledRegion
from anyarch.engine.cache import REGIONS, CodeCache
from anyarch.engine.collection import verify
from anyarch.engine.compiler import Client, Request
from anyarch.engine.leftovers import Leftovers, Root
from anyarch.engine.store import RegionStore
from anyarch.errors import MemoryFault
from anyarch.guests.riscv import ARCHITECTURE
from anyarch.isa.assembly import assemble
from tests.programs.build import HOST, RISCV, compile_c
from tests.test_programs import ARGUMENTS, FOLDER, run_native

CODE: Final = 0x10000
WINDOW: Final = assemble(ARCHITECTURE, "a: addi a0, a0, 1; bnez a0, a; ret", CODE).ljust(
    4096, b"\0"
)


def _no_memory(address: int, nbytes: int) -> bytes:
    raise MemoryFault(address, "read")


REQUEST: Final = Request(CODE, CODE, WINDOW, _no_memory)
ROOT: Final = Path(__file__).resolve().parents[1]


def _compilers(marker: str) -> list[int]:
    """Processes that were given an environment variable."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in variables:
                found.append(int(entry.name))
    return found


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Client, str]]:
    marker = f"ANYARCH_TEST_MARKER={tmp_path}"
    monkeypatch.setenv(*marker.split("=", 1))
    made = region_compiler("riscv64", "flat", CodeCache(str(tmp_path / "cache")))
    yield made, marker
    made.close()


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def test_the_compiler_is_nobodys_child(client: tuple[Client, str]) -> None:
    compiler, marker = client
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    seen: list[object] = []
    done = threading.Event()
    others = _has_children()  # of tests before this one
    before = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, lambda *_: seen.append("SIGCHLD"))

    def wait() -> None:
        while not done.is_set():
            try:
                found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                found = (0, 0)
            else:
                if found != (0, 0) or not others:
                    seen.append(found)
            time.sleep(0.0002)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        region = compiler.compile(REQUEST)
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGCHLD, before)
    assert region is not None
    assert (region.pc, region.instructions) == (CODE, 3)
    assert not seen
    (pid,) = _compilers(marker)
    assert os.getsid(pid) == os.getpgid(pid) not in (os.getsid(0), os.getpgid(0))
    status = (Path("/proc") / str(pid) / "status").read_text()
    assert int(re.findall(r"PPid:\t(\d+)", status)[0]) != os.getpid()
    os.close(writing)
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b"", "the compiler has the guest's descriptor"
    os.close(reading)


def test_a_killed_compiler_is_replaced(client: tuple[Client, str]) -> None:
    compiler, marker = client
    assert compiler.compile(REQUEST)
    (pid,) = _compilers(marker)
    os.kill(pid, signal.SIGKILL)
    while pid in _compilers(marker):
        time.sleep(0.005)
    assert compiler.compile(REQUEST)
    assert compiler.started == 2


def test_a_closed_connection_is_made_anew(client: tuple[Client, str]) -> None:
    """Guests close descriptors that are not theirs, and get the numbers for their own."""
    compiler, marker = client
    assert compiler.compile(REQUEST)
    links = {
        int(fd): os.stat(f"/proc/self/fd/{fd}").st_ino
        for fd in os.listdir("/proc/self/fd")
        if int(fd) >= 900
    }
    fd = next(fd for fd, inode in links.items() if inode == compiler._inode)
    os.dup2(os.open(os.devnull, os.O_RDONLY), fd)
    assert compiler.compile(REQUEST)
    assert os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev, "it was closed"
    os.close(fd)
    del marker


def test_the_compiler_ends_with_its_client(client: tuple[Client, str]) -> None:
    compiler, marker = client
    assert compiler.compile(REQUEST)
    compiler.close()
    deadline = time.monotonic() + 10
    while _compilers(marker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_compiler_goes_on_with_what_its_client_has_left(
    client: tuple[Client, str], tmp_path: Path
) -> None:
    compiler, marker = client
    key, file = "ab" * 32, tmp_path / "program"
    calling = "a: addi a0, a0, 1; bnez a0, a; jal ra, visited; jal ra, unvisited; ret"
    functions = "visited: ecall; ret; unvisited: ecall; ret"
    code = assemble(ARCHITECTURE, f"{calling}; {functions}", CODE).ljust(4096, b"\0")
    file.write_bytes(bytes(4096) + code)
    there = (CODE, CODE + 4096, 4096, str(file))
    gone = (CODE + 4096, CODE + 8192, 0, str(tmp_path / "gone"))
    beyond = (CODE + 8192, CODE + 12288, 8192, str(file))
    roots = [Root(pc, key, b"", pc == 0) for pc in (0, CODE + 4096, CODE + 8192, CODE)]
    visited = {CODE: array("I", [0, 20 >> 1])}
    assert compiler.compile(REQUEST)
    compiler.leave(Leftovers(tuple(roots), (there, gone, beyond), visited, ()))
    compiler.close()
    deadline = time.monotonic() + 60
    while _compilers(marker):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store = RegionStore(CodeCache(str(tmp_path / "cache")))
    regions = {region.pc: region for region in store.load(key)}
    assert list(regions) == [CODE, CODE + 20], "calls are followed where the guest has been"
    assert [region.pc for region in store.load(key).hot] == [CODE]
    assert regions[CODE].instructions == 5
    assert regions[CODE].targets == (CODE + 20, CODE + 28)


def test_what_is_left_in_the_middle_of_a_region_needs_none(tmp_path: Path) -> None:
    file, key = tmp_path / "program", "ab" * 32
    file.write_bytes(bytes(4096))
    made = {
        CODE: (CODE + 64, CODE + 128, CODE + 256 | CALLS, CODE + 260),
        CODE + 256: (),
        CODE + 512: (),
    }
    roots = [
        Root(CODE, key, b"", ahead=False),
        Root(CODE + 8, key, b"", ahead=False, is_inner=True),
        Root(CODE + 512, key, b"", ahead=False, is_inner=True),
        Root(CODE + 1024, key, b"", ahead=False, is_inner=True),
    ]
    visited = {CODE: array("I", [64 >> 1, 128 >> 1, 256 >> 1, 260 >> 1])}
    pieces = ((CODE, CODE + 4096, 0, str(file)),)
    requests = Leftovers(tuple(roots), pieces, visited, ((CODE + 1024, CODE + 1030),)).requests()
    asked, region = [], None
    with contextlib.suppress(StopIteration):
        while True:
            request, ahead = requests.send(region)
            asked.append((request.pc, ahead))
            ranges = ((request.pc, request.pc + 100),)
            cells = made.get(request.pc, ())
            region = CompiledRegion(request.pc, 0, 1, cells, ranges, b"", b"")
    assert asked == [(CODE, False), (CODE + 512, False), (CODE + 128, True), (CODE + 256, True)]


def test_leftovers_are_the_same_for_the_compiler() -> None:
    roots = (
        Root(CODE, "ab" * 32, bytes(range(256)), ahead=False),
        Root(CODE + 8, "ab" * 32, b"", ahead=True, is_inner=True),
    )
    pieces = ((CODE, CODE + 4096, 0, "/program"),)
    left = Leftovers(roots, pieces, {CODE: array("I", [8, 0, 4])}, ((CODE, CODE + 8),), 1.5)
    got = Leftovers.unpack(left.pack())
    assert got.visited == {CODE: array("I", [0, 4, 8])}, "in order"
    assert (got.roots, got.pieces, got.covered, got.seconds) == (roots, pieces, left.covered, 1.5)


def test_who_waits_for_a_region_when_the_guest_ends_gets_none() -> None:
    script = "import sys; sys.stdin.read()"
    client = Client([sys.executable, "-c", script], dict(os.environ), native_code("riscv64"))
    timer = threading.Timer(0.2, client.end)
    timer.start()
    assert client.compile(REQUEST) is None
    timer.join()
    assert client.compile(REQUEST) is None
    client.close()


def test_no_compiler_is_no_region() -> None:
    native = native_code("riscv64")
    for command in (["/bin/false"], ["/no/such/program"], [sys.executable, "-c", "print('hello')"]):
        client = Client(command, {}, native)
        for _ in range(20):
            assert client.compile(REQUEST) is None
        assert client.started <= 8, "it tries for ever"


def test_a_compiler_that_has_grown_too_large_is_replaced() -> None:
    script = """if True:
        from anyarch import _native
        from anyarch.engine import compiler
        made = compiler.compile_with
        def compile_with(regions):
            inner = made(regions)
            def compile_region(request):
                compiler.MEMORY_LIMIT = 0
                return inner(request)
            return compile_region
        compiler.compile_with = compile_with
        _native.main(["riscv64", "flat", "regions"])
    """
    client = Client([sys.executable, "-c", script], dict(os.environ), native_code("riscv64"))
    for count in (1, 2):
        assert client.compile(REQUEST)
        assert client.started == count
    client.close()


# Whole programs.
BUSY: Final = """
#include <stdio.h>
#include <stdlib.h>
static unsigned step(unsigned x) { return x * 1664525u + 1013904223u; }
int main(int argc, char **argv) {
    unsigned count = atoi(argv[1]) * 1000000u, x = 1;
    for (unsigned i = 0; i < count; i++) { x = step(x); if (x & 64) x ^= i; }
    printf("%u\\n", x);
    return 3;
}
"""
FORKING: Final = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static unsigned work(unsigned x, unsigned count) {
    for (unsigned i = 0; i < count; i++) { x = x * 1664525u + i; if (x & 32) x ^= i >> 3; }
    return x;
}
int main(void) {
    unsigned sum = 0;
    errno = 0;
    if (wait(0) != -1 || errno != ECHILD) return 9;
    for (int i = 0; i < 24; i++) {
        sum += work(i, 200000);
        pid_t child = fork();
        if (child == 0) {
            unsigned x = work(i, 3000000);
            if (i % 6 == 0 && fork() == 0) _exit(work(i, 2000000) & 1 ? 0 : 1);
            _exit(x & 63);
        }
        int status;
        if (waitpid(-1, &status, 0) != child || !WIFEXITED(status)) return 8;
        sum += WEXITSTATUS(status);
    }
    printf("%u\\n", sum);
    return 0;
}
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has the interpreter and nothing else."""
    native_code("riscv64")
    folder = tmp_path / "cache"
    folder.mkdir(0o700)
    for file in Path(CodeCache().path).glob(native_key("riscv64", "flat") + "*"):
        shutil.copy(file, folder)
    return folder


def _build(tmp_path: Path, text: str) -> tuple[Path, Path]:
    source = tmp_path / "program.c"
    source.write_text(text)
    return compile_c(source, RISCV), compile_c(source, HOST)


def _command(program: Path, *arguments: str) -> list[str | Path]:
    return [
        sys.executable,
        "-m",
        "anyarch",
        "run",
        "--engine",
        "jit",
        "--stats",
        program,
        *arguments,
    ]


def _environment(cache: Path) -> dict[str, str]:
    return dict(os.environ, ANYARCH_CACHE=str(cache), PYTHONPATH=str(ROOT / "src"))


def _regions(errors: str) -> tuple[int, int]:
    """How many were compiled, and how many came from the cache."""
    (found,) = re.findall(r"(\d+) regions compiled, (\d+) from the cache", errors)
    return int(found[0]), int(found[1])


def test_a_second_run_compiles_nothing(cache: Path, tmp_path: Path) -> None:
    program, native = _build(tmp_path, BUSY)
    # The first runs until something was compiled, however busy the machine is.
    counts = []
    for millions in ("400", "5", "5"):
        expected = subprocess.run([native, millions], capture_output=True, text=True)
        done = subprocess.run(
            _command(program, millions),
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(cache),
        )
        assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)
        counts.append(_regions(done.stderr))
    assert counts[0][0] > 0
    assert counts[0][1] == 0
    assert counts[2][0] == 0
    assert counts[2][1] >= counts[0][0]


def test_two_processes_keep_what_they_compile_at_once(cache: Path, tmp_path: Path) -> None:
    program, native = _build(tmp_path, BUSY)
    expected = subprocess.run([native, "400"], capture_output=True, text=True).stdout
    running = [
        subprocess.Popen(
            _command(program, "400"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(cache),
        )
        for _ in range(2)
    ]
    for process in running:
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (3, expected)
        assert sum(_regions(errors)) > 0
    kept = CodeCache(str(cache))
    assert len(list(kept.entries())) >= 2
    assert not any(damaged for _, damaged in verify(kept))


def test_forks_while_regions_are_compiled(cache: Path, tmp_path: Path) -> None:
    program, native = _build(tmp_path, FORKING)
    expected = subprocess.run([native], capture_output=True, text=True)
    done = subprocess.run(
        _command(program), capture_output=True, text=True, timeout=60, env=_environment(cache)
    )
    assert (done.returncode, done.stdout) == (0, expected.stdout), done.stderr


CHILD: Final = """
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    volatile unsigned x = 1;
    if (fork() == 0) {
        for (unsigned i = 0; i < 100000000u * (argc - 1); i++) x = x * 1664525u + i;
        if (argv[1][0] == 'k') kill(getpid(), SIGKILL);
        if (argv[1][0] == 'e') _exit(0);
    } else wait(0);
    printf("%u\\n", x);
    fflush(stdout);
    return 0;
}
"""


@pytest.mark.parametrize("end", ["kill", "exit", "return"])
def test_what_a_child_compiled_is_kept_however_it_ends(
    end: str, cache: Path, tmp_path: Path
) -> None:
    program, _ = _build(tmp_path, CHILD)
    store = RegionStore(CodeCache(str(cache)))
    deadline = time.monotonic() + 60
    kept: list[str] = []
    while not kept and time.monotonic() < deadline:  # as busy as the machine may be
        done = subprocess.run(
            _command(program, end, "more"), capture_output=True, timeout=60, env=_environment(cache)
        )
        assert done.returncode == 0
        kept = [entry.key for entry in store.cache.entries() if entry.kind == REGIONS]
    assert any(region.instructions > 3 for key in kept for region in store.load(key).hot)


MANY: Final = """
#include <sys/wait.h>
#include <unistd.h>
volatile unsigned x;
#define OWN static __attribute__((noinline)) void
#define F(n) OWN f##n(void) { for (int k = 0; k < 9; k++) x += n; }
#define TENS(_) _(1) _(2) _(3) _(4) _(5) _(6) _(7) _(8) _(9)
#define ALL(n) F(n##0) F(n##1) F(n##2) F(n##3) F(n##4) F(n##5) F(n##6) F(n##7)
#define C(n) f##n();
#define CALLS(n) C(n##0) C(n##1) C(n##2) C(n##3) C(n##4) C(n##5) C(n##6) C(n##7)
TENS(ALL)
int main(int argc, char **argv) {
    if (fork() == 0) {
        for (int turn = 0; turn < 3000 * argc; turn++) { TENS(CALLS) }
        _exit(0);
    }
    wait(0);
    return 0;
}
"""


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="this kernel knows no priority of sessions"
)
def test_the_lowest_priority_is_that_of_a_session_too() -> None:
    code = (
        "import os; from anyarch.host.priority import stand_back; stand_back(); "
        "print(os.nice(0), open('/proc/self/autogroup').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, start_new_session=True
    )
    priority, *_, session = done.stdout.split()  # "19 /autogroup-7 nice 19"
    assert (priority, session) == ("19", "19")


def test_what_a_child_has_left_is_compiled_after_its_end(cache: Path, tmp_path: Path) -> None:
    program, _ = _build(tmp_path, MANY)
    store = RegionStore(CodeCache(str(cache)))
    marker = f"ANYARCH_CACHE={cache}"
    deadline = time.monotonic() + 60

    def count() -> int:
        keys = [entry.key for entry in store.cache.entries() if entry.kind == REGIONS]
        return sum(len(list(store.load(key))) for key in keys)

    before = after = 0
    more: list[str] = []
    while after <= before and time.monotonic() < deadline:  # as busy as the machine may be
        more.append("more")
        done = subprocess.run(
            _command(program, *more), capture_output=True, timeout=60, env=_environment(cache)
        )
        assert done.returncode == 0, done.stderr
        before = count()
        while _compilers(marker) and time.monotonic() < deadline:
            time.sleep(0.01)
        after = count()
    assert after > before


CALLING: Final = """
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int main(void) {
    long wrong = 0, process = getpid();
    time_t end = time(0) + 2;
    for (long i = 0; time(0) < end; i++) {
        for (int k = 0; k < 64; k++) {
            wrong += syscall(SYS_getpid, i, k) != process;
            wrong += syscall(SYS_lseek, 900000 + k, i, 0) != -1;
        }
    }
    printf("%ld\\n", wrong);
    return wrong != 0;
}
"""
EAGER: Final = """
import sys, threading, time
from anyarch.engine import sampler
from anyarch.guests.riscv import ARCHITECTURE
from tests.vectors_format import LocalCompiler

class Eager:
    '''A sampler that has every sample compiled before the guest goes on, up to a limit.'''
    def __init__(self, made, **settings):
        self.jit, self.left, self.asking = made, LIMIT, False
        made.compiler = LocalCompiler(ARCHITECTURE, direct=not made.arena.space.base)
        made.store = None
    def begin(self, pc):
        if not self.asking:
            self.asking = True
            threading.Thread(target=self.ask, daemon=True).start()
            self.add(pc)
    def ask(self):
        while self.left > 0:
            time.sleep(0.0002)
            for runner in list(self.jit.arena.runners):
                runner.ask_pass()
    def passed(self, runner):
        self.add(runner.state.pc)
    def add(self, pc):
        if self.left > 0 and self.jit.add(pc):
            cells = self.jit.installed[pc].region.targets
            self.left -= 1 + sum(map(self.jit.add, cells[: self.left // 2]))
    def after_fork(self):
        self.asking = False
    def close(self):
        assert self.jit.compiled, 'nothing was compiled'

LIMIT = int(sys.argv.pop(1))
sampler.Sampler = Eager
from anyarch.cli import main
sys.argv[:1] = ['anyarch', 'run', '--engine', 'jit']
raise SystemExit(main())
"""
LIMIT: Final = int(os.environ.get("ANYARCH_REGIONS", "8"))
PROGRAMS: Final = (
    "bignum", "floats", "hashing", "heap", "integers", "jumps", "processes", "recursion",
    "rounding", "signals", "tables", "text",
)  # fmt: skip


def _run_eagerly(limit: int, program: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", EAGER, str(limit), program, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{ROOT}"),
        timeout=100,
    )


def test_results_of_system_calls_survive_samples(tmp_path: Path) -> None:
    """A poll behind a system call must not write back what was in its registers before."""
    program, _ = _build(tmp_path, CALLING)
    done = _run_eagerly(1000, program)
    assert (done.returncode, done.stdout) == (0, b"0\n"), done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    """Whole programs, their first samples compiled at once."""
    source = FOLDER / f"{name}.c"
    expected = run_native(compile_c(source, HOST))
    done = _run_eagerly(LIMIT, compile_c(source, RISCV), *ARGUMENTS)
    output = done.stdout.decode(errors="replace")
    assert (done.returncode, output) == expected, done.stderr.decode(errors="replace")
