"""The Linux layer: loading, system calls, signals, paths, the trace."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anyarch
from anyarch.engine.cache import CodeCache
from anyarch.errors import LoadError
from anyarch.linux.aarch64 import AARCH64 as AARCH64_ABI
from anyarch.linux.abi import generic_stat
from anyarch.linux.calls import CALLS
from anyarch.linux.calls.table import PATHS, POINTERS, parse_signature
from anyarch.linux.elf import read_elf
from anyarch.linux.hostcalls import host_call
from anyarch.linux.numbers import GENERIC, HOST_NUMBERS
from anyarch.linux.paths import ABSOLUTE
from anyarch.linux.riscv64 import RISCV64
from anyarch.linux.scripts import Program, find_program
from anyarch.linux.structs import STRUCTS, format_set, quote
from anyarch.linux.symbols import ENUMS, FLAGS, format_flags
from anyarch.linux.thunks import FLAGS_RAISED, PATHS_LEFT, TABLE_NBYTES, fill_thunk_table
from tests.programs.build import AARCH64, HOST, RISCV, Target, compile_c

FOLDER: Final = Path(__file__).parent / "linux_programs"
SOURCES: Final = sorted(FOLDER.glob("*.c"))
# What runs with all code compiled by default; ANYARCH_EAGER=all runs all like this, a guest's
# programs for half an hour on a busy machine.
ALL_EAGER: Final = os.environ.get("ANYARCH_EAGER") == "all"
BRIEF: Final = {"faults", "pages", "threads"}
WAYS: Final = {
    "plain": [],
    "traced": ["--strace", "-o", os.devnull],
    "compiled": ["--engine", "jit", "--jit-eager"],
}


# Programs, which do the same on this machine


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("guest", [RISCV, AARCH64], ids=lambda guest: guest.name)
def test_program_equals_native(guest: Target, source: Path, way: str, tmp_path: Path) -> None:
    """Traced, no call runs natively: the thunk and the Python handlers must agree."""
    if way == "compiled" and not ALL_EAGER and (guest is not RISCV or source.stem not in BRIEF):
        pytest.skip("compiling all code takes long: only with ANYARCH_EAGER=all")
    outputs = []
    flags = WAYS[way]
    for command in (
        [compile_c(source, HOST)],
        [sys.executable, "-m", "anyarch", "run", *flags, compile_c(source, guest)],
    ):
        folder = tmp_path / str(len(outputs))
        folder.mkdir()
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(os.environ, PYTHONPATH=_source(), ANYARCH_CACHE=CodeCache().path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=1800 if ALL_EAGER else 300,
            check=False,
        )
        outputs.append((done.returncode, done.stdout.decode(), done.stderr.decode()))
    assert outputs[1] == outputs[0]


def _source() -> str:
    return str(Path(anyarch.__file__).parents[1])


def _compile(text: str, folder: Path) -> Path:
    source = folder / "program.c"
    source.write_text(text)
    return compile_c(source, RISCV)


def test_death_by_signal_is_passed_on(tmp_path: Path) -> None:
    program = _compile("#include <stdlib.h>\nint main(void) { abort(); }\n", tmp_path)
    assert anyarch.run(program).signal == 6


HUGE_PAGES: Final = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#define MIB (1 << 20)

static char *map(size_t size, int prot, int flags, char *place)
{
    return mmap(place, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* Whether huge pages are wanted for what is mapped at a place, all of it. */
static void show(const char *name, char *place, size_t size)
{
    char line[512];
    unsigned long start, end;
    int here = 0, wanted = 0, other = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && strchr(line, '-') < strchr(line, ' '))
            here = start < (unsigned long)place + size && end > (unsigned long)place;
        else if (here && !strncmp(line, "VmFlags:", 8))
            strstr(line, " hg") ? wanted++ : other++;
    }
    fclose(file);
    printf("%s %s\n", name, !other ? "huge" : wanted ? "mixed" : "small");
}

int main(int argc, char **argv)
{
    int rw = PROT_READ | PROT_WRITE;
    map(MIB, PROT_NONE, 0, NULL); /* in the way of what would grow */
    char *above = map(MIB, rw, 0, NULL), *big = map(8 * MIB, rw, 0, NULL);
    if (argc > 1) {
        printf("disabled %d\n", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
        char *place = map(8 * MIB, rw, MAP_POPULATE, NULL);
        show("disabled", place, 8 * MIB);
        return 0;
    }
    show("big", big, 8 * MIB);
    show("one", above, MIB);
    /* What is above was mapped next to it: Linux moves both at once. */
    printf("neighbours %d\n", big + 8 * MIB == above);
    memset(above, 7, MIB);
    char *moved = mremap(big, 9 * MIB, 20 * MIB, MREMAP_MAYMOVE);
    printf("moved %d %d\n", moved != MAP_FAILED && moved != big, moved[8 * MIB + 5]);
    show("grown", moved, 20 * MIB);
    char *reserved = map(8 * MIB, PROT_NONE, 0, NULL);
    show("reserved", reserved, 8 * MIB);
    show("placed", map(4 * MIB, rw, MAP_FIXED, reserved), 4 * MIB);
    show("noreserve", map(8 * MIB, rw, MAP_NORESERVE, NULL), 8 * MIB);
    show("stack", map(8 * MIB, rw, MAP_STACK, NULL), 8 * MIB);
    show("read", map(8 * MIB, PROT_READ, 0, NULL), 8 * MIB);
    printf("refused %d\n", madvise(moved, 20 * MIB, MADV_NOHUGEPAGE));
    show("refused", moved, 20 * MIB);
    moved = mremap(moved, 20 * MIB, 40 * MIB, MREMAP_MAYMOVE);
    show("still refused", moved, 40 * MIB);
    show("own advice", map(8 * MIB, rw, 0, NULL), 8 * MIB);
    return 0;
}
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the host has no huge pages"
)
def test_huge_pages_are_asked_for_where_much_is_mapped(tmp_path: Path) -> None:
    program = _compile(HUGE_PAGES, tmp_path)
    assert anyarch.run(program).stdout.decode().splitlines() == [
        "big huge",
        "one small",
        "neighbours 1",
        "moved 1 7",
        "grown huge",
        "reserved small",
        "placed small",
        "noreserve small",
        "stack small",
        "read small",
        "refused 0",
        "refused small",
        "still refused small",
        "own advice small",
    ]
    assert anyarch.run(program, ["disable"]).stdout == b"disabled 0\ndisabled small\n"


def test_a_timer_that_outlives_the_program(tmp_path: Path) -> None:
    program = _compile(
        "#include <signal.h>\n#include <sys/time.h>\nvoid caught(int n) { (void)n; }\n"
        "int main(void) { struct itimerval often = {{0, 500}, {0, 500}};\n"
        "signal(SIGALRM, caught); return setitimer(ITIMER_REAL, &often, 0) ? 1 : 3; }\n",
        tmp_path,
    )
    done = anyarch.run(program)
    assert (done.status, done.signal) == (3, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_cannot_read_our_files(tmp_path: Path) -> None:
    """What is loaded when first needed is loaded before the guest gives up root's rights."""
    private = tmp_path / "private"
    private.mkdir(0o700)
    shutil.copytree(Path(anyarch.__file__).parent, private / "anyarch")
    program = compile_c(FOLDER.with_name("root_programs") / "rights.c", RISCV)
    done = subprocess.run(
        [sys.executable, "-m", "anyarch", "run", program],
        cwd="/",
        env=dict(os.environ, PYTHONPATH=str(private), ANYARCH_CACHE=CodeCache().path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expected = "0 65534 -1 Operation not permitted\n0.33333333333333331\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_trace_shows_calls_and_signals(tmp_path: Path) -> None:
    program = _compile(
        "#include <fcntl.h>\n#include <signal.h>\n#include <unistd.h>\n"
        "void caught(int n) { (void)n; }\n"
        'int main(void) { open("/nothing\\n", O_RDWR | O_CLOEXEC); signal(SIGUSR1, caught);\n'
        'raise(SIGUSR1); write(1, "a \\"quote\\"", 9); return 3; }\n',
        tmp_path,
    )
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "anyarch", "run", "--strace", "-o", trace, program]
    environment = dict(os.environ, PYTHONPATH=_source())
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, b'a "quote"')
    lines = trace.read_text()
    assert (
        'openat(AT_FDCWD, "/nothing\\n", O_RDWR|O_LARGEFILE|O_CLOEXEC) = -1 ENOENT '
        "(No such file or directory)\n"
    ) in lines
    assert 'write(1, "a \\"quote\\"", 9)              = 9\n' in lines
    assert "--- SIGUSR1 {si_signo=SIGUSR1, si_code=SI_TKILL, si_pid=" in lines
    assert lines.endswith("+++ exited with 3 +++\n")


