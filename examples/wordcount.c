/* A text tool: the most frequent words of standard input. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct word {
    char *text;
    int count;
};

static int by_count(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    return x->count != y->count ? y->count - x->count : strcmp(x->text, y->text);
}

int main(void)
{
    static struct word words[4096];
    int distinct = 0, total = 0, lines = 0, c, length = 0;
    char word[64];
    do {
        c = getchar();
        lines += c == '\n';
        if (c != EOF && isalpha(c)) {
            if (length < (int)sizeof word - 1)
                word[length++] = (char)tolower(c);
            continue;
        }
        if (length == 0)
            continue;
        word[length] = 0;
        length = 0;
        total++;
        int i = 0;
        while (i < distinct && strcmp(words[i].text, word) != 0)
            i++;
        if (i == (int)(sizeof words / sizeof words[0]))
            continue;
        if (i == distinct)
            words[distinct++] = (struct word){strdup(word), 0};
        words[i].count++;
    } while (c != EOF);
    qsort(words, (size_t)distinct, sizeof words[0], by_count);
    printf("%d lines, %d words, %d distinct\n", lines, total, distinct);
    for (int i = 0; i < distinct && i < 8; i++)
        printf("%6d %s\n", words[i].count, words[i].text);
    return 0;
}
