/* out[i] = task type of (base + delta of its level), at the kept places. The sum is taken from the base's own value: in float, for an F64
 * task in double, so that nothing of an F64 base is lost. */
#ifndef DZ_DECODE_ADD_KEPT_H
#define DZ_DECODE_ADD_KEPT_H

#include "base/dtype.h"
#include "codec/sparse_levels.h"

/* Places `first` .. `end` - 1 of the tile, which `base` and `out` begin at; they may be the same. From kept element k on; the next one. */
typedef struct dz_stretch {
    const uint8_t *base;
    uint8_t *out;
    dz_dtype from, to;
    size_t first, end, k;
} dz_stretch;

/* Adds delta[level] of each kept element, or with `values` scale * its value. Returns the number of the next kept element. */
size_t dz_add_kept(const dz_nonzeros *kept, const dz_stretch *stretch, const float *delta, float scale, int values);

#endif