def test_flags_of_open_by_their_own_numbers(tmp_path: Path) -> None:
    """AArch64 numbers some of them apart from everybody else."""
    source = tmp_path / "program.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <unistd.h>\n"
        'int main(void) { int p[2], fd = open("/tmp", O_DIRECTORY | O_NOFOLLOW);\n'
        "fcntl(fd, F_GETFL); return pipe2(p, O_DIRECT); }\n"
    )
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "anyarch", "run", "--strace", "-o", trace]
    environment = dict(os.environ, PYTHONPATH=_source())
    done = subprocess.run(
        [*command, compile_c(source, AARCH64)], env=environment, timeout=300, check=False
    )
    assert done.returncode == 0
    lines = trace.read_text()
    assert 'openat(AT_FDCWD, "/tmp", O_RDONLY|O_LARGEFILE|O_DIRECTORY|O_NOFOLLOW) = ' in lines
    assert "(flags O_RDONLY|O_LARGEFILE|O_DIRECTORY|O_NOFOLLOW)\n" in lines
    assert re.search(r"pipe2\(\[\d+, \d+\], O_DIRECT\) +=", lines)


def test_root_is_searched_first(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("from the root\n")
    program = _compile(
        '#include <stdio.h>\nint main(void) { char b[100]; FILE *f = fopen("/etc/hostname", "r");\n'
        "fputs(fgets(b, 100, f), stdout); "
        'f = fopen("/proc/self/stat", "r"); return f == NULL; }\n',
        tmp_path,
    )
    done = anyarch.run(program, root=root)
    assert (done.status, done.stdout) == (0, b"from the root\n")


# ELF files


def _elf(**changes: int) -> bytes:
    fields = {
        "magic": 0x464C457F, "class": 2, "data": 1, "type": 2, "machine": 0xF3, "version": 1,
        "entry": 0x10000, "phoff": 64, "phentsize": 56, "phnum": 1,
        "p_type": 1, "p_offset": 0, "p_vaddr": 0x10000, "p_filesz": 120, "p_memsz": 120,
        "p_align": 4096,
    }  # fmt: skip
    fields |= changes
    f = fields
    header = struct.pack("<IBBBB8x", f["magic"], f["class"], f["data"], 1, 0)
    header += struct.pack(
        "<HHIQQQ", f["type"], f["machine"], f["version"], f["entry"], f["phoff"], 0
    )
    header += struct.pack("<IHHHHHH", 0, 64, f["phentsize"], f["phnum"], 0, 0, 0)
    segment = struct.pack("<IIQQ", f["p_type"], 5, f["p_offset"], f["p_vaddr"])
    segment += struct.pack("<QQQQ", 0, f["p_filesz"], f["p_memsz"], f["p_align"])
    return header + segment


def _read(data: bytes, path: Path) -> object:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_elf(fd, "program")
    finally:
        os.close(fd)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    elf = _read(_elf(), tmp_path / "f")
    assert elf.entry == 0x10000  # type: ignore[attr-defined]
    assert elf.headers_address() == 0x10040  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 0}, "not an ELF file"),
        ({"class": 1}, r"e_ident\[EI_CLASS\] is 1; expected 2"),
        ({"data": 2}, r"e_ident\[EI_DATA\] is 2; expected 1"),
        ({"version": 3}, "e_version is 3"),
        ({"type": 1}, "a relocatable object; expected an executable"),
        ({"phentsize": 32}, "e_phentsize is 32; expected 56"),
        ({"phnum": 0}, "e_phnum is 0"),
        ({"phnum": 100}, "e_phoff is 64; expected 100 headers within 120 bytes"),
        ({"phoff": 1 << 63}, "e_phoff"),
        ({"p_filesz": 121, "p_memsz": 121}, "past the end of the file"),
        ({"p_memsz": 100}, "p_filesz 0x78 exceeds p_memsz 0x64"),
        ({"p_vaddr": 1 << 60}, "past 0x100000000000000"),
        ({"p_vaddr": 0x10008}, "differ modulo the page size"),
        ({"p_align": 3}, "expected a power of two"),
        ({"p_type": 6}, "nothing to load"),
        ({"p_type": 3, "p_filesz": 1}, "the interpreter's name"),
        ({"p_type": 3}, "nothing to load|zero byte"),
    ],
)
def test_damage_is_named(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=message) as caught:
        _read(_elf(**changes), tmp_path / "f")
    assert str(caught.value).startswith("program: ")


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=200), st.integers(0, 120))
def test_no_file_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    sound = _elf()
    with contextlib.suppress(LoadError):
        _read(sound[:at] + data + sound[at + len(data) :], path)


