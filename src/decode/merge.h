/* Task arithmetic from the archive: base + sum of weight * delta over several tasks (Ilharco et al., arXiv 2212.04089), tile by tile. */
#ifndef DZ_DECODE_MERGE_H
#define DZ_DECODE_MERGE_H

#include "decode/tile_decoder.h"

typedef struct dz_merge {
    const dz_task_entry **tasks; /* the first one gives names, types and what cannot be merged */
    double *weights;
    size_t ntasks;
    int sign_consensus; /* only deltas whose sign is that of the weighted sum count (after TIES, arXiv 2306.01708) */
    dz_buf sum, elected, delta, exact;
} dz_merge;

void dz_merge_free(dz_merge *merge);

/* True when there is nothing to add up: one task, with weight 1. */
int dz_merge_is_plain(const dz_merge *merge);

/* The delta of a tile of floats, in double: of a lossy one the restored delta, else the exact difference from the base; of what the base
 * has not, the values themselves. `out` has a place for each element. */
dz_rc dz_tile_difference(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_buf *scratch,
                         double *out, dz_error *err);

/* The tile of a row of the first task, merged, in its type. The delta of a lossy tensor is the restored one, that of another tensor of
 * floats its exact difference from the base; a task that has no tensor of this name and shape adds nothing. What the base has not, and what
 * is no float, is the first task's. Sums are in double and rounded once. */
dz_rc dz_merge_tile(dz_merge *merge, dz_decoder *decoder, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

#endif
