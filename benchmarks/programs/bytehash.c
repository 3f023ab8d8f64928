/* A hash over the bytes of a buffer, one dependent multiplication a byte. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 850;
    static uint8_t buffer[1 << 20];
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof buffer; i++)
        buffer[i] = (uint8_t)(i * 131 >> 3);
    for (int round = 0; round < rounds; round++)
        for (size_t i = 0; i < sizeof buffer; i++)
            hash = (hash ^ buffer[i]) * 0x100000001b3u;
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
