#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

void dz_log(const char *fmt, ...) {
    char stamp[32];
    struct tm tm;
    time_t now = time(NULL);
    va_list args;
    strftime(stamp, sizeof stamp, "%F %T", localtime_r(&now, &tm));
    va_start(args, fmt);
    fprintf(stderr, "%s  ", stamp);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

double dz_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

char *dz_format_time(double secs, char text[32]) {
    long n = secs < 1e9 ? (long)(secs + 0.5) : 1000000000;
    if (secs < 10)
        snprintf(text, 32, "%.2f s", secs);
    else if (n < 120)
        snprintf(text, 32, "%ld s", n);
    else if (n < 7200)
        snprintf(text, 32, "%ld min %02ld s", n / 60, n % 60);
    else
        snprintf(text, 32, "%ld h %02ld min", n / 3600, n / 60 % 60);
    return text;
}

double dz_peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * (double)usage.ru_maxrss;
}