# Tables


def test_every_call_has_a_number() -> None:
    known = set(GENERIC.values()) | set(RISCV64.calls.values())
    assert set(CALLS) <= known
    passed = {name for name, call in CALLS.items() if call.handler is None or call.native}
    assert passed <= set(HOST_NUMBERS)


def test_every_kind_can_be_printed() -> None:
    for call in CALLS.values():
        names = [argument.name for argument in call.arguments]
        for argument in call.arguments:
            where = f"{call.name}: {argument}"
            match argument.kind:
                case "flags":
                    assert argument.parameter in FLAGS, where
                case "enum":
                    assert argument.parameter in ENUMS, where
                case "struct_in" | "struct_out" | "struct_io":
                    special = ("dirents", "pollfds", "fdset", "epoll_events")
                    assert argument.parameter in (*STRUCTS, *special), where
                case "bytes_in" | "bytes_out" | "iovec_in" | "iovec_out":
                    assert argument.parameter in names, where


def test_iovecs_are_second() -> None:
    """The thunk relies on it: the vector is the second argument and its length the third."""
    for call in CALLS.values():
        for index, argument in enumerate(call.arguments):
            if argument.kind.startswith("iovec") and call.native:
                assert index == 1
                assert call.arguments[2].name == argument.parameter


def test_numbers_agree_with_the_headers() -> None:
    ziglang = pytest.importorskip("ziglang")
    headers = Path(ziglang.__file__).parent / "lib/libc/include"
    for folder, table in (
        ("riscv-linux-any", RISCV64.calls),
        ("x86-linux-any", {number: name for name, number in HOST_NUMBERS.items()}),
    ):
        text = (headers / folder / "asm/unistd_64.h").read_text()
        words = [line.split() for line in text.splitlines() if line.startswith("#define __NR_")]
        official = {int(word[2]): word[1].removeprefix("__NR_") for word in words}
        assert {
            number: name for number, name in table.items() if official.get(number) != name
        } == {}


