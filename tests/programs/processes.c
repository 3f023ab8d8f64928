/* Processes: fork, wait, pipes, exit statuses, signals between parent and child, copied memory. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int shared_by_nobody = 1;

static volatile sig_atomic_t children_ended;

static void ended(int signal)
{
    (void)signal;
    children_ended++;
}

static void statuses(void)
{
    for (int code = 0; code < 256; code += 85) {
        pid_t child = fork();
        if (child == 0) {
            shared_by_nobody = code;
            _exit(code);
        }
        int status;
        printf("same child %d", waitpid(child, &status, 0) == child);
        printf(" exited %d with %d\n", WIFEXITED(status), WEXITSTATUS(status));
    }
    printf("untouched %d\n", shared_by_nobody);
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    kill(child, SIGTERM);
    int status;
    waitpid(child, &status, 0);
    printf("signalled %d by %d\n", WIFSIGNALED(status), WTERMSIG(status));
    child = fork();
    if (child == 0)
        abort();
    waitpid(child, &status, 0);
    printf("aborted %d\n", WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    printf("no more %d %d\n", (int)wait(&status), errno == ECHILD);
}

static void pipeline(void)
{
    int down[2], up[2];
    if (pipe(down) || pipe2(up, O_CLOEXEC))
        exit(1);
    pid_t child = fork();
    if (child == 0) {
        close(down[1]);
        close(up[0]);
        char byte;
        long sum = 0, count = 0;
        while (read(down[0], &byte, 1) == 1)
            sum += byte, count++;
        char answer[64];
        int n = snprintf(answer, sizeof answer, "%ld bytes, sum %ld", count, sum);
        _exit(write(up[1], answer, (size_t)n) != n);
    }
    close(down[0]);
    close(up[1]);
    for (int i = 0; i < 300; i++)
        if (write(down[1], "pipeline" + i % 8, 1) != 1)
            exit(1);
    close(down[1]);
    char answer[64] = {0};
    if (read(up[0], answer, sizeof answer - 1) < 0)
        exit(1);
    int status;
    waitpid(child, &status, 0);
    printf("%s, status %d\n", answer, status);
    signal(SIGPIPE, SIG_IGN);
    close(up[0]);
    int ends[2];
    if (pipe(ends))
        exit(1);
    close(ends[0]);
    printf("broken pipe %d %d\n", (int)write(ends[1], "x", 1), errno == EPIPE);
}

static void together(void)
{
    int *sum = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_handler = ended, .sa_flags = SA_RESTART};
    sigaction(SIGCHLD, &action, NULL);
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            for (int k = 0; k < 1000; k++)
                __atomic_fetch_add(sum, i, __ATOMIC_RELAXED);
            _exit(i);
        }
    int codes = 0, status;
    for (int i = 0; i < 4; i++)
        if (wait(&status) > 0)
            codes += WEXITSTATUS(status);
    printf("shared sum %d codes %d told %d\n", *sum, codes, children_ended > 0);
}

static void conversation(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
        exit(1);
    pid_t child = fork();
    char buffer[32] = {0};
    if (child == 0) {
        ssize_t n = read(ends[1], buffer, sizeof buffer);
        for (ssize_t i = 0; i < n; i++)
            buffer[i] ^= 0x20;
        _exit(write(ends[1], buffer, (size_t)n) != n);
    }
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    printf("nothing yet %d", poll(&ready, 1, 0));
    if (write(ends[0], "Hello", 5) != 5)
        exit(1);
    printf(" then %d", poll(&ready, 1, 10000));
    printf(" read %d %s\n", (int)read(ends[0], buffer, sizeof buffer), buffer);
    waitpid(child, NULL, 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    statuses();
    pipeline();
    together();
    conversation();
    return 7;
}
