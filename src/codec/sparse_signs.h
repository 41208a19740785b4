/* A rotated tile (numeric/rotate.h): place and sign of the largest coefficient of each section of a block (numeric/gauss.h), and the
 * block's standard deviation. It needs no tables: a small tile costs a few bytes more than its bits. Bytes: FORMAT.md "Lossy tiles". */
#ifndef DZ_CODEC_SPARSE_SIGNS_H
#define DZ_CODEC_SPARSE_SIGNS_H

#include "codec/sparse_levels.h"

/* Appends the body of a tile. `delta` (count > 0 elements) is overwritten by its rotation. A block of n elements has share * n sections,
 * rounded, at least 1 and at most n. signs[0]: number of kept coefficients that are negative or 0; signs[1]: positive. */
dz_rc dz_signs_encode(dz_buf *out, float *delta, size_t count, uint64_t key, double share, uint64_t signs[2], dz_error *err);

/* Bits of the places and signs of a tile of `count` elements: what the body takes but for its head, to within a section a block. */
double dz_signs_bits(size_t count, double share);

/* Fills kept->index, kept->level (0 negative, 1 positive) and kept->value: the block's standard deviation times its elements over its kept
 * ones, with the sign. DZ_EDAMAGE when it is not such a body. */
dz_rc dz_signs_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, size_t count, double share, dz_error *err);

#endif
