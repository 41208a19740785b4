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
    float rate;
    double noise;  /* energy of an element's; where it is above 0 the bits follow from it, not from the rate */
    dz_buf heads;  /* of the blocks */
    uint8_t *bits; /* all messages, one after the other */
    uint64_t nbits;
    uint8_t *message; /* of one block */
    uint64_t nonzeros;
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

/* Number of the amplitude, 0 where nothing is kept: at this size of all coefficients the inner product of the block with the estimate is
 * that with itself. */
static dz_rc search(sink *s, const float *x, size_t n, double std, size_t nbits, unsigned *number, dz_error *err) {
    double product;
    *number = 0;
    if (!isfinite(std)) return dz_fail(err, DZ_EVALUE, "differences are not finite, or too large");
    if (!(std >= LEAST_STD) || nbits == 0) return DZ_OK;
    if (dz_trellis_search(&s->room, s->message, &product, x, n, std, nbits, err) != DZ_OK) return err->rc;
    unsigned e = product > 0 ? dz_std_number(std * (double)n / product) : 0;
    if (e > DZ_STD_NUMBER_MOST) return dz_fail(err, DZ_EVALUE, "differences are not finite, or too large");
    if (e > 0 && dz_std_of_number(e) >= 0x1p-126f) *number = e;
    return DZ_OK;
}

static dz_rc put_block(sink *s, const float *x, size_t n, dz_error *err) {
    double std = dz_std_about_zero(x, n), left;
    size_t nbits = s->noise > 0 ? dz_trellis_bits_for(n, std * std * (double)n, s->noise, &left) : dz_trellis_bits(n, (double)s->rate);
    unsigned number;
    if (search(s, x, n, std, nbits, &number, err) != DZ_OK) return err->rc;
    if (s->noise > 0) dz_buf_put_varint(&s->heads, number ? nbits : 0, err);
    if (s->noise <= 0 || number) dz_buf_put(&s->heads, (uint8_t[]){(uint8_t)number, (uint8_t)(number >> 8)}, 2, err);
    if (number == 0) return err->rc;
    append_bits(s, nbits);
    s->nonzeros += n;
    return err->rc;
}

static dz_rc encode(sink *s, dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, dz_error *err) {
    size_t nblocks = dz_rotate_blocks(count), longest = dz_rotate_length(count, nblocks - 1);
    uint64_t most = s->noise > 0 ? count : dz_trellis_message_bits(count, (double)s->rate);
    s->bits = dz_alloc((size_t)(most / 8) + 3, 1, err);
    s->message = dz_alloc_raw(longest / 8 + 1, 1, err);
    float *delta = dz_alloc_raw(longest, sizeof *delta, err);
    for (size_t b = 0; b < nblocks && err->rc == DZ_OK; b++) { /* a block stays in the second-level cache */
        fill(tile, dz_rotate_first(count, b), dz_rotate_length(count, b), delta);
        dz_rotate_block(delta, count, key, b);
        put_block(s, delta, dz_rotate_length(count, b), err);
    }
    free(delta);
    if (s->nonzeros) {
        dz_buf_put(out, (uint8_t[]){s->noise > 0 ? DZ_BODY_TRELLIS_EVEN : DZ_BODY_TRELLIS, DZ_TRELLIS_MEMORY}, 2, err);
        dz_buf_put(out, s->heads.data, s->heads.len, err);
        dz_buf_put(out, s->bits, (size_t)((s->nbits + 7) / 8), err);
    } else {
        dz_buf_put(out, (uint8_t[]){NOTHING}, 1, err);
    }
    dz_buf_free(&s->heads);
    free(s->bits);
    free(s->message);
    dz_trellis_room_free(&s->room);
    return err->rc;
}

dz_rc dz_trellis_encode(dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, float rate, uint64_t *nonzeros,
                        dz_error *err) {
    sink s = {.rate = rate};
    *nonzeros = 0;
    if (!is_sound(rate)) return dz_fail(err, DZ_EFAIL, "a rate of %g bits", (double)rate);
    encode(&s, out, fill, tile, count, key, err);
    *nonzeros = s.nonzeros;
    return err->rc;
}

