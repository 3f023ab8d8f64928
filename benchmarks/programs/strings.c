/* Strings: lines are formatted, split to words, counted in a hash table, sorted and joined. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 14, LINES = 4000 };

struct word {
    char *text;
    long count;
};

static struct word words[SLOTS];

static struct word *find(const char *text)
{
    uint32_t hash = 2166136261u;
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    struct word *word = &words[hash % SLOTS];
    while (word->text && strcmp(word->text, text) != 0)
        word = word == words + SLOTS - 1 ? words : word + 1;
    return word;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct word *)a)->text, ((const struct word *)b)->text);
}

static void count_words(char *line)
{
    for (char *c = line; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    char *rest = line;
    for (char *text; (text = strsep(&rest, " ,.;"));) {
        if (!*text)
            continue;
        struct word *word = find(text);
        if (!word->text)
            word->text = strdup(text);
        word->count++;
    }
}

int main(int argc, char **argv)
{
    static const char *stems[] = {"Winter", "summer", "Over", "under", "light", "Stone", "after"};
    static const char *endings[] = {"", "s", "ing", "ness", "ward"};
    int rounds = argc > 1 ? atoi(argv[1]) : 70;
    uint32_t state = 11;
    uint64_t hash = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < LINES; i++) {
            char line[128];
            state = state * 1664525u + 1013904223u;
            snprintf(line, sizeof line, "%s%s, %s%u %s%s; line %d.", stems[state >> 29 & 3],
                     endings[(state >> 20) % 5], stems[state >> 24 & 3], state >> 12 & 1023,
                     stems[(state >> 16) % 7], endings[(state >> 8) % 5], i);
            count_words(line);
        }
        size_t found = 0, length = 0;
        for (size_t slot = 0; slot < SLOTS; slot++)
            if (words[slot].text)
                words[found++] = words[slot];
        qsort(words, found, sizeof *words, compare);
        for (size_t i = 0; i < found; i++)
            length += strlen(words[i].text) + 1;
        char *joined = malloc(length + 1), *end = joined;
        for (size_t i = 0; i < found; i++) {
            hash = hash * 31 + (uint64_t)words[i].count;
            end = stpcpy(stpcpy(end, words[i].text), i % 8 == 7 ? "\n" : " ");
            free(words[i].text);
        }
        for (const char *line = joined; (line = strchr(line, '\n')); line++)
            hash = hash * 7 + (uint64_t)(line - joined);
        hash += strstr(joined, "winterward") ? 1 : 0;
        free(joined);
        memset(words, 0, sizeof words);
    }
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
