/* Lists in shuffled memory: each load waits for the one before. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct node {
    struct node *next;
    uint64_t key;
    uint64_t padding[2];
};

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 2200;
    enum { COUNT = 1 << 15 };
    static struct node nodes[COUNT];
    static uint32_t order[COUNT];
    uint32_t state = 1;
    for (uint32_t i = 0; i < COUNT; i++)
        order[i] = i;
    for (uint32_t i = COUNT - 1; i > 0; i--) {
        state = state * 1664525u + 1013904223u;
        uint32_t j = (uint32_t)((uint64_t)state * (i + 1) >> 32), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        nodes[order[i]].next = &nodes[order[(i + 1) % COUNT]];
        nodes[order[i]].key = i * 2654435761u;
    }
    uint64_t sum = 0;
    struct node *at = nodes;
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < COUNT; i++) {
            sum += at->key ^ (uint64_t)round;
            if (sum & 1)
                at->key++;
            at = at->next;
        }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
