/* Search for patterns in text: the C library's functions and a skip table of our own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 1 << 20, LINE = 512 };
static char text[LENGTH + 1];

static long count_horspool(const char *pattern)
{
    long n = (long)strlen(pattern), skip[256], hits = 0;
    for (int c = 0; c < 256; c++)
        skip[c] = n;
    for (long i = 0; i < n - 1; i++)
        skip[(unsigned char)pattern[i]] = n - 1 - i;
    for (long at = 0; at + n <= LENGTH;) {
        long i = n - 1;
        while (i >= 0 && text[at + i] == pattern[i])
            i--;
        hits += i < 0;
        at += skip[(unsigned char)text[at + n - 1]];
    }
    return hits;
}

static long count_library(const char *pattern)
{
    long hits = 0;
    for (long line = 0; line < LENGTH; line += LINE)
        for (const char *at = text + line; (at = strstr(at, pattern)); at++)
            hits++;
    return hits;
}

int main(int argc, char **argv)
{
    static const char *words[] = {"river", "stone", "rivet", "store", "the ", "and ", "sto"};
    static const char *patterns[] = {"the river", "stone and stone", "storerivet", "rivers", "x"};
    int rounds = argc > 1 ? atoi(argv[1]) : 48;
    unsigned state = 1;
    for (size_t used = 0; used + 8 < LENGTH;) {
        state = state * 1103515245u + 12345;
        const char *word = words[(state >> 16) % 7];
        memcpy(text + used, word, strlen(word));
        used += strlen(word);
    }
    /* Short lines: some libraries' strstr measures the rest of the text first. */
    for (long end = LINE - 1; end < LENGTH; end += LINE)
        text[end] = 0;
    long checksum = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 5; i++) {
            checksum = checksum * 7 + count_horspool(patterns[i]);
            checksum = checksum % 1000000007 + count_library(patterns[i]);
        }
        text[(size_t)round * 1000 % LENGTH] = 'x';
    }
    printf("%ld\n", checksum);
    return 0;
}
