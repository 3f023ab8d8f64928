/* Pointers with tags in hot loops: loads, stores, pairs, vectors, atomics, a pointer that goes through
   itself, threads, forks, faults. With an argument registers are looked at in handlers, too. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define TURNS 200000
#define APART __attribute__((noinline))

static int exact;
static _Alignas(16) uint64_t words[64];
static char *page;

static void *tagged(const volatile void *pointer, uint64_t tag) {
    return (void *)((uintptr_t)pointer | tag << 56);
}

static void fill(void) {
    for (unsigned i = 0; i < 64; i++) words[i] = i * 0x9E3779B97F4A7C15 >> 8;
}

static uint64_t digest(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < 64; i++) sum = sum * 31 + words[i];
    return sum;
}

/* Plain accesses of all sizes; the compiler chooses addressing modes. */
#define SIZED(type)                                                                    \
    static APART uint64_t type##_loop(volatile type *at, unsigned turns) {             \
        uint64_t sum = 0;                                                              \
        for (unsigned i = 0; i < turns; i++) {                                         \
            sum = sum * 3 + (uint64_t)at[i & 7];                                       \
            at[i + 3 & 7] = (type)sum;                                                 \
            at[2]++;                                                                   \
        }                                                                              \
        return sum;                                                                    \
    }
SIZED(uint8_t)
SIZED(int16_t)
SIZED(uint32_t)
SIZED(uint64_t)

static APART double doubles(volatile double *at, unsigned turns) {
    for (unsigned i = 0; i < turns; i++) at[i & 7] = at[i + 1 & 7] * 0.5 + 1;
    return at[0];
}

static APART void copy(uint64_t *to, const uint64_t *from, unsigned turns) {
    for (unsigned i = 0; i < turns; i++) {
        __asm__ volatile("ldp x9, x10, [%1]\n stp x10, x9, [%0, 16]\n"
                         "ldr q0, [%1, 32]\n str q0, [%0]\n"
                         "ld2 {v1.4s, v2.4s}, [%1]\n st1 {v1.16b, v2.16b}, [%0]\n"
                         "ldp q3, q4, [%0]\n stp d3, d4, [%1, 48]\n"
                         "ld1r {v5.2d}, [%0]\n st1 {v5.b}[3], [%1]\n"
                         "ldp x9, x10, [%0], 16\n stp w9, w10, [%1, 8]!\n"
                         "sub %0, %0, 16\n sub %1, %1, 8\n"
                         : "+r"(to), "+r"(from)::"x9", "x10", "v0", "v1", "v2", "v3", "v4", "v5",
                           "memory");
    }
}

static APART uint64_t atomics(uint64_t *at, unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < turns; i++) {
        sum += __atomic_fetch_add(at, i, __ATOMIC_SEQ_CST);
        sum ^= __atomic_exchange_n(at + 1, sum, __ATOMIC_ACQ_REL);
        uint64_t expected = sum;
        __atomic_compare_exchange_n(at + 1, &expected, i, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        __asm__ volatile(".arch_extension lse\n"
                         "ldadd %0, x9, [%1]\n eor %0, %0, x9\n ldset w9, w10, [%1]\n"
                         "swpb w10, w9, [%1]\n add %0, %0, x9\n ldsmaxal %0, x9, [%1]\n"
                         "ldar x10, [%1]\n stlr x9, [%1]\n mov x11, x10\n cas x9, x10, [%1]\n"
                         "mov x8, x9\n mov x9, x11\n mov x10, %0\n mov x11, x8\n"
                         "casp x8, x9, x10, x11, [%1]\n add %0, %0, x8\n"
                         : "+r"(sum)
                         : "r"(at)
                         : "x8", "x9", "x10", "x11", "memory");
    }
    return sum;
}

/* The base is what is stored, is loaded, or both. */
static APART uint64_t itself(uint64_t **at, unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < turns; i++) {
        __asm__ volatile(".arch_extension lse\n"
                         "mov x9, %1\n str x9, [x9]\n ldr x9, [x9]\n swp x9, x9, [x9]\n"
                         "stp x9, x9, [x9, 8]\n ldur x10, [x9, 8]\n"
                         "ldadd x9, x9, [x9]\n ldr x11, [%1]\n"
                         "eor %0, %0, x9\n add %0, %0, x10\n sub %0, %0, x11, lsr 1\n ror %0, %0, 7\n"
                         : "+r"(sum)
                         : "r"(at)
                         : "x9", "x10", "x11", "memory");
    }
    return sum;
}

