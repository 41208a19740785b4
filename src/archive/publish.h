/* The last steps of whoever writes an archive. */
#ifndef DZ_ARCHIVE_PUBLISH_H
#define DZ_ARCHIVE_PUBLISH_H

#include "base/lock.h"
#include "base/staging.h"

/* Rank 0: the archive is this job's to write. A moment's patience with a job that is just ending. */
dz_rc dz_archive_lock(dz_lock *lock, const char *archive, dz_error *err);

/* Rank 0: the finished file must open as an archive before it gets its name. */
dz_rc dz_archive_check_and_publish(dz_staging *staging, dz_error *err);

#endif
