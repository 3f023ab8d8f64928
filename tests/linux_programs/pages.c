/* What is asked about pages that are missing, locked, or were never a file's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAY(what) (errno = 0, printf("%s: %d", #what, (int)(what)), printf(" %s\n", strerror(errno)))
enum { PAGE = 4096 };

static int guarded(char *pages) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) _exit(pages[0]);
    int status;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static int touched(char *page) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) _exit(*page = 5);
    int status;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void growing(void) {
    char *room = mmap(NULL, 1024 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(room, 1024 * PAGE);
    char *top = mmap(room + 1000 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    printf("grows %d %d", touched(top - PAGE), touched(top - 500 * PAGE));
    top[-1] = 1;
    top[-20 * PAGE] = 2;
    mmap(room + 600 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf(" %d %d above %d\n", touched(room + 700 * PAGE), touched(room + 900 * PAGE), touched(top + PAGE));
    printf("kept %d %d\n", top[-1], top[-20 * PAGE]);
}

static void populating(void) {
    for (int prot = PROT_READ; prot <= (PROT_READ | PROT_WRITE); prot += PROT_WRITE)
        for (int flags = 0; flags <= MAP_POPULATE; flags += MAP_POPULATE) {
            unsigned char there[4];
            char *pages = mmap(NULL, 4 * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
            mincore(pages, 4 * PAGE, there);
            printf("populated %d %d %d %d\n", there[0] & 1, there[1] & 1, there[2] & 1, there[3] & 1);
            munmap(pages, 4 * PAGE);
        }
}

int main(void) {
    growing();
    populating();
    char *pages = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 2 * PAGE, PAGE);
    SAY(mlock(pages, 2 * PAGE));
    SAY(msync(pages, PAGE, MS_INVALIDATE));
    SAY(munlock(pages + 1, 2 * PAGE - 1));
    SAY(mlock(pages, 4 * PAGE));
    SAY(munlock(pages, 4 * PAGE));
    SAY(munlock(pages + 3 * PAGE, 5 * PAGE));
    SAY(msync(pages, 4 * PAGE, MS_ASYNC));
    SAY(msync(pages + 1, PAGE, MS_ASYNC));
    SAY(msync(pages, 4 * PAGE, MS_ASYNC | MS_SYNC));
    SAY(msync(pages + 2 * PAGE, PAGE, 64));
    SAY(madvise(pages, PAGE, 102));
    if (errno) printf("no guards\n");
    else printf("guard %d", guarded(pages)), printf(" %d\n", madvise(pages, PAGE, 103));
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 77, 0) != MAP_FAILED);
    SAY(mmap(NULL, 0, PROT_READ, MAP_SHARED, 77, 0) != MAP_FAILED);
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    ftruncate(fd, PAGE);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 9, fd, 0) != MAP_FAILED);
    SAY(mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | MAP_POPULATE, fd, 0) != MAP_FAILED);
    int shared = open("shared", O_RDWR | O_CREAT, 0600);
    ftruncate(shared, 4 * PAGE);
    char *view = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    for (int i = 0; i < 4; i++) view[i * PAGE] = 'a' + i;
    SAY(remap_file_pages(view, 2 * PAGE, 0, 2, 0));
    printf("%c%c%c%c\n", view[0], view[PAGE], view[2 * PAGE], view[3 * PAGE]);
    SAY(remap_file_pages(pages, PAGE, 0, 0, 0));
    SAY(remap_file_pages(pages + 2 * PAGE, PAGE, 0, 0, 0));
    char *locked = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    FILE *smaps = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long first, last, found = 0, kilobytes = 0;
    while (fgets(line, sizeof line, smaps)) {
        if (sscanf(line, "%lx-%lx ", &first, &last) == 2) found = first <= (uintptr_t)locked && (uintptr_t)locked < last;
        else if (found) sscanf(line, "Locked: %lu", &kilobytes);
    }
    printf("locked %lu\n", kilobytes);
    SAY(mlockall(0));
    SAY(mlockall(MCL_ONFAULT));
    SAY(mlockall(8));
    SAY(mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
    SAY(munlockall());
    struct iovec here = {pages + 3 * PAGE, 16}, there = {(void *)-1, 16};
    SAY(process_vm_readv(getpid(), &here, 1, &there, 1, 0));
    SAY(process_vm_readv(getpid(), &there, 1, &here, 1, 0));
    SAY(readv(fd, &there, 1));
    /* A child is without what it was not to have; what is there since then it has. */
    SAY(madvise(pages, PAGE, MADV_DONTFORK));
    SAY(madvise(pages + PAGE, PAGE, MADV_DONTFORK));
    SAY(mmap(pages + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    fflush(stdout);
    int status;
    if (fork() == 0) {
        unsigned char residence[1];
        _exit((mincore(pages, PAGE, residence) == -1 && errno == ENOMEM) | mincore(pages + PAGE, PAGE, residence) << 1);
    }
    wait(&status);
    printf("child %d\n", WEXITSTATUS(status));
    SAY(madvise(pages, PAGE, MADV_DOFORK));
    SAY(madvise(pages + 1, PAGE, MADV_DONTFORK));
    SAY(syscall(SYS_membarrier, 0, 1, 0));
    SAY(syscall(SYS_membarrier, 1, 0, 0));
    return 0;
}
