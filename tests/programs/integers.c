/* Integer arithmetic at its edges: overflow, division, shifts, widening multiplication. */
#include <inttypes.h>
#include <stdio.h>

static const int64_t values[] = {
    0, 1, -1, 2, -2, 3, -3, 7, -7, 10, 255, -256, 32767, -32768, 65535, 0x7fffffff, -0x80000000ll,
    0x80000000ll, 0xffffffffll, 0x123456789abcdefll, INT64_MAX, INT64_MIN, INT64_MIN + 1,
};
enum { COUNT = sizeof values / sizeof values[0] };

static uint64_t digest = 0xcbf29ce484222325u;

static void mix(uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        digest = (digest ^ (value & 255)) * 0x100000001b3u;
        value >>= 8;
    }
}

static void report(const char *name)
{
    printf("%-12s %016" PRIx64 "\n", name, digest);
    digest = 0xcbf29ce484222325u;
}

static void pairs_64(void)
{
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++) {
            volatile int64_t a = values[i], b = values[j];
            uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
            mix(ua + ub), mix(ua - ub), mix(ua * ub);
            mix(ua & ub), mix(ua | ub), mix(ua ^ ub);
            mix(a < b), mix(ua < ub), mix(a == b);
            if (b != 0) {
                mix(ua / ub), mix(ua % ub);
                if (!(a == INT64_MIN && b == -1))
                    mix((uint64_t)(a / b)), mix((uint64_t)(a % b));
            }
            mix((uint64_t)(((__int128)a * b) >> 64));
            mix((uint64_t)(((unsigned __int128)ua * ub) >> 64));
            mix((uint64_t)(((__int128)a * (__int128)ub) >> 64));
        }
    report("pairs 64");
}

static void pairs_32(void)
{
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++) {
            volatile int32_t a = (int32_t)values[i], b = (int32_t)values[j];
            uint32_t ua = (uint32_t)a, ub = (uint32_t)b;
            mix(ua + ub), mix(ua - ub), mix(ua * ub), mix((uint64_t)((int64_t)a * b));
            mix((uint64_t)(int64_t)(int32_t)(ua + ub));
            if (b != 0) {
                mix(ua / ub), mix(ua % ub);
                if (!(a == INT32_MIN && b == -1))
                    mix((uint64_t)(a / b)), mix((uint64_t)(a % b));
            }
        }
    report("pairs 32");
}

static void shifts(void)
{
    for (int i = 0; i < COUNT; i++)
        for (volatile int n = 0; n < 64; n++) {
            int64_t a = values[i];
            mix((uint64_t)a << n), mix((uint64_t)a >> n), mix((uint64_t)(a >> n));
            int32_t w = (int32_t)a;
            mix((uint32_t)w << (n & 31)), mix((uint32_t)w >> (n & 31));
            mix((uint64_t)(int64_t)(w >> (n & 31)));
        }
    report("shifts");
}

static void narrow(void)
{
    for (int i = 0; i < COUNT; i++) {
        volatile int64_t a = values[i];
        mix((uint64_t)(int8_t)a), mix((uint8_t)a), mix((uint64_t)(int16_t)a), mix((uint16_t)a);
        mix((uint64_t)(int32_t)a), mix((uint32_t)a);
    }
    report("narrow");
}

static void wide_division(void)
{
    volatile uint64_t high = 0x0123456789abcdefu, low = 0xfedcba9876543210u;
    unsigned __int128 a = ((unsigned __int128)high << 64) | low;
    for (int i = 1; i < COUNT; i++) {
        unsigned __int128 b = (unsigned __int128)(uint64_t)values[i] * 0x10001u + 1;
        unsigned __int128 q = a / b, r = a % b;
        mix((uint64_t)q), mix((uint64_t)(q >> 64)), mix((uint64_t)r), mix((uint64_t)(r >> 64));
        __int128 s = -(__int128)(a >> 1) / (values[i] == 0 ? 1 : values[i]);
        mix((uint64_t)s), mix((uint64_t)(s >> 64));
    }
    report("wide");
}

static void overflow(void)
{
    int overflowed = 0;
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++) {
            volatile int64_t a = values[i], b = values[j];
            int64_t r;
            overflowed += __builtin_add_overflow(a, b, &r);
            overflowed += __builtin_sub_overflow(a, b, &r) * 1000;
            overflowed += __builtin_mul_overflow(a, b, &r) * 1000000;
        }
    printf("overflows    %d\n", overflowed);
}

int main(void)
{
    pairs_64();
    pairs_32();
    shifts();
    narrow();
    wide_division();
    overflow();
    printf("%" PRId64 " %" PRIu64 " %d %u %" PRIx64 " %o\n", INT64_MIN, UINT64_MAX, INT32_MIN,
           UINT32_MAX, UINT64_MAX / 3, 0777);
    return 0;
}
