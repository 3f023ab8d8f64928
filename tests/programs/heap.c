/* The allocator under load: random sizes, growth, contents checked on every release. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 500 };

static struct {
    unsigned char *data;
    size_t size;
    unsigned char fill;
} slots[SLOTS];

static uint64_t state = 88172645463325252u;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int intact(int i)
{
    for (size_t k = 0; k < slots[i].size; k += k < 64 ? 1 : 61)
        if (slots[i].data[k] != slots[i].fill)
            return 0;
    return 1;
}

static size_t random_size(void)
{
    switch (draw() % 16) {
    case 0:
        return draw() % 300000;
    case 1:
    case 2:
        return draw() % 10000;
    default:
        return draw() % 200;
    }
}

int main(void)
{
    uint64_t bytes = 0;
    int broken = 0, resized = 0, misaligned = 0;
    for (int round = 0; round < 12000; round++) {
        int i = (int)(draw() % SLOTS);
        if (slots[i].data == NULL) {
            slots[i].size = random_size();
            slots[i].data = malloc(slots[i].size + 1);
        } else if (draw() % 3 == 0) {
            broken += !intact(i);
            slots[i].size = random_size();
            slots[i].data = realloc(slots[i].data, slots[i].size + 1);
            resized++;
        } else {
            broken += !intact(i);
            free(slots[i].data);
            slots[i].data = NULL;
            continue;
        }
        misaligned += (uintptr_t)slots[i].data % 16 != 0;
        slots[i].fill = (unsigned char)draw();
        memset(slots[i].data, slots[i].fill, slots[i].size);
        bytes += slots[i].size;
    }
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].data) {
            broken += !intact(i);
            free(slots[i].data);
        }
    printf("bytes %" PRIu64 " resized %d broken %d misaligned %d\n", bytes, resized, broken,
           misaligned);

    int *zeros = calloc(100000, sizeof *zeros);
    long sum = 0;
    for (int i = 0; i < 100000; i++)
        sum += zeros[i];
    free(zeros);
    void *aligned = NULL;
    int result = posix_memalign(&aligned, 4096, 100);
    printf("zeros %ld aligned %d %d\n", sum, result, (uintptr_t)aligned % 4096 == 0);
    free(aligned);
    volatile size_t huge = SIZE_MAX / 2;
    printf("too much %d %d\n", malloc(huge) == NULL, errno == ENOMEM);

    char *map = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(map, 7, 1 << 20);
    char *grown = mremap(map, 1 << 20, 4 << 20, MREMAP_MAYMOVE);
    printf("grown %d %d %d\n", grown != MAP_FAILED, grown[(1 << 20) - 1], grown[(4 << 20) - 1]);
    madvise(grown, 4096, MADV_DONTNEED);
    printf("dropped %d\n", grown[0]);
    munmap(grown, 4 << 20);

    struct node {
        struct node *next;
        int value;
    } *list = NULL;
    for (int i = 0; i < 20000; i++) {
        struct node *node = malloc(sizeof *node);
        *node = (struct node){list, i};
        list = node;
    }
    long weighted = 0;
    for (int i = 0; list; i++) {
        weighted += (long)list->value * i % 1001;
        struct node *next = list->next;
        free(list);
        list = next;
    }
    printf("list %ld\n", weighted);
    return 0;
}
