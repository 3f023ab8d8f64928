"""What a trace, a crash report and a core dump show of a guest program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.elffile import ELFFile

import anyarch
from anyarch.engine.cache import CodeCache
from tests.programs.build import RISCV, compile_c

SOURCE: Final = Path(anyarch.__file__).parents[1]


def run(
    text: str, folder: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Compile and run a C program under anyarch with some options, in ``folder``."""
    source = folder / "program.c"
    source.write_text(text)
    program = compile_c(source, RISCV)
    return subprocess.run(
        [sys.executable, "-m", "anyarch", "run", *options, program],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(SOURCE), ANYARCH_CACHE=CodeCache().path, **environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CRASH: Final = "int main(void) { *(volatile int *)0x1234 = 77; return 0; }\n"


def test_crash_report(tmp_path: Path) -> None:
    done = run(CRASH, tmp_path, "--crash-report")
    assert done.returncode == -11
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"anyarch: process \d+ was killed by SIGSEGV", lines[0])
    assert lines[1] == "  address 0x1234: nothing is mapped there"
    assert re.match(r"  pc      0x[0-9a-f]+ .*in .*/program-riscv64-", lines[2])
    values = dict(re.findall(r"(x\d+) ([0-9a-f]{16})", done.stderr))
    assert len(values) == 32
    assert int(values["x0"], 16) == 0
    assert 77 in {int(value, 16) for value in values.values()}


def test_no_report_without_a_crash(tmp_path: Path) -> None:
    done = run("int main(void) { return 4; }\n", tmp_path, "--crash-report", "--core", "core")
    assert (done.returncode, done.stderr) == (4, "")
    assert not (tmp_path / "core").exists()


def test_core(tmp_path: Path) -> None:
    text = (
        '#include <string.h>\n#include <stdlib.h>\nchar note[] = "findme";\n'
        "int main(int n, char **v) { note[0] = 'F'; if (n) abort(); return note[n]; }\n"
    )
    assert run(text, tmp_path, "--core", "core").returncode == -6
    with (tmp_path / "core").open("rb") as file:
        elf = ELFFile(file)
        assert (elf["e_type"], elf["e_machine"]) == ("ET_CORE", "EM_RISCV")
        notes = {}
        for segment in elf.iter_segments("PT_NOTE"):
            notes |= {note["n_type"]: note["n_desc"] for note in segment.iter_notes()}
        memory = [
            (segment["p_vaddr"], segment["p_memsz"], segment.data())
            for segment in elf.iter_segments("PT_LOAD")
        ]
    status = notes["NT_PRSTATUS"]
    assert int.from_bytes(status[:4], "little") == 6
    assert len(status) == 376
    pc, stack = (int.from_bytes(status[at : at + 8], "little") for at in (112, 128))
    assert any(start <= pc < start + nbytes for start, nbytes, _ in memory)
    assert any(start <= stack < start + nbytes for start, nbytes, _ in memory)
    assert any(b"Findme" in data for _, _, data in memory)
    files = notes["NT_FILE"]
    assert b"program-riscv64-" in files["filename"][0]
    assert len(notes["NT_FPREGSET"]) == 264
    assert "NT_AUXV" in notes


FAMILY: Final = r"""
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    int ends[2];
    char byte;
    pipe(ends);
    if (!fork()) { usleep(50000); write(ends[1], "c", 1); _exit(5); }
    read(ends[0], &byte, 1);
    wait(NULL);
    close(99);
    return 0;
}
"""


def test_trace_follows_children(tmp_path: Path) -> None:
    assert run(FAMILY, tmp_path, "--strace", "-f", "-o", "trace").returncode == 0
    text = (tmp_path / "trace").read_text()
    # The parent's call is shown as it begins, and goes on after what the child wrote.
    assert re.search(r"^\d+ +read\(3,  <unfinished \.\.\.>\n\d+ ", text, re.MULTILINE)
    assert re.search(r'^\d+ +<\.\.\. read resumed>"c", 1\) += 1$', text, re.MULTILINE)
    assert re.search(r'^\d+ +write\(4, "c", 1(\) += 1$| )', text, re.MULTILINE)
    assert re.search(r"^\d+ +\+\+\+ exited with 5 \+\+\+$", text, re.MULTILINE)
    parents, childs = re.findall(r"^(\d+) +\+\+\+ exited", text, re.MULTILINE)
    assert parents != childs
    assert text.endswith("+++ exited with 0 +++\n")


def test_trace_of_one_process(tmp_path: Path) -> None:
    assert run(FAMILY, tmp_path, "--strace", "-o", "trace").returncode == 0
    text = (tmp_path / "trace").read_text()
    assert "[pid" not in text
    assert re.search(r'^read\(3, "c", 1\) +=', text, re.MULTILINE)


def test_summary(tmp_path: Path) -> None:
    assert run(FAMILY, tmp_path, "-c", "-f", "-o", "counts").returncode == 0
    rows = {}
    for line in (tmp_path / "counts").read_text().splitlines()[2:]:
        words = line.split()
        rows[words[-1]] = words
    assert rows["write"][3] == "1"  # the child's
    assert rows["close"][3:] == ["1", "1", "close"]  # it failed
    assert rows["total"][0] == "100.00"


