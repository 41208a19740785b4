#include "archive/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/reader.h"
#include "base/file.h"

#define LOCK_PATIENCE 5.0 /* seconds */

dz_rc dz_archive_lock(dz_lock *lock, const char *archive, dz_error *err) {
    char *path = dz_format(err, "%s.lock", archive);
    if (path) dz_lock_take(lock, path, LOCK_PATIENCE, err);
    free(path);
    return err->rc;
}

/* Syncs `partial`, renames it to `path`, syncs the directory. */
static dz_rc publish(const char *partial, const char *path, dz_error *err) {
    int fd = dz_open(partial, O_RDWR);
    if (fd < 0 || dz_fsync(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", partial, strerror(errno));
    if (fd >= 0) close(fd);
    if (err->rc == DZ_OK && dz_rename(partial, path) != 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot rename to %s: %s", partial, path, strerror(errno));
    return err->rc == DZ_OK ? dz_fsync_parent(path, err) : err->rc;
}

dz_rc dz_archive_check_and_publish(const char *partial, const char *path, dz_error *err) {
    dz_archive *archive = NULL;
    dz_rc rc = dz_archive_open(partial, &archive, err);
    dz_archive_close(archive);
    return rc == DZ_OK ? publish(partial, path, err) : rc;
}
