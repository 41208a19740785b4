/* A task of an archive, and the base beside it, open on all ranks for exports. */
#ifndef DZ_ARCHIVE_OPS_TASK_SOURCE_H
#define DZ_ARCHIVE_OPS_TASK_SOURCE_H

#include "decode/tile_decoder.h"
#include "parallel/world.h"

typedef struct dz_task_source {
    dz_archive *archive;
    const dz_task_entry *task;
    dz_checkpoint *base; /* NULL: not given */
    dz_decoder decoder;
    dz_buf scratch;
} dz_task_source;

/* Collective. `base` may be NULL. DZ_EUSAGE where the archive is of models without a base. Close it whatever is returned. */
dz_rc dz_task_source_open(const dz_world *world, const char *archive, const char *task, const char *base, dz_task_source *source,
                          dz_error *err);
void dz_task_source_close(dz_task_source *source);

/* All elements of a row's tensor, in its type. `out` has room for them. */
dz_rc dz_task_source_tensor(dz_task_source *source, const dz_index_row *row, uint8_t *out, dz_error *err);

/* Its delta (dz_tile_difference). */
dz_rc dz_task_source_delta(dz_task_source *source, const dz_index_row *row, float *out, dz_error *err);

/* May the directory `dir` get files whose first is `file`? If it has files already, `file` must be one that export wrote, and `force` set.
 */
dz_rc dz_task_source_check_folder(const char *dir, const char *file, int force, dz_error *err);

#endif
