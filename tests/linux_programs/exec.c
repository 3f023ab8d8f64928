/* Executing: guest programs, scripts, programs of the host, and what cannot be executed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void write_file(const char *name, int mode, const char *first, const char *second) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    write(fd, first, strlen(first));
    write(fd, second, strlen(second));
    close(fd);
    chmod(name, mode);
}

static int status_of(pid_t child) {
    int status;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void attempt(const char *path, char *const arguments[]) {
    fflush(stdout);
    pid_t child = vfork();
    if (child == 0) {
        execv(path, arguments);
        _exit(errno == ENOENT ? 101 : errno == EACCES ? 102 : errno == ENOEXEC ? 103 : 104);
    }
    printf("%s: %d\n", path, status_of(child));
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv) {
    char self[4096];
    self[readlink("/proc/self/exe", self, sizeof self - 1)] = 0;
    if (argc > 1) {
        printf("again:");
        for (int i = 1; i < argc; i++) printf(" [%s]", argv[i]);
        struct sigaction caught, ignored;
        sigaction(SIGUSR1, NULL, &caught);
        sigaction(SIGUSR2, NULL, &ignored);
        printf(" handlers %d %d", caught.sa_handler == SIG_DFL, ignored.sa_handler == SIG_IGN);
        printf(" closed %d open %d", fcntl(50, F_GETFD), fcntl(51, F_GETFD));
        printf(" env %s\n", getenv("MARK") ? getenv("MARK") : "none");
        fflush(stdout);
        return 9;
    }
    setenv("MARK", "kept", 1);
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, SIG_IGN);
    fcntl(1, F_DUPFD_CLOEXEC, 50);
    dup2(1, 51);
    attempt("/proc/self/exe", (char *[]){"x", "one", "two words", NULL});
    write_file("script", 0755, "#!", strcat(self, " option\nrest\n"));
    attempt("./script", (char *[]){"ignored", "argument", NULL});
    attempt("./nothing", (char *[]){"x", NULL});
    write_file("plain", 0644, "text", "");
    attempt("./plain", (char *[]){"x", NULL});
    write_file("text", 0755, "text", "");
    attempt("./text", (char *[]){"x", NULL});
    attempt("/bin/sh", (char *[]){"sh", "-c", "echo host $MARK; exit 4", NULL});
    pid_t child;
    char *arguments[] = {"x", "spawned", NULL};
    printf("spawn %d\n", posix_spawn(&child, "./nothing", NULL, NULL, arguments, environ));
    fflush(stdout);
    posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ);
    printf("spawned %d\n", status_of(child));
    FILE *pipe = popen("echo from popen", "r");
    char line[100];
    printf("%s", fgets(line, sizeof line, pipe));
    printf("pclose %d\n", pclose(pipe));
    return 0;
}
