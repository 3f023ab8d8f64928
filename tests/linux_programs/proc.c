/* What of /proc is the program's own. Prints nothing that depends on where it runs. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

static void *wait_here(void *ends) {
    char byte;
    read(((int *)ends)[0], &byte, 1);
    return NULL;
}

/* As the kernel counts them. */
static void show_threads(void) {
    char buffer[4096];
    FILE *file = fopen("/proc/self/stat", "r");
    long count = 0, counted = 0;
    fgets(buffer, sizeof buffer, file);
    sscanf(strrchr(buffer, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
           "%*d %*d %ld", &count);
    fclose(file);
    file = fopen("/proc/self/status", "r");
    while (fgets(buffer, sizeof buffer, file)) sscanf(buffer, "Threads: %ld", &counted);
    fclose(file);
    printf("threads %ld %ld\n", count, counted);
}

static void threads(void) {
    int ends[2];
    pthread_t others[3];
    pipe(ends);
    show_threads();
    for (int i = 0; i < 3; i++) pthread_create(&others[i], NULL, wait_here, ends);
    show_threads();
    close(ends[1]);
    for (int i = 0; i < 3; i++) pthread_join(others[i], NULL);
}

int main(int argc, char **argv) {
    char buffer[65536];
    ssize_t n = readlink("/proc/self/exe", buffer, sizeof buffer);
    char *base = memrchr(buffer, '/', n);
    char *own = strrchr(argv[0], '/');
    printf("exe %d\n", (size_t)n - (base - buffer) == strlen(own) && !memcmp(base, own, strlen(own)));
    struct stat a, b;
    printf("same file %d\n", !stat("/proc/self/exe", &a) && !stat(argv[0], &b) && a.st_ino == b.st_ino);
    int fd = open("/proc/self/cmdline", O_RDONLY);
    n = read(fd, buffer, sizeof buffer);
    printf("cmdline %d\n", !strcmp(buffer, argv[0]) && buffer[n - 1] == 0);
    FILE *maps = fopen("/proc/self/maps", "r");
    int stack = 0, code = 0;
    while (fgets(buffer, sizeof buffer, maps)) {
        unsigned long start, end;
        char prot[8];
        sscanf(buffer, "%lx-%lx %4s", &start, &end, prot);
        unsigned long here = (unsigned long)&start, main_at = (unsigned long)main;
        if (start <= here && here < end) stack = !strncmp(prot, "rw", 2) && strstr(buffer, "[stack]");
        if (start <= main_at && main_at < end) code = prot[2] == 'x';
    }
    printf("maps %d %d\n", stack, code);
    int lowest = dup(0);
    close(lowest);
    fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    printf("read only %d lowest %d closes %d\n", write(fd, "x", 1) < 0 && errno == EBADF, fd == lowest,
           fcntl(fd, F_GETFD));
    fd = open("/proc/self/auxv", O_RDONLY);
    Elf64_auxv_t entry;
    unsigned long page = 0;
    while (read(fd, &entry, sizeof entry) == sizeof entry && entry.a_type)
        if (entry.a_type == AT_PAGESZ) page = entry.a_un.a_val;
    printf("auxv %lu %d\n", page, page == getauxval(AT_PAGESZ));
    unsigned long phdr = getauxval(AT_PHDR), phnum = getauxval(AT_PHNUM);
    printf("headers %d %d\n", ((Elf64_Phdr *)phdr)->p_type == PT_PHDR ||
           ((Elf64_Phdr *)phdr)->p_type == PT_LOAD, phnum > 2);
    printf("random %d secure %lu uid %d\n", getauxval(AT_RANDOM) != 0, getauxval(AT_SECURE),
           getauxval(AT_UID) == getuid());
    printf("execfn %d\n", !strcmp((char *)getauxval(AT_EXECFN), argv[0]));
    threads();
    return argc - 1;
}
