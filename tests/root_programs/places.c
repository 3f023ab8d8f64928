/* Absolute names in a root, each more than once: the second time no Python is asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TIMES = 3 };

static int opened(const char *name, int flags)
{
    int fd = open(name, flags, 0644);
    return fd < 0 ? -errno : fd;
}

/* What every call says of a name. */
static void look(const char *name)
{
    for (int i = 0; i < TIMES; i++) {
        struct stat is, link;
        char text[8] = "", target[20] = "";
        int stated = stat(name, &is) ? -errno : 0;
        int itself = lstat(name, &link) ? -errno : (int)(link.st_mode & S_IFMT);
        int allowed = access(name, R_OK) ? -errno : 0;
        int read_link = readlink(name, target, sizeof target - 1) < 0 ? -errno : 1;
        int fd = opened(name, O_RDONLY);
        if (fd >= 0)
            read(fd, text, sizeof text - 1);
        close(fd);
        printf("%s: %d %o %d %d %s %d %s\n", name, stated, itself, allowed, read_link, target,
               fd < 0 ? fd : 0, text);
    }
}

int main(int argc, char **argv)
{
    look("/usr/lib/real");
    look("/lib/real");
    look("/usr/lib/name");
    look("/usr/lib/nothing");
    look("/usr/lib/real/below");
    look("/usr/lib/.");
    look("/usr/./lib/real");
    look("/etc/own");
    look(argv[1]); /* in a folder that the root has too */
    for (int i = 0; i < TIMES; i++) {
        printf("not a folder %d\n", opened("/usr/lib/real", O_RDONLY | O_DIRECTORY));
        printf("link %d\n", opened("/usr/lib/name", O_RDONLY | O_NOFOLLOW));
        printf("exists %d\n", opened("/usr/lib/real", O_RDWR | O_CREAT | O_EXCL));
        int folder = opened("/usr/lib", O_RDONLY | O_DIRECTORY);
        printf("below a folder %d\n", faccessat(folder, "absolute", R_OK, 0));
        close(folder);
        int file = opened("/usr/lib/real", O_WRONLY | O_APPEND | O_LARGEFILE);
        printf("flags %d\n", (fcntl(file, F_GETFL) & (O_APPEND | O_ACCMODE | O_DIRECT)));
        close(file);
    }
    printf("created %d\n", close(opened("/only/new", O_WRONLY | O_CREAT)));
    look("/only/new");
    look("/only/here/file");
    printf("renamed %d\n", rename("/only/here", "/only/there"));
    look("/only/here/file");
    look("/only/there/file");
    printf("linked %d\n", symlink("there", "/only/here"));
    look("/only/here/file");
    char name[300] = "/usr/";
    while (strlen(name) < 250)
        strcat(name, "./././././");
    strcat(name, "lib/real");
    struct stat is;
    for (int i = 0; i < TIMES; i++)
        printf("long %d\n", stat(name, &is));
    for (int i = 0; i < TIMES; i++)
        printf("nowhere %d %d\n", stat((char *)8, &is) ? errno : 0, opened((char *)8, O_RDONLY));
    return argc;
}
