/* An interpreter with a switch: a stack machine that runs Collatz sequences. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { PUSH, LOAD, STORE, ADD, MULTIPLY, HALVE, ODD, LESS, JUMP, BRANCH, HALT };

static const int program[] = {
    /*  0 */ PUSH, 1, STORE, 0, PUSH, 0, STORE, 2,
    /*  8 */ LOAD, 0, STORE, 1,
    /* 12 */ LOAD, 1, PUSH, 2, LESS, BRANCH, 43,
    /* 19 */ LOAD, 1, ODD, BRANCH, 31,
    /* 24 */ LOAD, 1, HALVE, STORE, 1, JUMP, 51,
    /* 31 */ LOAD, 1, PUSH, 3, MULTIPLY, PUSH, 1, ADD,
    /* 39 */ STORE, 1, JUMP, 51,
    /* 43 */ LOAD, 0, LOAD, 3, LESS, BRANCH, 60,
    /* 50 */ HALT,
    /* 51 */ LOAD, 2, PUSH, 1, ADD, STORE, 2, JUMP, 12,
    /* 60 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 8};

int main(int argc, char **argv)
{
    int64_t stack[16], variables[4] = {0}, steps = 0;
    variables[3] = argc > 1 ? atoi(argv[1]) : 320000;
    int64_t *top = stack;
    for (const int *at = program;; steps++)
        switch (*at++) {
        case PUSH:
            *top++ = *at++;
            break;
        case LOAD:
            *top++ = variables[*at++];
            break;
        case STORE:
            variables[*at++] = *--top;
            break;
        case ADD:
            top--;
            top[-1] += top[0];
            break;
        case MULTIPLY:
            top--;
            top[-1] *= top[0];
            break;
        case HALVE:
            top[-1] >>= 1;
            break;
        case ODD:
            top[-1] &= 1;
            break;
        case LESS:
            top--;
            top[-1] = top[-1] < top[0];
            break;
        case JUMP:
            at = program + *at;
            break;
        case BRANCH:
            at = *--top ? program + *at : at + 1;
            break;
        case HALT:
            printf("%lld %lld\n", (long long)variables[2], (long long)steps);
            return 0;
        }
}
