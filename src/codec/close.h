/* 16-bit floats close to their base, for speed: differences in classes by the base's exponent, as a number of 0 to 15 and plain low bits
 * (METHODS.md "Close to the base"). A third of the time of codec/classes.h or less, for up to 2 % more bytes.
 *
 * A class has its own number of plain bits and its own frequencies of the numbers, which are coded in the order of the elements, by rANS of
 * 128 states (numeric/close.h). What does not fit a number is an escape. The elements of exponents that have no class, rare ones and those
 * whose differences are wide, are coded by codec/classes.h.
 */
#ifndef DZ_CODEC_CLOSE_H
#define DZ_CODEC_CLOSE_H

#include "base/dtype.h"
#include "base/mem.h"

/* A body is not made where more than 2 % more bytes than by codec/classes.h are expected, */
typedef enum dz_close_when {
    DZ_CLOSE_AFTER_CLASSES, /* which are known to be the best of other codings */
    DZ_CLOSE_IF_SURE,       /* nor where another coding could be better: where an element takes more than about half of its bits */
    DZ_CLOSE_ANYWAY         /* for tests: tables are taken to cost nothing */
} dz_close_when;

/* The body of DZ_LOSSLESS_CLOSE after its kind byte. Where `*taken` is 0, nothing was appended. */
dz_rc dz_close_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, dz_close_when when, int *taken,
                      dz_error *err);
dz_rc dz_close_decode(void *words, const void *base, dz_dtype dtype, size_t count, dz_view *view, dz_error *err);

#endif
