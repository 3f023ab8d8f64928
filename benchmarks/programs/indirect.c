/* Calls through tables of functions: indirect jumps with changing targets. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef uint64_t operation(uint64_t a, uint64_t b);

static uint64_t add(uint64_t a, uint64_t b) { return a + b; }
static uint64_t subtract(uint64_t a, uint64_t b) { return a - b; }
static uint64_t multiply(uint64_t a, uint64_t b) { return a * (b | 1); }
static uint64_t mix(uint64_t a, uint64_t b) { return a ^ b >> 7; }
static uint64_t shift(uint64_t a, uint64_t b) { return a << (b & 7) | a >> 61; }
static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t mask(uint64_t a, uint64_t b) { return (a & ~b) + 3; }
static uint64_t swap(uint64_t a, uint64_t b) { return b + (a >> 32); }

static operation *const volatile table[] = {add, subtract, multiply, mix,
                                            shift, larger, mask, swap};

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 125000000;
    uint64_t a = 1, b = 0x9e3779b97f4a7c15u;
    for (long i = 0; i < rounds; i++) {
        a = table[(b >> 60 ^ (uint64_t)i) & 7](a, b);
        b = b * 6364136223846793005u + 1442695040888963407u;
    }
    printf("%016llx\n", (unsigned long long)(a ^ b));
    return 0;
}
