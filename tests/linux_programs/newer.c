/* Calls that C libraries have no functions for, and old ones with newer forms. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define SAY(what) (errno = 0, printf("%s: %ld", #what, (long)(what)), printf(" %s\n", strerror(errno)))

struct how { uint64_t flags, mode, resolve, more; };

static long open_how(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct how how = {flags, mode, resolve, 0};
    long fd = syscall(437, dirfd, path, &how, 24);
    if (fd >= 0) close(fd);
    return fd < 0 ? -1 : 0;
}

static void opening(void) {
    mkdir("folder", 0700);
    symlink("/etc", "folder/out");
    symlink("inside", "folder/in");
    int folder = open("folder", O_PATH | O_DIRECTORY);
    SAY(open_how(folder, "inside", O_CREAT | O_RDWR, 0600, 0));
    SAY(open_how(folder, "in", O_RDONLY, 0, 8));            /* RESOLVE_BENEATH */
    SAY(open_how(folder, "out/passwd", O_RDONLY, 0, 8));
    SAY(open_how(folder, "/inside", O_RDONLY, 0, 16));      /* RESOLVE_IN_ROOT */
    SAY(open_how(folder, "../folder/inside", O_RDONLY, 0, 16));
    SAY(open_how(folder, "in", O_RDONLY, 0, 4));            /* RESOLVE_NO_SYMLINKS */
    SAY(open_how(AT_FDCWD, "folder/inside", O_RDONLY, 0, 0));
    SAY(open_how(AT_FDCWD, "folder/inside", O_RDONLY, 0600, 0));
    SAY(open_how(AT_FDCWD, "folder/inside", 1ull << 40, 0, 0));
    SAY(open_how(77, "inside", O_RDONLY, 0, 0));
    SAY(open_how(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, 0));
    SAY(open_how(AT_FDCWD, "/proc/self/exe", O_RDONLY, 0, 2)); /* RESOLVE_NO_MAGICLINKS */
    struct how how = {O_RDONLY, 0, 0, 1};
    SAY(syscall(437, folder, "inside", &how, 32));
    SAY(syscall(437, folder, "inside", &how, 8));
    SAY(syscall(437, folder, "inside", NULL, 24));
    int fd = open("folder/inside", O_RDWR);
    SAY(fcntl(fd, 1027, fd));   /* F_DUPFD_QUERY */
    SAY(fcntl(fd, 1027, folder));
    SAY(fcntl(fd, 1028, 0));    /* F_CREATED_QUERY */
    int blocks = 0;
    SAY(ioctl(fd, 2, &blocks)); /* FIGETBSZ */
    printf("blocks %d\n", blocks > 0);
    SAY(ioctl(fd, 0x40049409, 77)); /* FICLONE */
    SAY(ioctl(fd, 0x4C02, &blocks)); /* LOOP_SET_STATUS */
}

static void attributes(void) {
    struct { uint64_t value; uint32_t size, flags; } set = {(uint64_t) "blue", 4, 0}, get = {0, 16, 0};
    char value[16] = "", list[64] = "";
    get.value = (uint64_t)value;
    SAY(syscall(463, AT_FDCWD, "folder", 0, "user.colour", &set, sizeof set));
    SAY(syscall(464, AT_FDCWD, "folder", 0, "user.colour", &get, sizeof get));
    printf("%s\n", value);
    SAY(syscall(464, AT_FDCWD, "folder", 0, "user.colour", &get, 8));
    SAY(syscall(465, AT_FDCWD, "folder", 0, list, sizeof list) > 0);
    SAY(syscall(466, AT_FDCWD, "folder", 0, "user.colour"));
    SAY(syscall(464, AT_FDCWD, "folder", 0, "user.colour", &get, sizeof get));
}

static uint32_t words[2] = {1, 2};

static void waiting(void) {
    struct { uint64_t value, address; uint32_t flags, reserved; } both[2] = {
        {1, (uint64_t)&words[0], 2 | 128, 0}, {2, (uint64_t)&words[1], 2 | 128, 0}};
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    SAY(syscall(449, both, 2, 0, &now, CLOCK_MONOTONIC));
    words[1] = 3;
    SAY(syscall(449, both, 2, 0, &now, CLOCK_MONOTONIC));
    SAY(syscall(449, both, 0, 0, NULL, 0));
    SAY(syscall(449, both, 129, 0, NULL, 0));
    SAY(syscall(449, NULL, 1, 0, NULL, 0));
    both[0].address = 1;
    SAY(syscall(449, both, 1, 0, NULL, 0));
    SAY(syscall(454, words, 0xFFFFFFFFul, 1, 2 | 128));          /* futex_wake */
    SAY(syscall(455, words, 7ul, 0xFFFFFFFFul, 2 | 128, NULL, 0)); /* futex_wait */
}

