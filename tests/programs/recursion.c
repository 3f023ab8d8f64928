/* Recursion: Ackermann's function, queens, Hanoi, permutations, mutual recursion, deep stacks. */
#include <stdio.h>
#include <string.h>

static unsigned ackermann(unsigned m, unsigned n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static int queens(unsigned columns, unsigned left, unsigned right, unsigned all)
{
    if (columns == all)
        return 1;
    int solutions = 0;
    for (unsigned free = all & ~(columns | left | right); free;) {
        unsigned bit = free & -free;
        free ^= bit;
        solutions += queens(columns | bit, (left | bit) << 1, (right | bit) >> 1, all);
    }
    return solutions;
}

static int moves;

static void hanoi(int n, int from, int to, int spare)
{
    if (n == 0)
        return;
    hanoi(n - 1, from, spare, to);
    moves += from * 3 + to;
    hanoi(n - 1, spare, to, from);
}

static void permute(char *text, int at, int *count)
{
    if (!text[at]) {
        if (++*count % 97 == 0)
            printf("%s ", text);
        return;
    }
    for (int i = at; text[i]; i++) {
        char swap = text[at];
        text[at] = text[i], text[i] = swap;
        permute(text, at + 1, count);
        swap = text[at];
        text[at] = text[i], text[i] = swap;
    }
}

static int odd(unsigned n);

static int even(unsigned n)
{
    return n == 0 ? 1 : odd(n - 1);
}

static int odd(unsigned n)
{
    return n == 0 ? 0 : even(n - 1);
}

static long sum_down(volatile int *n)
{
    if (*n == 0)
        return 0;
    volatile int next = *n - 1;
    return *n + sum_down(&next);
}

static double many(int n, double a, double b, double c, long d, long e, long f, long g, long h,
                   long i, long j)
{
    if (n == 0)
        return a + b * 2 + c * 3 + (double)(d + e * 2 + f * 3 + g * 4 + h * 5 + i * 6 + j * 7);
    return many(n - 1, b, c, a, e, f, g, h, i, j, d);
}

int main(void)
{
    printf("%u %u\n", ackermann(2, 9), ackermann(3, 6));
    for (int n = 1; n <= 8; n++)
        printf("%d ", queens(0, 0, 0, (1u << n) - 1));
    hanoi(14, 0, 2, 1);
    printf("\n%d\n", moves);
    char letters[] = "abcdef";
    int count = 0;
    permute(letters, 0, &count);
    printf("%d\n", count);
    printf("%d %d\n", even(1001), odd(777));
    volatile int depth = 20000;
    printf("%ld\n", sum_down(&depth));
    printf("%g\n", many(5, 1.5, 2.5, 3.5, 1, 2, 3, 4, 5, 6, 7));
    return 0;
}
