/* Threads that contend: tickets from one counter, a largest value, a lock now and then. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t tickets;
static _Atomic uint64_t next_ticket, largest, total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t batches;

static void *work(void *unused)
{
    for (uint64_t ticket; (ticket = atomic_fetch_add(&next_ticket, 1)) < tickets;) {
        uint64_t value = ticket * 0x9e3779b97f4a7c15u >> 20, seen = atomic_load(&largest);
        while (value > seen && !atomic_compare_exchange_weak(&largest, &seen, value))
            continue;
        atomic_fetch_add_explicit(&total, value, memory_order_relaxed);
        if (ticket % 256 == 0) {
            pthread_mutex_lock(&lock);
            batches += value & 7;
            pthread_mutex_unlock(&lock);
        }
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    tickets = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000000;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%llu %016llx %llu\n", (unsigned long long)largest, (unsigned long long)total,
           (unsigned long long)batches);
    return 0;
}
