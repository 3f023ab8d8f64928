/* C11 atomics in one thread: every operation and width, and the values that they return. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#define EXERCISE(type, format)                                                                     \
    static void exercise_##type(void)                                                              \
    {                                                                                              \
        static _Atomic type cell;                                                                  \
        atomic_init(&cell, (type)100);                                                             \
        printf(#type ":");                                                                         \
        printf(" %" format, atomic_fetch_add(&cell, (type)27));                                    \
        printf(" %" format, atomic_fetch_sub_explicit(&cell, (type)200, memory_order_relaxed));    \
        printf(" %" format, atomic_fetch_or_explicit(&cell, (type)0x51, memory_order_acquire));    \
        printf(" %" format, atomic_fetch_and_explicit(&cell, (type)0x7e, memory_order_release));   \
        printf(" %" format, atomic_fetch_xor(&cell, (type)-1));                                    \
        printf(" %" format, atomic_exchange_explicit(&cell, (type)77, memory_order_acq_rel));      \
        type expected = 78;                                                                        \
        printf(" %d", atomic_compare_exchange_strong(&cell, &expected, (type)1));                  \
        printf(" %" format, expected);                                                             \
        printf(" %d", atomic_compare_exchange_strong(&cell, &expected, (type)-3));                 \
        printf(" %" format, atomic_load_explicit(&cell, memory_order_acquire));                    \
        while (!atomic_compare_exchange_weak(&cell, &expected, (type)9))                           \
            continue;                                                                              \
        atomic_store_explicit(&cell, (type)(atomic_load(&cell) * 2), memory_order_release);        \
        printf(" %" format, __atomic_fetch_max(&cell_plain_##type, (type)5, __ATOMIC_SEQ_CST));    \
        printf(" %" format, __atomic_fetch_max(&cell_plain_##type, (type)-5, __ATOMIC_RELAXED));   \
        printf(" %" format, __atomic_fetch_min(&cell_plain_##type, (type)-7, __ATOMIC_SEQ_CST));   \
        printf(" %" format, __atomic_fetch_min(&cell_plain_##type, (type)3, __ATOMIC_ACQUIRE));    \
        printf(" %" format "\n", cell_plain_##type);                                               \
    }

static int8_t cell_plain_int8_t = 1;
static uint8_t cell_plain_uint8_t = 1;
static int16_t cell_plain_int16_t = 1;
static uint16_t cell_plain_uint16_t = 1;
static int32_t cell_plain_int32_t = 1;
static uint32_t cell_plain_uint32_t = 1;
static int64_t cell_plain_int64_t = 1;
static uint64_t cell_plain_uint64_t = 1;

EXERCISE(int8_t, PRId8)
EXERCISE(uint8_t, PRIu8)
EXERCISE(int16_t, PRId16)
EXERCISE(uint16_t, PRIu16)
EXERCISE(int32_t, PRId32)
EXERCISE(uint32_t, PRIu32)
EXERCISE(int64_t, PRId64)
EXERCISE(uint64_t, PRIu64)

int main(void)
{
    exercise_int8_t();
    exercise_uint8_t();
    exercise_int16_t();
    exercise_uint16_t();
    exercise_int32_t();
    exercise_uint32_t();
    exercise_int64_t();
    exercise_uint64_t();
    atomic_flag flag = ATOMIC_FLAG_INIT;
    printf("%d", atomic_flag_test_and_set(&flag));
    printf(" %d", atomic_flag_test_and_set(&flag));
    atomic_flag_clear(&flag);
    printf(" %d\n", atomic_flag_test_and_set(&flag));
    atomic_thread_fence(memory_order_seq_cst);
    static _Atomic(char *) pointer;
    char text[] = "pointer";
    atomic_store(&pointer, text);
    atomic_fetch_add(&pointer, 3);
    printf("%s %d\n", atomic_load(&pointer), atomic_is_lock_free(&pointer));
    _Atomic uint32_t ticket = 0;
    uint64_t sum = 0;
    for (int i = 0; i < 50000; i++)
        sum += atomic_fetch_add(&ticket, 3) ^ (uint32_t)i;
    printf("%" PRIu64 " %" PRIu32 "\n", sum, atomic_load(&ticket));
    return 0;
}
