/* Descriptors for events: timers, signals, changed files; memory files, attributes, splicing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void timers(void) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), epoll = epoll_create1(0);
    uint64_t count = 0;
    printf("timer %zd", read(timer, &count, 8));
    printf(" %s", strerror(errno));
    struct itimerspec spec = {.it_interval = {0, 5000000}, .it_value = {0, 5000000}};
    printf(" %d", timerfd_settime(timer, 0, &spec, NULL));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &spec}, got;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    printf(" wait %d %d", epoll_wait(epoll, &got, 1, 5000), got.data.ptr == &spec);
    printf(" %zd %d", read(timer, &count, 8), count >= 1);
    struct itimerspec now;
    printf(" %d %ld\n", timerfd_gettime(timer, &now), now.it_interval.tv_nsec);
    int event_fd = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    int reads = 0;
    while (read(event_fd, &count, 8) == 8) reads++;
    printf("semaphore %d %s\n", reads, strerror(errno));
}

static void signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1), sigaddset(&set, SIGRTMIN), sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC);
    kill(getpid(), SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 77});
    struct signalfd_siginfo info[2];
    printf("signalfd %zd", read(fd, info, sizeof info) / sizeof *info);
    printf(" %u %d, %d %d\n", info[0].ssi_signo, info[0].ssi_pid == (unsigned)getpid(),
           info[1].ssi_signo == (unsigned)SIGRTMIN, info[1].ssi_int);
    if (!fork()) _exit(9);
    printf("child %zd", read(fd, info, sizeof *info) / sizeof *info);
    printf(" %u %d\n", info[0].ssi_signo, info[0].ssi_status);
    wait(NULL);
}

static void notices(void) {
    mkdir("watched", 0700);
    int fd = inotify_init1(IN_NONBLOCK);
    int watch = inotify_add_watch(fd, "watched", IN_CREATE | IN_DELETE | IN_CLOSE_WRITE);
    close(open("watched/file", O_CREAT | O_WRONLY, 0600));
    unlink("watched/file");
    char buffer[1000] __attribute__((aligned(8)));
    ssize_t nbytes = read(fd, buffer, sizeof buffer);
    for (char *at = buffer; at < buffer + nbytes;) {
        struct inotify_event *event = (void *)at;
        printf("%s %x %d, ", event->name, event->mask, event->wd == watch);
        at += sizeof *event + event->len;
    }
    printf("remove %d\n", inotify_rm_watch(fd, watch));
    rmdir("watched");
}

static void files(void) {
    int fd = memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ftruncate(fd, 8192);
    char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    strcpy(map + 4096, "in memory");
    munmap(map, 8192);
    printf("seal %d", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE));
    printf(" %x %zd %s", fcntl(fd, F_GET_SEALS), write(fd, "x", 1), strerror(errno));
    char text[100] = "";
    pread(fd, text, 10, 4096);
    printf(" %s\n", text);
    int ends[2], more[2];
    pipe(ends), pipe2(more, O_NONBLOCK);
    loff_t from = 4096;
    printf("splice %zd %d", splice(fd, &from, ends[1], NULL, 9, 0), (int)from);
    printf(" tee %zd", tee(ends[0], more[1], 100, 0));
    struct iovec piece = {"!", 1};
    printf(" vmsplice %zd", vmsplice(more[1], &piece, 1, 0));
    memset(text, 0, sizeof text);
    printf(" read %zd", read(more[0], text, sizeof text));
    printf(" %s", text);
    int copy = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600), source = open("source", O_RDWR | O_CREAT, 0600);
    write(source, "0123456789", 10);
    from = 2;
    printf(" copied %zd\n", copy_file_range(source, &from, copy, NULL, 5, 0));
    printf("pipe %d\n", fcntl(ends[0], F_SETPIPE_SZ, 8192));
    if (setxattr("copy", "user.anyarch", "value", 5, 0) == 0) {
        printf("xattr %zd", getxattr("copy", "user.anyarch", text, sizeof text));
        printf(" %.5s list %zd", text, listxattr("copy", text, sizeof text));
        printf(" %s remove %d", text, fremovexattr(copy, "user.anyarch"));
        printf(" %zd\n", lgetxattr("copy", "user.anyarch", text, 1));
    }
    printf("noattr %zd", getxattr("copy", "user.other", text, 1));
    printf(" %d\n", errno == ENODATA || errno == ENOTSUP);
}

static void memory(void) {
    char *a = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(a, 1, 3 * 4096);
    printf("dontneed %d %d\n", madvise(a + 4096, 4096, MADV_DONTNEED), a[4096]);
    unsigned char resident[3];
    printf("lock %d mincore %d %d unlock %d\n", mlock(a, 4096), mincore(a, 4096, resident), resident[0] & 1,
           munlock(a, 4096));
    printf("advice %d", madvise(a, 4096, 999));
    printf(" %s\n", strerror(errno));
    char *b = mremap(a, 3 * 4096, 5 * 4096, MREMAP_MAYMOVE);
    printf("grown %d %d", b[0], b[4 * 4096]);
    printf(" hole %d", munmap(b + 4096, 4096));
    printf(" msync %d", msync(b, 3 * 4096, MS_SYNC));
    printf(" %s\n", strerror(errno));
    char source[] = "other's", target[8] = "";
    struct iovec to = {target, 8}, from = {source, 8};
    if (!fork()) {
        strcpy(source, "child's");
        _exit(process_vm_writev(getppid(), &from, 1, &to, 1, 0) != 8);
    }
    wait(NULL);
    printf("written %s", target);
    printf(" read %zd %s\n", process_vm_readv(getpid(), &to, 1, &from, 1, 0), target);
    printf("noreplace %d", mmap(b, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED);
    printf(" %s\n", strerror(errno));
}

static void machine(void) {
    char name[16] = "";
    printf("name %d", prctl(PR_SET_NAME, "renamed"));
    prctl(PR_GET_NAME, name);
    int fd = open("/proc/self/comm", O_RDONLY);
    char text[100] = "";
    read(fd, text, sizeof text);
    printf(" %s %s", name, text);
    cpu_set_t set;
    unsigned cpu = 999, node;
    printf("affinity %d %d getcpu %d %d\n", sched_getaffinity(0, sizeof set, &set), CPU_COUNT(&set) > 0,
           (int)syscall(SYS_getcpu, &cpu, &node, NULL), cpu < 999);
    struct sched_param param = {0};
    printf("policy %d %d %d\n", sched_getscheduler(0), sched_getparam(0, &param), sched_get_priority_max(SCHED_RR));
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 64;
    printf("nofile %d", setrlimit(RLIMIT_NOFILE, &limit));
    int count = 0;
    while (dup(0) >= 0) count++;
    printf(" %s %d\n", strerror(errno), count < 64);
    limit.rlim_cur = limit.rlim_max = 16 << 20;
    setrlimit(RLIMIT_STACK, &limit);
    getrlimit(RLIMIT_STACK, &limit);
    printf("stack %ld\n", (long)limit.rlim_cur);
    printf("uring %ld", syscall(SYS_io_uring_setup, 8, NULL) < 0 ? -1L : 0L);
    printf(" membarrier %d\n", (int)syscall(SYS_membarrier, 0, 0, 0) >= 0);
}

int main(void) {
    timers();
    signals();
    notices();
    files();
    memory();
    machine();
    return 0;
}
