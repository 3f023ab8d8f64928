/* Ends while its timers run: they are not to hit anything but the program. */
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>

static void nothing(int number) { (void)number; }

int main(void) {
    struct itimerval often = {{0, 1000}, {0, 1000}};
    signal(SIGPROF, nothing), signal(SIGALRM, nothing);
    setitimer(ITIMER_PROF, &often, NULL), setitimer(ITIMER_REAL, &often, NULL);
    puts("done");
    return 3;
}
