/* Recursive calls: Fibonacci numbers by definition. */
#include <stdio.h>
#include <stdlib.h>

static unsigned long fib(unsigned long n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(int argc, char **argv)
{
    printf("%lu\n", fib(argc > 1 ? strtoul(argv[1], NULL, 10) : 43));
    return 0;
}
