#include "compress/publish.h"

#include <stdlib.h>

#include "archive/reader.h"
#include "archive/writer.h"

#define LOCK_PATIENCE 5.0 /* seconds */

dz_rc dz_archive_lock(dz_lock *lock, const char *archive, dz_error *err) {
    char *path = dz_format(err, "%s.lock", archive);
    if (path) dz_lock_take(lock, path, LOCK_PATIENCE, err);
    free(path);
    return err->rc;
}

dz_rc dz_archive_check_and_publish(const char *partial, const char *path, dz_error *err) {
    dz_archive *archive = NULL;
    dz_rc rc = dz_archive_open(partial, &archive, err);
    dz_archive_close(archive);
    return rc == DZ_OK ? dz_archive_publish(partial, path, err) : rc;
}
