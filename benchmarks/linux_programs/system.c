/* What a program asks of the kernel, many times: system KIND COUNT. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long count;

static void getpids(void)
{
    for (long i = 0; i < count; i++)
        syscall(SYS_getpid);
}

static void clocks(void)
{
    struct timespec now;
    for (long i = 0; i < count; i++)
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
}

static void futexes(void)
{
    int word = 0;
    for (long i = 0; i < count; i++)
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void pass(int in, int out)
{
    char byte;
    while (read(in, &byte, 1) == 1)
        if (write(out, &byte, 1) != 1)
            break;
}

static void pingpong(void)
{
    int there[2], back[2];
    if (pipe(there) || pipe(back))
        abort();
    pid_t child = fork();
    if (child == 0) {
        close(there[1]);
        pass(there[0], back[1]);
        _exit(0);
    }
    char byte = 0;
    for (long i = 0; i < count; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            abort();
    close(there[1]);
    waitpid(child, NULL, 0);
}

static void *nothing(void *argument)
{
    return argument;
}

static void threads(void)
{
    for (long i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, nothing, NULL))
            abort();
        pthread_join(thread, NULL);
    }
}

static void *work(void *argument)
{
    uint64_t state = (uintptr_t)argument;
    for (long i = 0; i < count; i++)
        state = state * 6364136223846793005u + 1442695040888963407u + (state >> 33);
    return (void *)(uintptr_t)state;
}

static void spin(int width)
{
    pthread_t thread[2];
    uintptr_t sum = 0;
    for (int i = 0; i < width; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i))
            abort();
    for (int i = 0; i < width; i++) {
        void *result;
        pthread_join(thread[i], &result);
        sum += (uintptr_t)result;
    }
    printf("%lu\n", (unsigned long)sum);
}

static void one(void)
{
    spin(1);
}

static void two(void)
{
    spin(2);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {
        {"getpid", getpids}, {"clock_gettime", clocks}, {"futex", futexes}, {"pingpong", pingpong},
        {"threads", threads}, {"one", one}, {"two", two},
    };
    if (argc != 3)
        return 2;
    count = atol(argv[2]);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(argv[1], kinds[i].name)) {
            kinds[i].run();
            return 0;
        }
    return 2;
}
