/* Loads and stores at every offset, across cache lines and pages, checked against bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static unsigned char *memory;
static int wrong;

static uint64_t bytes_at(size_t at, int nbytes)
{
    uint64_t value = 0;
    for (int i = 0; i < nbytes; i++)
        value |= (uint64_t)memory[at + (size_t)i] << 8 * i;
    return value;
}

/* One instruction on both machines, so that the access itself is not aligned. */
#if defined __riscv
#define LOAD(mnemonic, x86, type, at)                                                              \
    ({                                                                                             \
        type value_;                                                                               \
        __asm__ volatile(mnemonic " %0, (%1)" : "=r"(value_) : "r"(memory + (at)) : "memory");     \
        value_;                                                                                    \
    })
#define STORE(mnemonic, type, at, value)                                                           \
    __asm__ volatile(mnemonic " %0, (%1)" : : "r"(value), "r"(memory + (at)) : "memory")
#else
#define LOAD(mnemonic, x86, type, at)                                                              \
    ({                                                                                             \
        x86 value_;                                                                                \
        memcpy(&value_, memory + (at), sizeof value_);                                             \
        (type) value_;                                                                             \
    })
#define STORE(mnemonic, type, at, value)                                                           \
    ({                                                                                             \
        type value_ = (type)(value);                                                               \
        memcpy(memory + (at), &value_, sizeof value_);                                             \
    })
#endif

static void check(size_t at)
{
    wrong += LOAD("lh", int16_t, int64_t, at) != (int16_t)bytes_at(at, 2);
    wrong += LOAD("lhu", uint16_t, uint64_t, at) != bytes_at(at, 2);
    wrong += LOAD("lw", int32_t, int64_t, at) != (int32_t)bytes_at(at, 4);
    wrong += LOAD("lwu", uint32_t, uint64_t, at) != bytes_at(at, 4);
    wrong += LOAD("ld", uint64_t, uint64_t, at) != bytes_at(at, 8);
    uint64_t value = 0x0123456789abcdefu * (at | 1);
    STORE("sh", uint16_t, at, value);
    wrong += bytes_at(at, 2) != (value & 0xffff);
    STORE("sw", uint32_t, at + 3, value);
    wrong += bytes_at(at + 3, 4) != (value & 0xffffffff);
    STORE("sd", uint64_t, at + 9, value);
    wrong += bytes_at(at + 9, 8) != value;
    double number;
    memcpy(&number, memory + at, 8);
    uint64_t back;
    memcpy(&back, &number, 8);
    wrong += back != bytes_at(at, 8);
}

int main(void)
{
    size_t nbytes = 4 * 4096;
    memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < nbytes; i++)
        memory[i] = (unsigned char)(i * 167 + (i >> 5));
    int checks = 0;
    for (size_t at = 0; at < 130; at++, checks++)
        check(at);
    for (size_t page = 4096; page < nbytes; page += 4096)
        for (size_t at = page - 20; at < page + 4; at++, checks++)
            check(at);
    struct __attribute__((packed)) {
        char tag;
        uint32_t word;
        uint64_t wide;
        double real;
        float small;
    } packed[20];
    for (int i = 0; i < 20; i++) {
        packed[i].tag = (char)i;
        packed[i].word = (uint32_t)i * 0x01010101u;
        packed[i].wide = (uint64_t)i * 0x123456789u;
        packed[i].real = i * 1.25;
        packed[i].small = (float)i / 8;
    }
    uint64_t hash = 5381;
    for (size_t i = 0; i < sizeof packed; i++)
        hash = hash * 33 + ((unsigned char *)packed)[i];
    double sum = 0;
    for (int i = 0; i < 20; i++)
        sum += packed[i].real + (double)packed[i].small + packed[i].word % 7 + packed[i].wide % 5;
    for (size_t i = 0; i < nbytes; i++)
        hash = hash * 33 + memory[i];
    printf("%d places, %d wrong, %016" PRIx64 " %g\n", checks, wrong, hash, sum);
    return wrong != 0;
}
