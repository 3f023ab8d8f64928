/* Arbitrary precision: factorials, Fibonacci numbers and digits of pi. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMBS = 400 };

struct natural {
    int length;
    uint32_t limbs[LIMBS]; /* base 10**9, least significant first */
};

static const uint32_t base = 1000000000;

static void multiply_small(struct natural *n, uint32_t factor)
{
    uint64_t carry = 0;
    for (int i = 0; i < n->length; i++) {
        carry += (uint64_t)n->limbs[i] * factor;
        n->limbs[i] = (uint32_t)(carry % base);
        carry /= base;
    }
    if (carry)
        n->limbs[n->length++] = (uint32_t)carry;
}

static void add(struct natural *sum, const struct natural *a, const struct natural *b)
{
    uint32_t carry = 0;
    int i = 0;
    for (; i < a->length || i < b->length || carry; i++) {
        uint32_t digit = carry;
        digit += i < a->length ? a->limbs[i] : 0;
        digit += i < b->length ? b->limbs[i] : 0;
        carry = digit >= base;
        sum->limbs[i] = carry ? digit - base : digit;
    }
    sum->length = i;
}

static void multiply(struct natural *product, const struct natural *a, const struct natural *b)
{
    memset(product, 0, sizeof *product);
    for (int i = 0; i < a->length; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < b->length || carry; j++) {
            carry += product->limbs[i + j];
            carry += j < b->length ? (uint64_t)a->limbs[i] * b->limbs[j] : 0;
            product->limbs[i + j] = (uint32_t)(carry % base);
            carry /= base;
        }
    }
    product->length = a->length + b->length;
    while (product->length > 1 && product->limbs[product->length - 1] == 0)
        product->length--;
}

static void print(const char *name, const struct natural *n)
{
    printf("%s = %" PRIu32, name, n->limbs[n->length - 1]);
    for (int i = n->length - 2; i >= 0; i--)
        printf("%09" PRIu32, n->limbs[i]);
    putchar('\n');
}

static void pi(int digits)
{
    int length = digits * 10 / 3 + 2, nines = 0, previous = -1;
    uint32_t *a = malloc(sizeof *a * (size_t)length);
    for (int i = 0; i < length; i++)
        a[i] = 2;
    for (int digit = 0; digit < digits; digit++) {
        uint32_t carry = 0;
        for (int i = length - 1; i >= 0; i--) {
            uint32_t x = a[i] * 10 + carry;
            uint32_t divisor = i ? 2 * (uint32_t)i + 1 : 10;
            a[i] = x % divisor;
            carry = x / divisor * (i ? (uint32_t)i : 1);
        }
        if (carry == 9) {
            nines++;
            continue;
        }
        if (previous >= 0)
            printf("%d", previous + (carry == 10));
        for (; nines > 0; nines--)
            putchar(carry == 10 ? '0' : '9');
        previous = carry == 10 ? 0 : (int)carry;
    }
    printf("%d\n", previous);
    free(a);
}

int main(void)
{
    static struct natural n, square, fibonacci[3];
    n.length = 1, n.limbs[0] = 1;
    for (uint32_t i = 2; i <= 300; i++)
        multiply_small(&n, i);
    print("300!", &n);
    multiply(&square, &n, &n);
    print("(300!)^2", &square);
    fibonacci[0].length = fibonacci[1].length = 1;
    fibonacci[1].limbs[0] = 1;
    int i = 1;
    for (; i < 1000; i++)
        add(&fibonacci[(i + 1) % 3], &fibonacci[i % 3], &fibonacci[(i + 2) % 3]);
    print("fib(1000)", &fibonacci[i % 3]);
    pi(300);
    return 0;
}
