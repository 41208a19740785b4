/* A rotated tile (numeric/rotate.h) with a level for every coefficient (numeric/uniform_quantiser.h): for rates of about 0.8 bits an
 * element and more, where codec/sparse_signs.h costs more for the same noise. Each block's standard deviation in 16 bits, then all levels
 * in one stream: rANS with the lowest bits apart, as they are, where steps are small; or Rice codes, where tables and states would cost
 * more. */
#ifndef DZ_CODEC_UNIFORM_H
#define DZ_CODEC_UNIFORM_H

#include "base/mem.h"
#include "codec/kinds.h"
#include "numeric/rotate.h"

#define DZ_BODY_UNIFORM 6 /* on disk: first byte of the body, beside those of codec/sparse_levels.h */

/* Appends the body of a tile. `delta` (count > 0 elements) comes back rotated. `step` and `shift` as the index has them: finite, step
 * within DZ_UNIFORM_STEP_LEAST and _MOST, shift in [0, 1). nonzeros: coefficients that are not restored as 0. DZ_EVALUE when the
 * coefficients are not all finite, or beyond what f32 can hold in the end. */
dz_rc dz_uniform_encode(dz_buf *out, float *delta, size_t count, uint64_t key, float step, float shift, uint64_t *nonzeros, dz_error *err);

/* The coefficients (count > 0) of the rotated tile, as dz_unrotate takes them. What is restored as 0 is +0, anything else is not 0.
 * DZ_EDAMAGE when it is not such a body; they are undefined then. */
dz_rc dz_uniform_decode(const dz_blocks *to, const uint8_t *body, size_t nbytes, size_t count, float step, float shift, dz_error *err);

#endif
