/* A chain of programs for different processors: each is told which to execute next, and how. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char **next;

static void on_signal(int number) { (void)number; }

static int status_of(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void *execute(void *unused) {
    (void)unused;
    execv(next[0], next);
    return NULL;
}

/* What a program finds that was executed by another. */
static void look(void) {
    struct sigaction caught, ignored;
    sigset_t blocked, pending;
    sigaction(SIGUSR1, NULL, &caught);
    sigaction(SIGUSR2, NULL, &ignored);
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    sigpending(&pending);
    printf(" default %d ignored %d blocked %d pending %d closed %d open %d mark %s\n",
           caught.sa_handler == SIG_DFL, ignored.sa_handler == SIG_IGN,
           sigismember(&blocked, SIGTERM), sigismember(&pending, SIGTERM), fcntl(50, F_GETFD),
           fcntl(51, F_GETFD), getenv("MARK") ? getenv("MARK") : "none");
}

int main(int argc, char **argv) {
    struct utsname names;
    uname(&names);
    const char *what = argc > 1 ? argv[1] : "end";
    printf("%s %s", names.machine, what);
    next = argv + 2;
    if (!strcmp(what, "end")) {
        look();
        return 3;
    }
    if (!strcmp(what, "die")) {
        printf("\n");
        fflush(stdout);
        raise(SIGTERM);
        raise(SIGKILL);
    }
    if (!strcmp(what, "copy")) {
        char text[100];
        ssize_t nbytes = read(0, text, sizeof text);
        printf(" %.*s", (int)nbytes, text);
        return 5;
    }
    printf("\n");
    fflush(stdout);
    if (!strcmp(what, "execute") || !strcmp(what, "thread")) {
        signal(SIGUSR1, on_signal);
        signal(SIGUSR2, SIG_IGN);
        setenv("MARK", names.machine, 1);
        fcntl(1, F_DUPFD_CLOEXEC, 50);
        dup2(1, 51);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigprocmask(SIG_BLOCK, &set, NULL);
        kill(getpid(), SIGTERM);
        pthread_t thread;
        if (!strcmp(what, "execute")) {
            execute(NULL);
            printf("%s: error %d\n", names.machine, errno);
        } else if (!pthread_create(&thread, NULL, execute, NULL))
            pthread_join(thread, NULL);
    } else if (!strcmp(what, "fork")) {
        pid_t child = fork();
        if (child == 0) {
            execute(NULL);
            _exit(99);
        }
        printf("%s: child %d\n", names.machine, status_of(child));
        return 4;
    } else if (!strcmp(what, "spawn")) {
        pid_t child;
        char *nothing[] = {"nothing", NULL};
        int failed = posix_spawn(&child, "./nothing", NULL, NULL, nothing, environ);
        printf("%s: nothing %d\n", names.machine, failed == ENOENT);
        fflush(stdout);
        if (posix_spawn(&child, next[0], NULL, NULL, next, environ) == 0)
            printf("%s: spawned %d\n", names.machine, status_of(child));
        return 6;
    } else if (!strcmp(what, "pipe")) {
        int ends[2];
        if (pipe(ends)) return 97;
        pid_t child = fork();
        if (child == 0) {
            dup2(ends[0], 0);
            close(ends[0]);
            close(ends[1]);
            execute(NULL);
            _exit(99);
        }
        close(ends[0]);
        dprintf(ends[1], "through %s\n", names.machine);
        close(ends[1]);
        printf("%s: reader %d\n", names.machine, status_of(child));
        return 7;
    }
    return 98;
}
