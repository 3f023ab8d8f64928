/* Long arrays, larger than caches: copies, sums and gathering from far-off places. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 1 << 22 };

static uint64_t a[COUNT], b[COUNT], c[COUNT];

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 40;
    for (uint64_t i = 0; i < COUNT; i++) {
        a[i] = i * 0x9e3779b97f4a7c15u;
        b[i] = i ^ i << 7;
    }
    uint64_t sum = 0;
    for (int round = 0; round < rounds; round++) {
        for (long i = 0; i < COUNT; i++)
            c[i] = a[i] + 3 * b[i];
        for (long i = 0; i < COUNT; i++)
            sum += c[i] ^ (uint64_t)round;
        for (long i = 0; i < COUNT; i++)
            b[i] = c[i] >> 1;
        uint32_t place = (uint32_t)round;
        for (long i = 0; i < COUNT / 4; i++) {
            place = place * 1664525u + 1013904223u;
            sum += a[place % COUNT];
        }
    }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
