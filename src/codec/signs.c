#include "codec/signs.h"

#include <math.h>
#include <stdlib.h>

#include "codec/golomb.h"
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
    for (size_t i = 0; i < n; i += DZ_LANES) {
        size_t len = n - i < DZ_LANES ? n - i : DZ_LANES;
        for (size_t j = 0; j < len; j++) sum[j] += (double)x[i + j] * (double)x[i + j];
    }
    return n ? sqrt(dz_lanes_total(sum) / (double)n) : 0;
}

static void take_block(dz_kept *kept, const float *x, size_t first, size_t end, float limit, uint64_t signs[2]) {
    for (size_t i = first; i < end; i++) {
        if (!(x[i] > limit || x[i] < -limit)) continue;
        unsigned positive = x[i] > 0;
        kept->index[kept->count] = (uint32_t)i;
        kept->level[kept->count++] = (uint8_t)positive;
        signs[positive]++;
    }
}

dz_rc dz_signs_encode(dz_buf *out, float *delta, size_t count, uint64_t key, double threshold, uint64_t signs[2], dz_error *err) {
    size_t nblocks = dz_rotate_blocks(count);
    dz_kept kept = {0};
    unsigned *number = dz_alloc(nblocks, sizeof *number, err);
    signs[0] = signs[1] = 0;
    if (!number || dz_kept_reserve(&kept, count, err) != DZ_OK) goto out;
    dz_rotate(delta, count, key);
    for (size_t b = 0; b < nblocks; b++) {
        size_t first = dz_rotate_first(count, b), end = dz_rotate_first(count, b + 1);
        double std = std_from_zero(delta + first, end - first);
        number[b] = number_of(std);
        if (number[b]) take_block(&kept, delta, first, end, (float)(threshold * std), signs);
    }
    if (kept.count == 0) {
        dz_buf_put(out, (uint8_t[]){DZ_KEPT_NONE}, 1, err);
        goto out;
    }
    unsigned parameter = dz_rice_parameter(count, kept.count);
    uint8_t head[2] = {DZ_KEPT_SIGNS, (uint8_t)parameter};
    dz_buf_put(out, head, sizeof head, err);
    dz_buf_put_varint(out, kept.count, err);
    for (size_t b = 0; b < nblocks; b++) dz_buf_put_varint(out, number[b], err);
    dz_rice_encode(out, kept.index, kept.level, kept.count, parameter, err);
out:
    free(number);
    dz_kept_free(&kept);
    return err->rc;
}

dz_rc dz_signs_decode(dz_kept *kept, const uint8_t *body, size_t nbytes, size_t count, dz_error *err) {
    dz_view v = {.data = body, .len = nbytes};
    unsigned kind = dz_view_u8(&v);
    kept->count = 0;
    if (kind == DZ_KEPT_NONE && nbytes == 1) return DZ_OK;
    unsigned parameter = dz_view_u8(&v);
    uint64_t n = dz_view_varint(&v);
    if (kind != DZ_KEPT_SIGNS || v.bad || n == 0 || n > count || parameter > 31)
        return dz_fail(err, DZ_EDAMAGE, "a block of signs has no sound head");
    size_t nblocks = dz_rotate_blocks(count), at = 0;
    uint64_t *number = dz_alloc(nblocks, sizeof *number, err);
    if (!number || dz_kept_reserve(kept, (size_t)n, err) != DZ_OK) goto out;
    for (size_t b = 0; b < nblocks; b++) {
        number[b] = dz_view_varint(&v);
        if (v.bad || number[b] > LARGEST) {
            dz_fail(err, DZ_EDAMAGE, "a block of signs has no sound head");
            goto out;
        }
    }
    if (dz_rice_decode(kept->index, kept->level, (size_t)n, parameter, count, v.data + v.pos, v.len - v.pos, err) != DZ_OK) goto out;
    kept->count = (size_t)n;
    for (size_t b = 0; b < nblocks; b++) {
        size_t first = dz_rotate_first(count, b), end = dz_rotate_first(count, b + 1), from = at;
        while (at < n && kept->index[at] < end) at++;
        float value = at > from ? std_of((unsigned)number[b]) * ((float)(end - first) / (float)(at - from)) : 0;
        for (size_t i = from; i < at; i++) kept->value[i] = kept->level[i] ? value : -value;
    }
out:
    free(number);
    return err->rc;
}
