/* Processes that share other things with their parent than fork's do. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct wish { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

static volatile int got;
static void note(int number) { got = number; }

static long start(uint64_t flags, uint64_t exit_signal) {
    struct wish wish = {.flags = flags, .exit_signal = exit_signal};
    fflush(stdout);
    return syscall(SYS_clone3, &wish, sizeof wish);
}

static int end(pid_t pid) {
    int status = -1;
    return waitpid(pid, &status, __WALL) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void signals(void) {
    signal(SIGUSR2, note), signal(SIGCHLD, note);
    pid_t pid = start(0, SIGUSR2);
    if (!pid) _exit(3);
    printf("status %d signal %d\n", end(pid), got);
    got = 0;
    pid = start(0, 0);
    if (!pid) _exit(4);
    printf("unseen %d %d", waitpid(pid, NULL, 0), errno);
    printf(" status %d signal %d\n", end(pid), got);
    pid = syscall(SYS_clone, SIGUSR2, 0, 0, 0, 0);
    if (!pid) _exit(5);
    printf("clone %d %d\n", end(pid), got);
    signal(SIGCHLD, SIG_DFL);
}

static void sharing(void) {
    int pipes[2];
    pipe(pipes);
    pid_t pid = start(CLONE_FILES, SIGCHLD);
    if (!pid) _exit(dup2(pipes[0], 50) == 50 ? 0 : 1);
    printf("files %d %d", end(pid), fcntl(50, F_GETFD));
    pid = start(0, SIGCHLD);
    if (!pid) _exit(close(50));
    printf(" kept %d %d\n", end(pid), fcntl(50, F_GETFD));
    pid = start(CLONE_FS, SIGCHLD);
    if (!pid) _exit(chdir("/"));
    char buffer[4096];
    printf("folder %d %s\n", end(pid), getcwd(buffer, sizeof buffer));
}

static void siblings(void) {
    pid_t outer = getpid(), middle = fork();
    if (!middle) {
        pid_t pid = start(CLONE_PARENT, 0);
        if (!pid) _exit(getppid() == outer ? 7 : 8);
        _exit(pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == ECHILD);
    }
    int status, statuses = 0;
    for (int i = 0; i < 2; i++) wait(&status), statuses += WEXITSTATUS(status);
    printf("siblings %d none left %d\n", statuses, wait(&status));
}

static void refused(void) {
    uint64_t flags[] = {CLONE_SIGHAND, CLONE_THREAD, CLONE_NEWNS | CLONE_FS, CLONE_NEWUSER | CLONE_FS, SIGCHLD};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        long pid = start(flags[i], i == 1 ? 0 : SIGCHLD);
        printf("refused %ld %s\n", pid, strerror(errno));
        if (!pid) _exit(0);
    }
    printf("parent with a signal %ld %s\n", start(CLONE_PARENT, SIGCHLD), strerror(errno));
    printf("number %ld %s\n", start(0, 65), strerror(errno));
}

static void namespaces(void) {
    pid_t pid = start(CLONE_NEWUTS, SIGCHLD);
    if (!pid) _exit(sethostname("other", 5));
    char name[64] = "";
    gethostname(name, sizeof name);
    printf("names %d %d", pid < 0 ? errno : 0, pid < 0 ? 0 : end(pid));
    printf(" %d\n", strcmp(name, "other") != 0);
}

int main(void) {
    signals();
    sharing();
    siblings();
    refused();
    namespaces();
    return 0;
}
