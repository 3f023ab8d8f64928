/* Files and directories, through stdio and through system calls. Works in a fresh directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static void check(int condition, const char *what)
{
    if (!condition) {
        printf("failed: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path)
{
    DIR *directory = opendir(path);
    check(directory != NULL, "opendir");
    char *names[64];
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            names[count++] = strdup(entry->d_name);
    closedir(directory);
    qsort(names, (size_t)count, sizeof names[0], by_name);
    printf("%d:", count);
    for (int i = 0; i < count; i++) {
        printf(" %s", names[i]);
        free(names[i]);
    }
    putchar('\n');
}

static void streams(void)
{
    FILE *file = fopen("lines.txt", "w");
    check(file != NULL, "fopen");
    for (int i = 0; i < 2000; i++)
        fprintf(file, "line %d of the file\n", i);
    printf("position %ld\n", ftell(file));
    fclose(file);
    file = fopen("lines.txt", "r+");
    fseek(file, -20, SEEK_END);
    char line[64];
    printf("tail: %s", fgets(line, sizeof line, file));
    printf("%d", fgets(line, sizeof line, file) != NULL);
    rewind(file);
    int lines = 0, characters = 0, c;
    while ((c = fgetc(file)) != EOF) {
        characters++;
        lines += c == '\n';
    }
    printf(" lines %d characters %d eof %d\n", lines, characters, feof(file) != 0);
    fseek(file, 5, SEEK_SET);
    fputs("XYZ", file);
    fseek(file, 0, SEEK_SET);
    printf("%s", fgets(line, sizeof line, file));
    fclose(file);
    printf("missing: %d %s\n", fopen("missing", "r") == NULL, strerror(errno));
}

static void descriptors(void)
{
    int fd = open("data.bin", O_RDWR | O_CREAT | O_EXCL, 0640);
    check(fd >= 0, "open");
    check(open("data.bin", O_RDWR | O_CREAT | O_EXCL, 0640) < 0 && errno == EEXIST, "O_EXCL");
    struct iovec parts[2] = {{"first ", 6}, {"second", 6}};
    printf("writev %zd\n", writev(fd, parts, 2));
    printf("pwrite %zd\n", pwrite(fd, "LATER", 5, 100));
    printf("end %ld\n", (long)lseek(fd, 0, SEEK_END));
    char buffer[32] = {0};
    printf("pread %zd", pread(fd, buffer, 12, 0));
    printf(" '%s'\n", buffer);
    check(ftruncate(fd, 10000) == 0, "ftruncate");
    struct stat status;
    check(fstat(fd, &status) == 0, "fstat");
    printf("size %ld mode %o links %ld regular %d\n", (long)status.st_size,
           (unsigned)(status.st_mode & 0777), (long)status.st_nlink, S_ISREG(status.st_mode));

    char *map = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(map != MAP_FAILED, "mmap shared");
    printf("mapped '%.5s' zero %d\n", map + 100, map[9999]);
    memcpy(map + 5000, "through the map", 15);
    check(msync(map, 10000, MS_SYNC) == 0 && munmap(map, 10000) == 0, "msync, munmap");
    check(pread(fd, buffer, 15, 5000) == 15, "pread");
    printf("%.15s\n", buffer);
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4096);
    check(map != MAP_FAILED, "mmap private");
    printf("%.15s ", map + 904);
    memset(map, 'p', 4096);
    check(pread(fd, buffer, 15, 5000) == 15, "pread");
    printf("%.15s\n", buffer);
    munmap(map, 4096);

    int other = dup(fd);
    lseek(other, 42, SEEK_SET);
    printf("shared offset %ld\n", (long)lseek(fd, 0, SEEK_CUR));
    close(other);
    printf("closed %d %d\n", (int)read(other, buffer, 1), errno == EBADF);
    printf("bad buffer %d %d\n", (int)write(fd, (void *)8, 4), errno == EFAULT);
    close(fd);
}

static void names(void)
{
    check(mkdir("inner", 0755) == 0, "mkdir");
    check(rename("data.bin", "inner/moved.bin") == 0, "rename");
    check(symlink("inner/moved.bin", "link") == 0, "symlink");
    check(link("inner/moved.bin", "hard") == 0, "link");
    list(".");
    list("inner");
    char target[64] = {0};
    printf("readlink %zd %s\n", readlink("link", target, sizeof target), target);
    struct stat status;
    check(lstat("link", &status) == 0, "lstat");
    printf("symbolic %d", S_ISLNK(status.st_mode));
    check(stat("link", &status) == 0, "stat");
    printf(" target size %ld links %ld\n", (long)status.st_size, (long)status.st_nlink);
    check(chmod("hard", 0400) == 0 && stat("hard", &status) == 0, "chmod");
    printf("mode %o access %d %d\n", (unsigned)(status.st_mode & 0777), access("hard", R_OK),
           access("nothing", F_OK));
    printf("rmdir %d %d\n", rmdir("inner"), errno == ENOTEMPTY);
    check(unlink("link") == 0 && unlink("hard") == 0 && unlink("lines.txt") == 0, "unlink");
    check(chdir("inner") == 0, "chdir");
    char here[256];
    check(getcwd(here, sizeof here) != NULL, "getcwd");
    printf("in %s\n", strrchr(here, '/') + 1);
    check(unlink("moved.bin") == 0 && chdir("..") == 0 && rmdir("inner") == 0, "clean up");
    list(".");
}

int main(void)
{
    char folder[] = "/tmp/files-XXXXXX";
    umask(022);
    check(mkdtemp(folder) != NULL && chdir(folder) == 0, "mkdtemp");
    streams();
    descriptors();
    names();
    check(rmdir(folder) == 0, "rmdir");
    return 0;
}
