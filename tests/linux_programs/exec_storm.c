/* A thread replaces the program while the main thread takes signals between waits: it is never too
   busy with one to see that it is to end. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <unistd.h>

static char *program;
static pthread_t leader;

static void caught(int signal)
{
    (void)signal;
}

static void *storm(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_kill(leader, SIGUSR1);
        usleep(20);
    }
    return NULL;
}

static void *execute(void *argument)
{
    usleep((unsigned)(long)argument);
    char *arguments[] = {program, "again", NULL};
    execv(program, arguments);
    return NULL;
}

int main(int argc, char **argv)
{
    program = argv[0];
    if (argc > 1)
        return 7;
    int good = 0;
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            pthread_t thread;
            leader = pthread_self();
            struct sigaction action = {.sa_handler = caught, .sa_flags = SA_RESTART};
            sigaction(SIGUSR1, &action, NULL);
            pthread_create(&thread, NULL, storm, NULL);
            pthread_create(&thread, NULL, execute, (void *)(long)(2000 + 97 * i));
            for (;;)
                select(0, NULL, NULL, NULL, NULL);
        }
        int status;
        waitpid(pid, &status, 0);
        good += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    printf("executed %d\n", good);
    return 0;
}
