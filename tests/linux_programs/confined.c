/* A program that gives up its files, by limits, chroot and pivot_root: what the emulator needs, it has. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf point;

static void caught(int number)
{
    (void)number;
    siglongjmp(point, 1);
}

static int faults(volatile char *where)
{
    if (sigsetjmp(point, 1))
        return 1;
    *where = 1;
    return 0;
}

static void *same(void *argument)
{
    return argument;
}

static void confined(void)
{
    printf("faults %d %d\n", faults((char *)8), faults((char *)(uintptr_t)0x8123456789abcdef));
    pthread_t thread;
    void *result = NULL;
    printf("thread %d", pthread_create(&thread, NULL, same, &thread));
    pthread_join(thread, &result);
    printf(" %d\n", result == &thread);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        abort();
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WTERMSIG(status));
    errno = 0;
    printf("open %d", open("/nothing", O_RDONLY));
    printf(" %s\n", strerror(errno));
    fflush(stdout);
    _exit(4);
}

static void run(void (*prepare)(void))
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        prepare();
        confined();
    }
    int status;
    waitpid(child, &status, 0);
    printf("status %x\n", status);
}

static void close_files(void)
{
    struct rlimit limit = {0, 0};
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void enter(void)
{
    int allowed = mkdir("jail", 0755) == 0 && chroot("jail") == 0 && chdir("/") == 0;
    if (allowed || errno == EPERM)
        puts("entered");
}

/* Into a namespace with another root, and back. */
static void pivot(void)
{
    int before = open("/proc/self/ns/mnt", O_RDONLY), kept = open("/", O_RDONLY);
    int allowed = unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if (allowed) {
        allowed = mount("jail", "jail", NULL, MS_BIND, NULL) == 0 && chdir("jail") == 0 &&
                  syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 &&
                  access("/proc", F_OK) == -1;
        allowed = allowed && setns(before, 0) == 0 && access("/proc", F_OK) == 0 &&
                  setns(before, CLONE_NEWNS) == 0 && fchdir(kept) == 0 && chroot(".") == 0;
    }
    if (allowed || errno == EPERM)
        puts("pivoted");
}

int main(void)
{
    signal(SIGSEGV, caught);
    run(close_files);
    run(enter);
    run(pivot);
    return rmdir("jail");
}
