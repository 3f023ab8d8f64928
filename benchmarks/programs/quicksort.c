/* Quicksort of integers: unpredictable branches. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void sort(int32_t *a, long n)
{
    while (n > 16) {
        int32_t x = a[0], y = a[n / 2], z = a[n - 1];
        int32_t pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        long i = -1, j = n;
        for (;;) {
            while (a[++i] < pivot)
                continue;
            while (a[--j] > pivot)
                continue;
            if (i >= j)
                break;
            int32_t swap = a[i];
            a[i] = a[j];
            a[j] = swap;
        }
        sort(a, j + 1);
        a += j + 1;
        n -= j + 1;
    }
    for (long i = 1; i < n; i++) {
        int32_t key = a[i];
        long j = i;
        for (; j > 0 && a[j - 1] > key; j--)
            a[j] = a[j - 1];
        a[j] = key;
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    enum { COUNT = 1000000 };
    static int32_t a[COUNT];
    uint32_t state = 2463534242u;
    uint64_t checksum = 0;
    for (int round = 0; round < rounds; round++) {
        for (long i = 0; i < COUNT; i++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            a[i] = (int32_t)state;
        }
        sort(a, COUNT);
        for (long i = 0; i < COUNT; i++)
            checksum = checksum * 31 + (uint32_t)a[i];
    }
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}
