/* The first program to run: says hello, and which machine it was built for. */
#include <stdio.h>

int main(void)
{
    printf("Hello from a program that was built for another processor.\n");
    return 0;
}
