/* Runs with a root folder that tests/test_paths.py fills; the working directory is outside it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *what, int fd)
{
    char buffer[100] = "?";
    ssize_t n = read(fd, buffer, sizeof buffer - 1);
    buffer[n > 0 ? n : 1] = 0;
    printf("%s %s\n", what, buffer);
}

static void link_of(const char *what, const char *path)
{
    char buffer[4096];
    ssize_t n = readlink(path, buffer, sizeof buffer - 1);
    buffer[n > 0 ? n : 0] = 0;
    printf("%s %s\n", what, buffer);
}

static socklen_t name(struct sockaddr_un *address, const char *path)
{
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, path);
    return sizeof *address;
}

static int runs(const char *path)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl(path, path, NULL);
        _exit(1);
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

enum { OPENAT2 = 437, GETXATTRAT = 464, NO_SYMLINKS = 4, BENEATH = 8, IN_ROOT = 16 };

static int resolved(int dirfd, const char *path, uint64_t resolve)
{
    uint64_t how[3] = {O_RDONLY, 0, resolve};
    return syscall(OPENAT2, dirfd, path, how, sizeof how);
}

static int executed(int dirfd, const char *path, int flags)
{
    char *arguments[] = {"by link", NULL}, *environment[] = {NULL};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        syscall(SYS_execveat, dirfd, path, arguments, environment, flags);
        _exit(errno);
    }
    int status;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static void newer_calls(int etc)
{
    int top = open("/", O_RDONLY), bin = open("/bin", O_RDONLY);
    show("openat2", resolved(AT_FDCWD, "absolute", 0));
    fchdir(top);
    show("openat2 by descriptor", resolved(etc, "absolute", 0));
    show("beneath", resolved(etc, "own", BENEATH));
    show("in a root", resolved(top, "etc/absolute", IN_ROOT));
    printf("no links %d\n", resolved(etc, "absolute", NO_SYMLINKS) < 0 && errno == ELOOP);
    uint64_t value[2] = {0};
    syscall(GETXATTRAT, etc, "absolute", 0, "user.none", value, sizeof value);
    printf("attribute %d\n", errno == ENODATA || errno == EOPNOTSUPP || errno == ENOSYS);
    printf("executed %d\n", executed(bin, "interpreter", 0));
    printf("link refused %d\n", executed(bin, "interpreter", AT_SYMLINK_NOFOLLOW) == ELOOP);
    fchdir(etc);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        printf("script: %s %s %s\n", argv[0], argv[1], argv[2]);
        return 0;
    }
    if (strstr(argv[0], "link")) {
        printf("link: %s\n", argv[0]);
        return 0;
    }
    int start = open(".", O_RDONLY);
    int etc = open("/etc", O_RDONLY);
    if (chdir("/etc"))
        return 1;
    show("relative", open("own", O_RDONLY));
    show("absolute", open("absolute", O_RDONLY));
    show("by descriptor", openat(etc, "absolute", O_RDONLY));
    show("climbing", open("../../../../../../etc/own", O_RDONLY));
    char buffer[4096];
    newer_calls(etc);
    printf("cwd %s\n", getcwd(buffer, sizeof buffer));
    link_of("exe", "/proc/self/exe");
    sprintf(buffer, "/proc/self/fd/%d", open("absolute", O_RDONLY));
    link_of("open file", buffer);
    link_of("working folder", "/proc/self/cwd");
    printf("created in the root %d\n", close(open("/only/file", O_CREAT | O_WRONLY, 0600)) == 0);

    struct sockaddr_un own, peer;
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = name(&own, "/only/socket");
    if (bind(server, (struct sockaddr *)&own, length) || listen(server, 1))
        perror("bind");
    if (connect(client, (struct sockaddr *)&own, length))
        perror("connect");
    length = sizeof peer;
    getpeername(client, (struct sockaddr *)&peer, &length);
    struct stat status;
    printf("socket %s %d\n", peer.sun_path, !stat("/only/socket", &status));
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    length = name(&own, "/only/datagrams");
    if (bind(receiver, (struct sockaddr *)&own, length))
        perror("bind");
    sendto(sender, "a", 1, 0, (struct sockaddr *)&own, length);
    struct iovec part = {"b", 1};
    struct msghdr message = {.msg_name = &own, .msg_namelen = length, .msg_iov = &part};
    message.msg_iovlen = 1;
    sendmsg(sender, &message, 0);
    recv(receiver, buffer, 1, MSG_DONTWAIT);
    recv(receiver, buffer + 1, 1, MSG_DONTWAIT);
    printf("datagram %d\n", !memcmp(buffer, "ab", 2));
    char path[200] = "/only/";
    memset(path + 6, 'n', 80);
    int many = socket(AF_UNIX, SOCK_STREAM, 0), one = socket(AF_UNIX, SOCK_STREAM, 0);
    length = name(&own, path);
    int bound = bind(many, (struct sockaddr *)&own, length) || listen(many, 1);
    printf("long name %d\n", !bound && !connect(one, (struct sockaddr *)&own, length));

    if (runs("/run-me") || chdir("/") || runs("run-me"))
        return 1;
    if (fchdir(start))
        return 1;
    return runs("./link");
}
