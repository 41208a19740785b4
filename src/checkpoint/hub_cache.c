#include "checkpoint/hub_cache.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/listing.h"

#define REF_MAX 256 /* bytes */

static int is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The snapshot that refs/main names; NULL where there is none. */
static char *main_snapshot(const char *path, dz_error *err) {
    dz_error none = {0};
    char *ref = dz_format(err, "%s/refs/main", path), *text = NULL, *found = NULL;
    size_t len = 0;
    if (ref && dz_read_file(ref, REF_MAX, &text, &len, &none) == DZ_OK) {
        while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' ')) len--;
        if (len > 0 && !memchr(text, '/', len)) found = dz_format(err, "%s/snapshots/%.*s", path, (int)len, text);
    }
    if (found && !is_directory(found)) {
        free(found);
        found = NULL;
    }
    free(ref);
    free(text);
    return found;
}

static char *only_snapshot(const char *path, const char *snapshots, dz_error *err) {
    dz_listing list = {0};
    const dz_entry *found = NULL;
    size_t n = 0;
    char *out = NULL;
    dz_listing_read(snapshots, &list, err);
    for (size_t i = 0; i < list.n; i++) {
        if (!list.entries[i].is_dir) continue;
        found = &list.entries[i];
        n++;
    }
    if (n == 1)
        out = dz_format(err, "%s/%s", snapshots, found->name);
    else
        dz_fail(err, DZ_EFAIL, "%s: a model of the hub's cache with %zu snapshots and no refs/main: name one of %s", path, n, snapshots);
    dz_listing_free(&list);
    return out;
}

char *dz_hub_snapshot(const char *path, dz_error *err) {
    char *snapshots = dz_format(err, "%s/snapshots", path), *refs = dz_format(err, "%s/refs", path), *out = NULL;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    size_t begin = len;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    int is_cache = strncmp(path + begin, "models--", strlen("models--")) == 0 || (refs && is_directory(refs));
    if (snapshots && is_cache && is_directory(snapshots)) {
        out = main_snapshot(path, err);
        if (!out && err->rc == DZ_OK) out = only_snapshot(path, snapshots, err);
    } else if (snapshots && refs) {
        out = dz_strdup(path, err);
    }
    free(snapshots);
    free(refs);
    return out;
}
