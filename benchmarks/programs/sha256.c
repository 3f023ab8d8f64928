/* SHA-256 over a buffer, chained: rotations and additions of 32 bits. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t k[64];
static uint32_t h[8];

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void prepare(void)
{
    int found = 0;
    for (uint64_t n = 2; found < 64; n++) {
        int prime = 1;
        for (uint64_t d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        unsigned __int128 square = (unsigned __int128)n << 64, cube = (unsigned __int128)n << 96;
        uint64_t second = 0, third = 0;
        for (int bit = 36; bit >= 0; bit--) {
            unsigned __int128 trial = second | 1ull << bit;
            if (trial * trial <= square)
                second = (uint64_t)trial;
            trial = third | 1ull << bit;
            if (trial * trial * trial <= cube)
                third = (uint64_t)trial;
        }
        if (found < 8)
            h[found] = (uint32_t)second;
        k[found++] = (uint32_t)third;
    }
}

static void block(const uint8_t *data)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
               (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] +
               (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], z = h[7];
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = z + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
                      k[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        z = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e, h[5] += f, h[6] += g, h[7] += z;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 215;
    static uint8_t buffer[1 << 20];
    for (size_t i = 0; i < sizeof buffer; i++)
        buffer[i] = (uint8_t)(i * i >> 5);
    prepare();
    for (int round = 0; round < rounds; round++)
        for (size_t at = 0; at < sizeof buffer; at += 64)
            block(buffer + at);
    for (int i = 0; i < 8; i++)
        printf("%08x", h[i]);
    putchar('\n');
    return 0;
}
