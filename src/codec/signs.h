/* A rotated tile (numeric/rotate.h): in each block where the coefficients beyond a threshold lie, their signs, and the block's standard
 * deviation. No tables, no states: a small tile costs a few bytes more than its bits. */
#ifndef DZ_CODEC_SIGNS_H
#define DZ_CODEC_SIGNS_H

#include "codec/kept.h"

/* Appends the body of a tile. `delta` (count elements) comes back rotated; kept are the coefficients beyond `threshold` standard deviations
 * of their block. signs[0]: how many of them are negative, signs[1]: positive. */
dz_rc dz_signs_encode(dz_buf *out, float *delta, size_t count, uint64_t key, double threshold, uint64_t signs[2], dz_error *err);

/* Fills kept->index, kept->level (0 negative, 1 positive) and kept->value: the block's standard deviation times its elements over its kept
 * ones, with the sign. DZ_EDAMAGE when it is not such a body. */
dz_rc dz_signs_decode(dz_kept *kept, const uint8_t *body, size_t nbytes, size_t count, dz_error *err);

#endif
