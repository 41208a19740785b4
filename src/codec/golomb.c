#include "codec/golomb.h"

#include "codec/bits.h"

/* Of gaps whose places are each free with chance q, k + 1 / (1 - q^(2^k)) bits are wanted. With y = q^(2^k), one more k is worth it as long
 * as y^2 + y > 1. */
#define GOLDEN 0.6180339887498949

unsigned dz_rice_parameter(size_t count, size_t kept) {
    unsigned k = 0;
    if (kept == 0) return 0;
    for (double y = 1 - (double)kept / (double)count; k < 31 && y > GOLDEN; y *= y) k++;
    return k;
}

dz_rc dz_rice_encode(dz_buf *out, const uint32_t *positions, size_t n, unsigned parameter, dz_error *err) {
    dz_bit_writer w = {.out = out, .err = err};
    uint32_t next = 0;
    if (dz_buf_reserve(out, n + 16, err) != DZ_OK) return err->rc;
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) {
        dz_put_rice(&w, positions[i] - next, parameter);
        next = positions[i] + 1;
    }
    return dz_end_bits(&w);
}

dz_rc dz_rice_decode(uint32_t *positions, size_t n, unsigned parameter, size_t count, const uint8_t *bytes, size_t nbytes, dz_error *err) {
    dz_bit_reader r = {.bytes = bytes, .end = 8 * (uint64_t)nbytes};
    uint64_t next = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t gap = 0;
        while (dz_get_bit(&r)) gap++;
        gap = gap << parameter | dz_get_bits(&r, parameter);
        if (r.pos > r.end || gap >= count || next + gap >= count) return dz_fail(err, DZ_EDAMAGE, "positions run past the block");
        positions[i] = (uint32_t)(next + gap);
        next += gap + 1;
    }
    if (!dz_bits_at_end(&r)) return dz_fail(err, DZ_EDAMAGE, "positions leave bytes over");
    return DZ_OK;
}
