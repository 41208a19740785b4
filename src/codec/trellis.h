/* A rotated tile (numeric/rotate.h) at a low rate: for each block the amplitude of its coefficients in 16 bits and the message that gives
 * their signs (numeric/trellis.h). No tables, and a fixed number of bits: a small tile costs a few bytes more than its message. Bytes:
 * FORMAT.md "Lossy tiles". */
#ifndef DZ_CODEC_TRELLIS_H
#define DZ_CODEC_TRELLIS_H

#include "base/mem.h"
#include "numeric/rotate.h"

enum {                           /* on disk: first byte of the body, beside those of codec/sparse_levels.h */
       DZ_BODY_TRELLIS = 7,      /* all blocks have the same rate */
       DZ_BODY_TRELLIS_EVEN = 11 /* each has bits of its own */
};

/* Fills `delta` with elements first to first + count - 1 of a tile. */
typedef void (*dz_delta_fill)(const void *tile, size_t first, size_t count, float *delta);

/* Appends the body of a tile of count > 0 elements, which `fill` gives. `rate`, bits a coefficient, as the index has it, above 0 and
 * at most 1. nonzeros: coefficients that are not restored as 0. DZ_EVALUE when the coefficients are not all finite, or too large for f32 in
 * the end. */
dz_rc dz_trellis_encode(dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, float rate, uint64_t *nonzeros,
                        dz_error *err);

/* The same with so many bits for each block that the noise is `noise` an element everywhere. */
dz_rc dz_trellis_encode_evenly(dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, double noise,
                               uint64_t *nonzeros, dz_error *err);

/* Bits of the messages of a tile of `count` elements. */
uint64_t dz_trellis_message_bits(size_t count, double rate);

/* The coefficients (count > 0) of the rotated tile, as dz_unrotate takes them; 0 is +0. DZ_EDAMAGE when it is not such a body; they are
 * undefined then. */
dz_rc dz_trellis_decode(const dz_blocks *to, const uint8_t *body, size_t nbytes, size_t count, float rate, dz_error *err);

#endif
