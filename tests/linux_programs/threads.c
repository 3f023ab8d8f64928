/* Threads: locks of every kind, thread-local data, cancellation, counters, many short lives. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 8, ROUNDS = 20000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t readers = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_spinlock_t spin;
static sem_t semaphore;
static long plain, guarded_by_spin, first_half, second_half;
static atomic_long word64;
static atomic_int word32;
static atomic_uchar byte;
static _Atomic uint16_t half;
static __thread long local = 7;
static pthread_key_t key;
static atomic_int destroyed;

static void run(void *(*function)(void *), int count)
{
    pthread_t threads[64];
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, function, (void *)(intptr_t)i))
            abort();
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void *count(void *argument)
{
    long number = (intptr_t)argument;
    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&word64, number);
        atomic_fetch_add_explicit(&word32, 1, memory_order_relaxed);
        atomic_fetch_add(&byte, 1);
        atomic_fetch_xor(&half, (uint16_t)(1u << (i + number) % 16));
        long old = atomic_load(&word64);
        while (!atomic_compare_exchange_weak(&word64, &old, old + 1))
            ;
        if (i % 8 == 0) {
            pthread_mutex_lock(&mutex);
            plain++;
            pthread_mutex_unlock(&mutex);
            pthread_spin_lock(&spin);
            guarded_by_spin++;
            pthread_spin_unlock(&spin);
        }
    }
    return NULL;
}

/* A store and then a load of another word: one of two threads must see the other's store. */
static atomic_int here, there, seen_by[2];

static void *store_and_load(void *argument)
{
    int me = (int)(intptr_t)argument;
    for (int i = 0; i < 300; i++) {
        pthread_barrier_wait(&barrier);
        atomic_store(me ? &here : &there, 1);
        atomic_store(&seen_by[me], atomic_load(me ? &there : &here));
        pthread_barrier_wait(&barrier);
        if (me == 0) {
            if (!atomic_load(&seen_by[0]) && !atomic_load(&seen_by[1]))
                plain++;
            atomic_store(&here, 0);
            atomic_store(&there, 0);
        }
    }
    return NULL;
}

static void *read_or_write(void *argument)
{
    int writes = (intptr_t)argument % 4 == 0;
    for (int i = 0; i < 2000; i++) {
        if (writes) {
            pthread_rwlock_wrlock(&readers);
            first_half++;
            second_half++;
        } else {
            pthread_rwlock_rdlock(&readers);
            if (first_half != second_half)
                abort();
        }
        pthread_rwlock_unlock(&readers);
    }
    return NULL;
}

static int queue[16], queue_start, queue_length;
static long consumed;

static void *produce_or_consume(void *argument)
{
    int produces = (intptr_t)argument % 2;
    for (int i = 0; i < 3000; i++) {
        pthread_mutex_lock(&mutex);
        while (queue_length == (produces ? 16 : 0))
            pthread_cond_wait(&changed, &mutex);
        if (produces)
            queue[(queue_start + queue_length++) % 16] = i;
        else {
            consumed += queue[queue_start];
            queue_start = (queue_start + 1) % 16;
            queue_length--;
        }
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void *wait_for_semaphore(void *argument)
{
    (void)argument;
    for (int i = 0; i < 1000; i++) {
        sem_wait(&semaphore);
        plain++;
        sem_post(&semaphore);
    }
    return NULL;
}

static void destroy(void *value)
{
    atomic_fetch_add(&destroyed, (int)(intptr_t)value);
}

static void *use_local(void *argument)
{
    local += (intptr_t)argument;
    pthread_setspecific(key, (void *)(intptr_t)1);
    errno = (int)(intptr_t)argument;
    sched_yield();
    if (local != 7 + (intptr_t)argument || errno != (intptr_t)argument)
        abort();
    return NULL;
}

static void *nothing(void *argument)
{
    return argument;
}

static long depth(long n)
{
    volatile char room[100];
    room[n % 100] = (char)n;
    return n ? depth(n - 1) + room[n % 100] * 0 + 1 : 0;
}

static void *recurse(void *argument)
{
    return (void *)depth(20000 + (intptr_t)argument);
}

static atomic_int cleaned;

static void clean(void *argument)
{
    atomic_fetch_add(&cleaned, (int)(intptr_t)argument);
}

static void *block(void *argument)
{
    int ends[2];
    char room;
    if (pipe(ends))
        abort();
    pthread_cleanup_push(clean, (void *)1);
    if (argument)
        read(ends[0], &room, 1);
    for (;;) {
        pthread_testcancel();
        sched_yield();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void *spin_forever(void *argument)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    sem_post(argument);
    for (volatile long i = 0;; i++)
        ;
    return NULL;
}

static void *detached(void *argument)
{
    pthread_detach(pthread_self());
    sem_post(argument);
    return NULL;
}

static void cancellation(void)
{
    int cancelled = 0;
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, NULL, block, (void *)(intptr_t)(i % 2));
        if (i % 3)
            usleep(1000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        cancelled += result == PTHREAD_CANCELED;
    }
    pthread_t thread;
    void *result;
    sem_t ready;
    sem_init(&ready, 0, 0);
    pthread_create(&thread, NULL, spin_forever, &ready);
    sem_wait(&ready);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("cancelled %d cleaned %d asynchronously %d\n", cancelled, atomic_load(&cleaned),
           result == PTHREAD_CANCELED);
}

static void timeouts(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&mutex);
    int condition = pthread_cond_timedwait(&changed, &mutex, &until);
    pthread_mutex_unlock(&mutex);
    sem_t empty;
    sem_init(&empty, 0, 0);
    int result = sem_timedwait(&empty, &until);
    printf("timeouts %d %d\n", condition == ETIMEDOUT, result == -1 && errno == ETIMEDOUT);
}

int main(void)
{
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_spin_init(&spin, 0);
    sem_init(&semaphore, 0, 1);
    run(count, WORKERS);
    printf("counted %ld %d %d %d %ld %ld\n", atomic_load(&word64), atomic_load(&word32),
           atomic_load(&byte), atomic_load(&half), plain, guarded_by_spin);
    plain = 0;
    run(store_and_load, 2);
    printf("stores not seen %ld\n", plain);
    run(read_or_write, WORKERS);
    printf("written %ld %ld\n", first_half, second_half);
    run(produce_or_consume, WORKERS);
    printf("consumed %ld\n", consumed);
    plain = 0;
    run(wait_for_semaphore, WORKERS);
    printf("semaphore %ld\n", plain);
    pthread_key_create(&key, destroy);
    run(use_local, WORKERS);
    printf("local %ld destroyed %d\n", local, atomic_load(&destroyed));
    cancellation();
    timeouts();
    long lives = 0;
    for (int i = 0; i < 2000; i++) {
        pthread_t thread;
        void *result;
        if (pthread_create(&thread, NULL, nothing, (void *)1))
            abort();
        pthread_join(thread, &result);
        lives += (intptr_t)result;
    }
    printf("lives %ld\n", lives);
    sem_t ended;
    sem_init(&ended, 0, 0);
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, detached, &ended))
            abort();
    }
    for (int i = 0; i < 200; i++)
        sem_wait(&ended);
    printf("detached\n");
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16 << 20);
    long total = 0;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], &attributes, recurse, (void *)(intptr_t)i);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        total += (intptr_t)result;
    }
    printf("depth %ld\n", total);
    return 0;
}
