/* Threads and processes: fork, exec and exit from threads, robust locks, vfork and posix_spawn. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static atomic_int stop;
static char *program;

static void *churn(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop))
        free(malloc(5000));
    return NULL;
}

static void *sleep_long(void *argument)
{
    (void)argument;
    sleep(1000);
    return NULL;
}

static void *spin(void *argument)
{
    (void)argument;
    for (volatile long i = 0;; i++)
        ;
    return NULL;
}

static void show(const char *what, int status)
{
    if (WIFEXITED(status))
        printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else
        printf("%s: signal %d\n", what, WTERMSIG(status));
}

/* Run a function in a child and tell how it ended. */
static void in_child(const char *what, void (*function)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        function();
        _exit(99);
    }
    waitpid(pid, &status, 0);
    show(what, status);
}

static void start(void *(*function)(void *), int count)
{
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, function, NULL))
            abort();
    }
}

static void *allocate(void *nbytes)
{
    return malloc((size_t)(intptr_t)nbytes);
}

static void *fork_often(void *argument)
{
    long good = 0;
    (void)argument;
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            /* The only thread of the child may use memory and threads again. */
            pthread_t thread;
            void *result = NULL;
            mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (getpid() != (pid_t)syscall(SYS_gettid))
                _exit(1);
            pthread_create(&thread, NULL, allocate, (void *)10);
            pthread_join(thread, &result);
            _exit(result ? 40 + i : 2);
        }
        int status;
        if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 40 + i)
            good++;
    }
    return (void *)good;
}

static void forks(void)
{
    pthread_t churning[2], forking[3];
    for (int i = 0; i < 2; i++)
        pthread_create(&churning[i], NULL, churn, NULL);
    long good = 0;
    for (int i = 0; i < 3; i++)
        pthread_create(&forking[i], NULL, fork_often, NULL);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(forking[i], &result);
        good += (long)result;
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(churning[i], NULL);
    printf("forked %ld\n", good);
}

static void *exit_all(void *argument)
{
    (void)argument;
    usleep(2000);
    exit(21);
}

static void *execute(void *argument)
{
    (void)argument;
    usleep(2000);
    char *arguments[] = {program, "again", NULL};
    execv(program, arguments);
    _exit(98);
}

static void *die(void *argument)
{
    (void)argument;
    usleep(2000);
    raise(SIGKILL);
    return NULL;
}

static void *fault(void *argument)
{
    usleep(2000);
    *(volatile int *)argument = 1;
    return NULL;
}

static void exit_from_thread(void)
{
    start(sleep_long, 3);
    start(spin, 2);
    start(exit_all, 1);
    sleep(1000);
}

static void exec_from_thread(void)
{
    start(sleep_long, 3);
    start(spin, 2);
    start(execute, 1);
    for (;;)
        ;
}

static void exec_without_leader(void)
{
    start(sleep_long, 2);
    start(execute, 1);
    pthread_exit(NULL);
}

static void exit_of_main_with_threads(void)
{
    start(spin, 2);
    start(sleep_long, 2);
    _exit(22);
}


static void *end_churn(void *argument)
{
    (void)argument;
    usleep(3000);
    atomic_store(&stop, 1);
    return NULL;
}

static void leader_first(void)
{
    atomic_store(&stop, 0);
    start(churn, 3);
    start(end_churn, 1);
    pthread_exit(NULL);
}

static void killed_thread(void)
{
    start(spin, 1);
    start(die, 1);
    sleep(1000);
}

static void faulting_thread(void)
{
    start(sleep_long, 1);
    start(fault, 1);
    sleep(1000);
}

static void robust(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t *mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                  -1, 0);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(mutex, &attributes);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_mutex_lock(mutex);
            usleep(10000);
            if (i == 1)
                start(spin, 2);
            _exit(0);
        }
        usleep(i * 4000);
        waitpid(i == 2 ? 0 : pid, NULL, 0);
        int result = pthread_mutex_lock(mutex);
        printf("robust between processes %d\n", result == EOWNERDEAD);
        pthread_mutex_consistent(mutex);
        pthread_mutex_unlock(mutex);
    }
}

