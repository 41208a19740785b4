/* Lossy tiles that are rotated (numeric/rotate.h): what their blocks stand for, one block of coefficients after the other, so that all
 * steps from code to restored elements find it in the second-level cache. */
#ifndef DZ_DECODE_ROTATED_H
#define DZ_DECODE_ROTATED_H

#include "decode/tile_decoder.h"

/* Where a tile's elements go. */
typedef struct dz_rotated {
    size_t count;        /* elements of the tile */
    const uint8_t *base; /* what it is coded against, in type `from`; the sums go to `out`, in type `to` */
    uint8_t *out;        /* to == DZ_F64: holds the base's values already */
    dz_dtype from, to;
    float *delta; /* with base NULL: the changes go here */
    int any;      /* result: 0 if no coefficient is kept: the tile is what it is coded against, and `out` was not written to any use */
} dz_rotated;

/* Restores the tile whose block is in the decoder. The error says what is wrong with the block, not which it is. */
dz_rc dz_rotated_restore(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, dz_rotated *to,
                         dz_error *err);

/* How many coefficients are not 0, into decoder->kept.count. */
dz_rc dz_rotated_count(dz_decoder *decoder, const dz_task_entry *task, const dz_index_row *row, uint32_t tile, size_t count, dz_error *err);

#endif
