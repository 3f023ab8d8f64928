/* The first program to run: one line of text. */
#include <stdio.h>

int main(void)
{
    printf("Hello from a program that was built for another processor.\n");
    return 0;
}
