/* Lossy bodies of every kind, and factors of channels and predictions before them. Input: bits, count u16, key u64 (whose upper 24 bits are
 * the share of signs; of levels for all, its lower half is the step as f32, and the 16 bits above it the shift), then the body. */
#include <math.h>

#include "codec/channels.h"
#include "codec/prediction.h"
#include "codec/sparse_signs.h"
#include "codec/sparse_values.h"
#include "codec/trellis.h"
#include "codec/uniform.h"
#include "target.h"

static void check(const dz_nonzeros *kept, size_t count, unsigned bits) {
    PROMISE(kept->count <= count);
    for (size_t i = 0; i < kept->count; i++) {
        PROMISE(kept->index[i] < count && (i == 0 || kept->index[i] > kept->index[i - 1]));
        PROMISE(bits > 8 || kept->level[i] < 1U << bits);
    }
}

static void uniform(const uint8_t *body, size_t size, uint64_t key, size_t count, dz_error *err) {
    static float y[65536];
    float step = dz_bits_to_float((uint32_t)key), shift = (float)(key >> 32 & 0xffff) / 65536;
    dz_rc rc = dz_uniform_decode(&(dz_blocks){.x = y}, body, size, count, step, shift, err);
    for (size_t i = 0; rc == DZ_OK && i < count; i++) PROMISE(!isnan(y[i]));
}

static void trellis(const uint8_t *body, size_t size, uint64_t key, size_t count, dz_error *err) {
    static float y[1 << 16];
    dz_rc rc = dz_trellis_decode(&(dz_blocks){.x = y}, body, size, count, dz_bits_to_float((uint32_t)key), err);
    for (size_t i = 0; rc == DZ_OK && i < count; i++) PROMISE(isfinite(y[i]));
}

/* The factors that a body of all coefficients may begin with; how many bytes they take. */
static size_t channels(const uint8_t *body, size_t size, size_t count, dz_error *err) {
    static int8_t codes[1 << 16];
    static float x[1 << 16];
    dz_channels c = {0};
    dz_view v = {.data = body, .len = size, .pos = 1};
    if (size == 0 || body[0] != DZ_BODY_CHANNELS || dz_channels_take(&c, codes, &v, count, err) != DZ_OK) return 0;
    PROMISE(c.count > 0 && c.count * c.stride <= count && v.pos <= size);
    for (size_t i = 0; i < count; i++) x[i] = 1;
    dz_channels_apply(x, count, 3, &c, 1);
    for (size_t i = 0; i < count; i++) PROMISE(x[i] > 0 && isfinite(x[i]));
    return v.pos;
}

/* The prediction that may follow them. */
static size_t prediction(const uint8_t *body, size_t size, size_t count, dz_error *err) {
    static float x[1 << 16];
    dz_lowrank p;
    dz_view v = {.data = body, .len = size, .pos = 1};
    if (size == 0 || body[0] != DZ_BODY_PREDICTED || dz_lowrank_get(&p, DZ_F32, count, &v, err) != DZ_OK) return 0;
    PROMISE(p.rank > 0 && p.columns <= count && v.pos <= size);
    memset(x, 0, count * sizeof *x);
    dz_prediction_add(x, 0, count / 3, &p, 1);
    dz_prediction_add(x + count / 3, count / 3, count - count / 3, &p, 1);
    for (size_t i = 0; i < count; i++) PROMISE(isfinite(x[i]));
    dz_lowrank_free(&p);
    return v.pos;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static dz_nonzeros kept;
    if (size < 11 || size > 1 << 18) return 0;
    unsigned bits = data[0];
    size_t count = (size_t)data[1] | (size_t)data[2] << 8;
    dz_view view = {.data = data, .len = size, .pos = 3};
    uint64_t key = dz_view_u64(&view);
    uint8_t *body = guarded(0, size - 11);
    memcpy(body, data + 11, size - 11);
    dz_error err = {0};
    if (dz_kind_is_dense(bits)) {
        size_t head = channels(body, size - 11, count + 1, &err);
        body += head;
        size -= head;
        head = head && err.rc == DZ_OK ? prediction(body, size - 11, count + 1, &err) : 0;
        body += head;
        size -= head;
    }
    if (err.rc != DZ_OK)
        promise_error(&err);
    else if (bits == DZ_BITS_TRELLIS)
        trellis(body, size - 11, key, count + 1, &err);
    else if (bits == DZ_BITS_UNIFORM)
        uniform(body, size - 11, key, count + 1, &err);
    else if (bits == 17)
        dz_signs_decode(&kept, body, size - 11, count + 1, (double)(key >> 40) / (1 << 24), &err); /* no tile is empty */
    else if (bits > 8)
        dz_values_decode(&kept, body, size - 11, key, count, &err);
    else
        dz_nonzeros_decode(&kept, body, size - 11, key, count, bits, &err);
    if (err.rc == DZ_OK && !dz_kind_is_dense(bits)) check(&kept, count + (bits == 17), bits);
    promise_error(&err);
    return 0;
}
