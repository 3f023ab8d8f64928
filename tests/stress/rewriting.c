/* Threads that write machine code and run it, under signals and beside forks, for as many seconds as
   the argument says; the second argument chooses kinds of rewriting. Exit status 0 if every call of
   new code gave what its latest version gives. For riscv64 and AArch64. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, TURNS = 300 };

typedef long (*function)(long);

static atomic_int stop, failures;
static atomic_long rewrites[8], signals, children;
static pthread_rwlock_t shared_lock = PTHREAD_RWLOCK_INITIALIZER;
static uint32_t *shared_code;
static long shared_version;
static function steady; /* what the signal handler calls */

static void fail(const char *what, long got, long expected)
{
    if (atomic_fetch_add(&failures, 1) < 10)
        fprintf(stderr, "%s: %ld, expected %ld\n", what, got, expected);
}

#if defined __riscv
static uint32_t addi(int rd, int rs1, int value)
{
    return (uint32_t)(value & 0xfff) << 20 | rs1 << 15 | rd << 7 | 0x13;
}

/* f(n): 0 + version for each of n turns of a loop; a0 = x10, a1 = x11, a2 = x12. */
static void write_loop(uint32_t *at, int version)
{
    at[0] = addi(11, 10, 0);
    at[1] = addi(10, 0, 0);
    at[2] = addi(10, 10, version);        /* again: */
    at[3] = addi(11, 11, -1);
    at[4] = 0xfe059ce3;                   /* bnez a1, again */
    at[5] = 0x00008067;                   /* ret */
}

/* g(n): f(n) + version, where f is `distance` bytes further. */
static void write_caller(uint32_t *at, int version, int distance)
{
    uint32_t offset = (uint32_t)(distance - 8);
    at[0] = addi(2, 2, -16);
    at[1] = 0x00113023;                   /* sd ra, 0(sp) */
    at[2] = (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3ff) << 21 | (offset >> 11 & 1) << 20
        | (offset >> 12 & 0xff) << 12 | 1 << 7 | 0x6f; /* jal ra, f */
    at[3] = addi(10, 10, version);
    at[4] = 0x00013083;                   /* ld ra, 0(sp) */
    at[5] = addi(2, 2, 16);
    at[6] = 0x00008067;
}

static void announce(void *code, long nbytes)
{
    syscall(SYS_riscv_flush_icache, code, (char *)code + nbytes, 0);
}

/* By instructions alone. */
static void announce_locally(void *code, long nbytes)
{
    (void)code, (void)nbytes;
    __asm__ volatile("fence.i" ::: "memory");
}
#else
static uint32_t add_immediate(int rd, int rn, int value)
{
    return 0x91000000 | (uint32_t)value << 10 | rn << 5 | rd;
}

/* f(n): 0 + version for each of n turns of a loop. */
static void write_loop(uint32_t *at, int version)
{
    at[0] = 0xaa0003e1;                   /* mov x1, x0 */
    at[1] = 0xd2800000;                   /* mov x0, #0 */
    at[2] = add_immediate(0, 0, version); /* again: */
    at[3] = 0xf1000421;                   /* subs x1, x1, #1 */
    at[4] = 0x54ffffc1;                   /* b.ne again */
    at[5] = 0xd65f03c0;                   /* ret */
}

/* g(n): f(n) + version, where f is `distance` bytes further. */
static void write_caller(uint32_t *at, int version, int distance)
{
    at[0] = 0xa9bf7bfd;                   /* stp x29, x30, [sp, #-16]! */
    at[1] = 0x94000000 | (uint32_t)(distance - 4) >> 2; /* bl f */
    at[2] = add_immediate(0, 0, version);
    at[3] = 0xa8c17bfd;                   /* ldp x29, x30, [sp], #16 */
    at[4] = 0xd65f03c0;
}

static void announce(void *code, long nbytes)
{
    __builtin___clear_cache((char *)code, (char *)code + nbytes);
}

/* A line at a time, of the smallest size that there is. */
static void announce_locally(void *code, long nbytes)
{
    for (char *at = code; at < (char *)code + nbytes; at += 16)
        __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0" ::"r"(at) : "memory");
    __asm__ volatile("dsb ish\n isb" ::: "memory");
}
#endif

