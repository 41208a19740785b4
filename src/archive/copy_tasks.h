/* Tasks that an archive has already, on their way into its next version: an archive is never changed in place, a new file with the old
 * tasks' bytes takes its name. */
#ifndef DZ_ARCHIVE_COPY_TASKS_H
#define DZ_ARCHIVE_COPY_TASKS_H

#include "archive/reader.h"
#include "parallel/extent_writer.h"

typedef struct dz_copy_tasks {
    dz_archive *old; /* NULL: nothing is carried */
    uint8_t *leave;  /* [old tasks] not taken along */
    size_t ntasks;   /* carried */
} dz_copy_tasks;

/* Collective. Opens the archive; all its tasks are to be carried. */
dz_rc dz_copy_tasks_open(dz_copy_tasks *copied, const dz_world *world, const char *path, dz_error *err);
void dz_copy_tasks_close(dz_copy_tasks *copied);

/* Leaves a task out. 0 when the archive has none of this name. */
int dz_copy_tasks_leave(dz_copy_tasks *copied, const char *task);

/* Rank 0: fills an empty catalog with the old one's base and carried tasks, in their order, and with nothing that only others needed. Room
 * for `more` further tasks. */
dz_rc dz_copy_tasks_catalog(const dz_copy_tasks *copied, dz_catalog *catalog, size_t more, dz_error *err);

/* Collective. Tells all ranks where the carried payloads go in the laid-out file (`catalog`: rank 0's) and copies this rank's share. */
dz_rc dz_copy_tasks_payloads(const dz_copy_tasks *copied, const dz_world *world, const dz_catalog *catalog, dz_extent_writer *writer,
                             dz_error *err);

#endif
