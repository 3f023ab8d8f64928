/* Bit manipulation, written so that compilers use the bit-manipulation extensions where told to. */
#include <inttypes.h>
#include <stdio.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t draw(void)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t carryless(uint64_t a, uint64_t b, uint64_t *high)
{
#ifdef __riscv_zbc
    uint64_t low;
    __asm__("clmul %0, %1, %2" : "=r"(low) : "r"(a), "r"(b));
    __asm__("clmulh %0, %1, %2" : "=r"(*high) : "r"(a), "r"(b));
    return low;
#else
    uint64_t low = 0;
    *high = 0;
    for (int i = 0; i < 64; i++)
        if (b >> i & 1) {
            low ^= a << i;
            *high ^= i ? a >> (64 - i) : 0;
        }
    return low;
#endif
}

static uint64_t any_byte(uint64_t x)
{
#ifdef __riscv_zbb
    __asm__("orc.b %0, %1" : "=r"(x) : "r"(x));
    return x;
#else
    uint64_t result = 0;
    for (int i = 0; i < 64; i += 8)
        result |= x >> i & 255 ? 255ull << i : 0;
    return result;
#endif
}

int main(void)
{
    uint64_t sums[40] = {0};
    static unsigned short shorts[256];
    static unsigned ints[256];
    static uint64_t longs[256];
    for (int i = 0; i < 256; i++)
        shorts[i] = (unsigned short)draw(), ints[i] = (unsigned)draw(), longs[i] = draw();
    for (int i = 0; i < 4000; i++) {
        uint64_t x = draw() >> (i & 63), y = draw();
        uint32_t w = (uint32_t)x, n = (uint32_t)y & 63, m = n & 31;
        int k = 0;
        sums[k++] += (uint64_t)__builtin_popcountll(x);
        sums[k++] += (uint64_t)__builtin_popcount(w);
        sums[k++] += x ? (uint64_t)__builtin_clzll(x) : 64;
        sums[k++] += w ? (uint64_t)__builtin_clz(w) : 32;
        sums[k++] += x ? (uint64_t)__builtin_ctzll(x) : 64;
        sums[k++] += w ? (uint64_t)__builtin_ctz(w) : 32;
        sums[k++] += (uint64_t)__builtin_ffsll((long long)x);
        sums[k++] ^= x << n | x >> (-n & 63);
        sums[k++] ^= x >> n | x << (-n & 63);
        sums[k++] += (uint64_t)(int64_t)(int32_t)(w << m | w >> (-m & 31));
        sums[k++] += (uint64_t)(int64_t)(int32_t)(w >> m | w << (-m & 31));
        sums[k++] += (uint64_t)(int64_t)(int32_t)(w >> 7 | w << 25);
        sums[k++] ^= x >> 23 | x << 41;
        sums[k++] ^= __builtin_bswap64(x);
        sums[k++] += __builtin_bswap32(w);
        sums[k++] ^= x & ~y;
        sums[k++] ^= x | ~y;
        sums[k++] ^= ~(x ^ y);
        int64_t sx = (int64_t)x, sy = (int64_t)y;
        sums[k++] += (uint64_t)(sx < sy ? sx : sy);
        sums[k++] += (uint64_t)(sx > sy ? sx : sy);
        sums[k++] += x < y ? x : y;
        sums[k++] += x > y ? x : y;
        sums[k++] += (uint64_t)(int64_t)(int8_t)x;
        sums[k++] += (uint64_t)(int64_t)(int16_t)x;
        sums[k++] += (uint16_t)x;
        sums[k++] ^= x | 1ull << n;
        sums[k++] ^= x & ~(1ull << n);
        sums[k++] ^= x ^ 1ull << n;
        sums[k++] += x >> n & 1;
        sums[k++] ^= x | 1ull << 45;
        sums[k++] ^= (x & ~(1ull << 50)) + (x ^ 1ull << 33) + (x >> 40 & 1);
        sums[k++] += shorts[w & 255] + ints[w >> 8 & 255] + longs[w >> 16 & 255];
        sums[k++] += (uint64_t)w * 8 + y;
        sums[k++] += (x << 1) + y, sums[k - 1] ^= (x << 2) + y, sums[k - 1] += (x << 3) + y;
        uint64_t high;
        sums[k++] ^= carryless(x, y, &high);
        sums[k++] ^= high;
        sums[k++] ^= any_byte(x & y & draw());
    }
    for (int i = 0; i < 37; i++)
        printf("%016" PRIx64 "%c", sums[i], i % 4 == 3 ? '\n' : ' ');
    putchar('\n');
    return 0;
}
