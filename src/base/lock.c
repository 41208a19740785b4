#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define STALE_AFTER 120 /* seconds without a touch */

typedef struct holder {
    char host[128], job[64];
    int pid;
} holder;

static holder ourselves(void) {
    holder h = {.pid = (int)getpid(), .host = "?"};
    const char *job = getenv("SLURM_JOB_ID");
    if (gethostname(h.host, sizeof h.host - 1) != 0) strcpy(h.host, "?");
    snprintf(h.job, sizeof h.job, "%s", job && *job ? job : "-");
    return h;
}

/* False for an empty file or one that says something else. */
static int read_holder(int fd, holder *h) {
    char text[256] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    return n > 0 && sscanf(text, "host %127s pid %d job %63s", h->host, &h->pid, h->job) == 3;
}

/* Somebody's file that has a lock's name. */
static int is_foreign(int fd) {
    char text[5] = "";
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size > 0 && (!S_ISREG(st.st_mode) || pread(fd, text, 5, 0) != 5 || memcmp(text, "host ", 5) != 0);
}

static int same_file(int fd, const char *path) {
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* We have the flock, or the file system has none: is the holder named in the file still alive? */
static int is_alive(int fd, const holder *h, int have_flock) {
    holder us = ourselves();
    struct stat st;
    if (strcmp(h->host, us.host) == 0) return !have_flock && h->pid != us.pid && (kill(h->pid, 0) == 0 || errno == EPERM);
    if (strcmp(h->job, "-") != 0 && strcmp(h->job, us.job) == 0) return 0;
    return fstat(fd, &st) == 0 && llabs((long long)(time(NULL) - st.st_mtime)) < STALE_AFTER;
}

/* One try. 1: taken, 0: held by `*by` or in between, -1: failed. */
static int try_to_take(dz_lock *lock, holder *by, dz_error *err) {
    int fd = dz_open(lock->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        dz_fail(err, DZ_EUSAGE, "%s: cannot create: %s", lock->path, strerror(errno));
        return -1;
    }
    if (is_foreign(fd)) {
        dz_fail(err, DZ_EUSAGE, "%s: exists and is not a lock of deltazoo: move it away first", lock->path);
        close(fd);
        return -1;
    }
    int known = read_holder(fd, by), locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if ((!locked && errno == EWOULDBLOCK) || !same_file(fd, lock->path) || (known && is_alive(fd, by, locked))) {
        close(fd);
        return 0;
    }
    char text[256];
    holder us = ourselves();
    int len = snprintf(text, sizeof text, "host %s pid %d job %s\n", us.host, us.pid, us.job);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
        dz_fail(err, DZ_EFAIL, "%s: cannot write: %s", lock->path, strerror(errno));
        unlink(lock->path);
        close(fd);
        return -1;
    }
    lock->fd = fd;
    return 1;
}

dz_rc dz_lock_take(dz_lock *lock, const char *path, double patience, dz_error *err) {
    double until = dz_now() + patience;
    holder by = {.host = "?", .job = "-"};
    *lock = (dz_lock){.fd = -1, .path = dz_strdup(path, err)};
    if (!lock->path) return err->rc;
    int rc = 0;
    while ((rc = try_to_take(lock, &by, err)) == 0 && dz_now() < until) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    if (rc == 0)
        dz_fail(err, DZ_EUSAGE, "%s: another job is writing this archive: host %s, pid %d, SLURM job %s", path, by.host, by.pid, by.job);
    if (rc != 1) {
        free(lock->path);
        lock->path = NULL;
    }
    return err->rc;
}

void dz_lock_touch(const dz_lock *lock) {
    if (lock->fd >= 0) futimens(lock->fd, NULL);
}

void dz_lock_drop(dz_lock *lock) {
    if (lock->path && lock->fd >= 0) {
        unlink(lock->path);
        close(lock->fd);
    }
    free(lock->path);
    *lock = (dz_lock){.fd = -1};
}
