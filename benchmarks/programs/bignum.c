/* Products of long numbers: 64 by 64 to 128 bits with carries. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMBS = 256 };

static void multiply(uint64_t *product, const uint64_t *a, const uint64_t *b)
{
    memset(product, 0, sizeof *product * 2 * LIMBS);
    for (int i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < LIMBS; j++) {
            unsigned __int128 t = (unsigned __int128)a[i] * b[j] + product[i + j] + carry;
            product[i + j] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
        product[i + LIMBS] = carry;
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 16000;
    static uint64_t a[LIMBS], b[LIMBS], product[2 * LIMBS];
    for (int i = 0; i < LIMBS; i++) {
        a[i] = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1);
        b[i] = 0xbf58476d1ce4e5b9u * (uint64_t)(i + 7);
    }
    uint64_t checksum = 0;
    for (int round = 0; round < rounds; round++) {
        multiply(product, a, b);
        memcpy(a, product + LIMBS / 2, sizeof a);
        a[0] |= 1;
        a[LIMBS - 1] |= 1ull << 63;
        checksum = checksum * 3 + product[round % (2 * LIMBS)];
    }
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}
