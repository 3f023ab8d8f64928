/* A timer that has always expired again: its handler runs nevertheless, and stops it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static timer_t timer;
static volatile sig_atomic_t calls, overruns;

static void stop(int number) {
    (void)number;
    if (calls++) return;
    overruns = timer_getoverrun(timer) > 0;
    timer_settime(timer, 0, &(struct itimerspec){0}, NULL);
}

static void storm(int number, int waits) {
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    struct itimerspec often = {{0, 1}, {0, 1}};
    sigset_t set;
    signal(number, stop);
    calls = overruns = 0;
    sigemptyset(&set), sigaddset(&set, number);
    if (waits) sigprocmask(SIG_BLOCK, &set, NULL);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &often, NULL);
    if (waits) {
        siginfo_t info;
        int got[2] = {sigwaitinfo(&set, &info), sigwaitinfo(&set, &info)};
        printf("waited %d %d calls %d\n", got[0] == number, got[1] == number, (int)calls);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
    while (!calls) {}
    timer_delete(timer);
    printf("calls %d overruns %d\n", (int)calls <= 2, (int)overruns);
}

static volatile sig_atomic_t children;
static void child(int number) { (void)number, children++; }

/* Signals that come while another is dealt with are seen, and children have the mask that they ought to have. */
static void families(void) {
    sigset_t mask;
    signal(SIGCHLD, child), signal(SIGUSR1, child);
    for (int i = 0; i < 30; i++) {
        pid_t pid = fork();
        if (!pid) {
            sigprocmask(SIG_BLOCK, NULL, &mask);
            kill(getppid(), SIGUSR1);
            _exit(sigismember(&mask, SIGUSR1) || sigismember(&mask, SIGCHLD));
        }
        int status = -1;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        if (status) printf("status %x\n", status);
    }
    printf("seen %d\n", children >= 30);
}

int main(void) {
    storm(SIGUSR1, 0);
    storm(SIGRTMIN + 1, 0);
    storm(SIGUSR2, 1);
    storm(SIGRTMIN + 2, 1);
    families();
    return 0;
}
