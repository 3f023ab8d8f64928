/* Memory ordering: outcomes that Arm's memory model forbids, looked for in many rounds.
 *
 * Each round has locations of its own. The threads of a test run through all rounds at once, so
 * that they meet by chance; what they saw is judged afterwards. The model: Arm DDI 0487, B2.3.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, LINE = 8, REPEAT = 3 };

struct round {
    uint64_t x[LINE], y[LINE], seen[LINE];
};

struct test {
    const char *name;
    int threads;
    void (*run[THREADS])(struct round *);
    int (*forbidden)(const struct round *);
};

static int count;
static struct round *rounds;
static pthread_barrier_t barrier;

static inline void store(uint64_t *at, uint64_t value)
{
    __asm__ volatile("str %1, [%0]" : : "r"(at), "r"(value) : "memory");
}

static inline uint64_t load(uint64_t *at)
{
    uint64_t value;
    __asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"(at) : "memory");
    return value;
}

static inline void release(uint64_t *at, uint64_t value)
{
    __asm__ volatile("stlr %1, [%0]" : : "r"(at), "r"(value) : "memory");
}

static inline uint64_t acquire(uint64_t *at)
{
    uint64_t value;
    __asm__ volatile("ldar %0, [%1]" : "=r"(value) : "r"(at) : "memory");
    return value;
}

#define DMB(kind) __asm__ volatile("dmb " #kind : : : "memory")

/* Message passing: who sees the flag sees the data. */
static void mp_release(struct round *r) { store(r->x, 1); release(r->y, 1); }
static void mp_acquire(struct round *r) { r->seen[0] = acquire(r->y); r->seen[1] = load(r->x); }
static void mp_stores(struct round *r) { store(r->x, 1); DMB(ishst); store(r->y, 1); }
static void mp_loads(struct round *r) { r->seen[0] = load(r->y); DMB(ishld); r->seen[1] = load(r->x); }
static int mp_forbidden(const struct round *r) { return r->seen[0] == 1 && r->seen[1] == 0; }

/* Store buffering: one of two sees the other's store. */
static void sb_first(struct round *r) { store(r->x, 1); DMB(ish); r->seen[0] = load(r->y); }
static void sb_second(struct round *r) { store(r->y, 1); DMB(ish); r->seen[1] = load(r->x); }
static void sb_release_first(struct round *r) { release(r->x, 1); r->seen[0] = acquire(r->y); }
static void sb_release_second(struct round *r) { release(r->y, 1); r->seen[1] = acquire(r->x); }
static int sb_forbidden(const struct round *r) { return r->seen[0] == 0 && r->seen[1] == 0; }

/* The same with exchanges: acquiring and releasing ones order as ldar and stlr do. */
static inline uint64_t swap(uint64_t *at, uint64_t value)
{
    uint64_t old;
    __asm__ volatile(".arch_extension lse\n\tswpal %2, %0, [%1]"
                     : "=&r"(old) : "r"(at), "r"(value) : "memory");
    return old;
}

static inline uint64_t exclusive(uint64_t *at, uint64_t value)
{
    uint64_t old;
    uint32_t failed;
    do
        __asm__ volatile("ldaxr %0, [%2]\n\tstlxr %w1, %3, [%2]"
                         : "=&r"(old), "=&r"(failed) : "r"(at), "r"(value) : "memory");
    while (failed);
    return old;
}

static void sb_swap_first(struct round *r) { swap(r->x, 1); r->seen[0] = acquire(r->y); }
static void sb_swap_second(struct round *r) { exclusive(r->y, 1); r->seen[1] = acquire(r->x); }
static void sb_mixed_first(struct round *r) { release(r->x, 1); r->seen[0] = exclusive(r->y, 2) & 1; }
static void sb_mixed_second(struct round *r) { release(r->y, 1); r->seen[1] = swap(r->x, 2) & 1; }

/* Load buffering: no value comes from the future. */
static void lb_first(struct round *r) { r->seen[0] = load(r->x); release(r->y, 1); }
static void lb_second(struct round *r) { r->seen[1] = acquire(r->y); store(r->x, 1); }
static int lb_forbidden(const struct round *r) { return r->seen[0] == 1 && r->seen[1] == 1; }

/* Independent reads of independent writes: all see the two stores in one order. */
static void iriw_x(struct round *r) { release(r->x, 1); }
static void iriw_y(struct round *r) { release(r->y, 1); }
static void iriw_first(struct round *r) { r->seen[0] = acquire(r->x); r->seen[1] = acquire(r->y); }
static void iriw_second(struct round *r) { r->seen[2] = acquire(r->y); r->seen[3] = acquire(r->x); }
static void iriw_dmb_first(struct round *r) { r->seen[0] = load(r->x); DMB(ish); r->seen[1] = load(r->y); }
static void iriw_dmb_second(struct round *r) { r->seen[2] = load(r->y); DMB(ish); r->seen[3] = load(r->x); }
static int iriw_forbidden(const struct round *r)
{
    return r->seen[0] == 1 && r->seen[1] == 0 && r->seen[2] == 1 && r->seen[3] == 0;
}

/* Coherence: a location's value never goes back. */
static void co_write(struct round *r) { store(r->x, 1); store(r->x, 2); }
static void co_read(struct round *r) { r->seen[0] = load(r->x); r->seen[1] = load(r->x); }
static int co_forbidden(const struct round *r) { return r->seen[0] > r->seen[1]; }