@pytest.mark.parametrize("command", [0x01234567, 0xCDEF0123, 0x4321FEDC, 0xA1B2C3D4])
def test_no_guest_stops_the_machine(command: int) -> None:
    """Called without a thread: nothing of it is used, so that nothing reaches the host."""
    handler = CALLS["reboot"].handler
    assert handler is not None
    assert handler(None, 0xFEE1DEAD, 672274793, command, 0) == -errno.EPERM


def test_thunk_table() -> None:
    table = fill_thunk_table(RISCV64, CALLS.get)

    def entry(name: str) -> tuple[int, ...]:
        return struct.unpack_from("<hBBHBBQ", table, 16 * RISCV64.number_of(name))

    assert entry("read") == (HOST_NUMBERS["read"], 0b10, 0, 0, 0, 0, 0)
    assert entry("writev") == (HOST_NUMBERS["writev"], 0, 2, 0, 0, 0, 0)
    assert entry("newfstatat") == (HOST_NUMBERS["newfstatat"], 0b110, 0, 0, 6 | 3 << 4, 0, 0)
    assert entry("mkdirat") == (HOST_NUMBERS["mkdirat"], 0b10, 0, 0, 2, 0, 0)
    assert entry("nanosleep") == (HOST_NUMBERS["nanosleep"], 0b11, 0, 0, 0, 1, 0)
    assert entry("ppoll") == (HOST_NUMBERS["ppoll"], 0b1101, 0, 0, 0, 4 << 4, 0)
    assert entry("fcntl")[3] == 0b111
    assert entry("rt_sigaction")[0] == entry("mmap")[0] == entry("execve")[0] == -1
    rooted = fill_thunk_table(RISCV64, CALLS.get, ABSOLUTE)
    assert rooted[:PATHS_LEFT] == table[:PATHS_LEFT]
    nothing = bytes(TABLE_NBYTES - PATHS_LEFT)
    assert (table[PATHS_LEFT:], rooted[PATHS_LEFT:]) == (nothing, b"\1" + nothing[1:])
    other = fill_thunk_table(AARCH64_ABI, CALLS.get)
    assert struct.unpack_from("<QQ", other, FLAGS_RAISED) == (0o140000, 0o600000)


