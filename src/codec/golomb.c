#include "codec/golomb.h"

/* Of gaps whose places are each free with chance q, k + 1 / (1 - q^(2^k)) bits are wanted. With y = q^(2^k), one more k is worth it as long
 * as y^2 + y > 1. */
#define GOLDEN 0.6180339887498949

unsigned dz_rice_parameter(size_t count, size_t kept) {
    unsigned k = 0;
    if (kept == 0) return 0;
    for (double y = 1 - (double)kept / (double)count; k < 31 && y > GOLDEN; y *= y) k++;
    return k;
}

typedef struct bit_writer {
    dz_buf *out;
    uint64_t bits;
    unsigned used;
    dz_error *err;
} bit_writer;

static void put_bits(bit_writer *w, uint32_t value, unsigned n) { /* n <= 32 */
    w->bits |= (uint64_t)value << w->used;
    w->used += n;
    while (w->used >= 8) {
        uint8_t byte = (uint8_t)w->bits;
        dz_buf_put(w->out, &byte, 1, w->err);
        w->bits >>= 8;
        w->used -= 8;
    }
}

dz_rc dz_rice_encode(dz_buf *out, const uint32_t *positions, const uint8_t *mark, size_t n, unsigned parameter, dz_error *err) {
    bit_writer w = {.out = out, .err = err};
    uint32_t next = 0;
    if (dz_buf_reserve(out, n + 16, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        uint32_t gap = positions[i] - next, q = gap >> parameter;
        next = positions[i] + 1;
        for (; q >= 16; q -= 16) put_bits(&w, 0xffff, 16);
        put_bits(&w, (1U << q) - 1, q + 1);
        put_bits(&w, gap & (uint32_t)(((uint64_t)1 << parameter) - 1), parameter);
        if (mark) put_bits(&w, mark[i] & 1, 1);
    }
    if (w.used) put_bits(&w, 0, 8 - w.used);
    return err->rc;
}

typedef struct bit_reader {
    const uint8_t *bytes;
    uint64_t pos, end; /* in bits */
} bit_reader;

/* The next bit; 0 past the end (the caller compares pos with end). */
static unsigned get_bit(bit_reader *r) {
    unsigned bit = r->pos < r->end ? ((unsigned)r->bytes[r->pos / 8] >> (r->pos % 8)) & 1U : 0;
    r->pos++;
    return bit;
}

dz_rc dz_rice_decode(uint32_t *positions, uint8_t *mark, size_t n, unsigned parameter, size_t count, const uint8_t *bytes, size_t nbytes,
                     dz_error *err) {
    bit_reader r = {.bytes = bytes, .end = 8 * (uint64_t)nbytes};
    uint64_t next = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t gap = 0;
        while (get_bit(&r)) gap++;
        gap <<= parameter;
        for (unsigned b = 0; b < parameter; b++) gap |= (uint64_t)get_bit(&r) << b;
        if (mark) mark[i] = (uint8_t)get_bit(&r);
        if (r.pos > r.end || gap >= count || next + gap >= count) return dz_fail(err, DZ_EDAMAGE, "positions run past the block");
        positions[i] = (uint32_t)(next + gap);
        next += gap + 1;
    }
    if (nbytes != (r.pos + 7) / 8) return dz_fail(err, DZ_EDAMAGE, "positions leave bytes over");
    return DZ_OK;
}
