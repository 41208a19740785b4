/* Last stage: the catalog, the laid-out file, every rank's ranges, the rename. */
#ifndef DZ_COMPRESS_ASSEMBLE_H
#define DZ_COMPRESS_ASSEMBLE_H

#include "compress/gammas.h"

/* All results that an archive is made from. */
typedef struct dz_results {
    const dz_stats *stats;
    const dz_lossy_plan *lossy;
    const dz_allocation *allocation;
    const dz_block_table *blocks;
    const dz_gammas *gammas;
} dz_results;

/* Collective. Rank 0: the catalog and the laid-out file NAME.partial. `*catalog` stays NULL on the other ranks; an earlier one is freed.
 * No tensor is shared in it: a target ratio is of each task by itself. */
dz_rc dz_assemble_layout(dz_context *ctx, const dz_results *results, dz_catalog **catalog, dz_error *err);

/* Collective. Layout, payloads, read back, rename. */
dz_rc dz_assemble(dz_context *ctx, const dz_results *results, dz_catalog **catalog, dz_error *err);

#endif