dz_rc dz_trellis_encode_evenly(dz_buf *out, dz_delta_fill fill, const void *tile, size_t count, uint64_t key, double noise,
                               uint64_t *nonzeros, dz_error *err) {
    sink s = {.noise = noise};
    *nonzeros = 0;
    if (!(noise > 0)) return dz_fail(err, DZ_EFAIL, "a noise of %g", noise);
    encode(&s, out, fill, tile, count, key, err);
    *nonzeros = s.nonzeros;
    return err->rc;
}

/* ---- decode ---- */

/* What is said of a block. */
typedef struct block_head {
    unsigned number; /* of its amplitude; 0: it has no message */
    size_t nbits;
} block_head;

/* That of a block of n elements. `even`: it has bits of its own. */
static block_head take_head(dz_view *v, size_t n, int even, float rate) {
    block_head h = {.nbits = dz_trellis_bits(n, (double)rate)};
    uint64_t own = even ? dz_view_varint(v) : 1;
    if (own > n) v->bad = 1;
    if (own == 0 || v->bad) return h;
    h.number = dz_view_u8(v);
    h.number |= (unsigned)dz_view_u8(v) << 8;
    if (even) h.nbits = (size_t)own;
    if (even && h.number == 0) v->bad = 1;
    return h;
}

/* Where the messages of the blocks begin, whose heads begin in `v`; NULL where they are not all of the rest of it, without a bit beyond. */
static const uint8_t *find_messages(dz_view v, size_t count, int even, float rate, dz_error *err) {
    uint64_t nbits = 0;
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) {
        block_head h = take_head(&v, dz_rotate_length(count, b), even, rate);
        if (v.bad) return dz_fail(err, DZ_EDAMAGE, "a trellis block has no sound head"), NULL;
        if (h.number == 0) continue;
        if (h.number > DZ_STD_NUMBER_MOST || dz_std_of_number(h.number) < 0x1p-126f)
            return dz_fail(err, DZ_EDAMAGE, "a trellis block has an amplitude that cannot be"), NULL;
        nbits += h.nbits;
    }
    size_t rest = v.len - v.pos;
    if (nbits == 0) return dz_fail(err, DZ_EDAMAGE, "a trellis block has no message"), NULL;
    if (rest != (nbits + 7) / 8) return dz_fail(err, DZ_EDAMAGE, "a trellis block has a message of another length"), NULL;
    if (nbits % 8 && v.data[v.len - 1] >> (nbits % 8)) return dz_fail(err, DZ_EDAMAGE, "a trellis block has bits beyond its message"), NULL;
    return v.data + v.pos;
}

dz_rc dz_trellis_decode(const dz_blocks *to, const uint8_t *body, size_t nbytes, size_t count, float rate, dz_error *err) {
    if (!is_sound(rate)) return dz_fail(err, DZ_EDAMAGE, "a rate of %g bits", (double)rate);
    if (nbytes == 1 && body[0] == NOTHING) {
        for (size_t b = 0; b < dz_rotate_blocks(count); b++) dz_block_zero(to, count, b);
        return DZ_OK;
    }
    dz_view v = {.data = body, .len = nbytes};
    unsigned kind = dz_view_u8(&v), memory = dz_view_u8(&v);
    int even = kind == DZ_BODY_TRELLIS_EVEN;
    if ((kind != DZ_BODY_TRELLIS && !even) || v.bad || memory < DZ_TRELLIS_MEMORY_LEAST || memory > DZ_TRELLIS_MEMORY_MOST)
        return dz_fail(err, DZ_EDAMAGE, "a trellis block has no sound head");
    const uint8_t *bits = find_messages(v, count, even, rate, err);
    if (!bits) return err->rc;
    size_t at = 0;
    for (size_t b = 0; b < dz_rotate_blocks(count) && err->rc == DZ_OK; b++) {
        size_t n = dz_rotate_length(count, b);
        block_head h = take_head(&v, n, even, rate);
        if (h.number == 0) {
            dz_block_zero(to, count, b);
            continue;
        }
        float *x = dz_block_place(to, count, b);
        if (dz_trellis_signs(x, n, bits, at, h.nbits, memory, dz_std_of_number(h.number), err) == DZ_OK) dz_block_done(to, count, b);
        at += h.nbits;
    }
    return err->rc;
}
