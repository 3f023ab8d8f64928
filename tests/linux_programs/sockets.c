/* Sockets of every family that programs use, and what is asked of them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void tcp(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    printf("bind %d listen %d", bind(listener, (void *)&at, sizeof at), listen(listener, 4));
    socklen_t size = sizeof at;
    printf(" name %d %d\n", getsockname(listener, (void *)&at, &size), at.sin_port != 0);
    if (!fork()) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (void *)&at, sizeof at)) _exit(1);
        char text[100];
        ssize_t count = recv(fd, text, 5, MSG_WAITALL);
        send(fd, text, count, MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        _exit(recv(fd, text, sizeof text, 0) != 0);
    }
    int fd = accept4(listener, (void *)&at, &size, SOCK_NONBLOCK);
    printf("accept %s nonblock %d\n", inet_ntoa(at.sin_addr), !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    char text[100] = "";
    printf("empty %zd %s\n", recv(fd, text, sizeof text, 0), strerror(errno));
    printf("nodelay %d", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    int value = 0, status;
    size = sizeof value;
    printf(" %d", getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size));
    printf(" %d %d\n", value != 0, (int)size);
    printf("send %zd", send(fd, "hello", 5, 0));
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    printf(" poll %d", poll(&polled, 1, 60000));
    printf(" %zd %s", recv(fd, text, sizeof text, MSG_PEEK), text);
    printf(" %zd", recvfrom(fd, text, sizeof text, 0, NULL, NULL));
    poll(&polled, 1, 60000);
    printf(" end %zd\n", recv(fd, text, sizeof text, 0));
    close(fd);
    wait(&status);
    printf("client %d\n", status);
}

static void udp(void) {
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    socklen_t size = sizeof at;
    bind(a, (void *)&at, sizeof at);
    getsockname(a, (void *)&at, &size);
    struct iovec parts[2][1] = {{{"one", 3}}, {{"three", 5}}};
    struct mmsghdr messages[2] = {
        {.msg_hdr = {.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = parts[0], .msg_iovlen = 1}},
        {.msg_hdr = {.msg_name = &at, .msg_namelen = sizeof at, .msg_iov = parts[1], .msg_iovlen = 1}},
    };
    printf("sendmmsg %d %d %d\n", sendmmsg(b, messages, 2, 0), messages[0].msg_len, messages[1].msg_len);
    char text[2][20] = {"", ""};
    for (int i = 0; i < 2; i++) {
        parts[i][0] = (struct iovec){text[i], 4};
        messages[i].msg_hdr.msg_name = &from;
    }
    printf("recvmmsg %d", recvmmsg(a, messages, 2, MSG_WAITFORONE, NULL));
    printf(" %s %s", text[0], text[1]);
    printf(" truncated %d from %d\n", messages[1].msg_hdr.msg_flags & MSG_TRUNC, from.sin_family);
    struct timespec limit = {0, 1000000}, wrong = {1, 1000000001};
    messages[0].msg_hdr.msg_name = messages[1].msg_hdr.msg_name = &at;
    sendmmsg(b, messages, 2, 0);
    printf("within %d", recvmmsg(a, messages, 2, 0, &limit));
    printf(" %d %s", recvmmsg(a, messages, 2, 0, &wrong), strerror(errno));
    printf(" %d %s", recvmmsg(a, messages, 2, 0, (void *)-1), strerror(errno));
    printf(" %d %s", (int)syscall(SYS_recvmmsg, a, (void *)-1, 2, MSG_DONTWAIT, NULL), strerror(errno));
    printf(" %d", recvmmsg(a, messages, 0, MSG_DONTWAIT, NULL));
    printf(" %d %s", recvmmsg(-1, messages, 2, 0, NULL), strerror(errno));
    printf(" %d %s\n", recvmmsg(a, messages, 2, MSG_DONTWAIT, NULL), strerror(errno));
    printf("refused %d", connect(b, (void *)&(struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(1),
           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, sizeof at));
    send(b, "x", 1, 0);
    printf(" %zd %s\n", recv(b, text[0], 1, 0), strerror(errno));
}

static void local(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket"}, peer;
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0), one = 1;
    printf("unix bind %d listen %d", bind(listener, (void *)&at, sizeof at), listen(listener, 1));
    int client = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    printf(" connect %d", connect(client, (void *)&at, sizeof at));
    int server = accept(listener, NULL, NULL);
    socklen_t size = sizeof peer;
    getpeername(client, (void *)&peer, &size);
    printf(" peer %s\n", peer.sun_path);
    setsockopt(server, SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
    struct ucred who;
    size = sizeof who;
    getsockopt(server, SOL_SOCKET, SO_PEERCRED, &who, &size);
    printf("peercred %d\n", who.pid == getpid() && who.uid == getuid());
    int ends[2];
    pipe(ends);
    union { char bytes[CMSG_SPACE(2 * sizeof(int))]; struct cmsghdr header; } control = {0};
    struct iovec piece = {"fds", 3};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(8);
    memcpy(CMSG_DATA(header), ends, 8);
    printf("sendmsg %zd", sendmsg(client, &message, 0));
    char text[10] = "", space[200];
    piece = (struct iovec){text, sizeof text};
    message.msg_control = space, message.msg_controllen = sizeof space;
    printf(" recvmsg %zd %s\n", recvmsg(server, &message, MSG_CMSG_CLOEXEC), text);
    int passed[2] = {-1, -1};
    for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_type == SCM_RIGHTS) memcpy(passed, CMSG_DATA(header), 8);
        if (header->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&who, CMSG_DATA(header), sizeof who);
            printf("credentials %d\n", who.pid == getpid());
        }
    }
    printf("through %zd", write(passed[1], "pipe", 4));
    printf(" %zd cloexec %d\n", read(ends[0], text, 10), fcntl(passed[0], F_GETFD));
    unlink("socket");
}

int main(void) {
    tcp();
    udp();
    local();
    struct ifaddrs *all, *each;
    int loopback = 0;
    printf("getifaddrs %d", getifaddrs(&all)); /* speaks netlink */
    for (each = all; each; each = each->ifa_next)
        if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET && !strcmp(each->ifa_name, "lo"))
            loopback = ((struct sockaddr_in *)each->ifa_addr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
    printf(" lo %d index %d\n", loopback, if_nametoindex("lo") > 0);
    struct ifreq requests[32];
    struct ifconf config = {.ifc_len = sizeof requests, .ifc_req = requests};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    printf("ifconf %d %s\n", ioctl(fd, SIOCGIFCONF, &config), requests[0].ifr_name);
    printf("flags %d", ioctl(fd, SIOCGIFFLAGS, requests));
    printf(" up %d\n", !!(requests[0].ifr_flags & IFF_UP));
    printf("bad %d", socket(99, SOCK_STREAM, 0));
    printf(" %s\n", strerror(errno));
    printf("fault %d", bind(fd, (void *)8, 16));
    printf(" %s\n", strerror(errno));
    return 0;
}
