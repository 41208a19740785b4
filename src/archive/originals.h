/* Is a model, as it is on disk now, the one that a task was made from? By content: names, headers, side files, and the digest of every
 * tensor (FORMAT.md "Index") but dropped ones. */
#ifndef DZ_ARCHIVE_ORIGINALS_H
#define DZ_ARCHIVE_ORIGINALS_H

#include "archive/catalog.h"
#include "parallel/progress.h"

typedef enum dz_original {
    DZ_ORIGINAL_SAME,
    DZ_ORIGINAL_CHANGED,
    DZ_ORIGINAL_UNKNOWN /* the archive has no digests of it: it was made by an earlier version */
} dz_original;

#define DZ_ORIGINAL_WHY 512

/* Collective. Reads the model once, each rank a share of its tiles; not at all where headers or files show it. `model` is as it was loaded:
 * not split (checkpoint.h), on all ranks. `progress` (or NULL) gets the bytes that are read and may ask to stop. `*state` and `why` (what
 * differs;
 * "" when it is the same) are alike on every rank. */
dz_rc dz_original_check(const dz_world *world, const dz_catalog *catalog, const dz_task_entry *task, dz_checkpoint *model,
                        dz_progress *progress, dz_original *state, char why[DZ_ORIGINAL_WHY], dz_error *err);

/* Collective. The same for the base: its tensors, whatever files they are in. */
dz_rc dz_original_base_check(const dz_world *world, const dz_catalog *catalog, dz_checkpoint *base, dz_original *state,
                             char why[DZ_ORIGINAL_WHY], dz_error *err);

#endif
