#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"

#define IO_PIECE ((size_t)1 << 30)      /* the kernel moves at most 2^31 - 4096 bytes in a call */
#define WRITE_PIECE ((size_t)256 << 10) /* with more at once it may take a fresh 2 MB page each, which costs more than the copying */

/* -1 with errno set, where a fault is wanted; 0 otherwise. */
static int fails(const char *point) {
    int fault = dz_fault(point);
    if (fault) errno = fault;
    return fault ? -1 : 0;
}

int dz_open(const char *path, int flags) { return fails("open") ? -1 : open(path, flags | O_CLOEXEC, 0666); }
int dz_fsync(int fd) { return fails("sync") ? -1 : fsync(fd); }
int dz_rename(const char *from, const char *to) { return fails("rename") ? -1 : rename(from, to); }

static _Atomic uint64_t activity, written;

uint64_t dz_heartbeat_count(void) { return atomic_load_explicit(&activity, memory_order_relaxed); }
void dz_heartbeat(void) { atomic_fetch_add_explicit(&activity, 1, memory_order_relaxed); }
uint64_t dz_bytes_written(void) { return atomic_load_explicit(&written, memory_order_relaxed); }

dz_rc dz_pread_all(int fd, const char *path, void *dst, size_t len, uint64_t offset, dz_error *err) {
    uint8_t *at = dst;
    while (len > 0) {
        ssize_t got = fails("read") ? -1 : pread(fd, at, len < IO_PIECE ? len : IO_PIECE, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot read at byte %llu: %s", path, (unsigned long long)offset, strerror(errno));
        if (got == 0) return dz_fail(err, DZ_EFAIL, "%s: ends at byte %llu, %zu bytes too early", path, (unsigned long long)offset, len);
        at += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
        dz_heartbeat();
    }
    return DZ_OK;
}

dz_rc dz_pwrite_all(int fd, const char *path, const void *src, size_t len, uint64_t offset, dz_error *err) {
    const uint8_t *at = src;
    while (len > 0) {
        ssize_t put = fails("write") ? -1 : pwrite(fd, at, len < WRITE_PIECE ? len : WRITE_PIECE, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return dz_fail(err, DZ_EFAIL, "%s: cannot write at byte %llu: %s", path, (unsigned long long)offset,
                           strerror(put < 0 ? errno : ENOSPC));
        atomic_fetch_add_explicit(&written, (uint64_t)put, memory_order_relaxed);
        at += put;
        len -= (size_t)put;
        offset += (uint64_t)put;
        dz_heartbeat();
    }
    return DZ_OK;
}

dz_rc dz_fsync_parent(const char *path, dz_error *err) {
    char *dir = dz_path_beside(path, ".", err);
    if (!dir) return err->rc;
    int fd = dz_open(dir, O_RDONLY | O_DIRECTORY);
    dz_rc rc = DZ_OK;
    if (fd < 0 || (dz_fsync(fd) != 0 && errno != EINVAL))
        rc = dz_fail(err, DZ_EFAIL, "%s: cannot sync the directory: %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    free(dir);
    return rc;
}

dz_rc dz_read_file(const char *path, size_t max, char **out, size_t *len, dz_error *err) {
    char *text = NULL;
    struct stat st;
    int fd = dz_open(path, O_RDONLY | O_NONBLOCK); /* a FIFO must not hold us up: it is refused below */
    if (fd < 0 || fstat(fd, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        dz_fail(err, DZ_EFAIL, "%s: not a regular file", path);
        goto out;
    }
    if ((uint64_t)st.st_size > max) {
        dz_fail(err, DZ_EFAIL, "%s: %lld bytes are more than the %zu allowed", path, (long long)st.st_size, max);
        goto out;
    }
    text = dz_alloc_raw((size_t)st.st_size + 1, 1, err);
    if (!text || dz_pread_all(fd, path, text, (size_t)st.st_size, 0, err) != DZ_OK) goto out;
    text[st.st_size] = '\0';
    *out = text;
    if (len) *len = (size_t)st.st_size;
    text = NULL;
out:
    free(text);
    if (fd >= 0) close(fd);
    return err->rc;
}

dz_rc dz_make_dirs(const char *path, dz_error *err) {
    char *copy = dz_strdup(path, err);
    if (!copy) return err->rc;
    dz_rc rc = DZ_OK;
    for (char *at = copy + 1; rc == DZ_OK; at++) {
        if (*at != '/' && *at != '\0') continue;
        char was = *at;
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            rc = dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", copy, strerror(errno));
        *at = was;
        if (was == '\0') break;
    }
    struct stat st;
    if (rc == DZ_OK && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = dz_fail(err, DZ_EFAIL, "%s: exists and is not a directory", path);
    free(copy);
    return rc;
}

dz_rc dz_make_file(const char *path, const void *head, size_t len, uint64_t size, dz_error *err) {
    char *dir = dz_path_beside(path, ".", err);
    int fd = dir && dz_make_dirs(dir, err) == DZ_OK ? dz_open(path, O_WRONLY | O_CREAT | O_EXCL) : -1;
    if (err->rc == DZ_OK && fd < 0) dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", path, strerror(errno));
    if (fd >= 0) {
        int rc = size ? posix_fallocate(fd, 0, (off_t)size) : 0;
        if (rc == EOPNOTSUPP || rc == EINVAL) rc = ftruncate(fd, (off_t)size) == 0 ? 0 : errno;
        if (rc != 0)
            dz_fail(err, DZ_EFAIL, "%s: no room for %llu bytes: %s", path, (unsigned long long)size, strerror(rc));
        else
            dz_pwrite_all(fd, path, head, len, 0, err);
        if (close(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot close: %s", path, strerror(errno));
    }
    free(dir);
    return err->rc;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st;
    (void)kind;
    (void)at;
    remove(path);
    return 0;
}

void dz_remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

char *dz_path_beside(const char *file, const char *name, dz_error *err) {
    const char *slash = strrchr(file, '/');
    if (name[0] == '/') return dz_strdup(name, err);
    if (!slash) return dz_strdup(name, err);
    return dz_format(err, "%.*s%s", (int)(slash - file) + 1, file, name);
}

static int same_inode(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

const char *dz_path_last(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int dz_same_file(const char *x, const char *y) {
    struct stat a, b;
    int has_x = stat(x, &a) == 0, has_y = stat(y, &b) == 0;
    if (has_x || has_y) return has_x && has_y && same_inode(&a, &b);
    if (strcmp(dz_path_last(x), dz_path_last(y)) != 0) return 0;
    dz_error none = {0};
    char *in_x = dz_path_beside(x, ".", &none), *in_y = dz_path_beside(y, ".", &none);
    int same = in_x && in_y && stat(in_x, &a) == 0 && stat(in_y, &b) == 0 && same_inode(&a, &b);
    free(in_x);
    free(in_y);
    return same;
}

int dz_path_is_inside(const char *name) {
    if (name[0] == '\0' || name[0] == '/') return 0;
    for (const char *part = name; part;) {
        const char *slash = strchr(part, '/');
        size_t len = slash ? (size_t)(slash - part) : strlen(part);
        if (len == 0 || (len == 1 && part[0] == '.') || (len == 2 && part[0] == '.' && part[1] == '.')) return 0;
        for (size_t i = 0; i < len; i++) {
            if ((unsigned char)part[i] < 0x20 || part[i] == 0x7f) return 0;
        }
        part = slash ? slash + 1 : NULL;
    }
    return 1;
}

int dz_task_name_ok(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-";
    size_t len = strlen(name);
    return len > 0 && len <= 128 && name[0] != '.' && strspn(name, allowed) == len;
}

dz_rc dz_parse_size(const char *text, uint64_t *nbytes, dz_error *err) {
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    double unit = 1;
    static const char units[] = "KMGT";
    int none = end == text;
    const char *u = *end ? strchr(units, *end) : NULL;
    if (u) {
        for (const char *step = units; step <= u; step++) unit *= 1024;
        end++;
    }
    if (u && *end == 'i') end++;
    if (*end == 'B') end++;
    if (none || *end != '\0' || errno != 0 || !(value >= 0) || value * unit > 9e18)
        return dz_fail(err, DZ_EUSAGE, "'%s' is not a size (try 512M or 2G)", text);
    *nbytes = (uint64_t)(value * unit);
    return DZ_OK;
}

int dz_parse_whole(const char *text, uint64_t most, uint64_t *value) {
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text)) return 0; /* strtoull takes spaces and signs */
    errno = 0;
    unsigned long long x = strtoull(text, NULL, 10);
    if (errno != 0 || x > most) return 0;
    *value = x;
    return 1;
}

char *dz_format_size(double nbytes, char text[32]) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    int u = 0;
    while (nbytes >= 999.5 && u < 5) {
        nbytes /= 1000;
        u++;
    }
    snprintf(text, 32, u == 0 ? "%.0f %s" : "%.3g %s", nbytes, units[u]);
    return text;
}
