/* setjmp and longjmp: error recovery, generators of a kind, deep unwinding. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf recovery;
static int depth_reached;

static int parse_expression(const char **text);

static int parse_atom(const char **text)
{
    if (**text == '(') {
        ++*text;
        int value = parse_expression(text);
        if (**text != ')')
            longjmp(recovery, 2);
        ++*text;
        return value;
    }
    if (**text < '0' || **text > '9')
        longjmp(recovery, 1);
    int value = 0;
    while (**text >= '0' && **text <= '9')
        value = value * 10 + *(*text)++ - '0';
    return value;
}

static int parse_product(const char **text)
{
    int value = parse_atom(text);
    while (**text == '*' || **text == '/') {
        char operation = *(*text)++;
        int right = parse_atom(text);
        if (operation == '/' && right == 0)
            longjmp(recovery, 3);
        value = operation == '*' ? value * right : value / right;
    }
    return value;
}

static int parse_expression(const char **text)
{
    int value = parse_product(text);
    while (**text == '+' || **text == '-')
        value += *(*text)++ == '+' ? parse_product(text) : -parse_product(text);
    return value;
}

static void dive(int depth)
{
    volatile char frame[100];
    frame[depth % 100] = (char)depth;
    depth_reached = depth;
    if (depth == 5000)
        longjmp(recovery, depth);
    dive(depth + 1);
    frame[0]++;
}

int main(void)
{
    static const char *const inputs[] = {"1+2*3", "(4+5)*(6-7)", "8/(3-3)", "(1+2", "7*x", "100/7"};
    for (volatile int i = 0; i < 6; i++) {
        const char *text = inputs[i];
        int error = setjmp(recovery);
        if (error == 0)
            printf("%s = %d\n", inputs[i], parse_expression(&text));
        else
            printf("%s: error %d\n", inputs[i], error);
    }

    int code = setjmp(recovery);
    if (code == 0)
        dive(0);
    printf("unwound from %d with %d\n", depth_reached, code);

    if (setjmp(recovery) == 0)
        longjmp(recovery, 0);
    else
        printf("zero becomes one\n");

    volatile double kept = 1.5;
    volatile int rounds = 0;
    int value = setjmp(recovery);
    kept *= 2;
    if (++rounds < 10)
        longjmp(recovery, value + 1);
    printf("rounds %d kept %g last %d\n", rounds, kept, value);

    sigjmp_buf masked;
    sigset_t block, now;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    if (sigsetjmp(masked, 1) == 0) {
        sigprocmask(SIG_BLOCK, &block, NULL);
        siglongjmp(masked, 1);
    }
    sigprocmask(SIG_BLOCK, NULL, &now);
    printf("mask restored %d\n", !sigismember(&now, SIGUSR1));
    return 0;
}