static void *map(int prot, int flags, int fd)
{
    void *found = mmap(0, 2 * PAGE, prot, flags, fd, 0);
    if (found == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return found;
}

static void expect(const char *what, function code, long turns, long expected)
{
    long got = code(turns);
    if (got != expected)
        fail(what, got, expected);
}

/* A page of its own, writable and executable; announced in both ways. */
static void *own_page(void *argument)
{
    uint32_t *code = map(7, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int version = 1; !stop; version = version % 2000 + 1) {
        write_loop(code + 512, version);
        if (version % 3 != 0)
            write_caller(code, version, 2048);
        if (version % 2)
            announce_locally(code, PAGE);
        else
            announce(code, PAGE);
        int caller = version % 3 != 0 ? version : version - 1 ? version - 1 : 2000;
        for (int i = 0; i < version % 16 + 1; i++)
            expect("own page", (function)code, TURNS, (long)version * TURNS + caller);
        atomic_fetch_add(&rewrites[0], 1);
    }
    return argument;
}

/* One page, never writable and executable at once. */
static void *protected_page(void *argument)
{
    uint32_t *code = map(3, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int version = 1; !stop; version = version % 2000 + 1) {
        mprotect(code, PAGE, PROT_READ | PROT_WRITE);
        write_loop(code, version);
        mprotect(code, PAGE, PROT_READ | PROT_EXEC);
        for (int i = 0; i < version % 16 + 1; i++)
            expect("protected page", (function)code, TURNS, (long)version * TURNS);
        atomic_fetch_add(&rewrites[1], 1);
    }
    return argument;
}

/* Two mappings of the same memory, one to write and one to run. */
static void *two_mappings(void *argument)
{
    int fd = memfd_create("code", 0);
    if (fd < 0 || ftruncate(fd, 2 * PAGE) != 0)
        exit(2);
    uint32_t *writable = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    uint32_t *code = map(PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    for (int version = 1; !stop; version = version % 2000 + 1) {
        write_loop(writable, version);
        if (version % 2)
            announce_locally(code, PAGE);
        else
            announce(code, PAGE);
        for (int i = 0; i < version % 16 + 1; i++)
            expect("two mappings", (function)code, TURNS, (long)version * TURNS);
        atomic_fetch_add(&rewrites[2], 1);
    }
    return argument;
}

/* A mapping that goes and comes back at the same place. */
static void *fresh_page(void *argument)
{
    uint32_t *code = map(7, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int version = 1; !stop; version = version % 2000 + 1) {
        if (mmap(code, PAGE, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != code)
            exit(2);
        write_loop(code, version);
        for (int i = 0; i < version % 16 + 1; i++)
            expect("fresh page", (function)code, TURNS, (long)version * TURNS);
        atomic_fetch_add(&rewrites[3], 1);
    }
    return argument;
}

/* Code that all run and one rewrites, while nobody is in it. */
static void *shared_page(void *argument)
{
    int is_writer = argument != 0;
    while (!stop) {
        if (is_writer) {
            pthread_rwlock_wrlock(&shared_lock);
            shared_version = shared_version % 2000 + 1;
            write_loop(shared_code, shared_version);
            announce(shared_code, PAGE);
            pthread_rwlock_unlock(&shared_lock);
            atomic_fetch_add(&rewrites[4], 1);
            usleep(500);
        } else {
            pthread_rwlock_rdlock(&shared_lock);
            expect("shared page", (function)shared_code, TURNS, shared_version * TURNS);
            pthread_rwlock_unlock(&shared_lock);
        }
    }
    return argument;
}

static void caught(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
    int saved = errno;
    long got = steady(50);
    if (got != 50 * 77)
        fail("handler", got, 50 * 77);
    errno = saved;
}

/* In a child: code of the parent's, and new code. */
static int child(void)
{
    uint32_t *code = map(7, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (int version = 1; version < 40; version++) {
        write_loop(code, version);
        announce(code, PAGE);
        for (int i = 0; i < 20; i++)
            if (((function)code)(TURNS) != (long)version * TURNS || steady(9) != 9 * 77)
                return 1;
    }
    return 42;
}

int main(int argc, char **argv)
{
    void *(*const works[])(void *) = {own_page, protected_page, two_mappings, fresh_page,
        shared_page, shared_page, shared_page};
    enum { WORKS = sizeof works / sizeof *works };
    double seconds = atof(argv[1]);
    unsigned kinds = argc > 2 ? strtoul(argv[2], 0, 0) : ~0u;
    int with_signals = kinds >> 8 & 1, with_forks = kinds >> 9 & 1;
    pthread_t threads[WORKS];
    uint32_t *code = map(7, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    write_loop(code, 77);
    steady = (function)code;
    shared_code = map(7, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    write_loop(shared_code, shared_version = 1);
    announce(shared_code, PAGE);
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, 0);
    sigaction(SIGALRM, &action, 0);
    for (int i = 0; i < WORKS; i++)
        if (kinds >> i & 1)
            pthread_create(&threads[i], 0, works[i], (void *)(intptr_t)(i == 4));
    if (with_signals) {
        struct itimerval often = {{0, 3000}, {0, 3000}};
        setitimer(ITIMER_REAL, &often, 0);
    }
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    end.tv_nsec += (long)((seconds - (time_t)seconds) * 1e9);
    for (int turn = 0;; turn++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec > end.tv_nsec))
            break;
        if (with_signals && kinds >> turn % WORKS & 1)
            pthread_kill(threads[turn % WORKS], SIGUSR1);
        if (with_forks && turn % 20 == 0) {
            pid_t pid = fork();
            if (pid == 0)
                _exit(child());
            int status = 0;
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 42)
                fail("child", status, 42 << 8);
            atomic_fetch_add(&children, 1);
        }
        usleep(2000);
    }
    stop = 1;
    for (int i = 0; i < WORKS; i++)
        if (kinds >> i & 1)
            pthread_join(threads[i], 0);
    int idle = 0;
    for (int i = 0; i < 5; i++) {
        fprintf(stderr, "%ld ", rewrites[i]);
        idle |= (kinds >> i & 1) && rewrites[i] == 0;
    }
    fprintf(stderr, "rewrites, %ld signals, %ld children\n", signals, children);
    if (failures || idle)
        return 1;
    puts("right");
    return 0;
}