def test_missing_calls_are_named_once(tmp_path: Path) -> None:
    text = (
        "#include <unistd.h>\n#include <sys/syscall.h>\n"
        "int main(void) { for (int i = 0; i < 3; i++) syscall(SYS_io_uring_setup, 1, 0);\n"
        "return syscall(SYS_bpf, 0, 0, 0) != -1; }\n"
    )
    done = run(text, tmp_path, "-v")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "anyarch: system call io_uring_setup is not supported: ENOSYS",
        "anyarch: system call bpf is not supported: ENOSYS",
    ]


@pytest.mark.parametrize("option", ["--core", "-o"])
def test_files_that_cannot_be_written(option: str, tmp_path: Path) -> None:
    done = run(CRASH, tmp_path, "--strace", option, "/nowhere/file")
    assert "/nowhere/file: No such file or directory" in done.stderr


def test_what_a_trace_shows_of_arguments(tmp_path: Path) -> None:
    """Some arguments mean what others say, results are explained, structures are looked into."""
    text = (
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <linux/futex.h>\n#include <poll.h>\n"
        "#include <signal.h>\n#include <string.h>\n#include <sys/epoll.h>\n#include <sys/prctl.h>\n"
        "#include <sys/socket.h>\n#include <sys/stat.h>\n#include <sys/syscall.h>\n"
        "#include <sys/wait.h>\n#include <netinet/in.h>\n#include <netinet/tcp.h>\n"
        "#include <unistd.h>\nvoid caught(int n) { (void)n; }\n"
        "int main(void) { int p[2], word = 5, one = 1; pipe2(p, O_NONBLOCK);\n"
        "fcntl(p[0], F_GETFL); fcntl(p[0], F_GETFD);\n"
        "struct flock lock = {.l_type = F_RDLCK, .l_len = 7};\n"
        'fcntl(open("new", O_CREAT | O_RDWR, 0640), F_SETLK, &lock);\n'
        "syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);\n"
        "struct pollfd polled[2] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}}; poll(polled, 2, 0);\n"
        "poll(polled, 1, 0); struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 9}};\n"
        "epoll_ctl(epoll_create1(EPOLL_CLOEXEC), EPOLL_CTL_ADD, p[0], &event);\n"
        "int s = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP), pair[2];\n"
        "setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, 4);\n"
        'socketpair(AF_UNIX, SOCK_DGRAM, 0, pair); struct iovec part = {"ab", 2};\n'
        "char control[CMSG_SPACE(4)] = {0}; struct msghdr message = {.msg_iov = &part,\n"
        ".msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};\n"
        "struct cmsghdr *head = CMSG_FIRSTHDR(&message); head->cmsg_level = SOL_SOCKET;\n"
        "head->cmsg_type = SCM_RIGHTS; head->cmsg_len = CMSG_LEN(4);\n"
        "memcpy(CMSG_DATA(head), &one, 4); sendmsg(pair[0], &message, 0);\n"
        "signal(SIGCHLD, caught); if (fork() == 0) _exit(3); wait(0);\n"
        "umask(027); umask(0); prctl(PR_GET_DUMPABLE); return 0; }\n"
    )
    assert run(text, tmp_path, "--strace", "-o", "trace").returncode == 0
    lines = (tmp_path / "trace").read_text().splitlines()
    assert re.match(
        r'execve\("/.*", \["/.*"\.\.\.\], 0x[0-9a-f]+ /\* \d+ vars \*/\) = 0$', lines[0]
    )
    shown = [re.sub(r"\) +=", ") =", line) for line in lines]
    expected = {
        "pipe2([3, 4], O_NONBLOCK) = 0",
        "fcntl(3, F_GETFL) = 0x800 (flags O_RDONLY|O_NONBLOCK)",
        "fcntl(3, F_GETFD) = 0",
        'openat(AT_FDCWD, "new", O_RDWR|O_CREAT|O_LARGEFILE, 0640) = 5',
        "fcntl(5, F_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=0, l_len=7}) = 0",
        "epoll_create1(EPOLL_CLOEXEC) = 6",
        "epoll_ctl(6, EPOLL_CTL_ADD, 3, {events=EPOLLIN|EPOLLET, data={u32=9, u64=9}}) = 0",
        "socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) = 7",
        "setsockopt(7, SOL_TCP, TCP_NODELAY, [1], 4) = 0",
        "umask(000) = 027",
        "prctl(PR_GET_DUMPABLE) = 1",
    }
    assert expected <= set(shown)
    text = "\n".join(shown)
    assert re.search(r"^futex\(0x[0-9a-f]+, FUTEX_WAKE_PRIVATE, 1\) = 0$", text, re.M)
    assert "}], 2, {tv_sec=0, tv_nsec=0}, NULL, 8) = 1 ([{fd=4, revents=POLLOUT}], left {" in text
    assert "ppoll([{fd=3, events=POLLIN}], 1, {tv_sec=0, tv_nsec=0}, NULL, 8) = 0 (Timeout)" in text
    assert (
        'sendmsg(8, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="ab", iov_len=2}], '
        "msg_iovlen=1, msg_control=[{cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, "
        "cmsg_data=[1]}], msg_controllen=24, msg_flags=0}, 0) = 2"
    ) in text
    assert re.search(r"^--- SIGCHLD .*si_code=CLD_EXITED, .*si_status=3, si_utime=", text, re.M)