static APART uint64_t exclusives(uint64_t *at, unsigned turns) {
    for (unsigned i = 0; i < turns; i++) {
        __asm__ volatile("1: ldxr x9, [%0]\n add x9, x9, x9, lsr 3\n eor x9, x9, 6\n"
                         "stxr w10, x9, [%0]\n cbnz w10, 1b\n"
                         "2: ldaxr x9, [%0]\n add x9, x9, 7\n stlxr w10, x9, [%0]\n cbnz w10, 2b\n"
                         "3: ldxp x9, x10, [%0]\n add x10, x10, x9\n stxp w11, x9, x10, [%0]\n"
                         "cbnz w11, 3b\n" ::"r"(at)
                         : "x9", "x10", "x11", "memory");
    }
    return at[0] ^ at[1];
}

/* The pointer is the index, and its tag is that of the sum. */
static APART uint64_t swapped(uint64_t *at, unsigned turns) {
    uint64_t sum = 0, offset = 0;
    for (unsigned i = 0; i < turns; i++) {
        __asm__ volatile("ldr x9, [%1, %2]\n add %0, %0, x9\n str %0, [%1, %2]\n"
                         : "+r"(sum)
                         : "r"(offset), "r"(at)
                         : "x9", "memory");
        offset = offset + 8 & 63;
    }
    return sum;
}

struct node {
    struct node *next;
    uint64_t value;
};

static APART uint64_t chase(struct node *node, unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < turns; i++) {
        sum = sum * 5 + node->value;
        node->value = sum;
        node = node->next;
    }
    return sum + (uintptr_t)node;
}

/* Where no pointer had one, each has one after half of the turns. */
static APART uint64_t changing(uint64_t *at, unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < turns; i++) {
        if (i >= turns / 2) at = (void *)((uintptr_t)at + (1ULL << 56));
        sum += at[i & 31];
        at[i & 15] = sum;
    }
    return sum ^ (uintptr_t)at >> 56;
}

/* Addresses that are constants, of all sizes. */
static APART uint64_t constants(unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < turns; i++) {
        __asm__ volatile("movz x9, 0x2000\n movk x9, 0x5000, lsl 16\n movk x9, 0x5a00, lsl 48\n"
                         "mov x10, x9\n str %0, [x10]\n ldr x9, [x9]\n add %0, %0, x9\n"
                         "strb w9, [x10, 8]\n ldrh w9, [x10, 7]\n add %0, %0, x9\n"
                         : "+r"(sum)::"x9", "x10", "memory");
        sum += i;
    }
    return sum;
}

static APART void clear(char *at, unsigned turns) {
    for (unsigned i = 0; i < turns; i++)
        __asm__ volatile("dc zva, %0\n dc cvac, %0\n strb %w1, [%0, 5]" ::"r"(at), "r"(i) : "memory");
}

static APART uint64_t work(uint64_t tag, unsigned turns) {
    uint64_t own[64], sum = 0;
    memset(own, 1, sizeof own);
    struct node nodes[4];
    for (unsigned i = 0; i < 4; i++) {
        nodes[i].next = tagged(&nodes[i + 1 & 3], tag + i);
        nodes[i].value = i;
    }
    sum += uint8_t_loop(tagged(own, tag), turns);
    sum += uint32_t_loop(tagged(own, tag), turns);
    sum += uint64_t_loop(tagged(own, tag + 1), turns);
    sum += chase(nodes, turns) - (uintptr_t)nodes - (tag << 56);
    return sum + changing(own, turns);
}

static void *thread(void *argument) {
    return (void *)work((uintptr_t)argument, TURNS);
}

static sigjmp_buf back;
static volatile uintptr_t wanted;
static volatile int mode;