static int executed(int dirfd, const char *path, char **argv, int flags) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        char *none[] = {NULL};
        syscall(SYS_execveat, dirfd, path, argv, none, flags);
        _exit(errno);
    }
    int status;
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static void executing(const char *own) {
    char path[PATH_MAX], *none[] = {NULL}, *argv[] = {"program", "say", NULL};
    realpath(own, path);
    symlink(path, "link");
    int fd = open(path, O_RDONLY), folder = open("folder", O_RDONLY);
    printf("no arguments %d\n", executed(AT_FDCWD, path, none, 0));
    printf("by descriptor %d\n", executed(fd, "", argv, AT_EMPTY_PATH));
    printf("missing %d\n", executed(fd, "", argv, 0) == ENOENT);
    printf("bad descriptor %d %d\n", executed(77, "", argv, AT_EMPTY_PATH) == EBADF,
           executed(77, "x", argv, 0) == EBADF);
    printf("no folder %d\n", executed(fd, "x", argv, 0) == ENOTDIR);
    printf("flags %d\n", executed(AT_FDCWD, path, argv, -1) == EINVAL);
    printf("link %d %d\n", executed(AT_FDCWD, "link", argv, AT_SYMLINK_NOFOLLOW) == ELOOP,
           executed(AT_FDCWD, "link", argv, 0));
    printf("in a folder %d\n", executed(folder, "../link", argv, 0));
    int copy = open("copy", O_WRONLY | O_CREAT, 0700);
    char buffer[65536];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) write(copy, buffer, n);
    printf("busy %d\n", executed(AT_FDCWD, "copy", argv, 0) == ETXTBSY);
    close(copy);
    printf("free %d\n", executed(AT_FDCWD, "copy", argv, 0));
    int closed = open("copy", O_RDONLY | O_CLOEXEC), memory = memfd_create("program", MFD_CLOEXEC);
    printf("closed by it %d\n", executed(closed, "", argv, AT_EMPTY_PATH));
    sendfile(memory, closed, &(off_t){0}, 1 << 30);
    unlink("copy");
    printf("deleted %d\n", executed(closed, "", argv, AT_EMPTY_PATH));
    printf("in memory %d\n", executed(memory, "", argv, AT_EMPTY_PATH));
    int script = open("script", O_RDWR | O_CREAT, 0700);
    dprintf(script, "#!%s\n", path);
    close(script);
    int scripts[] = {open("script", O_RDONLY), open("script", O_RDONLY | O_CLOEXEC)};
    printf("script %d %d\n", executed(scripts[0], "", argv, AT_EMPTY_PATH),
           executed(scripts[1], "", argv, AT_EMPTY_PATH) == ENOENT);
}

static void queues(void) {
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 8};
    mqd_t queue = mq_open("/newer", O_CREAT | O_RDWR, 0600, &attr);
    mq_unlink("/newer");
    char cookie[32] = "";
    struct { uint64_t value; int signal, notify; char pad[48]; } event = {(uint64_t)cookie, 77, 2, ""};
    SAY(syscall(SYS_mq_notify, queue, &event)); /* SIGEV_THREAD, and no socket */
    event.value = 1;
    SAY(syscall(SYS_mq_notify, queue, &event));
    event.notify = 1, event.signal = SIGUSR1;
    SAY(syscall(SYS_mq_notify, queue, &event));
    SAY(syscall(SYS_mq_notify, queue, NULL));
}

static void keys(void) {
    char text[64] = "";
    long ring = syscall(SYS_keyctl, 1, NULL);           /* a session of our own */
    printf("session %d\n", ring > 0);
    long key = syscall(SYS_add_key, "user", "newer", "secret", 6, -3);
    printf("key %d\n", key > 0);
    SAY(syscall(SYS_keyctl, 11, key, text, sizeof text)); /* read */
    printf("%s\n", text);
    SAY(syscall(SYS_keyctl, 2, key, "other", 5));       /* update */
    printf("found %d\n", syscall(SYS_keyctl, 10, ring, "user", "newer", 0) == key);
    SAY(syscall(SYS_keyctl, 3, key));                   /* revoke */
    SAY(syscall(SYS_keyctl, 11, key, text, sizeof text));
    SAY(syscall(SYS_request_key, "user", "nobody's", NULL, -3));
}

static void mounting(void) {
    SAY(syscall(SYS_reboot, 1, 2, 3, NULL));
    SAY(syscall(SYS_reboot, 0xfee1dead, 672274793, 3, NULL));
    SAY(syscall(430, "nothing of that name", 0));       /* fsopen */
    SAY(syscall(431, 77, 0, "a", "b", 0));              /* fsconfig */
    SAY(syscall(428, AT_FDCWD, "nothing", 0));          /* open_tree */
    SAY(syscall(442, AT_FDCWD, "folder", 0, NULL, 8));  /* mount_setattr */
    SAY(syscall(SYS_quotactl, 0, NULL, 0, NULL));
    SAY(syscall(SYS_mount, "nothing", "missing", NULL, 0, NULL));
}

int main(int argc, char **argv) {
    if (argc != 1 || !argv[0][0]) return argc + 40;
    opening();
    attributes();
    waiting();
    executing(argv[0]);
    queues();
    keys();
    mounting();
    return 0;
}
