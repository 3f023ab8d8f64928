/* Signals and threads: directed and not, masks, waiting, timers, interrupted calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static __thread atomic_int mine;
static atomic_int all;
static __thread sigset_t seen;
static pthread_t main_thread;
static sem_t ready;

static void caught(int signal)
{
    (void)signal;
    atomic_fetch_add(&mine, 1);
    atomic_fetch_add(&all, 1);
}

static void install(int signal, int flags)
{
    struct sigaction action = {.sa_handler = caught, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}

static sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

static void *spin(void *argument)
{
    sem_post(&ready);
    while (atomic_load(&mine) < (intptr_t)argument)
        ;
    return NULL;
}

static atomic_int returned;

static void *block_in_read(void *argument)
{
    char room;
    ssize_t result = read(*(int *)argument, &room, 1);
    int interrupted = result == -1 && errno == EINTR;
    atomic_store(&returned, 1);
    return (void *)(intptr_t)interrupted;
}

static void directed(void)
{
    install(SIGUSR1, 0);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, spin, (void *)1);
    for (int i = 0; i < 6; i++)
        sem_wait(&ready);
    for (int i = 0; i < 6; i++)
        pthread_kill(threads[i], SIGUSR1);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    printf("directed %d here %d", atomic_load(&all), atomic_load(&mine));
    int ends[2], interrupted = 0;
    if (pipe(ends))
        abort();
    for (int i = 0; i < 5; i++) {
        void *result;
        atomic_store(&returned, 0);
        pthread_create(&threads[0], NULL, block_in_read, &ends[0]);
        do { /* A signal that comes before the read does not interrupt it. */
            usleep(1000);
            pthread_kill(threads[0], SIGUSR1);
        } while (!atomic_load(&returned));
        pthread_join(threads[0], &result);
        interrupted += (intptr_t)result;
    }
    printf(" interrupted %d\n", interrupted);
}

static void *block_and_wait(void *argument)
{
    (void)argument;
    sem_post(&ready);
    while (atomic_load(&mine) == 0)
        usleep(500);
    return NULL;
}

static void of_the_process(void)
{
    /* Only the other thread takes it. */
    sigset_t set = set_of(SIGUSR2);
    install(SIGUSR2, SA_RESTART);
    pthread_t thread;
    pthread_create(&thread, NULL, block_and_wait, NULL);
    sem_wait(&ready);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR2);
    pthread_join(thread, NULL);
    printf("taken by the other %d here %d\n", 1, atomic_load(&mine));
    /* Nobody takes it until it is unblocked. */
    kill(getpid(), SIGUSR2);
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d", sigismember(&pending, SIGUSR2));
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    printf(" delivered %d\n", atomic_load(&mine));
}

static atomic_int number;

/* Send a thread, by its number, what sigqueue sends a process. */
static void queue(int tid, int signal, int value)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = signal;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info);
}

static void *wait_for(void *argument)
{
    sigset_t set = set_of(SIGTERM);
    sigaddset(&set, SIGRTMIN + 2);
    long sum = 0;
    atomic_store(&number, (int)syscall(SYS_gettid));
    sem_post(&ready);
    for (int i = 0; i < 4; i++) {
        siginfo_t info;
        int signal = sigwaitinfo(&set, &info);
        sum = sum * 10 + (signal == SIGTERM ? 9 : info.si_value.sival_int);
    }
    (void)argument;
    return (void *)sum;
}

static void waited(void)
{
    sigset_t set = set_of(SIGTERM), old;
    sigaddset(&set, SIGRTMIN + 2);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    pthread_t thread;
    void *sum;
    pthread_create(&thread, NULL, wait_for, NULL);
    sem_wait(&ready);
    for (int i = 1; i <= 3; i++)
        queue(atomic_load(&number), SIGRTMIN + 2, i);
    usleep(5000);
    kill(getpid(), SIGTERM);
    pthread_join(thread, &sum);
    printf("waited for %ld\n", (long)sum);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static long order;

static void in_order(int signal, siginfo_t *info, void *context)
{
    (void)context;
    (void)signal;
    order = order * 10 + info->si_value.sival_int;
}

static void *suspend(void *argument)
{
    (void)argument;
    sigset_t open, set = set_of(SIGRTMIN + 4);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    atomic_store(&number, (int)syscall(SYS_gettid));
    sem_post(&ready);
    usleep(10000);
    sigfillset(&open);
    sigdelset(&open, SIGRTMIN + 4);
    int interrupted = 0;
    while (order < 12345)
        interrupted += sigsuspend(&open) == -1 && errno == EINTR;
    return (void *)(intptr_t)(interrupted > 0);
}

static void queued(void)
{
    struct sigaction action = {.sa_sigaction = in_order, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN + 4, &action, NULL);
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, suspend, NULL);
    sem_wait(&ready);
    for (int i = 1; i <= 5; i++)
        queue(atomic_load(&number), SIGRTMIN + 4, i);
    pthread_join(thread, &result);
    printf("queued %ld suspended %ld\n", order, (long)(intptr_t)result);
}

static void *use_timer(void *argument)
{
    (void)argument;
    install(SIGRTMIN + 5, 0);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5};
    event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer))
        return NULL;
    struct itimerspec soon = {.it_value.tv_nsec = 3000000, .it_interval.tv_nsec = 3000000};
    timer_settime(timer, 0, &soon, NULL);
    while (atomic_load(&mine) < 3)
        ;
    timer_delete(timer);
    return (void *)1;
}

static void timers(void)
{
    pthread_t thread;
    void *result;
    int before = atomic_load(&mine);
    pthread_create(&thread, NULL, use_timer, NULL);
    pthread_join(thread, &result);
    printf("timer of a thread %ld here %d\n", (long)(intptr_t)result, atomic_load(&mine) - before);
    install(SIGALRM, SA_RESTART);
    atomic_store(&all, 0);
    struct itimerval often = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, spin, (void *)0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    while (atomic_load(&all) < 20)
        usleep(1000);
    often = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    printf("interval timer\n");
}

static void *storm_worker(void *argument)
{
    (void)argument;
    for (int i = 0; i < 300; i++) {
        void *room = malloc((size_t)(i * 100 + 1));
        memset(room, i, (size_t)(i * 100 + 1));
        free(room);
        pthread_kill(main_thread, SIGUSR1);
    }
    return NULL;
}

static void storm(void)
{
    install(SIGUSR1, SA_RESTART);
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, storm_worker, NULL);
    for (int i = 0; i < 500; i++)
        pthread_kill(threads[i % 8], 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    printf("storm %d\n", atomic_load(&mine) > 0);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    main_thread = pthread_self();
    sem_init(&ready, 0, 0);
    directed();
    of_the_process();
    waited();
    queued();
    timers();
    storm();
    return 0;
}
