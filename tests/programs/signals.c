/* Signals: handlers, masks, pending sets, timers, faults repaired by siglongjmp, alternate stack. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t counts[65];
static volatile sig_atomic_t order;
static sigjmp_buf back;
static volatile uintptr_t fault_address;
static volatile int fault_code;

static void count(int signal)
{
    counts[signal]++;
    order = order * 100 + signal;
}

static void fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    fault_address = (uintptr_t)info->si_addr;
    fault_code = info->si_code;
    siglongjmp(back, signal);
}

static void install(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

static void masks(void)
{
    install(SIGUSR1, count, 0);
    install(SIGUSR2, count, 0);
    raise(SIGUSR1);
    kill(getpid(), SIGUSR1);
    printf("delivered %d\n", counts[SIGUSR1]);
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGUSR1);
    sigpending(&pending);
    printf("held %d %d pending %d %d\n", counts[SIGUSR1], counts[SIGUSR2],
           sigismember(&pending, SIGUSR1), sigismember(&pending, SIGUSR2));
    order = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("released %d %d order %d\n", counts[SIGUSR1], counts[SIGUSR2], order);
    install(SIGUSR1, SIG_IGN, 0);
    raise(SIGUSR1);
    printf("ignored %d\n", counts[SIGUSR1]);
    install(SIGUSR1, count, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    printf("one shot %d default %d\n", counts[SIGUSR1], now.sa_handler == SIG_DFL);
}

static void timers(void)
{
    install(SIGALRM, count, 0);
    alarm(100);
    printf("left %u\n", alarm(0));
    struct itimerval soon = {.it_value.tv_usec = 20000};
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    int result = sigsuspend(&old);
    printf("suspend %d %d fired %d\n", result, errno == EINTR, counts[SIGALRM]);
    sigprocmask(SIG_SETMASK, &old, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    unsigned long spins = 0;
    while (counts[SIGALRM] < 2)
        spins++;
    printf("spinning loop interrupted %d\n", spins > 0);
    /* Again and again: the first may come before the read does. */
    struct itimerval often = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000};
    struct itimerval never = {.it_value.tv_usec = 0};
    setitimer(ITIMER_REAL, &often, NULL);
    char byte;
    int ends[2];
    if (pipe(ends) == 0)
        printf("read %d %d\n", (int)read(ends[0], &byte, 1), errno == EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    sigprocmask(SIG_BLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    siginfo_t info;
    printf("waited for %d\n", sigwaitinfo(&set, &info));
    sigprocmask(SIG_SETMASK, &old, NULL);
}

static void faults(void)
{
    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, NULL);
    long page = sysconf(_SC_PAGESIZE);
    volatile char *map = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map[page] = 'x';
    mprotect((void *)(map + page), (size_t)page, PROT_READ);
    int caught = 0;
    for (volatile int i = 0; i < 50; i++) {
        volatile int place = i * 37;
        if (sigsetjmp(back, 1) == 0)
            map[page + place] = 'y';
        else
            caught += fault_address == (uintptr_t)map + (uintptr_t)page + (uintptr_t)place;
    }
    printf("write faults %d code %d kept %c\n", caught, fault_code == SEGV_ACCERR, map[page]);
    munmap((void *)(map + page), (size_t)page);
    if (sigsetjmp(back, 1) == 0)
        printf("unmapped read %c\n", map[page + 5]);
    else
        printf("read fault %d code %d\n", fault_address == (uintptr_t)map + (uintptr_t)page + 5,
               fault_code == SEGV_MAPERR);
    void (*volatile nowhere)(void) = (void (*)(void))0x10;
    int signal = sigsetjmp(back, 1);
    if (signal == 0)
        nowhere();
    printf("jump to nowhere: signal %d at %d\n", signal, (int)fault_address);
}

static void queued(int signal, siginfo_t *info, void *context)
{
    (void)context;
    counts[signal]++;
    order = order * 10 + info->si_value.sival_int;
}

static void realtime(void)
{
    struct sigaction action = {.sa_sigaction = queued, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGRTMIN + 1, &action, NULL);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, &old);
    for (int i = 1; i <= 4; i++)
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    order = 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("queued order %d\n", order);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    masks();
    timers();
    faults();
    realtime();
    install(SIGUSR2, SIG_DFL, 0);
    printf("%s\n", strsignal(SIGFPE));
    printf("now killed by %d\n", SIGUSR2);
    raise(SIGUSR2);
    return 1;
}
