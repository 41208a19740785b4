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

static dz_rc sync_file(const char *path, dz_error *err) {
    int fd = dz_open(path, O_RDWR);
    if (fd < 0 || dz_fsync(fd) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return err->rc;
}

dz_rc dz_archive_check_and_publish(dz_staging *staging, dz_error *err) {
    dz_archive *archive = NULL;
    dz_rc rc = dz_archive_open(staging->partial, &archive, err);
    dz_archive_close(archive);
    if (rc != DZ_OK || (rc = sync_file(staging->partial, err)) != DZ_OK) return rc;
    return dz_staging_publish(staging, 1, err);
}
