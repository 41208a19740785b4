/* Where a restored model is made, and how it takes its place. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/overwrite.h"
#include "config/zoo.h"
#include "restore/job.h"

dz_rc dz_restore_check_output(const dz_restore_options *opt, dz_error *err) {
    DIR *dir = opendir(opt->out);
    int entries = 0;
    if (!dir && errno != ENOENT) return dz_fail(err, DZ_EUSAGE, "%s: exists and is not a directory that can be read", opt->out);
    for (struct dirent *e; dir && (e = readdir(dir));) entries += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir) closedir(dir);
    if (entries && !opt->force)
        return dz_fail(err, DZ_EUSAGE, "%s: exists and is not empty (--force replaces an earlier restore's files)", opt->out);
    return DZ_OK;
}

static dz_rc cannot_replace(const char *path, dz_error *err) {
    return dz_fail(err, DZ_EUSAGE, "%s: exists and is not of deltazoo restore: it is never replaced; restore into another folder", path);
}

/* Rank 0: --force replaces what an earlier restore has made, and nothing else: not what this one is made from, not an original. A file that
 * carries no mark may be an exact model's: it is replaced if it has the same bytes, which is looked at in the end. */
dz_rc dz_restore_check_replaced(dz_restore_job *r, dz_error *err) {
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        struct stat old, new;
        char *path = dz_format(err, "%s/%s", r->opt->out, r->files[i].name);
        if (path && stat(path, &old) == 0) {
            dz_target kind = dz_target_of(path);
            if (dz_same_file(path, r->archive->path))
                dz_fail(err, DZ_EUSAGE, "%s: is the archive: nothing is written over it", path);
            else if (dz_check_not_of_model(r->base, path, err) == DZ_OK)
                r->files[i].must_equal = kind != DZ_TARGET_MODEL && kind != DZ_TARGET_EMPTY &&
                                         !dz_mark_lists(r->opt->out, r->files[i].name, (uint64_t)old.st_size);
            if (r->files[i].must_equal && (!S_ISREG(old.st_mode) || stat(r->files[i].path, &new) != 0 || old.st_size != new.st_size))
                cannot_replace(path, err);
        }
        free(path);
    }
    char *mark = dz_format(err, "%s/" DZ_MARK_FILE, r->opt->out);
    if (mark && access(mark, F_OK) == 0 && !dz_mark_is_file(mark) && err->rc == DZ_OK) cannot_replace(mark, err);
    free(mark);
    return err->rc;
}

#define COMPARED ((size_t)1 << 20)

static dz_rc check_equal(const char *old, const char *new, dz_error *err) {
    struct stat st;
    uint8_t *a = dz_alloc_raw(COMPARED, 1, err), *b = dz_alloc_raw(COMPARED, 1, err);
    int x = dz_open(old, O_RDONLY), y = dz_open(new, O_RDONLY);
    if (x < 0 || y < 0 || fstat(x, &st) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", old, strerror(errno));
    for (uint64_t at = 0; err->rc == DZ_OK && at < (uint64_t)st.st_size; at += COMPARED) {
        size_t len = (uint64_t)st.st_size - at < COMPARED ? (size_t)((uint64_t)st.st_size - at) : COMPARED;
        if (dz_pread_all(x, old, a, len, at, err) == DZ_OK && dz_pread_all(y, new, b, len, at, err) == DZ_OK && memcmp(a, b, len) != 0)
            cannot_replace(old, err);
    }
    if (x >= 0) close(x);
    if (y >= 0) close(y);
    free(a);
    free(b);
    return err->rc;
}

/* Rank 0: before the first file takes its place. */
static dz_rc check_all_equal(const dz_restore_job *r, dz_error *err) {
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        char *path = r->files[i].must_equal ? dz_format(err, "%s/%s", r->opt->out, r->files[i].name) : NULL;
        if (path) check_equal(path, r->files[i].path, err);
        free(path);
    }
    return err->rc;
}

#define MARKER ".deltazoo-restore" /* in a directory that a restore is filling: what has it may be removed */

static char *marker_path(const dz_restore_job *r, dz_error *err) { return dz_format(err, "%s/%s", r->partial, MARKER); }

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

/* Rank 0: an empty, marked DIR.partial. One left by a killed restore is removed; anything else of that name is refused. */
dz_rc dz_restore_make_partial(dz_restore_job *r, dz_error *err) {
    char *marker = marker_path(r, err);
    if (!marker) return err->rc;
    for (size_t len = strlen(r->partial); len > 0; len--) { /* the first ancestor that exists: what is below it is ours to remove again */
        if (r->partial[len] != '/') continue;
        r->partial[len] = '\0';
        int exists = access(r->partial, F_OK) == 0;
        r->partial[len] = '/';
        r->kept_prefix = len;
        if (exists) break;
        r->kept_prefix = 0;
    }
    if (access(r->partial, F_OK) == 0 && access(marker, F_OK) != 0) {
        dz_fail(err, DZ_EUSAGE, "%s: exists and is not a restore's leftover; remove it first", r->partial);
    } else {
        dz_remove_tree(r->partial);
        r->made = 1;
        if (make_own_dir(r->partial, err) == DZ_OK) {
            int fd = dz_open(marker, O_WRONLY | O_CREAT | O_EXCL);
            if (fd < 0)
                dz_fail(err, DZ_EFAIL, "%s: cannot create: %s", marker, strerror(errno));
            else
                close(fd);
        }
    }
    free(marker);
    return err->rc;
}

/* Rank 0: removes what a failed restore made, and the directories above it that were not there before. */
void dz_restore_remove_partial(dz_restore_job *r) {
    dz_remove_tree(r->partial);
    for (size_t len = strlen(r->partial); len > r->kept_prefix; len--) {
        if (r->partial[len] != '/') continue;
        r->partial[len] = '\0';
        int rc = rmdir(r->partial);
        r->partial[len] = '/';
        if (rc != 0) return;
    }
}

/* Rank 0: DIR.partial becomes DIR; into a directory that has files, file by file. */
dz_rc dz_restore_publish(dz_restore_job *r, dz_error *err) {
    char *marker = marker_path(r, err);
    if (check_all_equal(r, err) == DZ_OK && marker) unlink(marker);
    free(marker);
    if (err->rc != DZ_OK) return err->rc;
    if (dz_rename(r->partial, r->opt->out) == 0) return r->opt->no_sync ? DZ_OK : dz_fsync_parent(r->opt->out, err);
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        const char *name = r->files[i].name;
        char *from = dz_format(err, "%s/%s", r->partial, name), *to = dz_format(err, "%s/%s", r->opt->out, name),
             *slash = to ? strrchr(to, '/') : NULL;
        if (slash) {
            *slash = '\0';
            dz_make_dirs(to, err);
            *slash = '/';
        }
        if (err->rc == DZ_OK && dz_rename(from, to) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot rename to %s: %s", from, to, strerror(errno));
        free(from);
        free(to);
    }
    if (err->rc == DZ_OK) dz_restore_drop_old_mark(r);
    if (err->rc == DZ_OK) dz_remove_tree(r->partial);
    return err->rc;
}
