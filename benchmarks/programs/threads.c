/* Threads that work alone: each counts the Collatz steps of its own numbers. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static struct share {
    pthread_t thread;
    uint64_t first, limit, steps;
} shares[THREADS];

static void *work(void *argument)
{
    struct share *share = argument;
    uint64_t steps = 0;
    for (uint64_t first = share->first; first <= share->limit; first += THREADS)
        for (uint64_t n = first; n != 1; steps++)
            n = n & 1 ? 3 * n + 1 : n >> 1;
    share->steps = steps;
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t limit = argc > 1 ? strtoul(argv[1], NULL, 10) : 15000000, steps = 0;
    for (int i = 0; i < THREADS; i++) {
        shares[i].first = 1 + (uint64_t)i;
        shares[i].limit = limit;
        pthread_create(&shares[i].thread, NULL, work, &shares[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(shares[i].thread, NULL);
        steps += shares[i].steps;
    }
    printf("%llu\n", (unsigned long long)steps);
    return 0;
}
