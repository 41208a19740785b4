#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

static void line(const char *kind, const char *fmt, va_list args) {
    fputs(kind, stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

void dz_warn(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    line("deltazoo: warning: ", fmt, args);
    va_end(args);
}

void dz_say(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    line("deltazoo: ", fmt, args);
    va_end(args);
}

double dz_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double dz_peak_memory(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return 1024.0 * (double)usage.ru_maxrss;
}
