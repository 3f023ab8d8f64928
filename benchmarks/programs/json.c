/* JSON: text is parsed to a tree, the tree is walked and written as text again. */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 1 << 20, VALUES = 1 << 18 };
enum kind { NOTHING, TRUTH, NUMBER, STRING, ARRAY, OBJECT };

struct value {
    enum kind kind;
    double number;
    char *text, *key;
    struct value *first, *next;
};

static char source[LENGTH + 256], copy[LENGTH + 256], written[2 * LENGTH];
static struct value values[VALUES];
static size_t used;
static char *at, *out;

static void fail(const char *what)
{
    printf("expected %s at %td\n", what, at - copy);
    exit(1);
}

static void skip_space(void)
{
    while (isspace((unsigned char)*at))
        at++;
}

static void expect(char c)
{
    skip_space();
    if (*at++ != c)
        fail((char[]){c, 0});
}

/* Escapes only make a string shorter, so it is rewritten where it stands. */
static char *parse_string(void)
{
    expect('"');
    char *start = at, *end = at;
    for (; *at != '"'; at++) {
        if (*at == '\\') {
            at++;
            *end++ = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at;
        } else {
            *end++ = *at;
        }
    }
    at++;
    *end = 0;
    return start;
}

static double parse_number(void)
{
    double sign = 1, number = 0, place = 1;
    if (*at == '-') {
        sign = -1;
        at++;
    }
    if (!isdigit((unsigned char)*at))
        fail("a digit");
    for (; isdigit((unsigned char)*at); at++)
        number = number * 10 + (*at - '0');
    if (*at == '.')
        for (at++; isdigit((unsigned char)*at); at++)
            number += (*at - '0') * (place /= 10);
    return sign * number;
}

static struct value *parse(void)
{
    if (used == VALUES)
        fail("fewer values");
    struct value *value = &values[used++];
    *value = (struct value){0};
    skip_space();
    if (*at == '{' || *at == '[') {
        int object = *at++ == '{';
        char close = object ? '}' : ']';
        value->kind = object ? OBJECT : ARRAY;
        struct value **tail = &value->first;
        for (skip_space(); *at != close; skip_space()) {
            if (value->first)
                expect(',');
            char *key = object ? parse_string() : NULL;
            if (object)
                expect(':');
            *tail = parse();
            (*tail)->key = key;
            tail = &(*tail)->next;
        }
        at++;
    } else if (*at == '"') {
        value->kind = STRING;
        value->text = parse_string();
    } else if (!strncmp(at, "null", 4)) {
        at += 4;
    } else if (!strncmp(at, "true", 4) || !strncmp(at, "false", 5)) {
        value->kind = TRUTH;
        value->number = *at == 't';
        at += *at == 't' ? 4 : 5;
    } else {
        value->kind = NUMBER;
        value->number = parse_number();
    }
    return value;
}

static void write_text(const char *text)
{
    *out++ = '"';
    for (; *text; text++) {
        if (*text == '"' || *text == '\\' || *text == '\n' || *text == '\t')
            *out++ = '\\';
        *out++ = *text == '\n' ? 'n' : *text == '\t' ? 't' : *text;
    }
    *out++ = '"';
}

static void write_integer(long number)
{
    char digits[24], *digit = digits + sizeof digits;
    unsigned long rest = number < 0 ? -(unsigned long)number : (unsigned long)number;
    do
        *--digit = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--digit = '-';
    size_t n = (size_t)(digits + sizeof digits - digit);
    memcpy(out, digit, n);
    out += n;
}

/* Numbers become thousandths; returns the sum of all. */
static double write_value(const struct value *value)
{
    double sum = 0;
    switch (value->kind) {
    case NOTHING:
        memcpy(out, "null", 4);
        out += 4;
        break;
    case TRUTH:
        *out++ = value->number != 0 ? '1' : '0';
        break;
    case NUMBER:
        sum = value->number;
        write_integer((long)(value->number * 1000));
        break;
    case STRING:
        write_text(value->text);
        break;
    default:
        *out++ = value->kind == OBJECT ? '{' : '[';
        for (const struct value *item = value->first; item; item = item->next) {
            if (item != value->first)
                *out++ = ',';
            if (item->key) {
                write_text(item->key);
                *out++ = ':';
            }
            sum += write_value(item);
        }
        *out++ = value->kind == OBJECT ? '}' : ']';
    }
    return sum;
}

static size_t generate(void)
{
    static const char *names[] = {"Ada", "Blaise \\\"P\\\"", "Emmy", "Kurt\\n", "Alan", "Gra\\tce"};
    uint32_t state = 3;
    size_t length = (size_t)sprintf(source, "{\"people\": [");
    for (int i = 0; length < LENGTH - 1; i++) {
        state = state * 1664525u + 1013904223u;
        length += (size_t)sprintf(
            source + length,
            "%s\n  {\"id\": %d, \"name\": \"%s\", \"score\": %d.%03u, \"tags\": [\"t%u\", \"x%u\", %s],"
            " \"place\": {\"x\": -%u, \"y\": %u}}",
            i ? "," : "", i, names[(state >> 16) % 6], (int)(state >> 20) - 2048, state >> 8 & 511,
            state >> 28, state >> 24 & 15, state & 1 << 18 ? "true" : "null", state >> 18 & 255,
            state >> 10 & 1023);
        if (length > LENGTH - 200)
            break;
    }
    return length + (size_t)sprintf(source + length, "\n]}");
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 340;
    size_t length = generate();
    uint64_t hash = 0;
    double sum = 0;
    for (int round = 0; round < rounds; round++) {
        memcpy(copy, source, length + 1);
        used = 0;
        at = copy;
        out = written;
        sum += write_value(parse());
        hash = hash * 31 + (uint64_t)(out - written) + (unsigned char)written[round * 997 % LENGTH];
    }
    printf("%zu %.3f %016llx\n", used, sum, (unsigned long long)hash);
    return 0;
}
