"""Threads and processes, where the programs of tests/linux_programs do not look: speed of what must
not enter Python, what is left behind, and the parts on their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

import pytest

import anyarch
from anyarch.host.descriptors import unshare_descriptors
from anyarch.linux.vfork import Loan
from anyarch.memory.space import PROT_READ, PROT_WRITE, AddressSpace
from tests.programs.build import AARCH64, HOST, RISCV, Target, compile_c

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
    loan = Loan(space)
    pid = os.fork()
    if pid == 0:
        loan.accept(pointer)
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
    loan = Loan(space)
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


_WAITS: Final = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static struct timespec began;
static struct timespec limit = {0, 300000000};
static void show(const char *what, long result)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ms = (now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000;
    printf("%s %ld %d: %s\n", what, result, result < 0 ? errno : 0,
           ms < 299 ? "early" : ms > 2000 ? "late" : "on time");
    clock_gettime(CLOCK_MONOTONIC, &began);
}
int main(void)
{
    int word = 0, poller = epoll_create1(0), semaphore = semget(IPC_PRIVATE, 1, 0600);
    struct epoll_event event;
    struct sembuf operation = {0, -1, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    setvbuf(stdout, NULL, _IONBF, 0);
    show("begin", 0);
    show("nanosleep", syscall(SYS_nanosleep, &limit, NULL));
    show("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, &limit, NULL));
    show("futex", syscall(SYS_futex, &word, 0, 0, &limit, NULL, 0));
    show("sigtimedwait", sigtimedwait(&set, NULL, &limit));
    show("epoll_pwait", epoll_wait(poller, &event, 1, 300));
    show("epoll_pwait2", syscall(SYS_epoll_pwait2, poller, &event, 1, &limit, NULL, 8));
    show("poll", poll(NULL, 0, 300));
    show("select", select(0, NULL, NULL, NULL, &(struct timeval){0, 300000}));
    show("semtimedop", semtimedop(semaphore, &operation, 1, &limit));
    struct timespec until = began;
    until.tv_nsec += 300000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    show("until", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    semctl(semaphore, 0, IPC_RMID);
    return 0;
}
"""
_STOPPED: Final = """
import os, sys, threading, time
from anyarch import _run
from anyarch.linux.program import run_program
def make(abi, engine, space):
    runner, space = _run.make_engine(abi, engine, space)
    def stop():
        while True:
            time.sleep(0.05)
            runner.request_stop()
    threading.Thread(target=stop, daemon=True).start()
    return runner, space
program, engine, trace = sys.argv[1:]
outcome = run_program(program, make_engine=make, engine=engine, strace=trace or None)
os._exit(outcome.shell_status)
"""


@pytest.mark.parametrize(("engine", "trace"), [("interp", ""), ("interp", os.devnull), ("jit", "")])
def test_our_own_requests_do_not_prolong_waits(engine: str, trace: str, tmp_path: Path) -> None:
    """A thread is asked to stop for reasons that the guest must not see, again and again."""
    program = _compile(_WAITS, tmp_path)
    environment = dict(os.environ, PYTHONPATH=str(Path(anyarch.__file__).parents[1]))
    command = [sys.executable, "-c", _STOPPED, program, engine, trace]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().splitlines()[1:] == [
        "nanosleep 0 0: on time",
        "clock_nanosleep 0 0: on time",
        "futex -1 110: on time",
        "sigtimedwait -1 11: on time",
        "epoll_pwait 0 0: on time",
        "epoll_pwait2 0 0: on time",
        "poll 0 0: on time",
        "select 0 0: on time",
        "semtimedop -1 11: on time",
        "until 0 0: on time",
    ]


def _resident(pid: int) -> int:
    """Kilobytes in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("guest", [RISCV, AARCH64], ids=lambda guest: guest.name)
@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_stress_leaves_nothing_behind(engine: str, guest: Target) -> None:
    """64 threads with locks, signals, fork and exec, for ``ANYARCH_STRESS`` seconds."""
    seconds = int(os.environ.get("ANYARCH_STRESS", "6"))
    program = compile_c(Path(__file__).parent / "linux_programs/thread_stress.c", guest)
    environment = dict(os.environ, PYTHONPATH=str(Path(anyarch.__file__).parents[1]))
    command = [sys.executable, "-m", "anyarch", "run", "--engine", engine, program, str(seconds)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    samples = []
    try:
        time.sleep(seconds / 3)
        for _ in range(10):
            descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
            samples.append((descriptors, _resident(process.pid)))
            time.sleep(seconds / 30)
        output, _ = process.communicate(timeout=seconds + 60)
    finally:
        process.kill()
        process.wait()
    assert output == b"failures 0 zombies 0 sums 1 children 1 signals 1\n"
    descriptors = sorted(count for count, _ in samples)
    assert descriptors[-1] <= descriptors[0] + 2, samples  # one call may be at work
    assert samples[-1][1] < samples[0][1] * 1.3 + 4000, samples


@pytest.mark.parametrize("name", ["exec_storm", "shared_signals", "thread_signals", "threads"])
def test_the_compiled_tier_does_the_same(name: str) -> None:
    """It has threads and descriptors of its own, of which the guest must see nothing."""
    source = Path(__file__).parent / f"linux_programs/{name}.c"
    native = subprocess.run([compile_c(source, HOST)], capture_output=True, timeout=60, check=True)
    done = anyarch.run(compile_c(source, RISCV), engine="jit", timeout=120)
    assert (done.stdout, done.stderr, done.status) == (native.stdout, native.stderr, 0)


def test_threads_of_ours_have_descriptors_of_their_own() -> None:
    reading, writing = os.pipe()
    numbers = []

    def work() -> None:
        unshare_descriptors()
        with pytest.raises(OSError):
            os.fstat(writing)
        numbers.append(os.open(os.devnull, os.O_RDONLY))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert numbers == [3]
    os.close(writing)
    assert os.read(reading, 1) == b""  # no copy keeps it open
    os.close(reading)
