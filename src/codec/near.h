/* 16-bit floats close to their base, for speed: differences in classes by the base's exponent, as a number of 0 to 15 and plain low bits
 * (METHODS.md "Near the base"). Only read: codec/close.h has taken its place; written by tests.
 *
 * A class has its own number of plain bits, and a rANS stream of its numbers, two in a byte. What does not fit a number is an escape. The
 * elements of exponents that have no class, rare ones and those whose differences are wide, are coded by codec/classes.h.
 */
#ifndef DZ_CODEC_NEAR_H
#define DZ_CODEC_NEAR_H

#include "base/dtype.h"
#include "base/mem.h"

/* The body of DZ_LOSSLESS_NEAR after its kind byte. `*taken` is 0, and nothing was appended, where more than 2 % more bytes than by
 * codec/classes.h are expected; with `anyway` tables are taken to cost nothing, for tests. */
dz_rc dz_near_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, int anyway, int *taken, dz_error *err);
dz_rc dz_near_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

#endif
