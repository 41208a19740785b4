/* Kept elements with a value of their own (fp16) instead of a level: `dare` and `magnitude`, METHODS.md "Baselines". */
#ifndef DZ_CODEC_SPARSE_VALUES_H
#define DZ_CODEC_SPARSE_VALUES_H

#include "codec/sparse_levels.h"

/* Uniform random drop: every element with dz_u32_at(key, i) <= last is kept. `delta` has `count` elements. Appends the body. */
dz_rc dz_values_encode_seeded(dz_buf *out, const float *delta, size_t count, uint64_t key, uint32_t last, uint64_t *kept, dz_error *err);

/* The `keep` elements of largest |delta| (ties: the lower index), positions as Rice-coded gaps. Appends the body. */
dz_rc dz_values_encode_largest(dz_buf *out, const float *delta, size_t count, uint64_t keep, dz_error *err);

/* Decodes either: fills kept->index and kept->value. DZ_EDAMAGE if it is no such body. */
dz_rc dz_values_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, uint64_t key, size_t count, dz_error *err);

#endif
