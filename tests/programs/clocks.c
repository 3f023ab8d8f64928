/* Clocks and calendars. What varies is printed as whether it is plausible. */
#include <errno.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock)
{
    struct timespec now = {0, -1};
    if (clock_gettime(clock, &now) != 0 || now.tv_nsec < 0 || now.tv_nsec > 999999999)
        return -1;
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

int main(void)
{
    long long last = nanoseconds(CLOCK_MONOTONIC);
    int backwards = 0;
    for (int i = 0; i < 1000; i++) {
        long long now = nanoseconds(CLOCK_MONOTONIC);
        backwards += now < last;
        last = now;
    }
    printf("monotonic %d backwards %d\n", last > 0, backwards);
    struct timespec pause = {0, 30000000}, resolution;
    long long before = nanoseconds(CLOCK_MONOTONIC);
    printf("nanosleep %d", nanosleep(&pause, NULL));
    long long slept = nanoseconds(CLOCK_MONOTONIC) - before;
    printf(" long enough %d\n", slept >= 30000000);
    printf("after 2020 %d", nanoseconds(CLOCK_REALTIME) > 1577836800000000000ll);
    struct timeval day;
    printf(" %d %d\n", gettimeofday(&day, NULL), day.tv_sec >= time(NULL) - 2);
    printf("processor time %d %d\n", nanoseconds(CLOCK_PROCESS_CPUTIME_ID) > 0, clock() >= 0);
    printf("resolution %d %d\n", clock_getres(CLOCK_MONOTONIC, &resolution),
           resolution.tv_nsec > 0);
    errno = 0;
    printf("bad clock %d %d\n", clock_gettime(9999, &resolution), errno == EINVAL);
    pause.tv_nsec = 1000000000;
    printf("bad pause %d %d\n", nanosleep(&pause, NULL), errno == EINVAL);

    static const time_t moments[] = {0, 951782400, 1000000000, 1709164800, 4102444799, -1};
    for (unsigned i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        struct tm parts;
        gmtime_r(&moments[i], &parts);
        char text[64];
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %a week %V day %j", &parts);
        parts.tm_mday += 45;
        time_t later = timegm(&parts);
        printf("%s +45 days %s", text, asctime(gmtime(&later)));
    }
    struct tm read = {0};
    char *rest = strptime("29 Feb 2024 23:59", "%d %b %Y %H:%M", &read);
    printf("%d %d %d %d\n", rest && !*rest, read.tm_year, read.tm_mon, read.tm_min);
    printf("%.1f\n", difftime(moments[3], moments[2]));
    return 0;
}
