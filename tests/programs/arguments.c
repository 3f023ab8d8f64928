/* What a process is given: arguments, environment, auxiliary vector, exit status and handlers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

static void first(void)
{
    puts("registered first, runs last");
}

static void second(void)
{
    puts("registered second, runs first");
}

int main(int argc, char **argv)
{
    printf("%d arguments, null at the end %d, named %d\n", argc - 1, argv[argc] == NULL,
           strstr(argv[0], "arguments") != NULL);
    for (int i = 1; i < argc; i++)
        printf("%d: '%s'\n", i, argv[i]);
    int equals = 1;
    for (char **entry = environ; *entry; entry++)
        equals &= strchr(*entry, '=') != NULL;
    printf("environment well formed %d\n", equals);
    setenv("ANSWER", "42", 1);
    setenv("ANSWER", "43", 0);
    printf("%s %d\n", getenv("ANSWER"), getenv("SURELY_NOT_SET") == NULL);
    unsetenv("ANSWER");
    printf("%d\n", getenv("ANSWER") == NULL);
    printf("page %lu, random bytes %d, secure %lu\n", getauxval(AT_PAGESZ),
           getauxval(AT_RANDOM) != 0, getauxval(AT_SECURE));
    printf("entry %d headers %d of %lu\n", getauxval(AT_ENTRY) != 0, getauxval(AT_PHDR) != 0,
           getauxval(AT_PHENT));
    char *sp = (char *)&argc;
    printf("arguments above the frame %d aligned %d\n", (char *)argv > sp || argv[0] > sp,
           (unsigned long)argv % 8 == 0);
    printf("ids %d %d\n", getuid() == geteuid(), getpid() > 0 && getppid() >= 0);
    atexit(first);
    atexit(second);
    exit(argc + 40);
}
