/* Bit-exact coding of one tile of a tensor, predicted by the same tile of the base. Bytes: FORMAT.md "Lossless bodies".
 *
 * A body is a kind byte and the data of that kind. The checksum is in the block around it. The same input gives the same bytes everywhere:
 * all choices are made in integers.
 */
#ifndef DZ_CODEC_LOSSLESS_H
#define DZ_CODEC_LOSSLESS_H

#include "base/dtype.h"
#include "base/mem.h"
#include "codec/lowrank.h"

typedef enum dz_lossless_kind {                             /* on disk, first byte of a body; never renumbered */
                                DZ_LOSSLESS_EQUAL = 16,     /* the base, unchanged */
                                DZ_LOSSLESS_RAW = 17,       /* the elements as they are */
                                DZ_LOSSLESS_PLANES = 18,    /* byte planes, of the XOR with the base or of the elements (codec/planes.h) */
                                DZ_LOSSLESS_CLASSES = 19,   /* differences in value order, coded in classes of the base (codec/classes.h) */
                                DZ_LOSSLESS_SPARSE = 20,    /* a map of the chunks that differ from the base, and their elements by one of
                                                               the other kinds */
                                DZ_LOSSLESS_INTERVALS = 21, /* floats by themselves: exponents and what is below (codec/intervals.h) */
                                DZ_LOSSLESS_NEAR = 22,      /* 16-bit floats near the base: classes for speed (codec/near.h); only read */
                                DZ_LOSSLESS_LOWRANK = 23,   /* against the base and a prediction of low rank (codec/lowrank.h), by one of
                                                               the kinds 17 to 19, 21, 22 and 25 */
                                DZ_LOSSLESS_COLUMNS = 24,   /* floats by themselves, in groups of columns (codec/columns.h), each by one of
                                                               the kinds 17, 18 and 21 */
                                DZ_LOSSLESS_CLOSE = 25      /* as NEAR, in the order of the elements (codec/close.h) */
} dz_lossless_kind;

/* Appends the coded body of `count` elements at `words` to `out`: at most one byte more than the elements. `base` has as many elements of
 * the same dtype, or is NULL. Neither need be aligned. `rows` says where the elements are in their tensor, or is NULL. On failure `out` may
 * hold a part of the body. */
dz_rc dz_lossless_encode(dz_buf *out, const void *words, const void *base, dz_dtype dtype, size_t count, const dz_tile_rows *rows,
                         dz_error *err);

/* The inverse: exactly `count` elements into `words`, which overlaps neither `base` nor `bytes`. DZ_EDAMAGE if the body does not decode to
 * them. Memory is bounded by a small multiple of `count`, whatever the bytes say. An altered body may decode to wrong elements without an
 * error; the block's checksum finds that. */
dz_rc dz_lossless_decode(void *words, const void *base, dz_dtype dtype, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err);

#endif
