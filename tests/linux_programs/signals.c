/* Signals: each line printed is the same on every correct Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int count, depth, deepest;
static char *page;

static void install(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(number, &action, NULL);
}

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    long offset = (char *)info->si_addr - page;
    printf("fault %d code %d %s\n", number, info->si_code,
           info->si_addr == NULL ? "null" : offset >= 0 && offset < 4096 ? "in page" : "elsewhere");
    siglongjmp(back, 1);
}

static void on_count(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    count++;
}

static void on_nested(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    if (++depth > deepest) deepest = depth;
    if (number == SIGUSR1) {
        raise(SIGUSR1); /* blocked while its own handler runs */
        raise(SIGUSR2);
        printf("in USR1, depth %d\n", depth);
    } else {
        printf("in USR2, depth %d\n", depth);
    }
    depth--;
    count++;
    if (count > 3) signal(SIGUSR1, SIG_IGN);
}

static void on_stack(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    stack_t now;
    sigaltstack(NULL, &now);
    char here;
    ucontext_t *saved = context;
    printf("on stack %d inside %d saved %d\n", !!(now.ss_flags & SS_ONSTACK),
           &here >= (char *)now.ss_sp && &here < (char *)now.ss_sp + now.ss_size,
           saved->uc_stack.ss_size == now.ss_size);
}

/* Again and again: on a busy machine the first signal may come before the call. */
static void start_timer(long microseconds) {
    struct itimerval value = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &value, NULL);
}

static void faults(void) {
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    install(SIGSEGV, on_fault, 0);
    install(SIGILL, on_fault, 0);
    install(SIGTRAP, on_fault, 0);
    if (!sigsetjmp(back, 1)) *(volatile int *)0 = 1;
    if (!sigsetjmp(back, 1)) page[8] = 1;
    munmap(page, 4096);
    if (!sigsetjmp(back, 1)) printf("%d\n", page[8]);
    void (*volatile nowhere)(void) = NULL;
    if (!sigsetjmp(back, 1)) nowhere();
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!sigsetjmp(back, 1)) ((void (*)(void))page)();
    signal(SIGSEGV, SIG_DFL);
}

static void interrupted_calls(void) {
    int ends[2];
    char byte;
    pipe(ends);
    install(SIGALRM, on_count, 0);
    count = 0;
    start_timer(10000);
    ssize_t got = read(ends[0], &byte, 1);
    start_timer(0);
    printf("read %zd %s, %d\n", got, strerror(errno), count > 0);
    install(SIGALRM, on_count, SA_RESTART);
    if (fork() == 0) {
        usleep(90000);
        write(ends[1], "x", 1);
        _exit(7);
    }
    count = 0;
    start_timer(10000);
    got = read(ends[0], &byte, 1);
    printf("restarted read %zd '%c', %d\n", got, byte, count > 0);
    int status;
    while (wait(&status) < 0)
        ;
    printf("child %d\n", WEXITSTATUS(status));
    struct timespec request = {5, 0}, left = {0, 0};
    int result = nanosleep(&request, &left);
    printf("nanosleep %d %s left %d\n", result, strerror(errno), left.tv_sec == 4);
    printf("pause %d %s\n", pause(), strerror(errno));
    start_timer(0);
}

static void masks(void) {
    sigset_t set, old, pending;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    install(SIGUSR2, on_count, 0);
    count = 0;
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR2);
    sigpending(&pending);
    printf("pending %d, %d\n", sigismember(&pending, SIGUSR2), count);
    sigset_t none;
    sigemptyset(&none);
    printf("sigsuspend %d %s, %d\n", sigsuspend(&none), strerror(errno), count);
    raise(SIGUSR2);
    siginfo_t info;
    printf("sigwaitinfo %d code %d, %d\n", sigwaitinfo(&set, &info), info.si_code, count);
    struct timespec zero = {0, 1000000};
    printf("sigtimedwait %d %s\n", sigtimedwait(&set, &info, &zero), strerror(errno));
    raise(SIGUSR2);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("unblocked %d\n", count);
}

static void queued(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 1; i <= 3; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i * 11});
    for (int i = 0; i < 3; i++) {
        siginfo_t info;
        sigwaitinfo(&set, &info);
        printf("queued %d\n", info.si_value.sival_int);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    install(SIGRTMIN, on_count, 0);
    count = 0;
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    printf("handled %d\n", count);
}

static void alternate(void) {
    static char memory[65536];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    sigaltstack(&stack, NULL);
    install(SIGUSR1, on_stack, SA_ONSTACK);
    raise(SIGUSR1);
    install(SIGUSR1, on_stack, 0);
    raise(SIGUSR1);
}

static void deaths(void) {
    for (int i = 0; i < 4; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i == 0) abort();
            if (i == 1) *(volatile int *)0 = 1;
            if (i == 2) raise(SIGTERM);
            pause();
        }
        if (i == 3) kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        printf("death %d: %d %d\n", i, WIFSIGNALED(status), WTERMSIG(status));
    }
}

static void busy(void) {
    install(SIGALRM, on_count, 0);
    count = 0;
    start_timer(2000);
    double sum = 0;
    while (count < 5) sum += 1.25;
    start_timer(0);
    double quarters = sum * 4;
    printf("busy %d %d\n", count >= 5, quarters == (double)(long)quarters);
}

static void once(void) {
    install(SIGUSR1, on_count, SA_RESETHAND | SA_NODEFER);
    raise(SIGUSR1);
    struct sigaction after;
    sigaction(SIGUSR1, NULL, &after);
    printf("once %d %d\n", after.sa_handler == SIG_DFL,
           (after.sa_flags & (SA_RESETHAND | SA_NODEFER | SA_SIGINFO)) == (SA_RESETHAND | SA_NODEFER | SA_SIGINFO));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    faults();
    install(SIGUSR1, on_nested, 0);
    install(SIGUSR2, on_nested, 0);
    raise(SIGUSR1);
    printf("deepest %d count %d\n", deepest, count);
    masks();
    queued();
    alternate();
    interrupted_calls();
    busy();
    once();
    deaths();
    return 0;
}
