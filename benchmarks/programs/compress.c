/* Compression in the manner of Lempel and Ziv with a hash table, and decompression. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 1 << 20, HASH_BITS = 15 };
static uint8_t input[LENGTH + 8], packed[LENGTH * 9 / 8 + 64], output[LENGTH + 8];
static int32_t last[1 << HASH_BITS];

static uint32_t word_at(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

/* Groups of eight items behind a byte of flags: a literal, or two bytes distance, one length. */
static size_t pack(void)
{
    uint8_t *out = packed, *flags = NULL;
    int used = 8;
    memset(last, -1, sizeof last);
    for (int at = 0; at < LENGTH;) {
        if (used == 8) {
            flags = out++;
            *flags = 0;
            used = 0;
        }
        uint32_t slot = word_at(input + at) * 2654435761u >> (32 - HASH_BITS);
        int candidate = last[slot], length = 0;
        last[slot] = at;
        if (candidate >= 0 && at - candidate < 65536)
            while (length < 258 && at + length < LENGTH &&
                   input[candidate + length] == input[at + length])
                length++;
        if (length >= 4) {
            *flags |= (uint8_t)(1 << used);
            *out++ = (uint8_t)(at - candidate);
            *out++ = (uint8_t)((at - candidate) >> 8);
            *out++ = (uint8_t)(length - 4);
            at += length;
        } else {
            *out++ = input[at++];
        }
        used++;
    }
    return (size_t)(out - packed);
}

static void unpack(void)
{
    const uint8_t *in = packed;
    for (int at = 0; at < LENGTH;) {
        int flags = *in++;
        for (int k = 0; k < 8 && at < LENGTH; k++, flags >>= 1)
            if (flags & 1) {
                int distance = in[0] | in[1] << 8, length = in[2] + 4;
                in += 3;
                for (; length > 0; length--, at++)
                    output[at] = output[at - distance];
            } else {
                output[at++] = *in++;
            }
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 190;
    uint32_t state = 7;
    for (int i = 0; i < LENGTH; i++) {
        state = state * 1664525u + 1013904223u;
        int back = (int)(state >> 20 & 1023) + 1;
        input[i] = state >> 30 && i >= back ? input[i - back] : (uint8_t)('a' + (state >> 26) % 20);
        if (i % 64 > 20 && i > 300)
            input[i] = input[i - 300];
    }
    size_t total = 0;
    int wrong = 0;
    for (int round = 0; round < rounds; round++) {
        input[(size_t)round * 4001 % LENGTH] ^= 1;
        total += pack();
        unpack();
        wrong += memcmp(input, output, LENGTH) != 0;
    }
    printf("%zu %d\n", total, wrong);
    return 0;
}
