/* Rice-coded gaps between ascending positions: gap = q * 2^k + r, q in unary (ones, then a zero), r in k bits; bits fill bytes from the
 * lowest. METHODS.md "Rice codes of positions". */
#ifndef DZ_CODEC_GOLOMB_H
#define DZ_CODEC_GOLOMB_H

#include "base/mem.h"

/* The k that codes `kept` random positions of `count` in the fewest bits on average. */
unsigned dz_rice_parameter(size_t count, size_t kept);

dz_rc dz_rice_encode(dz_buf *out, const uint32_t *positions, size_t n, unsigned parameter, dz_error *err);

/* Decodes `n` positions. DZ_EDAMAGE if the bits do not hold `n` ascending positions below `count`. */
dz_rc dz_rice_decode(uint32_t *positions, size_t n, unsigned parameter, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err);

#endif
