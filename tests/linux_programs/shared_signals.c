/* Signals for the process that came to a thread which blocks them before it can take them. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static atomic_int taken, done;
static sem_t go;
static sigset_t both, second, nothing;
static int (*wait_for_second)(void);

static void on_second(int signal)
{
    (void)signal;
    atomic_store(&taken, gettid());
}

/* The second signal has arrived, and is blocked here. */
static void on_first(int signal)
{
    (void)signal;
    sem_post(&go);
    while (!atomic_load(&done))
        ;
}

static int by_suspending(void)
{
    return sigsuspend(&nothing) == -1 && errno == EINTR && atomic_load(&taken) == gettid();
}

static int by_polling(void)
{
    struct timespec limit = {20, 0};
    return ppoll(NULL, 0, &limit, &nothing) == -1 && errno == EINTR &&
           atomic_load(&taken) == gettid();
}

static int by_waiting(void)
{
    siginfo_t info;
    return sigwaitinfo(&second, &info) == SIGUSR2 && info.si_pid == getpid();
}

static int by_asking(void)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGUSR2) && by_waiting();
}

static int by_unblocking(void)
{
    pthread_sigmask(SIG_UNBLOCK, &second, NULL);
    pthread_sigmask(SIG_BLOCK, &second, NULL);
    return atomic_load(&taken) == gettid();
}

static void *other(void *unused)
{
    (void)unused;
    sem_wait(&go);
    int result = wait_for_second();
    atomic_store(&done, 1);
    return (void *)(long)result;
}

static void arrive(const char *what, int (*wait)(void))
{
    pthread_t thread;
    void *result;
    atomic_store(&taken, 0);
    atomic_store(&done, 0);
    wait_for_second = wait;
    pthread_sigmask(SIG_BLOCK, &both, NULL);
    pthread_create(&thread, NULL, other, NULL);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    pthread_sigmask(SIG_UNBLOCK, &both, NULL);
    pthread_join(thread, &result);
    printf("%s %ld\n", what, (long)result);
}

/* Here, within the handler that blocks it, by a call with a mask of its own. */
static void on_first_alone(int signal)
{
    (void)signal;
    printf("in the handler %d", wait_for_second());
}

static void here(const char *what, int (*wait)(void))
{
    wait_for_second = wait;
    atomic_store(&taken, 0);
    sigprocmask(SIG_BLOCK, &both, NULL);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    printf(" %s %d\n", what, atomic_load(&taken) == gettid());
}

static void end(int signal)
{
    (void)signal;
    pthread_exit(NULL);
}

static void *unblock(void *unused)
{
    pthread_sigmask(SIG_UNBLOCK, &both, NULL);
    return unused;
}

/* What has arrived at a thread that ends is for the others. */
static void left_behind(void)
{
    pthread_t thread;
    atomic_store(&taken, 0);
    sigprocmask(SIG_BLOCK, &both, NULL);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    pthread_create(&thread, NULL, unblock, NULL);
    pthread_join(thread, NULL);
    sigprocmask(SIG_UNBLOCK, &both, NULL);
    printf("left behind %d\n", atomic_load(&taken) == gettid());
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    sem_init(&go, 0, 0);
    sigemptyset(&nothing);
    sigemptyset(&second);
    sigaddset(&second, SIGUSR2);
    both = second;
    sigaddset(&both, SIGUSR1);
    struct sigaction action = {.sa_handler = on_second};
    sigaction(SIGUSR2, &action, NULL);
    action = (struct sigaction){.sa_handler = on_first, .sa_mask = second};
    sigaction(SIGUSR1, &action, NULL);
    arrive("suspending", by_suspending);
    arrive("polling", by_polling);
    arrive("waiting", by_waiting);
    arrive("asking", by_asking);
    arrive("unblocking", by_unblocking);
    action.sa_handler = on_first_alone;
    sigaction(SIGUSR1, &action, NULL);
    here("suspending", by_suspending);
    here("polling", by_polling);
    here("waiting", by_waiting);
    here("asking", by_asking);
    action.sa_handler = end;
    sigaction(SIGUSR1, &action, NULL);
    left_behind();
    return 0;
}
