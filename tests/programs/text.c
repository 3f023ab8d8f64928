/* Strings, character classes, formatted output and input. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <locale.h>

static void classes(void)
{
    static int (*const tests[])(int) = {isalnum, isalpha, isblank, iscntrl, isdigit, isgraph,
                                        islower, isprint, ispunct, isspace, isupper, isxdigit};
    for (unsigned t = 0; t < sizeof tests / sizeof tests[0]; t++) {
        int count = 0, sum = 0;
        for (int c = 0; c < 256; c++)
            if (tests[t](c))
                count++, sum += c;
        printf("class %u: %d %d\n", t, count, sum);
    }
    char line[] = "The Quick, Brown Fox.";
    for (char *p = line; *p; p++)
        *p = (char)(isupper(*p) ? tolower(*p) : toupper(*p));
    puts(line);
}

static void strings(void)
{
    char buffer[256];
    for (int length = 0; length < 40; length++)
        for (int offset = 0; offset < 9; offset++) {
            memset(buffer, 'a', sizeof buffer);
            buffer[offset + length] = 0;
            if (strlen(buffer + offset) != (size_t)length)
                printf("strlen wrong at %d, %d\n", length, offset);
            memmove(buffer + offset + 3, buffer + offset, (size_t)length + 1);
            if (strlen(buffer + offset + 3) != (size_t)length)
                printf("memmove wrong at %d, %d\n", length, offset);
        }
    strcpy(buffer, "one;two,;three four");
    char *state;
    for (char *word = strtok_r(buffer, ";, ", &state); word; word = strtok_r(NULL, ";, ", &state))
        printf("<%s>", word);
    putchar('\n');
    const char *text = "mississippi river";
    printf("%d %d %d %d\n", (int)(strchr(text, 's') - text), (int)(strrchr(text, 's') - text),
           (int)(strstr(text, "ssip") - text), strstr(text, "xyz") == NULL);
    printf("%zu %zu %s\n", strspn(text, "mis"), strcspn(text, "pr"), strpbrk(text, "vr"));
    printf("%d %d %d\n", strcmp("abc", "abd") < 0, strncmp("abcx", "abcy", 3),
           strcasecmp("HeLLo", "hEllO"));
    printf("%d %d\n", memcmp("\x80", "\x7f", 1) > 0, (int)((char *)memchr(text, 'v', 17) - text));
    char *copy = strdup(text);
    strncat(copy + 5, "", 1);
    printf("%s %s\n", copy, strerror(ENOENT));
    free(copy);
}

static void formats(void)
{
    printf("[%5d|%-5d|%05d|%+d|% d|%x|%#X|%#o]\n", 42, 42, 42, 42, 42, 0xbeef, 0xbeef, 8);
    printf("[%hhd|%hu|%ld|%lld|%zu|%jd]\n", (signed char)-1, (unsigned short)65535, -5L,
           1LL << 62, sizeof(long), (long)-9);
    printf("[%10s|%-10s|%.3s|%*.*s|%c|%%]\n", "right", "left", "truncate", 8, 2, "star", 'Z');
    printf("[%8.3f|%-10.2e|%g|%g|%G|%#.0f|%+.1f]\n", 3.14159, 12345.678, 1e-5, 1e6, 1e-10, 2.0,
           -0.05);
    printf("[%2$s %1$s]\n", "world", "hello");
    int written;
    printf("counted%n", &written);
    printf(" %d\n", written);
    char small[8];
    int wanted = snprintf(small, sizeof small, "%d-%s", 12345, "overflow");
    printf("%s %d\n", small, wanted);
}

static void parsing(void)
{
    int a, b;
    char word[16];
    double d;
    int n = sscanf("17 0x1f hello 2.5e3", "%d %i %15s %lf", &a, &b, word, &d);
    printf("%d: %d %d %s %g\n", n, a, b, word, d);
    n = sscanf("k=[a-b] 99", "k=[%15[a-z-]] %*d", word);
    printf("%d: %s\n", n, word);
    char *end;
    printf("%ld ", strtol("  -0x7fz", &end, 0));
    printf("%s ", end);
    printf("%lu %ld %lld\n", strtoul("z", NULL, 36), strtol("0755", NULL, 8), atoll("-123456789012"));
    errno = 0;
    long big = strtol("99999999999999999999", NULL, 10);
    printf("%ld %d\n", big, errno == ERANGE);
}

static void wide(void)
{
    setlocale(LC_ALL, "C.UTF-8");
    wchar_t letters[16];
    size_t n = mbstowcs(letters, "na\xc3\xafve \xe2\x82\xac", 16);
    printf("%zu %x %x\n", n, (unsigned)letters[2], (unsigned)letters[6]);
    char back[32];
    printf("%zu %s\n", wcstombs(back, letters, sizeof back), back);
}

int main(void)
{
    classes();
    strings();
    formats();
    parsing();
    wide();
    return 0;
}
