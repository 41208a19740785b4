#include "codec/trellis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "numeric/rotate.h"
#include "numeric/trellis.h"
#include "numeric/uniform_quantiser.h"

#define LEAST_STD 0x1p-120 /* of a block that is kept: what the search makes of it stays within f32 */
#define NOTHING 0          /* the whole body of a tile without a message: DZ_SPARSE_NONE */

static int is_sound(float rate) { return rate > 0 && rate <= (float)DZ_TRELLIS_RATE_MOST; }

uint64_t dz_trellis_message_bits(size_t count, double rate) {
    size_t nblocks = dz_rotate_blocks(count);
    return (nblocks - 1) * (uint64_t)dz_trellis_bits(DZ_ROTATE_BLOCK, rate) + dz_trellis_bits(dz_rotate_length(count, nblocks - 1), rate);
}

/* ---- encode ---- */

typedef struct sink {
    uint8_t *numbers; /* of the blocks' amplitudes, 0 where nothing is kept */
    uint8_t *bits;    /* all messages, one after the other */
    uint64_t nbits;
    uint8_t *message; /* of one block */
    dz_trellis_room room;
} sink;

static void append_bits(sink *s, size_t nbits) {
    for (size_t i = 0; i < (nbits + 7) / 8; i++) {
        unsigned shift = s->nbits % 8, byte = s->message[i];
        uint8_t *at = s->bits + s->nbits / 8 + i;
        at[0] = (uint8_t)(at[0] | byte << shift);
        at[1] = (uint8_t)(byte >> (8 - shift));
    }
    s->nbits += nbits;
}

static dz_rc put_block(sink *s, size_t block, const float *x, size_t n, float rate, uint64_t *nonzeros, dz_error *err) {
    double std = dz_std_about_zero(x, n);
    size_t nbits = dz_trellis_bits(n, (double)rate);
    if (!isfinite(std)) return dz_fail(err, DZ_EVALUE, "differences are not finite, or too large");
    if (!(std >= LEAST_STD)) return DZ_OK; /* nothing is kept */
    double product;
    if (dz_trellis_search(&s->room, s->message, &product, x, n, std, nbits, err) != DZ_OK) return err->rc;
    /* at this size of all coefficients the inner product of the block with the estimate is that with itself */
    unsigned e = product > 0 ? dz_std_number(std * (double)n / product) : 0;
    if (e > DZ_STD_NUMBER_MOST) return dz_fail(err, DZ_EVALUE, "differences are not finite, or too large");
    if (e == 0 || dz_std_of_number(e) < 0x1p-126f) return DZ_OK;
    s->numbers[2 * block] = (uint8_t)e;
    s->numbers[2 * block + 1] = (uint8_t)(e >> 8);
    append_bits(s, nbits);
    *nonzeros += n;
    return DZ_OK;
}

dz_rc dz_trellis_encode(dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, float rate, uint64_t *nonzeros,
                        dz_error *err) {
    *nonzeros = 0;
    if (!is_sound(rate)) return dz_fail(err, DZ_EFAIL, "a rate of %g bits", (double)rate);
    size_t nblocks = dz_rotate_blocks(count), longest = dz_rotate_length(count, nblocks - 1);
    sink s = {.numbers = dz_alloc(nblocks, 2, err),
              .bits = dz_alloc((size_t)(dz_trellis_message_bits(count, (double)rate) / 8) + 3, 1, err),
              .message = dz_alloc_raw(longest / 8 + 1, 1, err)};
    float *delta = dz_alloc_raw(longest, sizeof *delta, err);
    for (size_t b = 0; b < nblocks && err->rc == DZ_OK; b++) { /* a block stays in the second-level cache */
        fill(tile, dz_rotate_first(count, b), dz_rotate_length(count, b), delta);
        dz_rotate_block(delta, count, key, b);
        put_block(&s, b, delta, dz_rotate_length(count, b), rate, nonzeros, err);
    }
    free(delta);
    if (*nonzeros) {
        dz_buf_put(out, (uint8_t[]){DZ_BODY_TRELLIS, DZ_TRELLIS_MEMORY}, 2, err);
        dz_buf_put(out, s.numbers, 2 * nblocks, err);
        dz_buf_put(out, s.bits, (size_t)((s.nbits + 7) / 8), err);
    } else {
        dz_buf_put(out, (uint8_t[]){NOTHING}, 1, err);
    }
    free(s.numbers);
    free(s.bits);
    free(s.message);
    dz_trellis_room_free(&s.room);
    return err->rc;
}

/* ---- decode ---- */

static unsigned number_at(const uint8_t *numbers, size_t block) { return numbers[2 * block] | (unsigned)numbers[2 * block + 1] << 8; }

/* Whether the messages of the blocks are all of the `rest` bytes behind the numbers, without a bit beyond. */
static int fits(const uint8_t *numbers, const uint8_t *bits, size_t rest, size_t count, float rate, dz_error *err) {
    uint64_t nbits = 0;
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) {
        unsigned e = number_at(numbers, b);
        if (e == 0) continue;
        if (e > DZ_STD_NUMBER_MOST || dz_std_of_number(e) < 0x1p-126f)
            return dz_fail(err, DZ_EDAMAGE, "a trellis block has an amplitude that cannot be"), 0;
        nbits += dz_trellis_bits(dz_rotate_length(count, b), (double)rate);
    }
    if (nbits == 0) return dz_fail(err, DZ_EDAMAGE, "a trellis block has no message"), 0;
    if (rest != (nbits + 7) / 8) return dz_fail(err, DZ_EDAMAGE, "a trellis block has a message of another length"), 0;
    if (nbits % 8 && bits[rest - 1] >> (nbits % 8)) return dz_fail(err, DZ_EDAMAGE, "a trellis block has bits beyond its message"), 0;
    return 1;
}

dz_rc dz_trellis_decode(const dz_blocks *to, const uint8_t *body, size_t nbytes, size_t count, float rate, dz_error *err) {
    if (!is_sound(rate)) return dz_fail(err, DZ_EDAMAGE, "a rate of %g bits", (double)rate);
    if (nbytes == 1 && body[0] == NOTHING) {
        for (size_t b = 0; b < dz_rotate_blocks(count); b++) dz_block_zero(to, count, b);
        return DZ_OK;
    }
    dz_view v = {.data = body, .len = nbytes};
    unsigned kind = dz_view_u8(&v), memory = dz_view_u8(&v);
    const uint8_t *numbers = dz_view_bytes(&v, 2 * (uint64_t)dz_rotate_blocks(count));
    if (kind != DZ_BODY_TRELLIS || v.bad || !numbers || memory < DZ_TRELLIS_MEMORY_LEAST || memory > DZ_TRELLIS_MEMORY_MOST)
        return dz_fail(err, DZ_EDAMAGE, "a trellis block has no sound head");
    const uint8_t *bits = v.data + v.pos;
    if (!fits(numbers, bits, v.len - v.pos, count, rate, err)) return err->rc;
    size_t at = 0;
    for (size_t b = 0; b < dz_rotate_blocks(count) && err->rc == DZ_OK; b++) {
        size_t n = dz_rotate_length(count, b), nbits = dz_trellis_bits(n, (double)rate);
        unsigned e = number_at(numbers, b);
        if (e == 0) {
            dz_block_zero(to, count, b);
            continue;
        }
        float *x = dz_block_place(to, count, b);
        if (dz_trellis_signs(x, n, bits, at, nbits, memory, dz_std_of_number(e), err) == DZ_OK) dz_block_done(to, count, b);
        at += nbits;
    }
    return err->rc;
}
