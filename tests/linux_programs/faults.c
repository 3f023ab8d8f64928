/* Bad pointers in system calls give EFAULT, whoever serves the call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHECK(call)                                             \
    do {                                                        \
        errno = 0;                                              \
        long result = (long)(call);                             \
        printf("%ld %s: %s\n", result, strerror(errno), #call); \
    } while (0)

int main(void) {
    char *bad = (char *)0x1000;
    CHECK(writev(1, (void *)bad, 2));
    CHECK(open(bad, 0));
    CHECK(open(NULL, 0));
    CHECK(syscall(SYS_fstat, 0, bad));
    CHECK(syscall(SYS_fstat, 0, -8L));
    CHECK(write(1, bad, 3));
    CHECK(syscall(SYS_rt_sigaction, 2, bad, 0, 8));
    CHECK(syscall(SYS_getcwd, bad, 10));
    CHECK(syscall(SYS_uname, bad));
    CHECK(utimensat(AT_FDCWD, NULL, NULL, 0));
    CHECK(syscall(5000));
    return 0;
}
