/* Tensors that several tasks have are stored once: the others refer to the one that is stored (FORMAT.md "Index"). */
#ifndef DZ_COMPRESS_SHARE_H
#define DZ_COMPRESS_SHARE_H

#include "archive/catalog.h"
#include "base/lookup.h"

/* A row with bytes of its own. */
typedef struct dz_holder {
    uint32_t task, row; /* numbers in the catalog */
} dz_holder;

typedef struct dz_share {   /* zero-initialise; free with dz_share_free */
    dz_lookup exact, lossy; /* by digest, type and shape of the original */
    dz_holder *holders;
    size_t nholders, cap;
} dz_share;

/* Makes the rows of a task known. */
dz_rc dz_share_add_task(dz_share *share, const dz_catalog *catalog, size_t task, dz_error *err);

/* Makes one row known, if it has bytes and a digest. */
dz_rc dz_share_add(dz_share *share, const dz_catalog *catalog, size_t task, size_t row, dz_error *err);

/* Whether the row of `task`, which is complete, can be restored from another task's, and no worse: of the same original, against the same
 * tensor of the base, exact, or if this row is lossy with no more noise and the same gamma. Then it becomes equal to that one, without
 * bytes. Returns 1 if it does. */
int dz_share_row(const dz_share *share, const dz_catalog *catalog, dz_task_entry *task, dz_index_row *row, dz_error *err);

void dz_share_free(dz_share *share);

#endif
