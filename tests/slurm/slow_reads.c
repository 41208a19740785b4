/* For LD_PRELOAD: a slow disk. While the file that SLOW_READS names exists, each read of 4 KB or more takes SLOW_MS milliseconds. */
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

ssize_t pread(int fd, void *buf, size_t len, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    const char *file = getenv("SLOW_READS"), *ms = getenv("SLOW_MS");
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread");
    if (len >= 4096 && file && ms && access(file, F_OK) == 0) {
        long n = atol(ms);
        nanosleep(&(struct timespec){.tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000}, NULL);
    }
    return real(fd, buf, len, offset);
}
