/* Pseudo-terminals: opening, modes, sessions, signals from the keyboard. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int until(int fd, const char *text) {
    char seen[1000] = "";
    size_t count = 0;
    while (!strstr(seen, text) && count < sizeof seen - 1) {
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        if (poll(&polled, 1, 60000) < 1 || read(fd, seen + count, 1) < 1) return 0;
        seen[++count] = 0;
    }
    return 1;
}

static volatile int resized;
static void resize(int number) { (void)number, resized = 1; }

static int child(const char *name) {
    setsid();
    int fd = open(name, O_RDWR);
    if (ioctl(fd, TIOCSCTTY, 0) && errno != EPERM) return 1;
    for (int i = 0; i < 3; i++) dup2(fd, i);
    signal(SIGWINCH, resize);
    sigset_t window, none; /* it may come before we wait for it */
    sigemptyset(&none);
    sigemptyset(&window);
    sigaddset(&window, SIGWINCH);
    sigprocmask(SIG_BLOCK, &window, 0);
    struct winsize size;
    ioctl(0, TIOCGWINSZ, &size);
    printf("size %dx%d tty %d group %d session %d\n", size.ws_col, size.ws_row, isatty(1),
           tcgetpgrp(0) == getpgrp(), tcgetsid(0) == getpid());
    fflush(stdout);
    char line[100];
    if (!fgets(line, sizeof line, stdin)) return 2;
    printf("line %s", line);
    fflush(stdout);
    while (!resized) sigsuspend(&none);
    ioctl(0, TIOCGWINSZ, &size);
    printf("resized %dx%d\n", size.ws_col, size.ws_row);
    fflush(stdout);
    for (;;) pause(); /* until ^C */
}

int main(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    printf("open %d grant %d unlock %d", master >= 0, grantpt(master), unlockpt(master));
    char name[100];
    printf(" name %d %d\n", ptsname_r(master, name, sizeof name), !strncmp(name, "/dev/pts/", 9));
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    printf("size %d\n", ioctl(master, TIOCSWINSZ, &size));
    int slave = open(name, O_RDWR | O_NOCTTY);
    struct termios modes;
    printf("get %d icanon %d echo %d", tcgetattr(slave, &modes), !!(modes.c_lflag & ICANON),
           !!(modes.c_lflag & ECHO));
    cfsetospeed(&modes, B9600);
    modes.c_lflag &= ~ECHO;
    printf(" set %d", tcsetattr(slave, TCSADRAIN, &modes));
    tcgetattr(slave, &modes);
    printf(" echo %d speed %d\n", !!(modes.c_lflag & ECHO), cfgetospeed(&modes) == B9600);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        close(master), close(slave);
        _exit(child(name));
    }
    printf("child says %d\n", until(master, "size 80x24 tty 1 group 1 session 1"));
    write(master, "typed\n", 6);
    printf("line %d\n", until(master, "line typed"));
    close(slave); /* the child has it open for sure */
    size.ws_col = 132;
    ioctl(master, TIOCSWINSZ, &size);
    printf("resized %d\n", until(master, "resized 132x24"));
    int waiting = -1;
    printf("waiting %d %d\n", ioctl(master, FIONREAD, &waiting), waiting >= 0);
    write(master, "\003", 1);
    int status;
    waitpid(pid, &status, 0);
    printf("killed by %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    char byte;
    while (read(master, &byte, 1) > 0) {}
    printf("end %s\n", strerror(errno));
    return 0;
}
