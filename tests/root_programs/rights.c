/* Gives up root's rights, then needs what anyarch loads when it is first needed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    printf("%d ", setresuid(65534, 65534, 65534));
    printf("%d ", (int)getuid());
    printf("%d ", chroot("/"));
    printf("%s\n", strerror(errno));
    volatile double one = 1, three = 3;
    double third = 0;
#if defined __riscv
    /* Rounded to nearest, ties away from zero: no mode of the host's. */
    __asm__("fdiv.d %0, %1, %2, rmm" : "=f"(third) : "f"(one), "f"(three));
#else
    third = one / three;
#endif
    printf("%.17g\n", third);
    return 0;
}
