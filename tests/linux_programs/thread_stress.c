/* Many threads with locks, signals, fork and exec at once, for as many seconds as the argument says:
   no hang, no lost update, no zombie. */
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64 };

static char *program;
static atomic_int stop, signals, failures;
static atomic_long children;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t threads[THREADS];
static long first, second;
static atomic_long total;
static long own[THREADS];

static void caught(int signal)
{
    (void)signal;
    atomic_fetch_add(&signals, 1);
}

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        atomic_fetch_add(&failures, 1);
    }
}

static void wait_for(pid_t pid, int expected)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) {
            check(0, "waitpid");
            return;
        }
    check(WIFEXITED(status) && WEXITSTATUS(status) == expected, "child");
    atomic_fetch_add(&children, 1);
}

static void *nothing(void *argument)
{
    return argument;
}

static void start_child(int executes)
{
    pid_t pid = fork();
    if (pid < 0) {
        check(errno == EAGAIN, "fork");
        return;
    }
    if (pid == 0) {
        char *arguments[] = {program, "child", "x", NULL};
        if (executes) {
            execv(program, arguments);
            _exit(1);
        }
        pthread_t thread;
        void *result;
        if (pthread_create(&thread, NULL, nothing, (void *)7) || pthread_join(thread, &result))
            _exit(2);
        _exit((int)(intptr_t)result);
    }
    wait_for(pid, executes ? 9 : 7);
}

static void *work(void *argument)
{
    int me = (int)(intptr_t)argument;
    unsigned random = (unsigned)me * 2654435761u + 1;
    while (!atomic_load(&stop)) {
        random = random * 1103515245u + 12345u;
        unsigned choice = random >> 16 & 255;
        if (choice < 2)
            start_child(choice);
        else if (choice < 20)
            pthread_kill(threads[random >> 24 & 31], SIGUSR1);
        else if (choice < 40) {
            size_t nbytes = (random >> 8 & 0xFFFF) + 1;
            char *room = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                              -1, 0);
            check(room != MAP_FAILED, "mmap");
            room[nbytes - 1] = 1;
            munmap(room, nbytes);
        } else if (choice < 50) {
            pthread_mutex_lock(&mutex);
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 1000000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&changed, &mutex, &until);
            pthread_mutex_unlock(&mutex);
        } else if (choice < 52) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, nothing, NULL) == 0)
                pthread_join(thread, NULL);
        } else {
            pthread_mutex_lock(&mutex);
            first++;
            if (choice < 60)
                sched_yield();
            second++;
            check(first == second, "lock");
            pthread_cond_signal(&changed);
            pthread_mutex_unlock(&mutex);
            own[me]++;
            atomic_fetch_add(&total, 1);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    program = argv[0];
    if (argc == 3)
        return 9;
    struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < THREADS; i++)
        threads[i] = pthread_self();
    for (int i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0, "pthread_create");
    time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 2);
    while (time(NULL) < end)
        usleep(50000);
    atomic_store(&stop, 1);
    long sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += own[i];
    }
    int zombies = waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
    printf("failures %d zombies %d sums %d children %d signals %d\n", atomic_load(&failures),
           zombies, sum == first && sum == atomic_load(&total), atomic_load(&children) > 0,
           atomic_load(&signals) > 0);
    if (argc > 1)
        fprintf(stderr, "%ld updates, %ld children, %d signals\n", sum, atomic_load(&children),
                atomic_load(&signals));
    return 0;
}
