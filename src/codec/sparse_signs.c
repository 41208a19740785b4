#include "codec/sparse_signs.h"

#include <math.h>
#include <stdlib.h>

#include "codec/bits.h"
#include "numeric/kernels.h"
#include "numeric/rotate.h"

/* A standard deviation as a number e: 2^((e - BIAS) / 16), 0 for none. */
#define BIAS 2560
#define LARGEST 4608

static const float SIXTEENTHS[16] = {0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fe0p+0f, 0x1.3dea64p+0f,
                                     0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
                                     0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

static float std_of(unsigned e) { return e == 0 ? 0 : ldexpf(SIXTEENTHS[e % 16], (int)(e / 16) - BIAS / 16); }

static unsigned number_of(double std) {
    if (!(std > 0)) return 0;
    int exponent;
    float m = (float)(2 * frexp(std, &exponent)); /* in [1, 2) */
    unsigned k = 15;
    while (k > 0 && SIXTEENTHS[k] > m) k--;
    float next = k < 15 ? SIXTEENTHS[k + 1] : 2;
    int e = 16 * (exponent - 1) + (int)k + (m * m > SIXTEENTHS[k] * next) + BIAS;
    return e < 1 ? 1 : e > LARGEST ? LARGEST : (unsigned)e;
}

/* Standard deviation about 0, added up in a fixed order. */
static double std_from_zero(const float *x, size_t n) {
    double sum[DZ_LANES] = {0};
    dz_kernels()->energy(sum, x, n);
    return n ? sqrt(dz_lanes_total(sum) / (double)n) : 0;
}

/* The sections of a block of n elements: pairs of 2^log elements each, of which `split` are halved, spread evenly. What lies past the
 * block's end is not there: the last may be shorter or none. */
typedef struct walk {
    size_t n, pairs, split; /* pairs and split ones of them */
    size_t pair, half;      /* the next section */
    unsigned log;
} walk;

static walk walk_of(size_t n, double share) {
    double wanted = rint(share * (double)n);
    size_t sections = !(wanted >= 1) ? 1 : wanted > (double)n ? n : (size_t)wanted;
    walk w = {.n = n};
    while (sections << (w.log + 1) <= n) w.log++;
    w.pairs = ((n - 1) >> (w.log + 1)) + 1;
    w.split = sections > w.pairs ? sections - w.pairs : 0;
    return w;
}

/* The next section's first element, its length in `len`; 0 elements at the end. */
static size_t next_section(walk *w, size_t *len) {
    while (w->pair < w->pairs) {
        int split = w->pair * w->split % w->pairs < w->split;
        size_t first = (w->pair << (w->log + 1)) + (w->half << w->log), most = (size_t)2 << w->log >> split;
        w->half = split && w->half == 0;
        w->pair += w->half == 0;
        if (first >= w->n) continue;
        *len = w->n - first < most ? w->n - first : most;
        return first;
    }
    *len = 0;
    return w->n;
}

/* Bits of a place among len elements. */
static unsigned place_bits(size_t len) { return len <= 1 ? 0 : 32 - (unsigned)__builtin_clz((uint32_t)len - 1); }

static double block_bits(size_t n, double share) {
    walk w = walk_of(n, share);
    return (double)(w.pairs - w.split) * (w.log + 2) + 2 * (double)w.split * (w.log + 1);
}

double dz_signs_bits(size_t count, double share) {
    size_t nblocks = dz_rotate_blocks(count), last = count - dz_rotate_first(count, nblocks - 1);
    return (double)(nblocks - 1) * block_bits(DZ_ROTATE_BLOCK, share) + block_bits(last, share);
}

/* One section: sign and place of its largest element. */
static void put_section(dz_bit_writer *w, const float *x, size_t place, unsigned bits, uint64_t signs[2]) {
    unsigned positive = x[place] > 0;
    dz_put_bits(w, positive | (uint32_t)place << 1, bits + 1);
    signs[positive]++;
}

#define PAIRS_AT_ONCE 256

static void put_block(dz_bit_writer *w, const float *x, size_t n, double share, uint64_t signs[2]) {
    uint32_t size[2 * PAIRS_AT_ONCE + 16], place[2 * PAIRS_AT_ONCE + 16];
    walk s = walk_of(n, share);
    const unsigned log = s.log;
    const size_t half = (size_t)1 << log, whole = n >> (log + 1);
    size_t turn = 0, len; /* turn: pair * split % pairs */
    for (size_t pair = 0; pair < whole; pair++) {
        size_t i = pair % PAIRS_AT_ONCE, left = whole - pair;
        const float *at = x + (pair << (log + 1));
        if (i == 0) dz_kernels()->largest_of_runs(size, place, at, log, 2 * (left < PAIRS_AT_ONCE ? left : PAIRS_AT_ONCE));
        if (turn < s.split) {
            put_section(w, at, place[2 * i], log, signs);
            put_section(w, at + half, place[2 * i + 1], log, signs);
        } else {
            size_t second = size[2 * i + 1] > size[2 * i];
            put_section(w, at, place[2 * i + second] + (second << log), log + 1, signs);
        }
        turn += s.split;
        turn -= turn >= s.pairs ? s.pairs : 0;
    }
    s.pair = whole; /* what is left: a shorter one */
    for (size_t first = next_section(&s, &len); len; first = next_section(&s, &len))
        put_section(w, x + first, dz_kernels()->largest(x + first, len), place_bits(len), signs);
}

dz_rc dz_signs_encode(dz_buf *out, float *delta, size_t count, uint64_t key, double share, uint64_t signs[2], dz_error *err) {
    size_t nblocks = dz_rotate_blocks(count);
    unsigned *number = dz_alloc(nblocks, sizeof *number, err), any = 0;
    dz_buf places = {0};
    dz_bit_writer w = {.out = &places, .err = err};
    signs[0] = signs[1] = 0;
    dz_buf_reserve(&places, (size_t)(dz_signs_bits(count, share) / 8) + 16, err);
    for (size_t b = 0; b < nblocks && err->rc == DZ_OK; b++) { /* a block stays in the second-level cache */
        size_t first = dz_rotate_first(count, b), n = dz_rotate_first(count, b + 1) - first;
        dz_rotate_block(delta + first, count, key, b);
        number[b] = number_of(std_from_zero(delta + first, n));
        any |= number[b];
        if (number[b]) put_block(&w, delta + first, n, share, signs);
    }
    dz_end_bits(&w);
    dz_buf_put(out, (uint8_t[]){any ? DZ_SPARSE_SIGNS : DZ_SPARSE_NONE}, 1, err);
    for (size_t b = 0; any && b < nblocks && err->rc == DZ_OK; b++) dz_buf_put_varint(out, number[b], err);
    dz_buf_put(out, places.data, places.len, err);
    dz_buf_free(&places);
    free(number);
    return err->rc;
}

static dz_rc get_block(dz_nonzeros *kept, dz_bit_reader *r, size_t start, size_t n, unsigned number, double share, dz_error *err) {
    size_t len, from = kept->count;
    walk sections = walk_of(n, share);
    for (size_t first = next_section(&sections, &len); len; first = next_section(&sections, &len)) {
        unsigned positive = dz_get_bit(r);
        size_t place = dz_get_bits(r, place_bits(len));
        if (place >= len || r->pos > r->end)
            return dz_fail(err, DZ_EDAMAGE, "a block of signs is cut short, or a place is past its section");
        kept->index[kept->count] = (uint32_t)(start + first + place);
        kept->level[kept->count++] = (uint8_t)positive;
    }
    float value = std_of(number) * ((float)n / (float)(kept->count - from));
    for (size_t i = from; i < kept->count; i++) kept->value[i] = kept->level[i] ? value : -value;
    return DZ_OK;
}

dz_rc dz_signs_decode(dz_nonzeros *kept, const uint8_t *body, size_t nbytes, size_t count, double share, dz_error *err) {
    dz_view v = {.data = body, .len = nbytes};
    size_t nblocks = dz_rotate_blocks(count), most = 0;
    unsigned kind = dz_view_u8(&v);
    kept->count = 0;
    if (kind == DZ_SPARSE_NONE && nbytes == 1) return DZ_OK;
    uint64_t *number = dz_alloc(nblocks, sizeof *number, err);
    if (!number) return err->rc;
    for (size_t b = 0; b < nblocks; b++) {
        number[b] = dz_view_varint(&v);
        v.bad |= number[b] > LARGEST;
        walk w = walk_of(dz_rotate_first(count, b + 1) - dz_rotate_first(count, b), share);
        if (number[b]) most += w.pairs + w.split;
    }
    if (kind != DZ_SPARSE_SIGNS || v.bad || most == 0) {
        dz_fail(err, DZ_EDAMAGE, "a block of signs has an invalid head");
        goto out;
    }
    if (dz_nonzeros_reserve(kept, most, err) != DZ_OK) goto out;
    dz_bit_reader r = {.bytes = v.data + v.pos, .end = 8 * (uint64_t)(v.len - v.pos)};
    for (size_t b = 0; b < nblocks && err->rc == DZ_OK; b++) {
        size_t first = dz_rotate_first(count, b), end = dz_rotate_first(count, b + 1);
        if (number[b]) get_block(kept, &r, first, end - first, (unsigned)number[b], share, err);
    }
    if (err->rc == DZ_OK && !dz_bits_at_end(&r)) dz_fail(err, DZ_EDAMAGE, "a block of signs leaves bytes over");
out:
    free(number);
    return err->rc;
}
