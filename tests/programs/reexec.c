/* exec of the program itself: arguments, environment, descriptors and signals across it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[4096];

static int child(int argc, char **argv)
{
    printf("child %d:", argc);
    for (int i = 1; i < argc; i++)
        printf(" <%s>", argv[i]);
    printf(" colour %s home %d\n", getenv("COLOUR"), getenv("HOME") != NULL);
    int kept = atoi(argv[2]), closed = atoi(argv[3]);
    printf("kept %d closed %d\n", fcntl(kept, F_GETFD) == 0, fcntl(closed, F_GETFD) == -1);
    struct sigaction ignored, handled;
    sigaction(SIGUSR1, NULL, &ignored);
    sigaction(SIGUSR2, NULL, &handled);
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    printf("ignored %d reset %d blocked %d\n", ignored.sa_handler == SIG_IGN,
           handled.sa_handler == SIG_DFL, sigismember(&mask, SIGHUP));
    return 23;
}

static void handler(int signal)
{
    (void)signal;
}

static void report(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    printf("exited %d with %d\n", WIFEXITED(status), WEXITSTATUS(status));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return child(argc, argv);
    if (realpath("/proc/self/exe", path) == NULL)
        return 1;
    printf("name %d\n", strstr(path, "reexec") != NULL);
    int kept = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char first[12], second[12];
    snprintf(first, sizeof first, "%d", kept);
    snprintf(second, sizeof second, "%d", closed);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, handler);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGHUP);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    char *arguments[] = {path, "child", first, second, "with space", "", NULL};
    char *environment[] = {"COLOUR=green", NULL};
    fflush(stdout);

    pid_t pid = fork();
    if (pid == 0) {
        execve(path, arguments, environment);
        _exit(99);
    }
    report(pid);

    pid = vfork();
    if (pid == 0) {
        execve("/proc/self/exe", arguments, environment);
        _exit(98);
    }
    report(pid);

    int error = posix_spawn(&pid, path, NULL, NULL, arguments, environment);
    if (error == 0)
        report(pid);
    printf("spawn %d\n", error);
    error = posix_spawn(&pid, "/nonexistent", NULL, NULL, arguments, environment);
    printf("missing %d\n", error == ENOENT);
    printf("exec of a folder %d %d\n", execve("/", arguments, environment), errno == EACCES);
    fflush(stdout);
    execve(path, arguments, environment);
    return 97;
}
