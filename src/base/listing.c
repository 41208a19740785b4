#include "base/listing.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int by_name(const void *x, const void *y) { return strcmp(((const dz_entry *)x)->name, ((const dz_entry *)y)->name); }

void dz_listing_free(dz_listing *l) {
    for (size_t i = 0; i < l->n; i++) free(l->entries[i].name);
    free(l->entries);
    *l = (dz_listing){0};
}

/* What the directory itself says is a file or a directory is not asked for more: there may be millions. */
static void look_at(const char *dir, const struct dirent *d, dz_entry *e, dz_error *err) {
    struct stat st;
    e->is_dir = d->d_type == DT_DIR;
    e->is_file = d->d_type == DT_REG;
    if (d->d_type != DT_LNK && d->d_type != DT_UNKNOWN) return;
    char *path = dz_format(err, "%s/%s", dir, d->d_name);
    if (!path) return;
    if (lstat(path, &st) != 0) e->error = errno;
    e->is_link = e->error == 0 && S_ISLNK(st.st_mode);
    if (e->is_link && stat(path, &st) != 0) e->error = errno;
    e->is_dir = e->error == 0 && S_ISDIR(st.st_mode);
    e->is_file = e->error == 0 && S_ISREG(st.st_mode);
    free(path);
}

int dz_listing_read(const char *path, dz_listing *out, dz_error *err) {
    DIR *dir = opendir(path);
    if (!dir) return errno;
    int failed = 0;
    while (err->rc == DZ_OK) {
        errno = 0;
        const struct dirent *d = readdir(dir);
        if (!d) {
            failed = errno;
            break;
        }
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        if (dz_grow((void **)&out->entries, &out->cap, out->n + 1, sizeof *out->entries, err) != DZ_OK) break;
        dz_entry *e = &out->entries[out->n];
        *e = (dz_entry){.name = dz_strdup(d->d_name, err)};
        if (!e->name) break;
        out->n++;
        look_at(path, d, e, err);
    }
    closedir(dir);
    if (out->n) qsort(out->entries, out->n, sizeof *out->entries, by_name);
    return failed;
}

static int by_entry_name(const void *name, const void *entry) { return strcmp(name, ((const dz_entry *)entry)->name); }

const dz_entry *dz_listing_find(const dz_listing *l, const char *name) {
    return l->n ? bsearch(name, l->entries, l->n, sizeof *l->entries, by_entry_name) : NULL;
}
