/* CRC-32, Adler-32, FNV-1a, SHA-256 and MurmurHash3's finaliser over generated text. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint32_t crc_table[256];

static void prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc32(const uint8_t *data, size_t length)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < length; i++)
        c = crc_table[(c ^ data[i]) & 255] ^ (c >> 8);
    return ~c;
}

static uint32_t adler32(const uint8_t *data, size_t length)
{
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < length; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static uint64_t fnv(const uint8_t *data, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t finalise(uint64_t k)
{
    k = (k ^ k >> 33) * 0xff51afd7ed558ccdu;
    k = (k ^ k >> 33) * 0xc4ceb9fe1a85ec53u;
    return k ^ k >> 33;
}

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* The constants are fractional parts of roots of primes; integer arithmetic finds them. */
static uint32_t fraction_of_root(uint32_t prime, int degree)
{
    unsigned __int128 target = (unsigned __int128)prime << (degree == 2 ? 64 : 96);
    uint64_t root = 0;
    for (int bit = 36; bit >= 0; bit--) {
        uint64_t trial = root | 1ull << bit;
        unsigned __int128 power = (unsigned __int128)trial * trial;
        if (degree == 3)
            power *= trial;
        if (power <= target)
            root = trial;
    }
    return (uint32_t)root;
}

static void sha256(const uint8_t *data, size_t length, uint8_t out[32])
{
    uint32_t k[64], h[8];
    int found = 0;
    for (uint32_t n = 2; found < 64; n++) {
        int prime = 1;
        for (uint32_t d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        if (found < 8)
            h[found] = fraction_of_root(n, 2);
        k[found++] = fraction_of_root(n, 3);
    }
    size_t total = (length + 9 + 63) / 64 * 64;
    for (size_t start = 0; start < total; start += 64) {
        uint32_t w[64];
        for (int i = 0; i < 64; i++) {
            size_t at = start + (size_t)i;
            uint8_t byte = at < length ? data[at] : at == length ? 0x80 : 0;
            if (at >= total - 8)
                byte = (uint8_t)((uint64_t)length * 8 >> 8 * (total - 1 - at));
            w[i / 4] = i % 4 ? w[i / 4] << 8 | byte : byte;
        }
        for (int i = 16; i < 64; i++) {
            uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
            uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t v[8];
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
            uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
            uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
            uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof v[0]);
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++)
            h[i] += v[i];
    }
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)(h[i / 4] >> (24 - i % 4 * 8));
}

static void digest(const char *label, const void *data, size_t length)
{
    uint8_t out[32];
    sha256(data, length, out);
    printf("%-8s %08" PRIx32 " %08" PRIx32 " %016" PRIx64 " ", label, crc32(data, length),
           adler32(data, length), fnv(data, length));
    for (int i = 0; i < 32; i++)
        printf("%02x", out[i]);
    putchar('\n');
}

int main(void)
{
    prepare();
    digest("empty", "", 0);
    digest("abc", "abc", 3);
    static uint8_t buffer[20000];
    for (size_t i = 0; i < sizeof buffer; i++)
        buffer[i] = (uint8_t)(finalise(i) >> 56);
    digest("random", buffer, sizeof buffer);
    for (size_t length = 54; length < 67; length += 4)
        digest("edges", buffer, length);
    printf("%016" PRIx64 "\n", finalise(0x123456789abcdefu));
    return 0;
}
