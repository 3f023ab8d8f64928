"""Threads and processes, where the programs of tests/linux_programs do not look: speed of what must
not enter Python, what is left behind, and the parts on their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import anyarch
from anyarch.linux.vfork import Loan
from anyarch.memory.space import PROT_READ, PROT_WRITE, AddressSpace
from tests.programs.build import RISCV, compile_c

_PAGE: Final = 4096


def _compile(text: str, folder: Path) -> Path:
    source = folder / "program.c"
    source.write_text(text)
    return compile_c(source, RISCV)


def test_what_a_child_of_vfork_writes_reaches_its_parent() -> None:
    space = AddressSpace(32)
    stack = space.map(0x100000, 64 * _PAGE, PROT_READ | PROT_WRITE, fixed=True)
    data = space.map(0x400000, 2 * _PAGE, PROT_READ | PROT_WRITE, fixed=True)
    pointer = stack + 32 * _PAGE
    space.write(data + 8, b"unchanged")
    loan = Loan(space, pointer)
    pid = os.fork()
    if pid == 0:
        loan.accept()
        space.write(pointer + 0x123, b"\x05")
        space.write(pointer - 8, b"below")
        space.write(data + _PAGE, b"error")
        loan.send()
        space.write(data + _PAGE, b"later")
        loan.send()
        loan.end()
        os._exit(0)
    space.write(data + 24, b"parent")  # another thread's: not a word that the child wrote
    loan.wait()
    os.waitpid(pid, 0)
    assert space.read(pointer + 0x123, 1) == b"\x05"
    assert space.read(pointer - 8, 5) == bytes(5)
    assert space.read(data + _PAGE, 5) == b"later"
    assert space.read(data + 8, 22) == b"unchanged" + bytes(7) + b"parent"


def test_a_child_that_dies_lets_its_parent_go_on() -> None:
    space = AddressSpace(32)
    space.map(0x100000, _PAGE, PROT_READ | PROT_WRITE, fixed=True)
    loan = Loan(space, 0x100100)
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), 9)
    loan.wait()
    assert os.waitpid(pid, 0)[1] == 9


_ROBUST: Final = r"""
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static struct { uint64_t next; int32_t word; int32_t pad; } lock;
static struct { uint64_t first; int64_t offset; uint64_t pending; } head;
static void *hold(void *unused)
{
    (void)unused;
    lock.word = (int)syscall(SYS_gettid);
    lock.next = (uint64_t)(uintptr_t)&head;
    head.first = (uint64_t)(uintptr_t)&lock;
    head.offset = 8;
    syscall(SYS_set_robust_list, &head, sizeof head);
    syscall(SYS_exit, 0);
    return NULL;
}
int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, hold, NULL);
    int owner;
    while ((owner = __atomic_load_n(&lock.word, __ATOMIC_SEQ_CST)) == 0 || !(owner & 0x40000000))
        usleep(1000);
    printf("died %d owner %d\n", owner >> 30 & 1, owner & 0x3fffffff);
    return 0;
}
"""


def test_a_dead_threads_locks_are_marked(tmp_path: Path) -> None:
    done = anyarch.run(_compile(_ROBUST, tmp_path), timeout=30)
    assert (done.status, done.stdout) == (0, b"died 1 owner 0\n")


_CALLS: Final = r"""
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
    int word = 0;
    struct timespec now;
    for (int i = 0; i < 1000; i++) {
        syscall(SYS_getpid);
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        syscall(SYS_futex, &word, 1, 1, NULL, NULL, 0);
        syscall(SYS_futex, &word, 0, 1, NULL, NULL, 0);
    }
    return 0;
}
"""


def test_frequent_calls_do_not_enter_python(tmp_path: Path) -> None:
    program = _compile(_CALLS, tmp_path)
    environment = dict(os.environ, PYTHONPATH=str(Path(anyarch.__file__).parents[1]))
    command = [sys.executable, "-m", "anyarch", "run", "--stats", program]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=True)
    counts = {}
    for line in done.stderr.decode().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in ("getpid", "clock_gettime", "futex"):
            counts[words[0]] = (int(words[1]), int(words[2]))
    assert counts == {"getpid": (1000, 0), "clock_gettime": (1000, 0), "futex": (2000, 0)}
