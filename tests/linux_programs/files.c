/* Structures that differ between architectures, and calls that take several paths. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0640);
    struct iovec parts[20];
    for (int i = 0; i < 20; i++) parts[i] = (struct iovec){"abc", 3};
    printf("writev %zd\n", writev(fd, parts, 20)); /* more than are translated natively */
    struct stat s, t;
    printf("fstat %d", fstat(fd, &s));
    printf(" %o %ld %ld %d\n", s.st_mode, (long)s.st_size, (long)s.st_nlink, s.st_blksize > 0);
    printf("stat %d same %d\n", stat("f", &t), s.st_ino == t.st_ino && s.st_dev == t.st_dev &&
           s.st_mtim.tv_nsec == t.st_mtim.tv_nsec && s.st_uid == t.st_uid && s.st_gid == t.st_gid);
    struct statx x;
    printf("statx %d same %d\n", statx(AT_FDCWD, "f", 0, STATX_ALL, &x), x.stx_ino == s.st_ino);
    printf("link %d symlink %d", link("f", "g"), symlink("f", "l"));
    char target[100];
    printf(" readlink %zd", readlink("l", target, sizeof target));
    lstat("l", &t);
    printf(" %d\n", S_ISLNK(t.st_mode));
    printf("rename %d %d\n", rename("g", "h"), (int)syscall(SYS_renameat2, AT_FDCWD, "h", AT_FDCWD, "f", 1));
    printf("  %s\n", strerror(errno));
    DIR *folder = opendir(".");
    int names = 0;
    while (readdir(folder)) names++;
    closedir(folder);
    printf("names %d\n", names);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    printf("lock %d, flags %o\n", fcntl(fd, F_SETLK, &lock), fcntl(fd, F_GETFL) & O_ACCMODE);
    char *map = mmap(NULL, 60, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memcpy(map, "MAP", 3);
    char buffer[8] = "";
    pread(fd, buffer, 6, 0);
    printf("shared %s", buffer);
    map = mremap(map, 4096, 65536, MREMAP_MAYMOVE);
    printf(" %d\n", map != MAP_FAILED && !memcmp(map, "MAP", 3));
    int epoll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(0, 0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = 0x1122334455667788}, got[2];
    printf("epoll %d", epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted));
    unsigned long long one = 1;
    write(event, &one, 8);
    printf(" %d", epoll_wait(epoll, got, 2, 1000));
    printf(" %x %llx\n", got[0].events, (unsigned long long)got[0].data.u64);
    fd_set reads;
    FD_ZERO(&reads);
    FD_SET(event, &reads);
    struct timeval zero = {0, 0};
    printf("select %d", select(event + 1, &reads, NULL, NULL, &zero));
    struct pollfd polled = {.fd = event, .events = POLLIN | POLLOUT};
    printf(" poll %d %x\n", poll(&polled, 1, 0), polled.revents);
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } control;
    memset(&control, 0, sizeof control);
    struct iovec piece = {"msg", 3};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    printf("sendmsg %zd", sendmsg(pair[0], &message, 0));
    char inbox[10] = "";
    piece = (struct iovec){inbox, sizeof inbox};
    memset(&control, 0, sizeof control);
    printf(" recvmsg %zd %s", recvmsg(pair[1], &message, 0), inbox);
    int received;
    memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
    fstat(received, &t);
    printf(" passed %d\n", t.st_ino == s.st_ino);
    int out = open("copy", O_RDWR | O_CREAT, 0600);
    off_t from = 3;
    printf("sendfile %zd %ld\n", sendfile(out, fd, &from, 10), (long)from);
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = 1 << 20;
    printf("setrlimit %d", setrlimit(RLIMIT_STACK, &limit));
    getrlimit(RLIMIT_STACK, &limit);
    printf(" %ld\n", (long)limit.rlim_cur);
    struct rusage usage;
    int status;
    pid_t child = fork();
    if (child == 0) _exit(5);
    printf("wait4 %d %d\n", wait4(child, &status, 0, &usage) == child, WEXITSTATUS(status));
    siginfo_t info;
    child = fork();
    if (child == 0) _exit(6);
    printf("waitid %d", waitid(P_PID, child, &info, WEXITED));
    printf(" %d %d\n", info.si_pid == child, info.si_status);
    struct statfs fs;
    printf("statfs %d %d\n", statfs(".", &fs), fs.f_bsize > 0);
    int packets[2];
    printf("packets %d", pipe2(packets, O_DIRECT));
    printf(" %d\n", (fcntl(packets[1], F_GETFL) & O_DIRECT) != 0);
    char *end = sbrk(0);
    printf("sbrk %d %d\n", sbrk(100000) == end, (char *)sbrk(0) == end + 100000);
    return 0;
}
