/* Task arithmetic from the archive: base + sum of weight * delta over several tasks (Ilharco et al., arXiv 2212.04089), tile by tile. */
#ifndef DZ_DECODE_MERGE_H
#define DZ_DECODE_MERGE_H

#include "decode/tile_decoder.h"

typedef struct dz_merge {
    const dz_task_entry **tasks; /* the first one gives names, types and everything that cannot be merged */
    double *weights;
    size_t ntasks;
    dz_lookup *rows;    /* [tasks] by name; made when the first tile is merged */
    int sign_consensus; /* add only deltas with the sign of the weighted sum (METHODS.md "Merging") */
    dz_buf sum, elected, delta, exact;
} dz_merge;

void dz_merge_free(dz_merge *merge);

/* 1 if nothing needs to be added: one task with weight 1. */
int dz_merge_is_plain(const dz_merge *merge);

/* The delta of a tile of floats, in double: the restored delta of a lossy tile, else the exact difference from the base; without a base
 * tensor, the values themselves. `out` has as many entries as the tile elements. */
dz_rc dz_tile_difference(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_buf *scratch,
                         double *out, dz_error *err);

/* The merged tile of a row of the first task, in its type. Deltas are those of dz_tile_difference. A task without a tensor of this name
 * adds nothing; of one with other rows those of the base are added. Elements beyond the base, and types that are not floats, are the first
 * task's. Sums are in double and rounded once.
 */
dz_rc dz_merge_tile(dz_merge *merge, dz_decoder *decoder, const dz_index_row *row, uint32_t tile, void *out, dz_error *err);

/* A tile of floats that the base has too, in another type. */
dz_rc dz_merge_tile_as(dz_merge *merge, dz_decoder *decoder, const dz_index_row *row, uint32_t tile, dz_dtype to, void *out, dz_error *err);

#endif
