/* Floats without a base: the exponent and the top of the mantissa by rANS, the rest as it is (METHODS.md "Floats by themselves").
 *
 * The key of an element is the top of its magnitude: the exponent and up to three bits of the mantissa. Keys that are rare are joined with
 * their neighbours to intervals of 2^x keys. A symbol is an interval; x bits of the key, the sign and the lower bits of the mantissa follow
 * as they are.
 */
#ifndef DZ_CODEC_INTERVALS_H
#define DZ_CODEC_INTERVALS_H

#include "base/dtype.h"
#include "base/mem.h"

/* 1 if elements of `dtype` can be coded this way. */
int dz_intervals_fit(dz_dtype dtype);

/* The body of DZ_LOSSLESS_INTERVALS after its kind byte; 0 < count <= DZ_RANS_MAX. */
dz_rc dz_intervals_encode(dz_buf *out, const void *words, dz_dtype dtype, size_t count, dz_error *err);
/* The bytes that dz_intervals_encode will append, about. */
dz_rc dz_intervals_estimate(size_t *nbytes, const void *words, dz_dtype dtype, size_t count, dz_error *err);

dz_rc dz_intervals_decode(void *words, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

#endif
