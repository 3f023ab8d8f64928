/* The program's own files of /proc by every kind of path. Prints nothing that depends on where. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char self[4096], folder[4096];

/* Whether the maps that can be read from here are ours. */
static int ours(int fd)
{
    static char text[1 << 18];
    size_t n = 0;
    ssize_t more;
    if (fd < 0)
        return -1;
    while ((more = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += more;
    text[n] = 0;
    close(fd);
    unsigned long start, end, here = (unsigned long)&start;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL)
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= here && here < end)
            return 1;
    return 0;
}

static void link_of(const char *what, int dirfd, const char *name)
{
    char buffer[4096] = "";
    ssize_t n = readlinkat(dirfd, name, buffer, sizeof buffer - 1);
    buffer[n > 0 ? n : 0] = 0;
    printf("%s %d %d\n", what, n > 0, !strcmp(buffer, self));
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* wait to be looked at */
        char byte;
        puts("ready");
        fflush(stdout);
        return (int)read(0, &byte, 1);
    }
    if (!realpath(argv[0], self) || !getcwd(folder, sizeof folder))
        return 1;
    char path[64];
    int proc = open("/proc/self", O_RDONLY | O_DIRECTORY);
    printf("descriptor %d\n", ours(openat(proc, "maps", O_RDONLY)));
    link_of("descriptor's exe", proc, "exe");
    int up = open("/proc", O_PATH);
    printf("two parts %d\n", ours(openat(up, "self/maps", O_RDONLY)));
    int top = open("/", O_RDONLY);
    printf("from / %d\n", ours(openat(top, "proc/self/maps", O_RDONLY)));
    sprintf(path, "/proc/%d/task/%d/maps", getpid(), getpid());
    printf("by number %d\n", ours(open(path, O_RDONLY)));
    sprintf(path, "/proc/self/fd/%d/self/exe", up);
    link_of("through fd", AT_FDCWD, path);
    printf("odd %d %d %d\n", ours(open("//proc/self/maps", O_RDONLY)),
           ours(open("/./proc//self/./maps", O_RDONLY)),
           ours(open("/proc/self/fd/../maps", O_RDONLY)));
    printf("not a directory %d\n", open("/proc/self/maps/", O_RDONLY));
    int twin = dup(proc);
    close(proc);
    printf("dup %d\n", ours(openat(twin, "maps", O_RDONLY)));
    struct stat a, b;
    printf("same %d\n", !fstatat(twin, "exe", &a, 0) && !stat(self, &b) && a.st_ino == b.st_ino);
    for (int i = 0; i < 100; i++) /* of plain folders, before one of /proc again */
        faccessat(AT_FDCWD, "nothing", F_OK, 0);
    if (chdir("/proc/self"))
        return 1;
    printf("here %d\n", ours(open("maps", O_RDONLY)));
    link_of("here's exe", AT_FDCWD, "exe");
    if (chdir("/") || chdir("proc"))
        return 1;
    printf("in two steps %d\n", ours(open("self/maps", O_RDONLY)));
    if (fchdir(twin))
        return 1;
    printf("fchdir %d\n", ours(open("maps", O_RDONLY)));
    if (chdir(folder))
        return 1;
    sprintf(path, "%d", (int)getpid());
    symlinkat("/proc/self", AT_FDCWD, "link");
    char name[4096];
    int file = open(self, O_RDONLY);
    sprintf(path, "/proc/self/fd/%d", file);
    link_of("open file", AT_FDCWD, path);
    printf("cwd %d\n", readlink("/proc/self/cwd", name, sizeof name) == (ssize_t)strlen(folder));

    int in[2], out[2];
    if (pipe(in) || pipe(out))
        return 1;
    pid_t child = fork();
    if (child == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        execl(self, "a name", "wait for it", NULL);
        _exit(1);
    }
    if (read(out[0], name, 6) != 6)
        return 1;
    sprintf(path, "/proc/%d/exe", child);
    link_of("child's exe", AT_FDCWD, path);
    sprintf(path, "/proc/%d/cmdline", child);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, name, sizeof name);
    printf("child's arguments %zd %s %s\n", n, name, name + strlen(name) + 1);
    close(in[1]);
    waitpid(child, NULL, 0);
    return unlink("link");
}
