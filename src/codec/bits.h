/* Bit fields of up to 32 bits, lowest bit first, that fill bytes from the lowest bit; the last byte is filled with zeros. */
#ifndef DZ_CODEC_BITS_H
#define DZ_CODEC_BITS_H

#include <string.h>

#include "base/mem.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fields are read and written in little-endian words"
#endif

typedef struct dz_bit_writer {
    dz_buf *out;
    uint64_t bits;
    unsigned used;
    dz_error *err;
} dz_bit_writer;

static inline void dz_put_bits(dz_bit_writer *w, uint32_t value, unsigned n) {
    w->bits |= (uint64_t)value << w->used;
    w->used += n;
    if (w->used < 32) return;
    const uint8_t bytes[4] = {(uint8_t)w->bits, (uint8_t)(w->bits >> 8), (uint8_t)(w->bits >> 16), (uint8_t)(w->bits >> 24)};
    dz_buf_put(w->out, bytes, sizeof bytes, w->err);
    w->bits >>= 32;
    w->used -= 32;
}

/* A Rice code: number >> k ones, a zero, the k low bits. */
static inline void dz_put_rice(dz_bit_writer *w, uint32_t number, unsigned k) {
    uint32_t ones = number >> k;
    for (; ones >= 16; ones -= 16) dz_put_bits(w, 0xffff, 16);
    dz_put_bits(w, (1U << ones) - 1, ones + 1);
    dz_put_bits(w, number & (uint32_t)(((uint64_t)1 << k) - 1), k);
}

/* The last bytes; nothing is put after it. */
static inline dz_rc dz_end_bits(dz_bit_writer *w) {
    for (; w->used; w->used -= w->used < 8 ? w->used : 8, w->bits >>= 8) {
        uint8_t byte = (uint8_t)w->bits;
        dz_buf_put(w->out, &byte, 1, w->err);
    }
    return w->err->rc;
}

typedef struct dz_bit_reader {
    const uint8_t *bytes;
    uint64_t pos, end; /* in bits; past the end bits read as 0, and pos > end */
} dz_bit_reader;

static inline unsigned dz_get_bit(dz_bit_reader *r) {
    unsigned bit = r->pos < r->end ? ((unsigned)r->bytes[r->pos / 8] >> (r->pos % 8)) & 1U : 0;
    r->pos++;
    return bit;
}

/* n <= 32. */
static inline uint32_t dz_get_bits(dz_bit_reader *r, unsigned n) {
    uint32_t value = 0;
    if (r->pos + 64 <= r->end) { /* 8 whole bytes are left from here */
        uint64_t held;
        memcpy(&held, r->bytes + r->pos / 8, sizeof held);
        value = (uint32_t)(held >> r->pos % 8 & (((uint64_t)1 << n) - 1));
        r->pos += n;
        return value;
    }
    for (unsigned b = 0; b < n; b++) value |= dz_get_bit(r) << b;
    return value;
}

/* 1 if all bytes were used and no bit beyond them. */
static inline int dz_bits_at_end(const dz_bit_reader *r) { return r->pos <= r->end && r->end - r->pos < 8; }

#endif
