/* The stack and its limit, and how long arguments may be. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAME = 4096 };

static __attribute__((noinline)) long descend(long frames)
{
    volatile char frame[FRAME];
    frame[0] = (char)frames;
    return frames ? descend(frames - 1) + frame[0] : 0;
}

static void limit_to(long megabytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = megabytes << 20;
    if (setrlimit(RLIMIT_STACK, &limit))
        perror("setrlimit");
}

/* The signal that a child ends of, which uses so much of its stack. */
static int uses(long megabytes, long limit)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (limit)
            limit_to(limit);
        descend((megabytes << 20) / FRAME);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return WTERMSIG(status);
}

static int executes(char **argv, long megabytes, const char *used)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        limit_to(megabytes);
        execl(argv[0], argv[0], used, NULL);
        _exit(99);
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

static int refused(const char *path, size_t count, size_t nbytes)
{
    char **arguments = calloc(count + 1, sizeof *arguments);
    char *text = malloc(nbytes + 1);
    memset(text, 'x', nbytes);
    text[nbytes] = 0;
    for (size_t i = 0; i < count; i++)
        arguments[i] = text;
    pid_t child = fork();
    if (child == 0) {
        execv(path, arguments);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    free(arguments);
    free(text);
    return WEXITSTATUS(status) == E2BIG;
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        descend((atol(argv[1]) << 20) / FRAME);
        return 5;
    }
    if (argc > 2)
        return argc > 10000;
    limit_to(8);
    printf("of 8: %d %d\n", uses(7, 0), uses(9, 0));
    printf("of 64: %d %d\n", uses(50, 64), uses(80, 64));
    printf("executed: %x %x\n", executes(argv, 2, "1"), executes(argv, 2, "3"));
    printf("executed: %x %x\n", executes(argv, 200, "150"), executes(argv, 200, "250"));
    printf("refused: %d %d %d %d\n", refused(argv[0], 20000, 10), refused(argv[0], 3, 130000),
           refused(argv[0], 3, 140000), refused(argv[0], 200000, 10));
    return 0;
}
