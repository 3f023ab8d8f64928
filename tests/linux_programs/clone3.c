/* clone3 called directly, as a C library does to start threads and programs. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif

struct arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup, beyond;
};
enum { SIZE = 64, STACK = 65536 };

static char *stack;
static long tls[64];
static atomic_int parent_tid, child_tid, waited_for;
static struct {
    long tid, pid, thread_pointer;
    char *place;
} seen;

/* Neither the C library nor its thread-local data is there for the child. */
static long direct(long number, long first, long second, long third)
{
#ifdef __riscv
    register long a7 __asm__("a7") = number;
    register long a0 __asm__("a0") = first;
    register long a1 __asm__("a1") = second;
    register long a2 __asm__("a2") = third;
    register long a3 __asm__("a3") = 0;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
    return a0;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;
    register long x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#else
    register long r10 __asm__("r10") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
#endif
}

static long thread_pointer(void)
{
    long value;
#ifdef __riscv
    __asm__("mv %0, tp" : "=r"(value));
#elif defined(__aarch64__)
    __asm__("mrs %0, tpidr_el0" : "=r"(value));
#else
    __asm__("mov %%fs:0, %0" : "=r"(value)); /* where it is asked for, it points to itself */
#endif
    return value;
}

/* Call a function in the child, on the child's stack, and end the child with its result. */
static long start(struct arguments *arguments, long size, int (*function)(void))
{
#ifdef __riscv
    register long a7 __asm__("a7") = SYS_clone3;
    register long a0 __asm__("a0") = (long)arguments;
    register long a1 __asm__("a1") = size;
    __asm__ volatile("ecall\n"
                     "bnez a0, 1f\n"
                     "jalr %2\n"
                     "li a7, 93\n"
                     "ecall\n"
                     "1:"
                     : "+r"(a0)
                     : "r"(a7), "r"(function), "r"(a1)
                     : "memory", "ra");
    return a0;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)arguments;
    register long x1 __asm__("x1") = size;
    __asm__ volatile("svc 0\n"
                     "cbnz x0, 1f\n"
                     "blr %2\n"
                     "mov x8, 93\n"
                     "svc 0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(function), "r"(x1)
                     : "memory", "x30");
    return x0;
#else
    long result;
    __asm__ volatile("syscall\n"
                     "test %%rax, %%rax\n"
                     "jnz 1f\n"
                     "call *%4\n"
                     "mov %%eax, %%edi\n"
                     "mov $60, %%eax\n"
                     "syscall\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(arguments), "S"(size), "r"(function)
                     : "rcx", "r11", "memory");
    return result;
#endif
}

static int look(void)
{
    char here;
    seen.tid = direct(SYS_gettid, 0, 0, 0);
    seen.pid = direct(SYS_getpid, 0, 0, 0);
    seen.thread_pointer = thread_pointer();
    seen.place = &here;
    while (direct(SYS_futex, (long)&waited_for, FUTEX_WAIT, 0) != -EAGAIN)
        ;
    return 0;
}

static void thread(void)
{
    tls[0] = (long)tls;
    atomic_store(&child_tid, -1);
    struct arguments arguments = {
        .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
        .child_tid = (uintptr_t)&child_tid,
        .parent_tid = (uintptr_t)&parent_tid,
        .stack = (uintptr_t)stack,
        .stack_size = STACK,
        .tls = (uintptr_t)tls,
    };
    long tid = start(&arguments, SIZE, look);
    printf("thread %d: number %d", tid > 0, tid == atomic_load(&parent_tid));
    atomic_store(&waited_for, 1);
    direct(SYS_futex, (long)&waited_for, FUTEX_WAKE, 1);
    int number;
    while ((number = atomic_load(&child_tid)))
        direct(SYS_futex, (long)&child_tid, FUTEX_WAIT, number);
    printf(" %d process %d thread pointer %d stack %d, ended\n", seen.tid == tid,
           seen.pid == getpid(), seen.thread_pointer == (long)tls,
           seen.place > stack && seen.place < stack + STACK);
}

static int change(void)
{
    char here;
    seen.place = &here;
    seen.pid = direct(SYS_getpid, 0, 0, 0);
    return 4;
}

static void like_vfork(void)
{
    memset(&seen, 0, sizeof seen);
    struct arguments arguments = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND,
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)stack,
        .stack_size = STACK,
    };
    int status;
    long pid = start(&arguments, SIZE, change);
    printf("vfork: written %d stack %d", seen.pid == pid,
           seen.place > stack && seen.place < stack + STACK);
    waitpid((pid_t)pid, &status, 0);
    printf(" status %d\n", WEXITSTATUS(status));
}

static void caught(int signal)
{
    (void)signal;
}

static int actions(void)
{
    struct sigaction first, second;
    sigaction(SIGUSR1, NULL, &first);
    sigaction(SIGUSR2, NULL, &second);
    return (first.sa_handler == SIG_DFL) + 2 * (second.sa_handler == SIG_IGN) +
           4 * (atomic_load(&child_tid) == direct(SYS_gettid, 0, 0, 0));
}

static void like_fork(void)
{
    int fd = -1, status;
    signal(SIGUSR1, caught);
    signal(SIGUSR2, SIG_IGN);
    struct arguments arguments = {
        .flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CLEAR_SIGHAND,
        .pidfd = (uintptr_t)&fd,
        .parent_tid = (uintptr_t)&parent_tid,
        .child_tid = (uintptr_t)&child_tid,
        .exit_signal = SIGCHLD,
    };
    long pid = start(&arguments, SIZE, actions);
    siginfo_t info;
    int result = waitid((idtype_t)3, (id_t)fd, &info, WEXITED | WNOWAIT);
    waitpid((pid_t)pid, &status, 0);
    printf("fork: number %d here %d, descriptor %d: child sees %d\n", pid == atomic_load(&parent_tid),
           atomic_load(&child_tid), result == 0 && info.si_pid == pid, WEXITSTATUS(status));
    close(fd);
}

static void refuse(const char *what, struct arguments arguments, long size)
{
    long result = start(&arguments, size, change);
    printf("%s: %s\n", what, result < 0 ? strerror((int)-result) : "started");
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    thread();
    like_vfork();
    like_fork();
    refuse("short", (struct arguments){.exit_signal = SIGCHLD}, 56);
    refuse("long", (struct arguments){.exit_signal = SIGCHLD, .beyond = 1}, 96);
    refuse("longer than a page", (struct arguments){.exit_signal = SIGCHLD}, 4097);
    refuse("signal in flags", (struct arguments){.flags = SIGCHLD}, SIZE);
    refuse("no such signal", (struct arguments){.exit_signal = 65}, SIZE);
    refuse("stack without size",
           (struct arguments){.exit_signal = SIGCHLD, .stack = (uintptr_t)stack}, SIZE);
    refuse("size without stack", (struct arguments){.exit_signal = SIGCHLD, .stack_size = STACK},
           SIZE);
    refuse("thread alone", (struct arguments){.flags = CLONE_THREAD}, SIZE);
    refuse("thread with a signal",
           (struct arguments){.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, .exit_signal = 17},
           SIZE);
    refuse("actions without memory", (struct arguments){.flags = CLONE_SIGHAND}, SIZE);
    refuse("actions shared and cleared",
           (struct arguments){.flags = CLONE_SIGHAND | CLONE_VM | CLONE_CLEAR_SIGHAND}, SIZE);
    refuse("detached", (struct arguments){.flags = CLONE_DETACHED}, SIZE);
    return 0;
}
