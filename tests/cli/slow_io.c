/* For LD_PRELOAD: slow storage. Each read and write of 64 KB or more of a file whose path holds SLOW_PATH takes SLOW_MS milliseconds. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void slow(int fd, size_t len) {
    const char *part = getenv("SLOW_PATH"), *ms = getenv("SLOW_MS");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = part && ms && len >= 65536 ? readlink(link, path, sizeof path - 1) : -1;
    if (n < 0) return;
    path[n] = '\0';
    long t = atol(ms);
    if (strstr(path, part)) nanosleep(&(struct timespec){.tv_sec = t / 1000, .tv_nsec = t % 1000 * 1000000}, NULL);
}

ssize_t pread(int fd, void *buf, size_t len, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread");
    slow(fd, len);
    return real(fd, buf, len, offset);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    slow(fd, len);
    return real(fd, buf, len, offset);
}
