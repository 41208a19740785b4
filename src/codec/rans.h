/* Order-0 rANS over bytes, by htscodecs (METHODS.md "rANS"). Streams hold neither count nor checksum: the block around them does. */
#ifndef DZ_CODEC_RANS_H
#define DZ_CODEC_RANS_H

#include "base/mem.h"

#define DZ_RANS_MAX ((size_t)1 << 28) /* symbols in one stream: htscodecs counts in 32 bits */

/* Appends the coded stream of `count` symbols to `out`; never longer than count + 8 bytes. An empty input appends nothing. */
dz_rc dz_rans_encode(dz_buf *out, const uint8_t *symbols, size_t count, dz_error *err);

/* Decodes exactly `count` symbols from `nbytes` bytes into `symbols`. DZ_EDAMAGE if the stream does not hold them. */
dz_rc dz_rans_decode(uint8_t *symbols, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err);

typedef struct dz_rans_stream {
    uint8_t *symbols; /* where `count` of them go */
    size_t count;
    const uint8_t *bytes;
    size_t nbytes;
} dz_rans_stream;

/* The same of `n` streams, two at a time, which takes less time than one after the other. */
dz_rc dz_rans_decode_streams(const dz_rans_stream *streams, size_t n, dz_error *err);

#endif
