#include "base/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listing.h"
#include "base/mem.h"

dz_rc dz_staging_name(dz_staging *s, const char *path, dz_error *err) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    *s = (dz_staging){.path = dz_strndup(path, len, err), .partial = dz_format(err, "%.*s" DZ_PARTIAL, (int)len, path)};
    return err->rc;
}

dz_rc dz_staging_check_file(const char *path, dz_target own, dz_error *err) {
    char *partial = dz_format(err, "%s" DZ_PARTIAL, path);
    if (partial) dz_overwrite_check_partial(partial, own, err);
    free(partial);
    return err->rc;
}

dz_rc dz_staging_begin_file(dz_staging *s, dz_target own, dz_error *err) {
    if (dz_overwrite_check_partial(s->partial, own, err) != DZ_OK) return err->rc;
    if (unlink(s->partial) != 0 && errno != ENOENT)
        return dz_fail(err, DZ_EFAIL, "%s: cannot remove what a killed job left: %s", s->partial, strerror(errno));
    s->made = 1;
    return DZ_OK;
}

dz_rc dz_staging_write(dz_staging *s, const void *bytes, size_t len, dz_error *err) {
    int fd = dz_open(s->partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
    if (fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", s->partial, strerror(errno));
    s->made = 1;
    if (dz_pwrite_all(fd, s->partial, bytes, len, 0, err) == DZ_OK && dz_fsync(fd) != 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", s->partial, strerror(errno));
    if (close(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot close: %s", s->partial, strerror(errno));
    return err->rc;
}

/* The length of the part of the path that exists: what is below it will be ours to remove again. */
static size_t existing_part(char *path) {
    for (size_t len = strlen(path); len > 0; len--) {
        if (path[len] != '/') continue;
        path[len] = '\0';
        int exists = access(path, F_OK) == 0;
        path[len] = '/';
        if (exists) return len;
    }
    return 0;
}

/* A directory that is new, and so nobody else's: its name can be guessed. */
static dz_rc make_own_dir(char *path, dz_error *err) {
    char *slash = strrchr(path, '/');
    if (slash && slash != path) {
        *slash = '\0';
        dz_make_dirs(path, err);
        *slash = '/';
    }
    if (err->rc == DZ_OK && mkdir(path, 0777) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot make the directory: %s", path, strerror(errno));
    return err->rc;
}

/* The directories above `partial` that did not exist before. */
static void remove_parents(dz_staging *s) {
    for (size_t len = strlen(s->partial); len > s->kept; len--) {
        if (s->partial[len] != '/') continue;
        s->partial[len] = '\0';
        int rc = rmdir(s->partial);
        s->partial[len] = '/';
        if (rc != 0) return;
    }
}

dz_rc dz_staging_begin_dir(dz_staging *s, const char *job, dz_error *err) {
    free(s->marker);
    if (!(s->marker = dz_format(err, "%s/.deltazoo-%s", s->partial, job))) return err->rc;
    s->kept = existing_part(s->partial);
    if (access(s->partial, F_OK) == 0 && access(s->marker, F_OK) != 0)
        return dz_fail(err, DZ_EUSAGE, "%s: exists and is not %s %s's leftover; remove it first", s->partial,
                       strchr("aeiou", job[0]) ? "an" : "a", job);
    dz_remove_tree(s->partial);
    if (make_own_dir(s->partial, err) != DZ_OK) {
        remove_parents(s);
        return err->rc;
    }
    s->made = 1;
    int fd = dz_open(s->marker, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) return dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", s->marker, strerror(errno));
    close(fd);
    return DZ_OK;
}

dz_rc dz_staging_rename(const char *from, const char *to, int sync, dz_error *err) {
    if (dz_rename(from, to) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot rename to %s: %s", from, to, strerror(errno));
    return sync ? dz_fsync_parent(to, err) : DZ_OK;
}

dz_rc dz_staging_publish(dz_staging *s, int sync, dz_error *err) {
    if (s->marker) unlink(s->marker);
    if (dz_staging_rename(s->partial, s->path, 0, err) != DZ_OK) return err->rc;
    s->made = 0;
    return sync ? dz_fsync_parent(s->path, err) : DZ_OK;
}

static void publish_one(const dz_staging *s, const char *name, dz_error *err) {
    char *from = dz_format(err, "%s/%s", s->partial, name), *to = dz_format(err, "%s/%s", s->path, name);
    char *slash = to ? strrchr(to, '/') : NULL;
    if (slash) {
        *slash = '\0';
        dz_make_dirs(to, err);
        *slash = '/';
    }
    if (err->rc == DZ_OK) dz_staging_rename(from, to, 0, err);
    free(from);
    free(to);
}

dz_rc dz_staging_publish_into(dz_staging *s, const char *const *names, size_t n, dz_error *err) {
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) publish_one(s, names[i], err);
    if (err->rc == DZ_OK) {
        dz_remove_tree(s->partial);
        s->made = 0;
    }
    return err->rc;
}

void dz_staging_discard(dz_staging *s) {
    if (!s->made) return;
    s->made = 0;
    if (!s->marker) {
        unlink(s->partial);
        return;
    }
    dz_remove_tree(s->partial);
    remove_parents(s);
}

void dz_staging_free(dz_staging *s) {
    free(s->path);
    free(s->partial);
    free(s->marker);
    *s = (dz_staging){0};
}

/* The number in NAME.NUMBER.partial, or 0. */
static long process_of(const char *entry, const char *name) {
    size_t len = strlen(name);
    if (strncmp(entry, name, len) != 0 || entry[len] != '.') return 0;
    char *end;
    long pid = strtol(entry + len + 1, &end, 10);
    return entry[len + 1] >= '1' && entry[len + 1] <= '9' && strcmp(end, DZ_PARTIAL) == 0 ? pid : 0;
}

/* What processes left that were killed while they wrote this file. */
static void remove_leftovers(const char *path) {
    dz_error none = {0};
    char *dir = dz_path_beside(path, ".", &none);
    dz_listing list = {0};
    if (dir) dz_listing_read(dir, &list, &none);
    for (size_t i = 0; i < list.n; i++) {
        long pid = list.entries[i].is_file ? process_of(list.entries[i].name, dz_path_last(path)) : 0;
        if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH) continue;
        char *left = dz_path_beside(path, list.entries[i].name, &none);
        if (left) unlink(left);
        free(left);
    }
    dz_listing_free(&list);
    free(dir);
}

dz_rc dz_replace_file(const char *path, const void *bytes, size_t len, dz_error *err) {
    dz_staging s = {.path = dz_strdup(path, err), .partial = dz_format(err, "%s.%ld" DZ_PARTIAL, path, (long)getpid())};
    if (err->rc == DZ_OK && dz_staging_write(&s, bytes, len, err) == DZ_OK) dz_staging_publish(&s, 1, err);
    if (err->rc == DZ_OK) remove_leftovers(path);
    dz_staging_discard(&s);
    dz_staging_free(&s);
    return err->rc;
}
