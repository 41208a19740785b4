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
    if (opt->one_file) /* an unmarked file may be an exact model's: looked at when its size is known */
        return opt->force && dz_target_of(opt->out) == DZ_TARGET_FILE ? DZ_OK
                                                                      : dz_overwrite_check(opt->out, DZ_TARGET_MODEL, opt->force, err);
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
    return dz_fail(err, DZ_EUSAGE, "%s: exists and is not of deltazoo restore: it is never replaced; choose another name", path);
}

/* The place of a file. The caller frees. */
static char *place_of(const dz_restore_job *r, size_t file, dz_error *err) {
    return r->one ? dz_strdup(r->opt->out, err) : dz_format(err, "%s/%s", r->opt->out, r->files[file].name);
}

/* Rank 0: --force replaces what an earlier restore has made, and nothing else: not what this one is made from, not an original. A file that
 * carries no mark may be an exact model's: it is replaced if it has the same bytes, which is looked at in the end. */
dz_rc dz_restore_check_replaced(dz_restore_job *r, dz_error *err) {
    dz_folder_mark earlier = {0};
    if (!r->one) earlier = dz_folder_mark_load(r->opt->out);
    for (size_t i = 0; i < r->nfiles && err->rc == DZ_OK; i++) {
        struct stat old, new;
        char *path = place_of(r, i, err);
        if (path && stat(path, &old) == 0) {
            dz_target kind = dz_target_of(path);
            if (dz_same_file(path, r->archive->path))
                dz_fail(err, DZ_EUSAGE, "%s: is the archive: nothing is written over it", path);
            else if (!r->base || dz_check_not_of_model(r->base, path, err) == DZ_OK)
                r->files[i].must_equal = kind != DZ_TARGET_MODEL && kind != DZ_TARGET_EMPTY &&
                                         !dz_folder_mark_lists(&earlier, r->files[i].name, (uint64_t)old.st_size);
            if (r->files[i].must_equal && (!S_ISREG(old.st_mode) || stat(r->files[i].path, &new) != 0 || old.st_size != new.st_size))
                cannot_replace(path, err);
        }
        free(path);
    }
    dz_folder_mark_free(&earlier);
    char *mark = r->one ? NULL : dz_format(err, "%s/" DZ_MARK_FILE, r->opt->out);
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
        char *path = r->files[i].must_equal ? place_of(r, i, err) : NULL;
        if (path) check_equal(path, r->files[i].path, err);
        free(path);
    }
    return err->rc;
}

/* Into a directory that has files, the files go one by one. */
static dz_rc publish_into(dz_restore_job *r, dz_error *err) {
    const char **names = dz_alloc(r->nfiles, sizeof *names, err);
    for (size_t i = 0; names && i < r->nfiles; i++) names[i] = r->files[i].name;
    if (names && dz_staging_publish_into(&r->staging, names, r->nfiles, err) == DZ_OK) dz_restore_drop_old_mark(r);
    free(names);
    return err->rc;
}

/* It was made in a folder of that name and .partial. */
static dz_rc publish_one(dz_restore_job *r, dz_error *err) {
    if (dz_staging_rename(r->files[0].path, r->staging.path, !r->opt->no_sync, err) == DZ_OK) {
        dz_remove_tree(r->staging.partial);
        r->staging.made = 0;
    }
    return err->rc;
}

/* Rank 0: DIR.partial becomes DIR. */
dz_rc dz_restore_publish(dz_restore_job *r, dz_error *err) {
    struct stat st;
    if (check_all_equal(r, err) != DZ_OK) return err->rc;
    if (r->one) return publish_one(r, err);
    int exists = lstat(r->staging.path, &st) == 0;
    if (!exists || (S_ISDIR(st.st_mode) && dz_target_of(r->staging.path) == DZ_TARGET_EMPTY))
        return dz_staging_publish(&r->staging, !r->opt->no_sync, err);
    return publish_into(r, err);
}
