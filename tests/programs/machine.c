/* A small interpreter: programs in an eight-symbol tape language, compiled to threaded records. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct operation {
    enum { ADD, MOVE, PRINT, READ, OPEN, CLOSE, CLEAR, END } kind;
    int value;
};

static struct operation *compile(const char *text)
{
    struct operation *code = calloc(strlen(text) + 1, sizeof *code);
    int open[64], depth = 0, n = 0;
    for (; *text; text++) {
        int step = *text == '+' || *text == '>' ? 1 : -1;
        switch (*text) {
        case '+':
        case '-':
        case '<':
        case '>': {
            int kind = *text == '+' || *text == '-' ? ADD : MOVE;
            if (n == 0 || (int)code[n - 1].kind != kind)
                code[n++].kind = kind;
            code[n - 1].value += step;
            break;
        }
        case '.':
            code[n++].kind = PRINT;
            break;
        case ',':
            code[n++].kind = READ;
            break;
        case '[':
            if (text[1] == '-' && text[2] == ']') {
                code[n++].kind = CLEAR;
                text += 2;
                break;
            }
            open[depth++] = n;
            code[n++].kind = OPEN;
            break;
        case ']':
            code[n].kind = CLOSE;
            code[n].value = open[--depth];
            code[code[n].value].value = n;
            n++;
            break;
        }
    }
    code[n].kind = END;
    return code;
}

static long execute(const char *text, const char *input)
{
    static unsigned char tape[30000];
    memset(tape, 0, sizeof tape);
    unsigned char *cell = tape;
    struct operation *code = compile(text);
    long steps = 0;
    for (struct operation *at = code;; at++, steps++)
        switch (at->kind) {
        case ADD:
            *cell += (unsigned char)at->value;
            break;
        case MOVE:
            cell += at->value;
            break;
        case PRINT:
            putchar(*cell);
            break;
        case READ:
            *cell = (unsigned char)(*input ? *input++ : 0);
            break;
        case OPEN:
            if (!*cell)
                at = code + at->value;
            break;
        case CLOSE:
            if (*cell)
                at = code + at->value;
            break;
        case CLEAR:
            *cell = 0;
            break;
        case END:
            free(code);
            return steps;
        }
}

int main(void)
{
    long steps = execute("++++++++[>++++[>++>+++>+++>+<<<<-]>+>+>->>+[<]<-]>>.>---.+++++++..+++.>>."
                         "<-.<.+++.------.--------.>>+.>++.",
                         "");
    printf("%ld steps\n", steps);
    steps = execute(">,[>,]<[.<]", "reversed by the tape");
    printf(" %ld steps\n", steps);
    /* The alphabet, then three nested loops that wrap around to the digit 0. */
    steps = execute("++++++++[>++++++++<-]>+>++++++++++++++++++++++++++[<.+>-]", "");
    printf(" %ld steps\n", steps);
    steps = execute("----[>----[>+++[>+<-]<-]<-]>>>.", "");
    printf(" %ld steps\n", steps);
    return 0;
}
