/* A table-driven automaton that splits program text into tokens. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPACE, WORD, NUMBER, FRACTION, STRING, ESCAPE, COMMENT, SLASH, SYMBOL, STATES };
enum { BLANK, LINE, LETTER, DIGIT, DOT, QUOTE, BACKSLASH, SOLIDUS, OTHER, CLASSES };

static uint8_t class_of[256], next[STATES][CLASSES];

static void prepare(void)
{
    static const uint8_t fresh[CLASSES] = {SPACE, SPACE, WORD, NUMBER, SYMBOL,
                                           STRING, SYMBOL, SLASH, SYMBOL};
    for (int c = 0; c < 256; c++)
        class_of[c] = isalpha(c) || c == '_' ? LETTER : isdigit(c) ? DIGIT : OTHER;
    class_of[' '] = class_of['\t'] = BLANK;
    class_of['\n'] = LINE;
    class_of['.'] = DOT;
    class_of['"'] = QUOTE;
    class_of['\\'] = BACKSLASH;
    class_of['/'] = SOLIDUS;
    for (int state = 0; state < STATES; state++)
        memcpy(next[state], fresh, CLASSES);
    next[WORD][DIGIT] = WORD;
    next[NUMBER][DOT] = FRACTION;
    next[FRACTION][DIGIT] = FRACTION;
    memset(next[STRING], STRING, CLASSES);
    next[STRING][QUOTE] = SPACE;
    next[STRING][BACKSLASH] = ESCAPE;
    memset(next[ESCAPE], STRING, CLASSES);
    next[SLASH][SOLIDUS] = COMMENT;
    memset(next[COMMENT], COMMENT, CLASSES);
    next[COMMENT][LINE] = SPACE;
}

int main(int argc, char **argv)
{
    static const char sample[] = "int total_1 = 3.25 * (alpha + 42); // the sum\n"
                                 "print(\"a \\\"quoted\\\" word\", x / y, 0.5);\n"
                                 "while (i < 100) { i = i + 1; j = j.k; }\n";
    int rounds = argc > 1 ? atoi(argv[1]) : 500;
    enum { LENGTH = 1 << 20 };
    static char text[LENGTH];
    for (size_t i = 0; i < LENGTH; i++)
        text[i] = sample[(i + i / 5000) % (sizeof sample - 1)];
    prepare();
    uint64_t counts[STATES] = {0}, hash = 0;
    for (int round = 0; round < rounds; round++) {
        unsigned state = SPACE;
        for (size_t i = 0; i < LENGTH; i++) {
            unsigned following = next[state][class_of[(unsigned char)text[i]]];
            if (following != state) {
                counts[following]++;
                hash = hash * 5 + following + i;
            }
            state = following;
        }
    }
    for (int state = 0; state < STATES; state++)
        printf("%llu ", (unsigned long long)counts[state]);
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