static const struct test tests[] = {
    {"MP stlr ldar", 2, {mp_release, mp_acquire}, mp_forbidden},
    {"MP dmb", 2, {mp_stores, mp_loads}, mp_forbidden},
    {"SB dmb", 2, {sb_first, sb_second}, sb_forbidden},
    {"SB stlr ldar", 2, {sb_release_first, sb_release_second}, sb_forbidden},
    {"SB swpal ldaxr stlxr", 2, {sb_swap_first, sb_swap_second}, sb_forbidden},
    {"SB stlr and exchanges", 2, {sb_mixed_first, sb_mixed_second}, sb_forbidden},
    {"LB stlr ldar", 2, {lb_first, lb_second}, lb_forbidden},
    {"IRIW ldar", 4, {iriw_x, iriw_y, iriw_first, iriw_second}, iriw_forbidden},
    {"IRIW dmb", 4, {iriw_x, iriw_y, iriw_dmb_first, iriw_dmb_second}, iriw_forbidden},
    {"CoRR", 2, {co_write, co_read}, co_forbidden},
};

static void *run(void *argument)
{
    void (*body)(struct round *) = *(void (**)(struct round *))argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < count; i++)
        body(&rounds[i]);
    return NULL;
}

static void run_all(void *(*start)(void *), const void *const *arguments, int threads)
{
    pthread_t ids[THREADS];
    pthread_barrier_init(&barrier, NULL, threads);
    for (int i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, start, (void *)arguments[i]);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&barrier);
}

/* A counter, two words and a set of bits, changed by threads that each use other instructions. */
static struct { uint64_t low, high, counter, bits; } shared __attribute__((aligned(16)));

static void add_exclusive(uint64_t *at)
{
    uint64_t value;
    uint32_t failed;
    do
        __asm__ volatile("ldxr %0, [%2]\n\tadd %0, %0, 1\n\tstxr %w1, %0, [%2]"
                         : "=&r"(value), "=&r"(failed) : "r"(at) : "memory");
    while (failed);
}

static void add_lse(uint64_t *at)
{
    __asm__ volatile(".arch_extension lse\n\tstadd %1, [%0]" : : "r"(at), "r"(1ul) : "memory");
}

static void add_cas(uint64_t *at)
{
    uint64_t seen = load(at), expected;
    do {
        expected = seen;
        __asm__ volatile(".arch_extension lse\n\tcas %0, %2, [%1]"
                         : "+r"(seen) : "r"(at), "r"(expected + 1) : "memory");
    } while (seen != expected);
}

static void add_pair_exclusive(void)
{
    uint64_t low, high;
    uint32_t failed;
    do
        __asm__ volatile("ldxp %0, %1, [%3]\n\tadd %0, %0, 1\n\tsub %1, %1, 1\n\t"
                         "stxp %w2, %0, %1, [%3]"
                         : "=&r"(low), "=&r"(high), "=&r"(failed) : "r"(&shared.low) : "memory");
    while (failed);
}

static void add_pair_cas(void)
{
    uint64_t low = load(&shared.low), high = load(&shared.high), was_low, was_high;
    do {
        was_low = low, was_high = high;
        register uint64_t r0 __asm__("x0") = low, r1 __asm__("x1") = high;
        register uint64_t r2 __asm__("x2") = low + 1, r3 __asm__("x3") = high - 1;
        __asm__ volatile(".arch_extension lse\n\tcasp x0, x1, x2, x3, [%4]"
                         : "+r"(r0), "+r"(r1) : "r"(r2), "r"(r3), "r"(&shared.low) : "memory");
        low = r0, high = r1;
    } while (low != was_low || high != was_high);
}

static void *change(void *argument)
{
    int number = (int)(intptr_t)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < count; i++) {
        (number == 0 ? add_exclusive : number == 1 ? add_lse : add_cas)(&shared.counter);
        (number & 1 ? add_pair_exclusive : add_pair_cas)();
        if (i % 2 == 0)
            __asm__ volatile(".arch_extension lse\n\tsteor %1, [%0]"
                             : : "r"(&shared.bits), "r"(1ul << number) : "memory");
    }
    return NULL;
}

int main(int argc, char **argv)
{
    count = argc > 1 ? atoi(argv[1]) : 20000;
    rounds = malloc(count * sizeof *rounds);
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
        int found = 0;
        const void *bodies[THREADS];
        for (int k = 0; k < THREADS; k++)
            bodies[k] = &tests[i].run[k];
        for (int repeat = 0; repeat < REPEAT; repeat++) {
            memset(rounds, 0, count * sizeof *rounds);
            run_all(run, bodies, tests[i].threads);
            for (int k = 0; k < count; k++)
                found += tests[i].forbidden(&rounds[k]);
        }
        printf("%s: %d forbidden\n", tests[i].name, found);
    }
    const void *numbers[THREADS] = {(void *)0, (void *)1, (void *)2, (void *)3};
    run_all(change, numbers, THREADS);
    printf("counter %s, pair %s, bits %lx\n", shared.counter == 4ul * count ? "right" : "wrong",
           shared.low == 4ul * count && shared.high == -4ul * count ? "right" : "wrong",
           shared.bits);
    return 0;
}
