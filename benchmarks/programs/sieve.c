/* The sieve of Eratosthenes over bytes: strided stores. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 110;
    enum { LIMIT = 4000000 };
    static unsigned char composite[LIMIT + 1];
    long sum = 0;
    for (int round = 0; round < rounds; round++) {
        memset(composite, 0, sizeof composite);
        for (long i = 2; i * i <= LIMIT; i++)
            if (!composite[i])
                for (long j = i * i; j <= LIMIT; j += i)
                    composite[j] = 1;
        for (long i = 2; i <= LIMIT; i++)
            sum += composite[i] ? 0 : i ^ round;
    }
    printf("%ld\n", sum);
    return 0;
}