static void handler(int signum, siginfo_t *info, void *opaque) {
    ucontext_t *context = opaque;
    uint32_t instruction = *(uint32_t *)context->uc_mcontext.pc;
    printf("signal %d code %d address %lx at %08x", signum, info->si_code, (long)info->si_addr,
           instruction);
    if (exact)
        printf(" base %llx", (unsigned long long)context->uc_mcontext.regs[instruction >> 5 & 31]);
    printf(" sp %d\n", context->uc_mcontext.sp % 16 == 0 && (char *)context->uc_mcontext.sp <
                           (char *)__builtin_frame_address(0) + 65536);
    fflush(stdout);
    if (mode == 0) siglongjmp(back, 1);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

/* Some turns that go well, then one that does not. */
static APART uint64_t probe(char *good, char *bad, unsigned turns) {
    uint64_t sum = 0;
    for (unsigned i = 0; i <= turns; i++) {
        char *at = i == turns ? bad : good;
        __asm__ volatile("ldr x9, [%1, 24]\n add %0, %0, x9\n str %0, [%1, 16]\n"
                         : "+r"(sum)
                         : "r"(at)
                         : "x9", "memory");
    }
    return sum;
}

static void try(const char *what, char *good, char *bad) {
    printf("%s: ", what);
    fflush(stdout);
    if (!sigsetjmp(back, 1)) printf("sum %llx\n", (unsigned long long)probe(good, bad, TURNS));
}

int main(int count, char **arguments) {
    exact = count > 1;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    page = mmap((void *)0x50000000, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    /* Twice: the first time they meet a tag; then they have met some. */
    for (uint64_t tag = 0; tag < 0x200; tag += 0x9d) {
        uint64_t low = tag & 0xff;
        fill();
        printf("bytes %llx", (unsigned long long)uint8_t_loop(tagged(words, low), TURNS));
        printf(" %llx", (unsigned long long)int16_t_loop(tagged(words, low), TURNS));
        printf(" %llx", (unsigned long long)uint32_t_loop(tagged(words, low), TURNS));
        printf(" %llx", (unsigned long long)uint64_t_loop(tagged(words, low), TURNS));
        printf(" digest %llx\n", (unsigned long long)digest());
        double numbers[8] = {1, 2, 3};
        printf("doubles %.17g\n", doubles(tagged(numbers, low), TURNS));
        copy(tagged(words + 8, low), tagged(words + 32, low ^ 1), TURNS);
        printf("pairs %llx\n", (unsigned long long)digest());
        printf("atomics %llx", (unsigned long long)atomics(tagged(words, low), TURNS));
        printf(" exclusives %llx", (unsigned long long)exclusives(tagged(words + 2, low), TURNS));
        printf(" digest %llx\n", (unsigned long long)digest());
        uint64_t **own = (void *)(page + 64);
        printf("itself %llx\n", (unsigned long long)itself(tagged(own, low), TURNS));
        printf("swapped %llx\n", (unsigned long long)swapped(tagged(words, low), TURNS));
        printf("changing %llx\n", (unsigned long long)changing(words, TURNS));
        printf("constants %llx\n", (unsigned long long)constants(TURNS));
        clear(tagged(page + 4096 + 64, low), TURNS);
        printf("cleared %d\n", page[4096 + 64 + 5]);
    }

    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], NULL, thread, (void *)(i * 3));
    for (unsigned i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        printf("thread %llx\n", (unsigned long long)result);
    }
    fflush(stdout);
    for (uint64_t i = 0; i < 2; i++) {
        if (!fork()) {
            printf("child %llx\n", (unsigned long long)work(i * 77, TURNS));
            fflush(stdout);
            _exit(0);
        }
        wait(NULL);
    }

    mprotect(page, 4096, PROT_NONE);
    char *good = tagged(page + 4096, 0x41), *apart = page + 8192;
    try("no access", good, tagged(page, 0x42));
    try("again", good, tagged(page, 0x43));
    try("none there", good, tagged((char *)0x40000000, 0xff));
    try("wild", good, (char *)0x0004000050001000);
    try("wild and tagged", good, (char *)0x1104000050001000);
    try("negative", good, (char *)-4096);
    try("untagged", apart, page);
    mode = 1;
    try("repaired", good, tagged(page, 0x44));
    try("repaired", good, tagged(page, 0x45));
    return 0;
}
