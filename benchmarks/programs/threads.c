/* Threads that work alone: each counts the primes of its own numbers. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static struct share {
    pthread_t thread;
    uint64_t first, limit, primes;
} shares[THREADS];

static void *work(void *argument)
{
    struct share *share = argument;
    for (uint64_t n = share->first; n < share->limit; n += 2 * THREADS) {
        int prime = 1;
        for (uint64_t d = 3; d * d <= n; d += 2)
            if (n % d == 0) {
                prime = 0;
                break;
            }
        share->primes += (uint64_t)prime;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    uint64_t limit = argc > 1 ? strtoul(argv[1], NULL, 10) : 12000000, primes = 1;
    for (int i = 0; i < THREADS; i++) {
        shares[i].first = 3 + 2 * (uint64_t)i;
        shares[i].limit = limit;
        pthread_create(&shares[i].thread, NULL, work, &shares[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(shares[i].thread, NULL);
        primes += shares[i].primes;
    }
    printf("%llu\n", (unsigned long long)primes);
    return 0;
}