def test_signatures() -> None:
    assert [a.kind for a in CALLS["openat"].arguments] == ["dirfd", "path", "flags", "mode"]
    (argument,) = parse_signature("buf:bytes_out.count")
    assert (argument.name, argument.kind, argument.parameter) == ("buf", "bytes_out", "count")
    assert PATHS < POINTERS


def test_generic_stat(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(1234))
    buffer = ctypes.create_string_buffer(144)
    name = ctypes.create_string_buffer(os.fsencode(path))
    pointers = ctypes.addressof(name), ctypes.addressof(buffer)
    assert host_call("newfstatat", -100, *pointers, 0) == 0
    stat = path.stat()
    fields = struct.unpack("<QQIIIIQQqii8Q", generic_stat(buffer.raw))
    assert fields[:4] == (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_nlink)
    assert fields[8] == 1234
    assert fields[14] * 10**9 + fields[15] == stat.st_mtime_ns


def test_scripts(tmp_path: Path) -> None:
    guest = tmp_path / "guest"
    guest.write_bytes(_elf())
    guest.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(f"#! {guest}  -x y \nrest")
    script.chmod(0o755)
    name = os.fsencode(script)
    found = find_program(name, [b"zero", b"one"], lambda path: path)
    assert isinstance(found, Program)
    assert found.abi is RISCV64
    assert found.arguments == [os.fsencode(guest), b"-x y", name, b"one"]
    script.write_text(f"#!{script}\n")
    assert find_program(name, [b"x"], lambda path: path) == -40
    script.chmod(0o644)
    assert find_program(os.fsencode(tmp_path), [b"x"], lambda path: path) == -13


# The trace's words


def test_words_of_the_trace() -> None:
    assert format_flags("open", 0o2100102) == "O_RDWR|O_CREAT|O_LARGEFILE|O_CLOEXEC"
    assert format_flags("open", 0) == "O_RDONLY"
    assert format_flags("prot", 0x1000003) == "PROT_READ|PROT_WRITE|0x1000000"
    assert format_set(1 << 1 | 1 << 16) == "[INT CHLD]"
    assert format_set((1 << 64) - 1 - (1 << 8)) == "~[KILL]"
    assert quote(b'a"\n\x01', 3) == '"a\\"\\n"...'
    assert STRUCTS["wait"][1](struct.pack("<I", 0x300)) == "[{WIFEXITED(s) && WEXITSTATUS(s) == 3}]"
    assert (
        STRUCTS["wait"][1](struct.pack("<I", 11)) == "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV}]"
    )
