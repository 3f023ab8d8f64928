/* Code that is written while it runs, announced line by line: the C library's cache flush. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 16
#define WORDS (PAGES * 1024)

typedef long (*function)(long);
static uint32_t *code;

/* add x0, x0, #n; ret */
static void write_function(int at, int n) {
    code[at] = 0x91000000 | n << 10;
    code[at + 1] = 0xd65f03c0;
}

static void flush(int at, int words) {
    __builtin___clear_cache((char *)(code + at), (char *)(code + at + words));
}

static long call(int at, long n) { return ((function)(uintptr_t)(code + at))(n); }

static void *wait_for_change(void *at) {
    long calls = 0;
    while (call((int)(intptr_t)at, 0) != 2000) calls++;
    return (void *)(calls >= 0 ? 1L : 0L);
}

int main(void) {
    code = mmap(0, WORDS * 4, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    /* Neighbours on a page, one of which changes all the time. */
    for (int i = 0; i < 512; i++) write_function(2 * i, i);
    flush(0, 1024);
    for (int turn = 0; turn < 3000; turn++) {
        int which = turn * 7 % 512;
        write_function(2 * which, 4095 - turn % 1000);
        flush(2 * which, 2);
        sum = sum * 3 + call(2 * which, turn) + call(2 * ((which + 1) % 512), turn);
    }
    printf("neighbours %016lx\n", sum);
    /* A loop that runs long is replaced by another: mov w1, #n; sub; cbnz; add; ret. */
    sum = 0;
    for (int turn = 0; turn < 20; turn++) {
        uint32_t loop[] = {0x52800001 | 20000 << 5, 0x91000000 | (turn + 1) << 10, 0x71000421,
                           0x35ffffc1, 0xd65f03c0};
        memcpy(code + 2048, loop, sizeof loop);
        flush(2048, 5);
        sum += call(2048, 0);
    }
    printf("loops %ld\n", sum);
    /* Over the end of a page, and over many. */
    for (int at = 4096 - 1; at < 4096 + 64; at += 2) write_function(at, at & 1023);
    flush(4096 - 1, 65);
    sum = 0;
    for (int turn = 1; turn < 5; turn++) {
        for (int at = 4096 - 1; at < 4096 + 64; at += 2) sum = sum * 5 + call(at, turn);
        for (int at = 4096 - 1; at < 4096 + 64; at += 2) write_function(at, (at * turn) & 1023);
        flush(4096 - 1, 65);
    }
    printf("across %016lx\n", sum);
    /* A thread that only calls sees what another has written. */
    write_function(8192, 1);
    flush(8192, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_change, (void *)8192L);
    for (int n = 1; n <= 2000; n++) {
        code[8192] = 0x91000000 | n << 10;
        flush(8192, 1);
    }
    void *seen;
    pthread_join(thread, &seen);
    printf("thread %ld\n", (long)(intptr_t)seen);
    return 0;
}