static volatile int written;

static void spawning(void)
{
    pid_t pid;
    int status;
    char *arguments[] = {program, "again", NULL};
    printf("spawn of nothing %d\n",
           posix_spawn(&pid, "/no/such/program", NULL, NULL, arguments, environ));
    int result = posix_spawn(&pid, program, NULL, NULL, arguments, environ);
    waitpid(pid, &status, 0);
    printf("spawn %d: %d\n", result, WEXITSTATUS(status));
    volatile int local = 1;
    pid = vfork();
    if (pid == 0) {
        local = 2;
        written = 3;
        execl("/no/such/program", "x", NULL);
        written += errno;
        _exit(5);
    }
    waitpid(pid, &status, 0);
    printf("vfork shares %d %d: %d\n", local, written == 3 + ENOENT, WEXITSTATUS(status));
}

/* More than a pipe holds. */
static void much_from_vfork(void)
{
    enum { WORDS = 25000 };
    long *words = mmap(NULL, WORDS * sizeof *words, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int same = 0, status;
    pid_t pid = vfork();
    if (pid == 0) {
        for (int i = 0; i < WORDS; i++)
            words[i] = i + 1;
        _exit(6);
    }
    waitpid(pid, &status, 0);
    for (int i = 0; i < WORDS; i++)
        same += words[i] == i + 1;
    printf("vfork shares %d: %d\n", same, pid > 0 && WEXITSTATUS(status) == 6);
}

static volatile struct {
    int of_child, of_thread;
} beside;
static atomic_int lost;

static void *count(void *argument)
{
    (void)argument;
    for (int i = 0; !atomic_load(&stop); i++) {
        if (beside.of_thread != i)
            atomic_fetch_add(&lost, 1);
        beside.of_thread = i + 1;
    }
    return NULL;
}

/* What other threads write meanwhile stays, beside what the child writes. */
static void write_beside_vfork(void)
{
    pthread_t thread;
    int shared = 0;
    atomic_store(&stop, 0);
    pthread_create(&thread, NULL, count, NULL);
    for (int i = 1; i <= 100; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            beside.of_child = i;
            _exit(0);
        }
        waitpid(pid, NULL, 0);
        shared += beside.of_child == i;
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    printf("vfork shares %d, writes lost %d\n", shared, atomic_load(&lost));
    _exit(25);
}

static int ends[2];

/* A child of vfork that goes on only when the writing end of a pipe is closed everywhere. */
static void *vfork_and_wait(void *argument)
{
    pid_t pid = vfork();
    if (pid == 0) {
        char room;
        atomic_store((atomic_int *)argument, 1);
        close(ends[1]);
        read(ends[0], &room, 1);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return NULL;
}

static pthread_t begin_vfork(void)
{
    pthread_t thread;
    atomic_int *begun = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pipe(ends);
    pthread_create(&thread, NULL, vfork_and_wait, begun);
    while (!atomic_load(begun))
        usleep(1000);
    return thread;
}

/* vfork waits for its own child, not for those that are forked meanwhile. */
static void fork_beside_vfork(void)
{
    pthread_t thread = begin_vfork();
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        sleep(1000);
    }
    close(ends[1]);
    pthread_join(thread, NULL);
    kill(pid, SIGKILL);
    _exit(24);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    program = argv[0];
    if (argc > 1) {
        int count = 0;
        start(churn, 1);
        count += getpid() == (pid_t)syscall(SYS_gettid);
        return 30 + count;
    }
    forks();
    in_child("exit from a thread", exit_from_thread);
    in_child("exec from a thread", exec_from_thread);
    in_child("exec without leader", exec_without_leader);
    in_child("exit of main", exit_of_main_with_threads);
    in_child("leader first", leader_first);
    in_child("killed", killed_thread);
    in_child("fault", faulting_thread);
    robust();
    spawning();
    much_from_vfork();
    in_child("write beside vfork", write_beside_vfork);
    in_child("fork beside vfork", fork_beside_vfork);
    start(spin, 2);
    start(sleep_long, 2);
    begin_vfork(); /* does not keep us from ending */
    return 17;
}
